/* What a guest does in the tests of tests/guest: it fills files of a tmpfs with pages that can be told, checks
 * them, sorts, frees memory and takes it again.
 *
 * It runs in the guest, beside a kernel and a shell, and speaks with the host over the serial line: a command a
 * line, each answered by a line.
 *
 *	fill MIB SEED	make files of that size; "filled PAGES"
 *	run		check, change pages in place, rewrite files, sort, drop and make again until the next command;
 *			"at CHECKS ERRORS SORTS" each second
 *	check		look at everything; "checked PAGES ERRORS ZEROED" (the errors that are pages full of zeros)
 *	drop		remove the files; "dropped"
 *	disk MIB [SECONDS]	to the first disk and back, by the device's own access to memory; equal pages have lain
 *			there for SECONDS when it comes back; "disk PAGES WRONG-WORDS"
 *	compute SECONDS	work on memory that is there; "computed ROUNDS-PER-SECOND"
 *	reboot, off	end with a status that init understands
 *
 * A page says in its first words what it is and in its last word the Adler-32 of the rest, so that it can be found
 * and judged in a dump of the guest's memory too.  Four kinds follow one another: random; two that compress; one
 * that compresses and is the same in every guest, and twice in each.  What a page must hold is made anew for each check, from
 * the numbers of guest, file, page and generation; only its checksum is remembered, and how often its fifth word was
 * changed in place: a page that is written to just when it is taken is the one that could lose a write. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096
#define WORDS (PAGE / 8)
#define FILE_PAGES 1024		/* 4 MiB */
#define FILES_MAX 64
#define BATCH 16
#define POKES 128
#define ROOM_BYTES (8 << 20)
#define ROOM_SECONDS 60
#define MAGIC 0x6d656d63746c7067
#define SORTED (1 << 17)
#define COMPUTE_WORDS (32 << 20 >> 3)
#define DROP_EVERY 9		/* seconds; the guest's kernel reports what has been free for two */
#define DROP_FOR 4
#define DISK_PIECE (1 << 20)
#define EXIT_REBOOT 3

static uint64_t seed, rng = 88172645463325252;
static uint32_t files, sums[FILES_MAX][FILE_PAGES], pokes[FILES_MAX][FILE_PAGES], generations[FILES_MAX];
static bool there[FILES_MAX];
static uint64_t checks, errors, zeroed, sorts, sorted[SORTED], sorted_sum;

/* Whole lines only, for the host reads lines. */
__attribute__((format(printf, 1, 2))) static void say(const char *format, ...)
{
	char line[160];
	va_list ap;

	va_start(ap, format);
	int n = vsnprintf(line, sizeof line - 1, format, ap);
	va_end(ap);
	line[n++] = '\n';
	for (ssize_t done = 0, r; done < n; done += r) {
		r = write(STDOUT_FILENO, line + done, (size_t)(n - done));
		if (r < 0)
			_exit(1);
	}
}

static void fail(const char *what)
{
	say("failed %s: %s", what, strerror(errno));
	_exit(1);
}

