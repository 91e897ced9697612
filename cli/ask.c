/* Questions to memctld and what is said when they fail, apart from what the commands print: the exporter asks too. */
#include "cli/cli.h"

#include <errno.h>
#include <memctl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *cli_program = "memctl";

void cli_error(const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "%s: ", cli_program);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
}

static int exit_code(int r, const struct memctl_error *e)
{
	if (!strcmp(e->name, "org.memctl.Unreachable"))
		return EXIT_UNREACHABLE;
	if (!strcmp(e->name, "org.memctl.InvalidValue") || !strcmp(e->name, "org.memctl.InvalidSize") ||
		!strcmp(e->name, "org.memctl.InvalidName"))
		return EXIT_USAGE;
	switch (-r) {
	case ENOMEM:
	case ENOSPC:
		return EXIT_NO_MEMORY;
	case ENOENT:
		return EXIT_NOT_FOUND;
	case EACCES:
	case EPERM:
		return EXIT_PERMISSION;
	case ETIMEDOUT:
		return EXIT_TIMEOUT;
	default:
		return EXIT_SYSTEM;
	}
}

static int connect_once(struct cli *c, struct memctl_error *e)
{
	struct memctl_options o = { .struct_size = sizeof o, .socket = c->socket, .timeout_ms = c->timeout_ms };

	return c->m ? 0 : memctl_connect(&o, &c->m, e);
}

int cli_try(struct cli *c, const char *method, const char *const pairs[][2], struct value **ret, char why[static 320])
{
	struct memctl_error e = { 0 };
	char *parameters = NULL, *reply = NULL;
	int r;

	if (pairs) {
		parameters = value_parameters(pairs);
		if (!parameters) {
			snprintf(why, 320, "out of memory");
			return EXIT_SYSTEM;
		}
	}
	r = connect_once(c, &e);
	if (!r)
		r = memctl_call(c->m, method, parameters, &reply, &e);
	free(parameters);
	if (r < 0) {
		snprintf(why, 320, "%s", e.message);
		return exit_code(r, &e);
	}
	*ret = value_open(reply);
	free(reply);
	if (!*ret) {
		snprintf(why, 320, "memctld's reply to %s cannot be understood", method);
		return EXIT_SYSTEM;
	}
	return EXIT_OK;
}

void cli_hang_up(struct cli *c)
{
	memctl_free(c->m);
	c->m = NULL;
}
