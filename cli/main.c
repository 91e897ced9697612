/* memctl: what memctld does, for people and for scripts.  It is made of memctl.h alone. */
#include "cli/cli.h"

#include <errno.h>
#include <getopt.h>
#include <memctl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct command commands[] = {
	{ "status", "", 0, 0, "the host at a glance: arena, VMs, state, warnings", NULL, NULL, run_status },
	{ "vm list", "", 0, 0, "all VMs with their memory (also: vm ls)", NULL, vm_list_columns, run_vm_list },
	{ "vm show", "VM", 1, 1, "one VM: its memory on three levels, resources, faults, leases", NULL, NULL,
		run_vm_show },
	{ "vm set", "VM --RESOURCE VALUE ...", 1, 1, "change a VM's resources while it runs: all that is named, or nothing",
		"  --reservation SIZE     guaranteed to it: 512M, or 40% of its size; none\n"
		"  --limit SIZE           never more than this: 512M, or 40% of its size; none\n"
		"  --shares SHARES        weight when memory is short: low, normal, high, or a number\n"
		"  --balloon-max SIZE     the most that its balloon may hold: 512M, or 40% of its size; 0; default (CtlMaxPercent)\n"
		"  --sharing WITH         what it was registered with, or less: zero, off; what is shared stays so until it is written to\n"
		"  --stall-budget PART    the part of the time that its guest may wait for pages before it is spared: 3%; none;\n"
		"                         default (StallBudget)\n"
		"Refused with the numbers (exit code 2) if the arena cannot guarantee the reservation, or the disk has no room for\n"
		"what is not reserved.  Kept over restarts of memctld.", NULL, run_vm_set },
	{ "vm page-in", "VM [--rate SIZE] [--wait] [--stop]", 1, 1, "bring back what of a VM is compressed or swapped",
		"In the background, while more memory is free than reclaim's goal; `vm show` says what is left.\n"
		"--rate   so much a second, like 64M (without: as fast as it goes)\n"
		"--wait   until all is back; interrupted, it goes on all the same\n"
		"--stop   end one that is under way", NULL, run_vm_page_in },
	{ "vm rm", "VM", 1, 1, "end a VM: its leases, frames and swap are taken back",
		"The emulator is treated as if it had died: what it had in memory is lost, and its threads\n"
		"wait at the next page that is not resident.", NULL, run_vm_rm },
	{ "vm release", "VM", 1, 1, "give a VM its memory as plain memory of its own, and let it go",
		"Everything of it is brought in first; the guest goes on meanwhile and afterwards.  Refused with the numbers\n"
		"(exit code 2) if the host has not enough memory.", NULL, run_vm_release },
	{ "vm pmap", "VM [GPA[+LEN]]", 1, 2, "where a VM's pages are, in runs of equal state",
		"GPA and LEN are guest-physical, like 0x100000+64KiB; without LEN one page, without both everything.",
		vm_pmap_columns, run_vm_pmap },
	{ "explain", "VM", 1, 1, "why a VM is asked for memory, or is not; what was asked of it lately",
		"--json has all numbers that the last plan looked at and decided.", explain_columns, run_explain },
	{ "stat", "[VM] [-w SEC] [-c COUNT]", 0, 1, "levels, and rates per second, a line an interval",
		"Without -w one line, measured over one second.  With -w lines until interrupted, or COUNT of them.\n"
		"--json prints one object a line.", stat_columns, run_stat },
	{ "share groups", "", 0, 0, "the pools of shared pages: members, what is shared, where it is",
		"A VM shares with itself (sharing = vm) or with a group (sharing = group:NAME); each has one pool.",
		share_groups_columns, run_share_groups },
	{ "share top", "[VM]", 0, 1, "who shares how much with whom, most first",
		"With VM only what it shares.  Of pools beyond 8 GiB the numbers are estimates.", share_top_columns, run_share_top },
	{ "share scan", "[VM]", 0, 1, "look for equal pages now, without waiting for the next pass",
		"Pages are read at ShareRateMax at most; ShareScanTime and ShareScanGHz do not bound this pass.", NULL,
		run_share_scan },
	{ "audit", "[VM]", 0, 1, "prove the ledger against the kernel's own numbers",
		"Exit code 1 and the difference if they disagree.", audit_columns, run_audit },
	{ "daemon stop", "[--force] [--wait]", 0, 0, "end memctld; every VM gets its memory as plain memory of its own first",
		"Refused (exit code 2, and which VM lacks how much) if there is not enough memory for all; memctld goes on then.\n"
		"--wait   wait until there is, instead\n"
		"--force  end all the same: VMs for which there is no memory are left behind, and their guests wait for ever where\n"
		"         they touch what is not resident", NULL, run_daemon_stop },
	{ "daemon upgrade", "", 0, 0, "let the memctld that is installed now take over, with guests running",
		"Guests wait for pages that are not resident, for as long as the restart takes.  Refused if the new one cannot read\n"
		"the state of the one that runs.  Needs systemd, or memctld --supervise.", NULL, run_daemon_upgrade },
	{ "config show", "", 0, 0, "the settings in force", NULL, config_columns, run_config_show },
	{ "run", "[OPTIONS] -- COMMAND", 0, 0, "run an emulator on a lease", run_details, NULL, run_run },
	{ "tune", "[SETTING [VALUE]]", 0, 2, "change a live setting until the daemon restarts; or show it, or all of them",
		"Without a value: what it is, which values it may have, and what it does.", tune_columns, run_tune },
	{ "catalogue", "", 0, 0, "what each number means", NULL, catalogue_columns, run_catalogue },
	{ "version", "", 0, 0, "versions of memctl and libmemctl", NULL, NULL, run_version },
	{ "help", "[COMMAND]", 0, 2, "this, or a command's own help", NULL, NULL, run_help },
	{ NULL },
};

