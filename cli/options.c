#include "cli/options.h"
#include "cli/cli.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#define ROWS_MAX  128
#define NAMED	  256	/* getopt's value of the first row; below are letters */

/* The member must be of the kind's type, or this does not compile. */
#define MEMBER(type, member) _Generic(((struct cli *)0)->member, type: offsetof(struct cli, member))
#define FLAG(member)	OPTION_FLAG, MEMBER(bool, member), 0, 0
#define TEXT(member)	OPTION_TEXT, MEMBER(const char *, member), 0, 0
#define NUMBER(member, min, max) OPTION_NUMBER, MEMBER(double, member), min, max

#define REPEATED "status, vm list, vm show, vm pmap, explain, stat, share groups, share top, audit"

const struct option_row option_rows[] = {
	{ "reservation", 0, "SIZE", "vm set", TEXT(set[0]), "guaranteed to it: 512M, or 40% of its size; none" },
	{ "limit", 0, "SIZE", "vm set", TEXT(set[1]), "never more than this: 512M, or 40% of its size; none" },
	{ "shares", 0, "SHARES", "vm set", TEXT(set[2]), "weight when memory is short: low, normal, high, or a number" },
	{ "balloon-max", 0, "SIZE", "vm set", TEXT(set[3]),
		"the most that its balloon may hold: 512M, or 40% of its size; 0; default (CtlMaxPercent)" },
	{ "sharing", 0, "WITH", "vm set", TEXT(set[4]),
		"what it was registered with, or less: zero, off; what is shared stays so until it is written to" },
	{ "stall-budget", 0, "PART", "vm set", TEXT(set[5]),
		"the part of the time that its guest may wait for pages before it is spared: 3%; none; default (StallBudget)" },

	{ "name", 0, "NAME", "run", TEXT(run.name), "the VM's name (needed)" },
	{ "mem", 0, "SIZE", "run", TEXT(run.mem), "guest memory, as 2G; for QEMU the same as its -m, one of them is enough" },
	{ "reservation", 0, "SIZE", "run", TEXT(set[0]), "host memory guaranteed to it" },
	{ "limit", 0, "SIZE", "run", TEXT(set[1]), "never more host memory than this" },
	{ "shares", 0, "N", "run", TEXT(set[2]), "its weight when memory is short (default 10 per MiB)" },
	{ "balloon-max", 0, "SIZE", "run", TEXT(set[3]), "the most that its balloon may hold: 512M, 40%; 0: it has none" },
	{ "sharing", 0, "MODE", "run", TEXT(set[4]), "off, zero, vm, group:NAME" },
	{ "stall-budget", 0, "PART", "run", TEXT(set[5]),
		"the part of the time that it may wait for pages before others give instead: 3%" },
	{ "swap-dir", 0, "DIR", "run", TEXT(run.swap_dir), "one that memctld's configuration allows" },
	{ "memfd-name", 0, "NAME", "run", TEXT(run.memfd_name),
		"which of the program's memfds is guest memory (default memory-backend-memfd, QEMU's)" },
	{ "fd", 0, "N", "run", TEXT(run.fd),
		"guest memory is an inherited memfd: /proc/self/fd/N (QEMU: mem-path=, share=on)" },
	{ "user-mode", 0, NULL, "run", FLAG(run.user_mode),
		"go on where userfaultfd is permitted for user mode only; right only for emulators without KVM, disks and networks" },
	{ "no-balloon", 0, NULL, "run", FLAG(run.no_balloon),
		"no balloon in QEMU's command line; one that is there is not asked for memory" },
	{ "no-qmp", 0, NULL, "run", FLAG(run.no_qmp),
		"no QMP socket, and none by which the balloon is asked for memory: the guest then gives what it reports as free, "
		"and nothing on demand" },
	{ "print", 0, NULL, "run", FLAG(run.print), "print the command and its environment instead, for use by hand" },

	{ "rate", 0, "SIZE", "vm page-in", TEXT(rate), "so much a second, like 64M (without: as fast as it goes)" },
	{ "wait", 0, NULL, "vm page-in", FLAG(wait), "until all is back; interrupted, it goes on all the same" },
	{ "stop", 0, NULL, "vm page-in", FLAG(stop), "end one that is under way" },

	{ "wait", 0, NULL, "daemon stop", FLAG(wait), "wait until there is enough memory for all, instead of being refused" },
	{ "force", 0, NULL, "daemon stop", FLAG(force),
		"end all the same: VMs for which there is no memory are left behind, and their guests wait for ever where they "
		"touch what is not resident" },

	{ "effective", 0, NULL, "config show", FLAG(effective),
		"where each value comes from, and what is written otherwise and waits for a restart" },
	{ "changed", 0, NULL, "config show", FLAG(changed), "the same, of what is not its default only" },
	{ "persist", 0, NULL, "tune", FLAG(persist),
		"for good: written to 90-tune.conf among memctld's drop-ins too, whose other lines are kept; a setting that is not live "
		"then acts from the next start on" },

	{ "follow", 'f', NULL, "events", FLAG(follow),
		"go on with those to come, until interrupted; begins with the last ten, or those since --since.  A restart of memctld is "
		"waited out.  --json prints one object a line then" },
	{ "since", 0, "TIME", "events", TEXT(since), "not older than this: 90s, 15m, 1h, 2d ago; 14:30; 2026-01-31T14:30" },
	{ "since", 0, "TIME", "history, report", TEXT(since),
		"10m, 1h, 2d ago; 14:30; 2026-01-31T14:30, or with Z behind it (without: an hour before the end)" },
	{ "until", 0, "TIME", "history, report", TEXT(until), "likewise (without: now)" },
	{ "step", 0, "STEP", "history", TEXT(step),
		"a line for each 1s, 10s, 1m, 1h (without: the finest of which at most some 240 lines tell of all that time)" },
	{ "vm", 0, "VM", "events", TEXT(vm), "about this VM" },
	{ "vm", 0, "VM", "report", TEXT(vm), "of this VM and the host only; it may be gone" },
	{ "output", 'o', "FILE", "report", TEXT(file), "where to, whole or not at all; -: to stdout" },
	{ "output", 'o', "FILE", "heat", TEXT(file), "where to, whole or not at all (without, or -: to stdout)" },
	{ "svg", 0, NULL, "heat", FLAG(svg), "a picture that browsers show: each cell has the parts of its pages as they are" },
	{ "text", 0, NULL, "heat", FLAG(text), "for a terminal (the default)" },
	{ "level", 0, "LEVEL", "events", TEXT(level), "this, or worse: error, warning, notice, info" },

	{ "batch", 'b', NULL, "top", FLAG(top.batch), "print CSV as esxtop -b does, a line a sample, instead of taking the screen" },
	{ "delay", 'd', "SEC", "top", NUMBER(top.delay_s, 0.1, 86400),
		"a sample every SEC seconds (without: 2); printed with --at: a step of the history, 1, 10, 60 or 3600" },
	{ "iterations", 'n', "N", "top", NUMBER(top.iterations, 1, 1e9), "end after so many samples (without: go on; printed with --at: one)" },
	{ "at", 0, "TIME", "top", TEXT(top.at),
		"as it was then, from memctld's history: 10m, 1h, 2d ago; 14:30; 2026-01-31T14:30; on the screen [ and ] go on from there" },
	{ "vm", 0, "VM", "top", TEXT(vm), "only this VM" },
	{ "sort", 0, "COLUMN", "top", TEXT(top.sort), "by this column, most first (without: CNSM)" },
	{ "columns", 0, "COL[,COL]", "top", TEXT(style.columns), "the same as -o" },
	{ "units", 0, "UNIT", "top", TEXT(top.units), "sizes in B, KiB, MiB (without), GiB, or on the screen auto" },

	{ "textfile", 0, "FILE", "metrics", TEXT(textfile),
		"for node_exporter's textfile collector: FILE is replaced as a whole, in the older text format that it reads; without "
		"memctld too, and says memctl_up 0" },

	{ "watch", 'w', "SEC", REPEATED, NUMBER(interval_s, 0.01, 86400),
		"again every SEC seconds, until interrupted; with --json one object a line" },
	{ "count", 'c', "N", REPEATED, NUMBER(count, 1, 1e9), "so many times; without -w every second" },

	{ "output", 'o', "COL[,COL]", "tables", TEXT(style.columns),
		"these columns; +COL[,COL]: these too; all: all of them.  With --json: these fields of the rows" },
	{ "raw", 0, NULL, "tables", FLAG(style.raw), "for scripts: one space between columns, sizes in bytes" },
	{ "noheadings", 0, NULL, "tables", FLAG(style.noheadings), "without the first line" },
	{ "bytes", 0, NULL, "tables, status, vm show", FLAG(style.bytes), "sizes in bytes, times in nanoseconds" },

	{ "quiet", 'q', NULL, "vm page-in, vm release, daemon stop, report, heat", FLAG(quiet),
		"no line of progress on a terminal" },
	{ "json", 0, NULL, "all", FLAG(json), "the reply as JSON (\"schema\": \"memctl/1\"); sizes are integers in bytes" },
	{ "socket", 0, "PATH", "all", TEXT(socket), "memctld's socket (default $MEMCTL_SOCKET, else /run/memctl/memctld.sock)" },
	{ "timeout", 0, "SEC", "all", NUMBER(timeout_s, 0, 1000000), "give up waiting for an answer (default 10; 0: never)" },
	{ "color", 0, "[WHEN]", "all", TEXT(color),
		"states and warnings in colour: always, never, or auto: on a terminal, unless $NO_COLOR is set (the default)" },
	{ NULL },
};

