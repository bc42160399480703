/*
 * touchpoint.c
 *		Saving personas and touchpoints, checked before they are stored; notes about
 *		touchpoints, and what people felt there.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/db.h"
#include "base/document.h"
#include "base/row.h"
#include "base/table.h"
#include "facts/record.h"
#include "insight/touchpoint.h"
#include "journey/reading.h"
#include "pg_crm.h"

#define MAX_NAME_BYTES 63
/* of notes and emotions: to both sides of 0 */
#define MOST 2

PG_FUNCTION_INFO_V1(crm_check_map_definition);
PG_FUNCTION_INFO_V1(crm_sql_define_persona);
PG_FUNCTION_INFO_V1(crm_sql_define_touchpoint);
PG_FUNCTION_INFO_V1(crm_sql_note_touchpoint);
PG_FUNCTION_INFO_V1(crm_sql_record_emotion);

Datum
crm_sql_define_persona(PG_FUNCTION_ARGS)
{
	static const char *const required[] = { "name", "rule" };

	PG_RETURN_INT32(
		crm_document_define(fcinfo, "define_persona", "persona", required, lengthof(required)));
}

Datum
crm_sql_define_touchpoint(PG_FUNCTION_ARGS)
{
	static const char *const required[] = { "name" };

	PG_RETURN_INT32(crm_document_define(fcinfo, "define_touchpoint", "touchpoint", required,
										lengthof(required)));
}

/* ---------- checks ---------- */

static void
refuse_touchpoint(const char *what, const char *hint)
{
	ereport(ERROR, (errcode(ERRCODE_CHECK_VIOLATION), errmsg("%s", what), errhint("%s", hint)));
}

/* Something that a touchpoint names. */
static void
require_there(CrmPlan *plan, const char *name, const char *other, const char *what,
			  const char *where)
{
	Datum values[2] = { CStringGetTextDatum(name),
						other == NULL ? (Datum) 0 : CStringGetTextDatum(other) };

	if (crm_run(plan, values, other == NULL ? " n" : NULL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FOREIGN_KEY_VIOLATION),
				 errmsg("%s \"%s\" of a touchpoint does not exist", what, crm_shown(name)),
				 errhint("Name one of %s.", where)));
}

static void
check_names(const char *account, const char *scene, const char *campaign, const char *template)
{
	static CrmPlan accounts = { "SELECT FROM crm.account a WHERE a.name = $1"
								" AND $2 IS NULL",
								2,
								{ TEXTOID, TEXTOID } };
	static CrmPlan scenes = {
		"SELECT FROM crm.qr_code q JOIN crm.account a ON a.account_id = q.account_id"
		" WHERE q.scene = $1 AND COALESCE(a.name = $2, true) LIMIT 1",
		2,
		{ TEXTOID, TEXTOID }
	};
	static CrmPlan campaigns = {
		"SELECT FROM crm.qr_code q JOIN crm.account a ON a.account_id = q.account_id"
		" WHERE q.campaign = $1 AND COALESCE(a.name = $2, true) LIMIT 1",
		2,
		{ TEXTOID, TEXTOID }
	};
	static CrmPlan templates = { "SELECT FROM crm.template t WHERE t.name = $1 AND $2 IS NULL",
								 2,
								 { TEXTOID, TEXTOID } };

	if (account != NULL)
		require_there(&accounts, account, NULL, "account", "crm.account");
	if (scene != NULL)
		require_there(&scenes, scene, account, "scene", "crm.qr_code, on that account");
	if (campaign != NULL)
		require_there(&campaigns, campaign, account, "campaign", "crm.qr_code, on that account");
	if (template != NULL)
		require_there(&templates, template, NULL, "template", "crm.template");
}

static bool
is_one_of(const char *kind, const char *const *kinds, int n)
{
	for (int i = 0; i < n; i++)
		if (kind != NULL && strcmp(kind, kinds[i]) == 0)
			return true;
	return false;
}

