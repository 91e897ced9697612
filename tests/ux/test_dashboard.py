#!/usr/bin/env python3
"""The dashboard and the alert rules name only what `memctl metrics` has: metrics, their labels, and the values of the closed ones."""
import json
import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lib.check import check, check_eq, main  # noqa: E402
from lib.daemon import TREE  # noqa: E402
from system.puppet import Puppet, daemon  # noqa: E402

GRAFANA, PROMETHEUS = (os.path.join(TREE, "packaging", name) for name in ("grafana", "prometheus"))
DASHBOARD = os.path.join(GRAFANA, "memctl.json")
RULES = [os.path.join(PROMETHEUS, name) for name in ("memctl.rules.yml", "memctl.rules.test.yml")]
# what Prometheus itself has, and adds
THEIRS = {"up": {"job", "instance"}}
ADDED = {"job", "instance"}
# labels whose values are words of ours
CLOSED = ("level", "memctl_host_state", "memctl_vm_state")
SERIES = re.compile(r"\b(up|memctl_\w+)\b(?!=)\s*(?:\{((?:[^}\"]|\"[^\"]*\")*)\})?")
MATCHER = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"([^\"]*)\"")


def read(path):
    with open(path) as f:
        return f.read()


def expressions():
    """[(where, text)] of all that is a query."""
    found = []
    board = json.loads(read(DASHBOARD))
    for panel in board["panels"]:
        found += [("panel %s" % panel["title"], t["expr"]) for t in panel.get("targets", ())]
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            query = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"])
            found.append(("variable %s" % variable["name"], "count by (%s) (%s)" % (query[2], query[1])))
    for path in RULES:
        # of YAML only this much: values of expr:, folded ones too, and of series:
        text = re.sub(r"^\s*#.*$", "", read(path), flags=re.M)
        for block in re.findall(r"^\s*(?:- )?(?:expr|series): *(>-\n(?:\s{10,}.*\n)+|.*)", text, re.M):
            found.append((os.path.basename(path), block.strip().lstrip(">-").strip().strip("'")))
    return found


def known():
    """{sample: {label: values}} of a memctld that has had faults."""
    with daemon(24) as d, Puppet(d, "web", 16, limit=8) as web:
        web.do("fill", 0, 0, web.pages, 1, "mix")
        web.do("check", 0, 0, web.pages, 1, "mix")
        samples = {}
        for family in d.memctl("metrics")["metrics"]:
            for sample in family["samples"]:
                labels = samples.setdefault(sample["name"], {})
                for name, value in sample["labels"].items():
                    labels.setdefault(name, set()).add(value)
        return samples


def unknown(text, samples):
    """What of a query there is not."""
    wrong = []
    for name, matchers in SERIES.findall(text):
        labels = dict.fromkeys(THEIRS[name]) if name in THEIRS else samples.get(name)
        if labels is None:
            wrong.append(name)
            continue
        for label, value in MATCHER.findall(matchers):
            if label not in labels and label not in ADDED:
                wrong.append("%s{%s}" % (name, label))
            elif label in CLOSED and not set(value.split("|")) <= labels[label]:
                wrong.append("%s{%s=%s}" % (name, label, value))
    return wrong


def test_only_metrics_that_exist():
    samples = known()
    found = expressions()
    check(len(found) > 60, "%d queries found" % len(found))
    check(sum("memctl_" in text for _, text in found) > 55, "queries of ours")
    wrong = ["%s: %s" % (where, what) for where, text in found for what in unknown(text, samples)]
    check(not wrong, "; ".join(wrong[:6]))
    # the twin: each of these would be seen
    for text, what in (("rate(memctl_vm_evicted_bytes[5m])", "memctl_vm_evicted_bytes"), ("memctl_vm_sized_bytes{vm=\"a\"}", "memctl_vm_sized_bytes"),
                       ("memctl_vm_size_bytes{name=\"a\"}", "memctl_vm_size_bytes{name}"), ("sum(memctl_events_total{level=~\"error|warn\"})",
                       "memctl_events_total{level=error|warn}"), ("1 - memctl_upp", "memctl_upp")):
        check_eq(unknown(text, samples), [what], text)


def test_the_dashboard_is_what_its_maker_makes():
    made = subprocess.run([sys.executable, os.path.join(GRAFANA, "generate.py")], capture_output=True, text=True, check=True).stdout
    check_eq(made == read(DASHBOARD), True, "memctl.json is what generate.py makes")
    board = json.loads(made)
    ids = [p["id"] for p in board["panels"]]
    check_eq(len(set(ids)), len(ids), "panels with ids of their own")
    cells = [(x, y) for p in board["panels"] for g in [p["gridPos"]] for x in range(g["x"], g["x"] + g["w"]) for y in range(g["y"], g["y"] + g["h"])]
    check_eq(len(cells), len(set(cells)), "cells of panels that lie on one another")
    check(max(x for x, _ in cells) < 24, "wider than the grid")
    check(all(p["description"] for p in board["panels"] if p["type"] != "row"), "a panel that does not say what it shows")
    # every alert is tried, and says what to do
    rules, tests = (read(p) for p in RULES)
    alerts = re.findall(r"- alert: (\w+)", rules)
    check(len(alerts) >= 8, alerts)
    for alert in alerts:
        check("alertname: %s, exp_alerts: []" % alert in tests and '"%s"' % alert in tests, "%s is not tried both ways" % alert)
    check_eq((rules.count("summary: "), rules.count("description: ")), (len(alerts), len(alerts)), "texts")


if __name__ == "__main__":
    main(globals())
