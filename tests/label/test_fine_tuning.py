"""A served bundle learns from labels: in a run of its own, on from its model, and replaced only when it may be."""

import json
import multiprocessing
import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import pytest
import torch
from monai.bundle import ConfigParser
from PIL import Image

from monai_fair.data import attribute_codes, load_datalist, write_predictions, write_split
from monai_fair.data.artifacts import sha256, write_json
from monai_fair.data.tables import write_table
from monai_fair.engines.bundle_runs import BundleRun
from monai_fair.errors import LabelError, MonaiFairError
from monai_fair.label import model_replacement
from monai_fair.label.fine_tuning import _decide, fine_tune
from monai_fair.label.fine_tuning_options import FineTuning, Replace
from monai_fair.label.model_replacement import finish_replacement, plan_of, replace_model, training_lock
from monai_fair.label.packing import pack_bundle
from monai_fair.label.served_bundle import ServedBundle
from monai_fair.metrics import read_thresholds, store_thresholds

BUNDLE = Path(__file__).parents[2] / "bundles" / "fair_image_classification"
TINY = {"image_size": 28, "network_def#layers": [1, 1, 1, 1], "network_def#block_inplanes": [4, 8, 8, 16]}
FEW: dict[str, Any] = {"max_epochs": 2, "val_split": 0.25, "attributes": ["sex"]}


@pytest.fixture(scope="session")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eighty images, the brighter ones of class 1, of 64 subjects, and ``labels.csv`` of all; some tell no sex."""
    folder, rng = tmp_path_factory.mktemp("studies"), np.random.default_rng(0)
    rows = []
    for number in range(80):
        label = number % 2
        noise = rng.normal(110 + 25 * label, 40, (32, 32, 3)).clip(0, 255)
        Image.fromarray(noise.astype(np.uint8)).save(folder / f"{number}.png")
        sex = ("female", "male", "male", "")[number // 3 % 4]  # not independent of the label
        rows.append({"subject_id": f"s{number % 64}", "image": f"{number}.png", "label": str(label), "sex": sex})
    write_table(folder / "labels.csv", pd.DataFrame(rows))
    return folder


@pytest.fixture(scope="session")
def untrained(studies: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A served bundle with random weights, and with thresholds by sex."""
    folder = tmp_path_factory.mktemp("bundles")
    config = ConfigParser(ConfigParser.load_config_file(BUNDLE / "configs" / "inference.yaml"))
    config.update(TINY)
    torch.manual_seed(7)  # not that of the training, which would start from the same weights without the model
    run = folder / "run"
    run.mkdir()
    torch.save(config.get_parsed_content("network_def").state_dict(), run / "model.pt")
    write_json(run / "model.json", "model", {"settings": {"image_size": 28, "load_size": 32}, "epoch": 1})
    scored = pd.read_csv(studies / "labels.csv", dtype=str, keep_default_na=False).assign(split="val", score=0.5)
    write_predictions(run / "predictions.csv", scored)
    store_thresholds(run / "predictions.csv", run / "thresholds.json", by=["sex"], min_count=3, shrinkage=2.0)
    options = {**TINY, "num_workers": 0, "learning_rate": 0.01}
    packed = pack_bundle(
        BUNDLE, run, folder / "skin_classification", configs=["small.yaml"], overrides=options,
        thresholds=run / "thresholds.json",
    )  # fmt: skip
    return packed.path


@pytest.fixture
def served(untrained: Path, tmp_path: Path) -> ServedBundle:
    return ServedBundle.read(shutil.copytree(untrained, tmp_path / untrained.name))


def models_of(bundle: ServedBundle) -> dict[str, str]:
    """What the bundle consists of; the folder of what is under way is none of it."""
    files = [path.relative_to(bundle.models) for path in bundle.models.rglob("*") if path.is_file()]
    return {str(name): sha256(bundle.models / name) for name in files if name.parts[0] != ".training"}


