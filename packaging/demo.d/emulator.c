/* One guest of the demo: an x86-64 machine by Unicorn whose RAM is a lease.
 *
 * It loads the files of its plan into guest memory and runs the guest program (guest.S) job by job.  The
 * guest reads and writes its memory by itself; what this program sees of it are the hashes that the
 * guest reports by `syscall`, which go to stdout, to the oracle; and the pages that its balloon driver names
 * through ports (guest.h), which go to memctld.
 *
 *	emulator [--socket S] [--sharing MODE] [--flip] [--unkept] NAME PLAN >RESULTS
 *
 * When all jobs are done it closes stdout, and keeps its memory until its stdin ends, so that the numbers of
 * the VM can still be read.  --flip changes one bit after loading, --unkept makes the guest's driver give pages that
 * its allocator goes on giving to others: the twins that show that the oracle would notice. */
#include "guest.h"
#include "plan.h"

#include <memctl.h>
#include <unicorn/unicorn.h>

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct emulator {
	const char *name;
	struct plan plan;
	struct memctl *m;
	struct memctl_lease *ram;
	uc_engine *uc;
	uc_hook syscalls, ins, outs;
	uint32_t job;
	bool broken; /* nobody takes the results, or memctld the balloon's pages */
	bool unkept;
	uint64_t ballooned; /* pages */
	/* named by the guest and not carried out yet; all of one kind */
	uint64_t batch[GUEST_BATCH];
	uint8_t refused[GUEST_BATCH];
	unsigned n_batch, n_refused;
	bool inflates;
};

static void put_result(struct emulator *e, uint32_t page, uint64_t value)
{
	struct plan_result r = { .job = e->job, .page = page, .value = value };

	if (fwrite(&r, sizeof(r), 1, stdout) == 1)
		return;
	e->broken = true;
	uc_emu_stop(e->uc);
}

static void on_syscall(uc_engine *uc, void *userdata)
{
	uint64_t page = 0, hash = 0;

	uc_reg_read(uc, UC_X86_REG_R12, &page);
	uc_reg_read(uc, UC_X86_REG_RAX, &hash);
	put_result(userdata, (uint32_t)page, hash);
}

/* ---- the balloon's ports ---- */

static void break_off(struct emulator *e, const char *what, const struct memctl_error *error)
{
	fprintf(stderr, "%s: job %u: %s%s%s\n", e->name, e->job, what, error ? ": " : "", error ? error->message : "");
	e->broken = true;
	uc_emu_stop(e->uc);
}

static void name_page(struct emulator *e, bool inflates, uint32_t page)
{
	if (e->n_batch == GUEST_BATCH || (e->n_batch && e->inflates != inflates)) {
		break_off(e, "the guest's driver names too much at once", NULL);
		return;
	}
	e->inflates = inflates;
	e->batch[e->n_batch++] = page;
}

/* How many were refused.  Those are found from the end. */
static uint32_t commit(struct emulator *e)
{
	struct memctl_error error = { 0 };
	ssize_t n;

	if (e->inflates)
		n = memctl_balloon_inflate(e->ram, e->batch, e->n_batch, e->refused, &error);
	else
		n = memctl_balloon_deflate(e->ram, e->batch, e->n_batch, &error);
	if (n < 0) {
		break_off(e, "the balloon", &error);
		return 0;
	}
	e->n_refused = e->n_batch;
	n = e->inflates ? (ssize_t)e->n_batch - n : 0;
	e->ballooned = e->inflates ? e->ballooned + e->n_batch - (uint64_t)n : e->ballooned - e->n_batch;
	e->n_batch = 0;
	return (uint32_t)n;
}

static uint32_t next_refused(struct emulator *e)
{
	while (e->n_refused)
		if (e->refused[--e->n_refused])
			return e->n_refused;
	break_off(e, "the guest's driver asks for more than was refused", NULL);
	return 0;
}

static uint32_t on_in(uc_engine *uc, uint32_t port, int size, void *userdata)
{
	struct emulator *e = userdata;

	(void)uc;
	(void)size;
	switch (port) {
	case GUEST_PORT_TARGET:
		return (uint32_t)(memctl_balloon_target(e->m) / PLAN_PAGE_SIZE);
	case GUEST_PORT_COMMIT:
		return commit(e);
	case GUEST_PORT_REFUSED:
		return next_refused(e);
	default:
		return UINT32_MAX;
	}
}

