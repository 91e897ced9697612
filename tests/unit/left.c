#include "tests/unit/left.h"

#include "mem/checksum.h"
#include "mem/inject.h"
#include "mem/share.h"
#include "mem/uffd.h"
#include "tests/lib/check.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define ARENA_BYTES (32ull << 20)
#define COMMON	    6u		/* pages that are in the pool */
#define POOL_PAGES  200u

const char *const names[VMS] = { "victim", "neighbour", "apart" };
struct problem problem;

static struct mem_settings settings = { .zstd_level = 1, .zip_max_pct = 50, .zip_max_alloc_pct = 50, .fault_around_pages = 1,
	.share_rate_max = 1 };
static struct content expect[VMS][PAGES];
static struct bench bench;

/* ---- what is kept ---- */

struct file files[FILES_MAX];
unsigned n_files;

static int keep(void *userdata, const char *tag, int fd)
{
	struct file *f = &files[n_files++];

	(void)userdata;
	CHECK(n_files < FILES_MAX);
	*f = (struct file){ .fd = fcntl(fd, F_DUPFD_CLOEXEC, 0) };
	snprintf(f->tag, sizeof f->tag, "%s", tag);
	return f->fd < 0 ? -errno : 0;
}

static struct file *find_file(const char *tag)
{
	for (unsigned i = 0; i < n_files; i++)
		if (!strcmp(files[i].tag, tag))
			return &files[i];
	check_fail(__FILE__, __LINE__, "nothing is kept as %s", tag);
}

