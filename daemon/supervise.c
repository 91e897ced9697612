/* The supervisor.
 *
 * Problem: while memctld is dead somebody must hold its descriptors, or all that they keep (pools, page maps, compressed
 * pages, swap files) is gone, and somebody must start it again.  systemd does both; this is for where it does not run.
 * It has to live through whatever kills memctld, so it is one thread with one poll loop, executes its own program file, and
 * after its start allocates nothing but descriptors and what fork and exec need.
 *
 *	memctld --supervise            this process: signals, the socket, the descriptors that are kept
 *	  `- memctld                   messages and descriptors go up by $NOTIFY_SOCKET,
 *	                               descriptors come down by $LISTEN_FDS at the next start
 *
 * A child lives in stages:
 *
 *	starting	from exec to READY=1.  No READY for START_NS: killed.
 *	ready		until STOPPING=1.  No WATCHDOG=1 for --watchdog seconds: killed.
 *	stopping	it may take as long as it likes
 *	aborted		SIGABRT was sent; after ABORT_NS SIGKILL follows, and then the log says whom it waits for
 *
 * and ends in one of these ways:
 *
 *	exit 0			what was planned: we end as well
 *	before the first READY	bad settings and the like: we end with its status.  Nothing was lent, nothing is lost
 *	after its READY		started again at once: guests wait for it.  Exit 75 says that this is meant (an upgrade)
 *	before its READY	started again after 100 ms, then twice that ... 10 s.  We never give up: while we hold the
 *				descriptors guests wait, without them what they wait for is lost
 *	told to end, and it fails at that, and nothing is kept: we end with its status.  If something is kept, it is started
 *				again and told again, once it is ready
 *
 * Laws:
 *	- What a child sent before it died counts.  So the socket is drained between its death (SIGCHLD: all its threads are
 *	  gone) and its burial (waitid: until then its pid is nobody else's), and a message is believed only if the kernel says
 *	  that this pid sent it.
 *	- Messages are read before deadlines are judged: if we were stopped ourselves, its WATCHDOG=1 are in the socket.
 *	- The name of a kept descriptor lies at its number.  In ascending order of numbers the i-th is never below 3 + i, so they
 *	  are moved to 3, 4, ... by one dup2 each, and none hits one that has not been moved.
 *
 * If the supervisor itself is killed, memctld and its guests go on (PR_SET_PDEATHSIG would kill them), but nobody keeps what is
 * new, and nobody starts memctld again: let go of the VMs (memctl daemon stop), and start both anew. */
#include "supervise.h"

#include "base/clock.h"
#include "base/events.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define FIRST_FD     3				/* SD_LISTEN_FDS_START */
#define FD_END	     (NOTIFY_KEEP_MAX + 64)	/* numbers below this can be kept */
#define MESSAGE_MAX  4096
#define MESSAGE_FDS  253			/* SCM_MAX_FD */
#define FIRST_NS     (100 * NS_PER_MS)
#define LAST_NS	     (10 * NS_PER_S)
#define START_NS     (120 * NS_PER_S)
#define ABORT_NS     (2 * NS_PER_S)
#define END_NS	     (10 * NS_PER_S)

enum stage { STARTING, READY, STOPPING, ABORTED };

struct supervisor {
	const struct supervise_options *options;
	char program[PATH_MAX];
	char dir[PATH_MAX];			/* holds the socket, and nothing else */
	struct sockaddr_un address;
	int socket, signal_fd, ready_fd;
	uint64_t watchdog_ns;

	pid_t child;				/* 0: none */
	enum stage stage;
	bool was_ready;				/* this child */
	bool killed;				/* SIGKILL was sent */
	bool ever_ready;			/* any child */
	uint64_t started_ns;
	uint64_t deadline_ns;			/* of the stage; 0: none */
	uint64_t again_ns;			/* no child: when the next is started */
	uint64_t delay_ns;			/* and how much later the one after it */
	int ending;				/* the signal by which we were told to end; 0: we were not */

