/* orders.c alone: what is sent, and that a VM is told of each remap exactly once.  The loop, the stream and the VM are played by
 * this file. */
#include "orders.h"

#include "mem/lease.h"
#include "proto/ops.h"
#include "tests/lib/check.h"

#include <errno.h>
#include <string.h>

/* ---- the others ---- */

static struct post *posted[64];
static unsigned n_posted;

static struct op_attend_out sent[64];
static unsigned n_sent;

static struct {
	uint32_t lease;
	uint64_t order;
	int r;
	uint8_t first_bits;
	unsigned pages;
} told[64];
static unsigned n_told;

static struct call attend;
static struct lease *const lease = (struct lease *)&attend;	/* only passed round */

void loop_post(struct loop *l, struct post *p, void (*run)(struct post *p))
{
	p->run = run;
	posted[n_posted++] = p;
}

static void turn_the_loop(void)
{
	for (unsigned i = 0; i < n_posted; i++)
		posted[i]->run(posted[i]);
	n_posted = 0;
}

void call_continue(struct call *c, const struct op *op, const void *out)
{
	CHECK(c == &attend && op == &ops[OP_attend]);
	sent[n_sent++] = *(const struct op_attend_out *)out;
}

static bool stream_is_read = true;

bool session_is_taken(const struct session *s)
{
	return stream_is_read;
}

void call_fail(struct call *c, const struct wire_error *e)
{
	CHECK(c == &attend && e->message[0]);
}

uint32_t lease_id(const struct lease *l)
{
	return 7;
}

struct vm *lease_vm(const struct lease *l)
{
	return NULL;
}

void vm_remap_answered(struct vm *vm, uint32_t id, uint64_t order, int r, const uint8_t *bits, unsigned pages)
{
	told[n_told].lease = id;
	told[n_told].order = order;
	told[n_told].r = r;
	told[n_told].first_bits = bits[0];
	told[n_told++].pages = pages;
}

/* ---- scenarios ---- */

static struct orders *o;
static struct vm_orders f;
static const struct pool_run runs[] = { { 10, 4, 100 }, { 20, 2, 200 }, { 30, 2, 300 } };

static void begin(void)
{
	CHECK_EQ(orders_new(&o, NULL), 0);
	orders_functions(o, &f);
	orders_attach(o, &attend);
}

static void end(void)
{
	orders_detach(o);
	turn_the_loop();
	orders_unref(o);
}

static uint64_t remap(enum remap what)
{
	uint64_t id = 0;

	CHECK_EQ(f.remap(f.userdata, lease, what, runs, 3, &id), 0);
	CHECK(id);
	return id;
}

static void what_is_sent(void)
{
	uint64_t share, home;

	begin();
	share = remap(REMAP_SHARE);
	home = remap(REMAP_HOME);
	CHECK_EQ(n_sent, 0);
	turn_the_loop();
	CHECK_EQ(n_sent, 2);
	CHECK(!strcmp(sent[0].kind, "share") && sent[0].order == share && sent[0].lease == 7 && sent[0].runs.n == 3);
	CHECK(sent[0].runs.run[1].page == 20 && sent[0].runs.run[1].count == 2 && sent[0].runs.run[1].to == 200);
	CHECK(!strcmp(sent[1].kind, "home") && sent[1].order == home);
	CHECK_EQ(sent[1].runs.run[1].to, 0);
	CHECK_EQ(n_told, 0);
	CHECK_EQ(orders_done(o, share, "a5", 8), 0);
	CHECK_EQ(n_told, 1);
	CHECK(told[0].lease == 7 && told[0].order == share && told[0].r == 0 && told[0].first_bits == 0xa5 && told[0].pages == 8);
	CHECK_EQ(orders_done(o, home, "", 6), 0);
	CHECK(n_told == 2 && told[1].order == home && told[1].r == 0 && told[1].pages == 6);
	/* once only */
	CHECK_EQ(orders_done(o, home, "", 6), -ENOENT);
	end();
	CHECK_EQ(n_told, 2);
}

