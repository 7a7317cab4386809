"""What each metric of the audit is: in words, as a formula, what its ends mean, and when it is undefined."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from monai_fair.metrics import calibration, ranking, rates
from monai_fair.metrics.arrays import CountArray, FloatArray

Needs = Literal["positives", "negatives", "both", "cases", "predicted positives", "predicted negatives"]


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        key: its name in results and options.
        short: its abbreviation.
        title: its name.
        words: what it says, in a sentence or two.
        formula: its formula.
        ends: what its lowest and its best value mean.
        undefined: when it is NaN.
        best: its best value, or None where none is better.
        needs: the cases it is computed from, of which a group needs enough.
        of_predictions: function of counts ``(..., 2, 2)``, for a metric that needs a threshold.
        of_scores: function of score counts ``(..., 2, K)`` and scores ``(K,)``, for one that does not.
    """

    key: str
    short: str
    title: str
    words: str
    formula: str
    ends: str
    undefined: str
    best: float | None
    needs: Needs
    of_predictions: Callable[[CountArray], FloatArray] | None = None
    of_scores: Callable[[FloatArray, FloatArray], FloatArray] | None = None

    @property
    def is_probability(self) -> bool:
        """Whether values lie in [0, 1]."""
        return not self.key.startswith("calibration_")


def _rate(name: rates.RateName) -> Callable[[CountArray], FloatArray]:
    return lambda counts: rates.rate(name, counts)


_ALL = (
    Metric(
        "auc",
        "AUC",
        "area under the ROC curve",
        "How often a positive case has a higher score than a negative case of the same group; ties count half. It "
        "needs no threshold.",
        "P(score of a positive > score of a negative) + P(equal) / 2",
        "0.5 is a coin toss, 1 is always.",
        "no positive or no negative case",
        1.0,
        "both",
        of_scores=lambda counts, scores: ranking.area_under_roc(counts),
    ),
    Metric(
        "average_precision",
        "AP",
        "average precision",
        "The area under the precision-recall curve: how clean the cases with the highest scores are. Groups of "
        "different prevalence differ in it even if their cases are ranked alike.",
        "sum over thresholds of (recall - previous recall) x precision",
        "The prevalence is what scores without information give, 1 is every positive above every negative.",
        "no positive case",
        1.0,
        "both",
        of_scores=lambda counts, scores: ranking.average_precision(counts),
    ),
    Metric(
        "tpr",
        "TPR",
        "true positive rate",
        "Of the positive cases, the share that the model calls positive (sensitivity, recall). A lower TPR in a group "
        "means that more of its positive cases are missed.",
        "TP / (TP + FN)",
        "0 is none found, 1 is all found.",
        "no positive case",
        1.0,
        "positives",
        of_predictions=_rate("tpr"),
    ),
    Metric(
        "fpr",
        "FPR",
        "false positive rate",
        "Of the negative cases, the share that the model calls positive (one minus specificity). A higher FPR in a "
        "group means more false alarms for it.",
        "FP / (FP + TN)",
        "0 is no false alarm, 1 is an alarm for each.",
        "no negative case",
        0.0,
        "negatives",
        of_predictions=_rate("fpr"),
    ),
    Metric(
        "tnr",
        "TNR",
        "true negative rate",
        "Of the negative cases, the share that the model calls negative (specificity).",
        "TN / (FP + TN)",
        "0 is an alarm for each, 1 is no false alarm.",
        "no negative case",
        1.0,
        "negatives",
        of_predictions=_rate("tnr"),
    ),
    Metric(
        "ppv",
        "PPV",
        "positive predictive value",
        "Of the cases called positive, the share that is positive (precision). It falls with the prevalence.",
        "TP / (TP + FP)",
        "0 is none of them, 1 is all of them.",
        "no case predicted positive",
        1.0,
        "predicted positives",
        of_predictions=_rate("ppv"),
    ),
    Metric(
        "npv",
        "NPV",
        "negative predictive value",
        "Of the cases called negative, the share that is negative. It rises as the prevalence falls.",
        "TN / (TN + FN)",
        "0 is none of them, 1 is all of them.",
        "no case predicted negative",
        1.0,
        "predicted negatives",
        of_predictions=_rate("npv"),
    ),
    Metric(
        "accuracy",
        "Accuracy",
        "accuracy",
        "The share of cases that the model calls right. A model that always says the more frequent class has that "
        "class's share.",
        "(TP + TN) / n",
        "0 is none right, 1 is all right.",
        "no case",
        1.0,
        "cases",
        of_predictions=_rate("accuracy"),
    ),
    Metric(
        "balanced_accuracy",
        "Balanced accuracy",
        "balanced accuracy",
        "The mean of TPR and TNR, so that both classes count the same.",
        "(TPR + TNR) / 2",
        "0.5 is a coin toss, 1 is all right.",
        "no positive or no negative case",
        1.0,
        "both",
        of_predictions=rates.balanced_accuracy,
    ),
    Metric(
        "f1",
        "F1",
        "F1 score",
        "The harmonic mean of TPR and PPV. It falls with the prevalence.",
        "2 TP / (2 TP + FP + FN)",
        "0 is no positive found, 1 is all right.",
        "no positive case and none predicted positive",
        1.0,
        "both",
        of_predictions=rates.f1_score,
    ),
    Metric(
        "selection_rate",
        "Selection rate",
        "selection rate",
        "The share of cases that the model calls positive. Groups of different prevalence differ in it even if the "
        "model makes no error.",
        "(TP + FP) / n",
        "0 is none called positive, 1 is all.",
        "no case",
        None,
        "cases",
        of_predictions=_rate("selection_rate"),
    ),
    Metric(
        "brier",
        "Brier",
        "Brier score",
        "The mean squared distance between score and truth. It depends on the prevalence.",
        "mean of (score - y)^2",
        "0 is exact, 0.25 is always saying 0.5.",
        "no case",
        0.0,
        "both",
        of_scores=calibration.brier_score,
    ),
    Metric(
        "ece",
        "ECE",
        "expected calibration error",
        "How far the scores are from the share of positives, on average over ten bins of scores of equal width from 0 "
        "to 1. A calibrated model is above 0 too, the more so the fewer cases there are.",
        "sum over bins of n_bin / n x |share of positives - mean score|",
        "0 is right on average in every bin.",
        "no case",
        0.0,
        "both",
        of_scores=calibration.expected_calibration_error,
    ),
    Metric(
        "calibration_intercept",
        "Calibration intercept",
        "calibration intercept",
        "How much the scores are too low (above 0) or too high (below 0) on average, on the logit scale.",
        "a in logit P(y = 1) = a + logit(score)",
        "0 is right on average.",
        "no positive or no negative case",
        0.0,
        "both",
        of_scores=calibration.calibration_intercept,
    ),
    Metric(
        "calibration_slope",
        "Calibration slope",
        "calibration slope",
        "Whether the scores are too extreme (below 1) or too timid (above 1).",
        "b in logit P(y = 1) = a + b logit(score)",
        "1 is spread as it should be, 0 is no information.",
        "no positive or no negative case, all scores equal, or scores that separate the classes",
        1.0,
        "both",
        of_scores=calibration.calibration_slope,
    ),
)
METRICS: Mapping[str, Metric] = {metric.key: metric for metric in _ALL}
