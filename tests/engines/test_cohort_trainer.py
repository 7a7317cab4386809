"""A network and the codes of a cohort, fitted together; killed and resumed, and with a spoiled subject."""

import gzip
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from ignite.engine import Events
from monai.handlers import LrScheduleHandler, ValidationHandler
from torch import Tensor
from torch.utils.data import DataLoader, DistributedSampler

from monai_fair.data.artifacts import read_json, read_tensors, sha256
from monai_fair.engines import (
    CodeTable,
    CohortImages,
    CohortSaver,
    CohortTrainer,
    FitQuality,
    RegistrationEvaluator,
    SubjectFit,
    SubjectImages,
    collate_subjects,
    read_codes,
)
from monai_fair.errors import RegistrationError
from monai_fair.handlers import EarlyStopping, TrainingStateSaver

LEVELS = [[1.0, 4, 3], [0.5, 3, 2]]
VALIDATION = [[1.0, 4, 2]]
SETTINGS = {"image_shape": [28, 32, 28], "spacing": 4.0}


class Fit:
    """What the bundle's train.yaml builds, on four small subjects in batches of two."""

    def __init__(self, brain: Any, rows: Any, folder: Path, *, seed: int = 0, **options: Any) -> None:
        self.folder = folder
        self.network = brain.network(width=40, seed=seed)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=0.002, betas=(0.9, 0.99))
        self.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, T_max=5)
        match = brain.match(LEVELS)
        self.images = CohortImages(rows, brain.grid, match, folder.parent / "cache", progress=False)
        self.codes = CodeTable(self.images.subject_ids, self.network.code_shape)
        validation = SubjectImages(rows[:2], brain.grid, keep=True)
        self.evaluator = RegistrationEvaluator(
            "cpu",
            DataLoader(validation, batch_size=2, collate_fn=collate_subjects),
            self.network,
            SubjectFit(brain.match(VALIDATION), code_levels=VALIDATION),
            key_val_metric={"val_fit": FitQuality()},
        )
        stopping = EarlyStopping(10, self.evaluator)
        self.losses: list[Tensor] = []
        self.noise: list[Tensor] = []
        sampler = DistributedSampler(self.images, num_replicas=1, rank=0)
        options = {"levels": LEVELS, "smoothness": 0.1, "iterations": 4, "seed": seed} | options
        self.trainer = CohortTrainer(
            "cpu",
            DataLoader(self.images, batch_size=2, sampler=sampler),
            self.network,
            self.optimizer,
            match,
            self.codes,
            train_handlers=[
                LrScheduleHandler(self.scheduler, print_lr=False),
                ValidationHandler(1, self.evaluator),
                stopping,
                CohortSaver(
                    str(folder / "model.pt"),
                    self.network,
                    self.codes,
                    settings=SETTINGS,
                    failures=self.images.failures,
                ),
                TrainingStateSaver(
                    str(folder / "training_state.pt"),
                    self.network,
                    self.optimizer,
                    self.evaluator,
                    settings={"seed": seed},
                    objects={"early_stopping": stopping, "lr_scheduler": self.scheduler, "codes": self.codes},
                ),
            ],
            **options,
        )
        self.trainer.add_event_handler(Events.ITERATION_COMPLETED, self._look)

    def _look(self, engine: CohortTrainer) -> None:
        self.losses.append(engine.state.output["loss"])
        self.noise.append(engine.state.output["noise"])

    def run(self) -> "Fit":
        self.trainer.run()
        return self

    def state(self) -> dict[str, Tensor]:
        return {**self.network.state_dict(), "codes": self.codes.values}


