"""FairREAD as a bundle: three stages that hand weights on, resume to the bit, store thresholds and infer."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedEvaluator, SupervisedTrainer

from monai_fair.data import read_predictions
from monai_fair.data.artifacts import read_json
from monai_fair.errors import ArtifactError, ManifestError, root_cause
from monai_fair.metrics import read_thresholds

# MONAI says of every config that it is a program (GHSA-873f-pvrv-4x83); these are our own.
pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")

STAGES: dict[str, tuple[tuple[str, ...], str, str]] = {
    "attributes": (("stage1_attributes",), "stage1_attributes.pt", "stage1_attributes_state.pt"),
    "encoder": (("stage1_encoder",), "stage1_encoder.pt", "stage1_encoder_state.pt"),
    "re-fusion": ((), "model.pt", "training_state.pt"),
}


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize(
    "names",
    [
        ("train",),
        ("train", "stage1_attributes"),
        ("train", "stage1_encoder"),
        ("train", "erm"),
        ("train", "adversary"),
        ("train", "small"),
        ("train", "evaluate"),
        ("train", "stage1_encoder", "evaluate"),
    ],
    ids="+".join,
)
def test_every_component_builds(fairread: Any, fused: Path, tmp_path: Path, names: tuple[str, ...]) -> None:
    small = "small" in names
    paths = {"encoder_path": str(fused / "stage1_encoder.pt"), "attributes_path": str(fused / "stage1_attributes.pt")}
    if names != ("train",):
        paths.pop("encoder_path")  # an overlay says where its encoder comes from
    if "stage1_encoder" not in names:
        paths.pop("attributes_path")
    options: dict[str, Any] = {"tiny_network": not small, **paths, "tracking_dir": str(tmp_path / "events")}
    options |= {"encoder_path": None} if small else {}
    options |= {"ckpt_path": str(fused / "model.pt")} if "evaluate" in names else {}
    built = fairread.build_all(fairread.workflow(*names, output=tmp_path / "out", **options))
    assert isinstance(built["train#trainer"], SupervisedTrainer)
    assert isinstance(built["validate#evaluator"], SupervisedEvaluator)
    assert not (tmp_path / "out").exists()  # building writes nothing


def test_the_network_of_full_size_is_the_published_one(fairread: Any, tmp_path: Path) -> None:
    options = {"tiny_network": False, "encoder_path": None, "missing_attributes": False}
    workflow = fairread.workflow("train", output=tmp_path, attributes={"sex": None, "age_group": None}, **options)
    network = workflow.parser.get_parsed_content("network_def")
    own = sum(weight.numel() for name, weight in network.named_parameters() if not name.startswith("encoder."))
    # published for three attributes; each less is 128 weights less before the latent space, and 1025 in the adversary
    assert own == 2_358_276 - 128 - 1025
    assert network.encoder.norm5.num_features == 1024


@pytest.mark.parametrize(
    ("finding", "blocks", "strength"),
    [("cardiomegaly", 2, 0.1), ("pleural_effusion", 2, 0), ("pneumonia", 2, 0.5), ("fracture", 1, 0.5)],
)
def test_each_finding_has_its_published_settings(
    fairread: Any, fused: Path, tmp_path: Path, finding: str, blocks: int, strength: float
) -> None:
    options = {"encoder_path": str(fused / "stage1_encoder.pt")}
    parser = fairread.workflow("train", finding, output=tmp_path, **options).parser
    network = parser.get_parsed_content("network_def")
    assert len(network.blocks) == blocks
    # without a strength there is no adversary that nothing would train
    handlers = parser.get_parsed_content("train#more_handlers")
    assert [handler.strength for handler in handlers] == ([strength] if strength else [])
    assert (network.adversary is not None) == bool(strength)


def test_each_stage_starts_where_the_one_before_ended(fairread: Any, fused: Path, tmp_path: Path) -> None:
    for name in ("stage1_attributes", "stage1_encoder"):
        assert read_json(fused / f"{name}.json", "model")["settings"]["attributes"]["levels"] == {
            "sex": ["female", "male"], "age_group": ["<60", ">=60"],
        }  # fmt: skip
    workflow = fairread.workflow("train", output=tmp_path, encoder_path=str(fused / "stage1_encoder.pt"))
    encoder = workflow.parser.get_parsed_content("network_def").encoder.state_dict()
    stored = weights(fused / "stage1_encoder.pt")
    assert {f"encoder.{name}" for name in encoder} == {name for name in stored if name.startswith("encoder.")}
    assert all(torch.equal(value, stored[f"encoder.{name}"]) for name, value in encoder.items())
    workflow = fairread.workflow(
        "train", "stage1_encoder", output=tmp_path, attributes_path=str(fused / "stage1_attributes.pt")
    )
    model = workflow.parser.get_parsed_content("attribute_model").state_dict()
    stored = weights(fused / "stage1_attributes.pt")
    assert all(torch.equal(value, stored[name]) for name, value in model.items())
    # of the same start, but none of the other's weights
    fresh = workflow.parser.get_parsed_content("network_def").state_dict()
    assert not torch.equal(fresh["encoder.conv0.weight"], model["encoder.conv0.weight"])


class KilledError(Exception):
    pass


def kill(_: Engine) -> None:
    raise KilledError


@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_stage_goes_on_and_ends_as_if_it_had_not(
    fairread: Any, fused: Path, tmp_path: Path, stage: str
) -> None:
    overlays, model, state = STAGES[stage]
    options: dict[str, Any] = {"max_epochs": 3, "stage1_epochs": 3}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
        for name in ("stage1_attributes", "stage1_encoder"):
            if name not in overlays:
                shutil.copy(fused / f"{name}.pt", folder)
    fairread.train(whole, *overlays, **options)
    workflow = fairread.workflow("train", *overlays, output=killed, **options)
    trainer = workflow.parser.get_parsed_content("train#trainer")
    steps = trainer.state.epoch_length or len(trainer.data_loader)
    trainer.add_event_handler(Events.ITERATION_COMPLETED(once=steps + 1), kill)
    with pytest.raises(RuntimeError) as caught:
        workflow.run()
    assert root_cause(caught.value).startswith("KilledError")
    assert torch.load(killed / state, weights_only=True)["epoch"] == 1
    fairread.train(killed, *overlays, **options)
    one, other = weights(whole / model), weights(killed / model)
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    fairread.train(killed, *overlays, **options)  # finished: nothing more is done


def test_thresholds_are_stored_and_applied_by_evaluation_and_inference(
    fairread: Any, fused: Path, tmp_path: Path
) -> None:
    for name in ("model.pt", "model.json"):
        shutil.copy(fused / name, tmp_path)
    fairread.train(tmp_path, "evaluate", threshold_min_count=1)
    stored, table = read_thresholds(tmp_path / "thresholds.json"), read_predictions(tmp_path / "predictions.csv").table
    assert (stored.method, stored.attributes, stored.split) == ("min_gap", ("sex", "age_group"), "val")
    assert set(table["split"]) == {"val", "test"}
    assert table["threshold"].tolist() == stored.for_groups(table).tolist()
    # the file on its own, told nothing but where model and thresholds lie
    inferred = fairread.infer(
        tmp_path / "inferred", tmp_path / "model.pt", thresholds_path=str(tmp_path / "thresholds.json")
    )
    other = read_predictions(inferred / "predictions.csv").table.set_index("image").loc[table["image"]]
    np.testing.assert_allclose(other["score"], table["score"], rtol=0, atol=1e-6)
    assert other["threshold"].tolist() == table["threshold"].tolist()


def test_a_model_is_not_used_in_another_way_than_it_was_trained(fairread: Any, fused: Path, tmp_path: Path) -> None:
    """No weight tells a residual block from another, and no score would look wrong."""
    for option in ("residual", "positive_scale"):
        error = failing(lambda name=option: fairread.infer(tmp_path, fused / "model.pt", **{name: True}))
        assert f"{option}: trained with False, now True" in error
    error = failing(lambda: fairread.train(shutil.copytree(fused, tmp_path / "again"), residual=True, max_epochs=2))
    assert "residual" in error


def test_several_classes_are_scored_without_thresholds(fairread: Any, cohort: Path, tmp_path: Path) -> None:
    table = pd.read_csv(cohort / "manifest.csv", dtype=str, keep_default_na=False)
    table["label"] = [str(place % 3) for place in range(len(table))]
    table.to_csv(tmp_path / "manifest.csv", index=False)
    options = {"manifest": str(tmp_path / "manifest.csv"), "num_classes": 3}
    fairread.train(tmp_path / "out", "erm", **options)
    fairread.train(tmp_path / "out", "erm", "evaluate", **options)
    found = read_predictions(tmp_path / "out" / "predictions.csv")
    assert found.num_classes == 3
    assert "threshold" not in found.table
    assert not (tmp_path / "out" / "thresholds.json").exists()


def test_the_published_protocol_takes_thresholds_from_the_training_rows(
    fairread: Any, fused: Path, tmp_path: Path
) -> None:
    for name in ("model.pt", "model.json"):
        shutil.copy(fused / name, tmp_path)
    published = {"threshold_split": "train", "threshold_min_count": 1, "threshold_shrinkage": 0.0}
    fairread.train(tmp_path, "evaluate", evaluate_splits=["train", "test"], **published)
    stored = read_thresholds(tmp_path / "thresholds.json")
    assert (stored.split, stored.shrinkage) == ("train", 0.0)
    assert {group.weight for group in stored.groups} == {1.0}


def test_a_group_without_positives_gets_the_pooled_threshold_with_a_reason(
    fairread: Any, fused: Path, cohort: Path, tmp_path: Path
) -> None:
    for name in ("model.pt", "model.json"):
        shutil.copy(fused / name, tmp_path)
    table = pd.read_csv(cohort / "manifest.csv", dtype=str, keep_default_na=False)
    table.loc[(table["split"] == "val") & (table["sex"] == "female"), "label"] = "0"
    table.to_csv(tmp_path / "manifest.csv", index=False)
    options = {"manifest": str(tmp_path / "manifest.csv"), "threshold_groups": ["sex"], "threshold_min_count": 1}
    fairread.train(tmp_path, "evaluate", threshold_towards="pooled", **options)
    stored = read_thresholds(tmp_path / "thresholds.json")
    (women,) = [group for group in stored.groups if group.name == "female"]
    assert (women.n_positive, women.weight, women.threshold) == (0, 0.0, stored.pooled)
    assert women.reason.startswith("0 positives and ") or women.reason.startswith("its rows ")
    rows = read_predictions(tmp_path / "predictions.csv").table
    assert set(rows.loc[rows["sex"] == "female", "threshold"]) == {stored.pooled}


def test_where_attributes_are_missing_inference_takes_the_mean(fairread: Any, cohort: Path, tmp_path: Path) -> None:
    folder = fairread.stages(tmp_path / "model", missing_attributes=False)
    table = pd.read_csv(cohort / "manifest.csv", dtype=str, keep_default_na=False).head(6)
    options = {"missing_attributes": False}

    def scores(name: str, **values: Any) -> np.ndarray:
        table.assign(**values).to_csv(tmp_path / f"{name}.csv", index=False)
        fairread.infer(tmp_path / name, folder / "model.pt", manifest=str(tmp_path / f"{name}.csv"), **options)
        return read_predictions(tmp_path / name / "predictions.csv").table["score"].to_numpy()

    codes = read_json(folder / "model.json", "model")["settings"]["attributes"]
    known = {
        (sex, age): scores(f"{sex}{place}", sex=["female", "male"][sex], age_group=["<60", ">=60"][age])
        for place, (sex, age) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)])
    }
    share = dict(zip(map(tuple, codes["combinations"]), codes["frequencies"], strict=True))
    women = (share[0, 0] * known[0, 0] + share[0, 1] * known[0, 1]) / (share[0, 0] + share[0, 1])
    np.testing.assert_allclose(scores("women", sex="female", age_group=""), women, atol=1e-6)
    every = sum(count * known[int(sex), int(age)] for (sex, age), count in share.items()) / sum(share.values())
    np.testing.assert_allclose(scores("unknown", sex="", age_group="old"), every, atol=1e-6)


def test_arms_without_a_stage_train_and_are_scored(fairread: Any, fused: Path, tmp_path: Path) -> None:
    for arm in ("erm", "adversary"):
        fairread.train(tmp_path / arm, arm)
        fairread.train(tmp_path / arm, arm, "evaluate", threshold_min_count=1)
        assert (tmp_path / arm / "thresholds.json").is_file()
    names = weights(tmp_path / "adversary" / "model.pt").keys() - weights(tmp_path / "erm" / "model.pt").keys()
    assert {name.split(".")[0] for name in names} == {"adversary"}
    shutil.copytree(fused, tmp_path / "fcro")
    fairread.train(tmp_path / "fcro", "stage1_encoder", "evaluate", threshold_min_count=1)
    assert "threshold" in read_predictions(tmp_path / "fcro" / "predictions.csv").table


def test_a_study_says_before_its_first_stage_what_the_last_could_not_take(
    fairread: Any, cohort: Path, tmp_path: Path
) -> None:
    table = pd.read_csv(cohort / "manifest.csv", dtype=str, keep_default_na=False)
    table.loc[table["split"] == "train", "sex"] = ["", *table.loc[table["split"] == "train", "sex"].iloc[1:]]
    table.to_csv(tmp_path / "manifest.csv", index=False)
    options = {"manifest": str(tmp_path / "manifest.csv"), "tiny_network": False, "initialize": False}

    def start(missing_attributes: bool) -> None:
        more = {"missing_attributes": missing_attributes}
        fairread.workflow("study", output=tmp_path / "out", **options, **more).initialize()

    start(True)
    assert "sex: expected a value in every row, 1 of 60 have none; take missing_attributes True" in failing(
        lambda: start(False)
    )
    assert not (tmp_path / "out").exists()


def failing(run: Callable[[], Any]) -> str:
    with pytest.raises((RuntimeError, ArtifactError, ManifestError)) as caught:
        run()
    return root_cause(caught.value)


@pytest.mark.parametrize(
    ("overlays", "options", "change", "message"),
    [
        (("erm",), {"attributes": {"race": None}}, {}, "race: expected a recorded attribute (sex, age, age_group)"),
        (("erm",), {}, {"sex": "male"}, "sex: expected at least two levels in the training rows, got male"),
        (("erm",), {"attributes": {"sex": ["female", "male"]}}, {"sex": {"val": "other"}},
         "sex: expected one of female, male, 10 rows have another value, such as 'other'"),
        (("stage1_encoder",), {}, {}, "stage1_attributes.pt"),
        (("erm",), {"missing_rule": "error"}, {"sex": {"val": ""}},
         "sex: expected a value in every row, 10 of 10 have none; leave these rows out"),
        ((), {}, {}, "stage1_encoder.pt"),
    ],
)  # fmt: skip
def test_bad_input(
    fairread: Any, cohort: Path, tmp_path: Path, overlays: tuple[str, ...], options: dict[str, Any], change: Any,
    message: str,
) -> None:  # fmt: skip
    table = pd.read_csv(cohort / "manifest.csv", dtype=str, keep_default_na=False)
    for column, value in change.items():
        if isinstance(value, str):
            table[column] = value
        for split, level in value.items() if isinstance(value, dict) else ():
            table.loc[table["split"] == split, column] = level
    table.to_csv(tmp_path / "manifest.csv", index=False)
    error = failing(
        lambda: fairread.train(tmp_path / "out", *overlays, manifest=str(tmp_path / "manifest.csv"), **options)
    )
    assert message in error


def test_a_class_that_is_too_rare_for_balanced_batches_is_named(
    fairread: Any, fused: Path, cohort: Path, tmp_path: Path
) -> None:
    table = pd.read_csv(cohort / "manifest.csv", dtype=str, keep_default_na=False)
    ill = (table["split"] == "train") & (table["label"] == "1")
    table.loc[table.index[ill][1:], "label"] = "0"
    table.to_csv(tmp_path / "manifest.csv", index=False)
    error = failing(
        lambda: fairread.train(
            tmp_path / "out",
            "stage1_encoder",
            manifest=str(tmp_path / "manifest.csv"),
            attributes_path=str(fused / "stage1_attributes.pt"),
        )
    )
    assert "expected at least 4 rows of label 1 (4 in a batch), got 1; take smaller batches" in error
