/*
 * settle.c
 *		A batch of new facts into the profiles. Contacts whose facts all come
 *		after what is known continue their walk from the stored counters: one
 *		update of the profile, inserts of awards and moves, written without the
 *		executor. All others take the general lane (recompute.c), which gives
 *		the same rows. Profiles are locked in id order in one pass, whichever
 *		lane their contact takes.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/db.h"
#include "base/guc.h"
#include "base/table.h"
#include "journey/journey.h"
#include "pg_crm.h"
#include "profile/recompute.h"
#include "profile/walk.h"
#include "profile/won.h"

static const char *const award_columns[] = { "contact_id", "achievement", "threshold",
											 "awarded_at", "recorded_at", "source_id",
											 "revoked_at" };
static const char *const move_columns[] = { "contact_id", "since", "stage", "reason" };

typedef struct Settling
{
	const CrmDefinitions *definitions;
	CrmWalk *walk;
	CrmTarget *profile;
	CrmTarget *award;
	CrmTarget *move;
	CrmTarget *contact;        /* NULL: by the executor */
	CrmScanCounting *counting; /* NULL: no scans */
	Datum rule_text;           /* reason of the moves */
	MemoryContext row_context; /* reset for each contact */
	MemoryContext batch_context;

	/* contacts for the general lane, and when each was last heard of */
	int ngeneral;
	int64 *general;
	TimestampTz *general_causes;

	/* contacts that moved, for the kept copy in crm.contact */
	int nmoved;
	int64 *moved;
	int *moved_to;

	/* contacts that time alone will move, and when the first of these moves may be */
	CrmColumn due[2];

	List *signals; /* Told, to journeys, of what is written */

	CrmWon won; /* contacts that have bought */
} Settling;

typedef struct Told
{
	CrmTarget **target; /* the table whose row it is about */
	int64 contact_id;
	TimestampTz at;
	CrmSignalName names[2];
} Told;

/*
 * Awards and moves are rarer than facts: their tables are opened for the first
 * one. False where one of them asks for the executor.
 */
static bool
open_for(Settling *settling, const CrmWalk *walk)
{
	if (walk->nawards > 0 && settling->award == NULL)
		settling->award = crm_target_open("award", award_columns, lengthof(award_columns), false);
	if (walk->nmoves > 0 && settling->move == NULL)
		settling->move = crm_target_open("stage_move", move_columns, lengthof(move_columns), false);
	return (walk->nawards == 0 || settling->award != NULL) &&
		(walk->nmoves == 0 || settling->move != NULL);
}

static void
close_target(CrmTarget *target)
{
	if (target != NULL)
		crm_target_close(target);
}

/* May the walk go on from the stored counters with these facts? */
static bool
can_continue(const Settling *settling, const CrmWalk *walk, const CrmFact *facts, int nfacts)
{
	const CrmDefinitions *definitions = settling->definitions;
	TimestampTz settled_at = DatumGetTimestampTz(walk->values[CRM_P_SETTLED_AT]);

	for (int i = 0; i < nfacts; i++)
	{
		const CrmFact *fact = &facts[i];

		if (crm_is_plain_event(definitions, fact))
		{
			/*
			 * A late one may meet a stage that was set by hand. And unlike a
			 * walked fact it leaves no mark that tells whether it is counted.
			 */
			if (fact->occurred_at <= settled_at || DatumGetBool(walk->values[CRM_P_STAGE_MANUAL]) ||
				crm_recomputed_in_transaction())
				return false;
		}
		else if (definitions->nwindows > 0 || definitions->reads_fields)
			return false;
		else if (fact->type == CRM_FACT_PURCHASE ? !definitions->orders_continue
					 : fact->type == CRM_FACT_SCAN
					 ? !definitions->scans_continue
					 : (fact->type != CRM_FACT_EVENT || fact->kind >= 0))
			return false;
		else if (fact->occurred_at <= settled_at)
			return false;
	}
	return true;
}

/*
 * Marks the scans that count, if there are any. Who waited for the contact
 * must see what others have written meanwhile, which this snapshot does not show.
 */
