/* proto/: who holds a descriptor, which message it belongs to, what a parser refuses, and that tables and
 * structs agree. */
#include "proto/body.h"
#include "proto/contract.h"
#include "proto/wire.h"
#include "proto/writer.h"
#include "tests/lib/check.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static void sockets(int ret[2])
{
	CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ret) == 0);
}

static unsigned open_descriptors(void)
{
	unsigned n = 0;

	for (int fd = 0; fd < 1024; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static bool same_file(int a, int b)
{
	struct stat x, y;

	return fstat(a, &x) == 0 && fstat(b, &y) == 0 && x.st_ino == y.st_ino && x.st_dev == y.st_dev;
}

/* ---- wire ---- */

static void messages_arrive_whole(void)
{
	struct wire_message m;
	struct wire_in in;
	int s[2];

	sockets(s);
	wire_in_init(&in, WIRE_CALL_MAX);
	CHECK_EQ(wire_in_fill(&in, s[1]), -EAGAIN);
	CHECK(write(s[0], "{\"a\"", 4) == 4);
	CHECK_EQ(wire_in_fill(&in, s[1]), 4);
	CHECK_EQ(wire_in_next(&in, &m), 0);
	CHECK(write(s[0], ":1}\0{}\0x", 8) == 8);
	CHECK_EQ(wire_in_fill(&in, s[1]), 8);
	CHECK_EQ(wire_in_next(&in, &m), 1);
	CHECK(strcmp(m.text, "{\"a\":1}") == 0 && m.length == 7 && m.n_fds == 0);
	CHECK_EQ(wire_in_next(&in, &m), 1);
	CHECK(strcmp(m.text, "{}") == 0);
	CHECK_EQ(wire_in_next(&in, &m), 0);
	close(s[0]);
	CHECK_EQ(wire_in_fill(&in, s[1]), 0);
	wire_in_fini(&in);
}

static void descriptors_come_with_their_message(void)
{
	int s[2], a = open("/dev/null", O_RDONLY), b = open("/dev/zero", O_RDONLY), got;
	unsigned before;
	struct wire_message m;
	struct wire_in in;

	sockets(s);
	before = open_descriptors();
	wire_in_init(&in, WIRE_CALL_MAX);
	/* the kernel may hand the first two over in one piece, and must not mix the descriptors */
	CHECK_EQ(wire_send(s[0], "{\"none\":1}", 10, NULL, 0, UINT64_MAX), 0);
	CHECK_EQ(wire_send(s[0], "{\"a\":1}", 7, &a, 1, UINT64_MAX), 0);
	CHECK_EQ(wire_send(s[0], "{\"b\":1}", 7, &b, 1, UINT64_MAX), 0);
	CHECK_EQ(wire_send(s[0], "{\"none\":2}", 10, NULL, 0, UINT64_MAX), 0);
	CHECK_EQ(wire_receive(s[1], &in, UINT64_MAX, &m), 1);
	CHECK_EQ(m.n_fds, 0);
	CHECK_EQ(wire_receive(s[1], &in, UINT64_MAX, &m), 1);
	CHECK_EQ(m.n_fds, 1);
	got = wire_take_fd(&m, 0);
	CHECK(same_file(got, a));
	CHECK(fcntl(got, F_GETFD) & FD_CLOEXEC);
	CHECK_EQ(wire_take_fd(&m, 0), -1);
	CHECK_EQ(wire_take_fd(&m, 1), -1);
	wire_message_fini(&m);
	close(got);
	CHECK_EQ(wire_receive(s[1], &in, UINT64_MAX, &m), 1);
	CHECK(m.n_fds == 1 && same_file(m.fds[0], b));
	wire_message_fini(&m);
	CHECK_EQ(wire_receive(s[1], &in, UINT64_MAX, &m), 1);
	CHECK_EQ(m.n_fds, 0);
	wire_in_fini(&in);
	CHECK_EQ(open_descriptors(), before);
}

static void a_long_message_keeps_its_descriptor(void)
{
	size_t length = 200000;
	char *text = malloc(length + 1);
	int s[2], a = open("/dev/null", O_RDONLY);
	struct wire_message m;
	struct wire_in in;
	pid_t child;

	sockets(s);
	memset(text, 'x', length);
	text[length] = 0;
	child = fork();
	if (child == 0) {
		if (wire_send(s[0], "{}", 2, NULL, 0, UINT64_MAX) < 0 ||
			wire_send(s[0], text, length, &a, 1, UINT64_MAX) < 0 ||
			wire_send(s[0], "{}", 2, NULL, 0, UINT64_MAX) < 0)
			_exit(1);
		_exit(0);
	}
	wire_in_init(&in, WIRE_CALL_MAX);
	CHECK_EQ(wire_receive(s[1], &in, UINT64_MAX, &m), 1);
	CHECK(m.length == 2 && m.n_fds == 0);
	CHECK_EQ(wire_receive(s[1], &in, UINT64_MAX, &m), 1);
	CHECK(m.length == length && m.n_fds == 1 && same_file(m.fds[0], a));
	wire_message_fini(&m);
	CHECK_EQ(wire_receive(s[1], &in, UINT64_MAX, &m), 1);
	CHECK(m.length == 2 && m.n_fds == 0);
	wire_in_fini(&in);
	free(text);
}

static void too_many_descriptors_are_closed_and_told(void)
{
	int s[2], many[64];
	unsigned before;
	struct wire_message m;
	struct wire_in in;
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof many)];
	} control = { 0 };
	char text[] = "{}";
	struct iovec iov = { text, sizeof text };
	struct msghdr h = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control
	};
	struct cmsghdr *c = CMSG_FIRSTHDR(&h);

	sockets(s);
	for (unsigned i = 0; i < 64; i++)
		many[i] = s[0];
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof many);
	memcpy(CMSG_DATA(c), many, sizeof many);
	before = open_descriptors();
	CHECK(sendmsg(s[0], &h, 0) == 3);
	wire_in_init(&in, WIRE_CALL_MAX);
	CHECK_EQ(wire_receive(s[1], &in, UINT64_MAX, &m), 1);
	CHECK(m.fds_lost);
	CHECK(m.n_fds <= WIRE_FDS_MAX);
	wire_message_fini(&m);
	wire_in_fini(&in);
	CHECK_EQ(open_descriptors(), before);
}