static const char options_help[] =
	"Options (anywhere on the line):\n"
	"  --json             the reply as JSON (\"schema\": \"memctl/1\"); sizes are integers in bytes\n"
	"  --socket PATH      memctld's socket (default $MEMCTL_SOCKET, else /run/memctl/memctld.sock)\n"
	"  --timeout SEC      give up waiting for an answer (default 10; 0: never)\n"
	"  -o COL[,COL]       columns of a table, \"all\" for all\n"
	"  --raw              tables for scripts: one space between columns, sizes in bytes\n"
	"  --noheadings       tables without their first line\n"
	"  --bytes            sizes in bytes, times in nanoseconds\n"
	"  -w SEC, -c COUNT   stat: the interval, and how many lines\n"
	"  --force            daemon stop: leave VMs behind for which there is no memory\n"
	"  --wait             daemon stop: wait until there is; vm page-in: until all is back\n"
	"  -h, --help         help, also of a command\n";

static const char exit_help[] =
	"Exit codes:\n"
	"  0   ok                            5   no permission\n"
	"  1   audit found a difference      6   no answer in time\n"
	"  2   not enough memory             16  wrong usage\n"
	"  3   not found                     69  memctld cannot be reached\n"
	"  4   daemon or system error\n";

static void print_help(FILE *f)
{
	fputs("Usage: memctl COMMAND [ARGUMENTS] [OPTIONS]\n\nCommands:\n", f);
	for (const struct command *c = commands; c->name; c++) {
		char line[64];

		snprintf(line, sizeof line, "%s %s", c->name, c->arguments);
		fprintf(f, "  %-29s %s\n", line, c->summary);
	}
	fprintf(f, "\n%s\n%s", options_help, exit_help);
}

static void print_command_help(const struct command *c)
{
	printf("Usage: memctl %s %s%s[OPTIONS]\n\n%s\n", c->name, c->arguments, *c->arguments ? " " : "", c->summary);
	if (c->details)
		printf("\n%s\n", c->details);
	if (c->columns) {
		puts("\nColumns (* shown by default):");
		for (const struct column *k = c->columns; k->name; k++)
			printf("  %c %-10s %s\n", k->shown ? '*' : ' ', k->name, k->help);
	}
	printf("\n%s\n%s", options_help, exit_help);
}