static void wrong_answers_are_told_as_none(void)
{
	static const struct {
		enum remap what;
		const char *bits;
		uint64_t pages;
		int r;
	} rows[] = {
		{ REMAP_SHARE, "ff", 8, 0 }, { REMAP_SHARE, "ff", 4, 0 }, { REMAP_SHARE, "ff", 6, 0 },
		{ REMAP_SHARE, "", 0, 0 },				/* the first mapping failed */
		{ REMAP_SHARE, "", 8, -EPROTO }, { REMAP_SHARE, "f", 8, -EPROTO }, { REMAP_SHARE, "ffff", 8, -EPROTO },
		{ REMAP_SHARE, "xx", 8, -EPROTO }, { REMAP_SHARE, "ff", 5, -EPROTO }, { REMAP_SHARE, "ff", 9, -EPROTO },
		{ REMAP_SHARE, "ff", UINT64_MAX, -EPROTO },
		{ REMAP_HOME, "", 8, 0 }, { REMAP_HOME, "", 0, 0 }, { REMAP_HOME, "", 1, -EPROTO },
		{ REMAP_HOME, "", 1ull << 32, -EPROTO },
	};

	begin();
	for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
		uint64_t id = remap(rows[i].what);

		turn_the_loop();
		CHECK_MSG(orders_done(o, id, rows[i].bits, rows[i].pages) == (rows[i].r ? -EINVAL : 0), "row %u", i);
		CHECK_EQ(n_told, i + 1);
		CHECK_MSG(told[i].order == id && told[i].r == rows[i].r, "row %u: %d", i, told[i].r);
		CHECK_MSG(told[i].r || told[i].pages == rows[i].pages, "row %u", i);
	}
	end();
}

static void what_was_skipped_will_not_come(void)
{
	uint64_t first, second;

	begin();
	first = remap(REMAP_SHARE);
	second = remap(REMAP_HOME);
	turn_the_loop();
	CHECK_EQ(orders_done(o, second, "", 8), 0);
	CHECK_EQ(n_told, 2);
	CHECK(told[0].order == first && told[0].r == -ETIMEDOUT && told[1].order == second && told[1].r == 0);
	CHECK_EQ(orders_done(o, first, "ff", 8), -ENOENT);
	CHECK_EQ(n_told, 2);
	end();
}

static void the_end_of_the_stream_is_told(void)
{
	uint64_t on_its_way, id = 0;

	begin();
	remap(REMAP_SHARE);
	turn_the_loop();
	on_its_way = remap(REMAP_HOME);
	orders_detach(o);
	CHECK_EQ(n_told, 2);
	CHECK(told[0].r == -ENOTCONN && told[1].r == -ENOTCONN && told[1].order == on_its_way);
	turn_the_loop(); /* the second one's post: nothing is sent, nobody is told again */
	CHECK(n_told == 2 && n_sent == 1);
	CHECK_EQ(f.remap(f.userdata, lease, REMAP_SHARE, runs, 3, &id), -ENOTCONN);
	CHECK_EQ(n_told, 2);
	orders_unref(o);
}

static void what_is_asked_is_waited_for(void)
{
	struct run one = { 10, 8 };
	uint8_t bits[64];

	begin();
	/* nobody turns the loop: the worker waits, and not for long */
	CHECK_EQ(f.private_copies(f.userdata, lease, &one, 1, bits), -ETIMEDOUT);
	turn_the_loop();
	CHECK(n_sent == 1 && !strcmp(sent[0].kind, "private"));
	/* mute, until it answers */
	CHECK_EQ(f.present(f.userdata, lease, &one, 1, bits), -ETIMEDOUT);
	CHECK_EQ(orders_done(o, sent[0].order, "0f", 0), 0);
	CHECK_EQ(f.zap(f.userdata, lease, &one, 1), 0);
	end();
	CHECK_EQ(n_told, 0);
}

