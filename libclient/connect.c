/* The connection and the VM on it: from memctl_connect to memctl_free. */
#include "libclient/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define REGISTER_AGAIN_US 20000

const char *memctl_version(void)
{
	return MEMCTL_VERSION;
}

uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t deadline_ns(const struct memctl *m)
{
	return m->timeout_ms < 0 ? UINT64_MAX : now_ns() + (uint64_t)m->timeout_ms * 1000000u;
}

/* A struct of the caller's, of the size that the caller knows, into ours.  Members that it lacks are zero. */
static int import(void *ours, size_t size, const void *theirs, const char *what, struct memctl_error *e)
{
	size_t theirs_size;

	memset(ours, 0, size);
	if (!theirs)
		return 0;
	memcpy(&theirs_size, theirs, sizeof theirs_size);
	if (theirs_size < sizeof theirs_size)
		return fail(e, -EINVAL, ERROR_INVALID, "%s: struct_size is not set to sizeof the struct", what);
	memcpy(ours, theirs, theirs_size < size ? theirs_size : size);
	return 0;
}

static int reach(struct memctl *m, int *ret_fd, struct memctl_error *e)
{
	int r = wire_connect(m->socket, ret_fd);

	if (r == -EACCES || r == -EPERM)
		return fail(e, -EACCES, "org.memctl.PermissionDenied",
			"no permission for memctld's socket %s: join its group, or ask its owner", m->socket);
	if (r < 0)
		return fail(e, r, ERROR_UNREACHABLE, "no memctld at %s (%s): start it, or set MEMCTL_SOCKET",
			m->socket, strerror(-r));
	return 0;
}

/* Whether this process may have a userfaultfd, before anything is promised. */
static int probe_faults(struct memctl *m, struct memctl_error *e)
{
	enum memctl_faults faults;
	int fd, r;

	r = faults_open(&fd, &faults, e);
	if (r < 0)
		return r;
	close(fd);
	m->faults = (int)faults;
	return 0;
}

void go_plain(struct memctl *m, const char *why)
{
	m->faults = MEMCTL_FAULTS_NONE;
	snprintf(m->plain_why, sizeof m->plain_why, "%s", why);
	m->plain = true;
}

/* The program may change its directory before it has to connect again.  A path too long for a socket stays as it is. */
static char *lasting_path(const char *path)
{
	char directory[108], *whole;

	if (*path == '/' || !getcwd(directory, sizeof directory) || strlen(directory) + 1 + strlen(path) >= sizeof directory ||
		asprintf(&whole, "%s/%s", directory, path) < 0)
		return strdup(path);
	return whole;
}

static struct memctl *new_connection(const struct memctl_options *o)
{
	const char *env = getenv("MEMCTL_SOCKET");
	struct memctl *m = calloc(1, sizeof *m);

	if (!m)
		return NULL;
	m->calls_fd = m->pagemap_fd = m->helper_stop_fd = m->pool_fd = -1;
	m->orders_fd = m->wait_fd = m->timer_fd = m->trial.fd = m->trial.pool_fd = -1;
	m->timeout_ms = o->timeout_ms ? o->timeout_ms : DEFAULT_TIMEOUT_MS;
	m->socket = lasting_path(o->socket ? o->socket : env && *env ? env : DEFAULT_SOCKET);
	if (!m->socket) {
		free(m);
		return NULL;
	}
	pthread_mutex_init(&m->turn, NULL);
	pthread_mutex_init(&m->dispatch, NULL);
	pthread_mutex_init(&m->send, NULL);
	pthread_mutex_init(&m->leases_lock, NULL);
	pthread_mutex_init(&m->events_lock, NULL);
	wire_in_init(&m->calls_in, WIRE_REPLY_MAX);
	wire_in_init(&m->orders_in, WIRE_REPLY_MAX);
	return m;
}

int memctl_connect(const struct memctl_options *options, struct memctl **ret, struct memctl_error *e)
{
	struct memctl_error why = { 0 };
	struct memctl_options o;
	struct memctl *m;
	int r;

	if (!ret)
		return fail(e, -EINVAL, ERROR_INVALID, "memctl_connect: ret is NULL");
	r = import(&o, sizeof o, options, "memctl_options", e);
	if (r < 0)
		return r;
	m = new_connection(&o);
	if (!m)
		return fail(e, -ENOMEM, ERROR_SYSTEM, "out of memory");
	r = reach(m, &m->calls_fd, &why);
	if (!r && o.plain_fallback)
		r = probe_faults(m, &why);
	if (r < 0 && o.plain_fallback) {
		go_plain(m, why.message);
		if (m->calls_fd >= 0)
			close(m->calls_fd);
		m->calls_fd = -1;
	} else if (r < 0) {
		memctl_free(m);
		if (e)
			*e = why;
		return r;
	}
	*ret = m;
	return 0;
}

void memctl_free(struct memctl *m)
{
	if (!m)
		return;
	m->ending = true;
	/* the helper last of all: a release may need an order carried out */
	while (m->leases)
		memctl_release(m->leases, NULL);
	orders_end_helper(m);
	if (m->calls_fd >= 0)
		close(m->calls_fd);
	link_end(m);
	if (m->pagemap_fd >= 0)
		close(m->pagemap_fd);
	if (m->pool_fd >= 0)
		close(m->pool_fd);
	wire_in_fini(&m->calls_in);
	wire_in_fini(&m->orders_in);
	pthread_mutex_destroy(&m->turn);
	pthread_mutex_destroy(&m->dispatch);
	pthread_mutex_destroy(&m->send);
	pthread_mutex_destroy(&m->leases_lock);
	pthread_mutex_destroy(&m->events_lock);
	free(m->socket);
	free(m);
}

