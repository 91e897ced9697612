/* What is in a message: varlink's calls, replies and errors, and the fields of the operations.  body.c is the
 * only door to the JSON library of daemon and client library; none of its types shows here.
 *
 * The text is pre-scanned before it is parsed (depth at most BODY_DEPTH_MAX; the length was capped by
 * proto/wire.h), duplicate keys are refused, unknown fields too where asked.
 *
 * A client's call, blocking:
 *
 *	struct op_lease_in in = { .gpa = gpa, .size = size };
 *	struct op_lease_out out = { 0 };
 *	r = body_write_call(&text, &length, &ops[OP_lease], &in, 0);
 *	r = wire_send(fd, text, length, NULL, 0, deadline);
 *	r = wire_receive(fd, &buffer, deadline, &wire);		// 1
 *	r = body_parse(&b, wire.text, wire.length, NULL);
 *	if (b.error) body_error(&b, &error);
 *	else r = body_decode(&b, ops[OP_lease].out, false, &out, NULL);
 *	memfd = wire_take_fd(&wire, 0);
 *	body_fini(&b); wire_message_fini(&wire); free(text);
 */
#pragma once

#include "proto/error.h"
#include "proto/ops.h"

#include <stdbool.h>
#include <stddef.h>

#define BODY_DEPTH_MAX 32
/* No call of the contract weighs half of it. */
#define BODY_WEIGHT_MAX (1u << 20)

/* Why a text was refused: one sentence, and the field at fault if there is one. */
struct body_fault {
	char text[160];
	char field[96];
};

struct body {
	void *root;		/* opaque; everything below points into it */
	const char *method;	/* a call: not NULL */
	const char *error;	/* an error reply: its name */
	bool oneway, more;	/* of a call */
	bool continues;		/* of a reply */
};

/* 0; -EBADMSG: no valid message, *ret_fault (may be NULL) says why; -ENOMEM.  Copies the text. */
int body_parse(struct body *ret, const char *text, size_t length, struct body_fault *ret_fault);
void body_fini(struct body *b);
/* What it points to goes, but for the flags: all has been read. */
void body_drop(struct body *b);
/* How many bytes of memory a text takes when it is parsed, at most: a text of "[{},{},...]" becomes eighty times its length. */
size_t body_weight(const char *text, size_t length);

/* The parameters into the struct of an operation (zeroed first).  `strict`: unknown fields are refused
 * (calls); otherwise ignored (replies of a newer daemon).  0; -EBADMSG: a field is missing, unknown or of the
 * wrong type or range, *ret_fault (may be NULL) names it; -ENOMEM.  Afterwards op_fields_fini(fields, values)
 * is due. */
int body_decode(const struct body *b, const struct op_field *fields, bool strict, void *values,
	struct body_fault *ret_fault);
/* The error of an error reply, with its name, message and values. */
void body_error(const struct body *b, struct wire_error *ret);
/* The parameters as JSON text ("{}" if none), malloc'ed, the caller's; NULL: out of memory. */
char *body_parameters(const struct body *b);
/* One string parameter (of varlink's own methods), or NULL. */
const char *body_string(const struct body *b, const char *field);

/* Texts to send; *ret_text is malloc'ed, the caller's.  0 or -ENOMEM. */
enum { CALL_ONEWAY = 1, CALL_MORE = 2 };
int body_write_call(char **ret_text, size_t *ret_length, const struct op *op, const void *in, unsigned flags);
/* `parameters` is JSON text from outside (NULL: {}): -EBADMSG if it is not one JSON object. */
int body_write_call_raw(char **ret_text, size_t *ret_length, const char *method, const char *parameters,
	unsigned flags);
int body_write_reply(
	char **ret_text, size_t *ret_length, const struct op *op, const void *out, bool continues);
/* `parameters` is JSON text of our own making. */
int body_write_reply_raw(char **ret_text, size_t *ret_length, const char *parameters);
int body_write_error(char **ret_text, size_t *ret_length, const struct wire_error *e);
