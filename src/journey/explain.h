/*
 * explain.h
 *		Why a contact could enter a journey or go on from a step, or could not.
 */
#ifndef CRM_JOURNEY_EXPLAIN_H
#define CRM_JOURNEY_EXPLAIN_H

#include "postgres.h"

#include "funcapi.h"

#include "journey/engine.h"

typedef struct CrmExplanation
{
	ReturnSetInfo *result; /* NULL: only the answer is wanted */
	CrmEngine *engine;
	CrmJourney *journey; /* of the current version */
	int64 contact_id;
	TimestampTz as_of;
	bool goes; /* the answer */
} CrmExplanation;

/* explain.c: a row */
extern void crm_explain_add(CrmExplanation *explanation, const char *part, bool holds,
							const char *format, ...) pg_attribute_printf(4, 5);

/* Rows of a rule and its conditions; does it hold? */
extern bool crm_explain_rule(CrmExplanation *explanation, const char *prefix, const char *rule);
/* The same of one over a fact; NULL: of none. */
extern bool crm_explain_fact_rule(CrmExplanation *explanation, const char *prefix,
								  const CrmFactRule *rule, const CrmFactValues *fact);

/*
 * Rows of a trigger: the latest fact of an interval that fits, or else the
 * latest, which is returned; NULL where there is none.
 */
extern const CrmSignal *crm_explain_trigger(CrmExplanation *explanation, const char *prefix,
											const CrmTrigger *trigger, const CrmRun *run,
											TimestampTz from, TimestampTz until, bool *fits);

/* Goal and exit of a version: by rules, and where run is not NULL by facts since its entry. */
extern void crm_explain_endings(CrmExplanation *explanation, const CrmJourney *journey,
								const CrmRun *run);

extern char *crm_explain_time(TimestampTz at);

/* explain_entry.c, explain_step.c */
extern void crm_explain_entry(CrmExplanation *explanation);
extern void crm_explain_step(CrmExplanation *explanation, const char *step);

#endif /* CRM_JOURNEY_EXPLAIN_H */
