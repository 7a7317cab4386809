"""Linear erasure: nothing linear is left of the attributes, features move least, and a network can hold it."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression
from torch import nn

from monai_fair.errors import MonaiFairError
from monai_fair.networks import (
    EmbeddingClassifier,
    ErasedEncoder,
    LinearErasure,
    least_squares_erasure,
    with_erasures,
)


def cohort(n: int = 200, d: int = 6, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features that carry a class and two attributes, the attributes as three columns."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 2, (n,), generator=generator)
    sex = (torch.rand(n, generator=generator) < 0.3 + 0.4 * labels).double()
    race = torch.randint(0, 3, (n,), generator=generator)
    sensitive = torch.column_stack([sex, nn.functional.one_hot(race, 3)[:, 1:].double()])
    mixing = torch.randn(4, d, generator=generator, dtype=torch.float64)
    told = torch.column_stack([sensitive, labels.double()]) @ mixing
    return 3.0 + told + torch.randn(n, d, generator=generator, dtype=torch.float64), sensitive, labels


def erased(features: torch.Tensor, sensitive: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
    read, write, mean = least_squares_erasure(features, sensitive, labels)
    return features - (features - mean) @ read @ write.T


def covariance(x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    return (x - x.mean(dim=0)).T @ (z - z.mean(dim=0)) / len(x)


@given(st.integers(0, 1000), st.integers(4, 8))  # of three channels or fewer nothing but rounding is left
def test_no_linear_model_reads_anything(seed: int, d: int) -> None:
    features, sensitive, _ = cohort(60, d, seed)
    new = erased(features, sensitive)
    assert covariance(new, sensitive).abs().max() < 1e-9
    fitted = LinearRegression().fit(new.numpy(), sensitive.numpy()).predict(new.numpy())
    np.testing.assert_allclose(fitted, sensitive.mean(dim=0).numpy()[None].repeat(60, 0), atol=1e-5)
    torch.testing.assert_close(new.mean(dim=0), features.mean(dim=0))
    torch.testing.assert_close(erased(new, sensitive), new, atol=1e-7, rtol=0)  # nothing is left to take out


@given(st.integers(0, 1000))
def test_by_class_nothing_is_left_within_the_classes(seed: int) -> None:
    features, sensitive, labels = cohort(80, 6, seed)
    new = erased(features, sensitive, labels)
    within = sum(covariance(new[labels == k], sensitive[labels == k]) * (labels == k).sum() for k in (0, 1))
    assert within.abs().max() < 1e-7


def test_it_is_the_closed_form_written_another_way() -> None:
    """W^-1 Q W with Q the projection onto W C is C (C' S^-1 C)^-1 C' S^-1."""
    features, sensitive, _ = cohort()
    s, c = covariance(features, features).numpy(), covariance(features, sensitive).numpy()
    inverse = np.linalg.inv(s)
    wanted = c @ np.linalg.inv(c.T @ inverse @ c) @ c.T @ inverse
    read, write, mean = least_squares_erasure(features, sensitive)
    np.testing.assert_allclose((write @ read.T).numpy(), wanted, atol=1e-9)
    np.testing.assert_allclose(mean.numpy(), features.numpy().mean(axis=0))


def test_features_move_less_than_by_another_map_that_erases() -> None:
    """The orthogonal projection away from C erases too; in the measure of S it moves more."""
    features, sensitive, _ = cohort()
    centred = features - features.mean(dim=0)
    basis = torch.linalg.qr(covariance(features, sensitive))[0]
    other = features - centred @ basis @ basis.T
    assert covariance(other, sensitive).abs().max() < 1e-9
    inverse = torch.linalg.inv(covariance(features, features))

    def moved(new: torch.Tensor) -> float:
        step = new - features
        return float(((step @ inverse) * step).sum(dim=1).mean())

    assert moved(erased(features, sensitive)) == pytest.approx(3)  # one for each direction that is taken out
    assert moved(other) > 3.1


def test_by_hand() -> None:
    """x1 is the attribute, x2 has no part in it: x1 becomes its mean, x2 stays."""
    features = torch.tensor([[0.0, 1.0], [0.0, -1.0], [2.0, 1.0], [2.0, -1.0]])
    new = erased(features, torch.tensor([[0.0], [0.0], [1.0], [1.0]]))
    torch.testing.assert_close(new, torch.tensor([[1.0, 1.0], [1.0, -1.0], [1.0, 1.0], [1.0, -1.0]]).double())


@pytest.mark.parametrize("case", ["two columns for two levels", "constant attribute", "fewer rows than channels",
                                  "a constant channel"])  # fmt: skip
def test_what_has_no_rank_of_its_own_does_no_harm(case: str) -> None:
    features, sensitive, _ = cohort(40, 6)
    if case == "two columns for two levels":
        sensitive = torch.column_stack([sensitive, 1 - sensitive[:, 0]])
    elif case == "constant attribute":
        sensitive = torch.ones(40, 1).double()
    elif case == "fewer rows than channels":
        features, sensitive = features[:5], sensitive[:5, :1]
    else:
        features[:, 2] = 7.0
    new = erased(features, sensitive)
    assert covariance(new, sensitive).abs().max() < 1e-6
    if case == "constant attribute":
        torch.testing.assert_close(new, features)
    if case == "two columns for two levels":
        torch.testing.assert_close(new, erased(features, sensitive[:, :3]))


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
def test_the_mean_of_an_erased_map_is_the_erased_mean() -> None:
    features, sensitive, _ = cohort(30, 6)
    layer = LinearErasure(6, 3)
    maps = features.float()[:, :, None, None] + torch.randn(30, 6, 4, 5)
    assert torch.equal(layer(maps), maps)  # unchanged until it is fitted
    layer.fit(maps.mean(dim=(2, 3)), sensitive)
    torch.testing.assert_close(layer(maps).mean(dim=(2, 3)), layer(maps.mean(dim=(2, 3))), atol=1e-5, rtol=1e-5)
    assert covariance(layer(maps).mean(dim=(2, 3)), sensitive.float()).abs().max() < 1e-5
    assert layer(maps[..., None]).shape == (30, 6, 4, 5, 1)  # 3D
    torch.testing.assert_close(torch.jit.script(layer)(maps), layer(maps))


def test_a_classifier_has_it_at_both_places_and_stores_it() -> None:
    torch.manual_seed(0)
    network = EmbeddingClassifier(nn.Conv2d(1, 5, 3), channels=5, embedding=4)
    images = torch.randn(12, 1, 8, 8)
    before = network(images)
    with_erasures(network, rank=2)
    assert isinstance(network.encoder, ErasedEncoder)
    torch.testing.assert_close(network(images), before)
    sensitive = torch.randint(0, 2, (12, 2)).float()
    network.encoder.erasure.fit(network.encoder.encoder(images).mean(dim=(2, 3)), sensitive)
    assert network.erasure is not None
    network.erasure.fit(network.embed(images), sensitive)
    assert covariance(network.embed(images), sensitive).abs().max() < 1e-5
    assert covariance(network.encoder(images).mean(dim=(2, 3)), sensitive).abs().max() < 1e-5
    other = with_erasures(EmbeddingClassifier(nn.Conv2d(1, 5, 3), channels=5, embedding=4), rank=2)
    other.load_state_dict(network.state_dict())
    torch.testing.assert_close(other(images), network(images))


@pytest.mark.parametrize(
    ("features", "sensitive", "labels", "message"),
    [
        (torch.zeros(1, 2), torch.zeros(1, 1), None, "two rows or more"),
        (torch.zeros(3, 2), torch.zeros(4, 1), None, "same samples"),
        (torch.full((3, 2), float("nan")), torch.zeros(3, 1), None, "leave these rows out"),
        (torch.zeros(3, 2), torch.zeros(3, 1), torch.zeros(2), "a label for each of 3 rows, got 2"),
    ],
)
def test_what_cannot_be_erased_is_told(
    features: torch.Tensor, sensitive: torch.Tensor, labels: torch.Tensor | None, message: str
) -> None:
    with pytest.raises(MonaiFairError, match=message):
        least_squares_erasure(features, sensitive, labels)


def test_a_place_of_another_width_is_told() -> None:
    with pytest.raises(MonaiFairError, match="expected features of 6 channels and attributes of 3 columns"):
        LinearErasure(6, 3).fit(torch.zeros(4, 5), torch.zeros(4, 3))
