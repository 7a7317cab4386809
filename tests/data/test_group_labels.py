"""A manifest whose label is membership of a group: its rows, its record, and what is refused."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_fair.data import (
    bias_label_files,
    check_manifest,
    group_label_manifest,
    load_datalist,
    read_manifest,
    recorded_num_classes,
    write_group_labels,
    write_manifest,
)
from monai_fair.data.artifacts import read_json, sha256
from monai_fair.data.builder import BuiltManifest
from monai_fair.errors import ManifestError

# split, sex, age, label, rows
CELLS = [
    ("train", "female", "<60", 1, 3), ("train", "female", "60+", 0, 4), ("train", "male", "<60", 1, 5),
    ("train", "male", "60+", 0, 2), ("train", "", "<60", 1, 2), ("train", "female", "", 0, 1),
    ("val", "female", "<60", 0, 2), ("val", "male", "60+", 1, 3), ("val", "", "", 1, 1),
    ("test", "female", "<60", 1, 2), ("test", "male", "<60", 0, 1), ("test", "female", "60+", 1, 1),
]  # fmt: skip
FEMALE = {"sex": "female"}


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    rows = [(part, sex, age, label) for part, sex, age, label, n in CELLS for _ in range(n)]
    table = pd.DataFrame(rows, columns=["split", "sex", "age", "label"])
    table.insert(0, "subject_id", [f"{row:03d}" for row in table.index])
    table.insert(1, "image", [f"images/{row}.png" for row in table.index])
    path = tmp_path / "manifest.csv"
    table.to_csv(path, index=False)
    return path


def text(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def change(path: Path, **columns: Any) -> None:
    text(path).assign(**columns).to_csv(path, index=False)


def without(path: Path, *columns: str) -> None:
    text(path).drop(columns=list(columns)).to_csv(path, index=False)


def refused(path: Path, **options: Any) -> str:
    before = path.read_bytes()
    with pytest.raises(ManifestError) as caught:
        write_group_labels(path, path.with_name("new.csv"), **{"group": FEMALE, **options})
    assert not list(path.parent.glob("new*"))
    assert path.read_bytes() == before
    return str(caught.value)


def test_the_label_is_membership_and_nothing_else_changes(manifest: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "sex.csv"
    assert write_group_labels(manifest, out, group=FEMALE) == str(out)
    before, after = text(manifest), text(out)
    kept = before[before["sex"] != ""].reset_index(drop=True)
    assert list(after) == list(before)
    pd.testing.assert_frame_equal(after.drop(columns="label"), kept.drop(columns="label"))
    assert after["label"].tolist() == ["1" if sex == "female" else "0" for sex in kept["sex"]]


def test_the_record_counts_members_and_rows_left_out(manifest: Path, tmp_path: Path) -> None:
    write_group_labels(manifest, tmp_path / "sex.csv", group=FEMALE)
    record = read_json(tmp_path / "sex.json", "manifest")
    assert {name: value for name, value in record.items() if name not in ("kind", "monai_fair")} == {
        "manifest_sha256": sha256(tmp_path / "sex.csv"),
        "num_classes": 2,
        "group_label": {
            "input": "manifest.csv",
            "input_sha256": sha256(manifest),
            "group": FEMALE,
            # train: 3 + 4 + 1 women and 5 + 2 men, 2 of whom the sex is not known
            "splits": {
                "train": {"n": 15, "n_group": 8, "n_left_out": 2},
                "val": {"n": 5, "n_group": 2, "n_left_out": 1},
                "test": {"n": 4, "n_group": 3, "n_left_out": 0},
            },
        },
        "n": 24,
    }


def test_a_joint_group_leaves_out_rows_without_either_attribute(manifest: Path, tmp_path: Path) -> None:
    write_group_labels(manifest, tmp_path / "joint.csv", group={"sex": "female", "age": "<60"})
    after = text(tmp_path / "joint.csv")
    members = after[after["label"] == "1"]
    assert set(members["sex"] + members["age"]) == {"female<60"}
    record = read_json(tmp_path / "joint.json", "manifest")["group_label"]
    assert record["group"] == {"sex": "female", "age": "<60"}
    assert record["splits"] == {
        "train": {"n": 14, "n_group": 3, "n_left_out": 3},
        "val": {"n": 5, "n_group": 2, "n_left_out": 1},
        "test": {"n": 4, "n_group": 2, "n_left_out": 0},
    }


def test_readers_take_it_for_a_manifest_of_two_classes(manifest: Path, tmp_path: Path) -> None:
    out = tmp_path / "sex.csv"
    write_group_labels(manifest, out, group=FEMALE)
    found = read_manifest(out)
    assert (found.num_classes, found.attributes, found.table["label"].dtype) == (2, ("sex", "age"), "int64")
    assert recorded_num_classes(out) == 2
    items = load_datalist(out, tmp_path, "train")
    assert [item["label"] for item in items] == [int(item["attributes"]["sex"] == "female") for item in items]
    assert len(items) == 15


def test_what_is_about_another_label_is_left_out(manifest: Path, tmp_path: Path) -> None:
    bias_label_files(manifest, tmp_path / "biased.csv", group=FEMALE, rate=1, parts=["train"])
    change(tmp_path / "biased.csv", weight="2.5", image_id="7")
    write_group_labels(manifest, tmp_path / "one.csv", group=FEMALE)
    write_group_labels(tmp_path / "biased.csv", tmp_path / "other.csv", group=FEMALE)
    other = text(tmp_path / "other.csv")
    assert other.pop("image_id").tolist() == ["7"] * 24
    pd.testing.assert_frame_equal(other, text(tmp_path / "one.csv"))
    assert all({"clean_label", "weight"}.isdisjoint(item) for item in load_datalist(tmp_path / "other.csv", tmp_path))


def test_a_manifest_needs_no_label(manifest: Path, tmp_path: Path) -> None:
    write_group_labels(manifest, tmp_path / "one.csv", group=FEMALE)
    without(manifest, "label")
    change(manifest, weight="1")
    write_group_labels(manifest, tmp_path / "other.csv", group=FEMALE)
    one, other = text(tmp_path / "one.csv"), text(tmp_path / "other.csv")
    assert list(other) == ["subject_id", "image", "label", "split", "sex", "age"]
    pd.testing.assert_frame_equal(other[list(one)], one)


def test_labels_of_several_classes_become_two(manifest: Path, tmp_path: Path) -> None:
    change(manifest, label=["2", "1", "0"] * 9)
    write_manifest(BuiltManifest(text(manifest), {"num_classes": 3}), manifest)
    write_group_labels(manifest, tmp_path / "sex.csv", group=FEMALE)
    assert recorded_num_classes(tmp_path / "sex.csv") == 2
    assert text(tmp_path / "sex.csv")["label"].value_counts().to_dict() == {"1": 13, "0": 11}


def test_a_value_that_is_a_number(manifest: Path) -> None:
    change(manifest, site=["1", "2", "3"] * 9)
    built = group_label_manifest(read_manifest(manifest), {"site": 1})  # type: ignore[dict-item]
    assert built.table["label"].tolist() == ["1", "0", "0"] * 9
    assert built.record["group_label"]["group"] == {"site": "1"}


def test_files_are_the_same_whenever_they_are_written(manifest: Path, tmp_path: Path) -> None:
    def written() -> list[bytes]:
        write_group_labels(manifest, tmp_path / "sex.csv", group=FEMALE)
        return [(tmp_path / name).read_bytes() for name in ("sex.csv", "sex.json")]

    assert written() == written()


def test_every_part_has_rows_of_both_labels(manifest: Path) -> None:
    table = text(manifest)
    table.loc[table["split"] == "train", "sex"] = ""
    table.loc[table["split"] == "val", "sex"] = "male"
    table.to_csv(manifest, index=False)
    wanted, end = "expected rows in and outside of sex=female", "; choose another group, or split anew"
    assert refused(manifest) == (
        f"{manifest}: 2 problems\n"
        f"  1. train: {wanted}, got 0 in, 0 outside and 17 without its attributes{end}\n"
        f"  2. val: {wanted}, got 0 in, 6 outside and 0 without its attributes{end}"
    )
    table[table["split"] != "train"].assign(sex="female").to_csv(manifest, index=False)
    assert f"val: {wanted}, got 6 in, 0 outside and 0 without" in refused(manifest)


def test_a_part_that_is_not_there_is_not_asked_for(manifest: Path, tmp_path: Path) -> None:
    table = text(manifest)
    table[table["split"] == "test"].to_csv(manifest, index=False)
    write_group_labels(manifest, tmp_path / "sex.csv", group=FEMALE)
    assert list(read_json(tmp_path / "sex.json", "manifest")["group_label"]["splits"]) == ["test"]


def test_a_group_that_is_none_is_named(manifest: Path) -> None:
    assert refused(manifest, group={"race": "x", "sex": "f"}) == (
        f"{manifest}: 2 problems\n"
        "  1. race: expected a recorded attribute (sex, age); correct the name\n"
        "  2. sex=f: expected a group that occurs (female, male), got no row of it"
    )
    assert refused(manifest, group={"label": "1"}) == (
        f"{manifest}: label: expected a recorded attribute (sex, age); correct the name"
    )
    assert refused(manifest, group={}) == f"{manifest}: group: expected an attribute and its value, got none"


def test_folds_are_no_split(manifest: Path) -> None:
    without(manifest, "split")
    change(manifest, fold="0")
    assert refused(manifest) == f"{manifest}: expected a column 'split', found none; add it"


def test_the_manifest_itself_is_not_overwritten(manifest: Path) -> None:
    before = manifest.read_bytes()
    with pytest.raises(ManifestError) as caught:
        write_group_labels(manifest, manifest.parent / "." / "manifest.csv", group=FEMALE)
    assert str(caught.value) == (
        f"{manifest}: expected another file than the manifest, which would be overwritten; rename it"
    )
    assert manifest.read_bytes() == before


CELL = st.tuples(st.sampled_from(["female", "male", ""]), st.sampled_from(["<60", "60+", ""]))
BOTH_SIDES = [("female", "<60"), ("male", "60+")]  # so that the group occurs, and the rest


@given(cells=st.lists(CELL, max_size=12), clean=st.booleans())
def test_rows_are_members_outside_or_left_out(cells: list[tuple[str, str]], clean: bool) -> None:
    rows = [*BOTH_SIDES, *cells]
    names = [str(number) for number in range(len(rows))]
    table = pd.DataFrame({"subject_id": names, "image": names, "label": "0", "split": "train"})
    table["sex"], table["age"] = zip(*rows, strict=True)
    if clean:
        table["clean_label"] = "1"
    checked = check_manifest(table, "table")
    before = checked.table.copy()
    built = group_label_manifest(checked, {"sex": "female", "age": "<60"})
    expected = [
        (name, "1" if row == ("female", "<60") else "0") for name, row in zip(names, rows, strict=True) if all(row)
    ]
    assert list(zip(built.table["image"], built.table["label"], strict=True)) == expected
    counts = built.record["group_label"]["splits"]["train"]
    assert counts["n"] + counts["n_left_out"] == len(rows)
    assert counts["n_group"] == rows.count(("female", "<60"))
    pd.testing.assert_frame_equal(checked.table, before)
