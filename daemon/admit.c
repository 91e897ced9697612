#include "admit.h"

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

static void refuse_swap(struct call *call, const struct policy_admission *a, const struct vm_config *c, bool new)
{
	struct problem p;

	problem_set(&p, 0, PROBLEM_NOT_ENOUGH_SWAP, a->swap_need_frames * PAGE_SIZE, a->swap_have_frames * PAGE_SIZE,
		"no room for a swap file of %llu MiB in %s (%llu MiB free): free space there%s a larger reservation", mib(a->swap_need_frames),
		c->swap_dir, mib(a->swap_have_frames), new ? ", name another directory, or register with" : ", or give it");
	refuse_problem(call, -ENOSPC, &p, c->swap_dir);
}

bool admit(struct daemon *d, struct call *call, const struct vm_config *c, struct vm *vm)
{
	struct arena_numbers arena;
	struct vm_promise has = { 0 };
	struct policy_admission a;

	arena_numbers(d->arena, &arena);
	if (vm)
		vm_promise(vm, &has);
	a = (struct policy_admission){
		.capacity_frames = arena.capacity_frames,
		.reserved_frames = arena.reserved_frames - has.frames,
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
		return true;
	case POLICY_RESERVATION_ABOVE_SIZE:
	case POLICY_LIMIT_BELOW_RESERVATION:
		refuse_numbers(call, WIRE_ERROR_ReservationBeyondSize, c->reservation_bytes,
			a.verdict == POLICY_RESERVATION_ABOVE_SIZE ? c->size_bytes : c->limit_bytes, NULL,
			"The reservation is larger than the %s of the VM.", a.verdict == POLICY_RESERVATION_ABOVE_SIZE ? "size" : "limit");
		return false;
	case POLICY_NO_ARENA:
		refuse_numbers(call, WIRE_ERROR_NotEnoughMemory, a.need_frames * PAGE_SIZE, a.have_frames * PAGE_SIZE, NULL,
			"reservation and overhead need %llu MiB of arena, %llu MiB are not promised yet: lower the reservation, or stop a VM",
			mib(a.need_frames), mib(a.have_frames));
		return false;
	case POLICY_NO_SWAP:
		refuse_swap(call, &a, c, !vm);
		return false;
	}
	return true;
}
