"""Sampled codes: inside the training ellipsoid, made of the cell's own members, reproducible, refused with a reason."""

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from monai_fair.errors import MonaiFairError
from monai_fair.subgroups import CodeSampler, sample_codes

RULES = ("gaussian", "interpolation", "swap")
CELLS = [(0, "a"), (0, "b"), (1, "a"), (1, "b")]


def population(n: int = 120, d: int = 12, *, seed: int = 0) -> tuple[np.ndarray, list[tuple[int, str]]]:
    """Codes with one direction that tells label, one that tells subgroup, and decreasing variance elsewhere."""
    rng = np.random.default_rng(seed)
    cells = [CELLS[place] for place in rng.choice(4, n, p=[0.4, 0.1, 0.1, 0.4])]
    codes = rng.standard_normal((n, d)) * 0.8 ** np.arange(d)
    codes[:, 0] += [3.0 * label for label, _ in cells]
    codes[:, 1] += [3.0 * (group == "b") for _, group in cells]
    return codes + rng.standard_normal(d), cells


def squared_distance(codes: np.ndarray, training: np.ndarray, explained: float) -> tuple[np.ndarray, int]:
    """Mahalanobis distance in the components that hold ``explained``, by eigenvectors of the covariance."""
    values, vectors = np.linalg.eigh(np.cov(training.T))
    values, vectors = values[::-1], vectors[:, ::-1]
    count = int(np.flatnonzero(np.cumsum(values) / values.sum() > explained)[0]) + 1
    along = (codes - training.mean(axis=0)) @ vectors[:, :count]
    return (along**2 / values[:count]).sum(axis=1), count


@settings(deadline=None, max_examples=25, derandomize=True)
@given(st.sampled_from(RULES), st.integers(0, 2**31), st.floats(0.5, 0.95), st.floats(0.9, 0.99), st.integers(60, 120))
def test_no_code_leaves_the_training_ellipsoid_or_its_cell(
    rule: Any, seed: int, explained: float, level: float, n: int
) -> None:
    codes, cells = population(n, seed=seed % 100)
    sampler = CodeSampler(codes, cells, rule=rule, explained=explained, level=level)
    wanted = {cell: 5 for cell in CELLS if not sampler.reason(cell)}
    found = sample_codes(codes, cells, wanted, rule=rule, seed=seed, explained=explained, level=level)
    assert found.codes.shape == (5 * len(wanted), 12)
    squared, count = squared_distance(found.codes, codes, explained)
    limit = chi2.ppf(level, count)
    assert sampler.n_components == count
    assert (squared <= limit * (1 + 1e-9)).all()
    np.testing.assert_allclose(found.distance, np.sqrt(squared / limit), rtol=1e-8)
    assert found.cell == [cell for cell in wanted for _ in range(5)]
    for cell, sources in zip(found.cell, found.sources, strict=True):
        assert {cells[row] for row in sources} == {cell}


def test_an_interpolation_lies_between_its_two_sources() -> None:
    codes, cells = population()
    found = sample_codes(codes, cells, {(0, "b"): 200}, rule="interpolation", seed=1)
    first, second = (codes[[sources[place] for sources in found.sources]] for place in (0, 1))
    np.testing.assert_allclose(found.codes, second + found.mix[:, None] * (first - second), rtol=1e-12)
    assert all(len(set(sources)) == 2 for sources in found.sources)
    assert (found.mix >= 0.2).all()
    assert (found.mix <= 0.8).all()
    # the mean of a^2 + (1 - a)^2 = 1 - 2 a (1 - a) over [0.2, 0.8] is 1 - 2 (0.25 - 0.6^2 / 12) = 0.56; its standard
    # deviation is below 0.06, over 200 draws 0.004
    assert (found.mix**2 + (1 - found.mix) ** 2).mean() == pytest.approx(0.56, abs=0.02)


