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

/* The options of vm set, and what they are called in SetVm. */
#define VM_SETTINGS 6
struct vm_setting {
	const char *option, *field;
};
extern const struct vm_setting vm_settings[VM_SETTINGS];

struct memctl;
struct cli {
	const char *socket;	/* NULL: the library's default */
	int timeout_ms;		/* 0: the library's default */
	bool json;
	struct table_style style;
	double interval_s;	/* -w; 0: not given */
	long count;		/* -c; 0: not given */
	bool force, wait;	/* of daemon stop; wait: of vm page-in too */
	bool stop;		/* of vm page-in */
	const char *rate;	/* of vm page-in; NULL: not given */
	const char *set[VM_SETTINGS];	/* of vm set, as vm_settings has them; NULL: not given */
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
};

/* All commands, ended by a NULL name. */
extern const struct command commands[];

int run_status(struct cli *c, char **arguments, unsigned n);
int run_vm_list(struct cli *c, char **arguments, unsigned n);
int run_vm_show(struct cli *c, char **arguments, unsigned n);
int run_vm_rm(struct cli *c, char **arguments, unsigned n);
int run_vm_set(struct cli *c, char **arguments, unsigned n);
int run_vm_page_in(struct cli *c, char **arguments, unsigned n);
int run_explain(struct cli *c, char **arguments, unsigned n);
int run_vm_release(struct cli *c, char **arguments, unsigned n);
int run_daemon_stop(struct cli *c, char **arguments, unsigned n);
int run_daemon_upgrade(struct cli *c, char **arguments, unsigned n);
int run_vm_pmap(struct cli *c, char **arguments, unsigned n);
int run_stat(struct cli *c, char **arguments, unsigned n);
int run_share_groups(struct cli *c, char **arguments, unsigned n);
int run_share_top(struct cli *c, char **arguments, unsigned n);
int run_share_scan(struct cli *c, char **arguments, unsigned n);
int run_audit(struct cli *c, char **arguments, unsigned n);
int run_config_show(struct cli *c, char **arguments, unsigned n);
int run_run(struct cli *c, char **words, unsigned n);	/* words[0] is "run" */
int run_tune(struct cli *c, char **arguments, unsigned n);
int run_catalogue(struct cli *c, char **arguments, unsigned n);
int run_version(struct cli *c, char **arguments, unsigned n);
int run_help(struct cli *c, char **arguments, unsigned n);

extern const char run_details[];
extern const struct column vm_list_columns[], vm_pmap_columns[], stat_columns[], config_columns[],
	audit_columns[], tune_columns[], explain_columns[], catalogue_columns[], share_groups_columns[], share_top_columns[];

/* A question to the daemon; `pairs` as of value_parameters, NULL: none.  EXIT_OK and *ret, the caller's for
 * value_close; otherwise it has said what went wrong. */
int cli_ask(struct cli *c, const char *method, const char *const pairs[][2], struct value **ret);
/* A command whose reply is of interest under --json only. */
int cli_do(struct cli *c, const char *method, const char *const pairs[][2]);
void cli_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* A reply under --json. */
int cli_print_json(const struct value *reply);
/* An array of objects as a table. */
int cli_print_table(struct cli *c, const struct column *columns, const struct value *rows);
/* A member as text for a cell or a line, as its kind and --bytes want it; freed by the caller. */
char *cli_cell(const struct cli *c, const struct value *row, const char *field, enum column_kind kind);
/* "name   text   (remark)" of the human pages; remark may be NULL. */
void cli_line(const struct cli *c, const char *name, const struct value *row, const char *field,
	enum column_kind kind, const char *remark);
