/* The arena's wall, the words of a page map, and the stores, each by itself. */
#include "base/clock.h"
#include "mem/arena.h"
#include "mem/cache.h"
#include "mem/checksum.h"
#include "mem/codec.h"
#include "mem/direct.h"
#include "mem/inject.h"
#include "mem/page_map.h"
#include "mem/swap.h"
#include "mem/vm_impl.h"
#include "policy/plan.h"
#include "tests/lib/check.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ARENA_BYTES (16ull << 20)

static struct arena *arena;
static struct account payer;
static const struct kept_owner nobody;
static struct problem problem;

static void make_arena(uint64_t limit_frames)
{
	int r = arena_new(&arena, ARENA_BYTES, NULL, &problem);

	CHECK_MSG(r == 0, "%s", problem.text);
	account_init(&payer, arena, limit_frames);
}

static void drop_arena(void)
{
	account_fini(&payer);
	arena_free(arena);
}

static uint64_t frames_free(void)
{
	struct arena_numbers n;

	arena_numbers(arena, &n);
	return n.free_frames;
}

/* ---- arena ---- */

static void arena_is_a_wall(void)
{
	struct arena_numbers n;
	struct segment *s;

	make_arena(UINT64_MAX);
	CHECK(segment_new(&s, arena, &payer, SEGMENT_LEASE, nobody, "", 64 << 20, &problem) == 0);
	arena_numbers(arena, &n);
	CHECK(segment_charge(s, n.capacity_frames - n.reserve_frames, CHARGE_GUEST) == 0);
	CHECK_EQ(segment_charge(s, 1, CHARGE_GUEST), -ENOMEM);
	CHECK(segment_charge(s, n.reserve_frames, CHARGE_STORE) == 0);
	CHECK_EQ(segment_charge(s, 1, CHARGE_STORE), -ENOMEM);
	CHECK_EQ(frames_free(), 0);
	segment_free(s); /* uncharges */
	CHECK_EQ(frames_free(), n.capacity_frames);
	drop_arena();
}

/* Whoever was gathered, and stayed after all: charged beyond the capacity, and taken from again. */
static void what_is_lent_comes_back_with_the_frames(void)
{
	struct arena_numbers n, now;
	struct segment *s;

	make_arena(UINT64_MAX);
	CHECK(segment_new(&s, arena, &payer, SEGMENT_LEASE, nobody, "", 64 << 20, &problem) == 0);
	arena_numbers(arena, &n);
	arena_lend(arena, 1000);
	arena_unlend(arena, 1000);
	arena_numbers(arena, &now);
	CHECK_EQ(now.capacity_frames, n.capacity_frames);
	arena_lend(arena, 1000);
	CHECK(segment_charge(s, n.capacity_frames + 900 - n.reserve_frames, CHARGE_GUEST) == 0);
	arena_unlend(arena, 1000);
	arena_numbers(arena, &now);
	CHECK_EQ(now.capacity_frames, n.capacity_frames);
	CHECK_EQ(now.free_frames, 0);
	/* no guest page, and none is promised; but what an eviction needs */
	CHECK_EQ(segment_charge(s, 1, CHARGE_GUEST), -ENOMEM);
	CHECK(segment_charge(s, n.reserve_frames, CHARGE_STORE) == 0);
	CHECK_EQ(segment_charge(s, 1, CHARGE_STORE), -ENOMEM);
	for (unsigned i = 0; i < 900; i++)
		segment_uncharge(s, 1);
	CHECK_EQ(segment_charge(s, 1, CHARGE_GUEST), -ENOMEM);
	segment_uncharge(s, 2 * n.reserve_frames);
	/* all as it was */
	CHECK_EQ(frames_free(), 2 * n.reserve_frames);
	CHECK(segment_charge(s, n.reserve_frames, CHARGE_GUEST) == 0);
	CHECK_EQ(segment_charge(s, 1, CHARGE_GUEST), -ENOMEM);
	segment_free(s);
	CHECK_EQ(frames_free(), n.capacity_frames);
	drop_arena();
}

static void arena_keeps_a_limit(void)
{
	struct segment *s;

	make_arena(100);
	CHECK(segment_new(&s, arena, &payer, SEGMENT_LEASE, nobody, "", 64 << 20, &problem) == 0);
	CHECK(segment_charge(s, 100, CHARGE_GUEST) == 0);
	CHECK_EQ(segment_charge(s, 1, CHARGE_GUEST), -EDQUOT);
	CHECK(segment_charge(s, 1, CHARGE_STORE) == 0);
	CHECK(account_over_limit(&payer) > 0);
	segment_uncharge(s, 90);
	CHECK_EQ(account_over_limit(&payer), 0);
	segment_free(s);
	drop_arena();
}

