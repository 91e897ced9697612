#include "policy/scan.h"

#define MIB_PAGES 256.0
#define NS_PER_S  1e9
#define NS_PER_MIN (60 * NS_PER_S)

static double min_double(double a, double b)
{
	return a < b ? a : b;
}

/* How far the hand may go, and what may be read on the way if nobody else reads. */
static void wish(const struct policy_scan_settings *s, bool pressed, double ns, struct policy_scan_vm *vm)
{
	double round_ns = s->scan_time_min && s->mib_per_ghz ? (double)s->scan_time_min * NS_PER_MIN : 0;

	if (pressed && s->mib_per_ghz)
		round_ns = round_ns ? min_double(round_ns, POLICY_SCAN_PRESSED_NS) : POLICY_SCAN_PRESSED_NS;
	if (vm->asked)
		round_ns = round_ns ? min_double(round_ns, POLICY_SCAN_ASKED_NS) : POLICY_SCAN_ASKED_NS;
	vm->hand_now = round_ns > 0 && s->rate_max ? (double)vm->pages * ns / round_ns : 0;
	vm->read_now = min_double((double)s->rate_max * ns / NS_PER_S, vm->hand_now);
}

/* Water-filling: whoever wishes less than an equal part gets it all, and the parts of the others grow. */
static void split(double pages, struct policy_scan_vm *const *vms, size_t n)
{
	double level = 0, before = -1;

	/* each round but the last settles one VM at least; they are few because most VMs are alike */
	while (level > before) {
		double left = pages;
		size_t hungry = 0;

		before = level;
		for (size_t i = 0; i < n; i++) {
			if (vms[i]->asked)
				continue;
			if (vms[i]->read_now <= level)
				left -= vms[i]->read_now;
			else
				hungry++;
		}
		if (!hungry)
			return;
		level = left / (double)hungry;
	}
	for (size_t i = 0; i < n; i++)
		if (!vms[i]->asked)
			vms[i]->read_now = min_double(vms[i]->read_now, level);
}

/* Whole pages of what is due; the fraction stays due. */
static uint64_t take(double *due, double more)
{
	uint64_t whole;

	*due += more;
	whole = (uint64_t)*due;
	*due -= (double)whole;
	return whole;
}

void policy_scan(const struct policy_scan_settings *s, bool pressed, uint64_t period_ns, struct policy_scan_vm *const *vms,
	size_t n)
{
	double ns = min_double((double)period_ns, POLICY_SCAN_PERIOD_MAX_NS);

	for (size_t i = 0; i < n; i++)
		wish(s, pressed, ns, vms[i]);
	split((double)s->mib_per_ghz * s->host_ghz * MIB_PAGES * ns / NS_PER_S, vms, n);
	for (size_t i = 0; i < n; i++) {
		vms[i]->hand_pages = take(&vms[i]->hand_due, vms[i]->hand_now);
		vms[i]->read_pages = take(&vms[i]->read_due, vms[i]->read_now);
	}
}
