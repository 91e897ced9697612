/* What outlives the process: mem/kept.h, mem/state.h. */
#include "tests/lib/check.h"
#include "tests/unit/card_format_1.h"
#include "mem/arena.h"
#include "mem/kept.h"
#include "mem/recover.h"
#include "mem/state.h"
#include "mem/vm_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define KEPT_ROOM 64

/* A keeper as the service manager is one. */
static struct {
	char tag[KEPT_TAG];
	int fd;
} held[KEPT_ROOM];
static unsigned n_held;
static bool dead;	/* what a process that was killed does not do */

static int add(void *userdata, const char *tag, int fd)
{
	CHECK(n_held < KEPT_ROOM);
	snprintf(held[n_held].tag, KEPT_TAG, "%s", tag);
	held[n_held++].fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	return 0;
}

static void drop(void *userdata, const char *tag)
{
	for (unsigned i = 0; i < n_held && !dead; i++)
		if (!strcmp(held[i].tag, tag)) {
			close(held[i].fd);
			held[i--] = held[--n_held];
		}
}

static const struct keeper keeper = { add, drop, NULL };

/* The next process finds all that is held. */
static struct kept *next_life(void)
{
	struct kept *k;

	CHECK(kept_new(&k, &keeper) == 0);
	for (unsigned i = 0; i < n_held; i++)
		kept_find(k, held[i].tag, fcntl(held[i].fd, F_DUPFD_CLOEXEC, 0));
	return k;
}

static int some_fd(void)
{
	return memfd_create("test", MFD_CLOEXEC);
}

static void numbers_are_given_out_again(void)
{
	struct kept *k;
	uint32_t first, second, third;

	CHECK(kept_new(&k, &keeper) == 0);
	first = kept_number(k);
	second = kept_number(k);
	CHECK(first == 1 && second == 2);
	kept_return(k, first);
	CHECK_EQ(kept_number(k), first);
	third = kept_number(k);
	CHECK_EQ(third, 3);
	for (uint32_t i = 4; i < 10000; i++)
		CHECK_EQ(kept_number(k), i);
	kept_free(k);
}

static void what_is_found_is_taken_once(void)
{
	char tag[KEPT_TAG];
	struct kept *k;
	int fd;

	CHECK(kept_new(&k, &keeper) == 0);
	kept_find(k, "v2.s", some_fd());
	kept_find(k, "v10.s", some_fd());
	kept_find(k, "v2.c", some_fd());
	kept_find(k, "p2.s", some_fd());
	kept_find(k, "v2.c", some_fd());	/* twice */
	kept_find(k, "nonsense", some_fd());
	kept_find(k, "v.s", some_fd());
	CHECK_EQ(kept_next(k, KEPT_VM, "s", 0), 2);
	CHECK_EQ(kept_next(k, KEPT_VM, "s", 2), 16);
	CHECK_EQ(kept_next(k, KEPT_VM, "s", 16), 0);
	CHECK_EQ(kept_next(k, KEPT_POOL, "s", 0), 2);
	kept_tag(tag, (struct kept_owner){ .kind = KEPT_VM, .number = 16 }, "s");
	fd = kept_take(k, tag);
	CHECK(fd >= 0);
	close(fd);
	CHECK_EQ(kept_take(k, tag), -ENOENT);
	/* its number is nobody else's */
	CHECK_EQ(kept_number(k), 1);
	CHECK_EQ(kept_number(k), 3);
	CHECK_EQ(kept_end(k), 3);
	kept_free(k);
}

static struct arena *arena_of(struct kept *k)
{
	struct problem p = { 0 };
	struct arena *a;

	CHECK_MSG(arena_new(&a, 16 << 20, k, &p) == 0, "%s", p.text);
	return a;
}

struct card {
	uint64_t a, b;
	char text[100];
};

static const struct kept_owner owner = { .kind = KEPT_VM, .number = 1 }, found = { .kind = KEPT_VM, .number = 1, .found = true };

