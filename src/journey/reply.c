/*
 * reply.c
 *		Reading replies: as people type them on a Chinese keyboard, and no further.
 *		What could mean two things is not read.
 */
#include "postgres.h"

#include "catalog/pg_collation.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/formatting.h"
#include "utils/timestamp.h"

#include "journey/carried.h"
#include "journey/reply.h"
#include "types/mobile.h"

/* a day without a year is looked for in so many years: the 29th of February is not in all */
#define MOST_YEARS 9

char *
crm_reply_text(const CrmSignal *message)
{
	static const char *const members[] = { "content", "text", "Content" };
	Jsonb *properties;

	if (message->fact.nulls[CRM_F_PROPERTIES])
		return NULL;
	properties = DatumGetJsonbP(message->fact.values[CRM_F_PROPERTIES]);
	for (int i = 0; i < lengthof(members); i++)
	{
		char *text = crm_member_text(properties, members[i]);

		if (text != NULL)
			return text;
	}
	return NULL;
}

/* ---- what it is written with */

/* Bytes of the space at this place, 0 where there is none; those of UTF-8 in no other encoding. */
static int
space_length(const char *c)
{
	if (*c != '\0' && strchr(" \t\r\n\f\v", *c) != NULL)
		return 1;
	if (GetDatabaseEncoding() != PG_UTF8)
		return 0;
	/* no-break space, ideographic space */
	if (strncmp(c, "\xc2\xa0", 2) == 0)
		return 2;
	return strncmp(c, "\xe3\x80\x80", 3) == 0 ? 3 : 0;
}

static char *
trim(const char *text)
{
	const char *end;
	int length;

	while ((length = space_length(text)) > 0)
		text += length;
	end = text;
	for (const char *c = text; *c != '\0'; c += length)
	{
		length = space_length(c);
		if (length > 0)
			continue;
		length = pg_mblen(c);
		end = c + length;
	}
	return pnstrdup(text, end - text);
}

/* Full-width forms (U+FF01 to U+FF5E) as ASCII, any space as one. */
static char *
narrow(const char *text)
{
	char *narrowed = palloc(strlen(text) + 1);
	char *out = narrowed;
	int length;

	for (const unsigned char *c = (const unsigned char *) text; *c != '\0';)
	{
		if ((length = space_length((const char *) c)) > 0)
		{
			*out++ = ' ';
			c += length;
		}
		else if (GetDatabaseEncoding() == PG_UTF8 && c[0] == 0xef &&
				 ((c[1] == 0xbc && c[2] >= 0x81) || (c[1] == 0xbd && c[2] <= 0x9e)))
		{
			*out++ = c[1] == 0xbc ? c[2] - 0x81 + '!' : c[2] - 0x80 + '`';
			c += 3;
		}
		else
			*out++ = *c++;
	}
	*out = '\0';
	return narrowed;
}

/* ---- days */

typedef struct Day
{
	int year; /* 0: not said */
	int month;
	int day;
} Day;

static void
skip_spaces(const char **text)
{
	while (**text == ' ')
		(*text)++;
}

/* A number of that many digits; 0 where there is none. */
static int
take_number(const char **text, int least, int most)
{
	int digits = strspn(*text, "0123456789");
	int number = 0;

	if (digits < least || digits > most)
		return 0;
	for (int i = 0; i < digits; i++)
		number = number * 10 + *(*text)++ - '0';
	skip_spaces(text);
	return number;
}

static bool
take_mark(const char **text, const char *mark)
{
	if (strncmp(*text, mark, strlen(mark)) != 0)
		return false;
	*text += strlen(mark);
	skip_spaces(text);
	return true;
}

