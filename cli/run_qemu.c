/* QEMU's command line: what a lease needs is added, what cannot be right on one is refused.
 *
 *	-m SIZE					if there is none; else it says what --mem is
 *	-object memory-backend-memfd,id=memctl0,size=SIZE,share=on
 *	-machine memory-backend=memctl0		QEMU merges it with a -machine or -M that is there
 *	-device virtio-balloon-pci,free-page-reporting=on,deflate-on-oom=on
 *						the guest tells what it has freed; and gives what is asked
 *						for, as long as it can do without
 *	-chardev socket,fd=N			to ask QEMU things (QMP); we make the socket, because QEMU may
 *	-mon chardev=...,mode=control		be another user; not for one that daemonizes and outlives us
 *	the same once more			for the balloon's agent (run_balloon.c): a monitor has one client
 *	-serial mon:stdio			where -nographic stands for it: a -mon ends QEMU's defaults
 *
 * The refusals here come early and name the option; the preload library refuses the same once more when it
 * happens, for what comes by QMP or from somebody else's command line. */
#include "cli/cli.h"
#include "cli/run.h"
#include "cli/units.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* An option and a part of its value (NULL: any), that a lease cannot have. */
static const struct refusal {
	const char *option, *value, *why;
} refusals[] = {
	{ "object", "prealloc=on", "all guest memory would be brought in at the start; use --reservation" },
	{ "object", "\"prealloc\":true",
	        "all guest memory would be brought in at the start; use --reservation" },
	{ "mem-prealloc", NULL, "all guest memory would be brought in at the start; use --reservation" },
	{ "object", "hugetlb=on", "leases are made of pages of 4 KiB" },
	{ "object", "hugetlb\":true", "leases are made of pages of 4 KiB" },
	{ "mem-path", NULL, "guest memory comes from memctld" },
	{ "object", "memory-backend-ram",
	        "this memory would not be memctld's; use memory-backend-memfd,share=on" },
	{ "overcommit", "mem-lock=on", "all guest memory would be brought in, and stay; use --reservation" },
	{ "realtime", "mlock=on", "all guest memory would be brought in, and stay; use --reservation" },
	{ "device", "vfio-", "a device that writes to guest memory by itself would lose bytes" },
	{ "device", "vhost-", "another process has no userfaultfd for guest memory" },
	{ "netdev", "vhost=on", "vhost reaches guest memory from outside this process; leave it out" },
	{ "netdev", "vhostforce=on", "vhost reaches guest memory from outside this process; leave it out" },
	{ "netdev", "vhostfd", "vhost reaches guest memory from outside this process; leave it out" },
	{ "netdev", "vhost-", "vhost reaches guest memory from outside this process; use another network" },
	{ "nic", "vhost=on", "vhost reaches guest memory from outside this process; leave it out" },
	{ "nic", "vhostfd", "vhost reaches guest memory from outside this process; leave it out" },
	{ "device", "blob=on", "the graphics device would be given the memfd, in which guest memory is not" },
	{ "drive", "cache=none", "O_DIRECT into guest memory would lose bytes; use cache=writeback" },
	{ "drive", "cache=directsync",
	        "O_DIRECT into guest memory would lose bytes; use cache=writethrough" },
	{ "drive", "cache.direct=on", "O_DIRECT into guest memory would lose bytes; use cache.direct=off" },
	{ "drive", "aio=native", "native aio needs O_DIRECT, which would lose bytes; use aio=threads" },
	{ "blockdev", "cache.direct=on",
	        "O_DIRECT into guest memory would lose bytes; use cache.direct=off" },
	{ "blockdev", "\"direct\":true",
	        "O_DIRECT into guest memory would lose bytes; use \"direct\":false" },
	{ "blockdev", "aio=native", "native aio needs O_DIRECT, which would lose bytes; use aio=threads" },
	{ "blockdev", "\"aio\":\"native\"", "native aio needs O_DIRECT, which would lose bytes" },
};

/* What is already there. */
struct found {
	const char *machine; /* its type; NULL: QEMU's default */
	const char *backend; /* of -machine memory-backend=, up to the next comma */
	uint64_t memory_bytes, most_bytes;
	bool memory, numa_backends, balloon, qmp, daemonizes;
	bool nographic, own_consoles; /* own_consoles: it says itself what the terminal is for */
};

unsigned run_find_qemu(const struct run *r)
{
	for (unsigned i = 0; i < r->n; i++) {
		const char *slash = strrchr(r->words[i], '/'), *name = slash ? slash + 1 : r->words[i];

		if (!strncmp(name, "qemu-system-", 12) || !strcmp(name, "qemu-kvm") || !strcmp(name, "kvm"))
			return i + 1;
	}
	return 0;
}

static bool is(const char *option, const char *name)
{
	return !strcmp(option, name);
}

/* The value of "key=" in a list of QEMU's kind; NULL: it is not there. */
static const char *value_of(const char *list, const char *key)
{
	size_t length = strlen(key);

	for (const char *p = list; p; p = strchr(p, ',')) {
		p += *p == ',';
		if (!strncmp(p, key, length) && p[length] == '=')
			return p + length + 1;
	}
	return NULL;
}

