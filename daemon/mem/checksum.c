#include "mem/checksum.h"

#include "mem/page.h"

#define XXH_INLINE_ALL
#include <pthread.h>
#include <sys/random.h>
#include <xxhash.h>

static uint8_t secret[XXH3_SECRET_DEFAULT_SIZE];

static void make_secret(void)
{
	/* too early in the boot for random numbers: what a guest could win is that its pages are compared in vain */
	if (getrandom(secret, sizeof secret, GRND_NONBLOCK) != sizeof secret)
		XXH3_generateSecret_fromSeed(secret, (uintptr_t)&secret);
}

uint64_t checksum_page(const void *page)
{
	return XXH3_64bits(page, PAGE_SIZE);
}

uint64_t checksum_keyed(const void *page)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	uint64_t h;

	pthread_once(&once, make_secret);
	h = XXH3_64bits_withSecret(page, PAGE_SIZE, secret, sizeof secret);
	return h ? h : 1;
}
