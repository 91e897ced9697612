#include "tests/torture/view.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define PAGE 4096ull

struct mapping {
	uint64_t start, end, inode;
	unsigned major, minor;
	char how;	/* s: shared, p: private */
};

static bool parse_mapping(const char *line, struct mapping *m)
{
	return sscanf(line, "%" SCNx64 "-%" SCNx64 " %*3c%c %*x %x:%x %" SCNu64, &m->start, &m->end, &m->how,
		       &m->major, &m->minor, &m->inode) == 6;
}

static int find_mapping(const void *address, uint64_t length, struct mapping *ret)
{
	uint64_t start = (uintptr_t)address;
	FILE *f = fopen("/proc/self/maps", "re");
	char line[1024];
	int r = -ENOENT;

	if (!f)
		return -errno;
	while (r && fgets(line, sizeof line, f))
		if (parse_mapping(line, ret) && ret->how == 's' && ret->start < start + length && ret->end > start)
			r = 0;
	fclose(f);
	return r;
}

int view_find_fd(const void *address, uint64_t length)
{
	struct mapping m;
	struct dirent *d;
	struct stat st;
	int r = find_mapping(address, length, &m);
	DIR *dir;

	if (r < 0)
		return r;
	dir = opendir("/proc/self/fd");
	if (!dir)
		return -errno;
	r = -ENOENT;
	while (r < 0 && (d = readdir(dir))) {
		int fd = atoi(d->d_name);

		if (d->d_name[0] != '.' && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_ino == m.inode &&
			major(st.st_dev) == m.major && minor(st.st_dev) == m.minor)
			r = fd;
	}
	closedir(dir);
	return r;
}

int64_t view_print_data(FILE *to, int fd, uint64_t pages)
{
	off_t at = 0, end = (off_t)(pages * PAGE);
	int64_t sum = 0;

	fputc('[', to);
	while (at < end) {
		off_t data = lseek(fd, at, SEEK_DATA), hole;

		if (data < 0 && errno == ENXIO)
			break;
		if (data < 0)
			return -errno;
		hole = lseek(fd, data, SEEK_HOLE);
		if (hole < 0)
			return -errno;
		fprintf(to, "%s[%lld,%lld]", sum ? "," : "", (long long)(data / (off_t)PAGE),
			(long long)((hole - data) / (off_t)PAGE));
		sum += (hole - data) / (off_t)PAGE;
		at = hole;
	}
	fputc(']', to);
	return sum;
}

int64_t view_unregistered(const void *address, uint64_t length, unsigned *ret_mappings)
{
	uint64_t start = (uintptr_t)address, end = start + length, registered = 0, here = 0;
	FILE *f = fopen("/proc/self/smaps", "re");
	char line[1024];
	unsigned n = 0;
	struct mapping m;

	if (!f)
		return -errno;
	while (fgets(line, sizeof line, f)) {
		if (parse_mapping(line, &m)) {
			uint64_t a = m.start > start ? m.start : start, b = m.end < end ? m.end : end;

			here = a < b ? b - a : 0;
			n += here != 0;
		} else if (here && !strncmp(line, "VmFlags:", 8) && strstr(line, " um") && strstr(line, " uw")) {
			registered += here;
		}
	}
	fclose(f);
	if (ret_mappings)
		*ret_mappings = n;
	return (int64_t)((length - registered) / PAGE);
}