static unsigned crossings;

static void count_crossing(void *data)
{
	(void)data;
	crossings++;
}

/* The arena calls for a plan where the plan begins to act, or it would call for nothing. */
static void the_margin_of_a_limit_is_the_plans(void)
{
	make_arena(UINT64_MAX);
	for (uint64_t limit = 1; limit < 1ull << 40; limit = limit * 3 / 2 + 1) {
		uint64_t margin = policy_limit_margin_frames(limit);
		struct account acc;

		account_init(&acc, arena, limit);
		atomic_store(&acc.frames, limit - margin);
		CHECK_EQ(account_over_limit(&acc), 0);
		atomic_store(&acc.frames, limit);
		CHECK_EQ(account_over_limit(&acc), margin);
	}
	drop_arena();
}

static void arena_tells_of_a_shortage_once(void)
{
	struct segment *s;

	make_arena(UINT64_MAX);
	CHECK(segment_new(&s, arena, &payer, SEGMENT_LEASE, nobody, "", 64 << 20, &problem) == 0);
	arena_set_pressure(arena, 1000, count_crossing, NULL);
	CHECK(segment_charge(s, frames_free() - 1001, CHARGE_GUEST) == 0);
	CHECK_EQ(crossings, 0);
	for (unsigned i = 0; i < 10; i++)
		CHECK(segment_charge(s, 1, CHARGE_GUEST) == 0);
	CHECK_EQ(crossings, 1);
	CHECK(arena_rearm(arena, 1000));
	CHECK(segment_charge(s, 1, CHARGE_GUEST) == 0);
	CHECK_EQ(crossings, 2);
	/* whoever has been told waits for the next threshold below; it is short all the same */
	CHECK(!arena_rearm(arena, 900));
	CHECK(segment_charge(s, frames_free() - 900, CHARGE_GUEST) == 0);
	CHECK_EQ(crossings, 2);
	CHECK(arena_is_short(arena));
	CHECK(segment_charge(s, 1, CHARGE_GUEST) == 0);
	CHECK_EQ(crossings, 3);
	segment_free(s);
	CHECK(!arena_rearm(arena, 1000));
	drop_arena();
}

/* An instant counts once, however many threads wait then. */
static void stalls_are_not_added_up(void)
{
	struct stall s = { .lock = PTHREAD_MUTEX_INITIALIZER };
	uint64_t at = now_ns() - 1000, told;

	stall_begin(&s, at - 900);
	stall_begin(&s, at - 800);
	stall_end(&s, at - 700);
	stall_begin(&s, at - 700);
	stall_end(&s, at - 600);
	stall_end(&s, at - 500);
	CHECK_EQ(stall_total_ns(&s), 400);
	/* one that was noticed late, from before the others' end: the part that they have counted is not counted again */
	stall_begin(&s, at - 650);
	stall_end(&s, at - 400);
	CHECK_EQ(stall_total_ns(&s), 500);
	stall_begin(&s, at - 450);
	stall_end(&s, at - 420);
	CHECK_EQ(stall_total_ns(&s), 500);
	/* one that goes on counts until now, */
	stall_begin(&s, at);
	told = stall_total_ns(&s);
	CHECK(told >= 1500);
	/* and what was told stays, though its end was noted before */
	stall_end(&s, at + 100);
	CHECK_EQ(stall_total_ns(&s), told);
}

static void *wait_for_the_end_of_a_block(void *data)
{
	_Atomic bool *woken = data;

	account_wait(&payer, 60 * NS_PER_S);
	atomic_store(woken, true);
	return NULL;
}

static void a_blocked_account_charges_no_guest_page(void)
{
	_Atomic bool woken = false;
	struct segment *s;
	pthread_t thread;

	make_arena(UINT64_MAX);
	CHECK(segment_new(&s, arena, &payer, SEGMENT_LEASE, nobody, "", 1 << 20, &problem) == 0);
	account_set_blocked(&payer, true);
	CHECK(account_is_blocked(&payer));
	CHECK_EQ(segment_charge(s, 1, CHARGE_GUEST), -EBUSY);
	/* what makes memory free is not held up, nor what is there already */
	CHECK_EQ(segment_charge(s, 1, CHARGE_STORE), 0);
	CHECK_EQ(segment_charge(s, 1, CHARGE_ADOPT), 0);
	atomic_store(&payer.leaving, true);
	CHECK_EQ(segment_charge(s, 1, CHARGE_GUEST), 0);
	atomic_store(&payer.leaving, false);
	CHECK_EQ(segment_charge(s, 1, CHARGE_GUEST), -EBUSY);
	/* whoever waits is woken by the end of the block and by nothing else: there is memory enough */
	CHECK_EQ(pthread_create(&thread, NULL, wait_for_the_end_of_a_block, &woken), 0);
	account_wait(&payer, NS_PER_MS);
	CHECK(!atomic_load(&woken));
	account_set_blocked(&payer, false);
	CHECK_EQ(pthread_join(thread, NULL), 0);
	CHECK_EQ(segment_charge(s, 1, CHARGE_GUEST), 0);
	segment_free(s);
	drop_arena();
}

