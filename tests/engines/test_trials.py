"""The table of a study's runs: whole, in order, and kept where there was nothing to do."""

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from monai_fair.data.artifacts import write_json
from monai_fair.engines import BundleRun
from monai_fair.engines.bundle_runs import Trial
from monai_fair.engines.trials import trial_table, write_trials

COLUMNS = ["name", "arm", "fold", "seed", "state", "attempts", "reason", "seconds"]
LEFT = "what it starts from failed, or the study was stopped; start it again to continue"


def run(root: Path, name: str, trial: Trial | None = None, *, finished: bool = False) -> BundleRun:
    config = root / "train.yaml"
    config.write_text("run: []")
    made = BundleRun(root / name, [[config]], name=name)
    made.trial = trial
    if finished:
        write_json(made.folder / "run.json", "study_run", {"key": made.key, "name": name})
    return made


@pytest.mark.parametrize(
    ("name", "arm", "fold", "seed"),
    [
        ("erm/seed_3", "erm", None, 3),
        ("nir/fold_2/seed_10", "nir", 2, 10),
        ("shared/stage1-0123456789/seed_1", "", None, 1),
        ("shared/train-0123456789/fold_0/seed_1", "", 0, 1),
        ("shared/seed_1", "shared", None, 1),  # an arm of that name
        ("external_there/erm/fold_1/seed_0", "erm", 1, 0),
        ("erm/seed_-1", "erm", None, -1),
        ("discovery", "", None, None),
        ("erm/seed_x", "", None, None),
    ],
)
def test_names_tell_arm_fold_and_seed(tmp_path: Path, name: str, arm: str, fold: int | None, seed: int | None) -> None:
    found = trial_table([run(tmp_path, name)])
    assert list(found) == COLUMNS
    row = found.iloc[0]
    assert (row["name"], row["arm"]) == (name, arm)
    assert [None if pd.isna(row[key]) else row[key] for key in ("fold", "seed")] == [fold, seed]


def test_every_state_is_a_row_in_the_order_of_the_runs(tmp_path: Path) -> None:
    other = run(tmp_path, "other/seed_0")
    write_json(other.folder / "run.json", "study_run", {"key": "of other settings", "name": other.name})
    runs = [
        run(tmp_path, "b/seed_0", Trial("finished", 2, 61.26)),
        run(tmp_path, "a/seed_0", Trial("failed", 2, 0.04, "ManifestError: m.csv: 2 problems\n  1. one\n  2. two")),
        run(tmp_path, "c/seed_0", finished=True),
        run(tmp_path, "d/seed_0"),
        other,
    ]
    path = tmp_path / "trials.csv"
    found = write_trials(path, runs)
    # one line a run
    assert path.read_text() == (
        "name,arm,fold,seed,state,attempts,reason,seconds\n"
        "b/seed_0,b,,0,finished,2,,61.3\n"
        "a/seed_0,a,,0,failed,2,ManifestError: m.csv: 2 problems 1. one 2. two,0.0\n"
        "c/seed_0,c,,0,skipped,,finished by a study that left no table,\n"
        f'd/seed_0,d,,0,not finished,,"{LEFT}",\n'
        f'other/seed_0,other,,0,not finished,,"{tmp_path}/other/seed_0: holds a run of other settings, configs or '
        'manifest; choose another output_dir",\n'
    )
    assert [str(found[name].dtype) for name in ("fold", "seed", "attempts", "seconds")] == [
        "Int64", "Int64", "Int64", "float64"
    ]  # fmt: skip


def test_no_runs_is_a_table_without_rows(tmp_path: Path) -> None:
    assert list(trial_table([])) == COLUMNS
    assert len(write_trials(tmp_path / "trials.csv", [])) == 0


def states(path: Path) -> list[tuple[Any, ...]]:
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    return list(table[["name", "state", "attempts", "seconds"]].itertuples(index=False, name=None))


def test_what_was_finished_before_keeps_its_attempts_and_seconds(tmp_path: Path) -> None:
    path = tmp_path / "trials.csv"
    write_trials(
        path, [run(tmp_path, "a/seed_0", Trial("finished", 2, 30.5), finished=True), run(tmp_path, "b/seed_0")]
    )
    # two starts more, each with something to do
    for name in ("b/seed_0", "c/seed_0"):
        runs = [run(tmp_path, f"{arm}/seed_0") for arm in "abc"]
        (doing,) = (each for each in runs if each.name == name)
        doing.trial = Trial("finished", 1, 5.0)
        write_json(doing.folder / "run.json", "study_run", {"key": doing.key, "name": name})
        write_trials(path, runs)
    assert states(path) == [
        ("a/seed_0", "skipped", "2", "30.5"),
        ("b/seed_0", "skipped", "1", "5.0"),
        ("c/seed_0", "finished", "1", "5.0"),
    ]


def test_a_start_that_had_nothing_to_do_leaves_the_table(tmp_path: Path) -> None:
    path = tmp_path / "trials.csv"
    failed = Trial("failed", 2, 1.0, "reason")
    write_trials(
        path,
        [run(tmp_path, "a/seed_0", Trial("finished", 1, 1.0), finished=True), run(tmp_path, "b/seed_0", failed)],
    )
    before = path.read_bytes(), path.stat().st_mtime_ns
    again = [run(tmp_path, name) for name in ("a/seed_0", "b/seed_0")]
    assert list(write_trials(path, again)["state"]) == ["skipped", "not finished"]
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    # b was finished by somebody else, and another study asks for fewer runs: the table is of this one
    run(tmp_path, "b/seed_0", finished=True)
    write_trials(path, again)
    assert states(path) == [("a/seed_0", "skipped", "1", "1.0"), ("b/seed_0", "skipped", "", "")]
    write_trials(path, again[:1])
    assert states(path) == [("a/seed_0", "skipped", "1", "1.0")]


def test_a_study_that_was_refused_writes_no_table(tmp_path: Path) -> None:
    path = tmp_path / "trials.csv"
    write_trials(path, [run(tmp_path, "a/seed_0", finished=True), run(tmp_path, "b/seed_0")])
    assert not path.exists()
    before = [run(tmp_path, "a/seed_0", Trial("finished", 1, 1.0), finished=True)]
    write_trials(path, before)
    write_trials(path, [run(tmp_path, "a/seed_0"), run(tmp_path, "b/seed_0")])
    assert states(path) == [("a/seed_0", "finished", "1", "1.0")]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "name,state\na/seed_0,finished\n",
        "name,arm,fold,seed,state,attempts,reason,seconds\na/seed_0,a,,0,finished,many,,1.0\n",
        "name,arm,fold,seed,state,attempts,reason,seconds\na/seed_0,a,,0,failed,2,,1.0\n",
        "name,arm,fold,seed,state,attempts,reason,seconds\na/seed_0,a\n",
    ],
)
def test_an_earlier_table_that_says_nothing_is_written_anew(tmp_path: Path, text: str) -> None:
    path = tmp_path / "trials.csv"
    path.write_text(text)
    done = run(tmp_path, "b/seed_0", Trial("finished", 1, 2.0))
    found = write_trials(path, [run(tmp_path, "a/seed_0", finished=True), done])
    assert found["attempts"].isna().tolist() == [True, False]
    assert math.isnan(found["seconds"][0])
    assert found["reason"][0] == "finished by a study that left no table"
    assert len(pd.read_csv(path)) == 2