/* The command that the words begin with: *ret_words says how many it takes. */
static const struct command *find_command(char **words, int n, int *ret_words)
{
	for (const struct command *c = commands; c->name; c++) {
		const char *second = strchr(c->name, ' ');
		size_t length = second ? (size_t)(second - c->name) : strlen(c->name);

		if (n < 1 || strlen(words[0]) != length || strncmp(words[0], c->name, length))
			continue;
		*ret_words = second ? 2 : 1;
		if (!second)
			return c;
		if (n >= 2 && (!strcmp(words[1], second + 1) ||
				      (!strcmp(words[1], "ls") && !strcmp(second + 1, "list"))))
			return c;
	}
	return NULL;
}

int run_help(struct cli *c, char **arguments, unsigned n)
{
	const struct command *command;
	int words;

	(void)c;
	if (!n) {
		print_help(stdout);
		return EXIT_OK;
	}
	command = find_command(arguments, (int)n, &words);
	if (!command) {
		cli_error("no command \"%s%s%s\"; memctl help lists them", arguments[0], n > 1 ? " " : "",
			n > 1 ? arguments[1] : "");
		return EXIT_USAGE;
	}
	print_command_help(command);
	return EXIT_OK;
}

int run_version(struct cli *c, char **arguments, unsigned n)
{
	(void)arguments;
	(void)n;
	if (c->json)
		printf("{\n  \"schema\": \"memctl/1\",\n  \"memctl\": \"%s\",\n  \"libmemctl\": \"%s\"\n}\n",
			MEMCTL_VERSION, memctl_version());
	else
		printf("memctl %s (libmemctl %s)\n", MEMCTL_VERSION, memctl_version());
	return EXIT_OK;
}

enum { OPT_JSON = 256, OPT_SOCKET, OPT_TIMEOUT, OPT_RAW, OPT_NOHEADINGS, OPT_BYTES, OPT_FORCE, OPT_WAIT, OPT_RATE, OPT_STOP,
	OPT_SET };

static const struct option long_options[] = {
	{ "json", no_argument, NULL, OPT_JSON },
	{ "socket", required_argument, NULL, OPT_SOCKET },
	{ "timeout", required_argument, NULL, OPT_TIMEOUT },
	{ "raw", no_argument, NULL, OPT_RAW },
	{ "noheadings", no_argument, NULL, OPT_NOHEADINGS },
	{ "bytes", no_argument, NULL, OPT_BYTES },
	{ "force", no_argument, NULL, OPT_FORCE },
	{ "wait", no_argument, NULL, OPT_WAIT },
	{ "rate", required_argument, NULL, OPT_RATE },
	{ "stop", no_argument, NULL, OPT_STOP },
	/* in the order of vm_settings */
	{ "reservation", required_argument, NULL, OPT_SET },
	{ "limit", required_argument, NULL, OPT_SET + 1 },
	{ "shares", required_argument, NULL, OPT_SET + 2 },
	{ "balloon-max", required_argument, NULL, OPT_SET + 3 },
	{ "sharing", required_argument, NULL, OPT_SET + 4 },
	{ "stall-budget", required_argument, NULL, OPT_SET + 5 },
	{ "output", required_argument, NULL, 'o' },
	{ "watch", required_argument, NULL, 'w' },
	{ "count", required_argument, NULL, 'c' },
	{ "help", no_argument, NULL, 'h' },
	{ NULL, 0, NULL, 0 },
};

static int parse_number(const char *text, const char *option, double min, double max, double *ret)
{
	char *end;

	errno = 0;
	*ret = strtod(text, &end);
	if (end == text || *end || errno || !(*ret >= min && *ret <= max)) {
		cli_error("%s: \"%s\" is not a number from %g to %g", option, text, min, max);
		return -EINVAL;
	}
	return 0;
}

