/* The disk alone: O_DIRECT reads of 4 KiB at random places of a written file.
 *
 *	disk DIRECTORY MIB	commands: read N SEED | quit */
#include "content.h"
#include "measure.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define CHUNK (1ul << 20)

int main(int argc, char **argv)
{
	static uint8_t buffer[CHUNK] __attribute__((aligned(4096)));
	char line[256], *words[WORDS_MAX];
	struct samples s = { 0 };
	uint64_t state = 1, chunks, pages;
	int fd;

	if (argc != 3)
		die("usage: disk DIRECTORY MIB");
	follow_parent();
	chunks = number(argv[2]);
	pages = chunks * (CHUNK / PAGE_BYTES);
	fd = open(argv[1], O_TMPFILE | O_RDWR | O_DIRECT | O_CLOEXEC, 0600);
	if (fd < 0)
		die("temporary file in %s", argv[1]);
	/* like a swap file: preallocated, then written */
	if (fallocate(fd, 0, 0, (off_t)(chunks * CHUNK)) < 0)
		die("fallocate");
	for (uint64_t i = 0; i < chunks; i++) {
		for (size_t j = 0; j < CHUNK / 8; j++)
			((uint64_t *)buffer)[j] = chance(&state);
		if (pwrite(fd, buffer, CHUNK, (off_t)(i * CHUNK)) != (ssize_t)CHUNK)
			die("pwrite");
	}
	if (fsync(fd) < 0)
		die("fsync");
	printf("{\"ok\":true}\n");
	fflush(stdout);
	while (command_read(line, sizeof line, words) && !strcmp(words[0], "read")) {
		uint64_t n = number(words[1]), seed = number(words[2]);

		for (uint64_t i = 0; i < n; i++) {
			off_t at = (off_t)(chance(&seed) % pages * PAGE_BYTES);
			uint64_t before = now_ns();

			if (pread(fd, buffer, PAGE_BYTES, at) != (ssize_t)PAGE_BYTES)
				die("pread");
			samples_add(&s, (double)(now_ns() - before) / 1000);
		}
		samples_reply(&s, "");
	}
	return 0;
}
