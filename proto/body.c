#include "proto/body.h"

#include "proto/writer.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int refuse(struct body_fault *ret, const char *field, const char *text)
{
	if (ret) {
		snprintf(ret->text, sizeof ret->text, "%s", text);
		snprintf(ret->field, sizeof ret->field, "%s", field);
	}
	return -EBADMSG;
}

/* Before anything is built from the text, one look at it: how deep it nests, because the parser recurses, and a message of brackets
 * alone would cost it a hundred times its length; and what it will weigh.  Strings are skipped; what is no JSON is left to the
 * parser. */
struct survey {
	unsigned depth, deepest;
	size_t weight;
};

/* jansson's allocations with malloc's own part: an object with its first table of buckets, an array with its first eight places, a
 * key with its entry or a value; what a table grows by is in these. */
#define WEIGHT_OBJECT 272
#define WEIGHT_ARRAY  176
#define WEIGHT_VALUE  96

static struct survey look_over(const char *text, size_t length)
{
	struct survey s = { .weight = length };
	bool string = false;

	for (size_t i = 0; i < length; i++) {
		char c = text[i];

		if (string) {
			if (c == '\\')
				i++;
			else if (c == '"')
				string = false;
		} else if (c == '"') {
			string = true;
		} else if (c == '{' || c == '[') {
			s.weight += c == '{' ? WEIGHT_OBJECT : WEIGHT_ARRAY;
			if (++s.depth > s.deepest)
				s.deepest = s.depth;
		} else if (c == ',' || c == ':') {
			s.weight += WEIGHT_VALUE;
		} else if ((c == '}' || c == ']') && s.depth > 0) {
			s.depth--;
		}
	}
	return s;
}

static bool too_deep(const char *text, size_t length)
{
	return look_over(text, length).deepest > BODY_DEPTH_MAX;
}

size_t body_weight(const char *text, size_t length)
{
	return look_over(text, length).weight;
}

static bool get_flag(json_t *root, const char *name, bool *ret)
{
	json_t *j = json_object_get(root, name);

	*ret = json_is_true(j);
	return !j || json_is_boolean(j);
}

int body_parse(struct body *ret, const char *text, size_t length, struct body_fault *ret_fault)
{
	struct body b = { 0 };
	json_error_t e;
	json_t *root, *method, *error, *parameters;
	const char *key;
	json_t *value;
	int r;

	if (too_deep(text, length))
		return refuse(ret_fault, "", "The message nests too deeply.");
	root = json_loadb(text, length, JSON_REJECT_DUPLICATES, &e);
	if (!root) {
		if (json_error_code(&e) == json_error_out_of_memory)
			return -ENOMEM;
		r = refuse(ret_fault, "", "The message is not valid JSON: ");
		if (ret_fault) {
			size_t n = strlen(ret_fault->text);

			snprintf(ret_fault->text + n, sizeof ret_fault->text - n, "%.100s", e.text);
		}
		return r;
	}
	b.root = root;
	if (!json_is_object(root)) {
		r = refuse(ret_fault, "", "The message is not an object.");
		goto fail;
	}
	json_object_foreach(root, key, value) {
		if (strcmp(key, "method") && strcmp(key, "parameters") && strcmp(key, "oneway") &&
			strcmp(key, "more") && strcmp(key, "error") && strcmp(key, "continues")) {
			r = refuse(ret_fault, key, "The message has a member that varlink does not know.");
			goto fail;
		}
	}
	method = json_object_get(root, "method");
	error = json_object_get(root, "error");
	parameters = json_object_get(root, "parameters");
	r = -EBADMSG;
	if (method && !json_is_string(method)) {
		refuse(ret_fault, "method", "\"method\" must be a string.");
		goto fail;
	}
	if (error && (!json_is_string(error) || method)) {
		refuse(ret_fault, "error", "\"error\" must be a string and stand in replies only.");
		goto fail;
	}
	if (parameters && !json_is_object(parameters)) {
		refuse(ret_fault, "parameters", "\"parameters\" must be an object.");
		goto fail;
	}
	if (!get_flag(root, "oneway", &b.oneway) || !get_flag(root, "more", &b.more) ||
		!get_flag(root, "continues", &b.continues) || (b.oneway && b.more)) {
		refuse(ret_fault, "",
			"\"oneway\", \"more\" and \"continues\" are booleans, and at most one of them.");
		goto fail;
	}
	b.method = json_string_value(method);
	b.error = json_string_value(error);
	*ret = b;
	return 0;
fail:
	json_decref(root);
	return r;
}

