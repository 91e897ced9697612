/* The oracle: computes what the guest must find, natively, in plain memory of its own, and compares.
 *
 * Theory of operation.  It reads the same plan and the same files as the emulator, and does each job in C as
 * the results of the emulator arrive on stdin: one hash a page that guest code read.  It knows neither
 * libmemctl nor Unicorn, and shares no code with the guest: the guest sorts by Shell's method in assembly,
 * the oracle by qsort.  Which page an object of the heap lies in depends on the balloon, and is not asked; what it holds, is.  Whatever is lost, mixed up or zeroed on the way through leases, caches and swap shows
 * as another hash.
 *
 *	oracle PLAN <results		progress and the verdict on stdout, one line each:
 *		job N of M OP verified V wrong W
 *		done verified V wrong W complete 0|1
 *
 * Exit: 0 all right, 1 something was wrong, 2 the results ended early. */
#include "guest.h"
#include "plan.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define WORDS (PLAN_PAGE_SIZE / 8)

struct oracle {
	struct plan plan;
	uint64_t *memory;
	uint64_t object_seeds[GUEST_HEAP_MAX];
	uint64_t verified, wrong, objects;
	unsigned job;
	bool ended;
};

static uint64_t *page(struct oracle *o, uint32_t n)
{
	return o->memory + (uint64_t)n * WORDS;
}

static uint64_t hash_page(struct oracle *o, uint32_t n)
{
	const uint64_t *w = page(o, n);
	uint64_t h = GUEST_HASH_START;

	for (unsigned i = 0; i < WORDS; i++) {
		h = (h ^ w[i]) * GUEST_HASH_MULTIPLY;
		h = h << GUEST_HASH_ROTATE | h >> (64 - GUEST_HASH_ROTATE);
	}
	return h ^ h >> 32;
}

static void seal(struct oracle *o, uint32_t n)
{
	page(o, GUEST_TABLE_PAGE)[n] = hash_page(o, n);
}

static uint64_t xorshift(uint64_t x)
{
	x ^= x << 13;
	x ^= x >> 7;
	return x ^ x << 17;
}

static void mix(struct oracle *o, uint32_t n, uint64_t seed, uint32_t stride_bytes)
{
	uint64_t *w = page(o, n), key = (n * (uint64_t)GUEST_KEY_MULTIPLY ^ seed) | 1;

	for (unsigned i = 0; i < WORDS; i += stride_bytes / 8) {
		key = xorshift(key);
		w[i] += key;
	}
}

/* The next result, which must be the one of that page. */
static bool receive(struct oracle *o, uint32_t what, struct plan_result *ret)
{
	if (o->ended)
		return false;
	if (fread(ret, sizeof(*ret), 1, stdin) != 1) {
		o->ended = true;
		return false;
	}
	if (ret->job == o->job && ret->page == what)
		return true;
	fprintf(stderr,
		"oracle: job %u: a result for page %" PRIu32 " of job %" PRIu32 ", expected page %" PRIu32 "\n",
		o->job, ret->page, ret->job, what);
	o->wrong++;
	o->ended = true;
	return false;
}

static void expect(struct oracle *o, uint32_t what, uint64_t value)
{
	struct plan_result got;

	if (!receive(o, what, &got))
		return;
	if (what == PLAN_JOB_DONE) {
		if (got.value != value)
			fprintf(stderr,
				"oracle: job %u: the guest found %" PRIu64
				" pages that differ from its table\n",
				o->job, got.value);
		o->wrong += got.value;
		return;
	}
	o->verified++;
	if (got.value == value)
		return;
	if (o->wrong++ < 8)
		fprintf(stderr,
			"oracle: job %u (%s): page %" PRIu32 " is %016" PRIx64 ", must be %016" PRIx64 "\n",
			o->job, plan_op_names[o->plan.jobs[o->job].op], what, got.value, value);
}