static bool
can_mark_scans(const Settling *settling, CrmFact *facts, int nfacts, bool waited)
{
	CrmScanCounting *counting = settling->counting;

	return counting == NULL ||
		(!waited &&
		 counting->mark(counting, facts, nfacts, settling->walk->values, settling->walk->nulls));
}

/* Reads the stored profile; by-reference values stay in their slot. */
static void
read_profile(const Settling *settling)
{
	CrmWalk *walk = settling->walk;
	TupleTableSlot *slot = settling->profile->found;

	slot_getallattrs(slot);
	for (int i = 0; i < CRM_PROFILE_COLUMNS; i++)
	{
		AttrNumber attno = settling->profile->attno[i];

		walk->values[i] = slot->tts_values[attno - 1];
		walk->nulls[i] = slot->tts_isnull[attno - 1];
	}
}

static void
lock_row(CrmTarget *target, int64 contact_id)
{
	TM_Result result = crm_target_lock(target);

	if (result == TM_Ok)
		return;
	if (result == TM_Updated || (result == TM_Deleted && IsolationUsesXactSnapshot()))
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not serialize access to contact %lld due to concurrent change",
						(long long) contact_id),
				 errhint("Repeat the transaction.")));
	if (result == TM_Deleted)
		crm_unknown_contact(contact_id);
	elog(ERROR, "unexpected result %d of locking a row", result);
}

static void
take_general_lane(Settling *settling, int64 contact_id, TimestampTz cause)
{
	if (settling->ngeneral > 0 && settling->general[settling->ngeneral - 1] == contact_id)
		return;
	settling->general[settling->ngeneral] = contact_id;
	settling->general_causes[settling->ngeneral] = cause;
	settling->ngeneral++;
}

/* False if they were only seen: then time alone brings what it would have brought. */
static bool
walk_new_facts(Settling *settling, const CrmFact *facts, int nfacts)
{
	bool walked = false;

	crm_walk_continue(settling->walk);
	for (int i = 0; i < nfacts; i++)
	{
		if (crm_is_plain_event(settling->definitions, &facts[i]) && facts[i].unseen)
			continue;
		if (crm_is_plain_event(settling->definitions, &facts[i]))
			crm_walk_seen(settling->walk, facts[i].occurred_at);
		else
		{
			crm_walk_step(settling->walk, &facts[i]);
			walked = true;
		}
	}
	return walked;
}

/* Told once the rows stand: whose do not is walked anew. */
static void
remember(Settling *settling, CrmTarget **target, TimestampTz at, const char *name,
		 const char *value, const char *other_name, const char *other_value)
{
	MemoryContext old = MemoryContextSwitchTo(settling->batch_context);
	Told *told = palloc_object(Told);

	told->target = target;
	told->contact_id = DatumGetInt64(settling->walk->values[CRM_P_CONTACT_ID]);
	told->at = at;
	told->names[0].name = name;
	told->names[0].value = pstrdup(value);
	told->names[1].name = other_name;
	told->names[1].value = pstrdup(other_value);
	settling->signals = lappend(settling->signals, told);
	MemoryContextSwitchTo(old);
}

static void
tell_journeys(const Settling *settling, CrmTarget *const *target, const char *kind,
			  const int64 *conflicts, int nconflicts)
{
	ListCell *cell;

	foreach(cell, settling->signals)
	{
		const Told *told = lfirst(cell);
		bool stands = told->target == target;

		for (int i = 0; i < nconflicts && stands; i++)
			stands = conflicts[i] != told->contact_id;
		if (stands)
			crm_journey_signal_named(kind, told->contact_id, told->at, told->names, 2);
	}
}

static void
queue_awards(Settling *settling)
{
	CrmWalk *walk = settling->walk;
	static const bool nulls[lengthof(award_columns)] = { false, false, false, false,
														 false, false, true };

	for (int i = 0; i < walk->nawards; i++)
	{
		const CrmAwardStep *step = &walk->awards[i];
		const CrmAchievement *achievement = &settling->definitions->achievements[step->achievement];
		Datum values[lengthof(award_columns)] = {
			walk->values[CRM_P_CONTACT_ID],
			achievement->name_text,
			achievement->thresholds[step->threshold],
			TimestampTzGetDatum(step->awarded_at),
			TimestampTzGetDatum(crm_now()),
			Int64GetDatum(step->source_id),
			(Datum) 0,
		};

		crm_target_insert(settling->award, values, nulls);
		if (crm_journey_listens(CRM_SIGNAL_AWARD))
			remember(settling, &settling->award, step->awarded_at, "achievement", achievement->name,
					 "threshold",
					 DatumGetCString(
						 DirectFunctionCall1(numeric_out,
											 achievement->thresholds[step->threshold])));
	}
}

