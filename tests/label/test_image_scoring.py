"""Scores of a server's images by a bundle's own inference: those of ``bundle run``, in parts, none of them twice."""

import errno
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from monai.bundle import ConfigParser
from monai.bundle import run as run_bundle
from monai.utils import set_determinism
from numpy.testing import assert_allclose, assert_array_equal

from monai_fair.data.artifacts import read_tensors, write_json
from monai_fair.errors import ArtifactError, LabelError
from monai_fair.handlers.best_model import write_model
from monai_fair.label import bundle_scores, image_scoring
from monai_fair.label.bundle_scores import scorer_of
from monai_fair.label.image_scoring import score_images
from monai_fair.label.image_states import StoredImage, model_key, told_attributes
from monai_fair.label.packing import pack_bundle
from monai_fair.label.served_bundle import ServedBundle
from monai_fair.label.sidecar import ImageScores, Sidecar, sidecar_path
from monai_fair.simulation import simulate_skin

pytestmark = [
    # MONAI says of every config that it is a program (GHSA-873f-pvrv-4x83); these are our own.
    pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning"),
    pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader:UserWarning"),
]

ROOT = Path(__file__).parents[2]
SKIN = ROOT / "bundles" / "fair_image_classification"
CLASSIFIER = {"network_def#layers": [1, 1, 1, 1], "network_def#block_inplanes": [4, 8, 8, 16], "num_workers": 0}
INPUT = {"image_size": 28, "load_size": 32, "num_classes": 2, "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> ServedBundle:
    """A classifier as it starts, packed; for reading only."""
    folder = tmp_path_factory.mktemp("bundle")
    write_json(folder / "model.json", "model", {"settings": INPUT, "epoch": 1})
    config = ConfigParser()
    config.read_config(str(SKIN / "configs" / "inference.yaml"))
    config.update({"bundle_root": str(SKIN), "ckpt_path": str(folder / "model.pt"), **CLASSIFIER})
    torch.manual_seed(0)
    write_model(config.get_parsed_content("network_def"), folder / "model.pt", INPUT, epoch=1)
    return pack_bundle(SKIN, folder, folder / "skin_classification", overrides=CLASSIFIER)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("cohort")
    simulate_skin(folder, n=60, seed=0, size=32, num_workers=1)
    return sorted(folder.rglob("*.jpg"))[:10]


@pytest.fixture
def images(pictures: list[Path], tmp_path: Path) -> list[StoredImage]:
    """Images in a folder that a test may change."""
    folder = tmp_path / "studies"
    folder.mkdir()
    copies = [Path(shutil.copy2(path, folder)) for path in pictures]
    return [StoredImage(path.stem, path, {"sex": "female"}) for path in copies]


def score(bundle: ServedBundle, images: list[StoredImage], tmp_path: Path, **options: Any) -> dict[str, Any]:
    done = score_images(bundle, images, tmp_path / "studies", scorer_of(bundle), **options)
    assert done.pop("seconds") >= 0
    return done


def rows_of(bundle: ServedBundle, tmp_path: Path) -> ImageScores:
    return Sidecar(sidecar_path(tmp_path / "studies", bundle.name), model_key(bundle)).read()


def test_scores_and_embeddings_are_those_of_bundle_run(
    bundle: ServedBundle, images: list[StoredImage], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = torch.get_rng_state()
    with caplog.at_level(logging.INFO, logger="monai_fair"):
        done = score(bundle, images, tmp_path, part=4)
    assert done == {"total": 10, "skipped": 0, "scored": 10, "failed": 0, "reasons": {}}
    said = [record.message for record in caplog.records if record.name == image_scoring.__name__]
    assert said == [f"scoring skin_classification: {n} of 10 images" for n in (4, 8, 10)]
    assert len(before) == len(torch.get_rng_state())
    table = pd.DataFrame({"subject_id": [i.image_id for i in images], "image": [i.path.name for i in images]})
    table.to_csv(tmp_path / "manifest.csv", index=False)
    config = str(bundle.path / "configs" / "inference.yaml")
    run_bundle(
        config_file=config, bundle_root=str(bundle.path), output_dir=str(tmp_path), progress=False, save_features=True,
        dataset_dir=str(tmp_path / "studies"), manifest=str(tmp_path / "manifest.csv"),
    )  # fmt: skip
    set_determinism(None)
    wanted = pd.read_csv(tmp_path / "predictions.csv", dtype={"subject_id": str}).set_index("subject_id")["score"]
    features = read_tensors(tmp_path / "features.safetensors")[0]["features"]
    found = rows_of(bundle, tmp_path)
    assert found.image_ids == tuple(sorted(wanted.index))
    assert_allclose(found.scores, wanted[list(found.image_ids)], rtol=0, atol=1e-6)
    assert_allclose(found.embeddings, features[[list(wanted.index).index(n) for n in found.image_ids]], atol=1e-5)
    assert not [path for path in (tmp_path / "studies" / ".monai_fair" / bundle.name).iterdir() if path.is_dir()]


def test_only_what_is_new_or_changed_is_scored(bundle: ServedBundle, images: list[StoredImage], tmp_path: Path) -> None:
    assert score(bundle, images[:6], tmp_path)["scored"] == 6
    first = rows_of(bundle, tmp_path)
    done = score(bundle, images, tmp_path)
    assert (done["total"], done["skipped"], done["scored"]) == (10, 6, 4)
    shutil.copy(images[1].path, images[0].path)
    os.utime(images[0].path, (1, 1))
    done = score(bundle, images, tmp_path)
    assert (done["skipped"], done["scored"]) == (9, 1)
    found = rows_of(bundle, tmp_path)
    place = found.place()
    assert found.scores[place[images[0].image_id]] == found.scores[place[images[1].image_id]]
    kept = [name for name in first.image_ids if name != images[0].image_id]
    assert_array_equal(found.scores[[place[n] for n in kept]], first.scores[[first.place()[n] for n in kept]])
    # a table of patients changes nothing for a model that is not told of them
    told = [StoredImage(image.image_id, image.path, {"sex": "male"}) for image in images]
    assert score(bundle, told, tmp_path, told=told_attributes(bundle))["skipped"] == 10


def test_another_model_scores_all_anew(bundle: ServedBundle, images: list[StoredImage], tmp_path: Path) -> None:
    own = ServedBundle(bundle.name, Path(shutil.copytree(bundle.path, tmp_path / bundle.name)), bundle.kind)
    score(own, images, tmp_path)
    first = rows_of(own, tmp_path)
    weights = torch.load(own.model, weights_only=True)
    weights["fc.bias"] += 1.0
    torch.save(weights, own.model)
    assert score(own, images, tmp_path)["scored"] == 10
    logit = np.log(first.scores / (1 - first.scores)) + 1
    assert_allclose(rows_of(own, tmp_path).scores, 1 / (1 + np.exp(-logit)), atol=1e-5)


def test_a_model_that_is_replaced_meanwhile_scores_all_images(
    bundle: ServedBundle, images: list[StoredImage], tmp_path: Path
) -> None:
    own = ServedBundle(bundle.name, Path(shutil.copytree(bundle.path, tmp_path / bundle.name)), bundle.kind)
    parts: list[list[str]] = []

    def scorer(part: Any, folder: Path) -> ImageScores:
        parts.append([image.image_id for image in part])
        if len(parts) == 2:
            weights = torch.load(own.model, weights_only=True)
            torch.save({name: value + 1 for name, value in weights.items()}, own.model)
        return ImageScores.of(
            {image.image_id: image.fingerprint(()) for image in part}, scores=[len(parts)] * len(part)
        )

    done = score_images(own, images[:6], tmp_path / "studies", scorer, part=3)
    assert [len(part) for part in parts] == [3, 3, 3, 3]
    assert (done["skipped"], done["scored"]) == (0, 6)
    assert_array_equal(rows_of(own, tmp_path).scores, [3, 3, 3, 4, 4, 4])


def test_an_image_that_cannot_be_read_is_a_row_with_a_reason(
    bundle: ServedBundle, images: list[StoredImage], tmp_path: Path
) -> None:
    broken = [images[2], images[7]]
    for image in broken:
        image.path.write_bytes(b"no picture")
    done = score(bundle, images, tmp_path)
    assert (done["scored"], done["failed"]) == (8, 2)
    assert set(done["reasons"]) == {image.image_id for image in broken}
    found = rows_of(bundle, tmp_path)
    for name, value, reason in zip(found.image_ids, found.scores, found.reasons, strict=True):
        bad = name in done["reasons"]
        assert np.isnan(value) == bad
        assert (name in reason) == bad  # it names the file
    assert score(bundle, images, tmp_path) == {"total": 10, "skipped": 10, "scored": 0, "failed": 0, "reasons": {}}
    assert score(bundle, images, tmp_path, retry=True)["failed"] == 2
    shutil.copy(images[0].path, broken[0].path)  # repaired
    assert score(bundle, images, tmp_path)["scored"] == 1


def test_two_links_to_one_file_and_files_anywhere_are_scored(
    bundle: ServedBundle, images: list[StoredImage], tmp_path: Path
) -> None:
    other = tmp_path / "elsewhere" / images[0].path.name
    other.parent.mkdir()
    shutil.copy(images[0].path, other)
    several = [images[0], StoredImage("twin", images[0].path), StoredImage("far", other)]
    assert score(bundle, several, tmp_path)["scored"] == 3
    assert len(set(rows_of(bundle, tmp_path).scores.round(6))) == 1


def test_what_writes_no_predictions_is_not_scored(bundle: ServedBundle, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bundle.path, tmp_path / "other_classification"))
    config = folder / "configs" / "inference.yaml"
    config.write_text(config.read_text().replace("predictions:", "outputs:").replace("manifest:", "table:", 1))
    with pytest.raises(LabelError, match=r"found no manifest, predictions; only bundles that write predictions\.csv"):
        scorer_of(ServedBundle("other_classification", folder, "classification"))


def test_a_registration_needs_subgroups(bundle: ServedBundle, tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="expected models/subgroups, found none; pack it with --subgroups"):
        scorer_of(ServedBundle("brain", bundle.path, "registration"))
    folder = tmp_path / "brain"
    (folder / "models" / "subgroups").mkdir(parents=True)
    write_json(folder / "models" / "subgroups" / "discovery.json", "discovery", {"claimed": False, "key": ""})
    with pytest.raises(ArtifactError, match="expected subgroups that are claimed, got none"):
        scorer_of(ServedBundle("brain", folder, "registration"))


class Faulty:
    """A scorer whose images fail for these reasons, by their ids; without one they have a score."""

    def __init__(self, reasons: dict[str, str]) -> None:
        self.reasons = reasons

    def __call__(self, part: Any, folder: Path) -> ImageScores:
        made = {image.image_id: image.fingerprint(()) for image in part}
        told = {name: self.reasons[name] for name in made if name in self.reasons}
        return ImageScores.of(made, scores=[np.nan if name in told else 0.5 for name in made], reasons=told)


def test_a_fault_of_the_bundle_is_an_error_and_no_row(
    bundle: ServedBundle, images: list[StoredImage], tmp_path: Path
) -> None:
    def run(reasons: dict[str, str], n: int = 10) -> dict[str, Any]:
        return score_images(bundle, images[:n], tmp_path / "studies", Faulty(reasons), part=4)

    same = {image.image_id: f"RuntimeError: {image.path}: no such layer" for image in images}
    with pytest.raises(
        LabelError, match=r"same error for all of the first 4 images.*the image: no such layer; correct"
    ):
        run(same)
    assert not rows_of(bundle, tmp_path).image_ids
    # several reasons, or a single image, are of the images; and so is a reason once the bundle has scored another one
    differ = {name: f"{reason} {place % 2}" for place, (name, reason) in enumerate(same.items())}
    assert run(differ, 2)["failed"] == 2
    assert run(same, 3)["failed"] == 1
    assert run({}, 4)["scored"] == 1
    assert run(same)["failed"] == 6


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_full_memory_and_disks_are_errors_and_no_rows(
    bundle: ServedBundle, images: list[StoredImage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def full(*args: Any, **options: Any) -> None:
        raise RuntimeError("applying transform") from error

    monkeypatch.setattr(bundle_scores, "_run", full)
    for some in (images[:1], images[:3]):
        with pytest.raises(LabelError, match=f"expected room for {images[0].image_id}; {type(error).__name__}"):
            score(bundle, some, tmp_path)
    assert not rows_of(bundle, tmp_path).image_ids


CHILD = """
import sys, logging
from pathlib import Path
from monai_fair.label.bundle_scores import scorer_of
from monai_fair.label.image_scoring import score_images
from monai_fair.label.image_states import StoredImage
from monai_fair.label.served_bundle import ServedBundle
logging.basicConfig(level=logging.INFO, stream=sys.stdout)
folder, studies = map(Path, sys.argv[1:3])
bundle = ServedBundle(folder.name, folder, "classification")
images = [StoredImage(path.stem, path) for path in sorted(studies.glob("*.jpg"))]
print(score_images(bundle, images, studies, scorer_of(bundle), part=2), flush=True)
"""


def test_a_scoring_that_is_killed_goes_on(bundle: ServedBundle, images: list[StoredImage], tmp_path: Path) -> None:
    studies = tmp_path / "studies"
    command = [sys.executable, "-W", "ignore", "-c", CHILD, str(bundle.path), str(studies)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if "2 of 10 images" in line:
                break
        time.sleep(0.1)  # into the next part
        os.kill(child.pid, signal.SIGKILL)
    left = rows_of(bundle, tmp_path)
    n = len(left.image_ids)
    assert n in range(2, 10, 2)
    assert np.isfinite(left.scores).all()
    done = score(bundle, images, tmp_path, part=2)
    assert (done["skipped"], done["scored"]) == (n, 10 - n)
    assert not list((studies / ".monai_fair" / bundle.name).glob("part.*"))
    found, whole = rows_of(bundle, tmp_path), tmp_path / "whole"
    (whole / "studies").mkdir(parents=True)
    score(bundle, images, whole)
    # the last bits of a batch depend on its size
    assert_allclose(found.scores, rows_of(bundle, whole).scores, rtol=0, atol=2e-6)
    assert_array_equal(found.image_ids, rows_of(bundle, whole).image_ids)
