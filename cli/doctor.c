/* memctl doctor: what is wrong with the set-up of this host, and what to do about it.
 *
 * memctld is asked what it finds out about itself; the rest is looked at here, also when it does not answer.  What was found
 * becomes one array of objects, which is printed as lines, as a table, or as JSON. */
#include "cli/cli.h"
#include "cli/doctor.h"

#include <errno.h>
#include <memctl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SOCKET_DEFAULT "/run/memctl/memctld.sock"

static const struct {
	const char *id, *title, *meaning, *fix;
	const char *side;
} rows[CHECKS] = {
#define DOCTOR_SIDE_CALLER  "caller"
#define DOCTOR_SIDE_MEMCTLD "memctld"
#define DOCTOR(id, side, title, meaning, fix) { #id, title, meaning, fix, DOCTOR_SIDE_##side },
#include "proto/doctor.def"
#undef DOCTOR
};

static const char *const state_names[] = { "", "ok", "information", "warning", "failure" };

const struct column doctor_columns[] = {
	{ "ID", "id", COLUMN_TEXT, true, "the check: `memctl doctor ID` says what it means" },
	{ "STATE", "state", COLUMN_TEXT, true, "ok, information, warning or failure" },
	{ "TEXT", "text", COLUMN_TEXT, true, "what was found" },
	{ "FIX", "fix", COLUMN_TEXT, true, "what to do, as root" },
	{ "TITLE", "title", COLUMN_TEXT, false, "what is well if it is ok" },
	{ "SIDE", "side", COLUMN_TEXT, false, "who looked: caller (memctl, as this user) or memctld" },
	{ "MEANING", "meaning", COLUMN_TEXT, false, "what it means if it is not well" },
	{ NULL },
};

const char doctor_details[] =
	"Each check is ok, information, a warning (it works, but less well or less safely than it could) or a failure, and says\n"
	"what to type, as root.  Without memctld those that memctl can make by itself are made.  With IDs these alone, with what\n"
	"they mean.\n"
	"Exit code 0: nothing is wrong; 1: there are warnings or failures; 69: memctld does not answer, and nothing else is wrong.\n"
	"\nChecks:"
#define DOCTOR(id, side, title, meaning, fix) "\n  " #id ": " title
#include "proto/doctor.def"
#undef DOCTOR
	;

/* ---- memctld ---- */

static enum check_state state_of(const char *name)
{
	for (enum check_state s = STATE_OK; s <= STATE_FAILURE; s++)
		if (!strcmp(name, state_names[s]))
			return s;
	return STATE_INFORMATION;
}

/* Rows that a newer memctld has and we do not know are not ours to judge: versions tells of it. */
static void take_findings(struct doctor *d, const struct value *checks)
{
	for (size_t i = 0; i < value_items(checks); i++) {
		const struct value *v = value_item(checks, i);

		for (enum check k = 0; k < CHECKS; k++) {
			if (strcmp(rows[k].id, value_str(v, "id")) || strcmp(rows[k].side, "memctld"))
				continue;
			find(d, k, state_of(value_str(v, "state")), "%s", value_str(v, "text"));
			snprintf(d->findings[k].fix, sizeof d->findings[k].fix, "%s", value_str(v, "fix"));
		}
	}
}

static struct value *ask(struct memctl *m, const char *method, int *ret_r, struct memctl_error *e)
{
	struct value *v;
	char *reply = NULL;

	*ret_r = memctl_call(m, method, NULL, &reply, e);
	v = *ret_r < 0 ? NULL : value_open(reply);
	free(reply);
	if (*ret_r >= 0 && !v)
		*ret_r = -EBADMSG;
	return v;
}

static void take_vms(struct doctor *d, const struct value *vms)
{
	size_t n = value_items(vms);

	d->vms = calloc(n + 1, sizeof *d->vms);
	for (size_t i = 0; d->vms && i < n; i++) {
		const struct value *v = value_item(vms, i);
		struct doctor_vm *vm = &d->vms[d->n_vms++];

		snprintf(vm->name, sizeof vm->name, "%s", value_str(v, "name"));
		vm->pid = (long long)value_u64(v, "pid", 0);
		vm->has_pool = value_true(v, "pool_joined");
	}
}

