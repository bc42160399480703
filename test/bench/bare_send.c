/*
 * bare_send.c
 *		The rival of the sender: libcurl's multi interface over epoll, with the
 *		same requests over as many connections, and nothing stored.
 *
 *		bare_send URL MESSAGES CONNECTIONS
 *		prints the seconds it took, and those of processor time
 */
#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>

#define MAX_EVENTS 256

typedef struct Transfer
{
	CURL *easy;
	char body[512];
	char reply[1024];
	size_t reply_length;
} Transfer;

static CURLM *multi;
static struct curl_slist *headers;
static const char *url;
static int epoll_fd;
static long timeout_ms = -1;
static struct timespec timeout_from;
static int started, finished, wanted;

static void
check(int good, const char *what)
{
	if (good)
		return;
	fprintf(stderr, "bare_send: %s\n", what);
	exit(1);
}

static int
on_socket(CURL *easy, curl_socket_t fd, int what, void *context, void *of_socket)
{
	struct epoll_event event = { 0 };

	event.data.fd = fd;
	event.events = (what & CURL_POLL_IN ? EPOLLIN : 0) | (what & CURL_POLL_OUT ? EPOLLOUT : 0);
	if (what == CURL_POLL_REMOVE)
		epoll_ctl(epoll_fd, EPOLL_CTL_DEL, fd, &event);
	else if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0)
		epoll_ctl(epoll_fd, EPOLL_CTL_MOD, fd, &event);
	return 0;
}

static int
on_timer(CURLM *of, long ms, void *context)
{
	timeout_ms = ms;
	clock_gettime(CLOCK_MONOTONIC, &timeout_from);
	return 0;
}

static size_t
on_write(char *from, size_t size, size_t n, void *arg)
{
	Transfer *transfer = arg;

	if (transfer->reply_length + size * n >= sizeof(transfer->reply))
		return 0;
	memcpy(transfer->reply + transfer->reply_length, from, size * n);
	transfer->reply_length += size * n;
	return size * n;
}

static void
start(Transfer *transfer)
{
	if (started == wanted)
		return;
	started++;
	snprintf(transfer->body, sizeof(transfer->body),
			 "{\"touser\":\"o_%d\",\"client_msg_id\":\"c1234abcd-%d\",\"template_id\":\"T1\","
			 "\"data\":{\"thing1\":{\"value\":\"Scarf %d\"}}}",
			 started, started, started);
	transfer->reply_length = 0;
	curl_easy_setopt(transfer->easy, CURLOPT_URL, url);
	curl_easy_setopt(transfer->easy, CURLOPT_POSTFIELDSIZE, (long) strlen(transfer->body));
	check(curl_multi_add_handle(multi, transfer->easy) == CURLM_OK, "add");
}

static void
take_finished(void)
{
	CURLMsg *message;
	int unused;

	while ((message = curl_multi_info_read(multi, &unused)) != NULL)
	{
		Transfer *transfer;

		curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **) &transfer);
		check(message->data.result == CURLE_OK, curl_easy_strerror(message->data.result));
		transfer->reply[transfer->reply_length] = '\0';
		check(strstr(transfer->reply, "\"errcode\":0") != NULL, transfer->reply);
		curl_multi_remove_handle(multi, transfer->easy);
		finished++;
		start(transfer);
	}
}

int
main(int argc, char **argv)
{
	struct epoll_event events[MAX_EVENTS];
	struct timespec begun;
	struct timespec now;
	struct rusage used;
	int connections;
	int unused;

	check(argc == 4, "usage: bare_send URL MESSAGES CONNECTIONS");
	url = argv[1];
	wanted = atoi(argv[2]);
	connections = atoi(argv[3]);
	curl_global_init(CURL_GLOBAL_ALL);
	multi = curl_multi_init();
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	headers = curl_slist_append(headers, "Expect:");
	headers = curl_slist_append(headers, "Content-Type: application/json");
	curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, on_socket);
	curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, on_timer);
	curl_multi_setopt(multi, CURLMOPT_MAX_TOTAL_CONNECTIONS, (long) connections);
	curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, (long) connections);
	clock_gettime(CLOCK_MONOTONIC, &begun);
	for (int i = 0; i < connections && i < wanted; i++)
	{
		Transfer *transfer = calloc(1, sizeof(Transfer));

		transfer->easy = curl_easy_init();
		curl_easy_setopt(transfer->easy, CURLOPT_PRIVATE, transfer);
		curl_easy_setopt(transfer->easy, CURLOPT_HTTPHEADER, headers);
		curl_easy_setopt(transfer->easy, CURLOPT_POST, 1L);
		curl_easy_setopt(transfer->easy, CURLOPT_POSTFIELDS, transfer->body);
		curl_easy_setopt(transfer->easy, CURLOPT_WRITEFUNCTION, on_write);
		curl_easy_setopt(transfer->easy, CURLOPT_WRITEDATA, transfer);
		curl_easy_setopt(transfer->easy, CURLOPT_NOSIGNAL, 1L);
		curl_easy_setopt(transfer->easy, CURLOPT_PROXY, "");
		curl_easy_setopt(transfer->easy, CURLOPT_TIMEOUT_MS, 10000L);
		start(transfer);
	}
	while (finished < wanted)
	{
		long wait = -1;
		int n;

		if (timeout_ms >= 0)
		{
			clock_gettime(CLOCK_MONOTONIC, &now);
			wait = timeout_ms - ((now.tv_sec - timeout_from.tv_sec) * 1000 +
								 (now.tv_nsec - timeout_from.tv_nsec) / 1000000);
			wait = wait < 0 ? 0 : wait;
		}
		n = epoll_wait(epoll_fd, events, MAX_EVENTS, wait);
		if (wait == 0 || n == 0)
		{
			timeout_ms = -1;
			curl_multi_socket_action(multi, CURL_SOCKET_TIMEOUT, 0, &unused);
		}
		for (int i = 0; i < n; i++)
			curl_multi_socket_action(multi, events[i].data.fd,
									 (events[i].events & EPOLLIN ? CURL_CSELECT_IN : 0) |
										 (events[i].events & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
										 (events[i].events & (EPOLLERR | EPOLLHUP) ? CURL_CSELECT_ERR
																				   : 0),
									 &unused);
		take_finished();
	}
	clock_gettime(CLOCK_MONOTONIC, &now);
	getrusage(RUSAGE_SELF, &used);
	printf("%.4f %.4f\n", now.tv_sec - begun.tv_sec + (now.tv_nsec - begun.tv_nsec) / 1e9,
		   used.ru_utime.tv_sec + used.ru_stime.tv_sec +
			   (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6);
	return 0;
}
