"""Tiny simulated cohorts, and runs of the bundles on them within the test process."""

import json
import logging
import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import monai
import numpy as np
import pandas as pd
import pytest
import torch
from ignite import distributed as idist
from monai.bundle import ConfigWorkflow
from monai.bundle import run as run_bundle
from monai.bundle.config_item import ConfigComponent, ConfigExpression
from monai.bundle.utils import ID_SEP_KEY

from monai_fair.data import balancing_weights, build_manifest, write_manifest
from monai_fair.simulation import BrainCohort, simulate_brain, simulate_skin

BUNDLES = Path(__file__).parents[2] / "bundles"
# what the runs in other processes import
IMPORTED = ["monai.bundle", "monai.engines", "monai.handlers", "monai.networks.nets", "monai_fair.handlers"]
IMPORTED += ["monai_fair.engines", "monai_fair.losses", "monai_fair.networks", "monai_fair.transforms"]
IMPORTED += ["monai_fair.report", "ignite.distributed", "pytest", "monai_fair.simulation"]
DONE_ELSEWHERE = ("imports", "initialize", "run", "finalize", "_meta_")


def same(one: Any, other: Any) -> bool:
    """Whether two states, of tensors at any depth, are equal to the last bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def read_text_table(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False)


class Bundle:
    """A bundle with options that make a run take about a second."""

    name: str
    tiny: dict[str, Any]
    tiny_network: dict[str, Any]

    def __init__(self, cohort: Path) -> None:
        self.cohort = cohort
        self.root = BUNDLES / self.name
        self.configs = self.root / "configs"

    def files(self, *names: str) -> list[str]:
        return [name if "/" in name else str(self.configs / f"{name}.yaml") for name in names]

    def options(self, output: Path, overrides: dict[str, Any]) -> dict[str, Any]:
        own = {"bundle_root": str(self.root), "dataset_dir": str(self.cohort), "output_dir": str(output)}
        network = self.tiny_network if overrides.pop("tiny_network", True) else {}
        return {**own, "progress": False, **self.tiny, **network, **overrides}

    def workflow(
        self, *names: str, output: Path, kind: str | None = None, initialize: bool = True, **overrides: Any
    ) -> ConfigWorkflow:
        options = self.options(output, overrides)
        workflow = ConfigWorkflow(self.files(*names), workflow_type=kind, **options)
        if initialize:
            workflow.initialize()
        return workflow

    @staticmethod
    def build_all(workflow: ConfigWorkflow, *, but: tuple[str, ...] = ()) -> dict[str, Any]:
        """Instantiate every component and evaluate every expression, whether or not a run would reach it."""
        parser = workflow.parser
        parser.parse()
        built = {}
        for name, item in parser.ref_resolver.items.items():
            ours = name.split(ID_SEP_KEY)[0] not in (*DONE_ELSEWHERE, *but)
            if ours and isinstance(item, ConfigComponent | ConfigExpression):
                built[name.replace(ID_SEP_KEY, "#")] = parser.get_parsed_content(name)
        return built

    def run(self, *names: str, output: Path, **overrides: Any) -> Path:
        """Do what ``python -m monai.bundle run`` does; by default train on small images."""
        run_bundle(config_file=self.files(*names), **self.options(output, overrides))
        return output

    def infer(self, output: Path, model: Path, *overlays: str, **overrides: Any) -> Path:
        return self.run("inference", *overlays, output=output, ckpt_path=str(model), **overrides)


class ClassificationBundle(Bundle):
    name = "fair_image_classification"
    tiny: ClassVar = {"image_size": 28, "max_epochs": 1, "pretrained": False, "num_workers": 0}
    tiny_network: ClassVar = {"network_def#layers": [1, 1, 1, 1], "network_def#block_inplanes": [4, 8, 8, 16]}

    def train(self, output: Path, *overlays: str, **overrides: Any) -> Path:
        return self.run("train", "small", *overlays, output=output, **overrides)

    def evaluate(self, output: Path, *overlays: str, **overrides: Any) -> Path:
        return self.run("train", "small", *overlays, "evaluate", output=output, **overrides)


class FairREADBundle(Bundle):
    name = "fairread_image_classification"
    tiny: ClassVar = {
        "image_size": 28,
        "max_epochs": 1,
        "stage1_epochs": 1,
        "batch_size": 8,
        "stage1_batch_size": 8,
        "pretrained": False,
        "num_workers": 0,
        "attributes": {"sex": None, "age_group": None},
        "missing_attributes": True,
    }
    tiny_network: ClassVar = {
        "latent": 8,
        "backbone_def": {
            "_target_": "monai.networks.nets.DenseNet",
            "spatial_dims": 2,
            "in_channels": 3,
            "out_channels": 1,
            "init_features": 8,
            "growth_rate": 4,
            "block_config": [1, 1],
        },
    }

    def train(self, output: Path, *overlays: str, **overrides: Any) -> Path:
        return self.run("train", *overlays, output=output, **overrides)

    def stages(self, output: Path, **overrides: Any) -> Path:
        """Do all three stages."""
        for overlays in (("stage1_attributes",), ("stage1_encoder",), ()):
            self.train(output, *overlays, **overrides)
        return output


class BrainClassificationBundle(Bundle):
    name = "brain_mri_fair_classification"
    tiny: ClassVar = {
        "image_size": [12, 14, 12],
        "max_epochs": 1,
        "batch_size": 4,
        "num_workers": 0,
        "cache_workers": 1,
    }
    tiny_network: ClassVar = {"network_def#channels": [4, 8], "network_def#strides": [2, 2]}

    def train(self, output: Path, *overlays: str, **overrides: Any) -> Path:
        return self.run("train", *overlays, output=output, **overrides)

    def evaluate(self, output: Path, *overlays: str, **overrides: Any) -> Path:
        return self.run("train", *overlays, "evaluate", output=output, **overrides)


class RegistrationBundle(Bundle):
    name = "brain_mri_inr_registration"
    tiny: ClassVar = {
        "levels": [[1.0, 3, 2], [0.5, 2, 2]],
        "val_levels": [[1.0, 3, 2]],
        "code_levels": [[1.0, 3, 3]],
        "residual_levels": [[0.5, 2, 2]],
        "iterations": 4,
        "batch_size": 4,
        "num_workers": 1,
    }
    tiny_network: ClassVar = {"network_def#width": 24, "network_def#hidden": 8}

    def train(self, output: Path, *overlays: str, **overrides: Any) -> Path:
        return self.run("train", *overlays, output=output, **overrides)

    def infer(self, output: Path, model: Path, *overlays: str, **overrides: Any) -> Path:
        return super().infer(output, model, *overlays, **{"num_workers": 0, **overrides})

    def evaluate(self, output: Path, model: Path, **overrides: Any) -> Path:
        return self.infer(output, model, "evaluate", **{"page#workers": 1, **overrides})


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    simulate_skin(folder, n=60, seed=0, size=32, num_workers=1)
    write_manifest(build_manifest("ham10000", folder, split=folder / "split.csv"), folder / "manifest.csv")
    return folder


@pytest.fixture(scope="session")
def brain_cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six brains to fit, three to validate, three to test; of ellipsoids."""
    shares = BrainCohort(train_share=0.5, val_share=0.25)
    folder = tmp_path_factory.mktemp("brains")
    return simulate_brain(folder, n=12, seed=1, anatomy="phantom", shape=(24, 28, 24), cohort=shares, num_workers=1)


