"""How many subgroups are found where some are planted, and where there are none."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from monai_fair.errors import MonaiFairError
from monai_fair.subgroups import ErrorAwareMixture, Selection, select_components
from monai_fair.subgroups.selection import _draw
from monai_fair.subgroups.valleys import valley_p, window_counts

SUBJECTS, COLUMNS = 240, 5


def clouds(rng: np.random.Generator, *shares: float, apart: float, noise: Any = None) -> tuple[Any, Any]:
    """Clouds on different axes, ``apart`` standard deviations from one another, and the cloud of each row."""
    group = rng.choice(len(shares), size=SUBJECTS, p=shares)
    x = rng.normal(size=(SUBJECTS, COLUMNS)) if noise is None else noise(rng)
    return x + np.eye(COLUMNS)[group] * apart / np.sqrt(2), group


def gamma_rows(rng: np.random.Generator) -> Any:
    rows = rng.gamma(2, size=(SUBJECTS, COLUMNS))
    return rows / np.sqrt(2)


# One cloud each: with a normal's shape, correlated, heavy-tailed, skewed, flat, and of one dimension.
ONE_CLOUD: dict[str, Callable[[np.random.Generator], Any]] = {
    "isotropic normal": lambda rng: rng.normal(size=(SUBJECTS, COLUMNS)),
    "correlated normal": lambda rng: (
        rng.normal(size=(SUBJECTS, COLUMNS)) @ (np.eye(COLUMNS) + 0.9 * rng.normal(size=(COLUMNS, COLUMNS)))
    ),
    "t4 marginals": lambda rng: rng.standard_t(4, size=(SUBJECTS, COLUMNS)),
    "multivariate t4": lambda rng: (
        rng.normal(size=(SUBJECTS, COLUMNS)) / np.sqrt(rng.chisquare(4, size=(SUBJECTS, 1)) / 4)
    ),
    "log-normal marginals": lambda rng: np.exp(rng.normal(size=(SUBJECTS, COLUMNS))),
    "mild log-normal marginals": lambda rng: np.exp(0.5 * rng.normal(size=(SUBJECTS, COLUMNS))),
    "exponential marginals": lambda rng: rng.exponential(size=(SUBJECTS, COLUMNS)),
    "uniform": lambda rng: rng.random((SUBJECTS, 2)),
}
# Shares of the clouds, distance in standard deviations, shape of a cloud, least share of simulations that find all.
PLANTED: dict[str, tuple[tuple[float, ...], float, Any, float]] = {
    "three clouds, 6 apart": ((0.4, 0.3, 0.3), 6, None, 0.9),
    "two of one size, 4.5 apart": ((0.5, 0.5), 4.5, None, 0.9),
    "15 %, 6 apart": ((0.85, 0.15), 6, None, 0.9),
    "two skewed, 6 apart": ((0.5, 0.5), 6, gamma_rows, 0.9),
}


def test_planted_clouds_are_found_and_the_table_says_why() -> None:
    x, _ = clouds(np.random.default_rng(0), 0.4, 0.3, 0.3, apart=6)
    found = select_components(x, candidates=range(1, 6))
    assert isinstance(found, Selection)
    assert (found.chosen, found.n, found.n_subjects) == (3, SUBJECTS, SUBJECTS)
    table = found.table.set_index("n_components")
    assert table.index.tolist() == [1, 2, 3, 4, 5]
    assert table.loc[1, "reason"] == "held-out likelihood is more than a standard error below the best"
    assert table.loc[3, "reason"] == ""
    assert "no valley between them" in table.loc[4, "reason"]
    assert table.loc[3, "stability"] > 0.9 > table.loc[5, "stability"]
    assert table.loc[1, "stability"] == 1
    assert np.isnan(table.loc[1, "valley_p"])
    assert table.loc[3, "valley_p"] < 0.01
    assert table.loc[3, ["below_best", "below_best_se"]].tolist() == [0, 0]
    assert table["bic"].idxmin() == 3
    assert 50 <= table.loc[3, "smallest"] <= 80
    assert (table["fits"] == 11).all()


def test_one_cloud_is_one_component() -> None:
    found = select_components(ONE_CLOUD["isotropic normal"](np.random.default_rng(1)), candidates=range(1, 5))
    assert found.chosen == 1
    # the mean log density of a standard normal in 5 dimensions is -5/2 (1 + log 2 pi)
    row = found.table.iloc[0]
    assert abs(row["held_out"] + 2.5 * (1 + np.log(2 * np.pi))) < 4 * row["held_out_se"]


def test_without_valleys_the_shape_of_one_cloud_makes_subgroups() -> None:
    """What the valleys are for: likelihood and stability alone cut this cloud."""
    x = ONE_CLOUD["multivariate t4"](np.random.default_rng(4))
    loose = select_components(x, candidates=range(1, 4), min_stability=-1, max_valley_p=None)
    assert loose.chosen > 1
    assert select_components(x, candidates=range(1, 4)).chosen == 1


def test_the_same_seed_gives_the_same_table_with_any_number_of_processes() -> None:
    x, group = clouds(np.random.default_rng(2), 0.5, 0.5, apart=5)
    options: dict[str, Any] = {"y": group, "candidates": [1, 2, 3], "n_folds": 3, "n_seeds": 3}
    first, second = select_components(x, **options), select_components(x, **options, n_jobs=2)
    pd.testing.assert_frame_equal(first.table, second.table)
    other = select_components(x, **options, seed=1)
    assert not other.table["stability"].equals(first.table["stability"])


def test_a_class_that_one_fold_alone_has_is_no_error() -> None:
    x, _ = clouds(np.random.default_rng(9), 0.5, 0.5, apart=6)
    names = ["often"] * (SUBJECTS - 1) + ["once"]
    alone = select_components(x, names, candidates=[1, 2])
    assert alone.chosen == 2
    # a number has the same fits whatever else is tried
    more = select_components(x, names, candidates=[1, 2, 3])
    pd.testing.assert_series_equal(more.table["held_out"][:2], alone.table["held_out"])


def test_weights_of_label_and_prediction_buy_no_likelihood() -> None:
    """With its own exponent of 10 a mixture that sorts rows by label would gain 9 log 2 a row over one component."""
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(SUBJECTS, 2)), np.arange(SUBJECTS) % 2
    heavy = ErrorAwareMixture(label_weight=10, prediction_weight=10)
    found = select_components(x, y, y * 0.8 + 0.1, mixture=heavy, candidates=[1, 2], max_valley_p=None)
    held_out = found.table["held_out"]
    assert abs(held_out[1] - held_out[0]) < 1
    assert heavy.label_weight == 10


def test_a_subject_stands_on_one_side_of_a_fold_and_is_drawn_whole() -> None:
    subjects = np.random.default_rng(5).permutation(np.repeat(np.arange(20), [1, 3] * 10))
    x = subjects[:, None].astype(float)
    rows = _draw(x, None, None, subjects, 4, 3, np.random.default_rng(0))
    sizes = np.bincount(subjects)
    folds = [np.unique(rows.folds[subjects == one]).tolist() for one in range(20)]
    assert all(len(fold) == 1 for fold in folds)
    assert np.bincount(np.concatenate(folds)).tolist() == [5, 5, 5, 5]
    for resample in rows.resamples:
        drawn = np.bincount(subjects[resample], minlength=20)
        assert (drawn % sizes == 0).all()
        assert (drawn // sizes).sum() == 20
    assert select_components(x + np.random.default_rng(6).normal(size=x.shape), candidates=[1], groups=subjects)


def test_options_that_allow_no_fit_are_named() -> None:
    with pytest.raises(MonaiFairError) as caught:
        select_components(np.zeros((4, 1)), [0, 1], candidates=[2, 3], groups=[1, 2], n_folds=1)
    assert str(caught.value) == (
        "select_components: 4 problems\n"
        "  1. y: expected one entry for each of 4 rows, got shape (2,)\n"
        "  2. groups: expected one entry for each of 4 rows, got shape (2,)\n"
        "  3. candidates: expected numbers from 1, with 1 among them, got [2, 3]\n"
        "  4. n_folds: expected at least 2, got 1"
    )
    with pytest.raises(MonaiFairError) as caught:
        select_components(np.zeros((8, 1)), candidates=[1, 7])
    assert str(caught.value) == (
        "select_components: expected at least 7 subjects outside each of 5 folds, got 6 of 8; "
        "take fewer candidates or more subjects"
    )


def test_p_of_a_valley_is_that_of_the_weakest_pairs() -> None:
    # at most 1 of 6: (1 + 6) / 64; at most 1 of 7 is rarer
    assert valley_p([np.array([[5, 1, 6]])]) == valley_p([np.array([[6, 1, 5]])]) == pytest.approx(7 / 64)
    assert valley_p([np.array([[2, 0, 9]]), np.array([[3, 1, 9]])]) == pytest.approx(7 / 64)
    # in the first fold the second pair is as full between as at its side; at most 2 of 6: (1 + 6 + 15) / 64
    first, second = np.array([[50, 0, 50], [2, 2, 9]]), np.array([[2, 0, 9], [30, 0, 30]])
    assert valley_p([first, second]) == pytest.approx(22 / 64)
    assert valley_p([np.array([[0, 0, 0]])]) == 1, "no rows show no valley"
    assert np.isnan(valley_p([np.zeros((0, 3), dtype=int)]))


def test_windows_are_laid_around_means_and_the_lowest_point() -> None:
    # Means 0 and 4 of one size and spread: the lowest point is 2, each window is 2 wide: (-1, 1], (1, 3], (3, 5].
    x = np.array([-1.0, 1.0, 3.0, 5.0])[:, None]
    shares = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    held_out = np.array([-1.1, -0.5, 0.9, 1.1, 3.1, 4.0, 4.9, 5.1])[:, None]
    counts = window_counts(x, shares, held_out, np.repeat([0, 1], [4, 4]), np.ones((2, 1)))
    assert counts.tolist() == [[2, 1, 3]]
    assert window_counts(x, shares, held_out, np.full(8, 2), np.ones((2, 1))).tolist() == [[0, 0, 0]]
    same = window_counts(x, np.full((4, 2), 0.5), held_out, np.zeros(8, dtype=int), np.ones((2, 1)))
    assert same.tolist() == [[0, 0, 0]]
    assert window_counts(x, np.ones((4, 1)), held_out, np.zeros(8, dtype=int), np.ones((1, 1))).shape == (0, 3)


@pytest.mark.parametrize("name", ["normal", "exponential", "uniform"])
def test_one_peak_seldom_has_a_valley(name: str) -> None:
    draw = {"normal": "normal", "exponential": "exponential", "uniform": "random"}[name]
    rng = np.random.default_rng(0)
    found = []
    for _ in range(400):
        x = getattr(rng, draw)(size=(200, 1))
        shares = np.eye(2)[(x[:, 0] > np.median(x)).astype(int)]
        held_out = getattr(rng, draw)(size=(100, 1))
        counts = window_counts(x, shares, held_out, np.zeros(100, dtype=int), np.ones((2, 1)))
        found.append(valley_p([counts]) <= 0.05)
    # 5 % and 2.5 Monte Carlo standard errors
    assert np.mean(found) <= 0.05 + 2.5 * np.sqrt(0.05 * 0.95 / 400)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ONE_CLOUD)
def test_one_cloud_of_any_shape_gives_no_subgroups(name: str) -> None:
    tables = []
    for seed in range(60):
        x = ONE_CLOUD[name](np.random.default_rng([7, seed]))
        tables.append(select_components(x, candidates=range(1, 7), seed=seed))
    show(name, tables)
    assert np.mean([found.chosen == 1 for found in tables]) >= 0.95


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", PLANTED)
def test_planted_clouds_are_found_in_most_simulations(name: str) -> None:
    shares, apart, noise, least = PLANTED[name]
    tables = []
    for seed in range(40):
        x, _ = clouds(np.random.default_rng([8, seed]), *shares, apart=apart, noise=noise)
        tables.append(select_components(x, candidates=range(1, 7), seed=seed))
    show(f"{name}; best possible error of two normals {norm.cdf(-apart / 2):.3f}", tables)
    assert np.mean([found.chosen == len(shares) for found in tables]) >= least


def show(title: str, found: list[Selection]) -> None:
    """Print how often each number is chosen, and mean stability by number."""
    chosen = np.bincount([one.chosen for one in found], minlength=7)[1:]
    stability = pd.concat(one.table for one in found).groupby("n_components")["stability"].mean()
    print(f"\n{title}: chosen {chosen.tolist()}, stability {stability.round(2).tolist()}")  # noqa: T201
