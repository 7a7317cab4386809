"""Servers of MONAI Label as processes, and small bundles with random weights for them; loaded by conftest."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import requests
import torch
from monai.bundle import ConfigParser
from monai.bundle import run as run_bundle
from monailabel.client import MONAILabelClient

from monai_fair.data import attribute_codes, build_manifest, load_datalist, read_predictions, write_manifest
from monai_fair.data.artifacts import write_json
from monai_fair.label.app_folder import write_label_app
from monai_fair.label.packing import pack_bundle
from monai_fair.metrics import ThresholdFitter, write_thresholds
from monai_fair.simulation import simulate_brain, simulate_skin

BUNDLES = Path(__file__).parents[3] / "bundles"
STOCK_APP = Path(sys.prefix) / "monailabel" / "sample-apps" / "monaibundle"
TINY = {
    "fair_image_classification": {
        "image_size": 28,
        "network_def#layers": [1, 1, 1, 1],
        "network_def#block_inplanes": [4, 8, 8, 16],
    },
    "fairread_image_classification": {
        "image_size": 28,
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
    },
    "brain_mri_fair_classification": {
        "image_size": [12, 14, 12],
        "network_def#channels": [4, 8],
        "network_def#strides": [2, 2],
    },
}
# a site that Python runs before anything else: every connection but to this machine fails
OFFLINE = """
import socket
connect = socket.socket.connect
def refuse(self, address):
    if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
        print(f"OFFLINE: a connection to {address} was asked for", flush=True)
        raise OSError("offline")
    return connect(self, address)
socket.socket.connect = refuse
resolve = socket.getaddrinfo
def local(host, *args, **kwargs):
    if host not in (None, "127.0.0.1", "::1", "localhost", "0.0.0.0"):
        print(f"OFFLINE: the address of {host} was asked for", flush=True)
        raise OSError("offline")
    return resolve(host, *args, **kwargs)
socket.getaddrinfo = local
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """``monailabel start_server`` in a process group of its own, on a free port of this machine."""

    def __init__(self, folder: Path, app: Path, studies: Path, conf: Mapping[str, str], *, host: str) -> None:
        self.folder, self.app, self.studies, self.conf, self.host = folder, app, studies, dict(conf), host
        folder.mkdir(parents=True, exist_ok=True)
        site = folder / "site"
        site.mkdir(exist_ok=True)
        (site / "sitecustomize.py").write_text(OFFLINE)
        self.log = folder / "server.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.port = 0

    def command(self) -> list[str]:
        options = [part for name, value in self.conf.items() for part in ("--conf", name, value)]
        host = ["--host", self.host] if self.host else []
        start = [sys.executable, "-m", "monailabel.main", "start_server", "--app", str(self.app)]
        return [*start, "--studies", str(self.studies), "--port", str(self.port), *host, *options]

    def launch(self) -> "subprocess.Popen[bytes]":
        self.port = free_port()
        environment = {
            **os.environ,
            "PYTHONPATH": str(self.folder / "site"),
            "OMP_NUM_THREADS": "1",
            "HOME": str(self.folder),
            "MONAI_LABEL_SESSION_PATH": str(self.folder / "sessions"),
        }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env=environment,
                start_new_session=True,
            )
        return self.process

    def start(self) -> "Server":
        process, end = self.launch(), time.monotonic() + 120
        while time.monotonic() < end:
            if process.poll() is not None:
                raise AssertionError(f"the server ended with {process.returncode}\n{self.said()}")
            try:
                if requests.get(f"{self.url}/info/", timeout=30).ok:
                    return self
            except requests.ConnectionError:
                time.sleep(0.1)
        self.stop()
        raise AssertionError(f"the server does not answer\n{self.said()}")

    def fail(self) -> str:
        """Start a server that should refuse; return what it said."""
        process = self.launch()
        try:
            assert process.wait(120) != 0
        finally:
            self.stop()
        return self.said()

    def stop(self, how: int = signal.SIGTERM) -> None:
        if self.process is None:
            return
        for each in (how, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, each)
                self.process.wait(20)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue
        self.process = None

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self) -> MONAILabelClient:
        return MONAILabelClient(self.url, tmpdir=str(self.folder), client_id="test")

    def ask(self, method: str, path: str, **options: Any) -> requests.Response:
        return requests.request(method, f"{self.url}{path}", timeout=120, **options)

    def infer(self, model: str, image: str, **params: Any) -> dict[str, Any]:
        answer = self.ask("POST", f"/infer/{model}", params={"image": image}, data={"params": json.dumps(params)})
        assert answer.status_code == 200, answer.text + self.said()[-3000:]
        return dict(answer.json())

    def wait(self, task: str) -> dict[str, Any]:
        """Wait until a task that runs beside the server is done."""
        end = time.monotonic() + 120
        while time.monotonic() < end:
            found = self.ask("GET", task).json()
            if found["status"] not in ("SUBMITTED", "RUNNING"):
                return dict(found)
            time.sleep(0.2)
        raise AssertionError(f"{task} does not end\n{self.said()[-3000:]}")


