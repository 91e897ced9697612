/* The daemon's orders: small looks and touches at our mapping that only this process can do.
 *
 *	zap       madvise(MADV_DONTNEED) on the runs (lease_zap).  On a shared mapping this drops the page table entries, not
 *	          the pages: the next access maps them again by a kernel fault of 1 us, unseen by the daemon.
 *	          Where the pool is mapped it would throw private copies away: such pages are left out, whatever
 *	          the daemon says.
 *	present   bit 63 of /proc/self/pagemap for each page of the runs: those mapped again were used.
 *	share, home, private, settle   share.c
 *	plain     plain.c
 *	balloon   balloon.c: a new target, not answered
 *
 * They come as the replies of one Attend call on a connection of its own, are carried out strictly in order, and
 * each is answered by a oneway Done on the calls connection.  What cannot be carried out (a lease that is being
 * released, a range outside it) is answered with nothing in it: the daemon takes that as no information.
 *
 * An order holds the lock of the leases while it acts, so that none acts on a lease that is going away.  Who reads
 * and carries out is the helper thread, or whoever calls memctl_dispatch, or a thread that waits for the reply to
 * a call (call.c); never two of them at once. */
#include "libclient/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGEMAP_PRESENT (1ull << 63)
/* As many as fit into the hex string of an answer. */
#define BITS_PAGES_MAX ((OP_STR_MAX - 1) / 2 * 8)
#define SHARE_PAGES_MAX 512
#define SETTLE_PAGES_MAX 256
#define HELPER_STACK_BYTES (256u << 10)

static bool runs_valid(const struct memctl_lease *l, const struct op_runs *runs)
{
	uint64_t pages = l->size / PAGE_SIZE;

	for (unsigned i = 0; i < runs->n; i++) {
		const struct op_run *run = &runs->run[i];

		if (!run->count || run->page >= pages || run->count > pages - run->page)
			return false;
	}
	return runs->n > 0;
}

static void zap(struct memctl_lease *l, const struct op_runs *runs)
{
	/* A failure leaves the pages mapped: they will look used, which harms nobody. */
	for (unsigned i = 0; i < runs->n; i++) {
		uint64_t page = runs->run[i].page, left = runs->run[i].count;

		while (left) {
			uint64_t n = share_unshared(l, page, left);

			if (n)
				lease_zap(l, page, n);
			else
				n = 1;
			page += n;
			left -= n;
		}
	}
}

static uint64_t pages_of(const struct op_runs *runs)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < runs->n; i++)
		n += runs->run[i].count;
	return n;
}

/* 0, or -errno: it cannot be told. */
static int look(struct memctl_lease *l, const struct op_runs *runs, uint8_t *bits)
{
	uint64_t entries[64];
	unsigned n = 0;

	for (unsigned i = 0; i < runs->n; i++) {
		uint64_t page = ((uintptr_t)l->address / PAGE_SIZE) + runs->run[i].page;
		uint64_t left = runs->run[i].count;

		while (left) {
			size_t some = left < 64 ? left : 64;

			if (pread(l->m->pagemap_fd, entries, some * 8, (off_t)(page * 8)) != (ssize_t)(some * 8))
				return -EIO;
			for (size_t k = 0; k < some; k++, n++)
				if (entries[k] & PAGEMAP_PRESENT)
					bits[n / 8] |= (uint8_t)(1u << n % 8);
			page += some;
			left -= some;
		}
	}
	return 0;
}

/* One bit a page in the order of the runs, least significant first. */
static void write_bits(const uint8_t *bits, uint64_t n, char *ret_hex)
{
	uint64_t i;

	for (i = 0; i < (n + 7) / 8; i++) {
		ret_hex[2 * i] = "0123456789abcdef"[bits[i] >> 4];
		ret_hex[2 * i + 1] = "0123456789abcdef"[bits[i] & 15];
	}
	ret_hex[2 * i] = 0;
}

/* The answer into *done.  SHARE_UNFINISHED: there must not be one. */
static int act(struct memctl_lease *l, const struct op_attend_out *order, struct op_done_in *done)
{
	uint8_t bits[BITS_PAGES_MAX / 8] = { 0 };
	const struct op_runs *runs = &order->runs;
	uint64_t pages = pages_of(runs);
	int r = -EINVAL;

	if (!strcmp(order->kind, "zap")) {
		zap(l, runs);
		return 0;
	}
	if (!strcmp(order->kind, "plain"))
		return plain_order(l, runs, &done->pages);
	if (l->plain || pages > BITS_PAGES_MAX)
		return 0;
	if (!strcmp(order->kind, "present"))
		r = look(l, runs, bits);
	else if (pages > SHARE_PAGES_MAX)
		return 0;
	else if (!strcmp(order->kind, "share"))
		r = share_order(l, runs, bits, &done->pages);
	else if (!strcmp(order->kind, "private"))
		r = share_private(l, runs, bits);
	else if (!strcmp(order->kind, "home"))
		return share_home(l, runs, &done->pages);
	else if (!strcmp(order->kind, "settle") && pages <= SETTLE_PAGES_MAX) {
		r = share_settle(l, runs, bits);
		pages *= 2;
	}
	if (!r)
		write_bits(bits, pages, done->bits);
	return r;
}

