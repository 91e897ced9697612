#include "plan.h"

#include "guest.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Pages of one array; also the most that one job of another kind takes at a time, so that progress is seen.
 */
#define ARRAY_PAGES 128u
#define CHUNK_PAGES 4096u
/* In so many rounds all of the warm and the random pages have had their turn. */
#define ROUNDS_A_PASS 4u

#define EVERY_WORD  8u
#define LIGHT_TOUCH 512u /* bytes: eight words a page change, so that it compresses as before */

const char *const plan_op_names[PLAN_OPS] = { "report", "seal", "check", "rewrite", "sort", "walk", "boot", "use",
	"look", "drop", "balloon" };

static int add_job_alone(struct plan *p, struct plan_job j)
{
	struct plan_job *jobs;

	if (j.pages == 0)
		return 0;
	jobs = realloc(p->jobs, (p->n_jobs + 1) * sizeof(*jobs));
	if (!jobs)
		return -ENOMEM;
	p->jobs = jobs;
	j.seed = p->seed * GUEST_KEY_MULTIPLY + p->n_jobs * GUEST_HASH_MULTIPLY;
	jobs[p->n_jobs++] = j;
	return 0;
}

/* A job, after which the guest's driver has its turn: many times a second. */
static int add_job(struct plan *p, struct plan_job j)
{
	int r = add_job_alone(p, j);

	if (r == 0 && j.pages && p->heap_pages)
		r = add_job_alone(p, (struct plan_job){ .op = PLAN_BALLOON, .pages = 1 });
	return r;
}

/* A job over many pages, as several. */
static int add_range(struct plan *p, enum plan_op op, uint32_t first, uint32_t pages, uint32_t stride_bytes)
{
	uint32_t step = op == PLAN_SORT ? ARRAY_PAGES : CHUNK_PAGES;
	int r = 0;

	for (uint32_t done = 0; done < pages && r == 0; done += step) {
		struct plan_job j = { .op = op, .first = first + done, .stride_bytes = stride_bytes };

		j.pages = pages - done < step ? pages - done : step;
		r = add_job(p, j);
	}
	return r;
}

static int add_walk(struct plan *p, uint32_t first, uint32_t pages, uint32_t stride_bytes, uint32_t steps)
{
	struct plan_job j = { .op = PLAN_WALK, .first = first, .pages = pages };

	j.stride_bytes = stride_bytes;
	j.steps = steps;
	return add_job(p, j);
}

/* Objects that stay, a quarter of what there is room for, and others that come and go; free pages are as they were left. */
static int add_heap(struct plan *p)
{
	uint32_t objects = p->heap_pages - GUEST_HEAP_TABLE_PAGES, stay = objects / 4, most = objects / 8 * 7;
	int r;

	r = add_job(p, (struct plan_job){ .op = PLAN_BOOT, .pages = 1 });
	if (r == 0)
		r = add_range(p, PLAN_USE, 0, most, 0);
	if (r == 0)
		r = add_range(p, PLAN_LOOK, 0, most, 0);
	if (r == 0)
		r = add_range(p, PLAN_DROP, stay, most - stay, 0);
	return r;
}

static int add_heap_round(struct plan *p)
{
	uint32_t objects = p->heap_pages - GUEST_HEAP_TABLE_PAGES, stay = objects / 4, more = objects / 2;
	int r;

	r = add_range(p, PLAN_USE, stay, more, 0);
	if (r == 0)
		r = add_range(p, PLAN_LOOK, 0, stay + more, 0);
	if (r == 0)
		r = add_range(p, PLAN_DROP, stay, more, 0);
	return r;
}

static int add_round(struct plan *p, uint32_t round)
{
	uint32_t warm = p->warm_pages / ROUNDS_A_PASS, random = p->random_pages / ROUNDS_A_PASS;
	uint32_t part = round % ROUNDS_A_PASS, cold = p->cold_pages / 8 / p->rounds;
	uint32_t array = p->arrays_pages / ARRAY_PAGES, arrays = (array + p->rounds - 1) / p->rounds;
	enum plan_op op = round / ROUNDS_A_PASS % 2 ? PLAN_CHECK : PLAN_REWRITE;
	int r;

	r = add_walk(p, p->hot_first, p->hot_pages, LIGHT_TOUCH, p->steps);
	for (uint32_t i = round * arrays; i < (round + 1) * arrays && i < array && r == 0; i++)
		r = add_range(p, PLAN_SORT, p->arrays_first + i * ARRAY_PAGES, ARRAY_PAGES, 0);
	if (r == 0)
		r = add_range(p, PLAN_REWRITE, p->warm_first + part * warm, warm, LIGHT_TOUCH);
	if (r == 0)
		r = add_range(p, PLAN_CHECK, p->cold_first + round * cold, cold, 0);
	if (r == 0)
		r = add_range(p, op, p->random_first + part * random, random, EVERY_WORD);
	if (r == 0)
		r = add_walk(p, p->random_first, p->random_pages, EVERY_WORD, p->steps / 8);
	if (r == 0 && p->heap_pages)
		r = add_heap_round(p);
	return r;
}

