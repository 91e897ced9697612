/* What the commands share: the options, asking the daemon, and what to do with the answer.
 *
 * A command returns an exit code.  Data goes to stdout, everything else to stderr. */
#pragma once

#include "cli/json.h"
#include "cli/table.h"

#include <stdbool.h>

/* swapoff(8)'s codes where it has them; EXIT_UNREACHABLE is sysexits' EX_UNAVAILABLE. */
enum exit_code {
	EXIT_OK = 0,
	EXIT_DIFFERENCE = 1,
	EXIT_NO_MEMORY = 2,
	EXIT_NOT_FOUND = 3,
	EXIT_SYSTEM = 4,
	EXIT_PERMISSION = 5,
	EXIT_TIMEOUT = 6,
	EXIT_USAGE = 16,
	EXIT_UNREACHABLE = 69,
};

#define VM_SETTINGS 6

struct memctl;
/* What the options said (options.c has a row for each), and the connection.  Texts: NULL, numbers: 0 if not given. */
struct cli {
	const char *socket;	/* NULL: the library's default */
	double timeout_s;	/* negative: not given */
	int timeout_ms;		/* of that; 0: the library's default, -1: never */
	bool json;
	const char *color;
	struct table_style style;
	double interval_s;	/* -w */
	double count;		/* -c */
	bool force, wait;	/* of daemon stop; wait: of vm page-in too */
	bool stop;		/* of vm page-in */
	bool follow;		/* of events */
	const char *since;	/* of events and history */
	const char *vm, *level;	/* of events; vm: of top too */
	const char *until, *step;	/* of history */
	const char *textfile;	/* of metrics */
	const char *file;	/* of report and heat: where to */
	bool svg, text;		/* of heat */
	bool quiet;		/* no progress */
	bool effective, changed;	/* of config show */
	bool persist;		/* of tune */
	const char *rate;	/* of vm page-in */
	struct {
		bool batch;
		const char *at, *sort, *units;
		double delay_s, iterations;
	} top;
	const char *set[VM_SETTINGS];	/* of vm set and run: reservation, limit, shares, balloon-max, sharing, stall-budget */
	struct {
		const char *name, *mem, *swap_dir, *memfd_name, *fd;
		bool user_mode, no_balloon, no_qmp, print;
	} run;
	struct memctl *m;	/* connected at the first question */
};

struct command {
	const char *name;	/* "vm show" */
	const char *arguments;
	unsigned arguments_min, arguments_max;
	const char *summary;	/* one line */
	const char *details;	/* more, or NULL */
	const struct column *columns;	/* of its table, or NULL */
	int (*run)(struct cli *c, char **arguments, unsigned n);
	bool more_columns;	/* -o may name others than those: the command looks for itself */
};

/* All commands, ended by a NULL name. */
extern const struct command commands[];
/* The one that the words begin with, and how many of them it takes; NULL: none. */
const struct command *find_command(char **words, int n, int *ret_words);

int run_status(struct cli *c, char **arguments, unsigned n);
int run_vm_list(struct cli *c, char **arguments, unsigned n);
int run_vm_show(struct cli *c, char **arguments, unsigned n);
int run_vm_rm(struct cli *c, char **arguments, unsigned n);
int run_vm_set(struct cli *c, char **arguments, unsigned n);
int run_vm_page_in(struct cli *c, char **arguments, unsigned n);
int run_explain(struct cli *c, char **arguments, unsigned n);
int run_events(struct cli *c, char **arguments, unsigned n);
int run_explain_event(struct cli *c, char **arguments, unsigned n);
int run_metrics(struct cli *c, char **arguments, unsigned n);
int run_vm_release(struct cli *c, char **arguments, unsigned n);
int run_daemon_stop(struct cli *c, char **arguments, unsigned n);
int run_daemon_reload(struct cli *c, char **arguments, unsigned n);
int run_daemon_upgrade(struct cli *c, char **arguments, unsigned n);
int run_vm_pmap(struct cli *c, char **arguments, unsigned n);
int run_stat(struct cli *c, char **arguments, unsigned n);
int run_top(struct cli *c, char **arguments, unsigned n);
int run_history(struct cli *c, char **arguments, unsigned n);
int run_report(struct cli *c, char **arguments, unsigned n);
int run_heat(struct cli *c, char **arguments, unsigned n);
int run_share_groups(struct cli *c, char **arguments, unsigned n);
int run_share_top(struct cli *c, char **arguments, unsigned n);
int run_share_scan(struct cli *c, char **arguments, unsigned n);
int run_doctor(struct cli *c, char **arguments, unsigned n);
int run_audit(struct cli *c, char **arguments, unsigned n);
int run_config_show(struct cli *c, char **arguments, unsigned n);
int run_config_vms(struct cli *c, char **arguments, unsigned n);
int run_run(struct cli *c, char **arguments, unsigned n);	/* the emulator's command */
int run_tune(struct cli *c, char **arguments, unsigned n);
int run_catalogue(struct cli *c, char **arguments, unsigned n);
int run_version(struct cli *c, char **arguments, unsigned n);
int run_help(struct cli *c, char **arguments, unsigned n);

extern const char run_details[], doctor_details[];
extern const struct column vm_list_columns[], vm_pmap_columns[], stat_columns[], history_columns[],
	config_columns[], config_vms_columns[], audit_columns[], doctor_columns[], tune_columns[], explain_columns[], events_columns[],
	explain_event_columns[], catalogue_columns[], share_groups_columns[], share_top_columns[], top_columns[];

/* A question to the daemon; `pairs` as of value_parameters, NULL: none.  EXIT_OK and *ret, the caller's for
 * value_close; otherwise it has said what went wrong. */
int cli_ask(struct cli *c, const char *method, const char *const pairs[][2], struct value **ret);
/* The same, but what went wrong is the caller's to say. */
int cli_try(struct cli *c, const char *method, const char *const pairs[][2], struct value **ret, char why[static 320]);
/* The next question connects anew. */
void cli_hang_up(struct cli *c);
/* A command whose reply is of interest under --json only. */
int cli_do(struct cli *c, const char *method, const char *const pairs[][2]);
/* What its lines begin with: "memctl", unless this is another program. */
extern const char *cli_program;
void cli_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* A question whose reply has an array: its rows as a table, or the reply under --json, with the fields that -o chose. */
int cli_show(struct cli *c, const char *method, const char *const pairs[][2], const char *array,
	const struct column *columns);

/* The same of a reply that there is already. */
int cli_show_reply(struct cli *c, struct value *reply, const char *array, const struct column *columns);

/* A reply under --json. */
int cli_print_json(const struct value *reply);
/* From now on one object a line, for commands that print again and again. */
void cli_json_lines(void);
/* An array of objects as a table. */
int cli_print_table(struct cli *c, const struct column *columns, const struct value *rows);
/* A member as text for a cell or a line, as its kind and --bytes want it; freed by the caller. */
char *cli_cell(const struct cli *c, const struct value *row, const char *field, enum column_kind kind);
/* Sentences, broken between words; `begin` stands before the first, two spaces before each other line. */
void cli_print_wrapped(const char *begin, const char *text);
/* "name   text   (remark)" of the human pages; remark may be NULL. */
void cli_line(const struct cli *c, const char *name, const struct value *row, const char *field,
	enum column_kind kind, const char *remark);
