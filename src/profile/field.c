/*
 * field.c
 *		The fields of contacts as stage rules read them: as they were at each
 *		moment. A field has the value of now since its last change, and before
 *		its first change the one that this change replaced.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "base/db.h"
#include "base/table.h"
#include "profile/history.h"

/* Statements are made for the fields that are wanted, so they are not kept by name. */
typedef struct Reading
{
	const char *sql;
	SPIPlanPtr plan; /* in place of it, where it runs more than once */
	int nvalues;
	Datum values[2]; /* contacts, unknown values; of a plan as it takes them */
	bool read_only;
} Reading;

static const Oid reading_types[] = { INT8ARRAYOID, TEXTARRAYOID };

static bool
read_rows(void *arg)
{
	Reading *reading = arg;
	int code;

	if (reading->plan != NULL)
		code = SPI_execute_plan(reading->plan, reading->values, NULL, reading->read_only, 0);
	else
		code = SPI_execute_with_args(reading->sql, reading->nvalues,
									 unconstify(Oid *, &reading_types[0]), reading->values, NULL,
									 reading->read_only, 0);
	if (code < 0)
		elog(ERROR, "a reading of fields failed: %s", SPI_result_code_string(code));
	return true;
}

static Datum
copy_result(uint64 row, int column, const CrmField *field, bool *isnull)
{
	Datum value = crm_result(row, column, isnull);

	if (*isnull || field->by_value)
		return value;
	if (field->length == -1)
		return PointerGetDatum(PG_DETOAST_DATUM_COPY(value));
	return datumCopy(value, false, field->length);
}

static int
compare_contact(const void *a, const void *b)
{
	int64 left = *(const int64 *) a;
	int64 right = ((const CrmHistory *) b)->contact_id;

	return (left > right) - (left < right);
}

void
crm_fields_load(const CrmDefinitions *definitions, CrmHistory *histories, int nhistories,
				Datum contacts, bool read_only, MemoryContext context)
{
	StringInfoData sql;
	Reading reading = { .nvalues = 1, .values = { contacts }, .read_only = read_only };
	MemoryContext old;

	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT c.contact_id");
	for (int i = 0; i < definitions->nfields; i++)
		if (definitions->fields[i].wanted)
			appendStringInfo(&sql, ", c.%s", quote_identifier(definitions->fields[i].name));
	appendStringInfoString(&sql, " FROM crm.contact c WHERE c.contact_id = ANY ($1)");
	reading.sql = sql.data;
	(void) read_rows(&reading);

	old = MemoryContextSwitchTo(context);
	for (uint64 row = 0; row < SPI_processed; row++)
	{
		int64 contact_id = crm_result_int64(row, 1);
		CrmHistory *history = bsearch(&contact_id, histories, nhistories, sizeof(CrmHistory),
									  compare_contact);
		int column = 2;

		if (history == NULL)
			continue;
		history->fields = palloc0_array(Datum, definitions->nfields);
		history->field_nulls = palloc_array(bool, definitions->nfields);
		for (int i = 0; i < definitions->nfields; i++)
			if (definitions->fields[i].wanted)
				history->fields[i] = copy_result(row, column++, &definitions->fields[i],
												 &history->field_nulls[i]);
	}
	MemoryContextSwitchTo(old);
	SPI_freetuptable(SPI_tuptable);
}

typedef struct FactById
{
	int64 event_id;
	CrmFact *fact;
} FactById;

/* Is it the value that the type of today does not take, and not the server that fails? */
static bool
is_of_value(const ErrorData *error)
{
	switch (ERRCODE_TO_CATEGORY(error->sqlerrcode))
	{
		case ERRCODE_DATA_EXCEPTION:
		case ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION:        /* a domain's */
		case ERRCODE_SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION: /* a name that is looked up */
		case ERRCODE_PROGRAM_LIMIT_EXCEEDED:
		case ERRCODE_PLPGSQL_ERROR: /* raised by a check */
			return true;
		default:
			return false;
	}
}

