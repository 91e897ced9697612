/* Where pages go that leave memory: for each directory of swap files it is tried what a swap file is (mem/swap.c), with a file of
 * a few pages that has no name and goes at once.  And the file system of the history.
 *
 * A disk that does not answer holds whoever asks it: before each directory `looking_at` says which it is. */
#include "doctor.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define TRY_BYTES   (64 << 10)
#define TRY_PAGE    4096
#define SPACE_FEW   (256ull << 20)
#define DIRS_MAX    64
#define HISTORY_FEW (64ull << 20)

#define GOOD_DIR    "/var/lib/memctl/swap"	/* as it is installed */

/* What is known of file systems by their magic numbers (statfs(2)). */
static const struct kind {
	unsigned long magic;
	const char *name;
	enum doctor_state state;
	const char *why;
} kinds[] = {
	{ 0xef53, "ext4", DOCTOR_OK, NULL },
	{ 0x58465342, "xfs", DOCTOR_OK, NULL },
	{ 0x01021994, "tmpfs", DOCTOR_FAILURE, "memory: what is swapped there frees nothing" },
	{ 0x858458f6, "ramfs", DOCTOR_FAILURE, "memory: what is swapped there frees nothing" },
	{ 0x9123683e, "btrfs", DOCTOR_WARNING, "copied on write and maybe compressed: room that was set aside is no promise" },
	{ 0x2fc12fc1, "zfs", DOCTOR_WARNING, "copied on write and maybe compressed: room that was set aside is no promise" },
	{ 0xca451a4e, "bcachefs", DOCTOR_WARNING, "copied on write and maybe compressed: room that was set aside is no promise" },
	{ 0xf2f52010, "f2fs", DOCTOR_WARNING, "a log, and maybe compressed: room that was set aside is no promise" },
	{ 0x6969, "NFS", DOCTOR_WARNING, "a network file system: it may need memory, or an answer, to take a page" },
	{ 0xff534d42, "CIFS", DOCTOR_WARNING, "a network file system: it may need memory, or an answer, to take a page" },
	{ 0xfe534d42, "SMB", DOCTOR_WARNING, "a network file system: it may need memory, or an answer, to take a page" },
	{ 0x01021997, "9p", DOCTOR_WARNING, "a network file system: it may need memory, or an answer, to take a page" },
	{ 0x65735546, "FUSE", DOCTOR_WARNING, "a program's: it may need memory, or an answer, to take a page" },
	{ 0x794c7630, "overlayfs", DOCTOR_WARNING, "a container's own layer: use a volume" },
};

static void look_at_kind(struct doctor *d, const char *dir, int fd)
{
	struct statfs s;

	if (fstatfs(fd, &s) < 0)
		return;
	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
		const struct kind *k = &kinds[i];

		if ((unsigned long)s.f_type != k->magic)
			continue;
		if (k->state == DOCTOR_OK)
			doctor_say(d, DOCTOR_swap_fs, DOCTOR_OK, NULL, "%s is on %s.", dir, k->name);
		else
			doctor_say(d, DOCTOR_swap_fs, k->state, NULL, "%s is on %s, which is %s.", dir, k->name, k->why);
		return;
	}
	doctor_say(d, DOCTOR_swap_fs, DOCTOR_INFORMATION, NULL, "%s is on a file system of type 0x%lx, of which memctl knows nothing.",
		dir,
		(unsigned long)s.f_type);
}

/* What the VMs that are there could ask for beyond what is set aside: all of them lower their reservations to nothing. */
static uint64_t may_be_asked(const struct doctor *d, const char *dir)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < d->view.n_vms; i++) {
		const struct doctor_vm *vm = &d->view.vms[i];

		if (!strcmp(vm->swap_dir, dir) && vm->size_bytes > vm->swap_ready_bytes)
			sum += vm->size_bytes - vm->swap_ready_bytes;
	}
	return sum;
}

static void look_at_space(struct doctor *d, const char *dir, int fd)
{
	uint64_t free_bytes, asked = may_be_asked(d, dir);
	char quoted[300];
	struct statvfs v;

	if (fstatvfs(fd, &v) < 0)
		return;
	free_bytes = (uint64_t)v.f_bavail * v.f_frsize;
	if (free_bytes < TRY_BYTES || v.f_favail == 0) {
		doctor_say(d, DOCTOR_swap_space, DOCTOR_FAILURE, NULL, "%s has no room: VMs larger than their reservations are refused.", dir);
	} else if (free_bytes < asked) {
		doctor_say(d, DOCTOR_swap_space, DOCTOR_WARNING, NULL,
			"%s has %llu MiB; the VMs that run could ask for %llu MiB more if their reservations were lowered.", dir,
			DOCTOR_MIB(free_bytes), DOCTOR_MIB(asked));
	} else if (free_bytes < SPACE_FEW) {
		doctor_say(d, DOCTOR_swap_space, DOCTOR_WARNING, NULL, "%s has %llu MiB: a VM that needs more is refused.", dir,
			DOCTOR_MIB(free_bytes));
	} else {
		doctor_say(d, DOCTOR_swap_space, DOCTOR_OK, NULL, "%s has %llu MiB.", dir, DOCTOR_MIB(free_bytes));
	}
	doctor_quote(dir, quoted, sizeof quoted);
	doctor_fix(d, DOCTOR_swap_space, "df -h %s; du -xh --max-depth=2 \"$(stat -c %%m %s)\" | sort -h | tail", quoted, quoted);
}

