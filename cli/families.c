/* Every number as Prometheus wants it: families that follow from the catalogue, in base units.
 *
 *	memctl_up				0: memctld does not answer; everything else is left out then
 *	memctl_build_info, memctl_vm_info, memctl_host_state, memctl_vm_state
 *	memctl_host_<number>, memctl_vm_<number>{vm}	of host_numbers.def and vm_numbers.def: _pages, _frames -> _bytes,
 *						_ns -> _seconds, _pct and _permille -> _ratio
 *	memctl_vm_fault_duration_seconds{vm,cause}	a histogram
 *	memctl_events_total{level}
 *
 * A label has few values: VMs there are no more than max_vms at a time. */
#include "cli/families.h"

#include "cli/cli.h"
#include "cli/openmetrics.h"

#include <stdio.h>
#include <string.h>

#define PAGE_SIZE 4096

/* What the catalogue calls units: the ending of the number's name that says it, Prometheus' unit, and how to get there. */
static const struct conversion {
	const char *unit, *endings[2], *base;
	uint64_t times;
	unsigned digits;	/* divided by 10^digits */
} conversions[] = {
	{ "bytes", { "_bytes" }, "bytes", 1, 0 },
	{ "pages", { "_pages", "_frames" }, "bytes", PAGE_SIZE, 0 },
	{ "ns", { "_ns" }, "seconds", 1, 9 },
	{ "percent", { "_pct" }, "ratio", 1, 2 },
	{ "permille", { "_permille" }, "ratio", 1, 3 },
	{ "count", { NULL }, "", 1, 0 },
};

static const struct conversion *find_conversion(const char *unit)
{
	for (size_t i = 0; i < sizeof conversions / sizeof *conversions; i++)
		if (!strcmp(conversions[i].unit, unit))
			return &conversions[i];
	return NULL;
}

static void make_name(char *ret, size_t bytes, const char *of, const char *number, const struct conversion *k)
{
	size_t length = strlen(number);

	for (unsigned i = 0; i < 2 && k->endings[i]; i++) {
		size_t n = strlen(k->endings[i]);

		if (length > n && !strcmp(number + length - n, k->endings[i])) {
			length -= n;
			break;
		}
	}
	snprintf(ret, bytes, "memctl_%s_%.*s%s%s", of, (int)length, number, *k->base ? "_" : "", k->base);
}

static void add_value(struct family *f, const struct label *labels, const struct value *numbers, const char *number,
	const struct conversion *k)
{
	char text[DECIMAL_MAX];

	decimal(value_u64(numbers, number, 0) * k->times, k->digits, text);
	family_add(f, "", labels, text);
}

/* The numbers of one source of the catalogue: of the host, or of each VM. */
static void add_numbers(struct exposition *x, const struct value *catalogue, const char *of, const struct value *host,
	const struct value *vms)
{
	for (size_t i = 0; i < value_items(catalogue); i++) {
		const struct value *row = value_item(catalogue, i);
		const struct conversion *k = find_conversion(value_str(row, "unit"));
		const char *number = value_str(row, "name");
		bool counter = !strcmp(value_str(row, "kind"), "counter");
		struct family *f;
		char name[96];

		if (strcmp(value_str(row, "of"), of) || !k)
			continue;
		make_name(name, sizeof name, of, number, k);
		f = exposition_add(x, counter ? FAMILY_COUNTER : FAMILY_GAUGE, name, k->base, value_str(row, "sentence"));
		if (host)
			add_value(f, NULL, host, number, k);
		for (size_t v = 0; v < value_items(vms); v++) {
			const struct value *vm = value_item(vms, v);

			add_value(f, (struct label[]){ { "vm", value_str(vm, "name") }, { NULL, NULL } }, vm, number, k);
		}
	}
}

/* One sample a state: the one that it is in is 1. */
static void add_states(struct family *f, const char *label, const char *const *states, const char *vm, const char *is)
{
	for (; *states; states++)
		family_add(f, "", (struct label[]){ { "vm", vm }, { label, *states }, { NULL, NULL } }, strcmp(*states, is) ? "0" : "1");
}

static void add_of_host(struct exposition *x, const struct value *status)
{
	static const char *const states[] = { "high", "clear", "soft", "hard", "low", NULL };
	static const char *const levels[] = { "error", "warning", "notice", "info" };
	char path[32], text[DECIMAL_MAX];
	struct family *f;

	family_add(exposition_add(x, FAMILY_INFO, "memctl_build", "", "Version of memctld."), "",
		(struct label[]){ { "version", value_str(status, "version") }, { NULL, NULL } }, "1");
	decimal(value_u64(status, "uptime_s", 0), 0, text);
	family_add(exposition_add(x, FAMILY_GAUGE, "memctl_uptime_seconds", "seconds", "For how long this memctld runs."), "", NULL, text);
	decimal(value_u64(status, "sessions", 0), 0, text);
	family_add(exposition_add(x, FAMILY_GAUGE, "memctl_sessions", "", "Connections to memctld."), "", NULL, text);
	f = exposition_add(x, FAMILY_STATESET, "memctl_host_state", "", "How short the host is: high is the best, low the worst.");
	add_states(f, "memctl_host_state", states, NULL, value_str(status, "state"));
	f = exposition_add(x, FAMILY_COUNTER, "memctl_events", "", "Events that this memctld has told; memctl events shows them.");
	for (size_t i = 0; i < sizeof levels / sizeof *levels; i++) {
		snprintf(path, sizeof path, "events.%s", levels[i]);
		decimal(value_u64(status, path, 0), 0, text);
		family_add(f, "", (struct label[]){ { "level", levels[i] }, { NULL, NULL } }, text);
	}
}

