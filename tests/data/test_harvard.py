"""Harvard-GDP and Harvard-GF, from one .npz file per subject to the manifest."""

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monai_fair.data import build_manifest
from monai_fair.errors import ImageFileError, ManifestError, RecipeError

Writer = Callable[..., Path]


def gdp(glaucoma: Any, male: Any, age: Any, race: Any) -> Mapping[str, Any]:
    return {
        "glaucoma": glaucoma,
        "male": male,
        "age": age,
        "race": race,
        "md": np.array(-3.2),
        "tds": np.zeros(52),
        "hispanic": 0,
        "progression": np.zeros(6, dtype=int),
    }


# numbers as the files have them: 0-d arrays and arrays of one, integers and floats, text for race
SUBJECTS = {
    "rnflt_maps/data_0001.npz": gdp(np.array(1), np.array([0]), np.array(60.0), np.array("Asian")),
    "rnflt_maps/data_0002.npz": gdp(np.array([0.0]), np.array(1.0), np.array([59.99]), np.array(["White"])),
    "rnflt_maps/data_0003.npz": gdp(1, True, 75, "Black or African American"),
    "rnflt_maps/data_0004.npz": gdp(np.int64(0), np.float32(0), np.float32(41.5), "White or Caucasian"),
    "rnflt_maps/data_0005.npz": gdp(0, 1, np.nan, "Unknown"),
}
FIVE = {f"data_{number:04d}": part for number, part in enumerate(["train", "train", "val", "test", "test"], start=1)}


@pytest.fixture
def split(tmp_path: Path) -> Path:
    path = tmp_path / "split.csv"
    path.write_text("subject_id,split\n" + "".join(f"{name},{part}\n" for name, part in FIVE.items()))
    return path


def test_every_row_of_harvard_gdp(write_subjects: Writer, split: Path) -> None:
    table = build_manifest("harvard_gdp", write_subjects(SUBJECTS), split=split).table
    assert table.to_csv(index=False, lineterminator="\n") == (
        "subject_id,image,label,split,sex,age,age_group,race\n"
        "data_0001,rnflt_maps/data_0001.npz,1,train,female,60,>=60,Asian\n"
        "data_0002,rnflt_maps/data_0002.npz,0,train,male,59.99,<60,White\n"
        "data_0003,rnflt_maps/data_0003.npz,1,val,male,75,>=60,Black\n"
        "data_0004,rnflt_maps/data_0004.npz,0,test,female,41.5,<60,White\n"
        "data_0005,rnflt_maps/data_0005.npz,0,test,male,,,\n"
    )


def test_files_may_lie_in_the_root(write_subjects: Writer, split: Path) -> None:
    root = write_subjects({name.split("/")[1]: arrays for name, arrays in SUBJECTS.items()})
    built = build_manifest("harvard_gdp", root, split=split)
    assert built.table["image"].tolist() == [f"data_{number:04d}.npz" for number in range(1, 6)]
    assert built.record["sources"] == {"rnflt_maps/data_*.npz data_*.npz": "5 files"}


def test_exactly_sixty_on_the_other_side(write_subjects: Writer, split: Path) -> None:
    built = build_manifest("harvard_gdp", write_subjects(SUBJECTS), options={"age_equal": "below"}, split=split)
    assert built.table["age_group"].tolist() == ["<=60", "<=60", ">60", "<=60", ""]


def test_missing_rows_are_dropped_once_with_all_reasons(write_subjects: Writer, split: Path) -> None:
    built = build_manifest("harvard_gdp", write_subjects(SUBJECTS), options={"missing": "drop"}, split=split)
    assert built.record["dropped"] == [
        {"reason": "age is missing; age_group is missing; race is missing", "n": 1, "subject_id": ["data_0005"]}
    ]


def test_race_numbers_are_refused_until_someone_says_what_they_mean(write_subjects: Writer, split: Path) -> None:
    numbers = {name: {**arrays, "race": code} for (name, arrays), code in zip(SUBJECTS.items(), [0, 1, 2, 2, 1])}  # noqa: B905
    root = write_subjects(numbers)
    with pytest.raises(RecipeError) as caught:
        build_manifest("harvard_gdp", root)
    message = str(caught.value)
    assert message.startswith(f"{root}: 3 problems\n")
    for code, count in (("2", 2), ("1", 2), ("0", 1)):
        assert (
            "race (column 'race'): expected one of 'Asian', 'Black or African American', 'Black', "
            f"'White or Caucasian', 'White', got '{code}' in {count} rows; name the code in the recipe"
        ) in message
    built = build_manifest("harvard_gdp", root, options={"race": "codes_as_harvard_gf"}, split=split)
    assert built.table["race"].tolist() == ["Asian", "Black", "White", "White", "Black"]


def gf(race: Any, **changed: Any) -> Mapping[str, Any]:
    arrays = {"glaucoma": 1, "md": -1.0, "tds": np.zeros(52), "age": 61.5, "male": 0, "race": race}
    return {**arrays, "ethnicity": 0, "language": 0, "maritalstatus": 1, **changed}