/* "512", "2G": without a unit it is MiB. */
static int memory_size(const char *text, uint64_t *ret)
{
	size_t length = strcspn(text, ",");
	char with_unit[32];

	if (length == strspn(text, "0123456789") && length < sizeof with_unit - 1) {
		snprintf(with_unit, sizeof with_unit, "%.*sM", (int)length, text);
		return units_parse_size(with_unit, length + 1, ret);
	}
	return units_parse_size(text, length, ret);
}

static int look_at_memory(struct found *f, const char *value)
{
	const char *size = value_of(value, "size"), *most = value_of(value, "maxmem");

	if (!size && *value >= '0' && *value <= '9')
		size = value;
	if ((size && memory_size(size, &f->memory_bytes) < 0) ||
	        (most && memory_size(most, &f->most_bytes) < 0)) {
		cli_error("QEMU's -m %s is not understood", value);
		return EXIT_USAGE;
	}
	f->memory = size;
	return EXIT_OK;
}

static void look_at_machine(struct found *f, const char *value)
{
	const char *type = value_of(value, "type"), *backend = value_of(value, "memory-backend");
	size_t first = strcspn(value, ",=");

	if (type)
		f->machine = type;
	else if (value[first] != '=')
		f->machine = value;
	if (backend)
		f->backend = backend;
}

static void look_at_mon(struct found *f, const char *value)
{
	f->qmp |= strstr(value, "mode=control") != NULL;
	f->own_consoles = true;
}

static void look_at_device(struct found *f, const char *value)
{
	f->balloon |= strstr(value, "virtio-balloon") != NULL;
	f->own_consoles |= strstr(value, "isa-serial") != NULL;
}

static int refuse(const char *option, const char *value)
{
	for (unsigned i = 0; i < sizeof refusals / sizeof *refusals; i++) {
		const struct refusal *x = &refusals[i];

		if (!is(option, x->option) || (x->value && !strstr(value, x->value)))
			continue;
		cli_error("QEMU's -%s%s%s cannot be right on a lease: %s", option, x->value ? " " : "",
		        x->value ? value : "", x->why);
		return EXIT_USAGE;
	}
	return EXIT_OK;
}

static int look(const struct run *r, unsigned at, struct found *f)
{
	int code = EXIT_OK;

	for (unsigned i = at; i < r->n && !code; i++) {
		const char *option = r->words[i], *value = i + 1 < r->n ? r->words[i + 1] : "";

		if (*option++ != '-')
			continue;
		option += *option == '-';
		code = refuse(option, value);
		if (is(option, "machine") || is(option, "M"))
			look_at_machine(f, value);
		else if (is(option, "m"))
			code = look_at_memory(f, value);
		else if (is(option, "numa"))
			f->numa_backends |= value_of(value, "memdev") != NULL;
		else if (is(option, "device"))
			look_at_device(f, value);
		else if (is(option, "qmp") || is(option, "qmp-pretty"))
			f->qmp = true;
		else if (is(option, "nographic"))
			f->nographic = true;
		else if (is(option, "serial") || is(option, "monitor") || is(option, "nodefaults"))
			f->own_consoles = true;
		else if (is(option, "mon"))
			look_at_mon(f, value);
		else if (is(option, "daemonize"))
			f->daemonizes = true;
	}
	return code;
}

/* A backend that the command brings along must be one that the preload library sees. */
static int check_backend(const struct run *r, unsigned at, const char *id)
{
	size_t length = strcspn(id, ",");

	for (unsigned i = at; i + 1 < r->n; i++) {
		const char *value = r->words[i + 1], *its = value_of(value, "id"),
		           *path = value_of(value, "mem-path");

		if (strcmp(r->words[i], "-object") && strcmp(r->words[i], "--object"))
			continue;
		if (!its || strcspn(its, ",") != length || strncmp(its, id, length))
			continue;
		if (!strncmp(value, "memory-backend-memfd,", 21) && !strstr(value, "share=off"))
			return EXIT_OK;
		if (!strncmp(value, "memory-backend-file,", 20) && path &&
		        !strncmp(path, "/proc/self/fd/", 14) && strstr(value, "share=on"))
			return EXIT_OK;
		cli_error("QEMU's -object %s cannot be a lease: use memory-backend-memfd,share=on, or leave "
		          "it out",
		        value);
		return EXIT_USAGE;
	}
	return EXIT_OK; /* JSON, or nothing of the kind: QEMU will say it */
}

static int settle_size(struct run *r, const struct found *f)
{
	if (f->memory && r->mem_bytes && f->memory_bytes != r->mem_bytes) {
		cli_error("--mem is %" PRIu64 " bytes and QEMU's -m is %" PRIu64 ": give one of them",
		        r->mem_bytes, f->memory_bytes);
		return EXIT_USAGE;
	}
	if (f->memory)
		r->mem_bytes = f->memory_bytes;
	if (!r->mem_bytes) {
		cli_error("how much memory? Give --mem, or QEMU's -m");
		return EXIT_USAGE;
	}
	if (r->mem_bytes % 4096) {
		cli_error("the size of guest memory must be a multiple of 4096");
		return EXIT_USAGE;
	}
	r->size_bytes = f->most_bytes > r->mem_bytes ? f->most_bytes : r->mem_bytes;
	return EXIT_OK;
}

