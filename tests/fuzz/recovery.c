/* What is kept (states, page maps, caches, swap slots and their checksums), damaged as the fuzzer says, and recovered (unit/left.h).
 *
 * The checksums of a state's card and records are made good again if the input says so: then the card says anything at all, as one
 * that another version of us wrote, and only what is checked of it stands between it and us.
 *
 * The input: flags, then patches: which file, which of its pages that have data, where in it, how many bytes, and these. */
#include "mem/checksum.h"
#include "mem/state.h"
#include "tests/fuzz/fuzz.h"
#include "tests/lib/check.h"
#include "tests/unit/left.h"

#include <errno.h>
#include <string.h>

enum { REPAIR = 1 };

static uint8_t *page_of(const struct file *f, uint8_t nth)
{
	uint64_t n = 0, k;

	for (uint64_t i = 0; i < f->size / PAGE_SIZE; i++)
		n += f->data[i];
	if (!n)
		return NULL;
	k = nth % n;
	for (uint64_t i = 0;; i++)
		if (f->data[i] && !k--)
			return f->now + i * PAGE_SIZE;
}

/* As mem/state.c has them: of each place the number and the length count, and of a lease gpa, pages and address. */
struct place {
	uint64_t number, bytes, checksum;
	uint8_t card[STATE_CARD_MAX];
};
#define PLACES_AT 32u

static void repair_state(struct file *f)
{
	for (unsigned i = 0; i < 2; i++) {
		struct place *k = (struct place *)(f->now + PLACES_AT) + i;

		if (k->bytes <= STATE_CARD_MAX)
			k->checksum = checksum_bytes(&k->number, sizeof k->number) ^ checksum_bytes(&k->bytes, sizeof k->bytes) * 3 ^
				checksum_bytes(k->card, k->bytes);
	}
	for (uint64_t at = PAGE_SIZE; at + sizeof(struct state_lease) <= f->size && f->data[at / PAGE_SIZE]; at += sizeof(struct state_lease)) {
		struct state_lease *r = (struct state_lease *)(f->now + at);

		if (atomic_load(&r->live) == STATE_LIVE)
			r->checksum = checksum_bytes(&r->gpa, 3 * sizeof r->gpa);
	}
}

static bool is_of(const struct file *f, char owner, uint32_t number)
{
	char own[KEPT_TAG];

	snprintf(own, sizeof own, "%c%x.", owner, number);
	return !strncmp(f->tag, own, strlen(own));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	struct recovery_numbers numbers = { 0 };
	bool victim_only = true;
	struct after w;
	uint8_t flags;
	int before_fd;

	if (!n_files)
		make_world();
	before_fd = input_free_fd();
	undamaged();
	flags = input_byte(&in);
	while (in.left) {
		const struct file *f = &files[input_byte(&in) % n_files];
		/* but for guests' memory: whatever is there is theirs */
		uint8_t *page = f->was && !strchr(f->tag, 'm') ? page_of(f, input_byte(&in)) : NULL;
		uint16_t at;
		uint8_t n;

		input_take(&in, &at, sizeof at);
		n = input_byte(&in);
		at %= PAGE_SIZE;
		if (!page)
			continue;
		input_take(&in, page + at, n < PAGE_SIZE - at ? n : PAGE_SIZE - at);
		victim_only = victim_only && is_of(f, 'v', before.vm[VICTIM]->owner.number);
	}
	if (flags & REPAIR)
		for (unsigned i = 0; i < n_files; i++)
			if (files[i].was && !strcmp(strchr(files[i].tag, '.'), ".s"))
				repair_state(&files[i]);
	recover(&w, &numbers);
	for (unsigned v = 0; v < VMS; v++) {
		CHECK_MSG(w.r[v] == 0 || *problem.text, "%d and no word why", w.r[v]);
		/* with its card made good it may ask for more than there is */
		CHECK_MSG(w.r[v] == 0 || w.r[v] == -EBADMSG || w.r[v] == -ENOENT || w.r[v] == -EPROTONOSUPPORT || (flags & REPAIR),
			"%d: %s", w.r[v], problem.text);
	}
	CHECK_MSG(!victim_only || (w.pool_r == 0 && w.r[NEIGHBOUR] == 0 && w.r[APART] == 0), "another's damage cost a neighbour");
	for (unsigned v = 0; v < VMS; v++) {
		struct tally t = look(&w, v);

		CHECK_MSG(!victim_only || v == VICTIM || (!t.lost && !t.wrong), "another's damage cost pages");
	}
	give_back(&w);
	CHECK(input_free_fd() == before_fd);
	return 0;
}
