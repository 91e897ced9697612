#include "vm_files.h"

#include "resources.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SIZE_ANY (16ull << 40)		/* of the largest VM: what it could not have, none could */

const char *const vm_key_names[VM_KEYS] = {
#define VM_KEY(name, help) #name,
#include "vm_file.def"
#undef VM_KEY
};

/* The resources as their words say, for a VM of the largest size. */
static int check_resource(enum vm_key key, const char *value, char *why, size_t why_bytes)
{
	struct resource_words w = { "", "", "", "", "" };
	struct vm_config c = { .size_bytes = SIZE_ANY };
	const char *field;
	size_t n;
	int r;

	switch (key) {
	case VM_KEY_reservation:
		w.reservation = value;
		break;
	case VM_KEY_limit:
		w.limit = value;
		break;
	case VM_KEY_shares:
		w.shares = value;
		break;
	case VM_KEY_balloon_max:
		w.balloon_max = value;
		break;
	case VM_KEY_stall_budget:
		w.stall_budget = value;
		break;
	case VM_KEY_sharing:
	case VM_KEY_swap_dir:
	case VM_KEY_user:
	case VM_KEYS:
		return 0;
	}
	r = resources_parse(&w, &c, &field, why, why_bytes);
	if (r == 0 && (c.reservation_bytes % PAGE_SIZE || c.limit_bytes % PAGE_SIZE)) {
		snprintf(why, why_bytes, "%s must be a multiple of 4096", vm_key_names[key]);
		r = -EINVAL;
	} else if (r < 0) {
		/* the sentence becomes a part of one */
		n = strlen(why);
		if (n && why[n - 1] == '.')
			why[n - 1] = 0;
	}
	return r;
}

static int check_value(enum vm_key key, const char *value, char *why, size_t why_bytes)
{
	if (!*value) {
		snprintf(why, why_bytes, "%s: a value is missing", vm_key_names[key]);
		return -EINVAL;
	}
	if (strlen(value) >= CONFIG_TEXT_MAX) {
		snprintf(why, why_bytes, "%s: at most %d bytes", vm_key_names[key], CONFIG_TEXT_MAX - 1);
		return -EINVAL;
	}
	if (key == VM_KEY_swap_dir && *value != '/') {
		snprintf(why, why_bytes, "swap_dir: wants an absolute path, not \"%s\"", value);
		return -EINVAL;
	}
	if (key == VM_KEY_sharing && !resources_is_sharing(value)) {
		snprintf(why, why_bytes, "sharing is \"off\", \"zero\", \"vm\" or \"group:NAME\", not \"%s\"", value);
		return -EINVAL;
	}
	return check_resource(key, value, why, why_bytes);
}

static int take_pair(void *userdata, const struct config_pair *p, char *why, size_t why_bytes)
{
	struct vm_file *f = userdata;
	enum vm_key key = 0;
	char all[200] = "";
	int r;

	if (strcmp(p->section, "vm")) {
		snprintf(why, why_bytes, "what is decided for a VM stands in section [vm], not [%s]", p->section);
		return -EINVAL;
	}
	for (; key < VM_KEYS && strcmp(vm_key_names[key], p->key); key++)
		snprintf(all + strlen(all), sizeof all - strlen(all), "%s%s", key ? ", " : "", vm_key_names[key]);
	if (key == VM_KEYS) {
		snprintf(why, why_bytes, "nothing of a VM is called \"%s\"; there are: %s", p->key, all);
		return -EINVAL;
	}
	if (f->value[key][0]) {
		snprintf(why, why_bytes, "%s is given twice (or a line begins with a space)", p->key);
		return -EINVAL;
	}
	r = check_value(key, p->value, why, why_bytes);
	if (r < 0)
		return r;
	strcpy(f->value[key], p->value);
	f->line[key] = p->line;
	return 0;
}

