"""The template of a dataset by its files; and the MNI152 brain that nilearn ships: nothing is downloaded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from monai_fair.data.volumes import Volume
from monai_fair.errors import GeometryError, RegistrationError
from monai_fair.geometry import Axes, Grid

# The middle of the box around the template's brain, which spans x -72..72, y -107..73, z -72..82 mm.
MNI152_CENTRE_MM = (0.0, -17.0, 5.0)
_FWHM_TO_SD = 1 / np.sqrt(8 * np.log(2))
_IMAGE, _MASK = "template_T1w.nii.gz", "template_desc-brain_mask.nii.gz"
_LABELS = {"tissue": "template_dseg.nii.gz", "roi": "template_desc-roi_dseg.nii.gz"}


@dataclass(frozen=True)
class TemplateFiles:
    """Where a template lies.

    Attributes:
        image: ``template_T1w.nii.gz``, which is there.
        mask: ``template_desc-brain_mask.nii.gz`` beside it.
        labels: name (``tissue``, ``roi``) to those label maps beside it that are there.
    """

    image: Path
    mask: Path
    labels: Mapping[str, Path]


def find_template(dataset_dir: str | Path, models_dir: str | Path | None = None) -> TemplateFiles:
    """Find the template of a dataset, or the one that lies beside a model.

    Args:
        dataset_dir: looked at first, where prepared scans have it; then its ``derivatives/truth``, where simulated
            ones do.
        models_dir: looked at last, where a bundle that is served has it.

    Raises:
        RegistrationError: if there is no template.
    """
    folders = [Path(dataset_dir), Path(dataset_dir) / "derivatives" / "truth"]
    folders += [] if models_dir is None else [Path(models_dir)]
    near = next((folder for folder in folders if (folder / _IMAGE).is_file()), None)
    if near is None:
        places = " or ".join(str(folder) for folder in folders)
        raise RegistrationError(f"template: expected {_IMAGE} in {places}, found none; give template and template_mask")
    labels = {name: near / file for name, file in _LABELS.items() if (near / file).is_file()}
    return TemplateFiles(near / _IMAGE, near / _MASK, labels)


def template_grid(shape: Sequence[int] = (80, 96, 80), spacing_mm: float = 2.0) -> Grid:
    """Return the RAS grid of cubic voxels whose middle is the middle of the MNI152 brain.

    Args:
        shape: voxels along right, anterior, superior; the brain needs 146 x 182 x 156 mm.
        spacing_mm: side of a voxel.

    Raises:
        GeometryError: if the spacing is not a positive number, or the shape is not one of a volume.
    """
    if not (np.isfinite(spacing_mm) and spacing_mm > 0):
        raise GeometryError(f"template: expected a spacing above 0 mm, got {spacing_mm}; give one such as 2")
    if len(shape) != 3:
        raise GeometryError(f"template: expected three sizes, got {tuple(shape)}; give a shape such as 80,96,80")
    centred = Grid.isotropic(shape, spacing_mm)
    affine = centred.affine.copy()
    affine[:3, 3] += MNI152_CENTRE_MM
    return Grid(centred.shape, affine)


def brain_template(shape: Sequence[int] = (80, 96, 80), spacing_mm: float = 2.0) -> dict[str, Volume]:
    """Return the MNI152 T1 brain, its tissue maps and its mask on :func:`template_grid`.

    The 1 mm maps are smoothed to the new spacing (Gaussian, widths at half maximum subtracted as squares), so that a
    coarse grid averages tissue instead of skipping it, and read by linear interpolation. The same arguments give the
    same bits.

    Args:
        shape: voxels along right, anterior, superior.
        spacing_mm: side of a voxel.

    Returns:
        ``T1w`` (float32 in [0, 1], 0 outside the brain: the template has no skull), ``grey`` and ``white`` (float32,
        share of the tissue in [0, 1]) and ``brain`` (bool).

    Raises:
        GeometryError: as :func:`template_grid` does.

    References:
        Fonov et al., Unbiased average age-appropriate atlases for pediatric studies, NeuroImage 2011,
        doi:10.1016/j.neuroimage.2010.07.033 (ICBM 2009a nonlinear symmetric).
    """
    # a second or more to import, and only this needs it
    from nilearn import __version__ as version
    from nilearn.datasets import (
        load_mni152_brain_mask,
        load_mni152_gm_template,
        load_mni152_template,
        load_mni152_wm_template,
    )

    grid = template_grid(shape, spacing_mm)
    loaders = {"T1w": load_mni152_template, "grey": load_mni152_gm_template, "white": load_mni152_wm_template,
               "brain": load_mni152_brain_mask}  # fmt: skip
    volumes = {}
    for name, load in loaders.items():
        image = load(resolution=1)
        source = Grid(image.shape, image.affine)
        values = _resample(np.asarray(image.get_fdata(dtype=np.float32)), source, grid)
        array = values >= 0.5 if name == "brain" else values
        volumes[name] = Volume(array, grid, f"MNI152 {name} (nilearn {version})")
    return volumes


def _resample(array: npt.NDArray[np.float32], source: Grid, target: Grid) -> npt.NDArray[np.float32]:
    lost = max(0.0, target.spacing_mm[0] ** 2 - source.spacing_mm[0] ** 2)
    smooth = ndimage.gaussian_filter(array, _FWHM_TO_SD * np.sqrt(lost) / source.spacing_mm[0], mode="constant")
    matrix = source.matrix(Axes.RAS, Axes.VOXEL) @ target.matrix(Axes.VOXEL, Axes.RAS)
    # order 1 with zeros outside: a grid larger than the source is filled with background
    values = ndimage.affine_transform(smooth, matrix[:3, :3], matrix[:3, 3], target.shape, order=1, mode="constant")
    clipped: npt.NDArray[np.float32] = np.clip(values, 0.0, 1.0).astype(np.float32)
    return clipped