static int add_jobs(struct plan *p)
{
	uint32_t data_pages = (p->heap_pages ? p->heap_first : p->pages) - GUEST_DATA_PAGE;
	int r = 0;

	if (p->heap_pages)
		r = add_heap(p);
	if (r == 0)
		r = add_range(p, PLAN_SEAL, GUEST_DATA_PAGE, data_pages, 0);
	if (r == 0)
		r = add_range(p, PLAN_REWRITE, p->random_first, p->random_pages, EVERY_WORD);
	if (r == 0)
		r = add_range(p, PLAN_REWRITE, p->arrays_first, p->arrays_pages, EVERY_WORD);
	for (uint32_t round = 0; round < p->rounds && r == 0; round++)
		r = add_round(p, round);
	if (r == 0)
		r = add_range(p, PLAN_CHECK, GUEST_DATA_PAGE, data_pages, 0);
	if (r == 0)
		r = add_range(p, PLAN_REPORT, 0, GUEST_DATA_PAGE, 0);
	return r;
}

static int add_file(struct plan *p, const struct plan_file *f)
{
	struct plan_file *files = realloc(p->files, (p->n_files + 1) * sizeof(*files));

	if (!files)
		return -ENOMEM;
	p->files = files;
	files[p->n_files] = *f;
	files[p->n_files].path = strdup(f->path);
	return files[p->n_files++].path ? 0 : -ENOMEM;
}

static bool in_guest(const struct plan *p, uint64_t first, uint64_t pages)
{
	return first >= GUEST_DATA_PAGE && pages <= p->pages && first <= p->pages - pages;
}

/* The heap, as the guest's tables want it: at the end, a multiple of 64 pages. */
static bool fits(const struct plan *p)
{
	uint32_t pages = p->heap_pages - GUEST_HEAP_TABLE_PAGES;

	return !p->heap_pages || (p->heap_pages > GUEST_HEAP_TABLE_PAGES && pages <= GUEST_HEAP_MAX && pages % 64 == 0 &&
					 p->heap_first + p->heap_pages == p->pages);
}

static int read_line(struct plan *p, const char *line)
{
	const struct {
		const char *name;
		uint32_t *first, *pages;
	} regions[] = {
		{ "hot", &p->hot_first, &p->hot_pages },
		{ "warm", &p->warm_first, &p->warm_pages },
		{ "cold", &p->cold_first, &p->cold_pages },
		{ "arrays", &p->arrays_first, &p->arrays_pages },
		{ "random", &p->random_first, &p->random_pages },
		{ "heap", &p->heap_first, &p->heap_pages },
	};
	char name[16], path[1024];
	struct plan_file f = { .path = path };
	uint32_t first, pages;

	if (sscanf(line, "guest %" SCNu32 " %" SCNu64 " %" SCNu32 " %" SCNu32, &p->pages, &p->seed,
		    &p->rounds, &p->steps) == 4)
		return p->pages > GUEST_DATA_PAGE && p->pages <= GUEST_MAX_PAGES && p->rounds ? 0 : -EINVAL;
	if (sscanf(line, "file %" SCNu32 " %" SCNu64 " %1023[^\n]", &f.first, &f.bytes, path) == 3) {
		if (!in_guest(p, f.first, (f.bytes + PLAN_PAGE_SIZE - 1) / PLAN_PAGE_SIZE))
			return -EINVAL;
		return add_file(p, &f);
	}
	if (sscanf(line, "region %15s %" SCNu32 " %" SCNu32, name, &first, &pages) == 3 &&
		in_guest(p, first, pages))
		for (unsigned i = 0; i < sizeof(regions) / sizeof(*regions); i++)
			if (strcmp(name, regions[i].name) == 0) {
				*regions[i].first = first;
				*regions[i].pages = pages;
				return 0;
			}
	return -EINVAL;
}

int plan_read(struct plan *ret, const char *path)
{
	struct plan p = { 0 };
	char line[1200];
	FILE *in = fopen(path, "re");
	int r = in ? 0 : -errno;

	while (r == 0 && fgets(line, sizeof(line), in)) {
		r = read_line(&p, line);
		if (r == -EINVAL)
			fprintf(stderr, "%s: not a line of a plan: %s", path, line);
	}
	if (in)
		fclose(in);
	if (r == 0 && (!p.rounds || !fits(&p)))
		r = -EINVAL;
	if (r == 0)
		r = add_jobs(&p);
	if (r < 0) {
		fprintf(stderr, "%s: %s\n", path, strerror(-r));
		plan_fini(&p);
		return r;
	}
	*ret = p;
	return 0;
}

void plan_fini(struct plan *p)
{
	for (unsigned i = 0; i < p->n_files; i++)
		free(p->files[i].path);
	free(p->files);
	free(p->jobs);
}
