/* Writing JSON text: a growing buffer and the commas.  Pure text, no library: all that memctl sends is written here,
 * all that it receives is parsed in proto/body.c.
 *
 *	struct json o = JSON_INIT;
 *	json_object(&o, NULL);
 *		json_u64(&o, "frames", 17);
 *		json_array(&o, "names");
 *			json_str(&o, NULL, "a");
 *		json_end(&o);
 *	json_end(&o);
 *	char *text = json_take(&o, &length);	// NULL: out of memory at some point; nothing else to check
 *
 * `key` is NULL inside arrays and at the top.  Strings are escaped; bytes that are not UTF-8 become U+FFFD, so the
 * text is always valid. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define JSON_NEST_MAX 16

struct json {
	char *text;
	size_t length, capacity;
	unsigned depth;
	char closer[JSON_NEST_MAX];
	bool comma;		/* a value stands before the next one */
	bool failed;		/* out of memory: everything after is ignored */
};
#define JSON_INIT { 0 }

void json_object(struct json *o, const char *key);
void json_array(struct json *o, const char *key);
/* Ends the innermost object or array. */
void json_end(struct json *o);
void json_str(struct json *o, const char *key, const char *value);
/* Beyond 2^63-1 (more than JSON libraries carry) it writes 2^63-1. */
void json_u64(struct json *o, const char *key, uint64_t value);
void json_i64(struct json *o, const char *key, int64_t value);
/* "00000000deadbeef": 64 bits that must survive any JSON library. */
void json_hex64(struct json *o, const char *key, uint64_t value);
void json_bool(struct json *o, const char *key, bool value);
void json_null(struct json *o, const char *key);
/* A value that is JSON text already; the caller vouches for it. */
void json_raw(struct json *o, const char *key, const char *text);

/* The text, NUL-terminated, malloc'ed, the caller's; the builder is empty again.  NULL if memory ran out.
 * `ret_length` may be NULL.  All objects and arrays must have been ended. */
char *json_take(struct json *o, size_t *ret_length);
void json_fini(struct json *o);
