/*
 * weekly_hours.c
 *		The type crm.weekly_hours: input, output, comparison.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "libpq/pqformat.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"

#include "pg_crm.h"
#include "types/weekly_hours.h"

/* how much of a text that was refused comes into a message */
#define SHOWN_BYTES       200
#define SHOWN_FAULT_BYTES 20

PG_FUNCTION_INFO_V1(crm_weekly_hours_in);
PG_FUNCTION_INFO_V1(crm_weekly_hours_out);
PG_FUNCTION_INFO_V1(crm_weekly_hours_recv);
PG_FUNCTION_INFO_V1(crm_weekly_hours_send);
PG_FUNCTION_INFO_V1(crm_weekly_hours_eq);
PG_FUNCTION_INFO_V1(crm_weekly_hours_ne);
PG_FUNCTION_INFO_V1(crm_weekly_hours_lt);
PG_FUNCTION_INFO_V1(crm_weekly_hours_le);
PG_FUNCTION_INFO_V1(crm_weekly_hours_gt);
PG_FUNCTION_INFO_V1(crm_weekly_hours_ge);
PG_FUNCTION_INFO_V1(crm_weekly_hours_cmp);
PG_FUNCTION_INFO_V1(crm_weekly_hours_hash);
PG_FUNCTION_INFO_V1(crm_weekly_hours_hash_extended);

static CrmWeeklyHours *
make_weekly_hours(int nspans)
{
	CrmWeeklyHours *hours = palloc0(CRM_WEEKLY_HOURS_SIZE(nspans));

	SET_VARSIZE(hours, CRM_WEEKLY_HOURS_SIZE(nspans));
	return hours;
}

/* Make a value of the open minutes of a week */
static CrmWeeklyHours *
from_minutes(const uint8 *open)
{
	CrmWeeklyHours *hours;
	CrmSpan *span;
	int nspans = 0;

	for (int i = 0; i < CRM_MINUTES_OF_WEEK; i++)
		if (open[i] && (i == 0 || !open[i - 1]))
			nspans++;

	hours = make_weekly_hours(nspans);
	span = hours->spans;
	for (int i = 0; i < CRM_MINUTES_OF_WEEK; i++)
	{
		if (!open[i])
			continue;
		span->from = i;
		while (i < CRM_MINUTES_OF_WEEK && open[i])
			i++;
		span->until = i;
		span++;
	}
	return hours;
}

/* The beginning of a text, not cut within a character */
static char *
shorten(const char *text, int bytes)
{
	int length = strlen(text);

	if (length <= bytes)
		return pstrdup(text);
	return psprintf("%.*s...", pg_mbcliplen(text, length, bytes), text);
}

/* Where reading stopped, as a sentence */
static char *
describe_place(const char *text, const char *at)
{
	if (at == NULL)
		return psprintf("It has %zu bytes.", strlen(text));
	if (*at == '\0')
		return "The text ends too early.";
	return psprintf("Character %d: \"%s\".", pg_mbstrlen_with_len(text, at - text) + 1,
					shorten(at, SHOWN_FAULT_BYTES));
}

Datum
crm_weekly_hours_in(PG_FUNCTION_ARGS)
{
	char *text = PG_GETARG_CSTRING(0);
	uint8 *open = palloc(CRM_MINUTES_OF_WEEK);
	CrmHoursFault fault;

	if (!crm_hours_read(text, open, &fault))
		crm_ereturn(fcinfo->context, (Datum) 0,
					(errcode(fault.sqlstate), errmsg(fault.message, shorten(text, SHOWN_BYTES)),
					 errdetail("%s", describe_place(text, fault.at)), errhint("%s", fault.hint)));
	PG_RETURN_POINTER(from_minutes(open));
}

Datum
crm_weekly_hours_out(PG_FUNCTION_ARGS)
{
	CrmWeeklyHours *hours = PG_GETARG_WEEKLY_HOURS(0);

	PG_RETURN_CSTRING(crm_hours_write(hours->spans, CRM_NSPANS(hours)));
}

