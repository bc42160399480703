/*
 * http_watch.h
 *		The sockets of libcurl and a timer, behind one descriptor. Called from
 *		libcurl's callbacks too: nothing here raises an error.
 */
#ifndef CRM_HTTP_WATCH_H
#define CRM_HTTP_WATCH_H

#include "postgres.h"

typedef enum CrmWatchEvent
{
	CRM_WATCH_NOTHING, /* an idle connection that was hung up */
	CRM_WATCH_TIMER,
	CRM_WATCH_SOCKET
} CrmWatchEvent;

typedef struct CrmWatched
{
	CrmWatchEvent event;
	int fd;
	int pool;
	int what; /* CURL_CSELECT_… */
} CrmWatched;

/* Open until closed; false: errno says why. */
extern bool crm_watch_open(void);
extern void crm_watch_close(void);
extern int crm_watch_descriptor(void);

/* What libcurl wants to know of a socket of a pool, CURL_POLL_…; false where that failed. */
extern bool crm_watch_socket(int fd, int what, int pool);

/* Milliseconds until the descriptor becomes readable by itself; -1: it does not. */
extern bool crm_watch_timer(long timeout_ms);

/* What has happened, without waiting; at most n. Idle connections are hung up before it returns. */
extern int crm_watch_events(CrmWatched *watched, int n);

#endif /* CRM_HTTP_WATCH_H */
