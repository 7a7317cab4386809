"""What is deformed: a template image with its tissues, regions and mask, real (MNI152) or made of ellipsoids."""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from monai_fair.data.templates import MNI152_CENTRE_MM, brain_template, template_grid
from monai_fair.errors import MonaiFairError, raise_problems
from monai_fair.geometry import Grid
from monai_fair.simulation.brain_regions import (
    BRAIN_MM,
    CSF,
    FIELD_OF_VIEW_MM,
    GREY,
    REGIONS,
    WHITE,
    Ellipsoid,
)
from monai_fair.simulation.brain_velocity import LATTICE_SIDE_MM
from monai_fair.simulation.cohort_parameters import is_between

ANATOMIES = ("auto", "mni152", "phantom")
DEFAULT_SPACING_MM = 2.0
_MIN_SIZE, _MAX_SIZE = 8, 512
Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class BrainAnatomy:
    """A template and what is known about it, on one grid.

    Attributes:
        source: what it was made from.
        grid: RAS, cubic voxels, centred on the brain.
        image: T1-weighted, float32 in [0, 1], 0 outside the head; shape ``(D, H, W)``.
        tissue: uint8; 0 outside the brain, 1 CSF, 2 grey matter, 3 white matter.
        roi: uint8; 0 or the place, from 1, in :data:`~monai_fair.simulation.brain_regions.REGIONS`.
        mask: uint8; 1 in the brain.
    """

    source: str
    grid: Grid
    image: npt.NDArray[np.float32]
    tissue: npt.NDArray[np.uint8]
    roi: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.uint8]


def load_brain_anatomy(
    kind: str = "auto", *, shape: Sequence[int] | None = None, spacing_mm: float | None = None
) -> BrainAnatomy:
    """Return the template of a simulated cohort.

    ``mni152`` is the T1 template and the tissue maps that nilearn ships; fluid is what is neither grey nor white.
    ``phantom`` is a head of nested smooth ellipsoids in the same place: skull, fluid, folded grey matter, white
    matter, ventricles, hippocampi and other deep grey matter.

    Args:
        kind: ``mni152``, ``phantom``, or ``auto``: the first where nilearn is installed.
        shape: voxels along right, anterior, superior; by default what covers 160 x 192 x 160 mm.
        spacing_mm: side of a voxel; by default 2, or with a shape the one at which it covers 160 x 192 x 160 mm.

    Raises:
        MonaiFairError: with every argument that cannot be used, or if the brain does not fit on the grid.
    """
    raise_problems(MonaiFairError, "load_brain_anatomy", anatomy_problems(kind, shape, spacing_mm))
    shape, spacing_mm = brain_grid(shape, spacing_mm)
    if anatomy_kind(kind) == "mni152":
        return _mni152(shape, spacing_mm)
    return _phantom(template_grid(shape, spacing_mm))


def anatomy_kind(kind: str) -> str:
    """Return ``mni152`` or ``phantom``, which ``auto`` stands for here."""
    if kind != "auto":
        return kind
    return "phantom" if importlib.util.find_spec("nilearn") is None else "mni152"


def brain_grid(shape: Sequence[int] | None, spacing_mm: float | None) -> tuple[tuple[int, int, int], float]:
    """Return shape and spacing with what was left out filled in, as :func:`load_brain_anatomy` describes."""
    if shape is None:
        spacing_mm = DEFAULT_SPACING_MM if spacing_mm is None else spacing_mm
        shape = [round(length / spacing_mm) for length in FIELD_OF_VIEW_MM]
    elif spacing_mm is None:
        spacing_mm = max(length / size for length, size in zip(FIELD_OF_VIEW_MM, shape, strict=True))
    return (int(shape[0]), int(shape[1]), int(shape[2])), float(spacing_mm)


def anatomy_problems(kind: object, shape: Any, spacing_mm: Any) -> list[str]:
    """Return one sentence for each argument of :func:`load_brain_anatomy` that cannot be used."""
    problems = []
    if kind not in ANATOMIES:
        problems.append(f"anatomy: expected one of {', '.join(ANATOMIES)}, got {kind!r}; give one of them")
    elif kind == "mni152" and anatomy_kind("auto") != kind:
        problems.append("anatomy: expected the package nilearn for mni152, found none; install it or give phantom")
    if shape is not None and not _is_shape(shape):
        problems.append(
            f"shape: expected three whole numbers from {_MIN_SIZE} to {_MAX_SIZE}, got {shape!r}; give them as 80x96x80"
        )
    if spacing_mm is not None and not is_between(spacing_mm, 0.5, 16):
        problems.append(
            f"spacing: expected millimetres from 0.5 to 16, got {spacing_mm!r}; give a number in that range"
        )
    if problems:
        return problems
    shape, spacing_mm = brain_grid(shape, spacing_mm)
    covered = [spacing_mm * size for size in shape]
    shown = f"{' x '.join(f'{length:g}' for length in covered)} mm ({'x'.join(map(str, shape))} at {spacing_mm:g} mm)"
    if any(length < needed for length, needed in zip(covered, BRAIN_MM, strict=True)):
        needed = " x ".join(f"{length:g}" for length in BRAIN_MM)
        return [f"shape, spacing: expected a grid that holds the brain, {needed} mm, got {shown}; raise one of the two"]
    if max(covered) > LATTICE_SIDE_MM:
        return [f"shape, spacing: expected at most {LATTICE_SIDE_MM:g} mm a side, got {shown}; lower one of the two"]
    return []


