"""The MNI152 brain on any grid, without the network."""

import socket
from pathlib import Path

import numpy as np
import pytest
from nilearn.datasets import load_mni152_gm_template, load_mni152_wm_template

from monai_fair.data.templates import brain_template, find_template, template_grid
from monai_fair.errors import GeometryError, RegistrationError
from monai_fair.geometry import Axes


def test_the_default_grid_is_centred_on_the_brain() -> None:
    grid = template_grid()
    assert (grid.shape, grid.spacing_mm, grid.orientation) == ((80, 96, 80), (2.0, 2.0, 2.0), "RAS")
    middle = grid.points((np.array(grid.shape) - 1) / 2, Axes.VOXEL, Axes.RAS)
    np.testing.assert_allclose(middle, (0, -17, 5))


def test_maps_are_those_of_nilearn_on_the_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: object, **named: object) -> None:
        raise AssertionError("the network was asked for")

    monkeypatch.setattr(socket, "socket", refuse)
    maps = brain_template((40, 48, 40), 4.0)
    assert list(maps) == ["T1w", "grey", "white", "brain"]
    brain = maps["brain"].array
    assert brain.dtype == bool
    for name in ("T1w", "grey", "white"):
        assert maps[name].array.dtype == np.float32
        assert 0 <= maps[name].array.min() < 0.01 < 0.8 < maps[name].array.max() <= 1
        assert maps[name].grid.matches(template_grid((40, 48, 40), 4.0))
    # nilearn's mask at 1 mm has 1,882,989 voxels: 1883 ml
    assert brain.sum() * 0.064 == pytest.approx(1883, rel=0.01)
    # averaging keeps the amount of tissue: its sum at 1 mm is that at 4 mm times 64
    for name, load in (("grey", load_mni152_gm_template), ("white", load_mni152_wm_template)):
        assert maps[name].array.sum() * 64 == pytest.approx(load(resolution=1).get_fdata().sum(), rel=0.01)
    # the template has no skull, and white matter is brighter than grey matter
    assert maps["T1w"].array[~brain].mean() < 0.02
    white, grey = (maps["T1w"].array[maps[name].array > 0.8].mean() for name in ("white", "grey"))
    assert white > grey + 0.1


def test_left_and_right_are_the_template_s() -> None:
    """The template is symmetric (ICBM 2009a sym), and the middle of the grid is its plane of symmetry."""
    array = brain_template((40, 48, 40), 4.0)["T1w"].array
    np.testing.assert_allclose(array, array[::-1], atol=0.05)


def test_a_finer_and_a_larger_grid_hold_the_same_brain() -> None:
    maps = brain_template((60, 70, 60), 3.0)
    assert maps["brain"].array.sum() * 0.027 == pytest.approx(1883, rel=0.01)
    assert maps["T1w"].array[0].max() == 0


@pytest.mark.parametrize("spacing", [0.0, -1.0, float("nan"), float("inf")])
def test_a_bad_spacing(spacing: float) -> None:
    with pytest.raises(GeometryError) as raised:
        template_grid((8, 8, 8), spacing)
    assert str(raised.value) == f"template: expected a spacing above 0 mm, got {spacing}; give one such as 2"


def test_a_bad_shape() -> None:
    with pytest.raises(
        GeometryError, match=r"template: expected three sizes, got \(8, 8\); give a shape such as 80,96,80"
    ):
        brain_template((8, 8), 2.0)


def test_a_template_is_found_where_prepared_and_simulated_cohorts_have_it(tmp_path: Path) -> None:
    with pytest.raises(RegistrationError) as caught:
        find_template(tmp_path)
    truth = tmp_path / "derivatives" / "truth"
    assert str(caught.value) == (
        f"template: expected template_T1w.nii.gz in {tmp_path} or {truth}, found none; give template and template_mask"
    )
    truth.mkdir(parents=True)
    for folder in (truth, tmp_path):  # what lies nearer counts, with what lies beside it
        (folder / "template_T1w.nii.gz").touch()
        assert find_template(tmp_path).image == folder / "template_T1w.nii.gz"
        assert find_template(tmp_path).mask == folder / "template_desc-brain_mask.nii.gz"
    (truth / "template_dseg.nii.gz").touch()
    assert find_template(tmp_path).labels == {}
    (tmp_path / "template_desc-roi_dseg.nii.gz").touch()
    assert find_template(tmp_path).labels == {"roi": tmp_path / "template_desc-roi_dseg.nii.gz"}
