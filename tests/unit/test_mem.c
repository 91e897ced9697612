/* The arena's wall, the words of a page map, and the stores, each by itself. */
#include "mem/arena.h"
#include "mem/cache.h"
#include "mem/checksum.h"
#include "mem/codec.h"
#include "mem/direct.h"
#include "mem/inject.h"
#include "mem/page_map.h"
#include "mem/swap.h"
#include "tests/lib/check.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
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
	CHECK(arena_rearm(arena));
	CHECK(segment_charge(s, 1, CHARGE_GUEST) == 0);
	CHECK_EQ(crossings, 2);
	segment_free(s);
	CHECK(!arena_rearm(arena));
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
	uint64_t first, second;

	make_arena(UINT64_MAX);
	CHECK_MSG(swap_new(&s, arena, &payer, nobody, "/var/tmp", 1 << 20, 1 << 20, false, &problem) == 0, "%s", problem.text);
	for (unsigned i = 0; i < RUN_MAX; i++) {
		fill_text(out + i * PAGE_SIZE, i + 1);
		/* scattered, as victims are */
		v[i] = (struct iovec){ out + (RUN_MAX - 1 - i) * PAGE_SIZE, PAGE_SIZE };
	}
	CHECK_EQ(swap_alloc(s, RUN_MAX, &first), RUN_MAX);
	CHECK(swap_write(s, first, v, RUN_MAX) == 0);
	CHECK(swap_read(s, first, RUN_MAX, in, NULL, 0) == 0);
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

static void swap_finds_damage(void)
{
	uint8_t *buf = aligned_pages(1);
	struct iovec v = { buf, PAGE_SIZE };
	struct direct direct;
	struct swap *s;
	uint64_t slot;

	direct_init(&direct);
	make_arena(UINT64_MAX);
	CHECK(swap_new(&s, arena, &payer, nobody, "/var/tmp", 1 << 20, 1 << 20, false, &problem) == 0);
	fill_text(buf, 5);
	CHECK_EQ(swap_alloc(s, 1, &slot), 1);
	CHECK(swap_write(s, slot, &v, 1) == 0);
	for (unsigned i = 0; i < 4; i++) { /* both ways of waiting */
		memset(buf, 0, PAGE_SIZE);
		CHECK(swap_read(s, slot, 1, buf, &direct, 50) == 0);
	}
	inject.swap_corrupt = true;
	CHECK_EQ(swap_read(s, slot, 1, buf, &direct, 50), -EBADMSG);
	inject.swap_corrupt = false;
	inject.swap_read_errno = EIO;
	CHECK_EQ(swap_read(s, slot, 1, buf, &direct, 50), -EIO);
	inject.swap_write_errno = ENOSPC;
	CHECK_EQ(swap_write(s, slot, &v, 1), -ENOSPC);
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

static void swap_is_allocated_or_refused(void)
{
	struct swap *s;

	make_arena(UINT64_MAX);
	CHECK_EQ(swap_new(&s, arena, &payer, nobody, "/var/tmp", 1ull << 44, 1ull << 44, false, &problem), -ENOSPC);
	CHECK(problem.kind == PROBLEM_NOT_ENOUGH_SWAP && problem.need == 1ull << 44);
	CHECK(swap_new(&s, arena, &payer, nobody, "/nonexistent", 1 << 20, 1 << 20, false, &problem) < 0);
	CHECK(swap_new(&s, arena, &payer, nobody, "/nonexistent", 0, 0, false, &problem) == 0); /* all reserved: no file */
	uint64_t slot;
	CHECK_EQ(swap_alloc(s, 1, &slot), 0);
	swap_free(s);
	drop_arena();
}

int main(int argc, char **argv)
{
	return check_main(argc, argv, (const struct scenario[]){
		SCENARIO(arena_is_a_wall), SCENARIO(arena_keeps_a_limit), SCENARIO(arena_tells_of_a_shortage_once),
		SCENARIO(arena_refuses_what_the_host_cannot_hold), SCENARIO(arena_refuses_huge_pages),
		SCENARIO(arena_admits_to_its_size),
		SCENARIO(segments_are_sealed_and_counted), SCENARIO(untouched_words_cost_nothing),
		SCENARIO(a_word_has_one_holder), SCENARIO(codec_gives_back_what_it_took), SCENARIO(cache_keeps_objects),
		SCENARIO(cache_oldest_block_holds_the_oldest), SCENARIO(cache_is_cleaned_of_holes), SCENARIO(cache_has_a_cap),
		SCENARIO(swap_gives_back_what_it_took), SCENARIO(swap_finds_damage),
		SCENARIO(a_read_is_waited_for_in_the_quicker_way), SCENARIO(swap_is_allocated_or_refused),
		{ 0 } });
}
