"""What neural collapse costs: all measures of features at hand, and measuring while ResNet-18 is trained.

    python benchmarks/neural_collapse.py [--rounds 5] [--images 96] [--out benchmarks/results/neural-collapse-NAME.md]

Beside the package stands the textbook way: class means, a d x d covariance and a pseudoinverse of all features in
float64 at once, which gives NC1 of all samples alone. Arms take turns. Memory is the peak above the features,
counted by tracemalloc in a run of its own that is not timed.
"""

import argparse
import platform
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from monai.engines import SupervisedTrainer
from monai.networks.nets import ResNet

from monai_fair.handlers import NeuralCollapseHandler
from monai_fair.losses import ClassificationLoss
from monai_fair.metrics import neural_collapse
from monai_fair.networks import LayerInput

N, D, SIZE, BATCH = 100_000, 512, 224, 32
SHARE = 0.3  # collapse_share of the bundle
Batches = list[dict[str, Any]]


def features(num_classes: int) -> dict[str, Any]:
    """Float32 features with labels, groups, mislabelled samples and a classifier."""
    random = np.random.default_rng(0)
    labels = random.integers(0, num_classes, N)
    hidden = random.standard_normal((N, D), dtype=np.float32)
    hidden += random.standard_normal((num_classes, D), dtype=np.float32)[labels]
    return {
        "features": hidden,
        "labels": labels,
        "groups": random.choice(["female", "male"], N).tolist(),
        "mislabelled": random.random(N) < 0.05,
        "weight": random.standard_normal((num_classes, D)),
        "bias": random.standard_normal(num_classes),
    }


