#include "tests/unit/fake_life.h"

#include "mem/uffd.h"
#include "proto/body.h"
#include "proto/wire.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define PAGE   4096u
#define LEASES 8
#define CONNS  8
#define POOL_PAGES 65536u
#define FLIGHT 16
#define STAT_JSON                                                                                            \
	"{\"name\":\"a\",\"size_bytes\":1048576,\"resident_bytes\":8192,\"faults_zero\":2,\"faults_"         \
	"swapped\":3,\"shared_bytes\":12288,\"saved_bytes\":4096}"

struct conn {
	int fd;
	struct wire_in in;
};

struct served {
	uint64_t address, size;
	int memfd, uffd;
	bool active, named;
	_Atomic bool gone; /* its fault thread looks */
};


static struct conn conns[CONNS];
static struct served leases[LEASES];
static unsigned leases_n, pins;
static int orders_fd = -1, held_fd = -1, pool = -1;
static enum op_id held_id;
static uint64_t order_id;
static struct op_attend_out *flight[FLIGHT]; /* orders about sharing, by their number */
/* How many of them; under the lock, which a fault is served under too. */
static unsigned busy;
static pthread_mutex_t busy_lock = PTHREAD_MUTEX_INITIALIZER;
static bool resuming, silent, dies_with_order;

static void serve(struct served *s, struct uffd_fault *fault)
{
	uint64_t page[PAGE / 8] = { 0 }, done;

	fault->address &= ~(uint64_t)(PAGE - 1);
	page[0] = (fault->address - s->address) / PAGE + 1;
	if (!fault->missing) {
		fake->breaks++;
		uffd_unprotect(s->uffd, fault->address, PAGE);
	} else { /* one that is there already only wants to be woken */
		uffd_copy(s->uffd, fault->address, page, PAGE, &done);
	}
	uffd_wake(s->uffd, fault->address, PAGE);
}

static void *serve_faults(void *userdata)
{
	struct served *s = userdata;
	struct uffd_fault fault;

	for (;;) {
		int r = uffd_read(s->uffd, &fault);

		if (r < 0 && r != -EINTR)
			return NULL;
		if (r <= 0 || fake->no_pages || s->gone)
			continue;
		pthread_mutex_lock(&busy_lock);
		if (!busy) /* else it will be woken, and touch again */
			serve(s, &fault);
		pthread_mutex_unlock(&busy_lock);
	}
}

static void send_text(int fd, char *text, size_t length, const int *fds, unsigned n)
{
	wire_send(fd, text, length, fds, n, UINT64_MAX);
	free(text);
}

static void reply(int fd, enum op_id id, const void *out, int with)
{
	size_t length;
	char *text;

	if (silent)
		return;
	if (body_write_reply(&text, &length, &ops[id], out, false) == 0)
		send_text(fd, text, length, &with, with >= 0);
}

static void refuse_as(int fd, enum wire_error_id id)
{
	struct wire_error e = { .need = 111, .have = 22 };
	size_t length;
	char *text;

	wire_error_set(&e, id, NULL);
	if (body_write_error(&text, &length, &e) == 0)
		send_text(fd, text, length, NULL, 0);
}

static void refuse(int fd)
{
	refuse_as(fd, WIRE_ERROR_NotEnoughMemory);
}

/* ---- from life to life ---- */

static void remember_kept(const struct kept *k, int fd)
{
	struct served *s = &leases[k->number % LEASES];

	switch (k->what) {
	case KEPT_MEMFD:
		s->memfd = fd;
		s->size = k->value;
		s->uffd = -1;
		leases_n = (unsigned)k->number + 1;
		break;
	case KEPT_UFFD:
		s->uffd = fd;
		s->address = k->value;
		s->active = true;
		break;
	case KEPT_RELEASED:
		s->gone = true;
		break;
	case KEPT_POOL:
		pool = fd;
		break;
	case KEPT_ORDER:
		order_id = k->value;
		break;
	}
}

