/* Findings, and how the checks of doctor ask files and commands. */
#include "cli/doctor.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

int ask_command_ms = 3000;

void find(struct doctor *d, enum check check, enum check_state state, const char *fmt, ...)
{
	struct finding *f = &d->findings[check];
	va_list ap;

	if (state <= f->state)
		return;
	f->state = state;
	f->fix[0] = 0;
	va_start(ap, fmt);
	vsnprintf(f->text, sizeof f->text, fmt, ap);
	va_end(ap);
}

void fix(struct doctor *d, enum check check, const char *fmt, ...)
{
	struct finding *f = &d->findings[check];
	va_list ap;

	if (f->state < STATE_WARNING || f->fix[0])
		return;
	va_start(ap, fmt);
	vsnprintf(f->fix, sizeof f->fix, fmt, ap);
	va_end(ap);
}

int read_file(const struct doctor *d, const char *path, char *ret, size_t bytes)
{
	char full[700];
	size_t length = 0;
	ssize_t n;
	int fd;

	ret[0] = 0;
	if ((size_t)snprintf(full, sizeof full, "%s%s", d->root, path) >= sizeof full)
		return -ENAMETOOLONG;
	fd = open(full, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	while (length < bytes - 1 && (n = read(fd, ret + length, bytes - 1 - length)) > 0)
		length += (size_t)n;
	close(fd);
	if (length && ret[length - 1] == '\n')
		length--;
	ret[length] = 0;
	return (int)length;
}

bool read_number(const struct doctor *d, const char *path, uint64_t *ret)
{
	char text[64], *end;

	if (read_file(d, path, text, sizeof text) <= 0 || text[0] < '0' || text[0] > '9')
		return false;
	*ret = strtoull(text, &end, 10);
	return !*end;
}

static long long now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (long long)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* All that comes until the end, or -ETIMEDOUT. */
static int read_until(int fd, long long until_ms, char *ret, size_t bytes)
{
	size_t length = 0;
	char lost[256];

	for (;;) {
		long long left = until_ms - now_ms();
		struct pollfd p = { .fd = fd, .events = POLLIN };
		bool room = length < bytes - 1;
		ssize_t n;

		if (left <= 0 || poll(&p, 1, (int)left) == 0)
			return -ETIMEDOUT;
		n = read(fd, room ? ret + length : lost, room ? bytes - 1 - length : sizeof lost);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		length += room ? (size_t)n : 0;
	}
	if (length && ret[length - 1] == '\n')
		length--;
	ret[length] = 0;
	return 0;
}

static _Noreturn void be_command(const char *const argv[], int out)
{
	int null = open("/dev/null", O_RDWR);

	setenv("LC_ALL", "C", 1);
	setenv("SYSTEMD_PAGER", "", 1);
	dup2(null, STDIN_FILENO);
	dup2(null, STDERR_FILENO);
	dup2(out, STDOUT_FILENO);
	execvp(argv[0], (char *const *)(uintptr_t)argv);
	_exit(127);
}

int ask_command(const char *const argv[], char *ret, size_t bytes)
{
	int fds[2], status, r;
	pid_t pid;

	ret[0] = 0;
	if (pipe2(fds, O_CLOEXEC) < 0)
		return -errno;
	pid = fork();
	if (pid < 0) {
		r = -errno;
		close(fds[0]);
		close(fds[1]);
		return r;
	}
	if (!pid)
		be_command(argv, fds[1]);
	close(fds[1]);
	r = read_until(fds[0], now_ms() + ask_command_ms, ret, bytes);
	close(fds[0]);
	if (r < 0)
		kill(pid, SIGKILL);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (r < 0)
		return r;
	return WIFEXITED(status) ? WEXITSTATUS(status) == 127 ? -ENOENT : WEXITSTATUS(status) : -EIO;
}

void user_name(char ret[64])
{
	const struct passwd *pw = getpwuid(geteuid());

	if (pw)
		snprintf(ret, 64, "%s", pw->pw_name);
	else
		snprintf(ret, 64, "%u", (unsigned)geteuid());
}

void group_name(unsigned gid, char ret[64])
{
	const struct group *g = getgrgid(gid);

	if (g)
		snprintf(ret, 64, "%s", g->gr_name);
	else
		snprintf(ret, 64, "%u", gid);
}
