/* Settings: what is in force, where it comes from, and how it is changed. */
#include "cli/cli.h"
#include "cli/persist.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct column config_columns[] = {
	{ "SETTING", "name", COLUMN_TEXT, true, "as in the configuration file, and for `memctl tune`" },
	{ "VALUE", "value", COLUMN_TEXT, true, "in force now" },
	{ "DEFAULT", "default", COLUMN_TEXT, true, "without a configuration" },
	{ "WHERE", "where", COLUMN_TEXT, false, "where the value comes from: default, FILE:LINE, command line, tune" },
	{ "NEXT", "next", COLUMN_TEXT, false, "what is written instead, and acts from the next restart on (live: from the next reload on)" },
	{ "NEXTWHERE", "next_where", COLUMN_TEXT, false, "where that is written" },
	{ "TYPE", "type", COLUMN_TEXT, false, "what kind of value" },
	{ "UNIT", "unit", COLUMN_TEXT, false, "of numbers" },
	{ "LIVE", "live", COLUMN_TEXT, true, "whether it can change while memctld runs" },
	{ "MIN", "min", COLUMN_TEXT, false, "the least that is accepted" },
	{ "MAX", "max", COLUMN_TEXT, false, "the most that is accepted" },
	{ "HELP", "help", COLUMN_TEXT, true, "what it is" },
	{ NULL },
};

/* What holds up a change that is written. */
static void show_remarks(const struct cli *c, const struct value *files)
{
	char *names = value_words(value_at(files, "restart"));

	if (c->style.raw || c->style.noheadings) {
		free(names);
		return;
	}
	if (value_items(value_at(files, "restart")))
		printf("\nWritten otherwise, and waiting for a restart: %s\n", names ? names : "");
	if (*value_str(files, "error"))
		printf("\nThe last reload was refused, nothing of it acts: %s\n", value_str(files, "error"));
	free(names);
}

int run_config_show(struct cli *c, char **arguments, unsigned n)
{
	struct value *reply;
	int r;

	(void)arguments;
	(void)n;
	r = cli_ask(c, "org.memctl.ShowConfig", NULL, &reply);
	if (r)
		return r;
	if (c->changed)
		value_keep_true(reply, "settings", "changed");
	if ((c->effective || c->changed) && !c->style.columns && !c->json)
		c->style.columns = "SETTING,VALUE,DEFAULT,WHERE,LIVE,NEXT,NEXTWHERE";
	if (c->style.columns)
		value_drop(reply, "vms");
	r = cli_show_reply(c, reply, "settings", config_columns);
	if (!r && !c->json && (c->effective || c->changed))
		show_remarks(c, value_at(reply, "files"));
	value_close(reply);
	return r;
}

const struct column config_vms_columns[] = {
	{ "VM", "vm", COLUMN_TEXT, true, "the name that the file is for" },
	{ "KEY", "key", COLUMN_TEXT, true, "what is decided" },
	{ "VALUE", "value", COLUMN_TEXT, true, "how, as `memctl vm set` takes it" },
	{ "WHERE", "where", COLUMN_TEXT, true, "file and line" },
	{ "THERE", "named", COLUMN_TEXT, false, "whether a VM of this name is there" },
	{ NULL },
};

int run_config_vms(struct cli *c, char **arguments, unsigned n)
{
	(void)arguments;
	(void)n;
	return cli_show(c, "org.memctl.ShowConfig", NULL, "vms", config_vms_columns);
}

const struct column tune_columns[] = {
	{ "SETTING", "name", COLUMN_TEXT, true, "as in the configuration file" },
	{ "VALUE", "value", COLUMN_TEXT, true, "in force now" },
	{ "DEFAULT", "default", COLUMN_TEXT, true, "without a configuration" },
	{ "WHERE", "where", COLUMN_TEXT, false, "where the value comes from: default, FILE:LINE, command line, tune" },
	{ "TYPE", "type", COLUMN_TEXT, false, "what kind of value" },
	{ "UNIT", "unit", COLUMN_TEXT, true, "of numbers" },
	{ "MIN", "min", COLUMN_TEXT, true, "the least that is accepted" },
	{ "MAX", "max", COLUMN_TEXT, true, "the most that is accepted" },
	{ "LIVE", "live", COLUMN_TEXT, true, "whether it can be changed while memctld runs" },
	{ "HELP", "help", COLUMN_TEXT, true, "what it does" },
	{ NULL },
};

