"""What a study could not finish with is refused before it starts; no row that was learned from is scored as other."""

from pathlib import Path
from typing import Any

import pytest

from monai_fair.engines.study_checks import check_attributes, external_rows
from monai_fair.errors import ManifestError

SPLITS = ["train"] * 4 + ["val"] * 2 + ["test"] * 2


def write(path: Path, *, name: str = "s", column: str = "split", **columns: list[str]) -> Path:
    """Write eight rows; of four men and four women."""
    own: dict[str, Any] = {
        "subject_id": [f"{name}{row}" for row in range(8)],
        "image": [f"{row}.png" for row in range(8)],
        "label": ["0", "1"] * 4,
        column: SPLITS,
        "sex": ["f", "f", "m", "m"] * 2,
        **columns,
    }
    lines = [",".join(own), *(",".join(row) for row in zip(*own.values(), strict=True))]
    path.write_text("\n".join(lines) + "\n")
    return path


def check(folder: Path, manifest: Path, other: Path | None = None, **options: Any) -> None:
    external = {"there": {"manifest": str(other), "dataset_dir": str(folder)}} if other else None
    check_attributes([manifest], folder, {"sex": None}, external=external, **options)


def test_attributes_that_all_stages_take_are_accepted(tmp_path: Path) -> None:
    other = write(tmp_path / "other.csv", name="t", sex=["f", "", "x", "m"] * 2)
    check(tmp_path, write(tmp_path / "m.csv"), other)
    gaps = write(tmp_path / "gaps.csv", sex=["f", "", "m", "m"] * 2)
    check(tmp_path, gaps, missing_attributes=True)


def test_every_fold_is_looked_at(tmp_path: Path) -> None:
    good, bad = write(tmp_path / "m.csv"), write(tmp_path / "b.csv", sex=["f"] * 4 + ["m"] * 4)
    with pytest.raises(ManifestError, match="sex: expected at least two levels in the training rows, got f"):
        check_attributes([good, bad], tmp_path, {"sex": None})


def test_a_missing_attribute_is_refused_where_no_network_is_told(tmp_path: Path) -> None:
    manifest = write(tmp_path / "m.csv", sex=["f", "", "m", "m"] * 2)
    with pytest.raises(ManifestError, match="sex: expected a value in every row, 2 of 8 have none"):
        check(tmp_path, manifest)


def test_other_data_without_an_attribute_are_refused(tmp_path: Path) -> None:
    other = write(tmp_path / "other.csv", name="t")
    other.write_text(other.read_text().replace("sex", "gender", 1))
    with pytest.raises(ManifestError, match="attributes: sex: expected a recorded attribute, found none"):
        check(tmp_path, write(tmp_path / "m.csv"), other)


def test_several_classes_are_taken_from_the_record(tmp_path: Path) -> None:
    manifest = write(tmp_path / "m.csv", label=["0", "1", "2", "0"] * 2)
    with pytest.raises(ManifestError, match="expected 0 or 1"):
        check(tmp_path, manifest)
    manifest.with_suffix(".json").write_text('{"kind": "manifest", "num_classes": 3}')
    check(tmp_path, manifest)


def test_every_row_of_other_data_is_there_whatever_its_split(tmp_path: Path) -> None:
    trained_on = write(tmp_path / "m.csv")
    other = write(tmp_path / "other.csv", name="t")
    rows = external_rows(other, tmp_path, trained_on=trained_on)
    assert [row["subject_id"] for row in rows] == [f"t{row}" for row in range(8)]
    folds = write(tmp_path / "folds.csv", name="t", column="fold", fold=["0", "0", "1", "1"] * 2)
    assert len(external_rows(folds, tmp_path, trained_on=trained_on)) == 8


def test_subjects_of_the_same_number_are_others(tmp_path: Path) -> None:
    other = write(tmp_path / "other.csv", image=[f"there/{row}.png" for row in range(8)])
    assert len(external_rows(other, tmp_path, trained_on=write(tmp_path / "m.csv"))) == 8


def test_rows_that_were_learned_from_are_refused(tmp_path: Path) -> None:
    manifest = write(tmp_path / "m.csv")
    with pytest.raises(ManifestError) as caught:
        external_rows(manifest, tmp_path, trained_on=manifest)
    assert str(caught.value) == (
        f"{manifest}: expected rows that no model learned from, 6 stand in train or val of {manifest}, such as "
        "s0 0.png, s1 1.png, s2 2.png; leave them out"
    )
    # the same image under other names
    digests = [f"{row:064x}" for row in range(8)]
    own = write(tmp_path / "own.csv", sha256=digests)
    other = write(tmp_path / "other.csv", name="t", sha256=["", *digests[7:0:-1]])
    with pytest.raises(ManifestError, match="5 stand in train or val"):
        external_rows(other, tmp_path, trained_on=own)
    # test rows taught no model anything
    last = write(tmp_path / "last.csv", name="t", sha256=["", "", "", "", "", "", *digests[6:]])
    assert len(external_rows(last, tmp_path, trained_on=own)) == 8
