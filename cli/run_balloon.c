/* The balloon of a QEMU guest, asked for by memctld.
 *
 * Theory of operation.  Once a second this thread asks QEMU, by a QMP socket that nobody else has, how large the balloon is and
 * what the guest says of its memory, tells memctld (BalloonAgent), hears the size that memctld wants, and gives QEMU that as a
 * command when it is another one.  What it tells is a claim: memctld believes the size as far as it finds pages of zeros, and the
 * guest's own numbers not at all; they are shown.
 *
 * Nobody waits for it.  QEMU answers QMP under its big lock, and a thread of it that waits for a page holds that lock: so no page
 * may ever wait for QMP, and none does, for memctld is told and asked from here.  QEMU may be silent for any time: one command is
 * under way, its reply is awaited for a second a round, and is still taken when it comes rounds later.  Silent for longer than
 * SILENT_MS, or before its guest has a driver, the balloon is told to be out of reach; memctld then reclaims by itself, as it does
 * after 5 s when it hears nothing at all (the agent killed, or memctl).  memctld may be away or new each time.
 *
 * Whether the guest has a driver, QEMU does not say.  So it is always asked for a page at least: a driver that is there takes it,
 * and the size changes.  After a reset the size is still the last kernel's, until the next one's driver reports; the page asked for
 * is another one then.
 *
 * A kernel gives a balloon all that it can scrape together, and whoever allocates next meets the out-of-memory killer.  Where the
 * guest tells what it has available, the agent therefore leaves it a reserve, and lets the balloon go down when that shrinks.  Such a
 * guest stays below its target, and memctld treats it as any that does not give what it was asked for: it takes the rest itself. */
#include "cli/run_balloon.h"

#include "cli/cli.h"

#include <errno.h>
#include <inttypes.h>
#include <memctl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define ROUND_MS     1000
#define REPLY_MS     1000  /* of a round, for all its replies */
#define SILENT_MS    3000  /* until a QEMU that does not answer is out of reach */
#define STALE_MS     10000 /* what a guest told so long ago is not told on */
#define FORGOTTEN    5     /* rounds in which memctld has not known the VM, until its balloon is let go */
#define LINE_BYTES   65536 /* the longest reply that is taken */
#define PAGE_BYTES   UINT64_C(4096)
#define STEP_BYTES   (UINT64_C(1) << 20) /* a smaller change of what the guest can give is none */
#define RESERVE_MIN  (UINT64_C(24) << 20)
#define RESERVE_PART 16 /* of guest memory */
#define NO_NUMBER    UINT64_MAX

/* What the guest tells, as QEMU names it and as memctld is told. */
enum { CLAIM_TOTAL, CLAIM_AVAILABLE };
static const struct {
	const char *path, *name;
} claims[] = {
	[CLAIM_TOTAL] = { "return.stats.stat-total-memory", "total_bytes" },
	[CLAIM_AVAILABLE] = { "return.stats.stat-available-memory", "available_bytes" },
	{ "return.stats.stat-free-memory", "free_bytes" },
	{ "return.stats.stat-disk-caches", "caches_bytes" },
	{ "return.stats.stat-swap-in", "swapped_in_bytes" },
	{ "return.stats.stat-swap-out", "swapped_out_bytes" },
	{ "return.stats.stat-major-faults", "major_faults" },
	{ "return.stats.stat-minor-faults", "minor_faults" },
};
#define CLAIMS (sizeof claims / sizeof *claims)

struct run_balloon {
	pthread_t thread;
	int stop; /* an eventfd */
	const char *socket, *vm;
	struct memctl *m; /* NULL: not connected */

	int qmp;
	char line[LINE_BYTES]; /* what was read and is not taken yet */
	size_t filled;
	bool overlong; /* skip to the end of the line */
	uint64_t last_id, awaited; /* awaited 0: no command is under way */
	int64_t deadline, answered; /* ms */

	bool greeted, looked;
	char device[128]; /* its place in QEMU's object model; "": not found, there are no claims then */
	uint64_t ram_bytes, size_bytes, size_before_bytes;
	bool has_driver;
	uint64_t old_bytes; /* without a driver: what the size was at the start, or is left of the last one */
	uint64_t claimed[CLAIMS];
	uint64_t updated; /* the guest's numbers: by QEMU's clock, only to see that they are new */
	int64_t updated_at;

	uint64_t target_bytes, asked_bytes; /* asked 0: of QEMU, nothing yet */
	unsigned forgotten;
	bool said_why;
};

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* ---- QMP */

