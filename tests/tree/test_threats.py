#!/usr/bin/env python3
"""Each claim of the threat model names tests, and they are there."""
import re

import tree

MODEL = "daemon/THREATMODEL.md"
CLAIMS = 30


def check_claims(root):
    text = tree.text(root, MODEL) or ""
    defended = text.partition("\n## What is defended")[2].partition("\n## What is not")[0]
    claims = [line for line in defended.splitlines() if line.startswith("| ") and not line.startswith("| Threat")]
    wrong = ["%s: a claim without a test: %s" % (MODEL, c[:60]) for c in claims if not re.search(r"`[\w/]+\.\w+:\w+`", c)]
    if len(claims) < CLAIMS:
        wrong.append("%s has %d claims" % (MODEL, len(claims)))
    return wrong


def check_tests(root):
    wrong = []
    named = re.findall(r"`([\w/]+\.(?:py|c)):(\w+)`", tree.text(root, MODEL) or "")
    for path, scenario in named:
        program = tree.text(root, "tests/" + path)
        if program is None:
            wrong.append("%s names tests/%s, which is not there" % (MODEL, path))
        elif not re.search(r"^def test_%s\(|^static void %s\(|^\s*\(\"%s\", check_" % ((scenario,) * 3), program, re.M):
            wrong.append("%s: tests/%s has no scenario %s" % (MODEL, path, scenario))
    return wrong if named else ["%s names no tests" % MODEL]


if __name__ == "__main__":
    tree.run([
        ("each_claim_names_a_test", check_claims, {MODEL: "## What is defended\n| Threat | x |\n|---|---|\n| a | b | c |\n## What is not\n"}),
        ("tests_that_are_named_exist", check_tests, [
            {MODEL: "`hostile/a.py:b`"}, {MODEL: "`hostile/a.py:b`", "tests/hostile/a.py": "def test_c():\n    pass\n"}, {MODEL: ""},
        ]),
    ])
