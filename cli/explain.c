/* Why a VM is asked for memory, or is not: in words, and what was asked of it lately. */
#include "cli/cli.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

const struct column explain_columns[] = {
	{ "SINCE", "ts_ms", COLUMN_TIME, true, "when it began" },
	{ "CAUSE", "cause", COLUMN_TEXT, true, "limit: its own limit; host: the host is short" },
	{ "BY", "technique", COLUMN_TEXT, true, "the strongest means in use: share, balloon, compress, swap, block" },
	{ "ASKED", "asked_bytes", COLUMN_BYTES, true, "the most that was asked for at once" },
	{ "GIVEN", "given_bytes", COLUMN_BYTES, true, "what it has given since" },
	{ "AGAIN", "repeats", COLUMN_COUNT, true, "plans that asked for it once more" },
	{ "REASON", "reason", COLUMN_TEXT, false, "why, in a word" },
	{ "WHY", "why", COLUMN_TEXT, true, "why, in a sentence" },
	{ NULL },
};

static int explain(struct cli *c, const struct value *e)
{
	const struct value *words = value_at(e, "words"), *actions = value_at(e, "actions");

	if (c->style.raw)	/* sentences are for people */
		return cli_print_table(c, explain_columns, actions);
	for (size_t i = 0; i < value_items(words); i++) {
		char *text = value_words(value_item(words, i));

		cli_print_wrapped("", text ? text : "");
		free(text);
	}
	if (!value_items(actions)) {
		puts("\nNothing has been asked of it yet.");
		return EXIT_OK;
	}
	puts("\nWhat was asked of it, the latest first:");
	return cli_print_table(c, explain_columns, actions);
}

int run_explain(struct cli *c, char **arguments, unsigned n)
{
	static const struct timespec pause = { .tv_nsec = 50000000 };
	const char *pairs[][2] = { { "vm", arguments[0] }, { NULL } };
	struct value *reply;
	int r;

	(void)n;
	/* the first question makes memctld plan: what the second one gets is of now */
	r = cli_ask(c, "org.memctl.Explain", pairs, &reply);
	if (r)
		return r;
	value_close(reply);
	nanosleep(&pause, NULL);
	r = cli_ask(c, "org.memctl.Explain", pairs, &reply);
	if (r)
		return r;
	r = c->json ? cli_show_reply(c, reply, "explanation.actions", explain_columns) : explain(c, value_at(reply, "explanation"));
	value_close(reply);
	return r;
}
