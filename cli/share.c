/* Sharing: the pools and their members, who shares how much with whom, a pass of the scan now. */
#include "cli/cli.h"

const struct column share_groups_columns[] = {
	{ "GROUP", "group", COLUMN_TEXT, true, "the sharing group, or the VM that shares with itself only" },
	{ "PRIVATE", "private", COLUMN_TEXT, true, "whether the pool is one VM's own" },
	{ "MEMBERS", "members", COLUMN_TEXT, true, "its VMs" },
	{ "SHARED", "shared_bytes", COLUMN_BYTES, true, "guest pages whose content is in the pool" },
	{ "COMMON", "common_bytes", COLUMN_BYTES, true, "distinct pages that they have in common" },
	{ "SAVING", "saving_bytes", COLUMN_BYTES, true, "shared - common" },
	{ "RESIDENT", "resident_bytes", COLUMN_BYTES, true, "of the common, in frames" },
	{ "COMPRESSED", "compressed_bytes", COLUMN_BYTES, true, "of the common, in the pool's cache, original size" },
	{ "STORED", "stored_bytes", COLUMN_BYTES, false, "what those take in the cache" },
	{ "SWAPPED", "swapped_bytes", COLUMN_BYTES, true, "of the common, in the pool's swap file" },
	{ "LOST", "lost_bytes", COLUMN_BYTES, false, "of the common, what a store could not give back" },
	{ "CHARGED", "charged_bytes", COLUMN_BYTES, true, "host-physical memory that the pool takes" },
	{ "WRITABLE", "writable_by_members", COLUMN_TEXT, false, "whether a member could write to it: root, or memctld's user" },
	{ NULL },
};

const struct column share_top_columns[] = {
	{ "VM", "a", COLUMN_TEXT, true, "one VM" },
	{ "WITH", "b", COLUMN_TEXT, true, "another, or itself" },
	{ "PAGES", "pages", COLUMN_COUNT, true, "distinct pages that both have; with itself: that it has more than once" },
	{ "SIZE", "bytes", COLUMN_BYTES, true, "the same in bytes" },
	{ "GROUP", "group", COLUMN_TEXT, true, "whose pool holds them" },
	{ "PRIVATE", "private", COLUMN_TEXT, false, "whether the pool is one VM's own" },
	{ NULL },
};

int run_share_groups(struct cli *c, char **arguments, unsigned n)
{
	(void)arguments;
	(void)n;
	return cli_show(c, "org.memctl.ShareGroups", NULL, "groups", share_groups_columns);
}

int run_share_top(struct cli *c, char **arguments, unsigned n)
{
	const char *pairs[][2] = { { "vm", n ? arguments[0] : NULL }, { NULL } };

	return cli_show(c, "org.memctl.ShareTop", pairs, "pairs", share_top_columns);
}

int run_share_scan(struct cli *c, char **arguments, unsigned n)
{
	const char *pairs[][2] = { { "vm", n ? arguments[0] : NULL }, { NULL } };

	return cli_do(c, "org.memctl.ScanVm", pairs);
}