/* Written past the page cache and read back. */
static int try_direct(int fd)
{
	char *page = aligned_alloc(TRY_PAGE, TRY_PAGE);
	int r = 0;

	if (!page)
		return -ENOMEM;
	memset(page, 0x5a, TRY_PAGE);
	if (pwrite(fd, page, TRY_PAGE, 0) != TRY_PAGE)
		r = errno ? -errno : -EIO;
	memset(page, 0, TRY_PAGE);
	if (r == 0 && pread(fd, page, TRY_PAGE, 0) != TRY_PAGE)
		r = errno ? -errno : -EIO;
	for (unsigned i = 0; r == 0 && i < TRY_PAGE; i++)
		r = page[i] == 0x5a ? 0 : -EBADMSG;
	free(page);
	return r;
}

static void look_at_direct(struct doctor *d, const char *dir)
{
	int fd = open(dir, O_TMPFILE | O_EXCL | O_RDWR | O_CLOEXEC | O_DIRECT, 0);
	int r = fd < 0 ? -errno : 0;

	if (fd >= 0) {
		r = try_direct(fd);
		close(fd);
	}
	if (r == 0)
		doctor_say(d, DOCTOR_swap_direct, DOCTOR_OK, NULL, "%s takes direct I/O.", dir);
	else if (r == -ENOSPC || r == -EDQUOT)
		doctor_say(d, DOCTOR_swap_direct, DOCTOR_INFORMATION, NULL, "%s has no room to try direct I/O.", dir);
	else if (r == -EINVAL || r == -EOPNOTSUPP)
		doctor_say(d, DOCTOR_swap_direct, DOCTOR_WARNING, NULL, "%s does not take direct I/O in pages of 4 KiB.", dir);
	else
		doctor_say(d, DOCTOR_swap_direct, DOCTOR_FAILURE, "dmesg --level=err,warn | tail -n 20",
			"A page that was written to %s did not come back: %s.", dir, strerror(-r));
}

static void look_at_allocation(struct doctor *d, const char *dir, int fd)
{
	struct stat st;
	int r = fallocate(fd, 0, 0, TRY_BYTES) < 0 ? -errno : 0;

	if (r == 0 && fstat(fd, &st) == 0 && (uint64_t)st.st_blocks * 512 >= TRY_BYTES)
		doctor_say(d, DOCTOR_swap_prealloc, DOCTOR_OK, NULL, "%s sets room aside.", dir);
	else if (r == -ENOSPC || r == -EDQUOT)
		doctor_say(d, DOCTOR_swap_prealloc, DOCTOR_INFORMATION, NULL, "%s has no room to try it.", dir);
	else if (r == 0)
		doctor_say(d, DOCTOR_swap_prealloc, DOCTOR_WARNING, NULL, "%s says that it sets room aside, and does not.", dir);
	else
		doctor_say(d, DOCTOR_swap_prealloc, DOCTOR_WARNING, NULL,
			"%s cannot set room aside (%s): a VM that registers waits until its swap file has been written once.", dir, strerror(-r));
}

static void say_unusable(struct doctor *d, const char *dir, int err)
{
	char quoted[300];

	doctor_quote(dir, quoted, sizeof quoted);
	doctor_say(d, DOCTOR_swap_dir, DOCTOR_FAILURE, NULL, "%s cannot be used: %s.  VMs larger than their reservations are refused.",
		dir,
		strerror(err));
	/* as memctld's user, which may not be in /etc/passwd */
	doctor_fix(d, DOCTOR_swap_dir, "install -d -m 0700 -o %u %s", (unsigned)d->view.uid, quoted);
}

static void look_at_dir(struct doctor *d, const char *dir)
{
	char quoted[300];
	struct stat st;
	int fd;

	doctor_quote(dir, quoted, sizeof quoted);
	pthread_mutex_lock(&d->lock);
	d->looking_at = dir;
	pthread_mutex_unlock(&d->lock);
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0) {
		say_unusable(d, dir, errno);
		return;
	}
	if (access(dir, W_OK | X_OK) < 0) {
		say_unusable(d, dir, errno);
	} else if (fstat(fd, &st) == 0 && st.st_mode & S_IWOTH && !(st.st_mode & S_ISVTX)) {
		doctor_say(d, DOCTOR_swap_dir, DOCTOR_WARNING, NULL, "%s can be written to by everybody, who could fill it.", dir);
		doctor_fix(d, DOCTOR_swap_dir, "chmod 0700 %s", quoted);
	} else {
		doctor_say(d, DOCTOR_swap_dir, DOCTOR_OK, NULL, "%s is there, and memctld may write to it.", dir);
	}
	look_at_kind(d, dir, fd);
	look_at_space(d, dir, fd);
	close(fd);
	fd = open(dir, O_TMPFILE | O_EXCL | O_RDWR | O_CLOEXEC, 0);
	if (fd < 0) {
		if (errno != EACCES && errno != EROFS && errno != ENOSPC)
			doctor_say(d, DOCTOR_swap_file, DOCTOR_FAILURE, NULL, "%s cannot hold files without a name (O_TMPFILE): %s.", dir,
				strerror(errno));
		return;
	}
	doctor_say(d, DOCTOR_swap_file, DOCTOR_OK, NULL, "%s can hold files without a name.", dir);
	look_at_allocation(d, dir, fd);
	close(fd);
	look_at_direct(d, dir);
}

