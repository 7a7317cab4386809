"""Keep a disease embedding apart from a sensitive one: no part in its directions, no covariance with it.

References:
    Deng, Zhong, Dou, Li, On fairness of medical image classification with multiple sensitive attributes via learning
    orthogonal representations, IPMI 2023, arXiv:2301.01481.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from monai_fair.errors import MonaiFairError, raise_problems
from monai_fair.losses.process_sums import in_process_group, sum_over_processes


class ColumnOrthogonality(nn.Module):
    """Column-space loss: the mean energy of embeddings in a sensitive space.

    ``L = max(0, ||Z U||_F^2 - margin) / n``, Z the embeddings, U an orthonormal basis of
    :func:`~monai_fair.losses.sensitive_basis`. With one basis per class the loss is that of every class's samples with
    its own basis, averaged over the classes in the batch; a class without samples does not count.

    Everything is computed in float32 at least, whatever autocast says. Over several processes the samples are those of
    all of them.

    Args:
        bases: a basis, shape ``(d, r)``, or one for every class, in the order of the class indices; ranks may differ.
        margin: energy, over all samples, that costs nothing; at least 0.
        distributed: add the sums over all processes; ``None`` does so when torch.distributed runs with more than one.

    Attributes:
        bases: shape ``(K, d, r)``, ranks filled up with zeros, which have no energy. A buffer.

    Raises:
        MonaiFairError: if there is no basis, shapes do not fit, or the margin is negative.

    Example:
        >>> import torch
        >>> ColumnOrthogonality(torch.tensor([[1.0], [0.0]]))(torch.tensor([[1.0, 5.0], [2.0, 0.0]]))
        tensor(2.5000)
    """

    bases: torch.Tensor

    def __init__(
        self, bases: torch.Tensor | Sequence[torch.Tensor], *, margin: float = 0.0, distributed: bool | None = None
    ) -> None:
        super().__init__()
        own = [bases] if isinstance(bases, torch.Tensor) else list(bases)
        raise_problems(MonaiFairError, "ColumnOrthogonality", _basis_problems(own) + _margin_problems(margin))
        rank = max(basis.shape[1] for basis in own)
        self.margin, self.distributed = margin, distributed
        self.register_buffer("bases", torch.stack([functional.pad(b, (0, rank - b.shape[1])) for b in own]))

    def forward(self, embeddings: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        """Return the loss of a batch.

        Args:
            embeddings: Z, shape ``(n, d)``.
            labels: class indices, shape ``(n,)`` or ``(n, 1)``; needed for, and only for, more than one basis.

        Returns:
            A scalar tensor, float32 or float64.

        Raises:
            MonaiFairError: if shapes do not fit, or labels are missing or none of the classes. Labels on an accelerator
                are not looked at, which would wait for it: of another class, they do not count.
        """
        source, classes = "ColumnOrthogonality", len(self.bases)
        if embeddings.ndim != 2 or embeddings.shape[1] != self.bases.shape[1]:
            raise MonaiFairError(
                f"{source}: expected embeddings of shape (n, {self.bases.shape[1]}), got {tuple(embeddings.shape)}; "
                "take the layer the basis was made for"
            )
        if self.bases.device != embeddings.device:
            self.bases = self.bases.to(embeddings.device)
        with torch.autocast(embeddings.device.type, enabled=False):
            z = _plain(embeddings)
            members = _members(source, labels, z, classes)
            energy = (z @ self.bases.to(z.dtype)).square().sum(dim=2)  # (K, n)
            sums = torch.stack([(members * energy).sum(dim=1), members.sum(dim=1)])
            if _over_processes(self.distributed):
                sums = sum_over_processes(sums)
            total, count = sums[0], sums[1].detach()
            return _mean_of_present(functional.relu(total - self.margin) / count.clamp(min=1), count)

    def extra_repr(self) -> str:
        """Return the options for ``print``."""
        classes, width, rank = self.bases.shape
        return f"classes={classes}, d={width}, rank={rank}, margin={self.margin}"


class RowOrthogonality(nn.Module):
    """Row-space loss: the cross-covariance between two embeddings.

    With ``C = (Z - mean Z)^T (Z_A - mean Z_A)``, ``L = max(0, ||C||_F^2 - margin) / (d d_A)``; in the paper both widths
    are the same. C is a sum over samples, so the loss grows with the square of the batch size, and its weight means
    something else with another one; ``per_sample`` divides C by n. By class, every class has its own means and C, and
    the losses of the classes in the batch are averaged; a class without samples does not count, one with a single
    sample costs nothing.

    Everything is computed in float32 at least, whatever autocast says. Over several processes the samples are those of
    all of them.

    Args:
        num_classes: number of classes of the class-conditional loss; ``None`` takes all samples together.
        margin: squared norm of C that costs nothing; at least 0.
        per_sample: divide C by the number of samples.
        detach: let no gradient pass to the sensitive embeddings, whose model is finished.
        distributed: add the sums over all processes; ``None`` does so when torch.distributed runs with more than one.

    Raises:
        MonaiFairError: if an option is out of range.

    Example:
        >>> import torch
        >>> z, sensitive = torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [4.0]])
        >>> RowOrthogonality()(z, sensitive)  # C = (-1)(-1.5) + 1 * 1.5 = 3
        tensor(9.)
    """

    def __init__(
        self,
        *,
        num_classes: int | None = None,
        margin: float = 0.0,
        per_sample: bool = False,
        detach: bool = True,
        distributed: bool | None = None,
    ) -> None:
        super().__init__()
        problems = _margin_problems(margin)
        if num_classes is not None and num_classes < 1:
            problems.append(f"expected num_classes of at least 1, or None, got {num_classes}; correct 'num_classes'")
        raise_problems(MonaiFairError, "RowOrthogonality", problems)
        self.num_classes, self.margin, self.per_sample = num_classes, margin, per_sample
        self.detach, self.distributed = detach, distributed

    def forward(
        self, embeddings: torch.Tensor, sensitive: torch.Tensor, labels: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the loss of a batch.

        Args:
            embeddings: Z, shape ``(n, d)``.
            sensitive: Z_A of the same samples, shape ``(n, d_A)``.
            labels: class indices, shape ``(n,)`` or ``(n, 1)``; needed for, and only for, the loss by class.

        Returns:
            A scalar tensor, float32 or float64.

        Raises:
            MonaiFairError: as of :meth:`ColumnOrthogonality.forward`.
        """
        source = "RowOrthogonality"
        if embeddings.ndim != 2 or sensitive.ndim != 2 or len(embeddings) != len(sensitive):
            raise MonaiFairError(
                f"{source}: expected embeddings of shapes (n, d) and (n, d_A), got {tuple(embeddings.shape)} and "
                f"{tuple(sensitive.shape)}; give both of the same samples"
            )
        with torch.autocast(embeddings.device.type, enabled=False):
            z, a = _plain(embeddings), _plain(sensitive.detach() if self.detach else sensitive)
            dtype = torch.promote_types(z.dtype, a.dtype)
            z, a = z.to(dtype), a.to(dtype)
            members = _members(source, labels, z, self.num_classes or 1)
            cross, count = self._cross(z, a, members)
            if self.per_sample:
                cross = cross / count.clamp(min=1)[:, None, None]
            norms = cross.square().sum(dim=(1, 2))
            return _mean_of_present(functional.relu(norms - self.margin) / (z.shape[1] * a.shape[1]), count)

    def _cross(self, z: torch.Tensor, a: torch.Tensor, members: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return C of every class, shape ``(K, d, d_A)``, and its number of samples."""
        everywhere = _over_processes(self.distributed)
        both = torch.cat([z, a, torch.ones_like(z[:, :1])], dim=1)
        sums = members @ both
        if everywhere:
            sums = sum_over_processes(sums)
        count = sums[:, -1].detach()
        # centred before the product: sums of squares of large means would leave nothing of a small covariance
        apart = both[:, :-1] - members.T @ (sums[:, :-1] / count.clamp(min=1)[:, None])
        width = z.shape[1]
        cross = (members[:, :, None] * apart[:, :width]).transpose(1, 2) @ apart[:, width:]
        return (sum_over_processes(cross) if everywhere else cross), count

    def extra_repr(self) -> str:
        """Return the options for ``print``."""
        return f"num_classes={self.num_classes}, margin={self.margin}, per_sample={self.per_sample}"


def _plain(embeddings: torch.Tensor) -> torch.Tensor:
    values = embeddings.as_subclass(torch.Tensor)
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _members(source: str, labels: torch.Tensor | None, z: torch.Tensor, classes: int) -> torch.Tensor:
    """Return 1 where a sample is of a class, shape ``(K, n)``: no choice of rows, which would wait for the device."""
    if classes == 1:
        return torch.ones_like(z[:, 0])[None]
    if labels is None or labels.numel() != len(z):
        got = "none" if labels is None else f"shape {tuple(labels.shape)}"
        raise MonaiFairError(f"{source}: expected a label for each of {len(z)} samples, got {got}; give 'labels'")
    own = labels.as_subclass(torch.Tensor).reshape(-1)
    members = own[None] == torch.arange(classes, device=own.device)[:, None]
    if own.device.type == "cpu" and not bool(members.any(dim=0).all()):
        strange = own[~members.any(dim=0)][0].item()
        raise MonaiFairError(
            f"{source}: expected class indices from 0 to {classes - 1}, got {strange}; correct the labels"
        )
    return members.to(z.dtype)


def _mean_of_present(values: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    present = (count > 0).to(values.dtype)
    return (values * present).sum() / present.sum().clamp(min=1)


def _over_processes(distributed: bool | None) -> bool:
    return in_process_group() if distributed is None else distributed


def _basis_problems(bases: Sequence[torch.Tensor]) -> list[str]:
    if not bases:
        return ["expected at least one basis, got none; make one by sensitive_basis"]
    shapes = ", ".join(str(tuple(basis.shape)) for basis in bases)
    if any(basis.ndim != 2 or basis.shape[0] != bases[0].shape[0] for basis in bases):
        return [f"expected bases of shape (d, r) with one d, got {shapes}; make them by sensitive_basis"]
    return []


def _margin_problems(margin: float) -> list[str]:
    return [] if margin >= 0 else [f"expected a margin of at least 0, got {margin}; correct 'margin'"]
