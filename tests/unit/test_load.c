/* Settings, names and VMs' files read as a whole: where each value comes from, who is in which class, what of a file is new. */
#include "load.h"
#include "tests/lib/check.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[] = "/tmp/memctl-test-load-XXXXXX";
static char conf[64], why[512];
static struct load l;

static void write_file(const char *name, const char *text)
{
	char path[160];
	FILE *f;

	snprintf(path, sizeof path, "%s/%s", dir, name);
	f = fopen(path, "w");
	CHECK(f && fputs(text, f) >= 0 && fclose(f) == 0);
}

static void begin(void)
{
	char path[128];

	strcpy(dir + sizeof dir - 7, "XXXXXX");
	CHECK(mkdtemp(dir));
	snprintf(conf, sizeof conf, "%s/m.conf", dir);
	snprintf(path, sizeof path, "%s/m.conf.d", dir);
	CHECK_EQ(mkdir(path, 0700), 0);
	snprintf(path, sizeof path, "%s/vms.d", dir);
	CHECK_EQ(mkdir(path, 0700), 0);
	write_file("m.conf", "[memctld]\n");
}

static void end(void)
{
	char command[128];

	snprintf(command, sizeof command, "rm -r %s", dir);
	CHECK_EQ(system(command), 0);
}

/* Read and resolved; the caller's for load_fini. */
static int load(char *const *words)
{
	struct load_source s = { .path = conf, .words = words };
	int r;

	why[0] = 0;
	r = load_read(&s, &l, why, sizeof why);
	return r < 0 ? r : load_resolve(&l, why, sizeof why);
}

static const char *where(const char *setting)
{
	return l.where.of[setting_index(setting_find(setting))];
}

static void each_value_has_a_place(void)
{
	char place[128], *words[] = { (char[]){ "fault_around=8" }, (char[]){ "zstd_level=7" }, NULL };

	begin();
	write_file("m.conf", "[memctld]\nzstd_level = 2\nIdleTax = 3\n\nvictim = random\n");
	write_file("m.conf.d/a.conf", "[memctld]\nIdleTax = 4\n");
	CHECK_MSG(load(words) == 0, "%s", why);
	CHECK_EQ(l.config.zstd_level, 7);
	CHECK(!strcmp(where("zstd_level"), "command line"));
	CHECK(!strcmp(where("fault_around"), "command line"));
	CHECK(!strcmp(where("arena"), "default"));
	snprintf(place, sizeof place, "%s:5", conf);
	CHECK(!strcmp(where("victim"), place));
	snprintf(place, sizeof place, "%s.d/a.conf:2", conf);
	CHECK(!strcmp(where("IdleTax"), place));
	load_fini(&l);
	end();
}

static void paths_lie_beside_the_configuration(void)
{
	char path[128];

	load_tune_path(&(struct load_source){ .path = "/etc/memctl/memctld.conf" }, path, sizeof path);
	CHECK(!strcmp(path, "/etc/memctl/memctld.conf.d/90-tune.conf"));
	load_vms_path(&(struct load_source){ .path = "/etc/memctl/memctld.conf" }, path, sizeof path);
	CHECK(!strcmp(path, "/etc/memctl/vms.d"));
	load_vms_path(&(struct load_source){ .path = "m.conf" }, path, sizeof path);
	CHECK(!strcmp(path, "vms.d"));
	load_tune_path(&(struct load_source){ .path = NULL }, path, sizeof path);
	CHECK(!*path);
	load_vms_path(&(struct load_source){ .path = NULL }, path, sizeof path);
	CHECK(!*path);
}

static void settings_are_copied_one_by_one(void)
{
	struct config a, b;

	config_defaults(&a, NULL);
	config_defaults(&b, NULL);
	for (const struct setting *s = settings; s->name; s++)
		CHECK(setting_is_equal(s, &a, &b));
	CHECK_EQ(config_set(&a, NULL, "share_groups=a=*", why, sizeof why), 0);
	CHECK_EQ(config_set(&a, NULL, "arena=2G", why, sizeof why), 0);
	for (const struct setting *s = settings; s->name; s++) {
		bool changed = !strcmp(s->name, "share_groups") || !strcmp(s->name, "arena");

		CHECK_MSG(setting_is_equal(s, &a, &b) == !changed, "%s", s->name);
		setting_copy(s, &b, &a);
		CHECK(setting_is_equal(s, &a, &b));
	}
	CHECK(!memcmp(&a, &b, sizeof a) && b.arena_bytes == 2ull << 30);
}

