/*
 * mobile.c
 *		Input, output and checks of the type crm.mobile.
 *
 * Comparison and hashing are those of bigint: the SQL functions name the
 * built-in ones, so nothing of it is here.  What a number of a country looks
 * like is data and stands in mobile_plan.h.
 */
#include "postgres.h"

#include "libpq/pqformat.h"
#include "utils/builtins.h"
#include "utils/guc.h"

#include "pg_crm.h"
#include "types/mobile.h"
#include "types/mobile_plan.h"

/* E.164: calling code and national number together */
#define MAX_NUMBER_DIGITS 15

/* 00, a number, and the trunk digit some write after the calling code */
#define MAX_INPUT_DIGITS (2 + MAX_NUMBER_DIGITS + 1)

#define MAX_CODE_DIGITS  3

/* what a mask shows of a long number, and hides of any */
#define MASK_HEAD   3
#define MASK_TAIL   4
#define MASK_HIDDEN 4

/* why a text is no mobile number */
typedef enum MobileFault
{
	MOBILE_FINE,
	MOBILE_BAD_CHARACTER,
	MOBILE_UNKNOWN_CODE,
	MOBILE_AMBIGUOUS,
	MOBILE_NO_MOBILE
} MobileFault;

int crm_default_country_code = 86;

PG_FUNCTION_INFO_V1(crm_mobile_in);
PG_FUNCTION_INFO_V1(crm_mobile_out);
PG_FUNCTION_INFO_V1(crm_mobile_recv);
PG_FUNCTION_INFO_V1(crm_mobile_send);
PG_FUNCTION_INFO_V1(crm_mobile_country_code);
PG_FUNCTION_INFO_V1(crm_mobile_masked);

static inline bool
is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* Find the plan of a calling code, NULL if no country has it */
static const MobilePlan *
find_plan(int code)
{
	int low = 0;
	int high = lengthof(mobile_plans) - 1;

	while (low <= high)
	{
		int middle = (low + high) / 2;

		if (mobile_plans[middle].code == code)
			return &mobile_plans[middle];
		if (mobile_plans[middle].code < code)
			low = middle + 1;
		else
			high = middle - 1;
	}
	return NULL;
}

/* Find the plan whose calling code the digits begin with */
static const MobilePlan *
find_plan_of(const char *digits, int *code_digits)
{
	int code = 0;

	if (digits[0] == '0')
		return NULL;

	for (int i = 0; i < MAX_CODE_DIGITS && digits[i] != '\0'; i++)
	{
		const MobilePlan *plan;

		code = code * 10 + (digits[i] - '0');
		plan = find_plan(code);
		if (plan != NULL)
		{
			*code_digits = i + 1;
			return plan;
		}
	}
	return NULL;
}

/* Compare with a range in the notation of mobile_plan.h */
static bool
in_range(const char *range, const char *digits)
{
	for (; *range != '\0'; range++, digits++)
	{
		if (*digits == '\0')
			return false;

		if (*range == '[')
		{
			bool found = false;

			for (range++; *range != ']'; range++)
			{
				char first = *range;

				if (range[1] == '-')
					range += 2;
				if (*digits >= first && *digits <= *range)
					found = true;
			}
			if (!found)
				return false;
		}
		else if (*range == 'N')
		{
			if (*digits < '2')
				return false;
		}
		else if (*range != 'X' && *range != *digits)
			return false;
	}
	return *digits == '\0';
}

/* Is this, as it stands, a mobile number of the plan? */
static bool
fits_plan(const MobilePlan *plan, const char *national)
{
	int length = strlen(national);
	bool fits = false;

	if (length < plan->shortest || length > plan->longest)
		return false;
	if (national[0] == '0' && plan->zero != ZERO_PART)
		return false;
	if (plan->ranges == NULL)
		return true;

	for (const char *const *range = plan->ranges; *range != NULL; range++)
	{
		if ((*range)[0] == '!')
		{
			if (in_range(*range + 1, national))
				return false;
		}
		else if (!fits && in_range(*range, national))
			fits = true;
	}
	return fits;
}

/* Read a national number, with or without the trunk digit; 0 if it is none */
static int64
read_national(const MobilePlan *plan, const char *national)
{
	int64 number = plan->code;

	if (!fits_plan(plan, national))
	{
		if (!((plan->zero == ZERO_TRUNK && national[0] == '0') ||
			  (plan->zero == ONE_TRUNK && national[0] == '1')))
			return 0;
		national++;
		if (!fits_plan(plan, national))
			return 0;
	}

	for (; *national != '\0'; national++)
		number = number * 10 + (*national - '0');
	return number;
}