static void arena_refuses_what_the_host_cannot_hold(void)
{
	CHECK_EQ(arena_new(&arena, 1ull << 50, NULL, &problem), -ENOMEM);
	CHECK(problem.kind == PROBLEM_NOT_ENOUGH_MEMORY && problem.need == 1ull << 50 && problem.have > 0);
	CHECK_EQ(arena_new(&arena, 4097, NULL, &problem), -EINVAL);
}

/* In the place of libc's: where `huge` is a directory of a tmpfs with huge pages, memfds are as on a host that has
 * them on for all shared memory. */
static int huge = -1;

int memfd_create(const char *name, unsigned flags)
{
	return huge < 0 ? (int)syscall(SYS_memfd_create, name, flags) : openat(huge, ".", O_TMPFILE | O_RDWR, 0600);
}

static void arena_refuses_huge_pages(void)
{
	char dir[] = "/tmp/memctl-test-XXXXXX";

	make_arena(UINT64_MAX);
	drop_arena();
	CHECK(mkdtemp(dir));
	if (mount("memctl-test", dir, "tmpfs", 0, "huge=always,size=8m") == 0) {
		huge = open(dir, O_DIRECTORY | O_RDONLY);
		umount2(dir, MNT_DETACH);
	}
	rmdir(dir);
	if (huge < 0)
		check_skip("cannot mount a tmpfs with huge pages");
	CHECK_EQ(arena_probe_huge_pages(&problem), -ENOTSUP);
	CHECK_MSG(problem.have > PAGE_SIZE && strstr(problem.text, "shmem_enabled"), "%s", problem.text);
	CHECK_EQ(arena_new(&arena, ARENA_BYTES, NULL, &problem), -ENOTSUP);
}

static void arena_admits_to_its_size(void)
{
	struct arena_numbers n;

	make_arena(UINT64_MAX);
	arena_numbers(arena, &n);
	CHECK(arena_reserve(arena, n.capacity_frames - n.reserve_frames - 10, &problem) == 0);
	CHECK_EQ(arena_reserve(arena, 11, &problem), -ENOMEM);
	CHECK_EQ(problem.need, 11 * PAGE_SIZE);
	CHECK_EQ(problem.have, 10 * PAGE_SIZE);
	arena_unreserve(arena, n.capacity_frames - n.reserve_frames - 10);
	drop_arena();
}

static void segments_are_sealed_and_counted(void)
{
	struct arena_check c;
	struct segment *map, *lease;

	make_arena(UINT64_MAX);
	CHECK(segment_new(&map, arena, &payer, SEGMENT_PAGE_MAP, nobody, "", 8 << 20, &problem) == 0);
	CHECK(segment_new(&lease, arena, &payer, SEGMENT_LEASE, nobody, "", 8 << 20, &problem) == 0);
	CHECK(ftruncate(map->fd, 0) < 0 && errno == EPERM);
	CHECK(ftruncate(lease->client_fd, 1ll << 40) < 0 && errno == EPERM);
	CHECK(segment_charge(map, 3, CHARGE_STORE) == 0);
	memset(map->addr, 1, 3 * PAGE_SIZE);
	CHECK_EQ(segment_blocks(map), 3);
	arena_check(arena, &c);
	CHECK_EQ(c.blocks_frames, 3);
	CHECK_EQ(c.charged_frames, 3);
	CHECK(segment_punch(map, 0, 2 * PAGE_SIZE, 2) == 0);
	CHECK_EQ(segment_blocks(map), 1);
	CHECK_EQ(map->frames, 1);
	segment_free(map);
	segment_free(lease);
	drop_arena();
}

/* ---- page map ---- */

