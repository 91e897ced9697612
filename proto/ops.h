/* The operations as C: for each row of ops.def a struct op_<name>_in and op_<name>_out with the fields of
 * ops_fields.h, and a description of both from which body.c decodes and encodes.
 *
 *	struct op_lease_in in = { .gpa = 0, .size = 1 << 20 };
 *	r = body_write_call(&text, &length, &ops[OP_lease], &in, 0);
 *
 * C types of the fields: str is char[OP_STR_MAX] (at most 255 bytes, valid UTF-8, no NUL); u64 and hex64 are
 * uint64_t; flag is bool; json is char * (JSON text, malloc'ed by the decoder, op_fields_fini() frees it);
 * runs is struct op_runs. Optional fields are absent on the wire when zero, empty or false. */
#pragma once

#include "proto/ops_fields.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define OP_STR_MAX  256
#define OP_RUNS_MAX 512

struct op_run {
	uint64_t page, count;
	uint64_t to;		/* a page of the pool; 0: none */
};
struct op_runs {
	unsigned n;
	struct op_run run[OP_RUNS_MAX];
};

#define OP_C_str(field)	    char field[OP_STR_MAX];
#define OP_C_opt_str(field)  OP_C_str(field)
#define OP_C_u64(field)	    uint64_t field;
#define OP_C_opt_u64(field)  uint64_t field;
#define OP_C_hex64(field)    uint64_t field;
#define OP_C_flag(field)     bool field;
#define OP_C_opt_flag(field) bool field;
#define OP_C_json(field)     char *field;
#define OP_C_opt_json(field) OP_C_json(field)
#define OP_C_runs(field)     struct op_runs field;
#define OP_C(type, field)    OP_C_##type(field)
#define OP(method, name, class) \
	struct op_##name##_in { \
		OP_##name##_IN(OP_C) \
	}; \
	struct op_##name##_out { \
		OP_##name##_OUT(OP_C) \
	};
#include "proto/ops.def"
#undef OP

enum op_id {
#define OP(method, name, class) OP_##name,
#include "proto/ops.def"
#undef OP
	OP_COUNT
};

enum op_class {
	OP_CLASS_READ,		/* questions about numbers */
	OP_CLASS_LEASE,		/* makes this connection the calls connection of a new VM */
	OP_CLASS_TOKEN,		/* ... or of one that is there */
	OP_CLASS_CLIENT,	/* needs a registered VM on this connection */
	OP_CLASS_ORDERS,	/* makes this connection the orders connection of a VM */
	OP_CLASS_OWN,		/* of the VM's user, or an operator */
	OP_CLASS_OPERATOR,
};

enum op_type { OP_TYPE_str, OP_TYPE_u64, OP_TYPE_hex64, OP_TYPE_flag, OP_TYPE_json, OP_TYPE_runs };

struct op_field {
	const char *name;	/* NULL ends the list */
	enum op_type type;
	bool optional;
};

struct op {
	const char *method;	/* "org.memctl.Lease" */
	const char *name;	/* "lease" */
	enum op_class class;
	unsigned fds_in, fds_out;
	const struct op_field *in, *out;
	size_t in_bytes, out_bytes;
};

extern const struct op ops[OP_COUNT];

/* The row of a method, or NULL. */
const struct op *op_find(const char *method);
/* Where a field lies: a struct is its fields in their order, so its place follows from those before it.  *end
 * is 0 for the first field and carried from one to the next. */
void *op_field_at(const struct op_field *f, const void *values, size_t *end);
/* The size of the struct with these fields (sizeof says the same). */
size_t op_fields_bytes(const struct op_field *fields);
/* Frees the json fields of a decoded (or zeroed) struct and leaves them NULL. */
void op_fields_fini(const struct op_field *fields, void *values);
