#include "resources.h"

#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
	const char *word;
	unsigned per_mib;
} levels[] = { { "low", 5 }, { "normal", 10 }, { "high", 20 } };

static uint32_t shares_per_mib(uint64_t size_bytes, unsigned per_mib)
{
	uint64_t shares = (size_bytes >> 20) * per_mib;

	return shares > UINT32_MAX ? UINT32_MAX : shares ? (uint32_t)shares : 1;
}

uint32_t resources_normal_shares(uint64_t size_bytes)
{
	return shares_per_mib(size_bytes, 10);
}

bool resources_is_sharing(const char *text)
{
	return !strcmp(text, "off") || !strcmp(text, "zero") || !strcmp(text, "vm") ||
		(strncmp(text, "group:", 6) == 0 && is_name(text + 6));
}

/* "40%", "2.5%": tenths of a percent, at most 1000. */
static bool parse_permille(const char *text, uint64_t *ret)
{
	size_t digits = strspn(text, "0123456789");
	const char *rest = text + digits;
	uint64_t tenth = 0;

	if (!digits || digits > 3)
		return false;
	if (rest[0] == '.' && rest[1] >= '0' && rest[1] <= '9') {
		tenth = (uint64_t)(rest[1] - '0');
		rest += 2;
	}
	*ret = strtoul(text, NULL, 10) * 10 + tenth;
	return !strcmp(rest, "%") && *ret <= 1000;
}

/* A size, or a part of the VM's. */
static bool parse_part(const char *text, uint64_t size_bytes, uint64_t *ret)
{
	uint64_t permille;

	if (!parse_permille(text, &permille))
		return parse_size(text, ret) == 0;
	*ret = size_bytes / PAGE_SIZE * permille / 1000 * PAGE_SIZE;
	return true;
}

static bool parse_shares(const char *text, uint64_t size_bytes, uint32_t *ret)
{
	size_t digits = strspn(text, "0123456789");
	unsigned long long n;

	for (unsigned i = 0; i < sizeof levels / sizeof *levels; i++)
		if (!strcmp(text, levels[i].word)) {
			*ret = shares_per_mib(size_bytes, levels[i].per_mib);
			return true;
		}
	n = strtoull(text, NULL, 10);
	if (!digits || text[digits] || digits > 10 || n > UINT32_MAX)
		return false;
	*ret = (uint32_t)n;
	return true;
}

int resources_parse(const struct resource_words *w, struct vm_config *c, const char **ret_field, char *why, size_t why_bytes)
{
	uint64_t n;
	uint32_t shares;

	*ret_field = "reservation";
	if (*w->reservation) {
		if (!strcmp(w->reservation, "none"))
			n = 0;
		else if (!parse_part(w->reservation, c->size_bytes, &n))
			goto no_size;
		c->reservation_bytes = n;
	}
	*ret_field = "limit";
	if (*w->limit) {
		if (!strcmp(w->limit, "none"))
			n = 0;
		else if (!parse_part(w->limit, c->size_bytes, &n) || !n)
			goto no_size;
		c->limit_bytes = n;
	}
	*ret_field = "shares";
	if (*w->shares) {
		if (!parse_shares(w->shares, c->size_bytes, &shares)) {
			snprintf(why, why_bytes, "shares is \"low\", \"normal\", \"high\" or a number up to 4294967295.");
			return -EINVAL;
		}
		c->shares = shares;
	}
	*ret_field = "balloon_max";
	if (*w->balloon_max) {
		if (!strcmp(w->balloon_max, "default")) {
			c->balloon_max_bytes = 0;
		} else if (parse_part(w->balloon_max, c->size_bytes, &n) && n <= c->size_bytes) {
			c->balloon_max_bytes = VM_OWN | n;
		} else {
			snprintf(why, why_bytes,
				"balloon_max is a size up to the VM's, like \"512M\", \"40%%\", \"0\" for no balloon, or \"default\".");
			return -EINVAL;
		}
	}
	*ret_field = "stall_budget";
	if (*w->stall_budget) {
		if (!strcmp(w->stall_budget, "default")) {
			c->stall_budget_permille = 0;
		} else if (!strcmp(w->stall_budget, "none")) {
			c->stall_budget_permille = VM_OWN;
		} else if (parse_permille(w->stall_budget, &n)) {
			c->stall_budget_permille = VM_OWN | n;
		} else {
			snprintf(why, why_bytes, "stall_budget is a part of the time, like \"3%%\" or \"2.5%%\", \"none\" or \"default\".");
			return -EINVAL;
		}
	}
	*ret_field = NULL;
	return 0;
no_size:
	snprintf(why, why_bytes, "%s is a size like \"512M\", a part of the VM's size like \"40%%\", or \"none\".", *ret_field);
	return -EINVAL;
}

void resources_balloon_max(const struct vm_config *c, char ret[32])
{
	uint64_t own = c->balloon_max_bytes;

	if (own & VM_OWN)
		snprintf(ret, 32, "%llu", (unsigned long long)(own & ~VM_OWN));
	else
		strcpy(ret, "default");
}

void resources_stall_budget(const struct vm_config *c, char ret[32])
{
	uint64_t own = c->stall_budget_permille, permille = own & ~VM_OWN;

	if (!(own & VM_OWN))
		strcpy(ret, "default");
	else if (!permille)
		strcpy(ret, "none");
	else if (permille % 10)
		snprintf(ret, 32, "%u.%u%%", (unsigned)(permille / 10), (unsigned)(permille % 10));
	else
		snprintf(ret, 32, "%u%%", (unsigned)(permille / 10));
}
