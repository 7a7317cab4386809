"""Pictures of discovered subgroups: what differs in local volume, over the template and over typical members."""

import base64
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from monai_fair.data.manifest import resolve_inside
from monai_fair.data.volumes import read_map, read_volume
from monai_fair.errors import MonaiFairError
from monai_fair.geometry import Axes
from monai_fair.report.discovery_record import FoundSubgroups
from monai_fair.report.quantities import Record, joined
from monai_fair.report.registration_measures import MINUS
from monai_fair.report.registration_slices import PLANES, png_uri, position_words, window
from monai_fair.report.registration_volumes import FloatVolume, Template, on_grid

SPREAD = "maps/desc-spread_map.nii.gz"
TYPICAL = 3  # members shown of every subgroup
AROUND_MM = 5.0  # the number in words is the mean over the brain this close to the place
_LARGER, _SMALLER = (213, 94, 0), (86, 180, 233)  # Okabe and Ito's vermilion and sky blue
_LETTERS = ("LR", "PA", "IS")  # ends of each array axis
_DIRECTIONS = (("left of", "right of"), ("behind", "in front of"), ("below", "above"))
_LEVELS = 253  # of the colour bar
_OPAQUE = 230  # of 255: the image stays visible below the strongest colour
_SMOOTHING_MM = 4.0
Values = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Place:
    """Where the planes of the pictures go through.

    Attributes:
        voxel: on the template's grid, turned to right, anterior, superior.
        radius_mm: of the neighbourhood in which subgroups were told apart; 0 where there is none.
    """

    voxel: tuple[int, int, int]
    radius_mm: float


def place_of(found: FoundSubgroups, difference: FloatVolume, template: Template) -> Place:
    """Return the place that the discovery names, or that of the largest difference (smoothed over 4 mm).

    Args:
        found: the folder.
        difference: map of log ratios on the template's grid.
        template: and its brain.
    """
    named = found.record["place"]
    if named:
        at = template.grid.points(np.asarray(named["world_mm"], dtype=np.float64), Axes.RAS, Axes.VOXEL)
        x, y, z = (min(max(round(float(own)), 0), size - 1) for own, size in zip(at, template.grid.shape, strict=True))
        return Place((x, y, z), float(named["radius_mm"]))
    sizes = [_SMOOTHING_MM / spacing for spacing in template.grid.spacing_mm]
    smooth = ndimage.gaussian_filter(np.where(template.brain, np.nan_to_num(np.abs(difference)), 0.0), sizes)
    x, y, z = (int(own) for own in np.unravel_index(np.argmax(np.where(template.brain, smooth, -1)), smooth.shape))
    return Place((x, y, z), 0.0)


def read_found_map(found: FoundSubgroups, file: str, template: Template) -> FloatVolume:
    """Read a map of the discovery's folder.

    Raises:
        MonaiFairError: if it leads outside the folder, cannot be read, or lies on another grid.
    """
    array: FloatVolume = on_grid(read_map(resolve_inside(found.folder, file)), template.grid)
    return array


def difference_figure(found: FoundSubgroups, name: str, template: Template) -> Record:
    """Return the picture of one subgroup: its mean local volume against the rest, over the template.

    Args:
        found: the folder.
        name: of the subgroup.
        template: what the maps lie on.

    Returns:
        ``name``, ``panels``, ``bar``, ``words`` (for who cannot see it), ``where`` (the planes), ``point``
        (the place), ``mean`` (log ratio near the place), ``spread`` (standard deviation there; None where there is no
        such map) and ``place``.

    Raises:
        MonaiFairError: as :func:`read_found_map`, or if there is no map of the subgroup.
    """
    if name not in found.record["maps"]:
        raise MonaiFairError(
            f"maps: expected one of {name}, found none; register with log Jacobians and run discover again"
        )
    difference = read_found_map(found, found.record["maps"][name], template)
    place = place_of(found, difference, template)
    # a mean over subjects is smooth: its largest value is no outlier
    limit = round_limit(difference[template.brain], percentile=100)
    spread = read_found_map(found, SPREAD, template) if (found.folder / SPREAD).is_file() else None
    near = _near(place, template)
    return {
        "name": name,
        "panels": _panels(template.image, difference, template, place, limit),
        "bar": _bar(limit),
        "where": _planes_words(place, template),
        "point": _point_words(place, template),
        "words": f"mean local volume of {name} against the other fitted subjects, over the template",
        "mean": float(np.nanmean(difference[near])),
        "spread": None if spread is None else float(np.nanmean(spread[near])),
        "place": place,
    }


