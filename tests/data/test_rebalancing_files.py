"""From a manifest and a table of subgroups to a manifest that balances them, and the verb that does it."""

from pathlib import Path

import pytest

from monai_fair.data import read_manifest, read_subgroups, rebalance_files
from monai_fair.data.artifacts import read_json
from monai_fair.data.verbs import rebalance
from monai_fair.errors import ManifestError

# Training cells (label, subgroup): (0, S1) 3, (0, S2) 1, (1, S1) 1, (1, S2) 1.
ROWS = [
    ("001", 0, "train", "S1"),
    ("002", 0, "train", "S1"),
    ("003", 0, "train", "S1"),
    ("004", 0, "train", "S2"),
    ("005", 1, "train", "S1"),
    ("006", 1, "train", "S2"),
    ("007", 1, "test", "S2"),
    ("008", 0, "test", ""),
]


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    manifest, subgroups = tmp_path / "manifest.csv", tmp_path / "subgroups.csv"
    lines = [f"{who},{who}.nii.gz,{label},{split},89+" for who, label, split, _ in ROWS]
    manifest.write_text("\n".join(["subject_id,image,label,split,age", *lines]) + "\n")
    lines = [f"{who},{split},1,{group},0.5" for who, _, split, group in ROWS]
    subgroups.write_text("\n".join(["subject_id,split,fitted,subgroup,membership_S1", *lines]) + "\n")
    return manifest, subgroups


def test_weights_and_subgroups_stand_in_the_new_manifest(files: tuple[Path, Path], tmp_path: Path) -> None:
    built = rebalance_files(*files, tmp_path / "new.csv")
    found = read_manifest(tmp_path / "new.csv")
    assert found.attributes == ("age", "subgroup")
    assert found.table["subgroup"].tolist() == ["S1", "S1", "S1", "S2", "S1", "S2", "S2", ""]
    # P(y) P(s) / P(y, s) of six rows: (4/6 4/6)/(3/6), (4/6 2/6)/(1/6), (2/6 4/6)/(1/6), (2/6 2/6)/(1/6)
    expected = [8 / 9] * 3 + [4 / 3, 4 / 3, 2 / 3, 1, 1]
    assert found.table["weight"].tolist() == pytest.approx(expected, rel=1e-15)
    record = read_json(tmp_path / "new.json", "manifest")
    assert record["rebalancing"] == {**built.record["rebalancing"]}


def test_the_verb_prints_cells_and_ends_with_the_path(files: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "new.csv"
    # 6^2 / (3 * 64/81 + 2 * 16/9 + 4/9) = 36 / (516/81)
    assert rebalance(*map(str, files), str(out)).splitlines() == [
        "8 images of 8 subjects, 0 rows dropped",
        "training rows per cell:",
        "label 0, S1: n 3, weight 2.66667",
        "label 0, S2: n 1, weight 1.33333",
        "label 1, S1: n 1, weight 1.33333",
        "label 1, S2: n 1, weight 0.666667",
        "effective number of training rows: 5.7",
        f"record: {tmp_path / 'new.json'}",
        str(out),
    ]


def test_draws_are_whole_numbers_and_depend_on_the_seed_alone(files: tuple[Path, Path], tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        rebalance_files(*files, tmp_path / name, method="resample", seed=3)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    weight = read_manifest(tmp_path / "a.csv").table["weight"].tolist()
    assert weight == [1, 1, 1, 3, 3, 3, 1, 1]  # every cell up to three rows


def test_training_subjects_without_a_subgroup_are_a_choice(files: tuple[Path, Path], tmp_path: Path) -> None:
    files[1].write_text(files[1].read_text().replace("004,train,1,S2", "004,train,1,"))
    with pytest.raises(ManifestError) as caught:
        rebalance_files(*files, tmp_path / "new.csv")
    assert str(caught.value) == (
        f"{files[0]}: expected a subgroup for every training subject, 1 have none: 004; add them, or choose "
        "missing='drop' or 'group'"
    )
    assert not (tmp_path / "new.csv").exists()
    shown = rebalance(*map(str, files), str(tmp_path / "new.csv"), missing="drop").splitlines()
    assert shown[0] == "7 images of 7 subjects, 1 rows dropped"
    warning = "warning: no training row of label 0 in subgroup 'S2': re-balancing cannot make label and subgroup "
    assert f"{warning}independent there" in shown


def test_a_table_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "groups.csv"
    path.write_text("id,group\na,S1\n")
    with pytest.raises(ManifestError) as caught:
        read_subgroups(path)
    assert str(caught.value) == (
        f"{path}: 2 problems\n  1. expected a column 'subject_id', found none; add it\n"
        "  2. expected a column 'subgroup', found none; add it"
    )
    path.write_text("subject_id,subgroup\na,S1\na,S2\nb,S1\n")
    with pytest.raises(ManifestError) as caught:
        read_subgroups(path)
    assert str(caught.value) == f"{path}: expected one row per subject, 1 have more, such as 'a'"


def test_the_manifest_is_not_overwritten(files: tuple[Path, Path]) -> None:
    before = files[0].read_bytes()
    with pytest.raises(ManifestError, match="expected another file than the manifest"):
        rebalance_files(*files, files[0].parent / "." / "manifest.csv")
    assert files[0].read_bytes() == before
