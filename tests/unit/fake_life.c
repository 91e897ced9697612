/* One fake daemon after the other: their parent, what it keeps for them (descriptors wait in a socket that it has both ends of), and
 * what the test does with them. */
#include "tests/unit/fake_life.h"

#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

struct fake *fake;
pid_t client;
static int store[2];	/* what waits in it is kept */

void note(const char *fmt, ...)
{
	unsigned n = fake->notes_n;
	va_list ap;

	if (n == FAKE_NOTES_MAX)
		return;
	va_start(ap, fmt);
	vsnprintf(fake->notes[n], sizeof fake->notes[n], fmt, ap);
	va_end(ap);
	fake->notes_n = n + 1;
}

void keep(enum kept_what what, uint64_t number, uint64_t value, int fd)
{
	struct kept k = { .what = what, .number = number, .value = value };
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof fd)];
	} control = { 0 };
	struct iovec iov = { &k, sizeof k };
	struct msghdr h = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (fd >= 0) {
		struct cmsghdr *c;

		h.msg_control = &control;
		h.msg_controllen = sizeof control;
		c = CMSG_FIRSTHDR(&h);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof fd);
		memcpy(CMSG_DATA(c), &fd, sizeof fd);
	}
	if (sendmsg(store[1], &h, MSG_DONTWAIT | MSG_NOSIGNAL) != sizeof k)
		note("not kept");
}

bool take_kept(struct kept *ret, int *ret_fd)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	struct iovec iov = { ret, sizeof *ret };
	struct msghdr h = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control };
	struct cmsghdr *c;

	*ret_fd = -1;
	if (recvmsg(store[0], &h, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) != sizeof *ret)
		return false;
	c = CMSG_FIRSTHDR(&h);
	if (c)
		memcpy(ret_fd, CMSG_DATA(c), sizeof *ret_fd);
	return true;
}

/* Its parent, life after life; until the test is gone. */
static _Noreturn void raise_fakes(int orders_in)
{
	struct pollfd test = { orders_in, 0, 0 };

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	alarm(0);
	for (;;) {
		pid_t pid = fork();

		if (pid < 0)
			abort();
		if (pid == 0)
			live(orders_in);
		fake->pid = pid;
		waitpid(pid, NULL, 0);
		fake->pid = 0;
		fake->deaths++;
		while (!fake->again)
			if (poll(&test, 1, 1) > 0)
				_exit(0);
		usleep(fake->away_ms * 1000);
		fake->again--;
	}
}

static void wait_for_life(struct fake *f, unsigned life)
{
	for (unsigned tries = 0; f->lives < life || !f->pid; tries++) {
		if (tries == 10000)
			abort();
		usleep(1000);
	}
}

struct fake *fake_start(void)
{
	int orders[2];
	pid_t pid;

	fake = mmap(NULL, sizeof *fake, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	strcpy(fake->dir, "/tmp/memctl-unit-XXXXXX");
	if (fake == MAP_FAILED || !mkdtemp(fake->dir) || chmod(fake->dir, 0755) < 0 || pipe(orders) < 0 ||
		socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, store) < 0)
		abort();
	snprintf(fake->socket, sizeof fake->socket, "%s/s", fake->dir);
	client = getpid();
	pid = fork();
	if (pid < 0)
		abort();
	if (pid == 0) {
		close(orders[1]);
		raise_fakes(orders[0]);
	}
	fake->parent = pid;
	close(store[0]);
	close(store[1]);
	close(orders[0]);
	fake->orders = orders[1];
	wait_for_life(fake, 1);
	return fake;
}

void fake_die(struct fake *f)
{
	unsigned deaths = f->deaths;
	pid_t pid = f->pid;

	if (!pid)
		return;
	kill(pid, SIGKILL);
	while (f->deaths == deaths)
		usleep(100);
}

void fake_again(struct fake *f)
{
	unsigned life = f->lives + 1;

	f->again = 1;
	wait_for_life(f, life);
}

void fake_kill(struct fake *f)
{
	f->again = 0;
	fake_die(f);
	kill(f->parent, SIGKILL);
	waitpid(f->parent, NULL, 0);
	unlink(f->socket);
	rmdir(f->dir);
}

const char *fake_note(struct fake *f, unsigned *from, const char *beginning)
{
	for (unsigned tries = 0; tries < 5000; tries++) {
		for (; *from < f->notes_n; ++*from)
			if (!strncmp(f->notes[*from], beginning, strlen(beginning)))
				return f->notes[(*from)++];
		usleep(1000);
	}
	return NULL;
}

unsigned fake_count(struct fake *f, const char *beginning)
{
	unsigned n = 0;

	for (unsigned i = 0; i < f->notes_n; i++)
		n += !strncmp(f->notes[i], beginning, strlen(beginning));
	return n;
}
