/* The sharing scan's clock: ten times a second it asks policy/scan how far each VM's scan may go, and tells the VMs.
 *
 * The work is done by the VMs' own lease workers (mem/vm.h: vm_scan); nothing here blocks or reads a page.  Control thread. */
#pragma once

#include "policy/scan.h"

#include <stdbool.h>
#include <stdint.h>

struct daemon;
struct scanner;

/* What the scanner keeps of a VM: part of its client. */
struct scanner_vm {
	struct policy_scan_vm policy;
	uint64_t asked_until;		/* passes: an operator's pass is over when so many have been made; 0: none */
};

/* `host_ghz`: the measure of ShareScanGHz. */
int scanner_new(struct scanner **ret, struct daemon *d, double host_ghz);
void scanner_free(struct scanner *s);
