/*
 * document.c
 *		Definitions that come as one jsonb object whose keys are the columns of
 *		a table. A document is the whole definition: what it leaves out gets the
 *		column's default, so that the same document gives the same row.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/table.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/numeric.h"
#include "utils/rel.h"

#include "base/db.h"
#include "base/document.h"
#include "base/install.h"
#include "base/table.h"
#include "pg_crm.h"

CrmDocument *
crm_document_open(FunctionCallInfo fcinfo, const char *function)
{
	CrmDocument *document = palloc0(sizeof(CrmDocument));
	Jsonb *jsonb;
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue value;

	document->function = function;
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument definition of crm.%s() must not be NULL", function),
				 errhint("Give a jsonb object whose keys are columns.")));
	if (toast_raw_datum_size(PG_GETARG_DATUM(0)) > CRM_MAX_DOCUMENT_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("definition of %zu bytes is larger than %d",
						(size_t) toast_raw_datum_size(PG_GETARG_DATUM(0)), CRM_MAX_DOCUMENT_BYTES),
				 errhint("Keep large documents outside and record where they are.")));
	jsonb = PG_GETARG_JSONB_P(0);
	if (!JB_ROOT_IS_OBJECT(jsonb))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("definition given to crm.%s() is %s, not an object", function,
						JB_ROOT_IS_SCALAR(jsonb) ? "a scalar" : "an array"),
				 errhint("Give a jsonb object whose keys are columns.")));

	document->keys = palloc_array(char *, Max(JB_ROOT_COUNT(jsonb), 1));
	document->values = palloc_array(JsonbValue, Max(JB_ROOT_COUNT(jsonb), 1));
	iterator = JsonbIteratorInit(&jsonb->root);
	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			document->keys[document->n] = pnstrdup(value.val.string.val, value.val.string.len);
		else if (token == WJB_VALUE)
			document->values[document->n++] = value;
	}
	return document;
}

static int
find(CrmDocument *document, const char *key)
{
	for (int i = 0; i < document->n; i++)
		if (strcmp(document->keys[i], key) == 0)
			return i;
	return -1;
}

JsonbValue *
crm_document_value(CrmDocument *document, const char *key)
{
	int place = find(document, key);

	return place < 0 ? NULL : &document->values[place];
}

void
crm_document_set_int64(CrmDocument *document, const char *key, int64 value)
{
	int place = find(document, key);

	if (place < 0)
	{
		document->keys = repalloc_array(document->keys, char *, document->n + 1);
		document->values = repalloc_array(document->values, JsonbValue, document->n + 1);
		place = document->n++;
		document->keys[place] = pstrdup(key);
	}
	document->values[place].type = jbvNumeric;
	document->values[place].val.numeric = int64_to_numeric(value);
}

void
crm_document_remove(CrmDocument *document, const char *key)
{
	int place = find(document, key);

	if (place < 0)
		return;
	document->n--;
	document->keys[place] = document->keys[document->n];
	document->values[place] = document->values[document->n];
}

void
crm_document_require(CrmDocument *document, const char *const *keys, int nkeys)
{
	for (int i = 0; i < nkeys; i++)
	{
		JsonbValue *value = crm_document_value(document, keys[i]);

		if (value == NULL || value->type == jbvNull)
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("key \"%s\" of the definition given to crm.%s() is %s", keys[i],
							document->function, value == NULL ? "missing" : "null"),
					 errhint("A definition names at least %s.", keys[i])));
	}
}

/* Columns that a document gives: not those that the database does. */
static bool
is_given(Form_pg_attribute attribute)
{
	return !attribute->attisdropped && attribute->attidentity == '\0' &&
		attribute->attgenerated == '\0' && strcmp(NameStr(attribute->attname), "version") != 0;
}

