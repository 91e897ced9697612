/* Plans once more: replay METRICS.DB
 *
 * Each plan of the history, with what it looked at as its rows say, goes through policy_plan again; what comes out must be
 * what was recorded, in every number.  Prints how many plans and VMs there were; the first difference is told in words, and
 * the exit status is 1.  So what is recorded is all that a plan depends on.
 *
 * SQLite has no number above 2^63 - 1: what is as large is recorded as that, and read as 2^64 - 1 ("none"). */
#include "policy/plan.h"

#include <inttypes.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define POLICY_IN(name, sentence) "\"" #name "\", "
static const char host_inputs[] =
#include "policy/plan_host.def"
	"";
#define POLICY_OUT(name, sentence) "\"" #name "\", "
static const char host_outputs[] =
#include "policy/plan_host.def"
	"";
#define POLICY_IN(name, sentence) "\"" #name "\", "
static const char vm_inputs[] =
#include "policy/plan_vm.def"
	"";
#define POLICY_OUT(name, sentence) "\"" #name "\", "
static const char vm_outputs[] =
#include "policy/plan_vm.def"
	"";

#define POLICY_OUT(name, sentence) #name,
static const char *const host_names[] = {
#include "policy/plan_host.def"
};
#define POLICY_OUT(name, sentence) #name,
static const char *const vm_names[] = {
#include "policy/plan_vm.def"
};
#define N_HOST_OUTPUTS (sizeof host_names / sizeof *host_names)
#define N_VM_OUTPUTS   (sizeof vm_names / sizeof *vm_names)
_Static_assert(sizeof(struct policy_plan) == N_HOST_OUTPUTS * 8 && sizeof(struct policy_vm_plan) == N_VM_OUTPUTS * 8, "");

struct recorded {
	struct policy_vm in;
	struct policy_vm_plan out, again;
	char name[64];
};

static sqlite3 *db;

static _Noreturn void fail(const char *what)
{
	fprintf(stderr, "replay: %s: %s\n", what, sqlite3_errmsg(db));
	exit(2);
}

static sqlite3_stmt *query(const char *inputs, const char *outputs, const char *rest)
{
	char *sql = sqlite3_mprintf("SELECT %s%s%s", inputs, outputs, rest);
	sqlite3_stmt *s = NULL;

	if (!sql || sqlite3_prepare_v2(db, sql, -1, &s, NULL) != SQLITE_OK)
		fail(sql ? sql : "no memory");
	sqlite3_free(sql);
	return s;
}

static uint64_t next(sqlite3_stmt *s, int *at)
{
	int64_t n = sqlite3_column_int64(s, (*at)++);

	return n == INT64_MAX ? UINT64_MAX : (uint64_t)n;
}

static bool next_row(sqlite3_stmt *s)
{
	int r = sqlite3_step(s);

	if (r != SQLITE_ROW && r != SQLITE_DONE)
		fail("reading");
	return r == SQLITE_ROW;
}

/* Numbers that differ, as the database would have them. */
static unsigned compare(int64_t ts, const char *of, const char *const *names, size_t n, const void *recorded, const void *again)
{
	const uint64_t *was = recorded, *is = again;
	unsigned wrong = 0;

	for (size_t i = 0; i < n; i++) {
		if ((is[i] >= INT64_MAX ? UINT64_MAX : is[i]) == was[i])
			continue;
		if (!wrong++)
			printf("plan %" PRId64 ", %s: %s was %" PRIu64 ", planned again it is %" PRIu64 "\n", ts, of, names[i], was[i],
				is[i]);
	}
	return wrong;
}

/* The VMs of plan `ts`, in their order. */
static size_t read_vms(sqlite3_stmt *s, int64_t ts, struct recorded **vms, size_t *room)
{
	size_t n = 0;

	sqlite3_reset(s);
	sqlite3_bind_int64(s, 1, ts);
	while (next_row(s)) {
		struct recorded *vm;
		int at = 0;

		if (n == *room) {
			*room = *room ? 2 * *room : 16;
			*vms = realloc(*vms, *room * sizeof **vms);
			if (!*vms)
				fail("no memory");
		}
		vm = &(*vms)[n++];
#define POLICY_IN(name, sentence) vm->in.name = next(s, &at);
#include "policy/plan_vm.def"
#define POLICY_OUT(name, sentence) vm->out.name = next(s, &at);
#include "policy/plan_vm.def"
		snprintf(vm->name, sizeof vm->name, "VM %s", (const char *)sqlite3_column_text(s, at));
	}
	return n;
}

static unsigned replay(int64_t ts, const struct policy_view *host, const struct policy_plan *was, struct recorded *vms, size_t n)
{
	struct policy_vm *in = calloc(n + 1, sizeof *in);
	struct policy_vm_plan *out = calloc(n + 1, sizeof *out);
	struct policy_view view = *host;
	struct policy_plan is;
	unsigned wrong;

	if (!in || !out)
		fail("no memory");
	for (size_t i = 0; i < n; i++)
		in[i] = vms[i].in;
	view.n_vms = n;
	view.vms = in;
	policy_plan(&view, &is, out);
	wrong = compare(ts, "host", host_names, N_HOST_OUTPUTS, was, &is);
	for (size_t i = 0; i < n && !wrong; i++)
		wrong = compare(ts, vms[i].name, vm_names, N_VM_OUTPUTS, &vms[i].out, &out[i]);
	free(in);
	free(out);
	return wrong;
}

int main(int argc, char **argv)
{
	uint64_t plans = 0, stand_for = 0, seen = 0;
	struct recorded *vms = NULL;
	sqlite3_stmt *hosts, *of_plan;
	unsigned wrong = 0;
	size_t room = 0;

	if (argc != 2 || sqlite3_open_v2(argv[1], &db, SQLITE_OPEN_READONLY, NULL) != SQLITE_OK)
		fail(argc == 2 ? argv[1] : "replay METRICS.DB");
	hosts = query(host_inputs, host_outputs, "ts, plans FROM plan ORDER BY ts");
	of_plan = query(vm_inputs, vm_outputs, "vm FROM plan_vm WHERE ts = ? ORDER BY nth");
	while (!wrong && next_row(hosts)) {
		struct policy_view view = { 0 };
		struct policy_plan was;
		size_t n;
		int64_t ts;
		int at = 0;

#define POLICY_IN(name, sentence) view.name = next(hosts, &at);
#include "policy/plan_host.def"
#define POLICY_OUT(name, sentence) was.name = next(hosts, &at);
#include "policy/plan_host.def"
		ts = sqlite3_column_int64(hosts, at);
		stand_for += (uint64_t)sqlite3_column_int64(hosts, at + 1);
		n = read_vms(of_plan, ts, &vms, &room);
		wrong += replay(ts, &view, &was, vms, n);
		plans++;
		seen += n;
	}
	sqlite3_finalize(hosts);
	sqlite3_finalize(of_plan);
	sqlite3_close(db);
	free(vms);
	printf("plans %" PRIu64 " stand_for %" PRIu64 " vms %" PRIu64 "\n", plans, stand_for, seen);
	return wrong ? 1 : 0;
}
