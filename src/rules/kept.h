/*
 * kept.h
 *		Compiled rules, kept for the session by their text and the zone. Where
 *		there are too many, the least recently used one goes; all go when a
 *		table changes that rules read. One in use stays until nobody uses it.
 */
#ifndef CRM_KEPT_H
#define CRM_KEPT_H

#include "postgres.h"

#include "executor/spi.h"
#include "lib/ilist.h"
#include "pgtime.h"
#include "utils/hsearch.h"

#include "rules/language.h"

/* of each kind */
#define CRM_MAX_KEPT 1000

/* What each kept rule begins with. */
typedef struct CrmKeptRule
{
	const char *text;
	const pg_tz *zone;              /* in which times in it were read */
	SPIPlanPtr plans[CRM_RULE_ALL]; /* by scope; NULL where there is none */
	MemoryContext context;          /* of all of it but the plans */
	int users;
	dlist_node node;
} CrmKeptRule;

/* One kind, a static variable. */
typedef struct CrmKeptRules
{
	const char *tables[2]; /* of crm, that its rules read */
	Oid oids[2];
	bool stale;
	slist_node node;
	HTAB *by_text;
	dlist_head recent;  /* the last used first */
	dlist_head leaving; /* no longer found, but in use when they were dropped */
	uint64 generation;  /* grows whenever one is dropped */
} CrmKeptRules;

/* NULL if it is not kept. Whoever runs SQL with it holds it by crm_kept_begin() meanwhile. */
extern CrmKeptRule *crm_kept_find(CrmKeptRules *rules, const char *text);

/*
 * Drops those that are stale, and says how often any was dropped before: what was
 * found at the same generation is still kept.
 */
extern uint64 crm_kept_generation(CrmKeptRules *rules);

/* A new one, of this size, in a context of its own under the current one until it is added. */
extern CrmKeptRule *crm_kept_create(Size size, const char *text);
extern void crm_kept_add(CrmKeptRules *rules, CrmKeptRule *rule);

/* The second in any case, by PG_FINALLY(). */
extern void crm_kept_begin(CrmKeptRule *rule);
extern void crm_kept_end(CrmKeptRule *rule);

#endif /* CRM_KEPT_H */
