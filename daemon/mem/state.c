#include "mem/state.h"

#include "mem/checksum.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>

#define MAGIC 0x6c74636d656d0a1aull
#define LIVE  STATE_LIVE

struct place {
	uint64_t number;		/* 0: never written */
	uint64_t bytes;
	uint64_t checksum;		/* of number, bytes and card */
	uint8_t card[STATE_CARD_MAX];
};

/* The first page. */
struct head {
	_Atomic uint64_t live;
	uint64_t magic;
	/* its complement: damage is no other format, which would keep us from starting.  While it is raised, `format` is ahead */
	uint64_t format, not_format;
	struct place place[2];
};
_Static_assert(sizeof(struct head) <= PAGE_SIZE, "the head is one page");
_Static_assert(sizeof(struct state_lease) == 128, "records do not cross pages");

static struct head *head(const struct state *s)
{
	return (struct head *)s->segment->addr;
}

int state_init(struct state *s, struct arena *a, struct account *payer, struct kept_owner owner, uint32_t records, struct problem *p)
{
	uint64_t bytes = PAGE_SIZE + (records * sizeof(struct state_lease) + PAGE_SIZE - 1) / PAGE_SIZE * PAGE_SIZE, at = 0, to;
	int r;

	*s = (struct state){ 0 };
	r = segment_new(&s->segment, a, payer, SEGMENT_STATE, owner, "s", bytes, p);
	if (r < 0)
		return r;
	if (s->segment->found) {
		/* from the first page on without a gap, as we have charged them */
		if (segment_next_data(s->segment, 0, &at, &to) && at == 0)
			s->charged = to / PAGE_SIZE;
		segment_charge_found(s->segment, segment_blocks(s->segment));
		return 0;
	}
	r = segment_charge(s->segment, 1, CHARGE_STORE);
	if (r < 0) {
		state_fini(s);
		return problem_set(p, -r, PROBLEM_NOT_ENOUGH_MEMORY, PAGE_SIZE, 0, "the arena is full");
	}
	s->charged = 1;
	head(s)->magic = MAGIC;
	head(s)->format = STATE_FORMAT;
	head(s)->not_format = ~(uint64_t)STATE_FORMAT;
	return 0;
}

void state_fini(struct state *s)
{
	segment_free(s->segment);
	s->segment = NULL;
}

/* `number`: what it has, or is about to get. */
static uint64_t place_sum(const struct place *k, uint64_t number)
{
	return checksum_bytes(&number, sizeof number) ^ checksum_bytes(&k->bytes, sizeof k->bytes) * 3 ^
		checksum_bytes(k->card, k->bytes);
}

void state_write_card(struct state *s, const void *card, size_t bytes)
{
	struct place *k = &head(s)->place[(s->number + 1) % 2];

	assert(bytes <= STATE_CARD_MAX);
	/* nobody takes it for whole until the number is there; the other one stands meanwhile */
	k->number = 0;
	atomic_signal_fence(memory_order_seq_cst);
	k->bytes = bytes;
	memcpy(k->card, card, bytes);
	s->number++;
	k->checksum = place_sum(k, s->number);
	atomic_signal_fence(memory_order_seq_cst);
	k->number = s->number;
	atomic_store(&head(s)->live, LIVE);
}

void state_end(struct state *s)
{
	atomic_store(&head(s)->live, 0);
}

/* The format that all of it is of; 0: damage. */
static uint64_t format_of(const struct head *h)
{
	uint64_t format = h->format, before = ~h->not_format;

	if (h->magic != MAGIC)
		return 0;
	if (format == before)
		return format;
	return format == STATE_FORMAT && before >= STATE_FORMAT_OLDEST && before < format ? before : 0;
}

void state_raise(struct state *s)
{
	head(s)->format = STATE_FORMAT;
	atomic_signal_fence(memory_order_seq_cst);
	head(s)->not_format = ~(uint64_t)STATE_FORMAT;
	atomic_signal_fence(memory_order_seq_cst);
}

int state_card(struct state *s, void *card, size_t bytes)
{
	const struct place *best = NULL;
	bool written = false;

	if (!s->charged)
		return -EBADMSG;
	if (atomic_load(&head(s)->live) != LIVE)
		return -ENOENT;
	if (!format_of(head(s)))
		return -EBADMSG;
	if (format_of(head(s)) < STATE_FORMAT_OLDEST || format_of(head(s)) > STATE_FORMAT)
		return -EPROTONOSUPPORT;
	for (unsigned i = 0; i < 2; i++) {
		const struct place *k = &head(s)->place[i];

		written = written || k->number;
		if (k->number && k->bytes <= STATE_CARD_MAX && k->number % 2 == i && place_sum(k, k->number) == k->checksum &&
			(!best || k->number > best->number))
			best = k;
	}
	if (!best)
		return written ? -EBADMSG : -ENOENT;
	/* a card only grows from one format to the next: what an older one lacks is zero */
	memset(card, 0, bytes);
	memcpy(card, best->card, best->bytes < bytes ? best->bytes : bytes);
	s->number = best->number;
	return 0;
}

struct state_lease *state_record(struct state *s, uint32_t i)
{
	uint64_t at = PAGE_SIZE + i * sizeof(struct state_lease);

	while (s->charged <= at / PAGE_SIZE) {
		if (segment_charge(s->segment, 1, CHARGE_STORE) < 0)
			return NULL;
		/* written, so that there is no gap */
		*(volatile uint64_t *)(s->segment->addr + s->charged++ * PAGE_SIZE) = 0;
	}
	return (struct state_lease *)(s->segment->addr + at);
}

static uint64_t record_sum(const struct state_lease *r)
{
	return checksum_bytes(&r->gpa, offsetof(struct state_lease, handing) - offsetof(struct state_lease, gpa));
}

void state_record_live(struct state_lease *r)
{
	r->checksum = record_sum(r);
	atomic_store(&r->live, LIVE);
}

void state_record_end(struct state_lease *r)
{
	atomic_store(&r->live, 0);
}

int state_read_record(struct state *s, uint32_t i, struct state_lease *ret)
{
	uint64_t at = PAGE_SIZE + i * sizeof *ret;
	const struct state_lease *r = (const struct state_lease *)(s->segment->addr + at);

	if (!state_has_record(s, i))
		return -ENOENT;
	if (atomic_load(&r->live) != LIVE)
		return -ENOENT;
	memcpy(ret, r, sizeof *ret);
	return record_sum(ret) == ret->checksum ? 0 : -EBADMSG;
}
