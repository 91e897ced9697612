#include "tests/fuzz/fuzz.h"

#include "tests/lib/check.h"

#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

void input_take(struct input *in, void *ret, size_t bytes)
{
	size_t n = bytes < in->left ? bytes : in->left;

	memset(ret, 0, bytes);
	if (n)
		memcpy(ret, in->data, n);
	in->data += n;
	in->left -= n;
}

uint8_t input_byte(struct input *in)
{
	uint8_t b;

	input_take(in, &b, 1);
	return b;
}

int input_free_fd(void)
{
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	CHECK(fd >= 0);
	close(fd);
	return fd;
}

/* Fuzzers look for the signal. */
void check_fail(const char *file, int line, const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "%s:%d: ", file, line);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	abort();
}

void check_skip(const char *fmt, ...)
{
	va_list ap;

	printf("skip replayed: ");
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
	exit(0);
}
