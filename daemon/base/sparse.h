/* Arrays that cost nothing where they are not touched: zeroed memory of the process's own, by the page. */
#pragma once

#include <stddef.h>
#include <sys/mman.h>

/* NULL: no address space. */
static inline void *sparse_new(size_t bytes)
{
	void *m = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return m == MAP_FAILED ? NULL : m;
}

/* NULL is fine. */
static inline void sparse_free(void *m, size_t bytes)
{
	if (m)
		munmap(m, bytes);
}