@pytest.fixture(scope="module")
def rows(brain: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return brain.write(tmp_path_factory.mktemp("cohort"))


def test_codes_and_network_come_to_fit_the_cohort(brain: Any, rows: Any, tmp_path: Path) -> None:
    fit = Fit(brain, rows, tmp_path / "run")
    start = {name: value.clone() for name, value in fit.network.state_dict().items()}
    fit.run()
    assert len(fit.losses) == 10
    # the first and last epoch of each level; a loss of the next level has other units
    for first, last in ((slice(0, 2), slice(4, 6)), (slice(6, 8), slice(8, 10))):
        assert sum(fit.noise[last]) < sum(fit.noise[first])
        assert sum(fit.losses[last]) < sum(fit.losses[first])
    assert sum(fit.noise[4:6]) < 0.8 * sum(fit.noise[:2])
    assert (fit.codes.values.flatten(1).norm(dim=1) > 0).all()
    assert any(not torch.equal(value, start[name]) for name, value in fit.network.state_dict().items())
    assert fit.evaluator.state.best_metric > -1
    grid = fit.network.eval().lattice.sampling_grid()
    for place, subject in enumerate(brain.subjects):
        truth = torch.from_numpy(subject.displacement_vox)[None]
        found = fit.network(fit.codes.values[place, None], grid)
        before = brain.mean_error(torch.zeros_like(truth), truth)
        assert brain.mean_error(found.detach(), truth) < 0.85 * before


def test_the_network_s_gradient_is_that_of_the_objective(brain: Any, rows: Any, tmp_path: Path) -> None:
    """By autograd of ``sum w (r + g (u - u_0))^2 / 2 + smoothness / 2 * penalty`` at the match's own weights."""
    fit = Fit(brain, rows[:2], tmp_path / "run", max_epochs=1)
    fit.optimizer.param_groups[0]["lr"] = 0.0
    torch.nn.init.normal_(fit.network.trunk.change[-1].weight, std=0.05)
    codes = 0.02 * torch.randn(fit.codes.values.shape, generator=torch.Generator().manual_seed(0))
    fit.codes.values = codes.clone()
    seen = {}

    def look(engine: CohortTrainer) -> None:
        seen.update(offsets=engine._offsets(0), loss=engine.state.output["loss"])
        seen["gradient"] = [parameter.grad.clone() for parameter in fit.network.parameters()]
        seen["order"] = engine.state.batch["index"]

    fit.trainer.add_event_handler(Events.ITERATION_COMPLETED, look)
    fit.run()
    network = fit.network.train()
    grid = network.lattice.sampling_grid(4, seen["offsets"])
    fit.images.level = 0
    subjects = torch.stack([fit.images[int(place)]["image"] for place in seen["order"]])[(..., *grid.slices)].float()
    displacement = network(codes[seen["order"]], grid)
    with torch.no_grad():
        match = brain.match(LEVELS)(displacement, subjects, grid, 0)
    linear = match.residual + (match.gradient * (displacement - displacement.detach())).sum(dim=1)
    data = (match.weight * linear.square()).sum() / 2
    loss = (data + 0.05 * network.penalty(codes[seen["order"]]).sum()) / (2 * network.lattice.size)
    expected = torch.autograd.grad(loss, list(network.parameters()))
    # the noise is held in that gradient, but what it costs to be noisy belongs to the loss that is reported
    counts = match.weight.flatten(1).sum(dim=1) * match.noise**2
    price = (counts * match.noise.log()).sum() / (2 * network.lattice.size)
    torch.testing.assert_close(seen["loss"], loss.detach() + price, rtol=1e-4, atol=0)
    for found, gradient in zip(seen["gradient"], expected, strict=True):
        scale = float(gradient.abs().max())
        torch.testing.assert_close(found, gradient, rtol=1e-3, atol=1e-4 * scale)
    assert max(float(gradient.abs().max()) for gradient in expected) > 1e-4


def test_the_same_seed_gives_the_same_bits(brain: Any, rows: Any, tmp_path: Path) -> None:
    first, second, other = (
        Fit(brain, rows, tmp_path / name, seed=seed).run() for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert all(torch.equal(value, second.state()[name]) for name, value in first.state().items())
    assert first.losses == second.losses
    assert not torch.equal(first.codes.values, other.codes.values)


@pytest.mark.parametrize("iteration", [3, 4, 7], ids=["within an epoch", "after an epoch", "at the last level"])
def test_a_killed_fit_goes_on_to_the_same_bits(brain: Any, rows: Any, tmp_path: Path, iteration: int) -> None:
    whole = Fit(brain, rows, tmp_path / "whole").run()
    killed = Fit(brain, rows, tmp_path / "killed")

    @killed.trainer.on(Events.ITERATION_STARTED(once=iteration + 1))
    def kill() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        killed.run()
    assert not (tmp_path / "killed" / "model.pt").exists()
    resumed = Fit(brain, rows, tmp_path / "killed").run()
    assert len(resumed.losses) == 10 - iteration // 2 * 2  # the epochs that were not finished
    assert all(torch.equal(value, resumed.state()[name]) for name, value in whole.state().items())
    assert resumed.losses == whole.losses[-len(resumed.losses) :]
    assert resumed.evaluator.state.best_metric == whole.evaluator.state.best_metric
    assert sha256(tmp_path / "killed" / "codes.safetensors")
    again = Fit(brain, rows, tmp_path / "killed").run()
    assert again.losses == []
    assert all(torch.equal(value, again.state()[name]) for name, value in whole.state().items())


def test_a_fit_leaves_network_codes_and_settings(brain: Any, rows: Any, tmp_path: Path) -> None:
    fit = Fit(brain, rows, tmp_path / "run").run()
    weights = torch.load(tmp_path / "run" / "model.pt", weights_only=True)
    assert all(torch.equal(value, weights[name]) for name, value in fit.network.state_dict().items())
    subjects, codes = read_codes(tmp_path / "run" / "codes.safetensors")
    assert subjects == [row["subject_id"] for row in rows]
    assert torch.equal(codes, fit.codes.values)
    header = read_tensors(tmp_path / "run" / "codes.safetensors")[1]
    assert header["network_fingerprint"] == sha256(tmp_path / "run" / "model.pt")
    assert read_json(tmp_path / "run" / "model.json", "model")["settings"] == SETTINGS
    assert not (tmp_path / "run" / "failures.csv").exists()


def test_spoiled_subjects_are_listed_and_the_rest_is_fitted(brain: Any, tmp_path: Path) -> None:
    """G4: an image that breaks off, one that is no image, one without contrast in the brain."""
    rows = brain.write(tmp_path)
    broken, text = Path(rows[0]["image"]), Path(rows[2]["image"])
    broken.write_bytes(broken.read_bytes()[:-1000])
    text.write_bytes(gzip.compress(b"a text"))
    fit = Fit(brain, rows, tmp_path / "run", levels=[[1.0, 4, 1], [0.5, 3, 1]]).run()
    alone = Fit(brain, [rows[1], rows[3]], tmp_path / "alone", levels=[[1.0, 4, 1], [0.5, 3, 1]]).run()
    assert fit.codes.subject_ids == ["sub-0002", "sub-0004"]
    assert torch.equal(fit.codes.values, alone.codes.values)
    failures = pd.read_csv(tmp_path / "run" / "failures.csv")
    assert failures["subject_id"].tolist() == ["sub-0001", "sub-0003"]
    assert failures["reason"].tolist() == [
        f"{broken}: expected a whole NIfTI file, which cannot be read (EOFError: Compressed file ended before the "
        "end-of-stream marker was reached); fetch or write it again",
        f"{text}: expected a NIfTI file (.nii, .nii.gz), got 6 bytes of another kind; convert it",
    ]


def test_a_fit_that_cannot_be_validated_stops_in_its_first_epoch(brain: Any, tmp_path: Path) -> None:
    """Else early stopping and the choice of the best epoch would compare NaN with NaN to the end."""
    rows = brain.write(tmp_path)
    for row in rows[:2]:  # those of validation
        Path(row["image"]).unlink()
    fit = Fit(brain, rows, tmp_path / "run")
    with pytest.raises(RegistrationError, match="expected at least one subject that can be registered, got none of 2;"):
        fit.run()
    assert len(fit.losses) == 1  # one batch of the two others
    assert not (tmp_path / "run" / "model.pt").exists()


def test_a_fit_that_diverges_stops_before_it_is_saved(brain: Any, rows: Any, tmp_path: Path) -> None:
    fit = Fit(brain, rows, tmp_path / "run")

    @fit.trainer.on(Events.EPOCH_STARTED(once=2))
    def spoil() -> None:
        with torch.no_grad():
            next(fit.network.parameters()).fill_(torch.nan)

    with pytest.raises(RegistrationError) as caught:
        fit.run()
    assert str(caught.value) == (
        "epoch 2: expected a finite loss, got nan; lower the learning rate, raise smoothness, or look at the cohort's "
        "images"
    )
    state = torch.load(tmp_path / "run" / "training_state.pt", weights_only=True)
    assert state["epoch"] == 1
    assert torch.isfinite(state["objects"]["codes"]["values"]).all()
    # so that the run can be started again
    assert len(Fit(brain, rows, tmp_path / "run").run().losses) == 8


def test_the_levels_follow_each_other(brain: Any, rows: Any, tmp_path: Path) -> None:
    fit = Fit(brain, rows, tmp_path / "run", max_epochs=7)
    seen: list[tuple[int, int]] = []
    fit.trainer.add_event_handler(
        Events.EPOCH_COMPLETED, lambda engine: seen.append((fit.images.level, engine.level_of(engine.state.epoch)))
    )
    fit.run()
    assert seen == [(0, 0)] * 3 + [(1, 1)] * 4  # a longer fit stays at the last level
    assert Fit(brain, rows, tmp_path / "other").trainer.state.max_epochs == 5


def test_subjects_come_in_another_order_in_every_epoch(brain: Any, rows: Any, tmp_path: Path) -> None:
    fit = Fit(brain, rows, tmp_path / "run")
    seen: list[int] = []
    fit.trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda engine: seen.extend(engine.state.batch["index"].tolist())
    )
    fit.run()
    epochs = [tuple(seen[start : start + 4]) for start in range(0, 20, 4)]
    assert all(sorted(epoch) == [0, 1, 2, 3] for epoch in epochs)
    assert len(set(epochs)) > 2


def test_the_sampled_voxels_change_and_stay_inside_the_stride(brain: Any, rows: Any, tmp_path: Path) -> None:
    trainer = Fit(brain, rows, tmp_path / "run").trainer
    seen = []
    for iteration in range(64):
        trainer.state.iteration = iteration
        seen.append(trainer._offsets(0))
    assert {place for offsets in seen for place in offsets} == {0, 1, 2, 3}
    assert len(set(seen)) > 30
    trainer.state.iteration = 5
    assert trainer._offsets(0) == seen[5]


def test_levels_of_another_match(brain: Any, rows: Any, tmp_path: Path) -> None:
    with pytest.raises(RegistrationError) as caught:
        Fit(brain, rows, tmp_path / "run", levels=[[1.0, 4, 3]])
    assert str(caught.value) == "match: expected one made for the levels' blurs (1.0,), got (1.0, 0.5)"
