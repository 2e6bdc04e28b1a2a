"""A headless Chromium that tests talk to over a pipe: keys, sizes, what it loads and complains of."""

import base64
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from made_bench import CHROMIUM

_SECONDS = 60  # only against a hang
_KEYS = {
    "Enter": {"code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"},
    "Space": {"code": "Space", "windowsVirtualKeyCode": 32, "text": " ", "key": " "},
    "Tab": {"code": "Tab", "windowsVirtualKeyCode": 9},
    "ArrowDown": {"code": "ArrowDown", "windowsVirtualKeyCode": 40},
    "ArrowRight": {"code": "ArrowRight", "windowsVirtualKeyCode": 39},
}


class Browser:
    """One page of a running Chromium, by the DevTools protocol; `events` is what it told unasked."""

    def __init__(self, into: int, out: int) -> None:
        self._into, self._out, self._rest, self._count = into, out, b"", 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self._into, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._count:
            self.events.append(answer)
        assert "error" not in answer, (method, answer["error"])
        return answer["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            read = os.read(self._out, 1 << 20)
            assert read, "Chromium is gone"
            self._rest += read
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def open(self, page: Path) -> None:
        """Load a page and forget what was told before."""
        self.events.clear()
        self.send("Page.navigate", url=page.as_uri())
        self.until("document.readyState === 'complete'")

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression; promises are waited for."""
        done = self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def until(self, script: str) -> None:
        """Wait until an expression is true."""
        self.wait(lambda: bool(self.run(script)), script)

    def wait(self, come: Callable[[], bool], what: str = "") -> None:
        """Wait until something has come."""
        end = time.monotonic() + _SECONDS
        while not come():
            assert time.monotonic() < end, f"did not come: {what}"
            time.sleep(0.02)

    def press(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, **({"key": key} | _KEYS[key]))

    def resize(self, width: int, height: int = 900, scale: float = 1) -> None:
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=width < 600,
        )

    def prefer(self, scheme: str) -> None:
        """Light or dark."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.send("Emulation.setEmulatedMedia", features=features)

    def picture(self, **clip: float) -> bytes:
        """A PNG of what is seen, or of a part given by x, y, width, height in the page."""
        asked = {"clip": {**clip, "scale": 1}, "captureBeyondViewport": True} if clip else {}
        return base64.b64decode(self.send("Page.captureScreenshot", format="png", **asked)["data"])

    @property
    def complaints(self) -> list[dict[str, Any]]:
        """Errors and warnings of the console, and what was thrown."""
        kinds = ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")
        return [event for event in self.events if event.get("method") in kinds]

    @property
    def requests(self) -> list[str]:
        """What was asked for, but the page itself and what lies inside of it."""
        urls = [
            event["params"]["request"]["url"]
            for event in self.events
            if event.get("method") == "Network.requestWillBeSent"
        ]
        return [url for url in urls if not url.startswith(("data:", "blob:"))][1:]


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """A Chromium of its own, ended at the end."""
    theirs_in, into = os.pipe()
    out, theirs_out = os.pipe()
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    flags += ["--remote-debugging-pipe", "--no-first-run", f"--user-data-dir={profile}"]
    quiet = [(os.POSIX_SPAWN_OPEN, stream, os.devnull, os.O_WRONLY, 0) for stream in (1, 2)]
    piped = [(os.POSIX_SPAWN_DUP2, end, place) for end, place in ((theirs_in, 3), (theirs_out, 4))]
    assert CHROMIUM is not None
    process = os.posix_spawn(CHROMIUM, [CHROMIUM, *flags], os.environ, file_actions=[*quiet, *piped])
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        yield Browser(into, out)
    finally:
        os.close(into)
        os.close(out)
        os.kill(process, signal.SIGTERM)
        os.waitpid(process, 0)