/* Reads a jsonb as the column's type, and nothing of its table's other columns. */
static char *
conversion(const char *jsonb, const char *type)
{
	return psprintf("(SELECT v.v FROM pg_catalog.jsonb_to_record("
					"pg_catalog.jsonb_build_object('v', %s)) AS v(v %s))",
					jsonb, type);
}

/* An absent value is null. */
#define OLD "coalesce(e.properties -> 'old', 'null')"
#define NEW "coalesce(e.properties -> 'new', 'null')"
#define OF                                                       \
	" WHERE e.contact_id = ANY ($1) AND e.kind = 'field_change'" \
	" AND e.properties ->> 'field' = "
#define CHANGES " FROM crm.event e" OF

/* Of the values, those that cannot be read are added to unknown: found by halving. */
static void
find_unknown(Reading *reading, const Datum *values, int n, CrmColumn *unknown)
{
	CrmColumn part;
	ErrorData *error;

	if (n == 0)
		return;
	CHECK_FOR_INTERRUPTS();
	crm_column_init(&part, TEXTOID);
	for (int i = 0; i < n; i++)
		crm_column_add(&part, values[i], false);
	reading->values[0] = crm_column_array(&part);
	if (crm_attempt(read_rows, reading, &error))
	{
		SPI_freetuptable(SPI_tuptable);
		return;
	}
	if (!is_of_value(error))
		ReThrowError(error);
	FreeErrorData(error);
	if (n == 1)
	{
		crm_column_add(unknown, values[0], false);
		return;
	}
	find_unknown(reading, values, n / 2, unknown);
	find_unknown(reading, values + n / 2, n - n / 2, unknown);
}

/* Those of the values of a field that the column's type of today does not take, as text[]. */
static Datum
unknown_values(const char *field, const char *type, Datum contacts, bool read_only)
{
	Reading reading = { .nvalues = 1, .values = { contacts }, .read_only = read_only };
	Oid texts = TEXTARRAYOID;
	CrmColumn values;
	CrmColumn unknown;

	reading.sql = psprintf("SELECT " OLD "::text" CHANGES "%s UNION SELECT " NEW "::text" CHANGES
						   "%s",
						   field, field);
	(void) read_rows(&reading);
	crm_column_init(&values, TEXTOID);
	crm_column_init(&unknown, TEXTOID);
	for (uint64 row = 0; row < SPI_processed; row++)
	{
		bool isnull;

		crm_column_add(&values, PointerGetDatum(PG_DETOAST_DATUM_COPY(crm_result(row, 1, &isnull))),
					   false);
	}
	SPI_freetuptable(SPI_tuptable);

	reading.plan = SPI_prepare(psprintf("SELECT %s FROM pg_catalog.unnest($1) AS t(t)",
										conversion("t.t::jsonb", type)),
							   1, &texts);
	if (reading.plan == NULL)
		elog(ERROR, "SPI_prepare failed: %s", SPI_result_code_string(SPI_result));
	find_unknown(&reading, values.values, values.n, &unknown);
	SPI_freeplan(reading.plan);
	return crm_column_array(&unknown);
}

static char *
type_of_field(const CrmField *field)
{
	Oid contact = crm_table_oid("contact");
	Oid type;
	int32 typmod;
	Oid collation;

	get_atttypetypmodcoll(contact, get_attnum(contact, field->name), &type, &typmod, &collation);
	return format_type_extended(type, typmod,
								FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY);
}

/*
 * The changes of one field: an event tells of one. The column may have had
 * another type, or its domain another check: a value that it does not take today
 * is unknown, and that is so whoever else is read with it.
 */
