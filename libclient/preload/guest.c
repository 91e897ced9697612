/* Guest memory for a program that knows nothing of memctl.
 *
 * The program makes a memfd and maps it shared.  The memfd stays what it is: empty, sized and sealed as the
 * program likes.  It is only a *door*: when it is mapped, a lease is mapped in its place.
 *
 *	memfd_create(name)		the memfd's inode is noted
 *	ftruncate, F_ADD_SEALS, dup	are the kernel's, on the door
 *	mmap(MAP_SHARED, offset)	a lease of this length, at the address where the door would have been
 *	fallocate(PUNCH_HOLE)		the lease's range is discarded, and the daemon told so
 *
 * So the lease's own memfd is nowhere in the program's hands: it can neither be punched, written nor passed on
 * behind the daemon's back, and there is no call on it whose meaning would have to be imitated.  The price:
 * guest memory is in the mapping alone.  write(2) on the memfd fails from then on, read(2) finds nothing.
 *
 * A second door is a memfd that the program inherits and opens by /proc/self/fd/N (MEMCTL_FD=N).
 *
 * The connection is made when a door is first mapped.  Not earlier: this library is also loaded into env(1),
 * setpriv(1) and whatever else starts the emulator, and an emulator that daemonizes forks before it maps its
 * memory.  A program that forks later has its VM in the parent; in the child these functions do nothing.
 *
 * Lock: `lock` guards the tables; it is held over calls to the daemon, so that no lease ends while one speaks
 * of it.  The daemon never waits for a lock of ours: faults are served without this library's help. */
#include "libclient/preload/guest.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <memctl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE_SIZE 4096ull
#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif
#define QEMUS_MEMFD        "memory-backend-memfd"
#define DOORS_MAX          64
#define PIECES_MAX         64
#define NAME_WAIT_MS       3000
#define THREAD_STACK_BYTES (256u << 10)

struct door {
	dev_t dev;
	ino_t ino;
	int fd; /* keeps the inode from being another file's one day */
};

struct piece {
	const struct door *door;
	uint64_t offset, length; /* of the door */
	char *address;
	struct memctl_lease *lease;
};

static pthread_rwlock_t lock = PTHREAD_RWLOCK_INITIALIZER;
static struct door doors[DOORS_MAX];
static unsigned n_doors;
static bool inherited_door_looked_for;
static struct piece pieces[PIECES_MAX];
static unsigned n_pieces;
static _Atomic bool has_leased, has_tried;
static struct memctl *vm;
static pid_t owner;
static uint64_t next_gpa;
static _Atomic bool has_kvm;

_Thread_local bool guest_inside;

static const char *setting(const char *name)
{
	const char *value = getenv(name);

	return value && *value ? value : NULL;
}

bool guest_wanted(void)
{
	return !guest_inside && setting("MEMCTL_VM_NAME") && (!owner || owner == getpid());
}

int guest_refuse(int error, const char *fmt, ...)
{
	const char *name = setting("MEMCTL_VM_NAME");
	char text[600];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	dprintf(STDERR_FILENO, "memctl: %s: %s\n", name ? name : "?", text);
	errno = error;
	return -1;
}

/* ---- doors ---- */

bool guest_wants_memfd(const char *name)
{
	const char *wanted = setting("MEMCTL_MEMFD_NAME");

	return !strcmp(name, wanted ? wanted : QEMUS_MEMFD);
}

static int add_door(int fd)
{
	struct stat st;
	int copy;

	if (fstat(fd, &st) < 0)
		return -1;
	if (n_doors == DOORS_MAX)
		return guest_refuse(EMFILE, "no more than %d memfds can be guest memory", DOORS_MAX);
	copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (copy < 0)
		return -1;
	doors[n_doors++] = (struct door){ .dev = st.st_dev, .ino = st.st_ino, .fd = copy };
	return 0;
}

int guest_door_add(int fd)
{
	int r;

	pthread_rwlock_wrlock(&lock);
	r = add_door(fd);
	pthread_rwlock_unlock(&lock);
	return r;
}

