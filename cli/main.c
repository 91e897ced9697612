/* memctl: what memctld does, for people and for scripts.  It is made of memctl.h alone. */
#include "cli/cli.h"
#include "cli/help.h"
#include "cli/options.h"
#include "cli/output.h"

#include <limits.h>
#include <math.h>
#include <memctl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

const struct command commands[] = {
	{ "status", "", 0, 0, "the host at a glance: arena, VMs, state, warnings", NULL, NULL, run_status },
	{ "vm list", "", 0, 0, "all VMs with their memory (also: vm ls)", NULL, vm_list_columns, run_vm_list },
	{ "vm show", "VM", 1, 1, "one VM: its memory on three levels, resources, faults, leases", NULL, NULL,
		run_vm_show },
	{ "vm set", "VM", 1, 1, "change a VM's resources while it runs: all that is named, or nothing",
		"Refused with the numbers (exit code 2) if the arena cannot guarantee the reservation, or the disk has no room for\n"
		"what is not reserved.  Kept over restarts of memctld.", NULL, run_vm_set },
	{ "vm page-in", "VM", 1, 1, "bring back what of a VM is compressed or swapped",
		"In the background, while more memory is free than reclaim's goal; `vm show` says what is left.  --wait: until nothing is\n"
		"left, however long memory is short; it may be interrupted, and bringing in goes on.", NULL,
		run_vm_page_in },
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
	{ "events", "", 0, 0, "what memctld has told of late",
		"The last 1024 of warnings and errors and as many of the others; older ones are in the table event of the metrics\n"
		"database.", events_columns, run_events },
	{ "explain-event", "[EVENT]", 0, 1, "what an event means, and what to do; or all of them",
		"Needs no memctld.", explain_event_columns, run_explain_event },
	{ "stat", "[VM]", 0, 1, "levels, and rates per second, a line an interval",
		"Without -w and -c one line, measured over one second.  Every line is measured over its interval, the first too: it is\n"
		"no average since the start, as vmstat's is.  The headings come again on every screenful, with --raw once.", stat_columns, run_stat },
	{ "history", "[VM]", 0, 1, "what the numbers were: of a VM, also of one that is gone, or of the host",
		"Levels are averages over the line's time, counters rates per second; \"-\": no line is right before this one.  There is\n"
		"no line for a time when memctld was away, and none for what has not ended yet.  -o takes every number of `memctl\n"
		"catalogue` as well: RESIDENT,refault_pages; of a level also the most: resident_bytes_most.  Without a VM the columns are\n"
		"TIME STATE VMS SIZE CHARGED CHARGEDMOST FREE MINFREE RSRV SHARED COMMON SAVING RECL/s KILLED/s ROWS/s SAMPLES.\n"
		"--json has counters as what they grew by in interval_ms.", history_columns, run_history,
		.more_columns = true },
	{ "report", "", 0, 0, "what was, and why, as one page with charts",
		"HTML with everything in it: no scripts, nothing fetched; for browsers, in the light and in the dark, and for paper.  Memory by\n"
		"state, host states, how long faults took, sharing, balloons, swap traffic, events, what was decided and why, settings.  At\n"
		"most 24 VMs, and 240 points a line however long the time is.  --json has the same numbers.", NULL, run_report },
	{ "heat", "VM", 1, 1, "a map of a VM's guest-physical memory, by state and age",
		"Age: how long ago a resident page was filled, or last seen in use, as reclaim sees it: in generations of an eighth of what is\n"
		"resident.  Each cell stands for so many pages; where they differ, neighbouring cells take turns, so that each line\n"
		"has its signs in the proportions of its pages (a page that is lost is always shown).  For the VM's own user and operators.",
		NULL, run_heat },
	{ "top", "", 0, 0, "the VMs and the host on the screen, as esxtop's memory screen has them: live, or as they were",
		"What is on it, and which keys it takes, is said by ? on it.  --batch and --json print instead, a line a sample.", top_columns,
		run_top },
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
	{ "doctor", "[ID ...]", 0, 64, "what is wrong with the set-up of this host, each with the fix to type", doctor_details, doctor_columns,
		run_doctor },
	{ "daemon stop", "", 0, 0, "end memctld; every VM gets its memory as plain memory of its own first",
		"Refused (exit code 2, and which VM lacks how much) if there is not enough memory for all; memctld goes on then.",
		NULL, run_daemon_stop },
	{ "daemon reload", "", 0, 0, "let memctld read its settings and the files of vms.d again: all of it, or nothing",
		"Says what has changed, and which settings wait for a restart.  At the first thing that is wrong nothing changes, and file and\n"
		"line are said (exit code 16).  What was tuned without --persist gives way to what is written.", NULL, run_daemon_reload },
	{ "daemon upgrade", "", 0, 0, "let the memctld that is installed now take over, with guests running",
		"Guests wait for pages that are not resident, for as long as the restart takes.  Refused if the new one cannot read\n"
		"the state of the one that runs.  Needs systemd, or memctld --supervise.", NULL, run_daemon_upgrade },
	{ "config show", "", 0, 0, "the settings in force", NULL, config_columns, run_config_show },
	{ "config vms", "", 0, 0, "what the files vms.d/NAME.conf decide for VMs by their names", NULL, config_vms_columns, run_config_vms },
	{ "run", "-- COMMAND", 0, UINT_MAX, "run an emulator on a lease", run_details, NULL, run_run },
	{ "tune", "[SETTING [VALUE]]", 0, 2, "change a live setting until memctld restarts; or show it, or all of them",
		"Without a value: what it is, which values it may have, and what it does.", tune_columns, run_tune },
	{ "catalogue", "", 0, 0, "what each number means", NULL, catalogue_columns, run_catalogue },
	{ "metrics", "", 0, 0, "every number in the format of Prometheus (OpenMetrics)",
		"Exit code 69 and memctl_up 0 if memctld cannot be reached.", NULL, run_metrics },
	{ "version", "", 0, 0, "versions of memctl and libmemctl", NULL, NULL, run_version },
	{ "help", "[COMMAND]", 0, 2, "what there is, or a command's own help",
		"--json has all commands with their options and columns.", NULL, run_help },
	{ NULL },
};

