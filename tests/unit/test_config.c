/* The configuration: strict files, ranges, and defaults that their own rows allow. */
#include "config.h"
#include "share_groups.h"
#include "tests/lib/check.h"

#include <errno.h>
#include <grp.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char path[] = "/tmp/memctl-test-config-XXXXXX";

static int read_text(const char *text, struct config *c, char *why)
{
	FILE *f;
	int r;

	strcpy(path + sizeof path - 7, "XXXXXX");
	close(mkstemp(path));
	f = fopen(path, "w");
	fputs(text, f);
	fclose(f);
	config_defaults(c, NULL);
	why[0] = 0;
	r = config_read(c, NULL, path, false, why, 512);
	unlink(path);
	return r;
}

static void defaults_are_in_range(void)
{
	struct config c;
	char text[CONFIG_TEXT_MAX], why[128];

	config_defaults(&c, NULL);
	CHECK_EQ(c.arena_bytes, 1 << 30);
	for (const struct setting *s = settings; s->name; s++) {
		setting_format(s, &c, text, sizeof text);
		CHECK_MSG(setting_set(s, &c, text, why, sizeof why) == 0, "%s: %s", s->name, why);
		CHECK_MSG(strlen(s->help) > 10 && s->help[strlen(s->help) - 1] == '.', "%s has no sentence",
			s->name);
	}
}

static void sizes(void)
{
	static const struct {
		const char *text;
		int r;
		uint64_t bytes;
	} rows[] = {
		{ "0", 0, 0 },
		{ "4096", 0, 4096 },
		{ "1k", 0, 1024 },
		{ "256M", 0, 256 << 20 },
		{ "2GiB", 0, 2ull << 30 },
		{ "3GB", 0, 3ull << 30 },
		{ "1T", 0, 1ull << 40 },
		{ "", -EINVAL, 0 },
		{ "M", -EINVAL, 0 },
		{ "-1", -EINVAL, 0 },
		{ " 1", -EINVAL, 0 },
		{ "1 M", -EINVAL, 0 },
		{ "1.5G", -EINVAL, 0 },
		{ "0x10", -EINVAL, 0 },
		{ "1X", -EINVAL, 0 },
		{ "1Gi ", -EINVAL, 0 },
		{ "99999999999999999999", -ERANGE, 0 },
		{ "9999999999G", -ERANGE, 0 },
	};

	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		uint64_t bytes = 0;
		int r = parse_size(rows[i].text, &bytes);

		CHECK_MSG(r == rows[i].r && bytes == rows[i].bytes, "\"%s\": %d, %" PRIu64, rows[i].text, r,
			bytes);
	}
}

static void a_file_is_read(void)
{
	struct config c;
	char why[512];

	CHECK_MSG(read_text("# a comment\n[memctld]\narena = 2G\nvictim=random ; why\nsocket_mode = "
			    "0600\n\nzstd_level = -3\n"
			    "swap_dir = /srv/swap\n",
			  &c, why) == 0,
		"%s", why);
	CHECK_EQ(c.arena_bytes, 2ll << 30);
	CHECK_EQ(c.victim, 2);
	CHECK_EQ(c.socket_mode, 0600);
	CHECK_EQ(c.zstd_level, -3);
	CHECK(strcmp(c.swap_dir, "/srv/swap") == 0);
}

