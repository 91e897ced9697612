#include "record/retain.h"

#include "base/clock.h"

#define PIECE_STEPS  3600u	/* by age: an hour of seconds, ten hours of 10 s */
#define PIECES	     256u	/* by bytes: of what a level holds */
#define PIECE_LEAST  10u	/* steps */
#define VACUUM_PAGES 1024u
#define LOG_MOST     (64ull << 20)
#define LOG_LEAST    (1ull << 20)
#define NUMBER_MOST  100000u
#define NUMBER_PART  16u	/* of max_bytes */
#define EVENT_BYTES  512u	/* of a row, with the longest text */
#define SEEN_BYTES   160u
#define EVENT_PIECE  1024u
#define SEEN_PIECE   256u	/* they lie anywhere: each may be a page in the log */
#define HOUR_MS	     (3600 * 1000ull)
#define AHEAD_MS     (24 * HOUR_MS)
#define AHEAD_NS     (3600 * NS_PER_S)

struct span {
	uint64_t first, last;
};

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

uint64_t retain_log_bytes(uint64_t max_bytes)
{
	uint64_t part = max_bytes / 8;

	return !max_bytes || part > LOG_MOST ? LOG_MOST : part < LOG_LEAST ? LOG_LEAST : part;
}

static const char *const tables[] = { "vm", "host", "fault_latency" };
static const char *const plans[] = { "plan", "plan_vm" };
static const char *const told[] = { "event" };	/* not by bytes, but by number */
#define TABLES (sizeof tables / sizeof *tables)
#define PLANS  (sizeof plans / sizeof *plans)

/* What a table holds.  1: nothing. */
static int look(struct database *d, const char *table, const char *suffix, struct span *ret)
{
	int64_t first, last;
	int r = database_number(d, &first, "SELECT min(ts) FROM \"%w%w\"", table, suffix);

	if (r)
		return r;
	r = database_number(d, &last, "SELECT max(ts) FROM \"%w%w\"", table, suffix);
	*ret = (struct span){ (uint64_t)first, (uint64_t)last };
	return r;
}

static int look_at_all(struct database *d, const char *const *names, unsigned n, const char *suffix, struct span *ret)
{
	struct span one;
	int r, found = 1;

	for (unsigned i = 0; i < n; i++) {
		r = look(d, names[i], suffix, &one);
		if (r < 0)
			return r;
		if (r)
			continue;
		*ret = found ? one : (struct span){ one.first < ret->first ? one.first : ret->first,
			one.last > ret->last ? one.last : ret->last };
		found = 0;
	}
	return found;
}

/* Up to which time rows of this level may go: what something due is made of stays. */
static int may_go(struct database *d, unsigned level, uint64_t *ret)
{
	int64_t first;
	int r;

	*ret = UINT64_MAX;
	if (level + 1 == LEVELS)
		return 0;
	r = database_number(d, &first, "SELECT min(ts) FROM rollup WHERE step_ms = %llu",
		(unsigned long long)levels[level + 1].step_ms);
	if (!r)
		*ret = (uint64_t)first;
	return r < 0 ? r : 0;
}

static int delete_before(struct database *d, const char *const *names, unsigned n, const char *suffix, uint64_t ts)
{
	int r = 0;

	for (unsigned i = 0; i < n && !r; i++)
		r = database_run(d, "DELETE FROM \"%w%w\" WHERE ts < %llu", names[i], suffix, (unsigned long long)ts);
	return r;
}

static int age(struct database *d, const char *const *names, unsigned n, unsigned level, uint64_t keep_s, uint64_t now_ms,
	uint64_t bound)
{
	struct span span;
	int r;

	if (!keep_s || now_ms <= keep_s * 1000)
		return 0;
	r = look_at_all(d, names, n, levels[level].suffix, &span);
	if (r)
		return r < 0 ? r : 0;
	bound = least(least(bound, now_ms - keep_s * 1000), span.first + PIECE_STEPS * levels[level].step_ms);
	return span.first < bound ? delete_before(d, names, n, levels[level].suffix, bound) : 0;
}