def test_a_swap_is_a_member_s_code_and_never_the_donor_s() -> None:
    codes, cells = population()
    members = [row for row, cell in enumerate(cells) if cell == (0, "b")]
    sampler = CodeSampler(codes, cells, rule="swap")
    rng = np.random.default_rng(0)
    drawn = [sampler.draw((0, "b"), rng, donor=members[0]) for _ in range(300)]
    assert {draw.sources[0] for draw in drawn} == {row for row in members[1:] if sampler.distance(codes[[row]]) <= 1}
    assert all(np.array_equal(draw.code, codes[draw.sources[0]]) and np.isnan(draw.mix) for draw in drawn)


def test_gaussian_draws_have_the_cell_s_mean_and_the_covariance_within_cells() -> None:
    codes, cells = population(600, 5)
    found = sample_codes(codes, cells, {(1, "a"): 20_000}, rule="gaussian", seed=0, explained=0.9999, level=1 - 1e-12)
    assert found.outside.sum() == 0
    member = np.array([cell == (1, "a") for cell in cells])
    assert set(found.sources) == {tuple(np.flatnonzero(member).tolist())}
    deviations = np.concatenate(
        [codes[rows] - codes[rows].mean(axis=0) for each in CELLS if (rows := [c == each for c in cells])]
    )
    expected = deviations.T @ deviations / (600 - 4)
    spread = np.sqrt(np.diag(expected))
    # standard errors over 20,000 draws: 1 / sqrt(20,000) = 0.007 of the mean, 0.010 of a variance
    np.testing.assert_allclose((found.codes.mean(axis=0) - codes[member].mean(axis=0)) / spread, 0, atol=0.03)
    np.testing.assert_allclose(np.cov(found.codes.T) / np.outer(spread, spread), expected / np.outer(spread, spread),
                               atol=0.05)  # fmt: skip


def test_gaussian_draws_keep_what_tells_cells_apart() -> None:
    """Within cells the second direction varies by 0.8; over all codes by 1.6, which would cross the middle often."""
    codes, cells = population(600)
    middle = codes[:, 1].mean()
    found = sample_codes(codes, cells, {(0, "a"): 300, (0, "b"): 300}, rule="gaussian", seed=0)
    above = found.codes[:, 1] > middle
    assert above[:300].mean() < 0.08
    assert above[300:].mean() > 0.92


@pytest.mark.parametrize("rule", RULES)
def test_what_lies_outside_the_principal_space_is_the_sources(rule: Any) -> None:
    codes, cells = population()
    _, _, directions = np.linalg.svd(codes - codes.mean(axis=0))
    found = sample_codes(codes, cells, {(0, "b"): 20}, rule=rule, seed=0, explained=0.5)
    last = directions[-1]
    weights = [[1.0] if rule == "swap" else [mix, 1 - mix] for mix in found.mix]
    for code, sources, share in zip(found.codes, found.sources, weights, strict=True):
        expected = codes[list(sources)].mean(axis=0) if rule == "gaussian" else share @ codes[list(sources)]
        assert code @ last == pytest.approx(expected @ last, abs=1e-10)


@pytest.mark.parametrize("rule", RULES)
def test_a_seed_gives_one_answer_and_more_codes_leave_the_first_as_they_are(rule: Any) -> None:
    codes, cells = population()
    few, again, more, other = (
        sample_codes(codes, cells, {(0, "b"): count}, rule=rule, seed=seed)
        for count, seed in ((5, 3), (5, 3), (9, 3), (5, 4))
    )
    np.testing.assert_array_equal(few.codes, again.codes)
    np.testing.assert_array_equal(few.codes, more.codes[:5])
    assert few.sources == more.sources[:5]
    assert not np.array_equal(few.codes, other.codes)


def test_draws_outside_are_thrown_away_and_counted() -> None:
    codes, cells = population()
    wide, narrow = (
        sample_codes(codes, cells, {(0, "a"): 40}, rule="gaussian", seed=0, level=level) for level in (0.999999, 0.5)
    )
    assert wide.outside.sum() == 0
    assert narrow.outside.sum() > 40
    same = narrow.outside == 0
    np.testing.assert_array_equal(narrow.codes[same], wide.codes[same])


