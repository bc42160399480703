/*
 * reading.c
 *		Reading a document: where we are in it, its objects, and what is wrong.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/varlena.h"

#include "journey/reading.h"

/* of a key or name in messages */
#define SHOWN_BYTES 63

/* so many faults are told; the rest is counted */
#define MAX_FAULTS_TOLD 1000

void
crm_reading_begin(CrmReading *reading, MemoryContext context)
{
	reading->context = context;
	reading->outside = MemoryContextSwitchTo(context);
	reading->scratch = AllocSetContextCreate(context, "pg_crm rule of a document",
											 ALLOCSET_SMALL_SIZES);
	initStringInfo(&reading->path);
	crm_column_init(&reading->kinds, TEXTOID);
	crm_column_init(&reading->names, TEXTOID);
	crm_column_init(&reading->others, TEXTOID);
}

static int
compare_faults(const ListCell *a, const ListCell *b)
{
	return ((CrmFault *) lfirst(a))->place - ((CrmFault *) lfirst(b))->place;
}

List *
crm_reading_end(CrmReading *reading)
{
	list_sort(reading->faults, compare_faults);
	MemoryContextDelete(reading->scratch);
	MemoryContextSwitchTo(reading->outside);
	return reading->faults;
}

char *
crm_faults_text(List *faults)
{
	StringInfoData text;
	ListCell *cell;

	initStringInfo(&text);
	foreach(cell, faults)
	{
		CrmFault *fault = lfirst(cell);

		if (foreach_current_index(cell) == MAX_FAULTS_TOLD)
		{
			appendStringInfo(&text, "\nand %d more", list_length(faults) - MAX_FAULTS_TOLD);
			break;
		}
		appendStringInfo(&text, "%s%s: %s", text.len > 0 ? "\n" : "", fault->path, fault->what);
	}
	return text.data;
}

JsonbValue
crm_document_root(Jsonb *document)
{
	JsonbValue root;

	root.type = jbvBinary;
	root.val.binary.data = &document->root;
	root.val.binary.len = VARSIZE_ANY_EXHDR(document);
	return root;
}

char *
crm_shown(const char *text)
{
	int len = strlen(text);

	return len <= SHOWN_BYTES
		? pstrdup(text)
		: psprintf("%s...", pnstrdup(text, pg_mbcliplen(text, len, SHOWN_BYTES)));
}

static char *
path_of(const CrmReading *reading, const char *key)
{
	if (key == NULL)
		return pstrdup(reading->path.data);
	return psprintf("%s%s%s", reading->path.data, reading->path.len > 0 ? "." : "", crm_shown(key));
}

static void
add_fault(CrmReading *reading, const char *key, const char *what)
{
	CrmFault *fault = palloc(sizeof(CrmFault));

	fault->place = reading->places++;
	fault->path = path_of(reading, key);
	fault->what = what;
	reading->faults = lappend(reading->faults, fault);
}

static char *format_text(const char *format, va_list arguments) pg_attribute_printf(1, 0);

static char *
format_text(const char *format, va_list arguments)
{
	StringInfoData text;
	int needed;

	initStringInfo(&text);
	for (;;)
	{
		va_list copy;

		va_copy(copy, arguments);
		needed = appendStringInfoVA(&text, format, copy);
		va_end(copy);
		if (needed == 0)
			return text.data;
		enlargeStringInfo(&text, needed);
	}
}

void
crm_fault(CrmReading *reading, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	add_fault(reading, NULL, format_text(format, arguments));
	va_end(arguments);
}

void
crm_fault_at(CrmReading *reading, const char *key, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	add_fault(reading, key, format_text(format, arguments));
	va_end(arguments);
}

int
crm_path_enter(CrmReading *reading, const char *key)
{
	int before = reading->path.len;

	appendStringInfo(&reading->path, "%s%s", before > 0 ? "." : "", crm_shown(key));
	return before;
}

int
crm_path_enter_place(CrmReading *reading, int place)
{
	int before = reading->path.len;

	appendStringInfo(&reading->path, "[%d]", place);
	return before;
}