/* How long rows of any level are kept; 0: for ever. */
static uint64_t longest(const struct record_keep *keep)
{
	uint64_t seconds = 0;

	for (unsigned level = 0; level < LEVELS; level++) {
		if (!keep->seconds[level])
			return 0;
		if (keep->seconds[level] > seconds)
			seconds = keep->seconds[level];
	}
	return seconds;
}

static int age_all(struct database *d, const struct record_keep *keep, uint64_t now_ms)
{
	uint64_t seen_ms = longest(keep) * 1000, bound;
	int r = age(d, plans, PLANS, 0, keep->plan_seconds, now_ms, UINT64_MAX);

	if (!r)
		r = age(d, told, 1, 0, keep->event_seconds, now_ms, UINT64_MAX);
	for (unsigned level = 0; level < LEVELS && !r; level++) {
		r = may_go(d, level, &bound);
		if (!r)
			r = age(d, tables, TABLES, level, keep->seconds[level], now_ms, bound);
	}
	if (!r && seen_ms && now_ms > seen_ms)
		r = database_run(d, "DELETE FROM vm_seen WHERE last_ts < %llu", (unsigned long long)(now_ms - seen_ms));
	return r;
}

int retain_by_age(struct database *d, const struct record_keep *keep, uint64_t now_ms)
{
	int r = database_begin(d);

	return r < 0 ? r : database_end(d, age_all(d, keep, now_ms));
}

static uint64_t number_most(const struct record_keep *keep, uint64_t row_bytes)
{
	uint64_t n = keep->max_bytes / NUMBER_PART / row_bytes;

	return !keep->max_bytes || n > NUMBER_MOST ? NUMBER_MOST : n;
}

/* How many of the table may go at once. */
static int too_many(struct database *d, const char *table, uint64_t most, uint64_t piece, uint64_t *ret)
{
	int64_t n;
	int r = database_number(d, &n, "SELECT count(*) FROM \"%w\"", table);

	*ret = r || (uint64_t)n <= most ? 0 : least((uint64_t)n - most, piece);
	return r < 0 ? r : 0;
}

static int number_all(struct database *d, uint64_t events, uint64_t names)
{
	int r = 0;

	if (events)
		r = database_run(d, "DELETE FROM event WHERE (ts, nth) IN (SELECT ts, nth FROM event ORDER BY ts, nth LIMIT %llu)",
			(unsigned long long)events);
	if (!r && names)
		r = database_run(d, "DELETE FROM vm_seen WHERE vm IN (SELECT vm FROM vm_seen ORDER BY last_ts LIMIT %llu)",
			(unsigned long long)names);
	return r ? r : 1;
}

int retain_by_number(struct database *d, const struct record_keep *keep)
{
	uint64_t events, names;
	int r = too_many(d, "event", number_most(keep, EVENT_BYTES), EVENT_PIECE, &events);

	if (!r)
		r = too_many(d, "vm_seen", number_most(keep, SEEN_BYTES), SEEN_PIECE, &names);
	if (r || (!events && !names))
		return r;
	r = database_begin(d);
	return r < 0 ? r : database_end(d, number_all(d, events, names));
}

int retain_clock_begin(struct retain_clock *c, struct database *d)
{
	struct span span;
	int64_t before;
	int r = look(d, "host", "", &span);

	*c = (struct retain_clock){ 0 };
	if (r)
		return r < 0 ? r : 0;
	c->believed_ms = span.last;
	if (span.last <= HOUR_MS)
		return 0;
	r = database_number(d, &before, "SELECT max(ts) FROM host WHERE ts < %llu", (unsigned long long)(span.last - HOUR_MS));
	if (!r && span.last - (uint64_t)before > AHEAD_MS)
		c->believed_ms = (uint64_t)before;
	return r < 0 ? r : 0;
}

