/* A small VMM: two vCPUs in a loop over leased memory, as a test of what KVM does to a lease.
 *
 * KVM reaches guest memory from the kernel, and keeps translations of its own (nested or shadow page tables)
 * that the kernel takes away by MMU notifiers.  So a vCPU shows whether faults taken in kernel mode are served,
 * and whether write-protecting and punching a page reaches all who use it: a vCPU with a stale translation
 * would go on writing into a frame that is not the page's any more.
 *
 * Guest physical memory, which is also what the guest sees at these addresses:
 *
 *	0	plain memory: the upper page tables, the guest's code, the desks by which vCPU and VMM
 *		talk, stacks, and what every word and page of the lease is expected to hold
 *	1 GiB	the lease: its own lower page tables, then the words, then the pages
 *
 * The guest is the functions marked GUEST, copied from this program.  It begins in ring 3 and stays there:
 * where /dev/kvm is a software implementation, ring 3 runs at full speed and ring 0 is interpreted.  It has no
 * interrupts and handles no exceptions: any is a triple fault, which is reported.  It leaves by port I/O, which
 * ring 3 may do (IOPL 3):
 *
 *	PORT_REST	the order is carried out
 *	PORT_DISK	pages in and out by string instructions: KVM itself copies from and to the lease
 *
 * Oracles.  *Words*: of each page of words, a vCPU owns every second word, and looks before each addition
 * whether it holds what was written last; so both write to one page all the time, but never to the same word.
 * *Pages*: every second page belongs to a vCPU, which verifies all of it before it writes all of it, with
 * content that compresses well, not at all, is zero, or is the same in many pages.  At the end each vCPU verifies what is its own, and
 * then the VMM does, through its own mapping.
 *
 * Commands are lines on stdin, answers are lines of JSON on stdout, driven by test_kvm.py; FIRST and COUNT are
 * pages of the lease:
 *
 *	run			let the vCPUs work, until rest; go on if they do
 *	rest			-> what they did since the last rest
 *	verify			-> by the guest, then natively
 *	watch FIRST COUNT MS	a vCPU reads these pages, the other rests
 *	discard FIRST COUNT	while one vCPU reads these pages and the other works elsewhere
 *	dont_need, populate, pin, unpin FIRST COUNT
 *	quit */
#include "libclient/memctl.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/kvm.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define VCPUS	  2u
#define PAGE	  UINT64_C(4096)
#define PER_PAGE  512u	/* words of 64 bits */
#define BURST	  24u
#define HOT_PAGES 24u	/* both vCPUs write to the same few pages, so that an eviction finds them at it */

/* plain memory */
#define PML4	     0x1000u
#define PDPT	     0x2000u
#define PLAIN_PD     0x3000u
#define CODE	     0x4000u
#define CODE_MAX     0x8000u
#define BOARD	     0xf000u
#define DESK(i)	     (0x10000u + (i) * 0x1000u)
#define STACK_TOP(i) (0x40000u + (i) * 0x10000u)
#define GENERATIONS  0x100000u
#define EXPECTED     0x200000u
#define PLAIN_SIZE   (EXPECTED + WORDS_PAGES * PAGE)
/* the lease */
#define LEASE_GPA    (UINT64_C(1) << 30)
#define LEASE_MAX    (UINT64_C(256) << 20)	/* so that the generations fit */
#define WORDS_PAGES  UINT64_C(2048)

#define SAME_KINDS UINT64_C(16)

#define PORT_REST 0x10
#define PORT_DISK 0x20

enum order {
	ORDER_WORK = 1,	/* until stop */
	ORDER_VERIFY,	/* all that is its own */
	ORDER_WATCH,	/* read first .. first + count until stop */
};

enum phase {
	PHASE_KEPT,	/* the watched pages hold their content */
	PHASE_EITHER,	/* they are being discarded: content or zero */
	PHASE_GONE,	/* zero */
};

