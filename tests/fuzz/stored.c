/* Stored pages of which nobody knows whether they are: a frame of zstd that was read back, and a compression cache that was found, with
 * references that were.  What comes out is one page or none, and nothing outside of its block is looked at or written. */
#include "mem/cache.h"
#include "mem/codec.h"
#include "mem/pool_impl.h"
#include "tests/fuzz/fuzz.h"
#include "tests/lib/check.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define VM_BYTES    (1ull << 20)
/* what cache.c makes for a VM of this size, and the form of its references */
#define CACHE_BYTES ((VM_BYTES / CACHE_BLOCK_BYTES + 4) * CACHE_BLOCK_BYTES)
#define CLASS_SHIFT 40
#define REFS_MAX    64u

static struct mem_settings settings = { .zstd_level = 1, .zip_max_pct = 50, .zip_max_alloc_pct = 50, .fault_around_pages = 1 };
static struct bench bench;

/* A page of its own size: a byte too many shows. */
static int decompress(const void *from, size_t length)
{
	uint8_t *page = malloc(PAGE_SIZE);
	int r;

	CHECK(page);
	r = codec_decompress(bench.codec, from, length, page);
	if (r == 0) {
		/* and goes back in */
		uint8_t *room = malloc(PAGE_SIZE), *again = malloc(PAGE_SIZE);
		size_t n = codec_compress(bench.codec, 1, page, room, PAGE_SIZE);

		CHECK(n == 0 || (codec_decompress(bench.codec, room, n, again) == 0 && !memcmp(page, again, PAGE_SIZE)));
		free(room);
		free(again);
	}
	free(page);
	return r;
}

static void use_cache(struct cache *c, const uint64_t *refs, unsigned n)
{
	static const _Atomic bool never;
	struct stores s = { .cache = c };
	struct cache_numbers numbers;
	uint8_t page[PAGE_SIZE];
	uint64_t ref;
	uint32_t b;

	for (unsigned i = 0; i < n; i++) {
		const struct cache_object *o = cache_look(c, refs[i]);

		store_read(&s, &bench, o->lease, o->page, word_make(PAGE_COMPRESSED, refs[i]), page, false, &never);
		cache_stored_bytes(c, refs[i], o->page);
	}
	for (unsigned i = 0; i < n; i += 2)
		cache_drop(c, refs[i]);
	while ((b = cache_take_oldest(c)) != CACHE_NO_BLOCK) {
		uint32_t cursor = 0;

		while (cache_next_object(c, b, &cursor, &ref))
			CHECK(cache_offset(ref) / CACHE_BLOCK_BYTES == b);
		/* what it is for: its objects are in the swap file now */
		for (unsigned i = 1; i < n; i += 2)
			if (cache_offset(refs[i]) / CACHE_BLOCK_BYTES == b)
				cache_drop(c, refs[i]);
		cache_end_block(c, b);
	}
	cache_get_numbers(c, &numbers);
	cache_trim(c, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	struct kept_owner owner = { .kind = KEPT_VM, .found = true, .number = 1 };
	struct account payer;
	struct problem p = { 0 };
	uint64_t refs[REFS_MAX];
	unsigned n = 0, n_refs;
	struct arena *arena;
	struct kept *kept;
	struct cache *c;
	uint16_t at;
	int fd;

	if (!bench.codec)
		CHECK(bench_init(&bench) == 0);
	/* the first half: one frame */
	if (!(input_byte(&in) & 1)) {
		void *copy = malloc(in.left + 1);

		CHECK(copy);
		if (in.left)
			memcpy(copy, in.data, in.left);
		decompress(copy, in.left);
		free(copy);
		return 0;
	}
	n_refs = input_byte(&in) % REFS_MAX;
	CHECK(kept_new(&kept, NULL) == 0);
	fd = memfd_create("cache", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	CHECK(fd >= 0 && ftruncate(fd, (off_t)CACHE_BYTES) == 0);
	for (unsigned i = 0; i < n_refs; i++) {
		uint8_t raw[4];

		input_take(&in, raw, sizeof raw);
		refs[i] = (raw[0] | (uint64_t)raw[1] << 8 | (uint64_t)raw[2] << 16) % (CACHE_BYTES / 16) | (uint64_t)raw[3] << CLASS_SHIFT;
	}
	while (in.left) {
		uint8_t piece[255], length;
		uint64_t at_most;

		input_take(&in, &at, sizeof at);
		length = input_byte(&in);
		input_take(&in, piece, length);
		/* by 32, so that 16 bits reach all of it */
		at_most = CACHE_BYTES - at * 32u % CACHE_BYTES;
		CHECK(pwrite(fd, piece, length < at_most ? length : at_most, (off_t)(at * 32u % CACHE_BYTES)) >= 0);
	}
	CHECK(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0);
	kept_find(kept, "v1.c", fd);
	CHECK_MSG(arena_new(&arena, 8 << 20, kept, &p) == 0, "%s", p.text);
	account_init(&payer, arena, UINT64_MAX);
	CHECK_MSG(cache_new(&c, arena, &payer, owner, VM_BYTES, &settings, &p) == 0, "%s", p.text);
	for (unsigned i = 0; i < n_refs; i++)
		if (cache_claim(c, refs[i]))
			refs[n++] = refs[i];
	cache_claimed(c);
	use_cache(c, refs, n);
	cache_free(c);
	account_fini(&payer);
	arena_free(arena);
	kept_free(kept);
	return 0;
}