enum option_class option_class(const struct option_row *o)
{
	return !strcmp(o->commands, "all") ? OPTION_ALL : !strncmp(o->commands, "tables", 6) ? OPTION_TABLES : OPTION_OWN;
}

bool option_taken(const struct option_row *o, const struct command *command)
{
	const char *p = o->commands;

	if (option_class(o) == OPTION_ALL)
		return true;
	for (;;) {
		size_t n = strcspn(p, ",");

		if (command->columns && n == 6 && !strncmp(p, "tables", n))
			return true;
		if (strlen(command->name) == n && !strncmp(p, command->name, n))
			return true;
		if (!p[n])
			return false;
		p += n + 1 + strspn(p + n + 1, " ");
	}
}

/* getopt's tables: each name once, though several rows may have it. */
struct getopt_tables {
	struct option longs[ROWS_MAX];
	char letters[2 * ROWS_MAX];
};

static int has_argument(const struct option_row *o)
{
	return !o->argument ? no_argument : *o->argument == '[' ? optional_argument : required_argument;
}

static void fill_tables(struct getopt_tables *t)
{
	int n = 0, k = 1;

	t->letters[0] = '+';
	for (int i = 0; option_rows[i].name && n < ROWS_MAX - 3; i++) {
		const struct option_row *o = &option_rows[i];
		bool again = false;

		for (int j = 0; j < n; j++)
			again |= !strcmp(t->longs[j].name, o->name);
		if (again)
			continue;
		t->longs[n++] = (struct option){ o->name, has_argument(o), NULL, NAMED + i };
		if (!o->letter)
			continue;
		t->letters[k++] = o->letter;
		if (o->argument)
			t->letters[k++] = ':';
	}
	t->longs[n++] = (struct option){ "help", no_argument, NULL, 'h' };
	t->longs[n++] = (struct option){ "version", no_argument, NULL, 'V' };
	t->longs[n] = (struct option){ 0 };
	t->letters[k++] = 'h';
	t->letters[k++] = 'V';
	t->letters[k] = 0;
}

