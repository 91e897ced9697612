/* Whether the host can promise what a VM is to have, when it registers and when its resources change: policy/admission with the
 * numbers of the arena and of the file system. */
#pragma once

#include "ops_dispatch.h"

/* `c`: as it is to be; `vm`: which VM has something already, NULL: a new one.  false: the call has been refused, with the numbers. */
bool admit(struct daemon *d, struct call *call, const struct vm_config *c, struct vm *vm);