/* What both vCPUs see; addresses are the guest's. */
struct board {
	uint64_t words;			/* of WORDS_PAGES pages */
	uint64_t pages, pages_n;
	_Atomic uint64_t hot;		/* moves on: where the vCPUs meet */
};

/* Where a vCPU gets its orders and leaves its results. */
struct desk {
	volatile uint64_t order, stop, phase, phase_seen;
	uint64_t index, rng;
	uint64_t first, count;		/* pages of `pages` to watch, or to leave alone */
	uint64_t disk_page;
	uint64_t steps, verified_words, verified_pages, zeros_seen, disk_pages;
	uint64_t wrong, lost_words;	/* lost_words: of wrong, those of the words oracle */
	uint64_t wrong_page, wrong_word, found, expected;	/* of the first that was wrong */
};

/* ---- the guest: runs in a vCPU, so it calls nothing and has no data but what it gets ---- */

#if defined(__has_attribute) && __has_attribute(disable_sanitizer_instrumentation)
#define BARE __attribute__((disable_sanitizer_instrumentation))
#else
#define BARE
#endif
#define GUEST \
	BARE __attribute__((section("guest"), noinline, used, no_stack_protector, \
		no_sanitize("address", "undefined", "thread"))) static

GUEST uint64_t guest_mix(uint64_t x)
{
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
	x = (x ^ x >> 27) * 0x94d049bb133111eb;
	return x ^ x >> 31;
}

GUEST uint64_t guest_random(struct desk *d, uint64_t below)
{
	return guest_mix(d->rng += 0x9e3779b97f4a7c15) % below;
}

/* What the page holds after so many writes; nothing but zeros before the first.  The VMM asks, too. */
GUEST uint64_t guest_content(uint64_t page, uint64_t generation, uint64_t i)
{
	uint64_t same = page << 32 | generation;

	if (generation % 4 == 1)
		return guest_mix(same * PER_PAGE + i);	/* does not compress */
	if (generation % 4 == 2)
		return (page % SAME_KINDS) << 32 | i;	/* a page that can be shared */
	if (generation % 4 == 3)
		return i % 64 ? 0 : same;
	return 0;
}

GUEST void guest_wrong(struct desk *d, uint64_t at, uint64_t found, uint64_t expected)
{
	if (d->wrong++)
		return;
	d->wrong_page = (at - LEASE_GPA) / PAGE;
	d->wrong_word = at % PAGE / 8;
	d->found = found;
	d->expected = expected;
}

/* Whether a word of ours is what we wrote last. */
GUEST void guest_look(struct desk *d, const struct board *b, uint64_t n)
{
	volatile uint64_t *word = (volatile uint64_t *)b->words + n;
	uint64_t *expected = (uint64_t *)(uintptr_t)EXPECTED + n;
	uint64_t seen = *word;

	d->verified_words++;
	if (seen != *expected) {
		guest_wrong(d, (uint64_t)word, seen, *expected);
		d->lost_words++;
		*expected = seen;
	}
}

GUEST void guest_words_step(struct desk *d, struct board *b)
{
	uint64_t hot = atomic_fetch_add_explicit(&b->hot, 1, memory_order_relaxed) / 512 * 37;
	uint64_t page = guest_random(d, 8) ? hot + guest_random(d, HOT_PAGES) : guest_random(d, WORDS_PAGES);

	for (unsigned k = 0; k < BURST; k++) {
		uint64_t n = page % WORDS_PAGES * PER_PAGE + guest_random(d, PER_PAGE / VCPUS) * VCPUS + d->index;

		guest_look(d, b, n);
		((volatile uint64_t *)b->words)[n] = ++((uint64_t *)(uintptr_t)EXPECTED)[n];
	}
}

