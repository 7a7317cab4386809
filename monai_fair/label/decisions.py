"""From scores to a decision by the threshold that applies to a patient's group, and where that one is from."""

import math
from collections.abc import Sequence
from typing import Any

from monai_fair.errors import LabelError
from monai_fair.label.demographics import Known
from monai_fair.metrics import Thresholds

_DEFAULT = 0.5
_ROUNDING = 1e-6  # of a mean or softmax in float32


def decide(
    scores: Sequence[float], labels: Sequence[str], thresholds: Thresholds | None, known: Known
) -> dict[str, Any]:
    """Return the decision on one image, as JSON has it.

    Of two classes the second is decided for where its score is at least the threshold of the patient's group. Where
    the group is not known, or was not there when thresholds were fitted, the pooled threshold applies, and it is said.
    Of several classes the one of the highest score is taken; no threshold applies to these.

    Args:
        scores: of each class, or of the second of two alone; in [0, 1].
        labels: names of the classes.
        thresholds: of the model, or ``None`` where none are stored: 0.5 applies then.
        known: attributes of the patient.

    Returns:
        ``label`` (index of the class) and ``decision`` (its name), both ``None`` where there is no threshold;
        ``threshold``, ``threshold_source``, and ``threshold_counts``, the positives and negatives it was fitted on;
        ``attributes`` of the patient with ``attribute_sources``; ``missing``: attributes that thresholds are by and
        that are not known.

    Raises:
        LabelError: if a score is no probability: a threshold would be compared with something else.
    """
    if not all(-_ROUNDING <= score <= 1 + _ROUNDING for score in scores):
        raise LabelError(
            f"scores: expected probabilities, in [0, 1], got {list(scores)}; let the bundle's inferer or network end "
            "with a sigmoid or softmax"
        )
    asked = thresholds.attributes if thresholds is not None and len(labels) == 2 else ()
    missing = [name for name in asked if name not in known.values]
    counts: tuple[int, int] | None = None
    threshold: float | None = None
    if len(labels) > 2:
        label: int | None = max(range(len(scores)), key=lambda place: scores[place])
        source = f"none: the highest score of {len(labels)} classes"
    else:
        value, source, counts = _threshold(thresholds, known, missing)
        threshold = None if math.isnan(value) else value
        label = None if threshold is None else int(scores[-1] >= threshold)
    return {
        "label": label,
        "decision": None if label is None else labels[label],
        "threshold": threshold,
        "threshold_source": source,
        "threshold_counts": counts,
        "attributes": dict(known.values),
        "attribute_sources": dict(known.sources),
        "missing": missing,
    }


def _threshold(
    thresholds: Thresholds | None, known: Known, missing: Sequence[str]
) -> tuple[float, str, tuple[int, int] | None]:
    """Return the threshold, where it is from, and the positives and negatives it was fitted on."""
    if thresholds is None:
        return _DEFAULT, f"{_DEFAULT}: no thresholds are stored", None
    levels = tuple(known.values.get(name, "") for name in thresholds.attributes)
    group = next((group for group in thresholds.groups if group.levels == levels), None)
    if group is not None:
        # groups[].threshold is already drawn towards the pooled one; its reason says why it is undefined
        why = f": {group.reason}" if math.isnan(group.threshold) else ""
        return group.threshold, f"group {group.name}{why}", (group.n_positive, group.n_negative)
    if not thresholds.attributes:
        why = "one threshold for everyone"
    elif missing:
        why = f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not known"
    else:
        why = f"no group {' & '.join(levels)} was there when thresholds were fitted"
    if math.isnan(thresholds.pooled):
        why += f"; {thresholds.reason}"
    return thresholds.pooled, f"pooled: {why}", thresholds.pooled_counts