static void look_at_history(struct doctor *d)
{
	const struct doctor_view *v = &d->view;
	char dir[256], quoted[300];
	struct statvfs s;
	char *slash;

	if (!strcmp(v->metrics, "none")) {
		doctor_say(d, DOCTOR_metrics, DOCTOR_INFORMATION, NULL, "No history is written (metrics = none).");
		return;
	}
	if (v->rows_failed)
		doctor_say(d, DOCTOR_metrics, DOCTOR_WARNING, NULL, "%llu rows could not be written to %s (%llu were).",
			(unsigned long long)v->rows_failed, v->metrics, (unsigned long long)v->rows_written);
	snprintf(dir, sizeof dir, "%s", v->metrics);
	slash = strrchr(dir, '/');
	if (slash)
		*(slash == dir ? slash + 1 : slash) = 0;
	else
		strcpy(dir, ".");
	pthread_mutex_lock(&d->lock);
	d->looking_at = v->metrics;
	pthread_mutex_unlock(&d->lock);
	if (access(v->metrics, W_OK) < 0 || access(dir, W_OK) < 0)
		doctor_say(d, DOCTOR_metrics, DOCTOR_WARNING, NULL, "%s cannot be written: %s.", v->metrics, strerror(errno));
	else if (v->rows_dropped)
		doctor_say(d, DOCTOR_metrics, DOCTOR_WARNING, NULL, "%llu rows were dropped because writing to %s takes too long.",
			(unsigned long long)v->rows_dropped, v->metrics);
	else if (statvfs(dir, &s) == 0 && (uint64_t)s.f_bavail * s.f_frsize < HISTORY_FEW)
		doctor_say(d, DOCTOR_metrics, DOCTOR_WARNING, NULL, "%s has %llu MiB of room left for the history.", dir,
			DOCTOR_MIB((uint64_t)s.f_bavail * s.f_frsize));
	else
		doctor_say(d, DOCTOR_metrics, DOCTOR_OK, NULL, "%llu rows have been written to %s, none was lost.",
			(unsigned long long)v->rows_written, v->metrics);
	doctor_quote(dir, quoted, sizeof quoted);
	doctor_fix(d, DOCTOR_metrics, "ls -l %s; df -h %s", quoted, quoted);
}

/* Each directory once: the host's, those that are allowed, those that VMs have. */
static unsigned directories(struct doctor *d, char *allowed, const char **ret)
{
	char *save = NULL;
	unsigned n = 0;

	ret[n++] = d->view.swap_dir;
	for (char *dir = strtok_r(allowed, ":", &save); dir && n < DIRS_MAX; dir = strtok_r(NULL, ":", &save))
		ret[n++] = dir;
	for (unsigned i = 0; i < d->view.n_vms && n < DIRS_MAX; i++)
		ret[n++] = d->view.vms[i].swap_dir;
	for (unsigned i = 0, j; i < n; i++) {
		for (j = 0; j < i && strcmp(ret[j], ret[i]); j++)
			;
		if (j < i)
			ret[i--] = ret[--n];
	}
	return n;
}

void doctor_look_at_disks(struct doctor *d)
{
	/* what cannot be looked at, because the directory cannot be used */
	static const enum doctor_id of_dirs[] = { DOCTOR_swap_file, DOCTOR_swap_direct, DOCTOR_swap_prealloc, DOCTOR_swap_space,
		DOCTOR_swap_fs };
	char allowed[sizeof d->view.allowed_swap_dirs];
	const char *dirs[DIRS_MAX];
	unsigned n;

	memcpy(allowed, d->view.allowed_swap_dirs, sizeof allowed);
	n = directories(d, allowed, dirs);
	for (unsigned i = 0; i < n; i++)
		look_at_dir(d, dirs[i]);
	for (size_t i = 0; i < sizeof of_dirs / sizeof *of_dirs; i++)
		if (d->findings[of_dirs[i]].state == DOCTOR_NOT_LOOKED)
			doctor_say(d, of_dirs[i], DOCTOR_INFORMATION, NULL, "Not looked at: the swap directory cannot be used.");
	for (size_t i = 0; i < sizeof of_dirs / sizeof *of_dirs; i++)
		doctor_fix_setting(d, of_dirs[i], "swap_dir", GOOD_DIR);
	look_at_history(d);
	pthread_mutex_lock(&d->lock);
	d->looking_at = NULL;
	pthread_mutex_unlock(&d->lock);
}
