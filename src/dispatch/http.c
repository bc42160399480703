/*
 * http.c
 *		HTTP requests through libcurl's multi interface.
 *
 * Four things are not left to libcurl.
 *
 * Waiting: http_watch.c has its sockets and a timer behind one descriptor.
 *
 * Finding a free connection: http_pool.c, as libcurl looks at all it has.
 *
 * Errors: no PostgreSQL error may unwind libcurl's frames, so its callbacks use
 * malloc() and static state only. Its threads, which look up names, must not run
 * PostgreSQL's signal handlers; so all signals are blocked while it works.
 *
 * Sending again: libcurl repeats a request on a new connection when a reused one
 * died without a byte of a reply, which for us would be a second delivery. It
 * asks before it sends, and the second time is told no. Versions that do not ask
 * cannot repeat a body that they read from a callback and cannot seek in, but
 * send it apart from the headers; and a request without a body gets a new
 * connection.
 */
#include "postgres.h"

#include <curl/curl.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <signal.h>

#include "lib/ilist.h"
#include "storage/fd.h"
#include "utils/timestamp.h"

#include "dispatch/http.h"
#include "dispatch/http_error.h"
#include "dispatch/http_pool.h"
#include "dispatch/http_watch.h"

#if LIBCURL_VERSION_NUM < 0x074100
#error "pg_crm needs libcurl 7.65 or newer"
#endif

#define CONNECT_TIMEOUT_MS 10000
#define MAX_IDLE_SECONDS   20L
#define MAX_CONNECTION_AGE 600L
#define FIRST_REPLY_BUFFER 1024
#define SPARE_FDS          16
#define KEPT_MEMORY        (16 * 1024 * 1024)

/* a request, from start until its reply was looked at; then kept for the next */
typedef struct Job
{
	dlist_node node; /* in starting, running, finished or idle */
	CURL *easy;
	struct curl_slist *headers;

	char *body;
	size_t body_length;
	size_t body_read; /* by libcurl, where it is not given the body as a whole */
	int begun;        /* how often it was about to be sent */

	char *reply; /* one byte more than its size */
	size_t reply_length;
	size_t reply_size;
	size_t header_length;
	bool truncated;

	int64 owner;
	int pool; /* while it runs */
	TimestampTz started_at;
	CrmHttpResult result;
	long status;
	bool failed; /* error tells why */
	char error[CURL_ERROR_SIZE];
} Job;

static int connection_limit = 0;
static int reserved_fds = 0;

static dlist_head starting = DLIST_STATIC_INIT(starting);
static dlist_head running = DLIST_STATIC_INIT(running);
static dlist_head finished = DLIST_STATIC_INIT(finished);
static dlist_head idle = DLIST_STATIC_INIT(idle);
static int nrunning = 0; /* starting ones too */
static int nidle = 0;
static Job *shown = NULL; /* whose reply the caller looks at */

static void
block_signals(sigset_t *before)
{
	sigset_t all;

	sigfillset(&all);
	sigdelset(&all, SIGABRT);
	sigdelset(&all, SIGBUS);
	sigdelset(&all, SIGFPE);
	sigdelset(&all, SIGILL);
	sigdelset(&all, SIGSEGV);
	pthread_sigmask(SIG_BLOCK, &all, before);
}

static void
restore_signals(const sigset_t *before)
{
	pthread_sigmask(SIG_SETMASK, before, NULL);
}

/* ----- libcurl's callbacks: no palloc, no ereport, nothing that may jump ----- */

#if LIBCURL_VERSION_NUM >= 0x075000
#define ASKS_BEFORE_SENDING

/* Called before a request is sent, on whatever connection: once is enough. */
static int
before_sending(void *arg, char *remote, char *local, int remote_port, int local_port)
{
	Job *job = arg;

	return job->begun++ == 0 ? CURL_PREREQFUNC_OK : CURL_PREREQFUNC_ABORT;
}
#else
/*
 * The body. Without a seek callback beside it libcurl can not send it again. It
 * does not rewind what it had read and not yet sent when the connection died:
 * then it asks for more than there is, and shall not send the headers alone.
 */
static size_t
on_read(char *to, size_t size, size_t n, void *arg)
{
	Job *job = arg;
	size_t length = Min(size * n, job->body_length - job->body_read);

	if (length == 0)
		return CURL_READFUNC_ABORT;
	memcpy(to, job->body + job->body_read, length);
	job->body_read += length;
	return length;
}
#endif

static size_t
on_header(char *line, size_t size, size_t n, void *arg)
{
	Job *job = arg;

	job->header_length += size * n;
	return job->header_length > CRM_HTTP_MAX_HEADERS ? 0 : size * n;
}

