/*
 * http_watch.c
 *		The sockets of libcurl and a timer, as members of one private epoll
 *		descriptor, which the caller's WaitEventSet watches beside its latch.
 *
 * A socket that libcurl no longer watches is closed, or is that of a connection
 * which waits to be used again. We go on watching it: see hang_up().
 */
#include "postgres.h"

#ifndef __linux__
#error "pg_crm sends through epoll and timerfd, which only Linux has"
#endif

#include <curl/curl.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "dispatch/http_watch.h"

#define MAX_EVENTS 64

/* by its number; one that was closed is what the kernel no longer knows */
typedef struct Watch
{
	int pool;
	uint32 events;
	bool tcp;
	bool idle; /* of no request */
} Watch;

static int epoll_fd = -1;
static int timer_fd = -1;
static bool fired_at_once = false; /* the timer is set so */
static Watch *watches = NULL;
static int nwatches = 0;

bool
crm_watch_open(void)
{
	struct epoll_event event = { .events = EPOLLIN };

	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	event.data.fd = timer_fd;
	return epoll_fd >= 0 && timer_fd >= 0 &&
		epoll_ctl(epoll_fd, EPOLL_CTL_ADD, timer_fd, &event) == 0;
}

void
crm_watch_close(void)
{
	if (timer_fd >= 0)
		close(timer_fd);
	if (epoll_fd >= 0)
		close(epoll_fd);
	timer_fd = epoll_fd = -1;
	fired_at_once = false;
	free(watches);
	watches = NULL;
	nwatches = 0;
}

int
crm_watch_descriptor(void)
{
	return epoll_fd;
}

static bool
is_tcp(int fd)
{
	int protocol = 0;
	socklen_t length = sizeof(protocol);

	return getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &length) == 0 &&
		protocol == IPPROTO_TCP;
}

static Watch *
watch_of(int fd)
{
	if (fd >= nwatches)
	{
		int n = Max(fd + 1, 2 * nwatches);
		Watch *more = realloc(watches, n * sizeof(Watch));

		if (more == NULL)
			return NULL;
		memset(more + nwatches, 0, (n - nwatches) * sizeof(Watch));
		watches = more;
		nwatches = n;
	}
	return &watches[fd];
}

/* Of kept connections the kernel knows already, so that is tried first. */
static bool
tell_kernel(int fd, Watch *watch)
{
	struct epoll_event event = { .events = watch->events, .data.fd = fd };

	if (epoll_ctl(epoll_fd, EPOLL_CTL_MOD, fd, &event) == 0)
		return true;
	if (errno != ENOENT || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0)
		return false;
	watch->tcp = is_tcp(fd);
	return true;
}

/* The socket may be closed already; then the kernel has forgotten it. */
static void
leave_idle(int fd, Watch *watch)
{
	struct epoll_event event = { .events = EPOLLIN, .data.fd = fd };

	watch->idle = true;
	if (watch->tcp && watch->events == EPOLLIN)
		return;
	watch->events = EPOLLIN;
	if (!watch->tcp || epoll_ctl(epoll_fd, EPOLL_CTL_MOD, fd, &event) != 0)
		epoll_ctl(epoll_fd, EPOLL_CTL_DEL, fd, &event);
}

bool
crm_watch_socket(int fd, int what, int pool)
{
	Watch *watch = watch_of(fd);

	if (watch == NULL)
		return false;
	if (what == CURL_POLL_REMOVE)
	{
		leave_idle(fd, watch);
		return true;
	}
	watch->pool = pool;
	watch->idle = false;
	watch->events = (what & CURL_POLL_IN ? EPOLLIN : 0) | (what & CURL_POLL_OUT ? EPOLLOUT : 0);
	return tell_kernel(fd, watch);
}

bool
crm_watch_timer(long timeout_ms)
{
	struct itimerspec when = { 0 };

	if (timeout_ms == 0 && fired_at_once)
		return true;
	fired_at_once = timeout_ms == 0;
	if (timeout_ms > 0)
	{
		when.it_value.tv_sec = timeout_ms / 1000;
		when.it_value.tv_nsec = timeout_ms % 1000 * 1000000;
	}
	else if (timeout_ms == 0)
		when.it_value.tv_nsec = 1; /* 0 would be none */
	return timerfd_settime(timer_fd, 0, &when, NULL) == 0;
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

int
crm_watch_events(CrmWatched *watched, int n)
{
	struct epoll_event events[MAX_EVENTS];

	n = epoll_wait(epoll_fd, events, Min(n, MAX_EVENTS), 0);
	for (int i = 0; i < n; i++)
	{
		int fd = events[i].data.fd;
		uint64 times;

		watched[i].fd = fd;
		watched[i].event = CRM_WATCH_NOTHING;
		if (fd == timer_fd)
		{
			if (read(timer_fd, &times, sizeof(times)) > 0)
				watched[i].event = CRM_WATCH_TIMER;
			fired_at_once = false;
		}
		/* now, while nothing has taken such a connection or its number */
		else if (watches[fd].idle)
			hang_up(fd);
		else
		{
			watched[i].event = CRM_WATCH_SOCKET;
			watched[i].pool = watches[fd].pool;
			watched[i].what = (events[i].events & EPOLLIN ? CURL_CSELECT_IN : 0) |
				(events[i].events & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
				(events[i].events & (EPOLLERR | EPOLLHUP) ? CURL_CSELECT_ERR : 0);
		}
	}
	return n;
}
