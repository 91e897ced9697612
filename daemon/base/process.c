#include "base/process.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Newer than Debian 12's kernel headers. */
#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

/* Field 22 of its stat, after the name, which may hold anything. */
uint64_t process_started(pid_t pid)
{
	char path[64], text[1024], *at;
	unsigned long long ticks = 0;
	FILE *f;
	size_t n;

	snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
	f = fopen(path, "re");
	if (!f)
		return 0;
	n = fread(text, 1, sizeof text - 1, f);
	fclose(f);
	text[n] = 0;
	at = strrchr(text, ')');
	for (unsigned i = 0; at && i < 20; i++)
		at = strchr(at + 1, ' ');
	if (at)
		sscanf(at, "%llu", &ticks);
	return ticks;
}

uint64_t process_connected(int socket, pid_t pid)
{
	struct pollfd p = { .fd = -1, .events = POLLIN };
	socklen_t length = sizeof p.fd;
	uint64_t started;

	if (getsockopt(socket, SOL_SOCKET, SO_PEERPIDFD, &p.fd, &length) < 0)
		return errno == ENOPROTOOPT ? process_started(pid) : 0;
	started = process_started(pid);
	/* it has not ended until now, so nobody else has had its number */
	if (poll(&p, 1, 0) != 0)
		started = 0;
	close(p.fd);
	return started;
}

int process_open(pid_t pid, uint64_t started)
{
	int fd = (int)syscall(SYS_pidfd_open, pid, 0);
	uint64_t now;

	if (fd < 0)
		return -errno;
	now = process_started(pid);
	if (started && now && now != started) {
		close(fd);
		return -ESRCH;
	}
	return fd;
}

int process_kill(int pidfd)
{
	return syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0) < 0 ? -errno : 0;
}
