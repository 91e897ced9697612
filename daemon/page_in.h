/* Page-in: what a VM has in its stores comes back in the background, one job of one of its leases at a time.
 *
 * Pages come at the rate that was asked for and while more memory is free than reclaim's goal, so that nothing has to be taken from
 * anybody for it.  What is evicted behind the hand is not brought back again.
 *
 * Control thread. */
#pragma once

#include "ops_client.h"

struct page_ins;

int page_ins_new(struct page_ins **ret, struct daemon *d);
/* No client is left. */
void page_ins_free(struct page_ins *p);

/* Begin, or begin anew.  rate: bytes a second, 0: as fast as it goes.  0; -ENOMEM.  *ret_pages: what is in the stores now. */
int page_in_start(struct client *c, uint64_t rate, uint64_t *ret_pages);
/* End it; how many pages were left.  Fine if none is under way. */
uint64_t page_in_stop(struct client *c);
/* The client goes: its jobs are back. */
void page_in_forget(struct client *c);
