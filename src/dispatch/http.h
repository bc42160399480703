/*
 * http.h
 *		HTTP requests, many at once, none of them ever sent twice. Knows neither
 *		tables nor what is sent.
 *
 * One process uses it: crm_http_init(), then crm_http_start() for each request,
 * and whenever crm_http_descriptor() is readable crm_http_step() and
 * crm_http_next() until it returns false. Nothing here waits.
 */
#ifndef CRM_HTTP_H
#define CRM_HTTP_H

#include "postgres.h"

#define CRM_HTTP_MAX_REPLY   (64 * 1024)  /* bytes kept of a reply */
#define CRM_HTTP_MAX_HEADERS (256 * 1024) /* bytes of headers read of it */

typedef enum CrmHttpResult
{
	CRM_HTTP_REPLY,    /* a reply came, whole but for what `truncated` says */
	CRM_HTTP_NOT_SENT, /* not one byte of the request left */
	CRM_HTTP_UNKNOWN   /* bytes left and no whole reply came */
} CrmHttpResult;

typedef struct CrmHttpRequest
{
	const char *url;
	const char *body; /* NULL: GET */
	size_t body_length;
	const char *const *headers; /* "Name: value" */
	int nheaders;
	int timeout_ms; /* of all of it, from crm_http_start() on */
	int64 owner;    /* handed back */
} CrmHttpRequest;

typedef struct CrmHttpReply
{
	int64 owner;
	CrmHttpResult result;
	long status;      /* 0: none came; may be there where the result is unknown */
	const char *body; /* never NULL, ends with a zero byte that is not counted */
	size_t body_length;
	bool truncated;    /* it was longer; the rest was not read */
	const char *error; /* ASCII, without the address; NULL where a reply came */
	int64 started_at;  /* TimestampTz of crm_http_start() */
} CrmHttpReply;

/*
 * At most this many connections, which are also what should be started at once:
 * what is started beyond waits inside, and its timeout runs. Once per process,
 * never in the postmaster.
 */
extern void crm_http_init(int max_connections);

/* Copies everything. What cannot be started is among the replies. */
extern void crm_http_start(const CrmHttpRequest *request);

/* Readable when crm_http_step() has work; the same one until crm_http_end(). */
extern int crm_http_descriptor(void);
extern void crm_http_step(void);

/* The next one that is finished; its pointers are good until the next call. */
extern bool crm_http_next(CrmHttpReply *reply);

/* Whether crm_http_next() has one, of which the descriptor need not tell again. */
extern bool crm_http_finished(void);

/* Started and not finished. */
extern int crm_http_running(void);

/* Aborts what runs, without replies. For before_shmem_exit. */
extern void crm_http_end(void);

#endif /* CRM_HTTP_H */
