/* notify.c and supervise.c: what they say to each other, without processes (tests/system/test_supervise.py has those). */
#include "notify.h"
#include "supervise.h"
#include "tests/lib/check.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static struct notification parsed(const char *text)
{
	static char room[4097];
	struct notification n;

	snprintf(room, sizeof room, "%s", text);
	notification_parse(&n, room, strlen(room));
	return n;
}

static void lines_are_understood(void)
{
	struct notification n = parsed("READY=1\nSTATUS=serving 3 VMs\n");

	CHECK(n.ready && !n.stopping && !n.keep && !n.drop && !n.barrier && !n.alive && !n.hung);
	CHECK(!strcmp(n.status, "serving 3 VMs"));
	n = parsed("STOPPING=1");
	CHECK(n.stopping && !n.ready && !n.status);
	CHECK(parsed("WATCHDOG=1").alive);
	CHECK(parsed("WATCHDOG=trigger").hung);
	CHECK(parsed("BARRIER=1").barrier);
	n = parsed("FDSTORE=1\nFDNAME=v1f.s\nFDPOLL=0");
	CHECK(n.keep && !strcmp(n.name, "v1f.s"));
	n = parsed("FDSTOREREMOVE=1\nFDNAME=v1f.s");
	CHECK(n.drop && !n.keep && !strcmp(n.name, "v1f.s"));
}

static void what_is_not_understood_is_left_out(void)
{
	struct notification n = parsed("READY=0\nready=1\nREADY=11\n\n\n=\nSTATUS\nMAINPID=1\nWATCHDOG=2\n");

	CHECK(!n.ready && !n.stopping && !n.alive && !n.hung && !n.keep && !n.drop && !n.status && !n.name);
	n = parsed("");
	CHECK(!n.ready && !n.status);
	n = parsed("STATUS=");
	CHECK(n.status && !*n.status);
}

static void bytes_of_zero_make_it_no_message(void)
{
	char text[32] = "STATUS=a\0READY=1";
	struct notification n;

	notification_parse(&n, text, 16);
	CHECK(!n.status && !n.ready);
}

static void names_are_what_a_list_can_carry(void)
{
	CHECK(!strcmp(parsed("FDSTORE=1").name, "stored"));
	CHECK(!parsed("FDSTORE=1\nFDNAME=").name);
	CHECK(!parsed("FDSTORE=1\nFDNAME=a:b").name);
	CHECK(!parsed("FDSTORE=1\nFDNAME=a b").name);
	CHECK(!parsed("FDSTORE=1\nFDNAME=a\tb").name);
	CHECK(!parsed("FDSTORE=1\nFDNAME=0123456789012345678901234567890123").name);
	CHECK(parsed("FDSTORE=1\nFDNAME=0123456789012345678901234567890").name);
	CHECK(!parsed("FDSTOREREMOVE=1").name);
}

/* A manager that we are. */
static int manager(void)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	char name[64];
	socklen_t length = sizeof a;
	int s = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);

	/* the kernel chooses an abstract name */
	CHECK(s >= 0 && bind(s, (struct sockaddr *)&a, sizeof a.sun_family) == 0);
	CHECK(getsockname(s, (struct sockaddr *)&a, &length) == 0);
	snprintf(name, sizeof name, "@%.*s", (int)(length - offsetof(struct sockaddr_un, sun_path) - 1), a.sun_path + 1);
	setenv("NOTIFY_SOCKET", name, 1);
	return s;
}

/* What comes next, and its descriptor (-1: none). */
static const char *heard(int s, int *fd)
{
	static char text[256];
	char room[CMSG_SPACE(sizeof(int))];
	struct iovec iov = { text, sizeof text - 1 };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room };
	ssize_t n = recvmsg(s, &m, 0);

	*fd = -1;
	if (n < 0)
		return "";
	text[n] = 0;
	if (CMSG_FIRSTHDR(&m))
		memcpy(fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof *fd);
	return text;
}

static void messages_arrive(void)
{
	int s = manager(), file = memfd_create("kept", MFD_CLOEXEC), fd;
	struct stat one, other;

	notify_send("READY=1\nSTATUS=x");
	CHECK(!strcmp(heard(s, &fd), "READY=1\nSTATUS=x") && fd < 0);
	CHECK(notify_keeps());
	CHECK_EQ(notify_keep("v1f.s", file), 0);
	CHECK(!strcmp(heard(s, &fd), "FDSTORE=1\nFDNAME=v1f.s\nFDPOLL=0") && fd >= 0);
	CHECK(fstat(file, &one) == 0 && fstat(fd, &other) == 0 && one.st_ino == other.st_ino);
	notify_drop("v1f.s");
	CHECK(!strcmp(heard(s, &fd), "FDSTOREREMOVE=1\nFDNAME=v1f.s") && fd < 0);
}

static void without_a_manager_nothing_happens(void)
{
	unsetenv("NOTIFY_SOCKET");
	notify_send("READY=1");
	notify_drop("a");
	CHECK(!notify_keeps());
	CHECK_EQ(notify_keep("a", 0), -ENOTCONN);
	setenv("NOTIFY_SOCKET", "vsock:2:1", 1);
	CHECK(!notify_keeps());
	CHECK_EQ(notify_keep("a", 0), -EAFNOSUPPORT);
	setenv("NOTIFY_SOCKET", "/nowhere/at/all", 1);
	CHECK_EQ(notify_keep("a", 0), -ENOENT);
}

