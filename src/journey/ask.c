/*
 * ask.c
 *		The step that asks for something and takes the reply.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/db.h"
#include "journey/carried.h"
#include "journey/engine.h"
#include "journey/kinds.h"
#include "journey/match.h"

void
crm_step_ask(CrmMoves *moves)
{
	if (moves->step->template != NULL)
	{
		int64 *message_ids = crm_moves_send(moves, false);

		for (int i = 0; i < moves->n; i++)
			if (moves->runs[i]->open != NULL)
				moves->runs[i]->open->message_id = message_ids[i];
	}
	for (int i = 0; i < moves->n; i++)
		crm_run_stay(moves->runs[i],
					 moves->step->within == NULL
						 ? DT_NOBEGIN
						 : crm_add_interval(moves->runs[i]->at, moves->step->within,
											moves->journey->zone));
}

void
crm_asks_by_signals(CrmEngine *engine, CrmSignal *const *signals)
{
}
