/* Events: what is told, what is counted instead, what is kept; and the host's states that are worth telling. */
#include "base/event_log.h"

#include "base/clock.h"
#include "policy/state.h"
#include "record/record.h"
#include "tests/lib/check.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define START_MS 1700000000000ull

static struct event_log l;
static uint64_t ns;

static void begin(void)
{
	memset(&l, 0, sizeof l);
	ns = 5 * NS_PER_S;
	event_log_begin(&l, START_MS);
}

static bool add_text(enum event_id id, const char *vm, const char *text, struct event *ret)
{
	struct event_of of = { .session = 7 };
	struct event e;

	snprintf(of.vm, sizeof of.vm, "%s", vm);
	return event_log_add(&l, ns, START_MS + ns / NS_PER_MS, id, &of, text, ret ? ret : &e);
}

static bool add(enum event_id id, const char *vm)
{
	return add_text(id, vm, "it happened", NULL);
}

static unsigned due(struct event *last)
{
	struct event e;
	unsigned n = 0;

	for (; event_log_due(&l, ns, &e); n++)
		if (last)
			*last = e;
	return n;
}

static unsigned count(const struct event_filter *f)
{
	const struct event *e;
	unsigned n = 0;

	for (uint64_t seq = 0; (e = event_log_next(&l, seq, f)); seq = e->seq)
		n++;
	return n;
}

static void an_event_is_kept_as_it_was_told(void)
{
	const struct event_filter all = { 0 };
	const struct event *kept;
	struct event e;

	begin();
	CHECK(add_text(EVENT_VM_LOST, "web", "VM web: lost", &e));
	CHECK_EQ(e.count, 1);
	CHECK_EQ(e.level, LOG_LEVEL_ERROR);
	CHECK(!strcmp(e.name, "vm-lost") && !strcmp(e.of.vm, "web") && !strcmp(e.text, "VM web: lost"));
	kept = event_log_next(&l, 0, &all);
	CHECK(kept && !memcmp(kept, &e, sizeof e));
	CHECK(!event_log_next(&l, e.seq, &all));
	CHECK(e.seq > START_MS * 1000);
}

static unsigned told_of_a_flood(unsigned n, const char *const *names, unsigned n_names)
{
	unsigned told = 0;

	for (unsigned i = 0; i < n; i++)
		told += add(EVENT_WRONG_ANSWER, names[i % n_names]);
	return told;
}

/* A client that makes the same event without end has the burst, and one in ten seconds. */
static void a_flood_is_counted(void)
{
	static const char *const web[] = { "web" };
	struct event e;

	begin();
	CHECK_EQ(told_of_a_flood(100000, web, 1), EVENT_BURST);
	CHECK_EQ(due(NULL), 0);
	/* others are told as ever: another VM, another event of this one */
	CHECK(add(EVENT_WRONG_ANSWER, "mail"));
	CHECK(add(EVENT_VM_ENDED, "web"));
	ns += EVENT_PAUSE_NS;
	CHECK_EQ(due(&e), 1);
	CHECK_EQ(e.count, 100000 - EVENT_BURST);
	CHECK(!strcmp(e.of.vm, "web") && !strcmp(e.text, "it happened"));
	CHECK_EQ(due(NULL), 0);
	CHECK_EQ(l.told[LOG_LEVEL_NOTICE], 100000 + 1);
}

/* The twin: without the rule all are told. */
static void a_flood_without_the_rule(void)
{
	static const char *const web[] = { "web" };

	begin();
	l.tell_all = true;
	CHECK_EQ(told_of_a_flood(100000, web, 1), 100000);
}

/* The next one that may be told speaks for those that were not. */
static void the_next_says_for_how_many_it_stands(void)
{
	struct event e;

	begin();
	for (unsigned i = 0; i < EVENT_BURST + 5; i++)
		add(EVENT_PAGE_LOST, "web");
	ns += EVENT_PAUSE_NS;
	CHECK(add_text(EVENT_PAGE_LOST, "web", "the last", &e));
	CHECK_EQ(e.count, 6);
	CHECK(e.since_ms < e.ts_ms && !strcmp(e.text, "the last"));
	CHECK_EQ(due(NULL), 0);
}

