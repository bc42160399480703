/*
 * report.h
 *		Running the statement of a report.
 */
#ifndef CRM_REPORT_H
#define CRM_REPORT_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "utils/tuplestore.h"

/*
 * Planned for these values, and by the snapshot of the calling statement; days are
 * those of pg_crm.time_zone. The rows go into the store; where that is NULL they are
 * the current result. Between crm_connect() and crm_disconnect().
 */
extern void crm_report_run(const char *sql, int nparameters, const Oid *types, const Datum *values,
						   const char *nulls, Tuplestorestate *store);

/*
 * A rule asks for anything of anybody, so who gives one must have the right to ask;
 * else 42501. What for: "to count by a rule over the profile".
 */
extern void crm_report_require_rules(const char *what_for);

/* Parameters of a report, gathered one after the other. */
#define CRM_REPORT_PARAMETERS 16
typedef struct CrmReport
{
	const char *zone; /* of days and of intervals of them; NULL: that of pg_crm.time_zone */
	int n;
	Oid types[CRM_REPORT_PARAMETERS];
	Datum values[CRM_REPORT_PARAMETERS];
	char nulls[CRM_REPORT_PARAMETERS + 1];
} CrmReport;

/* Each gives the text that stands for the value, "$1::pg_catalog.text". */
extern const char *crm_report_value(CrmReport *report, Oid type, Datum value, bool isnull);
extern const char *crm_report_text(CrmReport *report, const char *value);
extern const char *crm_report_time(CrmReport *report, TimestampTz value);

/* The rows of the statement become those of the function, which is set-returning. */
extern void crm_report_return(const CrmReport *report, const char *sql, FunctionCallInfo fcinfo);

#endif /* CRM_REPORT_H */