static const struct door *find_door(int fd)
{
	struct stat st;

	if (!n_doors || fd < 0 || fstat(fd, &st) < 0)
		return NULL;
	for (unsigned i = 0; i < n_doors; i++)
		if (doors[i].ino == st.st_ino && doors[i].dev == st.st_dev)
			return &doors[i];
	return NULL;
}

/* The memfd that `memctl run --fd` left open for us. */
static void look_for_inherited_door(void)
{
	const char *number = setting("MEMCTL_FD");

	pthread_rwlock_wrlock(&lock);
	if (!inherited_door_looked_for && number)
		(void)add_door(atoi(number));
	inherited_door_looked_for = true;
	pthread_rwlock_unlock(&lock);
}

bool guest_door_is(int fd)
{
	bool is;

	if (!inherited_door_looked_for)
		look_for_inherited_door();
	pthread_rwlock_rdlock(&lock);
	is = find_door(fd);
	pthread_rwlock_unlock(&lock);
	return is;
}

/* ---- the VM ---- */

/* "2147483648", "2048M", "2G".  -1: it is no size. */
static int read_size(const char *name, uint64_t *ret)
{
	const char *text = setting(name);
	unsigned shift = 0;
	uint64_t n;
	char *end;

	if (!text)
		return 0;
	errno = 0;
	n = strtoull(text, &end, 10);
	if (*end)
		shift = !strcasecmp(end, "K")   ? 10
		        : !strcasecmp(end, "M") ? 20
		        : !strcasecmp(end, "G") ? 30
		                                : 64;
	if (end == text || *text == '-' || errno || shift == 64 || n > UINT64_MAX >> shift)
		return guest_refuse(EINVAL, "%s is \"%s\", which is no size", name, text);
	*ret = n << shift;
	return 0;
}

/* What has become of the link to the daemon, a line each. */
static void tell_events(void)
{
	struct memctl_event event = { .struct_size = sizeof event };

	while (memctl_next_event(vm, &event) > 0)
		switch (event.kind) {
		case MEMCTL_EVENT_DISCONNECTED:
			guest_refuse(0, "memctld is gone: the guest pauses at pages that are not resident until it is back");
			break;
		case MEMCTL_EVENT_RECONNECTED:
			guest_refuse(0, "memctld is back");
			break;
		case MEMCTL_EVENT_LOST:
			guest_refuse(0, "memctld has this VM no more, and what was not resident is lost: end this program");
			break;
		case MEMCTL_EVENT_RELEASED:
			guest_refuse(0, "memctld has let this VM go: guest memory is plain memory now");
			break;
		case MEMCTL_EVENT_STALLED:
			guest_refuse(0, "the guest has been waiting for its pages for %" PRIu64 " ms, and none came",
			        event.stalled_ms);
			break;
		case MEMCTL_EVENT_SERVED:
			guest_refuse(0, "its pages come again, after %" PRIu64 " ms", event.stalled_ms);
			break;
		case MEMCTL_EVENT_BALLOON:
			break; /* no driver was announced here */
		}
}

/* The daemon's orders (which pages were used?), and the link to it.  A thread of our own and not memctl_helper_start's,
 * because what it does to the leases must not come back to our own functions. */
static void *attend(void *userdata)
{
	struct pollfd p = { .fd = memctl_fd(vm), .events = POLLIN };

	(void)userdata;
	guest_inside = true;
	for (;;) {
		if (poll(&p, 1, -1) < 0 && errno != EINTR)
			return NULL;
		memctl_dispatch(vm, NULL);
		tell_events();
	}
}

static void start_attending(void)
{
	struct memctl_error e = { 0 };
	pthread_attr_t attr;
	sigset_t all, old;
	pthread_t thread;

	/* Without it everything works; pages are then taken in the order in which they came, and not shared. */
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, THREAD_STACK_BYTES);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	if (pthread_create(&thread, &attr, attend, NULL))
		guest_refuse(0, "no thread for memctld's orders");
	else if (memctl_share(vm, &e) < 0)
		guest_refuse(0, "%s", e.message);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
}

/* System calls that meet an absent page end early in user mode; QEMU fills the rest of a short disk read with
 * zeros.  So that is for programs of which somebody knows that they make none. */
