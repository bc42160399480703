/*
 * report_tables.h
 *		What is in a report: sections, and the statements of their tables.
 */
#ifndef CRM_REPORT_TABLES_H
#define CRM_REPORT_TABLES_H

#include "postgres.h"

#include "base/db.h"

/* start and end of the period, time zone, now, whether it and the one before are of whole days of pg_crm.time_zone */
#define CRM_REPORT_TABLE_PARAMETERS 5

typedef enum CrmReportKind
{
	CRM_REPORT_END,     /* of the parts of a section */
	CRM_REPORT_FIGURES, /* rows: what, how much, a remark */
	CRM_REPORT_TABLE,
	CRM_REPORT_TREND,   /* the title is the measure */
	CRM_REPORT_FUNNELS, /* rows: journeys */
	CRM_REPORT_MAPS,    /* rows: maps */
	CRM_REPORT_NOTE     /* the title is what it says */
} CrmReportKind;

typedef struct CrmReportPart
{
	CrmReportKind kind;
	const char *title;
	const char *nothing; /* what is said where there are no rows */
	CrmPlan plan;
	CrmPlan by_counts; /* the same out of roll-ups, for whole days; or nothing */
} CrmReportPart;

typedef struct CrmReportSection
{
	const char *id;
	const char *title;
	CrmReportPart *parts;
} CrmReportSection;

extern CrmReportSection *crm_report_sections(int *n);

#endif /* CRM_REPORT_TABLES_H */
