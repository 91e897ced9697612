/* proto/body.h: texts from the other side.  What is accepted as a call is written and read again as the same call. */
#include "proto/body.h"
#include "tests/fuzz/fuzz.h"
#include "tests/lib/check.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void decode(const struct body *b, const struct op *op, const struct op_field *fields, size_t bytes, bool strict)
{
	void *values = calloc(1, bytes + 1);
	struct body_fault fault = { 0 };
	int r;

	CHECK(values);
	r = body_decode(b, fields, strict, values, &fault);
	CHECK(r == 0 || *fault.text);
	if (r == 0 && strict && fields == op->in) {
		char *text, *again;
		size_t length;
		struct body second;

		CHECK(body_write_call(&text, &length, op, values, 0) == 0 && strlen(text) == length);
		CHECK_MSG(body_parse(&second, text, length, &fault) == 0, "%s", fault.text);
		CHECK(!strcmp(second.method, op->method));
		op_fields_fini(fields, values);
		CHECK_MSG(body_decode(&second, fields, true, values, &fault) == 0, "%s", fault.text);
		CHECK(body_write_call(&again, &length, op, values, 0) == 0);
		CHECK_MSG(!strcmp(text, again), "%s became %s", text, again);
		body_fini(&second);
		free(text);
		free(again);
	}
	op_fields_fini(fields, values);
	free(values);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	const struct op *op = &ops[input_byte(&in) % OP_COUNT];
	char *text = malloc(in.left + 1), *parameters, *call;
	struct body_fault fault = { 0 };
	size_t length = in.left;
	struct wire_error e;
	struct body b;
	int r;

	CHECK(text);
	input_take(&in, text, length);
	text[length] = 0;
	r = body_parse(&b, text, length, &fault);
	CHECK(r == 0 || (r == -EBADMSG && *fault.text));
	if (r == 0) {
		if (b.method && op_find(b.method))
			op = op_find(b.method);
		decode(&b, op, op->in, op->in_bytes, true);
		decode(&b, op, op->out, op->out_bytes, false);
		if (b.error)
			body_error(&b, &e);
		body_string(&b, "interface");
		parameters = body_parameters(&b);
		CHECK(parameters);
		if (body_write_call_raw(&call, &length, "org.example.Call", parameters, 0) == 0) {
			struct body again;

			CHECK_MSG(body_parse(&again, call, length, &fault) == 0, "%s: %s", fault.text, call);
			body_fini(&again);
			free(call);
		}
		free(parameters);
	}
	if (r == 0)
		body_fini(&b);
	/* from outside, as `memctl` passes it on */
	if (body_write_call_raw(&call, &length, "org.example.Call", text, CALL_MORE) == 0)
		free(call);
	free(text);
	return 0;
}
