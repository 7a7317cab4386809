import numpy as np
import pytest
from scipy.stats import ks_2samp, norm, t
from sklearn.metrics import average_precision_score

from monai_fair.metrics.arrays import BoolArray, FloatArray, IntArray
from monai_fair.metrics.groups import Grouping
from monai_fair.metrics.kinds import Kinds, kinds_of, values_of
from monai_fair.metrics.resampling import range_margin, resample, resampled_interval
from monai_fair.metrics.samples import Samples, canonical_samples
from monai_fair.metrics.workers import CHUNK

QUANTITIES: list[tuple[str, int | None]] = [("average_precision", None), ("brier", None), ("f1", 0)]


def grouping(codes: IntArray) -> Grouping:
    names = tuple("abc"[: codes.max() + 1])
    return Grouping(("site",), tuple((name,) for name in names), names, codes)


def prepared(y: BoolArray, score: FloatArray, subject: IntArray, codes: IntArray) -> tuple[Samples, Kinds]:
    samples = canonical_samples(y, [score], subject, [grouping(codes)])
    ordered = score[samples.rows]
    return samples, kinds_of(samples.y, ordered, ordered[None] >= 0.5)


def draw(subjects: int = 40) -> tuple[BoolArray, FloatArray, IntArray, IntArray]:
    """Two images per subject, who is in one of two groups."""
    rng = np.random.default_rng(0)
    subject = np.repeat(np.arange(subjects), 2)
    codes = (np.arange(subjects) % 2)[subject]
    y = rng.random(2 * subjects) < 0.3 + 0.3 * codes
    score = np.round(np.clip(0.3 + 0.3 * y + 0.2 * rng.normal(size=2 * subjects), 0.01, 0.99), 2)
    return y, score, subject, codes


def bootstrapped(count: int) -> FloatArray:
    samples, kinds = prepared(*draw())
    return resample(
        samples, [kinds], lambda counts: [values_of(kinds, counts[0], QUANTITIES)], resamples=count, seed=0
    )[0]


def test_quantities_are_distributed_as_in_a_slow_bayesian_bootstrap() -> None:
    # Rubin's bootstrap gives subjects Dirichlet(1, ..., 1) shares; written here with sorted uniform numbers.
    y, score, subject, codes = draw()
    rng, slow = np.random.default_rng(1), []
    for _ in range(1500):
        shares = np.diff(np.sort(rng.random(39)), prepend=0.0, append=1.0)
        row = []
        for group in (0, 1):
            at = codes == group
            truth, value, weight = y[at], score[at], shares[subject][at]
            hit = value >= 0.5
            f1 = 2 * weight[truth & hit].sum() / (weight[truth].sum() + weight[hit].sum())
            brier = np.average((value - truth) ** 2, weights=weight)
            row.append([average_precision_score(truth, value, sample_weight=weight), brier, f1])
        slow.append(row)
    expected, found = np.array(slow).transpose(0, 2, 1), bootstrapped(3000)
    for quantity in range(3):
        for group in (0, 1):
            # 1 in 1,000 pairs of samples of the same law is further apart.
            assert ks_2samp(found[:, quantity, group], expected[:, quantity, group]).pvalue > 1e-3


def test_images_of_a_subject_get_one_weight_and_no_group_vanishes() -> None:
    # One subject in group 0, with a positive and a negative image: they weigh the same in every resample.
    y, score = np.array([1, 0, 1, 0, 1], bool), np.array([0.9, 0.2, 0.7, 0.4, 0.3])
    samples, kinds = prepared(y, score, np.array([0, 0, 1, 2, 3]), np.array([0, 0, 1, 1, 1]))
    counts = resample(samples, [kinds], lambda found: [found[0].sum(axis=-1)], resamples=200, seed=0)[0]
    assert counts.shape == (200, 2, 2)
    np.testing.assert_array_equal(counts[:, 0, 0], counts[:, 0, 1])
    assert (counts > 0).all()
    # weights have mean 1 and variance 1; 4 standard errors
    assert counts[:, 0, 0].mean() == pytest.approx(1, abs=4 / np.sqrt(200))