void body_fini(struct body *b)
{
	if (!b)
		return;
	json_decref(b->root);
	*b = (struct body){ 0 };
}

void body_drop(struct body *b)
{
	json_decref(b->root);
	b->root = NULL;
	b->method = b->error = NULL;
}

static bool decode_u64(const json_t *j, uint64_t *ret)
{
	if (!json_is_integer(j) || json_integer_value(j) < 0)
		return false;
	*ret = (uint64_t)json_integer_value(j);
	return true;
}

static bool decode_hex64(const json_t *j, uint64_t *ret)
{
	const char *s = json_string_value(j);
	size_t n = s ? json_string_length(j) : 0;

	if (n == 0 || n > 16 || strspn(s, "0123456789abcdefABCDEF") != n)
		return false;
	*ret = strtoull(s, NULL, 16);
	return true;
}

static bool decode_runs(const json_t *j, struct op_runs *ret)
{
	size_t n = json_array_size(j);

	if (!json_is_array(j) || n > OP_RUNS_MAX)
		return false;
	for (size_t i = 0; i < n; i++) {
		json_t *run = json_array_get(j, i);
		size_t numbers = json_array_size(run);

		if (!json_is_array(run) || numbers < 2 || numbers > 3 ||
			!decode_u64(json_array_get(run, 0), &ret->run[i].page) ||
			!decode_u64(json_array_get(run, 1), &ret->run[i].count) ||
			(numbers == 3 && !decode_u64(json_array_get(run, 2), &ret->run[i].to)))
			return false;
	}
	ret->n = (unsigned)n;
	return true;
}

/* 0, -EBADMSG, -ENOMEM */
static int decode_field(const json_t *j, enum op_type type, void *to)
{
	const char *s;
	bool ok = false;

	switch (type) {
	case OP_TYPE_str:
		s = json_string_value(j);
		ok = s && json_string_length(j) < OP_STR_MAX && strlen(s) == json_string_length(j);
		if (ok)
			strcpy(to, s);
		break;
	case OP_TYPE_u64:
		ok = decode_u64(j, to);
		break;
	case OP_TYPE_hex64:
		ok = decode_hex64(j, to);
		break;
	case OP_TYPE_flag:
		ok = json_is_boolean(j);
		*(bool *)to = json_is_true(j);
		break;
	case OP_TYPE_runs:
		ok = decode_runs(j, to);
		break;
	case OP_TYPE_json:
		*(char **)to = json_dumps(j, JSON_COMPACT | JSON_ENCODE_ANY);
		if (!*(char **)to)
			return -ENOMEM;
		ok = true;
		break;
	}
	return ok ? 0 : -EBADMSG;
}

static const char *const wanted[] = {
	[OP_TYPE_str] = "Wants a string of at most 255 bytes.",
	[OP_TYPE_u64] = "Wants an integer from 0 to 2^63-1.",
	[OP_TYPE_hex64] = "Wants a string of 1 to 16 hexadecimal digits.",
	[OP_TYPE_flag] = "Wants true or false.",
	[OP_TYPE_json] = "Wants a value.",
	[OP_TYPE_runs] = "Wants an array of at most 512 runs [page, count] or [page, count, to].",
};

int body_decode(const struct body *b, const struct op_field *fields, bool strict, void *values,
	struct body_fault *ret_fault)
{
	json_t *parameters = json_object_get(b->root, "parameters");
	size_t end = 0, known = 0;
	int r;

