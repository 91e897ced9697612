/* memctld itself: how it ends, and how another takes its place. */
#include "cli/cli.h"
#include "cli/progress.h"

#include <errno.h>
#include <fcntl.h>
#include <memctl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define RESTART_MS 10000
#define POLL_MS	   5
#define WRONG_SETTINGS 3	/* memctld's exit status */

/* What of VMs (of this one, or of all) has still to be brought in before they can have it. */
static bool bytes_away(struct cli *c, const void *vm, uint64_t *ret)
{
	const char *pairs[][2] = { { "vm", vm }, { NULL } };
	const struct value *of;
	struct value *reply;
	char why[320];

	if (vm ? cli_try(c, "org.memctl.ShowVm", pairs, &reply, why) : cli_try(c, "org.memctl.Status", NULL, &reply, why)) {
		cli_hang_up(c);
		return false;
	}
	of = value_at(reply, vm ? "vm" : "status.vms");
	*ret = value_u64(of, "compressed_bytes", 0) + value_u64(of, "swapped_bytes", 0) + value_u64(of, "shared_bytes", 0);
	value_close(reply);
	return true;
}

/* The line is gone before anything is said. */
static int ask_watched(struct cli *c, struct progress_watch *watch, const char *method, const char *const pairs[][2], struct value **ret)
{
	char why[320];
	int r = cli_try(c, method, pairs, ret, why);

	progress_watch_end(watch);
	if (r)
		cli_error("%s", why);
	return r;
}

int run_vm_release(struct cli *c, char **arguments, unsigned n)
{
	const char *pairs[][2] = { { "vm", arguments[0] }, { NULL } };
	struct progress_watch *watch;
	struct value *reply;
	int r;

	(void)n;
	/* it takes as long as bringing all in takes, unless told otherwise */
	c->timeout_ms = c->timeout_ms ? c->timeout_ms : -1;
	watch = progress_watch_begin(c, "bringing in", bytes_away, arguments[0]);
	r = ask_watched(c, watch, "org.memctl.ReleaseVm", pairs, &reply);
	if (r)
		return r;
	r = c->json ? cli_print_json(reply) : EXIT_OK;
	if (!c->json)
		printf("%s has its memory as its own; %lld pages were brought in\n", arguments[0], (long long)value_u64(reply, "pages", 0));
	value_close(reply);
	return r;
}

static void show_reload(const struct value *reload)
{
	const struct value *changed = value_at(reload, "changed"), *restart = value_at(reload, "restart");
	unsigned long long vms = value_u64(reload, "vms", 0);

	for (size_t i = 0; i < value_items(changed); i++) {
		const struct value *s = value_item(changed, i);

		printf("%s = %s (it was %s)\n", value_str(s, "name"), value_str(s, "value"), value_str(s, "was"));
	}
	for (size_t i = 0; i < value_items(restart); i++) {
		char *name = value_words(value_item(restart, i));

		printf("%s waits for a restart\n", name ? name : "");
		free(name);
	}
	if (vms)
		printf("%llu VMs have what their files say now\n", vms);
	if (!vms && !value_items(changed) && !value_items(restart))
		puts("nothing has changed");
}

int run_daemon_reload(struct cli *c, char **arguments, unsigned n)
{
	struct value *reply;
	int r = cli_ask(c, "org.memctl.Reload", NULL, &reply);

	(void)arguments;
	(void)n;
	if (r)
		return r;
	if (c->json)
		r = cli_print_json(reply);
	else
		show_reload(value_at(reply, "reload"));
	value_close(reply);
	return r;
}

/* memctld named the file, and root must not run whatever it says: nobody else may have written it. */
static bool is_to_be_run(const char *program)
{
	struct stat is;

	if (stat(program, &is) < 0) {
		cli_error("%s: %s; nothing was done", program, strerror(errno));
		return false;
	}
	if ((is.st_uid != 0 && is.st_uid != geteuid()) || (is.st_mode & (S_IWGRP | S_IWOTH))) {
		cli_error("%s does not belong to root or you, or others may write it: it is not run to see whether it could take over; "
			"nothing was done", program);
		return false;
	}
	return true;
}

