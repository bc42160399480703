/*
 * visits.c
 *		Who met which touchpoint when: the facts of a period, each table read
 *		once, by the touchpoints that ask for them.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/db.h"
#include "insight/touchpoint.h"
#include "journey/past.h"
#include "journey/reading.h"

/* facts that are looked at together */
#define BATCH 5000

/* columns of the statements */
enum
{
	CONTACT_ID = 1,
	SOURCE_ID,
	OCCURRED_AT,
	KIND,
	ACCOUNT_ID,
	PAGE,
	SCENE,
	CAMPAIGN,
	TEMPLATE,
	AMOUNT,
	FIRST_OF_FACT /* by CrmFactColumn, from the amount on; only where a rule reads it */
};

#define PARAMETERS 4
static const Oid parameter_types[PARAMETERS] = {
	TIMESTAMPTZOID, /* $1 start */
	TIMESTAMPTZOID, /* $2 end */
	TEXTARRAYOID,   /* $3 kinds or templates */
	TEXTOID,        /* $4 rule of the persona */
};

static const struct
{
	const char *table;
	const char *columns; /* up to AMOUNT, which is its own for orders */
	const char *of_fact;
	const char *from; /* with the kinds and the time */
	const char *contact;
} sources[CRM_VISIT_SOURCES] = {
	[CRM_FROM_EVENT] = {
		"event",
		"e.contact_id, e.event_id, e.occurred_at, e.kind, e.account_id,"
		" pg_catalog.split_part(e.properties ->> 'page', '?', 1), NULL::text, NULL::text, NULL::text",
		CRM_PAST_EVENT,
		"crm.event e WHERE e.kind = ANY ($3) AND e.occurred_at >= $1 AND e.occurred_at < $2",
		"e.contact_id",
	},
	[CRM_FROM_TRANSACTION] = {
		"transaction",
		"t.contact_id, t.transaction_id, t.occurred_at, t.kind, NULL::bigint,"
		" NULL::text, NULL::text, NULL::text, NULL::text",
		CRM_PAST_ORDER("t.amount"),
		"crm.transaction t WHERE t.kind = ANY ($3) AND t.occurred_at >= $1 AND t.occurred_at < $2",
		"t.contact_id",
	},
	[CRM_FROM_SCAN] = {
		"scan",
		"s.contact_id, s.scan_id, s.occurred_at, 'scan'::text, q.account_id,"
		" NULL::text, q.scene, q.campaign, NULL::text",
		CRM_PAST_SCAN,
		"crm.scan s JOIN crm.qr_code q ON q.qr_code_id = s.qr_code_id"
		" WHERE $3 IS NOT NULL AND s.occurred_at >= $1 AND s.occurred_at < $2",
		"s.contact_id",
	},
	[CRM_FROM_MESSAGE] = {
		"message",
		"m.contact_id, m.message_id, m.sent_at, NULL::text, m.account_id,"
		" NULL::text, NULL::text, NULL::text, m.template",
		NULL,
		"crm.message m WHERE m.state = 'sent' AND m.template = ANY ($3)"
		" AND m.sent_at >= $1 AND m.sent_at < $2",
		"m.contact_id",
	},
};

/* of an order, less its refunds */
#define NET_AMOUNT                                                                          \
	"CASE WHEN t.kind = 'purchase' AND t.currency = crm.default_currency() THEN t.amount -" \
	" COALESCE((SELECT pg_catalog.sum(r.amount) FROM crm.transaction r"                     \
	" WHERE r.contact_id = t.contact_id AND r.kind = 'refund'"                              \
	" AND r.refund_of = t.transaction_id), 0) END"

const char *
crm_source_table(CrmVisitSource source)
{
	return sources[source].table;
}

static CrmVisitSource
source_of(const CrmTouchpoint *touchpoint)
{
	if (touchpoint->template != NULL)
		return CRM_FROM_MESSAGE;
	if (strcmp(touchpoint->on_kind, "purchase") == 0 || strcmp(touchpoint->on_kind, "refund") == 0)
		return CRM_FROM_TRANSACTION;
	return strcmp(touchpoint->on_kind, "scan") == 0 ? CRM_FROM_SCAN : CRM_FROM_EVENT;
}

static bool
is_text(HeapTuple tuple, TupleDesc descriptor, int column, const char *wanted)
{
	bool isnull;
	Datum value = SPI_getbinval(tuple, descriptor, column, &isnull);
	size_t length = strlen(wanted);
	text *found;

	if (isnull)
		return false;
	found = DatumGetTextPP(value);
	return VARSIZE_ANY_EXHDR(found) == length && memcmp(VARDATA_ANY(found), wanted, length) == 0;
}

