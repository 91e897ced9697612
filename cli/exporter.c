/* memctl-exporter: the numbers of memctld by HTTP, for Prometheus.
 *
 * A process of its own, started by the first scrape (systemd/memctl-exporter.socket), on the read-only socket, so that nobody who
 * can reach a port reaches memctld.  Scrapers cost the guests nothing: however many there are, one of them at a time is a question
 * to memctld, and an answer is given to all who ask within a second (max_age) of it, also the answer that there is none.  The
 * question is put by a thread that does nothing else: a memctld that hangs holds up scrapes, and not the limits of HTTP.
 *
 *	loop		requests; what is too old is asked for; who waits is answered by what comes
 *	questioner	sleeps until asked; families_gather, both formats of text, wakes the loop
 *
 * GET and HEAD, /metrics and / and nothing else.  /metrics is OpenMetrics where Accept prefers it, the older text otherwise. */
#include "cli/accept.h"
#include "cli/cli.h"
#include "cli/families.h"
#include "cli/http.h"
#include "cli/openmetrics.h"
#include "cli/output.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define LISTEN_DEFAULT "127.0.0.1:19100"
#define SOCKET_DEFAULT "/run/memctl/memctld-ro.sock"
#define PASSED_FIRST   3	/* descriptor, by sd_listen_fds(3) */
#define WAITERS_MAX    256

static const char *const types[] = {
	[EXPOSITION_OPENMETRICS] = "application/openmetrics-text; version=1.0.0; charset=utf-8",
	[EXPOSITION_TEXT] = "text/plain; version=0.0.4; charset=utf-8",
};

static const char page[] =
	"<!DOCTYPE html><html lang=\"en\"><title>memctl-exporter</title>"
	"<h1>memctl-exporter</h1><p>The numbers of memctld: <a href=\"/metrics\">/metrics</a></html>\n";

/* What memctld said, or why it did not. */
struct answer {
	struct http_text *text[2];	/* by format; NULL: `why` */
	char why[320];
	double put;			/* when it was asked, monotonic */
};

struct exporter {
	struct cli cli;			/* the questioner's */
	double max_age_s;
	struct http *http;
	struct http_text *page;
	struct answer last;		/* the loop's */
	struct http_request *waiting[WAITERS_MAX];
	unsigned n_waiting;
	bool asking;			/* the loop's: a question is under way */

	pthread_mutex_t lock;		/* guards what follows; nothing is taken inside it */
	pthread_cond_t changed;
	bool wanted, answered, quit;
	struct answer next;
};

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* ---- the questioner */

static struct http_text *write_down(const struct exposition *x, enum exposition_format format)
{
	char *data = NULL;
	size_t bytes = 0;
	FILE *f = open_memstream(&data, &bytes);
	int r = f ? exposition_write(x, format, f) : -ENOMEM;

	if (f && fclose(f))
		r = -ENOMEM;
	if (r < 0) {
		free(data);
		return NULL;
	}
	return http_text_new(types[format], data, bytes);
}

static void ask(struct cli *c, struct answer *ret)
{
	struct exposition *x = exposition_new();
	int r;

	*ret = (struct answer){ .put = now() };
	r = x ? families_gather(c, x, ret->why) : EXIT_SYSTEM;
	/* the next one may be another memctld */
	cli_hang_up(c);
	if (!r) {
		ret->text[EXPOSITION_OPENMETRICS] = write_down(x, EXPOSITION_OPENMETRICS);
		ret->text[EXPOSITION_TEXT] = write_down(x, EXPOSITION_TEXT);
	}
	if (!*ret->why && (!ret->text[0] || !ret->text[1]))
		snprintf(ret->why, sizeof ret->why, "out of memory");
	exposition_free(x);
}

static void *question(void *userdata)
{
	struct exporter *e = userdata;

	pthread_mutex_lock(&e->lock);
	for (;;) {
		struct answer a;

		while (!e->wanted && !e->quit)
			pthread_cond_wait(&e->changed, &e->lock);
		if (e->quit)
			break;
		e->wanted = false;
		pthread_mutex_unlock(&e->lock);
		ask(&e->cli, &a);
		pthread_mutex_lock(&e->lock);
		e->next = a;
		e->answered = true;
		http_wake(e->http);
	}
	pthread_mutex_unlock(&e->lock);
	return NULL;
}

/* ---- the loop */

static void answer_fini(struct answer *a)
{
	for (unsigned i = 0; i < 2; i++)
		a->text[i] = http_text_unref(a->text[i]);
}

static void give(struct http_request *r, const struct answer *a)
{
	struct http_text *text = a->text[accept_openmetrics(http_header(r, "Accept")) ? EXPOSITION_OPENMETRICS : EXPOSITION_TEXT];

	if (text)
		http_answer(r, 200, NULL, text);
	else
		http_answer(r, 503, a->why, NULL);
}

