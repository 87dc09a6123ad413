"""Headless Chromium for tests of pages, driven through its pipe by the DevTools protocol."""

import json
import os
import pathlib
import select
import shutil
import subprocess
import time


def find() -> str | None:
    """The program, where the machine has one that can be driven."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next(filter(None, map(shutil.which, names)), None) if os.name == "posix" else None


class Browser:
    """Headless Chromium, driven through its pipe by the DevTools protocol; needs nothing but the standard library."""

    def __init__(self, program: str, profile: pathlib.Path):
        (child_in, self.out), (self.into, child_out) = os.pipe(), os.pipe()
        flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
        flags += " --disable-component-update --disable-sync --remote-debugging-pipe"
        # The protocol wants descriptors 3 and 4, whatever numbers the pipes have here.
        script = f'exec 5<&{child_in} 6>&{child_out}; exec 3<&5 4>&6; exec "$0" "$@"'
        command = ["bash", "-c", script, program, *flags.split(), f"--user-data-dir={profile}", "about:blank"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, pass_fds=(child_in, child_out), **quiet)
        os.close(child_in)
        os.close(child_out)
        self.buffer, self.number, self.events = b"", 0, []
        targets = self("Target.getTargets")["targetInfos"]
        target = next(info["targetId"] for info in targets if info["type"] == "page")
        self.session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self(f"{domain}.enable")

    session: str | None = None

    def __call__(self, method: str, **parameters) -> dict:
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        message |= {"sessionId": self.session} if self.session else {}
        os.write(self.out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.receive()
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def receive(self, seconds: float = 20.0) -> dict:
        deadline = time.monotonic() + seconds
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.into], [], [], max(0.0, deadline - time.monotonic()))
            chunk = os.read(self.into, 1 << 20) if ready else b""
            assert chunk, "Chromium does not answer"
            self.buffer += chunk
        line, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(line)

    def open(self, path: pathlib.Path, width: int, scheme: str) -> list[dict]:
        """Loads a page and returns the events up to its load."""
        self.events.clear()
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self("Emulation.setDeviceMetricsOverride", **metrics)
        self("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self("Page.navigate", url=path.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self.receive())
        return self.events

    def value(self, expression: str):
        return self("Runtime.evaluate", expression=expression, returnByValue=True)["result"]["value"]

    def close(self) -> None:
        self("Browser.close")
        self.process.wait(20)
        os.close(self.out)
        os.close(self.into)


def check(browser: Browser, path: pathlib.Path, width: int, scheme: str) -> None:
    """Asserts that a page shows without errors, requests, overflow, unreadable or overlapping labels."""
    events = browser.open(path, width, scheme)
    methods = [event.get("method") for event in events]
    assert not {"Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"} & set(methods), events
    requests = [e["params"]["request"]["url"] for e in events if e.get("method") == "Network.requestWillBeSent"]
    assert {url.partition(":")[0] for url in requests} <= {"file", "data"}
    assert browser.value("document.documentElement.scrollWidth") <= width
    assert browser.value("innerWidth") == width
    assert browser.value(_OUTSIDE) == []
    assert browser.value(_OVERLAPPING_LABELS) == []
    dark = browser.value("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"
    assert dark == (scheme == "dark")
    assert browser.value(_BLACK_LABELS) == []


_OUTSIDE = """
[...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1)
  .map(e => e.outerHTML.slice(0, 80))
"""
# Text without a color of the page's: unreadable where the page is dark.
_BLACK_LABELS = """
[...document.querySelectorAll('.plot text')].filter(e => getComputedStyle(e).fill == 'rgb(0, 0, 0)')
  .map(e => e.textContent)
"""
# Pairs of texts of one picture whose boxes share more than a sliver.
_OVERLAPPING_LABELS = """
[...document.querySelectorAll('.plot')].flatMap(plot => {
  const boxes = [...plot.querySelectorAll('text')].map(e => [e.textContent, e.getBoundingClientRect()]);
  const share = (p, q, low, high) => Math.min(p[high], q[high]) - Math.max(p[low], q[low]);
  return boxes.flatMap(([a, p], i) => boxes.slice(i + 1).filter(
    ([b, q]) => share(p, q, 'left', 'right') > 2 && share(p, q, 'top', 'bottom') > 4
  ).map(([b]) => `${plot.getAttribute('aria-label').slice(0, 30)}: ${a} | ${b}`));
})
"""
