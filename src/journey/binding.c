/*
 * binding.c
 *		Mobile numbers that were given in reply. One that another contact has joins
 *		the two, which no batch may do that has runs of them in memory: the reply
 *		waits in its enrolment until journeys are moved by time.
 *
 *		Whoever binds here holds contacts that others may wait for, and must wait
 *		for nobody: what cannot be had at once is tried again.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "lib/qunique.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/timestamp.h"

#include "base/db.h"
#include "journey/engine.h"
#include "journey/kinds.h"

/* shorter than any deadlock_timeout makes sense */
#define PATIENCE "10ms"

/* A reply that was bound or refused; else it waits on. */
typedef struct Binding
{
	int64 contact_id; /* then of whoever survives */
	int64 enrolment_id;
	Datum mobile;
	TimestampTz at;
	bool decided;
	bool refused;
} Binding;

struct CrmBindings
{
	int n;
	Binding *list;
	int ncontacts;
	int64 *contacts; /* those given and those that survived */
};

static CrmPlan bind_numbers = {
	"SELECT crm.bind_mobile(n.contact_id, n.mobile::crm.mobile, n.at)"
	" FROM unnest($1, $2, $3) WITH ORDINALITY AS n(contact_id, mobile, at, place)"
	" ORDER BY n.place",
	3,
	{ INT8ARRAYOID, TEXTARRAYOID, TIMESTAMPTZARRAYOID }
};
static CrmPlan find_waiting = {
	"SELECT e.contact_id, e.enrolment_id, e.reply, e.due_at FROM crm.enrolment e"
	" WHERE e.contact_id = ANY ($1) AND e.state = 'active' AND e.reply IS NOT NULL"
	" AND e.due_at <= $2 AND e.journey = ANY ($3) ORDER BY e.due_at, e.contact_id, e.enrolment_id",
	3,
	{ INT8ARRAYOID, TIMESTAMPTZOID, TEXTARRAYOID }
};

void
crm_mobiles_bind(CrmColumn *contacts, CrmColumn *mobiles, CrmColumn *times)
{
	Datum values[3] = { crm_column_array(contacts), crm_column_array(mobiles),
						crm_column_array(times) };
	int nest_level = NewGUCNestLevel();

	(void) set_config_option("lock_timeout", PATIENCE, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
							 true, 0, false);
	crm_run(&bind_numbers, values, NULL);
	AtEOXact_GUC(true, nest_level);
}

static bool
bind_one(void *arg)
{
	Binding *binding = arg;
	CrmColumn contacts;
	CrmColumn mobiles;
	CrmColumn times;

	crm_column_init(&contacts, INT8OID);
	crm_column_init(&mobiles, TEXTOID);
	crm_column_init(&times, TIMESTAMPTZOID);
	crm_column_add(&contacts, Int64GetDatum(binding->contact_id), false);
	crm_column_add(&mobiles, binding->mobile, false);
	crm_column_add(&times, TimestampTzGetDatum(binding->at), false);
	crm_mobiles_bind(&contacts, &mobiles, &times);
	binding->contact_id = crm_result_int64(0, 1);
	return true;
}

CrmBindings *
crm_replies_bind(const int64 *contacts, int ncontacts, TimestampTz as_of)
{
	CrmBindings *bindings = palloc0_object(CrmBindings);
	Datum values[3] = { crm_int64_array(contacts, ncontacts), TimestampTzGetDatum(as_of),
						crm_moving_journeys() };

	bindings->n = crm_run(&find_waiting, values, NULL);
	bindings->list = palloc0_array(Binding, Max(bindings->n, 1));
	for (int i = 0; i < bindings->n; i++)
	{
		Binding *binding = &bindings->list[i];

		binding->contact_id = crm_result_int64(i, 1);
		binding->enrolment_id = crm_result_int64(i, 2);
		binding->mobile = CStringGetTextDatum(crm_result_text(i, 3));
		binding->at = crm_result_time(i, 4, as_of);
	}
	SPI_freetuptable(SPI_tuptable);

	bindings->contacts = palloc_array(int64, ncontacts + bindings->n);
	memcpy(bindings->contacts, contacts, sizeof(int64) * ncontacts);
	bindings->ncontacts = ncontacts;
	for (int i = 0; i < bindings->n; i++)
	{
		Binding *binding = &bindings->list[i];
		ErrorData *error;

		CHECK_FOR_INTERRUPTS();
		if (crm_attempt(bind_one, binding, &error))
		{
			binding->decided = true;
			bindings->contacts[bindings->ncontacts++] = binding->contact_id;
			continue;
		}
		if (error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE)
		{
			if (!crm_error_is_contained(error->sqlerrcode))
				ReThrowError(error);
			binding->decided = binding->refused = true;
		}
		FreeErrorData(error);
	}
	if (bindings->ncontacts > ncontacts)
	{
		qsort(bindings->contacts, bindings->ncontacts, sizeof(int64), crm_compare_int64);
		bindings->ncontacts = qunique(bindings->contacts, bindings->ncontacts, sizeof(int64),
									  crm_compare_int64);
	}
	return bindings;
}

const int64 *
crm_bindings_contacts(const CrmBindings *bindings, int *ncontacts)
{
	*ncontacts = bindings->ncontacts;
	return bindings->contacts;
}

static void
follow(CrmRun *run, const Binding *binding)
{
	run->at = Max(run->step_at, binding->at);
	run->changed = true;
	/* a migration may have led it to another step meanwhile */
	if (crm_run_is_at(run, crm_step_ask))
		crm_leave_by_reply(run, !binding->refused);
	else
		run->reply = NULL;
}

int
crm_bindings_follow(CrmEngine *engine, const CrmBindings *bindings)
{
	int n = 0;

	if (bindings->n == 0)
		return 0;
	crm_engine_load_replied(engine, bindings->contacts, bindings->ncontacts);
	for (int i = 0; i < engine->nruns; i++)
		for (int k = 0; k < bindings->n; k++)
			if (bindings->list[k].decided &&
				bindings->list[k].enrolment_id == engine->runs[i]->enrolment_id)
			{
				follow(engine->runs[i], &bindings->list[k]);
				n++;
			}
	return n;
}
