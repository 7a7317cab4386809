"""X1, X4: files from outside cannot leave the data root, and cannot bring code."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from monai.transforms import LoadImaged

from monai_fair.data import load_datalist
from monai_fair.errors import ImageFileError, ManifestError
from monai_fair.transforms import NPZReader, RGBReader

ROWS = {"subject_id": ["s1", "s2"], "image": ["a.png", "b.png"], "label": ["0", "1"], "split": ["train", "train"]}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    (folder / "inner").mkdir(parents=True)
    for name in ("a.png", "b.png", "inner/c.png"):
        (folder / name).write_bytes(b"")
    (tmp_path / "secret.png").write_bytes(b"")
    (tmp_path / "data_of_others").mkdir()
    (tmp_path / "data_of_others" / "x.png").write_bytes(b"")
    return folder


def datalist(root: Path, **cells: str) -> list[dict[str, Any]]:
    table = pd.DataFrame(ROWS)
    for column, value in cells.items():
        table.loc[1, column] = value
    path = root.parent / "manifest.csv"
    table.to_csv(path, index=False)
    return load_datalist(path, root, "train")


@pytest.mark.parametrize(
    "image",
    [
        "../secret.png",
        "inner/../../secret.png",
        "inner/../a.png",
        "..",
        "./../secret.png",
        "/etc/passwd",
        "//server/share/x.png",
        "C:/Windows/x.png",
        "C:x.png",
        "\\\\server\\share\\x.png",
        "\\etc\\passwd",
        "..\\secret.png",
        "inner\\..\\..\\secret.png",
        "../data_of_others/x.png",
        "",
    ],
)
def test_a_path_out_of_the_data_root_is_refused_by_line_and_column(root: Path, image: str) -> None:
    with pytest.raises(ManifestError) as caught:
        datalist(root, image=image)
    message = str(caught.value)
    assert message.startswith(f"{root.parent}/manifest.csv: ")
    assert "'image'" in message
    assert "expected a path under the data root, without '..'" in message


@pytest.mark.parametrize("kind", ["file", "folder", "chain", "neighbour"])
def test_a_symbolic_link_out_of_the_data_root_is_refused(root: Path, kind: str) -> None:
    image = {"file": "link.png", "folder": "up/secret.png", "chain": "two.png", "neighbour": "n/x.png"}[kind]
    (root / "link.png").symlink_to(root.parent / "secret.png")
    (root / "up").symlink_to("..", target_is_directory=True)
    (root / "two.png").symlink_to("link.png")
    (root / "n").symlink_to(root.parent / "data_of_others", target_is_directory=True)
    with pytest.raises(ManifestError) as caught:
        datalist(root, image=image)
    expected = f"image '{image}': expected a path under {root}, but it leads outside; move the file"
    assert str(caught.value).endswith(expected)


def test_a_symbolic_link_within_the_data_root_is_followed(root: Path) -> None:
    (root / "link.png").symlink_to("inner/c.png")
    assert datalist(root, image="link.png")[1]["image"] == str(root / "link.png")


def test_a_data_root_that_is_a_link_itself_is_fine(root: Path) -> None:
    link = root.parent / "link_to_data"
    link.symlink_to(root, target_is_directory=True)
    assert len(datalist(link)) == 2


@pytest.mark.parametrize("image", ["inner/c.png", "with space.png", "dots..in.name.png", "ünïcode.png", ".hidden.png"])
def test_a_path_under_the_data_root_is_accepted(root: Path, image: str) -> None:
    (root / image).write_bytes(b"")
    assert datalist(root, image=image)[1]["image"] == str(root / image)


@pytest.mark.parametrize("subject", ["../s1", "a/b", "a\\b", "..", ".", "", "a b", "é", "<b>", "$x", "a;b"])
def test_a_subject_that_is_no_file_name_is_refused(root: Path, subject: str) -> None:
    with pytest.raises(ManifestError, match="subject_id"):
        datalist(root, subject_id=subject)


class Attack:
    """Unpickling this would make a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        import os

        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("suffix", ["npz", "jpg"])
def test_an_image_with_a_pickle_in_it_is_refused_and_does_not_run(tmp_path: Path, suffix: str) -> None:
    """Through the readers of our configs: NPZReader for maps, RGBReader for photographs."""
    trace, path = tmp_path / "trace", tmp_path / f"image.{suffix}"
    attack = np.array([Attack(trace)], dtype=object)
    with path.open("wb") as file:
        np.savez(file, rnflt=attack) if suffix == "npz" else np.save(file, attack)
    reader = NPZReader("rnflt") if suffix == "npz" else RGBReader(8)
    with pytest.raises((RuntimeError, ImageFileError)) as caught:
        LoadImaged(keys="image", image_only=True, reader=reader)({"image": str(path)})
    assert not trace.exists()
    assert isinstance(caught.value, ImageFileError) or isinstance(caught.value.__cause__, ImageFileError)
    with path.open("rb") as file:  # the attack is a real one
        loaded = np.load(file, allow_pickle=True)
        if suffix == "npz":
            loaded["rnflt"]
    assert trace.is_dir()
