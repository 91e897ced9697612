#include "region.h"
#include "measure.h"

#include <malloc.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

uint8_t *map_memfd(size_t bytes)
{
	int fd = memfd_create("bench", MFD_CLOEXEC);
	uint8_t *m;

	if (fd < 0 || ftruncate(fd, (off_t)bytes) < 0)
		die("memfd of %zu bytes", bytes);
	m = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (m == MAP_FAILED)
		die("map memfd");
	close(fd);
	madvise(m, bytes, MADV_NOHUGEPAGE);
	return m;
}

static void read_key(struct memctl_vm *vm, char *word)
{
	char *value = strchr(word, '=');

	if (!value)
		die("not KEY=VALUE: %s", word);
	*value++ = '\0';
	if (!strcmp(word, "reservation_mib"))
		vm->reservation = number(value) << 20;
	else if (!strcmp(word, "shares"))
		vm->shares = (uint32_t)number(value);
	else if (!strcmp(word, "sharing"))
		vm->sharing = value;
	else
		die("no key %s", word);
}

/* words: NAME [SOCKET [KEY=VALUE]...], and NULL */
static void open_lease(struct region *r, char **words)
{
	struct memctl_options options = { .struct_size = sizeof options, .timeout_ms = 120000 };
	struct memctl_vm vm = { .struct_size = sizeof vm, .name = words[0], .size = r->bytes };
	struct memctl_error e = { 0 };

	if (words[0] && words[1]) {
		options.socket = words[1];
		for (char **w = words + 2; *w; w++)
			read_key(&vm, *w);
	}
	r->heap_before = mallinfo2().uordblks;
	if (memctl_connect(&options, &r->memctl, &e) < 0 || memctl_register(r->memctl, &vm, &e) < 0 ||
		memctl_lease(r->memctl, 0, r->bytes, &r->lease, &e) < 0 || memctl_helper_start(r->memctl, &e) < 0)
		die("lease of %zu bytes: %s: %s", r->bytes, e.name, e.message);
	r->base = memctl_lease_address(r->lease);
}

void region_open(struct region *r, size_t bytes, char **how)
{
	*r = (struct region){ .bytes = bytes };
	if (!strcmp(how[0], "lease")) {
		open_lease(r, how + 1);
	} else if (!strcmp(how[0], "memfd")) {
		r->base = map_memfd(bytes);
	} else {
		r->base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (r->base == MAP_FAILED)
			die("map %zu bytes", bytes);
		madvise(r->base, bytes, MADV_NOHUGEPAGE);
		if (!strcmp(how[0], "mergeable") && madvise(r->base, bytes, MADV_MERGEABLE) < 0)
			die("MADV_MERGEABLE");
	}
}

void region_close(struct region *r)
{
	if (r->lease)
		memctl_release(r->lease, NULL);
	memctl_free(r->memctl);
}

const char *region_faults(const struct region *r)
{
	return r->memctl ? memctl_fault_handling_name(memctl_fault_handling(r->memctl)) : "plain";
}
