#include "admit.h"

#include "base/events.h"
#include "policy/admission.h"

#include <errno.h>
#include <sys/statvfs.h>

static unsigned long long mib(uint64_t frames)
{
	return (unsigned long long)(frames * PAGE_SIZE >> 20);
}

/* Room for its swap file; a directory that is not there says so when the file is made. */
static uint64_t swap_room_frames(const struct vm_config *c, uint64_t has_frames)
{
	struct statvfs st;

	return statvfs(c->swap_dir, &st) == 0 ? (uint64_t)st.f_bavail * st.f_frsize / PAGE_SIZE + has_frames : UINT64_MAX;
}

static int no_room(const struct policy_admission *a, const struct vm_config *c, bool new, struct problem *p)
{
	return problem_set(p, ENOSPC, PROBLEM_NOT_ENOUGH_SWAP, a->swap_need_frames * PAGE_SIZE, a->swap_have_frames * PAGE_SIZE,
		"no room for a swap file of %llu MiB in %s (%llu MiB free): free space there%s a larger reservation", mib(a->swap_need_frames),
		c->swap_dir, mib(a->swap_have_frames), new ? ", name another directory, or register with" : ", or give it");
}

/* To whoever watches the host; the caller gets the same as an error. */
static void tell(const struct vm_config *c, struct vm *vm, const struct policy_admission *a)
{
	event_tell(EVENT_VM_REFUSED, EVENT_OF(.vm = c->name),
		"VM %s: %s: it needs %llu MiB of %s, there are %llu", c->name, vm ? "its resources stay as they are" : "refused",
		mib(a->verdict == POLICY_NO_SWAP ? a->swap_need_frames : a->need_frames),
		a->verdict == POLICY_NO_SWAP ? c->swap_dir : "the arena",
		mib(a->verdict == POLICY_NO_SWAP ? a->swap_have_frames : a->have_frames));
}

uint64_t admission_frames(const struct vm_config *c, struct vm *vm)
{
	struct vm_promise has = { 0 };

	if (vm)
		vm_promise(vm, &has);
	return c->reservation_bytes / PAGE_SIZE + vm_overhead_frames(c, has.swap_frames) + vm_break_reserve_frames(c);
}

int admission(struct daemon *d, const struct vm_config *c, struct vm *vm, int64_t more_frames, struct problem *p)
{
	struct arena_numbers arena;
	struct vm_promise has = { 0 };
	struct policy_admission a;

	arena_numbers(d->arena, &arena);
	if (vm)
		vm_promise(vm, &has);
	a = (struct policy_admission){
		.capacity_frames = arena.capacity_frames,
		.reserved_frames = arena.reserved_frames - has.frames + (uint64_t)more_frames,
		.promised_frames = has.frames,
		.kept_frames = arena.reserve_frames,
		.swap_free_frames = swap_room_frames(c, has.swap_frames),
		.size_frames = c->size_bytes / PAGE_SIZE,
		.reservation_frames = c->reservation_bytes / PAGE_SIZE,
		.limit_frames = c->limit_bytes ? c->limit_bytes / PAGE_SIZE : UINT64_MAX,
		.overhead_frames = vm_overhead_frames(c, has.swap_frames),
		.break_reserve_frames = vm_break_reserve_frames(c),
	};
	policy_admission(&a);
	switch (a.verdict) {
	case POLICY_ADMITTED:
		break;
	case POLICY_RESERVATION_ABOVE_SIZE:
	case POLICY_LIMIT_BELOW_RESERVATION:
		return problem_set(p, EINVAL, PROBLEM_RESERVATION_BEYOND_SIZE, c->reservation_bytes,
			a.verdict == POLICY_RESERVATION_ABOVE_SIZE ? c->size_bytes : c->limit_bytes,
			"The reservation is larger than the %s of the VM.", a.verdict == POLICY_RESERVATION_ABOVE_SIZE ? "size" : "limit");
	case POLICY_NO_ARENA:
		tell(c, vm, &a);
		return problem_set(p, ENOMEM, PROBLEM_NOT_ENOUGH_MEMORY, a.need_frames * PAGE_SIZE, a.have_frames * PAGE_SIZE,
			"reservation and overhead need %llu MiB of arena, %llu MiB are not promised yet: lower the reservation, or stop a VM",
			mib(a.need_frames), mib(a.have_frames));
	case POLICY_NO_SWAP:
		tell(c, vm, &a);
		return no_room(&a, c, !vm, p);
	}
	return 0;
}
