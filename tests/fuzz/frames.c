/* proto/wire.h, as the daemon reads a client: bytes and descriptors in any pieces.  No descriptor is left, and none is closed twice;
 * a message is a text. */
#include "proto/wire.h"
#include "tests/fuzz/fuzz.h"
#include "tests/lib/check.h"

#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* As a hostile sender may: more descriptors than there is room for, and beside no more than a byte. */
static void send_piece(int fd, const char *data, size_t length, unsigned n_fds)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int) * 16)];
	} control = { 0 };
	struct iovec iov = { (char *)data, length };
	struct msghdr h = { .msg_iov = &iov, .msg_iovlen = 1 };
	int fds[16];

	for (unsigned i = 0; i < 16; i++)
		fds[i] = fd;
	if (n_fds) {
		struct cmsghdr *c;

		h.msg_control = &control;
		h.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
		c = CMSG_FIRSTHDR(&h);
		*c = (struct cmsghdr){ .cmsg_len = CMSG_LEN(sizeof(int) * n_fds), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS };
		memcpy(CMSG_DATA(c), fds, sizeof(int) * n_fds);
	}
	sendmsg(fd, &h, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void take_messages(struct wire_in *in, struct input *how)
{
	struct wire_message m;

	while (wire_in_next(in, &m) == 1) {
		CHECK(m.length <= in->max && strlen(m.text) == m.length);
		CHECK(m.n_fds <= WIRE_FDS_MAX);
		for (unsigned i = 0; i < m.n_fds; i++)
			CHECK(m.fds[i] >= 0);
		if (input_byte(how) & 1) {
			int fd = wire_take_fd(&m, 0);

			CHECK(fd < 0 || close(fd) == 0);
		}
		wire_message_fini(&m);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	int s[2], before = input_free_fd();
	struct wire_in w;
	uint8_t kind = input_byte(&in);

	CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s) == 0);
	/* short ones meet the end of the buffer sooner */
	wire_in_init(&w, kind & 1 ? 40 : WIRE_CALL_MAX);
	w.no_fds = kind & 2;
	while (in.left) {
		uint8_t how = input_byte(&in), n_fds = how >> 4;
		char piece[4096];
		size_t n = input_byte(&in);

		/* many at once, to fill the buffer */
		n = how & 8 ? n * 16 + 1 : n;
		n = how & 4 || n < in.left ? n : in.left;
		input_take(&in, piece, n);
		if (n)
			send_piece(s[0], piece, n, n_fds);
		if (!(how & 1))
			continue;
		if (wire_in_fill(&w, s[1]) < 0)
			break;
		if (how & 2)
			take_messages(&w, &in);
	}
	close(s[0]);
	while (wire_in_fill(&w, s[1]) > 0)
		take_messages(&w, &in);
	wire_in_fini(&w);
	close(s[1]);
	CHECK(input_free_fd() == before);
	return 0;
}