GUEST void guest_verify_page(struct desk *d, const struct board *b, uint64_t page)
{
	volatile uint64_t *words = (volatile uint64_t *)(b->pages + page * PAGE);
	uint64_t generation = ((uint64_t *)(uintptr_t)GENERATIONS)[page];

	d->verified_pages++;
	for (unsigned i = 0; i < PER_PAGE; i++) {
		uint64_t seen = words[i], expected = guest_content(page, generation, i);

		if (seen != expected) {
			guest_wrong(d, (uint64_t)(words + i), seen, expected);
			return;
		}
	}
}

/* One page of ours to the VMM, which compares it, and its next content from there. */
GUEST void guest_disk_step(struct desk *d, const struct board *b, uint64_t page)
{
	uint64_t at = b->pages + page * PAGE, n = PAGE / 4;

	d->disk_page = page;
	__asm__ volatile("cld; rep outsl" : "+S"(at), "+c"(n) : "d"(PORT_DISK) : "memory");
	((uint64_t *)(uintptr_t)GENERATIONS)[page]++;
	at = b->pages + page * PAGE;
	n = PAGE / 4;
	__asm__ volatile("cld; rep insl" : "+D"(at), "+c"(n) : "d"(PORT_DISK) : "memory");
	d->disk_pages++;
}

GUEST void guest_pages_step(struct desk *d, const struct board *b)
{
	uint64_t page = guest_random(d, b->pages_n / VCPUS) * VCPUS + d->index;
	volatile uint64_t *words = (volatile uint64_t *)(b->pages + page * PAGE);
	uint64_t generation;

	if (page - d->first < d->count)
		return;
	if (!guest_random(d, 256)) {
		guest_disk_step(d, b, page);
		return;
	}
	guest_verify_page(d, b, page);
	if (guest_random(d, 2))
		return;
	generation = ++((uint64_t *)(uintptr_t)GENERATIONS)[page];
	for (unsigned i = 0; i < PER_PAGE; i++)
		words[i] = guest_content(page, generation, i);
}

GUEST void guest_work(struct desk *d, struct board *b)
{
	while (!d->stop) {
		for (unsigned k = 0; k < 4; k++)
			guest_words_step(d, b);
		guest_pages_step(d, b);
		d->steps++;
	}
}

GUEST void guest_verify(struct desk *d, const struct board *b)
{
	for (uint64_t n = d->index; n < WORDS_PAGES * PER_PAGE; n += VCPUS)
		guest_look(d, b, n);
	for (uint64_t page = d->index; page < b->pages_n; page += VCPUS)
		guest_verify_page(d, b, page);
}

GUEST void guest_watch(struct desk *d, const struct board *b)
{
	while (!d->stop) {
		uint64_t phase = d->phase, i = guest_random(d, PER_PAGE);

		d->phase_seen = phase;
		for (uint64_t page = d->first; page < d->first + d->count; page++) {
			volatile uint64_t *word = (volatile uint64_t *)(b->pages + page * PAGE) + i;
			uint64_t generation = ((uint64_t *)(uintptr_t)GENERATIONS)[page];
			uint64_t seen = *word, expected = guest_content(page, generation, i);

			if (phase == PHASE_GONE)
				expected = 0;
			d->zeros_seen += seen != expected && !seen && phase == PHASE_EITHER;
			if (seen != expected && (seen || phase != PHASE_EITHER))
				guest_wrong(d, (uint64_t)word, seen, expected);
		}
		d->steps++;
	}
}

GUEST void guest_main(struct desk *d, struct board *b)
{
	for (;;) {
		if (d->order == ORDER_WORK)
			guest_work(d, b);
		else if (d->order == ORDER_VERIFY)
			guest_verify(d, b);
		else if (d->order == ORDER_WATCH)
			guest_watch(d, b);
		__asm__ volatile("outl %%eax, %%dx" : : "a"(0), "d"(PORT_REST) : "memory");
	}
}

/* ---- the VMM ---- */

struct vcpu {
	unsigned index;
	int fd;
	struct kvm_run *run;
	size_t run_size;
	struct desk *desk;
	unsigned disk_at;		/* words of 32 bits of the page that is under way */
	_Atomic uint64_t exits;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool busy;			/* under lock */
};

