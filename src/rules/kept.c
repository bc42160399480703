/*
 * kept.c
 *		Compiled rules, kept for the session.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "utils/memutils.h"

#include "base/guc.h"
#include "base/table.h"
#include "base/watch.h"
#include "rules/kept.h"

typedef struct Key
{
	const char *text;
	const pg_tz *zone;
} Key;

typedef struct Entry
{
	Key key; /* its text is the rule's */
	CrmKeptRule *rule;
} Entry;

static uint32
hash_key(const void *key, Size size)
{
	const char *text = ((const Key *) key)->text;

	return string_hash(text, strlen(text) + 1);
}

static int
compare_keys(const void *a, const void *b, Size size)
{
	const Key *left = a;
	const Key *right = b;

	return left->zone != right->zone || strcmp(left->text, right->text) != 0;
}

/* all kinds: a backend has room for few callbacks */
static slist_head kinds;

/* Plans look after themselves, but not after the names that a rule may use. */
static void
note_change(Datum arg, Oid relid)
{
	slist_iter iter;

	slist_foreach(iter, &kinds)
	{
		CrmKeptRules *rules = slist_container(CrmKeptRules, node, iter.cur);

		for (int i = 0; i < lengthof(rules->oids); i++)
			if (relid == InvalidOid || relid == rules->oids[i])
				rules->stale = true;
	}
}

static void
start(CrmKeptRules *rules)
{
	HASHCTL control = { .keysize = sizeof(Key),
						.entrysize = sizeof(Entry),
						.hash = hash_key,
						.match = compare_keys,
						.hcxt = CacheMemoryContext };

	if (slist_is_empty(&kinds))
		crm_on_table_change(note_change);
	rules->by_text = hash_create("pg_crm kept rules", 64, &control,
								 HASH_ELEM | HASH_FUNCTION | HASH_COMPARE | HASH_CONTEXT);
	slist_push_head(&kinds, &rules->node);
}

static void
release(CrmKeptRule *rule)
{
	for (int i = 0; i < lengthof(rule->plans); i++)
		if (rule->plans[i] != NULL)
			SPI_freeplan(rule->plans[i]);
	MemoryContextDelete(rule->context);
}

static void
forget(CrmKeptRules *rules, CrmKeptRule *rule)
{
	Key key = { rule->text, rule->zone };

	(void) hash_search(rules->by_text, &key, HASH_REMOVE, NULL);
	dlist_delete(&rule->node);
	rules->generation++;
	if (rule->users > 0)
		dlist_push_head(&rules->leaving, &rule->node);
	else
		release(rule);
}

/* Not at the end of its use, which may be the end of a failed statement. */
static void
sweep(CrmKeptRules *rules)
{
	dlist_mutable_iter iter;

	if (rules->stale)
	{
		rules->stale = false;
		dlist_foreach_modify(iter, &rules->recent)
			forget(rules, dlist_container(CrmKeptRule, node, iter.cur));
	}
	dlist_foreach_modify(iter, &rules->leaving)
	{
		CrmKeptRule *rule = dlist_container(CrmKeptRule, node, iter.cur);

		if (rule->users > 0)
			continue;
		dlist_delete(&rule->node);
		release(rule);
	}
}

/* The one among those not in use that was not used for the longest time. */
static CrmKeptRule *
least_recent(CrmKeptRules *rules)
{
	dlist_iter iter;

	dlist_reverse_foreach(iter, &rules->recent)
	{
		CrmKeptRule *rule = dlist_container(CrmKeptRule, node, iter.cur);

		if (rule->users == 0)
			return rule;
	}
	return NULL;
}

CrmKeptRule *
crm_kept_find(CrmKeptRules *rules, const char *text)
{
	Key key = { text, crm_guc_zone };
	Entry *entry;

	if (rules->by_text == NULL)
		start(rules);
	sweep(rules);
	/* before a new one is compiled, so that a change meanwhile is noted */
	for (int i = 0; i < lengthof(rules->tables) && rules->tables[i] != NULL; i++)
		rules->oids[i] = crm_table_oid(rules->tables[i]);
	entry = hash_search(rules->by_text, &key, HASH_FIND, NULL);
	if (entry == NULL)
		return NULL;
	dlist_move_head(&rules->recent, &entry->rule->node);
	return entry->rule;
}

uint64
crm_kept_generation(CrmKeptRules *rules)
{
	if (rules->by_text != NULL)
		sweep(rules);
	return rules->generation;
}

CrmKeptRule *
crm_kept_create(Size size, const char *text)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "pg_crm rule",
												  ALLOCSET_SMALL_SIZES);
	CrmKeptRule *rule = MemoryContextAllocZero(context, size);

	rule->context = context;
	rule->text = MemoryContextStrdup(context, text);
	MemoryContextSetIdentifier(context, rule->text);
	rule->zone = crm_guc_zone;
	return rule;
}

void
crm_kept_add(CrmKeptRules *rules, CrmKeptRule *rule)
{
	Key key = { rule->text, rule->zone };
	CrmKeptRule *oldest;
	Entry *entry;

	while (hash_get_num_entries(rules->by_text) >= CRM_MAX_KEPT &&
		   (oldest = least_recent(rules)) != NULL)
		forget(rules, oldest);
	entry = hash_search(rules->by_text, &key, HASH_ENTER, NULL);
	entry->rule = rule;
	dlist_push_head(&rules->recent, &rule->node);
	for (int i = 0; i < lengthof(rule->plans); i++)
		if (rule->plans[i] != NULL)
			SPI_keepplan(rule->plans[i]);
	MemoryContextSetParent(rule->context, CacheMemoryContext);
}

void
crm_kept_begin(CrmKeptRule *rule)
{
	rule->users++;
}

void
crm_kept_end(CrmKeptRule *rule)
{
	rule->users--;
}