const struct command *find_command(char **words, int n, int *ret_words)
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

/* Which commands begin with this word, for whoever has written no more of it. */
static void say_no_command(char **words, int n)
{
	size_t length = strlen(words[0]);
	bool found = false;

	for (const struct command *c = commands; c->name; c++)
		if (!strncmp(c->name, words[0], length) && c->name[length] == ' ') {
			if (!found && n == 1)
				fprintf(stderr, "memctl: %s what?", words[0]);
			else if (!found)
				fprintf(stderr, "memctl: no command \"%s %s\"; there are:", words[0], words[1]);
			fprintf(stderr, "%s %s", found ? "," : "", c->name);
			found = true;
		}
	if (found)
		fputc('\n', stderr);
	else
		cli_error("no command \"%s\"", words[0]);
}

static int usage(void)
{
	fputs("memctl: try `memctl help`\n", stderr);
	return EXIT_USAGE;
}

static void pause_for(double seconds)
{
	struct timespec t = { (time_t)seconds, (long)((seconds - floor(seconds)) * 1e9) };

	nanosleep(&t, NULL);
}

/* -w: the command again and again, a table each, with an empty line between; a terminal's screen is cleared, as watch(1)
 * does. */
static int repeat(struct cli *c, const struct command *command, char **arguments, unsigned n)
{
	bool clear = !c->json && !c->style.raw && isatty(STDOUT_FILENO);
	int r = EXIT_OK;

	cli_json_lines();
	for (double i = 0; !r && (c->count == 0 || i < c->count); i++) {
		if (i > 0) {
			pause_for(c->interval_s > 0 ? c->interval_s : 1);
			if (!c->json && !clear)
				putchar('\n');
		}
		if (clear)
			fputs("\033[H\033[2J", stdout);
		r = command->run(c, arguments, n);
		if (!output_flush())
			break;
	}
	return r;
}

/* What follows from the options together. */
static int settle(struct cli *c)
{
	c->timeout_ms = c->timeout_s < 0 ? 0 : c->timeout_s == 0 ? -1 : c->timeout_s < 0.001 ? 1 : (int)(c->timeout_s * 1000);
	c->style.bytes |= c->style.raw;
	if (output_colors(c->color, &c->style.color) < 0)
		return EXIT_USAGE;
	c->style.color &= !c->style.raw && !c->json;
	return EXIT_OK;
}

static int run(struct cli *c, const struct command *command, char **arguments, unsigned n)
{
	if (n < command->arguments_min || n > command->arguments_max) {
		cli_error("usage: memctl %s%s%s", command->name, *command->arguments ? " " : "", command->arguments);
		return EXIT_USAGE;
	}
	if (c->style.columns && !command->more_columns &&
		columns_choose(command->columns, &c->style, (const struct column *[COLUMNS_MAX]){ 0 }) < 0)
		return EXIT_USAGE;
	if ((c->interval_s != 0 || c->count != 0) && command->run != run_stat)
		return repeat(c, command, arguments, n);
	return command->run(c, arguments, n);
}

static int dispatch(struct cli *c, const struct options_given *g)
{
	const struct command *command;
	int words = 0, r;

	if (g->version)
		return run_version(c, NULL, 0);
	if (!g->n_words && g->help) {
		help_print(stdout);
		return EXIT_OK;
	}
	if (!g->n_words) {
		cli_error("which command?");
		return usage();
	}
	command = find_command(g->words, g->n_words, &words);
	if (!command) {
		say_no_command(g->words, g->n_words);
		return usage();
	}
	if (g->help) {
		help_print_command(command);
		return EXIT_OK;
	}
	if (options_apply(g, command, c) < 0)
		return EXIT_USAGE;
	r = settle(c);
	return r ? r : run(c, command, g->words + words, (unsigned)(g->n_words - words));
}

int main(int argc, char **argv)
{
	struct cli c = { .timeout_s = -1 };
	struct options_given given;
	int r;

	output_begin();
	r = options_parse(argc, argv, &given);
	r = r < 0 ? usage() : dispatch(&c, &given);
	options_fini(&given);
	memctl_free(c.m);
	return output_end(r);
}