static int check_faults(enum memctl_faults faults, bool kvm)
{
	const char *allowed = setting("MEMCTL_USER_MODE");

	if (faults != MEMCTL_FAULTS_USER_MODE)
		return 0;
	if (kvm)
		return guest_refuse(EPERM,
		        "KVM needs a full userfaultfd, and this user may have one for user mode only: "
		        "give it /dev/userfaultfd (group memctl)");
	if (!allowed || strcmp(allowed, "1"))
		return guest_refuse(EPERM,
		        "this user may have a userfaultfd for user mode only, in which disk and network "
		        "devices read wrong: give it /dev/userfaultfd (group memctl); or, for an emulator "
		        "without such "
		        "devices, memctl run --user-mode (MEMCTL_USER_MODE=1)");
	return 0;
}

static int registered(struct memctl *m, uint64_t door_size)
{
	struct memctl_vm v = {
		.struct_size = sizeof v,
		.name = setting("MEMCTL_VM_NAME"),
		.size = door_size,
		.sharing = setting("MEMCTL_VM_SHARING"),
		.swap_dir = setting("MEMCTL_VM_SWAP_DIR"),
		.balloon_max = setting("MEMCTL_VM_BALLOON_MAX"),
		.stall_budget = setting("MEMCTL_VM_STALL_BUDGET"),
	};
	struct memctl_error e = { 0 };
	uint64_t shares = 0;
	int r;

	if (read_size("MEMCTL_VM_SIZE", &v.size) < 0 ||
	        read_size("MEMCTL_VM_RESERVATION", &v.reservation) < 0 ||
	        read_size("MEMCTL_VM_LIMIT", &v.limit) < 0 || read_size("MEMCTL_VM_SHARES", &shares) < 0)
		return -1;
	v.shares = (uint32_t)shares;
	/* A predecessor of this name that has just ended is still being taken apart. */
	for (unsigned waited_ms = 0; (r = memctl_register(m, &v, &e)) == -EEXIST && waited_ms < NAME_WAIT_MS;
	        waited_ms += 50)
		usleep(50000);
	if (r < 0)
		return guest_refuse(-r, "%s", e.message);
	return check_faults(memctl_fault_handling(m), has_kvm);
}

static int connected(uint64_t door_size)
{
	struct memctl_error e = { 0 };
	struct memctl *m;
	int r;

	if (vm)
		return 0;
	r = memctl_connect(NULL, &m, &e);
	if (r < 0)
		return guest_refuse(-r, "%s", e.message);
	r = registered(m, door_size);
	if (r < 0) {
		r = errno;
		memctl_free(m);
		errno = r;
		return -1;
	}
	vm = m;
	owner = getpid();
	start_attending();
	return 0;
}

int guest_kvm(void)
{
	int r;

	has_kvm = true;
	pthread_rwlock_rdlock(&lock);
	r = vm ? check_faults(memctl_fault_handling(vm), true) : 0;
	pthread_rwlock_unlock(&lock);
	return r;
}

/* ---- leases ---- */

static bool overlap(uint64_t a, uint64_t a_length, uint64_t b, uint64_t b_length)
{
	return a < b + b_length && b < a + a_length;
}

static struct piece *find_by_address(const void *address, size_t length)
{
	for (unsigned i = 0; i < n_pieces; i++)
		if (overlap((uintptr_t)pieces[i].address, pieces[i].length, (uintptr_t)address, length))
			return &pieces[i];
	return NULL;
}

static struct piece *find_by_offset(const struct door *door, uint64_t offset, uint64_t length)
{
	for (unsigned i = 0; i < n_pieces; i++)
		if (pieces[i].door == door && overlap(pieces[i].offset, pieces[i].length, offset, length))
			return &pieces[i];
	return NULL;
}

bool guest_touches(const void *address, size_t length)
{
	bool touches;

	if (!has_leased)
		return false;
	pthread_rwlock_rdlock(&lock);
	touches = find_by_address(address, length);
	pthread_rwlock_unlock(&lock);
	return touches;
}