def test_inputs_are_left_as_they_are_and_no_wanted_code_is_no_code() -> None:
    codes, cells = population()
    before = codes.copy()
    found = sample_codes(codes, cells, {(0, "a"): 0}, rule="gaussian", seed=0)
    assert found.codes.shape == (0, 12)
    np.testing.assert_array_equal(codes, before)


@pytest.mark.parametrize(
    ("wanted", "rule", "message"),
    [
        (
            {"x": 1, "lone": 1},
            "interpolation",
            "codes: 2 problems\n"
            "  1. cell 'x': it has no training subject, so nothing says what its codes look like\n"
            "  2. cell 'lone': it has one training subject, and an interpolation needs two; take rule gaussian or swap",
        ),
        (
            {"x": 1},
            "gaussian",
            "codes: cell 'x': it has no training subject, so nothing says what its codes look like",
        ),
        (
            {"far": 1},
            "swap",
            "cell 'far': expected a code inside the 95 % ellipsoid of the training codes, got none in 1000 draws by "
            "swap; take another rule, or a higher level",
        ),
    ],
)
def test_a_cell_that_cannot_be_sampled_is_refused(wanted: Any, rule: Any, message: str) -> None:
    codes = np.random.default_rng(0).standard_normal((60, 3))
    codes[-1] = 40.0
    cells = ["many"] * 58 + ["lone", "far"]
    with pytest.raises(MonaiFairError) as caught:
        sample_codes(codes, cells, wanted, rule=rule, seed=0)
    assert str(caught.value) == message


def test_the_only_member_cannot_be_swapped_onto_itself() -> None:
    codes, cells = population()
    sampler = CodeSampler(codes, [*cells[:-1], "lone"], rule="swap")
    with pytest.raises(MonaiFairError) as caught:
        sampler.draw("lone", np.random.default_rng(0), donor=len(cells) - 1)
    assert str(caught.value) == "cell 'lone': expected a member other than the donor, got none; take another donor"


def test_every_problem_of_the_arguments_is_named_at_once() -> None:
    with pytest.raises(MonaiFairError) as caught:
        CodeSampler(np.ones((3, 2)), ["a", "b", "c"], rule="mean", explained=1.0, level=0)  # type: ignore[arg-type]
    assert str(caught.value) == (
        "codes: 4 problems\n"
        "  1. rule: expected one of gaussian, interpolation, swap, got 'mean'\n"
        "  2. explained: expected a share between 0 and 1, got 1.0\n"
        "  3. level: expected a share between 0 and 1, got 0\n"
        "  4. expected at least two different codes, got 3 that do not differ"
    )


@pytest.mark.parametrize(
    ("codes", "cells", "message"),
    [
        (np.eye(3), ["a"], "codes: expected codes (n, d) and a cell for each, got shape (3, 3) and 1 cells"),
        (
            np.diag([1.0, np.nan, 2.0]),
            ["a"] * 3,
            "codes: expected finite codes, got 1 rows that are not, first row 1",
        ),
        (
            np.eye(3),
            ["a", "b", "c"],
            "codes: expected a cell of two members or more to see how members differ, got none; take rule swap",
        ),
    ],
)
def test_codes_that_cannot_be_used_are_refused(codes: Any, cells: Any, message: str) -> None:
    with pytest.raises(MonaiFairError) as caught:
        CodeSampler(codes, cells, rule="gaussian")
    assert str(caught.value) == message


def test_a_small_cohort_with_fewer_subjects_than_numbers_in_a_code_is_sampled() -> None:
    codes, _ = population(8, 40)
    cells = list(itertools.islice(itertools.cycle("ab"), 8))
    for rule in RULES:
        found = sample_codes(codes, cells, {"a": 20, "b": 20}, rule=rule, seed=0)
        assert np.isfinite(found.codes).all()
        assert (found.distance <= 1).all()
