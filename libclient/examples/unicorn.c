/* A Unicorn emulator whose RAM is leased from memctld.
 *
 *	cc unicorn.c $(pkg-config --cflags --libs memctl unicorn) && ./a.out [ROUNDS]
 *
 * The only difference to an emulator without memctl is where guest memory comes from: memctl_lease() instead
 * of mmap(), and memctl_read_into() instead of read() to load files.  Unicorn reaches guest memory from user
 * mode only, so no privilege is needed.  The guest here writes a number into each page of 64 MiB, and adds
 * them up; ROUNDS times (default 1). */
#include <memctl.h>
#include <unicorn/unicorn.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RAM_SIZE (UINT64_C(64) << 20)
#define PAGES    (RAM_SIZE / 4096)

static const unsigned char guest[] = {
	0x48, 0x89, 0xfe,                /*	mov %rdi, %rsi		first page */
	0x31, 0xc9,                      /*	xor %ecx, %ecx */
	0x48, 0xff, 0xc1,                /* 1:	inc %rcx */
	0x48, 0x89, 0x0e,                /*	mov %rcx, (%rsi) */
	0x48, 0x81, 0xc6, 0, 0x10, 0, 0, /*	add $4096, %rsi */
	0x48, 0x39, 0xd6,                /*	cmp %rdx, %rsi		end of RAM */
	0x72, 0xee,                      /*	jb 1b */
	0x31, 0xc0,                      /*	xor %eax, %eax */
	0x48, 0x03, 0x07,                /* 2:	add (%rdi), %rax */
	0x48, 0x81, 0xc7, 0, 0x10, 0, 0, /*	add $4096, %rdi */
	0x48, 0x39, 0xd7,                /*	cmp %rdx, %rdi */
	0x72, 0xf1,                      /*	jb 2b */
	0xf4,                            /*	hlt */
};

static int run(struct memctl_lease *lease)
{
	uint64_t first = 4096, end = RAM_SIZE, sum = 0;
	uint64_t right = PAGES * (PAGES - 1) / 2; /* 1 + 2 + ... + (PAGES - 1): page 0 is the code */
	uc_engine *uc;
	uc_err err;

	err = uc_open(UC_ARCH_X86, UC_MODE_64, &uc);
	if (err != UC_ERR_OK) {
		fprintf(stderr, "Unicorn: %s\n", uc_strerror(err));
		return 1;
	}
	memcpy(memctl_lease_address(lease), guest, sizeof(guest));
	/* one call: the lease is the guest's memory */
	err = uc_mem_map_ptr(uc, memctl_lease_gpa(lease), memctl_lease_size(lease), UC_PROT_ALL,
		memctl_lease_address(lease));
	uc_reg_write(uc, UC_X86_REG_RDI, &first);
	uc_reg_write(uc, UC_X86_REG_RDX, &end);
	if (err == UC_ERR_OK)
		err = uc_emu_start(uc, 0, sizeof(guest), 0, 0);
	uc_reg_read(uc, UC_X86_REG_RAX, &sum);
	uc_close(uc);
	printf("%s: the guest counted %llu, %s\n", uc_strerror(err), (unsigned long long)sum,
		sum == right ? "right" : "wrong");
	fflush(stdout);
	return err == UC_ERR_OK && sum == right ? 0 : 1;
}

int main(int argc, char **argv)
{
	unsigned long rounds = argc > 1 ? strtoul(argv[1], NULL, 10) : 1;
	struct memctl_vm vm = { .struct_size = sizeof(vm), .name = "unicorn-example", .size = RAM_SIZE };
	struct memctl_lease *lease = NULL;
	struct memctl_error e = { 0 };
	struct memctl *m = NULL;
	int r = 1;

	if (memctl_connect(NULL, &m, &e) < 0 || memctl_register(m, &vm, &e) < 0 ||
		memctl_lease(m, 0, RAM_SIZE, &lease, &e) < 0 || memctl_helper_start(m, &e) < 0)
		fprintf(stderr, "no memory: %s\n", e.message);
	else
		for (r = 0; r == 0 && rounds > 0; rounds--)
			r = run(lease);
	if (lease)
		memctl_release(lease, NULL);
	memctl_free(m);
	return r;
}
