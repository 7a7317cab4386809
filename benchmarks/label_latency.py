"""What HTTP adds to an answer: one image through a server of MONAI Label, and the same in this process.

    .venv-label/bin/python benchmarks/label_latency.py [--rounds 20] [--out benchmarks/results/label-latency-NAME.md]

Runs where MONAI Label is installed. Networks have their published size and random weights, because what they answer
does not count: ResNet-18 on a picture of 224 pixels, and a registration of a brain of 2 mm. The same app answers in
both ways, and both ways take turns. The first answer of each, which loads the model, is not timed.
"""

import argparse
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import Any

import requests
import torch
from monai.bundle import ConfigParser

from monai_fair.data import build_manifest, write_manifest
from monai_fair.data.artifacts import write_json
from monai_fair.label.app_folder import write_label_app
from monai_fair.label.packing import pack_bundle
from monai_fair.simulation import simulate_brain, simulate_skin

BUNDLES = Path(__file__).parents[1] / "bundles"
MODELS = {"fair_image_classification": "2D, class scores", "brain_mri_inr_registration": "3D, label map"}


def write_studies(folder: Path) -> dict[str, str]:
    """Write a picture and a brain of 2 mm into one folder; return model to image id."""
    skin, brain, studies = folder / "skin", folder / "brain", folder / "studies"
    simulate_skin(skin, n=60, seed=0, size=256, num_workers=1)
    write_manifest(build_manifest("ham10000", skin, split=skin / "split.csv"), skin / "manifest.csv")
    simulate_brain(brain, n=6, seed=1, spacing_mm=2.0, num_workers=2)
    studies.mkdir()
    images = [sorted(skin.rglob("*.jpg"))[0], sorted(brain.glob("sub-*/anat/*.nii.gz"))[0]]
    for image in images:
        shutil.copy(image, studies)
    return dict(zip(MODELS, (image.name.partition(".")[0] for image in images), strict=True))


def write_bundle(name: str, folder: Path) -> Path:
    """Pack a bundle with random weights; the registration with the brains' template."""
    registration = name == "brain_mri_inr_registration"
    run = folder / "runs" / name
    run.mkdir(parents=True)
    parser = ConfigParser()
    parser.read_config(str(BUNDLES / name / "configs" / "inference.yaml"))
    parser["ckpt_path"] = str(run / "model.pt")
    if registration:
        parser["dataset_dir"] = str(folder / "brain")
    torch.manual_seed(0)
    torch.save(parser.get_parsed_content("network_def").state_dict(), run / "model.pt")
    settings = parser.get_parsed_content("input_settings")
    write_json(run / "model.json", "model", {"settings": settings, "epoch": 1})
    template = {"template": folder / "brain"} if registration else {}
    return pack_bundle(BUNDLES / name, run, folder / "served" / name, **template).path


def start(app: Path, studies: Path, models: str, log: Path) -> tuple["subprocess.Popen[bytes]", str]:
    """Start the server, and wait until it answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "monailabel.main", "start_server", "--app", str(app), "--studies", str(studies)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--conf", "models", models]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    while True:
        if process.poll() is not None:
            raise SystemExit(log.read_text(errors="replace"))
        try:
            requests.get(f"{url}/info/", timeout=30).raise_for_status()
            return process, url
        except requests.ConnectionError:
            time.sleep(0.2)


def seconds(answer: Callable[[], Any]) -> float:
    """Return how long an answer takes."""
    begin = time.perf_counter()
    answer()
    return time.perf_counter() - begin


def over_http(url: str, model: str, image: str) -> bytes:
    """Return the answer of the server."""
    found = requests.post(f"{url}/infer/{model}", params={"image": image}, data={"params": "{}"}, timeout=600)
    found.raise_for_status()
    return found.content


def times(app: Any, url: str, model: str, image: str, rounds: int) -> tuple[list[float], list[float]]:
    """Return seconds in this process and over HTTP, in turns; what loads the model is not among them."""
    ways = (lambda: app.infer({"model": model, "image": image}), lambda: over_http(url, model, image))
    for way in ways:
        way()
    pairs = [tuple(seconds(way) for way in ways) for _ in range(rounds)]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def table(found: dict[str, tuple[list[float], list[float]]], rounds: int) -> list[str]:
    """Return the lines of the page."""
    lines = [
        f"Medians of {rounds} answers, in turns, in brackets quartiles of what is added to one; milliseconds. "
        f"{platform.machine()}, {os.cpu_count()} cores, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}.",
        "",
        "| model | in this process | over HTTP | added | added, of the answer |",
        "|---|---|---|---|---|",
    ]
    for model, (inside, outside) in found.items():
        low, added, high = quantiles((there - here for here, there in zip(inside, outside, strict=True)), n=4)
        here, there = median(inside), median(outside)
        spread = f"{1000 * added:.1f} ({1000 * low:.1f} to {1000 * high:.1f})"
        numbers = (f"{1000 * here:.0f}", f"{1000 * there:.0f}", spread, f"{added / here:.1%}")
        lines.append(f"| {model} ({MODELS[model]}) | {' | '.join(numbers)} |")
    return lines


def main() -> None:
    """Time both ways, and print a table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=20)
    options.add_argument("--out", type=Path)
    given = options.parse_args()
    # nobody puts files into the folder: its watchers would see it go
    os.environ["MONAI_LABEL_DATASTORE_AUTO_RELOAD"] = "false"
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        images = write_studies(folder)
        models = ",".join(str(write_bundle(name, folder)) for name in MODELS)
        place = write_label_app(folder / "app")
        process, url = start(place, folder / "studies", models, folder / "server.log")
        try:
            from monai_fair.label.server.app import FairLabelApp  # MONAI Label reads settings when it is imported

            app = FairLabelApp(str(place), str(folder / "studies"), {"models": models})
            found = {model: times(app, url, model, image, given.rounds) for model, image in images.items()}
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(30)
    lines = table(found, given.rounds)
    print("\n".join(lines))
    if given.out:
        given.out.write_text("\n".join(["# What HTTP adds to an answer", "", *lines, ""]), encoding="utf-8")


if __name__ == "__main__":
    main()