static void look_at_versions(struct doctor *d, const char *daemon, bool knows_doctor)
{
	if (d->answers && !knows_doctor) {
		find(d, CHECK_versions, STATE_WARNING, "memctld %s does not know `memctl doctor`: what it would find out is missing here.",
			daemon);
		fix(d, CHECK_versions, "memctl daemon upgrade");
	} else if (strcmp(MEMCTL_VERSION, memctl_version())) {
		find(d, CHECK_versions, STATE_WARNING, "memctl is %s and libmemctl is %s.", MEMCTL_VERSION, memctl_version());
		fix(d, CHECK_versions, "ldconfig; apt-get install --reinstall memctl  # or, from the sources: meson install -C build");
	} else if (d->answers && strcmp(MEMCTL_VERSION, daemon)) {
		find(d, CHECK_versions, STATE_WARNING, "memctl and libmemctl are %s, and the memctld that runs is %s.", MEMCTL_VERSION, daemon);
		fix(d, CHECK_versions, "memctl daemon upgrade");
	} else {
		find(d, CHECK_versions, STATE_OK, "memctl and libmemctl %sare %s.", d->answers ? "and memctld " : "", MEMCTL_VERSION);
	}
}

static void ask_memctld(struct doctor *d)
{
	struct memctl_options o = { .struct_size = sizeof o, .socket = d->socket, .timeout_ms = d->timeout_ms };
	struct value *status = NULL, *vms = NULL, *checks = NULL;
	struct memctl_error e = { 0 };
	struct memctl *m = NULL;
	char user[64];
	int r;

	r = memctl_connect(&o, &m, &e);
	if (r >= 0)
		status = ask(m, "org.memctl.Status", &r, &e);
	if (status) {
		d->answers = true;
		d->daemon_pid = (long long)value_u64(status, "status.pid", 0);
		find(d, CHECK_memctld, STATE_OK, "memctld (process %lld) answers at %s.", d->daemon_pid, d->socket);
		user_name(user);
		find(d, CHECK_access, STATE_OK, "User %s may call memctld.", user);
		vms = ask(m, "org.memctl.ListVms", &r, &e);
		checks = ask(m, "org.memctl.Doctor", &r, &e);
		take_vms(d, value_at(vms, "vms"));
		take_findings(d, value_at(checks, "checks"));
	} else if (!strcmp(e.name, "org.memctl.PermissionDenied") && access(d->socket, W_OK) == 0) {
		find(d, CHECK_memctld, STATE_OK, "memctld answers at %s.", d->socket);
		check_refused(d);
	} else {
		check_unreachable(d, !strcmp(e.name, "org.memctl.PermissionDenied") ? EACCES : -r);
	}
	look_at_versions(d, value_str(status, "status.version"), checks || strcmp(e.name, "org.varlink.service.MethodNotFound") != 0);
	if (d->answers && !checks && strcmp(e.name, "org.varlink.service.MethodNotFound")) {
		find(d, CHECK_memctld, STATE_FAILURE, "memctld (process %lld) answers at %s, but does not say what it finds: %s",
			d->daemon_pid, d->socket,
			e.message);
		fix(d, CHECK_memctld, "journalctl -u memctld -n 20 --no-pager");
	}
	value_close(status);
	value_close(vms);
	value_close(checks);
	memctl_free(m);
}

/* ---- what was found ---- */

static void print_member(FILE *f, const char *name, const char *text, const char *end)
{
	fprintf(f, "\"%s\": ", name);
	if (text)
		value_print_string(f, text);
	else
		fputs("null", f);
	fputs(end, f);
}

/* {"checks": [...]}: the rows that are wanted. */
static struct value *as_value(const struct doctor *d, const bool *wanted, bool with_meaning)
{
	struct value *v;
	size_t bytes, n = 0;
	char *text = NULL;
	FILE *f = open_memstream(&text, &bytes);

	if (!f)
		return NULL;
	fputs("{\"checks\": [", f);
	for (enum check k = 0; k < CHECKS; k++) {
		const struct finding *at = &d->findings[k];

		if (!wanted[k])
			continue;
		fputs(n++ ? ", {" : "{", f);
		print_member(f, "id", rows[k].id, ", ");
		print_member(f, "title", rows[k].title, ", ");
		print_member(f, "side", rows[k].side, ", ");
		print_member(f, "state", state_names[at->state], ", ");
		print_member(f, "text", at->text, ", ");
		print_member(f, "fix", at->fix[0] ? at->fix : NULL, with_meaning ? ", " : "}");
		if (with_meaning)
			print_member(f, "meaning", rows[k].meaning, "}");
	}
	fputs("]}", f);
	if (fclose(f)) {
		free(text);
		return NULL;
	}
	v = value_open(text);
	free(text);
	return v;
}