static struct vcpu vcpus[VCPUS];
static struct memctl *client;
static struct memctl_lease *lease;
static char *plain;		/* guest physical 0 */
static char *leased;		/* guest physical LEASE_GPA */
static struct board *board;
static bool running;

extern const char __start_guest[], __stop_guest[];

static _Noreturn void fail(const char *what, int error)
{
	printf("{\"event\": \"failed\", \"why\": \"%s: %s\"}\n", what, strerror(error));
	fflush(stdout);
	_exit(1);
}

/* The test cannot be made here: not a failure. */
static _Noreturn void unable(const char *what, int error)
{
	printf("{\"event\": \"unable\", \"why\": \"%s: %s\"}\n", what, strerror(error));
	fflush(stdout);
	_exit(77);
}

/* The memory that the guest knows by this address of its pages. */
static uint64_t *page_words(uint64_t page)
{
	return (uint64_t *)(void *)(leased + (board->pages - LEASE_GPA) + page * PAGE);
}

static uint64_t *generations(void)
{
	return (uint64_t *)(void *)(plain + GENERATIONS);
}

/* A device: the guest's page arrives and must be right; or the guest gets the content that it expects next. */
static void disk(struct vcpu *v)
{
	uint32_t *data = (uint32_t *)(void *)((char *)v->run + v->run->io.data_offset);
	uint64_t page = v->desk->disk_page, generation = generations()[page];

	for (uint32_t i = 0; i < v->run->io.count; i++) {
		uint64_t word = guest_content(page, generation, v->disk_at / 2);
		uint32_t half = (uint32_t)(v->disk_at % 2 ? word >> 32 : word);

		if (v->run->io.direction == KVM_EXIT_IO_IN)
			data[i] = half;
		else if (data[i] != half)
			guest_wrong(v->desk, board->pages + page * PAGE + v->disk_at * 4, data[i], half);
		v->disk_at = (v->disk_at + 1) % (PAGE / 4);
	}
}

static _Noreturn void fail_vcpu(struct vcpu *v, int error)
{
	struct kvm_regs regs = { 0 };
	char why[160];

	ioctl(v->fd, KVM_GET_REGS, &regs);
	snprintf(why, sizeof why, "vCPU %u, exit %u, guest code + %#" PRIx64 ", rax %#llx", v->index,
		v->run->exit_reason, (uint64_t)regs.rip - CODE, (unsigned long long)regs.rax);
	fail(why, error);
}

/* Run the guest until it rests. */
static void carry_out(struct vcpu *v)
{
	for (;;) {
		if (ioctl(v->fd, KVM_RUN, 0) < 0) {
			if (errno == EINTR || errno == EAGAIN)
				continue;
			fail_vcpu(v, errno);
		}
		atomic_fetch_add_explicit(&v->exits, 1, memory_order_relaxed);
		if (v->run->exit_reason != KVM_EXIT_IO)
			fail_vcpu(v, 0);
		if (v->run->io.port == PORT_REST)
			return;
		disk(v);
	}
}

static void *run_vcpu(void *arg)
{
	struct vcpu *v = arg;

	for (;;) {
		pthread_mutex_lock(&v->lock);
		while (!v->busy)
			pthread_cond_wait(&v->changed, &v->lock);
		pthread_mutex_unlock(&v->lock);
		carry_out(v);
		pthread_mutex_lock(&v->lock);
		v->busy = false;
		pthread_cond_broadcast(&v->changed);
		pthread_mutex_unlock(&v->lock);
	}
	return NULL;
}

static void give_order(struct vcpu *v, enum order order, uint64_t first, uint64_t count)
{
	pthread_mutex_lock(&v->lock);
	v->desk->stop = 0;
	v->desk->first = first;
	v->desk->count = count;
	v->desk->order = order;
	v->busy = true;
	pthread_cond_broadcast(&v->changed);
	pthread_mutex_unlock(&v->lock);
}

