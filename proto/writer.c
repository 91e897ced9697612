#include "proto/writer.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void put(struct writer *o, const char *bytes, size_t n)
{
	if (o->failed)
		return;
	if (o->capacity - o->length < n + 1) {
		size_t capacity = (o->length + n + 1) * 2;
		char *text;

		if (capacity < 256)
			capacity = 256;
		text = realloc(o->text, capacity);
		if (!text) {
			o->failed = true;
			return;
		}
		o->text = text;
		o->capacity = capacity;
	}
	memcpy(o->text + o->length, bytes, n);
	o->length += n;
	o->text[o->length] = 0;
}

/* Length of the UTF-8 sequence at s, 0 if it is none (overlong, a surrogate, beyond U+10FFFF, cut off). */
static size_t utf8_length(const unsigned char *s)
{
	if (s[0] < 0x80)
		return 1;
	if (s[0] >= 0xc2 && s[0] <= 0xdf)
		return (s[1] & 0xc0) == 0x80 ? 2 : 0;
	if (s[0] >= 0xe0 && s[0] <= 0xef) {
		if ((s[1] & 0xc0) != 0x80 || (s[2] & 0xc0) != 0x80)
			return 0;
		if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f))
			return 0;
		return 3;
	}
	if (s[0] >= 0xf0 && s[0] <= 0xf4) {
		if ((s[1] & 0xc0) != 0x80 || (s[2] & 0xc0) != 0x80 || (s[3] & 0xc0) != 0x80)
			return 0;
		if ((s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f))
			return 0;
		return 4;
	}
	return 0;
}

static void put_string(struct writer *o, const char *s)
{
	put(o, "\"", 1);
	while (*s) {
		const unsigned char *u = (const unsigned char *)s;
		size_t n = utf8_length(u);

		if (n == 0) {
			put(o, "\xef\xbf\xbd", 3);
			s++;
			continue;
		}
		if (*u == '"' || *u == '\\') {
			char escaped[2] = { '\\', *s };

			put(o, escaped, 2);
		} else if (*u < 0x20 || *u == 0x7f) {
			char escaped[8];

			snprintf(escaped, sizeof escaped, "\\u%04x", *u);
			put(o, escaped, 6);
		} else {
			put(o, s, n);
		}
		s += n;
	}
	put(o, "\"", 1);
}

static void before_value(struct writer *o, const char *key)
{
	if (o->comma)
		put(o, ",", 1);
	o->comma = true;
	if (key) {
		put_string(o, key);
		put(o, ":", 1);
	}
}

static void open_one(struct writer *o, const char *key, const char *opener, char closer)
{
	before_value(o, key);
	put(o, opener, 1);
	assert(o->depth < WRITER_NEST_MAX);
	o->closer[o->depth++] = closer;
	o->comma = false;
}

void writer_object(struct writer *o, const char *key)
{
	open_one(o, key, "{", '}');
}

void writer_array(struct writer *o, const char *key)
{
	open_one(o, key, "[", ']');
}

void writer_end(struct writer *o)
{
	assert(o->depth > 0);
	put(o, &o->closer[--o->depth], 1);
	o->comma = true;
}

void writer_str(struct writer *o, const char *key, const char *value)
{
	before_value(o, key);
	put_string(o, value);
}

void writer_u64(struct writer *o, const char *key, uint64_t value)
{
	writer_i64(o, key, value > INT64_MAX ? INT64_MAX : (int64_t)value);
}

void writer_i64(struct writer *o, const char *key, int64_t value)
{
	char digits[24];

	before_value(o, key);
	snprintf(digits, sizeof digits, "%" PRId64, value);
	put(o, digits, strlen(digits));
}

void writer_hex64(struct writer *o, const char *key, uint64_t value)
{
	char digits[24];

	before_value(o, key);
	snprintf(digits, sizeof digits, "\"%016" PRIx64 "\"", value);
	put(o, digits, strlen(digits));
}

void writer_bool(struct writer *o, const char *key, bool value)
{
	writer_raw(o, key, value ? "true" : "false");
}

void writer_null(struct writer *o, const char *key)
{
	writer_raw(o, key, "null");
}

void writer_raw(struct writer *o, const char *key, const char *text)
{
	before_value(o, key);
	put(o, text, strlen(text));
}

char *writer_take(struct writer *o, size_t *ret_length)
{
	char *text = o->text;

	assert(o->depth == 0);
	if (o->failed) {
		writer_fini(o);
		return NULL;
	}
	if (ret_length)
		*ret_length = o->length;
	*o = (struct writer)WRITER_INIT;
	return text;
}

void writer_fini(struct writer *o)
{
	free(o->text);
	*o = (struct writer)WRITER_INIT;
}