/* 19900501, 1990-05-01, 1990/5/1, 1990.5.1, 1990年5月1日, 5月1日: the year comes first. */
static bool
scan_day(const char *text, Day *day)
{
	static const char *const marks[] = { "-", "/", "." };
	bool words = false;

	memset(day, 0, sizeof(Day));
	if (strlen(text) == 8 && strspn(text, "0123456789") == 8)
	{
		int number = take_number(&text, 8, 8);

		*day = (Day){ number / 10000, number / 100 % 100, number % 100 };
		return day->year > 0;
	}
	if (strspn(text, "0123456789") == 4)
	{
		const char *mark = NULL;

		day->year = take_number(&text, 4, 4);
		words = take_mark(&text, "年");
		for (int i = 0; i < lengthof(marks) && !words && mark == NULL; i++)
			if (take_mark(&text, marks[i]))
				mark = marks[i];
		day->month = take_number(&text, 1, 2);
		if (day->year == 0 || (!words && (mark == NULL || !take_mark(&text, mark))))
			return false;
	}
	else
	{
		day->month = take_number(&text, 1, 2);
		words = true;
	}
	if (words && !take_mark(&text, "月"))
		return false;
	day->day = take_number(&text, 1, 2);
	if (words && !take_mark(&text, "日") && !take_mark(&text, "号"))
		(void) take_mark(&text, "號");
	return *text == '\0';
}

static bool
is_day(const Day *day)
{
	return day->month >= 1 && day->month <= MONTHS_PER_YEAR && day->day >= 1 &&
		day->day <= day_tab[isleap(day->year)][day->month - 1];
}

static int
number_of(const Day *day)
{
	return (day->year * 100 + day->month) * 100 + day->day;
}

static Day
today_of(TimestampTz at, const pg_tz *zone)
{
	struct pg_tm local;
	fsec_t fraction;
	int offset;

	if (timestamp2tm(at, &offset, &local, &fraction, NULL, unconstify(pg_tz *, zone)) != 0)
		return (Day){ 0 };
	return (Day){ local.tm_year, local.tm_mon, local.tm_mday };
}

/*
 * A day without a year is the next such day. Of a birthday that would be wrong:
 * it needs its year, and has been.
 */
static char *
read_day(const CrmStep *step, const char *text, TimestampTz at, const pg_tz *zone)
{
	char *field = str_tolower(step->field, strlen(step->field), C_COLLATION_OID);
	bool of_birth = strstr(field, "birth") != NULL;
	Day today = today_of(at, zone);
	Day day;

	if (!scan_day(text, &day))
		return NULL;
	if (day.year == 0)
	{
		if (of_birth || day.month == 0 || day.day == 0)
			return NULL;
		day.year = today.year;
		for (int i = 0; i < MOST_YEARS && (!is_day(&day) || number_of(&day) < number_of(&today));
			 i++)
			day.year++;
	}
	if (!is_day(&day) || (of_birth && number_of(&day) > number_of(&today)))
		return NULL;
	return psprintf("%04d-%02d-%02d", day.year, day.month, day.day);
}

/* ---- choices */

static char *
folded(const char *text)
{
	char *plain = narrow(trim(text));

	return str_tolower(plain, strlen(plain), DEFAULT_COLLATION_OID);
}

/* Of two choices that differ in upper and lower case alone, the one that is written so. */
static Jsonb *
read_choice(Jsonb *choices, const char *text)
{
	JsonbIterator *iterator = JsonbIteratorInit(&choices->root);
	JsonbIteratorToken token;
	JsonbValue value;
	Jsonb *found = NULL;
	char *wanted = folded(text);

	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		char *choice;

		if (token != WJB_KEY)
			continue;
		choice = pnstrdup(value.val.string.val, value.val.string.len);
		(void) JsonbIteratorNext(&iterator, &value, true);
		if (strcmp(folded(choice), wanted) != 0)
			continue;
		if (strcmp(narrow(trim(choice)), narrow(text)) == 0)
			return JsonbValueToJsonb(&value);
		if (found == NULL)
			found = JsonbValueToJsonb(&value);
	}
	return found;
}

Jsonb *
crm_reply_read(const CrmStep *step, const char *text, TimestampTz at, const pg_tz *zone)
{
	char *trimmed = trim(text);
	char *day;
	int64 number;

	if (*trimmed == '\0')
		return NULL;
	if (strcmp(step->reply, "mobile") == 0)
		return crm_mobile_parse(narrow(trimmed), crm_default_country_code, &number)
			? crm_text_json(crm_mobile_text(number))
			: NULL;
	if (strcmp(step->reply, "date") == 0)
		return (day = read_day(step, narrow(trimmed), at, zone)) == NULL ? NULL
																		 : crm_text_json(day);
	if (strcmp(step->reply, "choice") == 0)
		return read_choice(step->choices, trimmed);
	return crm_text_json(trimmed);
}