	char (*names)[NOTIFY_NAME_BYTES];	/* by number; "": not kept */
	int last;				/* the highest number that was ever kept */
	unsigned kept;
	size_t names_bytes;
};

/* A value that we would keep under: it becomes a part of LISTEN_FDNAMES, between colons. */
static bool is_name(const char *name)
{
	size_t n = strlen(name);

	if (n == 0 || n >= NOTIFY_NAME_BYTES)
		return false;
	for (size_t i = 0; i < n; i++)
		if (name[i] <= ' ' || name[i] > '~' || name[i] == ':')
			return false;
	return true;
}

void notification_parse(struct notification *ret, char *text, size_t bytes)
{
	char *save = NULL;
	bool named = false;

	*ret = (struct notification){ 0 };
	text[bytes] = 0;
	if (strlen(text) != bytes)
		return;
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		if (!strcmp(line, "READY=1"))
			ret->ready = true;
		else if (!strcmp(line, "STOPPING=1"))
			ret->stopping = true;
		else if (!strcmp(line, "WATCHDOG=1"))
			ret->alive = true;
		else if (!strcmp(line, "WATCHDOG=trigger"))
			ret->hung = true;
		else if (!strcmp(line, "BARRIER=1"))
			ret->barrier = true;
		else if (!strcmp(line, "FDSTORE=1"))
			ret->keep = true;
		else if (!strcmp(line, "FDSTOREREMOVE=1"))
			ret->drop = true;
		else if (!strncmp(line, "STATUS=", 7))
			ret->status = line + 7;
		else if (!strncmp(line, "FDNAME=", 7)) {
			named = true;
			ret->name = is_name(line + 7) ? line + 7 : NULL;
		}
	}
	if (ret->keep && !named)
		ret->name = "stored";	/* as systemd calls it */
}

/* Takes the descriptor. */
static void keep(struct supervisor *s, const char *name, int fd)
{
	size_t bytes = strlen(name) + 1;

	if (fd >= FD_END || s->kept >= NOTIFY_KEEP_MAX || s->names_bytes + bytes > NOTIFY_NAMES_MAX) {
		event_tell(EVENT_SUPERVISOR_FAILED, NULL, "supervisor: no room to keep %s: %u descriptors are kept", name, s->kept);
		close(fd);
		return;
	}
	memcpy(s->names[fd], name, bytes);
	s->names_bytes += bytes;
	s->kept++;
	if (fd > s->last)
		s->last = fd;
}

static void drop(struct supervisor *s, const char *name)
{
	for (int fd = 0; fd <= s->last; fd++) {
		if (strcmp(s->names[fd], name))
			continue;
		close(fd);
		s->names_bytes -= strlen(name) + 1;
		s->names[fd][0] = 0;
		s->kept--;
	}
}

static void tell(struct supervisor *s, int sig)
{
	if (s->child && kill(s->child, sig) < 0)
		event_tell(EVENT_SUPERVISOR_FAILED, NULL, "supervisor: cannot send signal %d to memctld: %s", sig, strerror(errno));
}

static void become_ready(struct supervisor *s)
{
	s->stage = READY;
	s->was_ready = true;
	s->delay_ns = 0;
	s->deadline_ns = s->watchdog_ns ? now_ns() + s->watchdog_ns : 0;
	if (!s->ever_ready) {
		s->ever_ready = true;
		/* to whoever waits for us, by a pipe or as the service manager of a container */
		notify_send("READY=1");
		if (s->ready_fd >= 0) {
			if (write(s->ready_fd, "ready\n", 6) != 6)
				event_tell(EVENT_MANAGER_DEAF, NULL, "cannot write to the ready descriptor: %s", strerror(errno));
			if (s->ready_fd >= FIRST_FD)
				close(s->ready_fd);
			s->ready_fd = -1;
		}
	}
	if (s->ending)
		tell(s, s->ending);
}

static void abort_child(struct supervisor *s, const char *why)
{
	event_tell(EVENT_MEMCTLD_KILLED, NULL, "supervisor: memctld (process %d) %s: killed", (int)s->child, why);
	tell(s, SIGABRT);
	s->stage = ABORTED;
	s->deadline_ns = now_ns() + ABORT_NS;
}