static void on_out(uc_engine *uc, uint32_t port, int size, uint32_t value, void *userdata)
{
	struct emulator *e = userdata;
	struct memctl_error error = { 0 };

	(void)uc;
	(void)size;
	if (port == GUEST_PORT_INFLATE || port == GUEST_PORT_DEFLATE)
		name_page(e, port == GUEST_PORT_INFLATE, value);
	else if (port == GUEST_PORT_START && memctl_balloon_start(e->m, &error) < 0)
		break_off(e, "the balloon", &error);
}

static int run_job(struct emulator *e, const struct plan_job *j)
{
	static const char *const entries[PLAN_OPS] = {
		[PLAN_REPORT] = guest_report,
		[PLAN_SEAL] = guest_seal,
		[PLAN_CHECK] = guest_check,
		[PLAN_REWRITE] = guest_rewrite,
		[PLAN_SORT] = guest_sort,
		[PLAN_WALK] = guest_walk,
		[PLAN_BOOT] = guest_boot,
		[PLAN_USE] = guest_use,
		[PLAN_LOOK] = guest_look,
		[PLAN_DROP] = guest_drop,
		[PLAN_BALLOON] = guest_balloon,
	};
	bool heap = j->op >= PLAN_BOOT;
	const struct {
		int reg;
		uint64_t value;
	} in[] = {
		{ UC_X86_REG_R12, j->first },
		{ UC_X86_REG_R13, j->pages },
		{ UC_X86_REG_R14, j->seed },
		{ UC_X86_REG_R10, heap ? e->plan.heap_pages - GUEST_HEAP_TABLE_PAGES : j->stride_bytes },
		{ UC_X86_REG_R9, heap ? e->unkept : j->steps },
		{ UC_X86_REG_R8, (uint64_t)(heap ? e->plan.heap_first : GUEST_TABLE_PAGE) * PLAN_PAGE_SIZE },
		{ UC_X86_REG_RBP, 0 },
	};
	uint64_t differing = 0;
	uc_err err;

	for (unsigned i = 0; i < sizeof(in) / sizeof(*in); i++)
		uc_reg_write(e->uc, in[i].reg, &in[i].value);
	err = uc_emu_start(
		e->uc, (uint64_t)(entries[j->op] - guest_begin), (uint64_t)(guest_end - guest_begin), 0, 0);
	if (err != UC_ERR_OK) {
		fprintf(stderr, "%s: job %u (%s): %s\n", e->name, e->job, plan_op_names[j->op],
			uc_strerror(err));
		return -EIO;
	}
	if (j->op == PLAN_BALLOON)
		put_result(e, PLAN_HOST_BALLOONED, e->ballooned);
	uc_reg_read(e->uc, UC_X86_REG_RBP, &differing);
	put_result(e, PLAN_JOB_DONE, differing);
	return e->broken || fflush(stdout) != 0 ? -EPIPE : 0;
}

/* memctl_read_into is read(2) that also works where system calls may not touch absent pages. */
static int load_file(struct emulator *e, const struct plan_file *f)
{
	int fd = open(f->path, O_RDONLY | O_CLOEXEC);
	uint64_t done = 0;
	ssize_t n = 0;

	if (fd < 0)
		return -errno;
	while (done < f->bytes) {
		n = memctl_read_into(
			e->ram, (uint64_t)f->first * PLAN_PAGE_SIZE + done, f->bytes - done, fd, (off_t)done);
		if (n <= 0)
			break;
		done += (uint64_t)n;
	}
	close(fd);
	return done == f->bytes ? 0 : n < 0 ? (int)n : -EIO;
}

static int load(struct emulator *e, bool flip)
{
	char *ram = memctl_lease_address(e->ram);
	int r;

	memcpy(ram, guest_begin, (size_t)(guest_end - guest_begin));
	for (unsigned i = 0; i < e->plan.n_files; i++) {
		r = load_file(e, &e->plan.files[i]);
		if (r < 0) {
			fprintf(stderr, "%s: cannot load %s: %s\n", e->name, e->plan.files[i].path,
				strerror(-r));
			return r;
		}
	}
	if (flip)
		ram[(uint64_t)e->plan.cold_first * PLAN_PAGE_SIZE + 123] ^= 4;
	return 0;
}

