#include "proto/wire.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define READ_BYTES (64u << 10)
#define FD_LOST	   -1

int wire_take_fd(struct wire_message *m, unsigned i)
{
	int fd;

	if (i >= m->n_fds || i >= WIRE_FDS_MAX)
		return -1;
	fd = m->fds[i];
	m->fds[i] = -1;
	return fd;
}

void wire_message_fini(struct wire_message *m)
{
	if (!m)
		return;
	for (unsigned i = 0; i < WIRE_FDS_MAX && i < m->n_fds; i++)
		if (m->fds[i] >= 0)
			close(m->fds[i]);
	*m = (struct wire_message)WIRE_MESSAGE_NULL;
}

void wire_in_init(struct wire_in *in, size_t max)
{
	*in = (struct wire_in){ .max = max };
}

void wire_in_fini(struct wire_in *in)
{
	for (unsigned i = 0; i < in->n_fds; i++)
		if (in->fds[i].fd >= 0)
			close(in->fds[i].fd);
	free(in->data);
	*in = (struct wire_in){ .max = in->max };
}

void wire_in_trim(struct wire_in *in)
{
	if (in->start < in->end || in->capacity <= READ_BYTES)
		return;
	free(in->data);
	in->data = NULL;
	in->capacity = 0;
}

/* Room for one read behind `end`.  A read may take the start of the next message along, so the buffer is a
 * little larger than the longest message; its growth doubles and ends there. */
static int make_room(struct wire_in *in)
{
	size_t unread = in->end - in->start, want = unread + READ_BYTES, capacity;
	char *data;

	if (in->capacity - in->end >= READ_BYTES)
		return 0;
	if (in->start > 0) {
		memmove(in->data, in->data + in->start, unread);
		in->scanned -= in->start;
		in->end = unread;
		in->start = 0;
	}
	if (in->capacity >= want)
		return 0;
	capacity = in->capacity * 2 > want ? in->capacity * 2 : want;
	data = realloc(in->data, capacity);
	if (!data)
		return -ENOMEM;
	in->data = data;
	in->capacity = capacity;
	return 0;
}

static int note_fd(struct wire_in *in, int fd, uint64_t at)
{
	if (in->n_fds == sizeof in->fds / sizeof in->fds[0]) {
		if (fd >= 0)
			close(fd);
		return -EBADMSG;
	}
	in->fds[in->n_fds++] = (struct wire_fd){ .at = at, .fd = fd };
	return 0;
}

/* The kernel has no memory just now: no byte was moved, and it passes. */
static int soft_errno(void)
{
	return errno == EWOULDBLOCK || errno == ENOBUFS || errno == ENOMEM ? -EAGAIN : -errno;
}

int wire_in_fill(struct wire_in *in, int fd)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int) * WIRE_FDS_MAX)];
	} control;
	struct iovec iov;
	struct msghdr h = { .msg_iov = &iov, .msg_iovlen = 1 };
	uint64_t at;
	ssize_t n;
	int r;

	r = make_room(in);
	if (r < 0)
		return r;
	iov = (struct iovec){ in->data + in->end, READ_BYTES };
	if (!in->no_fds) {
		h.msg_control = &control;
		h.msg_controllen = sizeof control;
	}
	do
		n = recvmsg(fd, &h, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return soft_errno();

	/* take hold of every descriptor before anything can go wrong with the bytes */
	at = in->consumed + (in->end - in->start) + (n > 0 ? (uint64_t)n - 1 : 0);
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&h); c; c = CMSG_NXTHDR(&h, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < (c->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
			int passed, rr;

			memcpy(&passed, CMSG_DATA(c) + i * sizeof(int), sizeof passed);
			rr = note_fd(in, passed, at);
			if (rr < 0)
				r = rr;
		}
	}
	if (h.msg_flags & MSG_CTRUNC && r == 0)
		r = note_fd(in, FD_LOST, at);
	if (r < 0)
		return r;
	in->end += (size_t)n;
	if (n > 0 && in->end - in->start > in->max + 1 && !memchr(in->data + in->start, 0, in->max + 1))
		return -EMSGSIZE;
	return (int)n;
}

