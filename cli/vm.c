/* VMs: the table, one VM in full, its page map, its end. */
#include "cli/cli.h"
#include "cli/page_map.h"
#include "cli/units.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct column vm_list_columns[] = {
	{ "NAME", "name", COLUMN_TEXT, true, "as registered" },
	{ "SIZE", "size_bytes", COLUMN_BYTES, true, "the most its leases may add up to" },
	{ "LEASED", "leased_bytes", COLUMN_BYTES, true, "guest-physical memory leased now" },
	{ "CHARGED", "charged_bytes", COLUMN_BYTES, true, "host-physical memory it takes" },
	{ "RESIDENT", "resident_bytes", COLUMN_BYTES, true, "guest pages in frames" },
	{ "COMPRESSED", "compressed_bytes", COLUMN_BYTES, true, "guest pages in the cache, original size" },
	{ "STORED", "stored_bytes", COLUMN_BYTES, true, "what those take in the cache" },
	{ "SWAPPED", "swapped_bytes", COLUMN_BYTES, true, "guest pages in the swap file" },
	{ "SHRD", "shared_bytes", COLUMN_BYTES, true, "guest pages that it shares" },
	{ "SHRDSVD", "saved_bytes", COLUMN_BYTES, true, "what sharing saves it: its part of each page subtracted" },
	{ "SHRDCOLD", "shared_cold_bytes", COLUMN_BYTES, false, "of the shared, those that it does not map" },
	{ "BREAKING", "breaking_bytes", COLUMN_BYTES, false, "shared pages that were written to, not home yet" },
	{ "COWH", "break_pages", COLUMN_COUNT, false, "writes to shared pages, since it came" },
	{ "CNSM", "consumed_bytes", COLUMN_BYTES, false, "host memory that it costs: charged and its part of the shared" },
	{ "ZERO", "zero_bytes", COLUMN_BYTES, false, "guest pages never touched, or all zero" },
	{ "SZTGT", "target_bytes", COLUMN_BYTES, false, "what it should be charged at most, as things are" },
	{ "TCHD", "active_bytes", COLUMN_BYTES, false, "guest memory in use, by samples" },
	{ "%ACTV", "active_pct", COLUMN_COUNT, false, "the same as a part of its size" },
	{ "%ACTVS", "active_slow_pct", COLUMN_COUNT, false, "part in use, slow moving average" },
	{ "%ACTVF", "active_fast_pct", COLUMN_COUNT, false, "part in use, fast moving average" },
	{ "%ACTVN", "active_next_pct", COLUMN_COUNT, false, "the fast one with the unfinished period folded in" },
	{ "MCTL?", "balloon_driver", COLUMN_TEXT, false, "who can be asked for memory: the guest's own driver, an agent outside, none" },
	{ "MCTLSZ", "ballooned_bytes", COLUMN_BYTES, false, "in its balloon" },
	{ "MCTLTGT", "balloon_target_bytes", COLUMN_BYTES, false, "what its balloon should hold" },
	{ "MCTLMAX", "balloon_max_bytes", COLUMN_BYTES, false, "the most it may hold" },
	{ "%LAT_M", "stall_permille", COLUMN_PERMILLE, false, "percent of the last seconds in which its guest waited for pages" },
	{ "STALLMAX", "stall_budget", COLUMN_TEXT, false, "how much of that it may be before it is spared: its stall budget" },
	{ "PAGEIN", "page_in_left_bytes", COLUMN_BYTES, false, "what vm page-in has still to bring back" },
	{ "PINNED", "pinned_bytes", COLUMN_BYTES, false, "guest pages pinned by the client" },
	{ "LOST", "lost_bytes", COLUMN_BYTES, false, "guest pages that a store could not give back" },
	{ "OVERHEAD", "overhead_bytes", COLUMN_BYTES, false, "page maps and swap maps" },
	{ "PEAK", "charged_peak_bytes", COLUMN_BYTES, false, "the most that was ever charged" },
	{ "RSRV", "reservation_bytes", COLUMN_BYTES, true, "guaranteed to it" },
	{ "LIMIT", "limit_bytes", COLUMN_BYTES, false, "never more than this; 0: none" },
	{ "SHARES", "shares", COLUMN_COUNT, false, "weight when memory is short" },
	{ "SWAPSIZE", "swap_size_bytes", COLUMN_BYTES, false, "size of its swap file" },
	{ "EVICTED", "evicted_pages", COLUMN_COUNT, false, "pages taken from frames, since it came" },
	{ "REFAULTS", "refault_pages", COLUMN_COUNT, false, "evicted pages that were needed again" },
	{ "STALL", "stall_ns", COLUMN_NS, false, "time that its threads waited for pages, summed" },
	{ "STALLED", "stalled_ns", COLUMN_NS, true, "how long a thread of it has waited for a page now" },
	{ "STATE", "state", COLUMN_STATE, true, "running, awaited (after a restart, by its client), leaving, or ending" },
	{ "SHARING", "sharing", COLUMN_TEXT, false, "with whom equal pages may be shared" },
	{ "FAULTS", "faults_mode", COLUMN_TEXT, false, "what its userfaultfd handles: full, or user-mode" },
	{ "TROUBLE", "trouble", COLUMN_TEXT, false, "why it cannot go on" },
	{ "PID", "pid", COLUMN_COUNT, false, "the emulator" },
	{ "UID", "uid", COLUMN_COUNT, false, "whose it is" },
	{ NULL },
};

