import numpy as np
import pytest
from scipy.stats import binomtest, t, ttest_1samp

from monai_fair.metrics import t_interval, wilson_interval
from monai_fair.metrics.intervals import mean_of_rates_interval, student_interval


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_wilson_equals_scipy_for_every_count(confidence: float) -> None:
    for trials in (1, 2, 9, 40, 500):
        counts = np.arange(trials + 1)
        low, high = wilson_interval(counts, trials, confidence=confidence)
        for count in range(0, trials + 1, max(1, trials // 7)):
            expected = binomtest(count, trials).proportion_ci(confidence, method="wilson")
            assert (low[count], high[count]) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_by_hand() -> None:
    # 1 of 2 with z = 1.96: centre 0.5; half = z / (1 + z^2/2) * sqrt(1/8 + z^2/16) = 0.405470...
    z = 1.959963984540054
    half = z / (1 + z**2 / 2) * np.sqrt(0.25 / 2 + z**2 / 16)
    low, high = wilson_interval(1, 2)
    assert (float(low), float(high)) == pytest.approx((0.5 - half, 0.5 + half), abs=1e-12)


def test_wilson_ends_are_exact() -> None:
    low, high = wilson_interval([0, 7], [7, 7])
    assert low[0] == 0.0
    assert high[1] == 1.0
    assert high[0] < 1.0
    assert low[1] > 0.0


def test_wilson_without_trials_is_nan_wherever_it_stands() -> None:
    for position in (0, 2):
        trials = np.array([5, 5, 5])
        trials[position] = 0
        low, high = wilson_interval(np.minimum(2, trials), trials)
        assert np.isnan(low).tolist() == (trials == 0).tolist()
        assert np.isnan(high).tolist() == (trials == 0).tolist()


def test_wilson_refuses_impossible_counts() -> None:
    with pytest.raises(
        ValueError, match=r"^expected successes from 0 to the number of trials, got .* check the counts$"
    ):
        wilson_interval([3], [2])


def test_t_interval_equals_scipy() -> None:
    values = np.array([0.71, 0.74, 0.69, 0.77])
    expected = ttest_1samp(values, 0).confidence_interval(0.95)
    mean, low, high = t_interval(values)
    assert float(mean) == pytest.approx(values.mean(), abs=1e-15)
    assert (float(low), float(high)) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_t_interval_by_hand() -> None:
    # Two values 0 and 2: mean 1, sd sqrt 2, standard error 1, t(0.975, 1) = tan(0.475 pi) = 12.7062.
    _, low, high = t_interval(np.array([0.0, 2.0]))
    assert (float(low), float(high)) == pytest.approx((1 - np.tan(0.475 * np.pi), 1 + np.tan(0.475 * np.pi)))


def test_t_interval_of_one_seed_has_no_ends() -> None:
    mean, low, high = t_interval(np.array([[0.4, 0.6]]))
    np.testing.assert_array_equal(mean, [0.4, 0.6])
    assert np.isnan(low).all()
    assert np.isnan(high).all()


def test_t_interval_stays_inside_its_bounds() -> None:
    _, low, high = t_interval(np.array([0.02, 0.98]), bounds=(0.0, 1.0))
    assert (float(low), float(high)) == (0.0, 1.0)


def test_mean_of_two_rates_by_hand() -> None:
    # Distances to the lower ends 0.3 and 0.4, to the upper ones 0.06 and 0.08: roots 0.5 and 0.1, halved.
    first, second = (np.array(part) for part in ([0.8, 0.5, 0.86], [0.6, 0.2, 0.68]))
    low, high = mean_of_rates_interval(tuple(first), tuple(second))
    assert (float(low), float(high)) == pytest.approx((0.7 - 0.25, 0.7 + 0.05), abs=1e-12)


def test_mean_of_rates_of_one_and_zero_stays_in_range() -> None:
    low, high = mean_of_rates_interval((1.0, 0.9, 1.0), (1.0, 0.8, 1.0))
    assert 0.8 < float(low) < float(high) == 1.0


def test_student_interval_by_formula_and_where_it_is_undefined() -> None:
    low, high = student_interval(np.zeros(3), np.full(3, 2.0), np.array([0.0, 4.0, np.nan]), confidence=0.9)
    assert np.isnan(low).tolist() == np.isnan(high).tolist() == [True, False, True]
    assert (low[1], high[1]) == pytest.approx((-2 * t.ppf(0.95, 4), 2 * t.ppf(0.95, 4)), abs=1e-12)