void
crm_document_check_keys(CrmDocument *document, const char *table, const char *const *others,
						int nothers)
{
	Relation rel = table_open(crm_table_oid(table), AccessShareLock);
	TupleDesc descriptor = RelationGetDescr(rel);
	StringInfoData known;

	initStringInfo(&known);
	for (int i = 0; i < descriptor->natts; i++)
		if (is_given(TupleDescAttr(descriptor, i)))
			appendStringInfo(&known, "%s%s", known.len > 0 ? ", " : "",
							 NameStr(TupleDescAttr(descriptor, i)->attname));
	for (int i = 0; i < nothers; i++)
		appendStringInfo(&known, ", %s", others[i]);

	for (int key = 0; key < document->n; key++)
	{
		bool found = false;

		for (int i = 0; i < descriptor->natts && !found; i++)
			found = is_given(TupleDescAttr(descriptor, i)) &&
				strcmp(NameStr(TupleDescAttr(descriptor, i)->attname), document->keys[key]) == 0;
		for (int i = 0; i < nothers && !found; i++)
			found = strcmp(others[i], document->keys[key]) == 0;
		if (!found)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("definition given to crm.%s() holds unknown key \"%s\"",
							document->function, pnstrdup(document->keys[key], 63)),
					 errhint("Known keys are: %s.", known.data)));
	}
	table_close(rel, AccessShareLock);
}

const char *
crm_json_type(const JsonbValue *value)
{
	switch (value->type)
	{
		case jbvNull:
			return "null";
		case jbvString:
			return "a string";
		case jbvNumeric:
			return "a number";
		case jbvBool:
			return "a boolean";
		default:
			return value->type == jbvBinary && JsonContainerIsArray(value->val.binary.data)
				? "an array"
				: "an object";
	}
}

static void
refuse_value(CrmDocument *document, const char *key, const JsonbValue *value, const char *wanted)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("key \"%s\" of the definition given to crm.%s() is %s, not %s", key,
					document->function, crm_json_type(value), wanted),
			 errhint("Write it as %s.", wanted)));
}

static bool
is_whole(const JsonbValue *value)
{
	Datum number = NumericGetDatum(value->val.numeric);

	return DatumGetBool(
		DirectFunctionCall2(numeric_eq, number,
							DirectFunctionCall2(numeric_trunc, number, Int32GetDatum(0))));
}

/* A scalar as the input function of the type takes it. */
static char *
scalar_text(CrmDocument *document, const char *key, const JsonbValue *value, Oid type)
{
	char category;
	bool preferred;

	get_type_category_preferred(type, &category, &preferred);
	if (category == TYPCATEGORY_BOOLEAN)
	{
		if (value->type != jbvBool)
			refuse_value(document, key, value, "a boolean");
		return pstrdup(value->val.boolean ? "true" : "false");
	}
	if (category == TYPCATEGORY_NUMERIC)
	{
		bool whole = type == INT2OID || type == INT4OID || type == INT8OID;

		if (value->type != jbvNumeric)
			refuse_value(document, key, value, whole ? "a whole number" : "a number");
		if (!whole)
			return numeric_normalize(value->val.numeric);
		if (!is_whole(value))
			refuse_value(document, key, value, "a whole number");
		return DatumGetCString(
			DirectFunctionCall1(numeric_out,
								DirectFunctionCall2(numeric_trunc,
													NumericGetDatum(value->val.numeric),
													Int32GetDatum(0))));
	}
	if (value->type != jbvString)
		refuse_value(document, key, value, "a string");
	return pnstrdup(value->val.string.val, value->val.string.len);
}

