"""A folder of a simulated cohort is empty, started, finished, or somebody else's."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from monai_fair.data.artifacts import fingerprint, read_json
from monai_fair.errors import ArtifactError
from monai_fair.simulation import simulate_brain, simulate_skin
from monai_fair.simulation.cohort_folder import CohortFolder

FOLDER = CohortFolder("simulated_tree", "tree.json")
PARAMETERS = {"n": 3, "cohort": {"leaves": 0.5, "name": "oak"}}
MARK = ".simulated_tree_started.json"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


def test_a_missing_or_empty_folder_is_not_finished_and_stays_so(tmp_path: Path) -> None:
    assert not FOLDER.check(tmp_path / "none", PARAMETERS)
    assert not FOLDER.check(tmp_path, PARAMETERS)
    assert names(tmp_path) == []


def test_from_start_to_finish(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name in ("a/.leaf.png.1.part", "a/leaf.png", ".hidden"):
        (tmp_path / name).touch()
    FOLDER.start(tmp_path, PARAMETERS)
    assert names(tmp_path) == [".hidden", MARK, "a", "leaf.png"]  # without the half-written file
    assert not FOLDER.check(tmp_path, PARAMETERS)
    FOLDER.finish(tmp_path, PARAMETERS, {"counts": [1, 2]})
    assert names(tmp_path) == [".hidden", "a", "leaf.png", "tree.json"]
    assert FOLDER.check(tmp_path, PARAMETERS)
    record = read_json(tmp_path / "tree.json", "simulated_tree")
    assert record["fingerprint"] == fingerprint(PARAMETERS)
    assert (record["parameters"], record["counts"]) == (PARAMETERS, [1, 2])
    # a file was lost and the folder is being completed
    FOLDER.start(tmp_path, PARAMETERS)
    assert not FOLDER.check(tmp_path, PARAMETERS)


@pytest.mark.parametrize("finished", [False, True])
def test_other_parameters_are_named(tmp_path: Path, finished: bool) -> None:
    FOLDER.start(tmp_path, PARAMETERS)
    if finished:
        FOLDER.finish(tmp_path, PARAMETERS, {})
    before = names(tmp_path)
    with pytest.raises(ArtifactError) as caught:
        FOLDER.check(tmp_path, {"n": 4, "drawing": 2, "cohort": {"leaves": 0.5, "name": "elm"}})
    assert str(caught.value) == (
        f"{tmp_path}: expected a cohort of the same parameters, got one with n 3, now 4; drawing None, now 2; "
        "name 'oak', now 'elm'; give another folder, or remove this one first"
    )
    assert names(tmp_path) == before


@pytest.mark.parametrize("simulate", [simulate_skin, simulate_brain])
def test_a_foreign_folder_or_file_is_refused_and_untouched(tmp_path: Path, simulate: Callable[..., Any]) -> None:
    path = tmp_path / "thesis.tex"
    path.write_text("mine")
    with pytest.raises(ArtifactError) as caught:
        simulate(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: expected an empty folder or a simulated cohort, got a folder with 'thesis.tex' "
        "(1 entries); give another folder"
    )
    with pytest.raises(ArtifactError) as caught:
        simulate(path)
    assert str(caught.value) == f"{path}: expected a folder, got a file; give another path"
    assert names(tmp_path) == ["thesis.tex"]
    assert path.read_text() == "mine"