def typical_figures(
    found: FoundSubgroups, registered: Path, template: Template, place: Place
) -> tuple[list[Record], Record]:
    """Return pictures of the most typical members of every subgroup, and the colour bar of them all.

    The image is the subject's in template space, where shape is taken out; the colours are the subject's own local
    volume against the template, which is what was taken out.

    Args:
        found: the folder.
        registered: folder of the registration.
        template: what all lie on.
        place: where the planes go through.
    """
    read = {
        entry["name"]: [_member(registered, str(who), template) for who in entry["typical"][:TYPICAL]]
        for entry in found.record["subgroups"]
    }
    logs = [own["log"][template.brain] for members in read.values() for own in members if not own["problem"]]
    limit = round_limit(np.concatenate(logs)) if logs else 1.0
    figures = [
        {
            "name": name,
            "members": [
                {
                    "number": number,
                    "problem": own["problem"],
                    "panels": [] if own["problem"] else _panels(own["image"], own["log"], template, place, limit),
                }
                for number, own in enumerate(members, start=1)
            ],
        }
        for name, members in read.items()
    ]
    return figures, _bar(limit)


def _member(registered: Path, subject_id: str, template: Template) -> Mapping[str, Any]:
    """Read one subject; a reason does not name it, because the page may travel."""
    stem = f"sub-{subject_id.removeprefix('sub-')}"
    kinds = {"image": f"{stem}_space-template_T1w.nii.gz", "log": f"{stem}_desc-logdetjacobian_map.nii.gz"}
    volumes: dict[str, Any] = {"problem": ""}
    path = registered
    try:
        for kind, file in kinds.items():
            path = resolve_inside(registered, f"{stem}/{file}")
            volumes[kind] = on_grid(read_volume(path) if kind == "image" else read_map(path), template.grid)
    except MonaiFairError as error:
        said = str(error).replace(str(path), path.name).replace(f"{registered}", "the registration's folder")
        volumes["problem"] = said.replace(stem, "sub-…")
    return volumes


def round_limit(logs: Values, *, percentile: float = 99) -> float:
    """Return the end of a colour bar: a log ratio of a round per cent that so many of 100 values stay within.

    Args:
        logs: log ratios; NaN is left out.
        percentile: how many of 100, by absolute value.
    """
    known = np.abs(logs[np.isfinite(logs)])
    highest = 100 * math.expm1(float(np.percentile(known, percentile))) if known.size else 0.0
    if highest <= 0:
        return math.log1p(0.01)
    unit = 10.0 ** math.floor(math.log10(highest))
    return math.log1p(math.ceil(highest / unit) * unit / 100)


def percent_change(log_ratio: float) -> str:
    """Write a log ratio of volumes as the change it is: ``+22 %``."""
    change = 100 * math.expm1(log_ratio)
    text = f"{abs(change):.0f}" if abs(change) >= 9.95 else f"{abs(change):.1f}"
    return f"{MINUS if change < 0 else '+'}{text}\u00a0%"