static void untouched_words_cost_nothing(void)
{
	struct page_map m;

	make_arena(UINT64_MAX);
	CHECK(page_map_init(&m, arena, &payer, nobody, "", 1 << 20, &problem) == 0);
	for (uint64_t page = 0; page < 1 << 20; page += 1000)
		CHECK_EQ(page_map_read(&m, page), 0);
	CHECK_EQ(segment_blocks(m.segment), 0);
	CHECK(page_map_touch(&m, 12345) == 0);
	CHECK(page_map_touch(&m, 12346) == 0);
	word_record(&m.words[12345], word_make(PAGE_SWAPPED, WORD_REF_MAX));
	CHECK_EQ(segment_blocks(m.segment), 1);
	CHECK_EQ(m.segment->frames, 1);
	CHECK_EQ(word_ref(page_map_read(&m, 12345)), WORD_REF_MAX);
	page_map_fini(&m);
	drop_arena();
}

static void a_word_has_one_holder(void)
{
	word w = word_make(PAGE_RESIDENT, 7) | 3ull << WORD_PIN_SHIFT;
	uint64_t before, again;

	CHECK(word_lock(&w, &before));
	CHECK(word_state(before) == PAGE_RESIDENT && word_ref(before) == 7 && word_pins(before) == 3);
	CHECK(!word_lock(&w, &again));
	word_record(&w, word_make(PAGE_COMPRESSED, 9) | WORD_MOVING);
	CHECK(!word_lock(&w, &again));
	word_unlock(&w, word_make(PAGE_COMPRESSED, 9));
	CHECK(word_lock(&w, &again) && again == word_make(PAGE_COMPRESSED, 9));
}

/* ---- codec and cache ---- */

static void fill_text(uint8_t *page, uint64_t seed)
{
	for (unsigned i = 0; i < PAGE_SIZE; i++)
		page[i] = (uint8_t)("memory for machines "[i % 20] ^ (i % 97 == seed % 97 ? seed : 0));
	memcpy(page, &seed, sizeof seed);
}

static void codec_gives_back_what_it_took(void)
{
	static const int levels[] = { -5, -1, 1, 3, 1 };
	uint8_t page[PAGE_SIZE], out[PAGE_SIZE], back[PAGE_SIZE];
	struct codec *c;
	size_t n;

	CHECK(codec_new(&c) == 0);
	for (unsigned i = 0; i < 5; i++) {
		fill_text(page, i + 1);
		n = codec_compress(c, levels[i], page, out, CACHE_OBJECT_MAX);
		CHECK(n > 0 && n < 1000);
		CHECK(codec_decompress(c, out, n, back) == 0);
		CHECK(!memcmp(page, back, PAGE_SIZE));
		CHECK(codec_decompress(c, out, n - 1, back) < 0);
	}
	for (uint64_t i = 0, x = 1; i < PAGE_SIZE; i++)
		page[i] = (uint8_t)((x = x * 6364136223846793005ull + 1442695040888963407ull) >> 56);
	CHECK_EQ(codec_compress(c, 1, page, out, CACHE_OBJECT_MAX), 0);
	codec_free(c);
}

static struct mem_settings settings = { .zstd_level = 1, .zip_max_pct = 50, .zip_max_alloc_pct = 100 };

static int put(struct cache *c, uint32_t page, unsigned length, uint64_t *ref)
{
	uint8_t data[CACHE_OBJECT_MAX];
	struct cache_object header = { .page = page, .lease = 1, .length = (uint16_t)length, .checksum = page * 3ull };

	memset(data, (int)page, sizeof data);
	return cache_put(c, &header, data, ref);
}

static bool is_object(struct cache *c, uint64_t ref, uint32_t page, unsigned length)
{
	const struct cache_object *o = cache_look(c, ref);

	for (unsigned i = 0; i < length; i++)
		if (o->data[i] != (uint8_t)page)
			return false;
	return o->page == page && o->length == length && o->checksum == page * 3ull;
}

#define OBJECTS 2000

/* A cap far above what is put in: by size 32 MiB of a VM of 64, by charge whatever the account has. */
static struct cache *make_cache(struct segment **ballast)
{
	struct cache *c;

	make_arena(UINT64_MAX);
	CHECK(segment_new(ballast, arena, &payer, SEGMENT_LEASE, nobody, "", 64 << 20, &problem) == 0);
	CHECK(segment_charge(*ballast, 1500, CHARGE_GUEST) == 0);
	CHECK(cache_new(&c, arena, &payer, nobody, 64 << 20, &settings, &problem) == 0);
	return c;
}