static void
check_touchpoint(const CrmRow *row)
{
	static const char *const no_events[] = { "purchase", "refund", "scan" };
	char *on_kind = crm_row_text(row, "on_kind");
	char *rule = crm_row_text(row, "rule");
	char *account = crm_row_text(row, "account");
	char *scene = crm_row_text(row, "scene");
	char *campaign = crm_row_text(row, "campaign");
	char *page = crm_row_text(row, "page");
	char *template = crm_row_text(row, "template");
	CrmActing acting;

	crm_check_length("name of a touchpoint", crm_row_text(row, "name"), MAX_NAME_BYTES);
	crm_check_length("on_kind", on_kind, CRM_MAX_KIND_BYTES);
	crm_check_length("page", page, CRM_MAX_DOCUMENT_BYTES);
	if ((on_kind == NULL) == (template == NULL))
		refuse_touchpoint(on_kind == NULL ? "a touchpoint is tied to nothing"
										  : "a touchpoint is tied to facts and to messages at once",
						  "Give on_kind, the kind of the facts, or template, the messages that"
						  " were sent.");
	if (template != NULL && rule != NULL)
		refuse_touchpoint("a touchpoint of messages has a rule",
						  "Rules are over facts; of messages only the template and the account"
						  " are asked.");
	if ((scene != NULL || campaign != NULL) && (on_kind == NULL || strcmp(on_kind, "scan") != 0))
		refuse_touchpoint(psprintf("%s of a touchpoint that is not on scans",
								   scene != NULL ? "scene" : "campaign"),
						  "Give on_kind \"scan\".");
	if (page != NULL && (on_kind == NULL || is_one_of(on_kind, no_events, lengthof(no_events))))
		refuse_touchpoint("page of a touchpoint that is not on events",
						  "Give on_kind, the kind of the events that have a page in their"
						  " properties.");
	if (page != NULL && strchr(page, '?') != NULL)
		refuse_touchpoint(psprintf("page \"%s\" of a touchpoint holds a question mark", page),
						  "Leave out what follows the path; for that, give a rule.");
	if (account != NULL && is_one_of(on_kind, no_events, 2))
		refuse_touchpoint("account of a touchpoint on orders, which have none",
						  "Leave account out; a shop is asked by a rule over fact.store_id.");
	crm_connect(&acting);
	check_names(account, scene, campaign, template);
	if (rule != NULL)
		(void) crm_fact_rule_compile(rule);
	crm_disconnect(&acting);
}

static void
check_persona(const CrmRow *row)
{
	char *rule = crm_row_text(row, "rule");
	CrmActing acting;

	crm_check_length("name of a persona", crm_row_text(row, "name"), MAX_NAME_BYTES);
	if (rule == NULL)
		return; /* the constraint speaks */
	crm_connect(&acting);
	(void) crm_rule_reads(rule);
	crm_disconnect(&acting);
}

Datum
crm_check_map_definition(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = crm_row_trigger(fcinfo, "check_map_definition", true);
	bool update = TRIGGER_FIRED_BY_UPDATE(trigger->tg_event);
	CrmRow old = { RelationGetDescr(trigger->tg_relation), trigger->tg_trigtuple };
	CrmRow new = { RelationGetDescr(trigger->tg_relation),
				   update ? trigger->tg_newtuple : trigger->tg_trigtuple };

	if (RelationGetRelid(trigger->tg_relation) == crm_table_oid_if_any("persona"))
		check_persona(&new);
	else
	{
		crm_require_table(trigger->tg_relation, "touchpoint");
		check_touchpoint(&new);
	}
	return PointerGetDatum(crm_row_version(update ? &old : NULL, &new, false));
}

/* ---------- notes and emotions ---------- */

static bool
is_between(Datum number, int64 least, int64 most)
{
	return DatumGetBool(
			   DirectFunctionCall2(numeric_ge, number, NumericGetDatum(int64_to_numeric(least)))) &&
		DatumGetBool(
			   DirectFunctionCall2(numeric_le, number, NumericGetDatum(int64_to_numeric(most))));
}

static char *
number_text(Datum number)
{
	return crm_shown(DatumGetCString(DirectFunctionCall1(numeric_out, number)));
}

static void
check_score(Datum score)
{
	if (!is_between(score, -MOST, MOST))
		ereport(ERROR,
				(errcode(ERRCODE_CHECK_VIOLATION),
				 errmsg("score %s is not between -%d and %d", number_text(score), MOST, MOST),
				 errhint("-2 is very bad, 0 neither, 2 very good.")));
}

static char *
touchpoint_argument(FunctionCallInfo fcinfo, int argument)
{
	static CrmPlan plan = { "SELECT FROM crm.touchpoint t WHERE t.name = $1", 1, { TEXTOID } };
	char *name = crm_text_argument(fcinfo, argument);
	Datum value = CStringGetTextDatum(name);

	if (crm_run(&plan, &value, NULL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FOREIGN_KEY_VIOLATION),
				 errmsg("touchpoint \"%s\" does not exist", crm_shown(name)),
				 errhint("Touchpoints are the rows of crm.touchpoint.")));
	return name;
}

static CrmPlan insert_note = {
	"INSERT INTO crm.touchpoint_note (touchpoint, score, note, noted_at, noted_by)"
	" VALUES ($1, $2, $3, $4, $5) RETURNING touchpoint_note_id",
	5,
	{ TEXTOID, NUMERICOID, TEXTOID, TIMESTAMPTZOID, TEXTOID }
};