static void woken(void *userdata)
{
	struct exporter *e = userdata;
	struct answer a;
	bool answered;

	pthread_mutex_lock(&e->lock);
	answered = e->answered;
	a = e->next;
	e->answered = false;
	pthread_mutex_unlock(&e->lock);
	if (!answered)
		return;
	answer_fini(&e->last);
	e->last = a;
	e->asking = false;
	for (unsigned i = 0; i < e->n_waiting; i++)
		give(e->waiting[i], &e->last);
	e->n_waiting = 0;
}

static void give_metrics(struct exporter *e, struct http_request *r)
{
	if (!e->asking && e->last.put > 0 && now() - e->last.put < e->max_age_s) {
		give(r, &e->last);
		return;
	}
	if (e->n_waiting == WAITERS_MAX) {
		http_answer(r, 503, "too many scrapes wait for memctld", NULL);
		return;
	}
	e->waiting[e->n_waiting++] = r;
	if (e->asking)
		return;
	e->asking = true;
	pthread_mutex_lock(&e->lock);
	e->wanted = true;
	pthread_cond_signal(&e->changed);
	pthread_mutex_unlock(&e->lock);
}

static void asked(struct http_request *r, void *userdata)
{
	struct exporter *e = userdata;
	const char *path = http_path(r);
	bool metrics = !strcmp(path, "/metrics");

	if (!metrics && strcmp(path, "/"))
		http_answer(r, 404, "there is nothing but /metrics here", NULL);
	else if (http_method(r) == HTTP_METHOD_OTHER)
		http_answer(r, 405, "only GET and HEAD", NULL);
	else if (metrics)
		give_metrics(e, r);
	else
		http_answer(r, 200, NULL, e->page);
}

/* ---- sockets */

/* By ADDRESS:PORT, [ADDRESS]:PORT; the descriptor, or -1 and it was said. */
static int listen_on(const char *where)
{
	const struct addrinfo hints = { .ai_flags = AI_PASSIVE | AI_NUMERICHOST | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM };
	const char *colon = strrchr(where, ':');
	struct addrinfo *a = NULL;
	char host[64] = "";
	int fd = -1, on = 1;

	if (colon && (size_t)(colon - where) < sizeof host)
		memcpy(host, where, (size_t)(colon - where));
	if (*host == '[' && host[strlen(host) - 1] == ']') {
		memmove(host, host + 1, strlen(host));
		host[strlen(host) - 1] = 0;
	}
	if (!*host || getaddrinfo(host, colon + 1, &hints, &a)) {
		cli_error("--listen: \"%s\" is not ADDRESS:PORT, in numbers, as " LISTEN_DEFAULT, where);
		errno = EINVAL;
		return -1;
	}
	fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 || bind(fd, a->ai_addr, a->ai_addrlen) < 0 ||
		listen(fd, 64) < 0) {
		cli_error("cannot listen on %s: %s", where, strerror(errno));
		if (fd >= 0)
			close(fd);
		errno = EIO;
		fd = -1;
	}
	freeaddrinfo(a);
	return fd;
}

/* How many sockets we were started with, 0 if they are not for us. */
static int passed(void)
{
	const char *pid = getenv("LISTEN_PID"), *n = getenv("LISTEN_FDS");

	return pid && n && atol(pid) == (long)getpid() ? atoi(n) : 0;
}

static bool listens(int fd)
{
	int on = 0;
	socklen_t bytes = sizeof on;

	return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &on, &bytes) == 0 && on;
}

static int open_sockets(struct exporter *e, const char *where)
{
	int n = passed(), fd;

	for (int i = 0; i < n; i++) {
		fd = PASSED_FIRST + i;
		if (!listens(fd) || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 || http_listen(e->http, fd) < 0) {
			cli_error("descriptor %d, of LISTEN_FDS, is no listening socket", fd);
			return EXIT_SYSTEM;
		}
	}
	if (n > 0)
		return EXIT_OK;
	fd = listen_on(where);
	if (fd < 0)
		return errno == EINVAL ? EXIT_USAGE : EXIT_SYSTEM;
	if (http_listen(e->http, fd) < 0)
		return EXIT_SYSTEM;
	return EXIT_OK;
}

/* ---- start */

static const struct option options[] = {
	{ "listen", required_argument, NULL, 'l' },
	{ "socket", required_argument, NULL, 's' },
	{ "timeout", required_argument, NULL, 't' },
	{ "max-age", required_argument, NULL, 'a' },
	{ "connections", required_argument, NULL, 'c' },
	{ "ask", required_argument, NULL, 'q' },
	{ "hear", required_argument, NULL, 'r' },
	{ "idle", required_argument, NULL, 'i' },
	{ "help", no_argument, NULL, 'h' },
	{ "version", no_argument, NULL, 'V' },
	{ 0 },
};

