"""What HAM10000's own metadata would say about the simulated lesions, in its columns and vocabulary.

The codes fill the vocabulary and no more: the picture depends on ``malignant`` and not on ``dx``. As in the
published label rule for this dataset, ``mel`` and ``akiec`` are positive and every other code is negative.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from monai_fair.simulation.skin_cohort import SkinCohort

POSITIVE_DX = ("mel", "akiec")
METADATA_COLUMNS = ("lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization", "dataset")

# Images per code in HAM10000; dx_type and dataset over the images whose age is known.
_MALIGNANT_DX = {"mel": 1113, "akiec": 327}
_BENIGN_DX = {"nv": 6705, "bkl": 1099, "bcc": 514, "vasc": 142, "df": 115}
_HISTO_ONLY = ("mel", "akiec", "bcc")
_OTHER_DX_TYPE = {"histo": 3380, "follow_up": 3704, "consensus": 853, "confocal": 69}
_DATASETS = {"vidir_molemax": 3952, "vidir_modern": 3310, "rosendahl": 2257, "vienna_dias": 439}
# Per cent, rounded; the sites are the real ones.
_LOCALIZATIONS = {
    "back": 22,
    "lower extremity": 21,
    "trunk": 14,
    "upper extremity": 11,
    "abdomen": 10,
    "face": 7,
    "chest": 4,
    "foot": 3,
    "unknown": 2,
    "neck": 2,
    "scalp": 1,
    "hand": 1,
    "ear": 1,
    "genital": 0.5,
    "acral": 0.5,
}


def record_lesions(
    lesions: pd.DataFrame, flipped: npt.NDArray[np.bool_], cohort: SkinCohort, generator: np.random.Generator
) -> pd.DataFrame:
    """Draw what is on record for each lesion.

    Args:
        lesions: as from :func:`~monai_fair.simulation.skin_sampling.sample_lesions`.
        flipped: True where a malignant lesion is recorded as ``nv``.
        cohort: gives the shares of unknown sex and missing age, both exact after rounding.
        generator: source of randomness.

    Returns:
        One row per lesion: ``dx``, ``dx_type``, ``age`` (NaN when missing), ``sex`` (``male``, ``female``,
        ``unknown``), ``localization``, ``dataset``.

    References:
        Tschandl et al., The HAM10000 dataset, Scientific Data 2018, doi:10.1038/sdata.2018.161.
    """
    count = len(lesions)
    malignant = lesions["malignant"].to_numpy() == 1
    true_dx = np.where(malignant, _draw(_MALIGNANT_DX, count, generator), _draw(_BENIGN_DX, count, generator))
    dx = np.where(flipped, "nv", true_dx)
    dx_type = np.where(np.isin(dx, _HISTO_ONLY), "histo", _draw(_OTHER_DX_TYPE, count, generator))
    return pd.DataFrame(
        {
            "dx": dx,
            "dx_type": dx_type,
            "age": lesions["age"].mask(_exact_share(count, cohort.missing_age, generator)),
            "sex": lesions["sex"].mask(_exact_share(count, cohort.unknown_sex, generator), "unknown"),
            "localization": _draw(_LOCALIZATIONS, count, generator),
            "dataset": _draw(_DATASETS, count, generator),
        }
    )


def _draw(weights: Mapping[str, float], count: int, generator: np.random.Generator) -> npt.NDArray[np.str_]:
    shares = np.array(list(weights.values()), dtype=np.float64)
    return generator.choice(list(weights), size=count, p=shares / shares.sum())


def _exact_share(count: int, share: float, generator: np.random.Generator) -> npt.NDArray[np.bool_]:
    chosen = np.zeros(count, dtype=np.bool_)
    chosen[generator.permutation(count)[: round(share * count)]] = True
    return chosen
