"""Affine registration of a template to a scan, and the size that an affine map carries."""

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk  # noqa: N813

from monai_fair.errors import RegistrationError
from monai_fair.preparation.conversion import Matrix, itk_affine, ras_matrix, resample

_BINS = 32
_NODS_DEGREES, _SIZES = (-20.0, 0.0, 20.0), (0.85, 1.0)
# spacing in mm and transform of each level; all voxels of the mask are samples, so that nothing is drawn
_LEVELS = ((8.0, "similarity"), (4.0, "similarity"), (4.0, "affine"), (2.0, "affine"))
_ITERATIONS = 100
_VOLUME_LIMITS = (0.2, 5.0)


@dataclass(frozen=True, eq=False)
class AffineFit:
    """An affine map from the template's world to the scan's.

    Attributes:
        matrix: ``(4, 4)``, template to scan, RAS millimetres.
        mutual_information: Mattes' estimate at the last level, in nats; larger is more alike.
    """

    matrix: Matrix
    mutual_information: float

    @property
    def determinant(self) -> float:
        """Volume in the scan over volume in the template."""
        return float(np.linalg.det(self.matrix[:3, :3]))

    @property
    def scale(self) -> float:
        """Cube root of the determinant: length in the scan over length in the template."""
        return math.cbrt(self.determinant)


def register_affine(image: Any, template: Any, *, template_mask: Any, image_mask: Any) -> AffineFit:
    """Find the affine map that makes ``image`` most alike to ``template`` in Mattes' mutual information.

    It starts at the centres of mass and of the boxes of both masks, with three angles of nodding and two sizes. All
    12 are followed at 8 mm (before that the cost says little: a template laid over the whole head looks better than
    a good start), the best one on to 4 and 2 mm: rigid with one scale first, then 12 parameters. Nothing is drawn at
    random; with one thread the same input gives the same bits.

    Args:
        image: SimpleITK image of the scan, float32.
        template: SimpleITK image, float32.
        template_mask: where the two are compared.
        image_mask: where the scan's head or brain is; only the start looks at it.

    Returns:
        The map.

    Raises:
        RegistrationError: if no start lets the two overlap, or the fit ends mirrored or outside 0.2 to 5 times the
            template's volume.

    References:
        Mattes et al., PET-CT image registration in the chest using free-form deformations, IEEE TMI 2003,
        doi:10.1109/TMI.2003.809072.
    """
    pyramid = {
        spacing: (_coarse(template, spacing), _coarse(image, spacing), _coarse(template_mask, spacing, nearest=True))
        for spacing in {level[0] for level in _LEVELS}
    }
    fits = [_fit(start, pyramid[_LEVELS[0][0]]) for start in _starts(template_mask, image_mask)]
    best = min((fit for fit in fits if fit is not None), key=lambda fit: fit.cost, default=None)
    for spacing, kind in _LEVELS[1:]:
        if best is not None:
            best = _fit(_as_affine(best.transform) if kind == "affine" else best.transform, pyramid[spacing])
    if best is None:
        raise RegistrationError(
            "affine registration: expected a scan that overlaps the template, got none from any start; "
            "check the scan's field of view and mask"
        )
    return _checked(best, "affine registration", "check the scan, or give a brain mask (--masks)")


def measure_affine(matrix: Matrix, image: Any, template: Any, *, template_mask: Any) -> AffineFit:
    """Return an affine map that is known already, with the mutual information that it reaches.

    Args:
        matrix: ``(4, 4)``, template to scan, RAS millimetres.
        image: SimpleITK image of the scan, float32.
        template: SimpleITK image, float32.
        template_mask: where the two are compared.

    Raises:
        RegistrationError: if the scan lies elsewhere, or the map is mirrored or outside the limits of
            :func:`register_affine`.
    """
    spacing = _LEVELS[-1][0]
    method = _method(_coarse(template_mask, spacing, nearest=True))
    method.SetInitialTransform(itk_affine(matrix))
    try:
        cost = method.MetricEvaluate(_coarse(template, spacing), _coarse(image, spacing))
    except RuntimeError as error:
        if not _is_apart(error):
            raise
        raise RegistrationError(
            "affine map: expected one that brings the template onto the scan, got one that leads outside of it; give "
            "maps from points of the template to points of the scan"
        ) from error
    return _checked(_Fit(itk_affine(matrix), cost), "affine map", "check that it leads from the template to the scan")


def split_scale(matrix: Matrix, centre_mm: npt.ArrayLike) -> tuple[float, Matrix]:
    """Take the isotropic scale out of an affine map, so that sizes survive it.

    ``x -> A x + t`` becomes ``x -> (A / s) (x - c) + A c + t`` with ``s`` the cube root of det A: the image of the
    centre ``c`` stays, and the new map has determinant 1.

    Args:
        matrix: ``(4, 4)``.
        centre_mm: the point whose image stays, in the map's source space.

    Returns:
        The scale and the matrix without it.
    """
    linear, centre = matrix[:3, :3], np.asarray(centre_mm, dtype=np.float64)
    scale = math.cbrt(float(np.linalg.det(linear)))
    kept = np.eye(4)
    kept[:3, :3] = linear / scale
    kept[:3, 3] = linear @ centre + matrix[:3, 3] - kept[:3, :3] @ centre
    return scale, kept


