#include "libclient/internal.h"

#include <stdarg.h>
#include <stdio.h>

int fail(struct memctl_error *e, int r, const char *name, const char *fmt, ...)
{
	va_list ap;

	if (!e)
		return r;
	*e = (struct memctl_error){ 0 };
	snprintf(e->name, sizeof e->name, "%s", name);
	va_start(ap, fmt);
	vsnprintf(e->message, sizeof e->message, fmt, ap);
	va_end(ap);
	return r;
}
