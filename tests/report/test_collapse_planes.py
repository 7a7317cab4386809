"""Features in the plane of their class means: by hand, from the files of a run, drawn, and undefined."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from monai_fair.data.artifacts import read_tensors
from monai_fair.errors import ArtifactError
from monai_fair.report.collapse_planes import project_features, read_planes

Records = list[dict[str, Any]]


def test_planes_of_the_first_seed(collapse_experiments: Records) -> None:
    planes = [plane for own in collapse_experiments for plane in read_planes(own)]
    assert [(plane["experiment"], plane["checkpoint"], plane["seed"]) for plane in planes] == [
        (name, checkpoint, 0) for name in ("skin: sex", "skin: age_group") for checkpoint in ("early", "final")
    ]
    plane = planes[1]
    run = Path(collapse_experiments[0]["runs"]["biased"]["final"][0])
    labels = pd.read_csv(run / "labels.csv", keep_default_na=False)
    train = (labels["split"] == "train").to_numpy()
    table = labels[train]
    h = read_tensors(run / "features.safetensors")[0]["features"].astype(float)[train]
    # 180 samples: all are drawn, in their order
    assert (plane["n"], plane["n_mislabelled"], plane["reason"]) == (
        180,
        int((table["label"] != table["clean_label"]).sum()),
        "",
    )
    assert plane["label"] == table["label"].tolist()
    assert plane["clean_label"] == table["clean_label"].tolist()
    assert plane["in_group"] == (table["sex"] == "female").tolist()
    means = np.stack([h[table["label"] == k].mean(axis=0) for k in (0, 1)])
    between = means[1] - means[0]
    points = np.array(plane["points"])
    np.testing.assert_allclose(points[:, 0], (h - means[0]) @ between / (between @ between), atol=1e-9)
    beside = h - means[table["label"]]
    beside = beside - np.outer(beside @ between, between) / (between @ between)
    widest = np.linalg.svd(beside)[1][0] / np.linalg.norm(between)
    own = points[:, 1] - np.array([points[table["label"] == k, 1].mean() for k in (0, 1)])[table["label"]]
    assert np.linalg.norm(own) == pytest.approx(widest)
    for number, mean in enumerate(plane["means"]):
        assert mean == [number, 0]
        np.testing.assert_allclose(points[table["label"] == number].mean(axis=0), mean, atol=1e-9)


def test_a_plane_by_hand() -> None:
    # means (0, 0, 5) and (2, 0, 5): unit 2. Beside the first axis only the second entry varies
    features = np.array([[0, -1, 5], [0, 1, 5], [2, -3, 5], [2, 3, 5]], dtype=float)
    points, reason = project_features(features, np.array([0, 0, 1, 1]))
    assert points == pytest.approx(np.array([[0, -0.5], [0, 0.5], [1, -1.5], [1, 1.5]]))
    assert reason == ""
    collapsed, _ = project_features(features * [1, 0, 1], np.array([0, 0, 1, 1]))
    assert collapsed == pytest.approx(np.array([[0, 0], [0, 0], [1, 0], [1, 0]]))
    single, _ = project_features(features[:, :1], np.array([0, 0, 1, 1]))
    assert single == pytest.approx(np.array([[0, 0], [0, 0], [1, 0], [1, 0]]))


@pytest.mark.parametrize("seed", range(8))
def test_the_second_axis_has_a_sign_of_its_own(seed: int) -> None:
    """Solvers give either direction, and pictures of two checkpoints should not be mirrored by chance."""
    features, label = np.random.default_rng(seed).normal(size=(20, 4)), np.arange(20) % 2
    points, _ = project_features(features, label)
    means = np.stack([features[label == number].mean(axis=0) for number in (0, 1)])
    axis = np.linalg.lstsq(features - means[0], points[:, 1] * np.linalg.norm(means[1] - means[0]))[0]
    assert np.linalg.norm(axis) == pytest.approx(1)
    assert axis @ (means[1] - means[0]) == pytest.approx(0, abs=1e-9)
    assert axis[np.abs(axis).argmax()] > 0


@pytest.mark.parametrize(
    ("label", "reason"),
    [([0, 0, 0, 0], "train has samples of one label only"), ([0, 1, 0, 1], "the class means coincide")],
)
def test_planes_that_are_undefined_say_why(label: list[int], reason: str) -> None:
    features = np.array([[0, 1.0], [0, 1.0], [3, 1.0], [3, 1.0]])
    points, said = project_features(features, np.array(label))
    assert said == reason
    assert np.isnan(points).all()


def test_large_cohorts_are_drawn_with_the_mislabelled_among_them(
    monkeypatch: pytest.MonkeyPatch, collapse_experiments: Records
) -> None:
    monkeypatch.setattr("monai_fair.report.collapse_planes._MOST", 30)
    plane = read_planes(collapse_experiments[0])[0]
    wrong = np.array(plane["label"]) != np.array(plane["clean_label"])
    assert len(plane["points"]) == len(wrong) == 30
    assert int(wrong.sum()) == plane["n_mislabelled"] == 7
    assert plane["points"] == read_planes(collapse_experiments[0])[0]["points"]
    monkeypatch.setattr("monai_fair.report.collapse_planes._MOST", 8)
    few = read_planes(collapse_experiments[0])[0]
    assert int((np.array(few["label"]) != np.array(few["clean_label"])).sum()) == 4


def test_a_plane_needs_the_rows_of_its_labels(collapse_copy: Records) -> None:
    path = Path(collapse_copy[0]["runs"]["biased"]["early"][0]) / "labels.csv"
    labels = pd.read_csv(path, dtype=str, keep_default_na=False)
    train = labels.index[labels["split"] == "train"]
    labels.drop(index=train[:3]).to_csv(path, index=False)
    with pytest.raises(ArtifactError) as caught:
        read_planes(collapse_copy[0])
    predictions = path.with_name("predictions.csv")
    assert str(caught.value) == f"{predictions}: expected the rows of labels.csv, 3 others are there; evaluate again"
