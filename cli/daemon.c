/* memctld itself: how it ends, and how another takes its place. */
#include "cli/cli.h"

#include <errno.h>
#include <memctl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define RESTART_MS 10000
#define POLL_MS	   5

int run_vm_release(struct cli *c, char **arguments, unsigned n)
{
	const char *pairs[][2] = { { "vm", arguments[0] }, { NULL } };
	struct value *reply;
	int r;

	(void)n;
	/* it takes as long as bringing all in takes, unless told otherwise */
	c->timeout_ms = c->timeout_ms ? c->timeout_ms : -1;
	r = cli_ask(c, "org.memctl.ReleaseVm", pairs, &reply);
	if (r)
		return r;
	r = c->json ? cli_print_json(reply) : EXIT_OK;
	if (!c->json)
		printf("%s has its memory as its own; %lld pages were brought in\n", arguments[0], (long long)value_u64(reply, "pages", 0));
	value_close(reply);
	return r;
}

int run_daemon_stop(struct cli *c, char **arguments, unsigned n)
{
	const char *pairs[][2] = { { "?force", c->force ? "yes" : NULL }, { "?wait", c->wait ? "yes" : NULL }, { NULL } };
	struct value *reply;
	int r;

	(void)arguments;
	(void)n;
	c->timeout_ms = c->timeout_ms ? c->timeout_ms : -1;
	r = cli_ask(c, "org.memctl.Stop", pairs, &reply);
	if (r)
		return r;
	r = c->json ? cli_print_json(reply) : EXIT_OK;
	if (!c->json)
		printf("memctld has ended; %lld VMs have their memory as their own\n", (long long)value_u64(reply, "released", 0));
	value_close(reply);
	return r;
}

/* Which state formats a memctld can read, by its own word: EXIT_OK, or it has been said what is wrong. */
static int formats_of(const char *program, long long *ret_oldest, long long *ret_newest)
{
	char text[128] = "";
	size_t got = 0;
	ssize_t k;
	int fds[2], status;
	pid_t pid;

	if (pipe(fds) < 0 || (pid = fork()) < 0) {
		cli_error("cannot start %s: %s", program, strerror(errno));
		return EXIT_SYSTEM;
	}
	if (!pid) {
		dup2(fds[1], STDOUT_FILENO);
		close(fds[0]);
		close(fds[1]);
		execl(program, program, "--state-formats", (char *)NULL);
		_exit(127);
	}
	close(fds[1]);
	while (got < sizeof text - 1 && (k = read(fds[0], text + got, sizeof text - 1 - got)) > 0)
		got += (size_t)k;
	close(fds[0]);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (!WIFEXITED(status) || WEXITSTATUS(status) || sscanf(text, "%lld %lld", ret_oldest, ret_newest) != 2) {
		cli_error("%s does not say which state formats it reads: it is no memctld that could take over; nothing was done", program);
		return EXIT_SYSTEM;
	}
	return EXIT_OK;
}

static double now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

/* The pid of the memctld that answers now; 0: none does. */
static long long ask_pid(const struct cli *c, char *ret_version, size_t bytes)
{
	struct memctl_options o = { .struct_size = sizeof o, .socket = c->socket, .timeout_ms = 1000 };
	struct memctl *m = NULL;
	struct value *v = NULL;
	char *reply = NULL;
	long long pid = 0;

	if (memctl_connect(&o, &m, NULL) == 0 && memctl_call(m, "org.memctl.Status", NULL, &reply, NULL) == 0)
		v = value_open(reply);
	if (v) {
		pid = (long long)value_u64(v, "status.pid", 0);
		snprintf(ret_version, bytes, "%s", value_str(v, "status.version"));
	}
	value_close(v);
	free(reply);
	memctl_free(m);
	return pid;
}

int run_daemon_upgrade(struct cli *c, char **arguments, unsigned n)
{
	const char *check[][2] = { { "?check", "yes" }, { NULL } };
	long long oldest, newest, format, before, after = 0;
	char was[64] = "", is[64] = "";
	struct value *reply;
	double began, took;
	int r;

	(void)arguments;
	(void)n;
	r = cli_ask(c, "org.memctl.Upgrade", check, &reply);
	if (r)
		return r;
	format = (long long)value_u64(reply, "state_format", 0);
	r = formats_of(value_str(reply, "program"), &oldest, &newest);
	if (r == EXIT_OK && (format < oldest || format > newest)) {
		cli_error("%s reads state formats %lld to %lld, the memctld that runs keeps format %lld: upgrade by a version between the "
			"two, or stop memctld first; nothing was done", value_str(reply, "program"), oldest, newest, format);
		r = EXIT_SYSTEM;
	}
	value_close(reply);
	if (r)
		return r;
	before = ask_pid(c, was, sizeof was);
	began = now_ms();
	r = cli_ask(c, "org.memctl.Upgrade", NULL, &reply);
	if (r)
		return r;
	value_close(reply);
	while (now_ms() - began < RESTART_MS) {
		static const struct timespec pause = { .tv_nsec = POLL_MS * 1000000 };

		after = ask_pid(c, is, sizeof is);
		if (after && after != before)
			break;
		after = 0;
		nanosleep(&pause, NULL);
	}
	took = now_ms() - began;
	if (!after) {
		cli_error("memctld ended and none answers after %d s: guests wait; see its log", RESTART_MS / 1000);
		return EXIT_UNREACHABLE;
	}
	if (c->json)
		printf("{\n  \"schema\": \"memctl/1\",\n  \"was\": \"%s\",\n  \"is\": \"%s\",\n  \"pid\": %lld,\n  \"pause_ms\": %.1f\n}\n", was, is,
			after, took);
	else
		printf("memctld %s took over from %s (process %lld), in %.0f ms\n", is, was, after, took);
	return EXIT_OK;
}
