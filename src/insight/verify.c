/*
 * verify.c
 *		What crm.verify() says of this room: rules that no longer compile, and maps
 *		that no longer fit what they name.
 */
#include "postgres.h"

#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"

#include "base/db.h"
#include "base/table.h"
#include "insight/map.h"
#include "insight/verify.h"
#include "journey/reading.h"
#include "pg_crm.h"
#include "rules/fact_rule.h"
#include "rules/rules.h"

static bool
compile_fact_rule(void *rule)
{
	(void) crm_fact_rule_compile(rule);
	return true;
}

static bool
compile_rule(void *rule)
{
	(void) crm_rule_reads(rule);
	return true;
}

static struct
{
	const char *table;
	bool (*compile)(void *rule);
	CrmPlan list;
} with_rules[] = {
	{ "attribution",
	  compile_fact_rule,
	  { "SELECT a.name, a.rule FROM crm.attribution AS a WHERE a.rule IS NOT NULL"
		" ORDER BY a.name COLLATE \"C\"",
		0 } },
	{ "persona",
	  compile_rule,
	  { "SELECT p.name, p.rule FROM crm.persona AS p ORDER BY p.name COLLATE \"C\"", 0 } },
	{ "touchpoint",
	  compile_fact_rule,
	  { "SELECT t.name, t.rule FROM crm.touchpoint AS t WHERE t.rule IS NOT NULL"
		" ORDER BY t.name COLLATE \"C\"",
		0 } },
};

static void
verify_rules(const char *table, bool (*compiles)(void *rule), CrmPlan *list, CrmAddDifference add,
			 void *arg)
{
	uint64 n = crm_read(list, NULL, NULL);
	SPITupleTable *rows = SPI_tuptable;

	for (uint64 row = 0; row < n; row++)
	{
		ErrorData *error;

		if (crm_attempt(compiles, SPI_getvalue(rows->vals[row], rows->tupdesc, 2), &error))
			continue;
		if (!crm_rule_is_broken(error))
			ReThrowError(error);
		add(arg, 0,
			psprintf("rule of %s %s", table, SPI_getvalue(rows->vals[row], rows->tupdesc, 1)),
			psprintf("a rule that compiles; crm.define_%s() saves another", table), error->message);
		FreeErrorData(error);
	}
	SPI_freetuptable(rows);
}

/* The newest version of each map; older ones are history. */
static void
verify_maps(CrmAddDifference add, void *arg)
{
	static CrmPlan list = {
		"SELECT m.map, v.definition FROM crm.map AS m JOIN crm.map_version AS v"
		" ON v.map = m.map AND v.version = m.version ORDER BY m.map COLLATE \"C\"",
		0
	};
	MemoryContext outside = CurrentMemoryContext;
	uint64 n = crm_read(&list, NULL, NULL);
	SPITupleTable *rows = SPI_tuptable;

	for (uint64 row = 0; row < n; row++)
	{
		MemoryContext context = AllocSetContextCreate(outside, "pg_crm map", ALLOCSET_SMALL_SIZES);
		List *faults;
		ListCell *cell;
		bool isnull;

		MemoryContextSwitchTo(context);
		(void) crm_map_load(DatumGetJsonbP(
								SPI_getbinval(rows->vals[row], rows->tupdesc, 2, &isnull)),
							true, context, &faults);
		foreach(cell, faults)
		{
			const CrmFault *fault = lfirst(cell);

			add(arg, 0,
				psprintf("map %s at %s", SPI_getvalue(rows->vals[row], rows->tupdesc, 1),
						 fault->path),
				"a document that fits; crm.define_map() saves another", fault->what);
		}
		MemoryContextSwitchTo(outside);
		MemoryContextDelete(context);
	}
	SPI_freetuptable(rows);
}

void
crm_insight_verify(CrmAddDifference add, void *arg)
{
	for (int i = 0; i < lengthof(with_rules); i++)
		/* the library may be newer than the tables */
		if (OidIsValid(crm_table_oid_if_any(with_rules[i].table)))
			verify_rules(with_rules[i].table, with_rules[i].compile, &with_rules[i].list, add, arg);
	if (OidIsValid(crm_table_oid_if_any("map")))
		verify_maps(add, arg);
}