/* Read a number that begins with its calling code; 0 if it is none */
static int64
read_international(const char *digits, MobileFault *fault)
{
	int code_digits;
	const MobilePlan *plan = find_plan_of(digits, &code_digits);

	if (plan == NULL)
	{
		*fault = MOBILE_UNKNOWN_CODE;
		return 0;
	}
	*fault = MOBILE_NO_MOBILE;
	return read_national(plan, digits + code_digits);
}

/* Take the digits out of what people type */
static MobileFault
collect_digits(const char *text, char *digits, bool *plus)
{
	int count = 0;

	*plus = false;
	for (; *text != '\0'; text++)
	{
		if (is_digit(*text))
		{
			if (count >= MAX_INPUT_DIGITS)
				return MOBILE_NO_MOBILE;
			digits[count++] = *text;
		}
		else if (*text == '+' && count == 0 && !*plus)
			*plus = true;
		else if (strchr(" -()", *text) == NULL)
			return MOBILE_BAD_CHARACTER;
	}
	digits[count] = '\0';
	return MOBILE_FINE;
}

/*
 * Read a number in any of its forms.
 *
 * A text without + or 00 may be a national number or begin with the bare
 * calling code.  Where both readings give a number and not the same one,
 * neither is taken: a wrong guess would be another person's number.
 */
static MobileFault
parse_mobile(const char *text, int default_country_code, int64 *number)
{
	char digits[MAX_INPUT_DIGITS + 1];
	bool plus;
	MobileFault fault;

	*number = 0;
	fault = collect_digits(text, digits, &plus);
	if (fault != MOBILE_FINE)
		return fault;

	fault = MOBILE_NO_MOBILE;
	if (plus)
		*number = read_international(digits, &fault);
	else if (digits[0] == '0' && digits[1] == '0')
		*number = read_international(digits + 2, &fault);
	else
	{
		const MobilePlan *plan = find_plan(default_country_code);
		int code_digits;

		if (plan == NULL)
			return MOBILE_UNKNOWN_CODE;

		*number = read_national(plan, digits);
		if (find_plan_of(digits, &code_digits) == plan)
		{
			int64 bare = read_national(plan, digits + code_digits);

			if (bare != 0 && *number != 0 && bare != *number)
			{
				*number = 0;
				return MOBILE_AMBIGUOUS;
			}
			if (bare != 0)
				*number = bare;
		}
	}
	return *number != 0 ? MOBILE_FINE : fault;
}

/* Say what to do about a text that was refused */
static const char *
fault_hint(MobileFault fault)
{
	switch (fault)
	{
		case MOBILE_BAD_CHARACTER:
			return "Use digits with spaces, dashes, brackets and a leading +, "
				   "like +8613800138000 or 138 0013 8000.";
		case MOBILE_UNKNOWN_CODE:
			return "Begin with + and the calling code of a country, like +86.";
		case MOBILE_AMBIGUOUS:
			return "It can be read with and without a calling code: begin with + and the calling code.";
		case MOBILE_FINE:
		case MOBILE_NO_MOBILE:
			break;
	}
	return "Give a complete mobile number; one of another country than "
		   "pg_crm.default_country_code begins with + and the calling code.";
}

/* Read a text; false, and 0, if it is no mobile number */
bool
crm_mobile_parse(const char *text, int default_country_code, int64 *number)
{
	return parse_mobile(text, default_country_code, number) == MOBILE_FINE;
}

/* Is this what a value of the type holds? */
bool
crm_mobile_valid(int64 number)
{
	char digits[MAXINT8LEN + 1];
	int code_digits;
	const MobilePlan *plan;

	if (number <= 0)
		return false;
	pg_lltoa(number, digits);
	plan = find_plan_of(digits, &code_digits);
	return plan != NULL && fits_plan(plan, digits + code_digits);
}

/* Give the calling code of a number, 0 if it has none */
int
crm_mobile_code(int64 number)
{
	char digits[MAXINT8LEN + 1];
	int code_digits;
	const MobilePlan *plan;

	if (number <= 0)
		return 0;
	pg_lltoa(number, digits);
	plan = find_plan_of(digits, &code_digits);
	return plan != NULL ? plan->code : 0;
}

/* Write a number in E.164 form */
char *
crm_mobile_text(int64 number)
{
	char *text = palloc(MAXINT8LEN + 2);

	text[0] = '+';
	pg_lltoa(number, text + 1);
	return text;
}