def label_app(folder: Path) -> Path:
    return write_label_app(folder / "app")


def stock_app(folder: Path, bundles: Mapping[str, Path]) -> Path:
    """A copy of MONAI Label's own app with the bundles where it looks for them."""
    app = folder / "stock"
    (app / "model").mkdir(parents=True)
    shutil.copy(STOCK_APP / "main.py", app / "main.py")
    for bundle in bundles.values():
        shutil.copytree(bundle, app / "model" / bundle.name)
    return app


def write_cohorts(folder: Path) -> None:
    """Pictures of skin and brains, and studies of both in one folder with what is known of the patients."""
    skin, brain, studies = folder / "skin", folder / "brain", folder / "studies"
    simulate_skin(skin, n=60, seed=0, size=32, num_workers=1)
    write_manifest(build_manifest("ham10000", skin, split=skin / "split.csv"), skin / "manifest.csv")
    simulate_brain(brain, n=6, seed=1, anatomy="phantom", shape=(24, 28, 24), num_workers=1)
    studies.mkdir()
    for picture in skin.rglob("*.jpg"):
        shutil.copy(picture, studies)
    for place, path in enumerate(sorted(brain.glob("sub-*/anat/*.nii.gz"))):
        image = nibabel.load(path)
        if place % 2:  # stored from right to left and from front to back
            affine = image.affine @ np.diag([-1.0, -1.0, 1.0, 1.0])
            image = nibabel.Nifti1Image(np.asarray(image.dataobj)[::-1, ::-1], affine)
            nibabel.save(image, path)
        shutil.copy(path, studies)
    tables = [pd.read_csv(each / "manifest.csv", dtype=str, keep_default_na=False) for each in (skin, brain)]
    columns = ["subject_id", "image", "sex", "age_group"]
    table = pd.concat(tables).reindex(columns=columns).fillna("")
    table.iloc[3, 2:] = ""  # of this one nothing is known
    table.to_csv(studies / "manifest.csv", index=False)


def write_bundle(name: str, cohort: Path, folder: Path) -> Path:
    """Pack a bundle with random weights, and thresholds for groups of sex that a cohort's scores lie around."""
    run, options = folder / "runs" / name, TINY[name]
    run.mkdir(parents=True)
    record = {"settings": {}, "epoch": 1}
    if name.startswith("fairread"):
        rows = load_datalist(cohort / "manifest.csv", cohort)
        codes = attribute_codes(rows, {"sex": None, "age_group": None})
        record["settings"] = {"attributes": codes.record()}
    write_json(run / "model.json", "model", record)
    parser = ConfigParser()
    parser.read_config(str(BUNDLES / name / "configs" / "inference.yaml"))
    for key, value in {**options, "ckpt_path": str(run / "model.pt")}.items():
        parser[key] = value
    torch.manual_seed(0)
    network = parser.get_parsed_content("network_def")
    with torch.no_grad():
        for tensor in network.parameters():  # so that images differ, and attributes that a training begins without
            tensor.add_(0.1 * torch.randn(tensor.shape))
    torch.save(network.state_dict(), run / "model.pt")
    record["settings"] |= parser.get_parsed_content("input_settings")
    write_json(run / "model.json", "model", record)
    out = folder / "served" / name
    pack_bundle(BUNDLES / name, run, out, overrides=options, labels=["disease"])
    predictions = read_predictions(infer(out, cohort / "manifest.csv", cohort, folder / "first" / name)).table
    fitter = ThresholdFitter("youden", attributes=("sex",), min_count=1, shrinkage=0.0)
    fitted = fitter.fit(np.arange(len(predictions)) % 2, predictions["score"], predictions, split="val")
    write_thresholds(out / "models" / "thresholds.json", fitted, source="predictions.csv")
    return out


def infer(bundle: Path, manifest: Path, root: Path, out: Path) -> Path:
    """Do what ``python -m monai.bundle run`` does with the bundle's inference, one image at a time."""
    options = {"bundle_root": str(bundle), "dataset_dir": str(root), "manifest": str(manifest), "output_dir": str(out)}
    # a request is one image, and a sum over a batch may differ in its last bit
    run_bundle(
        config_file=str(bundle / "configs" / "inference.yaml"), batch_size=1, num_workers=0, progress=False, **options
    )
    return out / "predictions.csv"


def scores(path: Path) -> dict[str, float]:
    """Image id to score, as float32 has it."""
    table = pd.read_csv(path, dtype=str)  # as numbers, pandas would read long ones less than exactly
    names = table["image"].map(lambda image: Path(image).name.removesuffix(".jpg").removesuffix(".nii.gz"))
    return dict(zip(names, (float(np.float32(text)) for text in table["score"]), strict=True))
