/* The checksum of a stored page (the daemon's door to xxHash). */
#pragma once

#include <stdint.h>

/* XXH3, 64 bits, of one page. */
uint64_t checksum_page(const void *page);
