/* The CLI's door to jansson: replies are read through these few functions. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct value;	/* a value of a reply; borrowed from the one that value_open gave */

/* NULL if the text is no JSON object. */
struct value *value_open(const char *text);
void value_close(struct value *j);

/* A member, by a path of keys ("status.arena.free_bytes"); NULL if there is none. */
const struct value *value_at(const struct value *j, const char *path);
bool value_is_object(const struct value *j);
/* Items of an array, 0 if it is none. */
size_t value_items(const struct value *j);
const struct value *value_item(const struct value *j, size_t i);

/* The member as a number (`def` if it is none), a text ("" if none), a truth. */
uint64_t value_u64(const struct value *j, const char *path, uint64_t def);
const char *value_str(const struct value *j, const char *path);
bool value_true(const struct value *j, const char *path);

/* Whether it is a whole number, and which. */
bool value_number(const struct value *j, uint64_t *ret);

/* The value in words for a human: texts as they are, numbers in decimal, yes or no, the items of an array
 * with commas between them; freed by the caller. */
char *value_words(const struct value *j);
/* Call `fn` for each member of an object, in the order of the reply. */
void value_each(const struct value *j, void (*fn)(const char *key, const struct value *value, void *userdata),
	void *userdata);

/* Append the items of `more`'s array of that name to ours: a reply that came in several parts. */
int value_extend(struct value *j, const char *array, const struct value *more);

/* Leave in our array of that name only items whose member `key` is this text.  How many that are. */
size_t value_keep(struct value *j, const char *array, const char *key, const char *text);

/* The same of items whose member `key` is true. */
size_t value_keep_true(struct value *j, const char *array, const char *key);

void value_set_u64(struct value *j, const char *key, uint64_t n);
void value_set_str(struct value *j, const char *key, const char *text);
void value_drop(struct value *j, const char *key);

/* Leave in the items of the array at this path only the members of these names. */
int value_choose(struct value *j, const char *path, const char *const members[], size_t n);

/* Print a reply as the documented JSON of the CLI: its members, with "schema" first; on one line, or on many. */
int value_print_reply(FILE *f, const struct value *reply, bool one_line);
/* {"key": "value", ...} of pairs up to a NULL key, without those whose value is NULL; freed by the caller.
 * Values of keys that begin with '#' are numbers. */
char *value_parameters(const char *const pairs[][2]);
/* Any value as JSON, on one line; "null" if there is none. */
void value_print(FILE *f, const struct value *v);
/* A text as a JSON string, with its quotes. */
void value_print_string(FILE *f, const char *text);
