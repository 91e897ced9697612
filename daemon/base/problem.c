#include "base/problem.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int problem_set(struct problem *p, int err, enum problem_kind kind, uint64_t need, uint64_t have, const char *fmt, ...)
{
	va_list ap;

	if (p) {
		p->kind = kind;
		p->need = need;
		p->have = have;
		va_start(ap, fmt);
		vsnprintf(p->text, sizeof p->text, fmt, ap);
		va_end(ap);
	}
	return -err;
}

int problem_errno(struct problem *p, const char *fmt, ...)
{
	int err = errno;
	va_list ap;
	int n;

	if (p) {
		p->kind = PROBLEM_SYSTEM;
		p->need = p->have = 0;
		va_start(ap, fmt);
		n = vsnprintf(p->text, sizeof p->text, fmt, ap);
		va_end(ap);
		if (n >= 0 && (size_t)n < sizeof p->text)
			snprintf(p->text + n, sizeof p->text - (size_t)n, ": %s", strerror(err));
	}
	return -err;
}
