/* memctl run: start an emulator with a lease for its guest memory, and stay beside it.
 *
 * The lease belongs to the emulator: the preload library in it speaks to memctld, and when it ends, however
 * that may be, memctld takes the memory back.  So this parent holds nothing that could be lost with it.  It
 * hands on signals and the exit code, restores the terminal if the emulator was killed in raw mode, says
 * so if the emulator does not ask for memory, and asks QEMU's balloon for what memctld wants (run_balloon.c). */
#include "cli/cli.h"
#include "cli/run.h"
#include "cli/run_balloon.h"
#include "cli/units.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <memctl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define NAME_BYTES     64
#define NAME_CHARS     "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-"
#define ASKS_WITHIN_S  10  /* until a program that has not asked for memory is suspect */
#define EXEC_NOT_FOUND 127 /* as shells have it */
#define EXEC_FAILED    126

/* clang-format off: as it is printed */
const char run_details[] =
        "COMMAND is a QEMU (6.0 or newer, unmodified; also behind env, setpriv and the like), which gets "
        "its\n"
        "memory backend, a balloon with free page reporting and a QMP socket unless it has them; or any\n"
        "dynamically linked program that makes a memfd and maps it shared (--memfd-name, --fd).\n"
        "\n"
        "Signals sent to memctl reach the command; its exit code is memctl's (128+N after signal N, 127: not "
        "found).\n"
        "With QEMU's -daemonize memctl ends when QEMU has forked, and the VM goes on; a QMP socket is then "
        "yours to add.\n"
        "A program other than QEMU must not read(2) or write(2) its memfd once it is mapped: guest memory is "
        "in the\n"
        "mapping alone (writing fails).\n"
        "\n"
        "Refused, because bytes would be lost or the lease be of no use: O_DIRECT (cache=none, aio=native), "
        "vhost,\n"
        "VFIO, hugetlb, prealloc=on, mem-lock=on.";
/* clang-format on */

struct request {
	struct run run;
	uint64_t reservation, limit, shares;
	const char *sharing, *swap_dir, *memfd_name, *balloon_max, *stall_budget;
	int fd; /* -1: none */
	bool user_mode, print, json;
};

int run_insert(struct run *r, unsigned at, unsigned n, const char *const words[])
{
	char **more = reallocarray(r->words, r->n + n + 1, sizeof *more);

	if (!more)
		return -ENOMEM;
	r->words = more;
	memmove(more + at + n, more + at, (r->n - at) * sizeof *more);
	r->n += n;
	more[r->n] = NULL;
	for (unsigned i = 0; i < n; i++) {
		more[at + i] = strdup(words[i]);
		if (!more[at + i])
			return -ENOMEM;
	}
	return 0;
}

static void request_fini(struct request *q)
{
	for (unsigned i = 0; i < q->run.n; i++)
		free(q->run.words[i]);
	free(q->run.words);
}

static int take_size(const char *option, const char *text, uint64_t *ret)
{
	if (!text || !units_parse_size(text, strlen(text), ret))
		return 0;
	cli_error("%s: \"%s\" is no size", option, text);
	return -EINVAL;
}

static int take_whole(const char *option, const char *text, unsigned long max, uint64_t *ret)
{
	char *end;

	if (!text)
		return 0;
	errno = 0;
	*ret = strtoul(text, &end, 10);
	if (*text < '0' || *text > '9' || *end || errno || *ret > max) {
		cli_error("%s: \"%s\" is not a whole number up to %lu", option, text, max);
		return -EINVAL;
	}
	return 0;
}

static int take_options(const struct cli *c, struct request *q)
{
	uint64_t fd = 0;

	q->run.name = c->run.name;
	q->sharing = c->set[4];
	q->balloon_max = c->set[3];
	q->stall_budget = c->set[5];
	q->swap_dir = c->run.swap_dir;
	q->memfd_name = c->run.memfd_name;
	q->user_mode = c->run.user_mode;
	q->run.no_balloon = c->run.no_balloon;
	q->print = c->run.print;
	q->json = c->json;
	q->run.no_qmp = c->run.no_qmp || q->print; /* a socket in a directory of ours would not outlive us */
	if (take_size("--mem", c->run.mem, &q->run.mem_bytes) < 0 ||
	        take_size("--reservation", c->set[0], &q->reservation) < 0 ||
	        take_size("--limit", c->set[1], &q->limit) < 0 ||
	        take_whole("--shares", c->set[2], UINT32_MAX, &q->shares) < 0 ||
	        take_whole("--fd", c->run.fd, 1000000, &fd) < 0)
		return -EINVAL;
	q->fd = c->run.fd ? (int)fd : -1;
	return 0;
}

