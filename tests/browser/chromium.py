"""A headless Chromium over its DevTools protocol through a pair of pipes: nothing to install but the browser."""

import base64
import contextlib
import fcntl
import itertools
import json
import os
import select
import shutil
import subprocess
import tempfile
import time

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--remote-debugging-pipe"),
    *("--disable-dev-shm-usage", "--disable-extensions", "--mute-audio"),
)
TOLD = {"Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded", "Network.requestWillBeSent"}


def find():
    """The path of a Chromium, None where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextlib.contextmanager
def browser(path):
    """A ``Page`` in a browser of its own."""
    (read_here, write_there), (read_there, write_here) = os.pipe(), os.pipe()
    # out of the way of 3 and 4, which the browser reads and writes
    high = [fcntl.fcntl(each, fcntl.F_DUPFD, 50) for each in (read_there, write_there)]
    for each in (read_there, write_there):
        os.close(each)

    def wire():
        os.dup2(high[0], 3)
        os.dup2(high[1], 4)

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [path, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(3, 4),
            preexec_fn=wire,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for each in high:
            os.close(each)
        try:
            yield Page(read_here, write_here)
        finally:
            process.terminate()
            process.wait(timeout=60)
            os.close(read_here)
            os.close(write_here)


class Page:
    """One tab. events: what it told since the last ``open``, as (method, parameters)."""

    def __init__(self, reading, writing):
        self.reading, self.writing, self.buffer = reading, writing, b""
        self.numbers, self.events, self.session, self.width = itertools.count(1), [], None, 0
        targets = self.call("Target.getTargets")["targetInfos"]
        target = next(each["targetId"] for each in targets if each["type"] == "page")
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        """The result of one command; what is told in between is kept."""
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": parameters}
        message |= {"sessionId": self.session} if self.session else {}
        os.write(self.writing, json.dumps(message).encode() + b"\0")
        while True:
            got = self._next()
            if got.get("id") == number:
                assert "error" not in got, f"{method}: {got.get('error')}"
                return got["result"]
            self.events.append((got.get("method"), got.get("params", {})))

    def open(self, path, *, width, scheme):
        """Load a file at a width in pixels, ``light`` or ``dark``."""
        self.width = width
        self.events.clear()
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", media="screen", features=features)
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        self.call("Page.navigate", url=path.resolve().as_uri())
        while not any(method == "Page.loadEventFired" for method, _ in self.events):
            got = self._next()
            self.events.append((got.get("method"), got.get("params", {})))
        time.sleep(0.2)
        self.evaluate("0")  # what was told meanwhile

    def evaluate(self, expression):
        """The value of an expression in the page."""
        got = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in got, got["exceptionDetails"]
        return got["result"].get("value")

    def told(self):
        """Console messages, exceptions, log entries and requests since the page was opened."""
        return [(method, parameters) for method, parameters in self.events if method in TOLD]

    def picture(self, path, *, whole=True):
        """A PNG of the page, or of its first screen."""
        got = self.call("Page.captureScreenshot", captureBeyondViewport=whole, **self._clip(whole))
        path.write_bytes(base64.b64decode(got["data"]))

    def _clip(self, whole):
        if not whole:
            return {}
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        return {"clip": {"x": 0, "y": 0, "width": self.width, "height": min(size["height"], 8000), "scale": 1}}

    def _next(self):
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.reading], [], [], 120)
            assert ready, "Chromium says nothing for two minutes"
            part = os.read(self.reading, 1 << 20)
            assert part, "Chromium has ended"
            self.buffer += part
        message, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(message)