int run_vm_list(struct cli *c, char **arguments, unsigned n)
{
	(void)arguments;
	(void)n;
	return cli_show(c, "org.memctl.ListVms", NULL, "vms", vm_list_columns);
}

/* What a guest says of itself, and nobody can check. */
static void show_claims(const struct cli *c, const struct value *vm)
{
	cli_line(c, "    of", vm, "claims.total_bytes", COLUMN_BYTES, "that its kernel has");
	cli_line(c, "    available", vm, "claims.available_bytes", COLUMN_BYTES, "without swapping in the guest");
	cli_line(c, "    free", vm, "claims.free_bytes", COLUMN_BYTES, NULL);
	cli_line(c, "    caches", vm, "claims.caches_bytes", COLUMN_BYTES, "of files");
}

/* The three levels of memory, each smaller than the one above it needs to be. */
static void show_levels(const struct cli *c, const struct value *vm)
{
	char *stored = cli_cell(c, vm, "stored_bytes", COLUMN_BYTES), remark[64];

	snprintf(remark, sizeof remark, "in %s of the cache", stored ? stored : "-");
	free(stored);
	puts("guest virtual memory");
	cli_line(c, "  claimed", vm, "claimed_bytes", COLUMN_BYTES, "what the guest itself uses; a balloon tells");
	if (value_is_object(value_at(vm, "claims")))
		show_claims(c, vm);
	puts("guest physical memory");
	cli_line(c, "  size", vm, "size_bytes", COLUMN_BYTES, "the most its leases may add up to");
	cli_line(c, "  leased", vm, "leased_bytes", COLUMN_BYTES, NULL);
	cli_line(c, "    zero", vm, "zero_bytes", COLUMN_BYTES, "never touched, or all zero: costs nothing");
	cli_line(c, "    resident", vm, "resident_bytes", COLUMN_BYTES, "in frames");
	cli_line(c, "    compressed", vm, "compressed_bytes", COLUMN_BYTES, remark);
	cli_line(c, "    swapped", vm, "swapped_bytes", COLUMN_BYTES, "in the swap file");
	cli_line(c, "    ballooned", vm, "ballooned_bytes", COLUMN_BYTES, "given by the guest itself: costs nothing");
	cli_line(c, "    shared", vm, "shared_bytes", COLUMN_BYTES, "in a pool, one copy for all who have it");
	cli_line(c, "    breaking", vm, "breaking_bytes", COLUMN_BYTES, "were shared, are written to");
	cli_line(c, "    lost", vm, "lost_bytes", COLUMN_BYTES, "that a store could not give back");
	puts("host physical memory");
	cli_line(c, "  charged", vm, "charged_bytes", COLUMN_BYTES, NULL);
	cli_line(c, "    resident", vm, "resident_bytes", COLUMN_BYTES, NULL);
	cli_line(c, "    cache", vm, "cache_bytes", COLUMN_BYTES, "compressed pages");
	cli_line(c, "    overhead", vm, "overhead_bytes", COLUMN_BYTES, "page maps and swap maps");
	cli_line(c, "  part of the shared", vm, "shared_charge_bytes", COLUMN_BYTES, "1/n of each page shared n ways; the pool pays");
	cli_line(c, "  consumed", vm, "consumed_bytes", COLUMN_BYTES, "charged and its part");
	cli_line(c, "  peak", vm, "charged_peak_bytes", COLUMN_BYTES, "the most that was ever charged");
	puts("resources");
	cli_line(c, "  reservation", vm, "reservation_bytes", COLUMN_BYTES, "guaranteed even when idle");
	cli_line(c, "  limit", vm, value_u64(vm, "limit_bytes", 0) ? "limit_bytes" : "none", COLUMN_BYTES,
		"never more");
	cli_line(c, "  shares", vm, "shares", COLUMN_COUNT, "weight when memory is short");
	cli_line(c, "  stall budget", vm, "stall_budget", COLUMN_TEXT, "of the time that its guest may wait for pages; default: StallBudget");
	cli_line(c, "  swap file", vm, "swap_size_bytes", COLUMN_BYTES, "set aside");
	cli_line(c, "  pinned", vm, "pinned_bytes", COLUMN_BYTES, "by the client");
	if (*value_str(vm, "decided_by"))
		cli_line(c, "  decided by", vm, "decided_by", COLUMN_TEXT, "what it says (memctl config vms)");
}