/* Does the fact belong to the touchpoint, but for its rule? */
static bool
belongs(const CrmTouchpoint *touchpoint, HeapTuple tuple, TupleDesc descriptor)
{
	const struct
	{
		const char *wanted;
		int column;
	} texts[] = { { touchpoint->on_kind, KIND },
				  { touchpoint->page, PAGE },
				  { touchpoint->scene, SCENE },
				  { touchpoint->campaign, CAMPAIGN },
				  { touchpoint->template, TEMPLATE } };

	for (int i = 0; i < lengthof(texts); i++)
		if (texts[i].wanted != NULL &&
			!is_text(tuple, descriptor, texts[i].column, texts[i].wanted))
			return false;
	if (touchpoint->on_account)
	{
		bool isnull;
		Datum account = SPI_getbinval(tuple, descriptor, ACCOUNT_ID, &isnull);

		if (isnull || DatumGetInt64(account) != touchpoint->account_id)
			return false;
	}
	return true;
}

static void
read_fact(CrmFactValues *fact, HeapTuple tuple, TupleDesc descriptor)
{
	bool isnull;
	TimestampTz occurred_at = DatumGetTimestampTz(
		SPI_getbinval(tuple, descriptor, OCCURRED_AT, &isnull));

	fact->contact_id = DatumGetInt64(SPI_getbinval(tuple, descriptor, CONTACT_ID, &isnull));
	fact->as_of = occurred_at;
	fact->values[CRM_F_KIND] = SPI_getbinval(tuple, descriptor, KIND, &fact->nulls[CRM_F_KIND]);
	fact->values[CRM_F_OCCURRED_AT] = TimestampTzGetDatum(occurred_at);
	fact->nulls[CRM_F_OCCURRED_AT] = false;
	for (int column = CRM_F_AMOUNT; column < CRM_FACT_COLUMNS; column++)
		fact->values[column] = SPI_getbinval(tuple, descriptor,
											 FIRST_OF_FACT + column - CRM_F_AMOUNT,
											 &fact->nulls[column]);
}

/* Of the rows that nobody took, those for which the rule holds too. */
static void
take_by_rule(const CrmTouchpoint *touchpoint, int place, SPITupleTable *rows, const int *asked,
			 int nasked, int *taken)
{
	CrmRuleUser user = { "touchpoint", touchpoint->name };
	CrmFactValues *facts = palloc_array(CrmFactValues, nasked);
	bool *holds = palloc_array(bool, nasked);

	for (int i = 0; i < nasked; i++)
		read_fact(&facts[i], rows->vals[asked[i]], rows->tupdesc);
	crm_fact_rule_evaluate(touchpoint->rule, &user, facts, nasked, holds);
	for (int i = 0; i < nasked; i++)
		if (holds[i])
			taken[asked[i]] = place;
}

static void
take(const CrmVisitSearch *search, CrmVisitSource source, SPITupleTable *rows, int nrows)
{
	int *taken = palloc_array(int, nrows);
	int *asked = palloc_array(int, nrows);

	memset(taken, -1, sizeof(int) * nrows);
	for (int place = 0; place < search->ntouchpoints; place++)
	{
		const CrmTouchpoint *touchpoint = &search->touchpoints[place];
		int nasked = 0;

		if (touchpoint->broken || source_of(touchpoint) != source)
			continue;
		for (int row = 0; row < nrows; row++)
			if (taken[row] < 0 && belongs(touchpoint, rows->vals[row], rows->tupdesc))
				asked[nasked++] = row;
		if (touchpoint->rule != NULL && nasked > 0)
			take_by_rule(touchpoint, place, rows, asked, nasked, taken);
		for (int i = 0; i < nasked && touchpoint->rule == NULL; i++)
			taken[asked[i]] = place;
	}
	for (int row = 0; row < nrows; row++)
	{
		CrmTouchpointVisit visit = { .touchpoint = taken[row], .source = source };
		HeapTuple tuple = rows->vals[row];
		bool isnull;

		if (taken[row] < 0)
			continue;
		visit.contact_id = DatumGetInt64(SPI_getbinval(tuple, rows->tupdesc, CONTACT_ID, &isnull));
		visit.occurred_at = DatumGetTimestampTz(
			SPI_getbinval(tuple, rows->tupdesc, OCCURRED_AT, &isnull));
		visit.source_id = DatumGetInt64(SPI_getbinval(tuple, rows->tupdesc, SOURCE_ID, &isnull));
		visit.amount = SPI_getbinval(tuple, rows->tupdesc, AMOUNT, &visit.no_amount);
		search->function(search->arg, &visit);
	}
}

