"""Maps as rows of block means: by hand, from files of a true layout, problems by name."""

from pathlib import Path

import numpy as np
import pytest

from monai_fair.data import write_displacement, write_volume
from monai_fair.errors import MonaiFairError
from monai_fair.geometry import Grid
from monai_fair.subgroups import block_positions, displacement_blocks, intensity_blocks, log_jacobian_blocks

SHAPE = (5, 4, 4)
GRID = Grid(SHAPE, np.diag([2.0, 2.0, 2.0, 1.0]))
# blocks of side 2: the third along the first axis is cut to one layer, half of a block
MASK = np.ones(SHAPE, dtype=bool)
MASK[:2, :2, :2] = False
MASK[0, 0, 0] = True  # 1 of 8 voxels: this block is outside


def write(folder: Path, name: str, array: np.ndarray) -> Path:
    return write_volume(folder / f"{name}.nii.gz", array.astype(np.float32), GRID)


def ramp() -> np.ndarray:
    return np.arange(80, dtype=np.float64).reshape(SHAPE)


def blocks_by_loops(array: np.ndarray) -> list[float]:
    found = []
    for x in range(0, 5, 2):
        for y in range(0, 4, 2):
            for z in range(0, 4, 2):
                part = (slice(x, x + 2), slice(y, y + 2), slice(z, z + 2))
                values = array[part][MASK[part]]
                if values.size >= 4:
                    found.append(float(np.nanmean(values)))
    return found


def test_a_row_has_the_means_of_blocks_inside_the_mask(tmp_path: Path) -> None:
    paths = {name: write(tmp_path, name, gain * ramp()) for name, gain in (("b", 1), ("a", -2))}
    found = log_jacobian_blocks(paths, MASK, block=2)
    assert (found.kind, found.subject_ids) == ("log_jacobian", ["b", "a"])
    assert found.values.shape == (2, 11)
    np.testing.assert_allclose(found.values, [blocks_by_loops(ramp()), blocks_by_loops(-2 * ramp())], rtol=1e-6)


def test_undefined_voxels_do_not_count_and_no_change_is_a_map(tmp_path: Path) -> None:
    folded = ramp()
    folded[4, 3, 3] = np.nan
    paths = {"folded": write(tmp_path, "folded", folded), "still": write(tmp_path, "still", np.zeros(SHAPE))}
    found = log_jacobian_blocks(paths, MASK, block=2)
    np.testing.assert_allclose(found.values, [blocks_by_loops(folded), [0.0] * 11], rtol=1e-6)


def test_a_block_without_defined_voxels_is_an_error_or_nan(tmp_path: Path) -> None:
    folded = ramp()
    folded[4, 2:, 2:] = np.nan  # the last block: one layer of four voxels
    paths = {"folded": write(tmp_path, "folded", folded)}
    with pytest.raises(MonaiFairError, match="expected defined voxels in every block, got 1 blocks without"):
        log_jacobian_blocks(paths, MASK, block=2)
    found = log_jacobian_blocks(paths, MASK, block=2, allow_undefined=True).values[0]
    np.testing.assert_allclose(found, [*blocks_by_loops(ramp())[:-1], np.nan], rtol=1e-6)


def test_positions_are_the_middles_of_blocks_in_mm() -> None:
    grid = Grid(SHAPE, np.array([[2.0, 0, 0, -10], [0, 2, 0, 5], [0, 0, 2, 1], [0, 0, 0, 1]]))
    found = block_positions(MASK, grid, block=2)
    # middles in voxels: 0.5, 2.5 and, for the layer that is left, 4; then 0.5 and 2.5; the first block is outside
    voxels = [(x, y, z) for x in (0.5, 2.5, 4.0) for y in (0.5, 2.5) for z in (0.5, 2.5)][1:]
    np.testing.assert_allclose(found, np.array(voxels) * 2 + [-10, 5, 1])


def test_with_a_grid_axes_are_turned_and_other_places_refused(tmp_path: Path) -> None:
    flipped = Grid(SHAPE, GRID.affine @ np.array([[-1.0, 0, 0, 4], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))
    plain = write(tmp_path, "plain", ramp())
    turned = write_volume(tmp_path / "turned.nii.gz", np.ascontiguousarray(ramp()[::-1]).astype(np.float32), flipped)
    paths = {"plain": plain, "turned": turned}
    for read in (log_jacobian_blocks, intensity_blocks):
        rows = read(paths, MASK, block=2, grid=GRID).values
        np.testing.assert_allclose(rows[1], rows[0], rtol=1e-6)
    moved = GRID.affine.copy()
    moved[0, 3] += 3.0
    with pytest.raises(MonaiFairError) as caught:
        log_jacobian_blocks({"plain": plain}, MASK, block=2, grid=Grid(SHAPE, moved))
    assert str(caught.value) == (
        f"log_jacobian: {plain}: expected the template's grid of (5, 4, 4) voxels, got (5, 4, 4) voxels, 3 mm away; "
        "give the template of the registration"
    )


def test_displacements_come_axis_by_axis_in_voxels(tmp_path: Path) -> None:
    field = np.stack([ramp(), 2 * ramp(), ramp() - 40]).astype(np.float32) / 100
    path = write_displacement(tmp_path / "field.nii.gz", field, GRID)
    found = displacement_blocks({"s": path}, MASK, block=2)
    expected = np.concatenate([blocks_by_loops(part) for part in field.astype(np.float64)])
    np.testing.assert_allclose(found.values[0], expected, rtol=0, atol=1e-5)


def test_gain_and_offset_of_an_image_do_not_count(tmp_path: Path) -> None:
    paths = {"plain": write(tmp_path, "plain", ramp()), "other": write(tmp_path, "other", 7 * ramp() + 100)}
    found = intensity_blocks(paths, MASK, block=2)
    np.testing.assert_allclose(found.values[0], found.values[1], rtol=0, atol=1e-5)
    scaled = (ramp() - ramp()[MASK].mean()) / ramp()[MASK].std()
    np.testing.assert_allclose(found.values[0], blocks_by_loops(scaled), rtol=0, atol=1e-5)


def test_every_map_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    hole = ramp()
    hole[4, 2:, 2:] = np.nan
    small = write_volume(tmp_path / "small.nii.gz", np.arange(27.0).reshape(3, 3, 3), Grid((3, 3, 3), np.eye(4)))
    paths = {"a": write(tmp_path, "a", hole), "b": tmp_path / "none.nii.gz", "c": small}
    with pytest.raises(MonaiFairError) as caught:
        log_jacobian_blocks(paths, MASK, block=2)
    first, *problems = str(caught.value).splitlines()
    assert first == "log_jacobian: 3 problems"
    assert problems[0].endswith("a.nii.gz: expected defined voxels in every block, got 1 blocks without")
    assert "none.nii.gz" in problems[1]
    assert problems[2].endswith("small.nii.gz: expected the mask's shape (5, 4, 4), got (3, 3, 3)")


def test_a_mask_smaller_than_a_block_is_refused(tmp_path: Path) -> None:
    mask = np.zeros(SHAPE, dtype=bool)
    mask[0, 0, 0] = True
    with pytest.raises(MonaiFairError, match="expected a block of side 2 half inside it, got none"):
        log_jacobian_blocks({}, mask, block=2)
