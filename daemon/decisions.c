#include "decisions.h"

#include "admit.h"
#include "ops_dispatch.h"
#include "resources.h"
#include "base/events.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool decisions_permit(struct daemon *d, struct call *call, const struct vm_file *f)
{
	if (!f || who_is_nobody(&f->user) || call_access(d, call) == ACCESS_OPERATE)
		return true;
	if (access_lists(&f->user, session_peer(call->session), session_fd(call->session)))
		return true;
	refuse(call, WIRE_ERROR_PermissionDenied, "A VM of this name is for others to register: %.150s:%u gives it to %.60s.", f->path,
		f->line[VM_KEY_user], f->value[VM_KEY_user]);
	return false;
}

/* Whether a line says something else than what was applied; of a VM that is new, whether it says anything. */
static bool is_new(const struct vm_file *f, enum vm_key key, const struct client *c)
{
	uint32_t mark = vm_file_mark(f, key);

	return mark && (!c || mark != c->file_marks[key]);
}

static const char *new_value(const struct vm_file *f, enum vm_key key, const struct client *c)
{
	return is_new(f, key, c) ? f->value[key] : "";
}

/* A sentence that becomes a part of one. */
static void without_stop(char *text)
{
	size_t n = strlen(text);

	if (n && text[n - 1] == '.')
		text[n - 1] = 0;
}

static int resources_over(const struct vm_file *f, const struct client *of, struct vm_config *c, char *why, size_t why_bytes)
{
	struct resource_words w = {
		.reservation = new_value(f, VM_KEY_reservation, of),
		.limit = new_value(f, VM_KEY_limit, of),
		.shares = new_value(f, VM_KEY_shares, of),
		.balloon_max = new_value(f, VM_KEY_balloon_max, of),
		.stall_budget = new_value(f, VM_KEY_stall_budget, of),
	};
	const char *field;
	char detail[200];
	int r = resources_parse(&w, c, &field, detail, sizeof detail);

	if (r < 0) {
		without_stop(detail);
		snprintf(why, why_bytes, "%s: VM %s cannot have that: %s", f->path, f->name, detail);
	}
	return r;
}

int decisions_over(const struct vm_file *f, struct vm_config *c, char *why, size_t why_bytes)
{
	return f ? resources_over(f, NULL, c, why, why_bytes) : 0;
}

void decisions_made(struct client *c, const struct vm_file *f)
{
	for (enum vm_key k = 0; k < VM_KEYS; k++)
		c->file_marks[k] = vm_file_mark(f, k);
}

/* ---- VMs that are there ---- */

struct decision {
	struct client *client;
	const struct vm_file *file;
	struct vm_config was, to;
	int64_t frames;			/* of the arena: more than it is promised now */
	bool resources;
};

static bool is_resource(enum vm_key k)
{
	return k != VM_KEY_sharing && k != VM_KEY_swap_dir && k != VM_KEY_user;
}

/* 1: there is something to do; 0: nothing. */
static int decide(struct decision *n, struct client *c, const struct vm_file *f, char *why, size_t why_bytes)
{
	struct vm_promise has;
	bool any = false;
	int r;

	*n = (struct decision){ .client = c, .file = f, .was = *vm_config(c->vm), .to = *vm_config(c->vm) };
	for (enum vm_key k = 0; k < VM_KEYS; k++) {
		/* who may register it is asked when somebody does */
		any = any || (k != VM_KEY_user && is_new(f, k, c));
		n->resources = n->resources || (is_resource(k) && is_new(f, k, c));
	}
	if (!any)
		return 0;
	r = resources_over(f, c, &n->to, why, why_bytes);
	if (r < 0)
		return r;
	vm_promise(c->vm, &has);
	if (n->resources)
		n->frames = (int64_t)admission_frames(&n->to, c->vm) - (int64_t)has.frames;
	return 1;
}

/* Those that give up memory come first. */
static int by_frames(const void *a, const void *b)
{
	int64_t left = ((const struct decision *)a)->frames, right = ((const struct decision *)b)->frames;

	return (left > right) - (left < right);
}

static void say_why(const struct decision *n, const struct problem *p, int r, char *why, size_t why_bytes)
{
	unsigned line = n->file->line[VM_KEY_reservation] ? n->file->line[VM_KEY_reservation] : n->file->line[VM_KEY_limit];

	snprintf(why, why_bytes, "%s:%u: VM %s cannot have that: %s", n->file->path, line, n->file->name, p->text[0] ? p->text : strerror(-r));
	without_stop(why);
}

static int check_all(struct daemon *d, const struct decision *all, size_t n, char *why, size_t why_bytes)
{
	int64_t more_frames = 0;

	for (size_t i = 0; i < n; i++) {
		struct problem p = { 0 };
		int r = all[i].resources ? admission(d, &all[i].to, all[i].client->vm, more_frames, &p) : 0;

		if (r < 0) {
			say_why(&all[i], &p, r, why, why_bytes);
			return r;
		}
		more_frames += all[i].frames;
	}
	return 0;
}

