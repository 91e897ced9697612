/* A plan's numbers as English sentences, for a person who asks why.
 *
 * They say: the host and its state; what the VM holds, of what; its rho and how that comes; what is asked of it, by which
 * technique, and why; what is special (spared, blocked, balloon that does not answer, estimated activity). */
#pragma once

#include "policy/plan.h"

#define POLICY_SENTENCES_MAX 16
#define POLICY_WORDS_MAX 4096

struct policy_words {
	unsigned n;
	const char *sentences[POLICY_SENTENCES_MAX];	/* in `buffer`; do not copy the struct */
	char buffer[POLICY_WORDS_MAX];
};

/* `name` is the VM's.  `view` needs no list of VMs. */
void policy_explain(const char *name, const struct policy_view *view, const struct policy_plan *plan,
	const struct policy_vm *vm, const struct policy_vm_plan *vm_plan, struct policy_words *ret);