static void targets_do_not_pile_up(void)
{
	int session;

	begin();
	attend.session = NULL;
	CHECK_EQ(orders_balloon(o, 5), -ENOTCONN);
	attend.session = (struct session *)&session;
	stream_is_read = false;
	CHECK_EQ(orders_balloon(o, 5), -EAGAIN);
	CHECK_EQ(n_sent, 0);
	stream_is_read = true;
	CHECK_EQ(orders_balloon(o, 6), 0);
	CHECK(n_sent == 1 && !strcmp(sent[0].kind, "balloon") && sent[0].lease == 0);
	CHECK(sent[0].runs.n == 1 && sent[0].runs.run[0].page == 6 && sent[0].runs.run[0].count == 1);
	/* nobody waits for it: an answer is to nothing, and its absence makes nobody mute */
	CHECK_EQ(orders_done(o, sent[0].order, "", 0), -ENOENT);
	orders_detach(o);
	CHECK_EQ(orders_balloon(o, 7), -ENOTCONN);
	attend.session = NULL;
	end();
}

static struct {
	uint64_t order;
	int r;
	uint8_t bits[64];
} seen[8];
static unsigned n_seen;

static void see(void *userdata, uint64_t order, int r, const uint8_t *bits)
{
	CHECK(userdata == &n_seen);
	seen[n_seen].order = order;
	seen[n_seen].r = r;
	memcpy(seen[n_seen++].bits, bits, sizeof seen->bits);
}

static uint64_t look_later(void)
{
	static const struct run some[] = { { 10, 4 }, { 20, 5 } };
	uint64_t id = 0;

	CHECK_EQ(orders_present(o, lease, some, 2, see, &n_seen, &id), 0);
	CHECK(id);
	return id;
}

static void what_is_asked_without_waiting_is_told(void)
{
	uint64_t first, second, third;

	n_seen = 0;
	begin();
	first = look_later();
	turn_the_loop();
	CHECK(n_sent == 1 && !strcmp(sent[0].kind, "present") && sent[0].order == first && sent[0].runs.n == 2);
	CHECK_EQ(n_seen, 0);
	CHECK_EQ(orders_done(o, first, "a501", 0), 0);
	CHECK(n_seen == 1 && seen[0].order == first && seen[0].r == 0 && seen[0].bits[0] == 0xa5 && seen[0].bits[1] == 1);
	CHECK_EQ(orders_done(o, first, "a501", 0), -ENOENT);
	/* an answer that is none, one that was passed over, one that will not come any more: told once each */
	first = look_later();
	turn_the_loop();
	CHECK_EQ(orders_done(o, first, "a5", 0), -EINVAL);
	CHECK(n_seen == 2 && seen[1].order == first && seen[1].r == -EPROTO);
	first = look_later();
	second = look_later();
	third = look_later();
	turn_the_loop();
	CHECK_EQ(orders_done(o, second, "0000", 0), 0);
	CHECK(n_seen == 4 && seen[2].order == first && seen[2].r == -ETIMEDOUT && seen[3].order == second && seen[3].r == 0);
	end();
	CHECK(n_seen == 5 && seen[4].order == third && seen[4].r == -ENOTCONN);
	CHECK_EQ(n_told, 0);
}

static void what_is_not_sent_is_not_told(void)
{
	static const struct run some = { 10, 4 };
	uint64_t id;

	n_seen = 0;
	begin();
	look_later();
	orders_detach(o);
	CHECK(n_seen == 1 && seen[0].r == -ENOTCONN);
	turn_the_loop();
	CHECK_EQ(orders_present(o, lease, &some, 1, see, &n_seen, &id), -ENOTCONN);
	CHECK(n_seen == 1 && n_sent == 0);
	orders_unref(o);
}

int main(int argc, char **argv)
{
	return check_main(argc, argv, (const struct scenario[]){
		SCENARIO(what_is_sent),
		SCENARIO(wrong_answers_are_told_as_none),
		SCENARIO(what_was_skipped_will_not_come),
		SCENARIO(the_end_of_the_stream_is_told),
		SCENARIO(what_is_asked_is_waited_for),
		SCENARIO(targets_do_not_pile_up),
		SCENARIO(what_is_asked_without_waiting_is_told),
		SCENARIO(what_is_not_sent_is_not_told),
		{ 0 } });
}
