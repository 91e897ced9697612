#include "mem/checksum.h"

#include "mem/page.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

uint64_t checksum_page(const void *page)
{
	return XXH3_64bits(page, PAGE_SIZE);
}