/* Binary form: the number of spans, then from and until of each, all of two bytes */
Datum
crm_weekly_hours_recv(PG_FUNCTION_ARGS)
{
	StringInfo buf = (StringInfo) PG_GETARG_POINTER(0);
	int nspans = pq_getmsgint(buf, 2);
	int free_from = 0;
	CrmWeeklyHours *hours;

	if (nspans > CRM_MAX_SPANS)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_BINARY_REPRESENTATION),
				 errmsg("invalid external value of type %s: %d spans", "crm.weekly_hours", nspans),
				 errhint("Send the number of spans, at most %d, as an integer of two bytes.",
						 CRM_MAX_SPANS)));
	hours = make_weekly_hours(nspans);
	for (int i = 0; i < nspans; i++)
	{
		int from = pq_getmsgint(buf, 2);
		int until = pq_getmsgint(buf, 2);

		if (from < free_from || until <= from || until > CRM_MINUTES_OF_WEEK)
			ereport(
				ERROR,
				(errcode(ERRCODE_INVALID_BINARY_REPRESENTATION),
				 errmsg("invalid external value of type %s: span %d goes from %d to %d",
						"crm.weekly_hours", i + 1, from, until),
				 errhint(
					 "Send spans in order, not touching each other, in minutes since Monday 00:00, the last ending at most at %d.",
					 CRM_MINUTES_OF_WEEK)));
		hours->spans[i].from = from;
		hours->spans[i].until = until;
		free_from = until + 1;
	}
	PG_RETURN_POINTER(hours);
}

Datum
crm_weekly_hours_send(PG_FUNCTION_ARGS)
{
	CrmWeeklyHours *hours = PG_GETARG_WEEKLY_HOURS(0);
	int nspans = CRM_NSPANS(hours);
	StringInfoData buf;

	pq_begintypsend(&buf);
	pq_sendint16(&buf, nspans);
	for (int i = 0; i < nspans; i++)
	{
		pq_sendint16(&buf, hours->spans[i].from);
		pq_sendint16(&buf, hours->spans[i].until);
	}
	PG_RETURN_BYTEA_P(pq_endtypsend(&buf));
}

/*
 * Order for indexes, DISTINCT and ORDER BY: by the first minute at which two
 * weeks differ in a span. It says nothing of who is open longer.
 */
static int
compare(FunctionCallInfo fcinfo)
{
	CrmWeeklyHours *a = PG_GETARG_WEEKLY_HOURS(0);
	CrmWeeklyHours *b = PG_GETARG_WEEKLY_HOURS(1);
	int nspans_a = CRM_NSPANS(a);
	int nspans_b = CRM_NSPANS(b);
	int order = 0;

	for (int i = 0; order == 0 && i < Min(nspans_a, nspans_b); i++)
	{
		order = a->spans[i].from - b->spans[i].from;
		if (order == 0)
			order = a->spans[i].until - b->spans[i].until;
	}
	if (order == 0)
		order = nspans_a - nspans_b;
	PG_FREE_IF_COPY(a, 0);
	PG_FREE_IF_COPY(b, 1);
	return order;
}

Datum
crm_weekly_hours_eq(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(compare(fcinfo) == 0);
}

Datum
crm_weekly_hours_ne(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(compare(fcinfo) != 0);
}

Datum
crm_weekly_hours_lt(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(compare(fcinfo) < 0);
}

Datum
crm_weekly_hours_le(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(compare(fcinfo) <= 0);
}

Datum
crm_weekly_hours_gt(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(compare(fcinfo) > 0);
}

Datum
crm_weekly_hours_ge(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(compare(fcinfo) >= 0);
}

Datum
crm_weekly_hours_cmp(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32(compare(fcinfo));
}

Datum
crm_weekly_hours_hash(PG_FUNCTION_ARGS)
{
	CrmWeeklyHours *hours = PG_GETARG_WEEKLY_HOURS(0);

	PG_RETURN_UINT32(
		hash_bytes((const unsigned char *) hours->spans, CRM_NSPANS(hours) * sizeof(CrmSpan)));
}

Datum
crm_weekly_hours_hash_extended(PG_FUNCTION_ARGS)
{
	CrmWeeklyHours *hours = PG_GETARG_WEEKLY_HOURS(0);

	PG_RETURN_UINT64(hash_bytes_extended((const unsigned char *) hours->spans,
										 CRM_NSPANS(hours) * sizeof(CrmSpan), PG_GETARG_INT64(1)));
}
