import base64
import importlib.util
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import pytest

from monai_fair.data.predictions import check_predictions
from monai_fair.metrics import audit
from monai_fair.report import view

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
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


def simulate(seed: int = 0, n: int = 900, *, gap: float = 0.0, **columns: Any) -> pd.DataFrame:
    """Text table of predictions: planted gap between sexes, a small site, missing values."""
    cases, noise = np.random.default_rng(0), np.random.default_rng(seed + 1)
    label = (cases.random(n) < 0.4).astype(int)
    sex = cases.choice(["female", "male", ""], n, p=[0.48, 0.48, 0.04])
    table = pd.DataFrame({"subject_id": [f"s{i:04d}" for i in range(n)], "image": [f"{i}.png" for i in range(n)]})
    table["split"] = np.where(np.arange(n) % 3 == 0, "val", "test")
    table["label"] = label
    table["score"] = (1 / (1 + np.exp(-(2 * label - 1 + gap * (sex == "male") + noise.normal(size=n))))).round(6)
    table["sex"], table["site"] = sex, np.where(np.arange(n) < 9, "tiny", cases.choice(["north", "south"], n))
    return table.assign(**columns).astype(str)


@pytest.fixture(scope="session")
def simulated() -> Any:
    return simulate


@pytest.fixture(scope="session")
def results() -> dict[str, Any]:
    runs = {
        "ERM": [check_predictions(simulate(seed, gap=1.2), "p.csv") for seed in range(3)],
        "NIR": [check_predictions(simulate(seed + 10, gap=0.2), "p.csv") for seed in range(3)],
    }
    return audit(runs, ["sex", "site"], permutations=100, resamples=100)


@pytest.fixture
def bare_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages of audits without the figures of gaps, groups and curves: for tests that look elsewhere.

    They are most of the work of a page; test_report_page.py has whole ones.
    """
    monkeypatch.setattr(view, "gap_figure", lambda *_: "")
    monkeypatch.setattr(view, "joint_groups_figure", lambda *_: None)
    monkeypatch.setattr(
        view, "curve_figure", lambda _results, _target, _table, run, _mask: {"run": run, "svg": None, "absent": []}
    )


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
    if CHROMIUM is None:
        pytest.skip("no chromium, chromium-browser or google-chrome on the path")
    if os.name != "posix":
        pytest.skip("talks to the browser through inherited pipes")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile, Browser(Path(profile)) as opened:
        yield opened


@pytest.fixture(scope="session")
def neighbour() -> Callable[[str], Any]:
    """Load a test module of this folder: tests are no package, so they cannot import each other."""

    def load(name: str) -> Any:
        spec = importlib.util.spec_from_file_location(f"{name}_loaded", Path(__file__).with_name(f"{name}.py"))
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="session")
def collapse_experiments(
    neighbour: Callable[[str], Any], tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, Any]]:
    """Two experiments of a study of neural collapse with three seeds; see ``collapse_runs.py``. For reading only."""
    return list(neighbour("collapse_runs").write_experiments(tmp_path_factory.mktemp("collapse")))


@pytest.fixture
def collapse_copy(collapse_experiments: list[dict[str, Any]], tmp_path: Path) -> list[dict[str, Any]]:
    """The same, for a test that changes its files."""
    old = Path(collapse_experiments[0]["manifest"]).parent
    new = shutil.copytree(old, tmp_path / old.name)
    found: list[dict[str, Any]] = json.loads(json.dumps(collapse_experiments).replace(str(old), str(new)))
    return found
