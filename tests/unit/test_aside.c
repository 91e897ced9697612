/* record/: what is found where the database should be.  What is ours and of no use is kept aside; what is not ours is left alone. */
#include "tests/lib/check.h"
#include "tests/unit/metrics_file.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static void write_file(const char *bytes, size_t n)
{
	int fd = open(path, O_WRONLY | O_CREAT, 0600);

	CHECK(fd >= 0 && write(fd, bytes, n) == (ssize_t)n);
	close(fd);
}

static void opens_anew(const char *why)
{
	struct record_options o = options();
	struct record *r = open_record(&o);

	record_host(r, 1, (uint64_t[]){ 5 });
	record_close(r);
	CHECK_EQ(ask("SELECT free_bytes FROM host"), 5);
	CHECK_EQ(kept_aside(why), 1);
	CHECK_EQ(kept_aside("*"), 1);
}

static void garbage_is_kept_aside(void)
{
	char garbage[8192];

	begin();
	memset(garbage, 0xa5, sizeof garbage);
	memcpy(garbage, "SQLite format 3", 16);
	write_file(garbage, sizeof garbage);
	opens_anew("damaged-*Z");
	end();
	/* as after a power failure */
	begin();
	memset(garbage, 0, sizeof garbage);
	write_file(garbage, sizeof garbage);
	opens_anew("damaged-*Z");
	end();
}

static void is_left_alone(void)
{
	struct record_options o = options();
	struct record *r = NULL;
	struct problem p = { 0 };

	CHECK(record_open(&r, &o, &p) < 0 && !r);
	CHECK_MSG(strstr(p.text, "left alone"), "%s", p.text);
	CHECK_EQ(kept_aside("*"), 0);
}

static void what_is_no_database_is_left_alone(void)
{
	char precious[256];

	begin();
	memset(precious, 'x', sizeof precious);
	write_file(precious, sizeof precious);
	is_left_alone();
	end();
}

static void newer_database_is_kept_aside(void)
{
	struct record_options o = options();

	begin();
	record_close(open_record(&o));
	tell("PRAGMA user_version = 1000");
	opens_anew("newer-v1000");
	/* once more: what was kept stays */
	tell("PRAGMA user_version = 1000");
	record_close(open_record(&o));
	CHECK_EQ(kept_aside("newer-v1000"), 1);
	CHECK_EQ(kept_aside("newer-v1000-2"), 1);
	end();
}

static void foreign_database_is_left_alone(void)
{
	begin();
	tell("CREATE TABLE precious (a); INSERT INTO precious VALUES (1)");
	is_left_alone();
	CHECK_EQ(ask("SELECT a FROM precious"), 1);
	end();
}

/* Somebody has taken a table away, or made it another. */
static void wrong_tables_are_damage(void)
{
	struct record_options o = options();

	begin();
	record_close(open_record(&o));
	tell("DROP TABLE vm_1m; CREATE TABLE vm_1m (ts INTEGER PRIMARY KEY)");
	opens_anew("damaged-*Z");
	end();
}

int main(int argc, char **argv)
{
	return check_main(argc, argv, (const struct scenario[]){
		SCENARIO(garbage_is_kept_aside),
		SCENARIO(newer_database_is_kept_aside),
		SCENARIO(foreign_database_is_left_alone),
		SCENARIO(what_is_no_database_is_left_alone),
		SCENARIO(wrong_tables_are_damage),
		{ 0 } });
}