static void a_manager_without_a_store_says_so(void)
{
	int s = manager();

	setenv("FDSTORE", "0", 1);
	CHECK(!notify_keeps());
	setenv("FDSTORE", "1", 1);
	CHECK(notify_keeps());
	CHECK_EQ(notify_keep("a", s), 0);
	CHECK_EQ(notify_keep("b", s), -ENOSPC);
	notify_drop("a");
	CHECK_EQ(notify_keep("b", s), 0);
}

static void names_fill_one_string_of_the_environment(void)
{
	int s = manager(), fd, r = 0;
	unsigned n = 0;
	char name[NOTIFY_NAME_BYTES];

	for (; n < 10000 && r == 0; n++) {
		snprintf(name, sizeof name, "%031u", n);
		r = notify_keep(name, s);
		heard(s, &fd);
		close(fd);
	}
	CHECK_EQ(r, -ENOSPC);
	CHECK_EQ(n - 1, NOTIFY_NAMES_MAX / NOTIFY_NAME_BYTES);
	CHECK_EQ(notify_keep("01234567890123456789012345678901", s), -EINVAL);
}

static void a_manager_that_does_not_read_costs_a_second(void)
{
	int s = manager(), r = 0;
	struct timespec from, to;
	double seconds;

	clock_gettime(CLOCK_MONOTONIC, &from);
	for (unsigned i = 0; i < 100000 && r == 0; i++)
		r = notify_keep("a", s);
	clock_gettime(CLOCK_MONOTONIC, &to);
	seconds = (double)(to.tv_sec - from.tv_sec) + (double)(to.tv_nsec - from.tv_nsec) / 1e9;
	CHECK_EQ(r, -EAGAIN);
	CHECK_MSG(seconds >= 0.9 && seconds < 10, "%.1f s", seconds);
}

static void inherit(const char *pid, const char *count, const char *names)
{
	setenv("LISTEN_PID", pid, 1);
	setenv("LISTEN_FDS", count, 1);
	if (names)
		setenv("LISTEN_FDNAMES", names, 1);
	else
		unsetenv("LISTEN_FDNAMES");
}

static void descriptors_are_inherited(void)
{
	struct inherited *list;
	unsigned n;
	char me[16];

	for (int fd = 3; fd < 8; fd++)
		CHECK(dup2(0, fd) == fd);
	close(6);
	snprintf(me, sizeof me, "%d", (int)getpid());
	inherit(me, "5", "a:b.2:0123456789012345678901234567890123:gone");
	CHECK_EQ(notify_inherited(&list, &n), 0);
	CHECK_EQ(n, 4);
	CHECK(list[0].fd == 3 && !strcmp(list[0].name, "a"));
	CHECK(list[1].fd == 4 && !strcmp(list[1].name, "b.2"));
	CHECK(list[2].fd == 5 && !*list[2].name);
	CHECK(list[3].fd == 7 && !*list[3].name);
	CHECK(fcntl(4, F_GETFD) == FD_CLOEXEC);
	CHECK(!getenv("LISTEN_PID") && !getenv("LISTEN_FDS") && !getenv("LISTEN_FDNAMES"));
	free(list);

	inherit("1", "5", "a:b:c:d:e");
	CHECK(notify_inherited(&list, &n) == 0 && n == 0 && !getenv("LISTEN_FDS"));
	inherit(me, "-1", NULL);
	CHECK(notify_inherited(&list, &n) == 0 && n == 0);
	inherit(me, "4000000000", NULL);
	CHECK(notify_inherited(&list, &n) == 0 && n == 0);
	inherit(me, "2", NULL);
	CHECK(notify_inherited(&list, &n) == 0 && n == 2 && !*list[0].name && list[1].fd == 4);
	free(list);
}

static void the_watchdog_is_for_one_process(void)
{
	char me[16];

	CHECK_EQ(notify_watchdog_ns(), 0);
	setenv("WATCHDOG_USEC", "3000000", 1);
	CHECK_EQ(notify_watchdog_ns(), 3000000000ull);
	setenv("WATCHDOG_PID", "1", 1);
	CHECK_EQ(notify_watchdog_ns(), 0);
	snprintf(me, sizeof me, "%d", (int)getpid());
	setenv("WATCHDOG_PID", me, 1);
	CHECK_EQ(notify_watchdog_ns(), 3000000000ull);
	setenv("WATCHDOG_USEC", "soon", 1);
	CHECK_EQ(notify_watchdog_ns(), 0);
}

int main(int argc, char **argv)
{
	return check_main(argc, argv, (const struct scenario[]){
		SCENARIO(lines_are_understood),
		SCENARIO(what_is_not_understood_is_left_out),
		SCENARIO(bytes_of_zero_make_it_no_message),
		SCENARIO(names_are_what_a_list_can_carry),
		SCENARIO(messages_arrive),
		SCENARIO(without_a_manager_nothing_happens),
		SCENARIO(a_manager_without_a_store_says_so),
		SCENARIO(names_fill_one_string_of_the_environment),
		SCENARIO(a_manager_that_does_not_read_costs_a_second),
		SCENARIO(descriptors_are_inherited),
		SCENARIO(the_watchdog_is_for_one_process),
		{ 0 },
	});
}
