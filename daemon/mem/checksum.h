/* Checksums of pages (the daemon's door to xxHash). */
#pragma once

#include <stdint.h>

/* Of a stored page: XXH3, 64 bits. */
uint64_t checksum_page(const void *page);
uint64_t checksum_bytes(const void *bytes, uint64_t n);
/* To find equal pages: XXH3 with a secret, so that no guest can make pages that collide.  Never 0. */
uint64_t checksum_keyed(const void *page);
/* The secret is of the first process: those that come after it at a restart go on with it, because pools remember hashes. */
#define CHECKSUM_SECRET 192
const uint8_t *checksum_secret(void);
/* Before the first use. */
void checksum_set_secret(const uint8_t *secret);
