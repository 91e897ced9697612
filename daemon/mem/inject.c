#include "mem/inject.h"

#include "base/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct inject inject;

static int apply(const char *word)
{
	if (!strcmp(word, "no_protect"))
		inject.twin_no_protect = true;
	else if (!strcmp(word, "no_punch"))
		inject.twin_no_punch = true;
	else if (!strcmp(word, "pool_writable"))
		inject.twin_pool_writable = true;
	else if (!strcmp(word, "share_unprotected"))
		inject.twin_share_unprotected = true;
	else if (!strcmp(word, "share_unverified"))
		inject.twin_share_unverified = true;
	else if (!strcmp(word, "home_from_pool"))
		inject.twin_home_from_pool = true;
	else if (!strcmp(word, "break_unheld"))
		inject.twin_break_unheld = true;
	else if (!strcmp(word, "swap_write:EIO"))
		inject.swap_write_errno = EIO;
	else if (!strcmp(word, "swap_write:ENOSPC"))
		inject.swap_write_errno = ENOSPC;
	else if (!strcmp(word, "swap_read:EIO"))
		inject.swap_read_errno = EIO;
	else if (!strcmp(word, "swap_corrupt"))
		inject.swap_corrupt = true;
	else if (!strcmp(word, "cache_corrupt"))
		inject.cache_corrupt = true;
	else
		return -EINVAL;
	log_warning("TEST SWITCH %s is on: this daemon breaks its promises", word);
	return 0;
}

int inject_from_environment(void)
{
	static const char *const variables[] = { "MEMCTLD_TWIN", "MEMCTLD_INJECT" };

	for (unsigned i = 0; i < sizeof variables / sizeof *variables; i++) {
		const char *value = getenv(variables[i]);
		char words[256], *save = NULL;

		if (!value)
			continue;
		snprintf(words, sizeof words, "%s", value);
		for (char *w = strtok_r(words, ",", &save); w; w = strtok_r(NULL, ",", &save)) {
			if (apply(w) < 0) {
				log_error("%s: \"%s\" is not a switch", variables[i], w);
				return -EINVAL;
			}
		}
	}
	return 0;
}