static int parse_option(struct cli *c, int option, bool *ret_help)
{
	double number;

	if (option >= OPT_SET && option < OPT_SET + VM_SETTINGS) {
		c->set[option - OPT_SET] = optarg;
		return 0;
	}
	switch (option) {
	case OPT_JSON:
		c->json = true;
		return 0;
	case OPT_SOCKET:
		c->socket = optarg;
		return 0;
	case OPT_TIMEOUT:
		if (parse_number(optarg, "--timeout", 0, 1000000, &number) < 0)
			return -EINVAL;
		c->timeout_ms = number == 0 ? -1 : number < 0.001 ? 1 : (int)(number * 1000);
		return 0;
	case OPT_RAW:
		c->style.raw = c->style.bytes = true;
		return 0;
	case OPT_NOHEADINGS:
		c->style.noheadings = true;
		return 0;
	case OPT_BYTES:
		c->style.bytes = true;
		return 0;
	case OPT_FORCE:
		c->force = true;
		return 0;
	case OPT_WAIT:
		c->wait = true;
		return 0;
	case OPT_RATE:
		c->rate = optarg;
		return 0;
	case OPT_STOP:
		c->stop = true;
		return 0;
	case 'o':
		c->style.columns = optarg;
		return 0;
	case 'w':
		return parse_number(optarg, "-w", 0.01, 86400, &c->interval_s);
	case 'c':
		if (parse_number(optarg, "-c", 1, 1e9, &number) < 0)
			return -EINVAL;
		c->count = (long)number;
		return 0;
	case 'h':
		*ret_help = true;
		return 0;
	default:	/* getopt has said it */
		return -EINVAL;
	}
}

static int usage(void)
{
	fputs("memctl: try `memctl help`\n", stderr);
	return EXIT_USAGE;
}

static int run(struct cli *c, const struct command *command, char **arguments, unsigned n)
{
	if (n < command->arguments_min || n > command->arguments_max) {
		cli_error("usage: memctl %s %s", command->name, command->arguments);
		return EXIT_USAGE;
	}
	if (c->style.columns && !command->columns) {
		cli_error("%s has no table, so -o has no columns to choose", command->name);
		return EXIT_USAGE;
	}
	if ((c->interval_s != 0 || c->count) && command->run != run_stat) {
		cli_error("-w and -c belong to `memctl stat`");
		return EXIT_USAGE;
	}
	if ((c->force || c->wait) && command->run != run_daemon_stop && (c->force || command->run != run_vm_page_in)) {
		cli_error("--force belongs to `memctl daemon stop`, --wait to that and to `memctl vm page-in`");
		return EXIT_USAGE;
	}
	if ((c->rate || c->stop) && command->run != run_vm_page_in) {
		cli_error("--rate and --stop belong to `memctl vm page-in`");
		return EXIT_USAGE;
	}
	for (unsigned i = 0; i < VM_SETTINGS; i++)
		if (c->set[i] && command->run != run_vm_set) {
			cli_error("%s belongs to `memctl vm set`", vm_settings[i].option);
			return EXIT_USAGE;
		}
	return command->run(c, arguments, n);
}

static int finish(struct cli *c, int r)
{
	memctl_free(c->m);
	if (fflush(stdout) || ferror(stdout)) {
		cli_error("cannot write to stdout");
		return r ? r : EXIT_SYSTEM;
	}
	return r;
}

int main(int argc, char **argv)
{
	struct cli c = { 0 };
	const struct command *command;
	bool help = false;
	int option, words = 0;

	/* First only what stands before the command: the words of `run` are not ours to parse. */
	while ((option = getopt_long(argc, argv, "+o:w:c:h", long_options, NULL)) != -1)
		if (parse_option(&c, option, &help) < 0)
			return usage();
	if (optind < argc && !strcmp(argv[optind], "run") && !help)
		return finish(&c, run_run(&c, argv + optind, (unsigned)(argc - optind)));
	optind = 0;
	while ((option = getopt_long(argc, argv, "o:w:c:h", long_options, NULL)) != -1)
		if (parse_option(&c, option, &help) < 0)
			return usage();
	argv += optind;
	argc -= optind;
	if (!argc && help) {
		print_help(stdout);
		return EXIT_OK;
	}
	command = find_command(argv, argc, &words);
	if (!command) {
		if (argc)
			cli_error("no command \"%s%s%s\"", argv[0], argc > 1 ? " " : "", argc > 1 ? argv[1] : "");
		else
			cli_error("which command?");
		return usage();
	}
	if (help) {
		print_command_help(command);
		return EXIT_OK;
	}
	return finish(&c, run(&c, command, argv + words, (unsigned)(argc - words)));
}
