#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <ini.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct setting settings[] = {
#define SETTING(name, type, unit, member, def, min, max, live, help)                                         \
	{ #name, SETTING_##type, unit, offsetof(struct config, member), def, (int64_t)(min), (int64_t)(max), live, \
		help },
#include "settings.def"
#undef SETTING
	{ NULL },
};

const char *const setting_type_names[] = { "size", "number", "percent", "mode", "choice", "yes/no", "path", "text" };
static const char *const victims[] = { "second-chance", "fill-order", "random" };
static const char *const yes_or_no[] = { "no", "yes" };

bool is_name(const char *text)
{
	size_t n = strlen(text);

	return n >= 1 && n <= 63 && text[0] != '.' && text[0] != '-' &&
		strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") == n;
}

int parse_size(const char *text, uint64_t *ret)
{
	static const char units[] = "KMGT";
	const char *unit;
	unsigned shift = 0;
	uint64_t n;
	char *end;

	if (*text < '0' || *text > '9')
		return -EINVAL;
	errno = 0;
	n = strtoull(text, &end, 10);
	if (errno)
		return -ERANGE;
	unit = *end ? strchr(units, *end & ~0x20) : NULL;
	if (unit) {
		shift = 10 * (unsigned)(unit - units + 1);
		end++;
		if (*end == 'i')
			end++;
	}
	if (*end == 'B')
		end++;
	if (*end)
		return -EINVAL;
	if (n > (uint64_t)INT64_MAX >> shift)
		return -ERANGE;
	*ret = n << shift;
	return 0;
}

const struct setting *setting_find(const char *name)
{
	for (const struct setting *s = settings; s->name; s++)
		if (strcmp(s->name, name) == 0)
			return s;
	return NULL;
}

size_t setting_index(const struct setting *s)
{
	return (size_t)(s - settings);
}

static int parse_number(const char *text, int base, int64_t *ret)
{
	char *end;

	errno = 0;
	*ret = strtoll(text, &end, base);
	if (errno)
		return -ERANGE;
	return end == text || *end ? -EINVAL : 0;
}

int setting_set(const struct setting *s, struct config *c, const char *text, char *why, size_t why_bytes)
{
	void *member = (char *)c + s->offset;
	int64_t n = 0;
	uint64_t size;
	int r = 0;

	switch (s->type) {
	case SETTING_PATH:
	case SETTING_TEXT:
		if (strlen(text) >= CONFIG_TEXT_MAX) {
			snprintf(why, why_bytes, "%s: at most %d bytes", s->name, CONFIG_TEXT_MAX - 1);
			return -ERANGE;
		}
		for (const char *at = text; *at; at++)
			if ((unsigned char)*at < ' ' && *at != '\t') {
				snprintf(why, why_bytes, "%s: control characters have no place in it", s->name);
				return -EINVAL;
			}
		if (s->type == SETTING_PATH && text[0] != '/' && strcmp(text, "none")) {
			snprintf(why, why_bytes, "%s: wants an absolute path, not \"%s\"", s->name, text);
			return -EINVAL;
		}
		strcpy(member, text);
		return 0;
	case SETTING_SIZE:
		r = parse_size(text, &size);
		n = r == 0 ? (int64_t)size : 0;
		break;
	case SETTING_VICTIM:
		r = -EINVAL;
		for (unsigned i = 0; i < sizeof victims / sizeof victims[0]; i++) {
			if (strcmp(text, victims[i]) == 0) {
				n = i;
				r = 0;
			}
		}
		break;
	case SETTING_YESNO:
		n = strcmp(text, yes_or_no[1]) == 0;
		r = strcmp(text, yes_or_no[n]) == 0 ? 0 : -EINVAL;
		break;
	case SETTING_MODE:
		r = parse_number(text, 8, &n);
		break;
	case SETTING_NUMBER:
	case SETTING_PERCENT:
		r = parse_number(text, 10, &n);
		break;
	}
	if (r == 0 && (n < s->min || n > s->max))
		r = -ERANGE;
	if (r == 0) {
		memcpy(member, &n, sizeof n);
		return 0;
	}
	if (s->type == SETTING_VICTIM)
		snprintf(why, why_bytes, "%s: wants second-chance, fill-order or random, not \"%s\"", s->name,
			text);
	else if (s->type == SETTING_YESNO)
		snprintf(why, why_bytes, "%s: wants yes or no, not \"%s\"", s->name, text);
	else if (s->type == SETTING_MODE)
		snprintf(why, why_bytes, "%s: wants an octal number up to 0777, not \"%s\"", s->name, text);
	else
		snprintf(why, why_bytes, "%s: wants a %s from %" PRId64 " to %" PRId64 ", not \"%s\"",
			s->name, setting_type_names[s->type], s->min, s->max, text);
	return r;
}

