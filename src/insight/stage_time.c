/*
 * stage_time.c
 *		crm.time_in_stage(), crm.stage_conversion() and the rows behind it: how
 *		long contacts stay at a stage, and where they go from it.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "utils/timestamp.h"

#include "base/db.h"
#include "insight/period.h"
#include "insight/report.h"

PG_FUNCTION_INFO_V1(crm_sql_time_in_stage);
PG_FUNCTION_INFO_V1(crm_sql_stage_conversion);
PG_FUNCTION_INFO_V1(crm_sql_stage_conversion_rows);

/* Stays of contacts who are still there, each with the stay after it; $1 to $2 is the period. */
#define STAY                                                                      \
	"(SELECT m.contact_id, m.stage, m.since, lead(m.since) OVER w AS until,"      \
	" lead(m.stage) OVER w AS next_stage FROM crm.stage_move m"                   \
	" WHERE EXISTS (SELECT FROM crm.contact c WHERE c.contact_id = m.contact_id)" \
	" WINDOW w AS (PARTITION BY m.contact_id ORDER BY m.since))"
#define SECONDS(stay)                                                                   \
	"CASE WHEN isfinite(" stay ".since) THEN date_part('epoch', " stay ".until - " stay \
	".since) END"

/*
 * Those that some of the period lies in. One that goes on after it has not ended:
 * whatever came later, it is shown as it was at the end of the period.
 */
#define TOUCHED                                                                                 \
	"(SELECT s.contact_id, s.stage AS from_stage, CASE WHEN s.until < $2 THEN s.next_stage END" \
	" AS to_stage, s.since, CASE WHEN s.until < $2 THEN s.until END AS until"                   \
	" FROM " STAY " s WHERE s.since < $2 AND (s.until IS NULL OR s.until >= $1))"

static void
return_period(FunctionCallInfo fcinfo, const char *function, const char *sql)
{
	CrmReport report = { 0 };
	CrmActing acting;

	crm_require_value(fcinfo, 0, "period_start", function);
	crm_require_value(fcinfo, 1, "period_end", function);
	crm_check_period(PG_GETARG_TIMESTAMPTZ(0), PG_GETARG_TIMESTAMPTZ(1));
	(void) crm_report_time(&report, PG_GETARG_TIMESTAMPTZ(0));
	(void) crm_report_time(&report, PG_GETARG_TIMESTAMPTZ(1));
	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	crm_connect(&acting);
	crm_report_return(&report, sql, fcinfo);
	crm_disconnect(&acting);
}

/* Stays that began in the period; FULL JOIN, so that their sum is right where a stage was deleted. */
Datum
crm_sql_time_in_stage(PG_FUNCTION_ARGS)
{
	return_period(fcinfo, "time_in_stage",
				  "SELECT coalesce(g.stage, t.stage), g.rank, coalesce(t.stays, 0),"
				  " coalesce(t.contacts, 0), coalesce(t.moved_on, 0), coalesce(t.still_there, 0),"
				  " t.seconds[1], t.seconds[2]"
				  " FROM crm.stage g FULL JOIN (SELECT s.stage, count(*) AS stays,"
				  " count(DISTINCT s.contact_id) AS contacts, count(s.until) AS moved_on,"
				  " count(*) - count(s.until) AS still_there,"
				  " percentile_cont('{0.5,0.9}'::float8[])"
				  " WITHIN GROUP (ORDER BY " SECONDS(
					  "s") ") AS seconds"
						   " FROM " STAY
						   " s WHERE s.since >= $1 AND s.since < $2 GROUP BY s.stage) t"
						   " ON t.stage = g.stage ORDER BY g.rank, coalesce(g.stage, t.stage)");
	return (Datum) 0;
}

Datum
crm_sql_stage_conversion(PG_FUNCTION_ARGS)
{
	return_period(
		fcinfo, "stage_conversion",
		"SELECT t.from_stage, t.to_stage, count(*), count(DISTINCT t.contact_id),"
		" round(count(*) / sum(count(*)) OVER (PARTITION BY t.from_stage), 4),"
		" percentile_cont(0.5) WITHIN GROUP (ORDER BY " SECONDS(
			"t") ")"
				 " FROM " TOUCHED " t"
				 " LEFT JOIN crm.stage f ON f.stage = t.from_stage"
				 " LEFT JOIN crm.stage g ON g.stage = t.to_stage"
				 " GROUP BY f.rank, t.from_stage, g.rank, t.to_stage"
				 " ORDER BY f.rank, t.from_stage, t.to_stage IS NULL, g.rank, t.to_stage");
	return (Datum) 0;
}

Datum
crm_sql_stage_conversion_rows(PG_FUNCTION_ARGS)
{
	return_period(fcinfo, "stage_conversion_rows",
				  "SELECT t.from_stage, t.to_stage, t.contact_id, t.since, t.until"
				  " FROM " TOUCHED " t ORDER BY t.contact_id, t.since");
	return (Datum) 0;
}