static int take(const struct cli *c, struct request *q, char **words, unsigned n)
{
	if (take_options(c, q) < 0)
		return EXIT_USAGE;
	if (!n) {
		cli_error("run what? memctl run --name NAME --mem SIZE -- COMMAND");
		return EXIT_USAGE;
	}
	if (q->json && !q->print) {
		cli_error("run has no reply of its own: --json goes with --print");
		return EXIT_USAGE;
	}
	if (!q->run.name) {
		cli_error("the VM needs a name: --name");
		return EXIT_USAGE;
	}
	if (!*q->run.name || strlen(q->run.name) >= NAME_BYTES ||
	        strspn(q->run.name, NAME_CHARS) != strlen(q->run.name)) {
		cli_error("--name: a name is 1 to %d of A-Z a-z 0-9 . _ -", NAME_BYTES - 1);
		return EXIT_USAGE;
	}
	if (run_insert(&q->run, 0, n, (const char *const *)words) < 0) {
		cli_error("out of memory");
		return EXIT_SYSTEM;
	}
	return EXIT_OK;
}

static int adapt(struct request *q)
{
	unsigned qemu = run_find_qemu(&q->run);
	char text[128];

	if (qemu && q->fd >= 0 && q->run.mem_bytes) {
		snprintf(text, sizeof text,
		        "memory-backend-file,id=memctl0,size=%" PRIu64 ",mem-path=/proc/self/fd/%d,"
		        "share=on",
		        q->run.mem_bytes, q->fd);
		if (run_insert(&q->run, q->run.n, 4,
		            (const char *const[]){ "-object", text, "-machine", "memory-backend=memctl0" }) <
		        0)
			return EXIT_SYSTEM;
	}
	if (qemu)
		return run_adapt_qemu(&q->run, qemu);
	if (!q->run.mem_bytes) {
		cli_error("how much memory? Give --mem");
		return EXIT_USAGE;
	}
	if (!q->memfd_name && q->fd < 0) {
		cli_error("%s is no QEMU: say which memfd is its guest memory, by --memfd-name or --fd",
		        q->run.words[0]);
		return EXIT_USAGE;
	}
	q->run.size_bytes = q->run.mem_bytes;
	return EXIT_OK;
}

/* ---- the environment ---- */

