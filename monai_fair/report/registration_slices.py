"""Slices of a registered subject as small pictures: 8-bit PNG in the page itself, lines as SVG paths."""

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from PIL import Image
from scipy import ndimage

from monai_fair.geometry import Axes, Grid
from monai_fair.report.quantities import Record
from monai_fair.report.registration_measures import MINUS
from monai_fair.report.registration_volumes import BoolVolume, SubjectVolumes, Template

Values = npt.NDArray[np.floating[Any]]

# Name, the axis that is looked along, and the array axes that run to the right and up in the picture.
PLANES = (("axial", 2, 0, 1), ("coronal", 1, 0, 2), ("sagittal", 0, 1, 2))
_ENDS = ("LR", "PA", "IS")  # of each array axis
_LARGEST = 176  # pixels along a side; pictures are not shown larger than this
LINES_MM = 10.0
_LINE_POINTS = 100  # at most along a side, between which lines are straight
_LEVELS, _OUTSIDE, _FOLD = 254, 254, 255  # of the palette: the colour map, and two colours behind it
_PALE, _BLACK = (238, 241, 244), (0, 0, 0)
_WINDOW = (0.5, 99.5)  # percentiles of the brain's intensities that are shown black and white
_GREY, _DIFFERENCE, _JACOBIAN = "gray", "PuOr_r", "RdBu_r"  # told apart with colour vision deficiency too
_SMOOTHING_MM = 4.0


@dataclass(frozen=True)
class Limits:
    """Ends of the diverging colour bars, which run from minus to plus that value.

    Attributes:
        difference: in standard deviations of the brain's intensities.
        log_jacobian: in natural logarithms of a ratio of volumes.
    """

    difference: float
    log_jacobian: float


@dataclass(frozen=True, eq=False)
class _Layer:
    """A column of pictures: a volume and how it is painted."""

    name: str
    words: str
    volume: Values
    colours: str
    low: float
    high: float
    unit: str = ""
    inside: BoolVolume | None = None  # elsewhere the volume has no meaning
    lines: Values | None = None  # coordinates in mm, one volume per array axis, whose steps are drawn


def differences(subject: SubjectVolumes, template: Template) -> tuple[Values, Values]:
    """Return template minus subject before and after registration, in standard deviations.

    Each image is shifted and scaled by the mean and the standard deviation of its intensities in its own brain; the
    warped template by those of the template, so that one intensity is one colour before and after.
    """
    own, shared = subject.image[subject.brain], template.image[template.brain]
    # a brain of one intensity has no spread to divide by
    subject_sd, template_sd = (float(values.std()) or 1.0 for values in (own, shared))
    scaled = (subject.image - own.mean()) / subject_sd
    before, after = ((image - shared.mean()) / template_sd - scaled for image in (template.image, subject.warped))
    return before, after


def common_limits(subjects: Sequence[SubjectVolumes], template: Template) -> Limits:
    """Return limits that 99 of 100 voxels of the brain of every subject stay within, rounded up to one digit."""
    before = [differences(subject, template)[0][template.brain] for subject in subjects]
    logs = [subject.log_jacobian[template.brain] for subject in subjects]
    return Limits(_limit(before), _limit(logs))


def place_of_largest_difference(subject: SubjectVolumes, template: Template) -> tuple[int, int, int]:
    """Return the voxel of the brain where subject and warped template differ most, smoothed over 4 mm (Gaussian)."""
    apart = np.where(subject.brain, np.abs(differences(subject, template)[1]), 0.0)
    smooth = ndimage.gaussian_filter(apart, [_SMOOTHING_MM / spacing for spacing in template.grid.spacing_mm])
    first, second, third = np.unravel_index(np.argmax(np.where(subject.brain, smooth, -1.0)), smooth.shape)
    return int(first), int(second), int(third)


def position_words(place: Sequence[int], grid: Grid) -> list[str]:
    """Return where each plane through a voxel lies in the world, in the order of :data:`PLANES`: ``S 12 mm``."""
    world = grid.points(np.asarray(place, dtype=np.float64), Axes.VOXEL, Axes.RAS)
    return [f"{_ENDS[axis][int(world[axis] >= 0)]} {abs(world[axis]):.0f} mm" for _, axis, _, _ in PLANES]


def columns_of(subject: SubjectVolumes, template: Template, place: Sequence[int], limits: Limits) -> list[Record]:
    """Return the columns of a subject's figure: template, subject, warped, differences, Jacobian, deformed grid.

    Args:
        subject: the volumes.
        template: on the same grid.
        place: the voxel that all planes go through.
        limits: of the diverging colours.

    Returns:
        Per column ``name``, ``words`` (alternative text), ``bar`` (colours with their ends) and ``panels``, a picture
        per plane in the order of :data:`PLANES`.
    """
    return [
        {
            "name": layer.name,
            "words": layer.words,
            "bar": _bar(layer),
            "dark": layer.colours == _GREY,
            "faint": layer.lines is not None,
            "panels": [_panel(layer, plane, template, place) for plane in PLANES],
        }
        for layer in _layers(subject, template, limits)
    ]


