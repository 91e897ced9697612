/* Writing JSON text: a growing buffer and the commas.  Pure text, no library: all that memctl sends is
 * written here, all that it receives is parsed in proto/body.c.
 *
 *	struct writer o = WRITER_INIT;
 *	writer_object(&o, NULL);
 *		writer_u64(&o, "frames", 17);
 *		writer_array(&o, "names");
 *			writer_str(&o, NULL, "a");
 *		writer_end(&o);
 *	writer_end(&o);
 *	char *text = writer_take(&o, &length);	// NULL: out of memory at some point; nothing else to check
 *
 * `key` is NULL inside arrays and at the top.  Strings are escaped; bytes that are not UTF-8 become U+FFFD,
 * so the text is always valid. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WRITER_NEST_MAX 16

struct writer {
	char *text;
	size_t length, capacity;
	unsigned depth;
	char closer[WRITER_NEST_MAX];
	bool comma;		/* a value stands before the next one */
	bool failed;		/* out of memory: everything after is ignored */
};
#define WRITER_INIT { 0 }

void writer_object(struct writer *o, const char *key);
void writer_array(struct writer *o, const char *key);
/* Ends the innermost object or array. */
void writer_end(struct writer *o);
void writer_str(struct writer *o, const char *key, const char *value);
/* Beyond 2^63-1 (more than JSON libraries carry) it writes 2^63-1. */
void writer_u64(struct writer *o, const char *key, uint64_t value);
void writer_i64(struct writer *o, const char *key, int64_t value);
/* "00000000deadbeef": 64 bits that must survive any JSON library. */
void writer_hex64(struct writer *o, const char *key, uint64_t value);
void writer_bool(struct writer *o, const char *key, bool value);
void writer_null(struct writer *o, const char *key);
/* A value that is JSON text already; the caller vouches for it. */
void writer_raw(struct writer *o, const char *key, const char *text);

/* The text, NUL-terminated, malloc'ed, the caller's; the builder is empty again.  NULL if memory ran out.
 * `ret_length` may be NULL.  All objects and arrays must have been ended. */
char *writer_take(struct writer *o, size_t *ret_length);
void writer_fini(struct writer *o);
