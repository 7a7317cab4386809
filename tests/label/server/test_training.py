"""Training on labels in the datastore: in this process, and through a real server."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from monai.bundle import ConfigParser
from PIL import Image

from monai_fair.data import write_predictions
from monai_fair.data.artifacts import sha256, write_json
from monai_fair.data.tables import write_table
from monai_fair.errors import LabelError
from monai_fair.label.demographics import Demographics
from monai_fair.label.packing import pack_bundle
from monai_fair.label.served_bundle import ServedBundle
from monai_fair.label.server.datastore import CheckedDatastore
from monai_fair.label.server.training import FairTrainTask
from monai_fair.metrics import read_thresholds, store_thresholds

BUNDLE = Path(__file__).parents[3] / "bundles" / "fair_image_classification"
NAME = "bright_classification"
TINY = {"image_size": 28, "network_def#layers": [1, 1, 1, 1], "network_def#block_inplanes": [4, 8, 8, 16]}
FEW: dict[str, Any] = {"max_epochs": 8, "val_split": 0.25}

Label = Callable[[int], dict[str, Any]]


def label_of(number: int) -> int:
    return number % 2


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty images, the brighter ones of class 1, two of each subject but the last eight; with a manifest."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    rows = []
    for number in range(40):
        noise = rng.normal(110 + 25 * label_of(number), 40, (32, 32, 3)).clip(0, 255)
        Image.fromarray(noise.astype(np.uint8)).save(folder / f"image_{number:02}.png")
        subject = f"s{number - 32 if number >= 32 else number}"
        rows.append(
            {"subject_id": subject, "image": f"image_{number:02}.png", "sex": ("female", "male")[number // 3 % 2]}
        )
    write_table(
        folder / "manifest.csv",
        pd.DataFrame(rows).assign(sex=lambda table: table.groupby("subject_id")["sex"].transform("first")),
    )
    return folder


@pytest.fixture(scope="module")
def untrained(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A served bundle with random weights, and with thresholds by sex."""
    folder = tmp_path_factory.mktemp("bundles")
    config = ConfigParser(ConfigParser.load_config_file(BUNDLE / "configs" / "inference.yaml"))
    config.update(TINY)
    torch.manual_seed(0)
    run = folder / "run"
    run.mkdir()
    torch.save(config.get_parsed_content("network_def").state_dict(), run / "model.pt")
    write_json(run / "model.json", "model", {"settings": {"image_size": 28, "load_size": 32}, "epoch": 1})
    table = pd.read_csv(images / "manifest.csv", dtype=str).assign(split="val", score=0.5)
    write_predictions(run / "predictions.csv", table.assign(label=[str(label_of(row)) for row in range(len(table))]))
    store_thresholds(run / "predictions.csv", run / "thresholds.json", by=["sex"], min_count=3)
    packed = pack_bundle(
        BUNDLE, run, folder / NAME, configs=["small.yaml"], thresholds=run / "thresholds.json",
        overrides={**TINY, "num_workers": 0, "learning_rate": 0.01},
    )  # fmt: skip
    return packed.path


@pytest.fixture
def studies(images: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(images, tmp_path / "studies"))


@pytest.fixture
def bundle(untrained: Path, tmp_path: Path) -> ServedBundle:
    return ServedBundle.read(shutil.copytree(untrained, tmp_path / NAME))


@pytest.fixture
def datastore(studies: Path) -> CheckedDatastore:
    return CheckedDatastore(str(studies), ["*.png"])


@pytest.fixture
def task(bundle: ServedBundle, studies: Path) -> FairTrainTask:
    return FairTrainTask(bundle, {}, Demographics.read(studies / "manifest.csv"))


def save_labels(datastore: CheckedDatastore, folder: Path, numbers: range, *, tag: str = "final") -> None:
    for number in numbers:
        path, label = folder / "label.json", label_of(number)
        path.write_text(json.dumps({"label": label if number % 3 else ("no disease", "disease")[label]}))
        datastore.save_label(f"image_{number:02}", str(path), tag, {})


