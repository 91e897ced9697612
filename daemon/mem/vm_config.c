/* The configuration of a VM: what is right, what the arena promises for it, how it is kept, and how it changes while the VM runs. */
#include "mem/vm_impl.h"

#include "mem/inject.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#define STATE_PAGES 2u

static uint64_t blocks_of_words(uint64_t bytes)
{
	return (bytes / PAGE_SIZE + MAP_BLOCK_PAGES - 1) / MAP_BLOCK_PAGES;
}

uint64_t vm_overhead_frames(const struct vm_config *c, uint64_t swap_frames)
{
	uint64_t swap = vm_swap_bytes(c);

	if (swap < swap_frames * PAGE_SIZE)
		swap = swap_frames * PAGE_SIZE;
	return blocks_of_words(c->size_bytes) + blocks_of_words(swap) + 2 * CACHE_BLOCK_PAGES + STATE_PAGES;
}

uint64_t vm_break_reserve_frames(const struct vm_config *c)
{
	return c->break_reserve_frames > RUN_MAX ? c->break_reserve_frames : RUN_MAX;
}

void vm_promise(struct vm *vm, struct vm_promise *ret)
{
	*ret = (struct vm_promise){ .frames = vm->reserved_frames, .swap_frames = swap_size_bytes(vm->stores.swap) / PAGE_SIZE };
}

int vm_check_config(const struct vm_config *c, struct problem *p)
{
	if (!c->size_bytes || c->size_bytes % PAGE_SIZE || c->size_bytes > 1ull << 44)
		return problem_set(p, EINVAL, PROBLEM_INVALID_SIZE, c->size_bytes, PAGE_SIZE,
			"the size of a VM is above 0, a multiple of 4096 and at most 16 TiB");
	if (c->reservation_bytes % PAGE_SIZE || c->limit_bytes % PAGE_SIZE)
		return problem_set(p, EINVAL, PROBLEM_INVALID_SIZE, c->reservation_bytes % PAGE_SIZE ? c->reservation_bytes :
			c->limit_bytes, PAGE_SIZE, "reservation and limit are multiples of 4096");
	if (c->reservation_bytes > c->size_bytes)
		return problem_set(p, EINVAL, PROBLEM_INVALID_SIZE, c->reservation_bytes, c->size_bytes,
			"the reservation is larger than the VM");
	/* a VM must hold its overhead and a few runs of pages, or it could not make a step */
	if (c->limit_bytes && c->limit_bytes < c->reservation_bytes)
		return problem_set(p, EINVAL, PROBLEM_INVALID_SIZE, c->limit_bytes, c->reservation_bytes,
			"the limit is below the reservation");
	if (c->limit_bytes && c->limit_bytes < (4ull << 20) && c->limit_bytes < c->size_bytes)
		return problem_set(p, EINVAL, PROBLEM_INVALID_SIZE, c->limit_bytes, 4ull << 20,
			"the limit is at least 4 MiB (or the VM's size)");
	return 0;
}

uint64_t vm_swap_bytes(const struct vm_config *c)
{
	return c->size_bytes - c->reservation_bytes;
}

uint64_t vm_promised_frames(const struct vm_config *c, uint64_t swap_bytes)
{
	return c->reservation_bytes / PAGE_SIZE + vm_overhead_frames(c, swap_bytes / PAGE_SIZE) + vm_break_reserve_frames(c);
}

void card_put_config(struct vm_card *card, const struct vm_config *c)
{
	memcpy(card->name, c->name, sizeof card->name);
	card->size_bytes = c->size_bytes;
	card->reservation_bytes = c->reservation_bytes;
	card->limit_bytes = c->limit_bytes;
	card->shares = c->shares;
	memcpy(card->swap_dir, c->swap_dir, sizeof card->swap_dir);
	card->keep_swap_sparse = c->keep_swap_sparse;
	card->balloon_max_bytes = c->balloon_max_bytes;
	card->stall_budget_permille = c->stall_budget_permille;
	card->break_reserve_frames = c->break_reserve_frames;
}

