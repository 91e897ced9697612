/* The configuration: rows of settings.def, from defaults, files and the command line, in this order.
 *
 * Files are strict: a section other than [memctld], an unknown key, a key given twice or a value out of range
 * is an error with file and line, and nothing is guessed.  config.c is the only door to libinih. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CONFIG_TEXT_MAX	 256
#define CONFIG_WHERE_MAX 288	/* of a place: a path and a line */

#define CONFIG_C_SIZE(member)	 uint64_t member;
#define CONFIG_C_NUMBER(member)	 int64_t member;
#define CONFIG_C_PERCENT(member) int64_t member;
#define CONFIG_C_MODE(member)	 int64_t member;
#define CONFIG_C_VICTIM(member)	 int64_t member; /* enum victim_kind */
#define CONFIG_C_YESNO(member)	 int64_t member;
#define CONFIG_C_PATH(member)	 char member[CONFIG_TEXT_MAX];
#define CONFIG_C_TEXT(member)	 char member[CONFIG_TEXT_MAX];

struct config {
#define SETTING(name, type, unit, member, def, min, max, live, help) CONFIG_C_##type(member)
#include "settings.def"
#undef SETTING
};

enum {
#define SETTING(name, type, unit, member, def, min, max, live, help) SETTING_N_##member,
#include "settings.def"
#undef SETTING
	SETTINGS_COUNT
};

/* Where each setting's value comes from: "default", "FILE:LINE", "command line", "tune". */
struct config_where {
	char of[SETTINGS_COUNT][CONFIG_WHERE_MAX];
};

enum setting_type { SETTING_SIZE, SETTING_NUMBER, SETTING_PERCENT, SETTING_MODE, SETTING_VICTIM, SETTING_YESNO,
	SETTING_PATH, SETTING_TEXT };

struct setting {
	const char *name;
	enum setting_type type;
	const char *unit;	/* "": none */
	size_t offset;		/* in struct config */
	const char *def;
	int64_t min, max;
	bool live;
	const char *help;
};
extern const struct setting settings[];	/* ended by a NULL name */
extern const char *const setting_type_names[];

const struct setting *setting_find(const char *name);
/* Its place in the table. */
size_t setting_index(const struct setting *s);
/* Parse `text` into the member of the setting.  0, or -EINVAL / -ERANGE with one sentence in `why`; the
 * member is untouched then. */
int setting_set(const struct setting *s, struct config *c, const char *text, char *why, size_t why_bytes);
/* The value as text that setting_set takes. */
void setting_format(const struct setting *s, const struct config *c, char *ret, size_t ret_bytes);

/* From one to the other. */
void setting_copy(const struct setting *s, struct config *to, const struct config *from);
bool setting_is_equal(const struct setting *s, const struct config *a, const struct config *b);
/* Whether "name = value" in a file would be read as just that.  -EINVAL with a sentence. */
int setting_check_line(const struct setting *s, const char *value, char *why, size_t why_bytes);

/* `w` may be NULL here and below. */
void config_defaults(struct config *c, struct config_where *w);
/* `path`, then path.d/ *.conf in the order of their names.  `optional`: it need not exist.  0, or -errno with
 * one sentence (file:line: what) in `why`. */
int config_read(struct config *c, struct config_where *w, const char *path, bool optional, char *why, size_t why_bytes);
/* "KEY=VALUE" of the command line. */
int config_set(struct config *c, struct config_where *w, const char *assignment, char *why, size_t why_bytes);

/* A line "key = value" of a file. */
struct config_pair {
	const char *section, *key, *value;
	unsigned line;
};
/* Every pair of the file, in its order: `take` returns 0, or -errno with a sentence in `why`, which ends it and gets "path:line: "
 * before it.  For files that are no settings (vm_files.h). */
int config_read_pairs(const char *path, int (*take)(void *userdata, const struct config_pair *p, char *why, size_t why_bytes),
	void *userdata, char *why, size_t why_bytes);
/* The *.conf of a directory in the order of their names: `take` gets the whole path, and the name without ".conf", and returns 0 or
 * -errno.  A directory that is not there has none. */
int config_each_file(const char *dir, int (*take)(void *userdata, const char *path, const char *name, char *why, size_t why_bytes),
	void *userdata, char *why, size_t why_bytes);

/* A name of a VM or of a sharing group: 1 to 63 of A-Z a-z 0-9 . _ -, the first none of . and -. */
bool is_name(const char *text);
/* "256M" -> bytes: digits and one of K M G T (powers of 1024, an i, B or iB may follow).  0, -EINVAL,
 * -ERANGE. */
int parse_size(const char *text, uint64_t *ret);