static int compare_words(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static void walk(struct oracle *o, const struct plan_job *j)
{
	uint64_t state = j->seed;

	for (uint32_t i = 0; i < j->steps && !o->ended; i++) {
		uint64_t u, x;
		uint32_t n;

		state = xorshift(state);
		u = state >> 32;
		x = (u * u >> 32) * u >> 32;
		n = j->first + (uint32_t)(x * j->pages >> 32);
		expect(o, n, hash_page(o, n));
		if ((state & 3) == 0) {
			mix(o, n, state, j->stride_bytes);
			seal(o, n);
		}
	}
}

static uint64_t hash_object(struct oracle *o, uint32_t n, uint64_t seed)
{
	uint64_t key = (n * (uint64_t)GUEST_KEY_MULTIPLY ^ seed) | 1;
	uint64_t *w = page(o, o->plan.heap_first);

	for (unsigned i = 0; i < WORDS; i++)
		w[i] = key = xorshift(key);
	return hash_page(o, o->plan.heap_first);
}

/* How much is in the balloon is memctld's affair; but the guest's allocator must count it as used. */
static void judge_heap(struct oracle *o)
{
	struct plan_result used = { 0 }, guest = { 0 }, host = { 0 };

	if (!receive(o, PLAN_HEAP_USED, &used) || !receive(o, PLAN_HEAP_BALLOONED, &guest) ||
		!receive(o, PLAN_HOST_BALLOONED, &host))
		return;
	if (used.value == o->objects + guest.value && guest.value == host.value)
		return;
	if (o->wrong++ < 8)
		fprintf(stderr,
			"oracle: job %u: the guest counts %" PRIu64 " pages as used and %" PRIu64
			" in the balloon, where there are %" PRIu64 " objects, and %" PRIu64 " pages were taken\n",
			o->job, used.value, guest.value, o->objects, host.value);
}

static void do_heap_job(struct oracle *o, const struct plan_job *j)
{
	if (j->op == PLAN_BALLOON)
		judge_heap(o);
	if (j->op == PLAN_USE)
		o->objects += j->pages;
	if (j->op == PLAN_DROP)
		o->objects -= j->pages;
	for (uint32_t n = j->first; n < j->first + j->pages && !o->ended; n++) {
		if (j->op == PLAN_USE)
			o->object_seeds[n] = j->seed;
		if (j->op == PLAN_LOOK)
			expect(o, n, hash_object(o, n, o->object_seeds[n]));
	}
	expect(o, PLAN_JOB_DONE, 0);
}

static void do_job(struct oracle *o, const struct plan_job *j)
{
	if (j->op == PLAN_SORT)
		qsort(page(o, j->first), (size_t)j->pages * WORDS, 8, compare_words);
	if (j->op == PLAN_WALK)
		walk(o, j);
	else
		for (uint32_t n = j->first; n < j->first + j->pages && !o->ended; n++) {
			if (j->op == PLAN_SEAL || j->op == PLAN_SORT)
				seal(o, n);
			if (j->op != PLAN_SEAL)
				expect(o, n, hash_page(o, n));
			if (j->op == PLAN_REWRITE) {
				mix(o, n, j->seed, j->stride_bytes);
				seal(o, n);
			}
		}
	expect(o, PLAN_JOB_DONE, 0);
}

static int load(struct oracle *o)
{
	uint64_t size = (uint64_t)o->plan.pages * PLAN_PAGE_SIZE;

	o->memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (o->memory == MAP_FAILED)
		return -errno;
	memcpy(o->memory, guest_begin, (size_t)(guest_end - guest_begin));
	for (unsigned i = 0; i < o->plan.n_files; i++) {
		const struct plan_file *f = &o->plan.files[i];
		char *to = (char *)page(o, f->first);
		uint64_t done = 0;
		int fd = open(f->path, O_RDONLY | O_CLOEXEC);

		if (fd < 0)
			return -errno;
		while (done < f->bytes) {
			ssize_t n = read(fd, to + done, f->bytes - done);

			if (n <= 0) {
				n = n < 0 ? -errno : -EIO;
				close(fd);
				return (int)n;
			}
			done += (uint64_t)n;
		}
		close(fd);
	}
	return 0;
}

int main(int argc, char **argv)
{
	struct oracle o = { 0 };
	int r;

	if (argc != 2) {
		fprintf(stderr, "usage: oracle PLAN <RESULTS\n");
		return 16;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	r = plan_read(&o.plan, argv[1]);
	if (r < 0)
		return 4;
	r = load(&o);
	if (r < 0) {
		fprintf(stderr, "oracle: cannot load the files of %s: %s\n", argv[1], strerror(-r));
		plan_fini(&o.plan);
		return 4;
	}
	for (; o.job < o.plan.n_jobs && !o.ended; o.job++) {
		if (o.plan.jobs[o.job].op >= PLAN_BOOT)
			do_heap_job(&o, &o.plan.jobs[o.job]);
		else
			do_job(&o, &o.plan.jobs[o.job]);
		if (!o.ended)
			printf("job %u of %u %s verified %" PRIu64 " wrong %" PRIu64 "\n", o.job + 1,
				o.plan.n_jobs, plan_op_names[o.plan.jobs[o.job].op], o.verified, o.wrong);
	}
	printf("done verified %" PRIu64 " wrong %" PRIu64 " complete %d\n", o.verified, o.wrong, !o.ended);
	plan_fini(&o.plan);
	return o.wrong ? 1 : o.ended ? 2 : 0;
}