@pytest.mark.parametrize("folders", [("train", "val", "test"), ("Training", "Validation", "Test")])
def test_every_row_of_harvard_gf(write_subjects: Writer, folders: tuple[str, str, str]) -> None:
    train, val, test = folders
    subjects = {
        f"{train}/data_0001.npz": gf(0),
        f"{train}/data_0002.npz": gf(np.array([1]), maritalstatus=-1, ethnicity=-1, language=-1),
        f"{val}/data_2101.npz": gf(np.array(2.0), glaucoma=0, male=1, age=60, maritalstatus=4, ethnicity=1, language=2),
        f"{test}/data_2401.npz": gf("White or Caucasian", age=20),
    }
    built = build_manifest("harvard_gf", write_subjects(subjects, size=200))
    assert built.table.to_csv(index=False, lineterminator="\n") == (
        "subject_id,image,label,split,sex,age,age_group,race,ethnicity,language,marital_status\n"
        f"data_2401,{test}/data_2401.npz,1,test,female,20,<60,White,non-Hispanic,English,single\n"
        f"data_0001,{train}/data_0001.npz,1,train,female,61.5,>=60,Asian,non-Hispanic,English,single\n"
        f"data_0002,{train}/data_0002.npz,1,train,female,61.5,>=60,Black,,,\n"
        f"data_2101,{val}/data_2101.npz,0,val,male,60,>=60,White,Hispanic,other,separated\n"
    )
    assert built.record["split"]["from"] == "column folder"
    assert built.record["derivations"]["language"]["missing"] == 1


def test_folders_may_lie_one_level_down(write_subjects: Writer) -> None:
    root = write_subjects({"Dataset/Training/data_1.npz": gf(0), "Dataset/Test/data_2.npz": gf(1)}, size=8)
    table = build_manifest("harvard_gf", root).table
    assert table[["subject_id", "split"]].to_numpy().tolist() == [["data_2", "test"], ["data_1", "train"]]


def test_an_unknown_race_never_becomes_asian(write_subjects: Writer) -> None:
    root = write_subjects({"train/data_1.npz": gf(0), "train/data_2.npz": gf(3), "test/data_3.npz": gf(3)}, size=8)
    with pytest.raises(RecipeError) as caught:
        build_manifest("harvard_gf", root)
    assert str(caught.value) == (
        f"{root}: race (column 'race'): expected one of '0', 'Asian', '1', 'Black or African American', '2', "
        "'White or Caucasian', got '3' in 2 rows; name the code in the recipe (under a group, 'missing' or 'drop')"
    )


def test_an_unknown_folder_is_named(write_subjects: Writer) -> None:
    root = write_subjects({"train/data_1.npz": gf(0), "holdout/data_2.npz": gf(1)}, size=8)
    with pytest.raises(RecipeError, match=r"split .column 'folder'.: expected one of .* got 'holdout' in 1 rows"):
        build_manifest("harvard_gf", root)


def test_one_subject_in_two_folders_is_an_error(write_subjects: Writer) -> None:
    root = write_subjects({"train/data_1.npz": gf(0), "test/data_1.npz": gf(0)}, size=8)
    with pytest.raises(ManifestError) as caught:
        build_manifest("harvard_gf", root)
    assert str(caught.value) == f"harvard_gf.yaml on {root}: subject 'data_1' stands in test and train; put it in one"


def test_no_files(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        build_manifest("harvard_gdp", tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: expected files like rnflt_maps/data_*.npz or data_*.npz, found none; check --root"
    )


def test_every_broken_file_is_named_with_its_reason(write_subjects: Writer) -> None:
    broken = {"rnflt_maps/data_0006.npz": {"glaucoma": 1, "age": 50}}
    wide = {"rnflt_maps/data_0007.npz": gdp(np.array([0, 1]), 0, 50, "Asian")}
    root = write_subjects({**SUBJECTS, **broken, **wide})
    folder = root / "rnflt_maps"
    whole = (folder / "data_0001.npz").read_bytes()
    (folder / "data_0001.npz").write_bytes(whole[: len(whole) // 2])
    (folder / "data_0002.npz").write_bytes(b"")
    np.save(folder / "renamed.npy", np.ones(3))
    (folder / "renamed.npy").rename(folder / "data_0003.npz")
    with pytest.raises(ImageFileError) as caught:
        build_manifest("harvard_gdp", root)
    assert str(caught.value) == (
        f"{root}: 5 problems\n"
        "  1. rnflt_maps/data_0001.npz: File is not a zip file\n"
        "  2. rnflt_maps/data_0002.npz: File is not a zip file\n"
        "  3. rnflt_maps/data_0003.npz: File is not a zip file\n"
        "  4. rnflt_maps/data_0006.npz: expected the arrays male, race, found rnflt, glaucoma, age\n"
        "  5. rnflt_maps/data_0007.npz: expected one value each in glaucoma, got arrays"
    )


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_a_pickled_object_is_refused_and_never_run(write_subjects: Writer, tmp_path: Path) -> None:
    mark = tmp_path / "was_run"
    hostile = np.empty((), dtype=object)
    hostile[()] = Trap(mark)
    root = write_subjects({"data_0001.npz": gdp(1, 0, 50, hostile)})
    with pytest.raises(ImageFileError) as caught:
        build_manifest("harvard_gdp", root)
    assert str(caught.value) == (f"{root}: data_0001.npz: Object arrays cannot be loaded when allow_pickle=False")
    assert not mark.exists()
    # the trap works: it is the reader that does not step into it
    pickle.loads(pickle.dumps(Trap(mark)))  # noqa: S301 our own object
    assert mark.exists()
