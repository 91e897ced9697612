/* `memctl report`: what was, and why, as one page to keep. */
#include "cli/report.h"

#include "cli/cli.h"
#include "cli/output.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

int run_report(struct cli *c, char **arguments, unsigned n)
{
	int (*write)(FILE *f, const void *report) = c->json ? report_json : report_page;
	const char *path = c->file ? c->file : c->json || !isatty(STDOUT_FILENO) ? "-" : NULL;
	struct report r;
	int e, w = 0;

	(void)arguments;
	(void)n;
	if (!path || !*path) {
		cli_error("where to? -o report.html, or -o - for stdout");
		return EXIT_USAGE;
	}
	e = report_gather(c, &r);
	/* that stdout could not be written is said at the end */
	if (!e && !strcmp(path, "-"))
		write(stdout, &r);
	else if (!e)
		w = output_replace(path, write, &r);
	report_fini(&r);
	if (w < 0) {
		cli_error("cannot write %s: %s", path, output_replace_error(w));
		return EXIT_SYSTEM;
	}
	return e;
}
