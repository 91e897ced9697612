/* memctld: the command line. */
#include "daemon.h"
#include "load.h"
#include "memory_max.h"
#include "supervise.h"
#include "base/events.h"
#include "mem/state.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EXIT_USAGE     2
#define EXIT_SETTINGS  3
#define WATCHDOG_S     10

enum { OPT_CONFIG = 256, OPT_SOCKET, OPT_SOCKET_MODE, OPT_ARENA, OPT_SWAP_DIR, OPT_METRICS, OPT_SET,
	OPT_CHECK_CONFIG, OPT_MEMORY_MAX, OPT_READY_FD, OPT_LOG_LEVEL, OPT_SUPERVISE, OPT_WATCHDOG, OPT_STATE_FORMATS,
	OPT_VERSION, OPT_HELP };

static const struct option options[] = {
	{ "config", required_argument, NULL, OPT_CONFIG },
	{ "socket", required_argument, NULL, OPT_SOCKET },
	{ "socket-mode", required_argument, NULL, OPT_SOCKET_MODE },
	{ "arena", required_argument, NULL, OPT_ARENA },
	{ "swap-dir", required_argument, NULL, OPT_SWAP_DIR },
	{ "metrics", required_argument, NULL, OPT_METRICS },
	{ "set", required_argument, NULL, OPT_SET },
	{ "check-config", no_argument, NULL, OPT_CHECK_CONFIG },
	{ "memory-max", no_argument, NULL, OPT_MEMORY_MAX },
	{ "ready-fd", required_argument, NULL, OPT_READY_FD },
	{ "log-level", required_argument, NULL, OPT_LOG_LEVEL },
	{ "supervise", no_argument, NULL, OPT_SUPERVISE },
	{ "watchdog", required_argument, NULL, OPT_WATCHDOG },
	{ "state-formats", no_argument, NULL, OPT_STATE_FORMATS },
	{ "version", no_argument, NULL, OPT_VERSION },
	{ "help", no_argument, NULL, OPT_HELP },
	{ 0 },
};

static const char help[] =
	"Usage: memctld [OPTION]...\n"
	"Lends memory to virtual machines and emulators, and takes it back when it is short.\n"
	"\n"
	"  --config FILE       settings; FILE.d/*.conf are read too, and vms.d/*.conf beside it, which are\n"
	"                      for VMs of these names; none: no file\n"
	"                      (default " LOAD_DEFAULT_PATH ", if it exists)\n"
	"  --socket PATH       where clients connect\n"
	"  --socket-mode MODE  permissions of the socket, octal\n"
	"  --arena SIZE        memory to own, as 4G\n"
	"  --swap-dir DIR      where the VMs' swap files are\n"
	"  --metrics FILE      history of the numbers; none: no history\n"
	"  --set KEY=VALUE     any setting\n"
	"  --check-config      read the settings and what is decided for VMs, check all of it, print the\n"
	"                      settings, and end\n"
	"  --memory-max        print what a memory cgroup must allow (MemoryMax= of the unit), bytes,\n"
	"                      and end\n"
	"  --ready-fd N        write a line to this descriptor when serving\n"
	"  --log-level LEVEL   error, warning, notice, info or debug (default info)\n"
	"  --supervise         without systemd: start memctld, keep what guests need of it, and start\n"
	"                      it again when it dies\n"
	"  --watchdog SECONDS  with --supervise: end memctld when it hangs for so long; 0: never\n"
	"                      (default 10)\n"
	"  --state-formats     the oldest and the newest state of a memctld that this one can take over\n"
	"  --version, --help\n"
	"\n"
	"Settings (in section [memctld]; * can be changed while memctld runs):\n";

static const char exit_codes[] =
	"\n"
	"Exit status: 0 ended by SIGTERM or SIGINT; 1 could not start or failed; 2 wrong usage;\n"
	"3 wrong settings; 75 to be started again at once.  --supervise: that of the memctld that\n"
	"it started; 128 + the signal that killed it.\n";

static void print_help(void)
{
	fputs(help, stdout);
	for (const struct setting *s = settings; s->name; s++)
		printf("  %-22s%s %s  [%s]\n", s->name, s->live ? "*" : " ", s->help, s->def);
	fputs(exit_codes, stdout);
}

static void print_settings(const struct config *c)
{
	printf("[memctld]\n");
	for (const struct setting *s = settings; s->name; s++) {
		char value[CONFIG_TEXT_MAX];

		setting_format(s, c, value, sizeof value);
		printf("%s = %s\n", s->name, value);
	}
}

