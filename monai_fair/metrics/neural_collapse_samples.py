"""Neural collapse of features that are at hand, in one call."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from monai_fair.errors import MonaiFairError, raise_problems
from monai_fair.metrics.neural_collapse_assembly import collapse_result
from monai_fair.metrics.neural_collapse_batches import batch_problems
from monai_fair.metrics.neural_collapse_distances import FeatureDistances
from monai_fair.metrics.neural_collapse_head import LinearHead, linear_head
from monai_fair.metrics.neural_collapse_means import ClassMeans, FeatureMoments
from monai_fair.metrics.neural_collapse_results import NeuralCollapse


def neural_collapse(
    features: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    weight: npt.ArrayLike | None = None,
    bias: npt.ArrayLike | None = None,
    groups: Sequence[str] | None = None,
    mislabelled: npt.ArrayLike | None = None,
    means: ClassMeans | None = None,
    num_classes: int | None = None,
) -> NeuralCollapse:
    """Return every measure of neural collapse of features, for all samples and for each group.

    Features are read twice, some rows at a time in float64, so that little memory is needed beyond them. For features
    that are not at hand at once take :class:`FeatureMoments`, :class:`FeatureDistances` and :func:`collapse_result`,
    which this function calls. Take features in ``eval()`` and without augmentation, with the labels that the network
    was trained with on training samples.

    With two classes ``mu_0 - mu_G = -(mu_1 - mu_G)`` whatever the features, so that the measures of centred frames are
    NaN with that reason; ``nc2_cosine``, ``nc2_singular_ratio`` and ``nc2_equinorm_uncentred`` tell something there.

    Args:
        features: ``h``, input of the last linear layer, shape ``(n, d)``.
        labels: classes from 0, shape ``(n,)``.
        weight: of the last layer, shape ``(K, d)``; ``(1, d)`` for a single logit, which counts as
            ``(-w / 2, w / 2)``. Without it NC3, NC4 and the error are NaN with that reason.
        bias: shape ``(K,)`` or ``(1,)``; ``None`` is 0.
        groups: name of each sample's group, length ``n``; the empty text is a missing value, which counts in no group.
        mislabelled: True for samples whose label is known to be wrong, shape ``(n,)``.
        means: of other samples, such as those of the training set for test features (``result.means`` of theirs);
            ``None`` takes the means of these samples.
        num_classes: ``K``; ``None`` takes that of ``weight`` or ``means``, else the largest label plus 1.

    Returns:
        The measures, each with n, and NaN with the reason where it is undefined.

    Raises:
        MonaiFairError: if shapes do not fit, features are not finite, a label is no class or there are fewer than two;
            all problems in one message.

    References:
        Mouheb, Elbatel, Klein, Bron, MICCAI 2024, arXiv:2407.05843; of each measure see ``COLLAPSE_MEASURES``.

    Example:
        >>> found = neural_collapse([[0.0, 0.0], [0.0, 2.0], [4.0, 0.0], [4.0, 2.0]], [0, 0, 1, 1])
        >>> found.values["nc1_distance"].value, found.values["nc1_normalized"].value
        (1.0, 0.25)
        >>> found.values["nc2_equinorm"].reason
        'with two classes it is 0 for any features'
    """
    hidden = np.asarray(features)
    head = None if weight is None else linear_head(weight, bias)
    found_classes = _num_classes(num_classes, labels, head, means)
    width = hidden.shape[1] if hidden.ndim == 2 else 0
    problems = []
    if hidden.ndim != 2 or not hidden.size:
        problems.append(f"features: expected shape (n, d) with n and d from 1, got {hidden.shape}; give one row each")
    else:
        problems += batch_problems(hidden, labels, groups, mislabelled, num_classes=found_classes, num_features=width)
    problems += _mismatches(found_classes, width, head, means)
    raise_problems(MonaiFairError, "neural collapse", problems)
    if means is None:
        moments = FeatureMoments(found_classes, width)
        moments.update(hidden, labels, groups)
        means = moments.means()
    distances = FeatureDistances(means, head)
    distances.update(hidden, labels, groups, mislabelled)
    if distances.n_not_finite:
        first = int((~np.isfinite(hidden).all(axis=1)).argmax())
        raise MonaiFairError(
            f"neural collapse: features: expected finite numbers, {distances.n_not_finite} of {len(hidden)} rows have "
            f"others, first row {first}; check the training that made them"
        )
    return collapse_result(distances)


def _num_classes(given: int | None, labels: npt.ArrayLike, head: LinearHead | None, means: ClassMeans | None) -> int:
    classes = np.asarray(labels)
    if given is not None:
        return given
    if head is not None:
        return len(head.weight)
    if means is not None:
        return means.num_classes
    return int(classes.max()) + 1 if classes.size else 0


def _mismatches(num_classes: int, num_features: int, head: LinearHead | None, means: ClassMeans | None) -> list[str]:
    problems = []
    expected = (num_classes, num_features)
    if head is not None and head.weight.shape != expected:
        got = f"{head.weight.shape}{' of one logit' if head.one_logit else ''}"
        problems.append(f"weight: expected shape {expected} by class, got {got}; give the layer the features enter")
    if head is not None and not head.finite:
        problems.append("weight and bias: expected finite numbers, got NaN or infinite ones; check the training")
    if means is not None and means.offsets.shape != expected:
        shape = means.offsets.shape
        problems.append(f"means: expected shape {expected}, got {shape}; give those of the same network")
    return problems
