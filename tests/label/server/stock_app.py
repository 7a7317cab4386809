"""MONAI Label's own app monaibundle, as its users start it, and a registration bundle to serve."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import torch

from monai_fair.label.packing import pack_bundle
from monai_fair.label.served_bundle import ServedBundle
from monai_fair.networks import LatticeINR
from monai_fair.simulation import BrainCohort, simulate_brain

BUNDLES = Path(__file__).parents[3] / "bundles"
APP = Path(sys.prefix) / "monailabel" / "sample-apps" / "monaibundle"
SHAPE = (24, 28, 24)
WIDTH = 24
OPTIONS = {
    "network_def#width": WIDTH,
    "network_def#hidden": 8,
    "code_levels": [[1.0, 3, 3]],
    "residual_levels": [[0.5, 2, 2]],
    "iterations": 4,
}
START_SECONDS = 120


@dataclass(frozen=True)
class Server:
    """A server that runs.

    Attributes:
        url: where it answers.
        log: file of all that it prints.
        studies: folder of its images and labels.
    """

    url: str
    log: Path
    studies: Path

    def wait_for_log(self, text: str, *, seconds: float = 20.0) -> None:
        """Wait until the server has printed a text."""
        deadline = time.monotonic() + seconds
        while text not in self.log.read_text():
            assert time.monotonic() < deadline, f"expected {text!r} in the log:\n{self.log.read_text()[-6000:]}"
            time.sleep(0.05)


@contextmanager
def stock_server(folder: Path, bundle: Path, studies: Path) -> Iterator[Server]:
    """Serve a bundle's folder with a copy of the stock app; whatever it starts is stopped at the end."""
    app = folder / "app"
    shutil.copytree(APP, app, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(bundle, app / "model" / bundle.name)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "monailabel.main", "start_server", "--app", app, "--studies", studies,
               "--host", "127.0.0.1", "--port", port, "--conf", "models", bundle.name,
               "--conf", "zoo_source", "local", "--conf", "sam2", "false"]  # fmt: skip
    # sums in several threads differ in the last bit from those of a run with one
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HOME": str(folder)}
    log = folder / "server.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            list(map(str, command)), cwd=folder, env=environment, stdout=out, stderr=out, start_new_session=True
        )
    try:
        server = Server(f"http://127.0.0.1:{port}", log, studies)
        _wait_for(server, process)
        yield server
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait_for(server: Server, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{server.url}/info/", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise AssertionError(f"the server did not start:\n{server.log.read_text()[-6000:]}")


@dataclass(frozen=True)
class RegisteredBrains:
    """Brains of ellipsoids, and a bundle that registers them.

    Attributes:
        cohort: the simulated data root, with the template.
        studies: two of its brains under other axes, ``pir`` and ``lsa``, and ``cropped``, on a grid of its own.
        bundle: packed.
        written: what ``bundle run`` with the packed config writes for the studies.
    """

    cohort: Path
    studies: Path
    bundle: ServedBundle
    written: Path


def register_brains(folder: Path) -> RegisteredBrains:
    """Simulate, pack, and run the packed bundle as a user does."""
    cohort = folder / "cohort"
    # more than half a voxel, so that labels move
    brains = BrainCohort(deformation_mm=8.0)
    simulate_brain(cohort, n=4, seed=1, anatomy="phantom", shape=SHAPE, cohort=brains, num_workers=1)
    studies = folder / "studies"
    studies.mkdir()
    for name, number, axes in (("pir", 1, "PIR"), ("lsa", 2, "LSA"), ("cropped", 3, "LSA")):
        subject = f"sub-{number:04d}"
        image = nib.load(cohort / subject / "anat" / f"{subject}_T1w.nii.gz")
        image = image.slicer[2:] if name == "cropped" else image
        nib.save(reoriented(image, axes), studies / f"{name}.nii.gz")
    run = folder / "run"
    run.mkdir()
    torch.manual_seed(0)
    # as a fit begins: cosines, in which any smooth deformation can be said
    torch.save(LatticeINR(SHAPE, width=WIDTH, hidden=8, depth=2).state_dict(), run / "model.pt")
    source = BUNDLES / "brain_mri_inr_registration"
    bundle = pack_bundle(source, run, folder / "brain_registration", overrides=OPTIONS, template=cohort)
    return RegisteredBrains(cohort, studies, bundle, _bundle_run(folder, bundle, studies))


def _bundle_run(folder: Path, bundle: ServedBundle, studies: Path) -> Path:
    written, manifest = folder / "written", folder / "manifest.csv"
    manifest.write_text("subject_id,image\npir,pir.nii.gz\nlsa,lsa.nii.gz\ncropped,cropped.nii.gz\n")
    given = {
        "config_file": bundle.path / "configs" / "inference.yaml",
        "bundle_root": bundle.path,
        "dataset_dir": studies,
        "manifest": manifest,
        "output_dir": written,
        "num_workers": 0,
        "batch_size": 1,  # as a server does it
        "progress": False,
        "report": False,
    }
    command = [sys.executable, "-m", "monai.bundle", "run"]
    command += [str(text) for name, value in given.items() for text in (f"--{name}", value)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-6000:]
    return written


def reoriented(image: Any, axes: str) -> Any:
    """The same voxels in the same places, stored in another order."""
    wanted = nib.orientations.axcodes2ornt(tuple(axes))
    turn = nib.orientations.ornt_transform(nib.orientations.io_orientation(image.affine), wanted)
    return image.as_reoriented(turn)
