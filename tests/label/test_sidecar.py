"""Scores of images in one file: merged, never half written, never of another model or image."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies
from numpy.testing import assert_array_equal

from monai_fair.data.artifacts import write_tensors
from monai_fair.errors import LabelError
from monai_fair.label.sidecar import NONE, ImageScores, Sidecar, sidecar_path


def rows(*names: str, value: float = 0.5, made: str = "v1", width: int = 2) -> ImageScores:
    n = len(names)
    return ImageScores.of(
        dict.fromkeys(names, made), scores=np.full(n, value), embeddings=np.full((n, width), value, np.float32)
    )


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    path = sidecar_path(tmp_path, "chest_classification")
    assert path == tmp_path / ".monai_fair" / "chest_classification" / "scores.safetensors"
    sidecar = Sidecar(path, "model one")
    assert sidecar.read() is NONE
    written = ImageScores.of(
        {"b": "v1", "a": "v2"},
        reasons={"a": "cannot be read"},
        scores=[0.25, np.nan],
        embeddings=[[1, 2, 3], [np.nan] * 3],
        subgroups=[[0.75, 0.25], [np.nan] * 2],
        subgroup_names=("S1", "S2"),
    )
    sidecar.update(written)
    found = Sidecar(path, "model one").read()
    assert found.image_ids == ("a", "b")
    assert found.fingerprints == ("v2", "v1")
    assert found.reasons == ("cannot be read", "")
    assert_array_equal(found.scores, [np.nan, 0.25])
    assert_array_equal(found.embeddings, [[np.nan] * 3, [1, 2, 3]])
    assert_array_equal(found.subgroups, [[np.nan] * 2, [0.75, 0.25]])
    assert found.subgroup_names == ("S1", "S2")
    assert found.embeddings.dtype == np.float32
    assert sidecar.read(embeddings=False).embeddings.shape == (2, 0)


def test_an_update_replaces_rows_of_the_same_image_and_keeps_the_others(tmp_path: Path) -> None:
    sidecar = Sidecar(tmp_path / "s.safetensors", "m")
    sidecar.update(rows("a", "b", value=0.1))
    sidecar.update(rows("b", "c", value=0.9, made="v2"))
    found = sidecar.read()
    assert (found.image_ids, found.fingerprints) == (("a", "b", "c"), ("v1", "v2", "v2"))
    assert_array_equal(found.scores, [0.1, 0.9, 0.9])


def test_rows_of_another_model_count_as_absent(tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    Sidecar(path, "old").update(rows("a", "b"))
    assert Sidecar(path, "new").read() is NONE
    Sidecar(path, "new").update(rows("c", value=0.9))
    assert Sidecar(path, "new").read().image_ids == ("c",)
    assert Sidecar(path, "old").read() is NONE


def test_rows_of_a_changed_image_count_as_absent(tmp_path: Path) -> None:
    sidecar = Sidecar(tmp_path / "s.safetensors", "m")
    sidecar.update(rows("a", "b", "c"))
    assert sidecar.current({"a": "v1", "b": "v2"}).image_ids == ("a",)


def test_a_reader_sees_every_update(tmp_path: Path) -> None:
    """Two writes may fall into one tick of the clock of a file system."""
    path = tmp_path / "s.safetensors"
    reader, writer = Sidecar(path, "m"), Sidecar(path, "m")
    for step in range(20):
        writer.update(rows("a", value=step / 20))
        assert_array_equal(reader.read().scores, [step / 20])


def test_images_without_numbers_do_not_change_the_shape_of_the_others(tmp_path: Path) -> None:
    sidecar = Sidecar(tmp_path / "s.safetensors", "m")
    sidecar.update(ImageScores.of({"bad": "v1"}, reasons={"bad": "broken"}))
    sidecar.update(ImageScores.of({"good": "v1"}, scores=[[0.1, 0.2, 0.7]], embeddings=[[1, 2]]))
    sidecar.update(ImageScores.of({"worse": "v1"}, reasons={"worse": "broken"}))
    found = sidecar.read()
    assert_array_equal(found.scores, [[np.nan] * 3, [0.1, 0.2, 0.7], [np.nan] * 3])
    assert_array_equal(found.embeddings, [[np.nan] * 2, [1, 2], [np.nan] * 2])


def test_rows_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(LabelError, match="expected a row for each of 2 different images"):
        ImageScores.of({"a": "v", "b": "v"}, scores=[0.5])
    with pytest.raises(LabelError, match="expected a name for each subgroup, got 1 for shape"):
        ImageScores.of({"a": "v"}, subgroups=[[0.5, 0.5]], subgroup_names=("S1",))


@pytest.mark.parametrize("kind", ["other", "damaged"])
def test_another_file_is_refused_and_left_alone(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "s.safetensors"
    if kind == "other":
        write_tensors(path, {"codes": np.zeros(2)}, {"kind": "codes"})
    else:
        path.write_bytes(b"half of a file")
    before = path.read_bytes()
    for act in (lambda: Sidecar(path, "m").read(), lambda: Sidecar(path, "m").update(rows("a"))):
        with pytest.raises(LabelError, match="remove it and score again"):
            act()
    assert path.read_bytes() == before


NAMES = strategies.lists(strategies.sampled_from("abcdef"), unique=True)


@given(first=NAMES, second=NAMES, third=NAMES)
def test_merging_is_the_same_in_parts_and_at_once(first: list[str], second: list[str], third: list[str]) -> None:
    one, two, three = (rows(*names, value=value) for names, value in ((first, 0.1), (second, 0.2), (third, 0.3)))
    left, right = one.with_rows(two).with_rows(three), one.with_rows(two.with_rows(three))
    assert left.image_ids == right.image_ids == tuple(sorted({*first, *second, *third}))
    assert_array_equal(left.scores, right.scores)
    expected = dict.fromkeys(first, 0.1) | dict.fromkeys(second, 0.2) | dict.fromkeys(third, 0.3)
    assert_array_equal(left.scores, [expected[name] for name in left.image_ids])


def write_many(path: Path, worker: int) -> None:
    for step in range(8):
        Sidecar(path, "m").update(rows(f"w{worker}-{step}", value=worker))


def test_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    context = multiprocessing.get_context("forkserver")
    workers = [context.Process(target=write_many, args=(path, worker), daemon=True) for worker in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=120)
    assert [worker.exitcode for worker in workers] == [0] * 4
    found = Sidecar(path, "m").read()
    assert len(found.image_ids) == 32
    assert_array_equal(found.scores, [int(name[1]) for name in found.image_ids])


WRITER = """
import sys
import numpy as np
from pathlib import Path
from monai_fair.label.sidecar import ImageScores, Sidecar
step = 0
while True:
    names = {f"{step:05d}-{n}": "v" for n in range(50)}
    rows = ImageScores.of(names, scores=np.full(50, step), embeddings=np.ones((50, 64)))
    Sidecar(Path(sys.argv[1]), "m").update(rows)
    step += 1
    print(step, flush=True)
"""


def test_a_process_that_is_killed_leaves_whole_parts(tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(0.02)  # into a write, or between two
            os.kill(writer.pid, signal.SIGKILL)
        found = Sidecar(path, "m").read()
        assert len(found.image_ids) % 50 == 0
        assert len(found.image_ids) >= 50
    Sidecar(path, "m").update(rows("last", width=64))  # the lock of a killed process is free
    assert "last" in Sidecar(path, "m").read().image_ids
    assert not list(tmp_path.glob("*.part"))
