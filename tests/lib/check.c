#include "tests/lib/check.h"

#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define EXIT_FAILED  1
#define EXIT_SKIPPED 77

static int report_fd = -1;

static _Noreturn void leave(int status, const char *text)
{
	if (report_fd >= 0 && write(report_fd, text, strlen(text)) < 0)
		status = EXIT_FAILED;
	fflush(NULL);
	_exit(status);
}

void check_fail(const char *file, int line, const char *fmt, ...)
{
	char text[512];
	int n = snprintf(text, sizeof text, "%s:%d: ", file, line);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text + n, sizeof text - (size_t)n, fmt, ap);
	va_end(ap);
	leave(EXIT_FAILED, text);
}

void check_skip(const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	leave(EXIT_SKIPPED, text);
}

/* 0 passed, 1 failed */
static int run_one(const struct scenario *s)
{
	char text[512] = "";
	int fds[2], status = 0;
	ssize_t n;
	pid_t pid;

	fflush(NULL);
	if (pipe(fds) < 0 || (pid = fork()) < 0) {
		printf("not ok %s: cannot start\n", s->name);
		return 1;
	}
	if (!pid) {
		close(fds[0]);
		report_fd = fds[1];
		alarm(s->timeout_s ? s->timeout_s : 60);
		s->run();
		fflush(NULL);
		_exit(0);
	}
	close(fds[1]);
	n = read(fds[0], text, sizeof text - 1);
	text[n > 0 ? n : 0] = '\0';
	close(fds[0]);
	while (waitpid(pid, &status, 0) < 0)
		;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
		printf("ok %s\n", s->name);
		return 0;
	}
	if (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SKIPPED) {
		printf("skip %s: %s\n", s->name, text);
		return 0;
	}
	if (WIFSIGNALED(status))
		printf("not ok %s: %s (%s) %s\n", s->name,
			WTERMSIG(status) == SIGALRM ? "timed out" : "killed by a signal", strsignal(WTERMSIG(status)), text);
	else
		printf("not ok %s: exit %d %s\n", s->name, WEXITSTATUS(status), text);
	return 1;
}

int check_main(int argc, char **argv, const struct scenario *scenarios)
{
	int failed = 0;

	setvbuf(stdout, NULL, _IOLBF, 0);
	for (const struct scenario *s = scenarios; s->name; s++) {
		int wanted = argc < 2;

		for (int i = 1; i < argc; i++)
			wanted |= !strcmp(argv[i], s->name);
		if (argc == 2 && !strcmp(argv[1], "--list"))
			printf("%s\n", s->name);
		else if (wanted)
			failed |= run_one(s);
	}
	return failed;
}
