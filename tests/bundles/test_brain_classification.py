"""The 3D classifier: trained, resumed, scored; rows drawn by weight and group DRO, in both bundles."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from ignite.engine import Engine, Events
from scipy.special import expit

from monai_fair.data import read_predictions
from monai_fair.data.artifacts import read_tensors
from monai_fair.errors import ArtifactError, GeometryError, ManifestError, MonaiFairError

from .conftest import same

# MONAI says of every config that it is a program (GHSA-873f-pvrv-4x83); these are our own.
pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")

StateOf = Callable[[Path], dict[str, torch.Tensor]]
MITIGATIONS = [("rebalanced",), ("group_dro",), ("rebalanced", "group_dro"), ("group_dro", "nir")]


class KilledError(Exception):
    pass


def kill(_: Engine) -> None:
    raise KilledError


def saved(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "training_state.pt", weights_only=True)


def root_cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None and not isinstance(error, MonaiFairError):
        error = error.__cause__
    return error


@pytest.fixture(scope="module")
def weighted(brains: Any) -> dict[str, str]:
    return {"manifest": f"{brains.cohort}/weighted.csv"}


def test_one_epoch_from_a_clean_folder_writes_only_under_output_dir(
    brains: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    before = sorted(brains.root.rglob("*")), sorted(brains.cohort.rglob("*"))
    output = brains.train(tmp_path / "run")
    assert sorted(path.name for path in output.iterdir()) == ["model.json", "model.pt", "training_state.pt"]
    assert (sorted(brains.root.rglob("*")), sorted(brains.cohort.rglob("*"))) == before
    assert list(elsewhere.iterdir()) == []


def test_the_last_epoch_is_kept_unless_the_best_is_asked_for(brains: Any, tmp_path: Path, state_of: StateOf) -> None:
    options = {"max_epochs": 6, "learning_rate": 0.01}
    last = brains.train(tmp_path / "last", **options)
    best = brains.train(tmp_path / "best", keep_best=True, **options)
    state = saved(best)
    assert same({**saved(last), "settings": 0}, {**state, "settings": 0})
    assert same(state_of(last), saved(last)["network"])
    assert state["best_metric_epoch"] < 6  # else the two would be the same
    assert not same(state_of(best), state_of(last))
    (tmp_path / "until").mkdir()
    trainer = brains.workflow("train", output=tmp_path / "until", **options)
    engine = trainer.parser.get_parsed_content("train#trainer")
    engine.add_event_handler(Events.EPOCH_STARTED(once=state["best_metric_epoch"] + 1), kill)
    with pytest.raises((KilledError, RuntimeError)):
        trainer.run()
    assert same(state_of(best), state_of(tmp_path / "until"))


def test_inference_gives_the_scores_of_evaluation(brains: Any, trained_on_brains: Path, tmp_path: Path) -> None:
    model = trained_on_brains / "model.pt"
    evaluated = brains.evaluate(tmp_path / "evaluated", ckpt_path=str(model), batch_size=7)
    inferred = brains.infer(tmp_path / "inferred", model)
    one = read_predictions(evaluated / "predictions.csv").table.set_index("image")["score"]
    other = read_predictions(inferred / "predictions.csv").table.set_index("image")["score"]
    assert (len(one), len(other)) == (20, 40)
    assert one.nunique() > 15
    np.testing.assert_allclose(other[one.index], one, rtol=0, atol=1e-6)
    arrays, _ = read_tensors(evaluated / "features.safetensors")
    scores = expit(arrays["features"] @ arrays["weight"].T + arrays["bias"])[:, 0]
    np.testing.assert_allclose(scores, one.to_numpy(), rtol=0, atol=1e-5)
    assert arrays["features"].min() == 0


@pytest.mark.parametrize("overlays", [(), *MITIGATIONS], ids="+".join)
def test_killed_and_run_again_equals_uninterrupted(
    brains: Any, weighted: dict[str, str], tmp_path: Path, state_of: StateOf, overlays: tuple[str, ...]
) -> None:
    options = {"max_epochs": 4, **weighted}
    brains.train(tmp_path / "whole", *overlays, **options)
    workflow = brains.workflow("train", *overlays, output=tmp_path / "killed", **options)
    workflow.parser.get_parsed_content("train#trainer").add_event_handler(Events.EPOCH_STARTED(once=3), kill)
    with pytest.raises((KilledError, RuntimeError)):
        workflow.run()
    assert saved(tmp_path / "killed")["epoch"] == 2
    brains.train(tmp_path / "killed", *overlays, **options)
    assert same(state_of(tmp_path / "whole"), state_of(tmp_path / "killed"))
    assert same(saved(tmp_path / "whole"), saved(tmp_path / "killed"))
    if "group_dro" in overlays:
        assert saved(tmp_path / "whole")["objects"]["group_loss"]["log_weights"].exp().std() > 1e-4


def test_every_overlay_changes_the_training(
    brains: Any, weighted: dict[str, str], trained_on_brains: Path, tmp_path: Path, state_of: StateOf
) -> None:
    models = [state_of(trained_on_brains)]
    for index, overlays in enumerate(MITIGATIONS):
        models.append(state_of(brains.train(tmp_path / str(index), *overlays, max_epochs=2, **weighted)))
        assert not any(same(models[-1], other) for other in models[:-1])
    # a column of weights alone changes nothing
    assert same(models[0], state_of(brains.train(tmp_path / "erm", max_epochs=2, **weighted)))


def test_a_change_of_schedule_or_mitigation_is_refused_by_name(
    brains: Any, weighted: dict[str, str], tmp_path: Path
) -> None:
    brains.train(tmp_path, "group_dro", **weighted)
    for overlays, options, said in (
        (("group_dro",), {"max_epochs": 2}, "max_epochs: 1 there, 2 now"),
        (("group_dro",), {"group_step_size": 1.0}, "group_step_size: 0.01 there, 1.0 now"),
        (("group_dro", "rebalanced"), {}, "rows_drawn: not set there, by weight now"),
    ):
        with pytest.raises((ArtifactError, RuntimeError)) as caught:
            brains.train(tmp_path, *overlays, **{**weighted, **options})
        error = root_cause(caught.value)
        assert isinstance(error, ArtifactError)
        assert said in str(error)


@pytest.mark.parametrize("which", ["bundle", "brains"])
@pytest.mark.parametrize(
    ("overlay", "said"),
    [
        ("rebalanced", "expected a weight in every training row"),
        ("group_dro", "attribute 'subgroup': expected a column of that name"),
    ],
)
def test_a_manifest_without_weights_or_subgroups_is_refused(
    request: pytest.FixtureRequest, tmp_path: Path, which: str, overlay: str, said: str
) -> None:  # fmt: skip
    with pytest.raises((ManifestError, RuntimeError)) as caught:
        request.getfixturevalue(which).train(tmp_path / "run", overlay)
    error = root_cause(caught.value)
    assert isinstance(error, ManifestError)
    assert said in str(error)
    assert "python -m monai_fair rebalance" in str(error)
    assert not (tmp_path / "run").exists()


def test_the_2d_bundle_trains_with_both_overlays(bundle: Any, tmp_path: Path, state_of: StateOf) -> None:
    table = pd.read_csv(bundle.cohort / "manifest.csv", dtype=str, keep_default_na=False)
    table["weight"] = [str(1 + index % 3) for index in range(len(table))]
    table.to_csv(tmp_path / "weighted.csv", index=False)
    options = {"manifest": str(tmp_path / "weighted.csv"), "group_attribute": "sex"}
    erm = state_of(bundle.train(tmp_path / "erm", manifest=options["manifest"]))
    for overlay in ("rebalanced", "group_dro"):
        assert not same(state_of(bundle.train(tmp_path / overlay, overlay, **options)), erm)


def test_a_damaged_volume_is_named_with_its_reason(brains: Any, tmp_path: Path) -> None:
    table = pd.read_csv(brains.cohort / "manifest.csv", dtype=str)
    for split in ("train", "val"):
        for image in table.loc[table["split"] == split, "image"]:
            (tmp_path / image).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / image).write_bytes((brains.cohort / image).read_bytes())
    broken = tmp_path / table.loc[table["split"] == "train", "image"].iloc[3]
    broken.write_bytes(broken.read_bytes()[:-20])
    table.to_csv(tmp_path / "manifest.csv", index=False)
    with pytest.raises((GeometryError, RuntimeError)) as caught:
        brains.train(tmp_path / "run", dataset_dir=str(tmp_path))
    error = root_cause(caught.value)
    assert isinstance(error, GeometryError)
    assert str(error).startswith(f"{broken}: expected a whole NIfTI file")


def test_a_switch_given_as_text_is_refused(brains: Any, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError) as caught:
        brains.train(tmp_path / "run", keep_best="false")
    message = "options: expected --keep_best True or --keep_best False, got 'false'; spell it so"
    assert str(root_cause(caught.value)) == message


def test_three_classes_train_and_are_scored(brains: Any, tmp_path: Path) -> None:
    table = pd.read_csv(brains.cohort / "manifest.csv", dtype=str)
    table["label"] = [str(index % 3) for index in range(len(table))]
    table.to_csv(tmp_path / "m.csv", index=False)
    options = {"manifest": str(tmp_path / "m.csv"), "num_classes": 3}
    output = brains.train(tmp_path / "run", "nir", **options)
    brains.evaluate(output, **options)
    scores = read_predictions(output / "predictions.csv").table[["score_0", "score_1", "score_2"]]
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-6)


def test_a_larger_network_by_its_overlay(brains: Any, tmp_path: Path) -> None:
    small = {"network_def#layers": [1, 1, 1, 1], "network_def#block_inplanes": [4, 4, 8, 8], "tiny_network": False}
    output = brains.train(tmp_path / "run", "resnet", "nir", **small)
    scored = brains.infer(tmp_path / "scored", output / "model.pt", "resnet", **small)
    assert torch.load(output / "model.pt", weights_only=True)["fc.weight"].shape == (1, 8)
    assert len(read_predictions(scored / "predictions.csv").table) == 40