/* Takes the descriptors. */
static void obey(struct supervisor *s, const struct notification *n, int *fds, unsigned n_fds)
{
	if (n->keep && n->name) {
		for (unsigned i = 0; i < n_fds; i++)
			keep(s, n->name, fds[i]);
		n_fds = 0;
	} else if (n->keep) {
		event_tell(EVENT_SUPERVISOR_FAILED, NULL, "supervisor: a descriptor's name is none, it is not kept");
	}
	/* a barrier among them: closing it says that all before it was read */
	for (unsigned i = 0; i < n_fds; i++)
		close(fds[i]);
	if (n->drop && n->name)
		drop(s, n->name);
	if (n->status)
		log_debug("supervisor: status of memctld: %.200s", n->status);
	if (s->stage == ABORTED)
		return;
	if (n->ready && s->stage == STARTING)
		become_ready(s);
	if (n->stopping) {
		s->stage = STOPPING;
		s->deadline_ns = 0;
	}
	if (n->alive && s->deadline_ns)
		s->deadline_ns = now_ns() + (s->stage == STARTING ? START_NS : s->watchdog_ns);
	if (n->hung)
		abort_child(s, "says that it hangs");
}

/* One message.  False if there is none. */
static bool receive(struct supervisor *s)
{
	char text[MESSAGE_MAX + 1];
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(struct ucred)) + CMSG_SPACE(MESSAGE_FDS * sizeof(int))];
	} control;
	struct iovec iov = { .iov_base = text, .iov_len = MESSAGE_MAX };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.room,
		.msg_controllen = sizeof control.room };
	struct notification n;
	int fds[MESSAGE_FDS];
	unsigned n_fds = 0;
	pid_t sender = 0;
	ssize_t bytes;

	do
		bytes = recvmsg(s->socket, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	while (bytes < 0 && errno == EINTR);
	if (bytes < 0)
		return false;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
		if (c->cmsg_level != SOL_SOCKET)
			continue;
		if (c->cmsg_type == SCM_RIGHTS) {
			n_fds = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
			memcpy(fds, CMSG_DATA(c), n_fds * sizeof(int));
		} else if (c->cmsg_type == SCM_CREDENTIALS) {
			struct ucred u;

			memcpy(&u, CMSG_DATA(c), sizeof u);
			sender = u.pid;
		}
	}
	if (m.msg_flags & MSG_CTRUNC)
		event_tell(EVENT_SUPERVISOR_FAILED, NULL, "supervisor: memctld's descriptors do not fit into this process: raise its limit of open files");
	if (sender != s->child || sender <= 0 || m.msg_flags & MSG_TRUNC) {
		for (unsigned i = 0; i < n_fds; i++)
			close(fds[i]);
		return true;
	}
	notification_parse(&n, text, (size_t)bytes);
	obey(s, &n, fds, n_fds);
	return true;
}

/* So many that nobody who sends without end keeps us from the rest. */
static void receive_all(struct supervisor *s)
{
	for (unsigned i = 0; i < 4 * NOTIFY_KEEP_MAX && receive(s); i++)
		;
}

/* In the child, which has no other thread: put a number into the environment. */
static int set_number(const char *variable, uint64_t value)
{
	char text[24];

	snprintf(text, sizeof text, "%llu", (unsigned long long)value);
	return setenv(variable, text, 1);
}