void card_get_config(const struct vm_card *card, struct vm_config *ret)
{
	*ret = (struct vm_config){
		.size_bytes = card->size_bytes, .reservation_bytes = card->reservation_bytes, .limit_bytes = card->limit_bytes,
		.shares = card->shares, .keep_swap_sparse = card->keep_swap_sparse, .balloon_max_bytes = card->balloon_max_bytes,
		.stall_budget_permille = card->stall_budget_permille, .break_reserve_frames = card->break_reserve_frames,
	};
	memcpy(ret->name, card->name, sizeof ret->name);
	memcpy(ret->swap_dir, card->swap_dir, sizeof ret->swap_dir);
}

/* What is kept has changed, if the VM is there for good already. */
void vm_card_changed(struct vm *vm)
{
	if (vm->card.client_bytes)
		state_write_card(&vm->state, &vm->card, sizeof vm->card);
}

/* The workers count pins against the reservation: they see the new one, or we see theirs. */
static int set_reservation(struct vm *vm, uint64_t bytes, struct problem *p)
{
	uint64_t before = atomic_exchange(&vm->config.reservation_bytes, bytes);
	uint64_t pinned = atomic_load(&vm->pinned_pages) * PAGE_SIZE;

	if (bytes >= before || pinned <= bytes)
		return 0;
	atomic_store(&vm->config.reservation_bytes, before);
	return problem_set(p, EBUSY, PROBLEM_BAD_STATE, pinned, bytes,
		"the client has %llu MiB pinned, which a reservation of %llu MiB does not guarantee", (unsigned long long)(pinned >> 20),
		(unsigned long long)(bytes >> 20));
}

int vm_set_config(struct vm *vm, const struct vm_config *c, struct problem *p)
{
	uint64_t ready = swap_size_bytes(vm->stores.swap), wanted = vm_swap_bytes(c), frames;
	int r = vm_check_config(c, p);

	if (r < 0)
		return r;
	assert(!strcmp(c->name, vm->config.name) && c->size_bytes == vm->config.size_bytes);
	frames = vm_promised_frames(c, wanted > ready ? wanted : ready);
	if (frames > vm->reserved_frames) {
		r = arena_reserve(vm->arena, frames - vm->reserved_frames, p);
		if (r < 0)
			return r;
	}
	/* the room on the disk is had before the promise of memory is withdrawn */
	r = swap_grow(vm->stores.swap, wanted / PAGE_SIZE, p);
	if (r == 0)
		r = set_reservation(vm, c->reservation_bytes, p);
	if (r < 0) {
		if (frames > vm->reserved_frames)
			arena_unreserve(vm->arena, frames - vm->reserved_frames);
		return r;
	}
	if (frames < vm->reserved_frames)
		arena_unreserve(vm->arena, vm->reserved_frames - frames);
	vm->reserved_frames = frames;
	vm->config.limit_bytes = c->limit_bytes;
	vm->config.shares = c->shares;
	vm->config.balloon_max_bytes = c->balloon_max_bytes;
	vm->config.stall_budget_permille = c->stall_budget_permille;
	atomic_store(&vm->account.limit_frames, c->limit_bytes ? c->limit_bytes / PAGE_SIZE : UINT64_MAX);
	card_put_config(&vm->card, &vm->config);
	vm_card_changed(vm);
	CRASH_POINT("vm_set.kept");
	/* those who waited at the old limit, and those who take at the new one */
	account_changed(&vm->account);
	return 0;
}

uint64_t vm_balloon_max_frames(const struct vm *vm)
{
	uint64_t own = atomic_load(&vm->config.balloon_max_bytes), frames = vm->config.size_bytes / PAGE_SIZE;

	if (own & VM_OWN)
		return (own & ~VM_OWN) / PAGE_SIZE;
	return frames * atomic_load(&vm->settings->ctl_max_pct) / 100;
}

unsigned vm_stall_budget_permille(const struct vm *vm)
{
	uint64_t own = atomic_load(&vm->config.stall_budget_permille);

	return own & VM_OWN ? (unsigned)(own & ~VM_OWN) : atomic_load(&vm->settings->stall_budget_permille);
}