/* Room for a reply of this size, up to the limit. */
static bool
grow_reply(Job *job, size_t needed)
{
	size_t size = Max(job->reply_size, FIRST_REPLY_BUFFER);
	char *reply;

	while (size < needed)
		size *= 2;
	size = Min(size, CRM_HTTP_MAX_REPLY);
	if (size > job->reply_size)
	{
		reply = realloc(job->reply, size + 1);
		if (reply == NULL)
			return false;
		job->reply = reply;
		job->reply_size = size;
	}
	return job->reply_size >= needed;
}

/* What is longer than we keep is not read to its end: the transfer is aborted. */
static size_t
on_write(char *from, size_t size, size_t n, void *arg)
{
	Job *job = arg;
	size_t length = size * n;
	size_t kept = length;

	if (!grow_reply(job, job->reply_length + length))
	{
		job->truncated = true;
		kept = Min(length, job->reply_size - job->reply_length);
	}
	if (kept > 0)
		memcpy(job->reply + job->reply_length, from, kept);
	job->reply_length += kept;
	return job->truncated ? 0 : length;
}

/* ----- what an end means ----- */

static CrmHttpResult
judge(Job *job, CURLcode code)
{
	long sent = 1;

	if (job->status != 0 && code == CURLE_OK)
		return CRM_HTTP_REPLY;
	if (job->status != 0 && job->truncated && code == CURLE_WRITE_ERROR)
		return CRM_HTTP_REPLY;
	if (curl_easy_getinfo(job->easy, CURLINFO_REQUEST_SIZE, &sent) != CURLE_OK)
		sent = 1;
	/* the body had been read, for a connection that was dead already */
	if (sent == 0 && code == CURLE_SEND_FAIL_REWIND)
		return CRM_HTTP_NOT_SENT;
	if (sent == 0 && job->body_read == 0 && crm_http_may_be_unsent(code))
		return CRM_HTTP_NOT_SENT;
	return CRM_HTTP_UNKNOWN;
}

/*
 * The error for the log. libcurl's own words tell more than those of the code,
 * but an address may hold a token: they are taken only where they speak of
 * names, connections and TLS, and not where they might quote the address.
 */
static void
set_error(Job *job, CURLcode code)
{
	bool keep = false;

	switch (code)
	{
		case CURLE_COULDNT_RESOLVE_HOST:
		case CURLE_COULDNT_CONNECT:
		case CURLE_OPERATION_TIMEDOUT:
		case CURLE_SSL_CONNECT_ERROR:
		case CURLE_PEER_FAILED_VERIFICATION:
		case CURLE_SEND_ERROR:
		case CURLE_RECV_ERROR:
		case CURLE_PARTIAL_FILE:
			keep = job->error[0] != '\0' && strpbrk(job->error, "?@&=") == NULL &&
				strstr(job->error, "://") == NULL;
			break;
		default:
			break;
	}
	if (!keep)
		strlcpy(job->error, curl_easy_strerror(code), sizeof(job->error));
	for (char *c = job->error; *c; c++)
		if (*c < ' ' || *c > '~')
			*c = '?';
	job->failed = true;
}

static void
finish(Job *job, CURLcode code)
{
	job->status = 0;
	curl_easy_getinfo(job->easy, CURLINFO_RESPONSE_CODE, &job->status);
	job->result = judge(job, code);
	if (job->result != CRM_HTTP_REPLY)
		set_error(job, code == CURLE_OK ? CURLE_GOT_NOTHING : code);
	crm_pool_remove(job->pool, job->easy);
	dlist_delete(&job->node);
	nrunning--;
	dlist_push_tail(&finished, &job->node);
}

/* ----- jobs ----- */

static void
free_job(Job *job)
{
	if (job->easy)
		curl_easy_cleanup(job->easy);
	curl_slist_free_all(job->headers);
	free(job->body);
	free(job->reply);
	free(job);
}

/* What belongs to one request only. */
static void
clear_job(Job *job)
{
	curl_slist_free_all(job->headers);
	job->headers = NULL;
	free(job->body);
	job->body = NULL;
	job->body_length = job->body_read = 0;
	job->begun = 0;
	job->reply_length = job->header_length = 0;
	job->truncated = job->failed = false;
	job->status = 0;
	job->error[0] = '\0';
}