static void add_of_vms(struct exposition *x, const struct value *vms)
{
	static const char *const states[] = { "running", "awaited", "leaving", "ending", NULL };
	struct family *info = exposition_add(x, FAMILY_INFO, "memctl_vm", "",
		"What a VM is: with whom it shares, how its faults are handled, where it swaps.");
	struct family *state = exposition_add(x, FAMILY_STATESET, "memctl_vm_state", "",
		"Whether a VM runs, is awaited after a restart, gets its memory as its own, or ends.");

	for (size_t i = 0; i < value_items(vms); i++) {
		const struct value *vm = value_item(vms, i);

		family_add(info, "", (struct label[]){ { "vm", value_str(vm, "name") }, { "sharing", value_str(vm, "sharing") },
			{ "faults_mode", value_str(vm, "faults_mode") }, { "swap_dir", value_str(vm, "swap_dir") }, { NULL, NULL } }, "1");
		add_states(state, "memctl_vm_state", states, value_str(vm, "name"), value_str(vm, "state"));
	}
}

struct of_vm {
	struct family *f;
	const char *vm;
};

static void add_cause(const char *cause, const struct value *h, void *userdata)
{
	const struct of_vm *of = userdata;
	const struct value *at_most = value_at(h, "at_most");
	char edge[DECIMAL_MAX], text[DECIMAL_MAX];
	uint64_t n;

	for (size_t i = 0; i < value_items(at_most); i++) {
		const struct value *pair = value_item(at_most, i);

		if (!value_number(value_item(pair, 0), &n))
			continue;
		decimal(n, 9, edge);
		if (!value_number(value_item(pair, 1), &n))
			continue;
		decimal(n, 0, text);
		family_add(of->f, "_bucket", (struct label[]){ { "vm", of->vm }, { "cause", cause }, { "le", edge }, { NULL, NULL } }, text);
	}
	decimal(value_u64(h, "count", 0), 0, text);
	family_add(of->f, "_bucket", (struct label[]){ { "vm", of->vm }, { "cause", cause }, { "le", "+Inf" }, { NULL, NULL } }, text);
	family_add(of->f, "_count", (struct label[]){ { "vm", of->vm }, { "cause", cause }, { NULL, NULL } }, text);
	decimal(value_u64(h, "sum_ns", 0), 9, text);
	family_add(of->f, "_sum", (struct label[]){ { "vm", of->vm }, { "cause", cause }, { NULL, NULL } }, text);
}

static void add_fault_times(struct exposition *x, const struct value *vms)
{
	struct family *f = exposition_add(x, FAMILY_HISTOGRAM, "memctl_vm_fault_duration_seconds", "seconds",
		"How long a guest thread waited for its page, by where the page came from.");

	for (size_t i = 0; i < value_items(vms); i++) {
		const struct value *vm = value_item(vms, i);

		value_each(value_at(vm, "faults"), add_cause, &(struct of_vm){ f, value_str(vm, "vm") });
	}
}

void families_add_up(struct exposition *x, bool up)
{
	family_add(exposition_add(x, FAMILY_GAUGE, "memctl_up", "", "Whether memctld answers."), "", NULL, up ? "1" : "0");
}

int families_gather(struct cli *c, struct exposition *x, char why[static 320])
{
	struct value *status = NULL, *vms = NULL, *catalogue = NULL, *times = NULL;
	int r = cli_try(c, "org.memctl.Status", NULL, &status, why);

	if (!r)
		r = cli_try(c, "org.memctl.Catalogue", NULL, &catalogue, why);
	if (!r)
		r = cli_try(c, "org.memctl.ListVms", NULL, &vms, why);
	if (!r)
		r = cli_try(c, "org.memctl.FaultTimes", NULL, &times, why);
	if (!r) {
		families_add_up(x, true);
		add_of_host(x, value_at(status, "status"));
		add_numbers(x, value_at(catalogue, "numbers"), "host", value_at(status, "status.host"), NULL);
		add_of_vms(x, value_at(vms, "vms"));
		add_numbers(x, value_at(catalogue, "numbers"), "vm", NULL, value_at(vms, "vms"));
		add_fault_times(x, value_at(times, "vms"));
	}
	value_close(status);
	value_close(catalogue);
	value_close(vms);
	value_close(times);
	return r;
}