/* All, or as it was. */
static int set_all(const struct decision *all, size_t n, char *why, size_t why_bytes)
{
	struct problem p = { 0 };
	size_t i;
	int r = 0;

	for (i = 0; i < n && r == 0; i++)
		if (all[i].resources)
			r = vm_set_config(all[i].client->vm, &all[i].to, &p);
	if (r == 0)
		return 0;
	say_why(&all[--i], &p, r, why, why_bytes);
	while (i-- > 0)
		if (all[i].resources && vm_set_config(all[i].client->vm, &all[i].was, &p) < 0)
			event_tell(EVENT_SYSTEM_ERROR, EVENT_OF(.vm = all[i].file->name), "VM %s: cannot get back what it had: %s", all[i].file->name,
				p.text);
	return r;
}

/* What of the file acts, and when. */
static void tell(const struct vm_file *f, enum vm_key k, const char *when)
{
	event_tell(EVENT_RESOURCES_CHANGED, EVENT_OF(.vm = f->name), "VM %s: %s = %s%s (%s:%u)", f->name, vm_key_names[k], f->value[k], when,
		f->path, f->line[k]);
}

/* What is not a number: sharing may become less while a VM runs; the rest acts when it registers. */
static void set_sharing(const struct decision *n)
{
	const char *value = n->file->value[VM_KEY_sharing];
	enum sharing most;

	if (!is_new(n->file, VM_KEY_sharing, n->client))
		return;
	if (client_may_share(n->client, value, &most)) {
		vm_limit_sharing(n->client->vm, most);
		tell(n->file, VM_KEY_sharing, "");
	} else {
		tell(n->file, VM_KEY_sharing, " acts when it registers anew");
	}
}

static void commit(const struct decision *n)
{
	struct client *c = n->client;

	for (enum vm_key k = 0; k < VM_KEYS; k++)
		if (is_new(n->file, k, c) && is_resource(k))
			tell(n->file, k, "");
	set_sharing(n);
	if (is_new(n->file, VM_KEY_swap_dir, c) && strcmp(n->file->value[VM_KEY_swap_dir], n->was.swap_dir))
		tell(n->file, VM_KEY_swap_dir, " acts when it registers anew");
	decisions_made(c, n->file);
	client_keep(c);
}

/* A line that was taken out, and comes back, is new then. */
static void forget(struct client *c, const struct vm_file *f)
{
	bool changed = false;

	for (enum vm_key k = 0; k < VM_KEYS; k++) {
		changed = changed || (c->file_marks[k] && !vm_file_mark(f, k));
		c->file_marks[k] = vm_file_mark(f, k) ? c->file_marks[k] : 0;
	}
	if (changed)
		client_keep(c);
}

static bool is_concerned(const struct client *c)
{
	return !c->ending && !c->leaving;
}

int decisions_apply(struct daemon *d, const struct vm_files *files, unsigned *ret_changed, char *why, size_t why_bytes)
{
	struct decision *all = calloc(d->n_clients + 1, sizeof *all);
	size_t n = 0;
	int r = 0;

	if (!all) {
		snprintf(why, why_bytes, "out of memory");
		return -ENOMEM;
	}
	list_foreach(l, &d->clients) {
		struct client *c = container_of(l, struct client, link);
		const struct vm_file *f = vm_files_find(files, vm_config(c->vm)->name);

		if (r < 0 || !f || !is_concerned(c))
			continue;
		r = decide(&all[n], c, f, why, why_bytes);
		n += r > 0;
	}
	if (r >= 0) {
		qsort(all, n, sizeof *all, by_frames);
		r = check_all(d, all, n, why, why_bytes);
	}
	if (r == 0)
		r = set_all(all, n, why, why_bytes);
	if (r == 0) {
		for (size_t i = 0; i < n; i++)
			commit(&all[i]);
		list_foreach(l, &d->clients) {
			struct client *c = container_of(l, struct client, link);

			if (is_concerned(c))
				forget(c, vm_files_find(files, vm_config(c->vm)->name));
		}
		if (n)
			reclaim_poke(d->reclaim);
		*ret_changed = (unsigned)n;
	}
	free(all);
	return r;
}

void decisions_at_restart(struct daemon *d)
{
	list_foreach(l, &d->clients) {
		struct client *c = container_of(l, struct client, link);
		const struct vm_file *f = vm_files_find(d->vm_files, vm_config(c->vm)->name);
		struct decision n;
		char why[512];
		int r;

		if (!is_concerned(c))
			continue;
		r = f ? decide(&n, c, f, why, sizeof why) : 0;
		if (r > 0) {
			r = check_all(d, &n, 1, why, sizeof why);
			if (r == 0)
				r = set_all(&n, 1, why, sizeof why);
			if (r == 0)
				commit(&n);
		}
		if (r < 0)
			event_tell(EVENT_VM_REFUSED, EVENT_OF(.vm = vm_config(c->vm)->name), "%s; the VM goes on as it was", why);
		else
			forget(c, f);
	}
}