/* Puts a contact into its place among those of the general lane. */
static void
insert_general(Settling *settling, int64 contact_id, TimestampTz cause)
{
	int place = settling->ngeneral;

	while (place > 0 && settling->general[place - 1] > contact_id)
		place--;
	if (place > 0 && settling->general[place - 1] == contact_id)
		return;
	memmove(&settling->general[place + 1], &settling->general[place],
			sizeof(int64) * (settling->ngeneral - place));
	memmove(&settling->general_causes[place + 1], &settling->general_causes[place],
			sizeof(TimestampTz) * (settling->ngeneral - place));
	settling->general[place] = contact_id;
	settling->general_causes[place] = cause;
	settling->ngeneral++;
}

/*
 * Where a row stands in the way of a new one (an award regained after a
 * refund, for example), history must decide about the contact, which is locked
 * already.
 */
static void
take_conflicts(Settling *settling, const int64 *contacts, int nconflicts, const CrmFact *facts,
			   int64 nfacts)
{
	for (int i = 0; i < nconflicts; i++)
	{
		int64 last = -1;
		int64 after = nfacts;

		/* the contact's last fact in the sorted batch */
		while (after - last > 1)
		{
			int64 middle = last + (after - last) / 2;

			if (facts[middle].contact_id <= contacts[i])
				last = middle;
			else
				after = middle;
		}
		insert_general(settling, contacts[i], facts[last].occurred_at);
	}
}

/* Writes what is queued, and tells of it. */
static void
write_rows(Settling *settling, CrmTarget **place, const char *kind, const CrmFact *facts,
		   int64 nfacts)
{
	CrmTarget *target = *place;
	int64 *contacts;
	int nconflicts;

	if (target == NULL)
		return;
	crm_target_flush(target);
	contacts = crm_target_undo_conflicts(target, &nconflicts);
	tell_journeys(settling, place, kind, contacts, nconflicts);
	take_conflicts(settling, contacts, nconflicts, facts, nfacts);
}

static void
write_scans(Settling *settling, const CrmFact *facts, int64 nfacts)
{
	int64 *contacts;
	int nconflicts;

	if (settling->counting == NULL)
		return;
	contacts = settling->counting->write(settling->counting, &nconflicts);
	take_conflicts(settling, contacts, nconflicts, facts, nfacts);
}

static void
queue_moves(Settling *settling)
{
	CrmWalk *walk = settling->walk;

	for (int i = 0; i < walk->nmoves; i++)
	{
		const CrmStageStep *step = &walk->moves[i];
		static const bool nulls[lengthof(move_columns)] = { false, false, false, false };
		Datum values[lengthof(move_columns)] = {
			walk->values[CRM_P_CONTACT_ID], TimestampTzGetDatum(step->since),
			settling->definitions->stages[step->stage].stage_text,
			strcmp(step->reason, "rule") == 0 ? settling->rule_text
											  : CStringGetTextDatum(step->reason)
		};

		crm_target_insert(settling->move, values, nulls);
		if (crm_journey_listens(CRM_SIGNAL_STAGE))
		{
			int before = i > 0 ? walk->moves[i - 1].stage : walk->opening_stage;

			remember(settling, &settling->move, step->since, "stage",
					 settling->definitions->stages[step->stage].stage, "from",
					 before < 0 ? "" : settling->definitions->stages[before].stage);
		}
	}
	if (walk->nmoves > 0)
	{
		settling->moved[settling->nmoved] = DatumGetInt64(walk->values[CRM_P_CONTACT_ID]);
		settling->moved_to[settling->nmoved] = walk->stage;
		settling->nmoved++;
	}
}

