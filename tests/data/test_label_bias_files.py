"""A manifest with biased labels: its columns, record and changes, what readers make of it, and the verb."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from monai_fair.data import (
    bias_label_files,
    biased_manifest,
    check_manifest,
    label_changes,
    load_datalist,
    read_manifest,
    rebalanced_manifest,
    write_biased_labels,
    write_folds,
)
from monai_fair.data.artifacts import read_json, sha256
from monai_fair.errors import ManifestError

# split, sex, label, rows: 12 positive women in train and 4 in val, of which a quarter is 3 and 1
CELLS = [
    ("train", "female", 1, 12), ("train", "female", 0, 28), ("train", "male", 1, 20), ("train", "male", 0, 40),
    ("train", "", 1, 6), ("val", "female", 1, 4), ("val", "female", 0, 6), ("val", "male", 0, 10),
    ("test", "female", 1, 10), ("test", "male", 0, 10),
]  # fmt: skip
FEMALE = {"sex": "female"}


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    rows = [(part, sex, label) for part, sex, label, n in CELLS for _ in range(n)]
    table = pd.DataFrame(rows, columns=["split", "sex", "label"])
    number = pd.Series(range(len(table)))
    table.insert(0, "subject_id", number.floordiv(2).map("{:03d}".format))  # two images each
    table.insert(1, "image", [f"images/{row}.png" for row in table.index])
    table["site"] = (number % 3).astype(str)
    table["age"] = "89+"
    path = tmp_path / "manifest.csv"
    table.to_csv(path, index=False)
    return path


def test_labels_change_and_nothing_else_does(manifest: Path, tmp_path: Path) -> None:
    built = bias_label_files(manifest, tmp_path / "biased.csv", group=FEMALE, rate=0.25)
    before, after = (
        pd.read_csv(path, dtype=str, keep_default_na=False) for path in (manifest, tmp_path / "biased.csv")
    )
    assert list(after) == ["subject_id", "image", "split", "sex", "label", "clean_label", "site", "age"]
    pd.testing.assert_frame_equal(after.drop(columns=["label", "clean_label"]), before.drop(columns="label"))
    assert after["clean_label"].tolist() == before["label"].tolist()
    changed = after[after["label"] != after["clean_label"]]
    assert changed.value_counts(["split", "sex", "clean_label", "label"]).to_dict() == {
        ("train", "female", "1", "0"): 3,
        ("val", "female", "1", "0"): 1,
    }
    pd.testing.assert_frame_equal(built.table, after, check_dtype=False)


def test_the_changes_stand_beside_it(manifest: Path, tmp_path: Path) -> None:
    bias_label_files(manifest, tmp_path / "biased.csv", group=FEMALE, rate=0.25)
    changes = pd.read_csv(tmp_path / "biased_changes.csv", dtype=str)
    after = pd.read_csv(tmp_path / "biased.csv", dtype=str)
    mask = after["label"] != after["clean_label"]
    assert list(changes) == ["subject_id", "image", "old", "new"]
    assert changes["image"].tolist() == after.loc[mask, "image"].tolist()
    assert changes["subject_id"].tolist() == after.loc[mask, "subject_id"].tolist()
    assert set(changes["old"]) == {"1"}
    assert set(changes["new"]) == {"0"}
    pd.testing.assert_frame_equal(label_changes(read_manifest(tmp_path / "biased.csv").table).astype(str), changes)


def test_the_record_says_what_was_asked_and_what_came(manifest: Path, tmp_path: Path) -> None:
    bias_label_files(manifest, tmp_path / "biased.csv", group=FEMALE, rate=0.25, seed=3)
    record = read_json(tmp_path / "biased.json", "manifest")
    assert record["manifest_sha256"] == sha256(tmp_path / "biased.csv")
    made = record["label_bias"]
    assert {name: value for name, value in made.items() if name != "measured"} == {
        "input": "manifest.csv",
        "input_sha256": sha256(manifest),
        "changes": "biased_changes.csv",
        "changes_sha256": sha256(tmp_path / "biased_changes.csv"),
        "group": FEMALE,
        "rate": 0.25,
        "method": "exact",
        "parts": ["train", "val"],
        "seed": 3,
    }
    train, val, test = made["measured"]
    assert train == {
        "split": "train",
        "n": 106,
        "n_missing": 6,
        "n_group": 40,
        "n_eligible": 12,
        "n_changed": 3,
        "prevalence_before": pytest.approx(38 / 106),
        "group_prevalence_before": pytest.approx(12 / 40),
        "prevalence_after": pytest.approx(35 / 106),
        "group_prevalence_after": pytest.approx(9 / 40),
    }
    assert (val["n_eligible"], val["n_changed"], val["prevalence_after"]) == (4, 1, pytest.approx(3 / 20))
    assert (test["n_eligible"], test["n_changed"], test["prevalence_before"]) == (10, 0, test["prevalence_after"])
    assert (record["num_classes"], record["n"], record["n_subjects"]) == (2, 146, 73)
    cells = {(cell["split"], cell["group"]): cell["n_per_class"] for cell in record["cross_tables"]["after"]}
    assert cells["train", "female"] == [31, 9]
    before = {(cell["split"], cell["group"]): cell["n_per_class"] for cell in record["cross_tables"]["before"]}
    assert before["train", "female"] == [28, 12]
    assert "under 10 of a class: train, sex = female: 31, 9 rows of class 0, 1" in record["warnings"]


@pytest.mark.parametrize(("rate", "train", "val"), [(0, 0, 0), (1, 12, 4)])
def test_the_ends_of_the_rate(manifest: Path, tmp_path: Path, rate: float, train: int, val: int) -> None:
    bias_label_files(manifest, tmp_path / "biased.csv", group=FEMALE, rate=rate)
    measured = read_json(tmp_path / "biased.json", "manifest")["label_bias"]["measured"]
    assert [row["n_changed"] for row in measured] == [train, val, 0]
    assert len(pd.read_csv(tmp_path / "biased_changes.csv")) == train + val
    assert (read_manifest(tmp_path / "biased.csv").table["clean_label"] == read_manifest(manifest).table["label"]).all()


def test_a_configuration_writes_the_same_and_gets_the_path(manifest: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"group": FEMALE, "rate": 0.5, "method": "bernoulli", "parts": ["train"], "seed": 4}
    one, other = tmp_path / "verb" / "biased.csv", tmp_path / "bundle" / "biased.csv"
    bias_label_files(manifest, one, **options)
    assert write_biased_labels(str(manifest), str(other), **options) == str(other)
    names = ["biased.csv", "biased.json", "biased_changes.csv"]
    assert [path.name for path in sorted(other.parent.iterdir())] == names
    assert [(other.parent / name).read_bytes() for name in names] == [
        (one.parent / name).read_bytes() for name in names
    ]
    assert write_biased_labels(manifest, one, group=FEMALE, rate=0.25) == str(one)  # the other options have defaults
    measured = read_json(one.with_suffix(".json"), "manifest")["label_bias"]["measured"]
    assert [row["n_changed"] for row in measured] == [3, 1, 0]


def test_a_part_without_positives_of_the_group_is_said(manifest: Path) -> None:
    table = read_manifest(manifest).table
    kept = table[~((table["split"] == "val") & (table["sex"] == "female") & (table["label"] == 1))]
    kept.to_csv(manifest, index=False)
    built = biased_manifest(read_manifest(manifest), FEMALE, rate=0.25)
    assert built.record["warnings"][0] == ("val: no row of sex=female with label 1, so that no label is changed there")
    assert [row["n_changed"] for row in built.record["label_bias"]["measured"]] == [3, 0, 0]


def test_a_rate_too_low_for_so_few_positives_is_said(manifest: Path) -> None:
    built = biased_manifest(read_manifest(manifest), FEMALE, rate=0.01)
    assert [row["n_changed"] for row in built.record["label_bias"]["measured"]] == [0, 0, 0]
    assert [text for text in built.record["warnings"] if "changed" in text] == [
        f"{row['split']}: none of {row['n_eligible']} labels is changed, too few for a rate of 0.01"
        for row in built.record["label_bias"]["measured"][:2]
    ]
    assert not [text for text in biased_manifest(read_manifest(manifest), FEMALE, rate=0).record["warnings"]
                if "changed" in text]  # fmt: skip


def test_a_group_that_is_a_number(manifest: Path) -> None:
    built = biased_manifest(read_manifest(manifest), {"site": 1}, rate=1)  # type: ignore[dict-item]
    changed = built.table[built.table["label"] != built.table["clean_label"]]
    assert set(changed["site"]) == {"1"}
    assert built.record["label_bias"]["group"] == {"site": "1"}


def test_readers_take_clean_labels_for_no_attribute(manifest: Path, tmp_path: Path) -> None:
    bias_label_files(manifest, tmp_path / "biased.csv", group=FEMALE, rate=0.25)
    found = read_manifest(tmp_path / "biased.csv")
    assert found.attributes == ("sex", "site", "age")
    assert found.table["clean_label"].dtype == "int64"
    items = load_datalist(tmp_path / "biased.csv", tmp_path, "train")
    assert {type(item["clean_label"]) for item in items} == {int}
    assert all("clean_label" not in item["attributes"] for item in items)
    mislabelled = [item for item in items if item["label"] != item["clean_label"]]
    assert {(item["attributes"]["sex"], item["clean_label"], item["label"]) for item in mislabelled} == {
        ("female", 1, 0)
    }
    assert len(mislabelled) == 3
    assert all("clean_label" not in item for item in load_datalist(manifest, tmp_path))


def test_what_is_made_of_a_biased_manifest_keeps_the_clean_labels(manifest: Path, tmp_path: Path) -> None:
    bias_label_files(manifest, tmp_path / "biased.csv", group=FEMALE, rate=0.25)
    checked = read_manifest(tmp_path / "biased.csv")
    clean = checked.table["clean_label"].tolist()
    assert (
        check_manifest(checked.table.assign(label=checked.table["label"].astype(str)), "again")
        .table["clean_label"]
        .tolist()
        == clean
    )
    subgroups = dict.fromkeys(checked.table["subject_id"], "a")
    assert rebalanced_manifest(checked, subgroups).table["clean_label"].astype(int).tolist() == clean
    for path in write_folds(tmp_path / "biased.csv", tmp_path / "folds", folds=2):
        assert read_manifest(path).table["clean_label"].tolist() == clean


@pytest.mark.parametrize(("line", "cell", "expected"), [
    (2, "2", "0 or 1"),
    (2, "", "0 or 1"),
    (147, "1", "the label itself, as the row is of test"),
])  # fmt: skip
def test_a_bad_clean_label_is_named(manifest: Path, tmp_path: Path, line: int, cell: str, expected: str) -> None:
    path = tmp_path / "biased.csv"
    bias_label_files(manifest, path, group=FEMALE, rate=0.25)
    table = pd.read_csv(path, dtype=str)
    table.loc[line - 2, "clean_label"] = cell
    table.to_csv(path, index=False)
    with pytest.raises(ManifestError) as caught:
        read_manifest(path)
    assert str(caught.value) == f"{path}: line {line}, column 'clean_label': expected {expected}, got '{cell}'"


def refused(path: Path, **options: Any) -> str:
    with pytest.raises(ManifestError) as caught:
        bias_label_files(path, path.with_name("new.csv"), **{"group": FEMALE, "rate": 0.25, **options})
    assert not list(path.parent.glob("new*"))
    return str(caught.value)


def test_nothing_is_written_when_something_is_wrong(manifest: Path) -> None:
    assert refused(manifest, parts=["train", "test"]) == (
        f"{manifest}: parts: expected train or val, got 'test', whose labels stay as they are to measure on; "
        "leave it out"
    )
    assert refused(manifest, group={"sex": "f"}, rate=2) == (
        f"{manifest}: 2 problems\n"
        "  1. rate: expected a share from 0 to 1, got 2\n"
        "  2. sex=f: expected a group that occurs (female, male), got no row of it"
    )


def test_labels_are_biased_once(manifest: Path) -> None:
    bias_label_files(manifest, manifest.with_name("biased.csv"), group=FEMALE, rate=0.25)
    assert "labels were changed before (column 'clean_label')" in refused(manifest.with_name("biased.csv"))


def test_several_classes_and_the_manifest_itself(manifest: Path) -> None:
    with pytest.raises(ManifestError) as caught:
        biased_manifest(read_manifest(manifest, num_classes=3), FEMALE, rate=0.25)
    assert str(caught.value) == f"{manifest}: expected two classes, of which one can be missed, got 3"
    before = manifest.read_bytes()
    with pytest.raises(ManifestError, match="expected another file than the manifest"):
        bias_label_files(manifest, manifest.parent / "." / "manifest.csv", group=FEMALE, rate=0.25)
    assert manifest.read_bytes() == before


def verb(*arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "monai_fair", "bias_labels", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_the_verb_prints_its_counts_and_ends_with_the_path(manifest: Path) -> None:
    done = verb("manifest.csv", "--group", "sex=female", "--rate", 0.25, "--out", "biased.csv", folder=manifest.parent)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:4] == [
        "146 images of 73 subjects, 4 labels changed",
        "train: 3 of 12 positives of the group labelled 0; n 40 in the group, 106 in all, 6 missing",
        "val: 1 of 4 positives of the group labelled 0; n 10 in the group, 20 in all, 0 missing",
        "test: 0 of 10 positives of the group labelled 0; n 10 in the group, 20 in all, 0 missing",
    ]
    assert lines[-3:] == ["changes: biased_changes.csv", "record: biased.json", "biased.csv"]
    options = ("--group", "sex=female,site=1", "--rate", 1, "--method", "bernoulli", "--parts", "val", "--seed", 2)
    done = verb("manifest.csv", "other/b.csv", *options, folder=manifest.parent)
    assert done.returncode == 0, done.stderr
    made = read_json(manifest.parent / "other" / "b.json", "manifest")["label_bias"]
    assert (made["group"], made["method"], made["parts"]) == ({"sex": "female", "site": "1"}, "bernoulli", ["val"])
    assert "changes: other/b_changes.csv" in done.stdout.splitlines()


def test_test_is_refused_with_status_two(manifest: Path) -> None:
    options = ("--group", "sex=female", "--rate", 0.25, "--parts", "test")
    done = verb("manifest.csv", "b.csv", *options, folder=manifest.parent)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        "ManifestError: manifest.csv: parts: expected train or val, got 'test', whose labels stay as they are to "
        "measure on; leave it out"
    ]
    done = verb("manifest.csv", "b.csv", "--group", "female", "--rate", 0.25, folder=manifest.parent)
    assert done.stderr.splitlines() == ["MonaiFairError: --group: expected name=value,name=value, got 'female'"]
