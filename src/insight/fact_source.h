/*
 * fact_source.h
 *		Facts of a kind for which a rule holds, as something that a statement
 *		reads: what cohorts, attribution and splits are counted from.
 */
#ifndef CRM_FACT_SOURCE_H
#define CRM_FACT_SOURCE_H

#include "postgres.h"

#include "datatype/timestamp.h"

#include "rules/rules.h"

/* Facts of a time in from <= occurred_at <= until are needed; those of others may come too. */
typedef struct CrmFactSource
{
	const char *kind;
	const char *rule; /* NULL: all of the kind */
	TimestampTz from;
	TimestampTz until;
	const CrmRuleUser *user; /* what the rule belongs to */
} CrmFactSource;

/*
 * The item of a FROM list, in brackets or a name, with the columns contact_id,
 * source_table, source_id, occurred_at and amount: of an order what was not refunded,
 * in pg_crm.currency; of others NULL. Orders refunded in full are none. A fact
 * of a contact that is gone may be among them. The rule is asked at once, of each
 * fact as of the time at which it happened, and its facts are kept under the name
 * until crm_disconnect(). Raises 23503 for a kind of which nothing is known, and the
 * errors of rules. Between crm_connect() and crm_disconnect().
 */
extern const char *crm_fact_source(const CrmFactSource *source, const char *name);

/* Facts that match some steps: of a kind, and a rule; kind and rule together are there once. */
typedef struct CrmFactStep
{
	const char *kind;
	const char *rule; /* NULL: all of the kind */
	uint64 steps;     /* a bit for each */
} CrmFactStep;

/*
 * The facts of all of them, each once, as a SELECT of contact_id, at and steps.
 * Kinds that are in one table are read together: once without rules, and once to ask
 * all rules. Else as crm_fact_source(), prefix beginning the names of what is kept.
 */
extern const char *crm_fact_steps(const CrmFactStep *asked, int n, TimestampTz from,
								  TimestampTz until, const CrmRuleUser *user, const char *prefix);

#endif /* CRM_FACT_SOURCE_H */
