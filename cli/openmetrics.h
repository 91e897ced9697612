/* Families of samples, and how they are written down: OpenMetrics 1.0, the older text format of Prometheus (which node_exporter's
 * textfile collector reads), or JSON.
 *
 * Names: a family has none of the endings that its type adds (_total, _info); with a unit it ends with that.  In the older format a
 * counter's family is named as its samples are, and infos and statesets are gauges. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum family_type { FAMILY_GAUGE, FAMILY_COUNTER, FAMILY_INFO, FAMILY_STATESET, FAMILY_HISTOGRAM };

enum exposition_format { EXPOSITION_OPENMETRICS, EXPOSITION_TEXT, EXPOSITION_JSON };

struct exposition;
struct family;

struct label {
	const char *name, *value;	/* a NULL value: none */
};
#define LABELS_MAX 4

/* All of these may run out of memory: then nothing more is added, and exposition_write says so. */
struct exposition *exposition_new(void);
void exposition_free(struct exposition *x);
/* `unit` "": none.  NULL: no memory, and samples of it are nowhere. */
struct family *exposition_add(struct exposition *x, enum family_type type, const char *name, const char *unit, const char *help);
/* `suffix`: after the family's name, beyond what its type adds ("_bucket"); `labels` end with a NULL name. */
void family_add(struct family *f, const char *suffix, const struct label *labels, const char *value);

/* A number as text: n / 10^digits, without an error of rounding. */
#define DECIMAL_MAX 40
void decimal(uint64_t n, unsigned digits, char text[static DECIMAL_MAX]);

/* 0 or -errno: -ENOMEM also if something could not be added. */
int exposition_write(const struct exposition *x, enum exposition_format format, FILE *f);
