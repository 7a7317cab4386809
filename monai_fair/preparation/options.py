"""What is done to every scan of a cohort, checked all at once, and the template they go to."""

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from monai_fair.data.artifacts import sha256
from monai_fair.data.templates import brain_template
from monai_fair.data.volumes import Volume, read_labels, read_volume
from monai_fair.errors import GeometryError, MonaiFairError, raise_problems
from monai_fair.geometry import canonical
from monai_fair.preparation.conversion import from_itk, to_itk
from monai_fair.preparation.foreground import foreground_mask
from monai_fair.preparation.reading import orientation_problem

INTERPOLATIONS = ("linear", "bspline")
_FLAGS = ("skull_stripped", "n4", "keep_scale", "keep_background")
# Part of the fingerprint: raise it when equal options no longer give equal images.
_METHOD = 1


@dataclass(frozen=True)
class PreparationOptions:
    """What is done to every scan.

    Attributes:
        spacing_mm: side of the output's voxels; of the MNI152 template, not of a template file.
        shape: voxels along right, anterior, superior; of the MNI152 template, not of a template file.
        template: a NIfTI file to register to instead of the MNI152 brain; its grid is the output's.
        template_mask: its brain mask; by default its foreground.
        masks: brain masks of the scans: a path under the data root with names of the manifest's columns in braces,
            such as ``masks/{subject_id}.nii.gz``. Without it, the template's mask is laid over the scan.
        affines: affine maps that other software found: a path as for ``masks``, of ITK transforms (``.tfm``, ``.txt``,
            ANTs' ``0GenericAffine.mat``) from points of the template to points of the scan, which is what resampling a
            scan onto the template takes. Without it, the maps are found by registration.
        skull_stripped: the scans hold brains alone, on a background of exactly 0.
        orientation: of files that do not say it themselves, such as ``ASL``.
        n4: correct the scanner's shading.
        keep_scale: leave the size of the brain as it is; else it is scaled to the template's.
        keep_background: keep what lies outside the brain mask; else it becomes 0.
        interpolation: ``linear`` or ``bspline`` (cubic).

    Raises:
        MonaiFairError: with every option that cannot be used.
    """

    spacing_mm: float = 2.0
    shape: tuple[int, ...] = (80, 96, 80)
    template: str = ""
    template_mask: str = ""
    masks: str = ""
    affines: str = ""
    skull_stripped: bool = False
    orientation: str = ""
    n4: bool = True
    keep_scale: bool = False
    keep_background: bool = False
    interpolation: str = "linear"

    def __post_init__(self) -> None:
        raise_problems(MonaiFairError, "prepare", self._problems())

    @property
    def space(self) -> str:
        """Name of the template's space in file names: ``MNI152``, or ``template`` for a file."""
        return "template" if self.template else "MNI152"

    def parameters(self) -> dict[str, Any]:
        """Return what decides the output: every option, with template files by their contents."""
        values = dataclasses.asdict(self) | {"shape": list(self.shape), "spacing_mm": float(self.spacing_mm)}
        for name in ("template", "template_mask"):
            if path := values[name]:
                values[name] = f"{Path(path).name} sha256 {sha256(path)}"
        if self.template:
            del values["shape"], values["spacing_mm"]
        if not self.affines:
            del values["affines"]  # folders from before it was an option go on
        return values | {"method": _METHOD}

    def _problems(self) -> list[str]:
        problems = [
            f"{name}: expected true or false, got {getattr(self, name)!r}"
            for name in _FLAGS
            if not isinstance(getattr(self, name), bool)
        ]
        if (
            not isinstance(self.spacing_mm, int | float)
            or isinstance(self.spacing_mm, bool)
            or not (0.25 <= self.spacing_mm <= 20)
        ):
            problems.append(
                f"spacing: expected millimetres from 0.25 to 20, got {self.spacing_mm!r}; give one such as 2"
            )
        if not _is_shape(self.shape):
            problems.append(f"shape: expected three whole numbers from 8 to 1024, got {self.shape!r}; such as 80,96,80")
        if self.interpolation not in INTERPOLATIONS:
            problems.append(f"interpolation: expected one of {', '.join(INTERPOLATIONS)}, got '{self.interpolation}'")
        if self.orientation and (problem := orientation_problem(self.orientation)):
            problems.append(problem)
        if self.masks and self.skull_stripped:
            problems.append("masks, skull_stripped: expected one of the two, got both; a mask takes the skull off")
        if self.template_mask and not self.template:
            problems.append("template_mask: expected a template of one's own with it, got none; give --template")
        problems += [
            f"{name}: expected a file, found none at '{path}'; check the path"
            for name in ("template", "template_mask")
            if (path := getattr(self, name)) and not Path(path).is_file()
        ]
        return problems


@functools.lru_cache(maxsize=1)
def load_template(options: PreparationOptions) -> tuple[Volume, Volume]:
    """Return the template (float32) and its brain mask (bool), with axes that run right, anterior, superior.

    The last one is kept, because a process registers many scans to the same template.

    Raises:
        GeometryError: if a file cannot be read, or the mask is empty or on another grid.
    """
    if not options.template:
        maps = brain_template(options.shape, options.spacing_mm)
        if not maps["brain"].array.any():
            raise GeometryError(
                f"template: expected a grid that covers the brain, got shape {options.shape} at "
                f"{options.spacing_mm:g} mm without any of it; give a larger --shape or --spacing"
            )
        return maps["T1w"], maps["brain"]
    read = read_volume(options.template)
    array, grid = canonical(read.array, read.grid)
    template = Volume(np.ascontiguousarray(array), grid, read.source)
    if not options.template_mask:
        found = from_itk(foreground_mask(to_itk(template.array, grid))) > 0
        return template, Volume(found, grid, f"foreground of {read.source}")
    mask = read_labels(options.template_mask)
    need_same_grid(mask, read)
    inside = np.ascontiguousarray(canonical(mask.array, mask.grid)[0]) > 0
    return template, Volume(inside, grid, mask.source)


def need_same_grid(mask: Volume, image: Volume) -> None:
    """Refuse a mask that is empty or lies on another grid than its image.

    Raises:
        GeometryError: with both grids.
    """
    if not mask.grid.matches(image.grid, tolerance_mm=0.1):
        raise GeometryError(
            f"{mask.source}: expected a mask on the grid of {image.source}, {_words(image)}, got {_words(mask)}; "
            "resample the mask onto the scan"
        )
    if not (mask.array > 0).any():
        raise GeometryError(f"{mask.source}: expected a brain mask, got one without a voxel above 0; give another")


def _words(volume: Volume) -> str:
    spacing = " x ".join(f"{step:.3g}" for step in volume.grid.spacing_mm)
    corner = ", ".join(f"{value:.1f}" for value in volume.grid.affine[:3, 3])
    shape = " x ".join(map(str, volume.grid.shape))
    return f"{shape} at {spacing} mm, {volume.grid.orientation}, first voxel at ({corner}) mm"


def _is_shape(shape: Sequence[object]) -> bool:
    whole = [isinstance(size, int) and not isinstance(size, bool) and 8 <= size <= 1024 for size in shape]
    return len(whole) == 3 and all(whole)
