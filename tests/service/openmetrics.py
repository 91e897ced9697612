"""A strict reader of OpenMetrics 1.0 text, as its specification has it: names, types, units, labels, escapes, order, EOF."""
import math
import re

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r"[a-zA-Z_][a-zA-Z0-9_]*"
# what a type's samples may be called after their family
SUFFIXES = {"gauge": {""}, "counter": {"_total", "_created"}, "info": {"_info"}, "stateset": {""},
            "histogram": {"_bucket", "_count", "_sum", "_created"}, "summary": {"", "_count", "_sum", "_created"}, "unknown": {""}}
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?|[+-]?Inf|NaN")


class Wrong(Exception):
    pass


class Family:
    def __init__(self, name):
        self.name, self.type, self.unit, self.help = name, None, None, None
        self.samples = []   # (suffix, {label: value}, number)

    def value(self, suffix="", **labels):
        found = [v for s, l, v in self.samples if s == suffix and l == labels]
        if len(found) != 1:
            raise Wrong("%s%s%s: %d samples" % (self.name, suffix, labels, len(found)))
        return found[0]


def unescape(text):
    out, i = "", 0
    while i < len(text):
        if text[i] == "\\":
            if i + 1 == len(text) or text[i + 1] not in '\\"n':
                raise Wrong("escape in %r" % text)
            out += "\n" if text[i + 1] == "n" else text[i + 1]
            i += 2
        elif text[i] == '"':
            raise Wrong("a quote that is not escaped in %r" % text)
        else:
            out += text[i]
            i += 1
    return out


def parse_labels(text):
    labels, rest = {}, text
    while rest:
        m = re.match(r'(%s)="((?:[^"\\\n]|\\.)*)"(,(?=.)|$)' % LABEL, rest)
        if not m:
            raise Wrong("labels %r" % text)
        if m[1] in labels or m[1].startswith("__"):
            raise Wrong("label %s in %r" % (m[1], text))
        labels[m[1]] = unescape(m[2])
        rest = rest[m.end():]
    return labels


def number(text):
    if not NUMBER.fullmatch(text):
        raise Wrong("number %r" % text)
    return float(text.replace("Inf", "inf"))


def check_family(f):
    if f.type is None or not f.help:
        raise Wrong("%s has no %s" % (f.name, "HELP" if f.type else "TYPE"))
    if f.unit and not f.name.endswith("_" + f.unit):
        raise Wrong("%s does not end with its unit %s" % (f.name, f.unit))
    if f.type in ("info", "stateset") and f.unit:
        raise Wrong("%s: a unit of a %s" % (f.name, f.type))
    seen = set()
    groups = []
    for suffix, labels, value in f.samples:
        key = (suffix, tuple(sorted(labels.items())))
        if key in seen:
            raise Wrong("%s%s%s twice" % (f.name, suffix, labels))
        seen.add(key)
        if f.type in ("counter", "histogram") and (value < 0 or math.isnan(value)):
            raise Wrong("%s is %r" % (f.name, value))
        if f.type == "info" and value != 1:
            raise Wrong("%s is %r" % (f.name, value))
        if f.type == "stateset" and (f.name not in labels or value not in (0, 1)):
            raise Wrong("%s%s %r is no state" % (f.name, labels, value))
        of = tuple(sorted((k, v) for k, v in labels.items() if k not in ("le", f.name)))
        if of not in groups:
            groups.append(of)
        elif groups[-1] != of:
            raise Wrong("%s: samples of %s are not together" % (f.name, of))
    if f.type == "histogram":
        for of in groups:
            check_histogram(f, dict(of))


def check_histogram(f, of):
    buckets = [(number(l["le"]), v) for s, l, v in f.samples
               if s == "_bucket" and {k: x for k, x in l.items() if k != "le"} == of]
    edges, counts = [e for e, _ in buckets], [c for _, c in buckets]
    if edges != sorted(set(edges)) or not edges or edges[-1] != math.inf or counts != sorted(counts):
        raise Wrong("%s%s: buckets %s" % (f.name, of, buckets))
    if f.value("_count", **of) != counts[-1]:
        raise Wrong("%s%s: its count is not that of its last bucket" % (f.name, of))
    f.value("_sum", **of)


def parse(text):
    """{name: Family}; raises Wrong."""
    if not text.endswith("# EOF\n") or "\r" in text:
        raise Wrong("no EOF at the end")
    families, now = {}, None
    for line in text[:-len("# EOF\n")].split("\n")[:-1]:
        m = re.fullmatch(r"# (HELP|TYPE|UNIT) (%s) (.*)" % NAME, line)
        if m:
            if not now or now.name != m[2]:
                if m[2] in families:
                    raise Wrong("%s comes in two parts" % m[2])
                now = families[m[2]] = Family(m[2])
            if now.samples or getattr(now, m[1].lower()) is not None:
                raise Wrong("%s of %s comes late or twice" % (m[1], m[2]))
            if m[1] == "TYPE" and m[3] not in SUFFIXES:
                raise Wrong("type %s" % m[3])
            setattr(now, m[1].lower(), unescape(m[3]) if m[1] == "HELP" else m[3])
            continue
        m = re.fullmatch(r"(%s)(?:\{(.*)\})? (\S+)" % NAME, line)
        if not m or not now or not m[1].startswith(now.name) or m[1][len(now.name):] not in SUFFIXES[now.type]:
            raise Wrong("line %r" % line)
        now.samples.append((m[1][len(now.name):], parse_labels(m[2] or ""), number(m[3])))
    names = [n + s for n, f in families.items() for s in SUFFIXES[f.type]]
    if len(names) != len(set(names)):
        raise Wrong("families clash: %s" % sorted(n for n in set(names) if names.count(n) > 1))
    for f in families.values():
        check_family(f)
    return families


def parse_text(text):
    """The older format, as expfmt of Prometheus reads it: {name: [({label: value}, number)]} and {family: type}."""
    samples, types = {}, {}
    for line in text.split("\n")[:-1]:
        m = re.fullmatch(r"# (HELP|TYPE) (%s) (.*)" % NAME, line)
        if m:
            if m[1] == "TYPE":
                if m[2] in types or m[3] not in ("counter", "gauge", "histogram", "summary", "untyped"):
                    raise Wrong("type %r" % line)
                types[m[2]] = m[3]
            continue
        m = re.fullmatch(r"(%s)(?:\{(.*)\})? (\S+)" % NAME, line)
        if not m:
            raise Wrong("line %r" % line)
        family = m[1] if m[1] in types else re.sub(r"_(bucket|count|sum)$", "", m[1])
        if family not in types:
            raise Wrong("%s has no TYPE before it" % m[1])
        samples.setdefault(m[1], []).append((parse_labels(m[2] or ""), number(m[3])))
    if not text.endswith("\n"):
        raise Wrong("the last line is cut off")
    return samples, types
