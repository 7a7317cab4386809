"""What each measure of neural collapse says: words, formula, and where it goes when features collapse.

``mu_k`` are class means, ``mu_G`` their unweighted mean, ``M`` the rows ``mu_k - mu_G``, ``W`` the rows ``w_k`` of the
last layer, ``Sigma_W = mean_i (h_i - mu_{y_i}) (.)^T``, ``Sigma_B = mean_k (mu_k - mu_G) (.)^T``.
"""

from dataclasses import dataclass

_MOUHEB = "Mouheb, Elbatel, Klein, Bron, MICCAI 2024, arXiv:2407.05843"
_PAPYAN = "Papyan, Han, Donoho, PNAS 2020, arXiv:2008.08186"
_REVIEW = "Kothapalli, TMLR 2023, arXiv:2206.04041"
_SUKENIK = "Sukenik, Mondelli, Lampert, NeurIPS 2023, arXiv:2305.13165"
_GALANTI = "Galanti, Gyorgy, Hutter, ICLR 2022, arXiv:2112.15121"
_TIRER = "Tirer, Huang, Niles-Weed, ICML 2023, arXiv:2210.16658"
_HERE = "monai_fair"


@dataclass(frozen=True)
class CollapseMeasure:
    """A measure.

    Attributes:
        words: what it measures.
        formula: how it is computed.
        collapsed: its value where features have collapsed.
        source: the paper; ``monai_fair`` for substitutes and extensions of this package.
    """

    words: str
    formula: str
    collapsed: float
    source: str


