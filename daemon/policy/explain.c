#include "policy/explain.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

__attribute__((format(printf, 2, 3)))
static void say(struct policy_words *w, const char *fmt, ...)
{
	const char *last = w->n ? w->sentences[w->n - 1] : NULL;
	char *at = last ? w->buffer + (last - w->buffer) + strlen(last) + 1 : w->buffer;
	size_t room = sizeof w->buffer - (size_t)(at - w->buffer);
	va_list args;

	if (w->n == POLICY_SENTENCES_MAX || room < 2)
		return;
	va_start(args, fmt);
	vsnprintf(at, room, fmt, args);
	va_end(args);
	w->sentences[w->n++] = at;
}

static double mib(uint64_t frames)
{
	return (double)frames / 256;
}

static void say_host(struct policy_words *w, const struct policy_view *view, const struct policy_plan *plan)
{
	say(w, "The host is %s: %.1f of %.1f MiB are free, minFree is %.1f MiB.", host_state_names[plan->next_state],
		mib(view->free_frames), mib(view->capacity_frames), mib(plan->min_free_frames));
	if (plan->next_reclaiming)
		say(w, "Memory is reclaimed until %.1f MiB are free; %.1f MiB of that nobody can give now.",
			mib(plan->goal_frames), mib(plan->unmet_frames));
}

static void say_holding(struct policy_words *w, const char *name, const struct policy_vm *vm,
	const struct policy_vm_plan *p)
{
	char limit[64] = "without a limit";

	if (vm->limit_frames != POLICY_NO_LIMIT)
		snprintf(limit, sizeof limit, "limited to %.1f MiB", mib(vm->limit_frames));
	say(w, "%s has %.1f MiB, of which %.1f MiB are guaranteed, %s; it is charged %.1f MiB, and its target is %.1f MiB.",
		name, mib(vm->size_frames), mib(vm->reservation_frames), limit, mib(vm->charged_frames),
		mib(p->target_frames));
	if (vm->compressed_frames || vm->swapped_frames)
		say(w, "%.1f MiB of it are compressed, %.1f MiB are in its swap file.", mib(vm->compressed_frames),
			mib(vm->swapped_frames));
}

static void say_rho(struct policy_words *w, const struct policy_vm *vm, const struct policy_vm_plan *p)
{
	if (vm->active_frames == POLICY_ACTIVE_UNKNOWN)
		say(w, "How much of it is active is not known yet, so all of it counts as active.");
	else
		say(w, "%.1f MiB of it are active%s; an idle page counts as %.2f active ones.", mib(vm->active_frames),
			vm->active_estimated ? ", estimated from its faults and writes because its library does not answer" : "",
			(double)p->tax_milli / 1000);
	say(w, "Its rho is %llu shares / %.1f MiB = %.3f shares a MiB; the lowest rho gives first.",
		(unsigned long long)vm->shares, mib(p->price_frames), (double)p->rho_milli / 1000);
}

static void say_balloon(struct policy_words *w, const struct policy_vm *vm, const struct policy_vm_plan *p)
{
	switch ((enum policy_balloon_state)vm->balloon_state) {
	case POLICY_BALLOON_RESPONSIVE:
		say(w, "Its balloon holds %.1f MiB, should hold %.1f MiB, and may hold %.1f MiB.", mib(vm->balloon_frames),
			mib(p->balloon_target_frames), mib(vm->balloon_max_frames));
		return;
	case POLICY_BALLOON_INACTIVE:
		say(w, "Its balloon holds %.1f MiB, should hold %.1f MiB, and has made no progress the last time that it was "
			"asked: it is not waited for.", mib(vm->balloon_frames), mib(p->balloon_target_frames));
		return;
	case POLICY_BALLOON_UNCOOPERATIVE:
		say(w, "Its balloon holds %.1f MiB and does not give the %.1f MiB that it owes: they count as held, and are "
			"taken by force.", mib(vm->balloon_frames), mib(vm->balloon_owed_frames));
		return;
	case POLICY_BALLOON_NONE:
		break;
	}
	say(w, "It has no balloon driver.");
}

static void say_asked(struct policy_words *w, const struct policy_plan *plan, const struct policy_vm *vm,
	const struct policy_vm_plan *p)
{
	if (p->limit_take_frames)
		say(w, "%.1f MiB are evicted because of its own limit.", mib(p->limit_take_frames));
	if (p->host_take_frames)
		say(w, "%.1f MiB are evicted because the host is short.", mib(p->host_take_frames));
	if (p->compress_frames || p->swap_frames)
		say(w, "Its compression cache has room for %.1f MiB of that; %.1f MiB cost writes to its swap file.",
			mib(p->compress_frames), mib(p->swap_frames));
	if (vm->stall_budget_permille || vm->stall_permille)
		say(w, "Its threads waited for pages %.1f %% of the time lately; its budget is %.1f %%%s.",
			(double)vm->stall_permille / 10, (double)vm->stall_budget_permille / 10,
			vm->stall_budget_permille ? "" : " (none)");
	if (plan->share_pass)
		say(w, "A sharing pass runs at once, because less than minFree is free.");
	if (p->blocked)
		say(w, "Its new pages wait: the host is low, and it is above its target.");
}

void policy_explain(const char *name, const struct policy_view *view, const struct policy_plan *plan,
	const struct policy_vm *vm, const struct policy_vm_plan *vm_plan, struct policy_words *ret)
{
	ret->n = 0;
	say_host(ret, view, plan);
	say(ret, "%s", policy_reason_sentences[vm_plan->reason]);
	say_holding(ret, name, vm, vm_plan);
	say_rho(ret, vm, vm_plan);
	say_balloon(ret, vm, vm_plan);
	say_asked(ret, plan, vm, vm_plan);
}
