/*
 * http_pool.c
 *		libcurl's multi handles. To find a free connection libcurl looks at all
 *		that it has to the host, one by one, for each request; with hundreds under
 *		way that took a third of all its time. So there are several handles with a
 *		few dozen connections each, and a request goes to the first with room: where
 *		few messages go, one has them all.
 */
#include "postgres.h"

#include "portability/instr_time.h"

#include "dispatch/http_pool.h"
#include "dispatch/http_watch.h"

#define POOL_CONNECTIONS 50
#define EVENTS_A_TURN    64
#define TURNS_A_STEP     8

typedef struct Pool
{
	CURLM *multi; /* once it is needed */
	int limit;
	int nrunning;
	long timeout_ms; /* libcurl's last word, -1 for none */
	bool timeout_changed;
	int64 due_at; /* the same on the clock of now_ms() */
} Pool;

static Pool *pools = NULL;
static int npools = 0;
static int64 timer_at = PG_INT64_MAX;
static bool broken = false; /* a callback could not do its work */

static int64
now_ms(void)
{
	instr_time now;

	INSTR_TIME_SET_CURRENT(now);
	return (int64) INSTR_TIME_GET_MILLISEC(now);
}

/* ----- libcurl's callbacks: no palloc, no ereport, nothing that may jump ----- */

static int
on_socket(CURL *easy, curl_socket_t fd, int what, void *context, void *of_socket)
{
	if (crm_watch_socket(fd, what, (Pool *) context - pools))
		return 0;
	broken = true;
	return -1;
}

/* libcurl changes its mind with every request; only the last word of a step counts */
static int
on_timer(CURLM *of, long timeout_ms, void *context)
{
	Pool *pool = context;

	pool->timeout_ms = timeout_ms;
	pool->timeout_changed = true;
	return 0;
}

/* ----- pools ----- */

static void
close_pool(Pool *pool)
{
	if (pool->multi)
		curl_multi_cleanup(pool->multi);
	pool->multi = NULL;
	pool->nrunning = 0;
	pool->timeout_changed = false;
	pool->due_at = PG_INT64_MAX;
}

static bool
open_pool(Pool *pool)
{
	bool done = true;

	pool->multi = curl_multi_init();
#define SET(option, value) \
	(done = done && pool->multi && curl_multi_setopt(pool->multi, option, value) == CURLM_OK)
	SET(CURLMOPT_SOCKETFUNCTION, on_socket);
	SET(CURLMOPT_SOCKETDATA, pool);
	SET(CURLMOPT_TIMERFUNCTION, on_timer);
	SET(CURLMOPT_TIMERDATA, pool);
	SET(CURLMOPT_MAX_TOTAL_CONNECTIONS, (long) pool->limit);
	SET(CURLMOPT_MAX_HOST_CONNECTIONS, (long) pool->limit);
	SET(CURLMOPT_MAXCONNECTS, (long) pool->limit);
#undef SET
	if (!done)
		close_pool(pool);
	return done;
}

bool
crm_pools_open(int connections)
{
	npools = (connections + POOL_CONNECTIONS - 1) / POOL_CONNECTIONS;
	pools = calloc(npools, sizeof(Pool));
	if (pools == NULL)
		npools = 0;
	for (int i = 0; i < npools; i++)
	{
		pools[i].limit = Min(POOL_CONNECTIONS, connections - i * POOL_CONNECTIONS);
		pools[i].due_at = PG_INT64_MAX;
	}
	return pools != NULL;
}

void
crm_pools_reset(void)
{
	for (int i = 0; i < npools; i++)
		close_pool(&pools[i]);
	broken = false;
	crm_pools_step_soon();
}

void
crm_pools_close(void)
{
	for (int i = 0; i < npools; i++)
		close_pool(&pools[i]);
	free(pools);
	pools = NULL;
	npools = 0;
	timer_at = PG_INT64_MAX;
	broken = false;
}

/* The first with room; where there is none, the request waits in the one with the fewest more. */
static Pool *
choose_pool(void)
{
	Pool *chosen = pools;

	for (Pool *pool = pools; pool < pools + npools; pool++)
	{
		if (pool->nrunning < pool->limit)
			return pool;
		if (pool->nrunning - pool->limit < chosen->nrunning - chosen->limit)
			chosen = pool;
	}
	return chosen;
}

int
crm_pool_add(CURL *easy)
{
	Pool *pool = choose_pool();

	if ((pool->multi == NULL && !open_pool(pool)) ||
		curl_multi_add_handle(pool->multi, easy) != CURLM_OK)
		return -1;
	pool->nrunning++;
	return pool - pools;
}

void
crm_pool_remove(int pool, CURL *easy)
{
	curl_multi_remove_handle(pools[pool].multi, easy);
	pools[pool].nrunning--;
}

/* ----- a step ----- */

static void
note_timeouts(void)
{
	int64 now = 0;

	for (Pool *pool = pools; pool < pools + npools; pool++)
	{
		if (!pool->timeout_changed)
			continue;
		if (now == 0)
			now = now_ms();
		pool->timeout_changed = false;
		pool->due_at = pool->timeout_ms < 0 ? PG_INT64_MAX : now + pool->timeout_ms;
	}
}

static bool
act_on_timeouts(void)
{
	int64 now = now_ms();
	bool good = true;
	int unused;

	note_timeouts();
	for (Pool *pool = pools; good && pool < pools + npools; pool++)
	{
		if (pool->due_at > now)
			continue;
		pool->due_at = PG_INT64_MAX; /* it says when it wants the next */
		good = curl_multi_socket_action(pool->multi, CURL_SOCKET_TIMEOUT, 0, &unused) == CURLM_OK;
	}
	return good;
}

void
crm_pools_step_soon(void)
{
	timer_at = 0;
	if (!crm_watch_timer(0))
		broken = true;
}

/*
 * Requests begin by a timeout, which is acted on last: connections that are to be
 * hung up are by then, and those whose replies came can be used again.
 */
bool
crm_pools_step(void)
{
	CrmWatched watched[EVENTS_A_TURN];
	int n = EVENTS_A_TURN;
	bool good = true;
	int unused;

	for (int turn = 0; turn < TURNS_A_STEP && n == EVENTS_A_TURN && good; turn++)
	{
		n = crm_watch_events(watched, EVENTS_A_TURN);
		for (int i = 0; i < n && good; i++)
			if (watched[i].event == CRM_WATCH_TIMER)
				timer_at = PG_INT64_MAX; /* it has fired */
			else if (watched[i].event == CRM_WATCH_SOCKET && pools[watched[i].pool].multi)
				good = curl_multi_socket_action(pools[watched[i].pool].multi, watched[i].fd,
												watched[i].what, &unused) == CURLM_OK;
	}
	return good && act_on_timeouts() && !broken;
}

CURLMsg *
crm_pools_message(void)
{
	CURLMsg *message = NULL;
	int unused;

	for (int i = 0; i < npools && message == NULL; i++)
		if (pools[i].nrunning > 0)
			message = curl_multi_info_read(pools[i].multi, &unused);
	return message;
}

bool
crm_pools_set_timer(void)
{
	int64 first = PG_INT64_MAX;

	note_timeouts();
	for (int i = 0; i < npools; i++)
		first = Min(first, pools[i].due_at);
	if (first == timer_at)
		return !broken;
	timer_at = first;
	return crm_watch_timer(first == PG_INT64_MAX ? -1 : Max(first - now_ms(), 0)) && !broken;
}