@dataclass(frozen=True, eq=False)
class _Fit:
    transform: Any
    cost: float


def _checked(fit: _Fit, source: str, advice: str) -> AffineFit:
    found = AffineFit(ras_matrix(fit.transform), -float(fit.cost))
    low, high = _VOLUME_LIMITS
    if not low <= found.determinant <= high:
        raise RegistrationError(
            f"{source}: expected a volume from {low:g} to {high:g} times the template's, got "
            f"{found.determinant:.3g}; {advice}"
        )
    return found


def _starts(template_mask: Any, image_mask: Any) -> list[Any]:
    starts = []
    centres = zip(_centres(template_mask), _centres(image_mask), strict=True)
    for (there, here), nod, size in itertools.product(centres, _NODS_DEGREES, _SIZES):
        half = math.radians(nod) / 2
        start = sitk.Similarity3DTransform()
        start.SetCenter(there.tolist())
        start.SetRotation([math.sin(half), 0.0, 0.0, math.cos(half)])
        start.SetScale(size)
        start.SetTranslation((here - there).tolist())
        starts.append(start)
    return starts


def _fit(start: Any, level: tuple[Any, Any, Any]) -> _Fit | None:
    """Follow the cost downhill; ``None`` where the images lose each other."""
    template, image, mask = level
    moved = type(start)(start)
    method = _method(mask)
    method.SetInitialTransform(moved, inPlace=True)
    method.SetOptimizerScalesFromPhysicalShift()
    # one estimate of the step, at most a voxel long: a longer one can leave the basin when a level starts at its end
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=1.0,
        minStep=1e-4,
        numberOfIterations=_ITERATIONS,
        relaxationFactor=0.5,
        gradientMagnitudeTolerance=1e-8,
        estimateLearningRate=method.Once,
        maximumStepSizeInPhysicalUnits=max(template.GetSpacing()),
    )
    try:
        method.Execute(template, image)
    except RuntimeError as error:
        if _is_apart(error):
            return None
        raise
    return _Fit(moved, method.GetMetricValue())


def _is_apart(error: RuntimeError) -> bool:
    return "outside moving image buffer" in str(error) or "not sufficiently overlap" in str(error)


def _method(mask: Any) -> Any:
    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(1)
    method.SetMetricAsMattesMutualInformation(_BINS)
    method.SetMetricFixedMask(mask)
    method.SetMetricSamplingStrategy(method.NONE)
    method.SetInterpolator(sitk.sitkLinear)
    return method


def _as_affine(transform: Any) -> Any:
    if isinstance(transform, sitk.AffineTransform):
        return transform
    affine = sitk.AffineTransform(3)
    affine.SetCenter(transform.GetCenter())
    affine.SetMatrix(transform.GetMatrix())
    affine.SetTranslation(transform.GetTranslation())
    return affine


def _centres(mask: Any) -> list[npt.NDArray[np.float64]]:
    """Return the centre of mass of a mask and the middle of its box, in ITK's millimetres."""
    inside = np.argwhere(sitk.GetArrayViewFromImage(mask) > 0)[:, ::-1]
    middles = inside.mean(axis=0), (inside.min(axis=0) + inside.max(axis=0)) / 2
    return [np.array(mask.TransformContinuousIndexToPhysicalPoint(middle.tolist())) for middle in middles]


def _coarse(image: Any, spacing_mm: float, *, nearest: bool = False) -> Any:
    """Smooth and sample an image so that no axis is finer than ``spacing_mm``; coarser axes stay."""
    before = np.array(image.GetSpacing())
    after = np.where(before < 0.75 * spacing_mm, spacing_mm, before)
    if (after == before).all():
        return image
    size = np.ceil(np.array(image.GetSize()) * before / after).astype(int)
    grid = sitk.Image(size.tolist(), image.GetPixelID())
    grid.SetSpacing(after.tolist())
    grid.SetDirection(image.GetDirection())
    middle = image.TransformContinuousIndexToPhysicalPoint(((np.array(image.GetSize()) - 1) / 2).tolist())
    direction = np.array(image.GetDirection()).reshape(3, 3)
    grid.SetOrigin((np.array(middle) - direction @ (after * (size - 1) / 2)).tolist())
    if nearest:
        return resample(image, sitk.Transform(), grid, interpolation="nearest")
    # widths at half maximum subtracted as squares; ITK wants a width above 0 also where nothing is to be smoothed
    sigma = np.sqrt(after**2 - before**2) / np.sqrt(8 * np.log(2))
    return resample(sitk.SmoothingRecursiveGaussian(image, np.maximum(sigma, 1e-3).tolist()), sitk.Transform(), grid)
