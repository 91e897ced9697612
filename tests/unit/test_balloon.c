/* The balloon in the memory engine: a real lease with its two threads in this process, whose guest is this thread. */
#include "mem/inject.h"
#include "mem/kept.h"
#include "mem/vm_impl.h"
#include "base/clock.h"
#include "tests/lib/check.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define ARENA_BYTES (32ull << 20)
#define PAGES	    1024u
#define MAX	    (PAGES * 65 / 100)

static struct mem_settings settings = { .zstd_level = 1, .zip_max_pct = 50, .zip_max_alloc_pct = 50, .fault_around_pages = 64,
	.ctl_max_pct = 65 };
static struct problem problem;
static struct arena *arena;
static struct vm *vm;
static struct lease *lease;
static uint8_t *ram;

/* As a client registers it. */
static int open_registered(void)
{
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_MISSING_SHMEM |
		UFFD_FEATURE_WP_HUGETLBFS_SHMEM };
	struct uffdio_register reg = { .range = { (uint64_t)ram, PAGES * PAGE_SIZE },
		.mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP };
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);

	if (fd < 0 || ioctl(fd, UFFDIO_API, &api) < 0)
		check_skip("no userfaultfd that protects shared memory");
	CHECK_EQ(ioctl(fd, UFFDIO_REGISTER, &reg), 0);
	return fd;
}

static void begin(void)
{
	struct vm_config c = { .name = "v", .size_bytes = PAGES * PAGE_SIZE, .reservation_bytes = 1 << 20, .shares = 10,
		.swap_dir = "/tmp", .keep_swap_sparse = true };

	inject.hasty = true;
	CHECK_MSG(arena_new(&arena, ARENA_BYTES, NULL, &problem) == 0, "%s", problem.text);
	CHECK_MSG(vm_new(&vm, arena, &settings, &c, &problem) == 0, "%s", problem.text);
	CHECK_MSG(lease_new(&lease, vm, 0, PAGES * PAGE_SIZE, &problem) == 0, "%s", problem.text);
	ram = mmap(NULL, PAGES * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, lease_fd(lease), 0);
	CHECK(ram != MAP_FAILED);
	CHECK_MSG(lease_activate(lease, open_registered(), (uint64_t)ram, &problem) == 0, "%s", problem.text);
	vm_set_balloon_driver(vm);
}

static void gone(void *userdata)
{
	*(_Atomic bool *)userdata = true;
}

static void wait_for(_Atomic bool *done)
{
	while (!*done)
		nanosleep(&(struct timespec){ .tv_nsec = 50000 }, NULL);
}

static void end(void)
{
	_Atomic bool has_gone = false;

	munmap(ram, PAGES * PAGE_SIZE);
	vm_stop(vm, gone, &has_gone);
	wait_for(&has_gone);
	vm_free(vm);
	arena_free(arena);
}

static void job_done(struct job *job, void *userdata)
{
	gone(userdata);
}

/* r; *ret: the job as it came back. */
static int run(struct job job, struct job *ret)
{
	_Atomic bool done = false;

	job.done = job_done;
	job.userdata = &done;
	CHECK_EQ(lease_submit(lease, &job), 0);
	wait_for(&done);
	if (ret)
		*ret = job;
	return job.r;
}

static uint8_t refused[PAGES / 8];

static bool was_refused(unsigned at)
{
	return refused[at / 8] >> at % 8 & 1;
}

/* How many are in the balloon afterwards. */
static uint64_t inflate_until(const struct run *runs, unsigned n, uint64_t until_ns)
{
	struct job job = { .kind = JOB_INFLATE, .runs = runs, .n_runs = n, .refused = refused, .until_ns = until_ns,
		.range = { runs[0].page, runs[n - 1].page + runs[n - 1].count - runs[0].page } }, ret;

	memset(refused, 0, sizeof refused);
	CHECK_EQ(run(job, &ret), 0);
	return ret.pages;
}

static uint64_t inflate(uint64_t page, uint64_t count)
{
	return inflate_until(&(struct run){ page, count }, 1, UINT64_MAX);
}

static uint64_t deflate(uint64_t page, uint64_t count)
{
	struct run r = { page, count };
	struct job job = { .kind = JOB_DEFLATE, .range = r, .runs = &r, .n_runs = 1 }, ret;

	CHECK_EQ(run(job, &ret), 0);
	return ret.pages;
}