/*
 * Hide the middle of a number: 138****8000.
 *
 * The text may be anything somebody put where a number belongs, a name or a
 * whole address, therefore nothing but some of its digits comes out.  At
 * least four digits stay hidden; a calling code after + is shown.
 */
char *
crm_mobile_mask(const char *text)
{
	char head[MAX_CODE_DIGITS + MASK_HEAD + 1] = { 0 };
	char tail[MASK_TAIL] = { 0 };
	size_t count = 0;
	size_t masked;
	bool plus = false;
	int code_digits = 0;
	int shown_head = 0;
	int shown_tail = 0;
	StringInfoData mask;

	for (; *text != '\0'; text++)
	{
		if (is_digit(*text))
		{
			if (count < lengthof(head) - 1)
				head[count] = *text;
			tail[count % MASK_TAIL] = *text;
			count++;
		}
		else if (*text == '+' && count == 0)
			plus = true;
	}

	if (!plus || find_plan_of(head, &code_digits) == NULL)
		code_digits = 0;
	masked = count - code_digits;

	if (masked >= MASK_HEAD + MASK_HIDDEN + MASK_TAIL)
	{
		shown_head = MASK_HEAD;
		shown_tail = MASK_TAIL;
	}
	else if (masked >= 2 * MASK_HIDDEN)
	{
		shown_head = (masked - MASK_HIDDEN) / 2;
		shown_tail = masked - MASK_HIDDEN - shown_head;
	}

	initStringInfo(&mask);
	if (code_digits > 0)
		appendStringInfo(&mask, "+%.*s", code_digits, head);
	appendStringInfo(&mask, "%.*s****", shown_head, head + code_digits);
	for (int i = shown_tail; i > 0; i--)
		appendStringInfoChar(&mask, tail[(count - i) % MASK_TAIL]);
	return mask.data;
}

Datum
crm_mobile_in(PG_FUNCTION_ARGS)
{
	char *text = PG_GETARG_CSTRING(0);
	int64 number;
	MobileFault fault;

	fault = parse_mobile(text, crm_default_country_code, &number);
	if (fault != MOBILE_FINE)
		crm_ereturn(fcinfo->context, (Datum) 0,
					(errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
					 errmsg("invalid input syntax for type %s: \"%s\"", "crm.mobile",
							crm_mobile_mask(text)),
					 errhint("%s", fault_hint(fault))));
	PG_RETURN_MOBILE(number);
}

Datum
crm_mobile_out(PG_FUNCTION_ARGS)
{
	PG_RETURN_CSTRING(crm_mobile_text(PG_GETARG_MOBILE(0)));
}

Datum
crm_mobile_recv(PG_FUNCTION_ARGS)
{
	StringInfo buf = (StringInfo) PG_GETARG_POINTER(0);
	int64 number = pq_getmsgint64(buf);

	if (!crm_mobile_valid(number))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_BINARY_REPRESENTATION),
				 errmsg("invalid external value of type %s: \"%s\"", "crm.mobile",
						crm_mobile_mask(psprintf(INT64_FORMAT, number))),
				 errhint("Send the E.164 number without the plus as an integer of eight bytes.")));
	PG_RETURN_MOBILE(number);
}

Datum
crm_mobile_send(PG_FUNCTION_ARGS)
{
	StringInfoData buf;

	pq_begintypsend(&buf);
	pq_sendint64(&buf, PG_GETARG_MOBILE(0));
	PG_RETURN_BYTEA_P(pq_endtypsend(&buf));
}

/* mobile_country_code returns 86 for +8613800138000 */
Datum
crm_mobile_country_code(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32(crm_mobile_code(PG_GETARG_MOBILE(0)));
}

/* mobile_masked returns +86138****8000 for +8613800138000 */
Datum
crm_mobile_masked(PG_FUNCTION_ARGS)
{
	char *text = crm_mobile_text(PG_GETARG_MOBILE(0));

	PG_RETURN_TEXT_P(cstring_to_text(crm_mobile_mask(text)));
}

static bool
check_default_country_code(int *newval, void **extra, GucSource source)
{
	if (find_plan(*newval) == NULL)
	{
		GUC_check_errdetail("No country has the calling code %d.", *newval);
		return false;
	}
	return true;
}

/* crm_mobile_init defines the settings of this file */
void
crm_mobile_init(void)
{
	DefineCustomIntVariable(
		"pg_crm.default_country_code", "Calling code of mobile numbers that are given without one.",
		"It is used when a text is read as crm.mobile; stored numbers have their calling code.",
		&crm_default_country_code, 86, 1, 999, PGC_USERSET, 0, check_default_country_code, NULL,
		NULL);
}