static const char *name_of(int option)
{
	if (option >= NAMED)
		return option_rows[option - NAMED].name;
	for (const struct option_row *o = option_rows; o->name; o++)
		if (o->letter == option)
			return o->name;
	return NULL;
}

/* From argv[1] on; optind is then the first word that is none. */
static int take(int argc, char **argv, const char *letters, const struct option *longs, struct options_given *g)
{
	int option;

	optind = 0;
	while ((option = getopt_long(argc, argv, letters, longs, NULL)) != -1) {
		if (option == 'h')
			g->help = true;
		else if (option == 'V')
			g->version = true;
		else if (!name_of(option)) {
			/* getopt has said it, but not this */
			if (optopt >= '0' && optopt <= '9')
				cli_error("a negative number needs -- before it: memctl tune zstd_level -- -%c", optopt);
			return -EINVAL;
		}
		else
			g->list[g->n++] = (struct option_given){ name_of(option), optarg };
	}
	return 0;
}

int options_parse(int argc, char **argv, struct options_given *ret)
{
	static char self[] = "memctl";	/* getopt's messages begin with it */
	struct getopt_tables t;
	int r;

	*ret = (struct options_given){ .list = calloc((size_t)argc + 1, sizeof *ret->list) };
	if (!ret->list)
		return -ENOMEM;
	if (argc < 1)
		return 0;
	fill_tables(&t);
	argv[0] = self;
	r = take(argc, argv, t.letters, t.longs, ret);
	if (!r && optind < argc && !strcmp(argv[optind], "run")) {
		/* its own options, up to the command, whose options are not ours to parse */
		char **words = argv + optind, *run = words[0];
		int n = argc - optind;

		words[0] = self;
		r = take(n, words, t.letters, t.longs, ret);
		ret->words = words + optind - 1;
		ret->words[0] = run;
		ret->n_words = n - optind + 1;
		return r;
	}
	if (!r) {
		ret->n = 0;
		r = take(argc, argv, t.letters + 1, t.longs, ret);
	}
	ret->words = argv + optind;
	ret->n_words = argc - optind;
	return r;
}