static void take_snapshot(struct file *f)
{
	struct stat st;

	CHECK(fstat(f->fd, &st) == 0);
	f->size = (uint64_t)st.st_size;
	f->memfd = fcntl(f->fd, F_GET_SEALS) >= 0;
	if (!S_ISREG(st.st_mode) || !f->size)
		return;
	f->was = mmap(NULL, 2 * f->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	CHECK(f->was != MAP_FAILED);
	f->now = f->was + f->size;
	f->data = calloc(f->size / PAGE_SIZE + 1, sizeof *f->data);
	for (uint64_t at = 0; at < f->size; at += PAGE_SIZE) {
		off_t data = lseek(f->fd, (off_t)at, SEEK_DATA);
		uint64_t n = f->size - at < PAGE_SIZE ? f->size - at : PAGE_SIZE;

		if (data < 0)
			break;
		at = (uint64_t)data / PAGE_SIZE * PAGE_SIZE;
		n = f->size - at < PAGE_SIZE ? f->size - at : PAGE_SIZE;
		f->data[at / PAGE_SIZE] = true;
		/* direct I/O wants pages, which both are */
		CHECK(pread(f->fd, f->was + at, n, (off_t)at) == (ssize_t)n);
	}
}

/* A descriptor like the one that was kept, with the content that it has now. */
static int copy_of(const struct file *f)
{
	int fd;

	if (!f->was)
		return fcntl(f->fd, F_DUPFD_CLOEXEC, 0);
	fd = memfd_create("copy", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	CHECK(fd >= 0 && ftruncate(fd, (off_t)f->size) == 0);
	for (uint64_t at = 0; at < f->size; at += PAGE_SIZE)
		if (f->data[at / PAGE_SIZE])
			CHECK(pwrite(fd, f->now + at, PAGE_SIZE, (off_t)at) == (ssize_t)PAGE_SIZE);
	if (f->memfd)
		CHECK(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0);
	return fd;
}

/* ---- the world before ---- */

struct before before;

static void set(unsigned v, unsigned page, enum content_kind kind)
{
	uint8_t buf[CONTENT_PAGE];

	expect[v][page] = (struct content){ .seed = 1, .owner = v, .kind = kind, .page = page, .sequence = 1 };
	content_make(buf, &expect[v][page]);
	memcpy(before.ram[v] + page * PAGE_SIZE, buf, PAGE_SIZE);
}

static void done(struct job *job, void *userdata)
{
	(void)job;
	*(_Atomic bool *)userdata = true;
}

static void evict(unsigned v, unsigned page, unsigned count)
{
	_Atomic bool finished = false;
	struct job job = { .kind = JOB_DONT_NEED, .range = { page, count }, .done = done, .userdata = &finished };

	CHECK(lease_submit(before.lease[v], &job) == 0);
	while (!finished)
		nanosleep(&(struct timespec){ .tv_nsec = 100000 }, NULL);
}

/* A resident page takes a reference to the entry with its content instead: cold. */
static void share(unsigned v, unsigned page, bool first)
{
	struct lease *l = before.lease[v];
	struct batch b = { .count = 1, .page = { page } };
	uint8_t buf[CONTENT_PAGE];
	uint64_t e, w;

	content_make(buf, &expect[v][page]);
	CHECK(word_lock(lease_word(l, page), &w));
	if (first)
		CHECK_EQ(pool_add(before.pool, checksum_keyed(buf), buf, 0, 1, &e), 0);
	else
		CHECK_EQ(pool_find(before.pool, &l->bench, checksum_keyed(buf), buf, &e), 1);
	word_record(lease_word(l, page), word_make(PAGE_SHARED, e) | WORD_MOVING);
	CHECK(batch_punch(l, &b, 1, NULL) == 1);
	ledger_move(l, page, w, PAGE_SHARED);
	word_unlock(lease_word(l, page), word_make(PAGE_SHARED, e));
	segment_uncharge(l->memory, 1);
}

static void make_vm(unsigned v)
{
	struct vm_config c = { .size_bytes = 1 << 20, .reservation_bytes = 0, .shares = 10, .swap_dir = "/tmp" };
	int uffd;

	snprintf(c.name, sizeof c.name, "%s", names[v]);
	CHECK_MSG(vm_new(&before.vm[v], before.arena, &settings, &c, &problem) == 0, "%s", problem.text);
	vm_set_sharing(before.vm[v], v == APART ? SHARING_OFF : SHARING_POOL);
	if (v != APART)
		CHECK(vm_join_pool(before.vm[v], before.pool, 1000) == 0);
	vm_keep(before.vm[v], names[v], strlen(names[v]) + 1);
	CHECK_MSG(lease_new(&before.lease[v], before.vm[v], 0, PAGES * PAGE_SIZE, &problem) == 0, "%s", problem.text);
	before.ram[v] = mmap(NULL, PAGES * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, lease_fd(before.lease[v]), 0);
	CHECK(before.ram[v] != MAP_FAILED);
	if (uffd_open_own(&uffd) < 0)
		check_skip("no userfaultfd");
	CHECK(uffd_register_missing(uffd, (uint64_t)before.ram[v], PAGES * PAGE_SIZE) == 0);
	CHECK_MSG(lease_activate(before.lease[v], uffd, (uint64_t)before.ram[v], &problem) == 0, "%s", problem.text);
}

/* A word as whoever died had left it. */
static void leave_word(unsigned v, unsigned page, uint64_t w)
{
	char tag[KEPT_TAG];

	snprintf(tag, sizeof tag, "v%x.1p", before.vm[v]->owner.number);
	((uint64_t *)find_file(tag)->was)[page] = w;
}

static uint64_t word_of(unsigned v, unsigned page)
{
	return atomic_load(lease_word(before.lease[v], page));
}

void make_world(void)
{
	inject.hasty = true;
	CHECK(bench_init(&bench) == 0);
	CHECK(kept_new(&before.kept, &(struct keeper){ .add = keep }) == 0);
	CHECK_MSG(arena_new(&before.arena, ARENA_BYTES, before.kept, &problem) == 0, "%s", problem.text);
	CHECK_MSG(pool_new(&before.pool, before.arena, &settings, "common", POOL_PAGES, "/tmp", &problem) == 0, "%s", problem.text);
	for (unsigned v = 0; v < VMS; v++) {
		make_vm(v);
		for (unsigned i = 0; i < 40; i++)
			set(v, i, i % 4 == 0 ? CONTENT_RANDOM : i % 4 == 3 ? CONTENT_SPARSE : CONTENT_TEXT);
		for (unsigned i = 40; i < 40 + COMMON; i++) {
			set(v, i, CONTENT_TEXT);
			expect[v][i].owner = VMS;
			content_make(before.ram[v] + i * PAGE_SIZE, &expect[v][i]);
		}
		evict(v, 0, 24);
		for (unsigned i = 40; v != APART && i < 40 + COMMON; i++)
			share(v, i, v == VICTIM);
	}
	/* entries in every place */
	CHECK(pool_evict(before.pool, &before.lease[VICTIM]->bench, 3) < 64);
	for (unsigned i = 0; i < n_files; i++)
		take_snapshot(&files[i]);
	for (unsigned v = 0; v < VMS; v++) {
		/* a fill that had not come far, an eviction that had not, one that had */
		leave_word(v, 1, word_of(v, 1) | WORD_BUSY | WORD_MOVING);
		leave_word(v, 30, word_of(v, 30) | WORD_BUSY | WORD_CLEAN);
		leave_word(v, 31, word_make(PAGE_ZERO, 0) | WORD_BUSY | WORD_MOVING);
		leave_word(v, 0, word_of(v, 0) | WORD_BUSY);
		/* in the balloon; an inflate that had punched; one that had not: 32 has data */
		leave_word(v, 60, word_make(PAGE_BALLOONED, 0));
		leave_word(v, 61, word_make(PAGE_BALLOONED, 0) | WORD_BUSY | WORD_MOVING);
		leave_word(v, 32, word_make(PAGE_BALLOONED, 0) | WORD_BUSY | WORD_MOVING);
		if (v == APART)
			continue;
		/* mapped by an order that was answered; one that was not; a page that had been written to */
		leave_word(v, 50, word_make(PAGE_SHARED, word_ref(word_of(v, 40))) | WORD_MAPPED);
		leave_word(v, 51, word_make(PAGE_SHARED, word_ref(word_of(v, 41))) | WORD_MAPPED | WORD_MOVING | WORD_BUSY);
		leave_word(v, 52, word_make(PAGE_BREAKING, word_ref(word_of(v, 42))));
	}
}

void undamaged(void)
{
	for (unsigned i = 0; i < n_files; i++)
		if (files[i].was)
			memcpy(files[i].now, files[i].was, files[i].size);
}

/* ---- the world after ---- */

static struct pool *find_pool(void *userdata, uint32_t number)
{
	struct after *w = userdata;

	return w->pool && number == before.pool->owner.number ? w->pool : NULL;
}

void recover(struct after *w, struct recovery_numbers *numbers)
{
	*w = (struct after){ 0 };
	CHECK(kept_new(&w->kept, NULL) == 0);
	for (unsigned i = 0; i < n_files; i++)
		kept_find(w->kept, files[i].tag, copy_of(&files[i]));
	CHECK_MSG(arena_new(&w->arena, ARENA_BYTES, w->kept, &problem) == 0, "%s", problem.text);
	w->pool_r = pool_recover(&w->pool, w->arena, &settings, before.pool->owner.number, &problem);
	for (unsigned v = 0; v < VMS; v++)
		w->r[v] = vm_recover(&w->vm[v], w->arena, &settings, before.vm[v]->owner.number, find_pool, w, numbers, &problem);
	if (w->pool)
		pool_recovered(w->pool);
	kept_end(w->kept);
}

void give_back(struct after *w)
{
	for (unsigned v = 0; v < VMS; v++) {
		if (!w->vm[v])
			continue;
		list_foreach(i, &w->vm[v]->leases) {
			struct lease *l = container_of(i, struct lease, link);

			if (l->share)
				share_end(l);
		}
		vm_free(w->vm[v]);
	}
	pool_unref(w->pool);
	arena_free(w->arena);	/* asserts that nothing is charged */
	kept_free(w->kept);
}

/* ---- the verdict ---- */

static bool has_data(const struct lease *l, unsigned page)
{
	off_t at = (off_t)(page * PAGE_SIZE);

	return lseek(l->memory->fd, at, SEEK_DATA) == at;
}

/* What a guest would see.  1: into buf; 0: nothing, it is lost; -1: only its client knows. */
static int see(struct lease *l, struct bench *b, unsigned page, uint8_t *buf)
{
	static const _Atomic bool never;
	struct vm *vm = l->vm;
	uint64_t w = page_map_read(&l->map, page);

	if ((w & WORD_BUSY) || is_mapped(w))
		return -1;
	if (has_data(l, page))
		return pread(l->memory->fd, buf, PAGE_SIZE, (off_t)(page * PAGE_SIZE)) == (ssize_t)PAGE_SIZE;
	switch (word_state(w)) {
	case PAGE_ZERO:
	case PAGE_BALLOONED:
	case PAGE_RESIDENT:
		memset(buf, 0, PAGE_SIZE);
		return 1;
	case PAGE_COMPRESSED:
	case PAGE_SWAPPED:
		return store_read(&vm->stores, b, (uint16_t)l->id, page, w, buf, false, &never) == 0;
	case PAGE_SHARED:
		return pool_read(atomic_load(&vm->pool), b, word_ref(w), buf, false) == 0;
	default:
		return 0;
	}
}

/* Whether the page is something that this VM may see at all. */
static bool is_its_own(unsigned v, const uint8_t *buf)
{
	struct content c;

	return content_is_zero(buf) || (content_identify(buf, &c) && (c.owner == v || (v != APART && c.owner == VMS)));
}

struct tally look(const struct after *w, unsigned v)
{
	struct tally t = { 0 };

	if (!w->vm[v])
		return t;
	list_foreach(i, &w->vm[v]->leases) {
		struct lease *l = container_of(i, struct lease, link);

		lease_settle_unsure(l);
		for (unsigned page = 0; page < l->pages && page < PAGES; page++) {
			uint8_t want[CONTENT_PAGE], buf[CONTENT_PAGE];
			int r = see(l, &bench, page, buf);

			content_make(want, &expect[v][page]);
			t.held += r < 0;
			t.lost += r == 0;
			t.right += r > 0 && !memcmp(want, buf, PAGE_SIZE);
			if (r <= 0 || !memcmp(want, buf, PAGE_SIZE))
				continue;
			t.wrong++;
			CHECK_MSG(is_its_own(v, buf), "page %u of %s is another VM's", page, names[v]);
		}
	}
	return t;
}