/* Serve what is kept, before anybody connects. */
static void revive(void)
{
	struct kept kept[64];
	int fds[64];
	unsigned n = 0;
	pthread_t t;

	while (n < 64 && take_kept(&kept[n], &fds[n]))
		n++;
	if (fake->forgets)
		return;
	for (unsigned i = 0; i < n; i++) {
		keep(kept[i].what, kept[i].number, kept[i].value, fds[i]);
		remember_kept(&kept[i], fds[i]);
	}
	for (unsigned i = 0; i < leases_n; i++)
		if (leases[i].active && !leases[i].gone) {
			pthread_create(&t, NULL, serve_faults, &leases[i]);
			uffd_wake(leases[i].uffd, leases[i].address, leases[i].size);
		}
}

static void do_resume(int fd, const struct op_resume_in *in)
{
	struct op_resume_out out = { .vm = "a" };

	note("Resume %" PRIx64, in->token);
	if (fake->forgets) {
		refuse_as(fd, WIRE_ERROR_PermissionDenied);
	} else if (fake->not_now) {
		fake->not_now--;
		refuse_as(fd, WIRE_ERROR_BadState);
	} else {
		memcpy(out.sharing, fake->sharing, sizeof fake->sharing);
		for (unsigned i = 0; i < leases_n; i++)
			leases[i].named = false;
		resuming = true;
		reply(fd, OP_resume, &out, -1);
	}
}

static bool same_file(int a, int b)
{
	struct stat sa, sb;

	return !fstat(a, &sa) && !fstat(b, &sb) && sa.st_ino == sb.st_ino && sa.st_dev == sb.st_dev;
}

static void do_resume_lease(int fd, const struct op_resume_lease_in *in, int memfd)
{
	struct op_resume_lease_out out;
	struct served *s = in->lease < leases_n ? &leases[in->lease] : NULL;
	bool right = s && s->active && !s->gone && s->address == in->address && same_file(memfd, s->memfd);

	note("ResumeLease %" PRIu64 " %s%s", in->lease, right ? "right" : "wrong", in->plain ? " plain" : "");
	if (memfd >= 0)
		close(memfd);
	if (fake->forgets_leases) {
		refuse_as(fd, WIRE_ERROR_NoSuchLease);
		return;
	}
	if (s)
		s->named = true;
	reply(fd, OP_resume_lease, &out, -1);
}

static void end_resume(void)
{
	for (unsigned i = 0; resuming && i < leases_n; i++)
		if (!leases[i].named && !leases[i].gone) {
			note("Unnamed %u", i);
			leases[i].gone = true;
			keep(KEPT_RELEASED, i, 0, -1);
		}
	resuming = false;
}

static void do_lease(int fd, const struct op_lease_in *in)
{
	struct op_lease_out out = { .lease = leases_n };
	struct served *s = &leases[leases_n];

	note("Lease %" PRIu64 " %" PRIu64, in->gpa, in->size);
	s->size = in->size;
	s->named = true; /* Attend may come after it */
	s->memfd = memfd_create("fake", MFD_CLOEXEC);
	if (ftruncate(s->memfd, (off_t)in->size) < 0)
		note("no memory");
	leases_n++;
	keep(KEPT_MEMFD, out.lease, s->size, s->memfd);
	reply(fd, OP_lease, &out, fake->no_descriptor ? -1 : s->memfd);
}

static void do_activate(int fd, const struct op_activate_in *in, int uffd)
{
	struct op_activate_out out;
	struct served *s = &leases[in->lease];
	pthread_t t;

	note("Activate %" PRIu64 " %s %s", in->lease, uffd >= 0 && uffd_is(uffd) ? "userfaultfd" : "nothing",
	        in->user_mode_only ? "user" : "full");
	s->address = in->address;
	s->uffd = uffd;
	s->active = true;
	keep(KEPT_UFFD, in->lease, s->address, uffd);
	pthread_create(&t, NULL, serve_faults, s);
	reply(fd, OP_activate, &out, -1);
}

