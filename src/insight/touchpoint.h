/*
 * touchpoint.h
 *		Touchpoints, and the facts that say that somebody met one.
 */
#ifndef CRM_TOUCHPOINT_H
#define CRM_TOUCHPOINT_H

#include "postgres.h"

#include "datatype/timestamp.h"

#include "rules/fact_rule.h"

/* where the facts of a touchpoint are */
typedef enum CrmVisitSource
{
	CRM_FROM_EVENT,
	CRM_FROM_TRANSACTION,
	CRM_FROM_SCAN,
	CRM_FROM_MESSAGE,
	CRM_VISIT_SOURCES
} CrmVisitSource;

/* What is NULL asks for nothing. */
typedef struct CrmTouchpoint
{
	const char *name;
	const char *on_kind; /* of a message none */
	CrmFactRule *rule;
	bool broken; /* its rule no longer compiles: nobody meets it */
	bool on_account;
	int64 account_id; /* 0: the account is gone */
	const char *scene;
	const char *campaign;
	const char *page;
	const char *template;
} CrmTouchpoint;

/* Somebody met one of the touchpoints. */
typedef struct CrmTouchpointVisit
{
	int touchpoint; /* its place among those asked for */
	int64 contact_id;
	TimestampTz occurred_at;
	CrmVisitSource source;
	int64 source_id;
	Datum amount; /* of an order in pg_crm.currency, less its refunds; only if asked for */
	bool no_amount;
} CrmTouchpointVisit;

typedef void (*CrmVisitFunction)(void *arg, const CrmTouchpointVisit *visit);

typedef struct CrmVisitSearch
{
	const CrmTouchpoint *touchpoints;
	int ntouchpoints;
	TimestampTz start;
	TimestampTz end;          /* not included */
	const char *persona_rule; /* who is asked about; NULL: everybody */
	bool amounts;
	CrmVisitFunction function;
	void *arg;
} CrmVisitSearch;

/*
 * Every fact of the period that belongs to a touchpoint, in no order; what belongs
 * to several of them is of the first. By the snapshot of the calling statement,
 * between crm_connect() and crm_disconnect().
 */
extern void crm_visits_find(const CrmVisitSearch *search);

/* Name of the table of a source. */
extern const char *crm_source_table(CrmVisitSource source);

/*
 * Touchpoints by their names, in this order; NULL: all that are no complaints, by
 * name. Raises 23503 for an unknown one, or leaves those out. A broken rule is told by
 * a WARNING. Between crm_connect()s; into this context.
 */
extern CrmTouchpoint *crm_touchpoints_read(const char *const *names, int n, bool leave_out,
										   int *nfound, MemoryContext context);

/* Rule of a persona; raises 23503. Between crm_connect()s; into this context. */
extern char *crm_persona_rule(const char *persona, MemoryContext context);

/* A rule failed to compile: a WARNING for whom it is; other errors are thrown again. */
extern void crm_warn_of_broken_rule(ErrorData *error, const char *of, const char *name);

#endif /* CRM_TOUCHPOINT_H */