/* Until the descriptor is ready: 0; -ETIMEDOUT at the deadline, -ECANCELED at the end. */
static int await(struct run_balloon *b, int fd, short events, int64_t deadline)
{
	struct pollfd p[2] = { { .fd = b->stop, .events = POLLIN }, { .fd = fd, .events = events } };
	int64_t left = deadline - now_ms();
	int n = poll(p, 2, left > 0 ? (int)left : 0);

	if (n < 0)
		return errno == EINTR ? 0 : -errno;
	if (p[0].revents)
		return -ECANCELED;
	return n ? 0 : -ETIMEDOUT;
}

/* QEMU's word for "not known" is 2^64 - 1, which is no number to jansson: make it one that is no claim either. */
static void soften(char *line)
{
	static const char unknown[] = "18446744073709551615", instead[] = "-1                  ";

	for (char *p = line; (p = strstr(p, unknown));)
		memcpy(p, instead, sizeof unknown - 1);
}

/* The next whole line, NULL if there is none yet. */
static struct value *take_line(struct run_balloon *b)
{
	char *end = memchr(b->line, '\n', b->filled);
	struct value *v = NULL;
	size_t length;

	if (!end && b->filled == sizeof b->line) {
		b->overlong = true;
		b->filled = 0;
	}
	if (!end)
		return NULL;
	length = (size_t)(end - b->line) + 1;
	*end = 0;
	if (!b->overlong) {
		soften(b->line);
		v = value_open(b->line);
	}
	b->overlong = false;
	b->filled -= length;
	memmove(b->line, b->line + length, b->filled);
	return v;
}

static bool has_line(const struct run_balloon *b)
{
	return memchr(b->line, '\n', b->filled) || b->filled == sizeof b->line;
}

static int fill_line(struct run_balloon *b)
{
	ssize_t n;
	int r = await(b, b->qmp, POLLIN, b->deadline);

	if (r < 0)
		return r;
	n = recv(b->qmp, b->line + b->filled, sizeof b->line - b->filled, MSG_DONTWAIT);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	b->filled += (size_t)n;
	return n ? 0 : -EPIPE;
}

/* The next kernel's driver is to be waited for; the device keeps the old size until that reports. */
static void forget_driver(struct run_balloon *b)
{
	b->has_driver = false;
	b->old_bytes = b->size_bytes;
	b->asked_bytes = 0;
	b->updated_at = now_ms() - STALE_MS;
}

/* The reply to the command under way; events on the way to it are heard.  *ret may be NULL.  -EREMOTEIO: QEMU refused it. */
static int hear(struct run_balloon *b, struct value **ret)
{
	int r = 0;

	while (!r) {
		struct value *v;
		bool failed;

		if (!has_line(b)) {
			r = fill_line(b);
			continue;
		}
		v = take_line(b);
		if (!v)
			continue;
		if (!strcmp(value_str(v, "event"), "RESET"))
			forget_driver(b);
		if (value_u64(v, "id", 0) != b->awaited) {
			value_close(v);
			continue;
		}
		b->awaited = 0;
		b->answered = now_ms();
		failed = value_at(v, "error");
		if (ret && !failed)
			*ret = v;
		else
			value_close(v);
		return failed ? -EREMOTEIO : 0;
	}
	return r;
}

/* `arguments`: a JSON object's text.  *ret is the caller's for value_close. */
static int ask(struct run_balloon *b, const char *command, const char *arguments, struct value **ret)
{
	char text[512];
	int length = snprintf(text, sizeof text, "{\"execute\":\"%s\",\"arguments\":%s,\"id\":%" PRIu64 "}\n", command,
	        arguments, ++b->last_id);

	b->awaited = b->last_id;
	/* there is room: one command is under way */
	if (send(b->qmp, text, (size_t)length, MSG_DONTWAIT | MSG_NOSIGNAL) != length)
		return -EPIPE;
	return hear(b, ret);
}

/* ---- what QEMU knows */

/* The device's path, by which it gives the guest's numbers; devices without an id lie elsewhere. */
static int find_device(struct run_balloon *b)
{
	static const char *const places[] = { "/machine/peripheral", "/machine/peripheral-anon" };

	for (unsigned i = 0; i < 2 && !*b->device; i++) {
		char text[64];
		const struct value *all;
		struct value *v = NULL;
		int r;

		snprintf(text, sizeof text, "{\"path\":\"%s\"}", places[i]);
		r = ask(b, "qom-list", text, &v);
		if (r == -EREMOTEIO)
			continue;
		if (r < 0)
			return r;
		all = value_at(v, "return");
		for (size_t k = 0; k < value_items(all); k++) {
			const char *type = value_str(value_item(all, k), "type"), *name = value_str(value_item(all, k), "name");

			if (strstr(type, "virtio-balloon") && !strpbrk(name, "\"\\") &&
			        snprintf(b->device, sizeof b->device, "%s/%s", places[i], name) >= (int)sizeof b->device)
				*b->device = 0;
		}
		value_close(v);
	}
	return 0;
}