static void await_rest(struct vcpu *v)
{
	pthread_mutex_lock(&v->lock);
	while (v->busy)
		pthread_cond_wait(&v->changed, &v->lock);
	pthread_mutex_unlock(&v->lock);
}

static void stop_vcpus(void)
{
	for (unsigned i = 0; i < VCPUS; i++)
		vcpus[i].desk->stop = 1;
	for (unsigned i = 0; i < VCPUS; i++)
		await_rest(&vcpus[i]);
	running = false;
}

static void sleep_ms(uint64_t ms)
{
	struct timespec t = { .tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000 };

	nanosleep(&t, NULL);
}

/* ---- setting up ---- */

static uint64_t *table(uint64_t gpa)
{
	return (uint64_t *)(void *)(gpa < LEASE_GPA ? plain + gpa : leased + (gpa - LEASE_GPA));
}

/* Identity mapping, all of it for ring 3.  Returns how many pages of the lease hold the tables that map it. */
static uint64_t map_guest(uint64_t size)
{
	const uint64_t flags = 7;	/* present, writable, user */
	uint64_t tables = LEASE_GPA + PAGE;

	table(PML4)[0] = PDPT | flags;
	table(PDPT)[0] = PLAIN_PD | flags;
	table(PDPT)[1] = LEASE_GPA | flags;
	for (uint64_t at = 0; at < PLAIN_SIZE; at += 2 << 20)
		table(PLAIN_PD)[at >> 21] = at | 0x80 | flags;
	for (uint64_t at = 0; at < size; at += PAGE) {
		uint64_t pt = tables + (at >> 21) * PAGE;

		table(LEASE_GPA)[at >> 21] = pt | flags;
		table(pt)[at >> 12 & 511] = (LEASE_GPA + at) | flags;
	}
	return 1 + (size + (2 << 20) - 1) / (2 << 20);
}

