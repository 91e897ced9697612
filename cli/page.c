/* An object of the daemon's as a page for people: a line a member, sections for objects inside.  What a number is
 * follows from its name (_bytes, _pages, _ns), as everywhere in memctl, so a new number needs no line here. */
#include "cli/page.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct page {
	const struct cli *c;
	unsigned depth;
};

static bool ends_with(const char *name, const char *suffix)
{
	size_t n = strlen(name), s = strlen(suffix);

	return n > s && !strcmp(name + n - s, suffix);
}

/* "free_bytes" -> "free" and BYTES; ret_name has room for any key. */
static enum column_kind kind_of(const char *key, char ret_name[64])
{
	enum column_kind kind = COLUMN_COUNT;
	size_t length = strlen(key);

	if (ends_with(key, "_bytes")) {
		kind = COLUMN_BYTES;
		length -= strlen("_bytes");
	} else if (ends_with(key, "_ns")) {
		kind = COLUMN_NS;
		length -= strlen("_ns");
	}
	snprintf(ret_name, 64, "%.*s", (int)length, key);
	for (char *p = ret_name; *p; p++)
		if (*p == '_')
			*p = ' ';
	return kind;
}

static void print_items(const struct page *p, const char *name, const struct value *v)
{
	for (size_t i = 0; i < value_items(v); i++) {
		char *words = value_words(value_item(v, i));

		printf("%*s%-*s %s\n", (int)p->depth * 2, "", 26 - (int)p->depth * 2, i ? "" : name, words ? words : "-");
		free(words);
	}
}

static void print_member(const char *key, const struct value *v, void *userdata)
{
	const struct page *p = userdata;
	struct page inner = { .c = p->c, .depth = p->depth + 1 };
	char name[64], *cell;
	enum column_kind kind = kind_of(key, name);

	if (value_is_object(v)) {
		printf("%*s%s\n", (int)p->depth * 2, "", name);
		value_each(v, print_member, &inner);
	} else if (value_is_array(v)) {
		print_items(p, name, v);
	} else {
		cell = cli_cell(p->c, v, "", kind);
		printf("%*s%-*s %s\n", (int)p->depth * 2, "", 26 - (int)p->depth * 2, name, cell ? cell : "-");
		free(cell);
	}
}

void page_print(const struct cli *c, const struct value *object)
{
	struct page p = { .c = c };

	value_each(object, print_member, &p);
}
