"""Register new subjects batch by batch: a MONAI evaluator around :class:`SubjectFit`."""

import time
from collections.abc import Sequence
from typing import Any

import torch
from ignite.engine import Engine
from ignite.metrics import Metric
from ignite.metrics.metric import reinit__is_reduced, sync_all_reduce
from monai.engines import Evaluator
from torch import Tensor
from torch.utils.data import DataLoader

from monai_fair.engines.subject_fit import SubjectFit
from monai_fair.networks import DeformationINR


class RegistrationEvaluator(Evaluator):
    """Register every batch of :func:`collate_subjects`; handlers save what is found.

    An iteration's output has ``rows`` and ``failed`` of the batch, ``image``, ``pred`` (a
    :class:`~monai_fair.engines.subject_fit.Deformations`, or ``None`` when no image could be read) and ``seconds`` per
    subject, from the image in memory to codes and residual.

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
            val_data_loader=val_data_loader,
            key_val_metric=key_val_metric,
            val_handlers=val_handlers,
        )
        self.network = network
        self.inferer = inferer

    def _iteration(self, engine: Engine, batchdata: dict[str, Any]) -> dict[str, Any]:
        if batchdata["image"] is None:
            return {**batchdata, "pred": None, "seconds": float("nan")}
        image = batchdata["image"].to(self.state.device)
        start = time.perf_counter()
        found = self.inferer(image, self.network)
        # the clock needs the result, and what comes next needs it on the host anyway
        found.noise.tolist()
        seconds = (time.perf_counter() - start) / len(image)
        return {**batchdata, "image": image, "pred": found, "seconds": seconds}


class FitQuality(Metric):
    """Minus the mean noise that registration leaves between template and subject; 0 is a perfect fit.

    Subjects that cannot be read do not count. NaN if there is none left.
    """

    def __init__(self) -> None:
        super().__init__(output_transform=_noise_of)

    @reinit__is_reduced  # type: ignore[untyped-decorator]
    def reset(self) -> None:
        """Forget all subjects."""
        self._sum = torch.zeros((), dtype=torch.float64)
        self._count = torch.zeros((), dtype=torch.float64)

    @reinit__is_reduced  # type: ignore[untyped-decorator]
    def update(self, output: Tensor) -> None:
        """Take in the noise of a batch's subjects, shape ``(B,)``."""
        self._sum += output.double().sum().cpu()
        self._count += len(output)

    @sync_all_reduce("_sum", "_count")  # type: ignore[untyped-decorator]
    def compute(self) -> float:
        """Return the metric."""
        return float(-self._sum / self._count)


def _noise_of(output: dict[str, Any]) -> Tensor:
    found = output["pred"]
    return torch.zeros(0) if found is None else found.noise
