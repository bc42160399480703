/*
 * carried.c
 *		Reading and writing what an enrolment carries.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"

#include "base/db.h"
#include "journey/carried.h"
#include "outbox/template.h"

Jsonb *
crm_empty_document(void)
{
	Jsonb *document = palloc0(offsetof(Jsonb, root) + offsetof(JsonbContainer, children));

	SET_VARSIZE(document, offsetof(Jsonb, root) + offsetof(JsonbContainer, children));
	document->root.header = JB_FOBJECT;
	return document;
}

static bool
is_empty(Jsonb *document)
{
	return document == NULL || JB_ROOT_COUNT(document) == 0;
}

char *
crm_member_text(Jsonb *document, const char *path)
{
	CrmColumn names;
	const char *dot;
	FmgrInfo extract;
	LOCAL_FCINFO(fcinfo, 2);
	Datum member;

	crm_column_init(&names, TEXTOID);
	while ((dot = strchr(path, '.')) != NULL)
	{
		crm_column_add(&names, PointerGetDatum(cstring_to_text_with_len(path, dot - path)), false);
		path = dot + 1;
	}
	crm_column_add(&names, CStringGetTextDatum(path), false);
	fmgr_info(F_JSONB_EXTRACT_PATH_TEXT, &extract);
	InitFunctionCallInfoData(*fcinfo, &extract, 2, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = JsonbPGetDatum(document);
	fcinfo->args[0].isnull = false;
	fcinfo->args[1].value = crm_column_array(&names);
	fcinfo->args[1].isnull = false;
	member = FunctionCallInvoke(fcinfo);
	return fcinfo->isnull ? NULL : TextDatumGetCString(member);
}

/* of context.x the name in the document, where it lies beside the entry */
static const char *
path_in_context(const char *name)
{
	return strncmp(name, "context.", strlen("context.")) == 0 ? name + strlen("context.") : name;
}

/* A column of the profile as JSON writes it, so that no setting of the session changes it. */
static void
read_profile(const CrmMoves *moves, const char *column, char **texts)
{
	char *sql = psprintf("SELECT p.contact_id, to_jsonb(p.%s) #>> '{}' FROM crm.profile p"
						 " WHERE p.contact_id = ANY ($1) ORDER BY p.contact_id",
						 quote_identifier(column));
	Oid type = INT8ARRAYOID;
	int64 *contacts = palloc_array(int64, moves->n);
	Datum array;
	int code;

	for (int i = 0; i < moves->n; i++)
		contacts[i] = moves->runs[i]->contact_id;
	array = crm_int64_array(contacts, moves->n);
	code = SPI_execute_with_args(sql, 1, &type, &array, NULL, crm_only_reads, 0);
	if (code < 0)
		elog(ERROR, "SPI_execute_with_args failed: %s", SPI_result_code_string(code));
	/* a contact may have several runs there */
	for (int i = 0; i < moves->n; i++)
	{
		uint64 low = 0;
		uint64 high = SPI_processed;

		while (low < high)
		{
			uint64 middle = (low + high) / 2;

			if (crm_result_int64(middle, 1) < contacts[i])
				low = middle + 1;
			else
				high = middle;
		}
		if (low < SPI_processed && crm_result_int64(low, 1) == contacts[i])
			texts[i] = crm_result_text(low, 2);
	}
	SPI_freetuptable(SPI_tuptable);
}

char **
crm_run_values(const CrmMoves *moves, const char *name)
{
	char **texts = palloc0_array(char *, moves->n);

	if (strncmp(name, "entry.", strlen("entry.")) != 0 && path_in_context(name) == name)
		read_profile(moves, name, texts);
	else
		for (int i = 0; i < moves->n; i++)
			texts[i] = crm_member_text(moves->runs[i]->context, path_in_context(name));
	return texts;
}

Jsonb *
crm_document_with(Jsonb *document, const char *name, Jsonb *value)
{
	JsonbParseState *state = NULL;
	JsonbValue key = { .type = jbvString };
	JsonbValue member;
	JsonbValue *object;

	key.val.string.val = unconstify(char *, name);
	key.val.string.len = strlen(name);
	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	pushJsonbValue(&state, WJB_KEY, &key);
	if (JB_ROOT_IS_SCALAR(value))
		(void) JsonbExtractScalar(&value->root, &member);
	else
	{
		member.type = jbvBinary;
		member.val.binary.len = VARSIZE(value) - VARHDRSZ;
		member.val.binary.data = &value->root;
	}
	pushJsonbValue(&state, WJB_VALUE, &member);
	object = pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	if (is_empty(document))
		return JsonbValueToJsonb(object);
	return DatumGetJsonbP(DirectFunctionCall2(jsonb_concat, JsonbPGetDatum(document),
											  JsonbPGetDatum(JsonbValueToJsonb(object))));
}

Jsonb *
crm_text_json(const char *text)
{
	JsonbValue value = { .type = jbvString };

	value.val.string.val = unconstify(char *, text);
	value.val.string.len = strlen(text);
	return JsonbValueToJsonb(&value);
}

void
crm_run_save(CrmRun *run, const char *name, const char *value)
{
	run->context = crm_document_with(run->context, name, crm_text_json(value));
	run->changed = true;
}

