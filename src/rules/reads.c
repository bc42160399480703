/*
 * reads.c
 *		What a rule reads of a contact: whoever keeps its answer asks again only
 *		when something of that changed.
 */
#include "postgres.h"

#include "base/table.h"
#include "rules/language.h"
#include "rules/rules.h"

/* counters, by what changes them; every other column is one of crm.contact */
static const struct
{
	const char *column;
	uint32 topic;
} counters[] = {
	{ "orders", CRM_READS_ORDERS },
	{ "spend", CRM_READS_ORDERS },
	{ "first_order_at", CRM_READS_ORDERS },
	{ "last_order_at", CRM_READS_ORDERS },
	{ "refunds", CRM_READS_ORDERS },
	{ "scans", CRM_READS_SCANS },
	{ "raw_scans", CRM_READS_SCANS },
	{ "followed_at", CRM_READS_FOLLOWS },
	{ "mobile_at", CRM_READS_MOBILE },
	{ "events", CRM_READS_SEEN },
	{ "first_seen_at", CRM_READS_SEEN },
	{ "last_seen_at", CRM_READS_SEEN },
	{ "settled_at", CRM_READS_SEEN },
	{ "stage", CRM_READS_STAGE },
	{ "stage_rank", CRM_READS_STAGE },
	{ "stage_since", CRM_READS_STAGE },
	{ "stage_manual", CRM_READS_STAGE },
	{ "ranked_stage", CRM_READS_STAGE },
	{ "as_of", 0 },
	{ "today", 0 },
};

/* The first argument of a rule function as its label has it: a literal. */
static char *
first_argument(const char *label)
{
	const char *c = strchr(label, '(') + 1;
	bool escapes = *c == 'E';
	StringInfoData argument;

	initStringInfo(&argument);
	if (escapes)
		c++;
	if (*c != '\'')
		return argument.data;
	for (c++; *c != '\0'; c++)
	{
		if (*c == '\'' && *++c != '\'')
			break;
		if (*c == '\\' && escapes)
			c++;
		appendStringInfoChar(&argument, *c);
	}
	return argument.data;
}

static void
add_name(List **names, const char *name)
{
	ListCell *cell;

	foreach(cell, *names)
		if (strcmp(lfirst(cell), name) == 0)
			return;
	*names = lappend(*names, pstrdup(name));
}

static void
add_function(CrmRuleReads *reads, const char *label)
{
	int len = strchr(label, '(') - label;

#define IS(name) (len == strlen(name) && strncmp(label, name, len) == 0)
	if (IS("times") || IS("did"))
	{
		add_name(&reads->kinds, first_argument(label));
		if (strcmp(first_argument(label), "purchase") == 0)
			add_name(&reads->kinds, "refund");
	}
	else if (IS("spent"))
	{
		add_name(&reads->kinds, "purchase");
		add_name(&reads->kinds, "refund");
	}
	else if (IS("awarded"))
		reads->topics |= CRM_READS_AWARDS;
	else if (IS("acquired"))
		reads->topics |= CRM_READS_SCANS | CRM_READS_FOLLOWS;
	else if (IS("rank"))
		reads->topics |= CRM_READS_STAGE;
	else if (IS("in_segment"))
		add_name(&reads->segments, first_argument(label));
	else if (IS("suppressed"))
		reads->topics |= CRM_READS_SUPPRESSION;
	else if (IS("local_time") || IS("local_date"))
		add_name(&reads->columns, "time_zone");
	else
		reads->topics |= CRM_READS_ANYTHING; /* a function that this file does not know */
#undef IS
}

static void
add_column(CrmRuleReads *reads, const char *column)
{
	for (int i = 0; i < lengthof(counters); i++)
		if (strcmp(counters[i].column, column) == 0)
		{
			reads->topics |= counters[i].topic;
			return;
		}
	add_name(&reads->columns, column);
}

CrmRuleReads *
crm_rule_reads_of(const CrmRuleTree *rule)
{
	CrmRuleReads *reads = palloc0(sizeof(CrmRuleReads));
	ListCell *cell;

	foreach(cell, rule->references)
	{
		const char *label = ((CrmRuleReference *) lfirst(cell))->label;

		if (strchr(label, '(') != NULL)
			add_function(reads, label);
		else if (!rule->over_fact || crm_fact_column(label) < 0)
			add_column(reads, label);
	}
	return reads;
}

CrmRuleReads *
crm_rule_reads(const char *text)
{
	CrmRuleReads *reads;
	ErrorContextCallback callback;
	CrmRuleTree *rule;

	crm_rule_point(&callback, text);
	rule = crm_rule_read(text);
	reads = crm_rule_reads_of(rule);
	(void) crm_rule_compile(rule, CRM_RULE_FEW, NIL);
	crm_rule_point_end(&callback);
	return reads;
}
