/* memctld: the command line. */
#include "config.h"
#include "daemon.h"
#include "base/log.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_CONFIG "/etc/memctl/memctld.conf"
#define EXIT_USAGE     2
#define EXIT_SETTINGS  3

enum { OPT_CONFIG = 256, OPT_SOCKET, OPT_SOCKET_MODE, OPT_ARENA, OPT_SWAP_DIR, OPT_METRICS, OPT_SET,
	OPT_CHECK_CONFIG, OPT_READY_FD, OPT_LOG_LEVEL, OPT_VERSION, OPT_HELP };

static const struct option options[] = {
	{ "config", required_argument, NULL, OPT_CONFIG },
	{ "socket", required_argument, NULL, OPT_SOCKET },
	{ "socket-mode", required_argument, NULL, OPT_SOCKET_MODE },
	{ "arena", required_argument, NULL, OPT_ARENA },
	{ "swap-dir", required_argument, NULL, OPT_SWAP_DIR },
	{ "metrics", required_argument, NULL, OPT_METRICS },
	{ "set", required_argument, NULL, OPT_SET },
	{ "check-config", no_argument, NULL, OPT_CHECK_CONFIG },
	{ "ready-fd", required_argument, NULL, OPT_READY_FD },
	{ "log-level", required_argument, NULL, OPT_LOG_LEVEL },
	{ "version", no_argument, NULL, OPT_VERSION },
	{ "help", no_argument, NULL, OPT_HELP },
	{ 0 },
};

static const char help[] =
	"Usage: memctld [OPTION]...\n"
	"Lends memory to virtual machines and emulators, and takes it back when it is short.\n"
	"\n"
	"  --config FILE       settings; FILE.d/*.conf are read too; none: no file\n"
	"                      (default " DEFAULT_CONFIG ", if it exists)\n"
	"  --socket PATH       where clients connect\n"
	"  --socket-mode MODE  permissions of the socket, octal\n"
	"  --arena SIZE        memory to own, as 4G\n"
	"  --swap-dir DIR      where the VMs' swap files are\n"
	"  --metrics FILE      history of the numbers; none: no history\n"
	"  --set KEY=VALUE     any setting\n"
	"  --check-config      read the settings, print them, and end\n"
	"  --ready-fd N        write a line to this descriptor when serving\n"
	"  --log-level LEVEL   error, warning, notice, info or debug (default info)\n"
	"  --version, --help\n"
	"\n"
	"Settings (in section [memctld]; * can be changed while memctld runs):\n";

static const char exit_codes[] =
	"\n"
	"Exit status: 0 ended by SIGTERM or SIGINT; 1 could not start or failed; 2 wrong usage;\n"
	"3 wrong settings.\n";

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

static int take_setting(struct config *c, int option, const char *value)
{
	char why[256];
	int r = 0;

	if (option == OPT_SET)
		r = config_set(c, value, why, sizeof why);
	for (unsigned i = 0; i < sizeof shortcuts / sizeof shortcuts[0]; i++)
		if (shortcuts[i].option == option)
			r = setting_set(setting_find(shortcuts[i].setting), c, value, why, sizeof why);
	if (r < 0)
		log_error("%s", why);
	return r;
}

int main(int argc, char **argv)
{
	struct config config;
	struct daemon_options o = { .ready_fd = -1 };
	struct problem p = { 0 };
	enum log_level level = LOG_LEVEL_INFO;
	const char *path = NULL;
	bool check = false;
	char why[512], *end;
	int c, r;

	/* The files come before the command line, wherever --config stands in it: two passes. */
	config_defaults(&config);
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case OPT_CONFIG:
			path = optarg;
			break;
		case OPT_CHECK_CONFIG:
			check = true;
			break;
		case OPT_READY_FD:
			o.ready_fd = (int)strtol(optarg, &end, 10);
			if (*end || end == optarg || o.ready_fd < 0) {
				log_error("--ready-fd wants a descriptor's number, not \"%s\"", optarg);
				return EXIT_USAGE;
			}
			break;
		case OPT_LOG_LEVEL:
			if (parse_level(optarg, &level) < 0) {
				log_error("--log-level wants error, warning, notice, info or debug, not \"%s\"",
					optarg);
				return EXIT_USAGE;
			}
			break;
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
		log_error("unexpected argument \"%s\"; see memctld --help", argv[optind]);
		return EXIT_USAGE;
	}
	log_set_level(level);
	if (!path || strcmp(path, "none")) {
		r = config_read(&config, path ? path : DEFAULT_CONFIG, !path, why, sizeof why);
		if (r < 0) {
			log_error("%s", why);
			return EXIT_SETTINGS;
		}
	}
	optind = 1;
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1)
		if (take_setting(&config, c, optarg) < 0)
			return EXIT_SETTINGS;
	if (check) {
		print_settings(&config);
		return EXIT_SUCCESS;
	}
	if (daemon_run(&config, &o, &p) < 0) {
		log_error("%s", p.text);
		return EXIT_FAILURE;
	}
	return EXIT_SUCCESS;
}