static void files_are_strict(void)
{
	static const struct {
		const char *text, *where;
	} rows[] = {
		{ "[memctld]\narena = 2G\nareena = 1G\n", ":3: there is no setting \"areena\"" },
		{ "[memctld]\narena = 2G\narena = 1G\n", ":3: arena is given twice" },
		{ "arena = 2G\n", ":1: settings stand in section [memctld]" },
		{ "[other]\narena = 2G\n", ":2: settings stand in section [memctld]" },
		{ "[memctld]\narena = 1\n", ":2: arena: wants a size from" },
		{ "[memctld]\n\n\nzstd_level = fast\n", ":4: zstd_level: wants a number from" },
		{ "[memctld]\nzstd_level = 3x\n", ":2: zstd_level" },
		{ "[memctld]\nMemZipMaxPct = 101\n", ":2: MemZipMaxPct" },
		{ "[memctld]\nvictim = lru\n", ":2: victim: wants second-chance" },
		{ "[memctld]\nsocket_mode = 999\n", ":2: socket_mode" },
		{ "[memctld]\nshare_with_root = true\n", ":2: share_with_root: wants yes or no" },
		{ "[memctld]\nShareScanTime = 601\n", ":2: ShareScanTime: wants a number from 0 to 600" },
		{ "[memctld]\nShareForceSalting = 3\n", ":2: ShareForceSalting" },
		{ "[memctld]\nswap_dir = swap\n", ":2: swap_dir" },
		{ "[memctld]\nnonsense\n", ":2: neither" },
		{ "[memctld\n", ":1: neither" },
	};
	struct config c;
	char why[512];

	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		CHECK_MSG(read_text(rows[i].text, &c, why) < 0, "taken: %s", rows[i].text);
		CHECK_MSG(strncmp(why, path, strlen(path)) == 0, "no file in: %s", why);
		CHECK_MSG(strstr(why, rows[i].where), "\"%s\" says: %s", rows[i].text, why);
	}
}

static void long_lines_are_refused(void)
{
	char text[5000] = "[memctld]\nswap_dir = /", why[512];
	struct config c;

	memset(text + strlen(text), 'x', 4000);
	CHECK(read_text(text, &c, why) < 0);
	CHECK_MSG(strstr(why, ":2:"), "%s", why);
}

static void fragments_come_after_the_file(void)
{
	char dir[] = "/tmp/memctl-test-config-XXXXXX", name[128], why[512];
	struct config c;
	FILE *f;

	CHECK(mkdtemp(dir) != NULL);
	snprintf(name, sizeof name, "%s/m.conf", dir);
	f = fopen(name, "w");
	fputs("[memctld]\narena = 2G\nzstd_level = 2\n", f);
	fclose(f);
	snprintf(name, sizeof name, "%s/m.conf.d", dir);
	mkdir(name, 0700);
	snprintf(name, sizeof name, "%s/m.conf.d/20-b.conf", dir);
	f = fopen(name, "w");
	fputs("[memctld]\narena = 4G\n", f);
	fclose(f);
	snprintf(name, sizeof name, "%s/m.conf.d/10-a.conf", dir);
	f = fopen(name, "w");
	fputs("[memctld]\narena = 3G\n", f);
	fclose(f);
	snprintf(name, sizeof name, "%s/m.conf.d/ignored.txt", dir);
	f = fopen(name, "w");
	fputs("nonsense", f);
	fclose(f);
	snprintf(name, sizeof name, "%s/m.conf", dir);
	config_defaults(&c, NULL);
	CHECK_EQ(config_read(&c, NULL, name, false, why, sizeof why), 0);
	CHECK_EQ(c.arena_bytes, 4ll << 30);
	CHECK_EQ(c.zstd_level, 2);
	snprintf(name, sizeof name, "rm -r %s", dir);
	CHECK_EQ(system(name), 0);
}

static void absent_files(void)
{
	struct config c;
	char why[512];

	config_defaults(&c, NULL);
	CHECK_EQ(config_read(&c, NULL, "/nonexistent/memctld.conf", true, why, sizeof why), 0);
	CHECK_EQ(config_read(&c, NULL, "/nonexistent/memctld.conf", false, why, sizeof why), -ENOENT);
	CHECK(strstr(why, "/nonexistent/memctld.conf"));
}

static void the_command_line(void)
{
	struct config c;
	char why[512];

	config_defaults(&c, NULL);
	CHECK_EQ(config_set(&c, NULL, "fault_around=1", why, sizeof why), 0);
	CHECK_EQ(c.fault_around, 1);
	CHECK(config_set(&c, NULL, "fault_around", why, sizeof why) < 0);
	CHECK(config_set(&c, NULL, "=1", why, sizeof why) < 0);
	CHECK(config_set(&c, NULL, "nothing=1", why, sizeof why) < 0);
	CHECK(config_set(&c, NULL, "fault_around=0", why, sizeof why) == -ERANGE);
	CHECK_EQ(c.fault_around, 1);
}

