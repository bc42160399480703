/*
 * definition.c
 *		Journeys as a backend keeps them. What was compiled of a version stays
 *		until a table changes that its rules read; which versions are current and
 *		in which state their journeys are is read again whenever crm.journey
 *		changes.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "base/db.h"
#include "base/guc.h"
#include "base/table.h"
#include "base/watch.h"
#include "journey/journey.h"
#include "journey/reading.h"

/* tables that rules and times of definitions read */
static const char *const read_tables[] = { "profile", "contact",     "stage",
										   "segment", "achievement", "account" };

static MemoryContext list_context = NULL; /* of the list */
static CrmJourneys *journeys = NULL;
static List *compiled = NIL;        /* CrmJourney *, each in a context of its own */
static bool list_valid = false;     /* crm.journey did not change */
static bool compiled_valid = false; /* nor what the compiled ones read */
static const pg_tz *compiled_zone;
static Oid journey_table = InvalidOid;
static Oid read_oids[lengthof(read_tables)];

static CrmPlan select_versions = {
	"SELECT j.journey, v.version, j.state, v.version = j.version, v.definition, v.published_at"
	" FROM crm.journey j JOIN crm.journey_version v ON v.journey = j.journey"
	" WHERE v.version = j.version OR EXISTS (SELECT FROM crm.enrolment e"
	"  WHERE e.journey = v.journey AND e.version = v.version AND e.state = 'active')"
	" ORDER BY j.journey COLLATE \"C\", v.version",
	0
};
static CrmPlan select_version = {
	"SELECT j.journey, v.version, j.state, v.version = j.version, v.definition, v.published_at"
	" FROM crm.journey j JOIN crm.journey_version v ON v.journey = j.journey"
	" WHERE j.journey = $1 AND v.version = $2",
	2,
	{ TEXTOID, INT4OID }
};

static void
forget_journeys(Datum arg, Oid relid)
{
	if (relid == InvalidOid || relid == journey_table)
		list_valid = false;
	/* whatever is made where one was missing may be that one */
	for (int i = 0; i < lengthof(read_oids); i++)
		if (relid == InvalidOid || relid == read_oids[i] || !OidIsValid(read_oids[i]))
			list_valid = compiled_valid = false;
}

void
crm_journey_definition_init(void)
{
	crm_on_table_change(forget_journeys);
}

static CrmJourneyState
state_of(const char *name)
{
	static const char *const names[] = { [CRM_JOURNEY_OPEN] = "open",
										 [CRM_JOURNEY_CLOSED] = "closed",
										 [CRM_JOURNEY_FROZEN] = "frozen",
										 [CRM_JOURNEY_CANCELLED] = "cancelled" };

	for (int i = 0; i < lengthof(names); i++)
		if (strcmp(names[i], name) == 0)
			return i;
	return CRM_JOURNEY_FROZEN; /* a state of a later version: nobody is harmed */
}

static CrmJourney *
find_in(List *list, const char *name, int version)
{
	ListCell *cell;

	foreach(cell, list)
	{
		CrmJourney *journey = lfirst(cell);

		if (journey->version == version && strcmp(journey->name, name) == 0)
			return journey;
	}
	return NULL;
}

