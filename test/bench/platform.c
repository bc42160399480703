/*
 * platform.c
 *		A platform for the bench that takes every message: it holds many
 *		connections, answers each request after a delay, and may note when the
 *		first byte of it arrived and for whom it was.
 *
 *		platform PORT DELAY_MS [LOG]	prints "ready" once it listens; ends by SIGTERM
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define MAX_CONNECTIONS 4096
#define MAX_REQUEST     16384
#define MAX_EVENTS      256

static const char reply[] = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 39\r\n\r\n"
							"{\"errcode\":0,\"errmsg\":\"ok\",\"msgid\":1}\r\n";

typedef struct Connection
{
	int length;
	int64_t began; /* when the first byte of what is being read came */
	char buffer[MAX_REQUEST + 1];
} Connection;

typedef struct Answer
{
	int64_t due;
	int fd;
} Answer;

static Connection *connections[MAX_CONNECTIONS];
static Answer answers[MAX_CONNECTIONS]; /* a ring, in the order of their time; one a connection */
static unsigned first_answer, end_answer;
static int64_t delay;
static int timer_fd;
static FILE *log_file;
static volatile sig_atomic_t ended;

static void
end(int signal)
{
	ended = 1;
}

static void
fail(const char *what)
{
	perror(what);
	exit(1);
}

static int64_t
now(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (int64_t) t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void
set_timer(void)
{
	struct itimerspec when = { { 0, 0 }, { 0, 0 } };

	if (first_answer != end_answer)
	{
		int64_t due = answers[first_answer % MAX_CONNECTIONS].due;

		when.it_value.tv_sec = due / 1000000;
		when.it_value.tv_nsec = due % 1000000 * 1000 + 1;
	}
	timerfd_settime(timer_fd, TFD_TIMER_ABSTIME, &when, NULL);
}

static void
answer(int fd)
{
	/* so short that it fits into the socket's buffer; who has left does not read it */
	if (write(fd, reply, sizeof(reply) - 1) < 0 && errno != EPIPE && errno != ECONNRESET &&
		errno != EBADF)
		fail("write");
}

static void
answer_due(void)
{
	uint64_t times;

	if (read(timer_fd, &times, sizeof(times)) < 0 && errno != EAGAIN)
		fail("timer");
	while (first_answer != end_answer &&
		   answers[first_answer % MAX_CONNECTIONS].due <= now(CLOCK_MONOTONIC))
		answer(answers[first_answer++ % MAX_CONNECTIONS].fd);
	set_timer();
}

static void
note(const Connection *connection)
{
	const char *to = strstr(connection->buffer, "\"touser\":\"");
	const char *close = to == NULL ? NULL : strchr(to + 10, '"');

	if (close != NULL)
		fprintf(log_file, "%.*s\t%lld\n", (int) (close - to - 10), to + 10,
				(long long) connection->began);
}

/* Takes whole requests out of what was read. */
static void
take_requests(int fd, Connection *connection)
{
	for (;;)
	{
		char *header_end;
		char *length;
		int total;

		connection->buffer[connection->length] = '\0';
		header_end = strstr(connection->buffer, "\r\n\r\n");
		if (header_end == NULL)
			return;
		length = strcasestr(connection->buffer, "\r\ncontent-length:");
		total = header_end + 4 - connection->buffer +
			(length != NULL && length < header_end ? atoi(length + 17) : 0);
		if (connection->length < total)
			return;
		if (log_file != NULL)
			note(connection);
		if (delay == 0)
			answer(fd);
		else
		{
			Answer *waiting = &answers[end_answer++ % MAX_CONNECTIONS];

			waiting->due = now(CLOCK_MONOTONIC) + delay;
			waiting->fd = fd;
			if (end_answer - first_answer == 1)
				set_timer();
		}
		memmove(connection->buffer, connection->buffer + total, connection->length - total);
		connection->length -= total;
	}
}

static void
receive(int fd, int64_t at)
{
	Connection *connection = connections[fd];
	ssize_t n;

	n = read(fd, connection->buffer + connection->length, MAX_REQUEST - connection->length);
	if (n <= 0)
	{
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		close(fd);
		return;
	}
	if (connection->length == 0)
		connection->began = at;
	connection->length += n;
	take_requests(fd, connection);
}

static void
let_in(int listener, int epoll_fd)
{
	int fd;

	while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0)
	{
		struct epoll_event event = { .events = EPOLLIN, .data.fd = fd };
		int on = 1;

		if (fd >= MAX_CONNECTIONS)
		{
			fprintf(stderr, "too many connections\n");
			exit(1);
		}
		if (connections[fd] == NULL && (connections[fd] = malloc(sizeof(Connection))) == NULL)
			fail("malloc");
		connections[fd]->length = 0;
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
		if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0)
			fail("epoll_ctl");
	}
}

int
main(int argc, char **argv)
{
	struct sockaddr_in address = { .sin_family = AF_INET };
	struct epoll_event events[MAX_EVENTS];
	struct epoll_event event = { .events = EPOLLIN };
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	int on = 1;

	if (argc < 3)
	{
		fprintf(stderr, "usage: platform PORT DELAY_MS [LOG]\n");
		return 2;
	}
	delay = atoi(argv[2]) * 1000;
	if (argc > 3 && (log_file = fopen(argv[3], "w")) == NULL)
		fail(argv[3]);
	signal(SIGPIPE, SIG_IGN);
	sigaction(SIGTERM, &(struct sigaction){ .sa_handler = end }, NULL);
	timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	address.sin_port = htons(atoi(argv[1]));
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(listener, (struct sockaddr *) &address, sizeof(address)) != 0 ||
		listen(listener, 4096) != 0)
		fail("listen");
	event.data.fd = listener;
	epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &event);
	event.data.fd = timer_fd;
	epoll_ctl(epoll_fd, EPOLL_CTL_ADD, timer_fd, &event);
	printf("ready\n");
	fflush(stdout);
	while (!ended)
	{
		int n = epoll_wait(epoll_fd, events, MAX_EVENTS, -1);
		int64_t at = log_file == NULL ? 0 : now(CLOCK_REALTIME);

		for (int i = 0; i < n; i++)
		{
			if (events[i].data.fd == listener)
				let_in(listener, epoll_fd);
			else if (events[i].data.fd == timer_fd)
				answer_due();
			else
				receive(events[i].data.fd, at);
		}
	}
	if (log_file != NULL && fclose(log_file) != 0)
		fail("log");
	return 0;
}
