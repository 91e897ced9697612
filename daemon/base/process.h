/* Processes of others.  Their numbers are given to others again: the moment of its begin says whether it is still the same. */
#pragma once

#include <stdint.h>
#include <sys/types.h>

/* In the kernel's clock ticks since boot; 0: there is none, or /proc does not say. */
uint64_t process_started(pid_t pid);
/* The same of the process that has connected a Unix socket, whose number `pid` was.  0 also if that has ended: another one may have
 * its number by now.  Before Linux 6.5 it can only be looked up by its number, which is right if that is done at once. */
uint64_t process_connected(int socket, pid_t pid);
/* A pidfd.  `started`: when it must have begun, 0: it does not matter.  -ESRCH: it is gone; or another -errno. */
int process_open(pid_t pid, uint64_t started);
/* 0 or -errno. */
int process_kill(int pidfd);
