/*
 * mobile_plan.h
 *		What mobile numbers look like: the data behind crm.mobile.
 *
 * Each calling code has the shortest and longest national mobile number and
 * the meaning of a leading zero.  Eleven plans list their mobile ranges too,
 * in the notation that numbering plans use: X is any digit, N is 2 to 9,
 * [..] one of a set, ! before a range takes it out again; a range has all
 * digits of the number, so that its length is checked with it.
 *
 * Ranges follow the designation of the plan where it is coarser than the
 * blocks handed out today: a number in a block that is not yet in use does
 * less harm than a customer who is refused.  Plans only ever get wider here,
 * never narrower, because a stored number must stay readable in a dump.
 *
 * The facts were taken from the metadata of libphonenumber 8.13.48
 * (Apache-2.0); doc/mobile.md names the plan behind each list.
 */
#ifndef CRM_MOBILE_PLAN_H
#define CRM_MOBILE_PLAN_H

typedef enum ZeroRule
{
	ZERO_NEVER, /* no mobile number is written with it */
	ZERO_TRUNK, /* dialled inside the country, not part of it */
	ZERO_PART,  /* the first digit of some numbers */
	ONE_TRUNK   /* the trunk digit is 1 */
} ZeroRule;

typedef struct MobilePlan
{
	int16 code;    /* the country calling code */
	int8 shortest; /* digits without code and trunk digit */
	int8 longest;
	int8 zero;                 /* a ZeroRule */
	const char *const *ranges; /* NULL: the length alone decides */
} MobilePlan;

/* clang-format off */

/*
 * The North American plan does not tell mobile from fixed: every geographic
 * number may be either.  Taken out are area codes of services: personal
 * numbers, toll-free, premium, and codes held back.
 */
static const char *const north_america[] = {
	"N[02-8]XNXXXXXX", "N1[02-9]NXXXXXX",
	"!37XXXXXXXX", "!96XXXXXXXX",
	"!500XXXXXXX", "!52[1-9]XXXXXXX", "!533XXXXXXX", "!544XXXXXXX",
	"!566XXXXXXX", "!577XXXXXXX", "!588XXXXXXX",
	"!600XXXXXXX", "!622XXXXXXX", "!700XXXXXXX", "!710XXXXXXX",
	"!800XXXXXXX", "!822XXXXXXX", "!833XXXXXXX", "!844XXXXXXX",
	"!855XXXXXXX", "!866XXXXXXX", "!877XXXXXXX", "!888XXXXXXX",
	"!900XXXXXXX",
	NULL
};

/* 069 is overseas, with calling codes of its own, but for 0695, 0698 and 0699 */
static const char *const france[] = {
	"6[0-24-8]XXXXXXX", "63[0-8]XXXXXX", "69[589]XXXXXX",
	"7[3-9]XXXXXXX",
	NULL
};

/* 070 is for personal numbers, 076 for pagers but for the Isle of Man */
static const char *const united_kingdom[] = {
	"7[1-57-9]XXXXXXXX", "7624XXXXXX",
	NULL
};

static const char *const germany[] = {
	"15XXXXXXXXX",
	"16[023]XXXXXXX", "16[023]XXXXXXXX",
	"17[0-57-9]XXXXXXX", "176XXXXXXXX",
	NULL
};

static const char *const singapore[] = {
	"80[1-9]XXXXX", "8[1-9]XXXXXX", "9[0-8]XXXXXX",
	NULL
};

static const char *const japan[] = {
	"[7-9]0[1-9]XXXXXXX",
	NULL
};

/* 010 has eight digits more, the older codes seven or eight */
static const char *const korea[] = {
	"1[0-26-9]XXXXXXX", "1[0-26-9]XXXXXXXX",
	NULL
};

/* by three digits; 1740 is a satellite service */
static const char *const china[] = {
	"13XXXXXXXXX", "18XXXXXXXXX", "15[0-35-9]XXXXXXXX",
	"19[0-35-9]XXXXXXXX", "17[0-35-8]XXXXXXXX", "14[57]XXXXXXXX",
	"16[25-7]XXXXXXXX", "1740[0-5]XXXXXX",
	NULL
};

static const char *const hong_kong[] = {
	"4XXXXXXX", "5[1-79]XXXXXX", "6XXXXXXX", "9[0-8]XXXXXX",
	"70[1-9]XXXXX", "84XXXXXX",
	NULL
};

static const char *const macao[] = {
	"6XXXXXXX",
	NULL
};

static const char *const taiwan[] = {
	"9[0-8]XXXXXXX",
	NULL
};

