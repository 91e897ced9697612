/* ShowConfig, Tune and Reload.
 *
 *	settings	[{name, type, unit, value, default, where, min, max, live, changed, next, next_where, help}]: values as in the
 *			configuration file; where: "default", "FILE:LINE", "command line" or "tune"; changed: not the default, or
 *			written otherwise; next, next_where: what is written instead, and acts from the next restart on (of a live
 *			setting, which has been tuned: from the next reload on), left out where it is the same
 *	vms		[{vm, key, value, where, named}]: what the files of vms.d decide; named: a VM of this name is there
 *	files		{path, tune_path, vms_path: "" without files; error: why the last reload was refused, or "";
 *			restart [names of settings that wait for a restart]}
 *	reload		{changed [{name, value, was}], restart [names], vms: for how many something has changed} */
#include "ops_client.h"
#include "ops_dispatch.h"

#include "load.h"
#include "reload.h"
#include "proto/writer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void write_setting(struct writer *o, const struct daemon *d, const struct config *defaults, const struct setting *s)
{
	bool same = setting_is_equal(s, &d->config, &d->written);
	size_t i = setting_index(s);
	char value[CONFIG_TEXT_MAX];

	setting_format(s, &d->config, value, sizeof value);
	writer_object(o, NULL);
	writer_str(o, "name", s->name);
	writer_str(o, "type", setting_type_names[s->type]);
	writer_str(o, "unit", s->unit);
	writer_str(o, "value", value);
	writer_str(o, "default", s->def);
	writer_str(o, "where", d->where.of[i]);
	if (s->type != SETTING_PATH && s->type != SETTING_TEXT && s->type != SETTING_VICTIM && s->type != SETTING_YESNO) {
		writer_i64(o, "min", s->min);
		writer_i64(o, "max", s->max);
	}
	writer_bool(o, "live", s->live);
	writer_bool(o, "changed", !same || !setting_is_equal(s, &d->config, defaults));
	if (!same) {
		setting_format(s, &d->written, value, sizeof value);
		writer_str(o, "next", value);
		writer_str(o, "next_where", d->written_where.of[i]);
	}
	writer_str(o, "help", s->help);
	writer_end(o);
}

static char *settings_text(const struct daemon *d)
{
	struct writer o = WRITER_INIT;
	struct config defaults;

	config_defaults(&defaults, NULL);
	writer_array(&o, NULL);
	for (const struct setting *s = settings; s->name; s++)
		write_setting(&o, d, &defaults, s);
	writer_end(&o);
	return writer_take(&o, NULL);
}

static char *vms_text(struct daemon *d)
{
	struct writer o = WRITER_INIT;

	writer_array(&o, NULL);
	for (size_t i = 0; i < d->vm_files->n; i++) {
		const struct vm_file *f = &d->vm_files->file[i];

		for (enum vm_key k = 0; k < VM_KEYS; k++) {
			char where[CONFIG_WHERE_MAX + 16];

			if (!f->value[k][0])
				continue;
			snprintf(where, sizeof where, "%s:%u", f->path, f->line[k]);
			writer_object(&o, NULL);
			writer_str(&o, "vm", f->name);
			writer_str(&o, "key", vm_key_names[k]);
			writer_str(&o, "value", f->value[k]);
			writer_str(&o, "where", where);
			writer_bool(&o, "named", client_find(d, f->name) != NULL);
			writer_end(&o);
		}
	}
	writer_end(&o);
	return writer_take(&o, NULL);
}

static char *files_text(const struct daemon *d)
{
	const struct load_source *source = d->options->source;
	struct writer o = WRITER_INIT;
	char path[CONFIG_WHERE_MAX];

	writer_object(&o, NULL);
	writer_str(&o, "path", source->path ? source->path : "");
	load_tune_path(source, path, sizeof path);
	writer_str(&o, "tune_path", path);
	load_vms_path(source, path, sizeof path);
	writer_str(&o, "vms_path", path);
	writer_str(&o, "error", reload_error(d->reload));
	writer_array(&o, "restart");
	for (const struct setting *s = settings; s->name; s++)
		if (reload_waits(d, s))
			writer_str(&o, NULL, s->name);
	writer_end(&o);
	writer_end(&o);
	return writer_take(&o, NULL);
}

