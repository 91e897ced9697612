/* The host: status, audit, catalogue. */
#include "cli/cli.h"
#include "cli/output.h"

#include <stdio.h>
#include <stdlib.h>

static void show_status(const struct cli *c, const struct value *s)
{
	const struct value *warnings = value_at(s, "warnings");

	printf("memctld %s\n", value_str(s, "version"));
	cli_line(c, "  state", s, "state", COLUMN_STATE, "high, clear, soft, hard, low: how short memory is");
	cli_line(c, "  pid", s, "pid", COLUMN_COUNT, NULL);
	cli_line(c, "  up", s, "uptime_s", COLUMN_COUNT, "seconds");
	cli_line(c, "  sessions", s, "sessions", COLUMN_COUNT, NULL);
	puts("arena");
	cli_line(c, "  size", s, "arena.size_bytes", COLUMN_BYTES, NULL);
	cli_line(c, "  charged", s, "arena.charged_bytes", COLUMN_BYTES, NULL);
	cli_line(c, "  peak", s, "arena.peak_bytes", COLUMN_BYTES, "the most that was ever charged");
	cli_line(c, "  free", s, "arena.free_bytes", COLUMN_BYTES, NULL);
	cli_line(c, "  to keep free", s, "arena.goal_free_bytes", COLUMN_BYTES, "reclaim's goal");
	cli_line(c, "  promised", s, "arena.reserved_bytes", COLUMN_BYTES, "reservations and overhead of the VMs");
	puts("VMs");
	cli_line(c, "  registered", s, "vms.count", COLUMN_COUNT, NULL);
	cli_line(c, "  leased", s, "vms.leased_bytes", COLUMN_BYTES, "guest-physical memory");
	cli_line(c, "  resident", s, "vms.resident_bytes", COLUMN_BYTES, "in frames");
	cli_line(c, "  compressed", s, "vms.compressed_bytes", COLUMN_BYTES, "original size");
	cli_line(c, "    stored in", s, "vms.stored_bytes", COLUMN_BYTES, NULL);
	cli_line(c, "  swapped", s, "vms.swapped_bytes", COLUMN_BYTES, NULL);
	puts("sharing");
	cli_line(c, "  shared", s, "host.shared_bytes", COLUMN_BYTES, "guest pages whose content is in a pool");
	cli_line(c, "  common", s, "host.common_bytes", COLUMN_BYTES, "distinct pages that they have in common");
	cli_line(c, "  saving", s, "host.saving_bytes", COLUMN_BYTES, "shared - common");
	cli_line(c, "  pools", s, "host.pools", COLUMN_COUNT, "of groups, and of VMs that share with themselves");
	printf("swap files in %s\n", value_str(s, "swap.dir"));
	cli_line(c, "  set aside", s, "swap.size_bytes", COLUMN_BYTES, NULL);
	cli_line(c, "  used", s, "swap.used_bytes", COLUMN_BYTES, NULL);
	cli_line(c, "  free there", s, "swap.free_bytes", COLUMN_BYTES, "for more VMs");
	for (size_t i = 0; i < value_items(warnings); i++) {
		char *text = value_words(value_item(warnings, i));

		printf("%s%swarning: %s%s\n", i ? "" : "\n", c->style.color ? OUTPUT_WARNING : "", text ? text : "",
			c->style.color ? OUTPUT_COLOR_END : "");
		free(text);
	}
}

int run_status(struct cli *c, char **arguments, unsigned n)
{
	struct value *reply;
	int r = EXIT_OK;

	(void)arguments;
	(void)n;
	r = cli_ask(c, "org.memctl.Status", NULL, &reply);
	if (r)
		return r;
	if (c->json)
		r = cli_print_json(reply);
	else
		show_status(c, value_at(reply, "status"));
	value_close(reply);
	return r;
}

