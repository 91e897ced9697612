#include "mem/locked.h"

#include "mem/inject.h"

#include <link.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>

/* The program itself has no name. */
static bool is_of_fault_path(const char *path)
{
	static const char *const libraries[] = { "libc.so", "libc-", "libzstd.so", "libxxhash.so", "ld-linux" };
	const char *name = strrchr(path, '/');

	if (!*path)
		return true;
	for (unsigned i = 0; name && i < sizeof libraries / sizeof *libraries; i++)
		if (!strncmp(name + 1, libraries[i], strlen(libraries[i])))
			return true;
	return false;
}

/* Code is read in now.  Data only stays where it is once it is there: to have all of it would be to copy it. */
static int lock_object(struct dl_phdr_info *o, size_t size, void *userdata)
{
	uint64_t *bytes = userdata;

	if (!is_of_fault_path(o->dlpi_name))
		return 0;
	for (unsigned i = 0; i < o->dlpi_phnum; i++) {
		const ElfW(Phdr) *part = &o->dlpi_phdr[i];
		const void *at = (const void *)(o->dlpi_addr + part->p_vaddr);

		if (part->p_type != PT_LOAD || *bytes + part->p_memsz > LOCKED_CODE_MAX)
			continue;
		if (mlock2(at, part->p_memsz, part->p_flags & PF_W ? MLOCK_ONFAULT : 0) == 0)
			*bytes += part->p_memsz;
	}
	return 0;
}

uint64_t locked_code(void)
{
	uint64_t bytes = 0;

	if (!inject.twin_unlocked)
		dl_iterate_phdr(lock_object, &bytes);
	return bytes;
}

void locked_stack(void)
{
	pthread_attr_t a;
	size_t size = 0, part;
	void *at = NULL;

	if (inject.twin_unlocked || pthread_getattr_np(pthread_self(), &a) != 0)
		return;
	/* it grows down from its end */
	if (pthread_attr_getstack(&a, &at, &size) == 0) {
		part = size < LOCKED_STACK_MAX ? size : LOCKED_STACK_MAX;
		(void)mlock2((char *)at + size - part, part, MLOCK_ONFAULT);
	}
	pthread_attr_destroy(&a);
}