/* The statement of a source; false where no touchpoint asks for it. */
static bool
make_statement(const CrmVisitSearch *search, CrmVisitSource source, StringInfo sql, Datum *names)
{
	CrmColumn kinds;
	bool rules = false;

	crm_column_init(&kinds, TEXTOID);
	for (int i = 0; i < search->ntouchpoints; i++)
	{
		const CrmTouchpoint *touchpoint = &search->touchpoints[i];

		if (touchpoint->broken || source_of(touchpoint) != source)
			continue;
		rules |= touchpoint->rule != NULL;
		crm_column_add(&kinds,
					   CStringGetTextDatum(source == CRM_FROM_MESSAGE ? touchpoint->template
																	  : touchpoint->on_kind),
					   false);
	}
	if (kinds.n == 0)
		return false;
	*names = crm_column_array(&kinds);
	appendStringInfo(sql, "SELECT %s, %s%s%s FROM %s", sources[source].columns,
					 search->amounts && source == CRM_FROM_TRANSACTION ? NET_AMOUNT
																	   : "NULL::numeric",
					 rules ? ", " : "", rules ? sources[source].of_fact : "", sources[source].from);
	if (search->persona_rule != NULL)
		appendStringInfo(sql, " AND %s IN (SELECT a FROM crm.audience($4) a)",
						 sources[source].contact);
	return true;
}

static void
find_in(const CrmVisitSearch *search, CrmVisitSource source, MemoryContext batch)
{
	Datum values[PARAMETERS];
	char nulls[PARAMETERS] = { ' ', ' ', ' ', ' ' };
	StringInfoData sql;
	Portal portal;

	initStringInfo(&sql);
	if (!make_statement(search, source, &sql, &values[2]))
		return;
	values[0] = TimestampTzGetDatum(search->start);
	values[1] = TimestampTzGetDatum(search->end);
	values[3] = (Datum) 0;
	if (search->persona_rule == NULL)
		nulls[3] = 'n';
	else
		values[3] = CStringGetTextDatum(search->persona_rule);
	portal = SPI_cursor_open_with_args(NULL, sql.data, PARAMETERS,
									   unconstify(Oid *, &parameter_types[0]), values, nulls, true,
									   CURSOR_OPT_NO_SCROLL);
	for (;;)
	{
		MemoryContext old;
		SPITupleTable *rows;
		int nrows;

		CHECK_FOR_INTERRUPTS();
		SPI_cursor_fetch(portal, true, BATCH);
		rows = SPI_tuptable;
		nrows = (int) SPI_processed;
		old = MemoryContextSwitchTo(batch);
		if (nrows > 0)
			take(search, source, rows, nrows);
		MemoryContextSwitchTo(old);
		SPI_freetuptable(rows);
		MemoryContextReset(batch);
		if (nrows < BATCH)
			break;
	}
	SPI_cursor_close(portal);
}

void
crm_visits_find(const CrmVisitSearch *search)
{
	MemoryContext batch = AllocSetContextCreate(CurrentMemoryContext, "pg_crm visits",
												ALLOCSET_DEFAULT_SIZES);

	for (int source = 0; source < CRM_VISIT_SOURCES; source++)
		find_in(search, source, batch);
	MemoryContextDelete(batch);
}

/* ---------- which touchpoints ---------- */

typedef struct Compilation
{
	const char *text;
	MemoryContext context;
	CrmFactRule *rule;
} Compilation;

static bool
compile(void *arg)
{
	Compilation *compilation = arg;

	MemoryContextSwitchTo(compilation->context);
	compilation->rule = crm_fact_rule_compile(compilation->text);
	return true;
}

void
crm_warn_of_broken_rule(ErrorData *error, const char *of, const char *name)
{
	if (!crm_rule_is_broken(error))
		ReThrowError(error);
	ereport(WARNING,
			(errcode(error->sqlerrcode),
			 errmsg("the rule of %s \"%s\" is broken and holds for nobody: %s", of, name,
					error->message),
			 errhint("Define it anew with a rule that fits.")));
	FreeErrorData(error);
}

/* Compiles a rule over a fact; false, and a WARNING, where it cannot be. */
static bool
compile_or_warn(const char *text, const char *of, const char *name, MemoryContext context,
				CrmFactRule **rule)
{
	Compilation compilation = { text, context, NULL };
	ErrorData *error;

	if (crm_attempt(compile, &compilation, &error))
	{
		*rule = compilation.rule;
		return true;
	}
	crm_warn_of_broken_rule(error, of, name);
	return false;
}