static char *
array_text(CrmDocument *document, const char *key, const JsonbValue *value, Oid element_type)
{
	ArrayBuildState *build = initArrayResult(TEXTOID, CurrentMemoryContext, false);
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue element;
	Oid output;
	bool is_varlena;

	if (value->type != jbvBinary || !JsonContainerIsArray(value->val.binary.data))
		refuse_value(document, key, value, "an array");
	iterator = JsonbIteratorInit(value->val.binary.data);
	while ((token = JsonbIteratorNext(&iterator, &element, true)) != WJB_DONE)
		if (token == WJB_ELEM)
		{
			if (element.type == jbvNull)
				refuse_value(document, key, &element, "an array without nulls");
			accumArrayResult(build,
							 CStringGetTextDatum(
								 scalar_text(document, key, &element, element_type)),
							 false, TEXTOID, CurrentMemoryContext);
		}
	getTypeOutputInfo(TEXTARRAYOID, &output, &is_varlena);
	return OidOutputFunctionCall(output, makeArrayResult(build, CurrentMemoryContext));
}

char *
crm_document_literal(CrmDocument *document, const char *key, const char *table, const char *column)
{
	JsonbValue *value = crm_document_value(document, key);
	Oid relid = crm_table_oid(table);
	AttrNumber attno = get_attnum(relid, column);
	Oid type = getBaseType(get_atttype(relid, attno));
	Oid element_type = get_element_type(type);
	char *text;

	if (type == JSONBOID || type == JSONOID)
	{
		Jsonb *jsonb = JsonbValueToJsonb(value);

		text = JsonbToCString(NULL, &jsonb->root, VARSIZE(jsonb));
	}
	else if (value->type == jbvNull)
		return pstrdup("NULL");
	else if (OidIsValid(element_type))
		text = array_text(document, key, value, element_type);
	else
		text = scalar_text(document, key, value, type);
	return psprintf("%s::%s", quote_literal_cstr(text),
					format_type_be_qualified(get_atttype(relid, attno)));
}

int
crm_document_save(CrmDocument *document, const char *table, const char *const *key_columns,
				  int nkey_columns)
{
	Relation rel = table_open(crm_table_oid(table), AccessShareLock);
	TupleDesc descriptor = RelationGetDescr(rel);
	StringInfoData columns;
	StringInfoData values;
	StringInfoData sets;
	StringInfoData keys;

	initStringInfo(&columns);
	initStringInfo(&values);
	initStringInfo(&sets);
	initStringInfo(&keys);
	for (int i = 0; i < descriptor->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(descriptor, i);
		char *name = NameStr(attribute->attname);
		const char *quoted = quote_identifier(name);
		JsonbValue *value = crm_document_value(document, name);
		bool is_key = false;

		if (!is_given(attribute))
			continue;
		if (value != NULL)
		{
			if (value->type == jbvNull && attribute->attnotnull)
				crm_document_require(document, (const char *const *) &name, 1);
			appendStringInfo(&columns, "%s%s", columns.len > 0 ? ", " : "", quoted);
			appendStringInfo(&values, "%s%s", values.len > 0 ? ", " : "",
							 crm_document_literal(document, name, table, name));
		}
		for (int key = 0; key < nkey_columns; key++)
			is_key = is_key || strcmp(key_columns[key], name) == 0;
		if (is_key)
			appendStringInfo(&keys, "%s%s", keys.len > 0 ? ", " : "", quoted);
		else
			appendStringInfo(&sets, "%s%s = EXCLUDED.%s", sets.len > 0 ? ", " : "", quoted, quoted);
	}
	table_close(rel, AccessShareLock);
	return pg_strtoint32(
		crm_ddl_text(psprintf("INSERT INTO crm.%s AS t (%s) VALUES (%s)"
							  " ON CONFLICT (%s) DO UPDATE SET %s RETURNING t.version",
							  table, columns.data, values.data, keys.data, sets.data)));
}

int
crm_document_define(FunctionCallInfo fcinfo, const char *function, const char *table,
					const char *const *required, int nrequired)
{
	CrmDocument *document = crm_document_open(fcinfo, function);
	CrmActing acting;
	int version;

	crm_document_check_keys(document, table, NULL, 0);
	crm_document_require(document, required, nrequired);
	crm_connect(&acting);
	version = crm_document_save(document, table, required, 1);
	crm_disconnect(&acting);
	return version;
}
