"""How well a warped template fits subjects at sampled voxels, and how that changes when the voxels move."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from monai_fair.engines.contrast import evenness, intensity_curves, recolour
from monai_fair.errors import RegistrationError
from monai_fair.geometry import sample
from monai_fair.losses.similarity import gaussian_blur, local_normalize
from monai_fair.networks import SamplingGrid

CONTRASTS = ("same", "any")
_HALF = 0.5
_MASK_SOFTNESS_VOX = 1.5
_DEGREES = 4.0  # of Student's t: residuals beyond twice the noise lose weight
_LEAST_NOISE = 1e-6  # of normalised images, whose standard deviation is about 1: below it a fit is exact


@dataclass(frozen=True)
class Level:
    """One stage from coarse to fine.

    Attributes:
        blur_vox: standard deviation of the Gaussian that template and subjects are smoothed by.
        stride: distance of sampled voxels along each axis.
        steps: Gauss-Newton steps; in the fit of a cohort, epochs.
    """

    blur_vox: float
    stride: int
    steps: int

    @classmethod
    def parse(cls, levels: "LevelList") -> tuple["Level", ...]:
        """Read levels from a configuration, ``[[blur_vox, stride, steps], ...]``; levels are returned as they are.

        Raises:
            RegistrationError: if a level has fewer than three numbers, or one of them is out of range.
        """
        try:
            parsed = tuple(
                level if isinstance(level, Level) else cls(float(level[0]), _whole(level[1]), _whole(level[2]))
                for level in levels
            )
        except (TypeError, ValueError, IndexError) as error:
            raise RegistrationError(
                "levels: expected a list of [blur in voxels, stride in voxels, steps], the last two whole, got "
                f"{levels!r}"
            ) from error
        if not all(0 <= level.blur_vox < math.inf and level.stride >= 1 and level.steps >= 1 for level in parsed):
            raise RegistrationError(
                f"levels: expected each with blur 0 or more, stride and steps 1 or more, got {levels!r}"
            )
        return parsed


def _whole(value: float) -> int:
    if int(value) != value:
        raise ValueError(f"{value} is not a whole number")
    return int(value)


LevelList = Sequence[Level] | Sequence[Sequence[float]]


def total_steps(levels: LevelList, *, before_last: bool = False) -> int:
    """Return the steps of all levels together, or of all but the last: epochs of a fit, and where its end begins."""
    parsed = Level.parse(levels)
    return sum(level.steps for level in (parsed[:-1] if before_last else parsed))


@dataclass(frozen=True)
class Match:
    """Residuals of a batch at sampled voxels, ready for a Gauss-Newton step.

    Attributes:
        residual: warped template minus subject, shape ``(B, X, Y, Z)``.
        gradient: of the template at the place each voxel came from, per voxel, shape ``(B, 3, X, Y, Z)``.
        weight: of each residual in the sum of squares, shape ``(B, X, Y, Z)``.
        noise: standard deviation of the residuals, shape ``(B,)``.
    """

    residual: Tensor
    gradient: Tensor
    weight: Tensor
    noise: Tensor

    def thinned(self, factor: int) -> "Match":
        """Return every ``factor``-th voxel along each axis, weighted to stand for all."""
        if factor == 1:
            return self
        every = slice(None, None, factor)
        picked = (..., every, every, every)
        weight = self.weight[picked] * factor**3
        return Match(self.residual[picked], self.gradient[picked], weight, self.noise)

    def force(self) -> Tensor:
        """Return the derivative of half the weighted sum of squares by the displacement, as ``gradient``."""
        return self.gradient * (self.weight * self.residual)[:, None]

    def curvature(self, change: Tensor) -> Tensor:
        """Apply the Gauss-Newton approximation of the second derivative to a change of displacement."""
        along = (self.gradient * change).sum(dim=1)
        return self.gradient * (self.weight * along)[:, None]

    def stiffness(self) -> Tensor:
        """Return the trace of the curvature divided by 3, shape ``(B,)``: what a preconditioner needs."""
        return (self.gradient.square().sum(dim=1) * self.weight).flatten(1).sum(dim=1) / 3.0


class TemplateMatch(nn.Module):
    """Compare warped copies of one template with subjects.

    Template and subjects are locally normalised (:func:`monai_fair.losses.local_normalize`), which takes out bias
    fields and changes of gain; the sum of squares that is left is local correlation in another form. The template's
    gradient is computed once, so that value and gradient of any number of subjects come from one gather and nothing
    is scattered.

    The sum of squares is weighted to be a negative log-likelihood: divided by the variance of the residuals, which is
    estimated from them (Student's t with 4 degrees of freedom, so that lesions and other outliers lose weight), and
    by the number of voxels that share their noise after smoothing. The weight of a regulariser then needs no tuning
    to noise, contrast or resolution.

    Args:
        template: intensities, shape ``(D, H, W)``.
        mask: where voxels count, the same shape, in [0, 1]; its edge is softened.
        blurs_vox: the smoothing of each level.
        sigma_vox: of the local normalisation.
        epsilon: its floor, as a share of the template's standard deviation inside the mask.
        contrast: ``same`` compares with the template as it is, which bears with bias fields and changes of gain;
            ``any`` asks engines to give it each subject's contrast first, by :meth:`recoloured`.

    Raises:
        RegistrationError: if the mask is empty, the template is constant inside it, or the contrast is unknown.
    """

    templates: Tensor
    mask: Tensor
    even: Tensor

    def __init__(
        self,
        template: Tensor,
        mask: Tensor,
        blurs_vox: Sequence[float],
        *,
        sigma_vox: float = 2.0,
        epsilon: float = 0.3,
        contrast: str = "same",
    ) -> None:
        super().__init__()
        if contrast not in CONTRASTS:
            raise RegistrationError(f"contrast: expected one of {', '.join(CONTRASTS)}, got {contrast!r}; give one")
        inside = template[mask > _HALF]
        if inside.numel() == 0 or not float(inside.std()) > 0:
            raise RegistrationError("template: expected different intensities inside a mask that is not empty")
        self.sigma_vox = sigma_vox
        self.epsilon = epsilon
        self.contrast = contrast
        self.blurs_vox = tuple(float(blur) for blur in blurs_vox)
        soft = gaussian_blur(mask.float()[None, None], _MASK_SOFTNESS_VOX)[0, 0]
        self.register_buffer("mask", soft, persistent=False)
        self._range = float(template.min()), float(inside.max())
        low, high = self._range
        even = torch.stack([template, evenness(template, low=low, high=high)])
        self.register_buffer("even", even, persistent=False)
        levels = [_with_gradient(self.normalised(template[None], level)) for level in range(len(self.blurs_vox))]
        self.register_buffer("templates", torch.cat(levels), persistent=False)

    def settings(self) -> list[float]:
        """Return the numbers that decide what :meth:`normalised` gives, but for the mask."""
        return [self.sigma_vox, self.epsilon, *self.blurs_vox]

    def normalised(self, images: Tensor, level: int) -> Tensor:
        """Return what is compared at one level.

        Args:
            images: shape ``(B, D, H, W)``.
            level: number of the level.
        """
        blurred = gaussian_blur(self.scaled(images)[:, None], self.blurs_vox[level])
        return local_normalize(blurred, sigma_vox=self.sigma_vox, epsilon=self.epsilon)[:, 0]

    def scaled(self, images: Tensor) -> Tensor:
        """Return images ``(B, D, H, W)`` whose standard deviation inside the mask is 1."""
        return images / images[:, self.mask > _HALF].std(dim=1)[:, None, None, None]

    def agreement(self, values: Tensor) -> float:
        """Return the correlation of one image, normalised at level 0, with the template as they lie."""
        template, mask = self.templates[0, 0], self.mask
        lengths = ((mask * template.square()).sum() * (mask * values.square()).sum()).sqrt()
        return float((mask * template * values).sum() / lengths)

    def recoloured(self, displacement: Tensor, images: Tensor, grid: SamplingGrid, level: int) -> Tensor:
        """Return the template in each subject's contrast, for :meth:`forward`, shape ``(B, 4, D, H, W)``.

        Args:
            displacement: where the subjects are thought to lie, in voxels, shape ``(B, 3, X, Y, Z)``.
            images: as they were read, or scaled, shape ``(B, D, H, W)``.
            grid: voxels that the curve of intensities is fitted to.
            level: number of the level.
        """
        low, high = self._range
        warped, certain = _gather(self.even, grid.points() + displacement).unbind(dim=1)
        subjects = images[(..., *grid.slices)].flatten(1)
        weight = (self.mask[grid.slices] * certain).flatten(1)
        curves = intensity_curves(warped.flatten(1), subjects, weight, low=low, high=high)
        colours = recolour(self.even[0], curves, low=low, high=high)
        return _with_gradient(self.normalised(colours, level))

    def forward(
        self, displacement: Tensor, subjects: Tensor, grid: SamplingGrid, level: int, templates: Tensor | None = None
    ) -> Match:
        """Compare the template, displaced, with subjects at the voxels of ``grid``.

        Args:
            displacement: in voxels, shape ``(B, 3, X, Y, Z)``.
            subjects: normalised images at those voxels, shape ``(B, X, Y, Z)``.
            grid: the voxels.
            level: number of the level.
            templates: one for each subject, of :meth:`recoloured`; by default the template as it is.
        """
        points = grid.points() + displacement
        values = _gather(self.templates[level], points) if templates is None else sample(templates, points)
        residual = values[:, 0] - subjects
        mask = self.mask[grid.slices]
        variance = _variance(residual, mask)[:, None, None, None]
        trust = _DEGREES / (_DEGREES + residual.square() / variance)
        sharing = 1.0 + (2.0 * math.sqrt(math.pi) * self.blurs_vox[level]) ** 3
        weight = mask * trust / variance * (grid.stride**3 / sharing)
        return Match(residual, values[:, 1:], weight, variance.sqrt().flatten())


def _with_gradient(images: Tensor) -> Tensor:
    """Stack images ``(B, D, H, W)`` with their derivatives per voxel, shape ``(B, 4, D, H, W)``."""
    return torch.stack([torch.stack([image, *torch.gradient(image)]) for image in images])


def _variance(residual: Tensor, mask: Tensor) -> Tensor:
    """Return the scale of Student's t inside the mask per subject, by two re-weighted means."""
    total = mask.sum()
    variance = ((residual.square() * mask).flatten(1).sum(dim=1) / total).clamp_min(_LEAST_NOISE**2)
    for _ in range(2):
        trust = _DEGREES / (_DEGREES + residual.square() / variance[:, None, None, None])
        variance = ((residual.square() * mask * trust).flatten(1).sum(dim=1) / total).clamp_min(_LEAST_NOISE**2)
    return variance


def _gather(image: Tensor, points: Tensor) -> Tensor:
    """Read one image ``(C, D, H, W)`` at the points of every subject, shape ``(B, 3, X, Y, Z)``."""
    batch = points.shape[0]
    return sample(image.expand(batch, *image.shape), points)