static void show_use(const struct cli *c, const struct value *vm)
{
	char *percent = cli_cell(c, vm, "active_pct", COLUMN_COUNT), remark[96];

	snprintf(remark, sizeof remark, "TCHD: %s %% of its size, %s", percent ? percent : "-", value_u64(vm, "active_estimated", 0) ?
		"guessed from its faults: its library does not answer" : "by samples");
	free(percent);
	puts("use");
	cli_line(c, "  active", vm, "active_bytes", COLUMN_BYTES, remark);
	cli_line(c, "  slow average", vm, "active_slow_pct", COLUMN_COUNT, "percent in use (%ACTVS)");
	cli_line(c, "  fast average", vm, "active_fast_pct", COLUMN_COUNT, "percent in use (%ACTVF)");
	cli_line(c, "  with this period", vm, "active_next_pct", COLUMN_COUNT, "percent in use (%ACTVN)");
	cli_line(c, "  target", vm, "target_bytes", COLUMN_BYTES, value_u64(vm, "blocked", 0) ?
		"SZTGT; it is above that, and its new pages wait" : "what it should be charged at most, as things are (SZTGT)");
	cli_line(c, "  guest waited", vm, "stall_permille", COLUMN_PERMILLE, "percent of the last seconds, for pages (%LAT_M)");
}

static void show_balloon(const struct cli *c, const struct value *vm)
{
	puts("balloon");
	cli_line(c, "  driver", vm, "balloon_driver", COLUMN_TEXT, "who can be asked: the guest's own, an agent outside, none (MCTL?)");
	cli_line(c, "  holds", vm, "ballooned_bytes", COLUMN_BYTES, "MCTLSZ");
	cli_line(c, "  should hold", vm, "balloon_target_bytes", COLUMN_BYTES, "MCTLTGT");
	cli_line(c, "  at most", vm, "balloon_max_bytes", COLUMN_BYTES, "MCTLMAX");
	cli_line(c, "  touched", vm, "balloon_touched_pages", COLUMN_COUNT, "pages that left it because they were used");
}