static int begin(struct run_balloon *b)
{
	char text[256];
	int r = 0;

	if (!b->greeted) {
		r = ask(b, "qmp_capabilities", "{}", NULL);
		if (r < 0 && r != -EREMOTEIO) /* refused: it has been done, and the reply was late */
			return r;
		b->greeted = true;
	}
	if (b->looked)
		return 0;
	r = find_device(b);
	if (!r && *b->device) {
		snprintf(text, sizeof text, "{\"path\":\"%s\",\"property\":\"guest-stats-polling-interval\",\"value\":1}", b->device);
		r = ask(b, "qom-set", text, NULL);
	}
	if (r == -EREMOTEIO)
		*b->device = 0;
	b->looked = !r || r == -EREMOTEIO;
	return b->looked ? 0 : r;
}

static int look_at_size(struct run_balloon *b)
{
	struct value *v = NULL;
	uint64_t actual;
	bool first = !b->ram_bytes;
	int r = ask(b, "query-memory-size-summary", "{}", &v);

	if (r < 0)
		return r;
	b->ram_bytes = value_u64(v, "return.base-memory", 0) + value_u64(v, "return.plugged-memory", 0);
	value_close(v);
	v = NULL;
	r = ask(b, "query-balloon", "{}", &v);
	if (r < 0)
		return r;
	actual = value_u64(v, "return.actual", b->ram_bytes);
	value_close(v);
	b->size_before_bytes = b->size_bytes;
	b->size_bytes = actual < b->ram_bytes ? b->ram_bytes - actual : 0;
	if (first)
		b->old_bytes = b->size_bytes;
	if (b->size_bytes != b->old_bytes)
		b->has_driver = true;
	return 0;
}

static int look_at_guest(struct run_balloon *b)
{
	char text[192];
	struct value *v = NULL;
	uint64_t updated;
	int r;

	if (!*b->device)
		return 0;
	snprintf(text, sizeof text, "{\"path\":\"%s\",\"property\":\"guest-stats\"}", b->device);
	r = ask(b, "qom-get", text, &v);
	if (r < 0)
		return r == -EREMOTEIO ? 0 : r;
	updated = value_u64(v, "return.last-update", 0);
	if (updated && updated != b->updated) {
		b->updated = updated;
		b->updated_at = now_ms();
		for (unsigned i = 0; i < CLAIMS; i++) {
			uint64_t n = value_u64(v, claims[i].path, NO_NUMBER);

			b->claimed[i] = n > INT64_MAX ? NO_NUMBER : n;
		}
	}
	value_close(v);
	return 0;
}

static bool is_told(const struct run_balloon *b)
{
	return b->updated && now_ms() - b->updated_at < STALE_MS;
}