typedef struct Parsing
{
	const char *text;
	MemoryContext context;
	Jsonb *document;
} Parsing;

static bool
parse(void *arg)
{
	Parsing *parsing = arg;
	MemoryContext old = MemoryContextSwitchTo(parsing->context);

	parsing->document = DatumGetJsonbP(
		DirectFunctionCall1(jsonb_in, CStringGetDatum(parsing->text)));
	MemoryContextSwitchTo(old);
	return true;
}

void
crm_run_save_json(CrmRun *run, const char *name, const char *value)
{
	Parsing parsing = { .text = value, .context = CurrentMemoryContext };
	ErrorData *error;

	/* what a stranger answered may be anything */
	if (crm_attempt(parse, &parsing, &error))
		run->context = crm_document_with(run->context, name, parsing.document);
	else
	{
		if (ERRCODE_TO_CATEGORY(error->sqlerrcode) != ERRCODE_DATA_EXCEPTION &&
			error->sqlerrcode != ERRCODE_PROGRAM_LIMIT_EXCEEDED)
			ReThrowError(error);
		FreeErrorData(error);
		run->context = crm_document_with(run->context, name, crm_text_json(value));
	}
	run->changed = true;
}

/* A member as the column of a fact; a property of the same name may be of any type. */
static bool
member_datum(const JsonbValue *member, Oid type, Datum *value)
{
	char *end;
	char *text;

	switch (type)
	{
		case TEXTOID:
			if (member->type != jbvString)
				return false;
			*value = PointerGetDatum(
				cstring_to_text_with_len(member->val.string.val, member->val.string.len));
			return true;
		case NUMERICOID:
			*value = NumericGetDatum(member->val.numeric);
			return member->type == jbvNumeric;
		case INT8OID:
			if (member->type != jbvNumeric)
				return false;
			text = DatumGetCString(
				DirectFunctionCall1(numeric_out, NumericGetDatum(member->val.numeric)));
			errno = 0;
			*value = Int64GetDatum(strtoll(text, &end, 10));
			return errno == 0 && *end == '\0';
		case JSONBOID:
			*value = JsonbPGetDatum(JsonbValueToJsonb(unconstify(JsonbValue *, member)));
			return true;
		default:
			return false;
	}
}

void
crm_run_fact(const CrmRun *run, CrmFactValues *fact)
{
	JsonbValue *found = getKeyJsonValueFromContainer(&run->context->root, "entry", 5, NULL);
	JsonbContainer *entry = found != NULL && found->type == jbvBinary ? found->val.binary.data
																	  : NULL;

	memset(fact, 0, sizeof(CrmFactValues));
	fact->contact_id = run->contact_id;
	fact->as_of = run->at;
	for (int i = 0; i < CRM_FACT_COLUMNS; i++)
	{
		const CrmVariable *variable = &crm_fact_variables[i];
		const char *dot = strchr(variable->name, '.');
		const char *name = dot == NULL ? variable->name : dot + 1;
		JsonbValue *member;

		fact->nulls[i] = true;
		if (entry == NULL)
			continue;
		if (i == CRM_F_PROPERTIES)
		{
			/* they lie beside the columns, see crm_signal_entry() */
			fact->values[i] = JsonbPGetDatum(JsonbValueToJsonb(found));
			fact->nulls[i] = false;
		}
		else if (i == CRM_F_OCCURRED_AT)
		{
			fact->values[i] = TimestampTzGetDatum(run->source_at);
			fact->nulls[i] = run->source_at == DT_NOBEGIN;
		}
		else if ((member = getKeyJsonValueFromContainer(entry, name, strlen(name), NULL)) != NULL)
			fact->nulls[i] = !member_datum(member, variable->type, &fact->values[i]);
	}
}

Jsonb *
crm_run_params(const CrmRun *run, Jsonb *step_params)
{
	Jsonb *params = is_empty(step_params) ? crm_empty_document() : crm_run_fill(run, step_params);
	Jsonb *saved;
	JsonbValue *entry;

	if (is_empty(run->context))
		return params;
	entry = getKeyJsonValueFromContainer(&run->context->root, "entry", 5, NULL);
	if (entry != NULL)
		params = crm_document_with(params, "entry", JsonbValueToJsonb(entry));
	if (entry != NULL && JB_ROOT_COUNT(run->context) == 1)
		return params;
	saved = DatumGetJsonbP(DirectFunctionCall2(jsonb_delete, JsonbPGetDatum(run->context),
											   CStringGetTextDatum("entry")));
	if (!is_empty(saved))
		params = crm_document_with(params, "context", saved);
	return params;
}

Jsonb *
crm_run_fill(const CrmRun *run, Jsonb *document)
{
	char *missing = NULL;
	char *filled;

	if (is_empty(document) || !crm_template_has_places(document))
		return document;
	filled = crm_template_render(document, crm_run_params(run, NULL), NULL, &missing);
	if (filled == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("step \"%s\" of journey \"%s\" needs %s, which the enrolment does not have",
						run->journey->steps[run->step].name, run->journey->name, missing),
				 errhint("Say what stands for it where it is missing: {{%s|something}}.",
						 missing)));
	return DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(filled)));
}