def test_it_learns_from_the_labels_of_the_datastore(
    task: FairTrainTask, datastore: CheckedDatastore, bundle: ServedBundle, tmp_path: Path
) -> None:
    save_labels(datastore, tmp_path, range(36))
    mask = tmp_path / "mask.nii.gz"
    mask.write_bytes(b"x")
    datastore.save_label("image_37", str(mask), "final", {})
    before = sha256(bundle.model)
    result = task({"model": NAME, "local_rank": 0, "gpus": "all", **FEW}, datastore)
    assert result["replaced"]
    assert sha256(bundle.model) != before
    assert result["metric"]["after"] > 0.8
    assert sum(result["n"].values()) == 36
    assert {row["group"] for row in result["groups"]} == {"female", "male"}
    assert result["attributes"] == ["sex"]  # those of the thresholds
    assert "1 labels are no .json and were left out" in result["notes"]
    (run,) = (tmp_path / "studies" / ".monai_fair" / NAME / "training").glob("run_*")
    rows = pd.read_csv(run / "manifest.csv", dtype=str)
    assert (rows.groupby("subject_id")["split"].nunique() == 1).all()
    assert rows["subject_id"].nunique() == 32  # images 32 to 35 are of subjects that have another one
    assert [int(label) for label in rows["label"]] == [label_of(number) for number in range(36)]
    assert task.stats()["metric"] == result["metric"]


def test_too_few_labels_or_one_that_is_none_change_nothing(
    task: FairTrainTask, datastore: CheckedDatastore, bundle: ServedBundle, tmp_path: Path
) -> None:
    before = files_of(bundle)
    with pytest.raises(
        LabelError, match=r"0 labelled images: 2 problems\n.*class 0 \(no disease\).*label about 8 more"
    ):
        task({**FEW}, datastore)
    save_labels(datastore, tmp_path, range(30))
    with pytest.raises(LabelError, match="0 labelled images: 2 problems"):
        task({**FEW, "label_tag": "other"}, datastore)
    for name, content in (("image_02", {"label": "cancer"}), ("image_03", {"label": 7})):
        (tmp_path / "label.json").write_text(json.dumps(content))
        datastore.save_label(name, str(tmp_path / "label.json"), "final", {})
    with pytest.raises(LabelError, match=r"2 problems\n.*image_02\.json.*got 'cancer'.*\n.*image_03\.json.*got 7"):
        task({**FEW}, datastore)
    assert files_of(bundle) == before


