/* Fixes that start memctld otherwise: by its unit, or where there is no systemd, by its own command line once more. */
#include "doctor.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

void doctor_quote(const char *word, char *ret, size_t bytes)
{
	static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_./:=,@%+-";
	size_t at = 0;

	if (*word && !word[strspn(word, plain)]) {
		snprintf(ret, bytes, "%s", word);
		return;
	}
	/* room for what ends it */
	ret[at++] = '\'';
	for (; *word && at + 6 < bytes; word++) {
		if (*word == '\'')
			at += (size_t)snprintf(ret + at, bytes - at, "'\\''");
		else
			ret[at++] = *word;
	}
	ret[at++] = '\'';
	ret[at] = 0;
}

/* Our own command line once more (a supervisor has taken its own options out), with `insert` behind the program's name.
 * false: it is not to be known, or too long. */
static bool command_line(const struct doctor *d, const char *insert, char *ret, size_t bytes)
{
	char line[1024], word[512];
	int n = doctor_read(d, "/proc/self/cmdline", line, sizeof line);
	size_t at = 0;

	if (n <= 0 || n >= (int)sizeof line - 1)
		return false;
	for (const char *w = line; w < line + n; w += strlen(w) + 1) {
		/* what it names is not open there */
		if (!strncmp(w, "--ready-fd", 10)) {
			w += w[10] ? 0 : strlen(w) + 1;
			continue;
		}
		doctor_quote(w, word, sizeof word);
		at += (size_t)snprintf(ret + at, bytes - at, "%s%s%s%s", at ? " " : "", word, w == line ? " " : "", w == line ? insert : "");
		if (at >= bytes)
			return false;
	}
	return true;
}

static bool has_systemd(const struct doctor *d)
{
	char path[300];

	snprintf(path, sizeof path, "%s/run/systemd/system", d->root);
	return access(path, F_OK) == 0;
}

/* Whom to make first, and that he may write where memctld does: memctld is not stopped before that is so.  In *ret, as the beginning of
 * a line. */
static void put_user(const struct doctor *d, const char *user, char *ret, size_t bytes)
{
	const char *files[] = { d->view.socket, d->view.metrics };
	char swap[300], history[300] = "", dir[300], word[300];
	size_t at;

	doctor_quote(d->view.swap_dir, swap, sizeof swap);
	if (strchr(d->view.metrics, '/'))
		doctor_quote(d->view.metrics, history, sizeof history);
	at = (size_t)snprintf(ret, bytes, "{ id -u %s || useradd --system %s; } >/dev/null && chown -R %s %s%s%s%s && runuser -u %s -- test -w %s",
		user, user, user, swap, *history ? " " : "", history, *history ? "*" : "", user, swap);
	for (unsigned i = 0; i < sizeof files / sizeof *files && at < bytes; i++) {
		const char *slash = strrchr(files[i], '/');

		if (!slash)
			continue;
		snprintf(dir, sizeof dir, "%.*s", slash == files[i] ? 1 : (int)(slash - files[i]), files[i]);
		doctor_quote(dir, word, sizeof word);
		at += (size_t)snprintf(ret + at, bytes - at, " -a -w %s", word);
	}
	if (at < bytes)
		snprintf(ret + at, bytes - at, " && ");
}

void doctor_fix_start(struct doctor *d, enum doctor_id id, const char *user)
{
	char line[400], first[900] = "";

	if (has_systemd(d)) {
		doctor_fix(d, id, "memctl daemon stop --wait && systemctl enable --now memctld");
		return;
	}
	if (user)
		put_user(d, user, first, sizeof first);
	if (!command_line(d, "--supervise", line, sizeof line))
		snprintf(line, sizeof line, "memctld --supervise");
	doctor_fix(d, id, "%smemctl daemon stop --wait && %s%s%s%s &", first, user ? "runuser -u " : "", user ? user : "", user ? " -- " : "",
		line);
}

void doctor_fix_setting(struct doctor *d, enum doctor_id id, const char *setting, const char *value)
{
	char line[400];

	if (has_systemd(d))
		doctor_fix(d, id, "mkdir -p /etc/memctl/memctld.conf.d && "
			"printf '[memctld]\\n%s = %s\\n' > /etc/memctl/memctld.conf.d/%s.conf && "
			"memctl daemon stop --wait && systemctl start memctld", setting, value, setting);
	else
		/* what comes last holds */
		doctor_fix(d, id, "memctl daemon stop --wait && %s --set %s=%s &", command_line(d, "--supervise", line, sizeof line) ? line :
			"memctld --supervise", setting, value);
}