static const char help[] =
	"Usage: memctl-exporter [OPTION]...\n\n"
	"  --listen ADDRESS:PORT  where to be scraped (default " LISTEN_DEFAULT "), unless started with sockets, as systemd does\n"
	"  --socket PATH          memctld's read-only socket (default $MEMCTL_SOCKET, else " SOCKET_DEFAULT ")\n"
	"  --timeout SEC          how long memctld may take for each of four questions (default 2)\n"
	"  --max-age SEC          an answer that is younger is given again (default 1)\n"
	"  --connections N        at once (default 16); beyond them the slowest is ended\n"
	"  --ask SEC              how long a request may take to arrive (default 5)\n"
	"  --hear SEC             how long an answer may take to be read (default 10)\n"
	"  --idle SEC             end when nobody was connected for so long (default 300 with sockets of systemd, else 0:\n"
	"                         never)\n"
	"  --help, --version\n\n"
	"Exit status: 0 idle, or ended by SIGTERM; 4 cannot listen; 16 wrong usage.\n";

static int number(const char *name, const char *text, double least, double most, double *ret)
{
	char *end;
	double n = strtod(text, &end);

	if (end == text || *end || !(n >= least && n <= most)) {
		cli_error("--%s: \"%s\" is not a number from %g to %g", name, text, least, most);
		return -EINVAL;
	}
	*ret = n;
	return 0;
}

/* -1: go on; otherwise an exit code. */
static int parse(int argc, char **argv, struct exporter *e, struct http_limits *limits, const char **where)
{
	double timeout = 2, n = limits->connections;
	int option, index, r = 0;

	while (!r && (option = getopt_long(argc, argv, "", options, &index)) != -1) {
		const char *name = option == '?' ? "" : options[index].name;

		if (option == 'h' || option == 'V') {
			printf(option == 'h' ? "%s" : "memctl-exporter %s\n", option == 'h' ? help : MEMCTL_VERSION);
			return EXIT_OK;
		}
		switch (option) {
		case 'l':
			*where = optarg;
			break;
		case 's':
			e->cli.socket = optarg;
			break;
		case 't':
			r = number(name, optarg, 0.01, 60, &timeout);
			break;
		case 'a':
			r = number(name, optarg, 0, 86400, &e->max_age_s);
			break;
		case 'c':
			r = number(name, optarg, 1, WAITERS_MAX / 2, &n);
			break;
		case 'q':
			r = number(name, optarg, 0.01, 86400, &limits->ask_s);
			break;
		case 'r':
			r = number(name, optarg, 0.01, 86400, &limits->hear_s);
			break;
		case 'i':
			r = number(name, optarg, 0, 86400, &limits->idle_s);
			break;
		default:
			r = -EINVAL;
		}
	}
	if (!r && optind < argc) {
		cli_error("\"%s\" is no option; memctl-exporter --help lists them", argv[optind]);
		r = -EINVAL;
	}
	e->cli.timeout_ms = (int)(timeout * 1000);
	limits->connections = (unsigned)n;
	return r < 0 ? EXIT_USAGE : -1;
}

static int serve(struct exporter *e)
{
	sigset_t all, before;
	pthread_t thread;
	int r;

	/* signals are the loop's */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	r = pthread_create(&thread, NULL, question, e);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (r) {
		cli_error("cannot start a thread: %s", strerror(r));
		return EXIT_SYSTEM;
	}
	r = http_run(e->http);
	pthread_mutex_lock(&e->lock);
	e->quit = true;
	pthread_cond_signal(&e->changed);
	pthread_mutex_unlock(&e->lock);
	pthread_join(thread, NULL);
	return r < 0 ? EXIT_SYSTEM : EXIT_OK;
}

int main(int argc, char **argv)
{
	static struct exporter e = { .max_age_s = 1, .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };
	struct http_limits limits = { .connections = 16, .ask_s = 5, .hear_s = 10, .idle_s = passed() > 0 ? 300 : 0 };
	const struct http_calls calls = { asked, woken, &e };
	const char *where = LISTEN_DEFAULT;
	int r;

	output_begin();
	cli_program = "memctl-exporter";
	r = parse(argc, argv, &e, &limits, &where);
	if (r >= 0)
		return r;
	if (!e.cli.socket && !getenv("MEMCTL_SOCKET"))
		e.cli.socket = SOCKET_DEFAULT;
	signal(SIGPIPE, SIG_IGN);
	e.page = http_text_new("text/html; charset=utf-8", strdup(page), sizeof page - 1);
	if (!e.page || !e.page->data || http_new(&limits, &calls, &e.http) < 0) {
		cli_error("out of memory");
		http_text_unref(e.page);
		return EXIT_SYSTEM;
	}
	r = open_sockets(&e, where);
	if (!r)
		r = serve(&e);
	http_free(e.http);
	answer_fini(&e.last);
	if (e.answered)
		answer_fini(&e.next);
	http_text_unref(e.page);
	return r;
}
