/*
 * weekly_hours_text.c
 *		The text of a timetable: a subset of the opening_hours syntax of
 *		OpenStreetMap, and back again.
 *
 *		timetable  rule { ; rule }
 *		rule       24/7  |  [ days ] times [ off | closed ]  |  [ days ] ( off | closed )
 *		days       day [ - day ] { , day [ - day ] }
 *		times      HH:MM - HH:MM { , HH:MM - HH:MM }
 *
 * Each rule is laid over the week that the rules before it made. What a rule
 * opens after midnight belongs to the next day: a later rule that opens that
 * day anew takes it away, as everything else of the day.
 */
#include "postgres.h"

#include "lib/stringinfo.h"

#include "types/weekly_hours.h"

#define DAYS_OF_WEEK 7
#define ALL_DAYS     ((1 << DAYS_OF_WEEK) - 1)

/* from midnight of a day to the end of the next one */
#define MINUTES_OF_RULE (2 * CRM_MINUTES_OF_DAY)

/* longer than the longest that crm_hours_write() makes */
#define MAX_TEXT_BYTES (64 * 1024)

#define HINT_EXAMPLES \
	"Give weekdays and times, like Mo-Fr 09:00-12:00,13:00-18:00; Sa 10:00-02:00; Su off."

typedef struct Reader
{
	const char *next;
	uint8 *open;
	CrmHoursFault *fault;
} Reader;

typedef struct Rule
{
	int days; /* bit 0 is Monday; 0 where none are named */
	bool has_times;
	bool opens;
	uint8 minutes[MINUTES_OF_RULE];
} Rule;

static const char day_names[DAYS_OF_WEEK][3] = { "Mo", "Tu", "We", "Th", "Fr", "Sa", "Su" };

/* what OpenStreetMap has beyond the subset, by the word that gives it away */
static const struct
{
	const char *word;
	const char *message;
} foreign_words[] = {
	{ "Jan", "crm.weekly_hours has no months: \"%s\"" },
	{ "Feb", "crm.weekly_hours has no months: \"%s\"" },
	{ "Mar", "crm.weekly_hours has no months: \"%s\"" },
	{ "Apr", "crm.weekly_hours has no months: \"%s\"" },
	{ "May", "crm.weekly_hours has no months: \"%s\"" },
	{ "Jun", "crm.weekly_hours has no months: \"%s\"" },
	{ "Jul", "crm.weekly_hours has no months: \"%s\"" },
	{ "Aug", "crm.weekly_hours has no months: \"%s\"" },
	{ "Sep", "crm.weekly_hours has no months: \"%s\"" },
	{ "Oct", "crm.weekly_hours has no months: \"%s\"" },
	{ "Nov", "crm.weekly_hours has no months: \"%s\"" },
	{ "Dec", "crm.weekly_hours has no months: \"%s\"" },
	{ "week", "crm.weekly_hours has no numbered weeks: \"%s\"" },
	{ "PH", "crm.weekly_hours has no holidays: \"%s\"" },
	{ "SH", "crm.weekly_hours has no holidays: \"%s\"" },
	{ "easter", "crm.weekly_hours has no holidays: \"%s\"" },
	{ "sunrise", "crm.weekly_hours has no times of the sun: \"%s\"" },
	{ "sunset", "crm.weekly_hours has no times of the sun: \"%s\"" },
	{ "dawn", "crm.weekly_hours has no times of the sun: \"%s\"" },
	{ "dusk", "crm.weekly_hours has no times of the sun: \"%s\"" },
	{ "open", "crm.weekly_hours has no modifier but off and closed: \"%s\"" },
	{ "unknown", "crm.weekly_hours has no modifier but off and closed: \"%s\"" },
};

static const struct
{
	char sign;
	const char *message;
} foreign_signs[] = {
	{ '"', "crm.weekly_hours has no comments: \"%s\"" },
	{ '|', "crm.weekly_hours has no fallback rules: \"%s\"" },
	{ '[', "crm.weekly_hours has no days of a month: \"%s\"" },
	{ '+', "crm.weekly_hours has no open ends: \"%s\"" },
	{ '(', "crm.weekly_hours has no computed times: \"%s\"" },
	{ '/', "crm.weekly_hours has no repeated times: \"%s\"" },
};

