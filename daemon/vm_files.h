/* What the operator decides for a VM by its name, before it comes: files vms.d/NAME.conf beside the configuration.
 *
 *	[vm]
 *	reservation = 2G
 *	user = alice @emulators
 *
 * Strict as the configuration is: another section, an unknown key, a key given twice or a value that no VM could have is an error with
 * file and line.  What a file does not say is as if there were no file.
 *
 * They win over what a client asks for when it registers; and over what the VM has whenever they say something else than what was
 * applied of them last, which is looked at when the configuration is read: at a reload, and at a restart.  So what SetVm changes on
 * top of a file holds until the file says something new, and a line that is taken out changes nothing of a VM that is there.
 * (decisions.h carries that out.) */
#pragma once

#include "config.h"
#include "share_groups.h"
#include "who.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum vm_key {
#define VM_KEY(name, help) VM_KEY_##name,
#include "vm_file.def"
#undef VM_KEY
	VM_KEYS
};
extern const char *const vm_key_names[VM_KEYS];

struct vm_file {
	char name[64];
	char path[CONFIG_WHERE_MAX];
	char value[VM_KEYS][CONFIG_TEXT_MAX];	/* "": not said */
	unsigned line[VM_KEYS];
	struct who user;			/* after vm_files_resolve; nobody: whoever may register VMs */
};

struct vm_files {
	size_t n;
	struct vm_file *file;
};

/* All of `dir`, which need not be there; NULL: none.  0, or -errno with one sentence (file:line: what); *ret is untouched then. */
int vm_files_read(struct vm_files **ret, const char *dir, char *why, size_t why_bytes);
/* Names of users and of sharing groups: after vm_files_read.  May ask a directory service. */
int vm_files_resolve(struct vm_files *f, const struct config *c, const struct share_groups *g, char *why, size_t why_bytes);
void vm_files_free(struct vm_files *f);

/* NULL: there is no file for this name. */
const struct vm_file *vm_files_find(const struct vm_files *f, const char *name);
/* "": not said, or no file. */
const char *vm_file_value(const struct vm_file *f, enum vm_key key);
/* A number that stands for the value in a VM's state; 0: not said. */
uint32_t vm_file_mark(const struct vm_file *f, enum vm_key key);