static void
settle_contact(Settling *settling, CrmFact *facts, int nfacts)
{
	int64 contact_id = facts[0].contact_id;
	TimestampTz cause = facts[nfacts - 1].occurred_at;
	MemoryContext batch = CurrentMemoryContext;
	bool locked = false;
	bool walked;

	if (!crm_target_find(settling->profile, contact_id))
		crm_unknown_contact(contact_id);
	for (;;)
	{
		MemoryContextReset(settling->row_context);
		read_profile(settling);
		if (!can_continue(settling, settling->walk, facts, nfacts) ||
			!can_mark_scans(settling, facts, nfacts, locked))
		{
			if (!locked)
				lock_row(settling->profile, contact_id);
			take_general_lane(settling, contact_id, cause);
			return;
		}
		MemoryContextSwitchTo(settling->row_context);
		walked = walk_new_facts(settling, facts, nfacts);
		MemoryContextSwitchTo(batch);
		if (!open_for(settling, settling->walk))
		{
			if (!locked)
				lock_row(settling->profile, contact_id);
			take_general_lane(settling, contact_id, cause);
			return;
		}
		if (crm_target_update(settling->profile, settling->walk->values, settling->walk->nulls))
			break;
		/* somebody else updated, moved or merged the contact meanwhile */
		lock_row(settling->profile, contact_id);
		locked = true;
	}
	queue_awards(settling);
	queue_moves(settling);
	for (int i = 0; i < nfacts; i++)
		if (facts[i].type == CRM_FACT_PURCHASE)
		{
			crm_won_changed(&settling->won, contact_id);
			break;
		}
	if (settling->counting != NULL)
		settling->counting->keep(settling->counting);
	if (walked && settling->definitions->stages_read_time)
	{
		TimestampTz due = crm_walk_due(settling->walk);

		if (due < DT_NOEND)
		{
			crm_column_add(&settling->due[0], Int64GetDatum(contact_id), false);
			crm_column_add(&settling->due[1], TimestampTzGetDatum(due), false);
		}
	}
}

/* What the executor writes where there is any: moments that are due, failures of rules. */
static void
write_moments(Settling *settling)
{
	CrmActing acting;

	if (settling->due[0].n == 0 && settling->walk->nerrors == 0)
		return;
	crm_connect(&acting);
	crm_stage_due_add(settling->due);
	crm_walk_count_errors(settling->walk);
	crm_disconnect(&acting);
}

/* The kept copy of the stage, by the executor where the table asks for it. */
static void
update_contact_stages(Settling *settling)
{
	static CrmPlan update_stages = {
		"UPDATE crm.contact c SET stage = n.stage FROM unnest($1, $2) AS n(contact_id, stage)"
		" WHERE c.contact_id = n.contact_id",
		2,
		{ INT8ARRAYOID, TEXTARRAYOID }
	};
	CrmActing acting;
	CrmColumn stages;
	Datum values[2];

	crm_connect(&acting);
	crm_column_init(&stages, TEXTOID);
	for (int i = 0; i < settling->nmoved; i++)
		crm_column_add(&stages, settling->definitions->stages[settling->moved_to[i]].stage_text,
					   false);
	values[0] = crm_int64_array(settling->moved, settling->nmoved);
	values[1] = crm_column_array(&stages);
	crm_run_protected(&update_stages, values, NULL);
	crm_disconnect(&acting);
}

/* The same directly; somebody may hold the row to edit name or tags. */
static void
write_contact_stages(Settling *settling)
{
	static const char *const columns[] = { "contact_id", "stage" };

	if (settling->nmoved == 0)
		return;
	settling->contact = crm_target_open("contact", columns, lengthof(columns), true);
	if (settling->contact == NULL)
	{
		update_contact_stages(settling);
		return;
	}
	for (int i = 0; i < settling->nmoved; i++)
	{
		static const bool nulls[lengthof(columns)] = { false, false };
		int64 contact_id = settling->moved[i];
		Datum values[lengthof(columns)] = {
			Int64GetDatum(contact_id),
			settling->definitions->stages[settling->moved_to[i]].stage_text
		};

		if (!crm_target_find(settling->contact, contact_id))
			crm_unknown_contact(contact_id);
		while (!crm_target_update(settling->contact, values, nulls))
			lock_row(settling->contact, contact_id);
	}
}