/* Whether the client still maps the lease: it must, until the daemon has answered. */
static bool mapped(uint64_t address)
{
	char path[64], line[512], start[32];
	bool found = false;
	FILE *f;

	snprintf(path, sizeof path, "/proc/%d/maps", (int)client);
	snprintf(start, sizeof start, "%" PRIx64 "-", address);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof line, f))
		found |= !strncmp(line, start, strlen(start));
	if (f)
		fclose(f);
	return found;
}

static void do_release(int fd, const struct op_release_in *in)
{
	struct op_release_out out;

	note("Release %" PRIu64 " %s", in->lease, mapped(leases[in->lease].address) ? "mapped" : "unmapped");
	leases[in->lease].gone = true;
	keep(KEPT_RELEASED, in->lease, 0, -1);
	reply(fd, OP_release, &out, -1);
}

/* Any of the four; only pins have a number. */
static void do_range(int fd, enum op_id id, const struct op_pin_in *in)
{
	struct op_pin_out out = { .pages = in->length / PAGE };

	if (id == OP_pin || id == OP_unpin)
		note("%s %" PRIu64 " %" PRIu64 " %" PRIu64 " #%" PRIu64, ops[id].name, in->lease, in->offset, in->length,
			in->call);
	else
		note("%s %" PRIu64 " %" PRIu64 " %" PRIu64, ops[id].name, in->lease, in->offset, in->length);
	if (id == OP_pin && ++pins == fake->fail_pin) {
		refuse(fd);
	} else if (fake->wait_for_done) {
		held_fd = fd;
		held_id = id;
	} else {
		reply(fd, id, &out, -1);
	}
}

/* ---- the balloon ---- */

/* It keeps no book of what is in it. */
static void do_balloon(int fd, enum op_id id, const struct op_balloon_inflate_in *in)
{
	struct op_balloon_inflate_out *out = calloc(1, sizeof *out);
	char text[120] = "";
	size_t n = 0;

	for (unsigned i = 0; i < in->runs.n; i++) {
		const struct op_run *run = &in->runs.run[i];

		if (n < sizeof text - 40)
			n += (size_t)snprintf(text + n, sizeof text - n, "%s%" PRIu64 ":%" PRIu64, i ? "," : "", run->page, run->count);
		for (uint64_t page = run->page; page < run->page + run->count; page++) {
			if (fake->refuse_odd && page % 2)
				out->refused.run[out->refused.n++] = (struct op_run){ .page = page, .count = 1 };
			else
				out->pages++;
		}
	}
	note("%s %" PRIu64 " %s", ops[id].name, in->lease, text);
	if (id == OP_balloon_inflate)
		reply(fd, id, out, -1);
	else
		reply(fd, id, &(struct op_balloon_deflate_out){ .pages = out->pages }, -1);
	free(out);
}

/* ---- sharing ---- */

static void do_join_pool(int fd, const struct op_join_pool_in *in)
{
	struct op_join_pool_out out = { .pool_pages = POOL_PAGES };
	char path[64];
	int read_only;

	note("JoinPool %s", in->maps > 10 ? "maps" : "no maps");
	if (fake->no_pool) {
		refuse(fd);
		return;
	}
	if (pool >= 0)
		close(pool);
	pool = memfd_create("pool", MFD_CLOEXEC);
	keep(KEPT_POOL, 0, 0, pool);
	if (ftruncate(pool, (off_t)POOL_PAGES * PAGE) < 0 || fchmod(pool, 0400) < 0)
		note("no pool");
	snprintf(path, sizeof path, "/proc/self/fd/%d", pool);
	read_only = open(path, O_RDONLY | O_CLOEXEC);
	reply(fd, OP_join_pool, &out, read_only);
	close(read_only);
}

static void punch(const struct served *s, const struct op_run *run)
{
	fallocate(s->memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(run->page * PAGE),
	        (off_t)(run->count * PAGE));
}

