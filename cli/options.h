/* The options, one row each: parsing, what is refused where, help, man pages and completion follow from the row. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct cli;
struct command;

enum option_kind {
	OPTION_FLAG,	/* a bool of struct cli becomes true */
	OPTION_TEXT,	/* a const char * of struct cli */
	OPTION_NUMBER,	/* a double of struct cli, from min to max */
};

struct option_row {
	const char *name;	/* "socket", of --socket */
	char letter;		/* 'o', of -o; 0: it has none */
	const char *argument;	/* what it is called in help; NULL: it takes none; "[WHEN]": only as --color=WHEN */
	const char *commands;	/* which take it: "vm list, stat"; "all"; "tables": those that have one */
	enum option_kind kind;
	size_t member;		/* of struct cli: where the value goes */
	double min, max;	/* of a number */
	const char *help;
};

/* Ended by a NULL name.  A name may have several rows, for different commands. */
extern const struct option_row option_rows[];

enum option_class { OPTION_OWN, OPTION_TABLES, OPTION_ALL };
enum option_class option_class(const struct option_row *o);
/* Whether this command takes it. */
bool option_taken(const struct option_row *o, const struct command *command);

/* What was given on a command line, until it is known which command it is for. */
struct options_given {
	struct option_given {
		const char *name, *value;
	} *list;
	size_t n;
	bool help, version;
	char **words;		/* what is no option */
	int n_words;
};

/* -EINVAL: it has been said what is wrong; -ENOMEM.  The words of `run` behind its own options are not looked at. */
int options_parse(int argc, char **argv, struct options_given *ret);
void options_fini(struct options_given *g);
/* Into c's members.  -EINVAL: this command does not take one of them, or not with that value; it has been said. */
int options_apply(const struct options_given *g, const struct command *command, struct cli *c);