static void descriptors_can_stay_away(void)
{
	struct wire_message m;
	struct wire_in in;
	unsigned before;
	int s[2];

	sockets(s);
	before = open_descriptors();
	wire_in_init(&in, WIRE_CALL_MAX);
	in.no_fds = true;
	CHECK_EQ(wire_send(s[0], "{}", 2, s, 2, UINT64_MAX), 0);
	CHECK_EQ(wire_send(s[0], "[]", 2, NULL, 0, UINT64_MAX), 0);
	CHECK(wire_in_fill(&in, s[1]) > 0);
	CHECK_EQ(open_descriptors(), before);
	CHECK_EQ(wire_in_next(&in, &m), 1);
	CHECK(m.fds_lost && m.n_fds == 0 && strcmp(m.text, "{}") == 0);
	CHECK_EQ(wire_receive(s[1], &in, UINT64_MAX, &m), 1);
	CHECK(!m.fds_lost && strcmp(m.text, "[]") == 0);
	wire_in_fini(&in);
	close(s[0]);
	close(s[1]);
}

static void lengths_are_capped(void)
{
	struct wire_message m;
	struct wire_in in;
	char text[101];
	int s[2];

	memset(text, 'x', sizeof text);
	sockets(s);
	wire_in_init(&in, 100);
	CHECK(write(s[0], text, 100) == 100 && write(s[0], "", 1) == 1);
	CHECK_EQ(wire_receive(s[1], &in, UINT64_MAX, &m), 1);
	CHECK_EQ(m.length, 100);
	CHECK(write(s[0], text, 101) == 101);
	CHECK_EQ(wire_receive(s[1], &in, UINT64_MAX, &m), -EMSGSIZE);
	wire_in_fini(&in);
	wire_in_init(&in, 100);
	CHECK(write(s[0], text, 101) == 101 && write(s[0], "", 1) == 1);
	CHECK_EQ(wire_receive(s[1], &in, UINT64_MAX, &m), -EMSGSIZE);
	wire_in_fini(&in);
}

