/* What outlives the process: mem/kept.h, mem/state.h. */
#include "tests/lib/check.h"
#include "mem/arena.h"
#include "mem/kept.h"
#include "mem/state.h"

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

int main(int argc, char **argv)
{
	return check_main(argc, argv, (const struct scenario[]){ SCENARIO(numbers_are_given_out_again),
		SCENARIO(what_is_found_is_taken_once),
		SCENARIO(a_card_is_read_as_it_was_written_last),
		SCENARIO(half_a_card_leaves_the_one_before),
		SCENARIO(damage_is_seen),
		SCENARIO(what_is_missing_is_not_made_anew), { 0 } });
}