static int find_preload(char path[PATH_MAX])
{
	const char *given = getenv("MEMCTL_PRELOAD");
	char here[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", here, sizeof here - 1);

	if (given && *given) {
		snprintf(path, PATH_MAX, "%s", given);
		return access(path, R_OK);
	}
	/* in the tree that it was built in */
	if (n > 0) {
		here[n] = 0;
		*strrchr(here, '/') = 0;
		if (snprintf(path, PATH_MAX, "%s/../libclient/preload/libmemctl-preload.so", here) <
		                PATH_MAX &&
		        !access(path, R_OK))
			return realpath(path, here) ? snprintf(path, PATH_MAX, "%s", here), 0 : 0;
	}
	snprintf(path, PATH_MAX, "%s", MEMCTL_PRELOAD_PATH);
	return access(path, R_OK);
}

/* A word as a shell takes it. */
static void print_word(const char *word)
{
	if (*word && strspn(word, NAME_CHARS "=+,:/@%") == strlen(word)) {
		fputs(word, stdout);
		return;
	}
	putchar('\'');
	for (; *word; word++)
		if (*word == '\'')
			fputs("'\\''", stdout);
		else
			putchar(*word);
	putchar('\'');
}

static int put(const struct request *q, const char *name, const char *value)
{
	if (q->print && q->json) {
		printf("%s\n    \"%s\": ", strcmp(name, "LD_PRELOAD") ? "," : "", name);
		value_print_string(stdout, value);
	} else if (q->print) {
		printf("%s=", name);
		print_word(value);
		putchar(' ');
	}
	return setenv(name, value, 1);
}

static int put_number(const struct request *q, const char *name, uint64_t value)
{
	char text[32];

	snprintf(text, sizeof text, "%" PRIu64, value);
	return value ? put(q, name, text) : unsetenv(name);
}

static int put_text(const struct request *q, const char *name, const char *value)
{
	return value ? put(q, name, value) : unsetenv(name);
}

static void print_command(const struct request *q)
{
	if (q->json)
		fputs("\n  },\n  \"command\": [", stdout);
	for (unsigned i = 0; i < q->run.n; i++) {
		if (q->json) {
			fputs(i ? ", " : "", stdout);
			value_print_string(stdout, q->run.words[i]);
		} else {
			print_word(q->run.words[i]);
			putchar(i + 1 < q->run.n ? ' ' : '\n');
		}
	}
	if (q->json)
		fputs("]\n}\n", stdout);
}

static int set_environment(const struct cli *c, const struct request *q)
{
	const char *others = getenv("LD_PRELOAD");
	char preload[PATH_MAX], both[2 * PATH_MAX];
	int error = 0;

	if (find_preload(preload) < 0) {
		cli_error("the preload library %s is not there: set MEMCTL_PRELOAD", preload);
		return EXIT_SYSTEM;
	}
	snprintf(both, sizeof both, "%s%s%s", preload, others && *others ? ":" : "", others ? others : "");
	if (q->print && q->json)
		fputs("{\n  \"schema\": \"memctl/1\",\n  \"environment\": {", stdout);
	error |= put(q, "LD_PRELOAD", both);
	error |= put(q, "MEMCTL_VM_NAME", q->run.name);
	error |= put_number(q, "MEMCTL_VM_SIZE", q->run.size_bytes);
	error |= put_number(q, "MEMCTL_VM_RESERVATION", q->reservation);
	error |= put_number(q, "MEMCTL_VM_LIMIT", q->limit);
	error |= put_number(q, "MEMCTL_VM_SHARES", q->shares);
	error |= put_text(q, "MEMCTL_VM_SHARING", q->sharing);
	error |= put_text(q, "MEMCTL_VM_SWAP_DIR", q->swap_dir);
	error |= put_text(q, "MEMCTL_VM_BALLOON_MAX", q->balloon_max);
	error |= put_text(q, "MEMCTL_VM_STALL_BUDGET", q->stall_budget);
	error |= put_text(q, "MEMCTL_MEMFD_NAME", q->memfd_name);
	error |= put_number(q, "MEMCTL_FD", q->fd >= 0 ? (uint64_t)q->fd : 0);
	error |= put_text(q, "MEMCTL_USER_MODE", q->user_mode ? "1" : NULL);
	if (c->socket)
		error |= put(q, "MEMCTL_SOCKET", c->socket);
	return error ? EXIT_SYSTEM : EXIT_OK;
}

/* An empty memfd at a known number; the library puts a lease in its place when it is mapped. */
static int open_door(const struct request *q)
{
	int fd, r = 0;

	if (q->fd < 0)
		return EXIT_OK;
	if (q->fd <= STDERR_FILENO || fcntl(q->fd, F_GETFD) >= 0) {
		cli_error("--fd: descriptor %d is in use", q->fd);
		return EXIT_USAGE;
	}
	fd = memfd_create("memctl-guest", MFD_ALLOW_SEALING);
	if (fd < 0 || ftruncate(fd, (off_t)q->run.mem_bytes) < 0 || (fd != q->fd && dup2(fd, q->fd) < 0))
		r = errno;
	if (fd >= 0 && fd != q->fd)
		close(fd);
	if (!r)
		return EXIT_OK;
	cli_error("cannot make a memfd at %d: %s", q->fd, strerror(r));
	return EXIT_SYSTEM;
}

/* ---- beside the command ---- */

static void suspect(struct cli *c, const struct run *r)
{
	char parameters[128], *reply = NULL;

	snprintf(parameters, sizeof parameters, "{\"vm\":\"%s\"}", r->name);
	if (memctl_call(c->m, "org.memctl.ShowVm", parameters, &reply, NULL) == -ENOENT)
		cli_error("%s has not asked for memory after %d s: is the program statically linked, or "
		          "set-user-ID?",
		        r->name, ASKS_WITHIN_S);
	free(reply);
	memctl_free(c->m); /* the last question */
	c->m = NULL;
}

static void wait_set(sigset_t *set)
{
	static const int wanted[] = { SIGCHLD, SIGTERM, SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGWINCH };

	sigemptyset(set);
	for (unsigned i = 0; i < sizeof wanted / sizeof *wanted; i++)
		sigaddset(set, wanted[i]);
}

/* Until the command ends: its status. */
static int stay(struct cli *c, const struct run *r, pid_t child, const sigset_t *set)
{
	struct timespec patience = { .tv_sec = ASKS_WITHIN_S };
	bool asked = false;
	int status;

	for (;;) {
		siginfo_t info;
		int sig = sigtimedwait(set, &info, asked ? &(struct timespec){ .tv_sec = 3600 } : &patience);

		if (sig < 0 && errno == EAGAIN && !asked) {
			asked = true;
			suspect(c, r);
		}
		/* what the terminal sends, the command has got itself */
		if (sig > 0 && sig != SIGCHLD && sig != SIGWINCH && info.si_code <= 0)
			kill(child, sig);
		if (waitpid(child, &status, WNOHANG) == child)
			return status;
	}
}

static int exit_of(int status)
{
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* QEMU's end is the child's alone now, or its death would not be noticed. */
static struct run_balloon *start_agent(const struct cli *c, struct run *r)
{
	struct run_balloon *agent = NULL;
	int error;

	if (r->agent_fds[0] < 0)
		return NULL;
	close(r->agent_fds[1]);
	error = run_balloon_start(c->socket, r->name, r->agent_fds[0], &agent);
	if (error < 0)
		cli_error("%s: its balloon is not used: %s", r->name, strerror(-error));
	r->agent_fds[0] = r->agent_fds[1] = -1;
	return agent;
}

static int start_and_stay(struct cli *c, struct run *r)
{
	struct run_balloon *agent;
	struct termios terminal;
	bool has_terminal = !tcgetattr(STDIN_FILENO, &terminal);
	sigset_t set, old;
	pid_t child;
	int status;

	wait_set(&set);
	sigprocmask(SIG_BLOCK, &set, &old);
	fflush(stdout);
	child = fork();
	if (child < 0) {
		cli_error("fork: %s", strerror(errno));
		return EXIT_SYSTEM;
	}
	if (!child) {
		sigprocmask(SIG_SETMASK, &old, NULL);
		execvp(r->words[0], r->words);
		cli_error("%s: %s", r->words[0], strerror(errno));
		_exit(errno == ENOENT ? EXEC_NOT_FOUND : EXEC_FAILED);
	}
	agent = start_agent(c, r);
	status = stay(c, r, child, &set);
	run_balloon_stop(agent);
	/* Killed, it has left the terminal as it was, raw perhaps. */
	if (has_terminal && WIFSIGNALED(status) && tcgetpgrp(STDIN_FILENO) == getpgrp())
		tcsetattr(STDIN_FILENO, TCSANOW, &terminal);
	sigprocmask(SIG_SETMASK, &old, NULL);
	return exit_of(status);
}

static void remove_qmp(struct run *r)
{
	if (!*r->qmp_path)
		return;
	unlink(r->qmp_path);
	*strrchr(r->qmp_path, '/') = 0;
	rmdir(r->qmp_path);
}

static int go(struct cli *c, struct request *q)
{
	struct value *status;
	int code;

	code = adapt(q);
	if (!code)
		code = set_environment(c, q);
	if (!code && q->print) {
		print_command(q);
		return EXIT_OK;
	}
	if (!code)
		code = open_door(q);
	if (!code) /* that it is there, before anything is started */
		code = cli_ask(c, "org.memctl.Status", NULL, &status);
	if (code)
		return code;
	value_close(status);
	if (*q->run.qmp_path)
		fprintf(stderr, "memctl: %s: QMP at %s\n", q->run.name, q->run.qmp_path);
	return start_and_stay(c, &q->run);
}

int run_run(struct cli *c, char **arguments, unsigned n)
{
	struct request q = { .fd = -1, .run.agent_fds = { -1, -1 } };
	int code = take(c, &q, arguments, n);

	if (!code)
		code = go(c, &q);
	remove_qmp(&q.run);
	request_fini(&q);
	return code;
}