/* A card in a process that dies, after `writes` versions of it. */
static void write_and_die(uint64_t writes)
{
	struct problem p = { 0 };
	struct account payer;
	struct kept *k;
	struct arena *a;
	struct state s;

	CHECK(kept_new(&k, &keeper) == 0);
	a = arena_of(k);
	account_init(&payer, a, UINT64_MAX);
	CHECK(state_init(&s, a, &payer, owner, 1000, &p) == 0);
	for (uint64_t i = 1; i <= writes; i++) {
		struct card c = { .a = i, .b = i * 7, .text = "card" };

		state_write_card(&s, &c, sizeof c);
	}
	for (unsigned i = 0; i < 70; i += 23) {
		struct state_lease *r = state_record(&s, i);

		CHECK(r);
		r->gpa = i * 4096;
		r->pages = 5;
		state_record_live(r);
	}
	/* it dies: the keeper has its copies */
	dead = true;
	state_fini(&s);
	arena_free(a);
	kept_free(k);
	dead = false;
}

static struct kept *life;
static struct arena *reader;

static void end_reader(struct state *s)
{
	state_fini(s);
	arena_free(reader);
	kept_free(life);
}

static int read_card(struct card *c, struct state *s, struct account *payer)
{
	struct problem p = { 0 };

	life = next_life();
	reader = arena_of(life);
	account_init(payer, reader, UINT64_MAX);
	CHECK_MSG(state_init(s, reader, payer, found, 1000, &p) == 0, "%s", p.text);
	return state_card(s, c, sizeof *c);
}

/* The supervisor's copy, to be damaged. */
static uint8_t *open_held(void)
{
	uint8_t *m = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, held[0].fd, 0);

	CHECK(m != MAP_FAILED);
	return m;
}

static void a_card_is_read_as_it_was_written_last(void)
{
	for (uint64_t writes = 1; writes < 5; writes++) {
		struct state_lease r;
		struct account payer;
		struct state s;
		struct card c;

		write_and_die(writes);
		CHECK_EQ(read_card(&c, &s, &payer), 0);
		CHECK_EQ(c.a, writes);
		CHECK_EQ(c.b, writes * 7);
		CHECK(!strcmp(c.text, "card"));
		CHECK_EQ(state_read_record(&s, 23, &r), 0);
		CHECK_EQ(r.gpa, 23 * 4096);
		CHECK_EQ(state_read_record(&s, 22, &r), -ENOENT);
		CHECK_EQ(state_read_record(&s, 999, &r), -ENOENT);
		CHECK_EQ(atomic_load(&payer.frames), segment_blocks(s.segment));
		end_reader(&s);
		CHECK_EQ(n_held, 0);
	}
}

static void half_a_card_leaves_the_one_before(void)
{
	/* the second of three writes is torn at any byte: the places are written in turn, so the first is whole */
	for (unsigned at = 0; at < 200; at += 3) {
		struct account payer;
		struct state s;
		struct card c;
		uint8_t *m;
		int r;

		write_and_die(2);
		m = open_held();
		/* both places are behind the head's 32 bytes; the second card has the higher number and lies in the first place */
		m[32 + at] ^= 0x5a;
		munmap(m, 4096);
		r = read_card(&c, &s, &payer);
		CHECK(r == 0);
		CHECK(c.a == 1 || c.a == 2);
		CHECK_EQ(c.b, c.a * 7);
		end_reader(&s);
	}
}

static void damage_is_seen(void)
{
	struct account payer;
	struct state_lease rec;
	struct state s;
	struct card c;
	uint8_t *m;

	write_and_die(2);
	m = open_held();
	memset(m + 32, 0xff, 4064);
	munmap(m, 4096);
	CHECK_EQ(read_card(&c, &s, &payer), -EBADMSG);
	end_reader(&s);

	write_and_die(1);
	m = open_held();
	*(uint64_t *)(m + 16) = STATE_FORMAT + 1;
	*(uint64_t *)(m + 24) = ~(uint64_t)(STATE_FORMAT + 1);
	munmap(m, 4096);
	CHECK_EQ(read_card(&c, &s, &payer), -EPROTONOSUPPORT);
	end_reader(&s);

	/* never written: it was being made */
	write_and_die(0);
	CHECK_EQ(read_card(&c, &s, &payer), -ENOENT);
	end_reader(&s);

	write_and_die(1);
	m = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, held[0].fd, 0);
	CHECK(m != MAP_FAILED);
	m[4096 + 24] ^= 1; /* the pages of record 0 */
	munmap(m, 8192);
	CHECK_EQ(read_card(&c, &s, &payer), 0);
	CHECK_EQ(state_read_record(&s, 0, &rec), -EBADMSG);
	CHECK_EQ(state_read_record(&s, 23, &rec), 0);
	end_reader(&s);
}

