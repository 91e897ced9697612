/* What systemd says of memctld's unit, asked by systemctl(1). */
#include "cli/doctor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define UNIT "memctld.service"

/* The value of a property in systemctl's KEY=VALUE lines; "" if it is not there. */
static const char *value_of(const char *text, const char *key, char ret[128])
{
	size_t n = strlen(key);

	ret[0] = 0;
	for (const char *line = text; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (!strncmp(line, key, n) && line[n] == '=') {
			snprintf(ret, 128, "%.*s", (int)strcspn(line + n + 1, "\n"), line + n + 1);
			break;
		}
	}
	return ret;
}

static bool is(const char *text, const char *key, const char *value)
{
	char has[128];

	return !strcmp(value_of(text, key, has), value);
}

static bool ask_unit(char *ret, size_t bytes)
{
	static const char *const argv[] = { "systemctl", "show", UNIT, "--property=LoadState,ActiveState,SubState,Result,ExecMainStatus,"
		"MainPID,UnitFileState,Restart,FileDescriptorStoreMax,WatchdogUSec,TimeoutStopUSec,StartLimitIntervalUSec", NULL };

	return ask_command(argv, ret, bytes) == 0 && !is(ret, "LoadState", "");
}

bool unit_says(char *ret, size_t bytes)
{
	static const char *const journal[] = { "journalctl", "-u", UNIT, "-n", "1", "-o", "cat", "--no-pager", "-q", NULL };
	char text[2048], last[300], state[128], result[128], status[128];

	ret[0] = 0;
	if (!ask_unit(text, sizeof text))
		return false;
	if (is(text, "LoadState", "not-found")) {
		snprintf(ret, bytes, "systemd knows no unit " UNIT ".");
		return true;
	}
	value_of(text, "ActiveState", state);
	value_of(text, "Result", result);
	value_of(text, "ExecMainStatus", status);
	if (ask_command(journal, last, sizeof last) != 0)
		last[0] = 0;
	snprintf(ret, bytes, "systemd: %s%s%s%s%s.%s%s", state, strcmp(result, "success") ? ", " : "",
		strcmp(result, "success") ? result : "",
		strcmp(status, "0") ? ", exit status " : "", strcmp(status, "0") ? status : "", last[0] ? "  Its last words: " : "", last);
	return true;
}

/* What of the unit guests need, and the line that sets it. */
static const struct need {
	const char *property, *good, *bad;	/* good: what it must be; NULL: anything but `bad` */
	enum check_state state;
	const char *section, *line, *costs;
} needs[] = {
	{ "FileDescriptorStoreMax", NULL, "0", STATE_FAILURE, "Service", "FileDescriptorStoreMax=16384",
		"guests wait for ever when memctld dies" },
	{ "Restart", NULL, "no", STATE_FAILURE, "Service", "Restart=on-failure", "nobody starts memctld again when it dies" },
	{ "WatchdogUSec", NULL, "0", STATE_WARNING, "Service", "WatchdogSec=30", "nobody notices when it hangs" },
	{ "TimeoutStopUSec", "infinity", NULL, STATE_WARNING, "Service", "TimeoutStopSec=infinity",
		"a stop kills it before guests have their memory" },
	{ "StartLimitIntervalUSec", "0", NULL, STATE_WARNING, "Unit", "StartLimitIntervalSec=0", "systemd gives up after some starts" },
};

static bool is_met(const char *text, const struct need *n)
{
	char has[128];

	value_of(text, n->property, has);
	/* a systemd that does not know it does not say it; some call a watchdog that is off infinite */
	if (!strcmp(n->property, "WatchdogUSec") && !strcmp(has, "infinity"))
		return false;
	return !has[0] || (n->good ? !strcmp(has, n->good) : strcmp(has, n->bad) != 0);
}

static void look_at_needs(struct doctor *d, const char *text)
{
	char lines[2][300] = { "", "" }, said[500] = "", has[128];
	enum check_state worst = STATE_OK;
	/* what systemd does with it is looked up at its start */
	bool again = false;

	for (size_t i = 0; i < sizeof needs / sizeof *needs; i++) {
		const struct need *n = &needs[i];
		char *to = lines[!strcmp(n->section, "Unit")];
		size_t at = strlen(said), to_at = strlen(to);

		if (is_met(text, n))
			continue;
		worst = n->state > worst ? n->state : worst;
		again = again || !strcmp(n->property, "WatchdogUSec");
		snprintf(said + at, sizeof said - at, "%s%s is %s: %s", at ? "; " : "", n->property, value_of(text, n->property, has),
			n->costs);
		snprintf(to + to_at, sizeof lines[0] - to_at, "%s\\n", n->line);
	}
	if (worst == STATE_OK)
		return;
	find(d, CHECK_unit, worst, "%s.", said);
	fix(d, CHECK_unit, "mkdir -p /etc/systemd/system/" UNIT ".d && "
		"printf '%s%s%s%s' > /etc/systemd/system/" UNIT ".d/zz-doctor.conf && systemctl daemon-reload%s",
		lines[1][0] ? "[Unit]\\n" : "", lines[1], lines[0][0] ? "[Service]\\n" : "", lines[0],
		/* guests outlive an upgrade only if somebody keeps what they need; before a restart they are released */
		!again || !d->answers ? "" : worst == STATE_FAILURE ? " && systemctl restart memctld" : " && memctl daemon upgrade");
}

void check_unit(struct doctor *d)
{
	char text[2048], pid[128];

	if (!ask_unit(text, sizeof text)) {
		find(d, CHECK_unit, STATE_INFORMATION, "There is no systemd here, or it does not answer.");
		return;
	}
	if (is(text, "LoadState", "not-found")) {
		find(d, CHECK_unit, STATE_INFORMATION, "systemd knows no unit " UNIT ": memctld is started otherwise.");
		return;
	}
	look_at_needs(d, text);
	value_of(text, "MainPID", pid);
	if (d->answers && strtoll(pid, NULL, 10) != d->daemon_pid) {
		find(d, CHECK_unit, STATE_WARNING, "The memctld that answers (process %lld) is not the unit's%s%s%s.", d->daemon_pid,
			strcmp(pid, "0") ? " (process " : "", strcmp(pid, "0") ? pid : "", strcmp(pid, "0") ? ")" : "");
		fix(d, CHECK_unit, "memctl daemon stop --wait && systemctl start memctld");
	}
	if (is(text, "UnitFileState", "disabled")) {
		find(d, CHECK_unit, STATE_WARNING, "The unit is not started at boot.");
		fix(d, CHECK_unit, "systemctl enable memctld");
	}
	find(d, CHECK_unit, STATE_OK, "The unit lets guests go on when memctld dies, hangs, or is stopped.");
}