static void carry_out(struct memctl *m, const struct op_attend_out *order)
{
	struct op_done_in done = { .order = order->order };
	struct memctl_lease *l;
	int r = 0;

	if (!strcmp(order->kind, "balloon")) {
		if (order->runs.n == 1 && order->runs.run[0].page <= INT64_MAX / PAGE_SIZE)
			balloon_set_target(m, order->runs.run[0].page * PAGE_SIZE);
		return;
	}
	pthread_mutex_lock(&m->leases_lock);
	l = lease_find(m, order->lease);
	if (l && runs_valid(l, &order->runs))
		r = act(l, order, &done);
	if (r == SHARE_UNFINISHED)
		l->unfinished = true;
	pthread_mutex_unlock(&m->leases_lock);
	if (r != SHARE_UNFINISHED)
		call_oneway(m, OP_done, &done);
}

/* 0: carried out; -errno: this is no order, the connection is of no use. */
static int take_order(struct memctl *m, const struct wire_message *wire)
{
	struct op_attend_out *order;
	struct body body;
	int r;

	r = body_parse(&body, wire->text, wire->length, NULL);
	if (r < 0)
		return r;
	order = calloc(1, sizeof *order);
	if (!order)
		r = -ENOMEM;
	else if (body.error)
		r = -ENOTCONN;
	else
		r = body_decode(&body, ops[OP_attend].out, false, order, NULL);
	body_fini(&body);
	if (!r)
		carry_out(m, order);
	free(order);
	return r;
}

/* Under `dispatch`. */
static int dispatch(struct memctl *m, struct memctl_error *e)
{
	int done = 0, r = 0;

	link_tick(m);
	while (m->link == LINK_UP) {
		struct wire_message wire = WIRE_MESSAGE_NULL;

		r = wire_in_next(&m->orders_in, &wire);
		if (r > 0) {
			r = take_order(m, &wire);
			wire_message_fini(&wire);
			if (r < 0)
				break;
			done++;
			continue;
		}
		if (!r)
			r = wire_in_fill(&m->orders_in, m->orders_fd);
		if (r == -EAGAIN)
			return done;
		if (r <= 0)
			break;
	}
	link_down(m);
	if (!done && m->link == LINK_LOST)
		return fail(e, -ENOTCONN, ERROR_UNREACHABLE,
			"memctld has this VM no more: accesses to pages that are not resident wait for ever");
	return done;
}

int memctl_dispatch(struct memctl *m, struct memctl_error *e)
{
	int r;

	if (m->wait_fd < 0)
		return 0;
	pthread_mutex_lock(&m->dispatch);
	r = dispatch(m, e);
	pthread_mutex_unlock(&m->dispatch);
	link_try(m);
	return r;
}

int orders_try(struct memctl *m)
{
	int r;

	if (pthread_mutex_trylock(&m->dispatch))
		return -EBUSY;
	r = dispatch(m, NULL);
	pthread_mutex_unlock(&m->dispatch);
	return r;
}

static void *help(void *userdata)
{
	struct memctl *m = userdata;
	struct pollfd fds[2] = {
		{ .fd = m->helper_stop_fd, .events = POLLIN },
		{ .fd = m->wait_fd, .events = POLLIN },
	};

	for (;;) {
		if (poll(fds, 2, -1) < 0 && errno != EINTR)
			break;
		if (fds[0].revents)
			break;
		if (fds[1].revents)
			memctl_dispatch(m, NULL);
	}
	return NULL;
}

int memctl_helper_start(struct memctl *m, struct memctl_error *e)
{
	pthread_attr_t attr;
	sigset_t all, old;
	int r;

	if (m->helper_runs || m->plain)
		return 0;
	if (m->wait_fd < 0)
		return fail(e, -EINVAL, ERROR_INVALID, "no VM is registered: there are no orders to attend to");
	m->helper_stop_fd = eventfd(0, EFD_CLOEXEC);
	if (m->helper_stop_fd < 0) {
		r = -errno;
		return fail(e, r, ERROR_SYSTEM, "eventfd: %s", strerror(-r));
	}
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, HELPER_STACK_BYTES);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = -pthread_create(&m->helper, &attr, help, m);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	if (r < 0) {
		close(m->helper_stop_fd);
		m->helper_stop_fd = -1;
		return fail(e, r, ERROR_SYSTEM, "cannot start the helper thread: %s", strerror(-r));
	}
	m->helper_runs = true;
	/* somebody carries orders out from now on; if nothing can be shared, nothing is */
	(void)memctl_share(m, NULL);
	return 0;
}

void memctl_helper_stop(struct memctl *m)
{
	/* a guest thread that waits for an order to be carried out would wait for ever */
	if (m->pool_fd < 0)
		orders_end_helper(m);
}

void orders_end_helper(struct memctl *m)
{
	uint64_t one = 1;

	if (!m->helper_runs)
		return;
	while (write(m->helper_stop_fd, &one, sizeof one) < 0 && errno == EINTR)
		;
	pthread_join(m->helper, NULL);
	close(m->helper_stop_fd);
	m->helper_stop_fd = -1;
	m->helper_runs = false;
}

int memctl_fd(const struct memctl *m)
{
	return m->wait_fd;
}
