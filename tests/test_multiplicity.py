"""Adjusted p values, by hand and by their laws."""

import numpy as np
import pytest

from monai_fair.multiplicity import holm


def test_holm_by_hand() -> None:
    # Sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1: 0.04, 0.06, 0.06, 0.04; running maximum ends in 0.06.
    np.testing.assert_allclose(holm([0.04, 0.01, 0.03, 0.02]), [0.06, 0.04, 0.06, 0.06])


def test_holm_is_capped_at_one_and_never_falls() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        raw = rng.random(6)
        adjusted = holm(raw)
        assert (adjusted <= 1).all()
        assert (adjusted >= raw).all()
        assert (np.diff(adjusted[np.argsort(raw)]) >= 0).all()


@pytest.mark.parametrize("position", [0, 2])
def test_holm_ignores_what_was_not_tested(position: int) -> None:
    adjusted = holm(np.insert([0.01, 0.5], position, np.nan))
    assert np.isnan(adjusted[position])
    np.testing.assert_allclose(np.delete(adjusted, position), [0.02, 0.5])


def test_holm_of_nothing() -> None:
    assert np.isnan(holm([np.nan])).all()
