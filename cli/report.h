/* `memctl report`: what it is made of.
 *
 * report_data.c asks memctld and puts all answers on one scale of time: the span is cut into slots, at most REPORT_SLOTS of them, as
 * long as the history's rows or longer, and every number has one value a slot, or none (NAN) where memctld was away.  So charts
 * have one axis, sums over VMs mean something, and a page stays small however long its span is.  report_chart.c draws such
 * numbers, report_page.c and (of a VM) report_vm.c say what is drawn and put it in order, report_json.c says the same to programs. */
#pragma once

#include "cli/history.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define REPORT_SLOTS  240u
#define REPORT_VMS    24u	/* that are drawn */
#define REPORT_CAUSES 16u
#define REPORT_EVENTS 500u	/* that are listed; the last ones */

/* NUMBER(id, name in the history, what a slot has: the MEAN of a level, the MOST of it, the RATE a second of a counter) */
#define REPORT_OF_HOST(NUMBER) \
	NUMBER(CAPACITY, "capacity_bytes", MEAN) \
	NUMBER(H_CHARGED, "charged_bytes", MEAN) \
	NUMBER(H_CHARGED_MOST, "charged_bytes_most", MOST) \
	NUMBER(FREE, "free_bytes", MEAN) \
	NUMBER(GOAL, "goal_free_bytes", MEAN) \
	NUMBER(MIN_FREE, "min_free_bytes", MEAN) \
	NUMBER(RESERVED, "reserved_bytes", MEAN) \
	NUMBER(STATE, "state_most", MOST) \
	NUMBER(VMS, "vms", MOST) \
	NUMBER(H_SHARED, "shared_bytes", MEAN) \
	NUMBER(COMMON, "common_bytes", MEAN) \
	NUMBER(SAVING, "saving_bytes", MEAN)
#define REPORT_OF_VM(NUMBER) \
	NUMBER(RESIDENT, "resident_bytes", MEAN) \
	NUMBER(SHARED, "shared_bytes", MEAN) \
	NUMBER(BREAKING, "breaking_bytes", MEAN) \
	NUMBER(COMPRESSED, "compressed_bytes", MEAN) \
	NUMBER(SWAPPED, "swapped_bytes", MEAN) \
	NUMBER(BALLOONED, "ballooned_bytes", MEAN) \
	NUMBER(LOST, "lost_bytes", MEAN) \
	NUMBER(LEASED, "leased_bytes", MEAN) \
	NUMBER(CHARGED, "charged_bytes", MEAN) \
	NUMBER(TARGET, "target_bytes", MEAN) \
	NUMBER(ACTIVE, "active_bytes", MEAN) \
	NUMBER(RESERVATION, "reservation_bytes", MEAN) \
	NUMBER(LIMIT, "limit_bytes", MEAN) \
	NUMBER(BALLOON_TARGET, "balloon_target_bytes", MEAN) \
	NUMBER(BALLOON_MAX, "balloon_max_bytes", MEAN) \
	NUMBER(SAVED, "saved_bytes", MEAN) \
	NUMBER(STORED, "stored_bytes", MEAN) \
	NUMBER(SWAP_OUT, "swap_out_pages", RATE) \
	NUMBER(SWAP_IN, "swap_in_pages", RATE) \
	NUMBER(STALL, "stall_wall_ns", RATE)
enum report_of_host {
#define NUMBER(id, name, how) id,
	REPORT_OF_HOST(NUMBER)
	HOST_NUMBERS,
};
enum report_of_vm {
	REPORT_OF_VM(NUMBER)
#undef NUMBER
	VM_NUMBERS,
};

/* How long faults of one cause took.  A slot has the percentiles of a row of the history, which are those of all faults of its time;
 * where it has several (spans of more than ten days), of the worst. */
struct report_latency {
	char cause[32];
	double *p50_ns, *p99_ns;
	uint64_t count, sum_ns;		/* of the whole span */
};

/* The numbers of a VM, or of the host. */
struct report_track {
	char *name;			/* "": the host */
	bool here;			/* registered now */
	double *of[VM_NUMBERS];		/* by slot; the host's: HOST_NUMBERS of them */
	struct report_latency latencies[REPORT_CAUSES];
	size_t n_latencies;
	struct value *explanation;	/* of now; NULL: there is none */
	struct value *plans;		/* of the span; NULL: cannot be had */
};

struct report {
	uint64_t since_ms, until_ms;	/* what was asked for */
	uint64_t origin_ms, slot_ms;	/* slot i is [origin + i * slot, + slot) */
	uint64_t step_s;		/* of the history's rows */
	uint64_t known_ms;		/* where the host's rows end, which were asked for first: later ones of VMs are left out, */
					/* or the last slot would have some VMs only; 0: not known */
	size_t slots;
	struct report_track host, *vms;
	size_t n_vms, vms_left;		/* in the report; there were more */
	struct value *events, *config, *status;
};
_Static_assert((int)HOST_NUMBERS <= (int)VM_NUMBERS, "a track has room for either");

/* An exit code; what went wrong has been said.  report_fini in any case. */
int report_gather(struct cli *c, struct report *r);
void report_fini(struct report *r);

/* 0, or -errno. */
int report_page(FILE *f, const void *report);
int report_json(FILE *f, const void *report);

/* The first and the last value, the least and the most; false: there is none. */
struct report_range {
	double first, last, least, most;
};
bool report_range(const double *values, size_t n, struct report_range *ret);

/* ---- charts ---- */

enum report_unit { UNIT_BYTES, UNIT_BYTES_RATE, UNIT_NS, UNIT_PERCENT };

struct report_line {
	const char *label;
	const double *values;		/* by slot; NULL: the line is left out */
	const char *class;		/* of svg.h: its colour, and in a stack its pattern */
	const char *dash;		/* stroke-dasharray; NULL: none */
	bool thin;			/* drawn thin, and not labelled */
};
#define REPORT_LINES 16u

struct report_chart {
	const char *title, *note;
	enum report_unit unit;
	bool stacked, logarithmic;
	unsigned height;
	struct report_line lines[REPORT_LINES];
	size_t n_lines;
};

struct report_lane {
	const char *label, *class;
	char note[32];			/* beside the label */
	const double *parts;		/* of each slot the part in which it is on, 0 to 1; NULL: of none */
};

/* Draws them in the order in which they are called, with ids of their own. */
struct report_drawing {
	FILE *f;
	const struct report *r;
	unsigned charts;
};
void report_draw(struct report_drawing *d, const struct report_chart *c);
void report_draw_lanes(struct report_drawing *d, const char *title, const char *note, const struct report_lane *lanes, size_t n);
/* Marks, a lane for each level of which there was an event, the worst first. */
#define REPORT_LEVELS 4u
extern const char *const report_levels[REPORT_LEVELS];
/* Of an event within the span, about this VM (NULL: whatever it is about); REPORT_LEVELS: it is none. */
unsigned report_event_level(const struct report *r, const struct value *e, const char *vm);
void report_draw_marks(struct report_drawing *d, const char *title, const char *note, const struct value *events, const char *vm);
/* A value with its unit, as labels have it. */
void report_value(enum report_unit unit, double value, char text[static 32]);
/* A time of the span, as precise as it is long. */
void report_time(const struct report *r, uint64_t ms, bool date, char text[static 40]);