static bool is_sharing(const struct op_attend_out *o)
{
	return !strcmp(o->kind, "share") || !strcmp(o->kind, "home");
}

static void copy_to_pool(const struct served *s, const struct op_run *run)
{
	char page[PAGE];

	uffd_protect(s->uffd, s->address + run->page * PAGE, run->count * PAGE);
	for (uint64_t i = 0; i < run->count; i++)
		if (pread(s->memfd, page, PAGE, (off_t)((run->page + i) * PAGE)) != PAGE ||
		        pwrite(pool, page, PAGE, (off_t)((run->to + i) * PAGE)) != PAGE)
			note("no copy");
}

/* Before it is sent.  An order that is to be refused is none of ours to prepare. */
static void prepare(const struct op_attend_out *o)
{
	struct op_attend_out *copy;

	if (!is_sharing(o) || o->lease >= leases_n)
		return;
	pthread_mutex_lock(&busy_lock);
	busy++;
	pthread_mutex_unlock(&busy_lock);
	for (unsigned i = 0; !strcmp(o->kind, "share") && i < o->runs.n; i++)
		if (o->runs.run[i].to && o->runs.run[i].to + o->runs.run[i].count <= POOL_PAGES)
			copy_to_pool(&leases[o->lease], &o->runs.run[i]);
	copy = malloc(sizeof *copy);
	*copy = *o;
	flight[o->order % FLIGHT] = copy;
}

static void settle(const struct op_done_in *in)
{
	struct op_attend_out *o = flight[in->order % FLIGHT];
	struct served *s = &leases[o->lease];
	bool share = !strcmp(o->kind, "share");
	uint64_t pages = 0;

	for (unsigned i = 0; share && i < o->runs.n; i++) {
		const struct op_run *run = &o->runs.run[i];

		pages += run->count;
		if (pages > in->pages)
			uffd_unprotect(s->uffd, s->address + run->page * PAGE, run->count * PAGE);
		else if (!fake->keep_frames)
			punch(s, run);
	}
	pthread_mutex_lock(&busy_lock);
	busy--;
	pthread_mutex_unlock(&busy_lock);
	uffd_wake(s->uffd, s->address, s->size);
	flight[in->order % FLIGHT] = NULL;
	free(o);
}

static void do_done(const struct op_done_in *in)
{
	struct op_populate_out out = { 0 };

	if (flight[in->order % FLIGHT] && flight[in->order % FLIGHT]->order == in->order) {
		settle(in);
		note("Done %" PRIu64 " %s %" PRIu64, in->order, in->bits, in->pages);
	} else if (in->pages) {
		note("Done %" PRIu64 " %s %" PRIu64, in->order, in->bits, in->pages);
	} else {
		note("Done %" PRIu64 " %s", in->order, in->bits);
	}
	if (held_fd >= 0)
		reply(held_fd, held_id, &out, -1);
	held_fd = -1;
}

static void do_register(int fd, const struct op_register_in *in)
{
	struct op_register_out out = { .token = 0xfeedbeefcafef00d + fake->lives - 1, .page_size = PAGE };

	if (fake->names_taken && !silent) {
		note("Register too early");
		fake->names_taken--;
		refuse_as(fd, WIRE_ERROR_VmExists);
		return;
	}
	memcpy(out.sharing, fake->sharing, sizeof fake->sharing);
	note("Register %s size %" PRIu64 " limit %" PRIu64, in->name, in->size, in->limit);
	reply(fd, OP_register, &out, -1);
}

