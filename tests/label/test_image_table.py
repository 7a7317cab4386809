"""What a server knows of its images as a table: groups, counts of training, scores, and whose threshold applies."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies
from numpy.testing import assert_array_equal

from monai_fair.data.artifacts import write_json
from monai_fair.errors import LabelError
from monai_fair.label.audit_bounds import Bound, read_bounds
from monai_fair.label.image_groups import ImageFacts, TrainingRows, level_of, levels_of_cuts, usual_ways
from monai_fair.label.image_table import build_table
from monai_fair.label.served_bundle import ServedBundle
from monai_fair.label.sidecar import ImageScores
from monai_fair.label.training_counts import training_rows
from monai_fair.metrics import ThresholdFitter

IMAGES = [
    ImageFacts("a", True, 0.0, {"sex": "female", "age": "39"}),
    ImageFacts("b", False, 5.0, {"sex": "male", "age": "40"}),
    ImageFacts("c", False, 0.0, {"sex": "male"}),
    ImageFacts("d", False, 0.0, {"age": "60", "sex": ""}),
]
NAN = math.nan


def test_images_and_groups_come_in_their_order() -> None:
    found = build_table(IMAGES, ["sex"])
    assert found.ids == ("a", "b", "c", "d")
    assert_array_equal(found.labelled, [True, False, False, False])
    assert_array_equal(found.served_at, [0, 5, 0, 0])
    (sex,) = found.groups
    assert (sex.name, sex.names) == ("sex", ("female", "male"))
    assert_array_equal(sex.shares, [[1, 0], [0, 1], [0, 1], [NAN, NAN]])
    assert_array_equal(sex.known, [True, True, True, False])
    assert_array_equal(sex.best, [0, 1, 1, -1])


def test_missing_values_are_a_group_only_when_asked_for() -> None:
    (sex,) = build_table(IMAGES, ["sex"], missing="group").groups
    assert sex.names == ("female", "male", "missing")
    assert_array_equal(sex.best, [0, 1, 1, 2])
    with pytest.raises(LabelError, match="missing: expected last or group, got 'drop'"):
        build_table(IMAGES, ["sex"], missing="drop")


def test_numbers_are_divided_at_cuts_and_a_cut_goes_above() -> None:
    (age,) = build_table(IMAGES, ["age:40/60"]).groups
    assert age.names == ("40 to below 60", "60 and above", "below 40")
    assert [age.names[place] if place >= 0 else "" for place in age.best] == [
        "below 40", "40 to below 60", "", "60 and above",
    ]  # fmt: skip
    (age,) = build_table(IMAGES, ["age:halves"], cuts={"age:halves": ["below 50", "50 and above"]}).groups
    assert [age.names[place] if place >= 0 else "" for place in age.best] == [
        "below 50",
        "below 50",
        "",
        "50 and above",
    ]


def test_several_attributes_at_once_are_intersections() -> None:
    (both,) = build_table(IMAGES, ["sex+age:40"]).groups
    assert (both.name, both.names) == ("sex+age:40", ("female & below 40", "male & 40 and above"))
    assert_array_equal(both.best, [0, 1, -1, -1])
    odd = [ImageFacts("a", False, 0.0, {"x": "1 & 2", "y": "3"}), ImageFacts("b", False, 0.0, {"x": "1", "y": "2 & 3"})]
    (both,) = build_table(odd, ["x+y"]).groups  # names look alike, groups differ
    assert len(both.names) == 2
    assert both.best[0] != both.best[1]


def test_what_the_model_was_trained_on_counts_in_its_group() -> None:
    training = TrainingRows([{"sex": "male"}, {"sex": "other"}, {"sex": "male"}, {}])
    (sex,) = build_table(IMAGES, ["sex"], training=training).groups
    assert sex.names == ("female", "male", "other")
    assert_array_equal(sex.earlier, [0, 2, 1])


def test_discovered_subgroups_are_those_of_their_names() -> None:
    found = ImageScores.of(
        {"d": "v", "b": "v"}, subgroups=[[0.2, 0.8], [NAN, NAN]], subgroup_names=("S1", "S2"), reasons={"b": "folds"}
    )
    training = TrainingRows((), np.array([[0.5, 0.5], [1.0, 0.0]]), ("S1", "S2"))
    (own,) = build_table(IMAGES, ["subgroup"], subgroups=found, training=training).groups
    assert_array_equal(own.shares, [[NAN, NAN], [NAN, NAN], [NAN, NAN], [0.2, 0.8]])
    assert_array_equal(own.earlier, [1.5, 0.5])
    (own,) = build_table(
        IMAGES, ["subgroup"], subgroups=found, training=TrainingRows((), np.ones((4, 1)), ("S1",))
    ).groups
    assert_array_equal(own.earlier, [0, 0])  # subgroups of another discovery


def test_scores_meet_their_images_and_thresholds_their_groups() -> None:
    rng = np.random.default_rng(0)
    groups = pd.DataFrame({"sex": np.repeat(["female", "male"], 60)})
    y = np.tile([0, 1], 60)
    fitted = ThresholdFitter(attributes=["sex"]).fit(
        y, np.clip(0.4 * y + 0.6 * rng.random(120), 0, 1), groups, split="val"
    )
    scores = ImageScores.of({"gone": "v", "c": "v", "a": "v"}, scores=[0.9, 0.3, 0.1])
    found = build_table(IMAGES, ["sex"], scores=scores, thresholds=fitted)
    assert_array_equal(found.scores, [0.1, NAN, 0.3, NAN])
    own = {group.name: group.threshold for group in fitted.groups}
    assert_array_equal(found.thresholds, [own["female"], own["male"], own["male"], fitted.pooled])
    assert found.threshold_sources == ("group female", "group male", "group male", "pooled")
    found = build_table(IMAGES, ["sex"])
    assert_array_equal(found.thresholds, [0.5] * 4)
    assert found.threshold_sources == ("no thresholds are stored",) * 4


def test_a_threshold_that_is_undefined_is_one_half_and_said() -> None:
    fitted = ThresholdFitter().fit([1, 1], [0.5, 0.6], split="val")
    found = build_table(IMAGES, ["sex"], thresholds=fitted)
    assert_array_equal(found.thresholds, [0.5] * 4)
    assert found.threshold_sources == ("no threshold is defined",) * 4


def test_ways_that_there_are_not_are_all_said() -> None:
    with pytest.raises(LabelError) as caught:
        build_table(IMAGES, ["race", "sex+site", "subgroup", "age:old"])
    absent = "by: expected an attribute that an image has (age, sex), got '{}'; correct the name, or tell the attribute"
    assert str(caught.value) == (
        "strategy: 4 problems\n"
        f"  1. {absent.format('race')}\n"
        f"  2. {absent.format('site')}\n"
        "  3. by: expected discovered subgroups for 'subgroup', no image has one; score a registration bundle with "
        "subgroups first (POST /scoring/NAME)\n"
        "  4. by: expected cuts such as age:40/60, or a rule that the audit has, got 'age:old'"
    )


def test_the_usual_ways_are_those_that_thresholds_or_audit_know() -> None:
    many = [ImageFacts(f"i{n}", False, 0.0, {"sex": "ab"[n % 2], "code": str(n), "site": "x"}) for n in range(11)]
    assert usual_ways(many, ["age", "sex"], training=None) == ["sex"]
    assert usual_ways(many, [], training=None) == ["sex"]  # a code is no group, and one site divides nothing
    assert usual_ways(many, ["site"], training=None) == ["sex"]
    assert usual_ways(many[:10], [], training=None) == ["code", "sex"]
    assert usual_ways(many, ["code:3/7"], training=None) == ["code:3/7"]
    assert usual_ways([], [], training=TrainingRows([{"race": "b"}, {"race": "w"}])) == ["race"]
    found = ImageScores.of({"i0": "v"}, subgroups=[[1.0, 0.0]], subgroup_names=("S1", "S2"))
    assert usual_ways(many, ["sex", "subgroup"], subgroups=found, training=None) == ["sex", "subgroup"]
    assert usual_ways(many, ["sex"], subgroups=found, training=None) == ["sex", "subgroup"]
    assert usual_ways(many, ["subgroup"], training=None) == []


@given(
    value=strategies.floats(-100, 100, allow_nan=False),
    cuts=strategies.lists(strategies.integers(-90, 90), min_size=1, max_size=5, unique=True),
)
def test_a_number_is_in_the_group_that_an_audit_would_give_it(value: float, cuts: list[int]) -> None:
    cuts = sorted(cuts)
    levels = levels_of_cuts("/".join(map(str, cuts)))
    assert level_of(repr(value), levels) == levels[np.searchsorted(cuts, value, side="right")]


def test_what_is_no_number_is_in_no_group() -> None:
    assert level_of("", ["all"]) == ""
    assert level_of("old", ["below 40", "40 and above"]) == ""
    assert level_of("7", ["all"]) == "all"
    assert level_of("nan", ["below 40", "40 and above"]) == ""


def served(folder: Path, kind: str = "classification") -> ServedBundle:
    (folder / "models").mkdir(parents=True)
    return ServedBundle(folder.name, folder, kind)


def test_training_rows_are_those_of_the_training_part_that_have_no_label_on_the_server(tmp_path: Path) -> None:
    bundle = served(tmp_path / "skin_classification")
    assert training_rows(bundle, None, []).attributes == []
    table = pd.DataFrame(
        [
            ["s1", "x/one.jpg", 0, "train", "female"],
            ["s2", "x/two.nii.gz", 1, "train", "male"],
            ["s3", "x/three.jpg", 1, "train", ""],
            ["s4", "x/four.jpg", 1, "val", "male"],
            ["s5", "x/five.jpg", 1, "test", "male"],
        ],
        columns=["subject_id", "image", "label", "split", "sex"],
    )
    table.to_csv(bundle.models / "manifest.csv", index=False)
    sexes = [row["sex"] for row in training_rows(bundle, None, []).attributes]
    assert sexes == ["female", "male", ""]
    # one image by its file, one by its subject; what has no label on the server still counts as trained on
    facts = [ImageFacts("two", True), ImageFacts("another", True, subject_id="s3"), ImageFacts("one", False)]
    assert [row["sex"] for row in training_rows(bundle, None, facts).attributes] == ["female"]
    table.drop(columns="split").to_csv(bundle.models / "manifest.csv", index=False)
    assert len(training_rows(bundle, None, []).attributes) == 5


def test_training_subjects_have_the_subgroups_of_the_discovery(tmp_path: Path) -> None:
    bundle, finder = served(tmp_path / "skin_classification"), served(tmp_path / "brain", "registration")
    folder = finder.models / "subgroups"
    folder.mkdir()
    pd.DataFrame(
        {
            "subject_id": ["s1", "s2", "s3"], "split": ["train", "train", "test"], "fitted": [1, 1, 0],
            "subgroup": ["S1", "S2", "S1"], "membership_S1": [0.9, 0.2, 1], "membership_S2": [0.1, 0.8, 0],
        }
    ).to_csv(folder / "subgroups.csv", index=False)  # fmt: skip
    facts = [ImageFacts("s1_T1w", True, subject_id="s1"), ImageFacts("s2_T1w", False, subject_id="s2")]
    found = training_rows(bundle, finder, facts)
    assert found.subgroup_names == ("S1", "S2")
    assert_array_equal(found.subgroups, [[0.2, 0.8]])


def test_an_image_of_which_the_scoring_failed_is_told_from_one_that_waits() -> None:
    made = {"a": "", "b": "", "c": ""}
    scores = ImageScores.of(made, scores=[0.1, NAN, 0.4], reasons={"b": "no picture"})
    assert_array_equal(build_table(IMAGES, [], scores=scores).failed, [False, True, False, False])


def record(low: float | None, value: float | None = 0.8, reason: str = "") -> dict[str, Any]:
    return {"value": value, "low": low, "high": None, "n": 12.0, "reason": None, "interval_reason": reason or None}


def test_an_audit_is_read_by_attribute_and_group(tmp_path: Path) -> None:
    def table(*attributes: str, **groups: dict[str, dict[str, Any]]) -> dict[str, Any]:
        cells = {name: {run: {"auc": cell} for run, cell in runs.items()} for name, runs in groups.items()}
        return {"attributes": list(attributes), "groups": [{"name": n, "cells": c} for n, c in cells.items()]}

    few = record(None, reason="few")
    both_runs = {"erm": record(0.2), "nir": record(0.2)}
    sex = table("sex", f={"erm": record(0.6), "nir": record(0.7)}, m={"erm": few, "nir": record(0.5)}, x=both_runs)
    both = table("sex", "age:40", f={"erm": record(0.4), "nir": record(0.4)})
    content = {"runs": [{"name": "erm"}, {"name": "nir"}], "targets": [{"name": "label 1", "tables": [sex, both]}]}
    path = write_json(tmp_path / "metrics.json", "audit", content)
    found = read_bounds(path)
    assert found.metric == "auc (run erm)"
    assert list(found.groups) == ["sex", "sex+age:40"]
    assert found.groups["sex"]["f"] == Bound(0.8, 0.6, 12)
    assert math.isnan(found.groups["sex"]["m"].low)
    assert found.groups["sex"]["m"].reason == "few"
    assert read_bounds(path, preferred="nir").groups["sex"]["f"].low == 0.7
    assert read_bounds(path, run="erm", preferred="nir").groups["sex"]["f"].low == 0.6
    assert read_bounds(path, preferred="skin").metric == "auc (run erm)"
    for options, message in (
        ({"run": "x"}, "run: expected one of erm, nir, got 'x'"),
        ({"metric": "brier"}, "metric: expected one of auc, .* with a rule where it needs one, got 'brier'"),
        ({"metric": "tpr@0.5"}, "metric: expected one of auc, got 'tpr@0.5'"),
    ):
        with pytest.raises(LabelError, match=message):
            read_bounds(path, **options)
    other = {
        "name": "label 2",
        "tables": [table("sex", f={"erm": record(0.3)}, m={"erm": record(0.9)}, x={"erm": record(0.8)})],
    }
    one = {"runs": [{"name": "erm"}], "targets": [{"name": "label 1", "tables": [sex]}, other]}
    found = read_bounds(write_json(tmp_path / "several.json", "audit", one))
    assert found.metric == "auc"
    assert found.groups["sex"]["f"] == Bound(0.8, 0.3, 12, "", "label 2")
    assert found.groups["sex"]["m"].low == 0.9
    assert found.groups["sex"]["x"] == Bound(0.8, 0.2, 12, "", "label 1")
