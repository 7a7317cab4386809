"""What a fit leaves behind: the network, the codes that go with it, and the subjects that were left out."""

import dataclasses
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import pandas as pd
import torch
from ignite.engine import Engine, Events

from monai_fair.data.artifacts import atomic_path, sha256, write_json
from monai_fair.engines.code_table import CodeTable
from monai_fair.engines.cohort_images import Failure
from monai_fair.networks import unwrapped


class CohortSaver:
    """Write network and codes together when a fit ends: codes mean nothing without the network they were fitted with.

    Beside ``path`` stand ``codes.safetensors``, whose header names the network by its hash, and ``failures.csv`` when
    subjects were left out.

    Args:
        path: of the network, such as ``model.pt``; a plain state dict.
        network: possibly wrapped for several processes.
        codes: of the cohort.
        settings: what whoever uses the network must share with the fit; written as JSON beside it, for
            :class:`monai_fair.handlers.ModelSettingsCheck`.
        failures: subjects that could not be used.
    """

    def __init__(
        self,
        path: str,
        network: torch.nn.Module,
        codes: CodeTable,
        *,
        settings: Mapping[str, Any],
        failures: Sequence[Failure] = (),
    ) -> None:
        self.path = Path(path)
        self.network = network
        self.codes = codes
        self.settings = dict(settings)
        self.failures = list(failures)

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write the files."""
        if idist.get_rank() != 0:
            return
        weights = {name: value.cpu() for name, value in unwrapped(self.network).state_dict().items()}
        # in memory first: torch writes the name of a file into it, and equal weights shall be equal bytes
        buffer = io.BytesIO()
        torch.save(weights, buffer)
        with atomic_path(self.path) as temporary:
            temporary.write_bytes(buffer.getvalue())
        write_json(self.path.with_suffix(".json"), "model", {"settings": self.settings})
        self.codes.save(self.path.with_name("codes.safetensors"), network_fingerprint=sha256(self.path))
        for failure in self.failures:
            engine.logger.warning(f"{failure.subject_id}: left out: {failure.reason}")
        if self.failures:
            table = pd.DataFrame([dataclasses.asdict(failure) for failure in self.failures])
            with atomic_path(self.path.with_name("failures.csv")) as temporary:
                table.to_csv(temporary, index=False)