static void act(enum job_kind kind, uint64_t page, uint64_t count)
{
	CHECK_EQ(run((struct job){ .kind = kind, .range = { page, count } }, NULL), 0);
}

static void fill(uint64_t page, uint64_t count)
{
	for (uint64_t i = page; i < page + count; i++)
		memset(ram + i * PAGE_SIZE, (int)(1 + i % 255), PAGE_SIZE);
}

static enum page_state state_of(uint64_t page)
{
	struct map_run r;

	CHECK_EQ(lease_map_run(lease, page, UINT64_MAX, false, &r), 1);
	return r.state;
}

static uint64_t in_balloon(void)
{
	return atomic_load(&vm->pages[PAGE_BALLOONED]);
}

/* The ledger is true, and nothing was found that somebody put there behind our back. */
static void audit(void)
{
	struct job job = { .kind = JOB_AUDIT, .range = { 0, PAGES } }, ret;

	CHECK_EQ(run(job, &ret), 0);
	CHECK_MSG(ret.audit.wrong == 0, "%s", ret.audit.first_wrong);
	CHECK_EQ(ret.audit.foreign, 0);
	CHECK_EQ(ret.audit.discarded, 0);
	CHECK_EQ(ret.audit.ballooned, in_balloon());
	CHECK_EQ(ret.audit.zero + ret.audit.resident + ret.audit.compressed + ret.audit.swapped + ret.audit.ballooned, PAGES);
}

/* ---- scenarios ---- */

static void what_is_given_costs_nothing(void)
{
	uint64_t charged, blocks;
	struct vm_numbers n;

	begin();
	fill(0, 256);
	charged = atomic_load(&lease->memory->frames);
	blocks = segment_blocks(lease->memory);
	CHECK_EQ(inflate(0, 200), 200);
	CHECK_EQ(charged - atomic_load(&lease->memory->frames), 200);
	CHECK_EQ(blocks - segment_blocks(lease->memory), 200);
	CHECK_EQ(state_of(0), PAGE_BALLOONED);
	CHECK_EQ(state_of(200), PAGE_RESIDENT);
	audit();
	vm_numbers(vm, &n);
	CHECK_EQ(n.ballooned_bytes, 200 * PAGE_SIZE);
	CHECK_EQ(n.inflated_pages, 200);
	CHECK_EQ(n.discarded_pages, 0);
	for (unsigned i = 200; i < 256; i++)
		CHECK_EQ(ram[i * PAGE_SIZE], 1 + i % 255);
	/* a call whose reply was lost comes again */
	CHECK_EQ(inflate(0, 200), 200);
	vm_numbers(vm, &n);
	CHECK_EQ(n.inflated_pages, 200);
	CHECK_EQ(deflate(0, 200), 200);
	CHECK_EQ(deflate(0, 200), 0);
	CHECK_EQ(state_of(0), PAGE_ZERO);
	CHECK_EQ(ram[5], 0);
	vm_numbers(vm, &n);
	CHECK_EQ(n.ballooned_bytes, 0);
	CHECK_EQ(n.ballooned_peak_bytes, 200 * PAGE_SIZE);
	CHECK_EQ(n.deflated_pages, 200);
	CHECK_EQ(n.balloon_touched_pages, 0);
	audit();
	end();
}

static void from_every_place(void)
{
	struct cache_numbers c;

	begin();
	/* to the cache, and (what does not shrink) to the swap file */
	fill(0, 32);
	for (unsigned i = 32; i < 64; i++)
		for (unsigned k = 0; k < PAGE_SIZE; k += 4)
			*(uint32_t *)(ram + i * PAGE_SIZE + k) = (i * 4096 + k) * 2654435761u ^ (k * 40503u) << 7;
	act(JOB_DONT_NEED, 0, 64);
	CHECK(state_of(0) == PAGE_COMPRESSED || state_of(0) == PAGE_SWAPPED);
	/* never touched: 64 and above */
	CHECK_EQ(inflate(0, 128), 128);
	cache_get_numbers(vm->stores.cache, &c);
	CHECK_EQ(c.live_objects, 0);
	CHECK_EQ(swap_used_slots(vm->stores.swap), 0);
	audit();
	CHECK_EQ(deflate(10, 64), 64);
	for (unsigned i = 0; i < 128; i++)
		CHECK_EQ(ram[i * PAGE_SIZE + 7], 0);
	audit();
	end();
}

