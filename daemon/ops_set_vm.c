/* SetVm and PageIn: what an operator does to a VM that runs. */
#include "admit.h"
#include "ops_client.h"
#include "ops_dispatch.h"
#include "page_in.h"
#include "resources.h"
#include "base/events.h"

#include <errno.h>
#include <string.h>

/* The VM that an operator may change; NULL: the call has been refused. */
static struct client *find_running(struct daemon *d, struct call *call, const char *vm)
{
	struct client *c = client_find(d, vm);

	if (!c)
		refuse_vm(call, WIRE_ERROR_NoSuchVm, vm);
	else if (c->ending || c->leaving)
		refuse(call, WIRE_ERROR_BadState, "The VM is just ending, or leaving.");
	else
		return c;
	return NULL;
}

/* What may be shared from now on.  false: refused. */
static bool wanted_sharing(struct call *call, const struct client *c, const char *asked, enum sharing *ret)
{
	if (!*asked) {
		*ret = vm_sharing(c->vm);
	} else if (!client_may_share(c, asked, ret)) {
		refuse_field(call, WIRE_ERROR_InvalidValue, "sharing",
			"This VM was registered with sharing \"%s\": while it runs it may have that, or less (%s); register it anew to share "
			"more, or with others.", c->sharing, strcmp(c->sharing, "off") ? "\"zero\", \"off\"" : "there is nothing less");
		return false;
	}
	return true;
}

static void log_change(struct call *call, const struct client *c, const char *name, const char *value)
{
	if (*value)
		event_tell(EVENT_RESOURCES_CHANGED, EVENT_OF(.vm = vm_config(c->vm)->name), "VM %s: %s = %s (by user %u)",
			vm_config(c->vm)->name, name, value, (unsigned)session_peer(call->session)->uid);
}

void do_set_vm(struct daemon *d, struct call *call, const struct op_set_vm_in *in)
{
	struct client *c = find_running(d, call, in->vm);
	struct op_set_vm_out out;
	struct problem p = { 0 };
	struct vm_config config;
	enum sharing sharing;
	const char *field;
	char why[200];
	int r;

	if (!c || !wanted_sharing(call, c, in->sharing, &sharing))
		return;
	config = *vm_config(c->vm);
	if (resources_parse(&(struct resource_words){ in->reservation, in->limit, in->shares, in->balloon_max, in->stall_budget }, &config,
		&field, why, sizeof why) < 0) {
		refuse_field(call, WIRE_ERROR_InvalidValue, field, "%s", why);
		return;
	}
	r = admission(d, &config, c->vm, 0, &p);
	if (r == 0)
		r = vm_set_config(c->vm, &config, &p);
	if (r < 0) {
		event_tell(EVENT_VM_REFUSED, EVENT_OF(.vm = config.name, .session = session_peer(call->session)->pid),
			"VM %s: its resources stay as they are: %s", config.name, p.text[0] ? p.text : strerror(-r));
		refuse_problem(call, r, &p, config.swap_dir);
		return;
	}
	if (*in->sharing)
		vm_limit_sharing(c->vm, sharing);
	reclaim_poke(d->reclaim);
	log_change(call, c, "reservation", in->reservation);
	log_change(call, c, "limit", in->limit);
	log_change(call, c, "shares", in->shares);
	log_change(call, c, "balloon_max", in->balloon_max);
	log_change(call, c, "sharing", in->sharing);
	log_change(call, c, "stall_budget", in->stall_budget);
	call_reply(call, &ops[OP_set_vm], &out, NULL, 0);
}

void do_page_in(struct daemon *d, struct call *call, const struct op_page_in_in *in)
{
	struct client *c = find_running(d, call, in->vm);
	struct op_page_in_out out = { 0 };
	int r = 0;

	if (!c)
		return;
	if (in->stop)
		out.pages = page_in_stop(c);
	else
		r = page_in_start(c, in->rate, &out.pages);
	if (r < 0)
		refuse(call, WIRE_ERROR_System, "memctld is out of memory for this.");
	else
		call_reply(call, &ops[OP_page_in], &out, NULL, 0);
}