static void
settle_directly(Settling *settling, CrmFact *facts, int64 nfacts)
{
	int nest_level = crm_definitions_enter(settling->definitions);

	settling->walk = crm_walk_create(settling->definitions);
	crm_won_init(&settling->won);
	crm_column_init(&settling->due[0], INT8OID);
	crm_column_init(&settling->due[1], TIMESTAMPTZOID);
	settling->rule_text = CStringGetTextDatum("rule");
	settling->batch_context = CurrentMemoryContext;
	settling->row_context = AllocSetContextCreate(CurrentMemoryContext, "pg_crm settle row",
												  ALLOCSET_SMALL_SIZES);

	/* see what this transaction wrote before, and what others committed */
	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());
	for (int64 start = 0, end; start < nfacts; start = end)
	{
		CHECK_FOR_INTERRUPTS();
		for (end = start + 1; end < nfacts && facts[end].contact_id == facts[start].contact_id;)
			end++;
		settle_contact(settling, facts + start, end - start);
	}
	/* what is written may fire triggers of a brand's own */
	crm_definitions_leave(nest_level);
	write_scans(settling, facts, nfacts);
	write_rows(settling, &settling->award, CRM_SIGNAL_AWARD, facts, nfacts);
	write_rows(settling, &settling->move, CRM_SIGNAL_STAGE, facts, nfacts);
	write_contact_stages(settling);
	close_target(settling->contact);
	close_target(settling->move);
	close_target(settling->award);
	close_target(settling->profile);
	PopActiveSnapshot();
	crm_won_write(&settling->won);
	write_moments(settling);
}

void
crm_profile_settle(CrmFact *facts, int64 nfacts, CrmScanCounting *counting)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "pg_crm settle",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	Settling settling = { .counting = counting };
	int64 ncontacts = 1;
	int64 nrefunds = 0;

	for (int64 i = 1; i < nfacts; i++)
		ncontacts += facts[i].contact_id != facts[i - 1].contact_id;
	settling.general = MemoryContextAllocHuge(context, sizeof(int64) * ncontacts);
	settling.general_causes = MemoryContextAllocHuge(context, sizeof(TimestampTz) * ncontacts);
	settling.moved = MemoryContextAllocHuge(context, sizeof(int64) * ncontacts);
	settling.moved_to = MemoryContextAllocHuge(context, sizeof(int) * ncontacts);

	/* the lock that opening takes also makes the definitions current */
	if (crm_guc_direct_access)
		settling.profile = crm_target_open("profile_counter", crm_profile_column_names,
										   CRM_PROFILE_COLUMNS, true);
	settling.definitions = crm_definitions();
	if (settling.profile != NULL)
		settle_directly(&settling, facts, nfacts);
	else
	{
		for (int64 i = 0; i < nfacts; i++)
			if (i + 1 == nfacts || facts[i + 1].contact_id != facts[i].contact_id)
				take_general_lane(&settling, facts[i].contact_id, facts[i].occurred_at);
		if (counting != NULL)
			crm_profile_lock(settling.general, settling.ngeneral);
	}

	if (counting != NULL && settling.ngeneral > 0)
		counting->count(counting, settling.general, settling.ngeneral);
	if (settling.ngeneral > 0)
	{
		CrmNews news = { .ncontacts = settling.ngeneral,
						 .contacts = settling.general,
						 .causes = settling.general_causes };

		for (int64 i = 0; i < nfacts; i++)
			nrefunds += facts[i].type == CRM_FACT_REFUND;
		news.refunds = palloc(sizeof(int64) * Max(nrefunds, 1));
		for (int64 i = 0; i < nfacts; i++)
			if (facts[i].type == CRM_FACT_REFUND)
				news.refunds[news.nrefunds++] = facts[i].id;
		qsort(news.refunds, news.nrefunds, sizeof(int64), crm_compare_int64);
		crm_recompute(settling.general, settling.ngeneral, &news);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
}