bool retain_clock_is_right(struct retain_clock *c, uint64_t now_ms, uint64_t mono_ns)
{
	bool ahead = c->believed_ms && now_ms > c->believed_ms && now_ms - c->believed_ms > AHEAD_MS;

	if (ahead && !c->ahead_ns)
		c->ahead_ns = mono_ns;
	if (ahead && mono_ns - c->ahead_ns < AHEAD_NS)
		return false;
	c->believed_ms = now_ms;
	c->ahead_ns = 0;
	return true;
}

struct piece {
	const char *const *names;	/* of the tables */
	unsigned n, level;
	uint64_t before;		/* what is older goes */
	uint64_t score;
};

/* How much of its age a level has, in thousandths, times 8 for the finest, 4, 2 and 1 for the coarsest. */
static uint64_t score_of(const struct span *s, uint64_t keep_s, unsigned level)
{
	uint64_t part = keep_s ? least((s->last - s->first) / keep_s, 1000) : 1000;

	return (part + 1) << (LEVELS - 1 - level);
}

/* 1: nothing of it may go.  The last row stays, so that a level is not emptied while others could give. */
static int piece_of(struct database *d, const struct record_keep *keep, unsigned level, bool of_plans, struct piece *ret)
{
	struct piece p = { of_plans ? plans : tables, of_plans ? PLANS : TABLES, level, 0, 0 };
	uint64_t bound = UINT64_MAX, least_ms = PIECE_LEAST * levels[level].step_ms, piece_ms;
	struct span span;
	int r = look_at_all(d, p.names, p.n, levels[level].suffix, &span);

	if (!r && !of_plans)
		r = may_go(d, level, &bound);
	bound = r ? bound : least(bound, span.last);
	if (r || span.first >= bound)
		return r < 0 ? r : 1;
	piece_ms = (span.last - span.first) / PIECES;
	p.before = least(span.first + (piece_ms > least_ms ? piece_ms : least_ms), bound);
	p.score = score_of(&span, of_plans ? keep->plan_seconds : keep->seconds[level], level);
	*ret = p;
	return 0;
}

/* Plans are as fine as the first level, and go before it. */
static int find_piece(struct database *d, const struct record_keep *keep, struct piece *ret)
{
	int found = 1;

	for (unsigned i = 0; i <= LEVELS; i++) {
		struct piece p;
		int r = piece_of(d, keep, i ? i - 1 : 0, !i, &p);

		if (r < 0)
			return r;
		if (r || (!found && p.score <= ret->score))
			continue;
		*ret = p;
		found = 0;
	}
	return found;
}

static int delete_piece(struct database *d, const struct record_keep *keep)
{
	struct piece p;
	int r = find_piece(d, keep, &p);

	if (r)
		return r;
	r = database_begin(d);
	return r < 0 ? r : database_end(d, delete_before(d, p.names, p.n, levels[p.level].suffix, p.before));
}

int retain_by_bytes(struct database *d, const struct record_keep *keep)
{
	uint64_t max_bytes = keep->max_bytes, most, used, before;
	struct database_size size;
	int r;

	if (!max_bytes)
		return 0;
	r = database_size(d, &size);
	if (r < 0)
		return r;
	most = (max_bytes - retain_log_bytes(max_bytes)) / size.page_bytes;
	used = size.pages - size.free_pages;
	/* before it is there: between two looks it grows */
	if (used > most - most / 16) {
		r = delete_piece(d, keep);
		return r ? (r < 0 ? r : 0) : 1;
	}
	if (size.pages > most && size.free_pages) {
		uint64_t n = least(least(size.free_pages, size.pages - most), VACUUM_PAGES);

		r = database_run(d, "PRAGMA incremental_vacuum(%llu)", (unsigned long long)n);
		if (!r)
			r = database_checkpoint(d);
		before = size.pages;
		if (r >= 0)
			r = database_size(d, &size);
		/* a file that cannot become smaller stays as it is */
		return r < 0 ? r : size.pages < before && size.pages > most;
	}
	return 0;
}
