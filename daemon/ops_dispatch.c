#include "ops_dispatch.h"

#include "ops_client.h"
#include "base/events.h"
#include "mem/inject.h"
#include "proto/contract.h"
#include "proto/writer.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- refusals ---- */

static void fail(struct call *c, struct wire_error *e, enum wire_error_id id, const char *fmt, va_list ap)
{
	wire_error_set(e, id, NULL);
	if (fmt)
		vsnprintf(e->message, sizeof e->message, fmt, ap);
	call_fail(c, e);
}

void refuse(struct call *c, enum wire_error_id id, const char *fmt, ...)
{
	struct wire_error e = { 0 };
	va_list ap;

	va_start(ap, fmt);
	fail(c, &e, id, fmt, ap);
	va_end(ap);
}

void refuse_field(struct call *c, enum wire_error_id id, const char *field, const char *fmt, ...)
{
	struct wire_error e = { 0 };
	va_list ap;

	snprintf(e.field, sizeof e.field, "%s", field);
	va_start(ap, fmt);
	fail(c, &e, id, fmt, ap);
	va_end(ap);
}

void refuse_vm(struct call *c, enum wire_error_id id, const char *vm)
{
	struct wire_error e = { 0 };

	snprintf(e.vm, sizeof e.vm, "%.63s", vm);
	wire_error_set(&e, id, NULL);
	call_fail(c, &e);
}

void refuse_numbers(struct call *c, enum wire_error_id id, uint64_t need, uint64_t have, const char *field,
	const char *fmt, ...)
{
	struct wire_error e = { .need = need, .have = have };
	va_list ap;

	if (field)
		snprintf(e.field, sizeof e.field, "%s", field);
	va_start(ap, fmt);
	fail(c, &e, id, fmt, ap);
	va_end(ap);
}

static enum wire_error_id error_of(int r, const struct problem *p)
{
	switch (p->kind) {
	case PROBLEM_NOT_ENOUGH_MEMORY:
		return WIRE_ERROR_NotEnoughMemory;
	case PROBLEM_NOT_ENOUGH_SWAP:
		return WIRE_ERROR_NotEnoughSwap;
	case PROBLEM_INVALID_SIZE:
		return WIRE_ERROR_InvalidSize;
	case PROBLEM_RESERVATION_BEYOND_SIZE:
		return WIRE_ERROR_ReservationBeyondSize;
	case PROBLEM_LEASE_BEYOND_SIZE:
		return WIRE_ERROR_LeaseBeyondSize;
	case PROBLEM_OVERLAP:
		return WIRE_ERROR_Overlap;
	case PROBLEM_NO_SUCH_LEASE:
		return WIRE_ERROR_NoSuchLease;
	case PROBLEM_LIMIT_REACHED:
		return WIRE_ERROR_LimitReached;
	case PROBLEM_BAD_DESCRIPTOR:
		return WIRE_ERROR_BadDescriptor;
	case PROBLEM_BAD_STATE:
		return WIRE_ERROR_BadState;
	case PROBLEM_SYSTEM:
		return WIRE_ERROR_System;
	case PROBLEM_NONE:
		break;
	}
	/* a refusal without numbers: what its errno says */
	switch (-r) {
	case ENOMEM:
		return WIRE_ERROR_NotEnoughMemory;
	case EINVAL:
	case ERANGE:
		return WIRE_ERROR_InvalidSize;
	case EBUSY:
	case ECANCELED:
		return WIRE_ERROR_BadState;
	case EBADF:
		return WIRE_ERROR_BadDescriptor;
	default:
		return WIRE_ERROR_System;
	}
}

void refuse_problem(struct call *c, int r, const struct problem *p, const char *dir)
{
	struct wire_error e = { .need = p->need, .have = p->have, .error = -r };
	enum wire_error_id id = error_of(r, p);

	wire_error_set(&e, id, p->text[0] ? "%s" : NULL, p->text);
	if (!p->text[0] && id == WIRE_ERROR_System)
		wire_error_set(&e, id, "A system call of memctld failed: %s.", strerror(-r));
	if (dir)
		snprintf(e.dir, sizeof e.dir, "%s", dir);
	if (id == WIRE_ERROR_System)
		event_tell(EVENT_SYSTEM_ERROR, EVENT_OF(.session = c->session ? session_peer(c->session)->pid : 0), "%s", e.message);
	call_fail(c, &e);
}

/* ---- who may ---- */

static bool is_read_only(const struct daemon *d, const struct call *c)
{
	return d->server_ro && session_server(c->session) == d->server_ro;
}