static uint64_t min(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* The size to ask of QEMU. */
static uint64_t choose_size(const struct run_balloon *b)
{
	uint64_t reserve = b->ram_bytes / RESERVE_PART > RESERVE_MIN ? b->ram_bytes / RESERVE_PART : RESERVE_MIN;
	uint64_t wanted = b->target_bytes / PAGE_BYTES * PAGE_BYTES, most, asked = b->asked_bytes;

	wanted = min(wanted, b->ram_bytes > reserve ? b->ram_bytes - reserve : 0);
	if (is_told(b) && b->claimed[CLAIM_AVAILABLE] != NO_NUMBER) {
		/* the guest has counted at some time since the last round, when its balloon may have been smaller */
		most = min(b->size_before_bytes, b->size_bytes) + b->claimed[CLAIM_AVAILABLE];
		most = most > reserve ? (most - reserve) / PAGE_BYTES * PAGE_BYTES : 0;
		if (most < wanted)
			wanted = most < asked + STEP_BYTES && asked < most + STEP_BYTES ? min(asked, wanted) : most;
	}
	if (wanted < PAGE_BYTES)
		wanted = PAGE_BYTES;
	if (!b->has_driver && wanted == b->old_bytes)
		wanted += PAGE_BYTES;
	return wanted;
}

static int command_size(struct run_balloon *b)
{
	uint64_t wanted = choose_size(b);
	char text[64];
	int r;

	if (wanted == b->asked_bytes || b->ram_bytes <= wanted)
		return 0;
	snprintf(text, sizeof text, "{\"value\":%" PRIu64 "}", b->ram_bytes - wanted);
	r = ask(b, "balloon", text, NULL);
	if (!r)
		b->asked_bytes = wanted;
	return r;
}

/* -EREMOTEIO: QEMU has no balloon now. */
static int speak_with_qemu(struct run_balloon *b)
{
	int r = 0;

	b->deadline = now_ms() + REPLY_MS;
	if (b->awaited) /* a late reply: to what is asked again */
		r = hear(b, NULL);
	if (r == -EREMOTEIO)
		r = 0;
	if (!r)
		r = begin(b);
	if (!r)
		r = look_at_size(b);
	if (!r)
		r = look_at_guest(b);
	if (!r)
		r = command_size(b);
	return r;
}

/* ---- what memctld wants */

static void write_parameters(const struct run_balloon *b, bool reachable, char *text, size_t size)
{
	const char *before = ",\"claims\":{";
	int n = snprintf(text, size, "{\"vm\":\"%s\",\"reachable\":%s,\"size\":%" PRIu64, b->vm, reachable ? "true" : "false",
	        reachable ? b->size_bytes : 0);

	for (unsigned i = 0; reachable && is_told(b) && i < CLAIMS; i++)
		if (b->claimed[i] != NO_NUMBER) {
			n += snprintf(text + n, size - (size_t)n, "%s\"%s\":%" PRIu64, before, claims[i].name, b->claimed[i]);
			before = ",";
		}
	snprintf(text + n, size - (size_t)n, "%s}", *before == ',' && !before[1] ? "}" : "");
}

/* A memctld that cannot be asked leaves the target as it is; the next connection may be to another one.  A socket that is not there
 * is -ENOENT like a VM that is not known: only the latter is an answer. */
static void speak_with_memctld(struct run_balloon *b, bool reachable)
{
	struct memctl_options o = { .struct_size = sizeof o, .socket = b->socket, .timeout_ms = REPLY_MS };
	struct memctl_error e = { 0 };
	char parameters[1024], *reply = NULL;
	struct value *v;
	bool unknown;
	int r;

	write_parameters(b, reachable, parameters, sizeof parameters);
	r = b->m ? 0 : memctl_connect(&o, &b->m, &e);
	if (!r)
		r = memctl_call(b->m, "org.memctl.BalloonAgent", parameters, &reply, &e);
	if (!r) {
		v = value_open(reply);
		b->target_bytes = value_u64(v, "target", 0);
		value_close(v);
		b->forgotten = 0;
	}
	free(reply);
	if (!r)
		return;
	unknown = !strcmp(e.name, "org.memctl.NoSuchVm");
	if (unknown && ++b->forgotten == FORGOTTEN)
		b->target_bytes = 0;
	if ((r == -EPERM || r == -EACCES) && !b->said_why) {
		b->said_why = true;
		cli_error("%s: its balloon is not used: %s", b->vm, e.message);
	}
	if (!unknown) {
		memctl_free(b->m);
		b->m = NULL;
	}
}

static void *run(void *userdata)
{
	struct run_balloon *b = userdata;
	int64_t next = now_ms();
	int r = 0;

	b->answered = next;
	while (r != -ECANCELED) {
		bool silent;

		r = speak_with_qemu(b);
		if (r == -ECANCELED || r == -EPIPE || r == -ECONNRESET)
			break; /* the end, ours or QEMU's */
		silent = r == -EREMOTEIO || now_ms() - b->answered > SILENT_MS;
		speak_with_memctld(b, b->has_driver && !silent);
		next += ROUND_MS;
		if (next < now_ms())
			next = now_ms();
		r = await(b, -1, 0, next);
	}
	memctl_free(b->m);
	return NULL;
}

int run_balloon_start(const char *socket, const char *vm, int qmp, struct run_balloon **ret)
{
	struct run_balloon *b = calloc(1, sizeof *b);
	int error = ENOMEM;

	if (b) {
		b->socket = socket;
		b->vm = vm;
		b->qmp = qmp;
		b->stop = eventfd(0, EFD_CLOEXEC);
		error = b->stop < 0 ? errno : pthread_create(&b->thread, NULL, run, b);
	}
	if (!error) {
		*ret = b;
		return 0;
	}
	close(qmp);
	if (b && b->stop >= 0)
		close(b->stop);
	free(b);
	return -error;
}

void run_balloon_stop(struct run_balloon *b)
{
	if (!b)
		return;
	eventfd_write(b->stop, 1);
	pthread_join(b->thread, NULL);
	close(b->stop);
	close(b->qmp);
	free(b);
}