/* Names are free: a client that registers under a new one each time. */
static void a_flood_of_names_is_bounded(void)
{
	unsigned told = 0;
	struct event e;
	char name[32];

	begin();
	for (unsigned i = 0; i < 20000; i++) {
		snprintf(name, sizeof name, "vm-%u", i);
		told += add(EVENT_VM_REGISTERED, name);
	}
	CHECK_EQ(told, EVENT_ALL_BURST);
	/* what is counted for no VM in particular is told at once, then no more often than one VM's would be */
	CHECK_EQ(due(&e), 1);
	CHECK_EQ(e.count, 20000 - EVENT_ALL_BURST);
	CHECK(!*e.of.vm && strstr(e.text, "too fast"));
	/* other events are not in it */
	CHECK(add(EVENT_VM_LOST, "web"));
	for (unsigned second = 0; second < 100; second++) {
		for (unsigned i = 0; i < 1000; i++) {
			snprintf(name, sizeof name, "more-%u-%u", second, i);
			told += add(EVENT_VM_REGISTERED, name);
		}
		told += due(NULL);
		ns += NS_PER_S;
	}
	CHECK_MSG(told <= EVENT_ALL_BURST + 100 + 100 / 10 + 1, "%u told", told);
}

/* All pairs have something to tell: what comes then is counted with the others of its kind, and nothing is lost. */
static void without_a_pair_nothing_is_lost(void)
{
	uint64_t told = 0, added = 0;
	struct event e;
	char name[32];

	begin();
	for (unsigned i = 0; i < 2 * EVENT_PAIRS; i++)
		for (unsigned k = 0; k < EVENT_BURST + 2; k++) {
			snprintf(name, sizeof name, "vm-%u", i);
			told += add(EVENT_SWAP_WRITE_FAILED, name);
			added++;
		}
	for (unsigned i = 0; i < 1000; i++) {
		ns += NS_PER_S;
		while (event_log_due(&l, ns, &e))
			told += e.count;
	}
	CHECK_EQ(told, added);
	CHECK_EQ(l.told[LOG_LEVEL_WARNING], added);
}

static void the_course_of_things_does_not_push_out_errors(void)
{
	const struct event_filter all = { 0 }, serious = { .level = LOG_LEVEL_WARNING };
	char name[32];

	begin();
	add(EVENT_VM_LOST, "web");
	for (unsigned i = 0; i < 5 * EVENT_KEPT; i++) {
		snprintf(name, sizeof name, "vm-%u", i);
		ns += NS_PER_S;
		CHECK(add(EVENT_VM_REGISTERED, name));
	}
	CHECK_EQ(count(&serious), 1);
	CHECK_EQ(count(&all), 1 + EVENT_KEPT);
}

static void events_are_asked_for_by_level_vm_and_time(void)
{
	const struct event_filter of_web = { .vm = "web" }, warnings = { .level = LOG_LEVEL_WARNING };
	struct event_filter late = { 0 };

	begin();
	add(EVENT_VM_REGISTERED, "web");
	add(EVENT_VM_REGISTERED, "mail");
	ns += 10 * NS_PER_S;
	add(EVENT_PAGE_LOST, "web");
	add(EVENT_SWAP_WRITE_FAILED, "mail");
	CHECK_EQ(count(&of_web), 2);
	CHECK_EQ(count(&warnings), 2);
	late.since_ms = START_MS + ns / NS_PER_MS;
	CHECK_EQ(count(&late), 2);
	late.level = LOG_LEVEL_ERROR;
	CHECK_EQ(count(&late), 1);
}