static int show_settings(struct cli *c, const char *setting)
{
	struct value *reply;
	int r;

	r = cli_ask(c, "org.memctl.ShowConfig", NULL, &reply);
	if (r)
		return r;
	if (setting && !value_keep(reply, "settings", "name", setting)) {
		cli_error("there is no setting \"%s\"; memctl tune lists them", setting);
		r = EXIT_NOT_FOUND;
	} else {
		r = cli_show_reply(c, reply, "settings", tune_columns);
	}
	value_close(reply);
	return r;
}

/* Where memctld reads what is persisted; it has said that it would. */
static int ask_tune_path(struct cli *c, char **ret)
{
	struct value *reply;
	int r = cli_ask(c, "org.memctl.ShowConfig", NULL, &reply);

	if (r)
		return r;
	*ret = strdup(value_str(reply, "files.tune_path"));
	value_close(reply);
	if (*ret && **ret == '/')
		return EXIT_OK;
	cli_error("memctld's configuration has no absolute path, so where it is cannot be known here; nothing has changed");
	free(*ret);
	*ret = NULL;
	return EXIT_SYSTEM;
}

static int show_persisted(const struct cli *c, const struct value *reply, const struct persist *p, const char *setting, const char *value)
{
	bool live = value_true(reply, "live");

	if (c->json) {
		printf("{\n  \"schema\": \"memctl/1\",\n  \"live\": %s,\n  \"path\": ", live ? "true" : "false");
		value_print_string(stdout, p->path);
		printf(",\n  \"line\": %lu\n}\n", p->line);
	} else if (!live) {
		printf("%s = %s is written to %s and acts from memctld's next start on\n", setting, value, p->path);
	}
	return EXIT_OK;
}

/* memctld says whether it can be; then the file is prepared, the setting acts, and the file takes its place. */
static int tune_for_good(struct cli *c, const char *setting, const char *value)
{
	const char *check[][2] = { { "setting", setting }, { "value", value }, { "?check", "yes" }, { NULL } };
	const char *act[][2] = { { "setting", setting }, { "value", value }, { "#line", NULL }, { NULL } };
	struct persist p = PERSIST_NULL;
	struct value *reply = NULL;
	char *path = NULL, line[24];
	int r = cli_ask(c, "org.memctl.Tune", check, &reply);

	value_close(reply);
	reply = NULL;
	if (r == EXIT_OK)
		r = ask_tune_path(c, &path);
	if (r == EXIT_OK)
		r = persist_prepare(&p, path, setting, value);
	if (r == EXIT_OK) {
		snprintf(line, sizeof line, "%lu", p.line);
		act[2][1] = line;
		r = cli_ask(c, "org.memctl.Tune", act, &reply);
	}
	if (r == EXIT_OK)
		r = persist_commit(&p);
	if (r == EXIT_OK)
		r = show_persisted(c, reply, &p, setting, value);
	persist_end(&p);
	value_close(reply);
	free(path);
	return r;
}

int run_tune(struct cli *c, char **arguments, unsigned n)
{
	const char *pairs[][2] = { { "setting", n ? arguments[0] : NULL }, { "value", n > 1 ? arguments[1] : NULL }, { NULL } };

	if (c->persist && n < 2) {
		cli_error("--persist wants a setting and its value");
		return EXIT_USAGE;
	}
	if (n < 2)
		return show_settings(c, pairs[0][1]);
	return c->persist ? tune_for_good(c, arguments[0], arguments[1]) : cli_do(c, "org.memctl.Tune", pairs);
}