static void deadlines_end_waiting(void)
{
	struct wire_message m;
	struct wire_in in;
	int s[2];
	char *text = calloc(1, 8 << 20);

	sockets(s);
	wire_in_init(&in, 100);
	CHECK_EQ(wire_receive(s[1], &in, 0, &m), -ETIMEDOUT);
	memset(text, 'x', (8 << 20) - 1);
	CHECK_EQ(wire_send(s[0], text, (8 << 20) - 1, NULL, 0, 0), -ETIMEDOUT);
	close(s[1]);
	CHECK_EQ(wire_send(s[0], "{}", 2, NULL, 0, UINT64_MAX), -EPIPE);
	wire_in_fini(&in);
	free(text);
}

/* ---- tables ---- */

static void tables_and_structs_agree(void)
{
	for (unsigned i = 0; i < OP_COUNT; i++) {
		CHECK_MSG(op_fields_bytes(ops[i].in) == ops[i].in_bytes, "%s in", ops[i].name);
		CHECK_MSG(op_fields_bytes(ops[i].out) == ops[i].out_bytes, "%s out", ops[i].name);
		CHECK(op_find(ops[i].method) == &ops[i]);
		CHECK_MSG(strstr(contract_text, strrchr(ops[i].method, '.') + 1), "%s is not in the contract",
			ops[i].method);
	}
	CHECK(!op_find("org.memctl.") && !op_find(""));
	for (unsigned i = WIRE_ERROR_NONE + 1; i < WIRE_ERROR_OTHER; i++) {
		CHECK_EQ(wire_error_find(wire_error_name(i)), i);
		CHECK_MSG(wire_error_errno(i) > 0, "%s has no errno", wire_error_name(i));
	}
}

/* ---- bodies ---- */

static int parse(struct body *b, const char *text)
{
	struct body_fault fault;

	return body_parse(b, text, strlen(text), &fault);
}

/* Whose VM it is decides who may call them. */
static void what_is_ones_own_names_a_vm(void)
{
	unsigned n = 0;

	for (unsigned i = 0; i < OP_COUNT; i++) {
		const struct op_field *f = ops[i].in;

		if (ops[i].class != OP_CLASS_OWN)
			continue;
		while (f->name && strcmp(f->name, "vm"))
			f++;
		CHECK_MSG(f->name && f->type == OP_TYPE_str, "%s has no field vm", ops[i].method);
		n++;
	}
	CHECK(n >= 6);
}

static void calls_come_back(void)
{
	struct op_register_in in = { .name = "a\"b\\c\n",
		.size = INT64_MAX,
		.shares = 7,
		.sharing = "group:x" },
			      got;
	struct body b;
	size_t length;
	char *text;

	CHECK_EQ(body_write_call(&text, &length, &ops[OP_register], &in, 0), 0);
	CHECK_EQ(strlen(text), length);
	CHECK_EQ(body_parse(&b, text, length, NULL), 0);
	CHECK(strcmp(b.method, "org.memctl.Register") == 0 && !b.more && !b.oneway && !b.error);
	CHECK_EQ(body_decode(&b, ops[OP_register].in, true, &got, NULL), 0);
	CHECK(memcmp(&in, &got, sizeof in) == 0);
	body_fini(&b);
	free(text);
}