def png_uri(values: Values, colours: str, low: float, high: float, *, inside: BoolVolume | None = None) -> str:
    """Return a picture of ``values`` as a data URI: PNG with a palette of 8 bits.

    Args:
        values: shape ``(height, width)``, top row first; NaN is painted black.
        colours: name of a matplotlib colour map.
        low: the value of its first colour; smaller ones are painted alike.
        high: the value of its last colour.
        inside: of the same shape; the rest is painted pale.
    """
    shrink = max(1.0, max(values.shape) / _LARGEST)
    size = max(1, round(values.shape[1] / shrink)), max(1, round(values.shape[0] / shrink))
    small = _resized(values, size)
    index = np.where(np.isnan(small), _FOLD, np.rint(np.clip((small - low) / (high - low), 0, 1) * (_LEVELS - 1)))
    if inside is not None:
        index[_resized(inside.astype(np.float32), size) < 0.5] = _OUTSIDE
    image = Image.fromarray(index.astype(np.uint8))
    shades = np.rint(mpl.colormaps[colours](np.linspace(0, 1, _LEVELS))[:, :3] * 255).astype(int)
    image.putpalette([int(part) for colour in (*shades, _PALE, _BLACK) for part in colour])
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def line_path(coordinate: Values, step: float) -> str:
    """Return where ``coordinate`` is a multiple of ``step`` as an SVG path in pixels of the picture.

    Args:
        coordinate: shape ``(height, width)``, top row first.
        step: between lines.
    """
    # a field is smooth, and every point of a line makes the page larger
    every = math.ceil(max(coordinate.shape) / _LINE_POINTS)
    height, width = (np.arange(0, size, every) for size in coordinate.shape)
    kept = coordinate[::every, ::every]
    low, high = float(kept.min()), float(kept.max())
    levels = [step * number for number in range(math.ceil(low / step), math.floor(high / step) + 1)]
    levels = [level for level in levels if low < level < high]
    if not levels:
        return ""
    found = Figure().subplots().contour(width, height, kept, levels=levels).allsegs
    # the centre of the first pixel is at half a pixel
    lines = [np.round(line + 0.5, 1) for level in found for line in level if len(line) > 1]
    return "".join("M" + "L".join(f"{x:g} {y:g}" for x, y in line) for line in lines)


def _layers(subject: SubjectVolumes, template: Template, limits: Limits) -> list[_Layer]:
    before, after = differences(subject, template)
    shared, own = window(template.image, template.brain), window(subject.image, subject.brain)
    either = template.brain | subject.brain
    spread, sd = (-limits.difference, limits.difference), "SD"
    ratio = -limits.log_jacobian, limits.log_jacobian
    steps = subject.places * np.reshape(template.grid.spacing_mm, (3, 1, 1, 1))
    inside = "intensity"
    grid = f"lines every {LINES_MM:g} mm of the template, as the field bends them, on the warped template"
    return [
        _Layer("Template", "the template", template.image, _GREY, *shared, inside),
        _Layer("Subject", "the subject", subject.image, _GREY, *own, inside),
        _Layer("Warped template", "the template moved onto the subject", subject.warped, _GREY, *shared, inside),
        _Layer("Difference before", "template minus subject", before, _DIFFERENCE, *spread, sd, either),
        _Layer("Difference after", "warped template minus subject", after, _DIFFERENCE, *spread, sd, either),
        _Layer(
            "log det J",
            "logarithm of the local change of volume from the template to the subject",
            subject.log_jacobian,
            _JACOBIAN,
            *ratio,
            "log ratio",
            inside=template.brain,
        ),
        _Layer("Deformed grid", grid, subject.warped, _GREY, *shared, f"lines: {LINES_MM:g} mm", lines=steps),
    ]


def _panel(layer: _Layer, plane: tuple[str, int, int, int], template: Template, place: Sequence[int]) -> Record:
    _, axis, right, up = plane
    box = template.box
    sides = [(own.stop - own.start) * spacing for own, spacing in zip(box, template.grid.spacing_mm, strict=True)]

    def cut(volume: npt.NDArray[Any]) -> npt.NDArray[Any]:
        index: list[int | slice] = list(box)
        index[axis] = place[axis]
        return volume[tuple(index)].T[::-1]

    values, inside = cut(layer.volume), None if layer.inside is None else cut(layer.inside)
    lines = "" if layer.lines is None else "".join(line_path(cut(layer.lines[a]), LINES_MM) for a in (right, up))
    return {
        "png": png_uri(values, layer.colours, layer.low, layer.high, inside=inside),
        "lines": lines,
        "pixels": (values.shape[1], values.shape[0]),
        "width": round(100 * sides[right] / max(sides), 2),
        "aspect": round(sides[right] / sides[up], 4),
        "letters": (*_ENDS[right], *_ENDS[up]),
    }


def _bar(layer: _Layer) -> Record:
    shades = png_uri(np.linspace(0, 1, 128)[None], layer.colours, 0, 1)
    if layer.colours == _GREY:
        ends = [f"{value:.3g}".replace("-", MINUS) for value in (layer.low, layer.high)]
        return {"png": shades, "ends": ends, "unit": layer.unit}
    return {"png": shades, "ends": [f"{MINUS}{layer.high:g}", "0", f"{layer.high:g}"], "unit": layer.unit}


def window(image: Values, brain: BoolVolume) -> tuple[float, float]:
    """Return the intensities that are shown black and white."""
    low, high = np.percentile(image[brain], _WINDOW)
    # a brain of one intensity has no contrast to show, and must not divide by 0
    return float(low), float(high) if high > low else float(low) + 1.0


def _limit(values: Sequence[Values]) -> float:
    """Return the largest 99th percentile of absolute values, rounded up to one digit; 1 where all are 0."""
    known = [np.abs(own[np.isfinite(own)]) for own in values]
    highest = max((float(np.percentile(own, 99)) for own in known if own.size), default=0.0)
    if highest == 0:
        return 1.0
    unit = 10.0 ** math.floor(math.log10(highest))
    return float(f"{math.ceil(highest / unit) * unit:.1g}")


def _resized(values: Values, size: tuple[int, int]) -> Values:
    """Return ``values`` averaged into ``size`` (width, height) pixels."""
    if size == values.shape[::-1]:
        return values
    return np.asarray(Image.fromarray(values.astype(np.float32)).resize(size, Image.Resampling.BOX))
