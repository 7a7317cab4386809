"""What a linear probe reads off features: what is there, nothing where nothing is, and NaN with a reason."""

import numpy as np
import pytest
from scipy.stats import norm

from monai_fair.errors import MonaiFairError
from monai_fair.metrics import Probe, attribute_probe

N = 2000
SPLIT = np.where(np.arange(N) % 2 == 0, "val", "test")


def cohort(distance: float, *, seed: int = 0, levels: int = 2, columns: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    level = rng.integers(levels, size=N)
    x = rng.standard_normal((N, columns))
    x[:, 0] += distance * level
    return x @ np.linalg.qr(rng.standard_normal((columns, columns)))[0] * 100 + 7, np.array(list("abc"))[level]


@pytest.mark.parametrize("distance", [0.0, 1.0, 2.0])
def test_two_normals_are_read_with_the_auc_they_have(distance: float) -> None:
    """The best that can be is Phi(distance / sqrt 2); 1000 rows have a standard error of at most 0.0183."""
    found = attribute_probe(*cohort(distance), SPLIT)
    assert found.auc == pytest.approx(norm.cdf(distance / np.sqrt(2)), abs=4 * 0.0183)
    assert (found.n_fitted, found.n, found.reason) == (1000, 1000, "")


def test_many_columns_without_a_signal_are_not_fitted_to() -> None:
    """200 columns tell 250 rows apart wholly; of rows that were not fitted they tell nothing."""
    rng = np.random.default_rng(1)
    x, level = rng.standard_normal((N, 200)), rng.choice(["f", "m"], N)
    split = np.where(np.arange(N) < 250, "val", "test")
    assert attribute_probe(x, level, split).auc == pytest.approx(0.5, abs=4 * 0.0138)


def test_three_levels_are_each_read_against_the_others() -> None:
    x, level = cohort(6.0, levels=3)
    assert attribute_probe(x, level, SPLIT).auc > 0.9


def test_rows_without_the_attribute_do_not_count() -> None:
    x, level = cohort(1.0)
    level[:100] = ""
    known = level != ""
    found = attribute_probe(x, level, SPLIT)
    assert found == attribute_probe(x[known], level[known], SPLIT[known])
    assert (found.n_fitted, found.n) == (950, 950)


def test_undefined_has_a_reason() -> None:
    x, level = cohort(1.0)
    one = attribute_probe(x, np.full(N, "f"), SPLIT)
    assert np.isnan(one.auc)
    assert one.reason == "expected two levels with 5 rows in val, got f 1000"
    few = np.where(np.arange(N) < 8, "m", "f")
    assert attribute_probe(x, few, SPLIT).reason == "expected two levels with 5 rows in val, got f 996, m 4"
    late = np.where(SPLIT == "test", "a", level)
    assert attribute_probe(x, late, SPLIT).reason == "expected every level in test, got 1"
    assert attribute_probe(x, np.full(N, ""), SPLIT) == Probe(
        pytest.approx(float("nan"), nan_ok=True), 0, 0, "expected two levels with 5 rows in val, got none"
    )


def test_bad_input() -> None:
    x, level = cohort(1.0)
    with pytest.raises(MonaiFairError, match=r"expected finite features .*, got \(2000, 4\), 1999 and 2000"):
        attribute_probe(x, level[1:], SPLIT)
    with pytest.raises(MonaiFairError, match="expected finite features"):
        attribute_probe(np.where(x > 300, np.inf, x), level, SPLIT)