def test_a_training_replaces_model_settings_and_thresholds_and_keeps_the_earlier_ones(
    served: ServedBundle, studies: Path, tmp_path: Path
) -> None:
    before = models_of(served)
    result = fine_tune(served, studies / "labels.csv", studies, tmp_path / "work", **{**FEW, "max_epochs": 12})
    assert json.loads(json.dumps(result)) == result
    assert result["replaced"]
    assert result["metric"]["name"] == "val_auc"
    assert result["metric"]["after"] > max(0.8, result["metric"]["before"])
    counted = {part: sum(row["n"] for row in result["groups"] if row["split"] == part) for part in ("train", "val")}
    assert result["n"] == counted
    assert sum(counted.values()) == 80
    assert {row["group"] for row in result["groups"]} == {"female", "male", "missing"}
    after = models_of(ServedBundle.read(served.path))  # still served
    assert {name for name in before if after[name] == before[name]} == set()
    stamp = result["earlier_model"].removeprefix("earlier/model_").removesuffix(".pt")
    for name in ("model.pt", "model.json", "thresholds.json"):
        stem, suffix = name.split(".")
        assert after[f"earlier/{stem}_{stamp}.{suffix}"] == before[name]
    stored, fitted = (
        read_thresholds(served.models / name) for name in (f"earlier/thresholds_{stamp}.json", "thresholds.json")
    )
    way = ("method", "attributes", "min_count", "shrinkage", "towards")
    assert [getattr(stored, name) for name in way] == [getattr(fitted, name) for name in way]
    assert result["thresholds"] == "fitted on {1} positive and {0} negative validation rows".format(
        *fitted.pooled_counts[::-1]
    )
    record = json.loads((served.models / "training.json").read_text())
    assert record["metric"] == result["metric"]


def test_the_metrics_are_those_of_both_models_on_the_same_rows(
    served: ServedBundle, studies: Path, tmp_path: Path
) -> None:
    """By scikit-learn, from scores that inference.yaml gives."""
    from sklearn.metrics import roc_auc_score

    old = shutil.copytree(served.path, tmp_path / "old_classification")
    result = fine_tune(served, studies / "labels.csv", studies, tmp_path / "work", **FEW, replace="always")
    (run,) = (tmp_path / "work").glob("run_*")
    val = pd.read_csv(run / "val.csv", dtype={"label": int})
    for name, folder in (("before", old), ("after", served.path)):
        out = tmp_path / name
        options = {"bundle_root": folder, "dataset_dir": studies, "manifest": run / "val.csv"}
        told = {key: str(value) for key, value in options.items()} | {"progress": False, "num_workers": 0}
        BundleRun(out, [[folder / "configs" / "inference.yaml"]], overrides=told).run()
        scores = pd.read_csv(out / "predictions.csv")
        assert scores["image"].tolist() == val["image"].tolist()
        assert roc_auc_score(val["label"], scores["score"]) == pytest.approx(result["metric"][name], abs=1e-6)


def test_it_starts_from_the_model_that_is_served(served: ServedBundle, studies: Path, tmp_path: Path) -> None:
    before = torch.load(served.model, weights_only=True)
    still = {**FEW, "max_epochs": 1, "learning_rate": 1e-12}
    assert fine_tune(served, studies / "labels.csv", studies, tmp_path / "work", **still, replace="always")["replaced"]
    after = torch.load(served.model, weights_only=True)
    assert all(torch.allclose(before[name], after[name]) for name in before if name.endswith("weight"))
    assert any(not torch.equal(before[name], after[name]) for name in before)  # trained all the same


def test_a_worse_model_stays_out_unless_it_is_asked_for(served: ServedBundle, studies: Path, tmp_path: Path) -> None:
    good = fine_tune(served, studies / "labels.csv", studies, tmp_path / "work", **{**FEW, "max_epochs": 12})
    before = models_of(served)
    spoiled = {**FEW, "max_epochs": 1, "learning_rate": 1.0}
    result = fine_tune(served, studies / "labels.csv", studies, tmp_path / "work", **spoiled)
    assert result["metric"]["before"] == pytest.approx(good["metric"]["after"], abs=1e-9)
    assert result["metric"]["after"] < result["metric"]["before"]
    assert not result["replaced"]
    assert "worse" in result["reason"]
    assert models_of(served) == before
    taken = fine_tune(served, studies / "labels.csv", studies, tmp_path / "work", **spoiled, replace="always")
    assert taken["replaced"]
    assert taken["metric"] == result["metric"]
    assert models_of(served)["model.pt"] != before["model.pt"]


def _train(bundle: Path, studies: Path, work: Path) -> None:
    os.setpgrp()
    fine_tune(ServedBundle.read(bundle), studies / "labels.csv", studies, work, **{**FEW, "max_epochs": 12})


