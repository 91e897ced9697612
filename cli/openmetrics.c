#include "cli/openmetrics.h"

#include "cli/json.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct sample {
	char suffix[16];
	unsigned n_labels;
	struct {
		char *name, *value;
	} label[LABELS_MAX];
	char value[DECIMAL_MAX];
};

struct family {
	struct exposition *of;
	enum family_type type;
	char name[96], unit[16];
	char *help;
	struct sample *samples;
	size_t n, room;
};

struct exposition {
	struct family **families;
	size_t n;
	bool failed;
};

static const char *const type_names[] = { "gauge", "counter", "info", "stateset", "histogram" };
/* What a type adds to the name of its samples. */
static const char *const type_endings[] = { "", "_total", "_info", "", "" };

struct exposition *exposition_new(void)
{
	return calloc(1, sizeof(struct exposition));
}

static void family_free(struct family *f)
{
	for (size_t i = 0; i < f->n; i++)
		for (unsigned k = 0; k < f->samples[i].n_labels; k++) {
			free(f->samples[i].label[k].name);
			free(f->samples[i].label[k].value);
		}
	free(f->samples);
	free(f->help);
	free(f);
}

void exposition_free(struct exposition *x)
{
	if (!x)
		return;
	for (size_t i = 0; i < x->n; i++)
		family_free(x->families[i]);
	free(x->families);
	free(x);
}

struct family *exposition_add(struct exposition *x, enum family_type type, const char *name, const char *unit, const char *help)
{
	struct family **more = realloc(x->families, (x->n + 1) * sizeof *more), *f = calloc(1, sizeof *f);

	if (more)
		x->families = more;
	if (f)
		f->help = strdup(help);
	if (!more || !f || !f->help) {
		x->failed = true;
		free(f);
		return NULL;
	}
	f->of = x;
	f->type = type;
	snprintf(f->name, sizeof f->name, "%s", name);
	snprintf(f->unit, sizeof f->unit, "%s", unit);
	x->families[x->n++] = f;
	return f;
}

void family_add(struct family *f, const char *suffix, const struct label *labels, const char *value)
{
	struct sample *s;

	if (!f)
		return;
	if (f->n == f->room) {
		size_t room = f->room ? 2 * f->room : 8;

		s = realloc(f->samples, room * sizeof *s);
		if (!s) {
			f->of->failed = true;
			return;
		}
		f->samples = s;
		f->room = room;
	}
	s = &f->samples[f->n++];
	*s = (struct sample){ 0 };
	snprintf(s->suffix, sizeof s->suffix, "%s", suffix);
	snprintf(s->value, sizeof s->value, "%s", value);
	for (; labels && labels->name && s->n_labels < LABELS_MAX; labels++) {
		char *name = labels->value ? strdup(labels->name) : NULL, *text = labels->value ? strdup(labels->value) : NULL;

		if (!labels->value)
			continue;
		if (!name || !text) {
			f->of->failed = true;
			free(name);
			free(text);
			continue;
		}
		s->label[s->n_labels].name = name;
		s->label[s->n_labels++].value = text;
	}
}

void decimal(uint64_t n, unsigned digits, char text[static DECIMAL_MAX])
{
	uint64_t unit = 1;
	size_t end;

	for (unsigned i = 0; i < digits; i++)
		unit *= 10;
	end = (size_t)snprintf(text, DECIMAL_MAX, "%" PRIu64, n / unit);
	if (!(n % unit))
		return;
	end += (size_t)snprintf(text + end, DECIMAL_MAX - end, ".%0*" PRIu64, (int)digits, n % unit);
	while (text[end - 1] == '0')
		text[--end] = 0;
}

/* Between quotes a quote is escaped; OpenMetrics wants that in help too, the older format there not. */
static void put_escaped(FILE *f, const char *text, bool quotes)
{
	for (; *text; text++) {
		if (*text == '\n')
			fputs("\\n", f);
		else if (*text == '\\' || (quotes && *text == '"'))
			fprintf(f, "\\%c", *text);
		else
			fputc(*text, f);
	}
}

static void put_labels(FILE *f, const struct sample *s)
{
	for (unsigned i = 0; i < s->n_labels; i++) {
		fprintf(f, "%s%s=\"", i ? "," : "{", s->label[i].name);
		put_escaped(f, s->label[i].value, true);
		fputc('"', f);
	}
	if (s->n_labels)
		fputc('}', f);
}

static void write_family(const struct family *f, bool openmetrics, FILE *to)
{
	const char *ending = type_endings[f->type], *named = openmetrics ? "" : ending;
	const char *type = type_names[f->type];

	if (!openmetrics && (f->type == FAMILY_INFO || f->type == FAMILY_STATESET))
		type = "gauge";
	fprintf(to, "# HELP %s%s ", f->name, named);
	put_escaped(to, f->help, openmetrics);
	fprintf(to, "\n# TYPE %s%s %s\n", f->name, named, type);
	if (openmetrics && *f->unit)
		fprintf(to, "# UNIT %s %s\n", f->name, f->unit);
	for (size_t i = 0; i < f->n; i++) {
		fprintf(to, "%s%s%s", f->name, f->samples[i].suffix, ending);
		put_labels(to, &f->samples[i]);
		fprintf(to, " %s\n", f->samples[i].value);
	}
}

static void put_member(FILE *f, const char *name, const char *text, const char *end)
{
	value_print_string(f, name);
	fputs(": ", f);
	value_print_string(f, text);
	fputs(end, f);
}

static void write_json(const struct family *f, FILE *to)
{
	fputs("    {", to);
	put_member(to, "name", f->name, ", ");
	put_member(to, "type", type_names[f->type], ", ");
	put_member(to, "unit", f->unit, ", ");
	put_member(to, "help", f->help, ", \"samples\": [");
	for (size_t i = 0; i < f->n; i++) {
		const struct sample *s = &f->samples[i];

		fprintf(to, "%s\n      {\"name\": \"%s%s%s\", \"labels\": {", i ? "," : "", f->name, s->suffix, type_endings[f->type]);
		for (unsigned k = 0; k < s->n_labels; k++)
			put_member(to, s->label[k].name, s->label[k].value, k + 1 < s->n_labels ? ", " : "");
		fprintf(to, "}, \"value\": %s}", s->value);
	}
	fputs("]}", to);
}

int exposition_write(const struct exposition *x, enum exposition_format format, FILE *f)
{
	if (x->failed)
		return -ENOMEM;
	if (format == EXPOSITION_JSON)
		fputs("{\n  \"schema\": \"memctl/1\",\n  \"metrics\": [\n", f);
	for (size_t i = 0; i < x->n; i++) {
		if (format == EXPOSITION_JSON) {
			write_json(x->families[i], f);
			fputs(i + 1 < x->n ? ",\n" : "\n", f);
		} else {
			write_family(x->families[i], format == EXPOSITION_OPENMETRICS, f);
		}
	}
	if (format == EXPOSITION_JSON)
		fputs("  ]\n}\n", f);
	else if (format == EXPOSITION_OPENMETRICS)
		fputs("# EOF\n", f);
	return fflush(f) || ferror(f) ? -EIO : 0;
}
