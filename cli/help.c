#include "cli/help.h"
#include "cli/cli.h"
#include "cli/options.h"

#include <stdlib.h>
#include <string.h>

#define WIDTH 112

static const struct {
	enum exit_code code;
	const char *meaning;
} exit_codes[] = {
	{ EXIT_OK, "ok" },
	{ EXIT_DIFFERENCE, "audit found a difference; doctor found something to mend" },
	{ EXIT_NO_MEMORY, "not enough memory" },
	{ EXIT_NOT_FOUND, "not found" },
	{ EXIT_SYSTEM, "daemon or system error; the output could not be written" },
	{ EXIT_PERMISSION, "no permission" },
	{ EXIT_TIMEOUT, "no answer in time" },
	{ EXIT_USAGE, "wrong usage" },
	{ EXIT_UNREACHABLE, "memctld cannot be reached" },
};

static const char *const kinds[] = {
	[COLUMN_TEXT] = "text", [COLUMN_STATE] = "text", [COLUMN_BYTES] = "bytes", [COLUMN_COUNT] = "count",
	[COLUMN_NS] = "nanoseconds", [COLUMN_HEX] = "address", [COLUMN_RATE] = "counter", [COLUMN_PERMILLE] = "permille",
	[COLUMN_TIME] = "milliseconds since 1970",
};

/* `label` on the left, `text` beside it, broken between words. */
static void print_item(FILE *f, unsigned left, const char *label, const char *text)
{
	unsigned column = left;

	fprintf(f, "  %-*s", (int)left - 2, label);
	if (strlen(label) + 4 > left)	/* two spaces at least, which the completion looks for */
		fprintf(f, "\n%*s", (int)left, "");
	while (*text) {
		size_t n = strcspn(text, " ");

		if (column > left && column + 1 + n > WIDTH) {
			fprintf(f, "\n%*s", (int)left, "");
			column = left;
		} else if (column > left) {
			fputc(' ', f);
			column++;
		}
		fprintf(f, "%.*s", (int)n, text);
		column += (unsigned)n;
		text += n + (text[n] == ' ');
		if (*text == ' ')	/* two of them, after a sentence */
			text++;
	}
	fputc('\n', f);
}

static void print_option(FILE *f, const struct option_row *o)
{
	char label[64], letter[8] = "";

	if (o->letter)
		snprintf(letter, sizeof letter, "-%c, ", o->letter);
	if (o->argument && *o->argument == '[')
		snprintf(label, sizeof label, "%s--%s[=%.*s]", letter, o->name, (int)strlen(o->argument) - 2, o->argument + 1);
	else
		snprintf(label, sizeof label, "%s--%s%s%s", letter, o->name, o->argument ? " " : "", o->argument ? o->argument : "");
	print_item(f, 27, label, o->help);
}

/* Those of one class; of every command, or of one.  How many. */
static unsigned print_options(FILE *f, const char *title, enum option_class class, const struct command *command)
{
	unsigned n = 0;

	for (const struct option_row *o = option_rows; o->name; o++) {
		if (option_class(o) != class || (command && !option_taken(o, command)))
			continue;
		if (!n++)
			fprintf(f, "\n%s:\n", title);
		print_option(f, o);
	}
	return n;
}

static void print_common(FILE *f, const struct command *command)
{
	print_options(f, "Of every command", OPTION_ALL, command);
	print_item(f, 27, "-h, --help", command ? "this" : "this, or a command's own help");
	print_item(f, 27, "-V, --version", "the version");
}

static void print_exit_codes(FILE *f)
{
	fputs("\nExit codes:\n", f);
	for (size_t i = 0; i < sizeof exit_codes / sizeof *exit_codes; i++)
		fprintf(f, "  %-3d %s\n", exit_codes[i].code, exit_codes[i].meaning);
}

