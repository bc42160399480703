/*
 * http_pool.h
 *		libcurl's multi handles, several of them, as if they were one. What may
 *		call libcurl is called with signals blocked. Nothing raises an error.
 */
#ifndef CRM_HTTP_POOL_H
#define CRM_HTTP_POOL_H

#include "postgres.h"

#include <curl/curl.h>

/* For so many connections together; false: out of memory. */
extern bool crm_pools_open(int connections);
/* Both when all transfers are removed: new connections, and none. */
extern void crm_pools_reset(void);
extern void crm_pools_close(void);

/* The number of the pool that took the transfer, which the next step begins; -1: out of memory. */
extern int crm_pool_add(CURL *easy);
extern void crm_pool_remove(int pool, CURL *easy);

/* Makes the descriptor readable. */
extern void crm_pools_step_soon(void);

/*
 * A step: what came is acted on, then messages are taken until there is none,
 * and the timer is set. False: the pools must be reset.
 */
extern bool crm_pools_step(void);
extern CURLMsg *crm_pools_message(void);
extern bool crm_pools_set_timer(void);

#endif /* CRM_HTTP_POOL_H */
