"""Take out of features what a linear model could read about attributes."""

import torch
from torch import nn

from monai_fair.errors import MonaiFairError, raise_problems

_SMALLEST = 1e-6  # of the largest variance: directions with less hold rounding only
_NONE = 1e-8  # correlation that is none


def least_squares_erasure(
    features: torch.Tensor, sensitive: torch.Tensor, labels: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the least change of features that leaves them no covariance with attributes (LEACE).

    With S the covariance of the features, C that of features and attributes, and ``W = S^(-1/2)``, the new features
    are ``x - W^-1 Q W (x - mean)``, Q the projection onto the columns of ``W C``. No affine function of them predicts
    the attributes better than a constant does, on these rows, and of all affine maps that reach this it moves features
    least, in S's own measure.

    With labels, both covariances are those within the classes. Features and attributes then still go together as far
    as the classes make them, which is less to take out where a disease is more frequent in a group.

    Args:
        features: shape ``(n, d)``.
        sensitive: attributes as columns, shape ``(n, m)``.
        labels: class of each row, shape ``(n,)``.

    Returns:
        ``read`` and ``write``, both of shape ``(d, m)``, and ``mean``, shape ``(d,)``, in float64: the new features are
        ``x - (x - mean) @ read @ write.T``.

    Raises:
        MonaiFairError: if shapes do not fit, a number is not finite, or there are fewer than two rows.

    References:
        Belrose et al., LEACE: Perfect linear concept erasure in closed form, NeurIPS 2023, arXiv:2306.03819,
        theorem 4.2.
    """
    problems = []
    if features.ndim != 2 or sensitive.ndim != 2 or len(features) != len(sensitive) or len(features) < 2:
        problems.append(
            f"expected two rows or more of shapes (n, d) and (n, m), got {tuple(features.shape)} and "
            f"{tuple(sensitive.shape)}; give both of the same samples"
        )
    elif not bool(features.isfinite().all() and sensitive.isfinite().all()):
        problems.append("expected finite features and attributes, got some that are not; leave these rows out")
    elif labels is not None and labels.numel() != len(features):
        problems.append(f"expected a label for each of {len(features)} rows, got {labels.numel()}")
    raise_problems(MonaiFairError, "least_squares_erasure", problems)
    x, z = features.detach().double(), sensitive.detach().double()
    mean = x.mean(dim=0)
    classes = [slice(None)] if labels is None else [labels.reshape(-1) == label for label in torch.unique(labels)]
    inside, beside = torch.empty_like(x), torch.empty_like(z)
    for rows in classes:
        inside[rows], beside[rows] = x[rows] - x[rows].mean(dim=0), z[rows] - z[rows].mean(dim=0)
    variance, axes = torch.linalg.eigh(inside.T @ inside / len(x))
    kept = variance > _SMALLEST * variance.max()
    root, axes = variance[kept].clamp(min=0).sqrt(), axes[:, kept]
    white = (axes / root) @ axes.T  # S^(-1/2) in the directions that there are
    left, correlation, _ = torch.linalg.svd(white @ (inside.T @ beside / len(x)), full_matrices=False)
    # an attribute that others determine, such as the second of two levels, adds no direction, nor does rounding
    left = left * (correlation > _NONE * beside.square().mean(dim=0).max().sqrt())
    own = nn.functional.pad(left, (0, z.shape[1] - left.shape[1]))
    return white @ own, (axes * root) @ axes.T @ own, mean


class LinearErasure(nn.Module):
    """A place in a network where a linear erasure acts; until it is fitted, features pass unchanged.

    Args:
        channels: d, of features ``(B, d)`` or of a map ``(B, d, *spatial)``, every place of which is changed alike, so
            that the mean over places is free of the attributes.
        rank: m, columns that the attributes take.

    Attributes:
        read: see :func:`least_squares_erasure`; a buffer, as the next two.
        write: see there.
        mean: see there.
    """

    read: torch.Tensor
    write: torch.Tensor
    mean: torch.Tensor

    def __init__(self, channels: int, rank: int) -> None:
        super().__init__()
        self.register_buffer("read", torch.zeros(channels, rank))
        self.register_buffer("write", torch.zeros(channels, rank))
        self.register_buffer("mean", torch.zeros(channels))

    def fit(self, features: torch.Tensor, sensitive: torch.Tensor, labels: torch.Tensor | None = None) -> None:
        """Take the erasure of :func:`least_squares_erasure`, whose arguments these are."""
        if features.ndim != 2 or sensitive.ndim != 2 or (features.shape[1], sensitive.shape[1]) != self.read.shape:
            raise MonaiFairError(
                f"LinearErasure: expected features of {self.read.shape[0]} channels and attributes of "
                f"{self.read.shape[1]} columns, got shapes {tuple(features.shape)} and {tuple(sensitive.shape)}"
            )
        for buffer, value in zip((self.read, self.write, self.mean),
                                 least_squares_erasure(features, sensitive, labels), strict=True):  # fmt: skip
            buffer.copy_(value)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return features of the same shape."""
        rows = features.flatten(2) if features.ndim > 2 else features[:, :, None]
        told = self.read.T @ (rows - self.mean[:, None])
        return features - (self.write @ told).reshape(features.shape)


class ErasedEncoder(nn.Module):
    """An encoder whose feature map goes through a :class:`LinearErasure`.

    Args:
        encoder: takes images to a map ``(B, C, *spatial)``.
        channels: C.
        rank: columns that the attributes take.
    """

    def __init__(self, encoder: nn.Module, *, channels: int, rank: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.erasure = LinearErasure(channels, rank)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the map."""
        features: torch.Tensor = self.erasure(self.encoder(images))
        return features