# The uncentred measures go to these ends where features are not negative, as after a ReLU.
COLLAPSE_MEASURES: dict[str, CollapseMeasure] = {
    "nc1_distance": CollapseMeasure(
        "mean distance of a feature vector from the mean of its class", "S = mean_i |h_i - mu_{y_i}|", 0, _MOUHEB
    ),
    "nc1_normalized": CollapseMeasure(
        "the same in units of the distance between class means (their mean distance for more than two)",
        "S / mean_{k<k'} |mu_k - mu_k'|",
        0,
        _MOUHEB,
    ),
    "nc1_pinv": CollapseMeasure(
        "scatter within classes in units of that between them", "tr(Sigma_W Sigma_B^+) / K", 0, _PAPYAN
    ),
    "nc1_trace_quotient": CollapseMeasure(
        "total variance within classes over that between them", "tr(Sigma_W) / tr(Sigma_B)", 0, _TIRER
    ),
    "nc1_cdnv": CollapseMeasure(
        "class-distance normalised variance",
        "mean_{k<k'} (V_k + V_k') / (2 |mu_k - mu_k'|^2) with V_k the mean of |h_i - mu_k|^2 in class k",
        0,
        _GALANTI,
    ),
    "nc1_within_configuration": CollapseMeasure(
        "mean distance of a feature vector from the mean of its class in its own group",
        "mean_i |h_i - mu_{y_i,a_i}|",
        0,
        _HERE,
    ),
    "nc1_within_configuration_normalized": CollapseMeasure(
        "the same in units of the distance between class means",
        "mean_i |h_i - mu_{y_i,a_i}| / mean_{k<k'} |mu_k - mu_k'|",
        0,
        _HERE,
    ),
    "nc2_equinorm": CollapseMeasure(
        "spread of the lengths of centred class means", "std_k |mu_k - mu_G| / mean_k |mu_k - mu_G|", 0, _PAPYAN
    ),
    "nc2_equiangular": CollapseMeasure(
        "distance of the angles of centred class means from equal and widest",
        "mean_{k<k'} |cos(mu_k - mu_G, mu_k' - mu_G) + 1 / (K - 1)|",
        0,
        _PAPYAN,
    ),
    "nc2_etf_error": CollapseMeasure(
        "distance of the centred class means from a simplex frame",
        "| M M^T / |M M^T|_F - (I - 1 1^T / K) / sqrt(K - 1) |_F",
        0,
        _REVIEW,
    ),
    "nc2_equinorm_weighted": CollapseMeasure(
        "spread of the distances of class means from the mean of all samples",
        "as nc2_equinorm, with the mean of all samples for mu_G",
        0,
        _HERE,
    ),
    "nc2_equinorm_uncentred": CollapseMeasure(
        "spread of the lengths of class means", "std_k |mu_k| / mean_k |mu_k|", 0, _HERE
    ),
    "nc2_cosine": CollapseMeasure(
        "mean cosine of class means, uncentred; -1 / (K - 1) where they are centred by themselves",
        "mean_{k<k'} cos(mu_k, mu_k')",
        0,
        _HERE,
    ),
    "nc2_singular_ratio": CollapseMeasure(
        "largest over smallest singular value of the class means, uncentred", "s_1 / s_K of (mu_k)_k", 1, _SUKENIK
    ),
    "nc2_weight_balance": CollapseMeasure(
        "how far the rows of the classifier are from cancelling each other", "|sum_k w_k| / sum_k |w_k|", 0, _HERE
    ),
    "nc2_weight_equinorm": CollapseMeasure(
        "spread of the lengths of the classifier's rows", "std_k |w_k| / mean_k |w_k|", 0, _PAPYAN
    ),
    "nc2_weight_equiangular": CollapseMeasure(
        "distance of the angles of the classifier's rows from equal and widest",
        "mean_{k<k'} |cos(w_k, w_k') + 1 / (K - 1)|",
        0,
        _PAPYAN,
    ),
    "nc3_direction": CollapseMeasure(
        "distance of the directions of classifier and centred class means",
        "mean_k | (mu_k - mu_G) / |mu_k - mu_G| - w_k / |w_k| |",
        0,
        _MOUHEB,
    ),
    "nc3_cosine": CollapseMeasure(
        "cosine of classifier and centred class means", "mean_k cos(w_k, mu_k - mu_G)", 1, _HERE
    ),
    "nc3_etf_error": CollapseMeasure(
        "distance of classifier times centred class means from a simplex frame",
        "| M W^T / |M W^T|_F - (I - 1 1^T / K) / sqrt(K - 1) |_F",
        0,
        _REVIEW,
    ),
    "nc3_self_duality": CollapseMeasure(
        "distance of classifier and centred class means, each of length 1", "| W / |W|_F - M / |M|_F |_F^2", 0, _PAPYAN
    ),
    "nc3_sine": CollapseMeasure(
        "sine of the angle of classifier and class means, uncentred, weighted by |w_k|",
        "sum_k |w_k| sin angle(w_k, mu_k) / sum_k |w_k|",
        0,
        _SUKENIK,
    ),
    "nc4_disagreement": CollapseMeasure(
        "share of samples where the classifier does not choose the nearest class mean",
        "1 - mean_i [argmax_k (w_k . h_i + b_k) = argmin_k |h_i - mu_k|]",
        0,
        _PAPYAN,
    ),
    "nc4_disagreement_without_bias": CollapseMeasure(
        "the same without the classifier's bias",
        "1 - mean_i [argmax_k w_k . h_i = argmin_k |h_i - mu_k|]",
        0,
        _MOUHEB,
    ),
    "error": CollapseMeasure(
        "share of samples where the classifier differs from the label",
        "mean_i [argmax_k (w_k . h_i + b_k) != y_i]",
        0,
        _HERE,
    ),
    "mislabelled_to_label": CollapseMeasure(
        "mean distance of mislabelled samples from the mean of the class of their label",
        "mean |h_i - mu_{y_i}|",
        0,
        _HERE,
    ),
    "mislabelled_to_other": CollapseMeasure(
        "mean distance of mislabelled samples from the mean of the other one of two classes; in collapse the distance "
        "of the means",
        "mean |h_i - mu_{1-y_i}|",
        float("nan"),
        _HERE,
    ),
    "mislabelled_ratio": CollapseMeasure(
        "the first over the second: below 1 the mislabelled are nearer to what their label says",
        "mislabelled_to_label / mislabelled_to_other",
        0,
        _HERE,
    ),
}
