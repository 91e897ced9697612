/* The balloon, on this side: pages that the guest's driver names go to the daemon in pieces, and its target comes back.
 *
 * A piece is made again after a restart like any other call; that is right because its caller has not heard of it yet, so the guest
 * has not gone on with any of its pages.  An error leaves it open what was done of the piece, so it is passed on as it is; what
 * was done of the pieces before it counts as open too (memctl.h: BALLOON). */
#include "libclient/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A page, and where the caller has it. */
struct named {
	uint64_t page;
	size_t place;
};

/* The order with the first target may be carried out before who called memctl_balloon_start has taken its reply, and does not come
 * twice: it is kept, and told when the driver is there. */
void balloon_set_target(struct memctl *m, uint64_t bytes)
{
	bool changed = atomic_exchange(&m->balloon_target, bytes) != bytes;

	if (changed && m->balloon_started)
		note_event(m, MEMCTL_EVENT_BALLOON, 0);
}

static int start(struct memctl *m, struct memctl_error *e)
{
	struct op_balloon_start_in in;
	struct op_balloon_start_out out;
	int r = call(m, OP_balloon_start, &in, -1, &out, NULL, e);

	if (!r) {
		m->balloon_again = false;
		if (!atomic_exchange(&m->balloon_started, true) && m->balloon_target)
			note_event(m, MEMCTL_EVENT_BALLOON, 0);
	}
	return r;
}

int memctl_balloon_start(struct memctl *m, struct memctl_error *e)
{
	if (!m || !m->registered)
		return fail(e, -EINVAL, ERROR_INVALID, "memctl_balloon_start: no VM is registered on this connection");
	if (m->plain)
		return 0;
	return start(m, e);
}

uint64_t memctl_balloon_target(const struct memctl *m)
{
	return m->balloon_started ? m->balloon_target : 0;
}

/* A VM that was registered anew, because it had no leases, has no page in its balloon. */
static int make_known(struct memctl *m, struct memctl_error *e)
{
	if (!m->balloon_started)
		return fail(e, -EBUSY, ERROR_INVALID, "there is no balloon driver: memctl_balloon_start comes first");
	return m->balloon_again ? start(m, e) : 0;
}

int memctl_balloon_poll(struct memctl *m, uint64_t *ret_target, struct memctl_error *e)
{
	struct op_balloon_poll_in in;
	struct op_balloon_poll_out out = { 0 };
	int r = 0;

	if (!m)
		return fail(e, -EINVAL, ERROR_INVALID, "memctl_balloon_poll: a NULL argument");
	if (!m->plain) {
		r = make_known(m, e);
		if (!r)
			r = call(m, OP_balloon_poll, &in, -1, &out, NULL, e);
		if (!r)
			balloon_set_target(m, out.target);
	}
	if (r < 0 && !m->plain)
		return r;
	if (ret_target)
		*ret_target = memctl_balloon_target(m);
	return 0;
}

static int by_page(const void *a, const void *b)
{
	const struct named *x = a, *y = b;

	return x->page < y->page ? -1 : x->page > y->page;
}

/* All of them, ascending; NULL and *ret_r: they are none. */
static struct named *sort(struct memctl_lease *l, const uint64_t *pages, size_t n, int *ret_r, struct memctl_error *e)
{
	struct named *all = calloc(n, sizeof *all);

	if (!all) {
		*ret_r = fail(e, -ENOMEM, ERROR_SYSTEM, "out of memory");
		return NULL;
	}
	for (size_t i = 0; i < n; i++)
		all[i] = (struct named){ pages[i], i };
	qsort(all, n, sizeof *all, by_page);
	*ret_r = 0;
	if (all[n - 1].page >= l->size / PAGE_SIZE)
		*ret_r = fail(e, -EINVAL, ERROR_INVALID, "page %llu is beyond the lease of %llu bytes",
			(unsigned long long)all[n - 1].page, (unsigned long long)l->size);
	for (size_t i = 1; i < n && !*ret_r; i++)
		if (all[i].page == all[i - 1].page)
			*ret_r = fail(e, -EINVAL, ERROR_INVALID, "page %llu is named twice", (unsigned long long)all[i].page);
	if (!*ret_r)
		return all;
	free(all);
	return NULL;
}

static void write_runs(struct op_runs *runs, const struct named *pages, size_t n)
{
	runs->n = 0;
	for (size_t i = 0; i < n; i++) {
		struct op_run *last = runs->n ? &runs->run[runs->n - 1] : NULL;

		if (last && last->page + last->count == pages[i].page)
			last->count++;
		else
			runs->run[runs->n++] = (struct op_run){ .page = pages[i].page, .count = 1 };
	}
}

