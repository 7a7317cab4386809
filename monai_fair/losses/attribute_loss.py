"""How well a model guesses attributes, of which some may be missing."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from monai_fair.data.attribute_coding import output_widths
from monai_fair.errors import MonaiFairError


class AttributeLoss(nn.Module):
    """Mean over attributes of the loss of guessing each.

    Binary cross-entropy with logits for two levels, cross-entropy for more, squared error for a continuous attribute;
    each is the mean over the samples in which the attribute is known. An attribute that is missing in the whole batch
    does not count. Everything is computed in float32 at least.

    Args:
        levels: number of levels of every attribute, or 0 for a continuous one.

    Raises:
        MonaiFairError: if there is no attribute.

    Example:
        >>> import torch
        >>> AttributeLoss([2, 2])(torch.zeros(4, 2), torch.tensor([[0.0, 1], [1, 1], [1, torch.nan], [0, 0]]))
        tensor(0.6931)
    """

    def __init__(self, levels: Sequence[int]) -> None:
        super().__init__()
        if not levels:
            raise MonaiFairError("AttributeLoss: expected at least one attribute, got none")
        self.levels = tuple(int(count) for count in levels)

    def forward(self, y_pred: torch.Tensor, attributes: torch.Tensor) -> torch.Tensor:
        """Return the loss of a batch, a scalar; 0 where no attribute is known.

        Args:
            y_pred: for every attribute one logit or number, or as many logits as it has levels if these are more than
                two, shape ``(B, outputs)``.
            attributes: indices of levels, or numbers, shape ``(B, A)``; NaN where one is missing.

        Raises:
            MonaiFairError: if shapes do not fit.
        """
        guesses, known = y_pred.as_subclass(torch.Tensor), attributes.as_subclass(torch.Tensor)
        widths = output_widths(self.levels)
        wanted = (len(known), sum(widths)), (len(known), len(widths))
        if (tuple(guesses.shape), tuple(known.shape)) != wanted:
            raise MonaiFairError(
                f"AttributeLoss: expected y_pred of shape (B, {sum(widths)}) and attributes of shape (B, "
                f"{len(widths)}), got {tuple(guesses.shape)} and {tuple(known.shape)}; correct 'levels'"
            )
        with torch.autocast(guesses.device.type, enabled=False):
            dtype = torch.promote_types(guesses.dtype, torch.float32)
            parts = torch.split(guesses.to(dtype), widths, dim=1)
            values = [_mean_of_known(*pair) for pair in zip(parts, known.to(dtype).T, self.levels, strict=True)]
        losses, present = (torch.stack(own) for own in zip(*values, strict=True))
        return losses.sum() / present.sum().clamp(min=1)


def _mean_of_known(guess: torch.Tensor, values: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean loss of an attribute, 0 if it is nowhere known, and 1 or 0 for that."""
    unknown = values.isnan()
    target = torch.where(unknown, torch.zeros_like(values), values)
    if count > 2:
        each = functional.cross_entropy(guess, target.long(), reduction="none")
    elif count == 2:
        each = functional.binary_cross_entropy_with_logits(guess[:, 0], target, reduction="none")
    else:
        each = (guess[:, 0] - target).square()
    number = (~unknown).sum()
    kept = torch.where(unknown, torch.zeros_like(each), each).sum()
    return kept / number.clamp(min=1), (number > 0).to(each.dtype)
