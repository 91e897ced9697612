/* LD_PRELOAD for memctld: one call of one kind fails, the N-th after memctld has begun to serve.
 *
 *	MEMCTLD_FAIL=KIND:ERRNO:N	as pread:EIO:3; kinds are below
 *	MEMCTLD_FAILED=FILE		is made when it did fail
 *
 * Only calls from the program itself count, not those of its libraries. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

static const struct {
	const char *name;
	int number;
} errnos[] = { { "EIO", EIO }, { "ENOSPC", ENOSPC }, { "ENOMEM", ENOMEM }, { "EMFILE", EMFILE }, { "EAGAIN", EAGAIN },
	{ "EINTR", EINTR }, { "ENOBUFS", ENOBUFS }, { "EPERM", EPERM } };

static char kind[40];
static int with;
static long left;
static _Atomic bool serving;
static uintptr_t from, to;	/* of the program */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static int find_program(struct dl_phdr_info *info, size_t size, void *data)
{
	(void)size;
	(void)data;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *p = &info->dlpi_phdr[i];

		if (p->p_type == PT_LOAD && (p->p_flags & PF_X)) {
			from = info->dlpi_addr + p->p_vaddr;
			to = from + p->p_memsz;
		}
	}
	return 1;	/* the first is the program */
}

__attribute__((constructor)) static void begin(void)
{
	const char *text = getenv("MEMCTLD_FAIL");
	char name[20] = "";

	dl_iterate_phdr(find_program, NULL);
	if (!text || sscanf(text, "%39[^:]:%19[^:]:%ld", kind, name, &left) != 3)
		return;
	for (unsigned i = 0; i < sizeof errnos / sizeof *errnos; i++)
		if (!strcmp(errnos[i].name, name))
			with = errnos[i].number;
	if (!with)
		abort();
}

/* Whether this call is the one. */
static bool fails(const char *what, const void *caller)
{
	bool now;

	if (!with || !atomic_load(&serving) || strcmp(what, kind) || (uintptr_t)caller < from || (uintptr_t)caller >= to)
		return false;
	pthread_mutex_lock(&lock);
	now = --left == 0;
	pthread_mutex_unlock(&lock);
	if (now && getenv("MEMCTLD_FAILED")) {
		int fd = (int)syscall(SYS_openat, AT_FDCWD, getenv("MEMCTLD_FAILED"), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

		if (fd >= 0)
			syscall(SYS_close, fd);
	}
	errno = with;
	return now;
}

#define REAL(name)                                                          \
	static __typeof__(name) *real;                                      \
	if (!real)                                                          \
		real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)
#define FAILS(what, value)                                                  \
	if (fails(what, __builtin_return_address(0)))                       \
		return value

EXPORT int memfd_create(const char *name, unsigned flags)
{
	REAL(memfd_create);
	FAILS("memfd_create", -1);
	return real(name, flags);
}

EXPORT int ftruncate64(int fd, off64_t length)
{
	REAL(ftruncate64);
	FAILS("ftruncate", -1);
	return real(fd, length);
}

EXPORT int fallocate64(int fd, int mode, off64_t offset, off64_t length)
{
	REAL(fallocate64);
	FAILS("fallocate", -1);
	return real(fd, mode, offset, length);
}

EXPORT int posix_fallocate64(int fd, off64_t offset, off64_t length)
{
	REAL(posix_fallocate64);
	FAILS("posix_fallocate", with);
	return real(fd, offset, length);
}

EXPORT int open64(const char *path, int flags, ...)
{
	va_list more;
	mode_t mode;

	REAL(open64);
	va_start(more, flags);
	mode = va_arg(more, mode_t);
	va_end(more);
	FAILS("open", -1);
	return real(path, flags, mode);
}

EXPORT void *mmap64(void *at, size_t length, int prot, int flags, int fd, off64_t offset)
{
	REAL(mmap64);
	FAILS("mmap", MAP_FAILED);
	return real(at, length, prot, flags, fd, offset);
}

EXPORT int madvise(void *at, size_t length, int advice)
{
	REAL(madvise);
	FAILS("madvise", -1);
	return real(at, length, advice);
}