def axes_of(grid: Grid) -> list[Array]:
    """Return the world coordinates (RAS, mm) along each array axis of a grid that runs along the world's axes."""
    return [
        grid.affine[axis, 3] + grid.affine[axis, axis] * np.arange(size, dtype=np.float64)
        for axis, size in enumerate(grid.shape)
    ]


def _is_shape(shape: Any) -> bool:
    sizes = list(shape) if isinstance(shape, list | tuple) else []
    return len(sizes) == 3 and all(isinstance(size, int) and is_between(size, _MIN_SIZE, _MAX_SIZE) for size in sizes)


def _mni152(shape: Sequence[int], spacing_mm: float) -> BrainAnatomy:
    volumes = brain_template(shape, spacing_mm)
    grey, white, mask = (volumes[name].array for name in ("grey", "white", "brain"))
    tissue = np.argmax(np.stack([1.0 - grey - white, grey, white]), axis=0) + 1
    return _labelled(volumes["T1w"].source, volumes["T1w"].grid, volumes["T1w"].array, tissue, mask)


def _phantom(grid: Grid) -> BrainAnatomy:
    """Paint nested ellipsoids over each other, each with an edge about a voxel wide."""
    axes = axes_of(grid)
    edge_mm = max(1.0, grid.spacing_mm[0] / 2)
    # folds: the two surfaces of the cortex run in waves, as a smooth shell could slide along itself unseen
    turns = [np.cos(2 * np.pi * (axis - c) / 32.0) for axis, c in zip(axes, MNI152_CENTRE_MM, strict=True)]
    waves = np.einsum("i,j,k->ijk", *turns)
    image = np.zeros(grid.shape)
    shares = np.zeros((3, *grid.shape))

    def paint(inside: Array, level: float, tissue: int) -> None:
        image[...] += inside * (level - image)
        shares[...] -= inside * shares
        if tissue:
            shares[tissue - 1] += inside

    def nested(factor: float, wave_mm: float = 0.0) -> Array:
        semi = (66.0 * factor, 82.0 * factor, 70.0 * factor)
        return _inside(axes, MNI152_CENTRE_MM, semi, edge_mm, wave_mm * waves)

    paint(nested(1.12), 0.4, 0)
    paint(nested(1.06), 0.02, 0)
    brain = nested(1.0)
    paint(brain, 0.3, CSF)
    paint(nested(0.94, 2.0), 0.6, GREY)
    paint(nested(0.8, 5.0), 0.85, WHITE)
    for region in REGIONS:
        inside = _inside(axes, region.centre_mm, region.semi_axes_mm, edge_mm)
        paint(inside, 0.25 if region.tissue == CSF else 0.68, region.tissue)
    return _labelled("phantom", grid, image, np.argmax(shares, axis=0) + 1, brain >= 0.5)


def _inside(
    axes: Sequence[Array],
    centre_mm: Sequence[float],
    semi_axes_mm: Sequence[float],
    edge_mm: float,
    outwards_mm: Array | float = 0.0,
) -> Array:
    """Return how far each voxel is inside an ellipsoid, 0 to 1, with a logistic edge."""
    scaled = [(axis - c) / semi for axis, c, semi in zip(axes, centre_mm, semi_axes_mm, strict=True)]
    radius = np.sqrt(scaled[0][:, None, None] ** 2 + scaled[1][:, None] ** 2 + scaled[2] ** 2)
    depth_mm = (1.0 - radius) * min(semi_axes_mm) + outwards_mm
    return np.asarray(1.0 / (1.0 + np.exp(np.clip(-2.0 * depth_mm / edge_mm, -60.0, 60.0))))


def _labelled(
    source: str, grid: Grid, image: npt.NDArray[Any], tissue: npt.NDArray[Any], mask: npt.NDArray[np.bool_]
) -> BrainAnatomy:
    tissue = np.where(mask, tissue, 0).astype(np.uint8)
    return BrainAnatomy(
        source, grid, image.astype(np.float32), tissue, _regions(axes_of(grid), tissue), mask.astype(np.uint8)
    )


def _regions(axes: Sequence[Array], tissue: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    roi = np.zeros(tissue.shape, dtype=np.uint8)
    for label, region in enumerate(REGIONS, start=1):
        roi[_within(axes, region) & (tissue == region.tissue) & (roi == 0)] = label
    return roi


def _within(axes: Sequence[Array], region: Ellipsoid) -> npt.NDArray[np.bool_]:
    return _inside(axes, region.centre_mm, region.semi_axes_mm, 1.0) >= 0.5