/* In the child. */
static int set_environment(struct supervisor *s)
{
	static const char *const variables[] = { "LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES",
		"WATCHDOG_PID", "WATCHDOG_USEC" };
	char *names, *end;
	int r;

	for (unsigned i = 0; i < sizeof variables / sizeof *variables; i++)
		unsetenv(variables[i]);
	r = setenv("NOTIFY_SOCKET", s->address.sun_path, 1);
	r |= setenv("MEMCTLD_SUPERVISED", "1", 1);
	r |= set_number("FDSTORE", NOTIFY_KEEP_MAX);
	if (s->watchdog_ns) {
		r |= set_number("WATCHDOG_USEC", s->watchdog_ns / NS_PER_US);
		r |= set_number("WATCHDOG_PID", (uint64_t)getpid());
	}
	if (s->kept == 0)
		return r;
	names = end = malloc(s->names_bytes + 1);
	if (!names)
		return -1;
	for (int fd = FIRST_FD; fd <= s->last; fd++)
		if (s->names[fd][0])
			end += sprintf(end, "%s%s", end == names ? "" : ":", s->names[fd]);
	r |= setenv("LISTEN_FDNAMES", names, 1);
	r |= set_number("LISTEN_FDS", s->kept);
	r |= set_number("LISTEN_PID", (uint64_t)getpid());
	free(names);
	return r;
}

/* In the child: from here on our own descriptors may be overwritten. */
static int place_descriptors(struct supervisor *s)
{
	int to = FIRST_FD;

	for (int fd = FIRST_FD; fd <= s->last; fd++) {
		if (!s->names[fd][0])
			continue;
		if ((fd == to ? fcntl(fd, F_SETFD, 0) : dup2(fd, to)) < 0)
			return -1;
		to++;
	}
	return close_range((unsigned)to, ~0u, 0);
}

_Noreturn static void be_memctld(struct supervisor *s)
{
	sigset_t none;

	sigemptyset(&none);
	signal(SIGPIPE, SIG_DFL);
	if (set_environment(s) != 0)
		event_tell(EVENT_SUPERVISOR_FAILED, NULL, "supervisor: cannot make memctld's environment: %s", strerror(errno));
	else if (place_descriptors(s) < 0)
		event_tell(EVENT_SUPERVISOR_FAILED, NULL, "supervisor: cannot pass memctld's descriptors: %s", strerror(errno));
	else if (sigprocmask(SIG_SETMASK, &none, NULL) == 0) {
		execv(s->program, s->options->argv);
		event_tell(EVENT_SUPERVISOR_FAILED, NULL, "supervisor: cannot execute %s: %s", s->program, strerror(errno));
	}
	_exit(127);
}

/* What comes after a child that was not ready, or that could not be started. */
static void start_later(struct supervisor *s)
{
	s->again_ns = now_ns() + s->delay_ns;
	s->delay_ns = s->delay_ns ? s->delay_ns * 2 : FIRST_NS;
	if (s->delay_ns > LAST_NS)
		s->delay_ns = LAST_NS;
}

/* False: not now. */
static bool start_child(struct supervisor *s)
{
	pid_t pid = fork();

	if (pid == 0)
		be_memctld(s);
	if (pid < 0) {
		event_tell(EVENT_SUPERVISOR_FAILED, NULL, "supervisor: cannot fork: %s", strerror(errno));
		return false;
	}
	s->child = pid;
	s->stage = STARTING;
	s->was_ready = s->killed = false;
	s->started_ns = now_ns();
	s->deadline_ns = s->watchdog_ns ? s->started_ns + START_NS : 0;
	return true;
}

/* The child is dead, not buried.  True if that is the end, with the status to end with. */
static bool bury(struct supervisor *s, int *ret_status)
{
	siginfo_t info = { 0 };
	bool exited;
	int status;

	if (!s->child || waitid(P_PID, (id_t)s->child, &info, WEXITED | WNOHANG | WNOWAIT) < 0 || info.si_pid == 0)
		return false;
	receive_all(s);
	waitid(P_PID, (id_t)s->child, &info, WEXITED | WNOHANG);
	s->child = 0;
	exited = info.si_code == CLD_EXITED;
	status = exited ? info.si_status : 128 + info.si_status;
	*ret_status = status;
	if (exited && status == 0)
		return true;
	if (!s->ever_ready || (s->ending && s->kept == 0)) {
		if (!exited)
			event_tell(EVENT_MEMCTLD_DIED, NULL, "supervisor: memctld was killed by signal %d", info.si_status);
		return true;
	}
	if (s->was_ready)
		s->delay_ns = 0;
	start_later(s);
	event_tell(exited && status == SUPERVISE_AGAIN ? EVENT_MEMCTLD_AGAIN : EVENT_MEMCTLD_DIED, NULL,
		"supervisor: memctld (process %d) %s %d after %llu ms; %u descriptors are kept, it is started again%s",
		(int)info.si_pid, exited ? "ended with status" : "was killed by signal", info.si_status,
		(unsigned long long)((now_ns() - s->started_ns) / NS_PER_MS), s->kept, s->was_ready ? "" : " later");
	return false;
}