/* Of a row of the plans above, in a context of its own under this one. */
static CrmJourney *
compile(SPITupleTable *rows, uint64 row, MemoryContext parent)
{
	MemoryContext context = AllocSetContextCreate(parent, "pg_crm journey", ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	HeapTuple tuple = rows->vals[row];
	bool isnull;
	Jsonb *document = DatumGetJsonbPCopy(SPI_getbinval(tuple, rows->tupdesc, 5, &isnull));
	TimestampTz published_at = DatumGetTimestampTz(SPI_getbinval(tuple, rows->tupdesc, 6, &isnull));
	CrmJourney *journey;
	List *faults;

	journey = crm_journey_load(document, published_at, context, false, &faults);
	/* as it is stored: the document may be of a later version and say it otherwise */
	journey->name = TextDatumGetCString(SPI_getbinval(tuple, rows->tupdesc, 1, &isnull));
	journey->version = DatumGetInt32(SPI_getbinval(tuple, rows->tupdesc, 2, &isnull));
	MemoryContextSwitchTo(old);
	return journey;
}

/* The journey of a row: what is compiled, with what may change. */
static CrmJourney *
journey_of(SPITupleTable *rows, uint64 row, CrmJourney *body, MemoryContext context)
{
	CrmJourney *journey = MemoryContextAlloc(context, sizeof(CrmJourney));
	char *state = SPI_getvalue(rows->vals[row], rows->tupdesc, 3);
	bool isnull;

	*journey = *body;
	journey->state = state_of(state);
	journey->is_current = DatumGetBool(SPI_getbinval(rows->vals[row], rows->tupdesc, 4, &isnull));
	pfree(state);
	return journey;
}

static bool
is_kind(const List *kinds, const char *kind)
{
	ListCell *cell;

	foreach(cell, kinds)
		if (strcmp(lfirst(cell), kind) == 0)
			return true;
	return false;
}

static void
add_kind(CrmJourneys *build, const char *kind, bool moves)
{
	if (!is_kind(build->kinds, kind))
		build->kinds = lappend(build->kinds, pstrdup(kind));
	if (moves && !is_kind(build->moving_kinds, kind))
		build->moving_kinds = lappend(build->moving_kinds, pstrdup(kind));
}

static void
add_ending_kinds(CrmJourneys *build, const CrmEnding *ending)
{
	for (int i = 0; ending != NULL && i < ending->ntriggers; i++)
		add_kind(build, ending->triggers[i].on, true);
}

static void
add_kinds(CrmJourneys *build, const CrmJourney *journey)
{
	for (int i = 0; i < journey->nentries && journey->is_current; i++)
		if (journey->entries[i].timed == NULL)
			add_kind(build, journey->entries[i].trigger.on, false);
	add_ending_kinds(build, journey->goal);
	add_ending_kinds(build, journey->exit);
	for (int i = 0; i < journey->nsteps; i++)
	{
		const CrmStep *step = &journey->steps[i];

		if (step->trigger.on != NULL)
			add_kind(build, step->trigger.on, true);
		if (step->kind != NULL && strcmp(step->kind->name, "ask") == 0)
			add_kind(build, "message", true); /* the reply */
	}
}

static bool
has_rule(const CrmEnding *ending)
{
	return ending != NULL && ending->rule != NULL;
}

/* What is to be done beyond facts of the kinds that were found. */
static void
add_interests(CrmJourneys *build, const CrmJourney *journey)
{
	static const char *const changing[] = { "set", "tag", "ask" };

	build->watches |= has_rule(journey->goal) || has_rule(journey->exit);
	for (int i = 0; i < journey->nsteps; i++)
	{
		const CrmStep *step = &journey->steps[i];

		if (step->kind == NULL)
			continue;
		build->watches |= strcmp(step->kind->name, "wait_until") == 0;
		for (int k = 0; k < lengthof(changing); k++)
			build->reads_contacts |= strcmp(step->kind->name, changing[k]) == 0;
	}
}

/* Whoever is at work with these may go on to the end of the transaction. */
static void
retire(List *versions, List *but)
{
	ListCell *cell;

	foreach(cell, versions)
	{
		CrmJourney *journey = lfirst(cell);

		if (!list_member_ptr(but, journey))
			MemoryContextSetParent(journey->context, TopTransactionContext);
	}
}

/* Returns what is compiled of them. */
static List *
load(CrmJourneys *build, MemoryContext context, bool may_keep)
{
	uint64 n = crm_read(&select_versions, NULL, NULL);
	SPITupleTable *rows = SPI_tuptable;
	MemoryContext old = MemoryContextSwitchTo(context);
	List *kept = NIL;

	build->list = palloc_array(CrmJourney *, Max(n, 1));
	build->max_lateness = -1;
	for (uint64 row = 0; row < n; row++)
	{
		char *name = SPI_getvalue(rows->vals[row], rows->tupdesc, 1);
		bool isnull;
		int version = DatumGetInt32(SPI_getbinval(rows->vals[row], rows->tupdesc, 2, &isnull));
		CrmJourney *body = may_keep ? find_in(compiled, name, version) : NULL;

		if (body == NULL)
			body = compile(rows, row, context);
		MemoryContextSwitchTo(context);
		kept = lappend(kept, body);
		build->list[row] = journey_of(rows, row, body, context);
		build->max_lateness = Max(build->max_lateness, body->max_lateness);
		add_kinds(build, build->list[row]);
		add_interests(build, build->list[row]);
		build->n++;
	}
	build->any = n > 0;
	build->reads_contacts |= build->watches || is_kind(build->kinds, "field_change") ||
		is_kind(build->kinds, CRM_SIGNAL_SEGMENT_ENTER) ||
		is_kind(build->kinds, CRM_SIGNAL_SEGMENT_LEAVE);
	MemoryContextSwitchTo(old);
	SPI_freetuptable(rows);
	return kept;
}

static void
find_tables(void)
{
	journey_table = crm_table_oid("journey");
	for (int i = 0; i < lengthof(read_tables); i++)
		read_oids[i] = crm_table_oid_if_any(read_tables[i]);
}

static const CrmJourneys *
read_journeys(void)
{
	bool may_keep = compiled_valid && compiled_zone == crm_guc_zone;
	MemoryContext context;
	MemoryContext old;
	CrmJourneys *build;
	CrmActing acting;
	List *volatile kept = NIL;
	ListCell *cell;

	find_tables();
	crm_connect(&acting);
	context = AllocSetContextCreate(CurrentMemoryContext, "pg_crm journeys", ALLOCSET_SMALL_SIZES);
	build = MemoryContextAllocZero(context, sizeof(CrmJourneys));
	build->context = context;
	build->doors = MemoryContextAllocZero(context, sizeof(List *));
	/* as committed now, however old the snapshot of the transaction is: the cache outlives it */
	PushActiveSnapshot(GetLatestSnapshot());
	/* an invalidation while reading must not be lost */
	list_valid = compiled_valid = true;
	PG_TRY();
	{
		kept = load(build, context, may_keep);
	}
	PG_CATCH();
	{
		/* a failure leaves nothing behind but what was compiled before */
		list_valid = false;
		compiled_valid = compiled_valid && may_keep;
		PG_RE_THROW();
	}
	PG_END_TRY();
	PopActiveSnapshot();
	compiled_zone = crm_guc_zone;
	retire(compiled, kept);
	list_free(compiled);
	old = MemoryContextSwitchTo(CacheMemoryContext);
	compiled = list_copy(kept);
	MemoryContextSwitchTo(old);
	foreach(cell, compiled)
		MemoryContextSetParent(((CrmJourney *) lfirst(cell))->context, CacheMemoryContext);
	if (list_context != NULL)
		MemoryContextSetParent(list_context, TopTransactionContext);
	MemoryContextSetParent(context, CacheMemoryContext);
	list_context = context;
	journeys = build;
	crm_disconnect(&acting);
	return journeys;
}

const CrmJourneys *
crm_journeys(void)
{
	static const CrmJourneys none = { 0 };

	if (list_valid && compiled_valid && compiled_zone == crm_guc_zone)
		return journeys;
	/* tables of an older version have none */
	if (!OidIsValid(crm_table_oid_if_any("journey")))
		return &none;
	return read_journeys();
}

int64
crm_journey_lateness(const CrmJourney *journey)
{
	return journey->max_lateness >= 0 ? journey->max_lateness
									  : (int64) crm_guc_max_lateness * USECS_PER_SEC;
}

bool
crm_journey_listens(const char *kind)
{
	return is_kind(crm_journeys()->kinds, kind);
}

bool
crm_journeys_move_by(const char *kind)
{
	return is_kind(crm_journeys()->moving_kinds, kind);
}

bool
crm_journeys_exist(void)
{
	return crm_journeys()->any;
}

bool
crm_journeys_watch(void)
{
	return crm_journeys()->watches;
}

bool
crm_journeys_read_contacts(void)
{
	return crm_journeys()->reads_contacts;
}

/* One that nobody enters and nobody is in: compiled when it is asked for. */
static CrmJourney *
find_other(const char *name, int version)
{
	Datum values[2] = { CStringGetTextDatum(name), Int32GetDatum(version) };
	CrmJourney *found = NULL;
	CrmActing acting;

	crm_connect(&acting);
	PushActiveSnapshot(GetLatestSnapshot());
	if (crm_read(&select_version, values, NULL) > 0)
	{
		SPITupleTable *rows = SPI_tuptable;
		CrmJourney *body = find_in(compiled, name, version);

		if (body == NULL)
		{
			MemoryContext old;

			body = compile(rows, 0, CurrentMemoryContext);
			MemoryContextSetParent(body->context, CacheMemoryContext);
			old = MemoryContextSwitchTo(CacheMemoryContext);
			compiled = lappend(compiled, body);
			MemoryContextSwitchTo(old);
		}
		found = journey_of(rows, 0, body, TopTransactionContext);
	}
	PopActiveSnapshot();
	crm_disconnect(&acting);
	return found;
}

CrmJourney *
crm_journey_find(const char *name, int version)
{
	const CrmJourneys *known = crm_journeys();

	for (int i = 0; i < known->n; i++)
		if ((version == 0 ? known->list[i]->is_current : known->list[i]->version == version) &&
			strcmp(known->list[i]->name, name) == 0)
			return known->list[i];
	return version == 0 || !known->any ? NULL : find_other(name, version);
}

/* Steps stand as jsonb has its keys: shorter ones first. */
int
crm_step_find(const CrmJourney *journey, const char *name)
{
	int low = 0;
	int high = journey->nsteps;

	while (low < high)
	{
		int middle = (low + high) / 2;
		const char *found = journey->steps[middle].name;
		size_t length = strlen(name);
		int order = length != strlen(found) ? (length < strlen(found) ? -1 : 1)
											: memcmp(name, found, length);

		if (order == 0)
			return middle;
		if (order < 0)
			high = middle;
		else
			low = middle + 1;
	}
	return CRM_NO_STEP;
}

void
crm_journeys_broken(CrmBrokenDefinition broken, void *arg)
{
	uint64 n;
	SPITupleTable *rows;

	if (!OidIsValid(crm_table_oid_if_any("journey")))
		return;
	n = crm_read(&select_versions, NULL, NULL);
	rows = SPI_tuptable;
	for (uint64 row = 0; row < n; row++)
	{
		MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "pg_crm journey",
													  ALLOCSET_SMALL_SIZES);
		bool isnull;
		Jsonb *document = DatumGetJsonbP(SPI_getbinval(rows->vals[row], rows->tupdesc, 5, &isnull));
		TimestampTz published_at = DatumGetTimestampTz(
			SPI_getbinval(rows->vals[row], rows->tupdesc, 6, &isnull));
		List *faults;
		ListCell *cell;

		(void) crm_journey_load(document, published_at, context, true, &faults);
		foreach(cell, faults)
		{
			const CrmFault *fault = lfirst(cell);

			broken(arg, "journey",
				   psprintf("%s version %s at %s", SPI_getvalue(rows->vals[row], rows->tupdesc, 1),
							SPI_getvalue(rows->vals[row], rows->tupdesc, 2), fault->path),
				   fault->what);
		}
		MemoryContextDelete(context);
	}
	SPI_freetuptable(rows);
}