static void start_vcpu(struct vcpu *v, int kvm, int vm, const struct kvm_cpuid2 *cpuid)
{
	struct kvm_segment code = { .limit = ~0u, .selector = 0x33, .type = 11, .present = 1, .dpl = 3, .s = 1,
		.l = 1, .g = 1 };
	struct kvm_segment data = { .limit = ~0u, .selector = 0x2b, .type = 3, .present = 1, .dpl = 3, .s = 1,
		.db = 1, .g = 1 };
	struct kvm_regs regs = { .rip = CODE + (uint64_t)((uintptr_t)guest_main - (uintptr_t)__start_guest),
		.rsp = STACK_TOP(v->index) - 8, .rdi = DESK(v->index), .rsi = BOARD, .rflags = 0x3002 };
	struct kvm_sregs sregs;

	v->fd = ioctl(vm, KVM_CREATE_VCPU, v->index);
	if (v->fd < 0)
		fail("KVM_CREATE_VCPU", errno);
	v->run_size = (size_t)ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	v->run = mmap(NULL, v->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
	if (v->run == MAP_FAILED)
		fail("mmap of the vCPU", errno);
	if (ioctl(v->fd, KVM_SET_CPUID2, cpuid) < 0 || ioctl(v->fd, KVM_GET_SREGS, &sregs) < 0)
		fail("KVM_SET_CPUID2", errno);
	sregs.cs = code;
	sregs.ds = sregs.es = sregs.ss = data;
	sregs.cr0 = 0x80050033;	/* paging, write protection, x87 */
	sregs.cr3 = PML4;
	sregs.cr4 = 0x620;	/* PAE, SSE */
	sregs.efer = 0x500;	/* long mode */
	if (ioctl(v->fd, KVM_SET_SREGS, &sregs) < 0)
		fail("KVM_SET_SREGS", errno);
	if (ioctl(v->fd, KVM_SET_REGS, &regs) < 0)
		fail("KVM_SET_REGS", errno);
	pthread_mutex_init(&v->lock, NULL);
	pthread_cond_init(&v->changed, NULL);
	if (pthread_create(&v->thread, NULL, run_vcpu, v))
		fail("pthread_create", EAGAIN);
}

static void start_guest(int kvm, uint64_t size, uint64_t seed)
{
	const uint32_t entries = 256;
	struct kvm_cpuid2 *cpuid = calloc(1, sizeof *cpuid + entries * sizeof cpuid->entries[0]);
	struct kvm_userspace_memory_region low = { .slot = 0, .memory_size = PLAIN_SIZE,
		.userspace_addr = (uintptr_t)plain };
	struct kvm_userspace_memory_region high = { .slot = 1, .guest_phys_addr = LEASE_GPA, .memory_size = size,
		.userspace_addr = (uintptr_t)leased };
	size_t code = (size_t)(__stop_guest - __start_guest);
	uint64_t tables = map_guest(size);
	int vm;

	board = (struct board *)(void *)(plain + BOARD);
	board->words = LEASE_GPA + tables * PAGE;
	board->pages = board->words + WORDS_PAGES * PAGE;
	board->pages_n = (size / PAGE - tables - WORDS_PAGES) / VCPUS * VCPUS;
	if (code > CODE_MAX)
		fail("the guest's code", EFBIG);
	memcpy(plain + CODE, __start_guest, code);
	vm = ioctl(kvm, KVM_CREATE_VM, 0);
	if (vm < 0)
		unable("KVM_CREATE_VM", errno);
	if (ioctl(vm, KVM_SET_TSS_ADDR, 0xfffbd000ul) < 0)
		fail("KVM_SET_TSS_ADDR", errno);
	if (ioctl(vm, KVM_SET_USER_MEMORY_REGION, &low) < 0 || ioctl(vm, KVM_SET_USER_MEMORY_REGION, &high) < 0)
		fail("KVM_SET_USER_MEMORY_REGION", errno);
	if (!cpuid)
		fail("calloc", ENOMEM);
	cpuid->nent = entries;
	if (ioctl(kvm, KVM_GET_SUPPORTED_CPUID, cpuid) < 0)
		fail("KVM_GET_SUPPORTED_CPUID", errno);
	for (unsigned i = 0; i < VCPUS; i++) {
		vcpus[i].index = i;
		vcpus[i].desk = (struct desk *)(void *)(plain + DESK(i));
		vcpus[i].desk->index = i;
		vcpus[i].desk->rng = seed * VCPUS + i;
		start_vcpu(&vcpus[i], kvm, vm, cpuid);
	}
	free(cpuid);
}

/* ---- commands ---- */

/* What the vCPUs did since they were asked last. */
static void report(const char *event)
{
	struct desk sum = { 0 };
	uint64_t exits = 0;

	for (unsigned i = 0; i < VCPUS; i++) {
		struct desk *d = vcpus[i].desk;

		if (d->wrong && !sum.wrong) {
			sum.wrong_page = d->wrong_page;
			sum.wrong_word = d->wrong_word;
			sum.found = d->found;
			sum.expected = d->expected;
		}
		sum.steps += d->steps;
		sum.verified_words += d->verified_words;
		sum.verified_pages += d->verified_pages;
		sum.zeros_seen += d->zeros_seen;
		sum.disk_pages += d->disk_pages;
		sum.wrong += d->wrong;
		sum.lost_words += d->lost_words;
		d->steps = d->verified_words = d->verified_pages = d->zeros_seen = d->disk_pages = 0;
		d->wrong = d->lost_words = 0;
		exits += atomic_exchange(&vcpus[i].exits, 0);
	}
	printf("{\"event\": \"%s\", \"steps\": %" PRIu64 ", \"verified_words\": %" PRIu64, event, sum.steps,
		sum.verified_words);
	printf(", \"verified_pages\": %" PRIu64 ", \"zeros_seen\": %" PRIu64 ", \"disk_pages\": %" PRIu64,
		sum.verified_pages, sum.zeros_seen, sum.disk_pages);
	printf(", \"exits\": %" PRIu64 ", \"wrong\": %" PRIu64 ", \"lost_words\": %" PRIu64 ", \"first_wrong\": ",
		exits, sum.wrong, sum.lost_words);
	printf("\"word %" PRIu64 " of page %" PRIu64 ": %#" PRIx64 ", expected %#" PRIx64 "\"}\n", sum.wrong_word,
		sum.wrong_page, sum.found, sum.expected);
}

/* Through the VMM's own mapping, with what is wrong left on the desk of vCPU 0. */
static void verify_natively(void)
{
	const volatile uint64_t *words = (volatile uint64_t *)(void *)(leased + (board->words - LEASE_GPA));
	const uint64_t *expected = (uint64_t *)(void *)(plain + EXPECTED);
	struct desk *d = vcpus[0].desk;

	for (uint64_t n = 0; n < WORDS_PAGES * PER_PAGE; n++) {
		uint64_t seen = words[n];

		d->verified_words++;
		if (seen != expected[n])
			guest_wrong(d, board->words + n * 8, seen, expected[n]);
	}
	for (uint64_t page = 0; page < board->pages_n; page++) {
		const volatile uint64_t *at = page_words(page);
		unsigned i = 0;

		d->verified_pages++;
		while (i < PER_PAGE && at[i] == guest_content(page, generations()[page], i))
			i++;
		if (i < PER_PAGE)
			guest_wrong(d, board->pages + page * PAGE + i * 8, at[i],
				guest_content(page, generations()[page], i));
	}
}

static void do_verify(void)
{
	for (unsigned i = 0; i < VCPUS; i++)
		give_order(&vcpus[i], ORDER_VERIFY, 0, 0);
	for (unsigned i = 0; i < VCPUS; i++)
		await_rest(&vcpus[i]);
	report("verified");
	verify_natively();
	report("verified_natively");
}

static void do_watch(uint64_t first, uint64_t count, uint64_t ms)
{
	vcpus[1].desk->phase = PHASE_KEPT;
	give_order(&vcpus[1], ORDER_WATCH, first, count);
	sleep_ms(ms);
	stop_vcpus();
	report("watched");
}

static void enter_phase(struct desk *d, enum phase phase)
{
	d->phase = phase;
	while (d->phase_seen != phase)
		sleep_ms(1);
}

static int do_discard(uint64_t first, uint64_t count, struct memctl_error *e)
{
	struct desk *d = vcpus[1].desk;
	int r;

	d->phase = PHASE_KEPT;
	d->phase_seen = PHASE_GONE;
	give_order(&vcpus[0], ORDER_WORK, first, count);
	give_order(&vcpus[1], ORDER_WATCH, first, count);
	enter_phase(d, PHASE_KEPT);
	sleep_ms(20);
	enter_phase(d, PHASE_EITHER);
	r = memctl_discard(lease, board->pages - LEASE_GPA + first * PAGE, count * PAGE, e);
	if (r >= 0) {
		enter_phase(d, PHASE_GONE);
		sleep_ms(20);
	}
	stop_vcpus();
	if (r < 0)
		return r;
	memset(generations() + first, 0, count * sizeof(uint64_t));
	report("discarded");
	return 0;
}

/* The pages that the vCPUs are writing to shall be the next that are taken. */
static void hint(void)
{
	uint64_t page = atomic_load_explicit(&board->hot, memory_order_relaxed) / 512 * 37 % WORDS_PAGES;
	uint64_t n = WORDS_PAGES - page < HOT_PAGES ? WORDS_PAGES - page : HOT_PAGES;

	memctl_dont_need(lease, board->words - LEASE_GPA + page * PAGE, n * PAGE, NULL);
}

/* 0, or 1 to quit. */
static int obey(char *line)
{
	static const struct {
		const char *name;
		int (*call)(struct memctl_lease *l, uint64_t offset, uint64_t length, struct memctl_error *e);
	} calls[] = {
		{ "dont_need", memctl_dont_need },
		{ "populate", memctl_populate },
		{ "pin", memctl_pin },
		{ "unpin", memctl_unpin },
	};
	struct memctl_error e = { 0 };
	char word[32] = "";
	uint64_t first = 0, count = 0, ms = 0, before;
	int r = -EINVAL;

	sscanf(line, "%31s %" SCNu64 " %" SCNu64 " %" SCNu64, word, &first, &count, &ms);
	before = (board->pages - LEASE_GPA) / PAGE;
	for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++)
		if (!strcmp(word, calls[i].name)) {
			r = calls[i].call(lease, first * PAGE, count * PAGE, &e);
			if (r >= 0)
				puts("{\"event\": \"done\"}");
		}
	if (!strcmp(word, "quit"))
		return 1;
	if (!strcmp(word, "run")) {
		for (unsigned i = 0; !running && i < VCPUS; i++)
			give_order(&vcpus[i], ORDER_WORK, 0, 0);
		running = true;
		r = puts("{\"event\": \"running\"}");
	} else if (!strcmp(word, "rest")) {
		stop_vcpus();
		report("rest");
		r = 0;
	} else if (!strcmp(word, "verify")) {
		do_verify();
		r = 0;
	} else if (!strcmp(word, "watch") && first >= before) {
		do_watch(first - before, count, ms);
		r = 0;
	} else if (!strcmp(word, "discard") && first >= before) {
		r = do_discard(first - before, count, &e);
	}
	if (r < 0)
		fail(e.message[0] ? e.message : word, -r);
	return 0;
}

