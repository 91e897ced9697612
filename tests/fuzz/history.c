/* A metrics database that somebody else has written: opened, asked, and written to, or set aside.  Beside the sanitizers': the daemon starts,
 * and afterwards there is a database that takes rows, unless it says why not. */
#include "base/clock.h"
#include "record/history.h"
#include "record/record.h"
#include "tests/fuzz/fuzz.h"
#include "tests/lib/check.h"

#include <dirent.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct record_number vm_numbers[] = {
	{ "resident_bytes", "gauge", "bytes", "Guest pages in frames." },
	{ "faults", "counter", "count", "Faults served." },
};
static const struct record_number host_numbers[] = { { "free_bytes", "gauge", "bytes", "Free arena." } };
static const struct record_numbers numbers = { .vm = vm_numbers, .n_vm = 2, .host = host_numbers, .n_host = 1 };

static char dir[] = "/dev/shm/memctl-fuzz-XXXXXX", path[64];
static sem_t answered;

/* All that is in it, what was set aside too. */
static void clear(void)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	char file[320];

	while (d && (e = readdir(d))) {
		snprintf(file, sizeof file, "%s/%s", dir, e->d_name);
		unlink(file);
	}
	if (d)
		closedir(d);
}

static void remove_all(void)
{
	clear();
	rmdir(dir);
}

static bool one_row(struct history_question *q, const struct history_row *row)
{
	(void)q;
	CHECK(row->n_latencies <= HISTORY_CAUSES);
	return true;
}

static void was_answered(struct history_question *q)
{
	(void)q;
	sem_post(&answered);
}

static bool one_event(void *userdata, const struct record_event *e)
{
	CHECK(e->event && e->text);
	return ++*(unsigned *)userdata < 100;
}

static void ask(const char *vm)
{
	static const struct history_column columns[] = { { 0, false } };
	struct history_question q = { .until_ms = UINT64_MAX / 2, .rows_max = 100, .columns = columns, .n_columns = 1, .latencies = *vm != 0,
		.row = one_row, .done = was_answered };
	struct history *h;

	strcpy(q.vm, vm);
	CHECK(history_new(&h, path, &numbers) == 0);
	CHECK(history_ask(h, &q) == 0);
	sem_wait(&answered);
	CHECK(q.error == 0 || *q.text);
	history_free(h);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct record_options options = { .path = path, .numbers = numbers };
	struct problem p = { 0 };
	unsigned events = 0;
	struct record *r;
	FILE *f;

	if (!*path) {
		CHECK(mkdtemp(dir) && sem_init(&answered, 0, 0) == 0);
		snprintf(path, sizeof path, "%s/metrics.db", dir);
		atexit(remove_all);
	}
	clear();
	f = fopen(path, "w");
	CHECK(f && fwrite(data, 1, size, f) == size && fclose(f) == 0);
	ask("");
	ask("one");
	if (record_open(&r, &options, &p) < 0) {
		CHECK(*p.text);
		return 0;
	}
	record_last_events(r, one_event, &events);
	record_vm(r, 1000, "one", (uint64_t[]){ 1, 2 });
	record_host(r, 1000, (uint64_t[]){ 3 });
	record_close(r);
	ask("one");
	return 0;
}