static void do_op(int fd, const struct op *op, const void *in, struct wire_message *m)
{
	struct op_advise_out advised;
	struct op_show_vm_out shown = { .vm = (char[]){ STAT_JSON } };

	switch ((enum op_id)(op - ops)) {
	case OP_register:
		do_register(fd, in);
		break;
	case OP_attend:
		end_resume();
		note("Attend %" PRIx64, ((const struct op_attend_in *)in)->token);
		orders_fd = fd;
		break;
	case OP_resume:
		do_resume(fd, in);
		break;
	case OP_resume_lease:
		do_resume_lease(fd, in, wire_take_fd(m, 0));
		break;
	case OP_join_pool:
		do_join_pool(fd, in);
		break;
	case OP_lease:
		do_lease(fd, in);
		break;
	case OP_activate:
		do_activate(fd, in, wire_take_fd(m, 0));
		break;
	case OP_release:
		do_release(fd, in);
		break;
	case OP_advise:
		note("advise %s", ((const struct op_advise_in *)in)->advice);
		reply(fd, OP_advise, &advised, -1);
		break;
	case OP_balloon_start:
		note("balloon_start");
		reply(fd, OP_balloon_start, &(struct op_balloon_start_out){ .max = PAGE }, -1);
		break;
	case OP_balloon_poll:
		reply(fd, OP_balloon_poll, &(struct op_balloon_poll_out){ .target = fake->target }, -1);
		break;
	case OP_balloon_inflate:
	case OP_balloon_deflate:
		do_balloon(fd, (enum op_id)(op - ops), in);
		break;
	case OP_done:
		do_done(in);
		break;
	case OP_show_vm:
		reply(fd, OP_show_vm, &shown, -1);
		break;
	default:
		do_range(fd, (enum op_id)(op - ops), in);
	}
}

static _Noreturn void die(void)
{
	kill(getpid(), SIGKILL);
	for (;;)
		pause();
}

static void do_or_die(int fd, const struct op *op, const void *in, struct wire_message *m)
{
	unsigned id = (unsigned)(op - ops) + 1;

	if (fake->die_before == id) {
		fake->die_before = 0;
		die();
	}
	silent = fake->die_after == id;
	do_op(fd, op, in, m);
	if (silent) {
		fake->die_after = 0;
		die();
	}
}

/* false: the connection is to be closed */
static bool take(struct conn *c, struct wire_message *m)
{
	struct body body;
	const struct op *op;
	void *in;

	if (body_parse(&body, m->text, m->length, NULL) < 0) {
		note("bad message");
		return false;
	}
	if (!strcmp(body.method, "org.varlink.service.GetInfo")) {
		if (fake->no_orders)
			refuse_as(c->fd, WIRE_ERROR_LimitReached);
		else
			send_text(c->fd, strdup("{\"parameters\":{}}"), sizeof "{\"parameters\":{}}" - 1, NULL, 0);
		body_fini(&body);
		return true;
	}
	op = op_find(body.method);
	in = op ? calloc(1, op->in_bytes + 1) : NULL;
	if (!in || body_decode(&body, op->in, true, in, NULL) < 0) {
		note("bad call of %s", body.method);
	} else if (fake->hang_up) {
		free(in);
		body_fini(&body);
		return false;
	} else if (fake->garbage) {
		wire_send(c->fd, "what?", 5, NULL, 0, UINT64_MAX);
	} else if (fake->refuse) {
		refuse(c->fd);
	} else if (!fake->mute) {
		do_or_die(c->fd, op, in, m);
	} else {
		note("ignored %s", body.method);
	}
	free(in);
	body_fini(&body);
	return true;
}

static void hang_up(struct conn *c)
{
	if (orders_fd == c->fd)
		orders_fd = -1;
	if (held_fd == c->fd)
		held_fd = -1;
	wire_in_fini(&c->in);
	close(c->fd);
	c->fd = -1;
}

static void hear(struct conn *c)
{
	struct wire_message m = WIRE_MESSAGE_NULL;
	bool open = wire_in_fill(&c->in, c->fd) > 0;

	while (open && wire_in_next(&c->in, &m) > 0) {
		open = take(c, &m);
		wire_message_fini(&m);
	}
	if (open)
		return;
	note("bye");
	hang_up(c);
}

