/*
 * http.c
 *		HTTP requests through libcurl's multi interface.
 *
 * Three things are not left to libcurl.
 *
 * Waiting: its sockets and a timer are members of one private epoll descriptor,
 * which the caller's WaitEventSet watches beside its latch.
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

#ifndef __linux__
#error "pg_crm sends through epoll and timerfd, which only Linux has"
#endif

#include <curl/curl.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <netinet/in.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "lib/ilist.h"
#include "storage/fd.h"
#include "utils/timestamp.h"

#include "dispatch/http.h"
#include "dispatch/http_error.h"

#if LIBCURL_VERSION_NUM < 0x074100
#error "pg_crm needs libcurl 7.65 or newer"
#endif

#define CONNECT_TIMEOUT_MS 10000
#define MAX_IDLE_SECONDS   20L
#define MAX_CONNECTION_AGE 600L
#define FIRST_REPLY_BUFFER 1024
#define EVENTS_A_TURN      64
#define IDLE               (UINT64CONST(1) << 32) /* of an epoll event, beside the socket */
#define SPARE_FDS          16
#define KEPT_MEMORY        (16 * 1024 * 1024)
#define TURNS_A_STEP       8

/* a request, from start until its reply was looked at; then kept for the next */
typedef struct Job
{
	dlist_node node; /* in running, finished or idle */
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
	TimestampTz started_at;
	CrmHttpResult result;
	long status;
	bool failed; /* error tells why */
	char error[CURL_ERROR_SIZE];
} Job;

static CURLM *multi = NULL;
static int epoll_fd = -1;
static int timer_fd = -1;
static int connection_limit = 0;
static int reserved_fds = 0;
static bool broken = false; /* a callback could not do its work */
static bool stepping = false;
static bool timeout_changed = false; /* in this step */
static long timeout_wanted = -1;
static bool due_at_once = false; /* the timer is set so */

static dlist_head running = DLIST_STATIC_INIT(running);
static dlist_head finished = DLIST_STATIC_INIT(finished);
static dlist_head idle = DLIST_STATIC_INIT(idle);
static int nrunning = 0;
static int nidle = 0;
static Job *shown = NULL; /* whose reply the caller looks at */

static void start_multi(void);

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

static bool
is_tcp(int fd)
{
	int protocol = 0;
	socklen_t length = sizeof(protocol);

	return getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &length) == 0 &&
		protocol == IPPROTO_TCP;
}

/*
 * A socket that libcurl no longer watches is closed, or is that of a connection
 * which waits to be used again. We go on watching it: see hang_up().
 */
static int
on_socket(CURL *easy, curl_socket_t fd, int what, void *context, void *of_socket)
{
	struct epoll_event event = { .data.u64 = fd };

	if (what == CURL_POLL_REMOVE)
	{
		event.data.u64 |= IDLE;
		event.events = EPOLLIN | EPOLLRDHUP;
		if (!is_tcp(fd) || epoll_ctl(epoll_fd, EPOLL_CTL_MOD, fd, &event) != 0)
			epoll_ctl(epoll_fd, EPOLL_CTL_DEL, fd, &event);
		return 0;
	}
	if (what & CURL_POLL_IN)
		event.events |= EPOLLIN;
	if (what & CURL_POLL_OUT)
		event.events |= EPOLLOUT;
	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0)
		return 0;
	if (errno == EEXIST && epoll_ctl(epoll_fd, EPOLL_CTL_MOD, fd, &event) == 0)
		return 0;
	broken = true;
	return -1;
}

/* -1: none; 0: at once, which a timer takes for none */
static bool
set_timer(long timeout_ms)
{
	struct itimerspec when = { 0 };

	if (timeout_ms > 0)
	{
		when.it_value.tv_sec = timeout_ms / 1000;
		when.it_value.tv_nsec = timeout_ms % 1000 * 1000000;
	}
	else if (timeout_ms == 0)
		when.it_value.tv_nsec = 1;
	return timerfd_settime(timer_fd, 0, &when, NULL) == 0;
}

/* libcurl changes its mind with every request; only the last word of a step goes to the kernel */
static int
on_timer(CURLM *of, long timeout_ms, void *context)
{
	if (stepping)
	{
		timeout_wanted = timeout_ms;
		timeout_changed = true;
		return 0;
	}
	if (timeout_ms == 0 && due_at_once)
		return 0;
	due_at_once = timeout_ms == 0;
	if (set_timer(timeout_ms))
		return 0;
	broken = true;
	return -1;
}

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
	curl_multi_remove_handle(multi, job->easy);
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

static void
start_multi(void)
{
	bool done = true;
	struct epoll_event event = { .events = EPOLLIN };

	broken = false;
	multi = curl_multi_init();
#define SET(option, value) \
	(done = done && multi && curl_multi_setopt(multi, option, value) == CURLM_OK)
	SET(CURLMOPT_SOCKETFUNCTION, on_socket);
	SET(CURLMOPT_TIMERFUNCTION, on_timer);
	SET(CURLMOPT_MAX_TOTAL_CONNECTIONS, (long) connection_limit);
	SET(CURLMOPT_MAX_HOST_CONNECTIONS, (long) connection_limit);
	SET(CURLMOPT_MAXCONNECTS, (long) connection_limit);
#undef SET
	if (!done)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("could not start libcurl")));
	event.data.u64 = timer_fd;
	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, timer_fd, &event) != 0 && errno != EEXIST)
		ereport(ERROR, (errcode_for_file_access(), errmsg("could not watch a timer by epoll: %m")));
}