	memset(values, 0, op_fields_bytes(fields));
	for (const struct op_field *f = fields; f->name; f++) {
		void *to = op_field_at(f, values, &end);
		json_t *j = json_object_get(parameters, f->name);

		known += j != NULL;
		if (!j || (json_is_null(j) && f->optional)) {
			if (f->optional)
				continue;
			r = refuse(ret_fault, f->name, "This parameter is missing.");
			goto fail;
		}
		r = decode_field(j, f->type, to);
		if (r == -EBADMSG)
			refuse(ret_fault, f->name, wanted[f->type]);
		if (r < 0)
			goto fail;
	}
	if (strict && known != json_object_size(parameters)) {
		const char *key = "";
		json_t *value;

		json_object_foreach(parameters, key, value) {
			const struct op_field *f = fields;

			while (f->name && strcmp(f->name, key))
				f++;
			if (!f->name)
				break;
		}
		r = refuse(ret_fault, key, "This method has no such parameter.");
		goto fail;
	}
	return 0;
fail:
	op_fields_fini(fields, values);
	return r;
}

void body_error(const struct body *b, struct wire_error *ret)
{
	json_t *p = json_object_get(b->root, "parameters");
	const char *s;
	static const char *const field_keys[] = { "field", "parameter", "method", "interface" };

	*ret = (struct wire_error){ 0 };
	wire_error_set(ret, wire_error_find(b->error), NULL);
	snprintf(ret->name, sizeof ret->name, "%s", b->error);
	s = json_string_value(json_object_get(p, "message"));
	if (s)
		snprintf(ret->message, sizeof ret->message, "%s", s);
	decode_u64(json_object_get(p, "need"), &ret->need);
	decode_u64(json_object_get(p, "have"), &ret->have);
	decode_u64(json_object_get(p, "lease"), &ret->lease);
	ret->error = (int)json_integer_value(json_object_get(p, "errno"));
	s = json_string_value(json_object_get(p, "vm"));
	if (s)
		snprintf(ret->vm, sizeof ret->vm, "%s", s);
	s = json_string_value(json_object_get(p, "dir"));
	if (s)
		snprintf(ret->dir, sizeof ret->dir, "%s", s);
	for (unsigned i = 0; i < sizeof field_keys / sizeof field_keys[0]; i++) {
		s = json_string_value(json_object_get(p, field_keys[i]));
		if (s)
			snprintf(ret->field, sizeof ret->field, "%s", s);
	}
}

char *body_parameters(const struct body *b)
{
	json_t *p = json_object_get(b->root, "parameters");

	return p ? json_dumps(p, JSON_COMPACT) : strdup("{}");
}

const char *body_string(const struct body *b, const char *field)
{
	return json_string_value(json_object_get(json_object_get(b->root, "parameters"), field));
}

static void write_fields(struct writer *o, const struct op_field *fields, const void *values)
{
	size_t end = 0;

	writer_object(o, "parameters");
	for (const struct op_field *f = fields; f->name; f++) {
		const void *at = op_field_at(f, values, &end);
		const struct op_runs *runs;

		switch (f->type) {
		case OP_TYPE_str:
			if (*(const char *)at || !f->optional)
				writer_str(o, f->name, at);
			break;
		case OP_TYPE_u64:
			if (*(const uint64_t *)at || !f->optional)
				writer_u64(o, f->name, *(const uint64_t *)at);
			break;
		case OP_TYPE_hex64:
			writer_hex64(o, f->name, *(const uint64_t *)at);
			break;
		case OP_TYPE_flag:
			if (*(const bool *)at || !f->optional)
				writer_bool(o, f->name, *(const bool *)at);
			break;
		case OP_TYPE_json:
			if (*(char *const *)at || !f->optional)
				writer_raw(o, f->name, *(char *const *)at ? *(char *const *)at : "null");
			break;
		case OP_TYPE_runs:
			runs = at;
			writer_array(o, f->name);
			for (unsigned i = 0; i < runs->n; i++) {
				writer_array(o, NULL);
				writer_u64(o, NULL, runs->run[i].page);
				writer_u64(o, NULL, runs->run[i].count);
				if (runs->run[i].to)
					writer_u64(o, NULL, runs->run[i].to);
				writer_end(o);
			}
			writer_end(o);
			break;
		}
	}
	writer_end(o);
}

