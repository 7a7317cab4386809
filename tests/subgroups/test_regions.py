"""Volumes of regions: by hand, against a map whose volume change is known, names of BIDS, problems by name."""

from pathlib import Path

import numpy as np
import pytest
import torch

from monai_fair.data import write_volume
from monai_fair.errors import ArtifactError, MonaiFairError
from monai_fair.geometry import Grid, jacobian_determinant
from monai_fair.subgroups import read_regions, regional_volumes
from monai_fair.subgroups.discovery import Candidate, Discovery
from monai_fair.subgroups.discovery_inputs import CohortRows
from monai_fair.subgroups.discovery_record import place_record
from monai_fair.subgroups.nuisances import Nuisances
from monai_fair.subgroups.regions import region_table

SHAPE = (6, 5, 4)
GRID = Grid(SHAPE, np.array([[2.0, 0, 0, -10], [0, 2, 0, 5], [0, 0, 2, 1], [0, 0, 0, 1]]))
LABELS = np.zeros(SHAPE, np.int32)
LABELS[0, 0, :2] = 17
LABELS[3:5, 1:4, 0] = 4


def write_regions(folder: Path, names: str = "", labels: np.ndarray = LABELS, grid: Grid = GRID) -> Path:
    path = write_volume(folder / "template_dseg.nii.gz", labels, grid)
    if names:
        (folder / "template_dseg.tsv").write_text(names)
    return path


def write_map(folder: Path, name: str, values: np.ndarray, grid: Grid = GRID) -> Path:
    return write_volume(folder / f"{name}.nii.gz", values.astype(np.float32), grid)


def test_regions_have_the_names_of_the_table_beside_them(tmp_path: Path) -> None:
    names = "index\tname\tcolor\n0\tBackground\t#000000\n17\tLeft Hippocampus\t#ffffff\n99\tabsent\t#ffffff\n"
    found = read_regions(write_regions(tmp_path, names))
    # by rising label; 4 has no name in the table
    assert found.names == ("4", "Left Hippocampus")
    np.testing.assert_array_equal(found.labels, np.where(LABELS == 4, 1, np.where(LABELS == 17, 2, 0)))
    # middles in voxels (3.5, 2, 0) and (0, 0, 0.5); 2 mm a voxel, then the offset
    np.testing.assert_allclose(found.positions, [[-3.0, 9.0, 1.0], [-10.0, 5.0, 2.0]])