void
crm_http_init(int max_connections)
{
	if (multi)
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
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (epoll_fd < 0 || timer_fd < 0)
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
	start_multi();
}

void
crm_http_start(const CrmHttpRequest *request)
{
	Job *job = new_job();
	sigset_t before;
	CURLcode code;

	job->owner = request->owner;
	job->started_at = GetCurrentTimestamp();
	code = prepare(job, request);
	if (code == CURLE_OK)
	{
		block_signals(&before);
		if (curl_multi_add_handle(multi, job->easy) != CURLM_OK)
			code = CURLE_OUT_OF_MEMORY;
		restore_signals(&before);
	}
	if (code == CURLE_OK)
	{
		dlist_push_tail(&running, &job->node);
		nrunning++;
		return;
	}
	job->result = CRM_HTTP_NOT_SENT;
	set_error(job, code);
	dlist_push_tail(&finished, &job->node);
	/* make the descriptor readable */
	on_timer(multi, 0, NULL);
}

int
crm_http_descriptor(void)
{
	return epoll_fd;
}

/* A multi handle that failed is replaced; its transfers end as they are. */
static void
start_anew(void)
{
	while (!dlist_is_empty(&running))
		finish(dlist_head_element(Job, node, &running), CURLE_ABORTED_BY_CALLBACK);
	/* handles know the connections of their multi handle until it is gone */
	curl_multi_cleanup(multi);
	multi = NULL;
	start_multi();
}

/*
 * Something came on a connection that nobody uses: the peer has left it, or sends
 * an answer that nobody asked for, which must not be taken for that of the next
 * request. Emptied and shut down, libcurl finds it dead.
 */
static void
hang_up(int fd)
{
	struct epoll_event unused = { 0 };
	char scrap[4096];

	for (int i = 0; i < 16 && recv(fd, scrap, sizeof(scrap), MSG_DONTWAIT) > 0; i++)
		;
	shutdown(fd, SHUT_RDWR);
	epoll_ctl(epoll_fd, EPOLL_CTL_DEL, fd, &unused);
}

static CURLMcode
act_on(const struct epoll_event *event)
{
	int fd = (int) event->data.u64;
	int what = 0;
	int unused;
	uint64 times;

	if (fd == timer_fd)
	{
		if (read(timer_fd, &times, sizeof(times)) <= 0)
			return CURLM_OK;
		due_at_once = false;
		return curl_multi_socket_action(multi, CURL_SOCKET_TIMEOUT, 0, &unused);
	}
	if (event->events & EPOLLIN)
		what |= CURL_CSELECT_IN;
	if (event->events & EPOLLOUT)
		what |= CURL_CSELECT_OUT;
	if (event->events & (EPOLLERR | EPOLLHUP))
		what |= CURL_CSELECT_ERR;
	return curl_multi_socket_action(multi, fd, what, &unused);
}

void
crm_http_step(void)
{
	struct epoll_event events[EVENTS_A_TURN];
	sigset_t before;
	int unused;
	int n = EVENTS_A_TURN;
	CURLMcode failed = CURLM_OK;
	CURLMsg *message;

	if (multi == NULL)
		return;
	block_signals(&before);
	stepping = true;
	timeout_changed = false;
	for (int turn = 0; turn < TURNS_A_STEP && n == EVENTS_A_TURN && !failed; turn++)
	{
		n = epoll_wait(epoll_fd, events, EVENTS_A_TURN, 0);
		/* first, while nothing has taken such a connection or its number */
		for (int i = 0; i < n; i++)
			if (events[i].data.u64 & IDLE)
				hang_up((int) (events[i].data.u64 & ~IDLE));
		for (int i = 0; i < n && !failed; i++)
			if (!(events[i].data.u64 & IDLE))
				failed = act_on(&events[i]);
	}
	while ((message = curl_multi_info_read(multi, &unused)) != NULL)
	{
		Job *job;

		/* the message is gone with the handle */
		CURLcode code = message->data.result;

		if (message->msg == CURLMSG_DONE &&
			curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **) &job) == CURLE_OK)
			finish(job, code);
	}
	stepping = false;
	if (timeout_changed)
	{
		due_at_once = timeout_wanted == 0;
		if (!set_timer(timeout_wanted))
			broken = true;
	}
	restore_signals(&before);
	if (broken || failed)
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
		if (multi && nidle < connection_limit)
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

	if (multi)
		dlist_foreach_modify(iter, &running)
			curl_multi_remove_handle(multi, dlist_container(Job, node, iter.cur)->easy);
	free_jobs(&running);
	free_jobs(&finished);
	free_jobs(&idle);
	if (shown)
		free_job(shown);
	shown = NULL;
	nrunning = nidle = 0;
	if (multi)
		curl_multi_cleanup(multi);
	multi = NULL;
	if (timer_fd >= 0)
		close(timer_fd);
	if (epoll_fd >= 0)
		close(epoll_fd);
	timer_fd = epoll_fd = -1;
	for (; reserved_fds > 0; reserved_fds--)
		ReleaseExternalFD();
}
