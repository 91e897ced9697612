/* Processes of others.  Their numbers are given to others again: the moment of its begin says whether it is still the same. */
#pragma once

#include <stdint.h>
#include <sys/types.h>

/* In the kernel's clock ticks since boot; 0: there is none, or /proc does not say. */
uint64_t process_started(pid_t pid);
/* A pidfd.  `started`: when it must have begun, 0: it does not matter.  -ESRCH: it is gone; or another -errno. */
int process_open(pid_t pid, uint64_t started);
/* 0 or -errno. */
int process_kill(int pidfd);