/* Options that are the same for all requests. */
static bool
set_common_options(Job *job)
{
	CURL *easy = job->easy;
	bool done = true;

#define SET(option, value) (done = done && curl_easy_setopt(easy, option, value) == CURLE_OK)
	SET(CURLOPT_PRIVATE, job);
	SET(CURLOPT_ERRORBUFFER, job->error);
#ifdef ASKS_BEFORE_SENDING
	SET(CURLOPT_PREREQFUNCTION, before_sending);
	SET(CURLOPT_PREREQDATA, job);
#else
	SET(CURLOPT_READFUNCTION, on_read);
	SET(CURLOPT_READDATA, job);
#endif
	SET(CURLOPT_WRITEFUNCTION, on_write);
	SET(CURLOPT_WRITEDATA, job);
	SET(CURLOPT_HEADERFUNCTION, on_header);
	SET(CURLOPT_HEADERDATA, job);
	SET(CURLOPT_NOSIGNAL, 1L);
	SET(CURLOPT_FOLLOWLOCATION, 0L);
	SET(CURLOPT_HTTP_VERSION, (long) CURL_HTTP_VERSION_1_1);
	SET(CURLOPT_HTTP09_ALLOWED, 0L);
	SET(CURLOPT_USERAGENT, "pg_crm/" PG_CRM_VERSION);
	/* http_proxy in the server's environment was not meant for us */
	SET(CURLOPT_PROXY, "");
	/* the longer a connection idles, the likelier the peer has left it */
	SET(CURLOPT_MAXAGE_CONN, MAX_IDLE_SECONDS);
#if LIBCURL_VERSION_NUM >= 0x075000
	/* follow a moved name */
	SET(CURLOPT_MAXLIFETIME_CONN, MAX_CONNECTION_AGE);
#endif
#if LIBCURL_VERSION_NUM >= 0x075500
	SET(CURLOPT_PROTOCOLS_STR, "http,https");
#else
	SET(CURLOPT_PROTOCOLS, (long) (CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
#if LIBCURL_VERSION_NUM >= 0x075700
	/* else a timeout would wait for the thread that looks up the name */
	SET(CURLOPT_QUICK_EXIT, 1L);
#endif
#undef SET
	return done;
}

static Job *
new_job(void)
{
	Job *job;

	if (!dlist_is_empty(&idle))
	{
		nidle--;
		return dlist_container(Job, node, dlist_pop_head_node(&idle));
	}
	job = calloc(1, sizeof(Job));
	if (job && (job->easy = curl_easy_init()) != NULL && set_common_options(job))
		return job;
	if (job)
		free_job(job);
	ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory for an HTTP request")));
}

static bool
add_header(Job *job, const char *header)
{
	struct curl_slist *longer = curl_slist_append(job->headers, header);

	if (longer == NULL)
		return false;
	job->headers = longer;
	return true;
}

static CURLcode
prepare(Job *job, const CrmHttpRequest *request)
{
	CURL *easy = job->easy;
	long timeout = Max(request->timeout_ms, 1);
	bool has_body = request->body != NULL && request->body_length > 0;
	CURLcode code = CURLE_OK;

	if (has_body)
	{
		job->body = malloc(request->body_length);
		if (job->body == NULL)
			return CURLE_OUT_OF_MEMORY;
		memcpy(job->body, request->body, request->body_length);
		job->body_length = request->body_length;
	}
	/* without this, libcurl asks before it sends a longer body and then waits */
	if (!add_header(job, "Expect:"))
		return CURLE_OUT_OF_MEMORY;
	for (int i = 0; i < request->nheaders; i++)
	{
		/* no value may begin a header of its own */
		if (strpbrk(request->headers[i], "\r\n") != NULL)
			return CURLE_BAD_FUNCTION_ARGUMENT;
		if (!add_header(job, request->headers[i]))
			return CURLE_OUT_OF_MEMORY;
	}

#define SET(option, value) (code = code ? code : curl_easy_setopt(easy, option, value))
	if (request->body)
	{
		SET(CURLOPT_POST, 1L);
		SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t) request->body_length);
#ifdef ASKS_BEFORE_SENDING
		SET(CURLOPT_POSTFIELDS, job->body == NULL ? "" : job->body);
#endif
	}
	else
		SET(CURLOPT_HTTPGET, 1L);
	/* what has no body could be sent again, were its connection a used one */
	SET(CURLOPT_FRESH_CONNECT, has_body ? 0L : 1L);
	SET(CURLOPT_URL, request->url);
	SET(CURLOPT_HTTPHEADER, job->headers);
	SET(CURLOPT_TIMEOUT_MS, timeout);
	SET(CURLOPT_CONNECTTIMEOUT_MS, Min(timeout, CONNECT_TIMEOUT_MS));
#undef SET
	return code;
}

/* ----- the interface ----- */

