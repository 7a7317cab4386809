"""DeLong's interval and paired test on published data with published results.

The data are ``aSAH`` of the R package pROC: 113 patients with an aneurysmal subarachnoid haemorrhage, their outcome,
S100 beta in blood in 0.01 ug/l, and the WFNS grade. Sources: Turck et al., Intensive Care Medicine 2010,
doi:10.1007/s00134-009-1641-y; Robin et al., pROC: an open-source package for R and S+ to analyze and compare ROC
curves, BMC Bioinformatics 2011, doi:10.1186/1471-2105-12-77.
"""

import numpy as np
import pytest
from scipy.stats import norm

from monai_fair.metrics import auc_by_group, logit_interval, paired_auc_difference, placements
from monai_fair.metrics.clusters import clusters_of

GOOD_S100B = """
    13 14 10 4 47 18 10 10 4 8 4 9 11 7 17 7 11 13 19 5 16 14 34 9 50 46 16 7 43 45 11 8 9 8 6 13 10 14 15 6 5 9 4 9 8
    16 9 8 33 11 28 7 10 32 7 5 24 38 10 15 8 14 10 7 4 19 15 47 17 15 50 48
"""
POOR_S100B = """
    13 10 16 12 44 71 49 7 33 9 7 41 35 48 96 25 86 52 207 7 77 30 3 9 23 70 27 71 8 26 13 10 11 22 56 14 58 32 82 74 44
"""
GOOD_WFNS = "111151221221112121134141551124112212122111121211324214115422111312244111"
POOR_WFNS = "32455552521254425552525245441442255225555"

Y = np.repeat([False, True], [72, 41])
S100B = np.array([*GOOD_S100B.split(), *POOR_S100B.split()], dtype=float) / 100
WFNS = np.array([*GOOD_WFNS, *POOR_WFNS], dtype=float)
EVERYONE = np.zeros(113, dtype=int)


def test_auc_and_delong_interval_of_s100b() -> None:
    # pROC: "Area under the curve: 0.7314; 95% CI: 0.6301-0.8326 (DeLong)"
    auc, error = auc_by_group(Y, placements(Y, S100B, EVERYONE), EVERYONE, 1)
    half = norm.ppf(0.975) * error[0]
    found = [round(float(value), 4) for value in (auc[0], auc[0] - half, auc[0] + half)]
    assert found == [0.7314, 0.6301, 0.8326]


def test_the_logit_interval_is_near_and_further_from_one() -> None:
    auc, error = auc_by_group(Y, placements(Y, S100B, EVERYONE), EVERYONE, 1)
    low, high = logit_interval(auc, error)
    assert 0.60 < low[0] < 0.6301
    assert 0.80 < high[0] < 0.8326


def test_paired_comparison_of_two_markers() -> None:
    # pROC's own test of roc.test(wfns, s100b): Z = 2.20898359144091, p = 0.0271757822291882, 95 % CI of the difference
    # 0.0104061769564846 to 0.174214419249478, each to the 1.5e-8 of R's comparison of numbers.
    difference, error = paired_auc_difference(Y, S100B[None], WFNS[None], EVERYONE, 1, clusters_of(EVERYONE, 1, None))
    z = difference[0] / error[0]
    half = norm.ppf(0.975) * error[0]
    assert z == pytest.approx(2.20898359144091, rel=1.5e-8)
    assert 2 * norm.sf(z) == pytest.approx(0.0271757822291882, rel=1.5e-8)
    assert difference[0] - half == pytest.approx(0.0104061769564846, rel=1.5e-8)
    assert difference[0] + half == pytest.approx(0.174214419249478, rel=1.5e-8)
