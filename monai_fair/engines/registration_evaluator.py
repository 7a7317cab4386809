"""Register new subjects batch by batch: a MONAI evaluator around :class:`SubjectFit`."""

import logging
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from ignite.engine import Engine
from ignite.metrics import Metric
from ignite.metrics.metric import reinit__is_reduced, sync_all_reduce
from monai.engines import Evaluator
from torch import Tensor
from torch.utils.data import DataLoader

from monai_fair.engines.subject_fit import SubjectFit
from monai_fair.engines.subject_images import collate_subjects
from monai_fair.errors import RegistrationError
from monai_fair.networks import DeformationINR

logger = logging.getLogger(__name__)


class RegistrationEvaluator(Evaluator):
    """Register every batch of :func:`collate_subjects`; handlers save what is found.

    An iteration's output has ``rows`` and ``failed`` of the batch, ``image``, ``pred`` (a
    :class:`~monai_fair.engines.subject_fit.Deformations`, or ``None`` when no image could be read) and ``seconds`` per
    subject, from the image in memory to codes and residual. A subject that cannot be read, or whose fit diverges, is
    logged as a warning with the reason: once, however many epochs it is asked for.

    Of several processes one may have no subjects at all; it still takes part in what all of them sum up.

    Args:
        device: where to compute.
        val_data_loader: batches of subjects.
        network: maps codes to deformations.
        inferer: the fit.
        key_val_metric: a metric for early stopping and the choice of the best epoch, such as :class:`FitQuality`.
        val_handlers: handlers to attach.
    """

    def __init__(
        self,
        device: torch.device | str,
        val_data_loader: DataLoader[Any],
        network: DeformationINR,
        inferer: SubjectFit,
        *,
        key_val_metric: dict[str, Metric] | None = None,
        val_handlers: Sequence[Any] | None = None,
    ) -> None:
        super().__init__(
            device=device,
            # MONAI skips an empty loader, and the other processes would wait for this one for ever
            val_data_loader=val_data_loader if len(val_data_loader) else [collate_subjects([])],
            key_val_metric=key_val_metric,
            val_handlers=val_handlers,
        )
        self.network = network
        self.inferer = inferer
        self._told: set[tuple[str, str]] = set()

    def _iteration(self, engine: Engine, batchdata: dict[str, Any]) -> dict[str, Any]:
        for row in batchdata["failed"]:
            self._tell(row, row["reason"])
        if batchdata["image"] is None:
            return {**batchdata, "pred": None, "seconds": float("nan")}
        image = batchdata["image"].to(self.state.device)
        start = time.perf_counter()
        found = self.inferer(image, self.network)
        # the clock needs the result, and what comes next needs it on the host anyway
        noise = found.noise.tolist()
        seconds = (time.perf_counter() - start) / len(image)
        for row, value in zip(batchdata["rows"], noise, strict=True):
            if not math.isfinite(value):
                reason = f"expected a finite noise, got {value}: the fit diverged; look at the image"
                self._tell(row, f"{row['path']}: {reason}")
        return {**batchdata, "image": image, "pred": found, "seconds": seconds}

    def _tell(self, row: Mapping[str, Any], reason: str) -> None:
        """Log why a subject has no result, the first time that this is so."""
        subject = str(row["subject_id"])
        if (subject, reason) not in self._told:
            self._told.add((subject, reason))
            logger.warning("subject %s is left out: %s", subject, reason)


class FitQuality(Metric):
    """Minus the mean noise that registration leaves between template and subject; 0 is a perfect fit.

    Subjects that cannot be read, or whose fit diverges, do not count.

    Raises:
        RegistrationError: by ``compute``, in every process, if no subject of any process is left.
    """

    def __init__(self) -> None:
        super().__init__(output_transform=_noise_of)

    @reinit__is_reduced  # type: ignore[untyped-decorator]
    def reset(self) -> None:
        """Forget all subjects."""
        self._sum = torch.zeros((), dtype=torch.float64)
        self._count = torch.zeros((), dtype=torch.float64)
        self._total = torch.zeros((), dtype=torch.float64)

    @reinit__is_reduced  # type: ignore[untyped-decorator]
    def update(self, output: Tensor) -> None:
        """Take in the noise of a batch's subjects, shape ``(B,)``; what is not finite stands for no result."""
        noise = output.detach().double().cpu()
        finite = noise[noise.isfinite()]
        self._sum += finite.sum()
        self._count += len(finite)
        self._total += len(noise)

    @sync_all_reduce("_sum", "_count", "_total")  # type: ignore[untyped-decorator]
    def compute(self) -> float:
        """Return the metric."""
        if not self._count:
            raise RegistrationError(
                f"validation: expected at least one subject that can be registered, got none of {int(self._total)}; "
                "the log warns of each with its reason: repair the images, or give the split val to other subjects"
            )
        return float(-self._sum / self._count)


def _noise_of(output: dict[str, Any]) -> Tensor:
    nothing = torch.full((len(output["failed"]),), torch.nan)
    found = output["pred"]
    return nothing if found is None else torch.cat([found.noise.cpu(), nothing])