static void orders_come_back(void)
{
	static struct op_attend_out out, got;
	struct body b;
	size_t length;
	char *text;

	out = (struct op_attend_out){ .order = 3, .kind = "present", .lease = 1 };
	out.runs.n = OP_RUNS_MAX;
	for (unsigned i = 0; i < OP_RUNS_MAX; i++)
		out.runs.run[i] = (struct op_run){ (uint64_t)i << 40, i, i % 3 ? (uint64_t)i << 33 : 0 };
	CHECK_EQ(body_write_reply(&text, &length, &ops[OP_attend], &out, true), 0);
	CHECK_EQ(body_parse(&b, text, length, NULL), 0);
	CHECK(b.continues && !b.method);
	CHECK_EQ(body_decode(&b, ops[OP_attend].out, false, &got, NULL), 0);
	CHECK(memcmp(&out, &got, sizeof out) == 0);
	body_fini(&b);
	free(text);
}

/* What a library of this version and a daemon of it say to each other about sharing, to the byte. */
static void sharing_on_the_wire(void)
{
	static struct op_attend_out order, got;
	struct op_done_in done = { .order = 7, .bits = "07", .pages = 3 };
	struct op_join_pool_in join = { .maps = 31 };
	struct op_join_pool_out joined = { .pool_pages = 512 };
	struct body b;
	size_t length;
	char *text;

	CHECK_EQ(body_write_call(&text, &length, &ops[OP_join_pool], &join, 0), 0);
	CHECK_MSG(!strcmp(text, "{\"method\":\"org.memctl.JoinPool\",\"parameters\":{\"maps\":31}}"), "%s", text);
	free(text);
	CHECK_EQ(body_write_reply(&text, &length, &ops[OP_join_pool], &joined, false), 0);
	CHECK_MSG(!strcmp(text, "{\"parameters\":{\"pool_pages\":512}}"), "%s", text);
	free(text);
	order = (struct op_attend_out){ .order = 7, .kind = "share", .lease = 1 };
	order.runs.n = 2;
	order.runs.run[0] = (struct op_run){ .page = 16, .count = 2, .to = 40 };
	order.runs.run[1] = (struct op_run){ .page = 90, .count = 1 };
	CHECK_EQ(body_write_reply(&text, &length, &ops[OP_attend], &order, true), 0);
	CHECK_MSG(!strcmp(text, "{\"parameters\":{\"order\":7,\"kind\":\"share\",\"lease\":1,"
				"\"runs\":[[16,2,40],[90,1]]},\"continues\":true}"),
		"%s", text);
	free(text);
	CHECK_EQ(body_write_call(&text, &length, &ops[OP_done], &done, CALL_ONEWAY), 0);
	CHECK_MSG(!strcmp(text, "{\"method\":\"org.memctl.Done\",\"oneway\":true,"
				"\"parameters\":{\"order\":7,\"bits\":\"07\",\"pages\":3}}"),
		"%s", text);
	free(text);
	CHECK_EQ(parse(&b, "{\"parameters\":{\"order\":1,\"kind\":\"home\",\"lease\":2,\"runs\":[[3,4,0],[5,6]]}}"), 0);
	CHECK_EQ(body_decode(&b, ops[OP_attend].out, false, &got, NULL), 0);
	CHECK(got.runs.n == 2 && !got.runs.run[0].to && got.runs.run[1].page == 5);
	body_fini(&b);
}

static void bad_runs_are_refused(void)
{
	static const char *const bad[] = { "[1]", "[[]]", "[[1]]", "[[1,2,3,4]]", "[[1,-2]]", "[[1,2,-3]]",
		"[[1,2,\"3\"]]", "[[1,2,null]]", "{}" };
	static struct op_attend_out got;
	struct body_fault fault;
	struct body b;
	char text[200];

	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		snprintf(text, sizeof text,
			"{\"parameters\":{\"order\":1,\"kind\":\"zap\",\"lease\":2,\"runs\":%s}}", bad[i]);
		CHECK_EQ(parse(&b, text), 0);
		CHECK_EQ(body_decode(&b, ops[OP_attend].out, false, &got, &fault), -EBADMSG);
		CHECK_MSG(!strcmp(fault.field, "runs"), "%s: %s is blamed", bad[i], fault.field);
		body_fini(&b);
	}
}

