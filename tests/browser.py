"""A Chromium without a window, spoken to through two pipes in the DevTools protocol. Nothing but the standard library.

It is looked for in the variable UNSEE_BROWSER, in .browser/ (`make browser`), and on the PATH.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fcntl import F_DUPFD, fcntl
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome", "headless_shell")
OWN = Path(__file__).parents[1] / ".browser" / "chromium"
CHROMIUM = os.environ.get("UNSEE_BROWSER") or next(filter(None, map(shutil.which, (str(OWN), *NAMES))), None)
MISSING = "no Chromium: `make browser` fetches one, UNSEE_BROWSER names one"


def kept(folder: Path) -> Path:
    """Where screenshots go: UNSEE_ARTIFACTS, else a test's own folder."""
    place = Path(os.environ.get("UNSEE_ARTIFACTS", folder))
    place.mkdir(parents=True, exist_ok=True)
    return place


class Page:
    """One open page: `ask` it, `run` JavaScript in it; `said` are the events so far, (name, parameters)."""

    def __init__(self, read: Any, write: Any) -> None:
        self.read, self.write = read, write
        self.number, self.session = 0, ""
        self.said: list[tuple[str, dict[str, Any]]] = []

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        self.write.write(json.dumps(message).encode() + b"\0")
        self.write.flush()
        while True:
            answer = self._next()
            if answer.get("id") == self.number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                result: dict[str, Any] = answer["result"]
                return result

    def until(self, event: str) -> None:
        while all(name != event for name, _ in self.said):
            self._next()

    def run(self, script: str) -> Any:
        done = self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def wait(self, script: str, seconds: float = 30) -> None:
        """Wait until JavaScript says something true, without an error."""
        end = time.monotonic() + seconds
        while not self.run(f"(() => {{ try {{ return !!({script}) }} catch {{ return false }} }})()"):
            assert time.monotonic() < end, (
                f"{script}: not within {seconds} s; {self.run('document.body.innerText')[:500]}"
            )
            time.sleep(0.1)

    def press(self, key: str) -> None:
        codes = {"Tab": 9, "Enter": 13, " ": 32, "ArrowLeft": 37, "ArrowRight": 39}
        named = {"key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": codes[key]}
        text = {"text": {"Enter": "\r"}.get(key, key)} if key in (" ", "Enter") else {}
        self.ask("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", **named, **text)
        self.ask("Input.dispatchKeyEvent", type="keyUp", **named)

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        for kind, (x, y) in (
            ("mouseMoved", start),
            ("mousePressed", start),
            ("mouseMoved", end),
            ("mouseReleased", end),
        ):
            self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)

    def picture(self, path: Path) -> None:
        """The whole page, however long, as PNG."""
        height = self.run("document.documentElement.scrollHeight")
        width = self.run("innerWidth")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        shot = self.ask("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def _next(self) -> dict[str, Any]:
        raw = bytearray()
        while (byte := self.read.read(1)) != b"\0":
            assert byte, "the browser is gone"
            raw += byte
        message: dict[str, Any] = json.loads(raw)
        if "method" in message:
            self.said.append((message["method"], message.get("params", {})))
        return message


@contextmanager
def opened(place: Path | str, *, width: int, height: int = 900, dark: bool = False) -> Iterator[Page]:
    """A page from disk or at an address, loaded, in a window of `width` x `height` CSS pixels. What it says is kept."""
    assert CHROMIUM
    ours, theirs = [_high(end) for end in os.pipe()], [_high(end) for end in os.pipe()]

    def wired() -> None:  # the browser reads from 3 and writes to 4
        os.dup2(ours[0], 3)
        os.dup2(theirs[1], 4)

    flags = ["--headless", "--no-sandbox", "--no-zygote", "--disable-gpu", "--no-first-run", "--remote-debugging-pipe"]
    process = subprocess.Popen(
        [CHROMIUM, *flags], preexec_fn=wired, pass_fds=(3, 4), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.close(ours[0])
    os.close(theirs[1])
    try:
        with os.fdopen(theirs[0], "rb") as read, os.fdopen(ours[1], "wb") as write:
            page = Page(read, write)
            target = page.ask("Target.createTarget", url="about:blank")["targetId"]
            page.session = page.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for part in ("Page", "Runtime", "Log", "Network"):
                page.ask(f"{part}.enable")
            size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
            page.ask("Emulation.setDeviceMetricsOverride", **size)
            scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
            page.ask("Emulation.setEmulatedMedia", features=[scheme])
            page.ask("Page.navigate", url=place if isinstance(place, str) else place.as_uri())
            page.until("Page.loadEventFired")
            yield page
    finally:
        process.kill()
        process.wait()


def _high(descriptor: int) -> int:
    """The same open file under a number of 10 or more, out of the way of 3 and 4."""
    moved = fcntl(descriptor, F_DUPFD, 10)
    os.close(descriptor)
    return moved


CONTRAST = """(() => {
  const pen = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const paper = document.body.appendChild(document.createElement("i"));
  paper.style.background = "Canvas";
  const canvas = getComputedStyle(paper).backgroundColor;
  paper.remove();
  const behind = e => e ? [...behind(e.parentElement), getComputedStyle(e).backgroundColor] : [canvas];
  const light = colours => {
    for (const colour of colours) { pen.fillStyle = colour; pen.fillRect(0, 0, 1, 1); }
    return [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3).map(v => v / 255)
      .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
      .reduce((sum, v, k) => sum + v * [.2126, .7152, .0722][k], 0);
  };
  return Math.min(...[...document.querySelectorAll("body *")]
    .filter(e => [...e.childNodes].some(n => n.nodeType == 3 && n.data.trim()))
    .map(e => { const b = light(behind(e));
                const a = light([...behind(e), getComputedStyle(e)[e.closest("svg") ? "fill" : "color"]]);
                return (Math.max(a, b) + .05) / (Math.min(a, b) + .05); }));
})()"""
"""The least contrast of any text with what is behind it, by WCAG 2's relative luminance: 1 to 21."""

FOCUS = """(() => {
  const e = document.activeElement, box = e.getBoundingClientRect();
  return {name: e.tagName + e.className, ring: getComputedStyle(e).outlineStyle != "none",
          seen: box.bottom > 0 && box.top < innerHeight};
})()"""

CUT = """[...document.querySelectorAll("td.text")].map(cell => {
  const text = document.createRange(); text.selectNodeContents(cell);
  return text.getBoundingClientRect().right - innerWidth;
}).filter(over => over > 0).length"""
"""How many cells of prose reach out of the window."""

HAS_LINE = '!!document.querySelector(".compare")'
STOPS = '[...document.querySelectorAll("a[href], [tabindex], summary")].filter(e => e.checkVisibility()).length'
"""How often the Tab key stops."""

LINE = "(e => e.clientWidth - e.scrollLeft)(document.querySelector('.compare'))"
"""Where the line between two pictures is: so much of the base model's picture is seen, in pixels."""


def check(file: Path, pictures: Path) -> None:
    """Open a page of ours on a phone and on a desk, in light and dark; look at what can be measured, keep pictures."""
    for width in (390, 1280):
        for dark in (False, True):
            with opened(file, width=width, dark=dark) as page:
                page.picture(pictures / f"{file.parent.name}-{width}-{'dark' if dark else 'light'}.png")
                spoken = {"Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown"}
                assert not [said for said in page.said if said[0] in spoken]
                asked = {said["request"]["url"] for name, said in page.said if name == "Network.requestWillBeSent"}
                assert {url for url in asked if not url.startswith("data:")} == {file.as_uri()}
                assert page.run("document.documentElement.scrollWidth <= innerWidth"), "wider than the window"
                assert page.run(CUT) == 0
                assert page.run(CONTRAST) >= 4.5  # WCAG 2, AA
                keys(page)
                if width < 600 and page.run(HAS_LINE):
                    touch(page)


def keys(page: Page) -> None:
    """Every stop of the Tab key is seen and marked, and arrows move the line between two pictures, if there is one."""
    stops = page.run(STOPS)
    names = []
    for _ in range(stops):
        page.press("Tab")
        focus = page.run(FOCUS)
        assert focus["ring"], focus
        assert focus["seen"], focus
        names.append(focus["name"])
        if focus["name"] == "DIVcompare" and names.count("DIVcompare") == 1:
            middle = page.run(LINE)
            page.press("ArrowRight")
            page.wait(f"{LINE} < {middle} - 20")
            page.press("ArrowLeft")
            page.wait(f"{LINE} == {middle}")
    assert ("DIVcompare" in names) == page.run(HAS_LINE)
    assert "BODY" not in names


def touch(page: Page) -> None:
    """The line follows a finger."""
    page.ask("Emulation.setTouchEmulationEnabled", enabled=True)
    page.run('document.querySelector(".compare").scrollIntoView({block: "center"})')
    x, y = page.run('(b => [b.right - 60, b.top + 40])(document.querySelector(".compare").getBoundingClientRect())')
    middle = page.run(LINE)
    for k in range(8):
        points = [{"x": x - 20 * k, "y": y}]
        page.ask("Input.dispatchTouchEvent", type="touchMove" if k else "touchStart", touchPoints=points)
    page.ask("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    page.wait(f"{LINE} < {middle} - 60")
