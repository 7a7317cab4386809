"""What a training step of FairREAD's stages costs against ERM with the same DenseNet-121; side by side, prints a table.

    python benchmarks/fairread_steps.py [--rounds 8] [--batch 16] [--out benchmarks/results/fairread-steps-NAME.md]

The arms take turns, a few steps each, so that a drift of the machine's speed hits all of them; the ratio is the median
over rounds of the ratio within a round. Memory is that of the tensors kept for the backward pass, each storage once,
counted by torch's hooks: it does not depend on the allocator.
"""

import argparse
import platform
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines import PrepareBatchDefault, PrepareBatchExtraInput, SupervisedTrainer
from monai.networks.nets import DenseNet121
from torch import nn

from monai_fair.handlers import AdversaryHandler, OrthogonalityHandler
from monai_fair.losses import AttributeLoss, ClassificationLoss
from monai_fair.networks import AttributeEncoder, EmbeddingClassifier, FairREAD, classifier_like

LEVELS, CHANNELS, SIZE, STEPS = [2, 2, 2], 1024, 224, 3
Rows = list[dict[str, torch.Tensor]]


def encoder() -> nn.Module:
    """The convolutional part of DenseNet-121, from one seed."""
    torch.manual_seed(0)
    found: nn.Module = DenseNet121(spatial_dims=2, in_channels=3, out_channels=1).features
    return found


def classifier() -> EmbeddingClassifier:
    """ERM's network."""
    return EmbeddingClassifier(encoder(), channels=CHANNELS)


def arms(batch: dict[str, torch.Tensor]) -> dict[str, tuple[nn.Module, list[Any]]]:
    """Network and handlers of each arm."""
    return {
        "ERM": (classifier(), []),
        "stage 1: orthogonality": (classifier(), [OrthogonalityHandler(classifier_like(classifier(), 3), [batch])]),
        "stage 2: re-fusion": (FairREAD(encoder(), AttributeEncoder(LEVELS), channels=CHANNELS, adversary=False), []),
        "stage 2: re-fusion and adversary": (
            FairREAD(encoder(), AttributeEncoder(LEVELS), channels=CHANNELS),
            [AdversaryHandler(AttributeLoss(LEVELS), 0.1)],
        ),
    }


def trainer(network: nn.Module, handlers: list[Any], batches: Rows, device: torch.device) -> SupervisedTrainer:
    """Return a MONAI trainer as the bundle builds it."""
    network.to(device)
    extra = isinstance(network, FairREAD)
    return SupervisedTrainer(
        device=device,
        max_epochs=1,
        train_data_loader=batches,
        network=network,
        optimizer=torch.optim.Adam(network.parameters(), lr=1e-4),
        loss_function=ClassificationLoss(),
        prepare_batch=PrepareBatchExtraInput("attribute_codes") if extra else PrepareBatchDefault(),
        train_handlers=handlers,
        decollate=False,
        amp=device.type == "cuda",
    )


def kept_mib(step: Callable[[], Any]) -> float:
    """MiB that are kept for the backward pass of one step, each storage once."""
    kept: list[torch.UntypedStorage] = []  # held, so that no two share an address

    def pack(value: torch.Tensor) -> torch.Tensor:
        kept.append(value.untyped_storage())
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        step()
    return sum({storage.data_ptr(): storage.nbytes() for storage in kept}.values()) / 2**20


class Arm:
    """An arm that does a few steps at a time, and says how long the fastest took."""

    def __init__(self, network: nn.Module, handlers: list[Any], batch: Any, device: torch.device) -> None:
        self.engine = trainer(network, handlers, [batch] * STEPS, device)
        self.device, self.rounds, self.seconds = device, 0, [0.0]
        self.engine.add_event_handler(Events.ITERATION_STARTED, self._start)
        self.engine.add_event_handler(Events.ITERATION_COMPLETED, self._end)

    def __call__(self) -> float:
        """Do an epoch of a few steps; what handlers do before the first is not counted."""
        self.rounds += 1
        self.seconds = []
        self.engine.state.max_epochs = self.rounds
        self.engine.run()
        return min(self.seconds)

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def _start(self, _: Engine) -> None:
        self.began = self._now()

    def _end(self, _: Engine) -> None:
        self.seconds.append(self._now() - self.began)


def main() -> None:
    """Print the table, and write it when asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    batch = {
        "image": torch.randn(options.batch, 3, SIZE, SIZE),
        "label": torch.arange(options.batch) % 2,
        "attribute_codes": torch.randint(0, 2, (options.batch, 3)).float(),
    }
    steps = {name: Arm(*parts, batch, device) for name, parts in arms(batch).items()}
    memory = {name: kept_mib(step) / STEPS for name, step in steps.items()}
    seconds = [{name: step() for name, step in steps.items()} for _ in range(options.rounds)]
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    lines = [
        "# Steps of FairREAD",
        "",
        f"DenseNet-121, {options.batch} images of {SIZE} x {SIZE}, {options.rounds} rounds of {STEPS} steps for each "
        f"arm; {where}; torch {torch.__version__}, Python {platform.python_version()}.",
        "",
        "| step | seconds, median | times ERM's (lowest to highest) | MiB kept for the backward pass | times ERM's |",
        "|---|---|---|---|---|",
    ]
    for name in steps:
        ratios = [each[name] / each["ERM"] for each in seconds]
        lines.append(
            f"| {name} | {median(each[name] for each in seconds):.3f} | {median(ratios):.2f} ({min(ratios):.2f} to "
            f"{max(ratios):.2f}) | {memory[name]:.0f} | {memory[name] / memory['ERM']:.2f} |"
        )
    print("\n".join(lines))
    if options.out:
        options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
