/*
 * document.c
 *		A whole document: read into a journey, with everything that is wrong with
 *		it told at once.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/guc.h"
#include "journey/reading.h"
#include "pg_crm.h"

static CrmPlan find_zone = { "SELECT a.time_zone FROM crm.account a WHERE a.name = $1",
							 1,
							 { TEXTOID } };

/* Times of the document are read in the zone of its account. */
static void
read_account(CrmReading *reading, CrmObject *object)
{
	CrmJourney *journey = reading->journey;
	JsonbValue *value = crm_object_offer(reading, object, "account");
	const char *zone = NULL;
	const pg_tz *found;
	Datum name;

	journey->zone = crm_guc_zone;
	if (value == NULL)
		return;
	journey->account = crm_read_text(reading, "account", value, CRM_MAX_KEY_BYTES);
	if (journey->account == NULL)
		return;
	name = CStringGetTextDatum(journey->account);
	if (crm_run(&find_zone, &name, NULL) > 0)
		zone = crm_result_text(0, 1);
	found = zone == NULL ? NULL : pg_tzset(zone);
	MemoryContextSwitchTo(reading->context);
	SPI_freetuptable(SPI_tuptable);
	if (found != NULL)
		journey->zone = found;
	crm_reference(reading, "account", journey->account, NULL, "account",
				  psprintf("account \"%s\" does not exist", crm_shown(journey->account)));
}

static void
read_reentry(CrmReading *reading, CrmObject *object)
{
	static const char *const names[] = { [CRM_REENTRY_ONCE] = "once",
										 [CRM_REENTRY_AFTER_EXIT] = "after_exit",
										 [CRM_REENTRY_COOLDOWN] = "cooldown",
										 [CRM_REENTRY_PER_KEY] = "per_key",
										 [CRM_REENTRY_ALWAYS] = "always" };
	CrmJourney *journey = reading->journey;
	JsonbValue *value = crm_object_offer(reading, object, "reentry");
	JsonbValue *cooldown = crm_object_offer(reading, object, "cooldown");
	JsonbValue *key = crm_object_offer(reading, object, "key");
	char *text = value == NULL ? NULL : crm_read_text(reading, "reentry", value, CRM_MAX_KEY_BYTES);
	bool known = value == NULL;

	for (int i = 0; i < lengthof(names) && text != NULL; i++)
		if (strcmp(names[i], text) == 0)
		{
			journey->reentry = i;
			known = true;
		}
	if (text != NULL && !known)
		crm_fault_at(reading, "reentry",
					 "\"%s\" is not once, after_exit, cooldown, per_key or always",
					 crm_shown(text));
	if (cooldown != NULL)
		journey->cooldown = crm_read_interval(reading, "cooldown", cooldown, 1);
	if (key != NULL)
	{
		char *name = crm_read_text(reading, "key", key, CRM_MAX_KEY_BYTES);

		if (name != NULL && strncmp(name, "entry.", 6) == 0)
			name += 6;
		if (name != NULL && *name == '\0')
			crm_fault_at(reading, "key", "names no member of the entry");
		journey->key = name;
	}
	if (!known)
		return;
	if (journey->reentry == CRM_REENTRY_COOLDOWN && !crm_object_has(object, "cooldown"))
		crm_fault_at(reading, "cooldown", "is missing: reentry is cooldown");
	if (journey->reentry != CRM_REENTRY_COOLDOWN && cooldown != NULL)
		crm_fault_at(reading, "cooldown", "goes with reentry \"cooldown\" only");
	if (journey->reentry == CRM_REENTRY_PER_KEY && !crm_object_has(object, "key"))
		crm_fault_at(reading, "key", "is missing: reentry is per_key");
	if (journey->reentry != CRM_REENTRY_PER_KEY && key != NULL)
		crm_fault_at(reading, "key", "goes with reentry \"per_key\" only");
}

static void
read_limits(CrmReading *reading, CrmObject *object)
{
	CrmJourney *journey = reading->journey;
	JsonbValue *value = crm_object_offer(reading, object, "max_lateness");

	journey->max_lateness = -1;
	if (value != NULL)
	{
		Interval *lateness = crm_read_interval(reading, "max_lateness", value, 0);

		if (lateness != NULL)
			journey->max_lateness = lateness->time +
				((int64) lateness->month * DAYS_PER_MONTH + lateness->day) * USECS_PER_DAY;
	}
	if ((value = crm_object_offer(reading, object, "hold_out")) != NULL)
	{
		Numeric percent = crm_read_number(reading, "hold_out", value);
		double share = percent == NULL
			? 0
			: DatumGetFloat8(
				  DirectFunctionCall1(numeric_float8_no_overflow, NumericGetDatum(percent))) /
				100;

		if (share >= 0 && share <= 1)
			journey->hold_out = share;
		else
			crm_fault_at(reading, "hold_out", "%s is not between 0 and 100",
						 crm_shown(numeric_normalize(percent)));
	}
}

