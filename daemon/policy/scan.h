/* How fast the sharing scan goes: time and settings in, pages for each VM out.
 *
 * A hand goes round the pages of each VM.  Most pages need no look (not resident, clean since the last one): passing
 * over them costs next to nothing, reading one costs some hundred nanoseconds.  So two numbers are given out each period:
 *
 *	hand	pages that the hand may pass over; it waits at a page that it must read and may not
 *	read	of these, how many may be read or protected (a page that is read and then protected counts once)
 *
 *	ShareScanTime	minutes that a pass over a VM takes; 0: no background scan
 *	ShareScanGHz	MiB a second for each GHz of the host, read over all VMs; 0: no background scan
 *	ShareRateMax	pages a second that may be read of one VM; 0: no scan at all
 *
 * A *forced* pass takes no notice of ShareScanTime.  While the host is *pressed* all VMs are forced, and ShareScanGHz
 * still holds: those who reclaim need the processors too.  A pass that an operator asked for takes no notice of
 * ShareScanGHz either, and does not take from what others may read.  Nothing goes beyond ShareRateMax.
 *
 * ShareScanGHz is split by what VMs can use: nobody gets more than ShareRateMax or his hand allow, and what that leaves goes
 * to the others in equal parts.  Fractions are kept in the VM: a budget of 3 pages a second is 3 pages a second at
 * any period. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A forced hand goes round this often at most: what is there to be read has been read much sooner. */
#define POLICY_SCAN_PRESSED_NS	(10 * 1000000000ull)
#define POLICY_SCAN_ASKED_NS	(1 * 1000000000ull)
/* More time than this is not made up for: nobody is to find a minute's work at once. */
#define POLICY_SCAN_PERIOD_MAX_NS (1 * 1000000000ull)

struct policy_scan_settings {
	uint64_t scan_time_min;		/* ShareScanTime */
	uint64_t mib_per_ghz;		/* ShareScanGHz */
	uint64_t rate_max;		/* ShareRateMax */
	double host_ghz;		/* the sum over its processors */
};

/* A VM in the scan; zero-initialised when it comes. */
struct policy_scan_vm {
	uint64_t pages;			/* in: leased now; 0: nothing to scan */
	bool asked;			/* in: an operator wants a pass */
	double hand_due, read_due;	/* kept between calls: fractions of pages, and work for the call itself */
	double hand_now, read_now;
	uint64_t hand_pages, read_pages;	/* out */
};

/* What all VMs may do in a period of `period_ns`, the time since the last call. */
void policy_scan(const struct policy_scan_settings *s, bool pressed, uint64_t period_ns, struct policy_scan_vm *const *vms,
	size_t n);
