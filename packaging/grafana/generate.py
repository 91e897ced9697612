#!/usr/bin/env python3
"""The dashboard for Grafana (10 or newer): the host, and below it one row of panels for the VM that is chosen.

    generate.py > memctl.json

A panel is a line here; memctl.json is what people import, and tests/ux/test_dashboard.py makes sure that it is this, and that
each metric it names is one of `memctl metrics`."""
import json
import sys

SOURCE = {"type": "prometheus", "uid": "${source}"}
HOST = '{instance="$instance"}'
VMS = '{instance="$instance",vm=~"$vm"}'
STATES = {"high": 0, "clear": 1, "soft": 2, "hard": 3, "low": 4}


def rate(metric, labels):
    return "rate(%s%s[$__rate_interval])" % (metric, labels)


def level(metric, labels=HOST):
    return metric + labels


def quantile(q):
    return "histogram_quantile(%s, sum by (le, cause) (%s))" % (q, rate("memctl_vm_fault_duration_seconds_bucket", VMS))


# title, what it shows, unit, [(legend, expression)], kind; "-" begins a row
HOST_PANELS = [
    ("State", "0 high, 1 clear, 2 soft, 3 hard, 4 low: how short the host is.", "short",
     [("state", " + ".join("%d * max(memctl_host_state{instance=\"$instance\",memctl_host_state=\"%s\"})" % (n, s) for s, n in STATES.items() if n))],
     "state"),
    ("Free", "Arena that is not charged.", "bytes", [("free", level("memctl_host_free_bytes"))], "stat"),
    ("Promised", "Reservations and overhead, of the arena.", "percentunit",
     [("promised", "%s / %s" % (level("memctl_host_reserved_bytes"), level("memctl_host_capacity_bytes")))], "stat"),
    ("VMs", "Registered VMs.", "short", [("VMs", level("memctl_host_vms"))], "stat"),
    ("Saved by sharing", "Guest pages beyond the first of their kind.", "bytes", [("saved", level("memctl_host_saving_bytes"))], "stat"),
    ("Warnings and errors", "Of this memctld since its start; memctl events shows them.", "short",
     [("{{level}}", 'memctl_events_total{instance="$instance",level=~"error|warning"}')], "stat"),
    ("Arena", "What is charged, and where reclaim begins and ends.", "bytes",
     [("charged", level("memctl_host_charged_bytes")), ("size", level("memctl_host_capacity_bytes")),
      ("goal", "%s - %s" % (level("memctl_host_capacity_bytes"), level("memctl_host_goal_free_bytes"))),
      ("minFree", "%s - %s" % (level("memctl_host_capacity_bytes"), level("memctl_host_min_free_bytes")))], "lines"),
    ("Guest memory by where it is", "Of all VMs.", "bytes",
     [("resident", "sum(memctl_vm_resident_bytes%s)" % HOST), ("compressed", "sum(memctl_vm_compressed_bytes%s)" % HOST),
      ("swapped", "sum(memctl_vm_swapped_bytes%s)" % HOST), ("shared", "sum(memctl_vm_shared_bytes%s)" % HOST),
      ("balloon", "sum(memctl_vm_ballooned_bytes%s)" % HOST)], "stack"),
    ("Swap traffic", "Of all VMs, a second.", "Bps",
     [("out", "sum(%s)" % rate("memctl_vm_swap_out_bytes_total", HOST)), ("in", "sum(%s)" % rate("memctl_vm_swap_in_bytes_total", HOST))], "lines"),
    ("Waiting", "The part of the time in which a guest thread waited for a page; the five that wait most.", "percentunit",
     [("{{vm}}", "topk(5, %s)" % rate("memctl_vm_stall_wall_seconds_total", HOST))], "lines"),
]
VM_PANELS = [
    ("Memory", "What it is charged, against what it may and should have.", "bytes",
     [("{{vm}} charged", level("memctl_vm_charged_bytes", VMS)), ("{{vm}} target", level("memctl_vm_target_bytes", VMS)),
      ("{{vm}} reservation", level("memctl_vm_reservation_bytes", VMS)), ("{{vm}} size", level("memctl_vm_size_bytes", VMS))], "lines"),
    ("Where it is", "Guest-physical memory.", "bytes",
     [("%s {{vm}}" % w, level("memctl_vm_%s_bytes" % m, VMS)) for w, m in (
         ("resident", "resident"), ("compressed", "compressed"), ("swapped", "swapped"), ("shared", "shared"), ("zero", "zero"))], "stack"),
    ("In use", "By samples: fast and slow average.", "percentunit",
     [("{{vm}} fast", level("memctl_vm_active_fast_ratio", VMS)), ("{{vm}} slow", level("memctl_vm_active_slow_ratio", VMS))], "lines"),
    ("Balloon", "What it holds, and what it should.", "bytes",
     [("{{vm}} holds", level("memctl_vm_ballooned_bytes", VMS)), ("{{vm}} target", level("memctl_vm_balloon_target_bytes", VMS))], "lines"),
    ("Faults", "Served, by where the page came from; a second.", "ops",
     [(w + " {{vm}}", rate("memctl_vm_faults_%s_total" % w, VMS)) for w in ("zero", "compressed", "swapped", "shared")], "stack"),
    ("How long guests wait for a page", "99 of 100 faults took less, by where the page came from.", "s",
     [("{{cause}}", quantile(0.99))], "lines"),
    ("Waiting", "The part of the time in which a thread of the guest waited for a page.", "percentunit",
     [("{{vm}}", rate("memctl_vm_stall_wall_seconds_total", VMS))], "lines"),
    ("Evicted and needed again", "A second.", "Bps",
     [("{{vm}} evicted", rate("memctl_vm_evicted_bytes_total", VMS)), ("{{vm}} needed again", rate("memctl_vm_refault_bytes_total", VMS))], "lines"),
    ("Sharing", "What it shares, and what that saves it.", "bytes",
     [("{{vm}} shared", level("memctl_vm_shared_bytes", VMS)), ("{{vm}} saved", level("memctl_vm_saved_bytes", VMS))], "lines"),
]