static int check_mapping(
        const struct door *door, void *address, size_t length, int prot, int flags, off_t offset)
{
	int type = flags & MAP_TYPE;
	struct stat st;

	if (type != MAP_SHARED && type != MAP_SHARED_VALIDATE)
		return guest_refuse(EINVAL, "guest memory must be mapped shared (QEMU: share=on)");
	if (prot != (PROT_READ | PROT_WRITE))
		return guest_refuse(
		        EINVAL, "guest memory must be mapped for reading and writing, and nothing else");
	if (flags & MAP_LOCKED)
		return guest_refuse(EINVAL, "guest memory cannot be locked: a reservation keeps it resident");
	if (fstat(door->fd, &st) < 0)
		return -1;
	if (offset < 0 || (uint64_t)offset > (uint64_t)st.st_size ||
	        length > (uint64_t)st.st_size - (uint64_t)offset)
		return guest_refuse(EINVAL, "the mapping goes beyond the end of the memfd");
	if (find_by_offset(door, (uint64_t)offset, length))
		return guest_refuse(EBUSY, "guest memory cannot be mapped a second time");
	if ((flags & MAP_FIXED) && find_by_address(address, length))
		return guest_refuse(EBUSY, "there is guest memory at this address");
	if (n_pieces == PIECES_MAX)
		return guest_refuse(EMFILE, "no more than %d mappings can be guest memory", PIECES_MAX);
	return 0;
}

/* What the program has written into the memfd before it mapped it. */
static int bring_content(const struct piece *p)
{
	off_t position = lseek(p->door->fd, 0, SEEK_CUR), at = (off_t)p->offset, end;
	ssize_t n = 0;

	while (n >= 0 && (at = lseek(p->door->fd, at, SEEK_DATA)) >= 0 &&
	        (uint64_t)at < p->offset + p->length) {
		end = lseek(p->door->fd, at, SEEK_HOLE);
		if ((uint64_t)end > p->offset + p->length)
			end = (off_t)(p->offset + p->length);
		while (at < end) {
			n = memctl_read_into(
			        p->lease, (uint64_t)at - p->offset, (uint64_t)(end - at), p->door->fd, at);
			if (n <= 0)
				break;
			at += n;
		}
		if (n <= 0)
			break;
	}
	lseek(p->door->fd, position, SEEK_SET);
	if (n < 0)
		return guest_refuse((int)-n, "cannot bring in what the memfd holds: %s", strerror((int)-n));
	(void)next.fallocate(
	        p->door->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)p->offset, (off_t)p->length);
	return 0;
}

static int add_piece(struct piece *p, uint64_t door_size)
{
	struct memctl_error e = { 0 };
	int r;

	if (connected(door_size) < 0)
		return -1;
	r = memctl_lease_at(vm, next_gpa, p->length, p->address, &p->lease, &e);
	if (r < 0)
		return guest_refuse(-r, "%s", e.message);
	if (bring_content(p) < 0) {
		r = errno;
		memctl_release(p->lease, NULL);
		errno = r;
		return -1;
	}
	/* From now on write(2) on the memfd would be lost: let it fail.  QEMU, which never writes, has sealed
	 * the seals. */
	(void)fcntl(p->door->fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE);
	next_gpa += p->length;
	pieces[n_pieces++] = *p;
	has_leased = true;
	return 0;
}

static void *map_piece(const struct door *door, void *address, size_t length, int flags, off_t offset)
{
	int place = flags & (MAP_FIXED | MAP_FIXED_NOREPLACE);
	struct piece p = { .door = door, .offset = (uint64_t)offset, .length = length };
	struct stat st;
	int error;

	if (fstat(door->fd, &st) < 0)
		return MAP_FAILED;
	/* Address space first, in the program's way; memctl_lease_at fills it. */
	p.address = next.mmap(
	        address, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | place, -1, 0);
	if (p.address == MAP_FAILED)
		return MAP_FAILED;
	if (!add_piece(&p, (uint64_t)st.st_size))
		return p.address;
	error = errno;
	/* Where the program had reserved the space itself, it stays reserved. */
	if (!(place & MAP_FIXED))
		munmap(p.address, length);
	errno = error;
	return MAP_FAILED;
}