void do_show_config(struct daemon *d, struct call *call, const struct op_show_config_in *in)
{
	struct op_show_config_out out = { .settings = settings_text(d), .vms = vms_text(d), .files = files_text(d) };

	if (out.settings && out.vms && out.files)
		call_reply(call, &ops[OP_show_config], &out, NULL, 0);
	else
		refuse(call, WIRE_ERROR_System, "memctld is out of memory for this reply.");
	op_fields_fini(ops[OP_show_config].out, &out);
}

/* Whether what is written there would be read last.  What the command line says, or a file that is read after 90-tune.conf, holds. */
static bool can_be_persisted(const struct daemon *d, const struct setting *s, char *why, size_t why_bytes)
{
	const char *where = d->written_where.of[setting_index(s)], *slash = strrchr(where, '/'), *tune_slash;
	char tune[CONFIG_WHERE_MAX];
	size_t n;

	load_tune_path(d->options->source, tune, sizeof tune);
	if (!*tune) {
		snprintf(why, why_bytes, "memctld was started without a configuration file, so nothing can be written for its next start");
		return false;
	}
	tune_slash = strrchr(tune, '/');
	n = (size_t)(tune_slash - tune);
	if (!strcmp(where, "command line") ||
		(slash && (size_t)(slash - where) == n && !strncmp(where, tune, n) && strncmp(slash, tune_slash, strlen(tune_slash)) > 0)) {
		snprintf(why, why_bytes, "%s is said by %s%.200s, which is read after %.200s: change it there", s->name,
			*where == '/' ? "" : "the ", where, tune);
		return false;
	}
	return true;
}

/* Names are looked up, which may take its time. */
static bool has_names(const struct setting *s)
{
	static const char *const names[] = { "access_group", "allow_users", "read_users", "operate_users", "share_groups" };

	for (unsigned i = 0; i < sizeof names / sizeof *names; i++)
		if (!strcmp(s->name, names[i]))
			return true;
	return false;
}

void do_tune(struct daemon *d, struct call *call, const struct op_tune_in *in)
{
	const struct setting *s = setting_find(in->setting);
	struct config c = d->config;
	char why[512];

	if (!s) {
		refuse_field(call, WIRE_ERROR_InvalidValue, "setting", "There is no setting \"%.60s\".", in->setting);
		return;
	}
	if (!s->live && !in->check && !in->line) {
		refuse_field(call, WIRE_ERROR_InvalidValue, "setting", "%s cannot be changed while memctld runs: change the configuration "
			"(`memctl tune --persist` does) and restart.", s->name);
		return;
	}
	if (setting_set(s, &c, in->value, why, sizeof why) < 0 ||
		((in->check || in->line) && setting_check_line(s, in->value, why, sizeof why) < 0)) {
		refuse_field(call, WIRE_ERROR_InvalidValue, "value", "%.300s.", why);
		return;
	}
	if ((in->check || in->line) && !can_be_persisted(d, s, why, sizeof why)) {
		refuse(call, WIRE_ERROR_BadState, "%.300s.", why);
		return;
	}
	if (has_names(s)) {
		reload_tune(d, call, s, in);
		return;
	}
	if (!in->check)
		reload_tune_now(d, s, in, call->session ? (unsigned)session_peer(call->session)->uid : 0);
	call_reply(call, &ops[OP_tune], &(struct op_tune_out){ .live = s->live }, NULL, 0);
}

void do_reload(struct daemon *d, struct call *call, const struct op_reload_in *in)
{
	reload_begin(d, call);
}
