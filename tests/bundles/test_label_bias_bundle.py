"""label_bias.yaml and group_labels.yaml: which labels are learned, which stay, and what is refused."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from monai_fair.data import read_predictions
from monai_fair.data.artifacts import read_json, sha256
from monai_fair.errors import MonaiFairError
from monai_fair.metrics import separability

from .conftest import read_text_table

# MONAI says of every config that it is a program (GHSA-873f-pvrv-4x83); these are our own.
pytestmark = [pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning"), pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def biased(bundle: Any, two_to_one: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an epoch on biased labels and its evaluation on all rows, not to be written to."""
    folder = tmp_path_factory.mktemp("biased")
    bundle.train(folder, "label_bias", manifest=str(two_to_one))
    return bundle.evaluate(folder, "label_bias", manifest=str(two_to_one), evaluate_splits=["train", "val", "test"])


def refused(bundle: Any, output: Path, *names: str, **options: Any) -> str:
    with pytest.raises((MonaiFairError, RuntimeError)) as caught:
        bundle.run("train", "small", *names, output=output, **options)
    error: BaseException = caught.value
    while error.__cause__ is not None:
        error = error.__cause__
    assert isinstance(error, MonaiFairError)
    return str(error)


def test_a_quarter_of_a_groups_positives_is_missed_where_it_is_trained(biased: Path, two_to_one: Path) -> None:
    clean = read_text_table(two_to_one).set_index("image")
    learned = read_text_table(biased / "labels.csv").set_index("image").loc[clean.index]
    changes = read_text_table(biased / "labels_changes.csv")
    pd.testing.assert_frame_equal(learned.assign(label=learned["clean_label"])[list(clean)], clean)
    changed = learned["label"] != clean["label"]
    assert set(clean.index[changed]) == set(changes["image"])
    eligible = (clean["sex"] == "female") & (clean["label"] == "1")
    assert not (changed & ~eligible).any()
    n_changed = {}
    for split in ("train", "val", "test"):
        n_changed[split] = int((changed & (clean["split"] == split)).sum())
        asked = round(0.25 * int((eligible & (clean["split"] == split)).sum()))
        assert n_changed[split] == (0 if split == "test" else asked)
    assert n_changed["train"] >= 2
    assert n_changed["val"] >= 1
    record = read_json(biased / "labels.json", "manifest")["label_bias"]
    assert {row["split"]: row["n_changed"] for row in record["measured"]} == n_changed
    assert (record["group"], record["seed"], record["input_sha256"]) == ({"sex": "female"}, 0, sha256(two_to_one))
    scored = read_predictions(biased / "predictions.csv").table.set_index("image")
    assert sorted(scored.index) == sorted(clean.index)
    assert (scored["label"].astype(str) == learned["label"].loc[scored.index]).all()
    test = scored[scored["split"] == "test"]
    assert (test["label"].astype(str) == clean["label"].loc[test.index]).all()


def test_the_bias_is_drawn_by_the_seed_of_the_training_or_by_its_own(
    bundle: Any, biased: Path, two_to_one: Path, tmp_path: Path
) -> None:
    def changed(seed: int, **options: Any) -> list[str]:
        output = tmp_path / f"{seed}_{len(options)}"
        workflow = bundle.workflow(
            "train", "label_bias", output=output, seed=seed, manifest=str(two_to_one), initialize=False, **options
        )
        assert workflow.parser.get_parsed_content("label_manifest") == str(output / "labels.csv")
        return list(read_text_table(output / "labels_changes.csv")["image"])

    assert changed(0) == list(read_text_table(biased / "labels_changes.csv")["image"])
    assert changed(1) != changed(0)
    assert changed(1, bias_seed=7) == changed(0, bias_seed=7)


