/* What Register and the end of a VM have to do with sharing. */
#pragma once

#include "ops_client.h"
#include "ops_dispatch.h"

/* With whom the VM that registers will share; false: refused, the call has ended. */
bool share_resolve(struct daemon *d, struct call *call, const char *asked, struct policy_sharing *ret);
/* Tell the VM, before its first lease, and whoever asks later (client.sharing). */
void share_begin(struct client *c, const struct policy_sharing *s);