void help_print(FILE *f)
{
	fputs("Usage: memctl COMMAND [ARGUMENTS] [OPTIONS]\n\nCommands:\n", f);
	for (const struct command *c = commands; c->name; c++) {
		char line[64];

		snprintf(line, sizeof line, "%s %s", c->name, c->arguments);
		print_item(f, 33, line, c->summary);
	}
	print_options(f, "Of commands that print a table", OPTION_TABLES, NULL);
	print_common(f, NULL);
	fputs("\nOptions may stand anywhere on the line (with `run`: before the emulator's command).  `memctl help COMMAND` lists\n"
	      "those of a command; any other is refused.\n", f);
	print_exit_codes(f);
}

void help_print_command(const struct command *c)
{
	printf("Usage: memctl %s%s%s [OPTIONS]\n\n%s\n", c->name, *c->arguments ? " " : "", c->arguments, c->summary);
	if (c->details)
		printf("\n%s\n", c->details);
	print_options(stdout, "Options", OPTION_OWN, c);
	print_options(stdout, "Of the table", OPTION_TABLES, c);
	print_common(stdout, c);
	if (c->columns) {
		puts("\nColumns (* shown by default):");
		for (const struct column *k = c->columns; k->name; k++) {
			char label[32];

			snprintf(label, sizeof label, "%c %s", k->shown ? '*' : ' ', k->name);
			print_item(stdout, 15, label, k->help);
		}
	}
	print_exit_codes(stdout);
}

static void put(const char *before, const char *text)
{
	fputs(before, stdout);
	if (text)
		value_print_string(stdout, text);
	else
		fputs("null", stdout);
}

static void json_options(const struct command *c)
{
	const char *comma = "";

	fputs(",\n      \"options\": [", stdout);
	for (const struct option_row *o = option_rows; o->name; o++) {
		static const char *const classes[] = { [OPTION_OWN] = "own", [OPTION_TABLES] = "tables", [OPTION_ALL] = "all" };

		if (!option_taken(o, c))
			continue;
		printf("%s\n        {", comma);
		put("\"name\": ", o->name);
		put(", \"letter\": ", o->letter ? (char[]){ o->letter, 0 } : NULL);
		put(", \"argument\": ", o->argument);
		put(", \"class\": ", classes[option_class(o)]);
		put(", \"help\": ", o->help);
		putchar('}');
		comma = ",";
	}
	putchar(']');
}

static void json_columns(const struct command *c)
{
	fputs(",\n      \"columns\": [", stdout);
	for (const struct column *k = c->columns; k && k->name; k++) {
		printf("%s\n        {", k == c->columns ? "" : ",");
		put("\"name\": ", k->name);
		put(", \"field\": ", k->field);
		put(", \"kind\": ", kinds[k->kind]);
		printf(", \"shown\": %s", k->shown ? "true" : "false");
		put(", \"help\": ", k->help);
		putchar('}');
	}
	putchar(']');
}

void help_print_json(void)
{
	fputs("{\n  \"schema\": \"memctl/1\",\n  \"commands\": [", stdout);
	for (const struct command *c = commands; c->name; c++) {
		printf("%s\n    {", c == commands ? "" : ",");
		put("\"name\": ", c->name);
		put(", \"arguments\": ", c->arguments);
		put(",\n      \"summary\": ", c->summary);
		put(",\n      \"details\": ", c->details);
		json_options(c);
		json_columns(c);
		putchar('}');
	}
	fputs("\n  ],\n  \"exit_codes\": [", stdout);
	for (size_t i = 0; i < sizeof exit_codes / sizeof *exit_codes; i++) {
		printf("%s\n    {\"code\": %d", i ? "," : "", exit_codes[i].code);
		put(", \"meaning\": ", exit_codes[i].meaning);
		putchar('}');
	}
	fputs("\n  ]\n}\n", stdout);
}

int run_help(struct cli *c, char **arguments, unsigned n)
{
	const struct command *command;
	int words;

	if (c->json) {
		help_print_json();
		return EXIT_OK;
	}
	if (!n) {
		help_print(stdout);
		return EXIT_OK;
	}
	command = find_command(arguments, (int)n, &words);
	if (!command) {
		cli_error("no command \"%s%s%s\"; memctl help lists them", arguments[0], n > 1 ? " " : "", n > 1 ? arguments[1] : "");
		return EXIT_USAGE;
	}
	help_print_command(command);
	return EXIT_OK;
}