enum access_class call_access(const struct daemon *d, const struct call *c)
{
	if (!c->session)
		return ACCESS_NONE;
	if (inject.twin_open_access)
		return ACCESS_OPERATE;
	if (is_read_only(d, c))
		return ACCESS_READ;
	return access_of(&d->access, session_peer(c->session), session_fd(c->session));
}

/* Whether the VM that the call names is one of the caller's.  One that there is not: the handler says so. */
static bool is_own(struct daemon *d, const struct call *c, const struct op *op, const void *in)
{
	const struct client *client;
	const char *vm = "";
	size_t end = 0;

	for (const struct op_field *f = op->in; f->name; f++) {
		const void *at = op_field_at(f, in, &end);

		if (!strcmp(f->name, "vm"))
			vm = at;
	}
	client = client_find(d, vm);
	return *vm && (!client || client->peer.uid == session_peer(c->session)->uid);
}

static const enum access_class needed[] = {
	[OP_CLASS_READ] = ACCESS_READ,
	[OP_CLASS_LEASE] = ACCESS_LEASE,
	[OP_CLASS_CLIENT] = ACCESS_LEASE,
	[OP_CLASS_TOKEN] = ACCESS_NONE,
	[OP_CLASS_ORDERS] = ACCESS_NONE,
	[OP_CLASS_OWN] = ACCESS_LEASE,
	[OP_CLASS_OPERATOR] = ACCESS_OPERATE,
};

static void refuse_class(const struct daemon *d, struct call *c, const struct op *op, enum access_class has)
{
	if (is_read_only(d, c))
		refuse(c, WIRE_ERROR_PermissionDenied,
			"This is memctld's read-only socket: it answers questions about numbers, and nothing else; all else is asked at %.107s.",
			d->config.socket);
	else if (op->class == OP_CLASS_OPERATOR)
		refuse(c, WIRE_ERROR_PermissionDenied,
			"Only who may operate may do that: root, memctld's own user, and those whom operate_users names.");
	else if (op->class == OP_CLASS_OWN && has >= ACCESS_LEASE)
		refuse(c, WIRE_ERROR_PermissionDenied,
			"The user of a VM may do that, and who may operate: root, memctld's own user, and those whom operate_users names.");
	else if (has == ACCESS_READ)
		refuse(c, WIRE_ERROR_PermissionDenied,
			"This user may look at numbers only; access_group and allow_users say who may register VMs and act on them.");
	else
		refuse(c, WIRE_ERROR_PermissionDenied, NULL);
}

/* The one place where it is decided who may call what: before anything of the call is looked at, and, where its VM decides, as soon
 * as that is known (`in`; before: NULL).  false: refused. */
static bool may_call(struct daemon *d, struct call *c, const struct op *op, const void *in)
{
	const struct client *client = session_userdata(c->session);
	enum access_class has, need = needed[op->class];

	/* it was let in, and it is its memory */
	if (op->class == OP_CLASS_CLIENT && client && client_calls_on(client, c->session))
		return true;
	if (in && op->class != OP_CLASS_OWN)
		return true;
	/* there a token does not do either */
	if (is_read_only(d, c) && op->class != OP_CLASS_READ)
		need = ACCESS_OPERATE;
	has = call_access(d, c);
	if (has >= need && (!in || has == ACCESS_OPERATE || is_own(d, c, op, in)))
		return true;
	refuse_class(d, c, op, has);
	return false;
}

/* ---- org.varlink.service ---- */

static void get_info(struct call *c)
{
	struct writer o = WRITER_INIT;
	char *text;

	writer_object(&o, NULL);
	writer_str(&o, "vendor", "memctl");
	writer_str(&o, "product", "memctld");
	writer_str(&o, "version", MEMCTL_VERSION);
	writer_str(&o, "url", "");
	writer_array(&o, "interfaces");
	writer_str(&o, NULL, "org.varlink.service");
	writer_str(&o, NULL, "org.memctl");
	writer_end(&o);
	writer_end(&o);
	text = writer_take(&o, NULL);
	call_reply_raw(c, text ? text : "{}");
	free(text);
}

static const char service_text[] =
	"# What every varlink service answers.\n"
	"interface org.varlink.service\n"
	"\n"
	"method GetInfo() -> (vendor: string, product: string, version: string, url: string, interfaces: "
	"[]string)\n"
	"method GetInterfaceDescription(interface: string) -> (description: string)\n"
	"\n"
	"error InterfaceNotFound (interface: string)\n"
	"error MethodNotFound (method: string)\n"
	"error MethodNotImplemented (method: string)\n"
	"error InvalidParameter (parameter: string)\n"
	"error PermissionDenied ()\n"
	"error ExpectedMore ()\n";

