import socket
from pathlib import Path

import numpy as np
import pytest

from monai_fair.errors import MonaiFairError
from monai_fair.geometry import Axes
from monai_fair.simulation import brain_anatomy, load_brain_anatomy
from monai_fair.simulation.brain_regions import REGIONS


@pytest.mark.parametrize("arguments", [{"kind": "phantom", "shape": (32, 32, 32)}, {"kind": "mni152", "spacing_mm": 4}])
def test_labels_lie_where_they_are_said_to(arguments: dict) -> None:
    anatomy = load_brain_anatomy(**arguments)
    assert (anatomy.image.dtype, anatomy.tissue.dtype, anatomy.roi.dtype) == (np.float32, np.uint8, np.uint8)
    assert 0 <= anatomy.image.min() < 0.01
    assert anatomy.image.max() <= 1
    assert set(np.unique(anatomy.tissue)) == {0, 1, 2, 3}
    np.testing.assert_array_equal(anatomy.tissue > 0, anatomy.mask == 1)
    # fluid is darker than grey matter, and that darker than white matter
    means = [anatomy.image[anatomy.tissue == label].mean() for label in (1, 2, 3)]
    assert means[0] < means[1] - 0.1 < means[2] - 0.2
    points = np.argwhere(anatomy.roi > 0)
    where = anatomy.grid.points(points.astype(np.float64), Axes.VOXEL, Axes.RAS)
    for label, region in enumerate(REGIONS, start=1):
        inside = anatomy.roi[tuple(points.T)] == label
        assert inside.sum() >= 5, region.name
        assert (anatomy.tissue[tuple(points[inside].T)] == region.tissue).all()
        offset = where[inside] - region.centre_mm
        assert ((offset / region.semi_axes_mm) ** 2).sum(axis=1).max() <= 1.01
        assert np.abs(offset.mean(axis=0)).max() < 8.0


def test_the_brain_of_the_template_keeps_off_the_faces() -> None:
    for anatomy in (load_brain_anatomy("mni152", spacing_mm=4), load_brain_anatomy("phantom", shape=(24, 28, 24))):
        inner = np.zeros_like(anatomy.mask)
        inner[1:-1, 1:-1, 1:-1] = 1
        # the stem of the template ends near the lower face
        assert anatomy.mask[inner == 0].mean() < 0.005


@pytest.mark.parametrize(
    ("given_shape", "given_spacing", "shape", "spacing"),
    [
        (None, None, (80, 96, 80), 2.0),
        (None, 4, (40, 48, 40), 4.0),
        ((32, 32, 32), None, (32, 32, 32), 6.0),
        ((91, 109, 91), 2.0, (91, 109, 91), 2.0),
    ],
)
def test_shape_and_spacing_fill_each_other_in(
    given_shape: tuple | None, given_spacing: float | None, shape: tuple, spacing: float
) -> None:
    assert brain_anatomy.brain_grid(given_shape, given_spacing) == (shape, spacing)


def test_a_phantom_has_the_grid_that_was_asked_for() -> None:
    anatomy = load_brain_anatomy("phantom", shape=(30, 40, 36), spacing_mm=6)
    assert anatomy.image.shape == anatomy.grid.shape == (30, 40, 36)
    assert anatomy.grid.spacing_mm == (6, 6, 6)
    assert anatomy.grid.orientation == "RAS"
    middle = anatomy.grid.points((np.array(anatomy.grid.shape) - 1) / 2, Axes.VOXEL, Axes.RAS)
    assert middle == pytest.approx([0, -17, 5])


def test_every_bad_argument_is_named_at_once() -> None:
    with pytest.raises(MonaiFairError) as caught:
        load_brain_anatomy("colin", shape=(80, 96), spacing_mm=0)
    assert str(caught.value) == (
        "load_brain_anatomy: 3 problems\n"
        "  1. anatomy: expected one of auto, mni152, phantom, got 'colin'; give one of them\n"
        "  2. shape: expected three whole numbers from 8 to 512, got (80, 96); give them as 80x96x80\n"
        "  3. spacing: expected millimetres from 0.5 to 16, got 0; give a number in that range"
    )


@pytest.mark.parametrize(
    ("shape", "spacing", "message"),
    [
        ((80, 96, 60), 2.0, "expected a grid that holds the brain, 146 x 182 x 156 mm, got 160 x 192 x 120 mm "
         "(80x96x60 at 2 mm); raise one of the two"),
        ((80, 96, 80), 3.0, "expected at most 256 mm a side, got 240 x 288 x 240 mm (80x96x80 at 3 mm); lower one of "
         "the two"),
    ],
)  # fmt: skip
def test_a_grid_that_does_not_fit_is_refused(shape: tuple, spacing: float, message: str) -> None:
    with pytest.raises(MonaiFairError) as caught:
        load_brain_anatomy("phantom", shape=shape, spacing_mm=spacing)
    assert str(caught.value) == f"load_brain_anatomy: shape, spacing: {message}"


def test_without_nilearn_auto_is_the_phantom(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(brain_anatomy.importlib.util, "find_spec", lambda name: None)
    assert load_brain_anatomy(shape=(24, 24, 24)).source == "phantom"
    with pytest.raises(MonaiFairError) as caught:
        load_brain_anatomy("mni152")
    assert str(caught.value) == (
        "load_brain_anatomy: anatomy: expected the package nilearn for mni152, found none; install it or give phantom"
    )


def test_the_template_needs_no_network_and_no_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise AssertionError("no network")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_brain_anatomy(spacing_mm=8).source.startswith("MNI152 T1w (nilearn ")
    assert not list(tmp_path.iterdir())
