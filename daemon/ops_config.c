/* ShowConfig and Tune.
 *
 *	settings: [{name, type, unit, value, default, min, max, live, help}], values as in the configuration file */
#include "ops_dispatch.h"

#include "base/log.h"
#include "proto/writer.h"

#include <stdlib.h>
#include <string.h>

void do_show_config(struct daemon *d, struct call *call, const struct op_show_config_in *in)
{
	struct op_show_config_out out = { 0 };
	struct writer o = WRITER_INIT;

	writer_array(&o, NULL);
	for (const struct setting *s = settings; s->name; s++) {
		char value[CONFIG_TEXT_MAX];

		setting_format(s, &d->config, value, sizeof value);
		writer_object(&o, NULL);
		writer_str(&o, "name", s->name);
		writer_str(&o, "type", setting_type_names[s->type]);
		writer_str(&o, "unit", s->unit);
		writer_str(&o, "value", value);
		writer_str(&o, "default", s->def);
		if (s->type != SETTING_PATH && s->type != SETTING_TEXT && s->type != SETTING_VICTIM &&
			s->type != SETTING_YESNO) {
			writer_i64(&o, "min", s->min);
			writer_i64(&o, "max", s->max);
		}
		writer_bool(&o, "live", s->live);
		writer_str(&o, "help", s->help);
		writer_end(&o);
	}
	writer_end(&o);
	out.settings = writer_take(&o, NULL);
	if (out.settings)
		call_reply(call, &ops[OP_show_config], &out, NULL, 0);
	else
		refuse(call, WIRE_ERROR_System, "memctld is out of memory for this reply.");
	free(out.settings);
}

void do_tune(struct daemon *d, struct call *call, const struct op_tune_in *in)
{
	const struct setting *s = setting_find(in->setting);
	struct op_tune_out out;
	struct config c = d->config;
	char why[256];

	if (!call_is_operator(call)) {
		refuse(call, WIRE_ERROR_PermissionDenied, "Only root and memctld's own user may do that.");
		return;
	}
	if (!s) {
		refuse_field(call, WIRE_ERROR_InvalidValue, "setting", "There is no setting \"%.60s\".",
			in->setting);
		return;
	}
	if (!s->live) {
		refuse_field(call, WIRE_ERROR_InvalidValue, "setting",
			"%s cannot be changed while memctld runs: change the configuration and restart.",
			s->name);
		return;
	}
	if (setting_set(s, &c, in->value, why, sizeof why) < 0 || daemon_change_settings(d, &c, why, sizeof why) < 0) {
		refuse_field(call, WIRE_ERROR_InvalidValue, "value", "%s.", why);
		return;
	}
	log_notice("setting %s = %s (by user %u)", s->name, in->value,
		call->session ? (unsigned)session_peer(call->session)->uid : 0);
	call_reply(call, &ops[OP_tune], &out, NULL, 0);
}
