/* `memctl top`: the words that its files share.
 *
 * A *sample* is how the host and its VMs stood at one time: asked of memctld now (top_live.c), or of its history (top_replay.c).  Whoever
 * shows it (top_list.c, top_detail.c) or prints it (top_batch.c) does not know which.  Every number is a double: a level as it is, a
 * counter as what it grew by in a second, NAN where nobody knows: of the first look, after a restart, of what was not recorded. */
#pragma once

#include "cli/cli.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum top_number {
#define VM_LEVEL(name)	 TOP_##name,
#define VM_COUNTER(name) TOP_##name,
#define HOST_LEVEL(name)
#include "cli/top_numbers.def"
#undef VM_LEVEL
#undef VM_COUNTER
#undef HOST_LEVEL
	TOP_NUMBERS
};

enum top_host_number {
#define VM_LEVEL(name)
#define VM_COUNTER(name)
#define HOST_LEVEL(name) HOST_##name,
#include "cli/top_numbers.def"
#undef VM_LEVEL
#undef VM_COUNTER
#undef HOST_LEVEL
	HOST_NUMBERS
};

extern const struct top_number_row {
	const char *name;
	bool counter;
} top_numbers[TOP_NUMBERS];
extern const char *const top_host_numbers[HOST_NUMBERS];

struct top_vm {
	char name[64];
	char state[16];			/* "": of history */
	uint64_t raw[TOP_NUMBERS];	/* as they were read */
	double n[TOP_NUMBERS];
};

struct top_sample {
	uint64_t ts_ms;			/* Unix time */
	double at_s;			/* monotonic, of a sample of now */
	double interval_s;		/* in which the counters have grown; 0: unknown */
	bool recorded;			/* from the history: */
	unsigned step_s;		/* the step that begins at ts_ms */
	char state[8];			/* high, clear, soft, hard, low */
	uint64_t pid, uptime_s;		/* of memctld; 0: of history */
	char warning[200];		/* the first of memctld's, or "" */
	double host[HOST_NUMBERS];
	struct top_vm *vms;
	size_t n_vms;
};

void top_sample_free(struct top_sample *s);
struct top_vm *top_find(const struct top_sample *s, const char *name);
/* The sum over the VMs, without what nobody knows. */
double top_sum(const struct top_sample *s, enum top_number number);

/* ---- now (top_live.c) ---- */

/* How memctld says it is now; `before`: the last one, from which rates follow, or NULL.  vm: this one only, or NULL.  After a failure the next
 * call connects anew. */
int top_live(struct cli *c, const char *vm, const struct top_sample *before, struct top_sample **ret, char why[static 320]);

/* ---- then (top_replay.c) ---- */

struct top_replay;
struct top_replay *top_replay_new(struct cli *c, const char *vm);
void top_replay_free(struct top_replay *r);
/* To the first sample from then on, or else the last one before.  EXIT_NOT_FOUND: nothing was recorded. */
int top_replay_seek(struct top_replay *r, uint64_t ts_ms, char why[static 320]);
/* So many samples on, or back; stays at the last, or the first, which `*ret_end` says. */
int top_replay_move(struct top_replay *r, long samples, bool *ret_end, char why[static 320]);
/* The step of what it reads, in seconds: 1, 10, 60, 3600; 0: the finest there is. */
void top_replay_step(struct top_replay *r, unsigned step_s);
/* Where it is, the replay's until it moves. */
const struct top_sample *top_replay_at(const struct top_replay *r);

/* ---- columns and units (top_columns.c) ---- */

enum top_kind { TOP_TEXT, TOP_BYTES, TOP_BYTES_S, TOP_PER_S, TOP_PERCENT, TOP_RATIO };

/* As many as top_columns (cli.h), in the same order. */
extern const struct top_column {
	enum top_kind kind;
	unsigned rank;
	double (*value)(const double *n);	/* NULL: TEXT */
} top_column_more[];
#define TOP_COLUMNS_MAX COLUMNS_MAX
extern const size_t top_columns_count;
#define TOP_COLUMN_NAME 0u

/* The one of this name, in any case; -1: there is none. */
int top_column_find(const char *name);
double top_column_value(unsigned column, const struct top_vm *vm);
/* Of a TEXT column. */
const char *top_column_text(unsigned column, const struct top_vm *vm);
unsigned top_column_width(unsigned column);

struct top_units {
	const char *name;	/* "MiB" */
	double bytes;		/* 0: whatever fits each number */
};
extern const struct top_units top_units[];
extern const size_t top_units_count;
int top_units_find(const char *name);

/* A number as the screen has it; `fine`: with a decimal.  NAN: "-". */
void top_format(enum top_kind kind, double value, const struct top_units *u, bool fine, char text[static 32]);
/* The cell of a column. */
void top_cell(unsigned column, const struct top_vm *vm, const struct top_units *u, bool fine, char text[static 72]);

/* Pointers to the VMs of the sample, by the column's value, most first (texts: a to z); `inverted`: the other way. */
void top_sort(const struct top_vm **vms, size_t n, unsigned column, bool inverted);

/* ---- the host (top_host.c) ---- */

/* esxtop's header lines, cell by cell; those of one line stand together.  Ended by a NULL group. */
extern const struct top_host_cell {
	const char *group, *name;	/* "PMEM", "total" */
	enum top_kind kind;
	double (*value)(const struct top_sample *s);
	const char *help;
} top_host_cells[];
/* What a state of the host means: "equal pages are looked for", ... */
const char *top_state_words(const char *state);

/* ---- the two ways to show it ---- */

/* What is asked for, checked. */
struct top_wish {
	const char *vm;
	double delay_s;
	double count;		/* samples; HUGE_VAL: without end */
	bool at;
	uint64_t at_ms;
	unsigned sort;
	const struct top_units *units;
	bool columns_given;
	unsigned columns[TOP_COLUMNS_MAX];
	unsigned n_columns;
};

/* A line a sample: CSV, or JSON. */
int top_batch(struct cli *c, const struct top_wish *w);
/* In a terminal. */
int top_screen(struct cli *c, const struct top_wish *w);
