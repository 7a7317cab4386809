"""The picture of label bias in collapse: a small network with features in the plane, early and at the end.

Two classes of two groups; some positives of one group are labelled negative in train and val. Early in training they
lie with their true class, because what they share with it is learned first. In the end the network knows every sample
by heart, and they lie with the class of their label.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import nn

from monai_fair.data import inject_label_bias
from monai_fair.errors import MonaiFairError, raise_problems

FloatArray = npt.NDArray[np.float64]
_VAL_SHARE = 0.5  # rows of val for each row of train
_EVIDENCE, _GROUP_SHIFT = 1.2, 0.5  # distance of a class and of a group from the middle, in standard deviations
_PECULIAR = 8  # inputs that tell a sample from others and say nothing of class or group
_HIDDEN = 128
_RATE = 1e-3  # of Adam
_LEAST = 40


@dataclass(frozen=True)
class ToyMoment:
    """The training samples at one moment of the training.

    Attributes:
        epoch: steps taken before, each over all training samples.
        points: features, shape ``(n, 2)``.
        means: of the samples of each label, shape ``(2, 2)``.
        error: share of training samples that are not predicted as they are labelled.
    """

    epoch: int
    points: FloatArray
    means: FloatArray
    error: float


@dataclass(frozen=True)
class CollapseToy:
    """What :func:`simulate_collapse_toy` returns; all of the training samples alone.

    Attributes:
        label: that the network learned, 0 or 1, shape ``(n,)``.
        clean_label: the true one.
        in_group: whether a sample is of the group whose positives were missed.
        early: at the lowest loss on val, whose labels are biased too.
        final: after the last step.
        settings: what was simulated, in a sentence.
    """

    label: npt.NDArray[np.int64]
    clean_label: npt.NDArray[np.int64]
    in_group: npt.NDArray[np.bool_]
    early: ToyMoment
    final: ToyMoment
    settings: str


def simulate_collapse_toy(*, n: int = 300, rate: float = 0.25, epochs: int = 500, seed: int = 0) -> CollapseToy:
    """Train a network with two features on labels of which some positives of a group were missed.

    A sample has 10 inputs of standard deviation 1: one that tells its class, one its group, and eight that are its
    own. The network has layers of 128, 128, 2 and 2, the last of which makes logits of the two features; every epoch is
    one step of Adam over all training samples. Random numbers are its own, so that those of the caller stay as they
    are.

    Args:
        n: training samples, from 40; a quarter of them of each class and group. Val has half as many more.
        rate: share of the positives of the group that are labelled 0, in [0, 1]: the rounded count, as
            :func:`monai_fair.data.inject_label_bias` takes them.
        epochs: steps, from 1; 500 are enough for a training error of 0 at the defaults.
        seed: of samples, labels and weights.

    Returns:
        Features, class means and training error at two moments.

    Raises:
        MonaiFairError: if an option is out of range.
    """
    raise_problems(MonaiFairError, "collapse toy", _problems(n, epochs))
    table, inputs = _samples(n, seed)
    label = table["label"].mask(inject_label_bias(table, {"group": "G1"}, rate=rate, seed=seed), 0)
    train = (table["split"] == "train").to_numpy(dtype=np.bool_)
    labels = label.to_numpy(dtype=np.int64)
    with _one_thread():
        early, final = _moments(inputs, labels, train, epochs=epochs, seed=seed)
    missed = int((labels != table["label"].to_numpy())[train].sum())
    return CollapseToy(
        labels[train],
        table["label"].to_numpy(dtype=np.int64)[train],
        (table["group"] == "G1").to_numpy(dtype=np.bool_)[train],
        early,
        final,
        f"{int(train.sum())} training samples of two classes in two groups, of which {missed} positives of one group "
        f"are labelled negative; {inputs.shape[1]} inputs, layers of {_HIDDEN}, {_HIDDEN}, 2 and 2, Adam with learning "
        f"rate {_RATE:g} over all samples at once for {epochs} epochs, seed {seed}; early is the lowest loss on "
        f"{int((~train).sum())} samples of val, whose labels are biased too",
    )


@contextmanager
def _one_thread() -> Iterator[None]:
    """Work in one thread: layers as small as these take longer in several, and much longer beside other work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _problems(n: int, epochs: int) -> list[str]:
    least = {"n": (n, _LEAST), "epochs": (epochs, 1)}
    return [f"{name}: expected at least {low}, got {got}; raise it" for name, (got, low) in least.items() if got < low]


def _samples(n: int, seed: int) -> tuple[pd.DataFrame, FloatArray]:
    """Return rows of a manifest, and the inputs of each."""
    total = n + round(_VAL_SHARE * n)
    place = np.arange(total)
    label, member = place % 2, place // 2 % 2
    inputs = np.random.default_rng(seed).normal(size=(total, 2 + _PECULIAR))
    inputs[:, 0] += _EVIDENCE * (2 * label - 1)
    inputs[:, 1] += _GROUP_SHIFT * (2 * member - 1)
    columns = {
        "image": [f"{row:06d}" for row in place],
        "label": label,
        "split": np.where(place < n, "train", "val"),
        "group": np.where(member == 1, "G1", "G0"),
    }
    return pd.DataFrame(columns), inputs


def _moments(
    inputs: FloatArray, labels: npt.NDArray[np.int64], train: npt.NDArray[np.bool_], *, epochs: int, seed: int
) -> tuple[ToyMoment, ToyMoment]:
    """Train, and return the moment of the lowest loss on val and the last one."""
    body, head = _network(inputs.shape[1], seed)
    optimizer = torch.optim.Adam([*body.parameters(), *head.parameters()], lr=_RATE)
    x, y, chosen = (torch.tensor(values) for values in (inputs, labels, train))
    lowest = float("inf")
    with torch.enable_grad():
        for epoch in range(epochs + 1):
            features = body(x)
            logits = head(features)
            val_loss = float(nn.functional.cross_entropy(logits[~chosen], y[~chosen]).detach())
            if val_loss < lowest or epoch == epochs:
                moment = _moment(epoch, features[chosen], logits[chosen], y[chosen])
            if val_loss < lowest:
                lowest, early = val_loss, moment
            if epoch < epochs:
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(logits[chosen], y[chosen])
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
    return early, moment


def _network(num_inputs: int, seed: int) -> tuple[nn.Sequential, nn.Linear]:
    """Return the network up to its two features, and its last layer; drawn from a generator of its own."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [num_inputs, _HIDDEN, _HIDDEN, 2, 2]
    layers = []
    for entering, leaving in pairwise(sizes):
        # no weights are drawn on this device, which would take numbers of the caller's generator
        layer = nn.Linear(entering, leaving, dtype=torch.float64, device="meta").to_empty(device="cpu")
        nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu", generator=generator)
        nn.init.zeros_(layer.bias)
        layers.append(layer)
    first, second, third, head = layers
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third), head


def _moment(epoch: int, features: torch.Tensor, logits: torch.Tensor, y: torch.Tensor) -> ToyMoment:
    points = features.detach().numpy().copy()
    label = y.numpy()
    means = np.stack([points[label == number].mean(axis=0) for number in (0, 1)])
    return ToyMoment(epoch, points, means, float((logits.detach().argmax(dim=1) != y).double().mean()))