@pytest.mark.slow  # tests/label/server stops the training of a server, which goes on
def test_a_killed_training_leaves_the_model_and_goes_on_as_if_it_had_not_been(
    served: ServedBundle, untrained: Path, studies: Path, tmp_path: Path
) -> None:
    work, before = tmp_path / "work", models_of(served)
    process = multiprocessing.get_context("spawn").Process(target=_train, args=(served.path, studies, work))
    process.start()
    deadline = time.monotonic() + 120
    while not list(work.glob("run_*/training_state.pt")):
        assert process.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.join()
    (state,) = work.glob("run_*/training_state.pt")
    epoch = torch.load(state, weights_only=True)["epoch"]
    assert models_of(served) == before
    options = {**FEW, "max_epochs": 12}
    result = fine_tune(served, studies / "labels.csv", studies, work, **options)
    log = (state.parent / "log.txt").read_text()
    assert f"continuing after epoch {epoch}" in log or epoch == result["epochs"]
    whole = ServedBundle.read(shutil.copytree(untrained, tmp_path / "whole" / untrained.name))
    expected = fine_tune(whole, studies / "labels.csv", studies, tmp_path / "whole_work", **options)
    assert {name: result[name] for name in ("metric", "epochs", "groups")} == {
        name: expected[name] for name in ("metric", "epochs", "groups")
    }
    one, other = (torch.load(bundle.model, weights_only=True) for bundle in (served, whole))
    assert all(torch.equal(one[name], other[name]) for name in one)


OTHERS: dict[str, dict[str, Any]] = {
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
        "image_size": [8, 8, 8],
        "network_def#channels": [4, 8],
        "network_def#strides": [2, 2],
    },
}


@pytest.mark.parametrize("name", OTHERS)
def test_the_other_bundles_learn_too(name: str, studies: Path, tmp_path: Path) -> None:
    root, run, table = (
        BUNDLE.parent / name,
        tmp_path / "run",
        pd.read_csv(studies / "labels.csv", keep_default_na=False),
    )
    table = table[table["sex"] != ""].astype(str)
    if name.startswith("brain"):
        for image in table["image"]:
            volume = np.random.default_rng(0).normal(size=(8, 8, 8)).astype(np.float32)
            nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / f"{Path(image).stem}.nii.gz")
        table["image"] = table["image"].str.replace(".png", ".nii.gz")
    dataset_dir = tmp_path if name.startswith("brain") else studies
    write_table(tmp_path / "labels.csv", table)
    write_table(tmp_path / "train.csv", table.assign(split="train"))
    config = ConfigParser(ConfigParser.load_config_file(root / "configs" / "inference.yaml"))
    config.update({**OTHERS[name], "ckpt_path": str(run / "model.pt")})
    codes = attribute_codes(load_datalist(tmp_path / "train.csv", dataset_dir), {"sex": None})
    settings = {"attributes": codes.record()} if name.startswith("fairread") else {}
    write_json(run / "model.json", "model", {"settings": settings, "epoch": 1})
    torch.save(config.get_parsed_content("network_def").state_dict(), run / "model.pt")
    bundle = pack_bundle(root, run, tmp_path / name, overrides={**OTHERS[name], "num_workers": 0}, labels=["disease"])
    before = models_of(bundle)
    result = fine_tune(bundle, tmp_path / "labels.csv", dataset_dir, tmp_path / "work", **FEW, replace="always")
    assert result["replaced"]
    assert models_of(ServedBundle.read(bundle.path))["model.pt"] != before["model.pt"]


def test_too_few_labels_change_nothing_and_say_how_many_are_missing(
    served: ServedBundle, studies: Path, tmp_path: Path
) -> None:
    before, table = models_of(served), pd.read_csv(studies / "labels.csv", dtype=str, keep_default_na=False)
    write_table(tmp_path / "one_class.csv", table[table["label"] == "1"])
    with pytest.raises(LabelError, match=r"class 0 \(no disease\): .* got 0 and 0; label about 8 more"):
        fine_tune(served, tmp_path / "one_class.csv", studies, tmp_path / "work", **FEW)
    assert models_of(served) == before
    assert not (tmp_path / "work" / "split.csv").exists()


def test_a_failed_training_changes_nothing(served: ServedBundle, studies: Path, tmp_path: Path) -> None:
    table = pd.read_csv(studies / "labels.csv", dtype=str, keep_default_na=False)
    write_table(tmp_path / "labels.csv", table.assign(image="gone_" + table["image"].str.rsplit("/").str[-1]))
    before = models_of(served)
    with pytest.raises(MonaiFairError, match=r"log\.txt"):
        fine_tune(served, tmp_path / "labels.csv", studies, tmp_path / "work", **FEW)
    assert models_of(served) == before