def test_axes_of_regions_are_turned(tmp_path: Path) -> None:
    turned = Grid(SHAPE, GRID.affine @ np.array([[-1.0, 0, 0, 5], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))
    found = read_regions(write_regions(tmp_path, labels=np.ascontiguousarray(LABELS[::-1]), grid=turned))
    plain = read_regions(write_regions(tmp_path / "plain"))
    np.testing.assert_array_equal(found.labels, plain.labels)
    np.testing.assert_allclose(found.grid.affine, GRID.affine)


def test_a_volume_is_the_mean_of_the_determinant(tmp_path: Path) -> None:
    change = np.zeros(SHAPE)
    change[0, 0, :2] = np.log([2.0, 4.0])
    change[3:5, 1:4, 0] = np.log([[1.0, 2.0, 3.0], [4.0, 5.0, 9.0]])
    folded = change.copy()
    folded[4, 3, 0] = np.nan  # the voxel of 9
    gone = change.copy()
    gone[0, 0, :2] = np.nan
    regions = read_regions(write_regions(tmp_path))
    paths = {name: write_map(tmp_path, name, values) for name, values in
             (("b", change), ("a", folded), ("c", gone))}  # fmt: skip
    found = regional_volumes(paths, regions)
    assert (found.kind, found.subject_ids) == ("regional_volumes", ["b", "a", "c"])
    # region 4: (1 + 2 + 3 + 4 + 5 + 9) / 6 = 4, without the folded voxel 15 / 5 = 3; region 17: (2 + 4) / 2 = 3
    expected = np.log([[4.0, 3.0], [3.0, 3.0], [4.0, np.nan]])
    np.testing.assert_allclose(found.values, expected, rtol=0, atol=1e-6)
    mask = np.zeros(SHAPE, bool)
    mask[0, 0, :4] = True  # 2, 4, and two voxels that do not change: 8 / 4 = 2
    found = regional_volumes({"b": paths["b"]}, regions, mask=mask)
    np.testing.assert_allclose(found.values, np.log([[4.0, 3.0, 2.0]]), rtol=0, atol=1e-6)


def test_a_region_that_is_larger_in_the_subject_is_above_0(tmp_path: Path) -> None:
    """A pull-back on the template's grid that reads the subject at 1.5 times the place: 1.5^3 times the volume."""
    voxels = torch.stack(torch.meshgrid(*(torch.arange(size).float() for size in SHAPE), indexing="ij"))
    determinant = jacobian_determinant((0.5 * voxels)[None])[0].numpy()
    path = write_map(tmp_path, "s", np.log(determinant))
    found = regional_volumes({"s": path}, read_regions(write_regions(tmp_path)))
    np.testing.assert_allclose(found.values, [[3 * np.log(1.5)] * 2], rtol=0, atol=1e-5)


def test_a_map_of_another_place_is_named(tmp_path: Path) -> None:
    moved = GRID.affine.copy()
    moved[0, 3] += 3.0
    path = write_map(tmp_path, "s", np.zeros(SHAPE), Grid(SHAPE, moved))
    with pytest.raises(MonaiFairError) as caught:
        regional_volumes({"s": path}, read_regions(write_regions(tmp_path)))
    assert str(caught.value) == (
        f"regional_volumes: {path}: expected the template's grid of (6, 5, 4) voxels, got (6, 5, 4) voxels, 3 mm away; "
        "give the template of the registration"
    )


def test_images_without_regions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MonaiFairError, match="expected regions, labels above 0, got none; give a segmentation"):
        read_regions(write_regions(tmp_path, labels=np.zeros(SHAPE, np.int32)))
    with pytest.raises(MonaiFairError, match="expected labels from 0, got -1; 0 is no region"):
        read_regions(write_regions(tmp_path, labels=LABELS - 1))


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ("label\tname\n4\ta\n", "expected a column 'index', found none; add it"),
        (
            "index\tname\nx\ta\n4\tb\n04\t \n",
            "3 problems\n"
            "  1. line 2, column 'index': expected a whole number from 0, got 'x'\n"
            "  2. line 4, column 'index': expected one row per label, got '04'\n"
            "  3. line 4, column 'name': expected a name, got ' '",
        ),
    ],
)
def test_tables_of_names_that_cannot_be_used(tmp_path: Path, names: str, words: str) -> None:
    path = write_regions(tmp_path, names)
    with pytest.raises(ArtifactError) as caught:
        read_regions(path)
    assert str(caught.value) == f"{region_table(path)}: {words}"


def test_two_regions_of_one_name_are_refused(tmp_path: Path) -> None:
    path = write_regions(tmp_path, "index\tname\n4\ta\n17\ta\n")
    with pytest.raises(MonaiFairError, match="expected a name of its own for each label, 'a' is of several"):
        read_regions(path)


def test_the_table_of_an_image_has_its_name() -> None:
    assert region_table("x/template_dseg.nii.gz") == region_table("x/template_dseg.nii") == Path("x/template_dseg.tsv")


def test_the_region_is_that_of_the_column_where_regions_share_their_middle() -> None:
    kind, middle = "regional_volumes", np.zeros((2, 3))
    look = Candidate(kind, "local", 2, 0.005, 0.005, 0.001, 1.0, (2, 1), "")
    found = Discovery(["a"], np.array([True]), np.array([[1.0, 0.0]]), (look,), 0, 1, middle[1], 20.0)
    nothing = Nuisances((), (), np.empty((1, 0)))
    rows = CohortRows([], {kind: middle}, Grid((4, 4, 4), np.eye(4)), [], nothing, ("core", "shell"))
    place = place_record(found, rows)
    assert place is not None
    assert place["region"] == "shell"