/* Both are sizes, and no VM could have them. */
static int check_both(const struct vm_file *f, char *why, size_t why_bytes)
{
	struct resource_words w = { f->value[VM_KEY_reservation], f->value[VM_KEY_limit], "", "", "" };
	struct vm_config c = { .size_bytes = SIZE_ANY };
	const char *field;
	char detail[200];

	if (strchr(w.reservation, '%') || strchr(w.limit, '%') || resources_parse(&w, &c, &field, detail, sizeof detail) < 0)
		return 0;
	if (!c.limit_bytes || c.limit_bytes >= c.reservation_bytes)
		return 0;
	snprintf(why, why_bytes, "%s:%u: the limit is below the reservation", f->path, f->line[VM_KEY_limit]);
	return -EINVAL;
}

static int take_file(void *userdata, const char *path, const char *name, char *why, size_t why_bytes)
{
	struct vm_files *all = userdata;
	struct vm_file *more, *f;
	int r;

	if (!is_name(name)) {
		snprintf(why, why_bytes, "%s: \"%s\" is no name of a VM: 1 to 63 of A-Z a-z 0-9 . _ -, the first none of . and -", path, name);
		return -EINVAL;
	}
	more = reallocarray(all->file, all->n + 1, sizeof *more);
	if (!more) {
		snprintf(why, why_bytes, "%s: out of memory", path);
		return -ENOMEM;
	}
	all->file = more;
	f = &more[all->n++];
	memset(f, 0, sizeof *f);
	snprintf(f->name, sizeof f->name, "%s", name);
	snprintf(f->path, sizeof f->path, "%s", path);
	r = config_read_pairs(path, take_pair, f, why, why_bytes);
	return r < 0 ? r : check_both(f, why, why_bytes);
}

int vm_files_read(struct vm_files **ret, const char *dir, char *why, size_t why_bytes)
{
	struct vm_files *all = calloc(1, sizeof *all);
	int r;

	if (!all) {
		snprintf(why, why_bytes, "out of memory");
		return -ENOMEM;
	}
	r = dir ? config_each_file(dir, take_file, all, why, why_bytes) : 0;
	if (r < 0)
		vm_files_free(all);
	else
		*ret = all;
	return r;
}

int vm_files_resolve(struct vm_files *all, const struct config *c, const struct share_groups *g, char *why, size_t why_bytes)
{
	char detail[200];

	for (size_t i = 0; i < all->n; i++) {
		struct vm_file *f = &all->file[i];
		const char *sharing = f->value[VM_KEY_sharing];
		struct who user = { 0 };
		int r = who_parse(&user, f->value[VM_KEY_user], detail, sizeof detail);

		if (r < 0) {
			snprintf(why, why_bytes, "%s:%u: user: %s", f->path, f->line[VM_KEY_user], detail);
			return r;
		}
		who_fini(&f->user);
		f->user = user;
		/* at the other settings a group need not be listed */
		if (!strncmp(sharing, "group:", 6) && c->share_force_salting == 2 && !share_groups_has(g, sharing + 6)) {
			snprintf(why, why_bytes, "%s:%u: sharing: share_groups has no group \"%s\"", f->path, f->line[VM_KEY_sharing], sharing + 6);
			return -ENOENT;
		}
	}
	return 0;
}

void vm_files_free(struct vm_files *all)
{
	if (!all)
		return;
	for (size_t i = 0; i < all->n; i++)
		who_fini(&all->file[i].user);
	free(all->file);
	free(all);
}

const struct vm_file *vm_files_find(const struct vm_files *all, const char *name)
{
	for (size_t i = 0; all && i < all->n; i++)
		if (!strcmp(all->file[i].name, name))
			return &all->file[i];
	return NULL;
}

const char *vm_file_value(const struct vm_file *f, enum vm_key key)
{
	return f ? f->value[key] : "";
}

uint32_t vm_file_mark(const struct vm_file *f, enum vm_key key)
{
	const char *value = vm_file_value(f, key);
	uint32_t mark = 2166136261u;	/* FNV-1a */

	if (!*value)
		return 0;
	for (const char *at = value; *at; at++)
		mark = (mark ^ (uint8_t)*at) * 16777619u;
	return mark ? mark : 1;
}