static inline bool
is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static inline bool
is_letter(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* Does the text go on with the word, in either case, and not a longer one? */
static bool
begins_with_word(const char *text, const char *word)
{
	size_t length = strlen(word);

	return pg_strncasecmp(text, word, length) == 0 && !is_letter(text[length]);
}

static bool
refuse(Reader *reader, int sqlstate, const char *message, const char *hint)
{
	reader->fault->sqlstate = sqlstate;
	reader->fault->message = message;
	reader->fault->hint = hint;
	reader->fault->at = reader->next;
	return false;
}

static bool
refuse_malformed(Reader *reader, const char *hint)
{
	return refuse(reader, ERRCODE_INVALID_TEXT_REPRESENTATION,
				  "invalid input syntax for type crm.weekly_hours: \"%s\"", hint);
}

/* Refuse what is not expected here, by its name where OpenStreetMap knows it */
static bool
refuse_next(Reader *reader)
{
	for (int i = 0; i < lengthof(foreign_words); i++)
		if (begins_with_word(reader->next, foreign_words[i].word))
			return refuse(reader, ERRCODE_FEATURE_NOT_SUPPORTED, foreign_words[i].message,
						  HINT_EXAMPLES);
	for (int i = 0; i < lengthof(foreign_signs); i++)
		if (*reader->next == foreign_signs[i].sign)
			return refuse(reader, ERRCODE_FEATURE_NOT_SUPPORTED, foreign_signs[i].message,
						  HINT_EXAMPLES);
	return refuse_malformed(reader, HINT_EXAMPLES);
}

static void
skip_spaces(Reader *reader)
{
	while (*reader->next == ' ')
		reader->next++;
}

/* Skip a sign with the spaces around it */
static bool
accept(Reader *reader, char sign)
{
	skip_spaces(reader);
	if (*reader->next != sign)
		return false;
	reader->next++;
	skip_spaces(reader);
	return true;
}

static bool
accept_word(Reader *reader, const char *word)
{
	skip_spaces(reader);
	if (!begins_with_word(reader->next, word))
		return false;
	reader->next += strlen(word);
	return true;
}

/* Which weekday comes next? -1 if none */
static int
peek_day(const Reader *reader)
{
	for (int i = 0; i < DAYS_OF_WEEK; i++)
		if (begins_with_word(reader->next, day_names[i]))
			return i;
	return -1;
}

static bool
read_days(Reader *reader, Rule *rule)
{
	do
	{
		int first = peek_day(reader);
		int last = first;

		if (first < 0)
			return refuse_next(reader);
		reader->next += 2;
		if (accept(reader, '-'))
		{
			last = peek_day(reader);
			if (last < 0)
				return refuse_next(reader);
			reader->next += 2;
		}
		for (int day = first;; day = (day + 1) % DAYS_OF_WEEK)
		{
			rule->days |= 1 << day;
			if (day == last)
				break;
		}
	} while (accept(reader, ','));
	return true;
}

static bool
read_time(Reader *reader, int *minute)
{
	const char *text = reader->next;
	int hours = 0;
	int digits = 0;

	while (is_digit(text[digits]) && digits < 3)
		hours = hours * 10 + (text[digits++] - '0');
	if (digits == 0)
		return refuse_next(reader);
	if (digits > 2 || text[digits] != ':' || !is_digit(text[digits + 1]) ||
		!is_digit(text[digits + 2]) || is_digit(text[digits + 3]))
		return refuse_malformed(reader, "Times are hours and minutes, like 09:00.");
	*minute = hours * 60 + (text[digits + 1] - '0') * 10 + (text[digits + 2] - '0');
	if (text[digits + 1] > '5')
		return refuse_malformed(reader, "Minutes go from 00 to 59.");
	if (*minute > MINUTES_OF_RULE)
		return refuse_malformed(
			reader, "Times go to 24:00, and the end of a span to 48:00, the end of the next day.");
	reader->next += digits + 3;
	return true;
}

static bool
read_times(Reader *reader, Rule *rule)
{
	do
	{
		const char *begin = reader->next;
		int from;
		int until;

		/* a rule after a comma adds to the day that the rules before it made */
		if (rule->has_times && peek_day(reader) >= 0)
			return refuse(reader, ERRCODE_FEATURE_NOT_SUPPORTED,
						  "crm.weekly_hours has no additional rules: \"%s\"",
						  "Begin the next rule after a semicolon; it names all hours of its days.");
		if (!read_time(reader, &from))
			return false;
		if (from >= CRM_MINUTES_OF_DAY)
		{
			reader->next = begin;
			return refuse_malformed(reader,
									"A span begins before 24:00; only its end may be later.");
		}
		if (!accept(reader, '-'))
			return *reader->next == '+' || *reader->next == '/'
				? refuse_next(reader)
				: refuse_malformed(reader, "A span has a beginning and an end, like 09:00-18:00.");
		if (!read_time(reader, &until))
			return false;
		/* to the next day; the same time twice is a whole day */
		if (until <= from)
			until += CRM_MINUTES_OF_DAY;
		memset(rule->minutes + from, 1, until - from);
		rule->has_times = true;
	} while (accept(reader, ','));
	return true;
}

/* Lay a rule over the week */
static void
apply_rule(const Rule *rule, uint8 *open)
{
	int days = rule->days != 0 ? rule->days : ALL_DAYS;

	for (int day = 0; rule->opens && day < DAYS_OF_WEEK; day++)
		if ((days & (1 << day)) != 0)
			memset(open + day * CRM_MINUTES_OF_DAY, 0, CRM_MINUTES_OF_DAY);

	for (int day = 0; day < DAYS_OF_WEEK; day++)
		for (int next = 0; (days & (1 << day)) != 0 && next < 2; next++)
		{
			uint8 *minutes = open + (day + next) % DAYS_OF_WEEK * CRM_MINUTES_OF_DAY;
			const uint8 *said = rule->minutes + next * CRM_MINUTES_OF_DAY;

			for (int i = 0; i < CRM_MINUTES_OF_DAY; i++)
				minutes[i] = rule->opens ? minutes[i] | said[i] : minutes[i] & ~said[i];
		}
}

/* Read a rule, given whether the one before it names days */
static bool
read_rule(Reader *reader, Rule *rule, bool after_days)
{
	const char *begin;

	memset(rule, 0, sizeof(Rule));
	rule->opens = true;
	skip_spaces(reader);
	begin = reader->next;
	if (strncmp(reader->next, "24/7", 4) == 0)
	{
		reader->next += 4;
		memset(rule->minutes, 1, CRM_MINUTES_OF_DAY);
		apply_rule(rule, reader->open);
		return true;
	}

	if (peek_day(reader) >= 0 && !read_days(reader, rule))
		return false;
	skip_spaces(reader);
	if (is_digit(*reader->next) && !read_times(reader, rule))
		return false;
	if (accept_word(reader, "off") || accept_word(reader, "closed"))
	{
		rule->opens = false;
		if (!rule->has_times)
			memset(rule->minutes, 1, CRM_MINUTES_OF_DAY);
	}
	else if (!rule->has_times)
		return *reader->next != '\0' && *reader->next != ';'
			? refuse_next(reader)
			: refuse_malformed(reader, "A rule has times, or off; the whole day is 00:00-24:00.");
	else if (rule->days == 0 && after_days)
	{
		reader->next = begin;
		return refuse(
			reader, ERRCODE_FEATURE_NOT_SUPPORTED,
			"a rule of crm.weekly_hours must name its days after one that does: \"%s\"",
			"Some readers of this syntax add such hours to the days before it, others put them in their place; name the days, Mo-Su for all of them.");
	}
	apply_rule(rule, reader->open);
	return true;
}

bool
crm_hours_read(const char *text, uint8 *open, CrmHoursFault *fault)
{
	Reader reader = { .next = text, .open = open, .fault = fault };
	Rule rule;
	bool after_days = false;

	if (strlen(text) > MAX_TEXT_BYTES)
	{
		reader.next = NULL;
		return refuse(&reader, ERRCODE_PROGRAM_LIMIT_EXCEEDED,
					  "text for type crm.weekly_hours is too long: \"%s\"",
					  "A timetable has at most 65536 bytes.");
	}

	memset(open, 0, CRM_MINUTES_OF_WEEK);
	do
	{
		if (!read_rule(&reader, &rule, after_days))
			return false;
		after_days = rule.days != 0;
	} while (accept(&reader, ';'));
	if (*reader.next != '\0')
		return refuse_next(&reader);
	return true;
}

/*
 * Writing. Each day has its spans as text; a span that ends within 24 hours on
 * the next day is written with the day it began on.
 */

typedef struct Day
{
	const CrmSpan *first; /* the part of the spans that lies in the day */
	int count;
	bool begins_open; /* the day before says so, in its last span */
	bool ends_late;   /* the last span goes on, and is written here */
	char *text;
} Day;

/* Give each day its part of the spans */
static void
cut_at_midnight(const CrmSpan *spans, int nspans, Day *days)
{
	CrmSpan *parts = palloc_array(CrmSpan, nspans + DAYS_OF_WEEK);
	int nparts = 0;

	memset(days, 0, sizeof(Day) * DAYS_OF_WEEK);
	for (int i = 0; i < nspans; i++)
		for (int from = spans[i].from; from < spans[i].until;)
		{
			int day = from / CRM_MINUTES_OF_DAY;
			int midnight = day * CRM_MINUTES_OF_DAY;
			int until = Min(spans[i].until, midnight + CRM_MINUTES_OF_DAY);

			if (days[day].count++ == 0)
				days[day].first = &parts[nparts];
			parts[nparts].from = from - midnight;
			parts[nparts++].until = until - midnight;
			from = until;
		}
}

/* Find the days that end late, over the first so many nights of the week */
static void
join_over_midnight(Day *days, int nights)
{
	for (int i = 0; i < DAYS_OF_WEEK; i++)
		days[i].ends_late = days[i].begins_open = false;
	for (int i = 0; i < nights; i++)
	{
		Day *day = &days[i];
		Day *next = &days[(i + 1) % DAYS_OF_WEEK];
		const CrmSpan *last;

		if (day->count == 0 || next->count == 0)
			continue;
		last = day->first + day->count - 1;
		if (last->until == CRM_MINUTES_OF_DAY && next->first->from == 0 &&
			next->first->until < last->from)
		{
			day->ends_late = true;
			next->begins_open = true;
		}
	}
}

/* The spans of a day as text, NULL if it has none of its own */
static char *
write_day(const Day *day, const Day *next)
{
	StringInfoData text;

	if (day->count <= (day->begins_open ? 1 : 0))
		return NULL;
	initStringInfo(&text);
	for (int i = day->begins_open ? 1 : 0; i < day->count; i++)
	{
		int from = day->first[i].from;
		int until = day->ends_late && i == day->count - 1 ? next->first->until
														  : day->first[i].until;

		appendStringInfo(&text, "%s%02d:%02d-%02d:%02d", text.len > 0 ? "," : "", from / 60,
						 from % 60, until / 60, until % 60);
	}
	return text.data;
}

/* Names of days, Mo-We,Fr */
static void
write_days(StringInfo text, int days)
{
	const char *separator = "";

	for (int day = 0; day < DAYS_OF_WEEK; day++)
	{
		int last = day;

		if ((days & (1 << day)) == 0)
			continue;
		while (last + 1 < DAYS_OF_WEEK && (days & (1 << (last + 1))) != 0)
			last++;
		appendStringInfo(text, "%s%s", separator, day_names[day]);
		if (last > day)
			appendStringInfo(text, "-%s", day_names[last]);
		separator = ",";
		day = last;
	}
}

/*
 * Write the days in rules, those with equal hours in one.
 *
 * A rule takes away what the rules before it opened on its days, after
 * midnight too. So the rule of the next day comes before that of a day which
 * ends late. False if there is no such order.
 */
static bool
write_rules(StringInfo text, const Day *days)
{
	int waiting = 0;

	for (int i = 0; i < DAYS_OF_WEEK; i++)
		if (days[i].text != NULL)
			waiting |= 1 << i;

	while (waiting != 0)
	{
		int rule = 0;

		for (int first = 0; rule == 0 && first < DAYS_OF_WEEK; first++)
		{
			bool must_wait = false;

			if ((waiting & (1 << first)) == 0)
				continue;
			for (int i = first; i < DAYS_OF_WEEK; i++)
				if ((waiting & (1 << i)) != 0 && strcmp(days[i].text, days[first].text) == 0)
					rule |= 1 << i;
			for (int i = 0; i < DAYS_OF_WEEK; i++)
				if ((rule & (1 << i)) != 0 && days[i].ends_late &&
					(waiting & ~rule & (1 << (i + 1) % DAYS_OF_WEEK)) != 0)
					must_wait = true;
			if (must_wait)
			{
				rule = 0;
				continue;
			}
			if (text->len > 0)
				appendStringInfoString(text, "; ");
			write_days(text, rule);
			appendStringInfo(text, " %s", days[first].text);
		}
		if (rule == 0)
			return false;
		waiting &= ~rule;
	}
	return true;
}

char *
crm_hours_write(const CrmSpan *spans, int nspans)
{
	Day days[DAYS_OF_WEEK];
	StringInfoData text;

	if (nspans == 0)
		return pstrdup("off");
	if (spans[0].until - spans[0].from == CRM_MINUTES_OF_WEEK)
		return pstrdup("24/7");

	initStringInfo(&text);
	cut_at_midnight(spans, nspans, days);

	/* where every day ends late, no order holds; then one night is written as two */
	for (int nights = DAYS_OF_WEEK; nights >= DAYS_OF_WEEK - 1; nights--)
	{
		join_over_midnight(days, nights);
		for (int i = 0; i < DAYS_OF_WEEK; i++)
			days[i].text = write_day(&days[i], &days[(i + 1) % DAYS_OF_WEEK]);
		resetStringInfo(&text);
		if (write_rules(&text, days))
			break;
	}
	return text.data;
}