def test_labels_of_the_other_models_of_a_server_are_left_out(
    bundle: ServedBundle, datastore: CheckedDatastore, studies: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(bundle.path, tmp_path / "lung_classification"))
    metadata = json.loads((folder / "configs" / "metadata.json").read_text())
    (output,) = metadata["network_data_format"]["outputs"].values()
    output["classes"] = {"0": "clear", "1": "nodule"}
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
    bundles = [bundle, ServedBundle.read(folder), ServedBundle("organs", bundle.path, "other")]
    task = FairTrainTask(bundle, {}, Demographics.read(studies / "manifest.csv"), others=bundles)
    save_labels(datastore, tmp_path, range(36))
    with pytest.raises(LabelError, match=r"24 problems\n.*the key 'model' beside an index"):
        task({**FEW, "max_epochs": 1}, datastore)  # every third label is a name
    for number in range(36):
        path, own = tmp_path / "label.json", {"label": label_of(number), "model": bundle.name}
        path.write_text(json.dumps([own, {"label": "nodule"}, {**own, "model": "lung_classification"}][number // 16]))
        datastore.save_label(f"image_{number:02}", str(path), "final", {})
    result = task({**FEW, "max_epochs": 1, "replace": "always"}, datastore)
    assert sum(result["n"].values()) == 16
    assert "20 labels are of other models and were left out" in result["notes"]


def test_what_nobody_tells_is_a_group_and_what_nobody_knows_an_error(
    bundle: ServedBundle, datastore: CheckedDatastore, tmp_path: Path
) -> None:
    save_labels(datastore, tmp_path, range(40))
    task = FairTrainTask(bundle, {}, Demographics())
    result = task({**FEW, "max_epochs": 1}, datastore)
    assert {row["group"] for row in result["groups"]} == {"missing"}
    with pytest.raises(LabelError, match="'sexx': expected an attribute"):
        task({**FEW, "attributes": "sexx"}, datastore)


def test_options_are_shown_and_checked(
    task: FairTrainTask, datastore: CheckedDatastore, bundle: ServedBundle, studies: Path
) -> None:
    shown = task.info()["config"]
    assert shown == {
        "max_epochs": 8, "val_split": 0.2, "seed": 0, "attributes": "sex", "rebalance": True,
        "replace": ["better", "always"], "learning_rate": 0.01,
    }  # fmt: skip
    bundle.models.joinpath("thresholds.json").unlink()
    conf = {"models": str(bundle.path), "attributes": "age, sex"}
    assert FairTrainTask(bundle, conf, Demographics()).info()["config"]["attributes"] == "age,sex"
    with pytest.raises(LabelError, match="3 problems"):
        task({"max_epochs": "8", "replace": ["never"], "val_split": 2}, datastore)
    with pytest.raises(LabelError, match="label_tag"):
        task({"label_tag": "../final"}, datastore)


def test_options_are_told_without_a_look_at_the_config(task: FairTrainTask, bundle: ServedBundle) -> None:
    # MONAI Label asks for the options of every model with every request
    before = task.info()
    (bundle.path / "configs" / "train.yaml").unlink()
    assert task.info() == before


def test_a_bundle_without_train_yaml_says_so(bundle: ServedBundle, datastore: CheckedDatastore) -> None:
    (bundle.path / "configs" / "train.yaml").unlink()
    task = FairTrainTask(bundle, {}, Demographics())
    assert task.info()["config"] == {}
    with pytest.raises(LabelError, match=r"train\.yaml: expected a file"):
        task({}, datastore)


def test_thresholds_are_fitted_for_the_new_model(
    task: FairTrainTask, datastore: CheckedDatastore, bundle: ServedBundle, tmp_path: Path
) -> None:
    save_labels(datastore, tmp_path, range(40))
    before = read_thresholds(bundle.models / "thresholds.json")
    result = task({**FEW, "replace": "always"}, datastore)
    after = read_thresholds(bundle.models / "thresholds.json")
    assert result["thresholds"].startswith("fitted on")
    assert after.attributes == before.attributes
    assert after.rows_sha256 != before.rows_sha256


def submit(server: Any, folder: Path, numbers: range) -> None:
    """Save labels, by the client and by plain HTTP in turn."""
    client, path = server.client(), folder / "label.json"
    for number in numbers:
        path.write_text(json.dumps({"label": label_of(number)}))
        if number % 4 < 2:
            assert client.save_label(f"image_{number:02}", str(path))["image"] == f"image_{number:02}"
        else:
            files = {"label": ("label.json", path.read_bytes())}
            answer = server.ask("PUT", "/datastore/label", params={"image": f"image_{number:02}"}, files=files)
            assert answer.status_code == 200, answer.text


def score_of(answer: dict[str, Any]) -> float:
    return float(answer["prediction"][0]["score"])


def files_of(bundle: ServedBundle) -> dict[str, str]:
    return {path.name: sha256(path) for path in bundle.models.iterdir() if path.is_file()}


def test_a_server_learns_from_submitted_labels_also_when_it_is_stopped(
    serve: Callable[..., Any], servers: Any, bundle: ServedBundle, studies: Path, tmp_path: Path
) -> None:
    server = serve([bundle.path], studies).start()
    image, packed = "image_39", files_of(bundle)
    before = server.infer(NAME, image)
    # too few labels, and an option that is none
    submit(server, tmp_path, range(6))
    assert server.ask("POST", f"/train/{NAME}", json={**FEW, "batch_size": 1}).status_code == 400
    assert server.ask("POST", f"/train/{NAME}", json=FEW).ok
    refused = server.wait("/train/")
    assert refused["status"] == "ERROR"
    assert any("class 0 (no disease)" in line and "more" in line for line in refused["details"])
    # a training that is stopped after its first epoch
    submit(server, tmp_path, range(6, 36))
    options, work = {**FEW, "max_epochs": 30}, studies / ".monai_fair" / NAME / "training"
    assert server.client().train_start(NAME, dict(options))["status"] == "SUBMITTED"
    end = time.monotonic() + 120
    while not list(work.glob("run_*/training_state.pt")):
        assert time.monotonic() < end, server.said()[-3000:]
        time.sleep(0.02)
    assert server.ask("DELETE", "/train/").json()["status"] == "STOPPED"
    (state,) = work.glob("run_*/training_state.pt")
    kept = state.read_bytes()
    assert files_of(bundle) == packed
    assert score_of(server.infer(NAME, image)) == score_of(before)
    assert state.read_bytes() == kept  # nothing trains on
    # asked again it goes on, and the server answers with the new model
    assert server.ask("POST", f"/train/{NAME}", json=options).ok
    task = server.wait("/train/")
    assert task["status"] == "DONE", task["details"]
    assert any("val_auc" in line for line in task["details"])
    assert "continuing after epoch" in (state.parent / "log.txt").read_text()
    after = server.infer(NAME, image)
    assert score_of(after) != score_of(before)
    out = servers.infer(bundle.path, studies / "manifest.csv", studies, tmp_path / "reference")
    scores = pd.read_csv(out, dtype={"score": float}).set_index("image")["score"]
    assert score_of(after) == np.float32(scores[f"{image}.png"])
    fitted = {group.name: group.threshold for group in read_thresholds(bundle.models / "thresholds.json").groups}
    assert (after["threshold_source"], after["threshold"]) == ("group female", fitted["female"])
    assert server.ask("GET", "/info/").json()["train_stats"][NAME]["metric"]["after"] > 0.8
