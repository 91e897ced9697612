/* From calls to handlers: who may call what, decoding, and refusals as typed errors.
 *
 * One handler a row of proto/ops.def.  A handler ends its call, at once or later (see serve/session.h). */
#pragma once

#include "daemon.h"
#include "proto/ops.h"
#include "serve/session.h"

#define OP(method, name, class)                                                                              \
	void do_##name(struct daemon *d, struct call *c, const struct op_##name##_in *in);
#include "proto/ops.def"
#undef OP

/* The server's events; userdata is the struct daemon. */
bool dispatch_urgent(const struct call *c, void *userdata);
void dispatch_call(struct call *c, void *userdata);
void dispatch_closed(struct session *s, void *userdata);

/* What its caller may do here.  Which class an operation needs is in its row, and asked before its handler is called. */
enum access_class call_access(const struct daemon *d, const struct call *c);

/* A lease of the caller's VM (of a call of class CLIENT) by its number; NULL: there is none, and the call is refused. */
struct lease *call_find_lease(struct call *c, uint64_t id);

/* Ends the call with an error; `fmt` NULL: the row's own advice. */
void refuse(struct call *c, enum wire_error_id id, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* The same with the field at fault. */
void refuse_field(struct call *c, enum wire_error_id id, const char *field, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
void refuse_vm(struct call *c, enum wire_error_id id, const char *vm);
/* With the values that the caller has filled in. */
void refuse_numbers(struct call *c, enum wire_error_id id, uint64_t need, uint64_t have, const char *field,
	const char *fmt, ...) __attribute__((format(printf, 6, 7)));
/* What mem/ refused: r is its return value, `dir` the swap directory if it may be at fault, else NULL. */
void refuse_problem(struct call *c, int r, const struct problem *p, const char *dir);