static struct event old(uint64_t seq, enum log_level level)
{
	struct event e = { .seq = seq, .ts_ms = seq / 1000, .since_ms = seq / 1000, .count = 1, .level = level };

	snprintf(e.name, sizeof e.name, "vm-ended");
	return e;
}

static void those_of_before_come_first(void)
{
	const struct event_filter all = { 0 };
	uint64_t seq = START_MS * 1000 - 10;
	unsigned n = 0;
	struct event e;

	begin();
	add(EVENT_STARTED, "");
	do
		e = old(--seq, n++ % 3 ? LOG_LEVEL_INFO : LOG_LEVEL_ERROR);
	while (event_log_older(&l, &e) && n < 10000);
	/* until neither kind has room */
	CHECK(n > 2 * EVENT_KEPT && n < 4 * EVENT_KEPT);
	CHECK_EQ(count(&all), 2 * EVENT_KEPT);
	CHECK_EQ(l.serious.n, EVENT_KEPT);
	seq = 0;
	for (const struct event *at; (at = event_log_next(&l, seq, &all)); seq = at->seq)
		CHECK(at->seq > seq);
	CHECK_EQ(seq, l.seq);
}

/* The clock was put back while there was no memctld: numbers go on all the same. */
static void numbers_ascend_over_a_clock_that_was_put_back(void)
{
	const struct event_filter all = { 0 };
	struct event before = old(START_MS * 1000 + 3600000000, LOG_LEVEL_INFO), e;

	begin();
	add(EVENT_RESTARTED, "");
	CHECK(event_log_older(&l, &before));
	CHECK(add_text(EVENT_STARTED, "", "now", &e));
	CHECK(e.seq > before.seq + 1);
	CHECK_EQ(count(&all), 3);
	CHECK_EQ(event_log_next(&l, 0, &all)->seq, before.seq);
	/* what is recorded begins with ours */
	CHECK(!strcmp(event_log_next(&l, l.began, &all)->name, "restarted"));
}

/* ---- the history ---- */

static char path[64];

static struct record *open_history(void)
{
	static const struct record_number numbers[] = { { "n", "gauge", "count", "A number." } };
	struct record_options o = { .path = path, .numbers = { .vm = numbers, .n_vm = 1, .host = numbers, .n_host = 1 } };
	struct record *r = NULL;
	struct problem p = { 0 };

	CHECK_MSG(record_open(&r, &o, &p) == 0, "%s", p.text);
	return r;
}

static char seen[256];

static bool see(void *userdata, const struct record_event *e)
{
	unsigned *left = userdata;
	size_t n = strlen(seen);

	snprintf(seen + n, sizeof seen - n, "%llu %s %s %s %llu %llu %llu %llu;", (unsigned long long)e->seq, e->event, e->vm, e->text,
		(unsigned long long)e->lease, (unsigned long long)e->session, (unsigned long long)e->count, (unsigned long long)e->since_ms);
	return --*left > 0;
}

static void the_history_gives_back_the_last(void)
{
	unsigned left = 2;
	struct record *r;

	snprintf(path, sizeof path, "/tmp/memctl-events-%d.db", getpid());
	r = open_history();
	for (uint64_t i = 1; i <= 3; i++)
		record_event(r, &(struct record_event){ 1000, i, "page-lost", "web", "it's lost", 3, i, 7, 9, 999 });
	record_close(r);
	r = open_history();
	record_last_events(r, see, &left);
	record_close(r);
	for (unsigned i = 0; i < 3; i++) {
		char file[80];

		snprintf(file, sizeof file, "%s%s", path, i == 0 ? "" : i == 1 ? "-wal" : "-shm");
		unlink(file);
	}
	CHECK_MSG(!strcmp(seen, "3 page-lost web it's lost 3 7 9 999;2 page-lost web it's lost 2 7 9 999;"), "%s", seen);
}

/* ---- the host's state ---- */