static void show_sharing(const struct cli *c, const struct value *vm)
{
	bool has_none = strcmp(value_str(vm, "sharing"), "zero") && !value_true(vm, "pool_joined");
	char remark[64];

	snprintf(remark, sizeof remark, "of %" PRIu64 " that it may have", value_u64(vm, "share_mappings_max", 0));
	puts("sharing");
	cli_line(c, "  with", vm, "sharing", COLUMN_TEXT,
		has_none ? "it has no pool: its library does not share" : NULL);
	cli_line(c, "  shared", vm, "shared_bytes", COLUMN_BYTES, "guest pages (SHRD)");
	cli_line(c, "    cold", vm, "shared_cold_bytes", COLUMN_BYTES, "of these, not mapped by the guest");
	cli_line(c, "  saved", vm, "saved_bytes", COLUMN_BYTES, "shared - part (SHRDSVD)");
	cli_line(c, "  writes", vm, "break_pages", COLUMN_COUNT, "to shared pages (COWH)");
	cli_line(c, "  mappings", vm, "share_mappings", COLUMN_COUNT, remark);
	cli_line(c, "  passes", vm, "scan_passes", COLUMN_COUNT, "of the scan over all of it");
	if (value_true(vm, "pool_writable"))
		puts("  The VM's user could write to the pool: its members must trust it (root, or memctld's own user).");
}

static void show_cause(const char *cause, const struct value *v, void *userdata)
{
	const struct cli *c = userdata;
	char *count = cli_cell(c, v, "count", COLUMN_COUNT);
	char *p50 = cli_cell(c, v, "p50_ns", COLUMN_NS), *p99 = cli_cell(c, v, "p99_ns", COLUMN_NS);

	printf("  %-22s %12s", cause, count ? count : "-");
	if (value_u64(v, "count", 0))
		printf("  p50 %s, p99 %s", p50 ? p50 : "-", p99 ? p99 : "-");
	putchar('\n');
	free(count);
	free(p50);
	free(p99);
}

static const struct column lease_columns[] = {
	{ "LEASE", "lease", COLUMN_COUNT, true, NULL },
	{ "GPA", "gpa", COLUMN_HEX, true, NULL },
	{ "SIZE", "size_bytes", COLUMN_BYTES, true, NULL },
	{ NULL },
};

static int show(struct cli *c, const struct value *vm)
{
	const char *trouble = value_str(vm, "trouble");

	printf("VM %s, %s, user %" PRIu64 ", process %" PRIu64 ", fault handling %s\n", value_str(vm, "name"),
		value_str(vm, "state"), value_u64(vm, "uid", 0), value_u64(vm, "pid", 0),
		value_str(vm, "faults_mode"));
	if (*trouble)
		printf("TROUBLE: %s\n", trouble);
	show_levels(c, vm);
	show_use(c, vm);
	if (strcmp(value_str(vm, "balloon_driver"), "none") || value_u64(vm, "ballooned_peak_bytes", 0))
		show_balloon(c, vm);
	if (strcmp(value_str(vm, "sharing"), "off"))
		show_sharing(c, vm);
	puts("faults");
	value_each(value_at(vm, "faults"), show_cause, c);
	cli_line(c, "  stalled", vm, "stall_ns", COLUMN_NS, "guest threads waited, summed");
	cli_line(c, "  evicted pages", vm, "evicted_pages", COLUMN_COUNT, NULL);
	cli_line(c, "  needed again", vm, "refault_pages", COLUMN_COUNT, NULL);
	cli_line(c, "  for its own limit", vm, "reclaim_limit_pages", COLUMN_COUNT, "of the evicted");
	cli_line(c, "  for the host", vm, "reclaim_host_pages", COLUMN_COUNT, "of the evicted");
	if (value_u64(vm, "page_in_left_bytes", 0))
		cli_line(c, "  to be paged in", vm, "page_in_left_bytes", COLUMN_BYTES, "by vm page-in, which is under way");
	if (!value_items(value_at(vm, "leases")))
		return EXIT_OK;
	puts("");
	return cli_print_table(c, lease_columns, value_at(vm, "leases"));
}

