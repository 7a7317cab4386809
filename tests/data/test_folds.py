"""One manifest per fold: by subject, evenly by label, with the test rows left alone."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monai_fair.data import load_datalist, read_manifest, write_folds, write_manifest
from monai_fair.data.artifacts import read_json, sha256
from monai_fair.data.builder import BuiltManifest
from monai_fair.errors import ArtifactError, ManifestError, SplitError

SETTINGS = settings(
    deadline=None, max_examples=25, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
Write = Callable[[pd.DataFrame], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(table: pd.DataFrame) -> Path:
        table.to_csv(tmp_path / "manifest.csv", index=False)
        return tmp_path / "manifest.csv"

    return written


def cohort(*labels: int, images: int = 1, test: int = 4) -> pd.DataFrame:
    """Subjects of given labels with so many images each, and some of test."""
    rows = [
        (f"{who:03d}", f"images/{who}_{image}.png", label, "val" if who % 3 == 0 else "train", "89+")
        for who, label in enumerate(labels)
        for image in range(images)
    ]
    rows += [(f"t{who}", f"images/t{who}.png", who % 2, "test", "001") for who in range(test)]
    return pd.DataFrame(rows, columns=["subject_id", "image", "label", "split", "age"])


def read(path: str | Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False)


# 20 subjects without and 10 with the disease, of two images each: every fold has 4 and 2 of them, so val has 12 rows,
# and train the other 48.
def test_every_fold_is_val_once_and_has_its_share_of_every_label(write: Write, tmp_path: Path) -> None:
    table = cohort(*[0] * 20, *[1] * 10, images=2)
    paths = write_folds(write(table), tmp_path / "folds", seed=3)
    assert paths == [str(tmp_path / "folds" / f"fold_{fold}.csv") for fold in range(5)]
    held_out = []
    for fold, path in enumerate(paths):
        found = read(path)
        pd.testing.assert_frame_equal(found.drop(columns=["split", "fold"]), table.drop(columns="split").astype(str))
        assert list(found)[:5] == ["subject_id", "image", "label", "split", "fold"]
        val = found[found["split"] == "val"]
        assert val["label"].value_counts().to_dict() == {"0": 8, "1": 4}
        assert set(val["fold"]) == {str(fold)}
        assert (found["split"] == "train").sum() == 48
        assert found[found["split"] == "test"]["image"].tolist() == [f"images/t{who}.png" for who in range(4)]
        assert set(found[found["split"] == "test"]["fold"]) == {""}
        held_out += sorted(set(val["subject_id"]))
        assert len(load_datalist(path, tmp_path / "elsewhere", ["train", "val"])) == 60
    assert sorted(held_out) == [f"{who:03d}" for who in range(30)]


def test_the_records_say_how_and_how_many(write: Write, tmp_path: Path) -> None:
    path = write(cohort(*[0] * 20, *[1] * 10, images=2))
    first = write_folds(path, tmp_path / "folds", seed=3)[0]
    record = read_json(tmp_path / "folds" / "folds.json", "folds")
    how = {
        "input": "manifest.csv",
        "input_sha256": sha256(path),
        "from": "subjects",
        "stratify": ["label"],
        "seed": 3,
        "folds": 5,
        "num_classes": 2,
    }
    assert {name: record[name] for name in how} == how
    assert record["warnings"] == []
    parts = [
        {"split": "train", "n": 48, "n_subjects": 24, "n_per_class": [32, 16]},
        {"split": "val", "n": 12, "n_subjects": 6, "n_per_class": [8, 4]},
        {"split": "test", "n": 4, "n_subjects": 4, "n_per_class": [2, 2]},
    ]
    assert record["manifests"][0] == {"fold": 0, "file": "fold_0.csv", "manifest_sha256": sha256(first), "parts": parts}
    own = read_json(Path(first).with_suffix(".json"), "manifest")
    assert {name: own[name] for name in how} == how
    assert own["parts"] == parts
    assert own["manifest_sha256"] == sha256(first)


def test_the_number_of_classes_goes_along(tmp_path: Path) -> None:
    table = cohort(*[0, 1, 2] * 6).astype(str)
    path = write_manifest(BuiltManifest(table, {"num_classes": 3}), tmp_path / "manifest.csv")
    first = write_folds(path, tmp_path / "folds", folds=3)[0]
    assert read_json(Path(first).with_suffix(".json"), "manifest")["num_classes"] == 3
    record = read_json(tmp_path / "folds" / "folds.json", "folds")
    assert record["warnings"] == ["test has no row of class 2: rates of it are undefined there"]


def test_a_column_is_used_as_it_is(write: Write, tmp_path: Path) -> None:
    table = cohort(*[0, 1] * 6)
    table["fold"] = ["1", "1", "0", "0", "0", "0", "2", "2", "2", "2", "2", "2", "7", "", "x", "7"]
    paths = write_folds(write(table), tmp_path / "folds", folds=3, seed=9)
    for fold, path in enumerate(paths):
        found = read(path)
        assert list(found) == list(table)
        assert found["fold"].tolist() == [*table["fold"][:12], "", "", "", ""]  # a row of test is in no fold
        assert (found["split"] == "val").tolist() == (table["fold"] == str(fold)).tolist()
    record = read_json(tmp_path / "folds" / "folds.json", "folds")
    assert (record["from"], "seed" in record) == ("column fold", False)


def test_a_written_fold_has_the_same_folds_again(write: Write, tmp_path: Path) -> None:
    paths = write_folds(write(cohort(*[0, 1] * 10)), tmp_path / "folds")
    again = write_folds(paths[3], tmp_path / "again", seed=5)
    assert [Path(path).read_bytes() for path in again] == [Path(path).read_bytes() for path in paths]


def test_a_second_call_changes_nothing_and_completes_what_is_not_there(write: Write, tmp_path: Path) -> None:
    path, folder = write(cohort(*[0, 1] * 10)), tmp_path / "folds"
    paths = write_folds(path, folder)
    states = {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in folder.iterdir()}
    assert write_folds(path, folder) == paths
    assert {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in folder.iterdir()} == states
    for name in ("fold_1.csv", "fold_2.json", "folds.json"):
        (folder / name).unlink()
    write_folds(path, folder)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == {name: old[0] for name, old in states.items()}


def test_other_folds_are_not_overwritten(write: Write, tmp_path: Path) -> None:
    path, folder = write(cohort(*[0, 1] * 10)), tmp_path / "folds"
    write_folds(path, folder)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    with pytest.raises(ArtifactError) as caught:
        write_folds(path, folder, folds=4, seed=1)
    assert str(caught.value) == (
        f"{folder}: 2 problems\n"
        "  1. folds.json: expected seed 1, found 0; give another folder\n"
        "  2. folds.json: expected folds 4, found 5; give another folder"
    )
    known = sha256(path)
    path.write_text(path.read_text() + "new,images/new.png,1,train,70\n")
    with pytest.raises(ArtifactError) as caught:
        write_folds(path, folder)
    assert str(caught.value) == (
        f"{folder}: folds.json: expected input_sha256 '{sha256(path)}', found '{known}'; give another folder"
    )
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_a_file_that_was_changed_is_not_overwritten(write: Write, tmp_path: Path) -> None:
    path, folder = write(cohort(*[0, 1] * 10)), tmp_path / "folds"
    write_folds(path, folder)
    (folder / "fold_2.csv").write_text("mine")
    for record in (True, False):
        if not record:
            (folder / "folds.json").unlink()
        with pytest.raises(ArtifactError) as caught:
            write_folds(path, folder)
        assert str(caught.value) == (
            f"{folder}: fold_2.csv: expected a fold of this manifest, found other content; give another folder"
        )
    assert (folder / "fold_2.csv").read_text() == "mine"


@SETTINGS
@given(st.integers(0, 2**32 - 1), st.integers(2, 6), st.integers(0, 99))
def test_folds_share_out_subjects_in_whatever_order_rows_come(write: Write, seed: int, folds: int, draw: int) -> None:
    rng = np.random.default_rng(seed)
    labels = [*[0, 1] * folds, *rng.integers(0, 2, rng.integers(0, 30))]
    table = cohort(*labels, images=int(rng.integers(1, 4)))
    path = write(table)
    first = write_folds(path, path.with_name(f"a{seed}_{folds}_{draw}"), folds=folds, seed=draw)
    order = rng.permutation(len(table))
    write(table.iloc[order])
    second = write_folds(path, path.with_name(f"b{seed}_{folds}_{draw}"), folds=folds, seed=draw)
    val = []
    for one, other in zip(map(read, first), map(read, second), strict=True):
        pd.testing.assert_frame_equal(one.iloc[order].reset_index(drop=True), other)
        assert one.groupby("subject_id")["split"].nunique().max() == 1
        val.append(one[one["split"] == "val"].drop_duplicates("subject_id"))
    for label in ("0", "1"):
        counts = [(rows["label"] == label).sum() for rows in val]
        assert max(counts) - min(counts) <= 1
    assert max(map(len, val)) - min(map(len, val)) <= 1


def refused(path: Path, **options: object) -> str:
    with pytest.raises(SplitError) as caught:
        write_folds(path, path.with_name("folds"), **options)  # type: ignore[arg-type]
    assert not path.with_name("folds").exists()
    return str(caught.value).removeprefix(f"{path}: ")


def test_what_is_no_number_of_folds(write: Write) -> None:
    path = write(cohort(*[0, 1] * 10))
    assert refused(path, folds=1) == "folds: expected a whole number from 2 on, got 1"
    assert refused(path, folds=True) == "folds: expected a whole number from 2 on, got True"
    assert refused(path, folds=2.5) == "folds: expected a whole number from 2 on, got 2.5"


def test_too_few_subjects(write: Write) -> None:
    # 12 images, but of four subjects
    path = write(cohort(0, 1, 0, 1, images=3))
    assert refused(path) == "expected at least 5 subjects outside test, got 4; take fewer folds"


def test_without_test_or_split_there_is_nothing_to_hold_back(write: Write) -> None:
    table = cohort(*[0, 1] * 10, test=0)
    assert refused(write(table)) == (
        "expected rows with split 'test', which are in no fold, got none; say which these are"
    )
    numbered = table.drop(columns="split").assign(fold=0)
    assert refused(write(numbered), folds=0) == (
        "2 problems\n  1. folds: expected a whole number from 2 on, got 0\n"
        "  2. expected a column 'split', because rows of test are in no fold, found none; add it"
    )
    path = write(table.drop(columns="split"))
    with pytest.raises(ManifestError, match=r"expected a column 'split' \(train, val, test\) or 'fold'"):
        write_folds(path, path.with_name("folds"))


def test_a_column_that_is_none_of_such_folds(write: Write) -> None:
    table = cohort(*[0, 1] * 4, images=2)
    table["fold"] = [*"1122", "1", "3", *"331122", "", "1", *"220000"]
    remedy = "number its folds from 0 and give folds as many, or remove the column"
    assert refused(write(table), folds=3) == (
        "4 problems\n"
        f"  1. column 'fold': expected one of 0, 1, 2 in every row outside test, got '' in 1 rows; {remedy}\n"
        f"  2. column 'fold': expected one of 0, 1, 2 in every row outside test, got '3' in 3 rows; {remedy}\n"
        f"  3. column 'fold': expected rows of fold 0, got none; {remedy}\n"
        "  4. column 'fold': subject '002' stands in 1 and 3; put it in one"
    )


# Three subjects with the disease in five folds: two folds have none, and no training lacks them.
def test_a_fold_without_a_class_is_named(write: Write) -> None:
    lines = refused(write(cohort(*[0] * 17, 1, 1, 1))).splitlines()
    assert lines[0] == "2 problems"
    for line in lines[1:]:
        assert line.partition(": ")[2] == "expected rows of every class in val, got none of class 1; take fewer folds"


def test_a_training_part_without_a_class_is_named(write: Write) -> None:
    table = cohort(0, 0, 0, 1, 1)
    table["fold"] = ["0", "0", "0", "1", "1", "", "", "", ""]
    assert refused(write(table), folds=2) == (
        "4 problems\n"
        "  1. fold 0: expected rows of every class in train, got none of class 0; correct the column 'fold'\n"
        "  2. fold 0: expected rows of every class in val, got none of class 1; correct the column 'fold'\n"
        "  3. fold 1: expected rows of every class in train, got none of class 1; correct the column 'fold'\n"
        "  4. fold 1: expected rows of every class in val, got none of class 0; correct the column 'fold'"
    )


def test_the_verb_counts_every_fold_and_ends_with_the_record(write: Write, tmp_path: Path) -> None:
    write(cohort(*[0] * 20, *[1] * 10, images=2))
    command = [sys.executable, "-W", "error", "-m", "monai_fair", "folds", "manifest.csv", "--out", "folds"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    counted = [f"folds/fold_{fold}.csv: train 48, val 12, test 4" for fold in range(5)]
    assert done.stdout.splitlines() == [*counted, "folds/folds.json"]
    read_manifest(tmp_path / "folds" / "fold_4.csv")
    done = subprocess.run([*command, "--folds", "1"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "SplitError: manifest.csv: folds: expected a whole number from 2 on, got 1\n"