static void tokens_keep_all_bits(void)
{
	struct op_attend_in in = { .token = 0xfedcba9876543210 }, got;
	struct body b;
	size_t length;
	char *text;

	CHECK_EQ(body_write_call(&text, &length, &ops[OP_attend], &in, CALL_MORE), 0);
	CHECK_EQ(body_parse(&b, text, length, NULL), 0);
	CHECK(b.more);
	CHECK_EQ(body_decode(&b, ops[OP_attend].in, true, &got, NULL), 0);
	CHECK(got.token == in.token);
	body_fini(&b);
	free(text);
}

static void errors_come_back(void)
{
	struct wire_error e = { .need = 5, .have = 3, .dir = "/x" }, got;
	struct body b;
	size_t length;
	char *text;

	wire_error_set(&e, WIRE_ERROR_NotEnoughSwap, "so %d", 4);
	CHECK_EQ(body_write_error(&text, &length, &e), 0);
	CHECK_EQ(body_parse(&b, text, length, NULL), 0);
	CHECK(strcmp(b.error, "org.memctl.NotEnoughSwap") == 0);
	body_error(&b, &got);
	CHECK(got.id == e.id && got.need == 5 && got.have == 3 && !strcmp(got.dir, "/x") &&
		!strcmp(got.message, "so 4"));
	body_fini(&b);
	free(text);
	CHECK_EQ(parse(&b, "{\"error\":\"org.future.Error\",\"parameters\":{\"message\":[]}}"), 0);
	body_error(&b, &got);
	CHECK(got.id == WIRE_ERROR_OTHER && !strcmp(got.name, "org.future.Error"));
	body_fini(&b);
}

static void bad_messages_are_refused(void)
{
	static const char *const bad[] = { "", "x", "[]", "1", "{", "{\"method\":1}",
		"{\"method\":\"a\",\"method\":\"a\"}", "{\"method\":\"a\",\"error\":\"b\"}",
		"{\"parameters\":1}", "{\"method\":\"a\",\"oneway\":1}",
		"{\"method\":\"a\",\"oneway\":true,\"more\":true}", "{\"method\":\"a\",\"upgrade\":true}",
		"{\"method\":\"a\"}{}", "{\"method\":\"\\u0000\"}", "{\"method\":\"\xff\"}",
		"{\"parameters\":{\"n\":99999999999999999999}}" };
	struct body b;

	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		CHECK_MSG(parse(&b, bad[i]) == -EBADMSG, "%s was taken", bad[i]);
}

static void depth_is_capped(void)
{
	char text[200] = "{\"parameters\":{\"a\":";
	struct body b;
	unsigned at;

	for (unsigned depth = 29; depth <= 33; depth++) {
		at = (unsigned)strlen("{\"parameters\":{\"a\":");
		memset(text + at, '[', depth);
		memset(text + at + depth, ']', depth);
		strcpy(text + at + 2 * depth, "}}");
		CHECK_EQ(parse(&b, text), depth + 2 <= BODY_DEPTH_MAX ? 0 : -EBADMSG);
		if (depth + 2 <= BODY_DEPTH_MAX)
			body_fini(&b);
	}
	/* brackets in strings, behind escaped quotes too */
	CHECK_EQ(parse(&b, "{\"method\":\"[[[[[[[[[[[[[[[[[[[[\\\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[\\\\\"}"), 0);
	body_fini(&b);
}

