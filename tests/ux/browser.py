"""A headless Chromium, driven by its DevTools protocol through a pipe: no network, no other program.

    with Browser() as b:
        page = b.open("/path/report.html", width=400, scheme="dark", media="print")
        page.evaluate("document.title"); page.screenshot("shot.png")
        page.complaints, page.requests
"""
import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def program():
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    def __init__(self, seconds=60):
        self.seconds = seconds
        self.next = 0
        self.buffer = b""
        self.events = []

    def __enter__(self):
        self.directory = tempfile.mkdtemp(prefix="memctl-browser-")
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()
        # its descriptors 3 and 4
        command = ["sh", "-c", 'exec "$@" 3<&%d 4>&%d' % (theirs_in, theirs_out), "sh", program(), "--headless=new", "--no-sandbox",
                   "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--disable-background-networking", "--disable-sync",
                   "--disable-component-update", "--disable-dev-shm-usage", "--host-resolver-rules=MAP * ~NOTFOUND",
                   "--user-data-dir=" + self.directory, "--remote-debugging-pipe", "about:blank"]
        self.process = subprocess.Popen(command, pass_fds=[theirs_in, theirs_out], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(theirs_in)
        os.close(theirs_out)
        self.input, self.output = ours_in, ours_out
        return self

    def __exit__(self, *_):
        try:
            self.call("Browser.close")
            self.process.wait(10)
        except (OSError, TimeoutError, RuntimeError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()
        os.close(self.input)
        os.close(self.output)
        shutil.rmtree(self.directory, ignore_errors=True)

    def message(self):
        end = time.monotonic() + self.seconds
        while b"\0" not in self.buffer:
            if not select.select([self.input], [], [], max(0, end - time.monotonic()))[0]:
                raise TimeoutError("the browser does not answer")
            data = os.read(self.input, 1 << 20)
            if not data:
                raise RuntimeError("the browser has ended")
            self.buffer += data
        text, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(text)

    def call(self, method, session=None, **parameters):
        self.next += 1
        mine = self.next
        request = {"id": mine, "method": method, "params": parameters}
        if session:
            request["sessionId"] = session
        os.write(self.output, json.dumps(request).encode() + b"\0")
        while True:
            message = self.message()
            if message.get("id") == mine:
                if "error" in message:
                    raise RuntimeError("%s: %s" % (method, message["error"]))
                return message.get("result", {})
            self.events.append(message)

    def open(self, path, width=1100, height=900, scheme="light", media="screen"):
        return Page(self, path, width, height, scheme, media)


class Page:
    def __init__(self, browser, path, width, height, scheme, media):
        self.browser = browser
        self.width = width
        browser.events.clear()
        target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(domain + ".enable")
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setEmulatedMedia", media=media, features=[{"name": "prefers-color-scheme", "value": scheme}])
        browser.events.clear()
        self.call("Page.navigate", url="file://" + path)
        while not any(e.get("method") == "Page.loadEventFired" for e in browser.events):
            browser.events.append(browser.message())
        # what comes late
        self.evaluate("new Promise(done => setTimeout(done, 200))")

    def call(self, method, **parameters):
        return self.browser.call(method, self.session, **parameters)

    @property
    def complaints(self):
        """What it said on its console, whatever the level."""
        said = []
        for e in self.browser.events:
            if e.get("method") == "Log.entryAdded":
                said.append(e["params"]["entry"]["text"])
            elif e.get("method") == "Runtime.exceptionThrown":
                said.append(str(e["params"]["exceptionDetails"].get("text")))
            elif e.get("method") == "Runtime.consoleAPICalled":
                said.append(str(e["params"]["args"]))
        return said

    @property
    def requests(self):
        """Whatever it asked for, beside the page itself."""
        urls = [e["params"]["request"]["url"] for e in self.browser.events if e.get("method") == "Network.requestWillBeSent"]
        return [u for u in urls[1:] if not u.startswith("data:")]

    def evaluate(self, expression):
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(result["exceptionDetails"]["exception"].get("description", result["exceptionDetails"]["text"]))
        return result["result"].get("value")

    def screenshot(self, path, top=0, height=None):
        whole = self.evaluate("Math.ceil(document.documentElement.getBoundingClientRect().height)")
        clip = {"x": 0, "y": top, "width": self.width, "height": min(height or whole, 16000), "scale": 1}
        data = self.call("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)["data"]
        with open(path, "wb") as f:
            f.write(base64.b64decode(data))

    def pdf(self, path):
        data = self.call("Page.printToPDF", printBackground=False, preferCSSPageSize=True)["data"]
        with open(path, "wb") as f:
            f.write(base64.b64decode(data))
