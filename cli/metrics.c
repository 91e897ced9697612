/* `memctl metrics`: what families.c gathers, printed or put into a file. */
#include "cli/cli.h"
#include "cli/families.h"
#include "cli/openmetrics.h"
#include "cli/output.h"

#include <errno.h>
#include <stdio.h>

/* The collector looks at *.prom, which the file on its way is not. */
static int write_text(FILE *f, const void *x)
{
	return exposition_write(x, EXPOSITION_TEXT, f);
}

int run_metrics(struct cli *c, char **arguments, unsigned n)
{
	struct exposition *x = exposition_new();
	char why[320];
	int r, w;

	(void)arguments;
	(void)n;
	if (!x) {
		cli_error("out of memory");
		return EXIT_SYSTEM;
	}
	/* a file of yesterday's numbers would say that all is well */
	r = families_gather(c, x, why);
	if (r) {
		cli_error("%s", why);
		families_add_up(x, false);
	}
	w = c->textfile ? output_replace(c->textfile, write_text, x) :
		exposition_write(x, c->json ? EXPOSITION_JSON : EXPOSITION_OPENMETRICS, stdout);
	exposition_free(x);
	/* that stdout could not be written is said at the end */
	if (w < 0 && (c->textfile || w != -EIO)) {
		cli_error("cannot write %s: %s", c->textfile ? c->textfile : "the metrics", output_replace_error(w));
		r = r ? r : EXIT_SYSTEM;
	}
	return r;
}