void
crm_http_init(int max_connections)
{
	if (connection_limit > 0)
		return;
	connection_limit = Max(max_connections, 1);
#ifdef __GLIBC__
	/* a turn takes and gives back some MB: not from and to the kernel each time */
	mallopt(M_TRIM_THRESHOLD, KEPT_MEMORY);
	mallopt(M_MMAP_THRESHOLD, KEPT_MEMORY);
#endif
	/* a peer that left shows as an error of the write, not as a signal */
	pqsignal(SIGPIPE, SIG_IGN);
	if (curl_global_init(CURL_GLOBAL_ALL) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_EXTERNAL_ROUTINE_EXCEPTION), errmsg("could not start libcurl")));
	if (!crm_watch_open() || !crm_pools_open(connection_limit))
	{
		int saved = errno;

		crm_http_end();
		errno = saved;
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not make an epoll or timer descriptor: %m")));
	}
	/*
	 * So that PostgreSQL keeps fewer files open; as many as it grants, less a
	 * few that wait event sets of the caller want.
	 */
	while (reserved_fds < connection_limit + 2 && AcquireExternalFD())
		reserved_fds++;
	for (int i = 0; i < SPARE_FDS && reserved_fds > 0; i++, reserved_fds--)
		ReleaseExternalFD();
}

void
crm_http_start(const CrmHttpRequest *request)
{
	Job *job = new_job();
	CURLcode code;

	job->owner = request->owner;
	job->started_at = GetCurrentTimestamp();
	code = prepare(job, request);
	if (code == CURLE_OK)
	{
		dlist_push_tail(&starting, &job->node);
		nrunning++;
	}
	else
	{
		job->result = CRM_HTTP_NOT_SENT;
		set_error(job, code);
		dlist_push_tail(&finished, &job->node);
	}
	crm_pools_step_soon();
}

int
crm_http_descriptor(void)
{
	return crm_watch_descriptor();
}

/* Multi handles of which one failed are replaced; their transfers end as they are. */
static void
start_anew(void)
{
	while (!dlist_is_empty(&running))
		finish(dlist_head_element(Job, node, &running), CURLE_ABORTED_BY_CALLBACK);
	/* handles know the connections of their multi handle until it is gone */
	crm_pools_reset();
}

static void
add_started(void)
{
	while (!dlist_is_empty(&starting))
	{
		Job *job = dlist_container(Job, node, dlist_pop_head_node(&starting));

		job->pool = crm_pool_add(job->easy);
		if (job->pool >= 0)
		{
			dlist_push_tail(&running, &job->node);
			continue;
		}
		nrunning--;
		job->result = CRM_HTTP_NOT_SENT;
		set_error(job, CURLE_OUT_OF_MEMORY);
		dlist_push_tail(&finished, &job->node);
	}
}

void
crm_http_step(void)
{
	sigset_t before;
	bool good;
	CURLMsg *message;

	if (connection_limit == 0)
		return;
	block_signals(&before);
	add_started();
	good = crm_pools_step();
	while ((message = crm_pools_message()) != NULL)
	{
		Job *job;

		/* the message is gone with the handle */
		CURLcode code = message->data.result;

		if (message->msg == CURLMSG_DONE &&
			curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **) &job) == CURLE_OK)
			finish(job, code);
	}
	good = crm_pools_set_timer() && good;
	restore_signals(&before);
	if (!good)
		start_anew();
}

bool
crm_http_next(CrmHttpReply *reply)
{
	if (shown)
	{
		Job *job = shown;

		shown = NULL;
		clear_job(job);
		if (nidle < connection_limit)
		{
			dlist_push_head(&idle, &job->node);
			nidle++;
		}
		else
			free_job(job);
	}
	if (dlist_is_empty(&finished))
		return false;
	shown = dlist_container(Job, node, dlist_pop_head_node(&finished));
	if (shown->reply)
		shown->reply[shown->reply_length] = '\0';
	reply->owner = shown->owner;
	reply->result = shown->result;
	reply->status = shown->status;
	reply->body = shown->reply ? shown->reply : "";
	reply->body_length = shown->reply_length;
	reply->truncated = shown->truncated;
	reply->error = shown->failed ? shown->error : NULL;
	reply->started_at = shown->started_at;
	return true;
}

bool
crm_http_finished(void)
{
	return !dlist_is_empty(&finished);
}

int
crm_http_running(void)
{
	return nrunning;
}

static void
free_jobs(dlist_head *list)
{
	while (!dlist_is_empty(list))
		free_job(dlist_container(Job, node, dlist_pop_head_node(list)));
}

/*
 * curl_global_cleanup() is left out: the process ends, and a thread may still
 * look up a name.
 */
void
crm_http_end(void)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &running)
	{
		Job *job = dlist_container(Job, node, iter.cur);

		crm_pool_remove(job->pool, job->easy);
	}
	free_jobs(&starting);
	free_jobs(&running);
	free_jobs(&finished);
	free_jobs(&idle);
	if (shown)
		free_job(shown);
	shown = NULL;
	nrunning = nidle = connection_limit = 0;
	crm_pools_close();
	crm_watch_close();
	for (; reserved_fds > 0; reserved_fds--)
		ReleaseExternalFD();
}
