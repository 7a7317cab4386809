"""Fit one deformation network and the codes of a cohort together: a MONAI trainer."""

from collections.abc import Sequence
from typing import Any

import torch
from ignite.engine import Engine, Events
from ignite.metrics import Metric
from monai.engines import Trainer
from torch import Tensor
from torch.utils.data import DataLoader, DistributedSampler

from monai_fair.engines.code_fit import CodeMetric, code_step
from monai_fair.engines.code_table import CodeTable
from monai_fair.engines.cohort_images import CohortImages
from monai_fair.engines.image_match import Level, LevelList, Match, TemplateMatch
from monai_fair.errors import RegistrationError
from monai_fair.networks import DeformationINR, SamplingGrid, unwrapped

_LARGE_ODD = 1_000_003


class CohortTrainer(Trainer):
    """Alternate between codes and network, subject by subject in batches, from coarse to fine.

    Each iteration compares a batch once. From that one comparison the codes take a Gauss-Newton step with the network
    held, and the network takes a step of its optimiser with the codes held. Codes need no learning rate and no moments,
    so a cohort's state is its codes and nothing more.

    Args:
        device: where to compute.
        train_data_loader: batches of :class:`CohortImages`.
        network: maps codes to deformations, possibly wrapped for several processes.
        optimizer: of the network's parameters.
        match: one level for each of ``levels``.
        codes: the cohort's table.
        levels: from coarse to fine; ``steps`` are epochs.
        max_epochs: length of the fit; by default the sum of the levels'. A longer one stays at the last level.
        smoothness: weight of the roughness of fields, per squared voxel.
        iterations: conjugate gradients within a step of the codes.
        seed: of the voxels that are sampled.
        key_train_metric: a metric of the outputs, ``loss``, ``noise`` and ``penalty``.
        train_handlers: handlers to attach.

    Raises:
        RegistrationError: if ``match`` is of other levels, or a loss is not finite at the end of an epoch.
    """

    def __init__(
        self,
        device: torch.device | str,
        train_data_loader: DataLoader[Any],
        network: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        match: TemplateMatch,
        codes: CodeTable,
        *,
        levels: LevelList,
        max_epochs: int | None = None,
        smoothness: float = 0.1,
        iterations: int = 4,
        seed: int = 0,
        key_train_metric: dict[str, Metric] | None = None,
        train_handlers: Sequence[Any] | None = None,
    ) -> None:
        self.levels = Level.parse(levels)
        blurs = tuple(level.blur_vox for level in self.levels)
        if match.blurs_vox != blurs:
            raise RegistrationError(f"match: expected one made for the levels' blurs {blurs}, got {match.blurs_vox}")
        super().__init__(
            device=device,
            max_epochs=max_epochs or sum(level.steps for level in self.levels),
            data_loader=train_data_loader,
            key_metric=key_train_metric,
        )
        self.network = network
        self.optimizer = optimizer
        self.match = match
        self.codes = codes
        self.smoothness = smoothness
        self.iterations = iterations
        self.seed = seed
        self._metric: CodeMetric | None = None
        self.add_event_handler(Events.EPOCH_STARTED, CohortTrainer._start_epoch)
        self.add_event_handler(Events.EPOCH_COMPLETED, CohortTrainer._complete_epoch)
        # after these two: what is saved at the end of an epoch has a finite loss, and the codes of all processes
        for handler in train_handlers or ():
            handler.attach(self)

    @property
    def bare_network(self) -> DeformationINR:
        """The network without the wrapper of several processes."""
        network = unwrapped(self.network)
        assert isinstance(network, DeformationINR)
        return network

    def level_of(self, epoch: int) -> int:
        """Return the number of the level that ``epoch`` (from 1) belongs to."""
        passed = 0
        for number, level in enumerate(self.levels):
            passed += level.steps
            if epoch <= passed:
                return number
        return len(self.levels) - 1

    def _start_epoch(self) -> None:
        self.network.train()
        dataset = self.data_loader.dataset
        assert isinstance(dataset, CohortImages)
        dataset.level = self.level_of(self.state.epoch)
        sampler = getattr(self.data_loader, "sampler", None)
        if isinstance(sampler, DistributedSampler):
            sampler.set_epoch(self.seed * _LARGE_ODD + self.state.epoch)
        with torch.no_grad():
            self._metric = CodeMetric.of(self.bare_network)

    def _complete_epoch(self) -> None:
        output = self.state.output
        assert isinstance(output, dict)
        if not torch.isfinite(output["loss"]):
            raise RegistrationError(
                f"epoch {self.state.epoch}: expected a finite loss, got {float(output['loss'])}; lower the learning "
                "rate, raise smoothness, or look at the cohort's images"
            )
        self.codes.share()

    def _iteration(self, engine: Engine, batchdata: dict[str, Tensor]) -> dict[str, Any]:
        rows = batchdata["index"].to(self.codes.values.device)
        number = self.level_of(self.state.epoch)
        grid = self.bare_network.lattice.sampling_grid(self.levels[number].stride, self._offsets(number))
        codes = self.codes.values[rows].to(self.state.device)

        scale = 1.0 / (len(rows) * self.bare_network.lattice.size)
        with self.bare_network.held():
            displacement = self.network(codes, grid)
            with torch.no_grad():
                match = self._compare(displacement, batchdata, grid, number)
                force = match.force()
                change = self._code_change(codes, grid, match)
            penalty = self.smoothness / 2.0 * self.bare_network.penalty(codes).sum()
            self.optimizer.zero_grad()
            # the gradient of the objective: the images' part is known at the displacement and goes on from there
            ((displacement * force).sum() + penalty).mul(scale).backward()
        self.optimizer.step()
        self.codes.add(rows, change.to(rows.device))
        # the negative log-likelihood, in which the noise that was estimated has its price
        squares = (match.weight * match.residual.square()).sum() / 2.0
        data = squares + (match.weight.flatten(1).sum(dim=1) * match.noise.square() * match.noise.log()).sum()
        loss = (data + penalty.detach()) * scale
        return {"loss": loss, "noise": match.noise.mean(), "penalty": penalty.detach() * scale}

    def _compare(self, displacement: Tensor, batchdata: dict[str, Tensor], grid: SamplingGrid, number: int) -> Match:
        subjects = batchdata["image"][(..., *grid.slices)].to(self.state.device).float()
        templates = None
        if self.match.contrast == "any":
            scans = batchdata["scan"].to(self.state.device).float()
            templates = self.match.recoloured(displacement, scans, grid, number)
        match: Match = self.match(displacement, subjects, grid, number, templates)
        return match

    def _code_change(self, codes: Tensor, grid: SamplingGrid, match: Match) -> Tensor:
        assert self._metric is not None
        network = self.bare_network
        return code_step(
            codes,
            network.linearise(codes, grid),
            match,
            self._metric,
            smoothness=self.smoothness,
            points=network.lattice.size,
            iterations=self.iterations,
        )

    def _offsets(self, number: int) -> tuple[int, int, int]:
        """Return the first voxel along each axis: the same in all processes, another one in each iteration."""
        generator = torch.Generator().manual_seed((self.seed * _LARGE_ODD + self.state.iteration) % 2**31)
        first, second, third = torch.randint(0, self.levels[number].stride, (3,), generator=generator).tolist()
        return first, second, third
