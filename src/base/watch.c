/*
 * watch.c
 *		Whoever keeps what it knows of tables is told when they change.
 *		PostgreSQL has ten places for such functions, for itself and for all
 *		extensions of a session: this takes one for all of pg_crm.
 */
#include "postgres.h"

#include "utils/inval.h"

#include "base/watch.h"

#define MAX_WATCHERS 32

static void (*watchers[MAX_WATCHERS])(Datum arg, Oid relid);
static int nwatchers = 0;

static void
tell_watchers(Datum arg, Oid relid)
{
	for (int i = 0; i < nwatchers; i++)
		watchers[i](arg, relid);
}

void
crm_on_table_change(void (*changed)(Datum arg, Oid relid))
{
	if (nwatchers == MAX_WATCHERS)
		elog(ERROR, "more than %d functions watch the tables", MAX_WATCHERS);
	if (nwatchers == 0)
		CacheRegisterRelcacheCallback(tell_watchers, (Datum) 0);
	watchers[nwatchers++] = changed;
}