static void cache_keeps_objects(void)
{
	struct cache_numbers n;
	uint64_t ref[OBJECTS], bytes = 0;
	struct segment *ballast;
	struct cache *c = make_cache(&ballast);

	for (uint32_t i = 0; i < OBJECTS; i++) {
		CHECK(put(c, i, 1 + i * 37 % CACHE_OBJECT_MAX, &ref[i]) == 0);
		bytes += cache_object_bytes(cache_look(c, ref[i]));
	}
	for (uint32_t i = 0; i < OBJECTS; i++)
		CHECK(is_object(c, ref[i], i, 1 + i * 37 % CACHE_OBJECT_MAX));
	cache_get_numbers(c, &n);
	CHECK_EQ(n.live_objects, OBJECTS);
	CHECK_EQ(n.live_bytes, bytes);
	CHECK_EQ(n.expected_frames, n.blocks_frames);
	CHECK(n.blocks_frames <= n.charged_frames);
	CHECK_MSG(n.live_bytes * 100 > n.held_bytes * 94, "%llu of %llu bytes hold objects",
		(unsigned long long)n.live_bytes, (unsigned long long)n.held_bytes);
	for (uint32_t i = 0; i < OBJECTS; i++)
		cache_drop(c, ref[i]);
	cache_trim(c, 0);
	cache_get_numbers(c, &n);
	CHECK_EQ(n.live_bytes, 0);
	CHECK_EQ(n.expected_frames, n.blocks_frames);
	CHECK_MSG(n.held_bytes <= CACHE_BLOCK_BYTES, "only the open block is held, not %llu", (unsigned long long)n.held_bytes);
	cache_free(c);
	segment_free(ballast);
	drop_arena();
}

static void cache_oldest_block_holds_the_oldest(void)
{
	uint64_t ref[OBJECTS], at;
	uint32_t block, cursor = 0, expect = 0;
	struct segment *ballast;
	struct cache *c = make_cache(&ballast);

	for (uint32_t i = 0; i < OBJECTS; i++)
		CHECK(put(c, i, 1000, &ref[i]) == 0);
	block = cache_take_oldest(c);
	CHECK(block != CACHE_NO_BLOCK);
	while (cache_next_object(c, block, &cursor, &at)) {
		CHECK_EQ(cache_look(c, at)->page, expect++);
		cache_drop(c, at);
	}
	CHECK(expect >= 60);
	cache_end_block(c, block);
	cursor = 0;
	block = cache_take_oldest(c);
	CHECK(cache_next_object(c, block, &cursor, &at));
	CHECK_EQ(cache_look(c, at)->page, expect);
	cache_end_block(c, block);
	cache_free(c);
	segment_free(ballast);
	drop_arena();
}

static void cache_is_cleaned_of_holes(void)
{
	struct cache_numbers n;
	uint64_t ref[OBJECTS], at, to;
	struct segment *ballast;
	struct cache *c = make_cache(&ballast);
	unsigned moved = 0;

	for (uint32_t i = 0; i < OBJECTS; i++)
		CHECK(put(c, i, 1000, &ref[i]) == 0);
	CHECK(!cache_wants_cleaning(c));
	for (uint32_t i = 0; i < OBJECTS; i++)
		if (i % 4)
			cache_drop(c, ref[i]);
	CHECK(cache_wants_cleaning(c));
	while (cache_wants_cleaning(c)) {
		uint32_t cursor = 0, block = cache_take_sparsest(c);

		CHECK(block != CACHE_NO_BLOCK);
		while (cache_next_object(c, block, &cursor, &at)) {
			uint32_t page = cache_look(c, at)->page;

			if (ref[page] != at || page % 4)
				continue;
			CHECK(cache_put_survivor(c, cache_look(c, at), &to) == 0);
			cache_drop(c, at);
			ref[page] = to;
			moved++;
		}
		cache_end_block(c, block);
	}
	CHECK(moved > 0);
	cache_trim(c, 0);
	cache_get_numbers(c, &n);
	CHECK_EQ(n.live_objects, OBJECTS / 4);
	CHECK(n.held_bytes - n.live_bytes <= n.held_bytes / 16 + 3 * CACHE_BLOCK_BYTES);
	CHECK_EQ(n.expected_frames, n.blocks_frames);
	for (uint32_t i = 0; i < OBJECTS; i += 4)
		CHECK(is_object(c, ref[i], i, 1000));
	cache_free(c);
	segment_free(ballast);
	drop_arena();
}