def test_thresholds_that_cannot_be_fitted_are_removed_and_come_back(
    served: ServedBundle, studies: Path, tmp_path: Path
) -> None:
    """Eight of a class are two in val; the stored thresholds ask for three."""
    table = pd.read_csv(studies / "labels.csv", dtype=str, keep_default_na=False).drop_duplicates("subject_id")
    write_table(tmp_path / "few.csv", table.groupby("label").head(8))
    first = fine_tune(served, tmp_path / "few.csv", studies, tmp_path / "work", **FEW, replace="always")
    assert "validation rows of each class, got 2 and 2" in first["thresholds"]
    assert served.thresholds is None
    again = fine_tune(served, studies / "labels.csv", studies, tmp_path / "work", **FEW, replace="always")
    assert again["thresholds"].startswith("fitted on")
    assert read_thresholds(served.models / "thresholds.json").attributes == ("sex",)


def test_rows_are_drawn_by_weight_and_the_parts_of_subjects_stay(
    served: ServedBundle, studies: Path, tmp_path: Path
) -> None:
    table = pd.read_csv(studies / "labels.csv", dtype=str, keep_default_na=False)
    write_table(tmp_path / "first.csv", table[:50])
    parts = []
    for labels in (tmp_path / "first.csv", studies / "labels.csv"):
        fine_tune(served, labels, studies, tmp_path / "work", **{**FEW, "max_epochs": 1})
        (run,) = (tmp_path / "work").glob("run_*")  # that of the earlier labels is gone
        rows = pd.read_csv(run / "manifest.csv", dtype=str)
        parts.append(dict(zip(rows["subject_id"], rows["split"], strict=True)))
        settings = torch.load(run / "training_state.pt", weights_only=True)["settings"]
        assert settings["rows_drawn"] == "by weight"
        assert rows["weight"].astype(float).nunique() > 2
    assert {who: parts[1][who] for who in parts[0]} == parts[0]


def test_what_the_model_came_trained_on_is_never_validated_on_whoever_the_images_are_said_to_show(
    served: ServedBundle, studies: Path, tmp_path: Path
) -> None:
    """Images 0 to 19 were trained on, of subjects that nobody names here; an earlier split has some in val."""
    table = pd.read_csv(studies / "labels.csv", dtype=str, keep_default_na=False)
    nameless = table.assign(subject_id=table["image"].str.removesuffix(".png"))
    write_table(tmp_path / "labels.csv", nameless)
    own = nameless[:20].assign(image="elsewhere/" + nameless["image"], subject_id="patient" + nameless["subject_id"])
    write_table(served.models / "manifest.csv", own.assign(split="train"))
    earlier = pd.DataFrame({"subject_id": ["0", "1", "30", "31"], "split": "val"})
    write_split(tmp_path / "work" / "split.csv", earlier)
    fine_tune(served, tmp_path / "labels.csv", studies, tmp_path / "work", **{**FEW, "max_epochs": 1})
    (run,) = (tmp_path / "work").glob("run_*")
    parts = pd.read_csv(run / "manifest.csv", dtype=str).set_index("image")["split"]
    assert set(parts[[f"{number}.png" for number in range(20)]]) == {"train"}
    assert set(parts[["30.png", "31.png"]]) == {"val"}
    # told of the subjects, the same images keep their parts
    write_table(tmp_path / "labels.csv", nameless.assign(subject_id="s" + nameless["subject_id"]))
    before = parts
    fine_tune(served, tmp_path / "labels.csv", studies, tmp_path / "work", **{**FEW, "max_epochs": 1})
    (run,) = (tmp_path / "work").glob("run_*")
    parts = pd.read_csv(run / "manifest.csv", dtype=str).set_index("image")["split"]
    assert parts.to_dict() == before.to_dict()


def test_a_training_runs_on_the_device_that_is_asked_for(served: ServedBundle, studies: Path, tmp_path: Path) -> None:
    with pytest.raises(MonaiFairError, match=r"log\.txt"):
        fine_tune(served, studies / "labels.csv", studies, tmp_path / "work", **FEW, device="cuda:99")
    (log,) = (tmp_path / "work").glob("run_*/log.txt")
    assert "cuda" in log.read_text().lower()
    few = {**FEW, "max_epochs": 1}
    assert fine_tune(served, studies / "labels.csv", studies, tmp_path / "work", **few, device="cpu")["epochs"] == 1


