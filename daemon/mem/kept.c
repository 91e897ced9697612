#include "mem/kept.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PART_BYTES 12
#define NUMBER_MAX (1u << 20)

struct found {
	uint32_t number;
	char kind, part[PART_BYTES];
	int fd;			/* -1: taken */
};

struct kept {
	struct keeper keeper;
	uint64_t *numbers;	/* a bit for each that an owner has, from 1 on */
	unsigned number_words;
	struct found *found;
	unsigned n, room;
	bool sorted;
};

static bool set_number(struct kept *k, uint32_t number)
{
	if (number / 64 >= k->number_words) {
		unsigned words = number / 64 + 64;
		uint64_t *more = realloc(k->numbers, words * sizeof *more);

		if (!more)
			return false;
		memset(more + k->number_words, 0, (words - k->number_words) * sizeof *more);
		k->numbers = more;
		k->number_words = words;
	}
	k->numbers[number / 64] |= 1ull << number % 64;
	return true;
}

int kept_new(struct kept **ret, const struct keeper *keeper)
{
	struct kept *k = calloc(1, sizeof *k);

	if (!k)
		return -ENOMEM;
	if (keeper)
		k->keeper = *keeper;
	set_number(k, 0);	/* is none */
	*ret = k;
	return 0;
}

void kept_free(struct kept *k)
{
	if (!k)
		return;
	for (unsigned i = 0; i < k->n; i++)
		if (k->found[i].fd >= 0)
			close(k->found[i].fd);
	free(k->found);
	free(k->numbers);
	free(k);
}

uint32_t kept_number(struct kept *k)
{
	uint32_t number;

	if (!k)
		return 1;
	for (unsigned i = 0; i < k->number_words; i++)
		if (~k->numbers[i]) {
			number = i * 64 + (unsigned)__builtin_ctzll(~k->numbers[i]);
			k->numbers[i] |= 1ull << number % 64;
			return number;
		}
	number = k->number_words * 64;
	return number < NUMBER_MAX && set_number(k, number) ? number : 0;
}

void kept_return(struct kept *k, uint32_t number)
{
	if (k && number / 64 < k->number_words)
		k->numbers[number / 64] &= ~(1ull << number % 64);
}

void kept_tag(char *ret, struct kept_owner owner, const char *part)
{
	*ret = 0;
	if (owner.kind)
		snprintf(ret, KEPT_TAG, "%c%x.%s", owner.kind, owner.number, part);
}

int kept_add(struct kept *k, const char *tag, int fd, struct problem *p)
{
	int r = k && *tag && k->keeper.add ? k->keeper.add(k->keeper.userdata, tag, fd) : 0;

	if (r == -ENOSPC)
		return problem_set(p, ENOSPC, PROBLEM_LIMIT_REACHED, 0, 0,
			"the service manager can keep no more descriptors for a restart: end other VMs, or register with sharing off (a "
			"pool of one's own takes as many as a VM)");
	if (r < 0)
		return problem_set(p, -r, PROBLEM_SYSTEM, 0, 0, "the service manager does not keep a descriptor for us: %s", strerror(-r));
	return 0;
}

void kept_drop(struct kept *k, const char *tag)
{
	if (k && *tag && k->keeper.drop)
		k->keeper.drop(k->keeper.userdata, tag);
}

static bool parse(const char *tag, struct found *ret)
{
	char *end;
	unsigned long n = *tag ? strtoul(tag + 1, &end, 16) : 0;

	if (!n || n >= NUMBER_MAX || *end != '.' || strlen(end + 1) >= PART_BYTES)
		return false;
	*ret = (struct found){ .number = (uint32_t)n, .kind = *tag };
	strcpy(ret->part, end + 1);
	return true;
}

void kept_find(struct kept *k, const char *tag, int fd)
{
	struct found f;

	if (k->n == k->room) {
		struct found *more = realloc(k->found, (k->room + 256) * sizeof *more);

		if (more) {
			k->found = more;
			k->room += 256;
		}
	}
	if (k->n == k->room || !parse(tag, &f)) {
		kept_drop(k, tag);
		close(fd);
		return;
	}
	f.fd = fd;
	k->found[k->n++] = f;
	k->sorted = false;
	(void)set_number(k, f.number);
}

static int compare(const void *a, const void *b)
{
	const struct found *x = a, *y = b;

	if (x->kind != y->kind)
		return x->kind < y->kind ? -1 : 1;
	if (x->number != y->number)
		return x->number < y->number ? -1 : 1;
	return strcmp(x->part, y->part);
}

/* One of a tag: a keeper may have been given something twice. */
static void sort(struct kept *k)
{
	unsigned n = 0;

	if (k->sorted || !k->n)
		return;
	qsort(k->found, k->n, sizeof *k->found, compare);
	for (unsigned i = 0; i < k->n; i++) {
		if (n && !compare(&k->found[n - 1], &k->found[i]))
			close(k->found[i].fd);
		else
			k->found[n++] = k->found[i];
	}
	k->n = n;
	k->sorted = true;
}

int kept_take(struct kept *k, const char *tag)
{
	struct found key, *f;
	int fd;

	if (!k)
		return -ENOENT;
	sort(k);
	f = k->n && parse(tag, &key) ? bsearch(&key, k->found, k->n, sizeof key, compare) : NULL;
	if (!f || f->fd < 0)
		return -ENOENT;
	fd = f->fd;
	f->fd = -1;
	return fd;
}

uint32_t kept_next(struct kept *k, char kind, const char *part, uint32_t last)
{
	if (!k)
		return 0;
	sort(k);
	for (unsigned i = 0; i < k->n; i++) {
		const struct found *f = &k->found[i];

		if (f->kind == kind && f->number > last && f->fd >= 0 && !strcmp(f->part, part))
			return f->number;
	}
	return 0;
}

uint64_t kept_bytes(const struct kept *k)
{
	uint64_t bytes = 0;
	struct stat st;

	for (unsigned i = 0; k && i < k->n; i++)
		if (fcntl(k->found[i].fd, F_GET_SEALS) >= 0 && fstat(k->found[i].fd, &st) == 0)
			bytes += (uint64_t)st.st_blocks * 512;
	return bytes;
}

unsigned kept_end(struct kept *k)
{
	char tag[KEPT_TAG];
	unsigned n = 0;

	sort(k);
	for (unsigned i = 0; i < k->n; i++) {
		if (k->found[i].fd < 0)
			continue;
		kept_tag(tag, (struct kept_owner){ .kind = k->found[i].kind, .number = k->found[i].number }, k->found[i].part);
		kept_drop(k, tag);
		close(k->found[i].fd);
		n++;
	}
	free(k->found);
	k->found = NULL;
	k->n = k->room = 0;
	return n;
}