def test_runs_and_seeds_share_their_weights() -> None:
    samples, kinds = prepared(*draw())
    first, second = resample(
        samples, [kinds, kinds], lambda counts: [counts[0], counts[1]], resamples=CHUNK + 3, seed=4
    )
    np.testing.assert_array_equal(first, second)


def test_fewer_resamples_are_the_first_of_more() -> None:
    few, many = bootstrapped(2 * CHUNK), bootstrapped(3 * CHUNK)
    np.testing.assert_array_equal(many[: 2 * CHUNK], few)
    assert not np.array_equal(many[:CHUNK], many[CHUNK : 2 * CHUNK])


def test_interval_by_hand() -> None:
    # Resamples -1, -0.99, ..., 1 around a centre of 0: half lie below, no shift. With m = 5 subjects and 80 %, the
    # percentiles are Phi(+- sqrt(5/4) t(0.9, 4)) = Phi(+- 1.714) = 0.9567; the grid's quantile is 2 x 0.9567 - 1.
    resampled = np.linspace(-1, 1, 201)
    low, high = resampled_interval(np.array(0.3), np.array(0.0), resampled, 5, confidence=0.8)
    end = 2 * norm.cdf(np.sqrt(5 / 4) * t.ppf(0.9, 4)) - 1
    assert 0.91 < end < 0.92
    assert (float(low), float(high)) == pytest.approx((0.3 - end, 0.3 + end), abs=1e-12)


def test_interval_is_shifted_by_the_share_below() -> None:
    # 40 of 201 resamples are below -0.6 and one is equal: z0 = Phi^-1(40.5 / 201), and percentiles move by 2 z0.
    resampled = np.linspace(-1, 1, 201)
    low, high = resampled_interval(np.array(-0.6), resampled[40], resampled, 10**9, confidence=0.95)
    shift = 2 * norm.ppf(40.5 / 201)
    expected = [2 * norm.cdf(shift + side * 1.959963984540054) - 1 for side in (-1, 1)]
    assert (float(low), float(high)) == pytest.approx(tuple(expected), abs=1e-7)


@pytest.mark.parametrize("position", [0, 2])
def test_what_has_no_interval_is_nan_and_nothing_else(position: int) -> None:
    resampled = np.random.default_rng(0).normal(size=(100, 3))
    expected = [index == position for index in range(3)]
    nan_at, one_at = np.zeros(3), np.full(3, 9.0)
    nan_at[position], one_at[position] = np.nan, 1.0
    for value, subjects in ((nan_at, np.full(3, 9.0)), (np.zeros(3), one_at)):
        ends = resampled_interval(value, np.zeros(3), resampled, subjects, confidence=0.95)
        assert [np.isnan(end).tolist() for end in ends] == [expected, expected]


def test_undefined_resamples_are_left_out_of_percentiles() -> None:
    resampled = np.linspace(-1, 1, 201)
    with_nan = np.concatenate([resampled, np.full(50, np.nan)])
    ranges = np.abs(resampled)
    assert range_margin(np.abs(with_nan), 8, confidence=0.9) == range_margin(ranges, 8, confidence=0.9)


def test_a_constant_quantity_has_an_interval_of_no_length() -> None:
    ends = resampled_interval(np.array(0.25), np.array(0.25), np.full(100, 0.25), 7, confidence=0.95)
    assert [float(end) for end in ends] == [0.25, 0.25]


def test_range_margin_by_hand() -> None:
    # The 90 % quantile of 0, 0.01, ..., 1 is 0.9, widened by sqrt(5/4) t(0.95, 4) / z(0.95).
    ranges = np.linspace(0, 1, 101)[:, None]
    found = range_margin(ranges, 5, confidence=0.9)
    assert found == pytest.approx([0.9 * np.sqrt(5 / 4) * t.ppf(0.95, 4) / norm.ppf(0.95)], abs=1e-12)
    assert np.isnan(range_margin(ranges, 1, confidence=0.9)).tolist() == [True]
    assert np.isnan(range_margin(ranges, np.nan, confidence=0.9)).tolist() == [True]