static void
load_changes(const CrmDefinitions *definitions, int place, HTAB *facts, Datum contacts,
			 bool read_only, MemoryContext context)
{
	const CrmField *field = &definitions->fields[place];
	char *type = type_of_field(field);
	char *literal = quote_literal_cstr(field->name);
	Reading reading = { .nvalues = 1, .values = { contacts }, .read_only = read_only };
	ErrorData *error;
	MemoryContext old;

	reading.sql = psprintf("SELECT e.event_id, v.old, v.new FROM crm.event e,"
						   " pg_catalog.jsonb_to_record(e.properties) AS v(old %s, new %s)" OF "%s",
						   type, type, literal);
	if (!crm_attempt(read_rows, &reading, &error))
	{
		if (!is_of_value(error))
			ReThrowError(error);
		FreeErrorData(error);
		reading.sql = psprintf("SELECT e.event_id, CASE WHEN " OLD "::text <> ALL ($2) THEN %s END,"
							   " CASE WHEN " NEW "::text <> ALL ($2) THEN %s END" CHANGES "%s",
							   conversion(OLD, type), conversion(NEW, type), literal);
		reading.nvalues = 2;
		reading.values[1] = unknown_values(literal, type, contacts, read_only);
		(void) read_rows(&reading);
	}
	old = MemoryContextSwitchTo(context);
	for (uint64 row = 0; row < SPI_processed; row++)
	{
		int64 event_id = crm_result_int64(row, 1);
		FactById *found = hash_search(facts, &event_id, HASH_FIND, NULL);
		CrmFieldChange *change;

		if (found == NULL)
			continue;
		change = palloc0(sizeof(CrmFieldChange));
		change->field = place;
		change->old = copy_result(row, 2, field, &change->old_null);
		change->new = copy_result(row, 3, field, &change->new_null);
		found->fact->change = change;
	}
	MemoryContextSwitchTo(old);
	SPI_freetuptable(SPI_tuptable);
}

void
crm_field_changes_load(const CrmDefinitions *definitions, CrmFact *facts, int64 nfacts,
					   Datum contacts, bool read_only, MemoryContext context)
{
	HASHCTL control = { .keysize = sizeof(int64),
						.entrysize = sizeof(FactById),
						.hcxt = CurrentMemoryContext };
	int kind = crm_definition_event_kind(definitions, "field_change");
	HTAB *by_id = hash_create("pg_crm field changes", 64, &control,
							  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);

	for (int64 i = 0; i < nfacts; i++)
		if (facts[i].type == CRM_FACT_EVENT && facts[i].kind == kind)
		{
			FactById *entry = hash_search(by_id, &facts[i].id, HASH_ENTER, NULL);

			entry->fact = &facts[i];
		}
	if (hash_get_num_entries(by_id) > 0)
		for (int i = 0; i < definitions->nfields; i++)
			if (definitions->fields[i].wanted)
				load_changes(definitions, i, by_id, contacts, read_only, context);
	hash_destroy(by_id);
}

void
crm_fields_begin(const CrmHistory *history, CrmWalk *walk)
{
	int nfields = walk->definitions->nfields;
	bool *changed = palloc0_array(bool, Max(nfields, 1));

	for (int i = 0; i < nfields; i++)
	{
		walk->nulls[CRM_FIRST_FIELD + i] = history->fields == NULL || history->field_nulls[i];
		walk->values[CRM_FIRST_FIELD + i] = history->fields == NULL ? (Datum) 0
																	: history->fields[i];
	}
	/* the value of now since the last change, whoever has changed it without one */
	for (int i = history->nfacts - 1; i >= 0; i--)
	{
		CrmFieldChange *change = history->facts[i].change;

		if (change == NULL || changed[change->field])
			continue;
		changed[change->field] = true;
		change->new = walk->values[CRM_FIRST_FIELD + change->field];
		change->new_null = walk->nulls[CRM_FIRST_FIELD + change->field];
	}
	for (int i = history->nfacts - 1; i >= 0; i--)
	{
		const CrmFieldChange *change = history->facts[i].change;

		if (change == NULL)
			continue;
		walk->values[CRM_FIRST_FIELD + change->field] = change->old;
		walk->nulls[CRM_FIRST_FIELD + change->field] = change->old_null;
	}
	pfree(changed);
}