/* A text of `n` times `one` as a parameter. */
static char *text_of_many(const char *one, unsigned n, size_t *ret_length)
{
	FILE *f;
	char *text;

	f = open_memstream(&text, ret_length);
	CHECK(f != NULL);
	fprintf(f, "{\"method\":\"m\",\"parameters\":{\"a\":[");
	for (unsigned i = 0; i < n; i++)
		fprintf(f, "%s%s", i ? "," : "", one);
	fprintf(f, "]}}");
	fclose(f);
	return text;
}

/* What malloc counts is never more than what was foretold. */
static void weights_are_foretold(void)
{
	static const char *const ones[] = { "0", "17", "{}", "[]", "\"\"", "\"abc\"", "[1,2]", "[1,2,3]", "{\"a\":0}", "{\"a\":{}}",
		"[[[]]]", "1.5", "true", "{\"a\":1,\"b\":2,\"c\":3,\"d\":4,\"e\":5,\"f\":6,\"g\":7,\"h\":8,\"i\":9}" };

	for (unsigned i = 0; i < sizeof ones / sizeof *ones; i++) {
		for (unsigned n = 1; n <= 10000; n *= 10) {
			size_t length, before, taken;
			char *text = text_of_many(ones[i], n, &length);
			struct body b;

			before = mallinfo2().uordblks + mallinfo2().hblkhd;
			CHECK_EQ(body_parse(&b, text, length, NULL), 0);
			taken = mallinfo2().uordblks + mallinfo2().hblkhd - before;
			CHECK_MSG(taken <= body_weight(text, length), "%u of %s take %zu bytes, not %zu", n, ones[i], taken,
				body_weight(text, length));
			body_drop(&b);
			CHECK(!b.root && !b.method);
			body_fini(&b);
			free(text);
		}
	}
}

/* The heaviest call that the contract has: a run a page. */
static void what_the_contract_has_is_light(void)
{
	size_t length;
	char *text = text_of_many("[1000000000,1000000000,1000000000]", OP_RUNS_MAX, &length);

	CHECK_MSG(body_weight(text, length) < BODY_WEIGHT_MAX / 2, "%zu", body_weight(text, length));
	free(text);
}

static void bad_fields_are_named(void)
{
	static const struct {
		const char *parameters, *field;
	} bad[] = {
		{ "{\"size\":1}", "gpa" },			{ "{\"gpa\":1}", "size" },
		{ "{\"gpa\":1,\"size\":1,\"x\":1}", "x" },	{ "{\"gpa\":-1,\"size\":1}", "gpa" },
		{ "{\"gpa\":1.0,\"size\":1}", "gpa" },		{ "{\"gpa\":\"1\",\"size\":1}", "gpa" },
		{ "{\"gpa\":true,\"size\":1}", "gpa" },		{ "{\"gpa\":null,\"size\":1}", "gpa" },
	};
	struct op_lease_in in;
	struct body_fault fault;
	struct body b;
	char text[200];

	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		snprintf(text, sizeof text, "{\"method\":\"m\",\"parameters\":%s}", bad[i].parameters);
		CHECK_EQ(parse(&b, text), 0);
		CHECK_EQ(body_decode(&b, ops[OP_lease].in, true, &in, &fault), -EBADMSG);
		CHECK_MSG(strcmp(fault.field, bad[i].field) == 0, "%s: %s is blamed", text, fault.field);
		body_fini(&b);
	}
	CHECK_EQ(parse(&b, "{\"method\":\"m\",\"parameters\":{\"gpa\":1,\"size\":2,\"new\":3}}"), 0);
	CHECK_EQ(body_decode(&b, ops[OP_lease].in, false, &in, NULL), 0);
	CHECK(in.gpa == 1 && in.size == 2);
	body_fini(&b);
}