const struct column audit_columns[] = {
	{ "VM", "vm", COLUMN_TEXT, true, "whose page maps" },
	{ "OK", "ok", COLUMN_TEXT, true, "whether all agrees" },
	{ "PAGES", "pages", COLUMN_COUNT, true, "of its leases: the sum of the states" },
	{ "ZERO", "zero", COLUMN_COUNT, true, "by the page maps" },
	{ "RESIDENT", "resident", COLUMN_COUNT, true, "by the page maps" },
	{ "COMPRESSED", "compressed", COLUMN_COUNT, true, "by the page maps" },
	{ "SWAPPED", "swapped", COLUMN_COUNT, true, "by the page maps" },
	{ "LOST", "lost", COLUMN_COUNT, true, "by the page maps" },
	{ "TRANSIT", "in_transit", COLUMN_COUNT, true, "of these, on their way from one state to another" },
	{ "WRONG", "wrong", COLUMN_COUNT, true, "pages whose state the kernel contradicts" },
	{ "DATA", "data", COLUMN_COUNT, false, "pages that the lease's memory holds" },
	{ "DISCARDED", "discarded", COLUMN_COUNT, false, "resident pages that the client had punched: corrected" },
	{ "FOREIGN", "foreign", COLUMN_COUNT, false, "pages that the client put there uncharged: charged" },
	{ "CACHELIVE", "cache_live_pages", COLUMN_COUNT, false, "pages that the compression cache holds" },
	{ "CACHEMAP", "cache_map_pages", COLUMN_COUNT, false, "pages that the page maps say it holds" },
	{ "SLOTS", "swap_used_slots", COLUMN_COUNT, false, "slots in use in the swap file" },
	{ "SLOTMAP", "swap_map_pages", COLUMN_COUNT, false, "pages that the page maps say are there" },
	{ "BLOCKS", "lease_blocks_bytes", COLUMN_BYTES, false, "what the kernel has allocated for its leases" },
	{ "CHARGED", "lease_charged_bytes", COLUMN_BYTES, false, "what is charged for them" },
	{ "SKIPPED", "leases_skipped", COLUMN_COUNT, false, "leases that came or went meanwhile" },
	{ NULL },
};

static int show_audit(struct cli *c, const struct value *reply, bool ok)
{
	const struct value *vms = value_at(reply, "audit.vms");
	int r;

	r = cli_print_table(c, audit_columns, vms);
	if (r || c->style.raw || c->style.noheadings)
		return r;
	puts("");
	cli_line(c, "allocated by the kernel", reply, "audit.arena.blocks_bytes", COLUMN_BYTES, NULL);
	cli_line(c, "charged", reply, "audit.arena.charged_bytes", COLUMN_BYTES, NULL);
	cli_line(c, "capacity", reply, "audit.arena.capacity_bytes", COLUMN_BYTES, NULL);
	for (size_t i = 0; i < value_items(vms); i++) {
		const char *why = value_str(value_item(vms, i), "first_wrong");

		if (*why)
			printf("%s: %s\n", value_str(value_item(vms, i), "vm"), why);
	}
	puts(ok ? "\nThe ledger agrees with the kernel." : "\nThe ledger DIFFERS from the kernel.");
	return EXIT_OK;
}

int run_audit(struct cli *c, char **arguments, unsigned n)
{
	const char *pairs[][2] = { { "vm", n ? arguments[0] : NULL }, { NULL } };
	struct value *reply;
	bool ok;
	int r;

	r = cli_ask(c, "org.memctl.Audit", pairs, &reply);
	if (r)
		return r;
	ok = value_true(reply, "ok");
	r = c->json ? cli_show_reply(c, reply, "audit.vms", audit_columns) : show_audit(c, reply, ok);
	if (!ok)
		cli_error("audit found a difference: keep this output and memctld's log, and report it");
	value_close(reply);
	return r ? r : ok ? EXIT_OK : EXIT_DIFFERENCE;
}

const struct column catalogue_columns[] = {
	{ "NAME", "name", COLUMN_TEXT, true, "as in JSON, the metrics database and the documentation" },
	{ "KIND", "kind", COLUMN_TEXT, true, "gauge: a level now; counter: since the VM came" },
	{ "UNIT", "unit", COLUMN_TEXT, true, "what it counts" },
	{ "OF", "of", COLUMN_TEXT, false, "what has this number: vm or host" },
	{ "SENTENCE", "sentence", COLUMN_TEXT, true, "what it means" },
	{ NULL },
};

int run_catalogue(struct cli *c, char **arguments, unsigned n)
{
	(void)arguments;
	(void)n;
	return cli_show(c, "org.memctl.Catalogue", NULL, "numbers", catalogue_columns);
}
