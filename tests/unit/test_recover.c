/* Recovery from damage.  Again and again, copies of what a memctld leaves that is killed (left.h) are damaged at random, and recovered:
 *
 *	- the recovery comes to an end, and its books are right: all that it charged and counted is given back in the end
 *	- whoever was not damaged has every byte
 *	- damage of a state, of a cache, of a swap file or its checksums is noticed: lost, never wrong.  A word of a page map that is
 *	  damaged to another word that makes sense cannot be noticed; then the page holds zeros or something else of the same VM, or of
 *	  its pool, and never of another's
 *
 * Seeds are fixed.  MEMCTL_FUZZ_ROUNDS: more of them. */
#include "tests/lib/check.h"
#include "tests/unit/left.h"

#include <errno.h>
#include <string.h>

#define ROUNDS 50u

static uint64_t rng;

/* ---- damage ---- */

static uint64_t any_below(uint64_t n)
{
	return random_below(&rng, n);
}

/* A page of the file that has data. */
static uint8_t *any_page(const struct file *f)
{
	uint64_t n = 0, k;

	for (uint64_t i = 0; i < f->size / PAGE_SIZE; i++)
		n += f->data[i];
	if (!n)
		return NULL;
	k = any_below(n);
	for (uint64_t i = 0;; i++)
		if (f->data[i] && !k--)
			return f->now + i * PAGE_SIZE;
}

static void damage(const struct file *f)
{
	uint8_t *page = any_page(f);
	uint64_t *words = (uint64_t *)page;
	/* most of a page is often empty: what is at its beginning matters more */
	uint64_t bytes = any_below(2) ? PAGE_SIZE : 256, at;

	if (!page)
		return;
	at = any_below(bytes);
	switch (any_below(6)) {
	case 0:
	case 1:
		page[at] ^= (uint8_t)(1u << any_below(8));
		break;
	case 2:
		page[at] = (uint8_t)random_next(&rng);
		break;
	case 3:
		words[at / 8] = random_next(&rng);
		break;
	case 4:
		/* a word of a map, of small numbers */
		words[at / 8] = any_below(8) | any_below(4096) << 4 | any_below(4096) << WORD_REF_SHIFT;
		break;
	default:
		at = at / 8;
		words[at] = words[any_below(bytes / 8)];
	}
}

#define HELD 3u	/* 50, 51, 52 */

static bool is_whole(const struct after *w, unsigned v)
{
	struct tally t = look(w, v);

	return w->r[v] == 0 && !t.lost && !t.wrong && t.right + t.held == PAGES && t.held == (v == APART ? 0 : HELD);
}

static unsigned rounds(void)
{
	const char *more = getenv("MEMCTL_FUZZ_ROUNDS");

	return more ? (unsigned)atoi(more) : ROUNDS;
}

/* Files by the ends of their tags: of the victim's (owner 'v') or of the pool's ('p'). */
static bool is_of(const struct file *f, char owner, const char *parts)
{
	char own[KEPT_TAG];
	const char *part = strchr(f->tag, '.') + 1;

	snprintf(own, sizeof own, "%c%x.", owner, owner == 'v' ? before.vm[VICTIM]->owner.number : before.pool->owner.number);
	return f->was && !strncmp(f->tag, own, strlen(own)) && strstr(parts, part);
}

static unsigned lost_pages, lost_owners, wrong_pages;

/* Damage files of the owner, recover, and look.  `noticed`: no damage may be taken for truth. */
static void fuzz(char owner, const char *parts, bool noticed)
{
	lost_pages = lost_owners = wrong_pages = 0;
	for (unsigned round = 0; round < rounds(); round++) {
		struct recovery_numbers numbers = { 0 };
		struct after w;
		struct tally t;

		rng = 1000003ull * round + (unsigned char)parts[1];
		undamaged();
		for (uint64_t n = 1 + any_below(4); n; n--) {
			unsigned k = (unsigned)any_below(n_files);

			while (!is_of(&files[k], owner, parts))
				k = (k + 1) % n_files;
			damage(&files[k]);
		}
		recover(&w, &numbers);
		CHECK_MSG(is_whole(&w, APART), "round %u: a VM that has nothing to do with it lost something", round);
		if (owner == 'v') {
			CHECK_MSG(w.pool_r == 0 && is_whole(&w, NEIGHBOUR), "round %u: its neighbour lost something", round);
			CHECK_MSG(w.r[VICTIM] == 0 || w.r[VICTIM] == -EBADMSG || w.r[VICTIM] == -ENOENT, "round %u: %d: %s", round,
				w.r[VICTIM], problem.text);
		} else {
			CHECK_MSG(w.pool_r == 0 || w.pool_r == -EBADMSG || w.pool_r == -ENOENT, "round %u: %d", round, w.pool_r);
			CHECK_MSG(w.r[NEIGHBOUR] == 0 || (w.pool_r && w.r[NEIGHBOUR] == -EBADMSG), "round %u: %d", round, w.r[NEIGHBOUR]);
		}
		t = look(&w, VICTIM);
		lost_pages += t.lost;
		lost_owners += w.r[VICTIM] != 0;
		wrong_pages += t.wrong;
		CHECK_MSG(!noticed || !t.wrong, "round %u: %u pages are wrong, and nobody noticed", round, t.wrong);
		give_back(&w);
	}
	fprintf(stderr, "%s: %u rounds: %u pages and %u owners lost, %u pages wrong\n", parts, rounds(), lost_pages, lost_owners,
		wrong_pages);
}

static void nothing_damaged(void)
{
	struct recovery_numbers numbers = { 0 };
	struct after w;

	make_world();
	undamaged();
	recover(&w, &numbers);
	CHECK_EQ(numbers.damaged, 0);
	CHECK_EQ(numbers.in_question, 2);
	for (unsigned v = 0; v < VMS; v++)
		CHECK_MSG(is_whole(&w, v), "%s", names[v]);
	/* what had been punched is in the balloon, what had not is resident as before */
	for (unsigned v = 0; v < VMS; v++)
		CHECK_EQ(atomic_load(&w.vm[v]->pages[PAGE_BALLOONED]), 2);
	give_back(&w);
}

static void damaged_state(void)
{
	make_world();
	fuzz('v', " s ", true);
}

static void damaged_words(void)
{
	make_world();
	fuzz('v', " 1p ", false);
}

static void damaged_stores(void)
{
	make_world();
	fuzz('v', " c f k ", true);
}

static void damaged_pool_state(void)
{
	make_world();
	fuzz('p', " s ", true);
}

static void damaged_pool_words(void)
{
	make_world();
	fuzz('p', " p ", false);
}

static void damaged_pool_stores(void)
{
	make_world();
	fuzz('p', " c f k ", true);
}

static void damaged_pool_hashes(void)
{
	make_world();
	fuzz('p', " h ", true);
}

int main(int argc, char **argv)
{
	return check_main(argc, argv, (const struct scenario[]){ SCENARIO(nothing_damaged), SCENARIO(damaged_state),
		SCENARIO(damaged_words), SCENARIO(damaged_stores), SCENARIO(damaged_pool_state), SCENARIO(damaged_pool_words),
		SCENARIO(damaged_pool_stores), SCENARIO(damaged_pool_hashes), { 0 } });
}
