#include "mem/checksum.h"

#include "mem/page.h"

#define XXH_INLINE_ALL
#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <sys/random.h>
#include <xxhash.h>

static uint8_t secret[CHECKSUM_SECRET];
_Static_assert(CHECKSUM_SECRET >= XXH3_SECRET_SIZE_MIN, "a secret of XXH3");
static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool given;

static void make_secret(void)
{
	if (given)
		return;
	/* too early in the boot for random numbers: what a guest could win is that its pages are compared in vain */
	if (getrandom(secret, sizeof secret, GRND_NONBLOCK) != sizeof secret)
		XXH3_generateSecret_fromSeed(secret, (uintptr_t)&secret);
}

uint64_t checksum_page(const void *page)
{
	return XXH3_64bits(page, PAGE_SIZE);
}

uint64_t checksum_bytes(const void *bytes, uint64_t n)
{
	return XXH3_64bits(bytes, n);
}

const uint8_t *checksum_secret(void)
{
	pthread_once(&once, make_secret);
	return secret;
}

void checksum_set_secret(const uint8_t *with)
{
	memcpy(secret, with, sizeof secret);
	given = true;
}

uint64_t checksum_keyed(const void *page)
{
	uint64_t h;

	pthread_once(&once, make_secret);
	h = XXH3_64bits_withSecret(page, PAGE_SIZE, secret, sizeof secret);
	return h ? h : 1;
}