EXPORT int mincore(void *at, size_t length, unsigned char *in)
{
	REAL(mincore);
	FAILS("mincore", -1);
	return real(at, length, in);
}

EXPORT ssize_t pread64(int fd, void *to_buf, size_t n, off64_t at)
{
	REAL(pread64);
	FAILS("pread", -1);
	return real(fd, to_buf, n, at);
}

EXPORT ssize_t pwrite64(int fd, const void *buf, size_t n, off64_t at)
{
	REAL(pwrite64);
	FAILS("pwrite", -1);
	return real(fd, buf, n, at);
}

EXPORT ssize_t pwritev64(int fd, const struct iovec *v, int n, off64_t at)
{
	REAL(pwritev64);
	FAILS("pwritev", -1);
	return real(fd, v, n, at);
}

EXPORT off64_t lseek64(int fd, off64_t at, int whence)
{
	REAL(lseek64);
	FAILS("lseek", -1);
	return real(fd, at, whence);
}

EXPORT int fcntl64(int fd, int command, ...)
{
	va_list more;
	long arg;

	REAL(fcntl64);
	va_start(more, command);
	arg = va_arg(more, long);
	va_end(more);
	FAILS("fcntl", -1);
	return real(fd, command, arg);
}

EXPORT int ioctl(int fd, unsigned long request, ...)
{
	static const struct {
		const char *name;
		unsigned long request;
	} kinds[] = { { "uffd_api", UFFDIO_API }, { "uffd_register", UFFDIO_REGISTER }, { "uffd_copy", UFFDIO_COPY },
		{ "uffd_zeropage", UFFDIO_ZEROPAGE }, { "uffd_continue", UFFDIO_CONTINUE },
		{ "uffd_writeprotect", UFFDIO_WRITEPROTECT } };
	va_list more;
	void *arg;

	REAL(ioctl);
	va_start(more, request);
	arg = va_arg(more, void *);
	va_end(more);
	for (unsigned i = 0; i < sizeof kinds / sizeof *kinds; i++)
		if (request == kinds[i].request) {
			FAILS(kinds[i].name, -1);
		}
	return real(fd, request, arg);
}

EXPORT long syscall(long number, ...)
{
	static const struct {
		const char *name;
		long number;
	} kinds[] = { { "io_setup", SYS_io_setup }, { "io_submit", SYS_io_submit }, { "io_getevents", SYS_io_getevents },
		{ "userfaultfd", SYS_userfaultfd } };
	va_list more;
	long a[6];

	REAL(syscall);
	va_start(more, number);
	for (unsigned i = 0; i < 6; i++)
		a[i] = va_arg(more, long);
	va_end(more);
	for (unsigned i = 0; i < sizeof kinds / sizeof *kinds; i++)
		if (number == kinds[i].number) {
			FAILS(kinds[i].name, -1);
		}
	return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

EXPORT int pthread_create(pthread_t *ret, const pthread_attr_t *attr, void *(*run)(void *), void *arg)
{
	REAL(pthread_create);
	FAILS("pthread_create", with);
	return real(ret, attr, run, arg);
}

EXPORT int accept4(int fd, struct sockaddr *a, socklen_t *n, int flags)
{
	REAL(accept4);
	atomic_store(&serving, true);
	FAILS("accept", -1);
	return real(fd, a, n, flags);
}

EXPORT ssize_t sendmsg(int fd, const struct msghdr *m, int flags)
{
	REAL(sendmsg);
	FAILS("sendmsg", -1);
	return real(fd, m, flags);
}

EXPORT ssize_t recvmsg(int fd, struct msghdr *m, int flags)
{
	REAL(recvmsg);
	FAILS("recvmsg", -1);
	return real(fd, m, flags);
}

/* By its own name: dlsym may need memory for this one. */
extern void *__libc_calloc(size_t n, size_t bytes);
extern void *__libc_realloc(void *p, size_t bytes);

EXPORT void *calloc(size_t n, size_t bytes)
{
	FAILS("calloc", NULL);
	return __libc_calloc(n, bytes);
}

EXPORT void *realloc(void *p, size_t bytes)
{
	FAILS("realloc", NULL);
	return __libc_realloc(p, bytes);
}