void setting_format(const struct setting *s, const struct config *c, char *ret, size_t ret_bytes)
{
	const void *member = (const char *)c + s->offset;
	int64_t n;

	if (s->type == SETTING_PATH || s->type == SETTING_TEXT) {
		snprintf(ret, ret_bytes, "%s", (const char *)member);
		return;
	}
	memcpy(&n, member, sizeof n);
	if (s->type == SETTING_VICTIM)
		snprintf(ret, ret_bytes, "%s", victims[n]);
	else if (s->type == SETTING_YESNO)
		snprintf(ret, ret_bytes, "%s", yes_or_no[n]);
	else
		snprintf(ret, ret_bytes, s->type == SETTING_MODE ? "0%" PRIo64 : "%" PRId64, n);
}

static void came_from(struct config_where *w, const struct setting *s, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void came_from(struct config_where *w, const struct setting *s, const char *fmt, ...)
{
	va_list ap;

	if (!w)
		return;
	va_start(ap, fmt);
	vsnprintf(w->of[setting_index(s)], CONFIG_WHERE_MAX, fmt, ap);
	va_end(ap);
}

void setting_copy(const struct setting *s, struct config *to, const struct config *from)
{
	bool text = s->type == SETTING_PATH || s->type == SETTING_TEXT;

	memcpy((char *)to + s->offset, (const char *)from + s->offset, text ? CONFIG_TEXT_MAX : sizeof(int64_t));
}

bool setting_is_equal(const struct setting *s, const struct config *a, const struct config *b)
{
	const char *left = (const char *)a + s->offset, *right = (const char *)b + s->offset;

	if (s->type == SETTING_PATH || s->type == SETTING_TEXT)
		return !strcmp(left, right);
	return !memcmp(left, right, sizeof(int64_t));
}

void config_defaults(struct config *c, struct config_where *w)
{
	char why[128];

	memset(c, 0, sizeof *c);
	for (const struct setting *s = settings; s->name; s++) {
		if (setting_set(s, c, s->def, why, sizeof why) < 0)
			abort(); /* a row contradicts itself: tests/unit/test_config.c */
		came_from(w, s, "default");
	}
}

/* One file being read.  libinih tells the line only in some builds, so lines are counted as they are handed
 * to it. */
struct reading {
	const char *path;
	FILE *file;
	unsigned line;
	int (*take)(void *userdata, const struct config_pair *p, char *why, size_t why_bytes);
	void *userdata;
	char *why;
	size_t why_bytes;
	int r;
};

static char *next_line(char *line, int bytes, void *stream)
{
	struct reading *in = stream;
	char *got;
	size_t n;

	if (in->r < 0)
		return NULL;
	got = fgets(line, bytes, in->file);
	if (!got)
		return NULL;
	in->line++;
	n = strlen(got);
	if (n + 1 == (size_t)bytes && got[n - 1] != '\n') {
		snprintf(in->why, in->why_bytes, "%s:%u: the line is too long", in->path, in->line);
		in->r = -EINVAL;
		return NULL;
	}
	return got;
}

static int take_pair(void *userdata, const char *section, const char *name, const char *value)
{
	struct reading *in = userdata;
	char detail[400];

	if (in->r < 0)
		return 0;
	in->r = in->take(in->userdata, &(struct config_pair){ section, name, value, in->line }, detail, sizeof detail);
	if (in->r < 0)
		snprintf(in->why, in->why_bytes, "%s:%u: %s", in->path, in->line, detail);
	return in->r == 0;
}

int config_read_pairs(const char *path, int (*take)(void *userdata, const struct config_pair *p, char *why, size_t why_bytes),
	void *userdata, char *why, size_t why_bytes)
{
	struct reading in = { .path = path, .take = take, .userdata = userdata, .why = why, .why_bytes = why_bytes };
	int line;

	in.file = fopen(path, "re");
	if (!in.file) {
		in.r = -errno;
		snprintf(why, why_bytes, "%s: %s", path, strerror(errno));
		return in.r;
	}
	line = ini_parse_stream(next_line, &in, take_pair, &in);
	if (in.r == 0 && ferror(in.file)) {
		in.r = -EIO;
		snprintf(why, why_bytes, "%s: cannot be read", path);
	} else if (in.r == 0 && line != 0) {
		in.r = -EINVAL;
		snprintf(why, why_bytes, "%s:%d: neither a [section] nor \"setting = value\"", path, line);
	}
	fclose(in.file);
	return in.r;
}

static int is_fragment(const struct dirent *d)
{
	size_t n = strlen(d->d_name);

	return n > 5 && d->d_name[0] != '.' && strcmp(d->d_name + n - 5, ".conf") == 0;
}

int config_each_file(const char *dir, int (*take)(void *userdata, const char *path, const char *name, char *why, size_t why_bytes),
	void *userdata, char *why, size_t why_bytes)
{
	struct dirent **found = NULL;
	int n = scandir(dir, &found, is_fragment, alphasort), r = 0;

	if (n < 0) {
		if (errno == ENOENT)
			return 0;
		r = -errno;
		snprintf(why, why_bytes, "%s: %s", dir, strerror(errno));
		return r;
	}
	for (int i = 0; i < n; i++) {
		char *name = found[i]->d_name, *file = NULL;

		if (r == 0 && asprintf(&file, "%s/%s", dir, name) < 0) {
			snprintf(why, why_bytes, "%s: out of memory", dir);
			file = NULL;
			r = -ENOMEM;
		}
		if (r == 0) {
			name[strlen(name) - strlen(".conf")] = 0;
			r = take(userdata, file, name, why, why_bytes);
		}
		free(file);
		free(found[i]);
	}
	free(found);
	return r;
}

/* A file of settings. */
struct setting_file {
	struct config *config;
	struct config_where *where;
	const char *path;
	bool given[SETTINGS_COUNT];
};

static int take_setting(void *userdata, const struct config_pair *p, char *why, size_t why_bytes)
{
	struct setting_file *f = userdata;
	const struct setting *s = setting_find(p->key);
	int r;

	if (strcmp(p->section, "memctld")) {
		snprintf(why, why_bytes, "settings stand in section [memctld], not [%s]", p->section);
		return -EINVAL;
	}
	if (!s) {
		snprintf(why, why_bytes, "there is no setting \"%s\"", p->key);
		return -EINVAL;
	}
	if (f->given[setting_index(s)]) {
		snprintf(why, why_bytes, "%s is given twice (or a line begins with a space)", p->key);
		return -EINVAL;
	}
	f->given[setting_index(s)] = true;
	r = setting_set(s, f->config, p->value, why, why_bytes);
	if (r == 0)
		came_from(f->where, s, "%s:%u", f->path, p->line);
	return r;
}

static int read_settings(void *userdata, const char *path, const char *name, char *why, size_t why_bytes)
{
	const struct setting_file *to = userdata;
	struct setting_file f = { .config = to->config, .where = to->where, .path = path };

	return config_read_pairs(path, take_setting, &f, why, why_bytes);
}

int config_read(struct config *c, struct config_where *w, const char *path, bool optional, char *why, size_t why_bytes)
{
	struct setting_file f = { .config = c, .where = w };
	char *dir = NULL;
	int r;

	r = read_settings(&f, path, NULL, why, why_bytes);
	if (r == -ENOENT && optional)
		r = 0;
	if (r < 0)
		return r;
	if (asprintf(&dir, "%s.d", path) < 0) {
		snprintf(why, why_bytes, "%s: out of memory", path);
		return -ENOMEM;
	}
	r = config_each_file(dir, read_settings, &f, why, why_bytes);
	free(dir);
	return r;
}

/* The value as libinih finds it. */
static int take_back(void *userdata, const char *section, const char *name, const char *value)
{
	char *read = userdata;

	snprintf(read, CONFIG_TEXT_MAX, "%s", value);
	return 1;
}

int setting_check_line(const struct setting *s, const char *value, char *why, size_t why_bytes)
{
	char line[CONFIG_TEXT_MAX + 128], read[CONFIG_TEXT_MAX] = "";

	snprintf(line, sizeof line, "[memctld]\n%s = %s\n", s->name, value);
	if (ini_parse_string(line, take_back, read) == 0 && !strcmp(read, value))
		return 0;
	snprintf(why, why_bytes, "%s: this value cannot stand in a file, where a line has at most 199 bytes, \" ;\" begins a comment, and spaces "
		"around a value are no part of it", s->name);
	return -EINVAL;
}

int config_set(struct config *c, struct config_where *w, const char *assignment, char *why, size_t why_bytes)
{
	const char *equals = strchr(assignment, '=');
	const struct setting *s = NULL;
	char name[64];
	int r;

	if (equals && (size_t)(equals - assignment) < sizeof name) {
		memcpy(name, assignment, (size_t)(equals - assignment));
		name[equals - assignment] = 0;
		s = setting_find(name);
	}
	if (!s) {
		snprintf(why, why_bytes,
			"\"%.100s\" is no SETTING=VALUE; `memctl config show` lists the settings",
			assignment);
		return -EINVAL;
	}
	r = setting_set(s, c, equals + 1, why, why_bytes);
	if (r == 0)
		came_from(w, s, "command line");
	return r;
}