def test_the_biased_labels_are_those_that_are_learned(bundle: Any, two_to_one: Path, tmp_path: Path) -> None:
    parser = bundle.workflow("train", "label_bias", output=tmp_path, manifest=str(two_to_one)).parser
    labels = read_text_table(parser.get_parsed_content("label_manifest"))
    for part, split in (("train", "train"), ("validate", "val")):
        rows = parser.get_parsed_content(f"{part}#dataset#data")
        expected = labels[labels["split"] == split]
        assert [item["label"] for item in rows] == expected["label"].astype(int).tolist()
        assert [item["clean_label"] for item in rows] == expected["clean_label"].astype(int).tolist()
        assert (expected["label"] != expected["clean_label"]).any()


def test_an_evaluation_of_other_labels_is_refused(bundle: Any, biased: Path, two_to_one: Path, tmp_path: Path) -> None:
    model = biased / "model.pt"
    options = {"manifest": str(two_to_one), "seed": 1, "bias_rate": 0.5, "ckpt_path": str(model)}
    assert refused(bundle, tmp_path, "label_bias", "evaluate", **options) == (
        f"{model}: bias_rate: trained with 0.25, now 0.5; bias_seed: trained with 0, now 1; "
        "give the values it was trained with"
    )


def pairs_ranked_right(label: pd.Series, score: pd.Series) -> float:
    """AUC as the probability that a positive is ranked above a negative."""
    positive, negative = score[label == 1].to_numpy(), score[label == 0].to_numpy()
    return float(np.greater.outer(positive, negative).mean() + np.equal.outer(positive, negative).mean() / 2)


def test_a_group_is_learned_from_the_rows_that_tell_it(bundle: Any, two_to_one: Path, tmp_path: Path) -> None:
    options = {"manifest": str(two_to_one), "learned_group": {"sex": "male"}}
    bundle.train(tmp_path, "group_labels", **options)
    bundle.evaluate(tmp_path, "group_labels", **options)
    rows = read_predictions(tmp_path / "predictions.csv").table
    table = read_text_table(two_to_one)
    kept = table[(table["sex"] != "") & (table["split"] != "train")]
    assert 0 < len(kept) < (table["split"] != "train").sum()
    assert sorted(rows["image"]) == sorted(kept["image"])
    assert (rows["label"] == (rows["sex"] == "male")).all()
    test = rows[rows["split"] == "test"]
    found = separability(tmp_path / "predictions.csv")
    assert found.auc == pytest.approx(pairs_ranked_right(test["label"], test["score"]), abs=1e-12)
    other = {**options, "learned_group": {"sex": "female"}}
    assert "learned_group: trained with {'sex': 'male'}, now {'sex': 'female'}; give" in refused(
        bundle, tmp_path, "group_labels", "evaluate", **other
    )


@pytest.mark.parametrize(
    ("overlay", "options", "expected"),
    [
        (
            "neural_collapse",
            {"collapse_attributes": ["gender"]},
            "NeuralCollapseHandler: expected the attribute 'gender' in the batch, the ones there are sex, age, "
            "age_group; name one, or load the rows by load_datalist",
        ),
        (
            "neural_collapse",
            {"collapse_attributes": "sex"},
            "NeuralCollapseHandler: attributes: expected a list such as ['sex'], got 'sex'",
        ),
        (
            "label_bias",
            {"bias_rate": 2, "bias_group": {"sex": "other"}},
            "{manifest}: 2 problems\n"
            "  1. rate: expected a share from 0 to 1, got 2\n"
            "  2. sex=other: expected a group that occurs (female, male), got no row of it",
        ),
        (
            "group_labels",
            {"learned_group": {"sex": "other"}},
            "{manifest}: sex=other: expected a group that occurs (female, male), got no row of it",
        ),
    ],
)
def test_bad_options_are_one_error_before_the_training(
    bundle: Any, tmp_path: Path, overlay: str, options: Mapping[str, Any], expected: str
) -> None:
    message = refused(bundle, tmp_path, overlay, **{"max_epochs": 2, "collapse_interval": 2, **options})
    assert message == expected.replace("{manifest}", str(bundle.cohort / "manifest.csv"))
    assert not list(tmp_path.iterdir())
