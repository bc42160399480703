/*
 * field.c
 *		The fields of contacts as stage rules read them: as they were at each
 *		moment. A field has the value of now since its last change, and before
 *		its first change the one that this change replaced.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "base/db.h"
#include "profile/history.h"

/* Statements are made for the fields that are wanted, so they are not kept by name. */
typedef struct Reading
{
	const char *sql;
	Datum contacts;
	bool read_only;
} Reading;

static bool
read_rows(void *arg)
{
	Reading *reading = arg;
	Oid type = INT8ARRAYOID;
	int code = SPI_execute_with_args(reading->sql, 1, &type, &reading->contacts, NULL,
									 reading->read_only, 0);

	if (code < 0)
		elog(ERROR, "SPI_execute_with_args failed: %s", SPI_result_code_string(code));
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
	Reading reading = { .contacts = contacts, .read_only = read_only };
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

/* The changes of one field: an event tells of one. */
static void
load_changes(const CrmDefinitions *definitions, int place, HTAB *facts, Datum contacts,
			 bool read_only, MemoryContext context)
{
	const CrmField *field = &definitions->fields[place];
	const char *name = quote_identifier(field->name);
	char *literal = quote_literal_cstr(field->name);
	Reading reading = { .contacts = contacts, .read_only = read_only };
	ErrorData *error;
	MemoryContext old;

	reading.sql =
		psprintf("SELECT e.event_id, (pg_catalog.jsonb_populate_record(NULL::crm.contact,"
				 " pg_catalog.jsonb_build_object(%s::text, e.properties -> 'old'))).%s,"
				 " (pg_catalog.jsonb_populate_record(NULL::crm.contact,"
				 " pg_catalog.jsonb_build_object(%s::text, e.properties -> 'new'))).%s"
				 " FROM crm.event e WHERE e.contact_id = ANY ($1) AND e.kind = 'field_change'"
				 " AND e.properties ->> 'field' = %s",
				 literal, name, literal, name, literal);
	/* the column may have had another type: then what it was says nothing to the rule of today */
	if (!crm_attempt(read_rows, &reading, &error))
	{
		if (ERRCODE_TO_CATEGORY(error->sqlerrcode) != ERRCODE_DATA_EXCEPTION)
			ReThrowError(error);
		FreeErrorData(error);
		return;
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
	for (int i = 0; i < history->nfacts; i++)
	{
		const CrmFieldChange *change = history->facts[i].change;

		if (change == NULL || changed[change->field])
			continue;
		changed[change->field] = true;
		walk->values[CRM_FIRST_FIELD + change->field] = change->old;
		walk->nulls[CRM_FIRST_FIELD + change->field] = change->old_null;
	}
	pfree(changed);
}