static CrmPlan find_touchpoints = {
	"SELECT t.name, t.on_kind, t.rule, t.account, t.scene, t.campaign, t.page, t.template,"
	" a.account_id, n.name FROM unnest($1) WITH ORDINALITY AS n(name, place)"
	" LEFT JOIN crm.touchpoint t ON t.name = n.name LEFT JOIN crm.account a ON a.name = t.account"
	" ORDER BY n.place",
	1,
	{ TEXTARRAYOID }
};
static CrmPlan all_touchpoints = {
	"SELECT t.name, t.on_kind, t.rule, t.account, t.scene, t.campaign, t.page, t.template,"
	" a.account_id, t.name FROM crm.touchpoint t LEFT JOIN crm.account a ON a.name = t.account"
	" WHERE NOT t.complaint ORDER BY t.name COLLATE \"C\"",
	0
};

static char *
text_of(SPITupleTable *rows, uint64 row, int column, MemoryContext context)
{
	bool isnull;
	Datum value = SPI_getbinval(rows->vals[row], rows->tupdesc, column, &isnull);

	return isnull ? NULL : crm_text_copy(context, value);
}

static void
read_touchpoint(SPITupleTable *rows, uint64 row, CrmTouchpoint *touchpoint, MemoryContext context)
{
	char *rule = text_of(rows, row, 3, context);
	bool isnull;

	memset(touchpoint, 0, sizeof(*touchpoint));
	touchpoint->name = text_of(rows, row, 1, context);
	touchpoint->on_kind = text_of(rows, row, 2, context);
	touchpoint->on_account = text_of(rows, row, 4, context) != NULL;
	touchpoint->scene = text_of(rows, row, 5, context);
	touchpoint->campaign = text_of(rows, row, 6, context);
	touchpoint->page = text_of(rows, row, 7, context);
	touchpoint->template = text_of(rows, row, 8, context);
	touchpoint->account_id = DatumGetInt64(
		SPI_getbinval(rows->vals[row], rows->tupdesc, 9, &isnull));
	if (rule != NULL)
		touchpoint->broken = !compile_or_warn(rule, "touchpoint", touchpoint->name, context,
											  &touchpoint->rule);
}

CrmTouchpoint *
crm_touchpoints_read(const char *const *names, int n, bool leave_out, int *nfound,
					 MemoryContext context)
{
	SPITupleTable *rows;
	uint64 nrows;
	CrmTouchpoint *touchpoints;

	if (names == NULL)
		nrows = crm_read(&all_touchpoints, NULL, NULL);
	else
	{
		CrmColumn column;
		Datum value;

		crm_column_init(&column, TEXTOID);
		for (int i = 0; i < n; i++)
			crm_column_add(&column, CStringGetTextDatum(names[i]), false);
		value = crm_column_array(&column);
		nrows = crm_read(&find_touchpoints, &value, NULL);
	}
	rows = SPI_tuptable;
	touchpoints = MemoryContextAlloc(context, sizeof(CrmTouchpoint) * Max(nrows, 1));
	*nfound = 0;
	for (uint64 row = 0; row < nrows; row++)
	{
		bool isnull;

		(void) SPI_getbinval(rows->vals[row], rows->tupdesc, 1, &isnull);
		if (!isnull)
			read_touchpoint(rows, row, &touchpoints[(*nfound)++], context);
		else if (!leave_out)
			ereport(ERROR,
					(errcode(ERRCODE_FOREIGN_KEY_VIOLATION),
					 errmsg("touchpoint \"%s\" does not exist",
							crm_shown(SPI_getvalue(rows->vals[row], rows->tupdesc, 10))),
					 errhint("Touchpoints are the rows of crm.touchpoint.")));
	}
	SPI_freetuptable(rows);
	return touchpoints;
}

static CrmPlan find_persona = { "SELECT p.rule FROM crm.persona p WHERE p.name = $1",
								1,
								{ TEXTOID } };

char *
crm_persona_rule(const char *persona, MemoryContext context)
{
	Datum name = CStringGetTextDatum(persona);
	bool isnull;

	if (crm_read(&find_persona, &name, NULL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FOREIGN_KEY_VIOLATION),
				 errmsg("persona \"%s\" does not exist", crm_shown(persona)),
				 errhint("Personas are the rows of crm.persona.")));
	return crm_text_copy(context, crm_result(0, 1, &isnull));
}