/* True if that is the end. */
static bool take_signals(struct supervisor *s, int *ret_status)
{
	struct signalfd_siginfo info;

	while (read(s->signal_fd, &info, sizeof info) == sizeof info) {
		/* until it is ready it may not know what to do with one; it reads its settings anyway then */
		bool now = s->child && (s->was_ready || s->stage != STARTING);

		if (info.ssi_signo == SIGCHLD)
			continue;	/* every turn of the loop looks after the child */
		if (info.ssi_signo == SIGTERM || info.ssi_signo == SIGINT) {
			s->ending = (int)info.ssi_signo;
			if (!s->child && s->kept == 0) {
				*ret_status = 128 + s->ending;
				return true;
			}
			if (!now && s->kept)
				event_tell(EVENT_SUPERVISOR_WAITS, NULL, "supervisor: told to end, but guests may wait for memctld: it is started before");
			now = now || s->kept == 0;
		}
		if (now)
			tell(s, (int)info.ssi_signo);
	}
	return false;
}

/* It was killed and is not gone: the kernel keeps a thread that waits for a lock which a client holds. */
static void explain_end(struct supervisor *s)
{
	char path[64], name[32], threads[256] = "";
	size_t n = 0;
	struct dirent *e;
	DIR *tasks;

	snprintf(path, sizeof path, "/proc/%d/task", (int)s->child);
	tasks = opendir(path);
	while (tasks && (e = readdir(tasks)) && n + sizeof name + 2 < sizeof threads) {
		int fd;
		ssize_t got;

		if (e->d_name[0] == '.')
			continue;
		snprintf(path, sizeof path, "/proc/%d/task/%.10s/comm", (int)s->child, e->d_name);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		got = fd < 0 ? 0 : read(fd, name, sizeof name);
		if (fd >= 0)
			close(fd);
		/* the first thread's name stays until all are gone */
		if (got > 1 && atoi(e->d_name) != s->child)
			n += (size_t)snprintf(threads + n, sizeof threads - n, " %.*s", (int)got - 1, name);
	}
	if (tasks)
		closedir(tasks);
	event_tell(EVENT_MEMCTLD_STAYS, NULL, "supervisor: memctld (process %d) was killed, and cannot end while a client holds a thread of it in the kernel "
		"(worker/NAME is of VM NAME):%s; end that client", (int)s->child, n ? threads : " ?");
}

static void judge_deadline(struct supervisor *s)
{
	if (!s->child || !s->deadline_ns || now_ns() < s->deadline_ns)
		return;
	if (s->stage == ABORTED) {
		tell(s, SIGKILL);
		s->deadline_ns = now_ns() + END_NS;
		if (s->killed)
			explain_end(s);
		s->killed = true;
	} else {
		abort_child(s, s->stage == STARTING ? "did not become ready" : "hangs");
	}
}

static int wait_ms(const struct supervisor *s)
{
	uint64_t until = s->child ? s->deadline_ns : s->again_ns, now = now_ns();

	if (s->child && !until)
		return -1;
	return until <= now ? 0 : (int)((until - now) / NS_PER_MS) + 1;
}

static int run(struct supervisor *s)
{
	int status = EXIT_FAILURE;

	for (;;) {
		struct pollfd p[] = { { .fd = s->signal_fd, .events = POLLIN }, { .fd = s->socket, .events = POLLIN } };

		if (!s->child && now_ns() >= s->again_ns && !start_child(s)) {
			if (!s->ever_ready)
				return EXIT_FAILURE;
			if (s->delay_ns == 0)
				s->delay_ns = FIRST_NS;
			start_later(s);
		}
		poll(p, 2, wait_ms(s));
		receive_all(s);
		if (take_signals(s, &status) || bury(s, &status))
			return status;
		judge_deadline(s);
	}
}