def textbook(hidden: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """NC1 with distances, and with the pseudoinverse, of everything at once in float64."""
    h = hidden.astype(np.float64)
    means = np.stack([h[labels == label].mean(axis=0) for label in range(labels.max() + 1)])
    beside = h - means[labels]
    within = beside.T @ beside / len(h)
    around = means - means.mean(axis=0)
    between = around.T @ around / len(means)
    inverse = np.linalg.pinv(between, rcond=1e-10, hermitian=True)
    return float(np.linalg.norm(beside, axis=1).mean()), float(np.trace(within @ inverse) / len(means))


def peak_mib(run: Callable[[], object]) -> float:
    """MiB at the highest point of a run, above what was there before."""
    tracemalloc.start()
    run()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 2**20


def feature_lines(rounds: int) -> list[str]:
    """Time and memory of all measures."""
    lines = [
        f"| {N:,} x {D} float32, two groups | seconds, median (lowest to highest) | peak MiB above the features |",
        "|---|---|---|",
    ]
    for num_classes in (2, 10):
        data = features(num_classes)
        arms: dict[str, Callable[[], Any]] = {
            f"all measures, {num_classes} classes": lambda data=data: neural_collapse(**data),
            f"textbook NC1, {num_classes} classes": lambda data=data: textbook(data["features"], data["labels"]),
        }
        seconds: dict[str, list[float]] = {name: [] for name in arms}
        for _ in range(rounds):
            for name, run in arms.items():
                start = time.perf_counter()
                run()
                seconds[name].append(time.perf_counter() - start)
        ours, theirs = (run() for run in arms.values())
        found = ours.values["nc1_distance"].value, ours.values["nc1_pinv"].value
        assert np.allclose(found, theirs, rtol=1e-8), (found, theirs)
        for name, run in arms.items():
            times = seconds[name]
            lines.append(
                f"| {name} | {median(times):.2f} ({min(times):.2f} to {max(times):.2f}) | {peak_mib(run):.0f} |"
            )
    return lines


def batches(images: int) -> Batches:
    """Images that are decoded, as a cached dataset gives them."""
    generator = torch.Generator().manual_seed(0)
    rows = [torch.arange(start, min(start + BATCH, images)) for start in range(0, images, BATCH)]
    return [
        {
            "image": torch.randn(len(row), 3, SIZE, SIZE, generator=generator),
            "label": row % 2,
            "row": row,
            "attributes": {"sex": ["female" if int(number) % 3 else "male" for number in row]},
        }
        for row in rows
    ]


def trainer(data: Batches, device: torch.device) -> SupervisedTrainer:
    """MONAI's trainer of ResNet-18 as the bundle builds it."""
    torch.manual_seed(0)
    network = ResNet(
        "basic", [2, 2, 2, 2], [64, 128, 256, 512], spatial_dims=2, n_input_channels=3, num_classes=2,
        conv1_t_size=7, conv1_t_stride=2, bias_downsample=False,
    ).to(device)  # fmt: skip
    made = SupervisedTrainer(
        device=device, max_epochs=1, train_data_loader=data, network=network,
        optimizer=torch.optim.Adam(network.parameters(), lr=1e-4), loss_function=ClassificationLoss(),
        decollate=False, optim_set_to_none=True, amp=device.type == "cuda",
    )  # fmt: skip
    made.logger.disabled = True
    return made


def forward(engine: SupervisedTrainer, data: Batches) -> None:
    """The network alone over the same batches, in eval() and full precision, with what enters its last layer."""
    entered = LayerInput(engine.network, "fc")
    engine.network.eval()
    with torch.no_grad():
        for batch in data:
            engine.network(batch["image"].to(engine.state.device))
            entered.take().cpu()
    entered.remove()
    engine.network.train()


def handler_lines(rounds: int, images: int, device: torch.device) -> list[str]:
    """What the handler adds to an epoch."""
    data = batches(images)
    engine = trainer(data, device)
    part = f"handler, {SHARE:.0%} of the images"
    names = ("epoch of training", "network over the images", "handler", part)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    with TemporaryDirectory() as folder:
        handler, of_part = (
            NeuralCollapseHandler(str(Path(folder) / f"{len(own)}.json"), "fc", {"train": own}, attributes=["sex"])
            for own in (data, batches(round(SHARE * images)))
        )

        def epoch() -> None:
            engine.state.max_epochs = engine.state.epoch + 1
            engine.run()

        arms: list[Callable[[], Any]] = [epoch, lambda: forward(engine, data), lambda: handler.measure(engine)]
        arms.append(lambda: of_part.measure(engine))
        for number in range(rounds + 1):
            for name, run in zip(seconds, arms, strict=True):
                start = time.perf_counter()
                run()
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                if number:  # the first round warms up
                    seconds[name].append(time.perf_counter() - start)
    head = f"| ResNet-18, {images} images of {SIZE} x {SIZE} | seconds, median | share of the epoch (range) |"
    lines = [head, "|---|---|---|"]
    shares = {name: [one / whole for one, whole in zip(times, seconds["epoch of training"], strict=True)]
              for name, times in seconds.items()}  # fmt: skip
    for name, times in seconds.items():
        lines.append(f"| {name} | {median(times):.3f} | {_percent(shares[name])} |")
    beside = [one - other for one, other in zip(shares["handler"], shares["network over the images"], strict=True)]
    every = [share / 5 for share in shares["handler"]]
    lines.append(f"| handler without the network | | {_percent(beside)} |")
    lines.append(f"| handler every 5 epochs, for each epoch | | {_percent(every)} |")
    return lines


def _percent(shares: list[float]) -> str:
    return f"{100 * median(shares):.1f} % ({100 * min(shares):.1f} to {100 * max(shares):.1f})"


def main() -> None:
    """Print the tables, and write them when asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    lines = [
        "# Neural collapse",
        "",
        f"{where}; {options.rounds} rounds; torch {torch.__version__}, numpy {np.__version__}, Python "
        f"{platform.python_version()}.",
        "",
        "## All measures of features at hand",
        "",
        *feature_lines(options.rounds),
        "",
        "## While a network is trained",
        "",
        "Images are in memory. To measure, the network runs over every training image once more, in eval() and without "
        "gradients; the measures, the file and the log are the rest.",
        "",
        *handler_lines(options.rounds, options.images, device),
    ]
    print("\n".join(lines))
    if options.out:
        options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