def panel(number, place, row):
    title, text, unit, queries, kind = row
    made = {"id": number, "title": title, "description": text, "gridPos": place, "datasource": SOURCE,
            "type": "stat" if kind in ("stat", "state") else "timeseries",
            "targets": [{"refId": chr(65 + i), "expr": e, "legendFormat": legend, "datasource": SOURCE} for i, (legend, e) in enumerate(queries)],
            "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []}}
    if kind == "state":
        colors = ["green", "green", "yellow", "orange", "red"]
        made["fieldConfig"]["defaults"]["mappings"] = [{"type": "value", "options": {
            str(n): {"text": s, "color": colors[n], "index": n} for s, n in STATES.items()}}]
    if kind == "stack":
        made["fieldConfig"]["defaults"]["custom"] = {"stacking": {"mode": "normal", "group": "A"}, "fillOpacity": 40}
    if made["type"] == "timeseries":
        made["options"] = {"legend": {"displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull", "max"]},
                           "tooltip": {"mode": "multi", "sort": "desc"}}
    return made


def variable(name, label, query, many):
    return {"name": name, "label": label, "type": "query", "datasource": SOURCE, "query": {"query": query, "refId": name}, "refresh": 2,
            "sort": 1, "multi": many, "includeAll": many, "current": {}, "hide": 0}


def dashboard():
    panels, number, y = [], 0, 0

    def put(rows, width, height):
        nonlocal number, y
        x = 0
        for row in rows:
            if x + width > 24:
                x, y = 0, y + height
            number += 1
            panels.append(panel(number, {"x": x, "y": y, "w": width, "h": height}, row))
            x += width
        y += height

    def heading(title):
        nonlocal number, y
        number += 1
        panels.append({"id": number, "type": "row", "title": title, "collapsed": False, "panels": [], "gridPos": {"x": 0, "y": y, "w": 24, "h": 1}})
        y += 1
    heading("Host")
    put([r for r in HOST_PANELS if r[4] in ("stat", "state")], 4, 4)
    put([r for r in HOST_PANELS if r[4] not in ("stat", "state")], 12, 8)
    heading("VM: $vm")
    put(VM_PANELS, 8, 8)
    return {
        "uid": "memctl", "title": "memctl", "description": "Memory of virtual machines, as memctld lends it", "tags": ["memctl", "memory"],
        "schemaVersion": 38, "version": 1, "editable": True, "refresh": "30s", "time": {"from": "now-3h", "to": "now"}, "timezone": "",
        "graphTooltip": 1, "annotations": {"list": []}, "links": [],
        "templating": {"list": [
            {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus", "current": {}, "hide": 0},
            variable("instance", "Host", "label_values(memctl_up, instance)", False),
            variable("vm", "VM", "label_values(memctl_vm_size_bytes%s, vm)" % HOST, True)]},
        "panels": panels,
    }


if __name__ == "__main__":
    json.dump(dashboard(), sys.stdout, indent=1)
    print()
