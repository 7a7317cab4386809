"""Similarity of images: locally normalised differences, correlation and mutual information, over voxels or points.

Which one fits: the same contrast with a bias field, :func:`local_normalized_mse` (cheapest: both images are normalised
once, and compared at any points by plain MSE) or :class:`LocalCorrelationLoss`; the same contrast, few random points,
:func:`normalized_correlation`; another contrast, also an inverted one, :func:`mutual_information`.
"""

from collections.abc import Sequence

import torch
from monai.losses import GlobalMutualInformationLoss, LocalNormalizedCrossCorrelationLoss
from torch import Tensor, nn
from torch.nn import functional

from monai_fair.errors import MonaiFairError, raise_problems

_TAIL = 4.0  # standard deviations at which the Gaussian is cut off, as in scipy.ndimage


def gaussian_blur(image: Tensor, sigma_vox: float | Sequence[float]) -> Tensor:
    """Blur with a Gaussian along each axis; the image's edge is repeated outwards.

    Each axis is one product with a banded matrix, which leaves the work to BLAS: on CPU 3 times faster than separable
    convolutions (``monai.networks.layers.GaussianFilter``, which also takes the outside as 0) for a sigma of 1 voxel
    and some 50 times for 4, because its cost does not grow with sigma.

    Args:
        image: shape ``(B, C, D, H, W)``.
        sigma_vox: standard deviation in voxels, at least 0: one, or one per axis. 0 leaves an axis as it is.

    Returns:
        The same shape, equal to ``scipy.ndimage.gaussian_filter(mode="nearest")``.

    Raises:
        MonaiFairError: if the image has not five axes, or a sigma is negative or not finite.
    """
    sigmas = [float(sigma_vox)] * 3 if isinstance(sigma_vox, (int, float)) else [float(sigma) for sigma in sigma_vox]
    problems = []
    if image.dim() != 5:
        problems.append(f"expected an image of shape (B, C, D, H, W), got {tuple(image.shape)}; add the missing axes")
    if len(sigmas) != 3 or not all(0 <= sigma < float("inf") for sigma in sigmas):
        problems.append(
            f"expected sigma_vox to be one or three finite numbers of at least 0, got {sigma_vox}; correct it"
        )
    raise_problems(MonaiFairError, "gaussian_blur", problems)
    depth, height, width = (_blur_matrix(image, axis + 2, sigma) for axis, sigma in enumerate(sigmas))
    if width is not None:
        image = image @ width.T
    if height is not None:
        image = height @ image
    if depth is not None:
        image = (depth @ image.flatten(3)).view_as(image)
    return image


def local_normalize(image: Tensor, *, sigma_vox: float | Sequence[float], epsilon: float = 1e-2) -> Tensor:
    """Return ``(I - G I) / sqrt(G (I - G I)^2 + epsilon^2)`` with the Gaussian blur ``G``.

    The result ignores an offset exactly, a smooth additive field and a gain or smooth multiplicative field (such as a
    bias field) nearly, and changes its sign with inverted contrast. It is about -3 to 3, with a local variance of 1
    where the image varies by more than ``epsilon``, and near 0 where it varies by less.

    Args:
        image: shape ``(B, C, D, H, W)``.
        sigma_vox: of the blur: larger than the structures to be matched, smaller than the bias field's.
        epsilon: what counts as noise, in the unit of the image, above 0.

    Raises:
        MonaiFairError: if shape, ``sigma_vox`` or ``epsilon`` do not fit.

    References:
        Jarrett et al., What is the best multi-stage architecture for object recognition?, ICCV 2009 (local contrast
        normalization).
    """
    if not 0 < epsilon < float("inf"):
        raise MonaiFairError(f"local_normalize: expected epsilon to be finite and above 0, got {epsilon}; correct it")
    # of the difference, not E[I^2] - E[I]^2, which loses float32 digits to the offset and can be negative
    difference = image - gaussian_blur(image, sigma_vox)
    variance = gaussian_blur(difference.square(), sigma_vox)
    return difference / torch.sqrt(variance + epsilon**2)