static void get_interface_description(struct call *c)
{
	const char *name = body_string(&c->body, "interface"), *description;
	struct writer o = WRITER_INIT;
	char *text;

	if (!name) {
		refuse_field(c, WIRE_ERROR_InvalidParameter, "interface", "This parameter is missing.");
		return;
	}
	if (strcmp(name, "org.memctl") == 0) {
		description = contract_text;
	} else if (strcmp(name, "org.varlink.service") == 0) {
		description = service_text;
	} else {
		refuse_field(c, WIRE_ERROR_InterfaceNotFound, name, NULL);
		return;
	}
	writer_object(&o, NULL);
	writer_str(&o, "description", description);
	writer_end(&o);
	text = writer_take(&o, NULL);
	call_reply_raw(c, text ? text : "{}");
	free(text);
}

/* ---- dispatch ---- */

/* The handlers take the struct of their operation; the table takes them all. */
#define OP(method, name, class) \
	static void handle_##name(struct daemon *d, struct call *c, const void *in) \
	{ \
		do_##name(d, c, in); \
	}
#include "proto/ops.def"
#undef OP

static void (*const handlers[OP_COUNT])(struct daemon *, struct call *, const void *) = {
#define OP(method, name, class) [OP_##name] = handle_##name,
#include "proto/ops.def"
#undef OP
};

union any_in {
#define OP(method, name, class) struct op_##name##_in in_##name;
#include "proto/ops.def"
#undef OP
};

static bool is_interface(const char *method, const char *interface)
{
	size_t n = strlen(interface);

	return strncmp(method, interface, n) == 0 && method[n] == '.' && !strchr(method + n + 1, '.');
}

static void call_unknown(struct call *c, const char *method)
{
	const char *dot = strrchr(method, '.');
	char interface[96];

	if (strcmp(method, "org.varlink.service.GetInfo") == 0) {
		get_info(c);
	} else if (strcmp(method, "org.varlink.service.GetInterfaceDescription") == 0) {
		get_interface_description(c);
	} else if (is_interface(method, "org.memctl") || is_interface(method, "org.varlink.service")) {
		refuse_field(c, WIRE_ERROR_MethodNotFound, method, NULL);
	} else {
		snprintf(interface, sizeof interface, "%.*s", dot ? (int)(dot - method) : 95, method);
		refuse_field(c, WIRE_ERROR_InterfaceNotFound, interface, NULL);
	}
}

bool dispatch_urgent(const struct call *c, void *userdata)
{
	return strcmp(c->body.method, ops[OP_done].method) == 0;
}

void dispatch_call(struct call *c, void *userdata)
{
	struct daemon *d = userdata;
	const struct op *op = op_find(c->body.method);
	struct client *client = session_userdata(c->session);
	struct body_fault fault = { 0 };
	union any_in in;
	int r;

	if (op && !may_call(d, c, op, NULL))
		return;
	if (c->message.fds_lost || c->message.n_fds != (op ? op->fds_in : 0)) {
		refuse(c, WIRE_ERROR_BadDescriptor, "This call carries %u file descriptors; %s%u came.",
			op ? op->fds_in : 0, c->message.fds_lost ? "more than " : "", c->message.n_fds);
		return;
	}
	if (!op) {
		call_unknown(c, c->body.method);
		return;
	}
	if (c->body.more && op->class != OP_CLASS_ORDERS) {
		refuse_field(c, WIRE_ERROR_InvalidParameter, "more",
			"This method answers once; call it without \"more\".");
		return;
	}
	if (!c->body.more && op->class == OP_CLASS_ORDERS) {
		refuse(c, WIRE_ERROR_ExpectedMore, NULL);
		return;
	}
	r = body_decode(&c->body, op->in, true, &in, &fault);
	if (r < 0) {
		if (r == -ENOMEM)
			refuse(c, WIRE_ERROR_System, "memctld is out of memory for this message.");
		else
			refuse_field(c, WIRE_ERROR_InvalidParameter, fault.field, "%s", fault.text);
		return;
	}
	call_was_read(c);
	if (may_call(d, c, op, &in)) {
		if (op->class == OP_CLASS_CLIENT && (!client || !client_calls_on(client, c->session)))
			refuse(c, WIRE_ERROR_BadState, "No VM is registered on this connection: call Register first.");
		else
			handlers[op - ops](d, c, &in);
	}
	op_fields_fini(op->in, &in);
}

void dispatch_closed(struct session *s, void *userdata)
{
	struct client *client = session_userdata(s);

	if (client)
		client_session_closed(client, s);
}
