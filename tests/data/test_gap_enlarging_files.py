"""From a manifest to one with wanted gaps, its record, and the verb."""

import sys
from pathlib import Path
from unittest import mock

import pandas as pd
import pytest

from monai_fair import __main__ as cli
from monai_fair.data import enlarge_gap_files, enlarged_manifest, read_manifest
from monai_fair.data.artifacts import read_json, sha256
from monai_fair.errors import ManifestError

# part, sex, label, rows. Log-odds of women are moved by ln 2, of men by -ln 2, where a gap of 4/7 - 1/9 = 29/63 and a
# positive rate of 50/160 are asked for: half of 60 negatives of women and half of 20 positives of men leave. Val is
# train over again; in test half of it, of which 15 and 5 leave, and 10 rows of unknown sex; there a subject has two
# images.
CELLS = [
    (part, sex, label, n // (2 if part == "test" else 1))
    for part in ("train", "val", "test")
    for sex, label, n in (("female", 0, 60), ("female", 1, 40), ("male", 0, 80), ("male", 1, 20))
]
GAPS = {"sex": {"female": 29 / 63}}


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    rows = [(part, sex, label) for part, sex, label, n in CELLS for _ in range(n)]
    table = pd.DataFrame(rows, columns=["split", "sex", "label"])
    number = pd.Series(range(len(table))).where(table["split"] != "test", table.index // 2 * 2)
    table.insert(0, "subject_id", number.map("{:03d}".format))
    table.insert(1, "image", [f"images/{row}.png" for row in table.index])
    table["age"] = "89+"
    path = tmp_path / "manifest.csv"
    table.to_csv(path, index=False)
    return path


def test_every_part_has_the_gaps_and_the_rows_that_stay_are_unchanged(manifest: Path, tmp_path: Path) -> None:
    built = enlarge_gap_files(manifest, tmp_path / "gaps.csv", gaps=GAPS, prevalence=50 / 160)
    lines = manifest.read_text().splitlines()
    kept = (tmp_path / "gaps.csv").read_text().splitlines()
    assert kept[0] == lines[0]
    assert [line for line in lines if line in set(kept)] == kept
    found = read_manifest(tmp_path / "gaps.csv").table
    counts = found.value_counts(["split", "sex", "label"]).to_dict()
    assert counts == {
        **{("train", "female", 0): 30, ("train", "female", 1): 40, ("train", "male", 0): 80, ("train", "male", 1): 10},
        **{("val", "female", 0): 30, ("val", "female", 1): 40, ("val", "male", 0): 80, ("val", "male", 1): 10},
        **{("test", "female", 0): 15, ("test", "female", 1): 20, ("test", "male", 0): 40, ("test", "male", 1): 5},
    }
    assert built.table["image"].tolist() == found["image"].tolist()


def test_the_record_says_what_was_asked_what_came_and_what_left(manifest: Path, tmp_path: Path) -> None:
    enlarge_gap_files(manifest, tmp_path / "gaps.csv", gaps=GAPS, prevalence=50 / 160, seed=4)
    record = read_json(tmp_path / "gaps.json", "manifest")
    assert record["manifest_sha256"] == sha256(tmp_path / "gaps.csv")
    made = record["gap_enlarging"]
    assert {name: value for name, value in made.items() if name != "measured"} == {
        "input": "manifest.csv",
        "input_sha256": sha256(manifest),
        "gaps": GAPS,
        "parts": ["train", "val", "test"],
        "prevalence": 50 / 160,
        "seed": 4,
    }
    assert made["measured"][2] == {
        "split": "test",
        "attribute": "sex",
        "group": "female",
        "wanted": 29 / 63,
        "before": pytest.approx(0.2),
        "n_group_before": 50,
        "n_others_before": 50,
        "n_missing_before": 0,
        "prevalence_before": 0.3,
        "after": pytest.approx(29 / 63),
        "n_group_after": 35,
        "n_others_after": 45,
        "n_missing_after": 0,
        "prevalence_after": 50 / 160,
    }
    # tables of before and after, counted anew from the two files
    for when, path in (("before", manifest), ("after", tmp_path / "gaps.csv")):
        table = pd.read_csv(path)
        assert record["n" if when == "after" else "n_before"] == len(table)
        assert record["n_subjects" if when == "after" else "n_subjects_before"] == table["subject_id"].nunique()
        cells = {(cell["split"], cell["group"]): cell for cell in record["cross_tables"][when]}
        for place, rows in table.groupby(["split", "sex"]):
            assert cells[place]["n"] == len(rows)
            assert cells[place]["n_subjects"] == rows["subject_id"].nunique()
            assert cells[place]["prevalence"] == pytest.approx(rows["label"].mean())
    gone = pd.read_csv(manifest).set_index("image").drop(pd.read_csv(tmp_path / "gaps.csv")["image"])
    assert {entry["reason"]: entry["n"] for entry in record["dropped"]} == {
        f"{part}, label {label}: more than the wanted gaps allow in {sex}": len(rows)
        for (part, label, sex), rows in gone.groupby(["split", "label", "sex"])
    }
    for entry in record["dropped"]:
        rows = gone.loc[entry["image"]]
        assert f"{rows['split'].iloc[0]}, label {rows['label'].iloc[0]}:" in entry["reason"]
        assert entry["n_subjects"] == rows["subject_id"].nunique()
    assert sum(entry["n"] for entry in record["dropped"]) == len(gone)
    assert record["warnings"] == ["under 10 of a class: test, sex = male: 40, 5 rows of class 0, 1"]


def test_only_the_parts_that_are_named_are_thinned(manifest: Path, tmp_path: Path) -> None:
    first = enlarge_gap_files(manifest, tmp_path / "a.csv", gaps=GAPS, parts=["val", "train"], prevalence=50 / 160)
    table = read_manifest(manifest).table
    test = table["image"][table["split"] == "test"]
    assert set(test) <= set(first.table["image"])
    assert first.record["gap_enlarging"]["parts"] == ["train", "val"]
    every = enlarge_gap_files(manifest, tmp_path / "b.csv", gaps=GAPS, prevalence=50 / 160)
    assert set(every.table["image"]) - set(test) == set(first.table["image"]) - set(test)


def test_the_seed_decides_who_leaves_and_nothing_else_does(manifest: Path, tmp_path: Path) -> None:
    first, again, other = (
        enlarge_gap_files(manifest, tmp_path / f"{name}.csv", gaps=GAPS, seed=seed).table
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    pd.testing.assert_frame_equal(again, first)
    assert set(other["image"]) != set(first["image"])
    assert other.value_counts(["split", "sex", "label"]).equals(first.value_counts(["split", "sex", "label"]))


def test_order_of_rows_does_not_matter(manifest: Path, tmp_path: Path) -> None:
    lines = manifest.read_text().splitlines()
    (tmp_path / "turned.csv").write_text("\n".join([lines[0], *reversed(lines[1:])]) + "\n")
    first = enlarge_gap_files(manifest, tmp_path / "a.csv", gaps=GAPS).table
    turned = enlarge_gap_files(tmp_path / "turned.csv", tmp_path / "b.csv", gaps=GAPS).table
    assert turned["image"].tolist() == first["image"].tolist()[::-1]


def test_folds_and_names_that_are_numbers(tmp_path: Path) -> None:
    rows = [
        (f"{fold}_{site}_{label}_{n}", f"{fold}/{site}_{label}_{n}.png", label, fold, site)
        for fold in (10, 9)
        for site in (1, 2)
        for label in (0, 1)
        for n in range(50)
    ]
    path = tmp_path / "manifest.csv"
    pd.DataFrame(rows, columns=["subject_id", "image", "label", "fold", "site"]).to_csv(path, index=False)
    built = enlarged_manifest(read_manifest(path), {"site": {1: 1 / 3}})  # type: ignore[dict-item]
    measured = built.record["gap_enlarging"]["measured"]
    assert [(row["split"], row["n_group_after"], row["n_others_after"]) for row in measured] == [
        ("9", 75, 75),
        ("10", 75, 75),
    ]
    assert [row["after"] for row in measured] == pytest.approx([1 / 3, 1 / 3])


def refused(path: Path, **options: object) -> str:
    with pytest.raises(ManifestError) as caught:
        enlarge_gap_files(path, path.with_name("new.csv"), **options)  # type: ignore[arg-type]
    assert not path.with_name("new.csv").exists()
    return str(caught.value)


def test_wrong_options_are_all_named(manifest: Path) -> None:
    assert refused(manifest, gaps={"sex": {"woman": 0.1}, "split": {"val": 0.1}}, parts=["vall"], prevalence=0) == (
        f"{manifest}: 4 problems\n"
        "  1. parts: expected one of train, val, test, got 'vall'\n"
        "  2. expected a prevalence between 0 and 1, got 0\n"
        "  3. sex:woman: expected a group that occurs (female, male), got no row of it\n"
        "  4. split: expected a recorded attribute (sex, age); correct the name"
    )
    assert refused(manifest, gaps=GAPS, parts=[]) == (
        f"{manifest}: parts: expected at least one, got none; leave it out for all"
    )


def test_a_part_without_a_group_or_a_label_is_named(manifest: Path) -> None:
    table = read_manifest(manifest).table
    gone = ((table["split"] == "val") & (table["sex"] == "female")) | ((table["split"] == "test") & table["label"] == 1)
    table[~gone].to_csv(manifest, index=False)
    assert refused(manifest, gaps=GAPS) == (
        f"{manifest}: 2 problems\n"
        "  1. split 'val': sex:female: expected a group that occurs (male), got no row of it\n"
        "  2. split 'test': expected rows of both labels, got none of label 1"
    )


def test_parts_that_cannot_have_the_gaps_say_which_they_can(manifest: Path) -> None:
    table = read_manifest(manifest).table
    # men of val and test have no positives, so that no gap is small
    table[(table["split"] == "train") | (table["sex"] == "female") | (table["label"] == 0)].to_csv(
        manifest, index=False
    )
    lines = refused(manifest, gaps={"sex": {"female": 0.1}}).splitlines()
    assert lines[0] == f"{manifest}: 2 problems"
    assert lines[1].startswith("  1. split 'val': expected gaps that can be reached, got sex:female 0.100 at a ")
    assert lines[2].startswith("  2. split 'test': expected gaps that can be reached, got sex:female 0.100 at a ")


def test_what_has_no_positive_rate_is_refused(manifest: Path, tmp_path: Path) -> None:
    several = read_manifest(manifest, num_classes=3)
    with pytest.raises(ManifestError) as caught:
        enlarged_manifest(several, GAPS)
    assert str(caught.value) == f"{manifest}: expected two classes, whose positive rates can differ, got 3"
    table = pd.read_csv(manifest, dtype=str).drop(columns=["label", "split"])
    table.to_csv(tmp_path / "plain.csv", index=False)
    with pytest.raises(ManifestError) as caught:
        enlarged_manifest(read_manifest(tmp_path / "plain.csv", labelled=False), GAPS)
    assert str(caught.value) == (
        f"{tmp_path / 'plain.csv'}: 2 problems\n  1. expected a column 'label', found none; add it\n"
        "  2. expected a column 'split', found none; add it"
    )


def test_the_manifest_is_not_overwritten(manifest: Path) -> None:
    before = manifest.read_bytes()
    with pytest.raises(ManifestError, match="expected another file than the manifest"):
        enlarge_gap_files(manifest, manifest.parent / "." / "manifest.csv", gaps=GAPS)
    assert manifest.read_bytes() == before


def verb(*arguments: object) -> None:
    with mock.patch.object(sys, "argv", ["monai_fair", "enlarge_gaps", *map(str, arguments)]):
        cli.main()


def test_the_verb_prints_every_gap_and_ends_with_the_path(
    manifest: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(manifest.parent)
    gaps = ("--gaps", f"sex:female={29 / 63}", "--prevalence", 50 / 160)
    verb("manifest.csv", "gaps.csv", *gaps)
    table = pd.read_csv(manifest.parent / "gaps.csv")
    assert capsys.readouterr().out.splitlines() == [
        f"400 of 500 images kept, of {table['subject_id'].nunique()} of 450 subjects",
        "train, sex: female minus others 0.200 before, 0.460 after (wanted 0.460); n 70 and 90, 0 missing",
        "val, sex: female minus others 0.200 before, 0.460 after (wanted 0.460); n 70 and 90, 0 missing",
        "test, sex: female minus others 0.200 before, 0.460 after (wanted 0.460); n 35 and 45, 0 missing",
        "warning: under 10 of a class: test, sex = male: 40, 5 rows of class 0, 1",
        "record: gaps.json",
        "gaps.csv",
    ]
    named = ("--out", "same.csv", "--gaps", f"{{'sex': {{'female': {29 / 63}}}}}", "--parts", "train,val,test")
    verb("--manifest", "manifest.csv", *named, *gaps[2:])
    assert (manifest.parent / "same.csv").read_bytes() == (manifest.parent / "gaps.csv").read_bytes()


def test_a_wrong_gap_is_one_message_and_status_two(
    manifest: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(manifest.parent)
    with pytest.raises(SystemExit) as raised:
        verb("manifest.csv", "gaps.csv", "--gaps", "sex=0.1,sex:female")
    assert raised.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        "MonaiFairError: --gaps: 2 problems",
        "  1. expected attribute:group=gap, such as sex:female=0.16, got 'sex=0.1'",
        "  2. expected attribute:group=gap, such as sex:female=0.16, got 'sex:female'",
    ]