def local_normalized_mse(
    pred: Tensor,
    target: Tensor,
    *,
    sigma_vox: float | Sequence[float],
    epsilon: float = 1e-2,
    mask: Tensor | None = None,
) -> Tensor:
    """Return the mean squared difference of two images after :func:`local_normalize`: 0 if alike, about 2 if unrelated.

    Args:
        pred: shape ``(B, C, D, H, W)``.
        target: the same shape.
        sigma_vox: of the normalisation.
        epsilon: of the normalisation.
        mask: weights that broadcast to the images; voxels of weight 0 do not count. NaN if all are 0.

    Raises:
        MonaiFairError: if shapes or options do not fit.
    """
    _check_pair("local_normalized_mse", pred, target, mask)
    first = local_normalize(pred, sigma_vox=sigma_vox, epsilon=epsilon)
    second = local_normalize(target, sigma_vox=sigma_vox, epsilon=epsilon)
    return _weighted_mean((first - second).square(), mask)


def normalized_correlation(pred: Tensor, target: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Return Pearson's correlation of two images or of values at points, per sample.

    Exactly 1 for images that are equal up to gain and offset, also for few points (IDIR's code reaches (n - 1) / n),
    and -1 for inverted contrast. An image without contrast gives 0 and no gradient.

    Args:
        pred: shape ``(B, ...)``.
        target: the same shape.
        mask: weights of at least 0 that broadcast to the images. NaN for a sample in which all are 0.

    Returns:
        Correlations in [-1, 1], shape ``(B,)``.

    Raises:
        MonaiFairError: if the shapes do not fit.
    """
    _check_pair("normalized_correlation", pred, target, mask)
    weight = (torch.ones_like(pred) if mask is None else mask.to(pred.dtype).expand_as(pred)).flatten(1)
    share = weight / weight.sum(dim=1, keepdim=True)

    def standardized(image: Tensor) -> Tensor:
        values = image.flatten(1)
        centred = (values - (share * values).sum(dim=1, keepdim=True)) * share.sqrt()
        variance = centred.square().sum(dim=1, keepdim=True)
        # what rounding leaves of a constant is no contrast, and its correlation would have gradients of 1e7
        rounding = (8 * torch.finfo(values.dtype).eps) ** 2 * (share * values.square()).sum(dim=1, keepdim=True)
        return centred * torch.where(variance <= rounding, torch.inf, variance).rsqrt()

    return (standardized(pred) * standardized(target)).sum(dim=1)


def mutual_information(pred: Tensor, target: Tensor, *, mask: Tensor | None = None, num_bins: int = 32) -> Tensor:
    """Return the mutual information of two images or of values at points, per sample, in nats.

    It asks only that one intensity tells the other, so it serves other contrasts: inverting an image changes nothing,
    a monotone remap little (the bins are of equal width). The estimate is that of
    ``monai.losses.GlobalMutualInformationLoss`` (Gaussian windows), which takes everything outside [0, 1] as 0 or 1;
    here each image is first scaled to [0, 1] by its smallest and largest value inside the mask.

    Args:
        pred: shape ``(B, ...)``. Memory is ``2 * num_bins`` times its size: use points, not whole volumes, in a loop.
        target: the same shape.
        mask: broadcasts to the images; values where it is 0 do not count.
        num_bins: bins of intensity, at least 2.

    Returns:
        Shape ``(B,)``, at least 0 up to rounding; 0 for an image without contrast.

    Raises:
        MonaiFairError: if the shapes do not fit, a sample's mask is empty, or there are too few bins.
    """
    _check_pair("mutual_information", pred, target, mask)
    if num_bins < 2:
        raise MonaiFairError(f"mutual_information: expected num_bins to be at least 2, got {num_bins}; raise it")
    estimate = GlobalMutualInformationLoss(num_bins=num_bins, reduction="none").to(pred.device)
    values = []
    for sample in range(len(pred)):
        pair = [image[sample].flatten() for image in (pred, target)]
        if mask is not None:
            inside = mask.expand_as(pred)[sample].flatten() > 0
            pair = [image[inside] for image in pair]
        if not pair[0].numel():
            raise MonaiFairError(
                f"mutual_information: sample {sample}: expected values where the mask is above 0, got none; "
                "correct the mask or leave the sample out"
            )
        values.append(-estimate(*(_to_unit(image)[None] for image in pair)))
    return torch.cat(values)


class LocalNormalizedMSELoss(nn.Module):
    """:func:`local_normalized_mse` with fixed options."""

    def __init__(self, *, sigma_vox: float | Sequence[float], epsilon: float = 1e-2) -> None:
        super().__init__()
        self.sigma_vox, self.epsilon = sigma_vox, epsilon

    def forward(self, pred: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the loss, a scalar; arguments as in the function."""
        return local_normalized_mse(pred, target, sigma_vox=self.sigma_vox, epsilon=self.epsilon, mask=mask)


class LocalCorrelationLoss(nn.Module):
    """Minus the mean squared local correlation, ``monai.losses.LocalNormalizedCrossCorrelationLoss`` inside a mask.

    From -1 (alike) to 0. The square does not tell inverted contrast. ``monai.losses.MaskedLoss`` around MONAI's loss
    would set the images to 0 outside the mask, and MONAI's windows take 0 beyond the image: both edges would count as
    structure. Here the windows see the whole images with their edges repeated, and the mask chooses the windows.

    Args:
        kernel_size: width of the window in voxels, odd.
        kernel_type: ``rectangular``, ``triangular`` or ``gaussian``.
    """

    def __init__(self, *, kernel_size: int = 9, kernel_type: str = "rectangular") -> None:
        super().__init__()
        self.correlation = LocalNormalizedCrossCorrelationLoss(
            spatial_dims=3, kernel_size=kernel_size, kernel_type=kernel_type, reduction="none"
        )

    def forward(self, pred: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the loss of images ``(B, 1, D, H, W)``, a scalar; a mask broadcasts to them."""
        _check_pair("LocalCorrelationLoss", pred, target, mask)
        margin = self.correlation.kernel_size // 2
        padded = [functional.pad(image, [margin] * 6, mode="replicate") for image in (pred, target)]
        inside = [slice(margin, margin + size) for size in pred.shape[2:]]
        return _weighted_mean(self.correlation(*padded)[:, :, inside[0], inside[1], inside[2]], mask)


class CorrelationLoss(nn.Module):
    """``1 - `` :func:`normalized_correlation`, averaged over samples: 0 if alike, 2 for inverted contrast."""

    def forward(self, pred: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the loss of images or values at points ``(B, ...)``, a scalar."""
        return 1 - normalized_correlation(pred, target, mask=mask).mean()


class MutualInformationLoss(nn.Module):
    """Minus :func:`mutual_information`, averaged over samples."""

    def __init__(self, *, num_bins: int = 32) -> None:
        super().__init__()
        self.num_bins = num_bins

    def forward(self, pred: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the loss of images or values at points ``(B, ...)``, a scalar in nats."""
        return -mutual_information(pred, target, mask=mask, num_bins=self.num_bins).mean()


def _blur_matrix(image: Tensor, axis: int, sigma: float) -> Tensor | None:
    """Return the matrix of a blur along one axis, shape ``(n, n)``, float64 rounded to the image's type."""
    size = image.shape[axis]
    if sigma == 0 or size == 1:
        return None
    radius = int(_TAIL * sigma + 0.5)
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64, device=image.device)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    # its columns are the blurred unit vectors
    units = torch.eye(size, dtype=torch.float64, device=image.device)[:, None]
    padded = functional.pad(units, (radius, radius), mode="replicate")
    matrix = functional.conv1d(padded, (kernel / kernel.sum())[None, None])[:, 0].T
    return matrix.to(image.dtype).contiguous()


def _to_unit(values: Tensor) -> Tensor:
    """Scale to [0, 1]; no gradient flows through the ends, which are single voxels."""
    low, high = values.detach().aminmax()
    return (values - low) / (high - low).clamp_min(torch.finfo(values.dtype).tiny)


def _weighted_mean(values: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return values.mean()
    weight = mask.to(values.dtype).expand_as(values)
    return (values * weight).sum() / weight.sum()


def _check_pair(source: str, pred: Tensor, target: Tensor, mask: Tensor | None) -> None:
    problems = []
    if pred.shape != target.shape:
        problems.append(
            f"expected two images of one shape, got {tuple(pred.shape)} and {tuple(target.shape)}; "
            "bring them to one grid"
        )
    if mask is not None and not _broadcasts(mask, pred):
        problems.append(
            f"expected a mask that broadcasts to {tuple(pred.shape)}, got {tuple(mask.shape)}; give it the same axes"
        )
    raise_problems(MonaiFairError, source, problems)


def _broadcasts(mask: Tensor, image: Tensor) -> bool:
    sizes = zip(mask.shape, image.shape, strict=False)
    return mask.dim() == image.dim() and all(own in (1, size) for own, size in sizes)