@pytest.mark.parametrize(
    ("before", "after", "replace", "taken", "reason"),
    [
        (0.5, 0.5, "better", True, "is not worse"),
        (0.6, 0.5, "better", False, "so the present one stays; replace=always takes it"),
        (0.6, 0.5, "always", True, "is worse .* asked for all the same"),
        (None, 0.5, "better", True, "the present model's metric is undefined"),
        (0.5, None, "always", False, "the new model's metric is undefined"),
    ],
)
def test_the_reason_says_what_was_compared(
    before: float | None, after: float | None, replace: Replace, taken: bool, reason: str
) -> None:
    found, told = _decide(before, after, replace)
    assert found is taken
    assert re.search(reason, told)


def test_one_training_of_a_bundle_at_a_time_whatever_the_studies(
    served: ServedBundle, studies: Path, tmp_path: Path
) -> None:
    with (
        training_lock(served.models),
        pytest.raises(LabelError, match="skin_classification: is being trained already"),
    ):
        fine_tune(served, studies / "labels.csv", studies, tmp_path / "work", **FEW)
    with training_lock(served.models):
        pass


def test_what_is_no_option_is_refused_at_once() -> None:
    with pytest.raises(LabelError) as error:
        FineTuning(
            max_epochs=0, val_split=1.0, seed=-1, attributes=["sex"], rebalance=1, replace="no", learning_rate=0.0
        )  # type: ignore[arg-type]
    assert "training: 7 problems" in str(error.value)


class KilledError(Exception):
    """The process ended here."""


NEW = {name: f"new {name}" for name in ("model.pt", "model.json", "thresholds.json")}
OLD = {name: f"old {name}" for name in (*NEW, "metrics.json")}


def killed_after(last: int, models: Path, run: Path) -> bool:
    """Replace a model, of which the process ends after so many file operations; say whether it did."""
    left = iter(range(last))
    own = {name: getattr(model_replacement, name) for name in ("_copy", "_move", "write_json")}

    def until(name: str) -> Callable[..., None]:
        def operate(*args: Any) -> None:
            if next(left, None) is None:
                raise KilledError
            own[name](*args)

        return operate

    with pytest.MonkeyPatch.context() as patch:
        for name in own:
            patch.setattr(model_replacement, name, until(name))
        try:
            replace_model(models, run, {"n": 1}, start_sha256=sha256(models / "model.pt"))
        except KilledError:
            return True
    return False


READY, KEPT, PUT = 4, 4, 4  # files laid ready with the plan, kept of the earlier model, put in place with the record


@pytest.mark.parametrize("last", range(READY + KEPT + PUT + 1))
def test_a_replacement_that_was_killed_anywhere_is_finished_and_mixes_no_two_models(last: int, tmp_path: Path) -> None:
    """Every file operation in turn is the last one; what is there then has no thresholds of the other model."""
    models, run = tmp_path / "models", tmp_path / "run"
    for folder, files in ((models, OLD), (run, NEW)):
        folder.mkdir()
        for name, text in files.items():
            (folder / name).write_text(text)
    killed = killed_after(last, models, run)
    assert killed == (last < READY + KEPT + PUT)
    for beside in (models / "thresholds.json", models / "metrics.json"):
        assert not beside.exists() or beside.read_text().split()[0] == (models / "model.pt").read_text().split()[0]
    assert [path.name for path in models.glob("*.pt")] == ["model.pt"]
    shutil.rmtree(run)  # what is left to do is in the bundle, also for a server of other studies
    planned = READY <= last < READY + KEPT + PUT
    assert plan_of(models).is_file() == planned
    assert finish_replacement(models) == planned
    assert not finish_replacement(models)
    # without a plan nothing has begun; with one the new model comes whole, and nobody has audited it
    present = {path.name: path.read_text() for path in models.iterdir() if path.name in OLD}
    assert present == (OLD if last < READY else NEW)
    if last >= READY:
        assert sorted(path.read_text() for path in (models / "earlier").iterdir()) == sorted(OLD.values())
        assert not list((models / ".training").iterdir())


def test_what_a_killed_training_laid_ready_is_no_part_of_the_next(tmp_path: Path) -> None:
    models, run, ready = tmp_path / "models", tmp_path / "run", tmp_path / "models" / ".training" / "new"
    for folder in (models, run, ready):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.pt").write_text(folder.name)
    (ready / "thresholds.json").write_text("of another model")
    replace_model(models, run, {}, start_sha256=sha256(models / "model.pt"))
    assert (models / "model.pt").read_text() == "run"
    assert not (models / "thresholds.json").exists()


def test_a_model_that_was_replaced_meanwhile_stays(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_text("another")
    with pytest.raises(LabelError, match="replaced meanwhile"):
        replace_model(tmp_path, tmp_path / "run", {}, start_sha256="0" * 64)
    assert not plan_of(tmp_path).exists()