Datum
crm_sql_note_touchpoint(PG_FUNCTION_ARGS)
{
	static const char *const names[] = { "touchpoint", "score", "note" };
	Datum values[5];
	CrmActing acting;
	bool at_given;
	int64 id;

	for (int i = 0; i < lengthof(names); i++)
		crm_require_argument("note_touchpoint", names[i], PG_ARGISNULL(i));
	check_score(PG_GETARG_DATUM(1));
	crm_check_document("note", PG_GETARG_DATUM(2));
	crm_check_length("note", crm_text_argument(fcinfo, 2), CRM_MAX_DOCUMENT_BYTES);
	values[3] = TimestampTzGetDatum(crm_time_argument(fcinfo, 3, &at_given));

	crm_connect(&acting);
	values[0] = CStringGetTextDatum(touchpoint_argument(fcinfo, 0));
	values[1] = PG_GETARG_DATUM(1);
	values[2] = PG_GETARG_DATUM(2);
	values[4] = CStringGetTextDatum(GetUserNameFromId(crm_caller(), false));
	crm_run(&insert_note, values, NULL);
	id = crm_result_int64(0, 1);
	crm_disconnect(&acting);
	PG_RETURN_INT64(id);
}

static CrmPlan insert_emotion = {
	"INSERT INTO crm.emotion (contact_id, touchpoint, source, interaction, score, confidence,"
	"  occurred_at) VALUES ($1, $2, $3, $4, $5, $6, $7)"
	" ON CONFLICT (contact_id, source, touchpoint, interaction) DO NOTHING RETURNING emotion_id",
	7,
	{ INT8OID, TEXTOID, TEXTOID, TEXTOID, NUMERICOID, NUMERICOID, TIMESTAMPTZOID }
};
static CrmPlan find_emotion = {
	"SELECT e.emotion_id, e.score = $5 AND e.confidence = $6 AND COALESCE(e.occurred_at = $7, true)"
	" FROM crm.emotion e WHERE e.contact_id = $1 AND e.touchpoint = $2 AND e.source = $3"
	" AND e.interaction = $4",
	7,
	{ INT8OID, TEXTOID, TEXTOID, TEXTOID, NUMERICOID, NUMERICOID, TIMESTAMPTZOID }
};

static int64
save_emotion(const Datum *values, bool at_given, const char *interaction, const char *source)
{
	if (crm_run(&insert_emotion, values, NULL) > 0)
		return crm_result_int64(0, 1);
	if (crm_run(&find_emotion, values, at_given ? NULL : "      n") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not serialize access to the emotions of contact %lld",
						(long long) DatumGetInt64(values[0])),
				 errhint("The transaction might succeed if retried.")));
	if (!crm_result_true(0, 2))
		ereport(ERROR,
				(errcode(ERRCODE_UNIQUE_VIOLATION),
				 errmsg("source \"%s\" said something else of interaction \"%s\"", source,
						crm_mask(interaction)),
				 errhint("Each source speaks once of an interaction; give another one its own"
						 " name.")));
	return crm_result_int64(0, 1);
}

Datum
crm_sql_record_emotion(PG_FUNCTION_ARGS)
{
	static const char *const names[] = { "contact_id", "touchpoint",  "score",
										 "source",     "interaction", "confidence" };
	static const char *const sources[] = { "survey", "associate", "rule" };
	Datum values[7];
	char *source;
	char *interaction;
	CrmActing acting;
	bool at_given;
	int64 id;

	for (int i = 0; i < lengthof(names); i++)
		crm_require_argument("record_emotion", names[i], PG_ARGISNULL(i));
	check_score(PG_GETARG_DATUM(2));
	source = crm_text_argument(fcinfo, 3);
	if (!is_one_of(source, sources, lengthof(sources)))
		ereport(ERROR,
				(errcode(ERRCODE_CHECK_VIOLATION),
				 errmsg("source \"%s\" of an emotion is not known", crm_shown(source)),
				 errhint("Sources are survey, associate and rule.")));
	interaction = crm_text_argument(fcinfo, 4);
	crm_check_key("interaction", interaction);
	if (!is_between(PG_GETARG_DATUM(5), 0, 1) ||
		DatumGetBool(DirectFunctionCall2(numeric_eq, PG_GETARG_DATUM(5),
										 NumericGetDatum(int64_to_numeric(0)))))
		ereport(ERROR,
				(errcode(ERRCODE_CHECK_VIOLATION),
				 errmsg("confidence %s is not above 0 and at most 1",
						number_text(PG_GETARG_DATUM(5))),
				 errhint("1 is certain, 0.5 as good as a guess.")));
	values[6] = TimestampTzGetDatum(crm_time_argument(fcinfo, 6, &at_given));

	crm_connect(&acting);
	values[1] = CStringGetTextDatum(touchpoint_argument(fcinfo, 1));
	values[0] = Int64GetDatum(crm_contact_lock(PG_GETARG_INT64(0)));
	values[2] = CStringGetTextDatum(source);
	values[3] = CStringGetTextDatum(interaction);
	values[4] = PG_GETARG_DATUM(2);
	values[5] = PG_GETARG_DATUM(5);
	id = save_emotion(values, at_given, interaction, source);
	crm_disconnect(&acting);
	PG_RETURN_INT64(id);
}