int run_vm_show(struct cli *c, char **arguments, unsigned n)
{
	const char *pairs[][2] = { { "vm", arguments[0] }, { NULL } };
	struct value *reply;
	int r;

	(void)n;
	r = cli_ask(c, "org.memctl.ShowVm", pairs, &reply);
	if (r)
		return r;
	r = c->json ? cli_print_json(reply) : show(c, value_at(reply, "vm"));
	value_close(reply);
	return r;
}

int run_vm_rm(struct cli *c, char **arguments, unsigned n)
{
	const char *pairs[][2] = { { "vm", arguments[0] }, { NULL } };

	(void)n;
	return cli_do(c, "org.memctl.RemoveVm", pairs);
}

const struct column vm_pmap_columns[] = {
	{ "GPA", "gpa", COLUMN_HEX, true, "guest-physical address of the run" },
	{ "PAGES", "pages", COLUMN_COUNT, true, "its length, in pages of 4096 bytes" },
	{ "STATE", "state", COLUMN_TEXT, true, "where the content is" },
	{ "PLACE", "place", COLUMN_COUNT, true, "compressed: offset in the cache; swapped: slot in the swap file; shared, breaking:"
		" page of the pool" },
	{ "STORED", "stored_bytes", COLUMN_BYTES, true, "what the run takes there" },
	{ "PINNED", "pinned", COLUMN_TEXT, false, "kept resident for the client" },
	{ "TRANSIT", "in_transit", COLUMN_TEXT, false, "locked: on its way from one state to another" },
	{ "LEASE", "lease", COLUMN_COUNT, false, "the lease it lies in" },
	{ NULL },
};

/* GPA[+LEN]. */
static int parse_range(const char *text, uint64_t *ret_from, uint64_t *ret_end)
{
	size_t n = strcspn(text, "+");
	uint64_t from, bytes = 4096;

	if (units_parse_size(text, n, &from) < 0 ||
		(text[n] && units_parse_size(text + n + 1, strlen(text + n + 1), &bytes) < 0) || from > INT64_MAX ||
		bytes > INT64_MAX) {
		cli_error("\"%s\" is not GPA[+LEN], like 0x100000+64KiB", text);
		return -1;
	}
	*ret_from = from;
	*ret_end = from + bytes;
	return 0;
}

/* The daemon answers with so many runs at a time; the rest begins at `next`, up to the end that was asked for. */
int page_map_read(struct cli *c, const char *vm, uint64_t from, uint64_t end, bool ages,
	bool (*take)(struct value *reply, void *userdata), void *userdata)
{
	uint64_t next = from;

	do {
		char gpa[32], length[32];
		const char *pairs[][2] = { { "vm", vm }, { "#gpa", gpa }, { "#length", length }, { ages ? "?ages" : NULL, "yes" }, { NULL } };
		struct value *reply;
		int r;

		snprintf(gpa, sizeof gpa, "%" PRIu64, next);
		snprintf(length, sizeof length, "%" PRIu64, end == UINT64_MAX ? 0 : end - next);
		r = cli_ask(c, "org.memctl.PageMap", pairs, &reply);
		if (r)
			return r;
		/* one that does not go on would be asked for ever */
		next = value_u64(reply, "next", 0) > next ? value_u64(reply, "next", 0) : 0;
		if (!take(reply, userdata))
			value_close(reply);
	} while (next && next < end);
	return EXIT_OK;
}

/* The first reply is kept, and becomes all of them. */
static bool add_runs(struct value *reply, void *userdata)
{
	struct value **all = userdata;

	if (*all)
		value_extend(*all, "runs", reply);
	else
		*all = reply;
	return *all == reply;
}

int run_vm_pmap(struct cli *c, char **arguments, unsigned n)
{
	uint64_t from = 0, end = UINT64_MAX;
	struct value *all = NULL;
	int r;

	if (n > 1 && parse_range(arguments[1], &from, &end) < 0)
		return EXIT_USAGE;
	r = page_map_read(c, arguments[0], from, end, false, add_runs, &all);
	if (!r) {
		value_set_u64(all, "next", 0);
		r = cli_show_reply(c, all, "runs", vm_pmap_columns);
	}
	value_close(all);
	return r;
}
