/* Who speaks with whom: why memctld does not answer, or not to this user; libraries of emulators that have been replaced. */
#include "cli/doctor.h"

#include <dirent.h>
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LISTENING "00010000"

/* A socket of a memctld that listens, but not where we asked; "": none.  /proc/net/unix: Num RefCount Protocol Flags Type St
 * Inode Path. */
static void elsewhere(const struct doctor *d, char *ret, size_t bytes)
{
	char path[300], line[512], flags[16], where[256];
	FILE *f;

	ret[0] = 0;
	snprintf(path, sizeof path, "%s/proc/net/unix", d->root);
	f = fopen(path, "re");
	while (f && !ret[0] && fgets(line, sizeof line, f)) {
		const char *name;

		if (sscanf(line, "%*s %*s %*s %15s %*s %*s %*s %255s", flags, where) != 2 || strcmp(flags, LISTENING))
			continue;
		name = strrchr(where, '/');
		if (where[0] == '/' && name && !strcmp(name, "/memctld.sock") && strcmp(where, d->socket) && access(where, R_OK | W_OK) == 0)
			snprintf(ret, bytes, "%s", where);
	}
	if (f)
		fclose(f);
}

/* Whether there is a process of that name. */
static bool memctld_runs(const struct doctor *d)
{
	char path[300], name[32] = "";
	const struct dirent *e;
	bool found = false;
	DIR *dir;

	snprintf(path, sizeof path, "%s/proc", d->root);
	dir = opendir(path);
	while (dir && !found && (e = readdir(dir))) {
		FILE *f;

		if (e->d_name[0] < '0' || e->d_name[0] > '9')
			continue;
		snprintf(path, sizeof path, "%s/proc/%.20s/comm", d->root, e->d_name);
		f = fopen(path, "re");
		found = f && fgets(name, sizeof name, f) && !strcmp(name, "memctld\n");
		if (f)
			fclose(f);
	}
	if (dir)
		closedir(dir);
	return found;
}

static const char *why_not(int err)
{
	switch (err) {
	case ENOENT:
		return "there is no such socket";
	case ECONNREFUSED:
		return "nobody listens there any more";
	case ETIMEDOUT:
		return "memctld does not answer in time";
	default:
		return strerror(err);
	}
}

void check_unreachable(struct doctor *d, int err)
{
	char says[500], other[300];
	bool systemd;

	if (err == EACCES || err == EPERM) {
		find(d, CHECK_memctld, STATE_INFORMATION, "Not asked: this user may not open %s.", d->socket);
		check_refused(d);
		return;
	}
	systemd = unit_says(says, sizeof says);
	elsewhere(d, other, sizeof other);
	find(d, CHECK_memctld, STATE_FAILURE, "Nobody answers at %s: %s.%s%s%s%s%s", d->socket, why_not(err), says[0] ? "  " : "", says,
		other[0] ? "  A memctld listens at " : "", other, other[0] ? "." : "");
	if (other[0])
		fix(d, CHECK_memctld, "memctl --socket %s doctor", other);
	else if (systemd && err == ETIMEDOUT)
		fix(d, CHECK_memctld, "journalctl -u memctld -n 20 --no-pager; systemctl kill --kill-who=main -s ABRT memctld");
	else if (systemd && !strstr(says, "no unit"))
		fix(d, CHECK_memctld, "systemctl start memctld; journalctl -u memctld -n 20 --no-pager");
	else if (memctld_runs(d))
		/* it hangs, or whoever started it does so again: another one would only be in the way */
		find(d, CHECK_memctld, STATE_FAILURE, "Nobody answers at %s: %s.  A memctld is there: its log says what it waits for, or why it ends.",
			d->socket, why_not(err));
	else
		fix(d, CHECK_memctld, "memctld --supervise");
}

/* Whether the user is a member by the directory, if not by this session. */
static bool is_listed(const char *user, gid_t group)
{
	const struct passwd *pw = getpwnam(user);
	gid_t groups[256];
	int n = 256;

	if (!pw || getgrouplist(user, pw->pw_gid, groups, &n) < 0)
		return false;
	for (int i = 0; i < n; i++)
		if (groups[i] == group)
			return true;
	return false;
}

static bool is_member(gid_t group)
{
	gid_t groups[256];
	int n = getgroups(256, groups);

	for (int i = 0; i < n; i++)
		if (groups[i] == group)
			return true;
	return getegid() == group;
}

void check_refused(struct doctor *d)
{
	char user[64], group[64];
	struct stat st;

	user_name(user);
	if (stat(d->socket, &st) < 0) {
		find(d, CHECK_access, STATE_FAILURE, "User %s may not look into the directory of %s.", user, d->socket);
		fix(d, CHECK_access, "chmod 0755 \"$(dirname %s)\"", d->socket);
		return;
	}
	group_name(st.st_gid, group);
	if (st.st_gid == 0 || is_member(st.st_gid)) {
		find(d, CHECK_access, STATE_FAILURE,
			"User %s may not call memctld: the socket is group %s's (mode %04o), and neither access_group nor "
			"allow_users lets this user in.", user, group, (unsigned)st.st_mode & 07777);
		fix(d, CHECK_access, "old=$(memctl config show --raw --noheadings -o SETTING,VALUE | sed -n 's/^allow_users \\(-$\\)\\?//p'); "
			"memctl tune allow_users \"${old:+$old }%s\" --persist", user);
	} else if (is_listed(user, st.st_gid)) {
		find(d, CHECK_access, STATE_FAILURE, "User %s is a member of group %s from the next login on; this session is not.", user,
			group);
		fix(d, CHECK_access, "newgrp %s", group);
	} else {
		find(d, CHECK_access, STATE_FAILURE, "User %s may not call memctld: its socket is for members of group %s.", user, group);
		fix(d, CHECK_access, "usermod -aG %s %s  # from the next login on", group, user);
	}
}

/* Whether a process has a libmemctl mapped whose file was replaced since. */
static bool has_old_library(const struct doctor *d, long long pid)
{
	char path[300], line[600];
	bool found = false;
	FILE *f;

	snprintf(path, sizeof path, "%s/proc/%lld/maps", d->root, pid);
	f = fopen(path, "re");
	while (f && !found && fgets(line, sizeof line, f))
		found = strstr(line, "/libmemctl") && strstr(line, " (deleted)");
	if (f)
		fclose(f);
	return found;
}

void check_libraries(struct doctor *d)
{
	char names[300] = "";
	size_t at = 0;

	for (size_t i = 0; i < d->n_vms; i++)
		if (has_old_library(d, d->vms[i].pid) && at < sizeof names - sizeof d->vms[i].name)
			at += (size_t)snprintf(names + at, sizeof names - at, "%s%s", at ? ", " : "", d->vms[i].name);
	if (at)
		find(d, CHECK_versions, STATE_INFORMATION, "Another libmemctl has been installed since these VMs were started: %s.", names);
}
