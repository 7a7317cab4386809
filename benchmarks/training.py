"""What MONAI's trainer and NIR cost per step, and how fast images are loaded; side by side, prints tables.

    python benchmarks/training.py [--rounds 12] [--out benchmarks/results/training-NAME.md]

The arms take turns, a few steps each, so that a drift of the machine's speed hits all of them; the ratio is the
median over rounds of the ratio within a round.
"""

import argparse
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import monai
import numpy as np
import torch
from monai.data import CacheDataset, DataLoader
from monai.engines import SupervisedTrainer
from monai.inferers import SimpleInferer
from monai.networks.nets import ResNet

from monai_fair.data import build_manifest, load_datalist, write_manifest
from monai_fair.handlers import NIRHandler
from monai_fair.losses import ClassificationLoss
from monai_fair.simulation import simulate_skin

BUNDLE = Path(__file__).parents[1] / "bundles/fair_image_classification"
BATCH, SIZE, STEPS = 32, 224, 2


def network_and_optimizer(device: torch.device) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    """ResNet-18 as the bundle builds it, from the same seed for every arm."""
    torch.manual_seed(0)
    network = ResNet(
        "basic", [2, 2, 2, 2], [64, 128, 256, 512], spatial_dims=2, n_input_channels=3, num_classes=1,
        conv1_t_size=7, conv1_t_stride=2, bias_downsample=False,
    ).to(device)  # fmt: skip
    return network, torch.optim.Adam(network.parameters(), lr=1e-4, weight_decay=1e-4)


def bare_loop(batches: list[dict[str, torch.Tensor]], device: torch.device, amp: bool) -> Callable[[], None]:
    """The same training written out in plain PyTorch."""
    network, optimizer = network_and_optimizer(device)
    loss_function = torch.nn.BCEWithLogitsLoss()
    scaler = torch.amp.GradScaler(device.type, enabled=amp)

    def steps() -> None:
        network.train()
        for batch in batches:
            image, label = batch["image"].to(device), batch["label"].to(device)
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device.type, enabled=amp):
                loss = loss_function(network(image)[:, 0], label.float())
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()

    return steps


def monai_trainer(
    batches: list[dict[str, torch.Tensor]], device: torch.device, amp: bool, handlers: list[object]
) -> Callable[[], None]:
    """MONAI's trainer with the options of the bundle."""
    network, optimizer = network_and_optimizer(device)
    trainer = SupervisedTrainer(
        device=device, max_epochs=1, train_data_loader=batches, network=network, optimizer=optimizer,
        loss_function=ClassificationLoss(), inferer=SimpleInferer(), train_handlers=handlers, amp=amp,
        decollate=False, optim_set_to_none=True,
    )  # fmt: skip
    trainer.logger.disabled = True

    def steps() -> None:
        trainer.state.max_epochs = trainer.state.epoch + 1
        trainer.run()

    return steps


def time_arms(arms: dict[str, Callable[[], None]], rounds: int, device: torch.device) -> dict[str, np.ndarray]:
    """Seconds per step of every arm in every round, after two rounds of warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for number in range(rounds + 2):
        # every other round runs backwards, so that no arm always follows the same one
        for name in list(arms) if number % 2 else reversed(arms):
            start = time.perf_counter()
            arms[name]()
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds[name].append((time.perf_counter() - start) / STEPS)
    return {name: np.array(values[2:]) for name, values in seconds.items()}


def step_table(device: torch.device, amp: bool, rounds: int) -> list[str]:
    """Time the bare loop, MONAI's trainer, and MONAI's trainer with NIR."""
    generator = torch.Generator().manual_seed(0)
    batches = [
        {"image": torch.randn(BATCH, 3, SIZE, SIZE, generator=generator), "label": torch.arange(BATCH) % 2}
        for _ in range(STEPS)
    ]
    arms = {
        "bare PyTorch loop": bare_loop(batches, device, amp),
        "MONAI trainer (ERM)": monai_trainer(batches, device, amp, []),
        "MONAI trainer + NIR": monai_trainer(batches, device, amp, [NIRHandler("fc")]),
    }
    seconds = time_arms(arms, rounds, device)
    erm, bare = seconds["MONAI trainer (ERM)"], seconds["bare PyTorch loop"]
    ratios = {"bare PyTorch loop": bare / bare, "MONAI trainer (ERM)": erm / bare}
    lines = ["| arm | ms per step (median) | against | ratio (median; quartiles) |", "|---|---|---|---|"]
    for name, values in seconds.items():
        reference = "ERM" if "NIR" in name else "bare loop"
        ratio = ratios.get(name, values / erm)
        low, middle, high = np.percentile(ratio, [25, 50, 75])
        median = 1000 * np.median(values)
        lines.append(f"| {name} | {median:.1f} | {reference} | {middle:.3f} ({low:.3f} to {high:.3f}) |")
    return lines


def loader_table(folder: Path, num_workers: int) -> list[str]:
    """Images per second through the bundle's transforms, decoded every epoch or cached."""
    simulate_skin(folder, n=256, size=512, seed=0)
    manifest = write_manifest(build_manifest("ham10000", folder, split=folder / "split.csv"), folder / "manifest.csv")
    items = load_datalist(manifest, folder)
    parser = monai.bundle.ConfigParser(monai.bundle.ConfigParser.load_config_file(BUNDLE / "configs/train.yaml"))
    transform = parser.get_parsed_content("train#preprocessing")
    monai.data.set_track_meta(False)
    lines = ["| loader | images per second |", "|---|---|"]
    for name, cache_rate in (("decoded every epoch", 0.0), ("cached (cache_rate 1)", 1.0)):
        dataset = CacheDataset(items, transform, cache_rate=cache_rate, num_workers=num_workers, progress=False)
        loader = DataLoader(dataset, batch_size=BATCH, shuffle=True, num_workers=num_workers, persistent_workers=True)
        for _ in loader:  # the first pass starts the workers
            pass
        start = time.perf_counter()
        count = sum(len(batch["image"]) for _ in range(3) for batch in loader)
        lines.append(f"| {name} | {count / (time.perf_counter() - start):.0f} |")
    return lines


def main() -> None:
    """Print the tables, and write them when asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--num_workers", type=int, default=4)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    amp = device.type == "cuda"
    name = torch.cuda.get_device_name() if amp else f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
    with tempfile.TemporaryDirectory() as folder:
        loader = loader_table(Path(folder) / "cohort", options.num_workers)
    lines = [
        f"# Training, {name}",
        "",
        f"torch {torch.__version__}, MONAI {monai.__version__}; ResNet-18, {SIZE} x {SIZE}, batch {BATCH}, "
        f"{'mixed precision' if amp else 'float32'}; {options.rounds} rounds of {STEPS} steps per arm, in turns",
        "",
        *step_table(device, amp, options.rounds),
        "",
        f"Loading 512 x 512 JPEGs through the bundle's training transforms, {options.num_workers} workers:",
        "",
        *loader,
    ]
    print("\n".join(lines))
    if options.out:
        options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