static void
read_entries(CrmReading *reading, CrmObject *object)
{
	CrmJourney *journey = reading->journey;
	JsonbValue *value = crm_object_offer(reading, object, "entry");
	JsonbValue *elements = value == NULL
		? NULL
		: crm_array_open(reading, "entry", value, &journey->nentries);
	int before = crm_path_enter(reading, "entry");

	journey->entries = palloc0_array(CrmEntry, Max(journey->nentries, 1));
	for (int i = 0; i < journey->nentries; i++)
	{
		int outside = crm_path_enter_place(reading, i);

		crm_read_entry(reading, &elements[i], &journey->entries[i]);
		crm_path_leave(reading, outside);
	}
	crm_path_leave(reading, before);
}

static void
read_document(CrmReading *reading, const JsonbValue *root)
{
	CrmJourney *journey = reading->journey;
	JsonbValue *value;
	CrmObject object;

	if (!crm_object_open(reading, root, &object))
		return;
	if ((value = crm_object_require(reading, &object, "journey")) != NULL)
		journey->name = crm_read_text(reading, "journey", value, CRM_MAX_JOURNEY_NAME);
	if ((value = crm_object_offer(reading, &object, "label")) != NULL)
		(void) crm_read_text(reading, "label", value, CRM_MAX_DOCUMENT_BYTES);
	if ((value = crm_object_offer(reading, &object, "description")) != NULL)
		(void) crm_read_text(reading, "description", value, CRM_MAX_DOCUMENT_BYTES);
	read_account(reading, &object);
	read_reentry(reading, &object);
	read_limits(reading, &object);
	read_entries(reading, &object);
	if ((value = crm_object_offer(reading, &object, "goal")) != NULL)
		journey->goal = crm_read_ending(reading, "goal", value);
	if ((value = crm_object_offer(reading, &object, "exit")) != NULL)
		journey->exit = crm_read_ending(reading, "exit", value);
	journey->start = CRM_NO_STEP;
	if ((value = crm_object_require(reading, &object, "steps")) != NULL)
		crm_read_steps(reading, value);
	value = crm_object_require(reading, &object, "start");
	if (value != NULL && journey->nsteps > 0)
		crm_read_edge(reading, "start", value, &journey->start);
	crm_object_close(reading, &object);
	crm_check_graph(reading);
}

CrmJourney *
crm_journey_load(Jsonb *document, TimestampTz published_at, MemoryContext context, bool names_too,
				 List **faults)
{
	CrmReading reading = { .published_at = published_at };
	JsonbValue root = crm_document_root(document);

	crm_reading_begin(&reading, context);
	reading.journey = palloc0(sizeof(CrmJourney));
	reading.journey->context = context;
	read_document(&reading, &root);
	if (names_too)
		crm_references_check(&reading);
	*faults = crm_reading_end(&reading);
	return reading.journey;
}

CRM_NORETURN static void
refuse(const CrmJourney *journey, List *faults)
{
	int n = list_length(faults);

	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 journey->name == NULL
				 ? errmsg_plural("definition of a journey has %d fault",
								 "definition of a journey has %d faults", n, n)
				 : errmsg_plural("definition of journey \"%s\" has %d fault",
								 "definition of journey \"%s\" has %d faults", n, journey->name, n),
			 errdetail("%s", crm_faults_text(faults)),
			 errhint("Each line is a place in the document and what is wrong there; nothing was"
					 " changed.")));
	pg_unreachable();
}

CrmJourney *
crm_journey_read(Jsonb *document, MemoryContext context)
{
	List *faults;
	CrmJourney *journey;

	if (VARSIZE_ANY_EXHDR(document) > CRM_MAX_DOCUMENT_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("definition of %zu bytes is larger than %d",
						(size_t) VARSIZE_ANY_EXHDR(document), CRM_MAX_DOCUMENT_BYTES),
				 errhint("Split it into several journeys.")));
	if (!JB_ROOT_IS_OBJECT(document))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("definition of a journey is %s, not an object",
						JB_ROOT_IS_SCALAR(document) ? "a scalar" : "an array"),
				 errhint("Give a document as doc/journeys.md describes it.")));
	journey = crm_journey_load(document, crm_now(), context, true, &faults);
	if (faults != NIL)
		refuse(journey, faults);
	return journey;
}
