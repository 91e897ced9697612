#include "proto/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

static const struct row {
	const char *name;
	unsigned has;
	int error;
	const char *advice;
} rows[] = {
	[WIRE_ERROR_NONE] = { "", 0, 0, "" },
#define ERROR(id, has, err, advice) [WIRE_ERROR_##id] = { "org.memctl." #id, has, err, advice },
#include "proto/errors.def"
#undef ERROR
	[WIRE_ERROR_InterfaceNotFound] = { "org.varlink.service.InterfaceNotFound", ERROR_HAS_FIELD, ENOSYS,
		"There is no such interface." },
	[WIRE_ERROR_MethodNotFound] = { "org.varlink.service.MethodNotFound", ERROR_HAS_FIELD, ENOSYS,
		"There is no such method." },
	[WIRE_ERROR_MethodNotImplemented] = { "org.varlink.service.MethodNotImplemented", ERROR_HAS_FIELD,
		ENOSYS, "This daemon was built without that method." },
	[WIRE_ERROR_InvalidParameter] = { "org.varlink.service.InvalidParameter", ERROR_HAS_FIELD, EINVAL,
		"A parameter is missing, unknown or malformed." },
	[WIRE_ERROR_ExpectedMore] = { "org.varlink.service.ExpectedMore", 0, EINVAL,
		"This method answers several times: call it with \"more\"." },
	[WIRE_ERROR_OTHER] = { "", 0, EPROTO, "" },
};

void wire_error_set(struct wire_error *e, enum wire_error_id id, const char *fmt, ...)
{
	va_list ap;

	e->id = id;
	snprintf(e->name, sizeof e->name, "%s", rows[id].name);
	if (!fmt) {
		snprintf(e->message, sizeof e->message, "%s", rows[id].advice);
		return;
	}
	va_start(ap, fmt);
	vsnprintf(e->message, sizeof e->message, fmt, ap);
	va_end(ap);
}

const char *wire_error_name(enum wire_error_id id)
{
	return rows[id].name;
}

enum wire_error_id wire_error_find(const char *name)
{
	for (unsigned i = WIRE_ERROR_NONE + 1; i < WIRE_ERROR_OTHER; i++)
		if (strcmp(rows[i].name, name) == 0)
			return (enum wire_error_id)i;
	return WIRE_ERROR_OTHER;
}

unsigned wire_error_has(enum wire_error_id id)
{
	return rows[id].has;
}

int wire_error_errno(enum wire_error_id id)
{
	return rows[id].error;
}