static void cache_has_a_cap(void)
{
	struct segment *ballast;
	struct cache_numbers n;
	struct cache *c;
	uint64_t ref;
	uint32_t i = 0;
	int r;

	make_arena(UINT64_MAX);
	CHECK(segment_new(&ballast, arena, &payer, SEGMENT_LEASE, nobody, "", 64 << 20, &problem) == 0);
	CHECK(cache_new(&c, arena, &payer, nobody, 2 << 20, &settings, &problem) == 0); /* 50 % of 2 MiB */
	CHECK(segment_charge(ballast, 1500, CHARGE_GUEST) == 0);
	while ((r = put(c, i, 2000, &ref)) == 0)
		i++;
	CHECK_EQ(r, -ENOSPC);
	cache_get_numbers(c, &n);
	CHECK_EQ(n.cap_bytes, 1 << 20);
	CHECK_EQ(n.held_bytes, 1 << 20);
	CHECK(cache_is_full(c, 1) && !cache_is_full(c, 0));
	atomic_store(&settings.zip_max_pct, 0);
	CHECK_EQ(put(c, i, CACHE_OBJECT_MAX, &ref), -ENOSPC);
	cache_free(c);
	segment_free(ballast);
	drop_arena();
}

/* ---- swap file ---- */

static uint8_t *aligned_pages(unsigned n)
{
	uint8_t *m = mmap(NULL, n * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(m != MAP_FAILED);
	return m;
}

static void swap_gives_back_what_it_took(void)
{
	uint8_t *out = aligned_pages(RUN_MAX), *in = aligned_pages(RUN_MAX);
	struct iovec v[RUN_MAX];
	struct swap *s;
	uint64_t first, second, numbers[RUN_MAX];

	make_arena(UINT64_MAX);
	CHECK_MSG(swap_new(&s, arena, &payer, nobody, "/var/tmp", &(struct swap_room){ 1 << 20, 1 << 20, .late = false }, &problem) == 0, "%s", problem.text);
	for (unsigned i = 0; i < RUN_MAX; i++) {
		fill_text(out + i * PAGE_SIZE, i + 1);
		/* scattered, as victims are */
		v[i] = (struct iovec){ out + (RUN_MAX - 1 - i) * PAGE_SIZE, PAGE_SIZE };
		numbers[i] = swap_number(3, 1000 + i);
	}
	CHECK_EQ(swap_alloc(s, RUN_MAX, &first), RUN_MAX);
	CHECK(swap_write(s, first, v, numbers, RUN_MAX) == 0);
	CHECK(swap_read(s, first, numbers[0], RUN_MAX, in, NULL, 0) == 0);
	for (unsigned i = 0; i < RUN_MAX; i++)
		CHECK(!memcmp(in + i * PAGE_SIZE, out + (RUN_MAX - 1 - i) * PAGE_SIZE, PAGE_SIZE));
	CHECK_EQ(swap_used_slots(s), RUN_MAX);
	/* 256 slots: three more runs, then nothing */
	for (unsigned i = 0; i < 3; i++)
		CHECK_EQ(swap_alloc(s, RUN_MAX, &second), RUN_MAX);
	CHECK_EQ(swap_alloc(s, 1, &second), 0);
	swap_release(s, first + 10, 5);
	CHECK_EQ(swap_alloc(s, RUN_MAX, &second), 5);
	CHECK_EQ(second, first + 10);
	swap_free(s);
	drop_arena();
}

/* Neighbours together, the rest each from its place, into buffers in any order; what comes after damage is not given. */
static void swap_reads_many_at_once(void)
{
	static const unsigned slots[] = { 40, 41, 42, 3, 60, 61, 9, 7, 8, 30, 20, 22, 24, 26, 28, 11, 13, 15, 17, 19, 50, 52 };
	enum { N = sizeof slots / sizeof *slots };
	uint8_t *out = aligned_pages(RUN_MAX), *in = aligned_pages(RUN_MAX), other[PAGE_SIZE];
	struct direct direct, *readers[] = { &direct, NULL };
	struct swap_page want[N];
	struct iovec v[RUN_MAX];
	uint64_t first, numbers[RUN_MAX];
	struct swap *s;

	direct_init(&direct);
	make_arena(UINT64_MAX);
	CHECK(swap_new(&s, arena, &payer, nobody, "/var/tmp", &(struct swap_room){ 1 << 20, 1 << 20, .late = false }, &problem) == 0);
	for (unsigned i = 0; i < RUN_MAX; i++) {
		fill_text(out + i * PAGE_SIZE, i + 1);
		v[i] = (struct iovec){ out + i * PAGE_SIZE, PAGE_SIZE };
		numbers[i] = swap_number(3, 5000 - i);
	}
	CHECK_EQ(swap_alloc(s, RUN_MAX, &first), RUN_MAX);
	CHECK(swap_write(s, first, v, numbers, RUN_MAX) == 0);
	for (unsigned i = 0; i < N; i++)
		want[i] = (struct swap_page){ first + slots[i], numbers[slots[i]], in + (N - 1 - i) * PAGE_SIZE };
	for (unsigned r = 0; r < 2; r++) {
		memset(in, 0, RUN_MAX * PAGE_SIZE);
		CHECK_EQ(swap_read_pages(s, readers[r], want, N), N);
		for (unsigned i = 0; i < N; i++)
			CHECK(!memcmp(in + (N - 1 - i) * PAGE_SIZE, out + slots[i] * PAGE_SIZE, PAGE_SIZE));
		inject.swap_read_errno = EIO;
		CHECK_EQ(swap_read_pages(s, readers[r], want, N), 0);
		inject.swap_read_errno = 0;
		want[4].number++;
		CHECK_EQ(swap_read_pages(s, readers[r], want, N), 4);
		want[4].number--;
	}
	/* damage on the disk, in the middle of neighbours */
	fill_text(other, 99);
	memcpy(out, other, PAGE_SIZE);
	CHECK(swap_write(s, first + 61, &(struct iovec){ out, PAGE_SIZE }, numbers, 1) == 0);
	CHECK_EQ(swap_read_pages(s, &direct, want, N), 5);
	direct_fini(&direct);
	swap_free(s);
	drop_arena();
}

/* A word that was damaged into naming a slot that is another page's. */
static void swap_finds_another_pages_slot(void)
{
	uint8_t *buf = aligned_pages(2);
	struct iovec v[2] = { { buf, PAGE_SIZE }, { buf + PAGE_SIZE, PAGE_SIZE } };
	const uint64_t numbers[2] = { swap_number(0, 0), swap_number(1, 7) };
	struct swap *s;
	uint64_t slot, *sums;

	make_arena(UINT64_MAX);
	CHECK(swap_new(&s, arena, &payer, nobody, "/var/tmp", &(struct swap_room){ 1 << 20, 1 << 20, .late = false }, &problem) == 0);
	fill_text(buf, 5);
	fill_text(buf + PAGE_SIZE, 6);
	CHECK_EQ(swap_alloc(s, 2, &slot), 2);
	CHECK(swap_write(s, slot, v, numbers, 2) == 0);
	for (unsigned i = 0; i < 2; i++) {
		CHECK_EQ(swap_read(s, slot + i, numbers[i], 1, buf, NULL, 0), 0);
		CHECK_EQ(swap_read(s, slot + i, numbers[!i], 1, buf, NULL, 0), -EBADMSG);
		CHECK_EQ(swap_read(s, slot + i, numbers[i] + 1, 1, buf, NULL, 0), -EBADMSG);
		CHECK_EQ(swap_read(s, slot + i, swap_number(2, numbers[i]), 1, buf, NULL, 0), -EBADMSG);
	}
	/* what state format 1 has written says nothing of whose it is, and is read all the same */
	sums = (uint64_t *)swap_map(s)->addr;
	sums[slot] = checksum_page(buf);
	CHECK(swap_read(s, slot + 1, numbers[1], 1, buf, NULL, 0) == 0);
	sums[slot + 1] = checksum_page(buf);
	CHECK(swap_read(s, slot + 1, numbers[1], 1, buf, NULL, 0) == 0);
	swap_free(s);
	drop_arena();
}

static void swap_finds_damage(void)
{
	uint8_t *buf = aligned_pages(1);
	struct iovec v = { buf, PAGE_SIZE };
	struct direct direct;
	struct swap *s;
	uint64_t slot, number = swap_number(1, 2);

	direct_init(&direct);
	make_arena(UINT64_MAX);
	CHECK(swap_new(&s, arena, &payer, nobody, "/var/tmp", &(struct swap_room){ 1 << 20, 1 << 20, .late = false }, &problem) == 0);
	fill_text(buf, 5);
	CHECK_EQ(swap_alloc(s, 1, &slot), 1);
	CHECK(swap_write(s, slot, &v, &number, 1) == 0);
	for (unsigned i = 0; i < 4; i++) { /* both ways of waiting */
		memset(buf, 0, PAGE_SIZE);
		CHECK(swap_read(s, slot, number, 1, buf, &direct, 50) == 0);
	}
	inject.swap_corrupt = true;
	CHECK_EQ(swap_read(s, slot, number, 1, buf, &direct, 50), -EBADMSG);
	inject.swap_corrupt = false;
	inject.swap_read_errno = EIO;
	CHECK_EQ(swap_read(s, slot, number, 1, buf, &direct, 50), -EIO);
	inject.swap_write_errno = ENOSPC;
	CHECK_EQ(swap_write(s, slot, &v, &number, 1), -ENOSPC);
	direct_fini(&direct);
	swap_free(s);
	drop_arena();
}

/* Of the last 1000 of `reads` that take so long in either way, a few of them much longer: how many were waited for awake. */
static unsigned waited_awake(struct direct *d, unsigned reads, uint64_t awake_ns, uint64_t asleep_ns)
{
	unsigned n = 0;

	for (unsigned i = 0; i < reads; i++) {
		bool awake = direct_choose(d);

		direct_learn(d, awake, (awake ? awake_ns : asleep_ns) * (i % 50 ? 1 : 200));
		n += awake && i >= reads - 1000;
	}
	return n;
}

static void a_read_is_waited_for_in_the_quicker_way(void)
{
	struct direct d = { 0 };

	CHECK(waited_awake(&d, 2000, 45000, 63000) > 980);
	CHECK(waited_awake(&d, 5000, 110000, 73000) < 20);
	CHECK(waited_awake(&d, 5000, 45000, 73000) > 980);
}

/* A disk that has room for half of what is asked for, and finds that out late, as some file systems do. */
static bool disk_gets_full;
static int grown_fd = -1;

int posix_fallocate(int fd, off_t offset, off_t length)
{
	grown_fd = fd;
	if (fallocate(fd, 0, offset, disk_gets_full ? length / 2 : length) < 0)
		return errno;
	return disk_gets_full ? ENOSPC : 0;
}

static off_t grown_bytes(void)
{
	struct stat st;

	CHECK_EQ(fstat(grown_fd, &st), 0);
	return st.st_size;
}

static void swap_grows_whole_or_not(void)
{
	struct swap *s;

	make_arena(UINT64_MAX);
	CHECK(swap_new(&s, arena, &payer, nobody, "/var/tmp", &(struct swap_room){ 4 << 20, 1 << 20, .late = false }, &problem) == 0);
	CHECK_EQ(grown_bytes(), 1 << 20);
	disk_gets_full = true;
	CHECK_EQ(swap_grow(s, (3 << 20) / PAGE_SIZE, &problem), -ENOSPC);
	disk_gets_full = false;
	CHECK_EQ(grown_bytes(), 1 << 20);
	CHECK_EQ(swap_size_bytes(s), 1 << 20);
	CHECK_EQ(swap_grow(s, (3 << 20) / PAGE_SIZE, &problem), 0);
	CHECK_EQ(grown_bytes(), 3 << 20);
	swap_free(s);
	drop_arena();
}

static void swap_is_allocated_or_refused(void)
{
	struct swap *s;

	make_arena(UINT64_MAX);
	CHECK_EQ(swap_new(&s, arena, &payer, nobody, "/var/tmp", &(struct swap_room){ 1ull << 44, 1ull << 44, .late = false }, &problem), -ENOSPC);
	CHECK(problem.kind == PROBLEM_NOT_ENOUGH_SWAP && problem.need == 1ull << 44);
	CHECK(swap_new(&s, arena, &payer, nobody, "/nonexistent", &(struct swap_room){ 1 << 20, 1 << 20, .late = false }, &problem) < 0);
	CHECK(swap_new(&s, arena, &payer, nobody, "/nonexistent", &(struct swap_room){ 0 }, &problem) == 0); /* all reserved: no file */
	uint64_t slot;
	CHECK_EQ(swap_alloc(s, 1, &slot), 0);
	swap_free(s);
	drop_arena();
}

int main(int argc, char **argv)
{
	return check_main(argc, argv, (const struct scenario[]){
		SCENARIO(arena_is_a_wall), SCENARIO(what_is_lent_comes_back_with_the_frames),
		SCENARIO(arena_keeps_a_limit), SCENARIO(arena_tells_of_a_shortage_once), SCENARIO(the_margin_of_a_limit_is_the_plans),
		SCENARIO(a_blocked_account_charges_no_guest_page), SCENARIO(stalls_are_not_added_up),
		SCENARIO(arena_refuses_what_the_host_cannot_hold), SCENARIO(arena_refuses_huge_pages),
		SCENARIO(arena_admits_to_its_size),
		SCENARIO(segments_are_sealed_and_counted), SCENARIO(untouched_words_cost_nothing),
		SCENARIO(a_word_has_one_holder), SCENARIO(codec_gives_back_what_it_took), SCENARIO(cache_keeps_objects),
		SCENARIO(cache_oldest_block_holds_the_oldest), SCENARIO(cache_is_cleaned_of_holes), SCENARIO(cache_has_a_cap),
		SCENARIO(swap_finds_another_pages_slot),
		SCENARIO(swap_gives_back_what_it_took), SCENARIO(swap_reads_many_at_once), SCENARIO(swap_finds_damage),
		SCENARIO(a_read_is_waited_for_in_the_quicker_way), SCENARIO(swap_is_allocated_or_refused),
		SCENARIO(swap_grows_whole_or_not),
		{ 0 } });
}
