/* What one guest of the demo holds and does.  The emulator and the oracle read the same plan: a text that
 * image.py writes for each VM, with the regions of its memory and the files that fill them.  The jobs follow
 * from it without any chance, so the oracle can compute every result on its own. */
#pragma once

#include <stdint.h>

#define PLAN_PAGE_SIZE 4096u

enum plan_op {
	PLAN_REPORT,  /* hash the pages */
	PLAN_SEAL,    /* enter their hashes into the guest's table */
	PLAN_CHECK,   /* compare with the table */
	PLAN_REWRITE, /* check, mix a keystream in, seal */
	PLAN_SORT,    /* sort the pages as one array, seal */
	PLAN_WALK,    /* check `steps` pages chosen with a skew, rewrite some */
	PLAN_BOOT,    /* the heap is empty; of what follows first and pages are objects, of a page each */
	PLAN_USE,     /* allocate them, fill them */
	PLAN_LOOK,    /* hash them */
	PLAN_DROP,    /* free them */
	PLAN_BALLOON, /* look at what the balloon should hold; report the heap's numbers */
	PLAN_OPS
};
extern const char *const plan_op_names[PLAN_OPS];

struct plan_job {
	enum plan_op op;
	uint32_t first, pages;
	uint32_t stride_bytes, steps;
	uint64_t seed;
};

struct plan_file {
	uint32_t first;
	uint64_t bytes;
	char *path;
};

struct plan {
	uint32_t pages;
	uint64_t seed;
	uint32_t rounds, steps;
	uint32_t hot_first, hot_pages;       /* files, touched all the time */
	uint32_t warm_first, warm_pages;     /* files, a part of them a round */
	uint32_t cold_first, cold_pages;     /* files, seen again only at the end */
	uint32_t arrays_first, arrays_pages; /* numbers to sort */
	uint32_t random_first, random_pages; /* incompressible */
	uint32_t heap_first, heap_pages;     /* at the end, its tables included; 0 pages: none */
	struct plan_file *files;
	unsigned n_files;
	struct plan_job *jobs;
	unsigned n_jobs;
};

/* Read the plan and derive its jobs.  0, or -errno after a line on stderr. */
int plan_read(struct plan *ret, const char *path);
void plan_fini(struct plan *p);

/* What the emulator tells the oracle, in the order it happens; the bytes of a pipe. */
struct plan_result {
	uint32_t job;
	uint32_t page;  /* PLAN_JOB_DONE: `value` is how often memory differed from the guest's table */
	uint64_t value; /* the page's hash */
};
#define PLAN_JOB_DONE UINT32_MAX
/* Of PLAN_BALLOON, in this order: what the guest counts as used, as ballooned; what the emulator counts as ballooned. */
enum { PLAN_HEAP_USED, PLAN_HEAP_BALLOONED, PLAN_HOST_BALLOONED };
