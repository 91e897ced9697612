#include "notify.h"

#include "base/clock.h"
#include "base/events.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define WAIT_NS	     NS_PER_S
#define FIRST_FD     3		/* SD_LISTEN_FDS_START */
#define INHERIT_MAX  (1 << 20)	/* no process has more descriptors (fs.nr_open) */

/* What the manager keeps.  Both limits are its own, but beyond them it would not tell us: it throws away, or fails at the
 * next start. */
static _Atomic long kept, kept_names_bytes;
/* The last failure that was logged: the watchdog's messages would repeat it for ever. */
static _Atomic int told;

/* A variable's value as a number; false if it is not set, or not one. */
static bool number_of(const char *variable, unsigned long long *ret)
{
	const char *value = getenv(variable);
	char *end;

	if (!value || value[0] < '0' || value[0] > '9')
		return false;
	errno = 0;
	*ret = strtoull(value, &end, 10);
	return errno == 0 && !*end;
}

/* Is what `variable` introduces meant for this process?  It is in the environment of our children too. */
static bool for_us(const char *variable)
{
	unsigned long long pid;

	return number_of(variable, &pid) && pid == (unsigned long long)getpid();
}

/* Length of the address, or -errno: -ENOTCONN without a manager. */
static int manager_address(struct sockaddr_un *a)
{
	const char *path = getenv("NOTIFY_SOCKET");
	size_t n = path ? strlen(path) : 0;

	if (n == 0)
		return -ENOTCONN;
	/* "vsock:" and what may come are for virtual machines */
	if (n >= sizeof a->sun_path || (path[0] != '/' && path[0] != '@'))
		return -EAFNOSUPPORT;
	*a = (struct sockaddr_un){ .sun_family = AF_UNIX };
	memcpy(a->sun_path, path, n);
	if (a->sun_path[0] == '@')
		a->sun_path[0] = 0;
	return (int)(offsetof(struct sockaddr_un, sun_path) + n);
}

/* Before the same is tried again after `err`.  0, or -errno: not again. */
static int wait_for_manager(int s, int err, uint64_t until_ns)
{
	struct pollfd p = { .fd = s, .events = POLLOUT };
	uint64_t now = now_ns();

	if (err == EINTR)
		return 0;
	if (now >= until_ns)
		return -err;
	if (err == EAGAIN) {
		poll(&p, 1, (int)((until_ns - now) / NS_PER_MS) + 1);
		return 0;
	}
	if (err == ETOOMANYREFS) {
		/* our user has more descriptors under way than one process may have: gone once they are read */
		nanosleep(&(struct timespec){ .tv_nsec = 5 * NS_PER_MS }, NULL);
		return 0;
	}
	return -err;
}

/* One datagram, with a descriptor unless fd is -1. */
static int transmit(const char *state, int fd)
{
	struct sockaddr_un a;
	struct iovec iov = { .iov_base = (void *)(uintptr_t)state, .iov_len = strlen(state) };
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };
	uint64_t until_ns = now_ns() + WAIT_NS;
	int s, r, length = manager_address(&a);

	if (length < 0)
		return length;
	if (fd >= 0) {
		m.msg_control = control.room;
		m.msg_controllen = sizeof control.room;
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(sizeof fd);
		memcpy(CMSG_DATA(&control.header), &fd, sizeof fd);
	}
	s = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (s < 0)
		return -errno;
	/* connected, so that poll says when the manager's queue has room again */
	r = connect(s, (struct sockaddr *)&a, (socklen_t)length) < 0 ? -errno : 0;
	while (r == 0 && sendmsg(s, &m, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		r = wait_for_manager(s, errno, until_ns);
	close(s);
	return r;
}

void notify_send(const char *state)
{
	int r = transmit(state, -1);

	if (r == -ENOTCONN)
		return;
	if (atomic_exchange(&told, r) != r && r < 0)
		event_tell(EVENT_MANAGER_DEAF, NULL, "cannot notify the service manager: %s", strerror(-r));
}

bool notify_keeps(void)
{
	struct sockaddr_un a;
	const char *most = getenv("FDSTORE");

	return manager_address(&a) > 0 && (!most || strcmp(most, "0"));
}

static void count(const char *name, int by)
{
	atomic_fetch_add(&kept, by);
	atomic_fetch_add(&kept_names_bytes, by * (long)(strlen(name) + 1));
}

int notify_keep(const char *name, int fd)
{
	char state[64 + NOTIFY_NAME_BYTES];
	unsigned long long most;
	int r;

	if (strlen(name) >= NOTIFY_NAME_BYTES || fd < 0)
		return -EINVAL;
	if (!number_of("FDSTORE", &most) || most > NOTIFY_KEEP_MAX)
		most = NOTIFY_KEEP_MAX;
	count(name, 1);
	if (atomic_load(&kept) > (long)most || atomic_load(&kept_names_bytes) > NOTIFY_NAMES_MAX) {
		count(name, -1);
		return -ENOSPC;
	}
	snprintf(state, sizeof state, "FDSTORE=1\nFDNAME=%s\nFDPOLL=0", name);
	r = transmit(state, fd);
	if (r < 0)
		count(name, -1);
	return r;
}

void notify_drop(const char *name)
{
	char state[64 + NOTIFY_NAME_BYTES];
	int r;

	snprintf(state, sizeof state, "FDSTOREREMOVE=1\nFDNAME=%s", name);
	r = transmit(state, -1);
	if (r == 0)
		count(name, -1);
	else if (r != -ENOTCONN)
		event_tell(EVENT_MANAGER_DEAF, NULL, "the service manager goes on keeping %s: %s", name, strerror(-r));
}

int notify_inherited(struct inherited **ret, unsigned *ret_n)
{
	static const char *const variables[] = { "LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES" };
	const char *names = getenv("LISTEN_FDNAMES");
	unsigned long long given = 0;
	struct inherited *list = NULL;
	unsigned n = 0;

	if (!for_us("LISTEN_PID") || !number_of("LISTEN_FDS", &given) || given > INHERIT_MAX)
		given = 0;
	if (given) {
		list = calloc(given, sizeof *list);
		if (!list)
			return -ENOMEM;
	}
	for (unsigned i = 0; i < given; i++) {
		size_t length = names ? strcspn(names, ":") : 0;
		int fd = FIRST_FD + (int)i;

		/* one that is not there must not cost the others */
		if (fcntl(fd, F_SETFD, FD_CLOEXEC) == 0) {
			list[n].fd = fd;
			if (length < NOTIFY_NAME_BYTES)
				memcpy(list[n].name, names ? names : "", length);
			count(list[n].name, 1);
			n++;
		}
		if (names)
			names = names[length] ? names + length + 1 : NULL;
	}
	for (unsigned i = 0; i < sizeof variables / sizeof *variables; i++)
		unsetenv(variables[i]);
	*ret = list;
	*ret_n = n;
	return 0;
}

uint64_t notify_watchdog_ns(void)
{
	unsigned long long us;

	if (getenv("WATCHDOG_PID") && !for_us("WATCHDOG_PID"))
		return 0;
	return number_of("WATCHDOG_USEC", &us) && us < UINT64_MAX / 1000 ? us * 1000 : 0;
}
