/* The data of a report, for programs. */
#include "cli/report.h"

#include "cli/cli.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>

/* A slot without a value is null. */
static void put_values(FILE *f, const double *values, size_t n)
{
	fputc('[', f);
	for (size_t i = 0; i < n; i++) {
		if (isnan(values[i]))
			fputs(i ? ",null" : "null", f);
		else
			fprintf(f, "%s%" PRId64, i ? "," : "", (int64_t)llround(values[i]));
	}
	fputc(']', f);
}

static void put_numbers(FILE *f, const struct report *r, const struct report_track *t, const char *const *names, size_t n)
{
	fputs("\"numbers\":{", f);
	for (size_t k = 0; k < n; k++) {
		fprintf(f, "%s\n\"%s\":", k ? "," : "", names[k]);
		put_values(f, t->of[k], r->slots);
	}
	fputc('}', f);
}

static void put_vm(FILE *f, const struct report *r, const struct report_track *t)
{
	static const char *const names[] = {
#define NUMBER(id, name, how) name,
		REPORT_OF_VM(NUMBER)
#undef NUMBER
	};

	fputs("{\"vm\":", f);
	value_print_string(f, t->name);
	fprintf(f, ",\"here\":%s,", t->here ? "true" : "false");
	put_numbers(f, r, t, names, VM_NUMBERS);
	fputs(",\n\"faults\":{", f);
	for (size_t i = 0; i < t->n_latencies; i++) {
		const struct report_latency *l = &t->latencies[i];

		fputs(i ? "," : "", f);
		value_print_string(f, l->cause);
		fprintf(f, ":{\"count\":%" PRIu64 ",\"mean_ns\":%" PRIu64 ",\n\"p50_ns\":", l->count,
			l->count ? l->sum_ns / l->count : 0);
		put_values(f, l->p50_ns, r->slots);
		fputs(",\n\"p99_ns\":", f);
		put_values(f, l->p99_ns, r->slots);
		fputc('}', f);
	}
	fputs("},\n\"plans\":", f);
	value_print(f, value_at(t->plans, "plans"));
	fputs(",\n\"explanation\":", f);
	value_print(f, value_at(t->explanation, "explanation"));
	fputc('}', f);
}

int report_json(FILE *f, const void *report)
{
	static const char *const names[] = {
#define NUMBER(id, name, how) name,
		REPORT_OF_HOST(NUMBER)
#undef NUMBER
	};
	const struct report *r = report;

	fprintf(f, "{\"schema\":\"memctl/1\",\"since_ms\":%" PRIu64 ",\"until_ms\":%" PRIu64 ",\"origin_ms\":%" PRIu64 ",\"slot_ms\":%" PRIu64
		",\"slots\":%zu,\n\"host\":{", r->since_ms, r->until_ms, r->origin_ms, r->slot_ms, r->slots);
	put_numbers(f, r, &r->host, names, HOST_NUMBERS);
	fputs("},\n\"vms\":[", f);
	for (size_t i = 0; i < r->n_vms; i++) {
		fputs(i ? ",\n" : "\n", f);
		put_vm(f, r, &r->vms[i]);
	}
	fprintf(f, "],\n\"vms_left_out\":%zu,\n\"events\":", r->vms_left);
	value_print(f, value_at(r->events, "events"));
	fputs(",\n\"settings\":", f);
	value_print(f, value_at(r->config, "settings"));
	fputs("}\n", f);
	return ferror(f) ? -EIO : 0;
}