static int get_ram(struct emulator *e, const char *socket, const char *sharing)
{
	uint64_t size = (uint64_t)e->plan.pages * PLAN_PAGE_SIZE;
	struct memctl_options options = {
		.struct_size = sizeof(options), .socket = socket, .timeout_ms = 60000
	};
	struct memctl_vm vm = { .struct_size = sizeof(vm), .name = e->name, .size = size,
		.sharing = sharing };
	struct memctl_error error = { 0 };
	int r;

	r = memctl_connect(&options, &e->m, &error);
	if (r == 0)
		r = memctl_register(e->m, &vm, &error);
	if (r == 0)
		r = memctl_lease(e->m, 0, size, &e->ram, &error);
	if (r == 0)
		r = memctl_helper_start(e->m, &error);
	if (r < 0)
		fprintf(stderr, "%s: no memory: %s\n", e->name, error.message);
	return r;
}

static int start_machine(struct emulator *e)
{
	uc_err err = uc_open(UC_ARCH_X86, UC_MODE_64, &e->uc);

	if (err == UC_ERR_OK)
		err = uc_mem_map_ptr(
			e->uc, 0, memctl_lease_size(e->ram), UC_PROT_ALL, memctl_lease_address(e->ram));
	if (err == UC_ERR_OK)
		err = uc_hook_add(
			e->uc, &e->syscalls, UC_HOOK_INSN, (void *)on_syscall, e, 1, 0, UC_X86_INS_SYSCALL);
	if (err == UC_ERR_OK)
		err = uc_hook_add(e->uc, &e->ins, UC_HOOK_INSN, (void *)on_in, e, 1, 0, UC_X86_INS_IN);
	if (err == UC_ERR_OK)
		err = uc_hook_add(e->uc, &e->outs, UC_HOOK_INSN, (void *)on_out, e, 1, 0, UC_X86_INS_OUT);
	if (err == UC_ERR_OK)
		return 0;
	fprintf(stderr, "%s: %s\n", e->name, uc_strerror(err));
	return -EIO;
}

static int run(struct emulator *e, const char *socket, const char *sharing, bool flip)
{
	char byte;
	int r;

	r = get_ram(e, socket, sharing);
	if (r == 0)
		r = start_machine(e);
	if (r == 0)
		r = load(e, flip);
	for (e->job = 0; r == 0 && e->job < e->plan.n_jobs; e->job++)
		r = run_job(e, &e->plan.jobs[e->job]);
	fclose(stdout);
	while (r == 0 && read(STDIN_FILENO, &byte, 1) == 1)
		;
	if (e->uc)
		uc_close(e->uc);
	if (e->ram)
		memctl_release(e->ram, NULL);
	memctl_free(e->m);
	return r;
}

int main(int argc, char **argv)
{
	struct emulator e = { 0 };
	const char *socket = NULL, *sharing = NULL;
	bool flip = false;
	int i = 1, r;

	for (; i < argc && argv[i][0] == '-'; i++) {
		if (strcmp(argv[i], "--flip") == 0)
			flip = true;
		else if (strcmp(argv[i], "--unkept") == 0)
			e.unkept = true;
		else if (strcmp(argv[i], "--socket") == 0 && i + 1 < argc)
			socket = argv[++i];
		else if (strcmp(argv[i], "--sharing") == 0 && i + 1 < argc)
			sharing = argv[++i];
		else
			break;
	}
	if (argc - i != 2) {
		fprintf(stderr,
			"usage: emulator [--socket S] [--sharing MODE] [--flip] [--unkept] NAME PLAN >RESULTS\n");
		return 16;
	}
	e.name = argv[i];
	r = plan_read(&e.plan, argv[i + 1]);
	if (r < 0)
		return 4;
	r = run(&e, socket, sharing, flip);
	plan_fini(&e.plan);
	return r < 0 ? 4 : 0;
}