def overlay_uri(values: Values, limit: float, *, inside: npt.NDArray[np.bool_] | None = None) -> str:
    """Return values as colours to lie over a picture: the weaker, the more of the picture is seen.

    Args:
        values: shape ``(height, width)``, top row first; positive are vermilion, negative sky blue, NaN is clear.
        limit: absolute value of the strongest colour.
        inside: of the same shape; the rest is clear.

    Returns:
        PNG with an alpha channel, as a data URI.

    References:
        Taylor et al., Highlight results, don't hide them, NeuroImage 2023, doi:10.1016/j.neuroimage.2023.120138.
    """
    shares = np.clip(np.nan_to_num(values / limit), -1, 1)
    colours = np.where((shares > 0)[..., None], _LARGER, _SMALLER)
    alpha = np.abs(shares) * _OPAQUE * (1 if inside is None else inside)
    pixels = np.concatenate([colours, np.rint(alpha)[..., None]], axis=2).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _panels(image: FloatVolume, logs: FloatVolume, template: Template, place: Place, limit: float) -> list[Record]:
    ends = window(image, template.brain)
    return [_panel(plane, image, logs, template, place, limit, ends) for plane in PLANES]


def _panel(
    plane: tuple[str, int, int, int],
    image: FloatVolume,
    logs: FloatVolume,
    template: Template,
    place: Place,
    limit: float,
    ends: tuple[float, float],
) -> Record:
    _, axis, right, up = plane
    box = template.box
    sides = [(own.stop - own.start) * spacing for own, spacing in zip(box, template.grid.spacing_mm, strict=True)]

    def cut(volume: npt.NDArray[Any]) -> npt.NDArray[Any]:
        index: list[int | slice] = list(box)
        index[axis] = place.voxel[axis]
        return volume[tuple(index)].T[::-1]

    under = cut(image)
    height, width = under.shape
    return {
        "under": png_uri(under, "gray", *ends),
        "over": overlay_uri(cut(logs), limit, inside=cut(template.brain)),
        "pixels": (width, height),
        # the centre of the first pixel is at half a pixel
        "centre": (place.voxel[right] - box[right].start + 0.5, height - (place.voxel[up] - box[up].start) - 0.5),
        "radii": [round(place.radius_mm / template.grid.spacing_mm[own], 2) for own in (right, up)],
        "aspect": round(sides[right] / sides[up], 4),
        "letters": (*_LETTERS[right], *_LETTERS[up]),
    }


def _bar(limit: float) -> Record:
    values = np.linspace(-limit, limit, _LEVELS)[None]
    return {
        "png": overlay_uri(values, limit),
        "ends": [percent_change(-limit), "0", percent_change(limit)],
        "unit": "local volume",
    }


def _planes_words(place: Place, template: Template) -> str:
    """Return where the planes lie: ``axial at S 12 mm, coronal at A 3 mm, sagittal at R 24 mm``."""
    positions = position_words(place.voxel, template.grid)
    return ", ".join(f"{name} at {words}" for (name, *_), words in zip(PLANES, positions, strict=True))


def _point_words(place: Place, template: Template) -> str:
    """Return where the place lies: ``24 mm right of, 3 mm in front of and 12 mm above the template's origin``."""
    world = template.grid.points(np.asarray(place.voxel, dtype=np.float64), Axes.VOXEL, Axes.RAS)
    words = [f"{abs(at):.0f}\u00a0mm {ends[int(at >= 0)]}" for at, ends in zip(world, _DIRECTIONS, strict=True)]
    return f"{joined(words)} the template's origin"


def _near(place: Place, template: Template) -> npt.NDArray[np.bool_]:
    """Return the brain within 5 mm of a place; the place alone where no voxel of the brain is so near."""
    index = np.indices(template.grid.shape).transpose(1, 2, 3, 0) - np.asarray(place.voxel)
    near: npt.NDArray[np.bool_] = np.linalg.norm(index * template.grid.spacing_mm, axis=-1) <= AROUND_MM
    inside: npt.NDArray[np.bool_] = near & template.brain
    if inside.any():
        return inside
    alone = np.zeros(template.grid.shape, dtype=bool)
    alone[place.voxel] = True
    return alone
