"""BIDS: participants.tsv and the files of one or several sessions, by the rules of the specification."""

from collections.abc import Callable
from pathlib import Path

import pytest

from monai_fair.data import build_manifest
from monai_fair.errors import RecipeError

HEADER = "participant_id\tsex\tage\tdx\tcentre"
PEOPLE = (
    "sub-01\tF\t61\tAD\tA",
    "sub-02\tmale\t89+\tCN\tn/a",
    "sub-03\tn/a\tn/a\tCN\tA",
    "sub-004\tO\t59.5\tMCI\tB",
    "sub-05\tm\t60\tn/a\tB",
    "sub-06\tf\t20\tSMC\tB",
)
PARTS = {"sub-01": "train", "sub-02": "val", "sub-03": "test", "sub-06": "test"}
OPTIONS = {"label": "dx", "positive": "AD", "negative": "CN|SMC", "drop": "MCI"}


def anat(who: str, rest: str = "T1w.nii.gz") -> str:
    return f"{who}/anat/{who}_{rest}"


def ses(who: str, session: str, rest: str = "T1w.nii.gz") -> str:
    return f"{who}/{session}/anat/{who}_{session}_{rest}"


@pytest.fixture
def bids(tmp_path: Path, touch: Callable[..., None]) -> Path:
    root = tmp_path / "bids"
    for who in (row.split("\t")[0] for row in PEOPLE):
        touch(root, anat(who), anat(who, "T1w.json"), anat(who, "FLAIR.nii.gz"))
    touch(root, f"derivatives/fastsurfer/{anat('sub-01')}")
    (root / "dataset_description.json").write_text('{"Name": "Tiny", "BIDSVersion": "1.9.0"}')
    (root / "participants.tsv").write_text("\n".join([HEADER, *PEOPLE]) + "\n")
    return root


@pytest.fixture
def split(write_split: Callable[..., Path]) -> Path:
    return write_split(PARTS)


def message(root: Path, **options: str) -> str:
    with pytest.raises(RecipeError) as caught:
        build_manifest("bids", root, options={**OPTIONS, **options})
    return str(caught.value)


def test_every_row(bids: Path, split: Path) -> None:
    built = build_manifest("bids", bids, options={**OPTIONS, "site": "centre"}, split=split)
    # AD -> 1; CN and SMC -> 0; MCI and n/a leave. 89+ counts as 89; n/a is missing.
    assert built.table.to_csv(index=False, lineterminator="\n") == (
        "subject_id,image,label,split,sex,age,age_group,site\n"
        f"sub-01,{anat('sub-01')},1,train,female,61,>=60,A\n"
        f"sub-02,{anat('sub-02')},0,val,male,89,>=60,\n"
        f"sub-03,{anat('sub-03')},0,test,,,,A\n"
        f"sub-06,{anat('sub-06')},0,test,female,20,<60,B\n"
    )
    assert built.record["dropped"] == [
        {"reason": "label code is dropped by the recipe: MCI", "n": 1, "subject_id": ["sub-004"]},
        {"reason": "label is missing", "n": 1, "subject_id": ["sub-05"]},
    ]
    assert built.record["derivations"]["age"]["capped"] == 1
    assert built.record["options"]["negative"] == "CN|SMC"
    assert built.record["derivations"]["label"]["rule"] == {"groups": {"0": ["CN", "SMC"], "1": ["AD"]}}


def test_sex_and_age_may_be_absent(bids: Path, split: Path) -> None:
    lines = [line.split("\t") for line in (HEADER, *PEOPLE)]
    (bids / "participants.tsv").write_text("\n".join(f"{cells[0]}\t{cells[3]}" for cells in lines) + "\n")
    assert message(bids) == (
        "bids.yaml: 2 problems\n"
        "  1. expected a column 'sex' (for sex), found participant_id, dx, session\n"
        "  2. expected a column 'age' (for age_group), found participant_id, dx, session"
    )
    built = build_manifest("bids", bids, options={**OPTIONS, "sex": "", "age": ""}, split=split)
    assert list(built.table) == ["subject_id", "image", "label", "split"]
    random = build_manifest("bids", bids, options={**OPTIONS, "sex": "", "age": ""})
    assert random.record["split"]["stratify"] == ["label"]


def test_what_the_options_need(bids: Path, refusal: Callable[..., str]) -> None:
    assert refusal("bids", bids, options={"age_cut": "sixty"}).split("\n")[1:] == [
        "  1. option 'positive': expected a value, got none; give one with --options positive=...",
        "  2. option 'negative': expected a value, got none; give one with --options negative=...",
        "  3. option 'age_cut': expected a number, got 'sixty'",
    ]
    assert message(bids, label="diagnosis") == (
        "bids.yaml: expected a column 'diagnosis' (for label), found participant_id, sex, age, dx, centre, session"
    )
    assert message(bids, drop="") == (
        f"{bids}: label (column 'dx'): expected one of 'CN', 'SMC', 'AD', got 'MCI' in 1 rows; "
        "name the code in the recipe (under a group, 'missing' or 'drop')"
    )
    assert message(bids, positive="AD|CN").endswith("label: code 'CN' is listed 2 times; keep one")


def test_the_unknown_sex_is_named(bids: Path) -> None:
    (bids / "participants.tsv").write_text("\n".join([HEADER, *PEOPLE]).replace("\tmale", "\t1") + "\n")
    assert f"{bids}: sex (column 'sex'): expected one of 'female', 'f'" in message(bids)
    assert "got '1' in 1 rows; name the code" in message(bids)


