"""Names for the array types of this package."""

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
# Counts of samples are whole numbers; sums of sample weights are not.
CountArray = npt.NDArray[np.int64] | npt.NDArray[np.float64]
