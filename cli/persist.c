#include "cli/persist.h"

#include "cli/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define DRAFT "." PERSIST_NAME ".new"	/* memctld reads no files of such names */

static const char head[] =
	"# Written by `memctl tune --persist`, a line for each setting; other lines are kept.\n"
	"[memctld]\n";

static int failed(const struct persist *p, const char *what, int err)
{
	cli_error("cannot %s %s: %s; nothing has changed", what, p->path, strerror(err));
	return err == EACCES || err == EPERM ? EXIT_PERMISSION : EXIT_SYSTEM;
}

/* Whether the line, which has no newline any more, is "setting = ...". */
static bool is_line_of(const char *line, const char *setting)
{
	size_t n = strlen(setting);

	line += strspn(line, " \t");
	if (strncmp(line, setting, n))
		return false;
	line += n;
	line += strspn(line, " \t");
	return *line == '=' || *line == ':';
}

/* Everything that is there, with the one line put in its place, or at the end. */
static int copy_lines(struct persist *p, FILE *from, FILE *to, const char *setting, const char *value)
{
	bool in_section = false, any = false;
	unsigned long at = 0;
	char *line = NULL;
	size_t room = 0;
	ssize_t n;

	while (from && (n = getline(&line, &room, from)) >= 0) {
		if (n && line[n - 1] == '\n')
			line[n - 1] = 0;
		at++;
		any = true;
		if (line[0] == '[')
			in_section = !strncmp(line, "[memctld]", 9);
		if (!p->line && in_section && is_line_of(line, setting)) {
			p->line = at;
			fprintf(to, "%s = %s\n", setting, value);
		} else {
			fprintf(to, "%s\n", line);
		}
	}
	free(line);
	if (p->line)
		return 0;
	if (!in_section) {
		fputs(any ? "[memctld]\n" : head, to);
		at += any ? 1 : 2;
	}
	p->line = at + 1;
	return fprintf(to, "%s = %s\n", setting, value) < 0 ? -EIO : 0;
}

/* The file as it is; NULL and 0: there is none. */
static int open_old(struct persist *p, FILE **ret, struct stat *ret_is)
{
	int fd = openat(p->dir_fd, p->name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

	*ret = NULL;
	*ret_is = (struct stat){ .st_mode = 0644, .st_uid = geteuid(), .st_gid = getegid() };
	if (fd < 0)
		return errno == ENOENT ? 0 : errno;
	if (fstat(fd, ret_is) < 0 || !S_ISREG(ret_is->st_mode) || !(*ret = fdopen(fd, "r"))) {
		close(fd);
		return EINVAL;
	}
	return 0;
}

static int write_draft(struct persist *p, int fd, const char *setting, const char *value)
{
	FILE *from, *to = NULL;
	struct stat is;
	int err = open_old(p, &from, &is);

	if (!err) {
		to = fdopen(fd, "w");
		err = to ? 0 : errno;
	}
	if (err) {
		close(fd);
		if (from)
			fclose(from);
		return err;
	}
	if (copy_lines(p, from, to, setting, value) < 0 || (from && ferror(from)))
		err = EIO;
	/* as it was: whose it is, and who may read it */
	if (!err && (fflush(to) || fchown(fd, is.st_uid, is.st_gid) < 0 || fchmod(fd, is.st_mode & 0755) < 0 || fsync(fd) < 0))
		err = errno;
	if (fclose(to) && !err)
		err = errno;
	if (from)
		fclose(from);
	return err;
}

/* Whether nobody else can change what is in there.  memctld named the path, and root must not believe all that it says: it is a
 * process of a user that may do less. */
static bool is_ours(int dir_fd)
{
	struct stat is;

	return fstat(dir_fd, &is) == 0 && (is.st_uid == 0 || is.st_uid == geteuid()) && !(is.st_mode & (S_IWGRP | S_IWOTH));
}

static int open_directory(struct persist *p)
{
	size_t n = strlen(p->dir);

	if (n < 3 || strcmp(p->dir + n - 2, ".d") || strcmp(p->name, PERSIST_NAME)) {
		cli_error("memctld names %s, which is no place for settings (DIR.d/" PERSIST_NAME "); nothing has changed", p->path);
		return EXIT_SYSTEM;
	}
	p->made_dir = mkdir(p->dir, 0755) == 0;
	if (!p->made_dir && errno != EEXIST)
		return failed(p, "make a directory for", errno);
	p->dir_fd = open(p->dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (p->dir_fd < 0 || flock(p->dir_fd, LOCK_EX) < 0)
		return failed(p, "write", errno);
	if (!is_ours(p->dir_fd)) {
		cli_error("%s does not belong to root or you, or others may write there: it is not written to; nothing has changed", p->dir);
		return EXIT_PERMISSION;
	}
	return EXIT_OK;
}

int persist_prepare(struct persist *p, const char *path, const char *setting, const char *value)
{
	const char *slash = strrchr(path, '/');
	int fd, r;

	*p = (struct persist)PERSIST_NULL;
	p->path = strdup(path);
	p->dir = slash ? strndup(path, (size_t)(slash - path)) : strdup(".");
	if (!p->path || !p->dir) {
		cli_error("out of memory");
		return EXIT_SYSTEM;
	}
	p->name = slash ? p->path + (slash - path) + 1 : p->path;
	r = open_directory(p);
	if (r)
		return r;
	/* whoever holds the lock is the only one: one that is there was left by somebody who died */
	if (unlinkat(p->dir_fd, DRAFT, 0) < 0 && errno != ENOENT)
		return failed(p, "write", errno);
	fd = openat(p->dir_fd, DRAFT, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return failed(p, "write", errno);
	p->drafted = true;
	errno = write_draft(p, fd, setting, value);
	return errno ? failed(p, "write", errno) : EXIT_OK;
}

int persist_commit(struct persist *p)
{
	if (renameat(p->dir_fd, DRAFT, p->dir_fd, p->name) < 0) {
		cli_error("cannot put %s in its place: %s; what was set acts until the next start only", p->path, strerror(errno));
		return EXIT_SYSTEM;
	}
	p->drafted = false;
	p->made_dir = false;
	if (fsync(p->dir_fd) < 0) {
		cli_error("cannot bring %s to the disk: %s; it is written all the same", p->path, strerror(errno));
		return EXIT_SYSTEM;
	}
	return EXIT_OK;
}

void persist_end(struct persist *p)
{
	if (p->drafted)
		unlinkat(p->dir_fd, DRAFT, 0);
	if (p->made_dir)
		rmdir(p->dir);
	if (p->dir_fd >= 0)
		close(p->dir_fd);
	free(p->path);
	free(p->dir);
	*p = (struct persist)PERSIST_NULL;
}