/* What is done and not sent. */
static bool do_here(const struct op_attend_out *o)
{
	const struct served *s = &leases[o->lease % LEASES];

	for (unsigned i = 0; i < o->runs.n; i++) {
		const struct op_run *run = &o->runs.run[i];

		if (!strcmp(o->kind, "punch"))
			punch(s, run);
		else if (!strcmp(o->kind, "unprotect"))
			uffd_unprotect(s->uffd, s->address + run->page * PAGE, run->count * PAGE);
		else if (!strcmp(o->kind, "wake"))
			uffd_wake(s->uffd, s->address + run->page * PAGE, run->count * PAGE);
		else
			return false;
	}
	note("%sed", o->kind);
	return true;
}

static void give_order(char *line)
{
	struct op_attend_out *o = calloc(1, sizeof *o);
	char *kind = strtok(line, " "), *lease = strtok(NULL, " "), *run;
	size_t length;
	char *text;

	if (!strcmp(kind, "die")) {
		dies_with_order = true;
	} else if (!strcmp(kind, "hangup")) {
		for (unsigned i = 0; i < CONNS; i++)
			if (conns[i].fd >= 0 && (!lease || conns[i].fd == orders_fd))
				hang_up(&conns[i]);
	}
	if (!lease || !strcmp(kind, "hangup")) {
		free(o);
		return;
	}
	strcpy(o->kind, kind);
	o->lease = strtoull(lease, NULL, 10);
	while ((run = strtok(NULL, ","))) {
		struct op_run *r = &o->runs.run[o->runs.n++];

		r->page = strtoull(run, &run, 10);
		r->count = strtoull(run + 1, &run, 10);
		r->to = *run ? strtoull(run + 1, NULL, 10) : 0;
	}
	if (!do_here(o)) {
		o->order = ++order_id;
		keep(KEPT_ORDER, 0, order_id, -1);
		prepare(o);
		if (body_write_reply(&text, &length, &ops[OP_attend], o, true) == 0)
			send_text(orders_fd, text, length, NULL, 0);
		if (dies_with_order)
			die();
	}
	free(o);
}

static void hear_orders(FILE *in)
{
	char line[4096];

	if (!fgets(line, sizeof line, in))
		_exit(0);
	line[strcspn(line, "\n")] = 0;
	give_order(line);
}

static void meet(int listener)
{
	int fd = accept(listener, NULL, NULL);

	for (unsigned i = 0; i < CONNS; i++)
		if (conns[i].fd < 0) {
			conns[i].fd = fd;
			wire_in_init(&conns[i].in, WIRE_CALL_MAX);
			return;
		}
	close(fd);
}

static _Noreturn void work(int listener, int orders_in)
{
	FILE *in = fdopen(orders_in, "r");

	setvbuf(in, NULL, _IONBF, 0);
	for (unsigned i = 0; i < CONNS; i++)
		conns[i].fd = -1;
	for (;;) {
		struct pollfd p[CONNS + 2] = { { listener, POLLIN, 0 },
			/* orders wait for somebody who attends */
			{ orders_in, orders_fd >= 0 ? POLLIN : 0, 0 } };

		for (unsigned i = 0; i < CONNS; i++)
			p[i + 2] = (struct pollfd){ conns[i].fd, POLLIN, 0 };
		if (poll(p, CONNS + 2, -1) < 0)
			continue;
		for (unsigned i = 0; i < CONNS; i++)
			if (p[i + 2].revents)
				hear(&conns[i]);
		if (p[0].revents)
			meet(listener);
		if (p[1].revents)
			hear_orders(in);
	}
}

static int listen_at(const char *path)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(a.sun_path, sizeof a.sun_path, "%s", path);
	unlink(path);
	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) < 0 || listen(fd, 8) < 0)
		abort();
	return fd;
}

_Noreturn void live(int orders_in)
{
	int listener;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	revive();
	listener = listen_at(fake->socket);
	if (chmod(fake->socket, 0777) < 0)
		abort();
	fake->lives++;
	work(listener, orders_in);
}