static void what_a_line_of_a_file_can_say(void)
{
	const struct setting *s = setting_find("allow_users");
	char text[CONFIG_TEXT_MAX];

	CHECK_EQ(setting_check_line(s, "alice @staff", why, sizeof why), 0);
	CHECK_EQ(setting_check_line(s, "", why, sizeof why), 0);
	CHECK_EQ(setting_check_line(s, "a;b", why, sizeof why), 0);
	CHECK_EQ(setting_check_line(s, "a ;b", why, sizeof why), -EINVAL);
	CHECK(strstr(why, "allow_users: ") == why);
	CHECK_EQ(setting_check_line(s, " a", why, sizeof why), -EINVAL);
	CHECK_EQ(setting_check_line(s, "a ", why, sizeof why), -EINVAL);
	CHECK_EQ(setting_check_line(s, "a\nb", why, sizeof why), -EINVAL);
	memset(text, 'x', sizeof text - 1);
	text[sizeof text - 1] = 0;
	CHECK_EQ(setting_check_line(s, text, why, sizeof why), -EINVAL);
}

static void lists_of_users(void)
{
	struct who w = { 0 };

	CHECK_EQ(who_parse(&w, "", why, sizeof why), 0);
	CHECK(who_is_nobody(&w) && !who_has(&w, 0, (gid_t[]){ 0 }, 1));
	CHECK_EQ(who_parse(&w, " root, 1000 @1001,,@0 ", why, sizeof why), 0);
	CHECK(!who_is_nobody(&w) && !w.everyone && w.n_users == 2 && w.n_groups == 2);
	CHECK(who_has(&w, 0, NULL, 0) && who_has(&w, 1000, NULL, 0) && !who_has(&w, 1001, NULL, 0));
	CHECK(who_has(&w, 7, (gid_t[]){ 5, 1001 }, 2) && !who_has(&w, 7, (gid_t[]){ 5, 1000 }, 2));
	who_fini(&w);
	CHECK(who_is_nobody(&w));
	CHECK_EQ(who_parse(&w, "1 *", why, sizeof why), 0);
	CHECK(who_has(&w, 4711, NULL, 0));
	who_fini(&w);
	static const char *const wrong[] = { "no-such-user-here", "@no-such-group-here", "-1", "@", "1x", "4294967295", "1 no-such-user-here",
		"**" };
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		CHECK_MSG(who_parse(&w, wrong[i], why, sizeof why) == -ENOENT, "%s", wrong[i]);
		CHECK(strstr(why, "there is no ") == why && who_is_nobody(&w));
	}
}

/* Without a connection nobody is in a group but his own. */
static enum access_class class_of(uid_t uid, gid_t gid)
{
	return access_of(&l.names.access, &(struct session_peer){ .pid = 1, .uid = uid, .gid = gid }, -1);
}

