"""X6 in a real browser: the page loads nothing, runs nothing, fits a phone, and names its figures."""

import base64
import itertools
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from monai_fair.data.predictions import check_predictions
from monai_fair.metrics import audit
from monai_fair.report import build_page

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome on the path"),
    pytest.mark.skipif(os.name != "posix", reason="talks to the browser through inherited pipes"),
]
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
]
HOSTILE = "<script>alert(1)</script>"


class Browser:
    """Chromium, spoken to by the DevTools protocol over two pipes: messages are JSON that ends with a zero byte."""

    def __init__(self, profile: Path) -> None:
        read_theirs, self._write = os.pipe()
        self._read, write_theirs = os.pipe()
        # The browser reads from descriptor 3 and writes to 4. These may be in use here, so a shell moves them.
        moved = f'exec "$0" "$@" 3<&{read_theirs} 4>&{write_theirs}'
        self._process = subprocess.Popen(
            ["/bin/bash", "-c", moved, str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(read_theirs, write_theirs),
            stderr=subprocess.DEVNULL,
        )
        os.close(read_theirs)
        os.close(write_theirs)
        self._buffer, self._sent, self.events = b"", 0, []
        self._session = ""

    def __enter__(self) -> Self:
        page = next(t for t in self.send("Target.getTargets")["targetInfos"] if t["type"] == "page")
        self._session = self.send("Target.attachToTarget", targetId=page["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._read)
        os.close(self._write)

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        self._sent += 1
        message: dict[str, Any] = {"id": self._sent, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while (answer := self._receive()).get("id") != self._sent:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            part = os.read(self._read, 1 << 20)
            assert part, "the browser has gone"
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def open(self, path: Path, width: int) -> None:
        """Open a file and wait until it is loaded."""
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        self.events.clear()
        self.send("Page.navigate", url=path.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._receive())

    def evaluate(self, expression: str) -> Any:
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def screenshot(self, path: Path) -> Path:
        """Write the whole page as PNG."""
        shot = self.send("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))
        return path

    def print_pdf(self) -> bytes:
        return base64.b64decode(self.send("Page.printToPDF", preferCSSPageSize=True)["data"])

    def said(self) -> list[str]:
        """What the page wrote to the console, broke of its policy, or showed as a dialog."""
        kinds = (
            "Runtime.consoleAPICalled",
            "Runtime.exceptionThrown",
            "Log.entryAdded",
            "Page.javascriptDialogOpening",
        )
        return [json.dumps(event["params"])[:300] for event in self.events if event.get("method") in kinds]

    def requests(self) -> list[str]:
        """Addresses that were asked for; data inside the page counts too."""
        sent = [event["params"] for event in self.events if event.get("method") == "Network.requestWillBeSent"]
        return [params["request"]["url"] for params in sent]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile, Browser(Path(profile)) as opened:
        yield opened


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, simulated: Any) -> Path:
    """A report with hostile, long and foreign names, two runs and two seeds."""

    def tables(first: int) -> list[Any]:
        found = []
        for seed in (first, first + 1):
            table = simulated(seed, gap=1.0)
            table["sex"] = table["sex"].replace({"female": HOSTILE, "male": "männlich | `x` " + "very_long_" * 9})
            found.append(check_predictions(table, "p.csv"))
        return found

    runs = {"ERM": tables(0), f"NIR {HOSTILE}": tables(10)}
    results = audit(runs, ["sex", "site"], permutations=20, resamples=100)
    path = tmp_path_factory.mktemp("browser") / "report.html"
    path.write_text(build_page(results), encoding="utf-8")
    return path


def test_the_page_asks_for_nothing_and_says_nothing(browser: Browser, report: Path) -> None:
    browser.open(report, 1200)
    browser.evaluate("document.body.getBoundingClientRect().height")
    assert browser.requests() == [report.as_uri()]
    assert browser.said() == []


def test_hostile_names_are_text(browser: Browser, report: Path) -> None:
    browser.open(report, 1200)
    assert browser.evaluate("document.querySelectorAll('script, img, iframe, object, embed, link, form').length") == 0
    names = browser.evaluate("Array.from(document.querySelectorAll('th[scope=row]'), th => th.firstChild.textContent)")
    assert HOSTILE in names
    assert f"ERM and NIR {HOSTILE}" in browser.evaluate("document.querySelector('h1').textContent")


def test_the_policy_would_stop_a_script(browser: Browser, report: Path, tmp_path: Path) -> None:
    """The tests above could not fail if the browser never told: here a script is planted, and is refused and told."""
    planted = tmp_path / "planted.html"
    script = "<script>document.title = 'ran'</script><img src='http://localhost:9/x.png'>"
    planted.write_text(report.read_text(encoding="utf-8").replace("</main>", script + "</main>"), encoding="utf-8")
    browser.open(planted, 1200)
    assert browser.evaluate("document.title") != "ran"
    assert sum("Content Security Policy" in entry for entry in browser.said()) == 2


@pytest.mark.parametrize("width", [390, 768, 1200])
def test_the_page_fits_the_screen(browser: Browser, report: Path, tmp_path: Path, width: int) -> None:
    folder = Path(os.environ.get("MONAI_FAIR_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    browser.open(report, width)
    # Folded tables must fit as well.
    browser.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate("window.innerWidth") == width
    inside = "Array.from(document.querySelectorAll('table, svg'), part => part.closest('.scroll') !== null)"
    assert all(browser.evaluate(inside))
    assert browser.screenshot(folder / f"report_{width}.png").stat().st_size > 10_000


def test_figures_have_names_and_tables_have_regions(browser: Browser, report: Path) -> None:
    browser.open(report, 1200)
    tree = browser.send("Accessibility.getFullAXTree")["nodes"]
    named = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in tree if not node.get("ignored")]
    images = [name for role, name in named if role in ("image", "img")]
    assert len(images) == 5  # gaps; two runs of two attributes
    assert all(len(name) > 20 for name in images)
    assert all(name for role, name in named if role in ("region", "table", "link"))


def test_headings_go_down_one_step_at_a_time(browser: Browser, report: Path) -> None:
    browser.open(report, 1200)
    levels = browser.evaluate("Array.from(document.querySelectorAll('h1,h2,h3,h4,h5,h6'), h => +h.tagName[1])")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_text_stands_out_from_its_ground(browser: Browser, report: Path) -> None:
    """Contrast as in WCAG 2: at least 4.5 for the colour of every text on the colour behind it."""
    browser.open(report, 1200)
    browser.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    pairs = browser.evaluate(
        """(() => {
          const found = new Set();
          const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
          while (walker.nextNode()) {
            const own = walker.currentNode.parentElement;
            if (!walker.currentNode.textContent.trim() || own.closest('defs')) continue;
            let ground = own;
            const back = () => getComputedStyle(ground).backgroundColor;
            while (ground && back() === 'rgba(0, 0, 0, 0)') ground = ground.parentElement;
            const style = getComputedStyle(own);
            const ink = own.closest('svg') ? style.fill : style.color;
            found.add(ink + ' on ' + (ground ? back() : 'rgb(255, 255, 255)'));
          }
          return Array.from(found);
        })()"""
    )
    assert len(pairs) >= 4
    for pair in pairs:
        ink, ground = (_luminance(colour) for colour in pair.split(" on "))
        contrast = (max(ink, ground) + 0.05) / (min(ink, ground) + 0.05)
        assert contrast >= 4.5, pair


def _luminance(colour: str) -> float:
    parts = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_folded_tables_are_printed(browser: Browser, report: Path) -> None:
    """In print the folded parts take up room although nobody opened them."""
    browser.open(report, 1200)
    tall = "Array.from(document.querySelectorAll('details'), part => part.getBoundingClientRect().height > 150)"
    assert not any(browser.evaluate(tall))
    browser.send("Emulation.setEmulatedMedia", media="print")
    assert all(browser.evaluate(tall))
    browser.send("Emulation.setEmulatedMedia", media="")
    assert browser.print_pdf().startswith(b"%PDF")
