"""HAM10000, from its own files to the manifest: every row, every option, every count."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from monai_fair.data import build_manifest, read_manifest, read_split, recorded_num_classes, write_manifest
from monai_fair.data.artifacts import read_json, sha256
from monai_fair.errors import ManifestError, RecipeError, SplitError

Writer = Callable[..., Path]
SPLIT = "subject_id,split\n" + "".join(
    f"HAM_{lesion:07d},{part}\n"
    for lesion, part in enumerate(["train", "train", "train", "val", "val", "test", "test", "test", "train"], start=1)
)
ONE, TWO = "HAM10000_images_part_1", "HAM10000_images_part_2"
EXPECTED = f"""subject_id,image,image_id,label,split,sex,age,age_group
HAM_0000001,{ONE}/ISIC_0000001.jpg,ISIC_0000001,0,train,male,60.0,>=60
HAM_0000001,{ONE}/ISIC_0000002.jpg,ISIC_0000002,0,train,male,60.0,>=60
HAM_0000002,{ONE}/ISIC_0000003.jpg,ISIC_0000003,1,train,female,55.0,<60
HAM_0000003,{ONE}/ISIC_0000004.jpg,ISIC_0000004,1,train,male,75.0,>=60
HAM_0000004,{ONE}/ISIC_0000005.jpg,ISIC_0000005,0,val,female,80.0,>=60
HAM_0000005,{TWO}/ISIC_0000006.jpg,ISIC_0000006,0,val,male,,
HAM_0000006,{TWO}/ISIC_0000007.jpg,ISIC_0000007,0,test,female,0.0,<60
HAM_0000007,{TWO}/ISIC_0000008.jpg,ISIC_0000008,0,test,,45.0,<60
HAM_0000008,{TWO}/ISIC_0000009.jpg,ISIC_0000009,0,test,female,30.0,<60
HAM_0000009,{TWO}/ISIC_0000010.jpg,ISIC_0000010,1,train,,,
"""


@pytest.fixture
def split(tmp_path: Path) -> Path:
    path = tmp_path / "split.csv"
    path.write_text(SPLIT)
    return path


@pytest.mark.parametrize("name", ["HAM10000_metadata.csv", "HAM10000_metadata", "HAM10000_metadata.tab"])
def test_every_row_of_the_manifest(write_ham: Writer, split: Path, tmp_path: Path, name: str) -> None:
    root = write_ham(name=name)
    path = write_manifest(build_manifest("ham10000", root, split=split), tmp_path / "out" / "manifest.csv")
    assert path.read_text(encoding="utf-8") == EXPECTED
    checked = read_manifest(path)
    assert checked.attributes == ("sex", "age", "age_group")
    assert checked.table["label"].tolist() == [0, 0, 1, 1, 0, 0, 0, 0, 0, 1]
    assert read_json(path.with_suffix(".json"), "manifest")["sources"] == {name: sha256(root / name)}


@pytest.mark.parametrize(
    ("options", "column", "expected"),
    [
        # images 1 to 10 are nv nv mel akiec bcc bkl df vasc nv mel
        ({}, "label", "0011000001"),
        ({"label": "akiec_mel"}, "label", "0011000001"),
        ({"label": "akiec_bcc_mel"}, "label", "0011100001"),
        # in alphabetical order: akiec 0, bcc 1, bkl 2, df 3, mel 4, nv 5, vasc 6
        ({"label": "seven_classes"}, "label", "5540123654"),
        # ages 60 60 55 75 80 missing 0 45 30 missing
        ({"age_equal": "above"}, "age_group", [">=60", ">=60", "<60", ">=60", ">=60", "", "<60", "<60", "<60", ""]),
        ({"age_equal": "below"}, "age_group", ["<=60", "<=60", "<=60", ">60", ">60", "", "<=60", "<=60", "<=60", ""]),
        ({"age_zero": "missing"}, "age_group", [">=60", ">=60", "<60", ">=60", ">=60", "", "", "<60", "<60", ""]),
        ({"age_zero": "missing"}, "age", ["60.0", "60.0", "55.0", "75.0", "80.0", "", "", "45.0", "30.0", ""]),
    ],
)
def test_options(write_ham: Writer, split: Path, options: dict[str, str], column: str, expected: Any) -> None:
    built = build_manifest("ham10000", write_ham(), options=options, split=split)
    assert built.table[column].tolist() == list(expected)
    assert {name: built.record["options"][name] for name in options} == options


@pytest.mark.parametrize(
    ("options", "dropped"),
    [
        ({"missing": "keep"}, {}),
        ({"missing": "drop_age"}, {"age is missing; age_group is missing": ["ISIC_0000006", "ISIC_0000010"]}),
        (
            {"missing": "drop"},
            {
                "age is missing; age_group is missing": ["ISIC_0000006"],
                "sex is missing": ["ISIC_0000008"],
                "sex is missing; age is missing; age_group is missing": ["ISIC_0000010"],
            },
        ),
        (
            {"missing": "drop_age", "age_zero": "missing"},
            {"age is missing; age_group is missing": ["ISIC_0000006", "ISIC_0000007", "ISIC_0000010"]},
        ),
    ],
)
def test_dropped_rows_are_recorded(
    write_ham: Writer, split: Path, options: dict[str, str], dropped: dict[str, list[str]]
) -> None:
    built = build_manifest("ham10000", write_ham(), options=options, split=split)
    record = {entry["reason"]: entry["image_id"] for entry in built.record["dropped"]}
    assert record == dropped
    assert [entry["n"] for entry in built.record["dropped"]] == [len(images) for images in record.values()]
    gone = {image for images in dropped.values() for image in images}
    assert set(built.table["image_id"]) == {f"ISIC_{number:07d}" for number in range(1, 11)} - gone
    assert built.record["n"] == len(built.table) == 10 - len(gone)


def test_record_tells_how_it_was_made(write_ham: Writer, split: Path, tmp_path: Path) -> None:
    path = write_manifest(build_manifest("ham10000", write_ham(), split=split), tmp_path / "manifest.csv")
    record = read_json(tmp_path / "manifest.json", "manifest")
    assert record["manifest_sha256"] == sha256(path)
    assert (record["recipe"], record["recipe_file"], record["num_classes"]) == ("HAM10000", "ham10000.yaml", 2)
    assert (record["n"], record["n_subjects"], recorded_num_classes(path)) == (10, 9, 2)
    assert record["options"] == {
        "label": "akiec_mel",
        "age_equal": "above",
        "age_zero": "keep",
        "missing": "keep",
    }
    assert record["split"] == {"from": "split.csv", "sha256": sha256(split)}
    assert record["derivations"]["sex"] == {
        "column": "sex",
        "rule": {"groups": {"female": ["female"], "male": ["male"]}},
        "missing_codes": ["", "unknown"],
        "if_missing": "keep",
        "missing": 2,
        "dropped": 0,
    }
    assert record["derivations"]["age_group"]["rule"] == {"bins": {"edges": [60], "equal": "above"}}
    assert record["derivations"]["age_group"]["missing"] == 2


def test_cross_tables_add_up_and_small_cells_are_named(write_ham: Writer, split: Path) -> None:
    record = build_manifest("ham10000", write_ham(), split=split).record
    cells = pd.DataFrame(record["cross_tables"])
    assert cells.groupby("attribute")["n"].sum().to_dict() == {"sex": 10, "age_group": 10, "sex x age_group": 10}
    assert (cells["n_per_class"].map(sum) == cells["n"]).all()
    train = {(cell["attribute"], cell["group"]): cell for cell in record["cross_tables"] if cell["split"] == "train"}
    assert train["sex", "male"]["n_per_class"] == [2, 1]
    assert (train["sex", "male"]["n"], train["sex", "male"]["n_subjects"]) == (3, 2)
    assert train["sex", "male"]["prevalence"] == 1 / 3
    assert train["sex", "missing"]["n_per_class"] == [0, 1]
    # no man is in the test part: the most important warning of all
    assert "test, sex = male: 0, 0 rows of class 0, 1" in record["warnings"]
    assert "train, sex x age_group = male, >=60: 2, 1 rows of class 0, 1" in record["warnings"]
    assert not [warning for warning in record["warnings"] if "missing" in warning]


def test_no_warning_at_ten_of_each_class(write_ham: Writer, tmp_path: Path) -> None:
    # 4 groups x 3 parts x 10 of each class; one benign old woman less in the test part
    lesions, parts = [], ["subject_id,split"]
    for place, (sex, age) in enumerate((sex, age) for sex in ("female", "male") for age in ("30.0", "70.0")):
        for part in ("train", "val", "test"):
            for number in range(20):
                lesion = len(lesions) + 1
                if (place, part, number) != (1, "test", 0):
                    lesions.append((lesion, lesion, "nv" if number < 10 else "mel", age, sex))
                    parts.append(f"HAM_{lesion:07d},{part}")
    (tmp_path / "split.csv").write_text("\n".join(parts) + "\n")
    built = build_manifest("ham10000", write_ham(tuple(lesions)), split=tmp_path / "split.csv")
    assert built.record["warnings"] == ["test, sex x age_group = female, >=60: 9, 10 rows of class 0, 1"]


def test_own_split_keeps_lesions_together_and_repeats(write_ham: Writer, tmp_path: Path) -> None:
    # two images per lesion, 100 lesions: 80, 10 and 10
    lesions = [(1 + n // 2, n, ("nv", "mel")[n // 2 % 2], ("30.0", "70.0")[n // 4 % 2], "male") for n in range(200)]
    root = write_ham(tuple(lesions), images=True)
    first, again, other = (build_manifest("ham10000", root, seed=seed) for seed in (0, 0, 1))
    subjects = first.table.groupby("subject_id")["split"].agg(["nunique", "first"])
    assert (subjects["nunique"] == 1).all()
    assert subjects["first"].value_counts().to_dict() == {"train": 80, "val": 10, "test": 10}
    pd.testing.assert_frame_equal(first.table, again.table)
    assert first.record == again.record
    assert first.table["split"].tolist() != other.table["split"].tolist()
    assert first.record["split"] == {
        "from": "subjects",
        "shares": {"train": 0.8, "val": 0.1, "test": 0.1},
        "stratify": ["label", "sex", "age_group"],
        "seed": 0,
    }


def test_split_file_must_cover_every_subject(write_ham: Writer, tmp_path: Path) -> None:
    path = tmp_path / "split.csv"
    path.write_text("\n".join(line for line in SPLIT.splitlines() if "07," not in line and "09," not in line))
    with pytest.raises(SplitError) as caught:
        build_manifest("ham10000", write_ham(), split=path)
    assert str(caught.value) == (
        f"{path}: expected every subject of the dataset, 2 are not there: HAM_0000007, HAM_0000009"
    )


def test_split_file_with_an_unknown_part_is_an_error(write_ham: Writer, tmp_path: Path) -> None:
    path = tmp_path / "split.csv"
    path.write_text(SPLIT.replace("val", "valid"))
    with pytest.raises(ManifestError, match="line 6, column 'split': expected one of train, val, test, got 'valid'"):
        build_manifest("ham10000", write_ham(), split=path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("subject_id,part\na,train\n", "expected a column 'split', found none"),
        ("subject_id,split\na,train\nb,val\na,test\n", "subject 'a' has more than one line; keep one"),
    ],
)
def test_split_file_errors(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "split.csv"
    path.write_text(text)
    with pytest.raises(SplitError) as caught:
        read_split(path)
    assert str(caught.value) == f"{path}: {message}"


def test_unknown_codes_come_together_with_their_counts(write_ham: Writer) -> None:
    lesions = (
        (1, 1, "nv", "60.0", "male"),
        (2, 2, "scc", "121", "female"),
        (3, 3, "scc", "old", "intersex"),
        (4, 4, "mel", "60.0", "male"),
    )
    root = write_ham(lesions)
    with pytest.raises(RecipeError) as caught:
        build_manifest("ham10000", root)
    fix = "name the code in the recipe (under a group, 'missing' or 'drop')"
    assert str(caught.value) == (
        f"{root}: 5 problems\n"
        f"  1. label (column 'dx'): expected one of 'nv', 'bkl', 'bcc', 'vasc', 'df', 'akiec', 'mel', "
        f"got 'scc' in 2 rows; {fix}\n"
        f"  2. sex (column 'sex'): expected one of 'female', 'male', got 'intersex' in 1 rows; {fix}\n"
        "  3. age (column 'age'): expected a number from 0 to 120, got '121' in 1 rows\n"
        "  4. age (column 'age'): expected a number from 0 to 120, got 'old' in 1 rows\n"
        "  5. age_group (column 'age'): expected a number, got 'old' in 1 rows"
    )


def test_missing_metadata_file(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        build_manifest("ham10000", tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: expected the metadata file HAM10000_metadata.csv or HAM10000_metadata or "
        "HAM10000_metadata.tab, found none; check --root"
    )
    with pytest.raises(RecipeError, match="expected the dataset's folder, found none; check --root"):
        build_manifest("ham10000", tmp_path / "nowhere")


def test_missing_columns_come_together(write_ham: Writer) -> None:
    with pytest.raises(RecipeError) as caught:
        build_manifest("ham10000", write_ham(columns=("lesion_id", "image_id", "age")))
    assert str(caught.value) == (
        "ham10000.yaml: 2 problems\n"
        "  1. expected a column 'dx' (for label), found lesion_id, image_id, age\n"
        "  2. expected a column 'sex' (for sex), found lesion_id, image_id, age"
    )


def test_missing_and_doubled_images_come_together(write_ham: Writer) -> None:
    root = write_ham()
    for number in (3, 9):
        next(root.glob(f"*/ISIC_{number:07d}.jpg")).unlink()
    (root / ONE / "ISIC_0000010.jpg").write_bytes(b"")
    with pytest.raises(RecipeError) as caught:
        build_manifest("ham10000", root)
    looked = f"{ONE}, {TWO}, HAM10000_images, images"
    assert str(caught.value) == (
        f"{root}: 2 problems\n"
        f"  1. expected 10 images in {looked}; 2 are not there: ISIC_0000003.jpg, ISIC_0000009.jpg\n"
        f"  2. 1 images lie in more than one folder of {looked}: ISIC_0000010.jpg"
    )


def test_images_of_dropped_rows_are_not_needed(write_ham: Writer, split: Path) -> None:
    root = write_ham()
    next(root.glob("*/ISIC_0000008.jpg")).unlink()
    built = build_manifest("ham10000", root, options={"missing": "drop"}, split=split)
    assert len(built.table) == 7


def test_nothing_left_is_an_error(write_ham: Writer) -> None:
    root = write_ham(((1, 1, "nv", "", "unknown"),))
    with pytest.raises(RecipeError, match="every row is dropped"):
        build_manifest("ham10000", root, options={"missing": "drop"})


def test_the_record_takes_the_json_name(write_ham: Writer, split: Path, tmp_path: Path) -> None:
    built = build_manifest("ham10000", write_ham(), split=split)
    with pytest.raises(ManifestError, match=r"expected a name for a table, the record takes \.json"):
        write_manifest(built, tmp_path / "manifest.json")
    assert not (tmp_path / "manifest.json").exists()
