/* The typed errors of the contract, rows of errors.def, and those of varlink itself.
 *
 * Every error of org.memctl carries `message`, one sentence that says what to do, and the values its row
 * names.  Names this side does not know (a newer daemon's) keep their text: id is WIRE_ERROR_OTHER then. */
#pragma once

#include <stdint.h>

/* Which values an error carries beside its message. */
enum {
	ERROR_HAS_NEED = 1,	/* need, have: integers */
	ERROR_HAS_DIR = 2,
	ERROR_HAS_VM = 4,
	ERROR_HAS_LEASE = 8,
	ERROR_HAS_FIELD = 16,	/* the input field that is at fault */
	ERROR_HAS_ERRNO = 32,
};

enum wire_error_id {
	WIRE_ERROR_NONE,
#define ERROR(id, has, err, advice) WIRE_ERROR_##id,
#include "proto/errors.def"
#undef ERROR
	/* of org.varlink.service */
	WIRE_ERROR_InterfaceNotFound,
	WIRE_ERROR_MethodNotFound,
	WIRE_ERROR_MethodNotImplemented,
	WIRE_ERROR_InvalidParameter,
	WIRE_ERROR_ExpectedMore,
	WIRE_ERROR_OTHER,
};

struct wire_error {
	enum wire_error_id id;
	char name[96];		/* "org.memctl.NotEnoughMemory"; filled by wire_error_set and by decoding */
	char message[320];
	uint64_t need, have;
	uint64_t lease;
	int error;		/* errno, positive */
	char vm[64];
	char dir[256];
	char field[96];		/* also the parameter, method or interface of varlink's own errors */
};

/* Sets id, name and message; the other values are left as they are.  `fmt` NULL: the row's own advice. */
void wire_error_set(struct wire_error *e, enum wire_error_id id, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
const char *wire_error_name(enum wire_error_id id);
/* WIRE_ERROR_OTHER for a name that is not in the table. */
enum wire_error_id wire_error_find(const char *name);
/* The ERROR_HAS_* values of an error. */
unsigned wire_error_has(enum wire_error_id id);
/* The errno (positive) that a C caller gets for it. */
int wire_error_errno(enum wire_error_id id);
