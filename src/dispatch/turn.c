/*
 * turn.c
 *		One turn of the worker: nothing is sent yet.
 */
#include "postgres.h"

#include "base/guc.h"
#include "dispatch/turn.h"

void
crm_turn_init(void)
{
}

int
crm_turn(void)
{
	return crm_guc_poll_interval * 1000;
}

void
crm_turn_end(void)
{
}
