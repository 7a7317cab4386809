"""Volumes of a registration for the page: read, turned to right, anterior, superior, and on one grid."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from monai_fair.data.displacements import read_displacement
from monai_fair.data.volumes import Volume, grid_of, grid_problems, load_nifti, read_labels, read_volume
from monai_fair.errors import GeometryError, raise_problems
from monai_fair.geometry import Axes, Grid, canonical

FloatVolume = npt.NDArray[np.float32]
BoolVolume = npt.NDArray[np.bool_]
_MARGIN_MM = 10.0  # shown around the brain; letters have room there


@dataclass(frozen=True, eq=False)
class Template:
    """The template and its brain, in the order right, anterior, superior.

    Attributes:
        image: shape ``(D, H, W)``.
        brain: its mask, of the same shape.
        grid: of both.
    """

    image: FloatVolume
    brain: BoolVolume
    grid: Grid

    @property
    def box(self) -> tuple[slice, slice, slice]:
        """The part of the grid that is shown: the brain and a margin."""
        first, second, third = ndimage.find_objects(self.brain.astype(np.uint8))[0]
        margins = [int(np.ceil(_MARGIN_MM / spacing)) for spacing in self.grid.spacing_mm]
        sides = zip((first, second, third), margins, self.grid.shape, strict=True)
        x, y, z = (slice(max(0, own.start - more), min(size, own.stop + more)) for own, more, size in sides)
        return x, y, z

    @property
    def centre(self) -> tuple[int, int, int]:
        """The voxel nearest to the brain's centre of mass."""
        first, second, third = (round(float(place)) for place in ndimage.center_of_mass(self.brain))
        return first, second, third


@dataclass(frozen=True, eq=False)
class SubjectVolumes:
    """One registered subject on the template's grid, in the order right, anterior, superior.

    Attributes:
        image: the subject, shape ``(D, H, W)``.
        brain: the template's mask moved onto the subject.
        warped: the template moved onto the subject.
        log_jacobian: log det J of the map from the template to the subject, on the template; NaN where it folds.
        places: where the field leads, shape ``(3, D, H, W)``: the voxel of the template that each voxel shows.
    """

    image: FloatVolume
    brain: BoolVolume
    warped: FloatVolume
    log_jacobian: FloatVolume
    places: FloatVolume


def load_template(template: str | Path, mask: str | Path) -> Template:
    """Read the template and its brain mask.

    Raises:
        GeometryError: if one cannot be read, they lie on different grids, or the mask is empty.
    """
    image, grid = turned(read_volume(template))
    labels = read_labels(mask)
    brain = on_grid(labels, grid) > 0
    if not brain.any():
        raise GeometryError(f"{mask}: expected a mask of the brain, got 0 in every voxel; give another file")
    return Template(image, brain, grid)


def subject_files(out: str | Path, subject_id: str) -> dict[str, Path]:
    """Return the files of one subject that the page reads, by what they are."""
    name = subject_id.removeprefix("sub-")
    folder = Path(out) / f"sub-{name}"
    return {
        "warped": folder / f"sub-{name}_space-T1w_desc-template_T1w.nii.gz",
        "field": folder / f"sub-{name}_from-template_to-T1w_xfm.nii.gz",
        "log_jacobian": folder / f"sub-{name}_desc-logdetjacobian_map.nii.gz",
    }


def load_subject(image: str | Path, files: Mapping[str, Path], template: Template) -> SubjectVolumes:
    """Read one subject and what its registration wrote.

    Args:
        image: the subject's image.
        files: of :func:`subject_files`.
        template: what it was registered to.

    Raises:
        GeometryError: if a file cannot be read, or lies on another grid.
    """
    grid = template.grid
    places = load_places(files["field"], grid)
    brain = moved(template.brain, places)
    if not brain.any():
        raise GeometryError(f"{files['field']}: expected a field that leads into the brain, got one that never does")
    return SubjectVolumes(
        image=on_grid(read_volume(image), grid),
        brain=brain,
        warped=on_grid(read_volume(files["warped"]), grid),
        log_jacobian=on_grid(_read_map(files["log_jacobian"]), grid),
        places=places,
    )


def load_places(path: str | Path, grid: Grid) -> FloatVolume:
    """Return the voxel of the template that each voxel of the subject shows, by the field in a file.

    Args:
        path: of a displacement field, in any order of array axes.
        grid: of the template, turned to right, anterior, superior.

    Returns:
        Indices ``x + u(x)``, shape ``(3, D, H, W)``.
    """
    displacement, own = read_displacement(path)
    in_world, found = canonical(own.displacement(displacement, Axes.VOXEL, Axes.RAS), own)
    _check_grid(path, found, grid)
    places = np.indices(grid.shape, dtype=np.float32)
    places += grid.displacement(in_world, Axes.RAS, Axes.VOXEL)
    return places


def moved(labels: npt.NDArray[Any], places: FloatVolume) -> npt.NDArray[Any]:
    """Return the template's labels, or its mask, moved onto a subject: those of the nearest voxel of ``places``."""
    found: npt.NDArray[Any] = ndimage.map_coordinates(labels, places, order=0, mode="nearest")
    return found


def turned(volume: Volume) -> tuple[npt.NDArray[Any], Grid]:
    """Return the array and the grid of a volume, turned to right, anterior, superior."""
    return canonical(volume.array, volume.grid)


def on_grid(volume: Volume, grid: Grid) -> npt.NDArray[Any]:
    """Return the array of a volume, turned to right, anterior, superior, if it lies on ``grid``.

    Raises:
        GeometryError: if it does not.
    """
    array, found = turned(volume)
    _check_grid(volume.source, found, grid)
    return array


def _read_map(path: Path) -> Volume:
    """Read a volume whose voxels may be undefined, which :func:`read_volume` refuses for images."""
    image = load_nifti(path)
    problems = grid_problems(image)
    if len(image.shape) != 3:
        problems.append(f"expected one 3D map, got shape {image.shape}; write it again")
    raise_problems(GeometryError, path, problems)
    return Volume(image.get_fdata(dtype=np.float32), grid_of(image), str(path))


def _check_grid(source: str | Path, found: Grid, grid: Grid) -> None:
    if not found.matches(grid):
        apart = f", corners up to {found.distance_mm(grid):.3g} mm apart" if found.shape == grid.shape else ""
        raise GeometryError(
            f"{source}: expected the template's grid, {_said(grid)}, got {_said(found)}{apart}; "
            "give the files of one registration"
        )


def _said(grid: Grid) -> str:
    return f"{' x '.join(map(str, grid.shape))} voxels of {' x '.join(f'{side:.3g}' for side in grid.spacing_mm)} mm"
