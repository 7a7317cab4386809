"""Claims of subgroups: planted ones found, one or none claimed, and nothing seen that must not be seen."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.metrics import adjusted_rand_score

from monai_fair.errors import MonaiFairError
from monai_fair.subgroups import Representation, discover
from monai_fair.subgroups.candidate_fits import CandidateFit
from monai_fair.subgroups.discovery import Discovery, _choose

FloatArray = npt.NDArray[np.float64]
COLUMNS = 60
# a line of blocks, 8 mm apart
POSITIONS = np.stack([8.0 * np.arange(COLUMNS), np.zeros(COLUMNS), np.zeros(COLUMNS)], axis=1)
CENTRE = 40
QUICK: dict[str, Any] = {"null_draws": 39, "n_resamples": 3, "max_components": 3}


def local_rows(seed: int, *, n: int = 200, distance: float = 5.0) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """Smooth variation everywhere, noise in each column, and a kind that differs around one column."""
    rng = np.random.default_rng(seed)
    member = rng.random(n) < 0.4
    apart = (POSITIONS[:, :1] - POSITIONS[:, 0]) / 60.0
    smooth = rng.standard_normal((n, COLUMNS)) @ np.linalg.cholesky(np.exp(-0.5 * apart**2) + 1e-8 * np.eye(COLUMNS)).T
    effect = distance * np.exp(-0.5 * ((POSITIONS[:, 0] - POSITIONS[CENTRE, 0]) / 8.0) ** 2)
    return 0.8 * smooth + 0.6 * rng.standard_normal((n, COLUMNS)) + np.outer(member - 0.5, effect), member


def cloud_rows(seed: int, *, n: int = 200, distance: float = 8.0) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """Two normal clouds in 12 dimensions, apart along a direction of no column."""
    rng = np.random.default_rng(seed)
    member = rng.random(n) < 0.4
    return rng.standard_normal((n, 12)) + np.outer(member, np.full(12, distance / np.sqrt(12))), member


def named(values: FloatArray, kind: str = "log_jacobian") -> Representation:
    return Representation(kind, [f"sub-{row:03d}" for row in range(len(values))], values)


def search(*rows: Representation, fitted: int = 140, **options: Any) -> Discovery:
    return discover(rows, rows[0].subject_ids[:fitted], positions={"log_jacobian": POSITIONS}, **{**QUICK, **options})


def test_a_local_kind_is_claimed_and_recognised_in_subjects_that_were_not_fitted() -> None:
    x, member = local_rows(0)
    found = search(named(x), null_draws=99)
    local, mixture = found.candidates
    assert (found.chosen, local.method, local.reason) == (0, "local", "")
    assert found.place is not None
    assert abs(found.place[0] - POSITIONS[CENTRE, 0]) <= 8.0
    # the scan's p is the least that 99 draws allow, and larger than that of the valley; Holm doubles it
    assert (local.p, local.p_holm) == (0.01, 0.02)
    assert local.valley_p < 0.01
    assert local.stability > 0.9
    assert mixture.reason == "no number of clouds above one is stable and has valleys between them"
    assert (mixture.p, mixture.n_components, mixture.sizes) == (1.0, 1, (140,))
    assert found.fitted.tolist() == [True] * 140 + [False] * 60
    assert adjusted_rand_score(member[140:], found.subgroup[140:]) > 0.9
    # S1 is the larger one; the planted kind has 40 % of the subjects
    assert found.names == ["S1", "S2"]
    first = [name == "S1" for name in found.subgroup[:140]]
    assert (sum(first), 140 - sum(first)) == local.sizes
    assert np.mean(member[:140][first]) < 0.1
    np.testing.assert_allclose(found.membership.sum(axis=1), 1.0)


def test_clouds_are_claimed_where_columns_have_no_place() -> None:
    x, member = cloud_rows(0)
    found = search(named(x, "codes"))
    (only,) = found.candidates  # local needs positions
    assert (only.representation, only.method, only.n_components, only.p) == ("codes", "mixture", 2, only.valley_p)
    assert only.p_holm == only.p < 0.001
    assert found.place is None
    assert adjusted_rand_score(member[140:], found.subgroup[140:]) > 0.9


def test_nothing_is_claimed_of_one_population() -> None:
    x, _ = local_rows(1, distance=0.0)
    found = search(named(x), null_draws=99)
    assert found.chosen is None
    assert found.place is None
    assert all(candidate.reason for candidate in found.candidates)
    np.testing.assert_array_equal(found.membership, np.ones((200, 1)))
    assert set(found.subgroup) == {"S1"}


def test_rows_that_are_not_fitted_change_no_bit_of_the_fit() -> None:
    x, _ = local_rows(2)
    codes, _ = cloud_rows(2)
    first = search(named(x), named(codes, "codes"))
    poisoned, other = x.copy(), codes.copy()
    poisoned[140:] = 1e6 * np.random.default_rng(0).standard_normal((60, COLUMNS))
    other[140:] = -1e6
    second = search(named(poisoned), named(other, "codes"))
    third = search(named(x[:140]), named(codes[:140], "codes"))  # the rows are not there at all
    for again in (second, third):
        assert repr(again.candidates) == repr(first.candidates)  # NaN is no equal of itself
        np.testing.assert_array_equal(again.membership[:140], first.membership[:140])
    assert not np.array_equal(second.membership[140:], first.membership[140:])


def test_the_order_of_subjects_and_units_changes_nothing() -> None:
    x, _ = local_rows(3)
    first = search(named(x))
    order = np.random.default_rng(0).permutation(200)
    mixed = Representation("log_jacobian", [first.subject_ids[row] for row in order], x[order])
    fitted = [first.subject_ids[row] for row in order if row < 140]
    again = discover([mixed], fitted, positions={"log_jacobian": POSITIONS}, **QUICK)
    assert repr(again.candidates) == repr(first.candidates)
    np.testing.assert_array_equal(again.membership, first.membership[order])
    clouds, _ = cloud_rows(3)
    one, other = (search(named(gain * clouds, "codes")) for gain in (1.0, 1024.0))  # a power of two rounds nothing
    assert one.candidates == other.candidates
    assert one.subgroup == other.subgroup


def test_more_candidates_make_a_claim_no_easier() -> None:
    x, _ = local_rows(4)
    noise = np.random.default_rng(0).standard_normal((200, 6))
    alone = search(named(x), methods=("local",), min_stability=0.0)
    beside = search(named(x), named(noise, "codes"), named(noise[:, :3], "embeddings"), min_stability=0.0)
    assert [candidate.representation for candidate in beside.candidates] == ["log_jacobian"] * 2 + [
        "codes",
        "embeddings",
    ]
    assert beside.candidates[0].p == alone.candidates[0].p == alone.candidates[0].p_holm == 1 / 40
    # the smallest of four p values counts four times: above 0.05, so that nothing is claimed any more
    assert beside.candidates[0].p_holm == pytest.approx(4 / 40)
    assert alone.chosen == 0
    assert beside.chosen is None
    assert beside.candidates[0].reason == "p 0.1, adjusted for all candidates, is above 0.05"


def fit(p: float, stability: float, reason: str = "") -> CandidateFit:
    return CandidateFit(2, p, p, stability, lambda rows: np.ones((len(rows), 2)) / 2, reason)


def test_of_several_findings_p_then_stability_then_order_decides() -> None:
    nothing = "all 20 fitted rows are the same"
    fits = [fit(0.008, 0.99), fit(1e-9, 0.7), fit(0.001, 0.9), fit(0.005, 0.9), fit(0.2, 0.3)]
    fits.append(fit(np.nan, np.nan, nothing))
    adjusted = np.array([0.016, 5e-9, 0.004, 0.015, 0.2, np.nan])
    chosen, reasons = _choose(fits, adjusted, 0.05, 0.6, floor=0.005)
    equal = "another candidate is as stable, and its p no larger or below 0.005 too"
    assert chosen == 2
    assert reasons == [
        "another candidate has a smaller p",
        equal,
        "",
        equal,
        "p 0.2, adjusted for all candidates, is above 0.05; stability 0.30 is below 0.6",
        nothing,
    ]


def test_rows_without_differences_are_no_candidates() -> None:
    x, _ = local_rows(5)
    same = np.full((200, 3), 7.1)
    same[140:] = np.random.default_rng(0).standard_normal((60, 3))  # only rows that are not fitted differ
    found = search(named(x), named(same, "codes"), methods=("mixture",))
    candidate = found.candidates[1]
    assert (candidate.reason, candidate.sizes) == ("all 140 fitted rows are the same", (140,))
    assert np.isnan([candidate.p, candidate.p_holm, candidate.stability]).all()
    assert found.candidates[0].p_holm == found.candidates[0].p  # what was not tested does not count


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": ("kmeans",)}, "discover: methods: expected names of local, mixture, got 'kmeans'"),
        ({"methods": ()}, "discover: methods: expected at least one of local, mixture, each once, got ''"),
        ({"alpha": 0.0}, "discover: alpha: expected a number between 0 and 1, got 0.0"),
        ({"n_resamples": 1}, "discover: n_resamples: expected at least 2, got 1"),
        ({"null_draws": 0}, "discover: null_draws: expected at least 1, got 0"),
        (
            {"fitted": 2},
            "discover: fitted_on: expected at least 20 different subjects, got 2; fewer show no shape to speak of",
        ),
    ],
)
def test_options_that_cannot_be_used_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(MonaiFairError) as caught:
        search(named(local_rows(0)[0]), **options)
    assert str(caught.value) == message


def test_rows_that_cannot_be_used_are_named_at_once() -> None:
    x, _ = local_rows(0, n=40)
    broken = x.copy()
    broken[3, 3] = np.inf
    with pytest.raises(MonaiFairError) as caught:
        discover(
            [named(broken[:, :5]), named(x[:39], "codes"), named(x, "codes")],
            [*named(x).subject_ids, "else"],
            positions={"log_jacobian": POSITIONS},
        )
    assert str(caught.value) == (
        "discover: 5 problems\n"
        "  1. log_jacobian: expected finite numbers, got 1 rows with others\n"
        "  2. log_jacobian: expected a position for each of 5 columns, got 60\n"
        "  3. codes: expected the subjects of log_jacobian, once each, got others; leave them out\n"
        "  4. expected each representation once, got log_jacobian, codes, codes\n"
        "  5. fitted_on: expected subjects with rows, 1 have none, such as 'else'"
    )
    with pytest.raises(MonaiFairError, match="expected at least one representation, got none"):
        discover([], [])
    with pytest.raises(MonaiFairError, match="'local' needs positions, such as those of log_jacobian"):
        search(named(x, "codes"), fitted=40, methods=("local",))


def null_rows(kind: int, seed: int) -> FloatArray:
    """One population: normal, heavy-tailed, skewed, or flat."""
    x, _ = local_rows(seed, distance=0.0)
    rng = np.random.default_rng([seed, kind])
    if kind == 1:
        return x / np.sqrt(rng.chisquare(5, size=(len(x), 1)) / 5)
    if kind == 2:
        return x + np.outer(rng.exponential(size=len(x)), np.full(COLUMNS, 2.0))
    if kind == 3:
        return x + np.outer(rng.uniform(-2, 2, size=len(x)), np.linspace(0, 2, COLUMNS))
    return x


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", range(4))
def test_false_claims_are_rare(kind: int) -> None:
    draws = 200
    options = {"fitted": 200, "null_draws": 39, "n_resamples": 3}
    claims = sum(search(named(null_rows(kind, seed)), **options).chosen is not None for seed in range(draws))
    # at most 5 %; each p is tested at 2.5 %, and a claim needs a valley and stability too
    assert claims <= 10


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_planted_kind_is_found() -> None:
    scores = []
    for seed in range(30):
        x, member = local_rows(seed)
        found = search(named(x), n_resamples=5)
        scores.append(adjusted_rand_score(member[140:], found.subgroup[140:]))
    assert np.mean(np.array(scores) > 0.85) >= 0.9
