"""Training through the bundle: where it writes, what it writes, and what makes two runs equal."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from monai_fair.data import read_predictions
from monai_fair.errors import ManifestError, MonaiFairError

# MONAI says of every config that it is a program (GHSA-873f-pvrv-4x83); these are our own.
pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")

State = dict[str, torch.Tensor]
StateOf = Callable[[Path], State]


def equal(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    status = {path: path.stat() for path in folder.rglob("*")}
    return {str(path.relative_to(folder)): (found.st_mtime_ns, found.st_size) for path, found in status.items()}


def test_one_epoch_from_a_clean_folder_writes_only_under_output_dir(
    bundle: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The whole folder of tests runs with connections refused. Root may write to read-only folders, so instead of
    # taking the permission away this looks for changes.
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    before = tree(bundle.root), tree(bundle.cohort)
    output = bundle.train(tmp_path / "new" / "run")
    assert sorted(path.name for path in output.iterdir()) == ["model.json", "model.pt", "training_state.pt"]
    assert (tree(bundle.root), tree(bundle.cohort)) == before
    assert list(elsewhere.iterdir()) == []


def test_the_model_is_a_plain_state_dict_of_the_network(bundle: Any, trained: Path, tmp_path: Path) -> None:
    state = torch.load(trained / "model.pt", weights_only=True)
    assert all(type(value) is torch.Tensor for value in state.values())
    network = bundle.workflow("train", output=tmp_path).parser.get_parsed_content("network_def")
    initial = {name: value.clone() for name, value in network.state_dict().items()}
    network.load_state_dict(state, strict=True)
    assert not equal(initial, network.state_dict())


def test_one_seed_gives_one_model_and_another_seed_another(
    bundle: Any, trained: Path, tmp_path: Path, state_of: StateOf
) -> None:
    again = bundle.train(tmp_path / "again", max_epochs=2)
    other = bundle.train(tmp_path / "other", max_epochs=2, seed=1)
    assert equal(state_of(trained), state_of(again))
    assert not equal(state_of(trained), state_of(other))


def test_nir_without_weight_is_erm_bit_by_bit(bundle: Any, trained: Path, tmp_path: Path, state_of: StateOf) -> None:
    without = bundle.train(tmp_path / "without", "nir", max_epochs=2, nir_weight=0)
    with_nir = bundle.train(tmp_path / "with", "nir", max_epochs=2)
    assert equal(state_of(trained), state_of(without))
    assert not equal(state_of(trained), state_of(with_nir))


def test_workers_repeat_and_agree_where_nothing_is_random(bundle: Any, tmp_path: Path, state_of: StateOf) -> None:
    """Augmentations are drawn per worker, so num_workers is part of a seed; without them it changes nothing."""
    drawn = [bundle.train(tmp_path / f"drawn_{i}", num_workers=2, cache_rate=0.0) for i in range(2)]
    assert equal(*map(state_of, drawn))
    alone = bundle.train(tmp_path / "alone", num_workers=0, cache_rate=0.0)
    assert not equal(state_of(drawn[0]), state_of(alone))
    plain = {"train#random_transforms": [], "cache_rate": 0.0}
    still = [bundle.train(tmp_path / f"still_{count}", num_workers=count, **plain) for count in (0, 2)]
    assert equal(*map(state_of, still))


def test_caching_changes_nothing(bundle: Any, trained: Path, tmp_path: Path, state_of: StateOf) -> None:
    uncached = bundle.train(tmp_path / "uncached", max_epochs=2, cache_rate=0.0)
    assert equal(state_of(trained), state_of(uncached))


def test_balanced_class_weights_reach_the_loss(bundle: Any, trained: Path, tmp_path: Path, state_of: StateOf) -> None:
    labels = pd.read_csv(bundle.cohort / "manifest.csv").query("split == 'train'")["label"]
    expected = [len(labels) / (2 * (labels == index).sum()) for index in (0, 1)]
    workflow = bundle.workflow("train", "small", output=tmp_path, class_weights="balanced")
    np.testing.assert_allclose(workflow.parser.get_parsed_content("loss").weight, expected, rtol=1e-12)
    assert workflow.parser.get_parsed_content("train#trainer").loss_function.weight is not None
    weighted = bundle.train(tmp_path / "run", max_epochs=2, class_weights="balanced")
    assert not equal(state_of(trained), state_of(weighted))


def test_class_weights_of_the_wrong_number_are_refused(bundle: Any, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError) as caught:
        bundle.train(tmp_path / "run", class_weights=[1.0, 2.0, 3.0])
    root = _root_cause(caught.value)
    assert isinstance(root, ManifestError)
    assert str(root) == "class_weights: expected null, 'balanced' or 2 weights, got [1.0, 2.0, 3.0]"


@pytest.mark.parametrize(("overlays", "switch"), [((), "amp"), (("nir",), "nir_scale_free")])
def test_a_switch_given_as_text_is_refused(bundle: Any, tmp_path: Path, overlays: tuple[str, ...], switch: str) -> None:
    with pytest.raises(RuntimeError) as caught:
        bundle.train(tmp_path / "run", *overlays, **{switch: "false"})
    assert str(_root_cause(caught.value)) == (
        f"options: expected --{switch} True or --{switch} False, got 'false'; spell it so"
    )
    assert not (tmp_path / "run").exists()


def test_tracking_writes_metrics_as_tensorboard_events(bundle: Any, tmp_path: Path) -> None:
    bundle.train(tmp_path / "run", "nir", tracking_dir=str(tmp_path / "events"))
    events = b"".join(path.read_bytes() for path in (tmp_path / "events").glob("events.out.tfevents.*"))
    for name in (b"train_loss", b"val_auc", b"nir_top1_share"):
        assert name in events


def test_nothing_is_tracked_unless_asked(bundle: Any, trained: Path) -> None:
    assert not list(trained.rglob("*tfevents*"))


# MONAI's ROCAUC warns before it gives NaN.
@pytest.mark.filterwarnings("ignore:y values can not be all 0:UserWarning")
def test_a_validation_split_of_one_class_is_an_error_that_says_so(bundle: Any, tmp_path: Path) -> None:
    table = pd.read_csv(bundle.cohort / "manifest.csv", dtype=str, keep_default_na=False)
    table[(table["split"] != "val") | (table["label"] == "0")].to_csv(tmp_path / "m.csv", index=False)
    with pytest.raises((MonaiFairError, RuntimeError)) as caught:
        bundle.train(tmp_path / "run", manifest=str(tmp_path / "m.csv"))
    assert str(_root_cause(caught.value)) == (
        "validation metric 'val_auc': expected a number, got nan; it is undefined when the validation split holds a "
        "single class or no group has enough cases (the log names them), so check the manifest's splits"
    )
    assert not (tmp_path / "run" / "model.pt").exists()


def test_three_classes_train_evaluate_and_infer(bundle: Any, tmp_path: Path) -> None:
    table = pd.read_csv(bundle.cohort / "manifest.csv", dtype=str, keep_default_na=False)
    table["label"] = [str(index % 3) for index in range(len(table))]
    table.to_csv(tmp_path / "m.csv", index=False)
    options = {"manifest": str(tmp_path / "m.csv"), "num_classes": 3}
    output = bundle.train(tmp_path / "run", "nir", class_weights="balanced", **options)
    bundle.evaluate(output, **options)
    bundle.infer(tmp_path / "inference", output / "model.pt", **options)
    evaluated = read_predictions(output / "predictions.csv")
    assert evaluated.score_columns == ("score_0", "score_1", "score_2")
    assert len(evaluated.table) == (table["split"] != "train").sum()
    scores = evaluated.table.set_index("image")[list(evaluated.score_columns)]
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-6)
    inferred = read_predictions(tmp_path / "inference" / "predictions.csv")
    assert inferred.table["label"].astype(str).tolist() == table["label"].tolist()
    again = inferred.table.set_index("image").loc[scores.index, list(evaluated.score_columns)]
    np.testing.assert_allclose(again, scores, atol=1e-6)


def test_another_network_of_monai_by_an_overlay(bundle: Any, tmp_path: Path) -> None:
    network = {
        "_target_": "monai.networks.nets.DenseNet121",
        "spatial_dims": 2,
        "in_channels": 3,
        "out_channels": "@out_channels",
    }
    overlay = tmp_path / "densenet.yaml"
    overlay.write_text(yaml.safe_dump({"network_def": network, "last_layer": "class_layers.out"}))
    options = {"image_size": 32, "load_size": 36, "tiny_network": False}
    output = bundle.train(tmp_path / "run", str(overlay), "nir", **options)
    bundle.evaluate(output, str(overlay), **options)
    assert torch.load(output / "model.pt", weights_only=True)["class_layers.out.weight"].shape == (1, 1024)
    assert len(read_predictions(output / "predictions.csv").table) == 23


def test_thickness_maps_train(bundle: Any, tmp_path: Path) -> None:
    """The overlay for .npz maps, on random maps in micrometres with negative values on the disc."""
    rng = np.random.default_rng(0)
    rows = []
    for index, split in enumerate(["train"] * 8 + ["val"] * 4):
        np.savez(tmp_path / f"{index}.npz", rnflt=rng.uniform(-2, 350, (40, 40)).astype(np.float32), other=np.ones(3))
        rows.append({"subject_id": f"s{index}", "image": f"{index}.npz", "label": index % 2, "split": split})
    pd.DataFrame(rows).to_csv(tmp_path / "manifest.csv", index=False)
    output = bundle.train(tmp_path / "run", "rnflt", dataset_dir=str(tmp_path))
    assert (output / "model.pt").is_file()


def _root_cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error
