/* Checksums of pages (the daemon's door to xxHash). */
#pragma once

#include <stdint.h>

/* Of a stored page: XXH3, 64 bits. */
uint64_t checksum_page(const void *page);
/* To find equal pages: XXH3 with a secret that is made anew at each start, so that no guest can make pages that collide.
 * Never 0. */
uint64_t checksum_keyed(const void *page);
