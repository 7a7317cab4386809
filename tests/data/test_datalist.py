from pathlib import Path
from typing import Any

import pytest

from monai_fair.data import load_datalist
from monai_fair.errors import ManifestError

TABLE = """subject_id,image,label,split,weight,image_id,sex,age
p1,a/1.jpg,0,train,1,I1,female,089
p2,a/2.jpg,1,val,0.5,I2,,
p1,a/3.jpg,1,train,2,I3,female,89+
"""


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "manifest.csv"
    path.write_text(TABLE)
    return path


@pytest.fixture
def folds(tmp_path: Path) -> Path:
    path = tmp_path / "folds.csv"
    path.write_text("subject_id,image,label,fold\na,1,0,0\nb,2,1,1\nc,3,1,10\n")
    return path


def test_exact_items(manifest: Path, tmp_path: Path) -> None:
    items = [
        {
            "image": str(tmp_path / "a" / f"{number}.jpg"),
            "row": number - 1,
            "subject_id": subject,
            "attributes": {"sex": sex, "age": age},
            "split": split,
            "label": label,
            "weight": weight,
        }
        for number, subject, sex, age, split, label, weight in [
            (1, "p1", "female", "089", "train", 0, 1.0),
            (2, "p2", "", "", "val", 1, 0.5),
            (3, "p1", "female", "89+", "train", 1, 2.0),
        ]
    ]
    assert load_datalist(manifest, tmp_path) == items
    assert load_datalist(manifest, tmp_path, "train") == [items[0], items[2]]
    assert load_datalist(manifest, str(tmp_path), ["val", "train"]) == items
    kinds = {type(value) for item in load_datalist(manifest, tmp_path) for value in item.values()}
    assert kinds == {str, int, float, dict}


@pytest.mark.parametrize(
    ("wanted", "subjects"),
    [("0", ["a"]), (0, ["a"]), (1, ["b"]), ([0, 1], ["a", "b"]), (["10"], ["c"]), (None, ["a", "b", "c"])],
)
def test_folds_by_number_or_text(folds: Path, tmp_path: Path, wanted: Any, subjects: list[str]) -> None:
    assert [item["subject_id"] for item in load_datalist(folds, tmp_path, wanted)] == subjects


def test_an_empty_part_is_an_error(manifest: Path, folds: Path, tmp_path: Path) -> None:
    with pytest.raises(ManifestError) as caught:
        load_datalist(manifest, tmp_path, ["train", "test", "dev"])
    assert str(caught.value) == (
        f"{manifest}: 2 problems\n"
        "  1. expected rows with split 'test', got none; found train 2, val 1\n"
        "  2. expected rows with split 'dev', got none; found train 2, val 1"
    )
    with pytest.raises(ManifestError, match="expected rows with fold 'train', got none; found 0 1, 1 1, 10 1"):
        load_datalist(folds, tmp_path, "train")
    with pytest.raises(ManifestError, match="expected at least one split to keep, got an empty list"):
        load_datalist(manifest, tmp_path, [])


def test_links_out_of_the_root_are_refused_together(manifest: Path, tmp_path: Path) -> None:
    root, secret = tmp_path / "root", tmp_path / "secret"
    (root / "a").mkdir(parents=True)
    secret.mkdir()
    (secret / "1.jpg").write_bytes(b"x")
    (root / "a" / "1.jpg").symlink_to(secret / "1.jpg")
    (root / "a" / "3.jpg").symlink_to("../../secret/1.jpg")
    (root / "b.jpg").write_bytes(b"x")
    (root / "a" / "2.jpg").symlink_to("../b.jpg")  # stays inside
    with pytest.raises(ManifestError) as caught:
        load_datalist(manifest, root)
    leads = f"expected a path under {root}, but it leads outside; move the file"
    assert str(caught.value) == f"{manifest}: 2 problems\n  1. image 'a/1.jpg': {leads}\n  2. image 'a/3.jpg': {leads}"
    assert [item["subject_id"] for item in load_datalist(manifest, root, "val")] == ["p2"]


def test_a_root_that_is_a_link_itself_is_fine(manifest: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert load_datalist(manifest, tmp_path / "link", "val")[0]["image"] == str(tmp_path / "link" / "a" / "2.jpg")