@pytest.mark.parametrize("cut", ["89", "88.5"])
def test_a_capped_age_has_its_place_below_the_cap(bids: Path, split: Path, cut: str) -> None:
    table = build_manifest("bids", bids, options={**OPTIONS, "age_cut": cut}, split=split).table
    assert table["age_group"].tolist() == [f"<{cut}", f">={cut}", "", f"<{cut}"]


def test_a_capped_age_that_may_lie_on_either_side_is_named(bids: Path) -> None:
    assert message(bids, age_cut="90") == (
        f"{bids}: age_group (column 'age'): '89+' in 1 rows may lie on either side of 90; choose lower edges"
    )

    # 89+ is at least 89: with 89 itself in the lower group nobody knows
    assert message(bids, age_cut="89", age_equal="below") == (
        f"{bids}: age_group (column 'age'): '89+' in 1 rows may lie on either side of 89; choose lower edges"
    )


def test_another_image_for_everybody(bids: Path, split: Path) -> None:
    built = build_manifest("bids", bids, options={**OPTIONS, "image": "sub-*/anat/*_FLAIR.nii.gz"}, split=split)
    assert built.table["image"].tolist() == [anat(who, "FLAIR.nii.gz") for who in PARTS]


def test_none_and_several_images_are_named_with_their_subject(
    bids: Path, split: Path, touch: Callable[..., None]
) -> None:
    (bids / anat("sub-02")).unlink()
    fast = anat("sub-01", "acq-fast_T1w.nii.gz")
    touch(bids, fast)
    assert message(bids) == (
        f"{bids}: 2 problems\n"
        f"  1. subject 'sub-01': expected one image, found 2: {anat('sub-01')}, {fast}\n"
        "  2. subject 'sub-02': expected one image, found none"
    )
    options = {**OPTIONS, "several": "last", "without_image": "drop"}
    built = build_manifest("bids", bids, options=options, split=split)
    assert built.table["image"].iloc[0] == fast
    assert built.record["dropped"][0] == {"reason": "no image", "n": 1, "subject_id": ["sub-02"]}
    assert built.record["notes"] == ["1 rows have several images, of which the last by name is taken"]


@pytest.fixture
def sessions(tmp_path: Path, touch: Callable[..., None]) -> Path:
    root = tmp_path / "sessions"
    touch(root, ses("sub-01", "ses-10"), ses("sub-01", "ses-2"), ses("sub-02", "ses-2"), ses("sub-03", "ses-1"))
    people = [row for row in PEOPLE if row[:6] in PARTS and row[:6] != "sub-06"]
    (root / "participants.tsv").write_text("\n".join([HEADER, *people]) + "\n")
    return root


def test_every_session_is_a_row_in_its_subjects_part(sessions: Path, split: Path) -> None:
    table = build_manifest("bids", sessions, options=OPTIONS, split=split).table
    assert table["image"].tolist() == [
        ses("sub-01", "ses-10"), ses("sub-01", "ses-2"), ses("sub-02", "ses-2"), ses("sub-03", "ses-1")
    ]  # fmt: skip
    assert table["split"].tolist() == ["train", "train", "val", "test"]


def test_the_first_session_is_that_of_the_lowest_number(sessions: Path, split: Path) -> None:
    built = build_manifest("bids", sessions, options={**OPTIONS, "sessions": "first"}, split=split)
    assert built.table["image"].tolist() == [ses("sub-01", "ses-2"), ses("sub-02", "ses-2"), ses("sub-03", "ses-1")]
    assert built.record["dropped"] == [
        {"reason": "a later scan of the subject, by 'session_number'", "n": 1, "subject_id": ["sub-01"]}
    ]


def test_two_images_of_one_session_are_named(sessions: Path, touch: Callable[..., None]) -> None:
    touch(sessions, ses("sub-01", "ses-2", "run-2_T1w.nii.gz"))
    both = f"{ses('sub-01', 'ses-2')}, {ses('sub-01', 'ses-2', 'run-2_T1w.nii.gz')}"
    assert message(sessions) == f"{sessions}: subject 'sub-01': expected one image, found 2: {both}"


def test_a_table_with_a_row_per_session_is_matched_by_both(sessions: Path, split: Path) -> None:
    rows = ["participant_id\tsession\tsex\tage\tdx", "sub-01\tses-2\tF\t61\tCN", "sub-01\tses-10\tF\t63\tAD"]
    (sessions / "participants.tsv").write_text("\n".join(rows) + "\n")
    table = build_manifest("bids", sessions, options=OPTIONS, split=split).table
    assert table[["image", "label", "age"]].to_numpy().tolist() == [
        [ses("sub-01", "ses-2"), "0", "61"],
        [ses("sub-01", "ses-10"), "1", "63"],
    ]


def test_a_person_with_two_rows_is_named(bids: Path) -> None:
    (bids / "participants.tsv").write_text("\n".join([HEADER, *PEOPLE, PEOPLE[0]]) + "\n")
    assert message(bids) == f"{bids}: expected one row per participant_id, found 2 of 'sub-01'"


def test_the_datasets_own_split(bids: Path) -> None:
    parts = {
        "sub-01": "train",
        "sub-02": "val",
        "sub-03": "test",
        "sub-004": "train",
        "sub-05": "test",
        "sub-06": "test",
    }
    lines = [HEADER + "\tsplit", *(f"{row}\t{parts[row.split(chr(9))[0]]}" for row in PEOPLE)]
    (bids / "participants.tsv").write_text("\n".join(lines) + "\n")
    built = build_manifest("bids", bids, options={**OPTIONS, "split": "column"})
    assert built.table["split"].tolist() == ["train", "val", "test", "test"]
    assert built.record["split"]["from"] == "column split"