void *guest_map(void *address, size_t length, int prot, int flags, int fd, off_t offset)
{
	const struct door *door;
	void *p = MAP_FAILED;

	length = (length + PAGE_SIZE - 1) & ~(PAGE_SIZE - 1);
	has_tried = true;
	pthread_rwlock_wrlock(&lock);
	guest_inside = true;
	door = find_door(fd);
	if (door && !check_mapping(door, address, length, prot, flags, offset))
		p = map_piece(door, address, length, flags, offset);
	guest_inside = false;
	pthread_rwlock_unlock(&lock);
	return p;
}

static int unmap(const char *address, size_t length)
{
	struct memctl_error e = { 0 };

	for (unsigned i = 0; i < n_pieces; i++) {
		struct piece *p = &pieces[i];

		if (overlap((uintptr_t)p->address, p->length, (uintptr_t)address, length) &&
		        (p->address < address || p->address + p->length > address + length))
			return guest_refuse(EINVAL, "guest memory can be unmapped as a whole only");
	}
	for (unsigned i = 0; i < n_pieces;) {
		struct piece *p = &pieces[i];

		if (!overlap((uintptr_t)p->address, p->length, (uintptr_t)address, length)) {
			i++;
			continue;
		}
		if (memctl_release(p->lease, &e) < 0)
			guest_refuse(0, "%s", e.message);
		*p = pieces[--n_pieces];
	}
	return 0;
}

int guest_unmap(const void *address, size_t length)
{
	int r;

	pthread_rwlock_wrlock(&lock);
	guest_inside = true;
	r = unmap(address, length);
	guest_inside = false;
	pthread_rwlock_unlock(&lock);
	return r;
}

/* ---- discards ---- */

/* Whole pages are given back, the edges are cleared, as the kernel does it. */
static int discard(const struct piece *p, uint64_t offset, uint64_t length)
{
	uint64_t first = (offset + PAGE_SIZE - 1) & ~(PAGE_SIZE - 1),
	         end = (offset + length) & ~(PAGE_SIZE - 1);
	struct memctl_error e = { 0 };
	int r;

	if (first > end) {
		memset(p->address + offset, 0, length);
		return 0;
	}
	memset(p->address + offset, 0, first - offset);
	memset(p->address + end, 0, offset + length - end);
	r = memctl_discard(p->lease, first, end - first, &e);
	if (r < 0)
		return guest_refuse(-r, "cannot give back guest memory: %s", e.message);
	return 0;
}

int guest_discard(const void *address, size_t length)
{
	const char *from = address;
	const struct piece *p;
	int r;

	pthread_rwlock_rdlock(&lock);
	guest_inside = true;
	p = find_by_address(address, length);
	if (p && (from < p->address || from + length > p->address + p->length))
		r = guest_refuse(EINVAL, "a discard goes beyond guest memory");
	else
		r = p ? discard(p, (uint64_t)(from - p->address), length) : 0;
	guest_inside = false;
	pthread_rwlock_unlock(&lock);
	return r;
}

int guest_discard_door(int fd, off_t offset, off_t length)
{
	const struct door *door;
	int r = 0;

	pthread_rwlock_rdlock(&lock);
	guest_inside = true;
	door = find_door(fd);
	for (unsigned i = 0; !r && i < n_pieces; i++) {
		const struct piece *p = &pieces[i];
		uint64_t from = (uint64_t)offset, end = from + (uint64_t)length;

		if (p->door != door || !overlap(p->offset, p->length, from, (uint64_t)length))
			continue;
		if (from < p->offset)
			from = p->offset;
		if (end > p->offset + p->length)
			end = p->offset + p->length;
		r = discard(p, from - p->offset, end - from);
	}
	guest_inside = false;
	pthread_rwlock_unlock(&lock);
	return r;
}

/* A memfd of the right name that was never mapped: the program's memory is elsewhere, and nobody manages it.
 */
__attribute__((destructor)) static void complain(void)
{
	if (n_doors && !has_tried && guest_wanted())
		guest_refuse(
		        0, "the program has ended without mapping its memfd: its memory was not managed");
}