@pytest.fixture(scope="session")
def bundle(cohort: Path) -> ClassificationBundle:
    return ClassificationBundle(cohort)


@pytest.fixture(scope="session")
def fairread(cohort: Path) -> FairREADBundle:
    return FairREADBundle(cohort)


@pytest.fixture(scope="session")
def fused(fairread: FairREADBundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all stages of FairREAD, not to be written to."""
    with _restored():
        return fairread.stages(tmp_path_factory.mktemp("fused"))


@pytest.fixture(scope="session")
def registration(brain_cohort: Path) -> RegistrationBundle:
    return RegistrationBundle(brain_cohort)


@pytest.fixture(scope="session")
def classified_brains(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty brains to train on, eight to validate, twelve to test, their axes in any order; with subgroup and weight.

    The subgroup is the sex under other names, and the weights are those that make it independent of the label.
    """
    shares = BrainCohort(train_share=0.5, val_share=0.2, scramble_axes=True)
    folder = tmp_path_factory.mktemp("classified")
    simulate_brain(folder, n=40, seed=2, anatomy="phantom", shape=(16, 18, 16), cohort=shares, num_workers=1)
    table = pd.read_csv(folder / "manifest.csv", dtype=str)
    train = table["split"] == "train"
    table["subgroup"] = table["sex"].map({"male": "S1", "female": "S2"})
    table["weight"] = 1.0
    table.loc[train, "weight"] = balancing_weights(table.loc[train, "label"], table.loc[train, "subgroup"])
    table.to_csv(folder / "weighted.csv", index=False)
    return folder


@pytest.fixture(scope="session")
def brains(classified_brains: Path) -> BrainClassificationBundle:
    return BrainClassificationBundle(classified_brains)


@pytest.fixture(scope="session")
def trained_on_brains(brains: BrainClassificationBundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished training of two epochs on brains, not to be written to."""
    with _restored():
        return brains.train(tmp_path_factory.mktemp("trained_on_brains"), max_epochs=2)


@pytest.fixture(scope="session")
def trained(bundle: ClassificationBundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished training of two epochs, not to be written to."""
    with _restored():
        return bundle.train(tmp_path_factory.mktemp("trained"), max_epochs=2)


@pytest.fixture(scope="session")
def fitted(registration: RegistrationBundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished fit of a cohort, not to be written to."""
    with _restored():
        return registration.train(tmp_path_factory.mktemp("fitted"))


def expect_success(codes: list[int | None], folder: Path) -> None:
    """Show what processes wrote into their logs where one of them has failed, or has not ended."""
    logs = [(folder / f"{rank}.log").read_text() for rank in range(len(codes))]
    lines = [line for log in logs for line in log.splitlines() if "INFO" not in line]
    assert codes == [0] * len(codes), "\n".join(lines)[-6000:]


def driven(rank: int, folder: Path, variables: dict[str, str]) -> None:
    """Be one of the processes of :meth:`Processes.drive`."""
    os.chdir(folder)
    log = os.open(f"{rank}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update(variables)
    warnings.simplefilter("ignore")
    sys.argv = ["driver.py", f"{rank}.json"]
    runpy.run_path("driver.py", run_name="__main__")


class Processes:
    """Python processes that wait for each other, as torchrun starts them; none outlives its test."""

    @staticmethod
    def free_ports(count: int) -> list[int]:
        probes = [socket.socket() for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        ports = [probe.getsockname()[1] for probe in probes]
        for probe in probes:
            probe.close()
        return ports

    @staticmethod
    def run(commands: list[list[str]], folder: Path, environments: list[dict[str, str]]) -> None:
        """Run commands side by side in a folder, where each leaves a log, and expect that all succeed."""
        shared = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        processes = []
        for rank, (command, own) in enumerate(zip(commands, environments, strict=True)):
            with (folder / f"{rank}.log").open("w") as log:
                call = [sys.executable, *command]
                processes.append(
                    subprocess.Popen(call, cwd=folder, env=shared | own, stdout=log, stderr=subprocess.STDOUT)
                )
        try:
            for process in processes:
                process.wait(timeout=240)
        finally:
            for process in processes:
                process.kill()
        expect_success([process.returncode for process in processes], folder)

    def drive(self, program: str, runs: list[Any], folder: Path) -> None:
        """Run a program in two processes, which finds its runs in ``runs.json``, each with a port to meet at.

        The program is told the name of a file of its own, ``0.json`` or ``1.json``.
        """
        (folder / "driver.py").write_text(program)
        ports = self.free_ports(len(runs))
        (folder / "runs.json").write_text(json.dumps(list(zip(ports, runs, strict=True))))
        group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
        environments = [{**group, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
        # the server imports what takes ten seconds, once for all tests of a worker; processes are forked from it
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(IMPORTED)
        processes = [
            context.Process(target=driven, args=(rank, folder, environments[rank]), daemon=True) for rank in range(2)
        ]
        for process in processes:
            process.start()
        try:
            for process in processes:
                process.join(timeout=240)
        finally:
            for process in processes:
                process.kill()
        expect_success([process.exitcode for process in processes], folder)


@pytest.fixture(scope="session")
def processes() -> Processes:
    return Processes()


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


@pytest.fixture(scope="module")
def two_to_one(bundle: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of two positives for each negative in every split and sex, whatever the images show.

    Some rows tell no sex.
    """
    table = read_text_table(bundle.cohort / "manifest.csv")
    order = table.groupby(["split", "sex"]).cumcount()
    table["label"] = np.where(order % 3 == 0, "0", "1")
    table.loc[order == 3, "sex"] = ""
    path = tmp_path_factory.mktemp("labels") / "manifest.csv"
    table.to_csv(path, index=False)
    return path
