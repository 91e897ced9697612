/* Whether the host can promise what a VM is to have, when it registers and when its resources change (by a call or by a file): policy/admission with the
 * numbers of the arena and of the file system. */
#pragma once

#include "ops_dispatch.h"

/* `c`: as it is to be; `vm`: which VM has something already, NULL: a new one; `more_frames`: of the arena, that others are about to be
 * promised (or, negative, to give up).  0, or -errno with the numbers. */
int admission(struct daemon *d, const struct vm_config *c, struct vm *vm, int64_t more_frames, struct problem *p);
/* What the arena promises for it. */
uint64_t admission_frames(const struct vm_config *c, struct vm *vm);
