/* The operator's files, in whatever state: the configuration, a drop-in of it and a VM's file, which 0 bytes divide.  A refusal is one
 * sentence that begins with the place; what is accepted can be written down and read again. */
#include "load.h"
#include "tests/fuzz/fuzz.h"
#include "tests/lib/check.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[] = "/dev/shm/memctl-fuzz-XXXXXX";
static char path[3][64];

static void remove_all(void)
{
	char folder[64];

	for (unsigned i = 0; i < 3; i++)
		unlink(path[i]);
	snprintf(folder, sizeof folder, "%s/m.conf.d", dir);
	rmdir(folder);
	snprintf(folder, sizeof folder, "%s/vms.d", dir);
	rmdir(folder);
	rmdir(dir);
}

static void make_all(void)
{
	char folder[64];

	CHECK(mkdtemp(dir));
	snprintf(folder, sizeof folder, "%s/m.conf.d", dir);
	CHECK(mkdir(folder, 0700) == 0);
	snprintf(folder, sizeof folder, "%s/vms.d", dir);
	CHECK(mkdir(folder, 0700) == 0);
	snprintf(path[0], sizeof path[0], "%s/m.conf", dir);
	snprintf(path[1], sizeof path[1], "%s/m.conf.d/50-some.conf", dir);
	snprintf(path[2], sizeof path[2], "%s/vms.d/vm.conf", dir);
	atexit(remove_all);
}

static void again(const struct config *c)
{
	struct config second = *c;
	char text[CONFIG_TEXT_MAX], why[512];

	for (const struct setting *s = settings; s->name; s++) {
		setting_format(s, c, text, sizeof text);
		CHECK_MSG(setting_set(s, &second, text, why, sizeof why) == 0, "%s = %s: %s", s->name, text, why);
		CHECK_MSG(setting_is_equal(s, c, &second), "%s = %s is read as another", s->name, text);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct load_source source = { .path = path[0] };
	const uint8_t *end = data + size;
	char why[512] = "";
	struct load l;
	int r, before;

	if (!*path[0])
		make_all();
	for (unsigned i = 0; i < 3; i++) {
		const uint8_t *zero = i < 2 && data < end ? memchr(data, 0, (size_t)(end - data)) : NULL;
		size_t n = (size_t)((zero ? zero : end) - data);
		FILE *f = fopen(path[i], "w");

		CHECK(f && fwrite(data, 1, n, f) == n && fclose(f) == 0);
		data = zero ? zero + 1 : end;
	}
	before = input_free_fd();
	r = load_read(&source, &l, why, sizeof why);
	if (r == 0)
		again(&l.config);
	if (r == 0)
		r = load_resolve(&l, why, sizeof why);
	CHECK((r < 0) == (*why != 0));
	CHECK_MSG(!strchr(why, '\n'), "%s", why);
	load_fini(&l);
	CHECK(input_free_fd() == before);
	return 0;
}