static void random_bytes_are_survived(void)
{
	static const char alphabet[] = "{}[]\",:\\u0019aetfnl \x80\xff.-eE";
	char text[128];

	srand(1);
	for (unsigned i = 0; i < 200000; i++) {
		size_t n = (size_t)rand() % sizeof text;
		struct op_register_in in;
		struct body b;

		strcpy(text, "{\"method\":\"m\",\"parameters\":{\"name\":\"x\",\"size\":1}}");
		if (i % 2)
			for (size_t k = 0; k < 3; k++)
				text[(size_t)rand() % strlen(text)] =
					alphabet[(size_t)rand() % (sizeof alphabet - 1)];
		else
			for (size_t k = 0; k < n; k++)
				text[k] = alphabet[(size_t)rand() % (sizeof alphabet - 1)];
		if (body_parse(&b, text, i % 2 ? strlen(text) : n, NULL) == 0) {
			body_decode(&b, ops[OP_register].in, true, &in, NULL);
			body_fini(&b);
		}
	}
}

/* ---- writer ---- */

static void written_text_is_valid(void)
{
	struct writer o = WRITER_INIT;
	struct body b;
	char *text;

	writer_object(&o, NULL);
	writer_object(&o, "parameters");
	writer_str(
		&o, "quote\"", "\\\n\t\x7f\x01 \xc3\xa4 \xff\xc0\x80 \xed\xa0\x80 \xf4\x90\x80\x80 \xe2\x82");
	writer_array(&o, "empty");
	writer_end(&o);
	writer_u64(&o, "most", UINT64_MAX);
	writer_i64(&o, "least", INT64_MIN);
	writer_null(&o, "none");
	writer_end(&o);
	writer_end(&o);
	text = writer_take(&o, NULL);
	CHECK_MSG(parse(&b, text) == 0, "%s", text);
	CHECK(strstr(text, "9223372036854775807") && strstr(text, "\"empty\":[]"));
	body_fini(&b);
	free(text);
}

static void raw_calls_are_checked(void)
{
	size_t length;
	char *text;

	CHECK_EQ(body_write_call_raw(&text, &length, "m", "[]", 0), -EBADMSG);
	CHECK_EQ(body_write_call_raw(&text, &length, "m", "{} {}", 0), -EBADMSG);
	CHECK_EQ(body_write_call_raw(&text, &length, "m", "{\"a\":1,\"a\":2}", 0), -EBADMSG);
	CHECK_EQ(body_write_call_raw(&text, &length, "m", "{ \"a\" : [1] }", 0), 0);
	CHECK(strcmp(text, "{\"method\":\"m\",\"parameters\":{\"a\":[1]}}") == 0);
	free(text);
	CHECK_EQ(body_write_call_raw(&text, &length, "m", NULL, CALL_ONEWAY), 0);
	CHECK(strcmp(text, "{\"method\":\"m\",\"oneway\":true,\"parameters\":{}}") == 0);
	free(text);
}

int main(int argc, char **argv)
{
	return check_main(argc, argv,
		(const struct scenario[]){ SCENARIO(messages_arrive_whole),
			SCENARIO(descriptors_come_with_their_message),
			SCENARIO(a_long_message_keeps_its_descriptor),
			SCENARIO(too_many_descriptors_are_closed_and_told), SCENARIO(descriptors_can_stay_away), SCENARIO(lengths_are_capped),
			SCENARIO(deadlines_end_waiting), SCENARIO(tables_and_structs_agree),
			SCENARIO(what_is_ones_own_names_a_vm),
			SCENARIO(calls_come_back), SCENARIO(orders_come_back), SCENARIO(sharing_on_the_wire),
			SCENARIO(bad_runs_are_refused), SCENARIO(tokens_keep_all_bits),
			SCENARIO(errors_come_back), SCENARIO(bad_messages_are_refused),
			SCENARIO(depth_is_capped), SCENARIO(weights_are_foretold), SCENARIO(what_the_contract_has_is_light), SCENARIO(bad_fields_are_named),
			SCENARIO(random_bytes_are_survived), SCENARIO(written_text_is_valid),
			SCENARIO(raw_calls_are_checked), { 0 } });
}