/* Only we and our child (which is of the same user) reach the socket: an abstract one anybody could fill. */
static int make_socket(struct supervisor *s)
{
	const char *places[] = { "/run", getenv("XDG_RUNTIME_DIR"), getenv("TMPDIR"), "/tmp" };
	static const int yes = 1;
	int n;

	for (unsigned i = 0; i < sizeof places / sizeof *places && !s->dir[0]; i++) {
		if (!places[i] || places[i][0] != '/')
			continue;
		n = snprintf(s->dir, sizeof s->dir, "%s/memctld-XXXXXX", places[i]);
		if (n > 90 || !mkdtemp(s->dir))
			s->dir[0] = 0;
	}
	if (!s->dir[0])
		return -errno;
	s->address.sun_family = AF_UNIX;
	snprintf(s->address.sun_path, sizeof s->address.sun_path, "%.90s/notify", s->dir);
	s->socket = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (s->socket < 0 || setsockopt(s->socket, SOL_SOCKET, SO_PASSCRED, &yes, sizeof yes) < 0 ||
		bind(s->socket, (struct sockaddr *)&s->address, sizeof s->address) < 0)
		return -errno;
	return 0;
}

static int make_signals(struct supervisor *s)
{
	static const int wanted[] = { SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGCHLD };
	sigset_t set;

	sigemptyset(&set);
	for (unsigned i = 0; i < sizeof wanted / sizeof *wanted; i++)
		sigaddset(&set, wanted[i]);
	signal(SIGCHLD, SIG_DFL);	/* ignored, nothing would be left to wait for */
	signal(SIGPIPE, SIG_IGN);
	sigprocmask(SIG_BLOCK, &set, NULL);
	s->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return s->signal_fd < 0 ? -errno : 0;
}

/* The path is taken once, the file each time: an upgrade puts another one there. */
static int find_program(struct supervisor *s)
{
	const char *other = getenv("MEMCTLD_SUPERVISE_PROGRAM");	/* for tests */
	ssize_t n;

	if (other) {
		n = snprintf(s->program, sizeof s->program, "%s", other);
	} else {
		n = readlink("/proc/self/exe", s->program, sizeof s->program - 1);
		if (n < 0)
			return -errno;
		s->program[n] = 0;
	}
	s->options->argv[0] = s->program;
	return n < (ssize_t)sizeof s->program ? 0 : -ENAMETOOLONG;
}

static int start(struct supervisor *s)
{
	struct rlimit limit;
	int r;

	/* kept descriptors are passed on from 3: none of them may lie below */
	do
		r = open("/dev/null", O_RDWR);
	while (r >= 0 && r < FIRST_FD);
	if (r < 0)
		return -errno;
	/* and nothing that we happened to inherit is passed on */
	close_range(FIRST_FD, ~0u, CLOSE_RANGE_CLOEXEC);
	close(r);
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
	s->names = mmap(NULL, FD_END * sizeof *s->names, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (s->names == MAP_FAILED)
		return -errno;
	r = find_program(s);
	if (r == 0)
		r = make_signals(s);
	if (r == 0)
		r = make_socket(s);
	return r;
}

int supervise_run(const struct supervise_options *o)
{
	static struct supervisor s = { .socket = -1, .signal_fd = -1 };
	int r;

	s.options = o;
	s.ready_fd = o->ready_fd;
	s.watchdog_ns = o->watchdog_s * NS_PER_S;
	r = start(&s);
	if (r < 0) {
		event_tell(EVENT_SUPERVISOR_FAILED, NULL, "supervisor: cannot start: %s", strerror(-r));
		r = EXIT_FAILURE;
	} else {
		r = run(&s);
	}
	if (s.socket >= 0)
		unlink(s.address.sun_path);
	if (s.dir[0])
		rmdir(s.dir);
	return r;
}
