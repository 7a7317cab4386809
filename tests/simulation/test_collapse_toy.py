"""The toy of Fig. 1: what it computes, what is drawn, and that it leaves no trace."""

import numpy as np
import pytest
import torch

from monai_fair.errors import MonaiFairError
from monai_fair.simulation.collapse_toy import CollapseToy, ToyMoment, simulate_collapse_toy


@pytest.fixture(scope="module")
def toys() -> list[CollapseToy]:
    return [simulate_collapse_toy(seed=seed) for seed in range(2)]


def mislabelled_ratio(toy: CollapseToy, moment: ToyMoment) -> float:
    """Mean distance of the mislabelled from the mean of their label, over that from the mean of their true class."""
    wrong = toy.label != toy.clean_label
    near, far = (np.linalg.norm(moment.points[wrong] - moment.means[k], axis=1).mean() for k in (0, 1))
    return float(near / far)


def test_mislabelled_lie_with_their_true_class_early_and_with_their_label_at_the_end(toys: list[CollapseToy]) -> None:
    for toy in toys:
        early, final = (mislabelled_ratio(toy, moment) for moment in (toy.early, toy.final))
        assert early > 1.2
        assert final < 0.6
        assert toy.early.epoch < toy.final.epoch == 500
        assert toy.early.error > 0.05  # the network does not know them by heart yet
        assert toy.final.error == 0


def test_the_others_gather_around_their_mean(toys: list[CollapseToy]) -> None:
    for toy in toys:
        spread = []
        for moment in (toy.early, toy.final):
            beside = np.linalg.norm(moment.points - moment.means[toy.label], axis=1).mean()
            spread.append(beside / np.linalg.norm(moment.means[1] - moment.means[0]))
        assert spread[1] < 0.8 * spread[0]


def test_labels_groups_and_means(toys: list[CollapseToy]) -> None:
    toy = toys[0]
    assert toy.label.shape == toy.clean_label.shape == toy.in_group.shape == (300,)
    # 75 of each class and group; a quarter of 75 positives of the group is 18.75
    assert [int(toy.clean_label.sum()), int(toy.in_group.sum())] == [150, 150]
    assert int((toy.clean_label[toy.in_group]).sum()) == 75
    wrong = toy.label != toy.clean_label
    assert int(wrong.sum()) == 19
    assert toy.in_group[wrong].all()
    assert (toy.clean_label[wrong] == 1).all()
    for moment in (toy.early, toy.final):
        assert moment.points.shape == (300, 2)
        for number in (0, 1):
            np.testing.assert_allclose(
                moment.means[number], moment.points[toy.label == number].mean(axis=0), rtol=1e-12
            )
    assert "300 training samples of two classes in two groups, of which 19 positives of one group" in toy.settings
    assert "150 samples of val" in toy.settings


def test_the_rate_is_that_of_the_positives_of_the_group() -> None:
    none, half, every = (simulate_collapse_toy(n=40, rate=rate, epochs=1) for rate in (0.0, 0.5, 1.0))
    assert (none.label == none.clean_label).all()
    assert int((half.label != half.clean_label).sum()) == 5
    assert (every.label[every.in_group] == 0).all()
    assert every.label[~every.in_group].sum() == 10


def test_the_same_seed_gives_the_same_and_another_one_another() -> None:
    one, again, other = (simulate_collapse_toy(n=40, epochs=3, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.final.points, again.final.points)
    assert (one.early.epoch, one.final.error) == (again.early.epoch, again.final.error)
    assert not np.allclose(one.final.points, other.final.points)


def test_the_early_moment_is_the_same_in_a_longer_training() -> None:
    """The lowest loss on val is behind us after 100 epochs, and what comes later changes nothing before."""
    short, long = (simulate_collapse_toy(n=100, epochs=epochs) for epochs in (100, 130))
    assert short.early.epoch == long.early.epoch < 100
    np.testing.assert_array_equal(short.early.points, long.early.points)
    assert not np.allclose(short.final.points, long.final.points)


def test_random_numbers_and_gradients_of_the_caller_are_left_alone() -> None:
    torch.manual_seed(3)
    before, legacy = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    with torch.no_grad():
        quiet = simulate_collapse_toy(n=40, epochs=2)
        assert not torch.is_grad_enabled()
    assert torch.equal(before, torch.get_rng_state())
    np.testing.assert_array_equal(legacy, np.random.get_state()[1])  # noqa: NPY002
    np.testing.assert_array_equal(quiet.final.points, simulate_collapse_toy(n=40, epochs=2).final.points)


def test_options_out_of_range() -> None:
    with pytest.raises(MonaiFairError) as caught:
        simulate_collapse_toy(n=39, epochs=0)
    assert str(caught.value) == (
        "collapse toy: 2 problems\n"
        "  1. n: expected at least 40, got 39; raise it\n"
        "  2. epochs: expected at least 1, got 0; raise it"
    )
    with pytest.raises(MonaiFairError, match="rate: expected a share from 0 to 1, got 2"):
        simulate_collapse_toy(rate=2.0)