/* Which state formats a memctld can read, by its own word: EXIT_OK, or it has been said what is wrong. */
static int formats_of(const char *program, long long *ret_oldest, long long *ret_newest)
{
	char text[128] = "";
	size_t got = 0;
	ssize_t k;
	int fds[2], status;
	pid_t pid;

	if (!is_to_be_run(program))
		return EXIT_PERMISSION;
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

/* The words of the command line of process `pid`, and --check-config, in *ret_words (room for `most` of them), which lie in
 * `text`.  false: they cannot be had. */
static bool line_of(long long pid, char *text, size_t bytes, char **ret_words, size_t most)
{
	static char check[] = "--check-config";
	char path[48];
	size_t n = 0, words = 0;
	ssize_t k;
	int fd;

	snprintf(path, sizeof path, "/proc/%lld/cmdline", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	while (n < bytes && (k = read(fd, text + n, bytes - n)) > 0)
		n += (size_t)k;
	close(fd);
	if (!n || n == bytes || text[n - 1])
		return false;
	for (char *word = text; word < text + n && words < most - 2; word += strlen(word) + 1)
		ret_words[words++] = word;
	ret_words[words++] = check;
	ret_words[words] = NULL;
	return true;
}

/* Whether the new program would start with the settings as they are now.  A memctld that cannot leaves its guests waiting. */
static int settings_are_right(const char *program, long long pid)
{
	char text[16384], said[1024] = "", *words[256];
	size_t got = 0;
	ssize_t k;
	int fds[2], status;
	pid_t child;

	/* only who may read all that memctld reads can say */
	if (geteuid() || !line_of(pid, text, sizeof text, words, sizeof words / sizeof *words))
		return EXIT_OK;
	if (pipe(fds) < 0 || (child = fork()) < 0) {
		cli_error("cannot start %s: %s", program, strerror(errno));
		return EXIT_SYSTEM;
	}
	if (!child) {
		dup2(fds[1], STDERR_FILENO);
		close(fds[0]);
		close(fds[1]);
		if (!freopen("/dev/null", "w", stdout))
			_exit(127);
		execv(program, words);
		_exit(127);
	}
	close(fds[1]);
	while (got < sizeof said - 1 && (k = read(fds[0], said + got, sizeof said - 1 - got)) > 0)
		got += (size_t)k;
	close(fds[0]);
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	if (WIFEXITED(status) && WEXITSTATUS(status) == WRONG_SETTINGS) {
		said[strcspn(said, "\n")] = 0;
		cli_error("%s would not start: %s; nothing was done", program, said);
		return EXIT_USAGE;
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
	before = ask_pid(c, was, sizeof was);
	if (r == EXIT_OK)
		r = settings_are_right(value_str(reply, "program"), before);
	value_close(reply);
	if (r)
		return r;
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

/* Until nobody answers any more, or another one. */
static void wait_for_end(const struct cli *c, long long pid)
{
	static const struct timespec pause = { .tv_nsec = POLL_MS * 1000000 };
	double began = now_ms();
	char version[64];

	while (pid && ask_pid(c, version, sizeof version) == pid && now_ms() - began < RESTART_MS)
		nanosleep(&pause, NULL);
}

int run_daemon_stop(struct cli *c, char **arguments, unsigned n)
{
	const char *pairs[][2] = { { "?force", c->force ? "yes" : NULL }, { "?wait", c->wait ? "yes" : NULL }, { NULL } };
	char version[64];
	struct value *reply;
	struct progress_watch *watch;
	long long pid;
	int r;

	(void)arguments;
	(void)n;
	pid = ask_pid(c, version, sizeof version);
	c->timeout_ms = c->timeout_ms ? c->timeout_ms : -1;
	watch = progress_watch_begin(c, "bringing in", bytes_away, NULL);
	r = ask_watched(c, watch, "org.memctl.Stop", pairs, &reply);
	if (r)
		return r;
	/* the answer comes before its end: whoever starts another one now would find the socket taken */
	wait_for_end(c, pid);
	r = c->json ? cli_print_json(reply) : EXIT_OK;
	if (!c->json)
		printf("memctld has ended; %lld VMs have their memory as their own\n", (long long)value_u64(reply, "released", 0));
	value_close(reply);
	return r;
}
