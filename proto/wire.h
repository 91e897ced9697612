/* Framing: messages over a Unix stream socket.
 *
 * A message is the text of one JSON object followed by a NUL byte (varlink).  File descriptors travel beside
 * it as SCM_RIGHTS.  This layer knows bytes and descriptors; what is in a message is proto/body.h.
 *
 * WHO OWNS A DESCRIPTOR.  Exactly one holder at every line: the kernel's queue, then struct wire_in, then
 * struct wire_message, then whoever called wire_take_fd(), which leaves -1 behind.  wire_message_fini() and
 * wire_in_fini() close what nobody took.  Sending never takes a descriptor: the sender keeps its own.
 *
 * WHICH MESSAGE A DESCRIPTOR BELONGS TO.  The kernel ends a read behind the chunk that carried descriptors,
 * so they belong to the message that holds the last byte of that read.  This is exact when a sender gives
 * each message that has descriptors to one sendmsg() of its own; wire_send() does.
 *
 * Neither side trusts the other: lengths are capped, descriptors beyond the cap are closed and the message is
 * marked. No function here blocks unless its comment says so.  Not thread-safe: one thread a direction, or a
 * lock. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WIRE_CALL_MAX  (256u << 10)	/* the longest message that the daemon accepts */
#define WIRE_REPLY_MAX (64u << 20)	/* the longest that a client accepts */
#define WIRE_FDS_MAX   4u		/* the most descriptors of one message */

/* A received message.  `text` is NUL-terminated and lies in the receive buffer: it is valid until the next
 * call of a wire_in function. */
struct wire_message {
	const char *text;
	size_t length;			/* without the NUL */
	int fds[WIRE_FDS_MAX];		/* -1: taken, or none */
	unsigned n_fds;			/* how many came with it */
	bool fds_lost; /* more came than we accept (or than we may open): refuse the message */
};
#define WIRE_MESSAGE_NULL { .fds = { -1, -1, -1, -1 } }

/* The i-th descriptor becomes the caller's; -1 if there is none or it was taken. */
int wire_take_fd(struct wire_message *m, unsigned i);
/* Close what was not taken.  The message may be used again.  NULL is fine. */
void wire_message_fini(struct wire_message *m);

/* A receive buffer: bytes in, whole messages with their descriptors out. */
struct wire_in {
	char *data;
	size_t start, end, capacity;	/* the unread bytes are data[start, end) */
	size_t scanned;			/* no NUL in data[start, scanned) */
	size_t max;			/* the longest message, without its NUL */
	bool no_fds;			/* descriptors stay with the kernel, which closes them: they count as lost */
	uint64_t consumed;		/* stream offset of data[start] */
	struct wire_fd {
		uint64_t at;		/* stream offset of the last byte of the read it came with */
		int fd;			/* -1: marks descriptors that were lost */
	} fds[4 * WIRE_FDS_MAX];
	unsigned n_fds;
};

void wire_in_init(struct wire_in *in, size_t max);
/* Gives back what the buffer has grown by, if nothing is in it; the last message's text goes with it. */
void wire_in_trim(struct wire_in *in);
/* Frees the buffer and closes what is in it. */
void wire_in_fini(struct wire_in *in);
/* One read of at most 64 KiB, without blocking.  > 0: bytes read; 0: the peer has closed; -EAGAIN: nothing
 * there; -EMSGSIZE: a message is longer than `max`; -EBADMSG: too many descriptors wait; else -errno.  All
 * but -EAGAIN are final: the connection is of no use any more. */
int wire_in_fill(struct wire_in *in, int fd);
/* 1: *ret is the next whole message, its descriptors are the caller's; 0: there is none yet; -EMSGSIZE. */
int wire_in_next(struct wire_in *in, struct wire_message *ret);

/* Blocks until a message is there: 1; 0: the peer has closed; -ETIMEDOUT; -errno.  `deadline_ns` is
 * CLOCK_MONOTONIC, UINT64_MAX: for ever.  *ret as of wire_in_next. */
int wire_receive(int fd, struct wire_in *in, uint64_t deadline_ns, struct wire_message *ret);

/* Blocks until text[0, length] (with its NUL) and the descriptors are in the socket.  0, -ETIMEDOUT, -errno.
 * After a failure the stream may hold half a message: close it.  Raises no SIGPIPE.  The descriptors stay the
 * caller's. */
int wire_send(int fd, const char *text, size_t length, const int *fds, unsigned n_fds, uint64_t deadline_ns);
/* One sendmsg() without blocking of `length` bytes as they are: bytes sent, -EAGAIN, -errno.  If any byte was
 * sent, so were the descriptors. */
int wire_send_some(int fd, const char *data, size_t length, const int *fds, unsigned n_fds);

/* Connect to the socket at `path`: 0 and *ret_fd (close-on-exec), or -errno.  Blocks no longer than the
 * listener's backlog makes it. */
int wire_connect(const char *path, int *ret_fd);
/* The same, but never blocks: -EAGAIN: the backlog is full. */
int wire_connect_now(const char *path, int *ret_fd);
