#include "doctor.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const struct doctor_row doctor_rows[DOCTOR_COUNT] = {
#define DOCTOR_MEMCTLD(id, title, meaning, fix) { #id, title, meaning " " fix },
#define DOCTOR_CALLER(id, title, meaning, fix)
#define DOCTOR(id, side, title, meaning, fix) DOCTOR_##side(id, title, meaning, fix)
#include "proto/doctor.def"
#undef DOCTOR
#undef DOCTOR_MEMCTLD
#undef DOCTOR_CALLER
};

const char *doctor_state_name(enum doctor_state s)
{
	static const char *const names[] = { "information", "ok", "information", "warning", "failure" };

	return names[s];
}

void doctor_view_fini(struct doctor_view *v)
{
	free(v->vms);
	v->vms = NULL;
	v->n_vms = 0;
}

void doctor_init(struct doctor *d, const char *root)
{
	*d = (struct doctor){ .root = root };
	pthread_mutex_init(&d->lock, NULL);
}

void doctor_fini(struct doctor *d)
{
	doctor_view_fini(&d->view);
	pthread_mutex_destroy(&d->lock);
}

void doctor_run(struct doctor *d)
{
	doctor_look_at_self(d);
	doctor_look_at_limits(d);
	doctor_look_at_memory(d);
	/* last: it may never come back */
	doctor_look_at_disks(d);
}

void doctor_say(struct doctor *d, enum doctor_id id, enum doctor_state state, const char *fix, const char *fmt, ...)
{
	struct doctor_finding *f = &d->findings[id];
	va_list ap;

	pthread_mutex_lock(&d->lock);
	if (state > f->state) {
		f->state = state;
		snprintf(f->fix, sizeof f->fix, "%s", fix ? fix : "");
		va_start(ap, fmt);
		vsnprintf(f->text, sizeof f->text, fmt, ap);
		va_end(ap);
	}
	pthread_mutex_unlock(&d->lock);
}

void doctor_fix(struct doctor *d, enum doctor_id id, const char *fmt, ...)
{
	struct doctor_finding *f = &d->findings[id];
	va_list ap;

	pthread_mutex_lock(&d->lock);
	if (f->state > DOCTOR_INFORMATION && !f->fix[0]) {
		va_start(ap, fmt);
		vsnprintf(f->fix, sizeof f->fix, fmt, ap);
		va_end(ap);
	}
	pthread_mutex_unlock(&d->lock);
}

int doctor_read(const struct doctor *d, const char *path, char *ret, size_t bytes)
{
	char full[700];
	size_t length = 0;
	ssize_t n;
	int fd, r = 0;

	ret[0] = 0;
	if ((size_t)snprintf(full, sizeof full, "%s%s", d->root, path) >= sizeof full)
		return -ENAMETOOLONG;
	fd = open(full, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	while (length < bytes - 1 && (n = read(fd, ret + length, bytes - 1 - length)) != 0) {
		if (n < 0) {
			r = -errno;
			break;
		}
		length += (size_t)n;
	}
	close(fd);
	if (length && ret[length - 1] == '\n')
		length--;
	ret[length] = 0;
	return r ? r : (int)length;
}

static bool number_at(const char *text, uint64_t *ret)
{
	char *end;

	while (*text == ' ' || *text == '\t')
		text++;
	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	*ret = strtoull(text, &end, 10);
	return errno == 0;
}

bool doctor_number(const struct doctor *d, const char *path, uint64_t *ret)
{
	char text[64];

	return doctor_read(d, path, text, sizeof text) > 0 && number_at(text, ret);
}

bool doctor_keyed(const struct doctor *d, const char *path, const char *key, uint64_t *ret)
{
	char text[8192];
	size_t n = strlen(key);

	if (doctor_read(d, path, text, sizeof text) <= 0)
		return false;
	for (const char *line = text; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (!strncmp(line, key, n) && number_at(line + n, ret))
			return true;
	}
	return false;
}