static void yes_and_no(void)
{
	struct config c;
	char why[512], text[CONFIG_TEXT_MAX];

	config_defaults(&c, NULL);
	CHECK(!c.share_with_root);
	CHECK_EQ(config_set(&c, NULL, "share_with_root=yes", why, sizeof why), 0);
	CHECK(c.share_with_root);
	setting_format(setting_find("share_with_root"), &c, text, sizeof text);
	CHECK(!strcmp(text, "yes"));
	CHECK(config_set(&c, NULL, "share_with_root=", why, sizeof why) == -EINVAL);
	CHECK(c.share_with_root);
}

static void sharing_groups(void)
{
	struct group *gr = getgrgid(0);
	struct share_groups *g = NULL;
	char why[512] = "", text[CONFIG_TEXT_MAX];
	struct config c;

	CHECK(gr);
	snprintf(text, sizeof text, "[memctld]\nshare_groups = web=1000,root  any=*  staff=7,@%s\n", gr->gr_name);
	CHECK_MSG(read_text(text, &c, why) == 0, "%s", why);
	CHECK_MSG(share_groups_parse(&g, c.share_groups, why, sizeof why) == 0, "%s", why);
	CHECK(share_groups_has(g, "web") && share_groups_has(g, "any") && share_groups_has(g, "staff"));
	CHECK(!share_groups_has(g, "we") && !share_groups_has(g, "webs") && !share_groups_has(g, ""));
	CHECK(share_groups_permit(g, "web", 1000, NULL, 0));
	CHECK(share_groups_permit(g, "web", 0, NULL, 0));
	CHECK(!share_groups_permit(g, "web", 1001, (gid_t[]){ 1000, 0 }, 2));
	CHECK(share_groups_permit(g, "any", 4711, NULL, 0));
	CHECK(share_groups_permit(g, "staff", 7, NULL, 0));
	CHECK(share_groups_permit(g, "staff", 8, (gid_t[]){ 5, 0 }, 2));
	CHECK(!share_groups_permit(g, "staff", 8, (gid_t[]){ 5, 6 }, 2));
	CHECK(!share_groups_permit(g, "other", 0, NULL, 0));
	share_groups_free(g);

	/* nothing given: no group, and nobody in it */
	CHECK_EQ(share_groups_parse(&g, "", why, sizeof why), 0);
	CHECK(!share_groups_has(g, "common") && !share_groups_permit(g, "common", 0, NULL, 0));
	share_groups_free(g);
	CHECK(!share_groups_has(NULL, "common"));
}

static void sharing_groups_are_strict(void)
{
	static const struct {
		const char *text, *says;
	} rows[] = {
		{ "web", "wants NAME=" },
		{ "=root", "wants NAME=" },
		{ "-a=root", "wants NAME=" },
		{ "a/b=root", "wants NAME=" },
		{ "web=", "web= wants users" },
		{ "web=root,", "web= wants users" },
		{ "web=root,,1", "web= wants users" },
		{ "web=root, bob", "web= wants users" },
		{ "web=nobody-has-this-name", "no user \"nobody-has-this-name\"" },
		{ "web=@nobody-has-this-name", "no group \"nobody-has-this-name\"" },
		{ "web=@", "no group \"\"" },
		{ "web=**", "no user \"**\"" },
		{ "web=-1", "no user \"-1\"" },
		{ "web=root web=1", "web is given twice" },
	};

	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		struct share_groups *g = NULL;
		char why[512] = "";

		CHECK_MSG(share_groups_parse(&g, rows[i].text, why, sizeof why) < 0, "taken: %s", rows[i].text);
		CHECK(!g);
		CHECK_MSG(strstr(why, rows[i].says), "\"%s\" says: %s", rows[i].text, why);
	}
}

int main(int argc, char **argv)
{
	return check_main(argc, argv,
		(const struct scenario[]){ SCENARIO(defaults_are_in_range), SCENARIO(sizes),
			SCENARIO(a_file_is_read), SCENARIO(files_are_strict),
			SCENARIO(long_lines_are_refused), SCENARIO(fragments_come_after_the_file),
			SCENARIO(absent_files), SCENARIO(the_command_line), SCENARIO(yes_and_no),
			SCENARIO(sharing_groups), SCENARIO(sharing_groups_are_strict), { 0 } });
}