_Static_assert(OP_BALLOON_PAGES <= OP_RUNS_MAX, "a piece of single pages is an array of runs");

/* What was refused of the piece, into the caller's array.  How many. */
static size_t read_refused(const struct op_runs *runs, const struct named *pages, size_t n, uint8_t *refused)
{
	size_t at = 0, found = 0;

	for (unsigned i = 0; i < runs->n; i++) {
		uint64_t end = runs->run[i].page + runs->run[i].count;

		while (at < n && pages[at].page < runs->run[i].page)
			at++;
		for (; at < n && pages[at].page < end; at++, found++)
			if (refused)
				refused[pages[at].place] = 1;
	}
	return found;
}

/* How many are in the balloon now, or -errno. */
static ssize_t inflate_piece(struct memctl_lease *l, const struct named *pages, size_t n, uint8_t *refused,
	struct memctl_error *e)
{
	struct op_balloon_inflate_in *in = calloc(1, sizeof *in);
	struct op_balloon_inflate_out *out = calloc(1, sizeof *out);
	ssize_t r = -ENOMEM;

	if (!in || !out) {
		fail(e, -ENOMEM, ERROR_SYSTEM, "out of memory");
	} else {
		in->lease = l->id;
		write_runs(&in->runs, pages, n);
		r = call(l->m, OP_balloon_inflate, in, -1, out, NULL, e);
		if (!r)
			r = (ssize_t)(n - read_refused(&out->refused, pages, n, refused));
	}
	free(in);
	free(out);
	return r;
}

static int deflate_piece(struct memctl_lease *l, const struct named *pages, size_t n, struct memctl_error *e)
{
	struct op_balloon_deflate_in *in = calloc(1, sizeof *in);
	struct op_balloon_deflate_out out;
	int r;

	if (!in)
		return fail(e, -ENOMEM, ERROR_SYSTEM, "out of memory");
	in->lease = l->id;
	write_runs(&in->runs, pages, n);
	r = call(l->m, OP_balloon_deflate, in, -1, &out, NULL, e);
	free(in);
	return r;
}

/* Refuses all: nobody needs them. */
static ssize_t refuse(uint8_t *refused, size_t n)
{
	if (refused)
		memset(refused, 1, n);
	return 0;
}

static int check(struct memctl_lease *l, const uint64_t *pages, size_t n, struct memctl_error *e)
{
	if (!l || (n && !pages))
		return fail(e, -EINVAL, ERROR_INVALID, "the balloon: a NULL argument");
	if (n > SIZE_MAX / 2 / sizeof(struct named))
		return fail(e, -EINVAL, ERROR_INVALID, "that many pages there are not");
	return 0;
}

ssize_t memctl_balloon_inflate(struct memctl_lease *l, const uint64_t *pages, size_t n, uint8_t *refused,
	struct memctl_error *e)
{
	struct named *all;
	ssize_t taken = 0;
	int r = check(l, pages, n, e);

	if (r < 0 || !n)
		return r;
	if (l->plain)
		return refuse(refused, n);
	r = make_known(l->m, e);
	if (r < 0)
		return r;
	all = sort(l, pages, n, &r, e);
	if (!all)
		return r;
	if (refused)
		memset(refused, 0, n);
	for (size_t at = 0; at < n; at += OP_BALLOON_PAGES) {
		ssize_t some = inflate_piece(l, all + at, n - at < OP_BALLOON_PAGES ? n - at : OP_BALLOON_PAGES, refused, e);

		if (some < 0) {
			taken = some;
			break;
		}
		taken += some;
	}
	free(all);
	/* the daemon let it go meanwhile, and takes nothing any more */
	return taken < 0 && l->plain ? refuse(refused, n) : taken;
}

int memctl_balloon_deflate(struct memctl_lease *l, const uint64_t *pages, size_t n, struct memctl_error *e)
{
	struct named *all;
	int r = check(l, pages, n, e);

	if (r < 0 || !n || l->plain)
		return r;
	r = make_known(l->m, e);
	if (r < 0)
		return r;
	all = sort(l, pages, n, &r, e);
	if (!all)
		return r;
	for (size_t at = 0; at < n && !r; at += OP_BALLOON_PAGES)
		r = deflate_piece(l, all + at, n - at < OP_BALLOON_PAGES ? n - at : OP_BALLOON_PAGES, e);
	free(all);
	/* the daemon let it go meanwhile: all of it is the guest's */
	return r < 0 && l->plain ? 0 : r;
}