/* Machines with PCI, where the balloon can be plugged in. */
static bool has_pci(const struct run *r, unsigned at, const char *machine)
{
	static const char *const with[] = { "pc", "q35", "virt", "pseries" };

	if (!machine) /* QEMU's default: x86 has PCI, others have boards of all kinds */
		return strstr(r->words[at - 1], "x86_64") || strstr(r->words[at - 1], "i386") ||
		       !strncmp(r->words[at - 1] + strlen(r->words[at - 1]) - 3, "kvm", 3);
	for (unsigned i = 0; i < sizeof with / sizeof *with; i++) {
		size_t length = strlen(with[i]);

		if (!strncmp(machine, with[i], length) && (!machine[length] || strchr(",-", machine[length])))
			return true;
	}
	return false;
}

/* A socket that listens at r->qmp_path, in a directory that is ours alone; inherited by the command.  -errno.
 */
static int listen_qmp(const struct run *r)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0), error;

	if (fd < 0)
		return -errno;
	snprintf(address.sun_path, sizeof address.sun_path, "%s", r->qmp_path);
	if (!bind(fd, (struct sockaddr *)&address, sizeof address) && !listen(fd, 1))
		return fd;
	error = errno;
	close(fd);
	return -error;
}

static int open_qmp(struct run *r)
{
	const char *places[] = { getenv("XDG_RUNTIME_DIR"), "/run", "/tmp" };

	for (unsigned i = 0; i < 3; i++) {
		if (!places[i] || access(places[i], W_OK) < 0 ||
		        snprintf(r->qmp_path, sizeof r->qmp_path - 4, "%s/memctl-%.16s-XXXXXX", places[i],
		                r->name) >= (int)sizeof r->qmp_path - 4)
			continue;
		if (mkdtemp(r->qmp_path)) {
			strcat(r->qmp_path, "/qmp");
			return listen_qmp(r);
		}
	}
	*r->qmp_path = 0;
	return -ENOENT;
}

/* A QMP connection with the agent at our end of it. -errno */
static int pair_agent(struct run *r)
{
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, r->agent_fds) < 0)
		return -errno;
	return fcntl(r->agent_fds[1], F_SETFD, 0) < 0 ? -errno : 0;
}

static int append(struct run *r, const char *option, const char *value)
{
	return run_insert(r, r->n, 2, (const char *const[]){ option, value });
}

static int add(struct run *r, unsigned at, const struct found *f)
{
	bool new_balloon = !f->balloon && !r->no_balloon && has_pci(r, at, f->machine);
	char text[192];
	int error = 0;

	if (!f->memory) {
		snprintf(text, sizeof text, "%" PRIu64 "K", r->mem_bytes / 1024);
		error |= append(r, "-m", text);
	}
	if (!f->backend && !f->numa_backends) {
		snprintf(text, sizeof text, "memory-backend-memfd,id=memctl0,size=%" PRIu64 ",share=on",
		        r->mem_bytes);
		error |= append(r, "-object", text);
		error |= append(r, "-machine", "memory-backend=memctl0");
	}
	if (new_balloon)
		error |= append(r, "-device",
		        "virtio-balloon-pci,id=memctl-balloon,free-page-reporting=on,deflate-on-oom=on");
	if (!f->qmp && !r->no_qmp && !f->daemonizes) {
		int fd = open_qmp(r);

		if (fd < 0) {
			cli_error("no place for a QMP socket: give QEMU -qmp, or memctl --no-qmp");
			return EXIT_SYSTEM;
		}
		snprintf(text, sizeof text, "socket,id=memctl-qmp,fd=%d,server=on,wait=off", fd);
		error |= append(r, "-chardev", text);
		error |= append(r, "-mon", "chardev=memctl-qmp,mode=control");
		if (f->nographic && !f->own_consoles)
			error |= append(r, "-serial", "mon:stdio");
	}
	if ((new_balloon || (f->balloon && !r->no_balloon)) && !r->no_qmp && !f->daemonizes) {
		if (pair_agent(r) < 0) {
			cli_error("no QMP connection for the balloon: %s", strerror(errno));
			return EXIT_SYSTEM;
		}
		snprintf(text, sizeof text, "socket,id=memctl-agent,fd=%d", r->agent_fds[1]);
		error |= append(r, "-chardev", text);
		error |= append(r, "-mon", "chardev=memctl-agent,mode=control");
	}
	if (error) {
		cli_error("out of memory");
		return EXIT_SYSTEM;
	}
	return EXIT_OK;
}

int run_adapt_qemu(struct run *r, unsigned at)
{
	struct found f = { 0 };
	int code = look(r, at, &f);

	if (!code && f.backend)
		code = check_backend(r, at, f.backend);
	if (!code)
		code = settle_size(r, &f);
	return code ? code : add(r, at, &f);
}
