/* The second lease: it comes, must be all zero, is used under the whole-page oracle, and goes, while the other
 * threads work on the first. */
#include "tests/torture/oracle.h"

#include <stdio.h>
#include <unistd.h>

static void stay(struct oracle *o, struct worker *w, struct memctl_lease *l, uint64_t base)
{
	struct ground g;
	uint64_t steps = random_below(&w->rng, 2000);

	if (ground_init(&g, l, 0, memctl_lease_size(l) / PAGE, base) < 0) {
		w->tally.errors++;
		return;
	}
	/* Nothing was written: every page is compared with zeros first, sometimes of all pages. */
	ground_fill(o, w, &g, 0, 1 + random_below(&w->rng, 3));
	for (uint64_t i = 0; i < steps && !o->stop; i++)
		ground_step(o, w, &g);
	if (random_below(&w->rng, 2))
		ground_verify(o, w, &g, 0, 1);
	ground_fini(&g);
}

void tenant_run(struct oracle *o, struct worker *w, uint64_t gpa, uint64_t size)
{
	while (!o->stop) {
		uint64_t pages = 1 + random_below(&w->rng, size / PAGE);
		struct memctl_lease *l = NULL;
		struct memctl_error e = { 0 };
		int r = memctl_lease(o->client, gpa, pages * PAGE, &l, &e);

		if (r < 0) {
			oracle_error(w, "memctl_lease", &e, r);
			usleep(100000);
			continue;
		}
		w->tally.leases++;
		stay(o, w, l, w->tally.leases << 32);
		r = memctl_release(l, &e);
		if (r < 0)
			oracle_error(w, "memctl_release", &e, r);
		usleep((useconds_t)random_below(&w->rng, 100000));
	}
}