int main(int argc, char **argv)
{
	struct memctl_vm vm = { .struct_size = sizeof vm };
	struct memctl_error e = { 0 };
	struct pollfd p = { .fd = STDIN_FILENO, .events = POLLIN };
	char line[256];
	int kvm;

	setvbuf(stdout, NULL, _IOLBF, 0);
	setvbuf(stdin, NULL, _IONBF, 0);	/* what poll() does not see, nobody has read */
	if (argc != 7) {
		fprintf(stderr, "usage: vmm NAME SIZE RESERVATION LIMIT SEED SHARING\n");
		return 16;
	}
	vm.name = argv[1];
	vm.size = strtoull(argv[2], NULL, 0);
	vm.reservation = strtoull(argv[3], NULL, 0);
	vm.limit = strtoull(argv[4], NULL, 0);
	vm.sharing = argv[6];
	if (vm.size > LEASE_MAX || vm.size < 2 * WORDS_PAGES * PAGE)
		fail("size", ERANGE);
	kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (kvm < 0)
		unable("/dev/kvm", errno);
	if (memctl_connect(NULL, &client, &e) < 0 || memctl_register(client, &vm, &e) < 0 ||
		memctl_lease(client, LEASE_GPA, vm.size, &lease, &e) < 0 || memctl_helper_start(client, &e) < 0) {
		fprintf(stderr, "%s\n", e.message);
		fail("no lease", errno);
	}
	if (memctl_fault_handling(client) != MEMCTL_FAULTS_FULL)
		unable("a userfaultfd for kernel mode", EPERM);
	leased = memctl_lease_address(lease);
	plain = mmap(NULL, PLAIN_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (plain == MAP_FAILED)
		fail("mmap", errno);
	start_guest(kvm, vm.size, strtoull(argv[5], NULL, 0));
	printf("{\"event\": \"ready\", \"words\": %" PRIu64 ", \"pages\": %" PRIu64 "}\n",
		(board->words - LEASE_GPA) / PAGE, (board->pages - LEASE_GPA) / PAGE);
	for (;;) {
		if (poll(&p, 1, running ? 1 : -1) == 0)
			hint();
		else if (!fgets(line, sizeof line, stdin) || obey(line))
			break;
	}
	stop_vcpus();
	/* The vCPU threads touch the lease no more; they end with the process. */
	memctl_release(lease, NULL);
	memctl_free(client);
	return 0;
}
