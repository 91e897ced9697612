#!/usr/bin/env python3
"""The report in a real browser: it says nothing on its console, asks for nothing, fits a telephone, can be read in the dark and on
paper.  MEMCTL_SHOTS=DIR keeps pictures of it, to be looked at."""
import os
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
sys.path.insert(0, HERE)
import browser  # noqa: E402
import test_heat as maps  # noqa: E402
import test_report as pages  # noqa: E402
from fake import Fake  # noqa: E402
from lib.check import check, check_eq, main, skip  # noqa: E402
from service.test_history import THEN, iso  # noqa: E402

SHOTS = os.environ.get("MEMCTL_SHOTS")

# of every text that can be seen: its colour on what is behind it, and whether it leaves the page
CONTRASTS = """[...document.querySelectorAll('h1,h2,h3,h4,p,dt,dd,small,li,figcaption b,figcaption span,th,td,caption,summary,.chart text')]
.filter(e => e.getClientRects().length && e.textContent.trim()).map(e => {
	const luminance = c => { const [r, g, b] = c.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
		return .2126 * r + .7152 * g + .0722 * b; };
	const style = getComputedStyle(e), paper = getComputedStyle(document.body).backgroundColor;
	const [a, b] = [luminance(e.closest('.chart') ? style.fill : style.color), luminance(paper)].sort((x, y) => y - x);
	return (a + .05) / (b + .05);
}).reduce((least, c) => Math.min(least, c), 21)"""
OVERLAPS = """[...document.querySelectorAll('svg.chart')].reduce((n, chart) => {
	const boxes = [...chart.querySelectorAll('.keys text, text.tick')].filter(t => getComputedStyle(t).display != 'none').map(t => t.getBoundingClientRect());
	for (let i = 0; i < boxes.length; i++) for (let k = i + 1; k < boxes.length; k++) {
		const a = boxes[i], b = boxes[k];
		if (a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 3 && b.top < a.bottom - 3) n++;
	}
	return n;
}, 0)"""
OUTSIDE = """[...document.querySelectorAll('svg.chart .keys text, svg.chart .tick')].filter(t => getComputedStyle(t).display != 'none')
.filter(t => { const r = t.getBoundingClientRect(); return r.right > innerWidth + 1 || r.left < -1; }).map(t => t.textContent)"""
AXES = """[...new Set([...document.querySelectorAll('svg.chart')].map(s => { const r = s.getBoundingClientRect(); return r.left + ' ' + r.width; }))].length"""


def opened():
    if not browser.program():
        skip("there is no %s" % " or ".join(browser.NAMES[:3]))
    return browser.Browser(seconds=100)


def keep(page, name):
    if SHOTS:
        page.screenshot(os.path.join(SHOTS, name + ".png"))


def is_fine(page, what):
    check_eq(page.complaints, [], "console, " + what)
    check_eq(page.requests, [], "requests, " + what)
    least = page.evaluate(CONTRASTS)
    check(least >= 4.5, "contrast %.2f, %s" % (least, what))
    check_eq(page.evaluate("document.documentElement.scrollWidth"), page.width, "width, " + what)
    check_eq(page.evaluate(OVERLAPS), 0, "texts over one another, " + what)
    check_eq(page.evaluate(OUTSIDE), [], "texts outside, " + what)
    check_eq(page.evaluate(AXES), 1, "axes of time, " + what)


def test_report():
    with opened() as b, pages.host() as (d, directory):
        path = os.path.join(directory, "report.html")
        check_eq(d.run_memctl("report", *pages.SPAN, "-o", path).returncode, 0, "exit")
        for name, width, scheme, media in (("light", 1100, "light", "screen"), ("dark", 1100, "dark", "screen"), ("narrow", 400, "light", "screen"),
                                           ("narrow-dark", 400, "dark", "screen"), ("print", 760, "light", "print")):
            page = b.open(path, width=width, scheme=scheme, media=media)
            is_fine(page, name)
            keep(page, name)
        # paper is white, also for who works in the dark
        page = b.open(path, width=760, scheme="dark", media="print")
        check_eq(page.evaluate("getComputedStyle(document.body).backgroundColor"), "rgb(255, 255, 255)", "paper")
        page.pdf(os.path.join(SHOTS or directory, "report.pdf"))
        check(os.path.getsize(os.path.join(SHOTS or directory, "report.pdf")) > 10000, "a printed report")
        # the twin: a page that fetches something is seen
        with open(path) as f, open(path + ".bad.html", "w") as bad:
            bad.write(f.read().replace("<h2", "<img src='http://127.0.0.1:9/a.png'><h2", 1))
        page = b.open(path + ".bad.html")
        check(page.complaints or page.requests, "a page that fetches an image is like any other")


test_report.seconds = 170


def test_hostile_names():
    rows = [pages.row(THEN + 3600000 * i) for i in range(10)]
    with opened() as b, tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "report.html")
        for text in pages.HOSTILE:
            with Fake(pages.answers([text], rows, text)) as f, open(path, "w") as out:
                out.write(pages.report(f, "--since", iso(0), "--until", iso(36000)))
            page = b.open(path)
            check_eq((page.complaints, page.requests), ([], []), "with %r" % text)
            check_eq(page.evaluate("document.querySelectorAll('script,img,iframe').length"), 0, "elements")


test_hostile_names.seconds = 120


def test_heat_map():
    with opened() as b, tempfile.TemporaryDirectory() as directory, maps.fake(maps.RUNS) as f:
        path = os.path.join(directory, "heat.svg")
        maps.heat(f, "--svg", "-o", path)
        for scheme in ("light", "dark"):
            page = b.open(path, width=1000, scheme=scheme)
            check_eq((page.complaints, page.requests), ([], []), scheme)
            if SHOTS:
                page.screenshot(os.path.join(SHOTS, "heat-%s.png" % scheme))


if __name__ == "__main__":
    main(globals())
