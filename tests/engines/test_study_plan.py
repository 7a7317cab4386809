"""What a study makes of its arms: overlays, chains, what they share, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from monai_fair.engines.study_plan import StudyPlan, Sweep, external_problems
from monai_fair.errors import ArtifactError

CHAIN = [["a.yaml"], ["b.yaml"], []]


def plan(arms: Any, folder: Path, **options: Any) -> StudyPlan:
    given = {"inputs": {}, "config_dir": Path("configs"), "output_dir": folder, "taken": {}, **options}
    return StudyPlan(arms, ["evaluate.yaml"], **given)


def shared_chains(found: StudyPlan) -> set[tuple[tuple[str, ...], ...]]:
    return {beginning.trainings for beginning in found.shared}


def test_an_arm_is_one_training_or_several(tmp_path: Path) -> None:
    found = plan({"erm": [], "nir": ["a.yaml", "nir.yaml"], "both": CHAIN}, tmp_path)
    assert [found.arms[arm].trainings for arm in ("erm", "nir", "both")] == [
        ((),), (("a.yaml", "nir.yaml"),), (("a.yaml",), ("b.yaml",), ()),
    ]  # fmt: skip
    assert set(found.evaluations.values()) == {("evaluate.yaml",)}


def test_what_trainings_begin_with_is_shared(tmp_path: Path) -> None:
    # another arm trains on from [a], [b]; what only one arm ends with is its own
    arms = {"alone": ["c.yaml"], "half": CHAIN[:2], "whole": CHAIN, "other": [["a.yaml"], ["c.yaml"]]}
    assert shared_chains(plan(arms, tmp_path)) == {(("a.yaml",),), (("a.yaml",), ("b.yaml",))}
    # of an arm with several trainings all but the last, so that an arm that comes later finds them
    assert shared_chains(plan({"whole": CHAIN}, tmp_path)) == {(("a.yaml",),), (("a.yaml",), ("b.yaml",))}
    assert shared_chains(plan({"alone": ["c.yaml"], "erm": []}, tmp_path)) == set()
    # two evaluations of one model
    two = {"one": ["c.yaml"], "two": {"trainings": ["c.yaml"], "evaluate": [{"rule": "youden"}]}}
    assert shared_chains(plan(two, tmp_path)) == {(("c.yaml",),)}


def test_arms_with_inputs_of_their_own_share_nothing(tmp_path: Path) -> None:
    found = plan({"one": ["c.yaml"], "two": ["c.yaml"]}, tmp_path, inputs={"two": ["more.csv"]})
    assert found.shared == set()
    assert found.files == [Path("more.csv"), Path("configs/c.yaml"), Path("configs/evaluate.yaml")]


def test_keys_stand_for_a_config_file(tmp_path: Path) -> None:
    keys = {"weight": 0, "network#width": [4, 8], "rule": None}
    found = plan({"one": ["c.yaml", keys], "two": [["c.yaml", dict(reversed(keys.items()))]]}, tmp_path)
    (first,), (second,) = found.arms["one"].trainings, found.arms["two"].trainings
    assert first == second  # the same keys are the same overlay
    config, written = found.paths(first)
    assert config == Path("configs/c.yaml")
    assert written.parent == tmp_path / "overlays"
    assert written not in found.files
    assert not written.parent.exists()
    found.write()
    assert yaml.safe_load(written.read_text()) == keys
    before = written.stat().st_mtime_ns
    found.write()
    assert written.stat().st_mtime_ns == before


def test_labels_name_what_was_trained_last_and_tell_chains_apart(tmp_path: Path) -> None:
    arms = {
        "whole": CHAIN,
        "weighted": [["a.yaml"], ["b.yaml", {"weight": 0}], []],
        "inputs": CHAIN,
    }
    found = plan(arms, tmp_path, inputs={"inputs": ["more.csv"]})
    labels = [found.label(beginning) for beginning in found.shared]
    assert len(set(labels)) == len(labels) == 5
    assert {label.split("-")[0] for label in labels} == {"a", "b"}
    again = plan(arms, tmp_path / "elsewhere", inputs={"inputs": ["more.csv"]})
    assert sorted(map(again.label, again.shared)) == sorted(labels)


LIST = "expected a list of overlays, or such a list for each training, got {}; write it as one of them"
OWN = "expected keys of its own, got 'rate', which overrides sets for every run; keep one"


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        ("nir.yaml", LIST.format("'nir.yaml'")),
        (["b.yaml", ["c.yaml"]], LIST.format("['b.yaml', ['c.yaml']]")),
        (None, LIST.format("None")),
        (
            {"configs": [], "evaluate": []},
            "expected 'trainings' and perhaps 'evaluate', got configs, evaluate; correct the keys",
        ),
        (["b.yaml", {"rate": 1}], OWN),
        ({"trainings": [], "evaluate": [{"rate": 1}]}, OWN),
    ],
)
def test_what_is_no_arm_is_refused(tmp_path: Path, arm: Any, message: str) -> None:
    with pytest.raises(ArtifactError) as caught:
        plan({"a": arm}, tmp_path, taken={"rate": 2})
    assert str(caught.value) == f"study {tmp_path}: arm 'a': {message}"


@pytest.mark.parametrize("name", ["", "../erm", "a/b", "a=b", "0", ".hidden"])
def test_a_name_that_is_no_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ArtifactError) as caught:
        plan({name: []}, tmp_path)
    message = "expected a name of letters, digits, '_', '.' or '-', from a letter on; give it such a one"
    assert str(caught.value) == f"study {tmp_path}: arm '{name}': {message}"
    (problem,) = external_problems({name: {"manifest": "m.csv", "dataset_dir": "."}})
    assert problem == f"external '{name}': {message}"


@pytest.mark.parametrize("data", ["m.csv", {"manifest": "m.csv"}, {"manifest": "m.csv", "root": "."}])
def test_other_data_are_a_manifest_and_its_root(data: Any) -> None:
    wanted = f"external 'there': expected 'manifest' and 'dataset_dir', got {data!r}; give both"
    assert external_problems({"there": data}) == [wanted]


def test_all_arms_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"2 problems\n  1. arm 'a'.*\n  2. arm 'c'"):
        plan({"a": "a.yaml", "b": [], "c": None}, tmp_path)


def test_a_sweep_is_an_arm_for_each_value() -> None:
    swept = Sweep("f", "strength", [0, 0.5], [["a.yaml"], ["b.yaml"]])
    assert swept.arms == {
        "f_0": [["a.yaml"], ["b.yaml", {"strength": 0}]],
        "f_0.5": [["a.yaml"], ["b.yaml", {"strength": 0.5}]],
    }
    assert swept.record == {"parameter": "strength", "runs": {"f_0": 0, "f_0.5": 0.5}}
    first = Sweep("f", "weight", [1], [["a.yaml"], ["b.yaml"]], stage=0)
    assert first.arms == {"f_1": [["a.yaml", {"weight": 1}], ["b.yaml"]]}


@pytest.mark.parametrize(
    ("values", "stage", "message"),
    [
        ([], -1, "expected values of 'x', got none"),
        ([1, 2, 1], -1, "expected each value of 'x' once, got 1 2 times; keep one"),
        ([1], 2, "expected one of 2 trainings as stage, got 2; correct it"),
        ([1], -3, "expected one of 2 trainings as stage, got -3; correct it"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused(values: list[float], stage: int, message: str) -> None:
    with pytest.raises(ArtifactError) as caught:
        Sweep("f", "x", values, [[], []], stage=stage)
    assert str(caught.value) == f"sweep f: {message}"