static int finish(struct writer *o, char **ret_text, size_t *ret_length)
{
	char *text;

	writer_end(o);
	text = writer_take(o, ret_length);
	if (!text)
		return -ENOMEM;
	*ret_text = text;
	return 0;
}

static void start_call(struct writer *o, const char *method, unsigned flags)
{
	writer_object(o, NULL);
	writer_str(o, "method", method);
	if (flags & CALL_ONEWAY)
		writer_bool(o, "oneway", true);
	if (flags & CALL_MORE)
		writer_bool(o, "more", true);
}

int body_write_call(char **ret_text, size_t *ret_length, const struct op *op, const void *in, unsigned flags)
{
	struct writer o = WRITER_INIT;

	start_call(&o, op->method, flags);
	write_fields(&o, op->in, in);
	return finish(&o, ret_text, ret_length);
}

int body_write_call_raw(
	char **ret_text, size_t *ret_length, const char *method, const char *parameters, unsigned flags)
{
	struct writer o = WRITER_INIT;
	json_t *p;
	char *text;

	if (!parameters)
		parameters = "{}";
	if (too_deep(parameters, strlen(parameters)))
		return -EBADMSG;
	p = json_loads(parameters, JSON_REJECT_DUPLICATES, NULL);
	if (!p || !json_is_object(p)) {
		json_decref(p);
		return -EBADMSG;
	}
	text = json_dumps(p, JSON_COMPACT);
	json_decref(p);
	if (!text)
		return -ENOMEM;
	start_call(&o, method, flags);
	writer_raw(&o, "parameters", text);
	free(text);
	return finish(&o, ret_text, ret_length);
}

int body_write_reply(
	char **ret_text, size_t *ret_length, const struct op *op, const void *out, bool continues)
{
	struct writer o = WRITER_INIT;

	writer_object(&o, NULL);
	write_fields(&o, op->out, out);
	if (continues)
		writer_bool(&o, "continues", true);
	return finish(&o, ret_text, ret_length);
}

int body_write_reply_raw(char **ret_text, size_t *ret_length, const char *parameters)
{
	struct writer o = WRITER_INIT;

	writer_object(&o, NULL);
	writer_raw(&o, "parameters", parameters);
	return finish(&o, ret_text, ret_length);
}

int body_write_error(char **ret_text, size_t *ret_length, const struct wire_error *e)
{
	struct writer o = WRITER_INIT;
	unsigned has = wire_error_has(e->id);
	const char *field = "field";

	if (e->id == WIRE_ERROR_InvalidParameter)
		field = "parameter";
	else if (e->id == WIRE_ERROR_MethodNotFound || e->id == WIRE_ERROR_MethodNotImplemented)
		field = "method";
	else if (e->id == WIRE_ERROR_InterfaceNotFound)
		field = "interface";
	writer_object(&o, NULL);
	writer_str(&o, "error", e->name);
	writer_object(&o, "parameters");
	writer_str(&o, "message", e->message);
	if (has & ERROR_HAS_NEED) {
		writer_u64(&o, "need", e->need);
		writer_u64(&o, "have", e->have);
	}
	if (has & ERROR_HAS_DIR)
		writer_str(&o, "dir", e->dir);
	if (has & ERROR_HAS_VM)
		writer_str(&o, "vm", e->vm);
	if (has & ERROR_HAS_LEASE)
		writer_u64(&o, "lease", e->lease);
	if (has & ERROR_HAS_FIELD)
		writer_str(&o, field, e->field);
	if (has & ERROR_HAS_ERRNO)
		writer_i64(&o, "errno", e->error);
	writer_end(&o);
	return finish(&o, ret_text, ret_length);
}
