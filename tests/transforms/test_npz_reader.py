"""NPZReader: one array of a file, or an error that names the file."""

from pathlib import Path

import numpy as np
import pytest
from monai.transforms import LoadImage

from monai_fair.errors import ImageFileError
from monai_fair.transforms import NPZReader

MAP = np.arange(12, dtype=np.float32).reshape(3, 4) - 2


def load(path: Path) -> np.ndarray:
    return np.asarray(LoadImage(reader=NPZReader("rnflt"), image_only=True, ensure_channel_first=True)(str(path)))


def test_the_named_array_is_read_as_stored(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", rnflt=MAP, age=np.array(60), other=np.zeros((9, 9)))
    np.testing.assert_array_equal(load(tmp_path / "a.npz"), MAP[np.newaxis])


def test_a_compressed_file_is_read(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", rnflt=MAP)
    np.testing.assert_array_equal(load(tmp_path / "a.npz"), MAP[np.newaxis])


@pytest.mark.parametrize("kind", ["no such array", "empty", "text", "truncated", "flipped", "npy", "missing"])
def test_a_file_that_does_not_fit_is_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, rnflt=np.random.default_rng(0).normal(size=(50, 50)))
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    content = {"empty": b"", "text": b"no archive", "truncated": whole[:-30], "flipped": bytes(flipped)}
    if kind in content:
        path.write_bytes(content[kind])
    elif kind == "no such array":
        np.savez(path, other=MAP)
    elif kind == "npy":
        with path.open("wb") as file:
            np.save(file, MAP)
    else:
        path.unlink()
    with pytest.raises(ImageFileError) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: expected an .npz file with the array 'rnflt'; ")