static void print_at_length(const struct doctor *d, enum check k)
{
	const struct finding *at = &d->findings[k];

	printf("%s: %s\n\n", rows[k].id, rows[k].title);
	cli_print_wrapped("  ", rows[k].meaning);
	if (rows[k].fix[0]) {
		putchar('\n');
		cli_print_wrapped("  ", rows[k].fix);
	}
	printf("\n%s: %s\n", state_names[at->state], at->text);
	if (at->fix[0])
		printf("fix: %s\n", at->fix);
}

static void print_lines(const struct doctor *d, const bool *wanted)
{
	unsigned n[STATE_FAILURE + 1] = { 0 }, all = 0;

	for (enum check k = 0; k < CHECKS; k++) {
		const struct finding *at = &d->findings[k];

		if (!wanted[k])
			continue;
		all++;
		n[at->state]++;
		printf("%-11s %-14s %s\n", state_names[at->state], rows[k].id, at->text);
		if (at->fix[0])
			printf("%-26s fix: %s\n", "", at->fix);
	}
	printf("\n%u checks: %u failure%s, %u warning%s.  `memctl doctor ID` says what one means.\n", all, n[STATE_FAILURE],
		n[STATE_FAILURE] == 1 ? "" : "s", n[STATE_WARNING], n[STATE_WARNING] == 1 ? "" : "s");
	if (strcmp(d->socket, SOCKET_DEFAULT))
		printf("For what begins with memctl: export MEMCTL_SOCKET=%s\n", d->socket);
	if (!d->answers)
		puts("memctld's own checks are missing, because it does not answer.");
}

static int verdict(const struct doctor *d, const bool *wanted)
{
	bool wrong = false;

	for (enum check k = 0; k < CHECKS; k++)
		wrong = wrong || (wanted[k] && k != CHECK_memctld && d->findings[k].state >= STATE_WARNING);
	if (wrong || d->findings[CHECK_memctld].state < STATE_WARNING || !wanted[CHECK_memctld])
		return wrong ? EXIT_DIFFERENCE : EXIT_OK;
	return d->answers ? EXIT_DIFFERENCE : EXIT_UNREACHABLE;
}

/* Which rows: those that are named, or all that were looked at. */
static int choose(struct doctor *d, char **ids, unsigned n, bool *ret_wanted)
{
	enum check k;

	for (unsigned i = 0; i < n; i++) {
		for (k = 0; k < CHECKS && strcmp(rows[k].id, ids[i]); k++)
			;
		if (k == CHECKS) {
			cli_error("there is no check \"%s\"; `memctl help doctor` lists them", ids[i]);
			return EXIT_NOT_FOUND;
		}
		ret_wanted[k] = true;
	}
	return EXIT_OK;
}

static int print(struct cli *c, const struct doctor *d, const bool *wanted, unsigned n)
{
	bool as_table = c->style.columns || c->style.raw || c->style.noheadings, first = true;
	struct value *v;
	int r = EXIT_OK;

	if (c->json || as_table) {
		v = as_value(d, wanted, n > 0 || as_table || c->style.columns);
		if (!v) {
			cli_error("out of memory");
			return EXIT_SYSTEM;
		}
		r = cli_show_reply(c, v, "checks", doctor_columns);
		value_close(v);
	} else if (n) {
		for (enum check k = 0; k < CHECKS; k++) {
			if (!wanted[k])
				continue;
			if (!first)
				puts("");
			first = false;
			print_at_length(d, k);
		}
	} else {
		print_lines(d, wanted);
	}
	return r;
}

int run_doctor(struct cli *c, char **arguments, unsigned n)
{
	const char *variable = getenv("MEMCTL_SOCKET");
	struct doctor d = { .root = "", .timeout_ms = c->timeout_ms,
		.socket = c->socket ? c->socket : variable && *variable ? variable : SOCKET_DEFAULT };
	bool wanted[CHECKS] = { false };
	int r = choose(&d, arguments, n, wanted);

	if (r)
		return r;
	ask_memctld(&d);
	check_kernel(&d);
	check_faults(&d);
	check_memory(&d);
	check_merging(&d);
	check_libraries(&d);
	check_unit(&d);
	for (enum check k = 0; k < CHECKS; k++) {
		if (!n)
			wanted[k] = d.findings[k].state != STATE_NONE;
		else if (wanted[k] && d.findings[k].state == STATE_NONE)
			find(&d, k, STATE_INFORMATION, "Not looked at: memctld does not say.");
	}
	r = print(c, &d, wanted, n);
	if (!r)
		r = verdict(&d, wanted);
	free(d.vms);
	return r;
}
