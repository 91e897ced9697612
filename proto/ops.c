#include "proto/ops.h"

#include <stdalign.h>
#include <stdlib.h>
#include <string.h>

#define TYPE_str      OP_TYPE_str, false
#define TYPE_opt_str  OP_TYPE_str, true
#define TYPE_u64      OP_TYPE_u64, false
#define TYPE_opt_u64  OP_TYPE_u64, true
#define TYPE_hex64    OP_TYPE_hex64, false
#define TYPE_flag     OP_TYPE_flag, false
#define TYPE_opt_flag OP_TYPE_flag, true
#define TYPE_json     OP_TYPE_json, false
#define TYPE_opt_json OP_TYPE_json, true
#define TYPE_runs     OP_TYPE_runs, false

#define FIELD(type, field) { #field, TYPE_##type },
#define OP(method, name, class) \
	static const struct op_field name##_in[] = { OP_##name##_IN(FIELD) { 0 } }; \
	static const struct op_field name##_out[] = { OP_##name##_OUT(FIELD) { 0 } };
#include "proto/ops.def"
#undef OP

const struct op ops[OP_COUNT] = {
#define OP(method, name, class)                                                                              \
	[OP_##name] = { "org.memctl." #method, #name, OP_CLASS_##class, OP_##name##_FDS_IN,                  \
		OP_##name##_FDS_OUT, name##_in, name##_out, sizeof(struct op_##name##_in),                   \
		sizeof(struct op_##name##_out) },
#include "proto/ops.def"
#undef OP
};

static const struct shape {
	size_t size, align;
} shapes[] = {
	[OP_TYPE_str] = { OP_STR_MAX, 1 },
	[OP_TYPE_u64] = { sizeof(uint64_t), alignof(uint64_t) },
	[OP_TYPE_hex64] = { sizeof(uint64_t), alignof(uint64_t) },
	[OP_TYPE_flag] = { sizeof(bool), alignof(bool) },
	[OP_TYPE_json] = { sizeof(char *), alignof(char *) },
	[OP_TYPE_runs] = { sizeof(struct op_runs), alignof(struct op_runs) },
};

const struct op *op_find(const char *method)
{
	for (unsigned i = 0; i < OP_COUNT; i++)
		if (strcmp(ops[i].method, method) == 0)
			return &ops[i];
	return NULL;
}

static size_t offset_of(const struct op_field *f, size_t *end)
{
	const struct shape *s = &shapes[f->type];
	size_t at = (*end + s->align - 1) / s->align * s->align;

	*end = at + s->size;
	return at;
}

void *op_field_at(const struct op_field *f, const void *values, size_t *end)
{
	return (char *)values + offset_of(f, end);
}

size_t op_fields_bytes(const struct op_field *fields)
{
	size_t end = 0, align = 1;

	for (const struct op_field *f = fields; f->name; f++) {
		offset_of(f, &end);
		if (shapes[f->type].align > align)
			align = shapes[f->type].align;
	}
	return (end + align - 1) / align * align;
}

void op_fields_fini(const struct op_field *fields, void *values)
{
	size_t end = 0;

	for (const struct op_field *f = fields; f->name; f++) {
		char **text = op_field_at(f, values, &end);

		if (f->type == OP_TYPE_json) {
			free(*text);
			*text = NULL;
		}
	}
}
