#include "cli/accept.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define OPENMETRICS "application/openmetrics-text"
#define TEXT	    "text/plain"

/* Of one of the ranges between commas. */
struct range {
	const char *type;
	size_t n;
	double q;
	bool version;	/* it names none, or ours */
};

static const char *skip(const char *p)
{
	return p + strspn(p, " \t");
}

/* One `;name=value`; p is behind the semicolon. */
static const char *read_parameter(const char *p, const char *version, struct range *r)
{
	const char *value;
	size_t n;

	p = skip(p);
	n = strcspn(p, "=;,");
	if (p[n] != '=')
		return p + n;
	value = p + n + 1;
	if (n == 1 && (*p == 'q' || *p == 'Q'))
		r->q = strtod(value, NULL);
	else if (n == 7 && !strncasecmp(p, "version", n))
		r->version = strcspn(value, ";, \t") == strlen(version) && !strncmp(value, version, strlen(version));
	return value + strcspn(value, ";,");
}

static const char *read_range(const char *p, const char *version, struct range *ret)
{
	p = skip(p);
	*ret = (struct range){ p, strcspn(p, ";, \t"), 1, true };
	p += strcspn(p, ";,");
	while (*p == ';')
		p = read_parameter(p + 1, version, ret);
	return *p == ',' ? p + 1 : p;
}

static bool matches(const struct range *r, const char *pattern, size_t n)
{
	return r->n == n && !strncasecmp(r->type, pattern, n);
}

/* The weight of a type: that of the range that is closest to it. */
static double weigh(const char *accept, const char *type, const char *version)
{
	size_t group = strcspn(type, "/") + 1;
	double weights[3] = { -1, -1, -1 };	/* by all, by the group, by the type */
	struct range r;

	while (*accept) {
		unsigned close = 3;

		accept = read_range(accept, version, &r);
		if (matches(&r, "*/*", 3))
			close = 0;
		else if (r.n == group + 1 && r.type[group] == '*' && !strncasecmp(r.type, type, group))
			close = 1;
		else if (r.version && matches(&r, type, strlen(type)))
			close = 2;
		if (close < 3 && r.q > weights[close])
			weights[close] = r.q;
	}
	for (unsigned i = 3; i-- > 0;)
		if (weights[i] >= 0)
			return weights[i];
	return 0;
}

bool accept_openmetrics(const char *accept)
{
	/* what asks for nothing in particular gets what everybody reads */
	return accept && weigh(accept, OPENMETRICS, "1.0.0") > weigh(accept, TEXT, "0.0.4");
}