int wire_in_next(struct wire_in *in, struct wire_message *ret)
{
	struct wire_message m = WIRE_MESSAGE_NULL;
	uint64_t last;
	unsigned kept = 0;
	char *nul;

	if (in->scanned < in->start)
		in->scanned = in->start;
	if (in->scanned == in->end)
		return 0;
	nul = memchr(in->data + in->scanned, 0, in->end - in->scanned);
	if (!nul) {
		in->scanned = in->end;
		return in->end - in->start > in->max ? -EMSGSIZE : 0;
	}
	m.text = in->data + in->start;
	m.length = (size_t)(nul - m.text);
	if (m.length > in->max)
		return -EMSGSIZE;
	last = in->consumed + m.length;
	for (unsigned i = 0; i < in->n_fds; i++) {
		struct wire_fd *f = &in->fds[i];

		if (f->at > last) {
			in->fds[kept++] = *f;
		} else if (f->fd == FD_LOST) {
			m.fds_lost = true;
		} else if (m.n_fds == WIRE_FDS_MAX) {
			close(f->fd);
			m.fds_lost = true;
		} else {
			m.fds[m.n_fds++] = f->fd;
		}
	}
	in->n_fds = kept;
	in->consumed = last + 1;
	in->start += m.length + 1;
	in->scanned = in->start;
	if (in->start == in->end)
		in->start = in->end = in->scanned = 0; /* the bytes stay where they are for the message */
	*ret = m;
	return 1;
}

/* Wait for `events` until the deadline: 0, -ETIMEDOUT, -errno.  Errors and hang-ups are left to the next
 * call. */
static int wait_for(int fd, short events, uint64_t deadline_ns)
{
	for (;;) {
		struct pollfd p = { .fd = fd, .events = events };
		int ms = -1, n;

		if (deadline_ns != UINT64_MAX) {
			struct timespec t;
			uint64_t now, left;

			clock_gettime(CLOCK_MONOTONIC, &t);
			now = (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
			left = deadline_ns > now ? (deadline_ns - now + 999999) / 1000000 : 0;
			ms = left > INT_MAX ? INT_MAX : (int)left;
		}
		n = poll(&p, 1, ms);
		if (n > 0)
			return 0;
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n == 0 && ms >= 0 && ms < INT_MAX)
			return -ETIMEDOUT;
	}
}

int wire_receive(int fd, struct wire_in *in, uint64_t deadline_ns, struct wire_message *ret)
{
	for (;;) {
		int r = wire_in_next(in, ret);

		if (r != 0)
			return r;
		r = wire_in_fill(in, fd);
		if (r == -EAGAIN) {
			r = wait_for(fd, POLLIN, deadline_ns);
			if (r < 0)
				return r;
		} else if (r <= 0) {
			return r;
		}
	}
}

int wire_send_some(int fd, const char *data, size_t length, const int *fds, unsigned n_fds)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int) * WIRE_FDS_MAX)];
	} control = { 0 };
	struct iovec iov = { (char *)data, length < INT_MAX ? length : INT_MAX };
	struct msghdr h = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t n;

	assert(n_fds <= WIRE_FDS_MAX);
	if (n_fds > 0) {
		struct cmsghdr *c;

		h.msg_control = &control;
		h.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
		c = CMSG_FIRSTHDR(&h);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
		memcpy(CMSG_DATA(c), fds, sizeof(int) * n_fds);
	}
	do
		n = sendmsg(fd, &h, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return soft_errno();
	return (int)n;
}

int wire_send(int fd, const char *text, size_t length, const int *fds, unsigned n_fds, uint64_t deadline_ns)
{
	size_t sent = 0;

	while (sent <= length) {
		int n = wire_send_some(fd, text + sent, length + 1 - sent, fds, n_fds);

		if (n == -EAGAIN) {
			int r = wait_for(fd, POLLOUT, deadline_ns);

			if (r < 0)
				return r;
			continue;
		}
		if (n < 0)
			return n;
		if (n > 0)
			n_fds = 0;
		sent += (size_t)n;
	}
	return 0;
}

static int connect_to(const char *path, int type, int *ret_fd)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd, err;

	if (strlen(path) >= sizeof a.sun_path)
		return -ENAMETOOLONG;
	strcpy(a.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | type, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (struct sockaddr *)&a, sizeof a) < 0) {
		err = errno;
		close(fd);
		return -err;
	}
	*ret_fd = fd;
	return 0;
}

int wire_connect(const char *path, int *ret_fd)
{
	return connect_to(path, 0, ret_fd);
}

int wire_connect_now(const char *path, int *ret_fd)
{
	return connect_to(path, SOCK_NONBLOCK, ret_fd);
}