int memctl_is_plain(const struct memctl *m, const char **why)
{
	if (why)
		*why = m->plain ? m->plain_why : "";
	return m->plain;
}

enum memctl_faults memctl_fault_handling(const struct memctl *m)
{
	return (enum memctl_faults)m->faults;
}

const char *memctl_fault_handling_name(enum memctl_faults f)
{
	switch (f) {
	case MEMCTL_FAULTS_FULL:
		return "full";
	case MEMCTL_FAULTS_USER_MODE:
		return "user mode only";
	case MEMCTL_FAULTS_NONE:
		break;
	}
	return "none";
}

static int copy_text(char *to, const char *from, const char *field, struct memctl_error *e)
{
	if (!from)
		return 0;
	if (strlen(from) >= OP_STR_MAX)
		return fail(e, -EINVAL, ERROR_INVALID, "%s is longer than %d bytes", field, OP_STR_MAX - 1);
	strcpy(to, from);
	return 0;
}

static int fill_register(struct op_register_in *in, const struct memctl_vm *vm, struct memctl_error *e)
{
	if (!vm->name)
		return fail(e, -EINVAL, ERROR_INVALID, "name: a VM needs one");
	if (vm->size > INT64_MAX || vm->reservation > INT64_MAX)
		return fail(e, -EINVAL, ERROR_INVALID, "size and reservation must be below 2^63");
	in->size = vm->size;
	in->reservation = vm->reservation;
	in->limit = vm->limit > INT64_MAX ? 0 : vm->limit;	/* MEMCTL_NO_LIMIT */
	in->shares = vm->shares;
	if (copy_text(in->name, vm->name, "name", e) < 0 || copy_text(in->sharing, vm->sharing, "sharing", e) < 0 ||
		copy_text(in->swap_dir, vm->swap_dir, "swap_dir", e) < 0 ||
		copy_text(in->balloon_max, vm->balloon_max, "balloon_max", e) < 0 ||
		copy_text(in->stall_budget, vm->stall_budget, "stall_budget", e) < 0)
		return -EINVAL;
	return 0;
}

/* CALL_LOST: the connection went, and with it what it had registered. */
static int register_once(struct memctl *m, struct memctl_error *e)
{
	struct op_register_out out = { 0 };
	uint64_t on = 0;
	int r;

	r = call_on(m, OP_register, &m->vm, -1, &out, NULL, &on, e);
	if (!r)
		r = link_begin(m, out.token, e);
	if (!r)
		memcpy(m->sharing, out.sharing, sizeof m->sharing);
	return r == -ENOTCONN && m->link == LINK_NONE && !m->out_of_step ? CALL_LOST : r;
}

/* Another calls connection instead of one that has ended.  Nothing hangs on it. */
static int reopen(struct memctl *m, struct memctl_error *e)
{
	int fd, r = reach(m, &fd, e);

	if (r < 0)
		return r;
	pthread_mutex_lock(&m->turn);
	pthread_mutex_lock(&m->send);
	close(m->calls_fd);
	m->calls_fd = fd;
	m->send_broken = m->out_of_step = false;
	wire_in_fini(&m->calls_in);
	wire_in_init(&m->calls_in, WIRE_REPLY_MAX);
	pthread_mutex_unlock(&m->send);
	pthread_mutex_unlock(&m->turn);
	return 0;
}

/* The daemon may have been restarted since memctl_connect, or be restarted now. */
static int register_in_the_end(struct memctl *m, struct memctl_error *e)
{
	uint64_t deadline = deadline_ns(m);
	bool again = false;

	for (;;) {
		int r = register_once(m, e);

		/* what was registered on the connection that went is just ending */
		if (r != CALL_LOST && !(again && r == -EEXIST))
			return r;
		if (now_ns() >= deadline)
			return r == CALL_LOST ? -ENOTCONN : r;
		if (again)
			usleep(REGISTER_AGAIN_US);
		if (r == CALL_LOST && reopen(m, e) == -EACCES)
			return -EACCES;
		again = true;
	}
}

int memctl_register(struct memctl *m, const struct memctl_vm *theirs, struct memctl_error *e)
{
	struct op_register_in in = { 0 };
	struct memctl_vm vm;
	int r;

	if (!m || !theirs)
		return fail(e, -EINVAL, ERROR_INVALID, "memctl_register: a NULL argument");
	if (m->registered)
		return fail(e, -EBUSY, ERROR_INVALID, "a VM is registered on this connection already; connect again");
	r = import(&vm, sizeof vm, theirs, "memctl_vm", e);
	if (!r)
		r = fill_register(&in, &vm, e);
	if (r < 0)
		return r;
	m->vm = in;
	if (!m->plain) {
		r = probe_faults(m, e);
		if (!r)
			r = register_in_the_end(m, e);
		if (r < 0)
			return r;
	}
	m->registered = true;
	return 0;
}