static void a_touch_takes_one_page_out(void)
{
	struct vm_numbers n;

	begin();
	fill(0, 64);
	CHECK_EQ(inflate(0, 64), 64);
	/* a sequential reader, who would otherwise be given more than he asks for */
	for (unsigned i = 0; i < 8; i++)
		CHECK_EQ(ram[i * PAGE_SIZE + 100], 0);
	CHECK_EQ(in_balloon(), 56);
	ram[20 * PAGE_SIZE] = 9;
	CHECK_EQ(in_balloon(), 55);
	CHECK_EQ(state_of(20), PAGE_RESIDENT);
	/* it is the guest's, and a deflate of it says nothing of its content */
	CHECK_EQ(deflate(20, 2), 1);
	CHECK_EQ(ram[20 * PAGE_SIZE], 9);
	vm_numbers(vm, &n);
	CHECK_EQ(n.balloon_touched_pages, 9);
	CHECK_EQ(n.refault_pages, 0);
	audit();
	end();
}

/* Content is read in order from page 0 up to the balloon, with all that comes in beside it. */
static uint64_t stream_towards_the_balloon(void)
{
	uint64_t left;

	begin();
	fill(0, 512);
	CHECK_EQ(inflate(384, 64), 64);
	for (unsigned i = 0; i < 512; i += 64)
		act(JOB_DONT_NEED, i, 64);
	CHECK(state_of(0) == PAGE_COMPRESSED && state_of(383) == PAGE_COMPRESSED && state_of(448) == PAGE_COMPRESSED);
	for (unsigned i = 0; i < 384; i++)
		CHECK_EQ(ram[i * PAGE_SIZE + 1], 1 + i % 255);
	/* the worker has nothing under way when it comes to this */
	act(JOB_WILL_NEED, 0, 1);
	left = in_balloon();
	audit();
	return left;
}

static void a_stream_ends_at_the_balloon(void)
{
	struct vm_numbers n;

	CHECK_EQ(stream_towards_the_balloon(), 64);
	vm_numbers(vm, &n);
	CHECK(n.around_pages > 256 && n.events < 64);
	CHECK_EQ(n.balloon_touched_pages, 0);
	/* and is one again behind it */
	for (unsigned i = 448; i < 512; i++)
		CHECK_EQ(ram[i * PAGE_SIZE + 1], 1 + i % 255);
	end();
	inject.twin_balloon_ahead = true;
	CHECK(stream_towards_the_balloon() < 64);
	inject.twin_balloon_ahead = false;
	end();
}

static void what_is_refused_stays(void)
{
	struct run runs[] = { { 0, 4 }, { 10, 20 }, { 100, 1 } };

	begin();
	fill(0, 128);
	act(JOB_PIN, 12, 3);
	CHECK_EQ(inflate_until(runs, 3, UINT64_MAX), 22);
	for (unsigned i = 0; i < 25; i++)
		CHECK_EQ(was_refused(i), i >= 6 && i < 9);
	for (unsigned i = 12; i < 15; i++)
		CHECK(ram[i * PAGE_SIZE] == 1 + i && state_of(i) == PAGE_RESIDENT);
	act(JOB_UNPIN, 12, 3);
	CHECK_EQ(inflate(12, 3), 3);
	/* a pin brings it out */
	act(JOB_PIN, 12, 1);
	CHECK_EQ(state_of(12), PAGE_RESIDENT);
	CHECK_EQ(in_balloon(), 24);
	audit();
	end();
}

/* A client has given up waiting for this call, and its guest may go on with the pages. */
static void what_is_late_is_not_done(void)
{
	begin();
	fill(0, 64);
	CHECK_EQ(inflate_until(&(struct run){ 0, 64 }, 1, now_ns() - 1), 0);
	for (unsigned i = 0; i < 64; i++)
		CHECK(was_refused(i) && ram[i * PAGE_SIZE] == 1 + i);
	end();
}