static void what_is_missing_is_not_made_anew(void)
{
	struct problem p = { 0 };
	struct account payer;
	struct segment *seg;
	struct kept *k;
	struct arena *a;

	CHECK(kept_new(&k, &keeper) == 0);
	a = arena_of(k);
	account_init(&payer, a, UINT64_MAX);
	CHECK_EQ(segment_new(&seg, a, &payer, SEGMENT_PAGE_MAP, found, "1p", 4096, &p), -EBADMSG);
	/* something else by its name: not sealed, another size */
	kept_find(k, "v1.1p", some_fd());
	CHECK_EQ(segment_new(&seg, a, &payer, SEGMENT_PAGE_MAP, found, "1p", 4096, &p), -EBADMSG);
	arena_free(a);
	kept_free(k);
}

/* ---- format 1 ---- */

static int sealed(uint64_t bytes, const uint8_t *first_page)
{
	int fd = memfd_create("found", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	CHECK(fd >= 0 && ftruncate(fd, (off_t)bytes) == 0);
	if (first_page)
		CHECK(pwrite(fd, first_page, 4096, 0) == 4096);
	CHECK(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0);
	return fd;
}

static uint64_t state_bytes(void)
{
	return (4096 + LEASE_ID_MAX * sizeof(struct state_lease) + 4095) / 4096 * 4096;
}

static void format_1_is_read_and_raised(void)
{
	uint8_t page[4096];

	/* as it was; raised by half; raised */
	for (unsigned raised = 0; raised < 3; raised++) {
		struct problem p = { 0 };
		struct account payer;
		struct vm_config c;
		struct vm_card card;
		struct arena *a;
		struct kept *k;
		struct state s;

		memcpy(page, card_format_1, sizeof page);
		if (raised)
			*(uint64_t *)(page + 16) = 2;
		if (raised == 2)
			*(uint64_t *)(page + 24) = ~(uint64_t)2;
		CHECK(kept_new(&k, &keeper) == 0);
		kept_find(k, "v1.s", sealed(state_bytes(), page));
		a = arena_of(k);
		account_init(&payer, a, UINT64_MAX);
		CHECK_MSG(state_init(&s, a, &payer, found, LEASE_ID_MAX, &p) == 0, "%s", p.text);
		memset(&card, 0x5a, sizeof card);
		CHECK_EQ(state_card(&s, &card, sizeof card), 0);
		card_get_config(&card, &c);
		CHECK(!strcmp(c.name, "old-one") && strstr(c.swap_dir, "/swap"));
		CHECK_EQ(c.size_bytes, 8 << 20);
		CHECK_EQ(c.reservation_bytes, 2 << 20);
		CHECK_EQ(c.limit_bytes, 6 << 20);
		CHECK_EQ(c.shares, 80);
		CHECK_EQ(card.sharing, SHARING_ZERO);
		CHECK_EQ(card.client_bytes, 112);
		CHECK(!c.keep_swap_sparse && !c.balloon_max_bytes && !c.stall_budget_permille && !card.sharing_withheld && !card.swap_max_bytes);
		state_raise(&s);
		CHECK_EQ(*(uint64_t *)(s.segment->addr + 16), STATE_FORMAT);
		CHECK_EQ(state_card(&s, &card, sizeof card), 0);
		/* ahead of what it says of itself by more than a raise: damage */
		*(uint64_t *)(s.segment->addr + 24) = ~(uint64_t)77;
		CHECK_EQ(state_card(&s, &card, sizeof card), -EBADMSG);
		state_fini(&s);
		arena_free(a);
		kept_free(k);
	}
}

static struct mem_settings settings = { .zstd_level = 1, .zip_max_pct = 50, .zip_max_alloc_pct = 50, .fault_around_pages = 1,
	.ctl_max_pct = 65, .stall_budget_permille = 30 };

static int *held_fd(const char *tag)
{
	for (unsigned i = 0; i < n_held; i++)
		if (!strcmp(held[i].tag, tag))
			return &held[i].fd;
	check_fail(__FILE__, __LINE__, "nothing is kept as %s", tag);
}

static struct pool *no_pool(void *userdata, uint32_t number)
{
	return NULL;
}

static struct vm *recover(void)
{
	struct recovery_numbers numbers = { 0 };
	struct problem p = { 0 };
	struct vm *vm;

	life = next_life();
	reader = arena_of(life);
	CHECK_MSG(vm_recover(&vm, reader, &settings, 1, no_pool, NULL, &numbers, &p) == 0, "%s", p.text);
	CHECK_MSG(vm_serve(vm, &p) == 0, "%s", p.text);
	return vm;
}

/* `killed`: nobody has ended what is kept. */
static void end_life(struct vm *vm, bool killed)
{
	uint64_t live = STATE_LIVE;

	dead = killed;
	vm_free(vm);
	arena_free(reader);
	kept_free(life);
	dead = false;
	if (killed)
		CHECK(pwrite(*held_fd("v1.s"), &live, sizeof live, 0) == sizeof live);
}

static struct vm *first_life(uint64_t reservation, uint64_t limit)
{
	struct vm_config c = { .name = "old-one", .size_bytes = 8 << 20, .reservation_bytes = reservation, .limit_bytes = limit, .shares = 80,
		.swap_dir = "/tmp" };
	struct problem p = { 0 };
	struct vm *vm;

	CHECK(kept_new(&life, &keeper) == 0);
	reader = arena_of(life);
	CHECK_MSG(vm_new(&vm, reader, &settings, &c, &p) == 0, "%s", p.text);
	vm_keep(vm, "client", 6);
	return vm;
}

static void a_vm_of_format_1_goes_on(void)
{
	struct problem p = { 0 };
	struct vm_config c;
	struct vm *vm = first_life(2 << 20, 6 << 20);

	end_life(vm, true);
	/* as format 1 left it: its card, and checksums for size - reservation only; the state is what it writes through other descriptors */
	close(*held_fd("v1.s"));
	*held_fd("v1.s") = sealed(state_bytes(), card_format_1);
	close(*held_fd("v1.k"));
	*held_fd("v1.k") = sealed(3 * 4096, NULL);

	vm = recover();
	CHECK_EQ(vm_config(vm)->reservation_bytes, 2 << 20);
	CHECK_EQ(vm_sharing(vm), SHARING_ZERO);
	CHECK_EQ(vm_balloon_max_frames(vm), 2048 * 65 / 100);
	CHECK_EQ(vm_stall_budget_permille(vm), 30);
	c = *vm_config(vm);
	c.reservation_bytes = 0;
	CHECK_EQ(vm_set_config(vm, &c, &p), -ENOSPC);
	CHECK_EQ(p.kind, PROBLEM_LIMIT_REACHED);
	CHECK_EQ(vm_config(vm)->reservation_bytes, 2 << 20);
	c.reservation_bytes = 4 << 20;
	c.limit_bytes = 0;
	c.balloon_max_bytes = VM_OWN;
	c.stall_budget_permille = VM_OWN | 100;
	CHECK_MSG(vm_set_config(vm, &c, &p) == 0, "%s", p.text);
	vm_limit_sharing(vm, SHARING_OFF);
	end_life(vm, true);

	vm = recover();
	CHECK_EQ(vm_config(vm)->reservation_bytes, 4 << 20);
	CHECK_EQ(vm_config(vm)->limit_bytes, 0);
	CHECK_EQ(vm_balloon_max_frames(vm), 0);
	CHECK_EQ(vm_stall_budget_permille(vm), 100);
	CHECK_EQ(vm_sharing(vm), SHARING_OFF);
	vm_limit_sharing(vm, SHARING_POOL);
	CHECK_EQ(vm_sharing(vm), SHARING_ZERO);
	c.reservation_bytes = 2 << 20;
	CHECK_MSG(vm_set_config(vm, &c, &p) == 0, "%s", p.text);
	c.reservation_bytes = 1 << 20;
	CHECK_EQ(vm_set_config(vm, &c, &p), -ENOSPC);
	end_life(vm, false);
	CHECK_EQ(n_held, 0);
}

static void a_swap_file_comes_and_grows(void)
{
	struct problem p = { 0 };
	struct arena_numbers before, now;
	struct vm_numbers n;
	struct vm_config c;
	struct vm *vm = first_life(8 << 20, 0);

	/* all is reserved: there is no file, and no directory is asked for one */
	for (unsigned i = 0; i < n_held; i++)
		CHECK(strcmp(held[i].tag, "v1.f") && strcmp(held[i].tag, "v1.k"));
	arena_numbers(reader, &before);
	c = *vm_config(vm);
	c.reservation_bytes = 6 << 20;
	CHECK_MSG(vm_set_config(vm, &c, &p) == 0, "%s", p.text);
	vm_numbers(vm, &n);
	CHECK_EQ(n.swap_size_bytes, 2 << 20);
	arena_numbers(reader, &now);
	CHECK(now.reserved_frames < before.reserved_frames);
	end_life(vm, true);

	vm = recover();
	vm_numbers(vm, &n);
	CHECK_EQ(n.swap_size_bytes, 2 << 20);
	c.reservation_bytes = 0;
	CHECK_MSG(vm_set_config(vm, &c, &p) == 0, "%s", p.text);
	end_life(vm, true);

	vm = recover();
	vm_numbers(vm, &n);
	CHECK_EQ(n.swap_size_bytes, 8 << 20);
	/* more than the arena can promise: nothing changes.  What was set aside stays */
	arena_numbers(reader, &before);
	CHECK_EQ(arena_reserve(reader, before.capacity_frames - before.reserve_frames - before.reserved_frames - 100, &p), 0);
	c.reservation_bytes = 1 << 20;
	c.shares = 7;
	CHECK_EQ(vm_set_config(vm, &c, &p), -ENOMEM);
	CHECK_EQ(vm_config(vm)->reservation_bytes, 0);
	CHECK_EQ(vm_config(vm)->shares, 80);
	arena_unreserve(reader, before.capacity_frames - before.reserve_frames - before.reserved_frames - 100);
	CHECK_MSG(vm_set_config(vm, &c, &p) == 0, "%s", p.text);
	/* reserved anew, the file stays as long as it is, and what it may take is promised: the same at a restart */
	arena_numbers(reader, &now);
	end_life(vm, true);
	vm = recover();
	arena_numbers(reader, &before);
	CHECK_EQ(now.reserved_frames, before.reserved_frames);
	CHECK_EQ(vm_config(vm)->shares, 7);
	end_life(vm, false);
	CHECK_EQ(n_held, 0);
}

static void pinned_pages_keep_their_reservation(void)
{
	struct problem p = { 0 };
	struct vm_config c;
	struct vm *vm = first_life(4 << 20, 0);

	c = *vm_config(vm);
	atomic_store(&vm->pinned_pages, 700);
	c.reservation_bytes = 2 << 20;
	CHECK_EQ(vm_set_config(vm, &c, &p), -EBUSY);
	CHECK_EQ(vm_config(vm)->reservation_bytes, 4 << 20);
	c.reservation_bytes = 3 << 20;
	CHECK_MSG(vm_set_config(vm, &c, &p) == 0, "%s", p.text);
	atomic_store(&vm->pinned_pages, 0);
	end_life(vm, false);
}

int main(int argc, char **argv)
{
	return check_main(argc, argv, (const struct scenario[]){ SCENARIO(numbers_are_given_out_again),
		SCENARIO(what_is_found_is_taken_once),
		SCENARIO(a_card_is_read_as_it_was_written_last),
		SCENARIO(half_a_card_leaves_the_one_before),
		SCENARIO(damage_is_seen),
		SCENARIO(what_is_missing_is_not_made_anew),
		SCENARIO(format_1_is_read_and_raised),
		SCENARIO(a_vm_of_format_1_goes_on),
		SCENARIO(a_swap_file_comes_and_grows),
		SCENARIO(pinned_pages_keep_their_reservation), { 0 } });
}
