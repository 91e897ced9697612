#include "load.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

void load_tune_path(const struct load_source *s, char *ret, size_t bytes)
{
	snprintf(ret, bytes, "%s%s", s->path ? s->path : "", s->path ? ".d/90-tune.conf" : "");
}

void load_vms_path(const struct load_source *s, char *ret, size_t bytes)
{
	const char *slash = s->path ? strrchr(s->path, '/') : NULL;

	*ret = 0;
	if (s->path)
		snprintf(ret, bytes, "%.*svms.d", slash ? (int)(slash - s->path + 1) : 0, s->path);
}

/* What is right by itself, and not together. */
static int check_together(const struct load *l, char *why, size_t why_bytes)
{
	const struct config *c = &l->config;

	if (strcmp(c->socket_ro, "none") && !strcmp(c->socket_ro, c->socket)) {
		snprintf(why, why_bytes, "%s: socket_ro is the path of socket: the read-only socket needs one of its own",
			l->where.of[setting_index(setting_find("socket_ro"))]);
		return -EINVAL;
	}
	return 0;
}

int load_read(const struct load_source *s, struct load *ret, char *why, size_t why_bytes)
{
	char vms[CONFIG_WHERE_MAX];
	int r = 0;

	*ret = (struct load){ .names.access.group = (gid_t)-1 };
	config_defaults(&ret->config, &ret->where);
	if (s->path)
		r = config_read(&ret->config, &ret->where, s->path, s->optional, why, why_bytes);
	for (char *const *word = s->words; r == 0 && word && *word; word++)
		r = config_set(&ret->config, &ret->where, *word, why, why_bytes);
	if (r == 0)
		r = check_together(ret, why, why_bytes);
	load_vms_path(s, vms, sizeof vms);
	if (r == 0)
		r = vm_files_read(&ret->vm_files, *vms ? vms : NULL, why, why_bytes);
	return r;
}

int load_names_resolve(struct load_names *ret, const struct config *c, const struct config_where *w, char *why, size_t why_bytes)
{
	const char *at_fault;
	char detail[300];
	int r = access_init(&ret->access, c, &at_fault, detail, sizeof detail);

	if (r < 0) {
		snprintf(why, why_bytes, "%s: %s: %s", w->of[setting_index(setting_find(at_fault))], at_fault, detail);
		return r;
	}
	r = share_groups_parse(&ret->share_groups, c->share_groups, detail, sizeof detail);
	if (r < 0) {
		snprintf(why, why_bytes, "%s: %s", w->of[setting_index(setting_find("share_groups"))], detail);
		access_fini(&ret->access);
	}
	return r;
}

void load_names_fini(struct load_names *n)
{
	access_fini(&n->access);
	share_groups_free(n->share_groups);
	n->share_groups = NULL;
}

int load_resolve(struct load *l, char *why, size_t why_bytes)
{
	int r = load_names_resolve(&l->names, &l->config, &l->where, why, why_bytes);

	return r < 0 ? r : vm_files_resolve(l->vm_files, &l->config, l->names.share_groups, why, why_bytes);
}

int load_without_names(struct load *l)
{
	char why[64];

	load_fini(l);
	return share_groups_parse(&l->names.share_groups, "", why, sizeof why);
}

void load_fini(struct load *l)
{
	load_names_fini(&l->names);
	vm_files_free(l->vm_files);
	l->vm_files = NULL;
}