void options_fini(struct options_given *g)
{
	free(g->list);
	g->list = NULL;
}

static int put_number(const struct option_row *o, const char *text, double *ret)
{
	char *end;
	double n;

	errno = 0;
	n = strtod(text, &end);
	if (end == text || *end || errno || !(n >= o->min && n <= o->max)) {
		cli_error("--%s: \"%s\" is not a number from %g to %g", o->name, text, o->min, o->max);
		return -EINVAL;
	}
	*ret = n;
	return 0;
}

static int put(const struct option_row *o, const char *value, struct cli *c)
{
	void *member = (char *)c + o->member;

	switch (o->kind) {
	case OPTION_FLAG:
		*(bool *)member = true;
		return 0;
	case OPTION_TEXT:
		*(const char **)member = value ? value : "";
		return 0;
	case OPTION_NUMBER:
		return put_number(o, value, member);
	}
	return -EINVAL;
}

/* Who takes it, for the message. */
static void refuse(const char *name, const struct command *command)
{
	char takers[256] = "";

	for (const struct option_row *o = option_rows; o->name; o++)
		if (!strcmp(o->name, name) && strlen(takers) + strlen(o->commands) + 3 < sizeof takers) {
			strcat(takers, *takers ? ", " : "");
			strcat(takers, option_class(o) == OPTION_TABLES ? "commands that print a table" : o->commands);
		}
	cli_error("%s does not take --%s, which belongs to: %s; see memctl help %s", command->name, name, takers, command->name);
}

int options_apply(const struct options_given *g, const struct command *command, struct cli *c)
{
	for (size_t i = 0; i < g->n; i++) {
		const struct option_row *o = option_rows;

		while (o->name && (strcmp(o->name, g->list[i].name) || !option_taken(o, command)))
			o++;
		if (!o->name) {
			refuse(g->list[i].name, command);
			return -EINVAL;
		}
		if (put(o, g->list[i].value, c) < 0)
			return -EINVAL;
	}
	return 0;
}
