#include "cli/output.h"
#include "cli/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define GOOD "\033[32m"
#define BAD  "\033[1;31m"

static const struct {
	const char *word, *color;
} words[] = {
	{ "high", GOOD }, { "clear", GOOD }, { "running", GOOD }, { "ok", GOOD },
	{ "soft", OUTPUT_WARNING }, { "awaited", OUTPUT_WARNING }, { "leaving", OUTPUT_WARNING }, { "warning", OUTPUT_WARNING },
	{ "hard", BAD }, { "low", BAD }, { "ending", BAD }, { "error", BAD }, { "fail", BAD }, { "lost", BAD },
};

/* Held by /dev/null, opened so that a write to stdout still fails as a write to what is closed does. */
void output_begin(void)
{
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
		if (fcntl(fd, F_GETFD) < 0 && errno == EBADF &&
			open("/dev/null", fd == STDOUT_FILENO ? O_RDONLY : O_RDWR) != fd)
			_exit(EXIT_SYSTEM);
}

static int failure(void)
{
	static int first;	/* errno of the first write that failed; stdio keeps none */

	errno = 0;
	if ((fflush(stdout) || ferror(stdout)) && !first)
		first = errno ? errno : EIO;
	return first;
}

bool output_flush(void)
{
	return !failure();
}

int output_end(int code)
{
	int error = failure();

	/* some file systems say only at the end that there was no room */
	if (!error && fclose(stdout))
		error = errno;
	if (!error || error == EPIPE)
		return code;
	cli_error("cannot write to stdout: %s", strerror(error));
	return code > EXIT_DIFFERENCE ? code : EXIT_SYSTEM;
}

int output_replace(const char *path, int (*write)(FILE *f, const void *userdata), const void *userdata)
{
	mode_t mask = umask(0);
	struct stat is;
	char *new = NULL;
	FILE *f = NULL;
	int fd = -1, r = 0;

	umask(mask);
	/* a device, a pipe or a link would be one no more */
	if (lstat(path, &is) == 0 && !S_ISREG(is.st_mode))
		return -ENOTSUP;
	if (asprintf(&new, "%s.XXXXXX", path) < 0)
		return -ENOMEM;
	fd = mkstemp(new);
	if (fd < 0)
		r = -errno;
	/* others may read it, and mkstemp makes the file for us alone */
	if (!r && (fchmod(fd, 0644 & ~mask) < 0 || !(f = fdopen(fd, "w"))))
		r = -errno;
	if (!r)
		r = write(f, userdata);
	if (!r && (fflush(f) || ferror(f)))
		r = errno ? -errno : -EIO;
	if (f ? fclose(f) : fd >= 0 && close(fd))
		r = r ? r : -EIO;
	if (!r && rename(new, path) < 0)
		r = -errno;
	if (r < 0 && fd >= 0)
		unlink(new);
	free(new);
	return r;
}

const char *output_replace_error(int r)
{
	return r == -ENOTSUP ? "it is there, and no regular file" : strerror(-r);
}

int output_colors(const char *when, bool *ret)
{
	const char *no = getenv("NO_COLOR"), *terminal = getenv("TERM");

	if (!when || !strcmp(when, "auto")) {
		*ret = isatty(STDOUT_FILENO) && !(no && *no) && terminal && strcmp(terminal, "dumb");
		return 0;
	}
	*ret = !*when || !strcmp(when, "always");
	if (*ret || !strcmp(when, "never"))
		return 0;
	cli_error("--color: auto, always or never, not \"%s\"", when);
	return -EINVAL;
}

const char *output_color_of(const char *word)
{
	for (size_t i = 0; word && i < sizeof words / sizeof *words; i++)
		if (!strcmp(words[i].word, word))
			return words[i].color;
	return "";
}
