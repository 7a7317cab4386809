"""A tiny simulated cohort, and runs of the bundle on it within the test process."""

import logging
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import monai
import pytest
import torch
from ignite import distributed as idist
from monai.bundle import ConfigWorkflow
from monai.bundle import run as run_bundle

from monai_fair.data import build_manifest, write_manifest
from monai_fair.simulation import simulate_skin

BUNDLE = Path(__file__).parents[2] / "bundles" / "fair_image_classification"


class Bundle:
    """The bundle with options that make a run take less than a second."""

    root = BUNDLE
    configs = BUNDLE / "configs"

    def __init__(self, cohort: Path) -> None:
        self.cohort = cohort

    def files(self, *names: str) -> list[str]:
        return [name if "/" in name else str(self.configs / f"{name}.yaml") for name in names]

    def options(self, output: Path, overrides: dict[str, Any]) -> dict[str, Any]:
        tiny: dict[str, Any] = {
            "bundle_root": str(self.root),
            "dataset_dir": str(self.cohort),
            "output_dir": str(output),
            "image_size": 28,
            "max_epochs": 1,
            "pretrained": False,
            "num_workers": 0,
            "progress": False,
        }
        if overrides.pop("tiny_network", True):
            tiny |= {"network_def#layers": [1, 1, 1, 1], "network_def#block_inplanes": [4, 8, 8, 16]}
        return tiny | overrides

    def workflow(
        self, *names: str, output: Path, kind: str | None = None, initialize: bool = True, **overrides: Any
    ) -> ConfigWorkflow:
        options = self.options(output, overrides)
        workflow = ConfigWorkflow(self.files(*names), workflow_type=kind, **options)
        if initialize:
            workflow.initialize()
        return workflow

    def run(self, *names: str, output: Path, **overrides: Any) -> Path:
        """Do what ``python -m monai.bundle run`` does; by default train on small images."""
        run_bundle(config_file=self.files(*names), **self.options(output, overrides))
        return output

    def train(self, output: Path, *overlays: str, **overrides: Any) -> Path:
        return self.run("train", "small", *overlays, output=output, **overrides)

    def evaluate(self, output: Path, *overlays: str, **overrides: Any) -> Path:
        return self.run("train", "small", *overlays, "evaluate", output=output, **overrides)

    def infer(self, output: Path, model: Path, *overlays: str, **overrides: Any) -> Path:
        return self.run("inference", *overlays, output=output, ckpt_path=str(model), **overrides)


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    simulate_skin(folder, n=60, seed=0, size=32, num_workers=1)
    write_manifest(build_manifest("ham10000", folder, split=folder / "split.csv"), folder / "manifest.csv")
    return folder


@pytest.fixture(scope="session")
def bundle(cohort: Path) -> Bundle:
    return Bundle(cohort)


@pytest.fixture(scope="session")
def trained(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished training of two epochs, not to be written to."""
    with _restored():
        return bundle.train(tmp_path_factory.mktemp("trained"), max_epochs=2)


@pytest.fixture(scope="session")
def state_of() -> Callable[[Path], dict[str, torch.Tensor]]:
    return lambda folder: torch.load(folder / "model.pt", weights_only=True)


class _restored:  # noqa: N801 - used as a function
    """Undo what a bundle run changes in its process."""

    def __enter__(self) -> None:
        root = logging.getLogger()
        self.logging = root.handlers[:], root.level
        self.path = sys.path[:]
        self.threads = torch.get_num_threads()
        torch.set_num_threads(1)  # the networks are tiny, and tests run side by side

    def __exit__(self, *_: object) -> None:
        root = logging.getLogger()
        # logging.conf writes to the captured stdout of one test, which is closed afterwards
        root.handlers[:], root.level = self.logging
        sys.path[:] = self.path
        torch.set_num_threads(self.threads)
        monai.data.set_track_meta(True)
        monai.utils.set_determinism(seed=None)
        idist.sync()


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Sums in several threads differ in the last bit, so runs to compare have the same number, fixtures included."""
    with _restored():
        yield


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    with _restored():
        yield


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse every connection but those between processes of this machine's own DataLoader."""
    connect = socket.socket.connect

    def refuse(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX:
            raise AssertionError(f"a connection to {address} was asked for")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", refuse)
