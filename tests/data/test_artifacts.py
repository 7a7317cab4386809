"""Files are whole or absent, name their kind, and never hold a pickle."""

import json
import os
import pickle
import signal
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from monai_fair import __version__
from monai_fair.data.artifacts import (
    atomic_path,
    fingerprint,
    read_json,
    read_tensors,
    sha256,
    write_json,
    write_tensors,
)
from monai_fair.errors import ArtifactError


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


class Stop(BaseException):
    """Something that is not an Exception, like a keyboard interrupt."""


def write_half(path: Path, error: type[BaseException]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text("half of the n")
        assert temporary.parent == path.parent
        raise error


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, Stop])
def test_an_error_in_the_middle_leaves_the_old_file_alone(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(error):
        write_half(path, error)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file.txt"]


def test_a_finished_block_takes_the_name_and_makes_folders(tmp_path: Path) -> None:
    path = tmp_path / "new" / "deep" / "file.txt"
    with atomic_path(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert names(path.parent) == ["file.txt"]


def test_a_killed_process_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    program = (
        "import os, signal, sys\n"
        "from monai_fair.data.artifacts import atomic_path\n"
        "with atomic_path(sys.argv[1]) as temporary:\n"
        "    temporary.write_text('half of the n')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    with atomic_path(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600), (0o002, 0o664)])
def test_a_file_is_as_readable_as_the_user_wants(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        write_json(tmp_path / "a.json", "test", {})
        write_json(tmp_path / "a.json", "test", {})
    finally:
        after = os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.json").stat().st_mode) == mode
    assert after == umask


def test_json_round_trip(tmp_path: Path) -> None:
    content = {
        "nan": float("nan"),
        "inf": np.float32("inf"),
        "deep": [{"minus_inf": -np.inf}, (1, 2)],
        "array": np.array([[1.5, np.nan], [0.1, 2.0]]),
        "count": np.int64(3),
        "flag": np.bool_(True),
        "path": Path("a") / "b",
        "text": "Ærø",
        7: None,
    }
    path = write_json(tmp_path / "a.json", "test", content)
    assert json.loads(path.read_text(encoding="utf-8"), parse_constant=pytest.fail) == {
        "kind": "test",
        "monai_fair": __version__,
        "nan": None,
        "inf": None,
        "deep": [{"minus_inf": None}, [1, 2]],
        "array": [[1.5, None], [0.1, 2.0]],
        "count": 3,
        "flag": True,
        "path": "a/b",
        "text": "Ærø",
        "7": None,
    }
    assert read_json(path, "test")["count"] == 3


def test_what_is_not_json_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", "test", {"a": {1, 2}})
    assert names(tmp_path) == []


def test_the_wrong_kind_is_refused_by_name(tmp_path: Path) -> None:
    path = write_json(tmp_path / "a.json", "split", {})
    with pytest.raises(ArtifactError) as caught:
        read_json(path, "manifest")
    assert str(caught.value) == f"{path}: expected a file of kind 'manifest', got 'split'; give the right file"
    for text, found in [("[1]", "None"), ("{}", "None"), ('"manifest"', "None")]:
        path.write_text(text)
        with pytest.raises(ArtifactError, match=f"expected a file of kind 'manifest', got '{found}'"):
            read_json(path, "manifest")


@pytest.mark.parametrize("content", [b"", b"{", b'{"kind": "manifest"', b"\xff\xfe{}"])
def test_damaged_json_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(ArtifactError) as caught:
        read_json(path, "manifest")
    assert str(caught.value).startswith(f"{path}: expected a readable JSON file of kind 'manifest'; ")


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="No such file"):
        read_json(tmp_path / "a.json", "manifest")
    with pytest.raises(ArtifactError, match="expected a readable safetensors file; No such file"):
        read_tensors(tmp_path / "a.safetensors")


def test_tensors_round_trip(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tensors = {
        "double": rng.normal(size=(3, 4)),
        "turned": rng.normal(size=(3, 4)).astype(np.float32).T,
        "every_other": np.arange(10, dtype=np.int64)[::2],
        "nan": np.array([np.nan, np.inf]),
        "scalar": np.array(2.5),
        "empty": np.zeros((0, 5), dtype=np.float32),
        "flags": np.array([True, False]),
    }
    path = write_tensors(tmp_path / "a.safetensors", tensors, {"made_from": "Ærø"})
    found, metadata = read_tensors(path)
    assert metadata == {"monai_fair": __version__, "made_from": "Ærø"}
    assert set(found) == set(tensors)
    for name, tensor in tensors.items():
        assert (found[name].shape, found[name].dtype) == (tensor.shape, tensor.dtype)
        np.testing.assert_array_equal(found[name], tensor)


def test_damaged_tensors_are_refused(tmp_path: Path) -> None:
    path = write_tensors(tmp_path / "a.safetensors", {"x": np.ones(100)})
    whole = path.read_bytes()
    for content in (whole[:-1], whole[:20], b"", b"\xff" * 8 + whole[8:]):
        path.write_bytes(content)
        with pytest.raises(ArtifactError) as caught:
            read_tensors(path)
        assert str(caught.value).startswith(f"{path}: expected a readable safetensors file; ")


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_a_pickle_is_refused_and_never_run(tmp_path: Path) -> None:
    path, mark = tmp_path / "a.safetensors", tmp_path / "was_run"
    path.write_bytes(pickle.dumps(Trap(mark)))
    with pytest.raises(ArtifactError):
        read_tensors(path)
    with pytest.raises(ArtifactError):
        read_json(path, "manifest")
    assert not mark.exists()


def test_objects_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"(?i)dtype"):
        write_tensors(tmp_path / "a.safetensors", {"x": np.array([{}], dtype=object)})
    assert names(tmp_path) == []


def test_sha256_is_that_of_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    # the first test vector of FIPS 180-4
    assert sha256(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_fingerprint_is_of_the_content_and_not_of_its_order() -> None:
    assert fingerprint({"a": 1, "b": [1, 2.5]}) == fingerprint({"b": (1, np.float64(2.5)), "a": np.int64(1)})
    different = [{"a": 1}, {"a": 2}, {"a": "1"}, {"b": 1}, {"a": [1]}, {"a": None}]
    assert len({fingerprint(content) for content in different}) == len(different)