/* With each rule off, what the two above guard is lost. */
static void the_twins_lose(void)
{
	begin();
	fill(0, 64);
	inject.twin_balloon_late = true;
	CHECK_EQ(inflate_until(&(struct run){ 0, 8 }, 1, now_ns() - 1), 8);
	CHECK(ram[0] == 0 && ram[7 * PAGE_SIZE] == 0);
	act(JOB_PIN, 12, 3);
	inject.twin_balloon_pinned = true;
	CHECK_EQ(inflate(12, 3), 3);
	CHECK_EQ(ram[12 * PAGE_SIZE], 0);
	end();
}

static void a_lease_that_leaves_gives_nothing(void)
{
	begin();
	fill(0, 8);
	CHECK_EQ(inflate(4, 4), 4);
	act(JOB_GATHER, 0, PAGES);
	CHECK_EQ(state_of(4), PAGE_BALLOONED);	/* a hole reads as zeros to its new owner, too */
	CHECK_EQ(inflate(0, 4), 0);
	CHECK(was_refused(0) && ram[0] == 1);
	end();
}

static void set_cap(uint64_t bytes)
{
	struct vm_config c = *vm_config(vm);

	c.balloon_max_bytes = VM_OWN | bytes;
	CHECK_MSG(vm_set_config(vm, &c, &problem) == 0, "%s", problem.text);
}

static void the_cap_holds(void)
{
	begin();
	fill(0, PAGES);
	CHECK_EQ(inflate(0, PAGES), MAX);
	CHECK(!was_refused(MAX - 1) && was_refused(MAX));
	CHECK_EQ(ram[MAX * PAGE_SIZE], 1 + MAX % 255);
	set_cap((MAX + 10) * PAGE_SIZE);
	CHECK_EQ(inflate(MAX, 64), 10);
	set_cap(5 * PAGE_SIZE);
	CHECK_EQ(inflate(PAGES - 1, 1), 0);
	/* what is in it stays in it */
	CHECK_EQ(in_balloon(), MAX + 10);
	audit();
	end();
}

static void a_new_driver_finds_it_empty(void)
{
	struct job all = { .kind = JOB_DEFLATE, .range = { 0, PAGES } }, ret;

	begin();
	fill(0, 700);
	CHECK_EQ(inflate(100, 500), 500);
	ram[150 * PAGE_SIZE] = 3;
	CHECK_EQ(run(all, &ret), 0);
	CHECK_EQ(ret.pages, 499);
	CHECK_EQ(in_balloon(), 0);
	CHECK(ram[150 * PAGE_SIZE] == 3 && ram[99 * PAGE_SIZE] == 100 && ram[100 * PAGE_SIZE] == 0);
	audit();
	end();
}

static void a_discard_takes_it_out(void)
{
	begin();
	fill(0, 8);
	CHECK_EQ(inflate(0, 8), 8);
	act(JOB_DISCARD, 2, 2);
	CHECK_EQ(in_balloon(), 6);
	CHECK_EQ(state_of(2), PAGE_ZERO);
	CHECK_EQ(state_of(4), PAGE_BALLOONED);
	audit();
	end();
}

/* ---- a driver that lies: its guest uses what it gives ---- */

#define STORM_PAGES 64u
#define GUESTS	    3u

static _Atomic bool storm_over;

/* Each guest has a word of each page.  It may be lost, with the page; what is never right is an older value, or another's. */
static void *use_what_was_given(void *userdata)
{
	uint64_t index = *(uint64_t *)userdata, last[STORM_PAGES] = { 0 }, n = 0, wrong = 0, random = index + 1;

	while (!storm_over) {
		uint64_t page = (random = random * 6364136223846793005ull + 1442695040888963407ull) >> 40;
		_Atomic uint64_t *at;

		page %= STORM_PAGES;
		at = (_Atomic uint64_t *)(void *)(ram + page * PAGE_SIZE) + index;
		wrong += *at != last[page] && *at != 0;
		last[page] = ++n << 8 | index;
		*at = last[page];
	}
	*(uint64_t *)userdata = wrong;
	return NULL;
}