static uint64_t next(uint64_t *state)
{
	uint64_t x = *state;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return *state = x;
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Free page reporting takes up to 128 MiB of free memory away while the host looks at it, and leaves little more than
 * the kernel's lowest watermark: on a busy host whoever allocates meanwhile would meet the out-of-memory killer. */
static void wait_for_room(void)
{
	struct sysinfo i;
	double end = now() + ROOM_SECONDS;

	while (sysinfo(&i) == 0 && i.freeram * i.mem_unit < ROOM_BYTES) {
		if (now() > end)
			fail("no free memory");
		usleep(10000);
	}
}

/* ---- pages that can be told */

static uint32_t adler(const uint64_t *page)
{
	const uint8_t *bytes = (const uint8_t *)page;
	uint32_t a = 1, b = 0;

	/* both sums of so few bytes fit without a remainder in between */
	for (size_t i = 0; i < PAGE - 8; i++) {
		a += bytes[i];
		b += a;
	}
	return b % 65521 << 16 | a % 65521;
}

/* All but the checksum. */
static void make_page(uint64_t *w, uint32_t file, uint32_t page)
{
	bool same = page % 4 == 3;
	uint64_t guest = same ? 0 : seed, generation = same ? 0 : generations[file], number = same ? file & ~1u : file;
	uint64_t state = (guest + 1) * 0x9e3779b97f4a7c15 ^ (generation << 40 | number << 20 | page) *
		0xbf58476d1ce4e5b9;

	state |= 1;
	next(&state);
	w[0] = MAGIC;
	w[1] = number << 32 | page;
	w[2] = generation;
	w[3] = guest;
	w[4] = pokes[file][page];
	for (int i = 5; i < WORDS - 1; i++) {
		if (page % 4 == 0)
			w[i] = next(&state);
		else if (i < 69)
			w[i] = (next(&state) & 0x0f0f0f0f0f0f0f0f) | 0x6060606060606060;
		else
			w[i] = i % 32 ? w[i - 64] : w[i - 64] + 1;
	}
}

static int open_file(uint32_t file, int flags)
{
	char path[32];

	snprintf(path, sizeof path, "/tmp/%u", file);
	int fd = open(path, flags | O_CLOEXEC, 0600);
	if (fd < 0)
		fail(path);
	return fd;
}

static void drop_file(uint32_t file)
{
	char path[32];

	snprintf(path, sizeof path, "/tmp/%u", file);
	if (there[file] && unlink(path) < 0)
		fail(path);
	there[file] = false;
}

static void make_file(uint32_t file)
{
	static uint64_t pages[BATCH][WORDS];

	drop_file(file);
	generations[file]++;
	memset(pokes[file], 0, sizeof pokes[file]);
	int fd = open_file(file, O_CREAT | O_WRONLY | O_TRUNC);
	for (uint32_t p = 0; p < FILE_PAGES; p += BATCH) {
		wait_for_room();
		for (uint32_t i = 0; i < BATCH; i++) {
			make_page(pages[i], file, p + i);
			pages[i][WORDS - 1] = sums[file][p + i] = adler(pages[i]);
		}
		if (write(fd, pages, sizeof pages) != sizeof pages)
			fail("write");
	}
	close(fd);
	there[file] = true;
}

/* Change pages in place, at both ends of each. */
static void poke_file(uint32_t file)
{
	static uint64_t w[WORDS];

	if (!there[file])
		return;
	int fd = open_file(file, O_WRONLY);
	for (int i = 0; i < POKES; i++) {
		uint32_t p = (uint32_t)(next(&rng) >> 20) % FILE_PAGES;

		pokes[file][p]++;
		make_page(w, file, p);
		w[WORDS - 1] = sums[file][p] = adler(w);
		if (pwrite(fd, &w[4], 8, (off_t)p * PAGE + 4 * 8) != 8 ||
			pwrite(fd, &w[WORDS - 1], 8, (off_t)(p + 1) * PAGE - 8) != 8)
			fail("pwrite");
	}
	close(fd);
}

static void check_page(const uint64_t *found, uint32_t file, uint32_t page)
{
	static uint64_t wanted[WORDS];

	make_page(wanted, file, page);
	wanted[WORDS - 1] = sums[file][page];
	checks++;
	if (memcmp(found, wanted, PAGE) == 0)
		return;
	int i = 0, zero = 0;
	while (found[i] == wanted[i])
		i++;
	for (int k = 0; k < WORDS; k++)
		zero += found[k] == 0;
	zeroed += zero == WORDS;
	if (errors++ < 20)
		say("wrong file %u page %u word %d: %llx, not %llx; %d words are zero", file, page, i,
			(unsigned long long)found[i], (unsigned long long)wanted[i], zero);
}

static void check_file(uint32_t file)
{
	static uint64_t pages[BATCH][WORDS];

	if (!there[file])
		return;
	int fd = open_file(file, O_RDONLY);
	for (uint32_t p = 0; p < FILE_PAGES; p += BATCH) {
		if (read(fd, pages, sizeof pages) != sizeof pages)
			fail("read");
		for (uint32_t i = 0; i < BATCH; i++)
			check_page(pages[i], file, p + i);
	}
	close(fd);
}

/* ---- sorting */

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* What was sorted last time has lain there meanwhile. */
static void check_sorted(void)
{
	uint64_t sum = 0;
	bool good = true;

	for (size_t i = 0; i < SORTED; i++) {
		sum += sorted[i];
		good &= i == 0 || sorted[i - 1] <= sorted[i];
	}
	checks += sizeof sorted / PAGE;
	if (!good || sum != sorted_sum) {
		say("wrong order or sum of what was sorted");
		errors++;
	}
}

static void sort(void)
{
	check_sorted();
	sorted_sum = 0;
	for (size_t i = 0; i < SORTED; i++)
		sorted_sum += sorted[i] = next(&rng) >> 8;
	qsort(sorted, SORTED, sizeof *sorted, compare);
	check_sorted();
	sorts++;
}

/* ---- the disk */

/* By O_DIRECT the guest's kernel keeps no copy: the device reads and writes this memory itself. */
static void move(int fd, bool out, uint64_t *memory, size_t bytes)
{
	for (size_t at = 0; at < bytes; at += DISK_PIECE) {
		char *piece = (char *)memory + at;
		ssize_t n = out ? pwrite(fd, piece, DISK_PIECE, (off_t)at) : pread(fd, piece, DISK_PIECE, (off_t)at);

		if (n != DISK_PIECE)
			fail("/dev/vda");
	}
}

static void disk(size_t bytes, unsigned seconds)
{
	size_t words = bytes / 8;
	uint64_t state = next(&rng), again = state, wrong = 0;
	uint64_t *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int fd = open("/dev/vda", O_RDWR | O_DIRECT | O_CLOEXEC);

	if (memory == MAP_FAILED || fd < 0)
		fail("/dev/vda");
	for (size_t i = 0; i < words; i++) {
		if (i % (BATCH * WORDS) == 0)
			wait_for_room();
		memory[i] = i % WORDS < 128 ? next(&state) : i;
	}
	move(fd, true, memory, bytes);
	memset(memory, 0xff, bytes);
	sleep(seconds);
	move(fd, false, memory, bytes);
	for (size_t i = 0; i < words; i++) {
		uint64_t wanted = i % WORDS < 128 ? next(&again) : i;

		if (memory[i] != wanted && wrong++ < 20)
			say("wrong disk page %zu word %zu: %llx, not %llx", i / WORDS, i % WORDS,
				(unsigned long long)memory[i], (unsigned long long)wanted);
	}
	munmap(memory, bytes);
	close(fd);
	say("disk %zu %llu", bytes / PAGE, (unsigned long long)wrong);
}

/* ---- commands */

static bool asked(void)
{
	struct pollfd p = { .fd = STDIN_FILENO, .events = POLLIN };

	return poll(&p, 1, 0) > 0;
}

static void report(void)
{
	say("at %llu %llu %llu", (unsigned long long)checks, (unsigned long long)errors, (unsigned long long)sorts);
}

static void run(void)
{
	double next_report = now(), next_drop = now() + 2, make_again = 0;
	uint32_t dropped = 0, first = 0;

	for (uint32_t step = 1; !asked(); step++) {
		check_file((uint32_t)(next(&rng) >> 20) % files);
		poke_file((uint32_t)(next(&rng) >> 20) % files);
		if (step % 8 == 0)
			make_file((uint32_t)(next(&rng) >> 20) % files);
		if (step % 16 == 0)
			sort();
		if (!dropped && now() > next_drop) {
			first = (uint32_t)(next(&rng) >> 20) % files;
			dropped = files / 4;
			for (uint32_t i = 0; i < dropped; i++)
				drop_file((first + i) % files);
			make_again = now() + DROP_FOR;
			next_drop = now() + DROP_EVERY;
		} else if (dropped && now() > make_again) {
			make_file((first + --dropped) % files);
		}
		if (now() > next_report) {
			report();
			next_report = now() + 1;
		}
	}
	while (dropped)
		make_file((first + --dropped) % files);
	report();
}

static void compute(double seconds)
{
	static uint64_t *memory;
	uint64_t rounds = 0, sum = 0;

	if (!memory) {
		memory = malloc(COMPUTE_WORDS * 8);
		if (!memory)
			fail("malloc");
		for (size_t i = 0; i < COMPUTE_WORDS; i++) {
			if (i % (BATCH * WORDS) == 0)
				wait_for_room();
			memory[i] = next(&rng);
		}
	}
	double begin = now(), end;
	do {
		for (int i = 0; i < 20000; i++) {
			uint64_t at = next(&rng) % (COMPUTE_WORDS - 32);

			for (int k = 0; k < 32; k++)
				sum = sum * 31 + memory[at + (size_t)k];
			memory[at] = sum;
		}
		rounds += 20000;
		end = now();
	} while (end - begin < seconds);
	say("computed %.0f", (double)rounds / (end - begin));
}

static void obey(const char *line)
{
	unsigned int mib, wait_seconds = 0;
	unsigned long long number;
	double seconds;

	if (sscanf(line, "fill %u %llu", &mib, &number) == 2) {
		files = mib / 4 < FILES_MAX ? mib / 4 : FILES_MAX;
		seed = number;
		rng ^= number << 32;
		for (uint32_t f = 0; f < files; f++)
			make_file(f);
		say("filled %u", files * FILE_PAGES);
	} else if (strcmp(line, "run") == 0 && files > 0) {
		run();
	} else if (strcmp(line, "check") == 0) {
		checks = errors = zeroed = 0;
		for (uint32_t f = 0; f < files; f++)
			check_file(f);
		check_sorted();
		say("checked %llu %llu %llu", (unsigned long long)checks, (unsigned long long)errors,
			(unsigned long long)zeroed);
	} else if (strcmp(line, "drop") == 0) {
		for (uint32_t f = 0; f < files; f++)
			drop_file(f);
		say("dropped");
	} else if (sscanf(line, "disk %u %u", &mib, &wait_seconds) >= 1) {
		disk((size_t)mib << 20, wait_seconds);
	} else if (sscanf(line, "compute %lf", &seconds) == 1) {
		compute(seconds);
	} else if (strcmp(line, "reboot") == 0) {
		exit(EXIT_REBOOT);
	} else if (strcmp(line, "off") == 0) {
		exit(0);
	} else {
		say("failed: no command %s", line);
	}
}

int main(void)
{
	struct termios t;
	char line[80];

	/* no echo: what we say is all that the host reads */
	if (tcgetattr(STDIN_FILENO, &t) == 0) {
		t.c_lflag &= ~(tcflag_t)ECHO;
		t.c_oflag &= ~(tcflag_t)OPOST;
		tcsetattr(STDIN_FILENO, TCSANOW, &t);
	}
	/* unbuffered, or poll would not see what is read ahead */
	setvbuf(stdin, NULL, _IONBF, 0);
	say("READY");
	while (fgets(line, sizeof line, stdin)) {
		line[strcspn(line, "\r\n")] = '\0';
		obey(line);
	}
	return 1;
}