/* in the order of the codes; services without a country (800, 808) are none */
static const MobilePlan mobile_plans[] = {
	{1, 10, 10, ONE_TRUNK, north_america},
	{7, 10, 10, ZERO_NEVER, NULL},
	{20, 10, 10, ZERO_TRUNK, NULL},
	{27, 5, 9, ZERO_TRUNK, NULL},
	{30, 10, 10, ZERO_NEVER, NULL},
	{31, 9, 11, ZERO_TRUNK, NULL},
	{32, 9, 9, ZERO_TRUNK, NULL},
	{33, 9, 9, ZERO_TRUNK, france},
	{34, 9, 9, ZERO_NEVER, NULL},
	{36, 9, 9, ZERO_NEVER, NULL},
	{39, 9, 10, ZERO_NEVER, NULL},
	{40, 9, 9, ZERO_TRUNK, NULL},
	{41, 9, 9, ZERO_TRUNK, NULL},
	{43, 7, 13, ZERO_TRUNK, NULL},
	{44, 10, 10, ZERO_TRUNK, united_kingdom},
	{45, 8, 8, ZERO_NEVER, NULL},
	{46, 9, 9, ZERO_TRUNK, NULL},
	{47, 8, 8, ZERO_NEVER, NULL},
	{48, 9, 9, ZERO_NEVER, NULL},
	{49, 10, 11, ZERO_TRUNK, germany},
	{51, 9, 9, ZERO_TRUNK, NULL},
	{52, 10, 10, ZERO_NEVER, NULL},
	{53, 8, 8, ZERO_TRUNK, NULL},
	{54, 10, 11, ZERO_TRUNK, NULL},
	{55, 10, 11, ZERO_TRUNK, NULL},
	{56, 9, 9, ZERO_NEVER, NULL},
	{57, 10, 10, ZERO_TRUNK, NULL},
	{58, 10, 10, ZERO_TRUNK, NULL},
	{60, 9, 10, ZERO_TRUNK, NULL},
	{61, 9, 9, ZERO_TRUNK, NULL},
	{62, 9, 12, ZERO_TRUNK, NULL},
	{63, 10, 10, ZERO_TRUNK, NULL},
	{64, 8, 10, ZERO_TRUNK, NULL},
	{65, 8, 8, ZERO_NEVER, singapore},
	{66, 9, 9, ZERO_TRUNK, NULL},
	{81, 10, 10, ZERO_TRUNK, japan},
	{82, 9, 10, ZERO_TRUNK, korea},
	{84, 9, 9, ZERO_TRUNK, NULL},
	{86, 11, 11, ZERO_TRUNK, china},
	{90, 10, 10, ZERO_TRUNK, NULL},
	{91, 10, 10, ZERO_TRUNK, NULL},
	{92, 10, 10, ZERO_TRUNK, NULL},
	{93, 9, 9, ZERO_TRUNK, NULL},
	{94, 9, 9, ZERO_TRUNK, NULL},
	{95, 7, 10, ZERO_TRUNK, NULL},
	{98, 10, 10, ZERO_TRUNK, NULL},
	{211, 9, 9, ZERO_TRUNK, NULL},
	{212, 9, 9, ZERO_TRUNK, NULL},
	{213, 9, 9, ZERO_TRUNK, NULL},
	{216, 8, 8, ZERO_NEVER, NULL},
	{218, 9, 9, ZERO_TRUNK, NULL},
	{220, 7, 7, ZERO_NEVER, NULL},
	{221, 9, 9, ZERO_NEVER, NULL},
	{222, 8, 8, ZERO_NEVER, NULL},
	{223, 8, 8, ZERO_NEVER, NULL},
	{224, 9, 9, ZERO_NEVER, NULL},
	{225, 10, 10, ZERO_PART, NULL},
	{226, 8, 8, ZERO_PART, NULL},
	{227, 8, 8, ZERO_NEVER, NULL},
	{228, 8, 8, ZERO_NEVER, NULL},
	{229, 8, 8, ZERO_NEVER, NULL},
	{230, 8, 8, ZERO_NEVER, NULL},
	{231, 7, 9, ZERO_TRUNK, NULL},
	{232, 8, 8, ZERO_TRUNK, NULL},
	{233, 9, 9, ZERO_TRUNK, NULL},
	{234, 10, 10, ZERO_TRUNK, NULL},
	{235, 8, 8, ZERO_NEVER, NULL},
	{236, 8, 8, ZERO_NEVER, NULL},
	{237, 9, 9, ZERO_NEVER, NULL},
	{238, 7, 7, ZERO_NEVER, NULL},
	{239, 7, 7, ZERO_NEVER, NULL},
	{240, 9, 9, ZERO_NEVER, NULL},
	{241, 7, 8, ZERO_PART, NULL},
	{242, 9, 9, ZERO_PART, NULL},
	{243, 7, 9, ZERO_TRUNK, NULL},
	{244, 9, 9, ZERO_NEVER, NULL},
	{245, 9, 9, ZERO_NEVER, NULL},
	{246, 7, 7, ZERO_NEVER, NULL},
	{247, 5, 5, ZERO_NEVER, NULL},
	{248, 7, 7, ZERO_NEVER, NULL},
	{249, 9, 9, ZERO_TRUNK, NULL},
	{250, 9, 9, ZERO_TRUNK, NULL},
	{251, 9, 9, ZERO_TRUNK, NULL},
	{252, 7, 9, ZERO_TRUNK, NULL},
	{253, 8, 8, ZERO_NEVER, NULL},
	{254, 9, 9, ZERO_TRUNK, NULL},
	{255, 9, 9, ZERO_TRUNK, NULL},
	{256, 9, 9, ZERO_TRUNK, NULL},
	{257, 8, 8, ZERO_NEVER, NULL},
	{258, 9, 9, ZERO_NEVER, NULL},
	{260, 9, 9, ZERO_TRUNK, NULL},
	{261, 9, 9, ZERO_TRUNK, NULL},
	{262, 9, 9, ZERO_TRUNK, NULL},
	{263, 9, 9, ZERO_TRUNK, NULL},
	{264, 9, 9, ZERO_TRUNK, NULL},
	{265, 9, 9, ZERO_TRUNK, NULL},
	{266, 8, 8, ZERO_NEVER, NULL},
	{267, 8, 8, ZERO_NEVER, NULL},
	{268, 8, 8, ZERO_NEVER, NULL},
	{269, 7, 7, ZERO_NEVER, NULL},
	{290, 5, 5, ZERO_NEVER, NULL},
	{291, 7, 7, ZERO_TRUNK, NULL},
	{297, 7, 7, ZERO_NEVER, NULL},
	{298, 6, 6, ZERO_NEVER, NULL},
	{299, 6, 6, ZERO_NEVER, NULL},
	{350, 8, 8, ZERO_NEVER, NULL},
	{351, 9, 9, ZERO_NEVER, NULL},
	{352, 9, 9, ZERO_NEVER, NULL},
	{353, 9, 9, ZERO_TRUNK, NULL},
	{354, 7, 9, ZERO_NEVER, NULL},
	{355, 9, 9, ZERO_TRUNK, NULL},
	{356, 8, 8, ZERO_NEVER, NULL},
	{357, 8, 8, ZERO_NEVER, NULL},
	{358, 6, 10, ZERO_TRUNK, NULL},
	{359, 8, 9, ZERO_TRUNK, NULL},
	{370, 8, 8, ZERO_TRUNK, NULL},
	{371, 8, 8, ZERO_NEVER, NULL},
	{372, 7, 8, ZERO_NEVER, NULL},
	{373, 8, 8, ZERO_TRUNK, NULL},
	{374, 8, 8, ZERO_TRUNK, NULL},
	{375, 9, 9, ZERO_NEVER, NULL},
	{376, 6, 9, ZERO_NEVER, NULL},
	{377, 8, 9, ZERO_TRUNK, NULL},
	{378, 8, 8, ZERO_NEVER, NULL},
	{380, 9, 9, ZERO_TRUNK, NULL},
	{381, 8, 10, ZERO_TRUNK, NULL},
	{382, 8, 8, ZERO_TRUNK, NULL},
	{383, 8, 8, ZERO_TRUNK, NULL},
	{385, 8, 9, ZERO_TRUNK, NULL},
	{386, 8, 8, ZERO_TRUNK, NULL},
	{387, 8, 9, ZERO_TRUNK, NULL},
	{389, 8, 8, ZERO_TRUNK, NULL},
	{420, 9, 9, ZERO_NEVER, NULL},
	{421, 9, 9, ZERO_TRUNK, NULL},
	{423, 7, 9, ZERO_TRUNK, NULL},
	{500, 5, 5, ZERO_NEVER, NULL},
	{501, 7, 7, ZERO_NEVER, NULL},
	{502, 8, 8, ZERO_NEVER, NULL},
	{503, 8, 8, ZERO_NEVER, NULL},
	{504, 8, 8, ZERO_NEVER, NULL},
	{505, 8, 8, ZERO_NEVER, NULL},
	{506, 8, 8, ZERO_NEVER, NULL},
	{507, 7, 8, ZERO_NEVER, NULL},
	{508, 6, 9, ZERO_TRUNK, NULL},
	{509, 8, 8, ZERO_NEVER, NULL},
	{590, 9, 9, ZERO_TRUNK, NULL},
	{591, 8, 8, ZERO_TRUNK, NULL},
	{592, 7, 7, ZERO_NEVER, NULL},
	{593, 9, 9, ZERO_TRUNK, NULL},
	{594, 9, 9, ZERO_TRUNK, NULL},
	{595, 9, 9, ZERO_TRUNK, NULL},
	{596, 9, 9, ZERO_TRUNK, NULL},
	{597, 7, 7, ZERO_NEVER, NULL},
	{598, 8, 8, ZERO_TRUNK, NULL},
	{599, 7, 8, ZERO_NEVER, NULL},
	{670, 8, 8, ZERO_NEVER, NULL},
	{672, 6, 6, ZERO_NEVER, NULL},
	{673, 7, 7, ZERO_NEVER, NULL},
	{674, 7, 7, ZERO_NEVER, NULL},
	{675, 8, 8, ZERO_NEVER, NULL},
	{676, 7, 7, ZERO_NEVER, NULL},
	{677, 5, 7, ZERO_NEVER, NULL},
	{678, 7, 7, ZERO_NEVER, NULL},
	{679, 7, 7, ZERO_NEVER, NULL},
	{680, 7, 7, ZERO_NEVER, NULL},
	{681, 6, 6, ZERO_NEVER, NULL},
	{682, 5, 5, ZERO_NEVER, NULL},
	{683, 4, 7, ZERO_NEVER, NULL},
	{685, 7, 10, ZERO_NEVER, NULL},
	{686, 8, 8, ZERO_TRUNK, NULL},
	{687, 6, 6, ZERO_NEVER, NULL},
	{688, 6, 7, ZERO_NEVER, NULL},
	{689, 8, 8, ZERO_NEVER, NULL},
	{690, 4, 7, ZERO_NEVER, NULL},
	{691, 7, 7, ZERO_NEVER, NULL},
	{692, 7, 7, ZERO_NEVER, NULL},
	{850, 10, 10, ZERO_TRUNK, NULL},
	{852, 8, 8, ZERO_NEVER, hong_kong},
	{853, 8, 8, ZERO_NEVER, macao},
	{855, 8, 9, ZERO_TRUNK, NULL},
	{856, 10, 10, ZERO_TRUNK, NULL},
	{870, 9, 12, ZERO_NEVER, NULL},
	{880, 10, 10, ZERO_TRUNK, NULL},
	{881, 9, 10, ZERO_PART, NULL},
	{882, 7, 12, ZERO_NEVER, NULL},
	{886, 9, 9, ZERO_TRUNK, taiwan},
	{960, 7, 7, ZERO_NEVER, NULL},
	{961, 7, 8, ZERO_TRUNK, NULL},
	{962, 9, 9, ZERO_TRUNK, NULL},
	{963, 9, 9, ZERO_TRUNK, NULL},
	{964, 10, 10, ZERO_TRUNK, NULL},
	{965, 8, 8, ZERO_NEVER, NULL},
	{966, 9, 9, ZERO_TRUNK, NULL},
	{967, 9, 9, ZERO_TRUNK, NULL},
	{968, 8, 8, ZERO_NEVER, NULL},
	{970, 9, 9, ZERO_TRUNK, NULL},
	{971, 9, 9, ZERO_TRUNK, NULL},
	{972, 9, 9, ZERO_TRUNK, NULL},
	{973, 8, 8, ZERO_NEVER, NULL},
	{974, 8, 8, ZERO_NEVER, NULL},
	{975, 8, 8, ZERO_NEVER, NULL},
	{976, 8, 8, ZERO_TRUNK, NULL},
	{977, 10, 10, ZERO_TRUNK, NULL},
	{992, 9, 9, ZERO_PART, NULL},
	{993, 8, 8, ZERO_NEVER, NULL},
	{994, 9, 9, ZERO_TRUNK, NULL},
	{995, 9, 9, ZERO_TRUNK, NULL},
	{996, 9, 9, ZERO_TRUNK, NULL},
	{998, 9, 9, ZERO_NEVER, NULL}
};

/* clang-format on */

#endif /* CRM_MOBILE_PLAN_H */