static void a_worse_state_is_told_at_once(void)
{
	struct policy_told t = { 0 };

	CHECK_EQ(policy_told_state(&t, HOST_HIGH, 1), -1);
	CHECK_EQ(policy_told_state(&t, HOST_SOFT, 2), HOST_SOFT);
	CHECK_EQ(policy_told_state(&t, HOST_SOFT, 3), -1);
	CHECK_EQ(policy_told_state(&t, HOST_LOW, 4), HOST_LOW);
}

/* Up and down each second for an hour: told once. */
static void a_state_that_flaps_is_no_news(void)
{
	struct policy_told t = { 0 };
	unsigned told = 0;

	for (uint64_t s = 1; s < 3600; s++)
		told += policy_told_state(&t, s % 2 ? HOST_SOFT : HOST_HIGH, s * NS_PER_S) >= 0;
	CHECK_EQ(told, 1);
}

static void a_better_state_is_told_when_it_lasts(void)
{
	struct policy_told t = { 0 };

	policy_told_state(&t, HOST_LOW, 1);
	for (uint64_t s = 1; s < 61; s++)
		CHECK_EQ(policy_told_state(&t, s == 30 ? HOST_SOFT : HOST_HIGH, s * NS_PER_S), -1);
	/* the worst of that minute */
	CHECK_EQ(policy_told_state(&t, HOST_HIGH, 61 * NS_PER_S), HOST_SOFT);
	for (uint64_t s = 62; s < 122; s++)
		CHECK_EQ(policy_told_state(&t, HOST_HIGH, s * NS_PER_S), -1);
	CHECK_EQ(policy_told_state(&t, HOST_HIGH, 122 * NS_PER_S), HOST_HIGH);
}

/* ---- the log ---- */

static void a_line_has_the_id_and_the_fields(void)
{
	int fds[2], err = dup(2);
	char line[600];
	ssize_t n;

	unsetenv("JOURNAL_STREAM");
	CHECK(!pipe(fds));
	dup2(fds[1], 2);
	event_tell(EVENT_PAGE_LOST, EVENT_OF(.vm = "web", .lease = 3, .session = 12), "lost\nmemctld: error: %s", "forged\x7f");
	event_tell(EVENT_STARTED, NULL, "here");
	dup2(err, 2);
	n = read(fds[0], line, sizeof line - 1);
	CHECK(n > 0);
	line[n] = 0;
	CHECK_MSG(!strcmp(line, "memctld: error: lost?memctld: error: forged? [page-lost vm=web lease=3 session=12]\nmemctld: here [started]\n"),
		"%s", line);
}

static void levels_have_names(void)
{
	enum log_level level;

	CHECK(event_level("warning", &level) == 0 && level == LOG_LEVEL_WARNING);
	CHECK(event_level("debug", &level) == -EINVAL);
	for (unsigned i = 0; i < EVENT_IDS; i++)
		CHECK(event_level_names[event_kinds[i].level]);
}

int main(int argc, char **argv)
{
	return check_main(argc, argv, (const struct scenario[]){
		SCENARIO(an_event_is_kept_as_it_was_told), SCENARIO(a_flood_is_counted), SCENARIO(a_flood_without_the_rule),
		SCENARIO(the_next_says_for_how_many_it_stands), SCENARIO(a_flood_of_names_is_bounded),
		SCENARIO(without_a_pair_nothing_is_lost), SCENARIO(the_course_of_things_does_not_push_out_errors),
		SCENARIO(events_are_asked_for_by_level_vm_and_time), SCENARIO(those_of_before_come_first),
		SCENARIO(numbers_ascend_over_a_clock_that_was_put_back), SCENARIO(the_history_gives_back_the_last),
		SCENARIO(a_worse_state_is_told_at_once), SCENARIO(a_state_that_flaps_is_no_news),
		SCENARIO(a_better_state_is_told_when_it_lasts), SCENARIO(a_line_has_the_id_and_the_fields), SCENARIO(levels_have_names),
		{ 0 } });
}
