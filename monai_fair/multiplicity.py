"""Several tests at once: p values adjusted so that the chance of any false alarm stays what it was for one."""

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


def holm(p_values: npt.ArrayLike) -> FloatArray:
    """Return Holm's adjusted p values, which bound the chance of any false alarm in the family.

    Args:
        p_values: shape ``(K,)``; NaN (not tested) stays NaN and does not count as a test.

    Returns:
        Adjusted values in the order given, at most 1, and never smaller than that of a smaller p.

    References:
        Holm, A simple sequentially rejective multiple test procedure, Scand. J. Statist. 1979.
    """
    raw = np.asarray(p_values, dtype=np.float64)
    tested = np.flatnonzero(~np.isnan(raw))
    order = tested[np.argsort(raw[tested], kind="stable")]
    scaled = raw[order] * np.arange(order.size, 0, -1)
    adjusted = np.full(raw.shape, np.nan)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return adjusted
