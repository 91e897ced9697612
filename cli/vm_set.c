/* What an operator does to a VM that runs: its resources, and what comes back of it. */
#include "cli/cli.h"
#include "cli/progress.h"
#include "cli/units.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* As struct cli's set has them, by their names in SetVm. */
static const char *const fields[VM_SETTINGS] = { "reservation", "limit", "shares", "balloon_max", "sharing", "stall_budget" };

int run_vm_set(struct cli *c, char **arguments, unsigned n)
{
	const char *pairs[VM_SETTINGS + 2][2] = { { "vm", arguments[0] } };
	unsigned given = 1;

	(void)n;
	for (unsigned i = 0; i < VM_SETTINGS; i++) {
		if (!c->set[i])
			continue;
		if (!*c->set[i]) {
			cli_error("%s: a value is missing", fields[i]);
			return EXIT_USAGE;
		}
		pairs[given][0] = fields[i];
		pairs[given++][1] = c->set[i];
	}
	if (given == 1) {
		cli_error("nothing to set; see memctl help vm set");
		return EXIT_USAGE;
	}
	return cli_do(c, "org.memctl.SetVm", pairs);
}

#define STILL_LOOKS 25

/* Until none is under way any more, however long that takes: but whoever waits is told that it does not go on. */
static int wait_for_page_in(struct cli *c, const char *vm, uint64_t all)
{
	static const struct timespec pause = { .tv_nsec = 200000000 };
	const char *pairs[][2] = { { "vm", vm }, { NULL } };
	struct progress p = progress_begin(c, "paging in", PROGRESS_BYTES);
	uint64_t before = 0;
	unsigned still = 0;	/* looks at which nothing had come */

	for (;;) {
		struct value *reply;
		char size[32];
		uint64_t left;
		int r;

		r = cli_ask(c, "org.memctl.ShowVm", pairs, &reply);
		left = r ? 0 : value_u64(reply, "vm.page_in_left_bytes", 0);
		if (!r)
			value_close(reply);
		if (!left) {
			progress_end(&p);
			return r;
		}
		all = left > all ? left : all;
		progress_show(&p, all - left, all);
		still = left == before ? still + 1 : 0;
		before = left;
		if (still == STILL_LOOKS) {
			units_size(left, size);
			progress_end(&p);
			cli_error("%s are left, and nothing more comes: no more memory is free than reclaim wants (memctl status); still waiting", size);
		}
		nanosleep(&pause, NULL);
	}
}

int run_vm_page_in(struct cli *c, char **arguments, unsigned n)
{
	const char *pairs[][2] = { { "vm", arguments[0] }, { NULL }, { NULL } };
	struct value *reply;
	uint64_t rate;
	char text[32], size[32];
	int r;

	(void)n;
	if (c->stop && (c->rate || c->wait)) {
		cli_error("--stop goes with neither --rate nor --wait");
		return EXIT_USAGE;
	}
	if (c->rate) {
		if (units_parse_size(c->rate, strlen(c->rate), &rate) < 0 || !rate || rate > INT64_MAX) {
			cli_error("--rate: \"%s\" is no size like 64M", c->rate);
			return EXIT_USAGE;
		}
		snprintf(text, sizeof text, "%" PRIu64, rate);
		pairs[1][0] = "#rate";
		pairs[1][1] = text;
	}
	if (c->stop) {
		pairs[1][0] = "?stop";
		pairs[1][1] = "yes";
	}
	r = cli_ask(c, "org.memctl.PageIn", pairs, &reply);
	if (r)
		return r;
	if (c->wait)
		r = wait_for_page_in(c, arguments[0], value_u64(reply, "pages", 0) * 4096);
	if (!r && c->json) {
		r = cli_print_json(reply);
	} else if (!r) {
		units_size(value_u64(reply, "pages", 0) * 4096, size);
		printf(c->stop ? "%s were left\n" : c->wait ? "%s were to be brought back\n" : "%s to bring back\n", size);
	}
	value_close(reply);
	return r;
}
