#include "cli/json.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/* struct value is json_t under another name, so that no other file sees jansson. */
static const json_t *in(const struct value *j)
{
	return (const json_t *)j;
}

static const struct value *out(const json_t *j)
{
	return (const struct value *)j;
}

struct value *value_open(const char *text)
{
	json_t *j = json_loads(text, JSON_REJECT_DUPLICATES, NULL);

	if (j && !json_is_object(j)) {
		json_decref(j);
		return NULL;
	}
	return (struct value *)j;
}

void value_close(struct value *j)
{
	json_decref((json_t *)j);
}

const struct value *value_at(const struct value *j, const char *path)
{
	const json_t *v = in(j);

	while (v && *path) {
		size_t n = strcspn(path, ".");
		char key[64];

		if (n >= sizeof key)
			return NULL;
		memcpy(key, path, n);
		key[n] = 0;
		v = json_object_get(v, key);
		path += n + (path[n] == '.');
	}
	return out(v);
}

bool value_is_object(const struct value *j)
{
	return json_is_object(in(j));
}

size_t value_items(const struct value *j)
{
	return json_array_size(in(j));
}

const struct value *value_item(const struct value *j, size_t i)
{
	return out(json_array_get(in(j), i));
}

uint64_t value_u64(const struct value *j, const char *path, uint64_t def)
{
	const json_t *v = in(value_at(j, path));

	return json_is_integer(v) ? (uint64_t)json_integer_value(v) : def;
}

const char *value_str(const struct value *j, const char *path)
{
	const char *s = json_string_value(in(value_at(j, path)));

	return s ? s : "";
}

bool value_true(const struct value *j, const char *path)
{
	return json_is_true(in(value_at(j, path)));
}

bool value_number(const struct value *j, uint64_t *ret)
{
	if (!json_is_integer(in(j)))
		return false;
	*ret = (uint64_t)json_integer_value(in(j));
	return true;
}

static char *joined(const json_t *array)
{
	char *text = strdup("");

	for (size_t i = 0; text && i < json_array_size(array); i++) {
		char *item = value_words(out(json_array_get(array, i))), *more = NULL;

		if (!item || asprintf(&more, "%s%s%s", text, i ? "," : "", item) < 0)
			more = NULL;
		free(item);
		free(text);
		text = more;
	}
	return text;
}

char *value_words(const struct value *j)
{
	const json_t *v = in(j);

	if (!v || json_is_null(v))
		return strdup("-");
	if (json_is_string(v))
		return strdup(json_string_value(v));
	if (json_is_boolean(v))
		return strdup(json_is_true(v) ? "yes" : "no");
	if (json_is_array(v))
		return joined(v);
	return json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT);
}

void value_each(const struct value *j, void (*fn)(const char *key, const struct value *value, void *userdata),
	void *userdata)
{
	json_t *o = (json_t *)in(j), *v;
	const char *key;

	json_object_foreach(o, key, v)
		fn(key, out(v), userdata);
}

int value_extend(struct value *j, const char *array, const struct value *more)
{
	return json_array_extend(json_object_get(in(j), array), json_object_get(in(more), array));
}

void value_set_u64(struct value *j, const char *key, uint64_t n)
{
	json_object_set_new((json_t *)j, key, json_integer((json_int_t)n));
}

void value_set_str(struct value *j, const char *key, const char *text)
{
	json_object_set_new((json_t *)j, key, json_string(text));
}

void value_drop(struct value *j, const char *key)
{
	json_object_del((json_t *)j, key);
}

int value_choose(struct value *j, const char *path, const char *const members[], size_t n)
{
	json_t *items = (json_t *)value_at(j, path);

	for (size_t i = 0; i < json_array_size(items); i++) {
		json_t *all = json_array_get(items, i), *some = json_object();
		int r = some ? 0 : -1;

		for (size_t k = 0; !r && k < n; k++) {
			json_t *v = json_object_get(all, members[k]);

			r = json_object_set(some, members[k], v ? v : json_null());
		}
		if (!r)
			r = json_array_set(items, i, some);
		json_decref(some);
		if (r)
			return -1;
	}
	return 0;
}

int value_print_reply(FILE *f, const struct value *reply, bool one_line)
{
	json_t *o = json_pack("{s:s}", "schema", "memctl/1");
	int r = -1;

	if (o && !json_object_update(o, (json_t *)in(reply)))
		r = json_dumpf(o, f, one_line ? JSON_COMPACT : JSON_INDENT(2));
	json_decref(o);
	if (!r)
		fputc('\n', f);
	return r;
}

char *value_parameters(const char *const pairs[][2])
{
	json_t *o = json_object();
	char *text;

	for (; o && (*pairs)[0]; pairs++) {
		const char *key = (*pairs)[0], *value = (*pairs)[1];

		if (!value)
			continue;
		if (*key == '?')
			json_object_set_new(o, key + 1, json_true());
		else if (*key == '#')
			json_object_set_new(o, key + 1, json_integer((json_int_t)strtoull(value, NULL, 10)));
		else
			json_object_set_new(o, key, json_string(value));
	}
	text = json_dumps(o, JSON_COMPACT);
	json_decref(o);
	return text;
}

size_t value_keep(struct value *j, const char *array, const char *key, const char *text)
{
	json_t *items = json_object_get((json_t *)j, array);

	for (size_t i = json_array_size(items); i > 0; i--) {
		const char *has = json_string_value(json_object_get(json_array_get(items, i - 1), key));

		if (!has || strcmp(has, text))
			json_array_remove(items, i - 1);
	}
	return json_array_size(items);
}

size_t value_keep_true(struct value *j, const char *array, const char *key)
{
	json_t *items = json_object_get((json_t *)j, array);

	for (size_t i = json_array_size(items); i > 0; i--)
		if (!json_is_true(json_object_get(json_array_get(items, i - 1), key)))
			json_array_remove(items, i - 1);
	return json_array_size(items);
}

void value_print(FILE *f, const struct value *v)
{
	if (!v || json_dumpf(in(v), f, JSON_COMPACT | JSON_ENCODE_ANY) < 0)
		fputs("null", f);
}

void value_print_string(FILE *f, const char *text)
{
	json_t *s = json_string(text);

	/* NULL: it is not UTF-8, which the daemon would have refused before. */
	if (!s || json_dumpf(s, f, JSON_ENCODE_ANY) < 0)
		fputs("\"\"", f);
	json_decref(s);
}