static void a_lying_driver_harms_only_its_guest(void)
{
	uint64_t guests[GUESTS], until = now_ns() + 500 * NS_PER_MS, random = 7, turns = 0;
	pthread_t threads[GUESTS];
	struct vm_numbers n;

	begin();
	fill(STORM_PAGES, 64);
	storm_over = false;
	for (uint64_t i = 0; i < GUESTS; i++) {
		guests[i] = i;
		CHECK_EQ(pthread_create(&threads[i], NULL, use_what_was_given, &guests[i]), 0);
	}
	while (now_ns() < until || turns < 100) {
		uint64_t page = (random = random * 6364136223846793005ull + 1442695040888963407ull) >> 40, count;

		count = 1 + page / STORM_PAGES % 32;
		page %= STORM_PAGES - 31;
		switch (turns++ % 4) {
		case 0:
			inflate(page, count);
			break;
		case 1:
			deflate(page, count);
			break;
		case 2:
			act(JOB_DONT_NEED, page, count);
			break;
		default:
			/* beside it nobody gave anything */
			act(JOB_DONT_NEED, STORM_PAGES, 64);
			for (unsigned i = STORM_PAGES; i < STORM_PAGES + 64; i++)
				CHECK_EQ(ram[i * PAGE_SIZE + 1], 1 + i);
		}
	}
	storm_over = true;
	for (unsigned i = 0; i < GUESTS; i++) {
		pthread_join(threads[i], NULL);
		CHECK_EQ(guests[i], 0);
	}
	vm_numbers(vm, &n);
	CHECK(n.inflated_pages > 0 && n.balloon_touched_pages > 0 && n.evicted_pages > 0);
	audit();
	end();
}

static struct vm_balloon look(void)
{
	struct vm_balloon b;

	vm_get_balloon(vm, &b);
	return b;
}

static void targets_and_claims(void)
{
	begin();
	CHECK(look().driver && !look().planned && look().max_frames == MAX);
	fill(0, 64);
	CHECK_EQ(inflate(0, 10), 10);
	/* before anybody plans, nothing is to move */
	CHECK_EQ(look().target_frames, 10);
	vm_set_balloon_target(vm, 20);
	CHECK(look().planned && look().target_frames == 20);
	vm_set_balloon_target(vm, PAGES);
	CHECK_EQ(look().target_frames, MAX);

	/* an agent's word: believed as far as there are zero pages, and for as long as it lasts */
	vm_set_balloon_target(vm, 100);
	vm_claim_balloon(vm, 40, UINT64_MAX);
	CHECK_EQ(look().frames, 50);
	CHECK_EQ(vm_balloon_told(vm, false), 60);
	CHECK_EQ(vm_balloon_told(vm, true), 0);
	vm_claim_balloon(vm, 2 * PAGES, UINT64_MAX);
	CHECK_EQ(look().frames, 10 + atomic_load(&vm->pages[PAGE_ZERO]));
	vm_claim_balloon(vm, 40, now_ns() - 1);
	CHECK_EQ(look().frames, 10);
	end();
}

static void an_agent_alone(void)
{
	begin();
	atomic_store(&vm->balloon.driver, false);
	CHECK(!look().driver && look().max_frames == 0 && look().target_frames == 0);
	vm_claim_balloon(vm, 30, UINT64_MAX);
	CHECK(look().driver && look().max_frames == MAX && look().frames == 30);
	/* not planned: it keeps what it has */
	CHECK_EQ(vm_balloon_told(vm, true), 30);
	vm_set_balloon_target(vm, 77);
	CHECK_EQ(vm_balloon_told(vm, true), 77);
	vm_claim_balloon(vm, 0, 0);
	CHECK(!look().driver);
	end();
}

int main(int argc, char **argv)
{
	return check_main(argc, argv, (const struct scenario[]){
		SCENARIO(what_is_given_costs_nothing),
		SCENARIO(from_every_place),
		SCENARIO(a_touch_takes_one_page_out),
		SCENARIO(what_is_refused_stays),
		SCENARIO(what_is_late_is_not_done),
		SCENARIO(a_stream_ends_at_the_balloon), SCENARIO(the_twins_lose),
		SCENARIO(a_lease_that_leaves_gives_nothing),
		SCENARIO(the_cap_holds),
		SCENARIO(a_new_driver_finds_it_empty),
		SCENARIO(a_discard_takes_it_out),
		SCENARIO(a_lying_driver_harms_only_its_guest),
		SCENARIO(targets_and_claims),
		SCENARIO(an_agent_alone),
		{ 0 } });
}