void
crm_path_leave(CrmReading *reading, int before)
{
	reading->path.len = before;
	reading->path.data[before] = '\0';
}

bool
crm_object_open(CrmReading *reading, const JsonbValue *value, CrmObject *object)
{
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue part;
	int size;

	memset(object, 0, sizeof(CrmObject));
	if (value->type != jbvBinary || !JsonContainerIsObject(value->val.binary.data))
	{
		crm_fault(reading, "is %s, not an object", crm_json_type(value));
		return false;
	}
	size = Max(JsonContainerSize(value->val.binary.data), 1);
	object->keys = palloc_array(char *, size);
	object->values = palloc_array(JsonbValue, size);
	object->taken = palloc0_array(bool, size);
	iterator = JsonbIteratorInit(value->val.binary.data);
	while ((token = JsonbIteratorNext(&iterator, &part, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			object->keys[object->n] = pnstrdup(part.val.string.val, part.val.string.len);
		else if (token == WJB_VALUE)
			object->values[object->n++] = part;
	}
	return true;
}

static int
find(const CrmObject *object, const char *key)
{
	for (int i = 0; i < object->n; i++)
		if (strcmp(object->keys[i], key) == 0)
			return i;
	return -1;
}

bool
crm_object_has(const CrmObject *object, const char *key)
{
	return find(object, key) >= 0;
}

JsonbValue *
crm_object_take(CrmObject *object, const char *key)
{
	int place = find(object, key);

	object->known = lappend(object->known, unconstify(char *, key));
	if (place < 0)
		return NULL;
	object->taken[place] = true;
	return &object->values[place];
}

JsonbValue *
crm_object_offer(CrmReading *reading, CrmObject *object, const char *key)
{
	JsonbValue *value = crm_object_take(object, key);

	if (value == NULL || value->type != jbvNull)
		return value;
	crm_fault_at(reading, key, "is null; leave it out instead");
	return NULL;
}

JsonbValue *
crm_object_require(CrmReading *reading, CrmObject *object, const char *key)
{
	JsonbValue *value = crm_object_take(object, key);

	if (value != NULL && value->type != jbvNull)
		return value;
	crm_fault_at(reading, key, value == NULL ? "is missing" : "is null");
	return NULL;
}

/* The known key that looks most like it; NULL if none does. */
static const char *
nearest(List *known, const char *key)
{
	const char *found = NULL;
	int least = 3;
	int len = strlen(key);
	ListCell *cell;

	if (len > CRM_MAX_JOURNEY_NAME)
		return NULL;
	foreach(cell, known)
	{
		const char *candidate = lfirst(cell);
		int distance;

		if (len >= 3 && strncmp(candidate, key, len) == 0)
			return candidate; /* cut short */
		distance = varstr_levenshtein_less_equal(key, len, candidate, strlen(candidate), 1, 1, 1,
												 least, true);

		if (distance < least && distance < len)
		{
			least = distance;
			found = candidate;
		}
	}
	return found;
}

void
crm_object_close(CrmReading *reading, CrmObject *object)
{
	for (int i = 0; i < object->n; i++)
	{
		const char *like;

		if (object->taken[i])
			continue;
		like = nearest(object->known, object->keys[i]);
		if (like != NULL)
			crm_fault_at(reading, object->keys[i], "unknown key; did you mean \"%s\"?", like);
		else
			crm_fault_at(reading, object->keys[i], "unknown key");
	}
}

JsonbValue *
crm_array_open(CrmReading *reading, const char *key, const JsonbValue *value, int *n)
{
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue *elements;
	JsonbValue part;

	*n = 0;
	if (value->type != jbvBinary || !JsonContainerIsArray(value->val.binary.data))
	{
		crm_fault_at(reading, key, "is %s, not an array", crm_json_type(value));
		return NULL;
	}
	elements = palloc_array(JsonbValue, Max(JsonContainerSize(value->val.binary.data), 1));
	iterator = JsonbIteratorInit(value->val.binary.data);
	while ((token = JsonbIteratorNext(&iterator, &part, true)) != WJB_DONE)
		if (token == WJB_ELEM)
			elements[(*n)++] = part;
	return elements;
}

char *
crm_error_text(const ErrorData *error)
{
	int position = error->cursorpos > 0 ? error->cursorpos : error->internalpos;
	StringInfoData text;

	initStringInfo(&text);
	appendStringInfoString(&text, error->message);
	if (position > 0)
		appendStringInfo(&text, " at character %d", position);
	return text.data;
}

void
crm_reference(CrmReading *reading, const char *kind, const char *name, const char *other,
			  const char *key, const char *what)
{
	CrmFault *fault = palloc(sizeof(CrmFault));

	fault->place = reading->places++;
	fault->path = path_of(reading, key);
	fault->what = what;
	reading->references = lappend(reading->references, fault);
	crm_column_add(&reading->kinds, CStringGetTextDatum(kind), false);
	crm_column_add(&reading->names, CStringGetTextDatum(name), false);
	crm_column_add(&reading->others, other == NULL ? (Datum) 0 : CStringGetTextDatum(other),
				   other == NULL);
}

/* kinds of events that mean more than that they happened: no step may record them */
#define KEPT_KINDS                                                                      \
	"'purchase', 'refund', 'scan', 'follow', 'unfollow', 'set_stage', 'bind_mobile',"   \
	" 'join_loyalty', 'issue_coupon', 'redeem_coupon', 'suppress', 'unsuppress',"       \
	" 'grant_consent', 'withdraw_consent', 'field_change', 'message', 'enter_session'," \
	" 'menu_click'"

static CrmPlan find_missing = {
	"SELECT (r.place - 1)::integer FROM unnest($1, $2, $3) WITH ORDINALITY AS r(kind, name, other, place)"
	" WHERE NOT CASE r.kind"
	" WHEN 'template' THEN EXISTS (SELECT FROM crm.template t WHERE t.name = r.name)"
	" WHEN 'webhook' THEN EXISTS (SELECT FROM crm.template t WHERE t.name = r.name"
	"   AND t.channel = 'webhook')"
	" WHEN 'achievement' THEN EXISTS (SELECT FROM crm.achievement a WHERE a.name = r.name)"
	" WHEN 'awardable' THEN NOT EXISTS (SELECT FROM crm.achievement a WHERE a.name = r.name"
	"   AND a.on_kind IN (" KEPT_KINDS "))"
	" WHEN 'threshold' THEN NOT EXISTS (SELECT FROM crm.achievement a WHERE a.name = r.name"
	"   AND r.other::numeric <> ALL (a.thresholds))"
	" WHEN 'stage' THEN EXISTS (SELECT FROM crm.stage s WHERE s.stage = r.name)"
	" WHEN 'segment' THEN EXISTS (SELECT FROM crm.segment s WHERE s.name = r.name)"
	" WHEN 'coupon' THEN EXISTS (SELECT FROM crm.coupon c WHERE c.name = r.name)"
	" WHEN 'program' THEN EXISTS (SELECT FROM crm.loyalty_program p WHERE p.name = r.name)"
	" WHEN 'journey' THEN EXISTS (SELECT FROM crm.journey j WHERE j.journey = r.name)"
	" WHEN 'account' THEN EXISTS (SELECT FROM crm.account a WHERE a.name = r.name)"
	" ELSE false END ORDER BY r.place",
	3,
	{ TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID }
};

void
crm_references_check(CrmReading *reading)
{
	MemoryContext old = CurrentMemoryContext;
	Datum values[3];
	uint64 n;

	if (reading->references == NIL)
		return;
	values[0] = crm_column_array(&reading->kinds);
	values[1] = crm_column_array(&reading->names);
	values[2] = crm_column_array(&reading->others);
	n = crm_run(&find_missing, values, NULL);
	MemoryContextSwitchTo(old);
	for (uint64 row = 0; row < n; row++)
	{
		bool isnull;
		int place = DatumGetInt32(crm_result(row, 1, &isnull));

		reading->faults = lappend(reading->faults, list_nth(reading->references, place));
	}
	SPI_freetuptable(SPI_tuptable);
}