static int parse_level(const char *text, enum log_level *ret)
{
	static const char *const names[] = { "error", "warning", "notice", "info", "debug" };

	for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++) {
		if (strcmp(text, names[i]) == 0) {
			*ret = LOG_LEVEL_ERROR + i;
			return 0;
		}
	}
	return -EINVAL;
}

/* Options that are a setting by another name. */
static const struct {
	int option;
	const char *setting;
} shortcuts[] = {
	{ OPT_SOCKET, "socket" },   { OPT_SOCKET_MODE, "socket_mode" }, { OPT_ARENA, "arena" },
	{ OPT_SWAP_DIR, "swap_dir" }, { OPT_METRICS, "metrics" },
};

static void free_words(char **words)
{
	for (char **w = words; w && *w; w++)
		free(*w);
	free(words);
}

/* What of the command line is a setting, as KEY=VALUE, in its order.  NULL: no memory. */
static char **words_of_line(int argc, char **argv)
{
	char **words = calloc((size_t)argc + 1, sizeof *words);
	unsigned n = 0;
	int c;

	optind = 1;
	while (words && (c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		const char *setting = NULL;
		int r = 0;

		for (unsigned i = 0; i < sizeof shortcuts / sizeof shortcuts[0]; i++)
			if (shortcuts[i].option == c)
				setting = shortcuts[i].setting;
		if (c == OPT_SET)
			r = asprintf(&words[n++], "%s", optarg);
		else if (setting)
			r = asprintf(&words[n++], "%s=%s", setting, optarg);
		if (r < 0) {
			words[n - 1] = NULL;
			free_words(words);
			return NULL;
		}
	}
	return words;
}

/* The exit status of a start that failed.  systemd starts us again without a pause, for the guests' sake: that would be a
 * storm.  And it may never find that a restart makes no sense while it keeps what guests wait for. */
static int failed(int status)
{
	if (!getenv("NOTIFY_SOCKET") || getenv("MEMCTLD_SUPERVISED"))
		return status;
	sleep(1);
	return getenv("LISTEN_FDS") ? EXIT_FAILURE : status;
}

static void free_line(char **args)
{
	for (char **a = args ? args + 1 : NULL; a && *a; a++)
		free(*a);
	free(args);
}

/* The command line for the memctld that is supervised: what is not the supervisor's.  NULL: no memory. */
static char **line_of_child(int argc, char **argv)
{
	char **args = calloc((size_t)argc + 1, sizeof *args);
	int c, at, n = 1;

	if (!args)
		return NULL;
	args[0] = argv[0];
	optind = 1;
	while ((c = getopt_long(argc, argv, "", options, &at)) != -1) {
		if (c == OPT_SUPERVISE || c == OPT_WATCHDOG || c == OPT_READY_FD)
			continue;
		if (asprintf(&args[n++], "--%s%s%s", options[at].name, optarg ? "=" : "", optarg ? optarg : "") < 0) {
			args[n - 1] = NULL;
			free_line(args);
			return NULL;
		}
	}
	return args;
}

static int supervise(int argc, char **argv, int ready_fd, unsigned watchdog_s)
{
	char **args = line_of_child(argc, argv);
	struct supervise_options so = { .argv = args, .watchdog_s = watchdog_s, .ready_fd = ready_fd };
	int r;

	if (!args) {
		event_tell(EVENT_START_FAILED, NULL, "out of memory");
		return EXIT_FAILURE;
	}
	r = supervise_run(&so);
	free_line(args);
	return r;
}

enum deed { DEED_SERVE, DEED_CHECK, DEED_MEMORY_MAX };

/* Read, check, and be memctld; or only print. */
static int run(const struct load_source *source, struct daemon_options *o, enum deed deed)
{
	struct load load = { 0 };
	struct problem p = { 0 };
	char why[512];
	int status = EXIT_SUCCESS;

	if (load_read(source, &load, why, sizeof why) < 0)
		status = EXIT_SETTINGS;
	/* names may be known later, when the directory of users is there: worth another start.  The boot does not ask for them */
	else if (deed != DEED_MEMORY_MAX && load_resolve(&load, why, sizeof why) < 0) {
		/* guests wait, and it is not their fault that a directory does not answer */
		o->names_wait = deed == DEED_SERVE && getenv("LISTEN_FDS") && load_without_names(&load) == 0;
		status = deed == DEED_CHECK ? EXIT_SETTINGS : o->names_wait ? EXIT_SUCCESS : EXIT_FAILURE;
	}
	if (o->names_wait)
		event_tell(EVENT_NAMES_WAIT, NULL, "%s; until that is right only root and memctld's own user may call", why);
	if (status == EXIT_SUCCESS && deed == DEED_SERVE) {
		o->source = source;
		if (daemon_run(&load, o, &p) == 0)
			return EXIT_SUCCESS;
		event_tell(EVENT_START_FAILED, NULL, "%s", p.text);
		return failed(EXIT_FAILURE);
	}
	if (status != EXIT_SUCCESS)
		event_tell(EVENT_SETTINGS_REFUSED, NULL, "%s", why);
	else if (deed == DEED_MEMORY_MAX)
		printf("%llu\n", (unsigned long long)memory_max_bytes(&load.config));
	else
		print_settings(&load.config);
	load_fini(&load);
	if (deed != DEED_SERVE && fflush(stdout)) {
		event_tell(EVENT_START_FAILED, NULL, "cannot write: %s", strerror(errno));
		return EXIT_FAILURE;
	}
	return deed == DEED_SERVE ? failed(status) : status;
}

/* A whole number from 0 on. */
static int parse_number(const char *text, int *ret)
{
	char *end;
	long n;

	errno = 0;
	n = strtol(text, &end, 10);
	if (*end || end == text || n < 0 || n > INT_MAX || errno)
		return -EINVAL;
	*ret = (int)n;
	return 0;
}

int main(int argc, char **argv)
{
	struct load_source source = { .path = LOAD_DEFAULT_PATH, .optional = true };
	struct daemon_options o = { .ready_fd = -1 };
	enum log_level level = LOG_LEVEL_INFO;
	enum deed deed = DEED_SERVE;
	bool supervised = false;
	int watchdog_s = -1;
	char **words;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case OPT_CONFIG:
			source.path = strcmp(optarg, "none") ? optarg : NULL;
			source.optional = false;
			break;
		case OPT_CHECK_CONFIG:
			deed = DEED_CHECK;
			break;
		case OPT_MEMORY_MAX:
			deed = DEED_MEMORY_MAX;
			break;
		case OPT_READY_FD:
			if (parse_number(optarg, &o.ready_fd) < 0) {
				event_tell(EVENT_WRONG_USAGE, NULL, "--ready-fd wants a descriptor's number, not \"%s\"", optarg);
				return EXIT_USAGE;
			}
			break;
		case OPT_LOG_LEVEL:
			if (parse_level(optarg, &level) < 0) {
				event_tell(EVENT_WRONG_USAGE, NULL, "--log-level wants error, warning, notice, info or debug, not \"%s\"",
					optarg);
				return EXIT_USAGE;
			}
			break;
		case OPT_SUPERVISE:
			supervised = true;
			break;
		case OPT_WATCHDOG:
			if (parse_number(optarg, &watchdog_s) < 0) {
				event_tell(EVENT_WRONG_USAGE, NULL, "--watchdog wants seconds, not \"%s\"", optarg);
				return EXIT_USAGE;
			}
			break;
		case OPT_STATE_FORMATS:
			printf("%u %u\n", STATE_FORMAT_OLDEST, STATE_FORMAT);
			return EXIT_SUCCESS;
		case OPT_VERSION:
			puts("memctld " MEMCTL_VERSION);
			return EXIT_SUCCESS;
		case OPT_HELP:
			print_help();
			return EXIT_SUCCESS;
		case '?':
			return EXIT_USAGE;
		default:
			break;
		}
	}
	if (optind < argc) {
		event_tell(EVENT_WRONG_USAGE, NULL, "unexpected argument \"%s\"; see memctld --help", argv[optind]);
		return EXIT_USAGE;
	}
	if (watchdog_s >= 0 && !supervised) {
		event_tell(EVENT_WRONG_USAGE, NULL, "--watchdog goes with --supervise only");
		return EXIT_USAGE;
	}
	log_set_level(level);
	if (supervised && deed == DEED_SERVE)
		return supervise(argc, argv, o.ready_fd, watchdog_s >= 0 ? (unsigned)watchdog_s : WATCHDOG_S);
	words = words_of_line(argc, argv);
	source.words = words;
	if (!words) {
		event_tell(EVENT_START_FAILED, NULL, "out of memory");
		return failed(EXIT_FAILURE);
	}
	c = run(&source, &o, deed);
	free_words(words);
	return c;
}