static void classes(void)
{
	static const struct {
		const char *text;
		enum access_class of[5];	/* of 1000, 1001, 1002, 1003, and of 1004 in group 2000 */
	} rows[] = {
		{ "", { ACCESS_LEASE, ACCESS_LEASE, ACCESS_LEASE, ACCESS_LEASE, ACCESS_LEASE } },
		{ "allow_users = 1000\n", { ACCESS_LEASE, 0, 0, 0, 0 } },
		{ "read_users = 1000\n", { ACCESS_READ, 0, 0, 0, 0 } },
		{ "operate_users = 1000\n", { ACCESS_OPERATE, 0, 0, 0, 0 } },
		{ "access_group = 2000\n", { 0, 0, 0, 0, ACCESS_LEASE } },
		{ "allow_users = 1001\nread_users = *\noperate_users = 1002 @2000\n",
			{ ACCESS_READ, ACCESS_LEASE, ACCESS_OPERATE, ACCESS_READ, ACCESS_OPERATE } },
		{ "allow_users = *\noperate_users = 1000\nread_users = 1000\n",
			{ ACCESS_OPERATE, ACCESS_LEASE, ACCESS_LEASE, ACCESS_LEASE, ACCESS_LEASE } },
	};

	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		char text[256];

		begin();
		snprintf(text, sizeof text, "[memctld]\n%s", rows[i].text);
		write_file("m.conf", text);
		CHECK_MSG(load(NULL) == 0, "%s", why);
		for (uid_t u = 0; u < 5; u++)
			CHECK_MSG(class_of(1000 + u, u == 4 ? 2000 : 1000 + u) == rows[i].of[u], "row %zu: user %u is %s", i, 1000 + u,
				access_class_names[class_of(1000 + u, u == 4 ? 2000 : 1000 + u)]);
		CHECK_EQ(class_of(0, 0), ACCESS_OPERATE);
		CHECK_EQ(class_of(geteuid(), 1), ACCESS_OPERATE);
		load_fini(&l);
		end();
	}
}

static void files_of_vms(void)
{
	const struct vm_file *f;
	uint32_t mark;

	begin();
	write_file("vms.d/web.conf", "[vm]\n# a comment\nreservation = 1G\nuser = 1000\n");
	write_file("vms.d/a.b-c_d.conf", "");
	CHECK_MSG(load(NULL) == 0, "%s", why);
	CHECK_EQ(l.vm_files->n, 2);
	CHECK(!vm_files_find(l.vm_files, "we") && !vm_files_find(l.vm_files, "") && vm_files_find(l.vm_files, "a.b-c_d"));
	f = vm_files_find(l.vm_files, "web");
	CHECK(f && !strcmp(vm_file_value(f, VM_KEY_reservation), "1G") && f->line[VM_KEY_reservation] == 3);
	CHECK(!*vm_file_value(f, VM_KEY_limit) && !*vm_file_value(NULL, VM_KEY_limit));
	CHECK(who_has(&f->user, 1000, NULL, 0) && !who_has(&f->user, 1001, NULL, 0));
	CHECK(!vm_file_mark(f, VM_KEY_limit) && !vm_file_mark(NULL, VM_KEY_reservation));
	mark = vm_file_mark(f, VM_KEY_reservation);
	CHECK(mark);
	load_fini(&l);
	/* the same text is the same mark in another life, another is another */
	write_file("vms.d/web.conf", "[vm]\nlimit = 2G\nreservation = 1G\n");
	CHECK_EQ(load(NULL), 0);
	CHECK(vm_file_mark(vm_files_find(l.vm_files, "web"), VM_KEY_reservation) == mark);
	CHECK(vm_file_mark(vm_files_find(l.vm_files, "web"), VM_KEY_limit) != mark);
	CHECK(who_is_nobody(&vm_files_find(l.vm_files, "web")->user));
	load_fini(&l);
	end();
}

static void a_group_must_be_there(void)
{
	begin();
	write_file("vms.d/web.conf", "[vm]\nsharing = group:db\n");
	CHECK_EQ(load(NULL), -ENOENT);
	CHECK_MSG(strstr(why, "vms.d/web.conf:2: sharing: share_groups has no group \"db\""), "%s", why);
	load_fini(&l);
	write_file("m.conf", "[memctld]\nshare_groups = db=*\n");
	CHECK_EQ(load(NULL), 0);
	load_fini(&l);
	/* where all may be one group, none needs to be listed */
	write_file("m.conf", "[memctld]\nShareForceSalting = 1\n");
	CHECK_EQ(load(NULL), 0);
	load_fini(&l);
	end();
}

int main(int argc, char **argv)
{
	return check_main(argc, argv, (const struct scenario[]){ SCENARIO(each_value_has_a_place), SCENARIO(paths_lie_beside_the_configuration),
		SCENARIO(settings_are_copied_one_by_one), SCENARIO(what_a_line_of_a_file_can_say), SCENARIO(lists_of_users), SCENARIO(classes),
		SCENARIO(files_of_vms), SCENARIO(a_group_must_be_there), { 0 } });
}
