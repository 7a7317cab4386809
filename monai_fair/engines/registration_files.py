"""What registration leaves on disk for a subject: fields, warped images, code, and a row of the table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from monai_fair.data import read_displacement, read_labels, read_volume, write_displacement, write_itk_transform
from monai_fair.data.templates import find_template
from monai_fair.data.volumes import write_volume
from monai_fair.engines.image_match import Level, LevelList, TemplateMatch
from monai_fair.errors import MonaiFairError, RegistrationError
from monai_fair.geometry import Grid, canonical, jacobian_determinant, warp
from monai_fair.metrics.registration import log_det_jacobian, registration_quality

Array = npt.NDArray[Any]
EXPORTS = ("field", "inverse", "itk", "warped", "labels", "logdet")


@dataclass(frozen=True, eq=False)
class TemplateSpace:
    """The template with all that lies on its grid, axes in RAS order.

    Attributes:
        image: float32, shape ``(D, H, W)``.
        mask: of the brain, bool.
        grid: of all of them.
        labels: name to label map, such as ``tissue``.
        source: file of the image.
        mask_source: file of the mask.
        label_sources: name to the file of the label map.
    """

    image: npt.NDArray[np.float32]
    mask: npt.NDArray[np.bool_]
    grid: Grid
    labels: Mapping[str, npt.NDArray[np.int64]]
    source: str = ""
    mask_source: str = ""
    label_sources: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(
        cls, image: str | Path, mask: str | Path, labels: Mapping[str, str | Path] | None = None
    ) -> "TemplateSpace":
        """Read the files of a template.

        Raises:
            GeometryError: if a file cannot be read.
            RegistrationError: if mask or labels lie on another grid, or the mask is empty.
        """
        volume = read_volume(image)
        array, grid = canonical(volume.array, volume.grid)
        space = cls(np.ascontiguousarray(array), np.ones(grid.shape, dtype=bool), grid, {})
        inside = space.labels_on_grid(mask) > 0
        if not inside.any():
            raise RegistrationError(f"{mask}: expected a mask with voxels above 0, got none")
        maps = {name: space.labels_on_grid(path) for name, path in (labels or {}).items()}
        sources = {name: str(path) for name, path in (labels or {}).items()}
        return cls(space.image, inside, grid, maps, str(image), str(mask), sources)

    def labels_on_grid(self, path: str | Path) -> npt.NDArray[np.int64]:
        """Read a label map on the template's grid, in any orientation."""
        volume = read_labels(path)
        array, grid = canonical(volume.array, volume.grid)
        if not grid.matches(self.grid):
            raise RegistrationError(
                f"{path}: expected labels on the template's grid of {self.grid.shape} voxels, got {grid.shape} voxels "
                "or another place; resample it"
            )
        return np.ascontiguousarray(array, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class SubjectTruth:
    """What is known about a subject, for evaluation; each part may be missing.

    Attributes:
        displacement_vox: the true field, shape ``(3, D, H, W)``.
        mask: the subject's brain.
        labels: name to the subject's label map.
    """

    displacement_vox: Array | None
    mask: npt.NDArray[np.bool_] | None
    labels: Mapping[str, npt.NDArray[np.int64]]


def read_truth(patterns: Mapping[str, Any], subject: str, root: Path, space: TemplateSpace) -> SubjectTruth:
    """Read what is known about a subject.

    Args:
        patterns: paths under ``root`` with ``{subject}``: ``displacement``, ``mask``, and ``labels`` by name.
        subject: the subject's id without a leading ``sub-``.
        root: data root.
        space: of the template.

    Raises:
        MonaiFairError: if a file is missing or lies on another grid.
    """
    path = {name: root / str(pattern).format(subject=subject) for name, pattern in patterns.items() if name != "labels"}
    field = None
    if "displacement" in path:
        field, grid = read_displacement(path["displacement"])
        if not grid.matches(space.grid):
            raise RegistrationError(f"{path['displacement']}: expected a field on the template's grid")
    mask = space.labels_on_grid(path["mask"]) > 0 if "mask" in path else None
    labels = {
        name: space.labels_on_grid(root / str(pattern).format(subject=subject))
        for name, pattern in (patterns.get("labels") or {}).items()
    }
    return SubjectTruth(field, mask, labels)


def measures(
    space: TemplateSpace,
    image: Tensor,
    displacement: Tensor,
    *,
    inverse: Tensor | None,
    truth: SubjectTruth | None,
    before: bool,
) -> dict[str, float]:
    """Return the row of :func:`~monai_fair.metrics.registration.registration_quality` for one subject."""
    pairs = {}
    if truth is not None:
        pairs = {name: (space.labels[name], found) for name, found in truth.labels.items() if name in space.labels}
    field = displacement.cpu().numpy()
    mask = truth.mask if truth is not None and truth.mask is not None else _moved(space.mask, displacement)
    return registration_quality(
        field,
        subject=image.cpu().numpy(),
        template=space.image,
        mask=mask,
        spacing_mm=space.grid.spacing_mm,
        inverse_vox=None if inverse is None else inverse.cpu().numpy(),
        truth_vox=None if truth is None else truth.displacement_vox,
        labels=pairs,
        before=before,
    )


def check_exports(exports: Sequence[str]) -> tuple[str, ...]:
    """Return ``exports`` as given, or raise with the names that can be asked for."""
    unknown = [name for name in exports if name not in EXPORTS]
    if unknown:
        raise RegistrationError(f"exports: expected names of {', '.join(EXPORTS)}, got {', '.join(map(str, unknown))}")
    return tuple(exports)


def write_subject(
    folder: Path,
    subject: str,
    space: TemplateSpace,
    image: Tensor,
    *,
    displacement: Tensor,
    inverse: Tensor,
    exports: Sequence[str],
) -> None:
    """Write a subject's files; names and meanings stand in the bundle's README.

    Args:
        folder: of the subject.
        subject: id without a leading ``sub-``.
        space: of the template.
        image: the subject, shape ``(D, H, W)``.
        displacement: pull-back on the subject's grid that reads the template, shape ``(3, D, H, W)``, in voxels.
        inverse: the pull-back on the template's grid that reads the subject.
        exports: names of :data:`EXPORTS`.
    """
    stem = folder / f"sub-{subject}"
    maps = {"from-template_to-T1w": displacement, "from-T1w_to-template": inverse}
    for name, values in maps.items() if "field" in exports else ():
        if name == "from-template_to-T1w" or "inverse" in exports:
            write_displacement(f"{stem}_{name}_xfm.nii.gz", values.numpy(), space.grid)
    for name, values in maps.items() if "itk" in exports else ():
        write_itk_transform(f"{stem}_{name}_xfm.h5", values.numpy(), space.grid)
    if "warped" in exports:
        write_volume(f"{stem}_space-T1w_desc-template_T1w.nii.gz", _pulled(space.image, displacement), space.grid)
        write_volume(f"{stem}_space-template_T1w.nii.gz", _pulled(image.numpy(), inverse), space.grid)
    for name, labels in space.labels.items() if "labels" in exports else ():
        moved = moved_labels(labels, displacement)
        described = "" if name == "tissue" else f"_desc-{name}"
        write_volume(f"{stem}_space-T1w{described}_dseg.nii.gz", moved, space.grid)
    if "logdet" in exports:
        determinant = jacobian_determinant(inverse[None])[0].numpy().astype(np.float64)
        change = log_det_jacobian(determinant).astype(np.float32)
        write_volume(f"{stem}_desc-logdetjacobian_map.nii.gz", change, space.grid)


def moved_labels(labels: npt.NDArray[np.int64], displacement: Tensor) -> npt.NDArray[np.int32]:
    """Return a label map of the template on the subject, the nearest label at each voxel.

    Args:
        labels: shape ``(D, H, W)``, below 2 ** 24.
        displacement: pull-back that reads the template, shape ``(3, D, H, W)``, in voxels, on the CPU.
    """
    return _pulled(labels.astype(np.float32), displacement, "nearest").astype(np.int32)


def read_or_reason(
    patterns: Mapping[str, Any] | None, subject: str, root: Path, space: TemplateSpace
) -> tuple[SubjectTruth | None, str]:
    """Return a subject's truth, or why it cannot be read."""
    if not patterns:
        return None, ""
    try:
        return read_truth(patterns, subject, root, space), ""
    except MonaiFairError as error:
        return None, str(error)


def _pulled(array: Array, field: Tensor, mode: str = "bilinear") -> Array:
    values = warp(torch.from_numpy(np.ascontiguousarray(array))[None, None], field[None], mode=mode)
    return np.asarray(values[0, 0].numpy())


def _moved(mask: npt.NDArray[np.bool_], displacement: Tensor) -> npt.NDArray[np.bool_]:
    """Return the template's mask on the subject."""
    return np.asarray(_pulled(mask.astype(np.float32), displacement.cpu(), "nearest") > 0)


def template_match(
    space: TemplateSpace,
    levels: LevelList,
    more_levels: LevelList = (),
    *,
    sigma_vox: float = 2.0,
    epsilon: float = 0.3,
    contrast: str = "same",
    device: torch.device | str = "cpu",
) -> TemplateMatch:
    """Return the comparison with a template at the given levels; see :class:`TemplateMatch`."""
    blurs = [level.blur_vox for level in (*Level.parse(levels), *Level.parse(more_levels))]
    mask = torch.from_numpy(space.mask.astype(np.float32))
    image = torch.from_numpy(space.image)
    match = TemplateMatch(image, mask, blurs, sigma_vox=sigma_vox, epsilon=epsilon, contrast=contrast)
    return match.to(device)


def read_template(
    dataset_dir: str | Path,
    *,
    image: str | Path | None = None,
    mask: str | Path | None = None,
    labels: Mapping[str, str | Path] | None = None,
    models_dir: str | Path | None = None,
) -> TemplateSpace:
    """Read the template of a dataset, or the one that lies beside a model.

    Args:
        dataset_dir: where ``template_T1w.nii.gz`` and ``template_desc-brain_mask.nii.gz`` are looked for, as prepared
            scans have them, and in its ``derivatives/truth``, as simulated ones do.
        image: the template's image instead.
        mask: the template's brain mask instead.
        labels: name to label map; by default the maps that lie beside the template: ``template_dseg.nii.gz`` as
            ``tissue`` and ``template_desc-roi_dseg.nii.gz`` as ``roi``.
        models_dir: where a template is looked for when ``dataset_dir`` has none, such as the ``models`` of a bundle
            that MONAI Label serves.

    Raises:
        RegistrationError: if there is no template.
        GeometryError: if a file cannot be read.
    """
    if not image or not mask:
        found = find_template(dataset_dir, models_dir)
        labels = found.labels if labels is None and not image else labels
        image, mask = image or found.image, mask or found.mask
    return TemplateSpace.read(image, mask, labels)
