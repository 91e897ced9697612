/* The host: status, audit, settings, catalogue. */
#include "cli/page.h"

#include <memctl.h>
#include <stdio.h>

int run_status(struct cli *c, char **arguments, unsigned n)
{
	struct value *reply;
	int r;

	(void)arguments;
	(void)n;
	r = cli_ask(c, "org.memctl.Status", NULL, &reply);
	if (r)
		return r;
	if (c->json)
		r = cli_print_json(reply);
	else
		page_print(c, value_at(reply, "status"));
	value_close(reply);
	return r;
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
	if (c->json) {
		r = cli_print_json(reply);
	} else {
		printf("%s\n\n", ok ? "The ledger agrees with the kernel." : "THE LEDGER DIFFERS FROM THE KERNEL.");
		page_print(c, value_at(reply, "audit"));
	}
	if (!ok)
		cli_error("audit found a difference; keep the output and memctld's log, and report it");
	value_close(reply);
	return r ? r : ok ? EXIT_OK : EXIT_DIFFERENCE;
}

const struct column config_columns[] = {
	{ "SETTING", "name", COLUMN_TEXT, true, "as in the configuration file, and for `memctl tune`" },
	{ "VALUE", "value", COLUMN_TEXT, true, "in force now" },
	{ "DEFAULT", "default", COLUMN_TEXT, true, "without a configuration" },
	{ "UNIT", "unit", COLUMN_TEXT, true, "what the value counts" },
	{ "LIVE", "live", COLUMN_TEXT, true, "whether `memctl tune` may change it" },
	{ "MIN", "min", COLUMN_TEXT, false, "the least that is accepted" },
	{ "MAX", "max", COLUMN_TEXT, false, "the most that is accepted" },
	{ "WHAT", "what", COLUMN_TEXT, false, "one sentence" },
	{ NULL },
};

static int ask_and_show(struct cli *c, const char *method, const char *array, const struct column *columns)
{
	struct value *reply;
	int r;

	r = cli_ask(c, method, NULL, &reply);
	if (r)
		return r;
	r = c->json ? cli_print_json(reply) : cli_print_table(c, columns, value_at(reply, array));
	value_close(reply);
	return r;
}

int run_config_show(struct cli *c, char **arguments, unsigned n)
{
	(void)arguments;
	(void)n;
	return ask_and_show(c, "org.memctl.ShowConfig", "settings", config_columns);
}

int run_tune(struct cli *c, char **arguments, unsigned n)
{
	const char *pairs[][2] = { { "setting", arguments[0] }, { "value", arguments[1] }, { NULL } };
	struct value *reply;
	int r;

	(void)n;
	r = cli_ask(c, "org.memctl.Tune", pairs, &reply);
	if (r)
		return r;
	if (c->json)
		r = cli_print_json(reply);
	value_close(reply);
	return r;
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
	return ask_and_show(c, "org.memctl.Catalogue", "numbers", catalogue_columns);
}
