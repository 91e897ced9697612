/* Which system calls memctld may make: those it needs, and no others.
 *
 * Whoever has taken over memctld has the memory of all guests; that cannot be helped here.  What can is everything beyond: another
 * program, the network, other processes, other name spaces, code that is written while it runs, and the corners of the kernel that nobody
 * here uses.  seccomp_filter.def lists the calls with the reason for each; where a call does several things its arguments are looked at.
 *
 * What is refused fails with EPERM and is told to the kernel's audit log; memctld is not killed.  For who attacks it is the same: the
 * call is not made.  For the guests it is not: a C library that asks for something new would end the one process that all of them need,
 * and its successor after it.
 *
 * seccomp_filter.c is the only door to libseccomp; a build without it, or with a sanitizer, which needs calls of its own, refuses nothing. */
#pragma once

#include <stdbool.h>

/* Whether this build can. */
bool seccomp_filter_is_built(void);
/* From now on, for this thread and all that it will start.  It cannot be undone.  0, -ENOSYS: the build or the kernel cannot, -errno. */
int seccomp_filter_apply(void);
/* For a test: tries what must be refused, and tells of each what came of it. */
void seccomp_filter_try(void);
