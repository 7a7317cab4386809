import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from monai_fair.data import class_weights
from monai_fair.errors import ManifestError


def items(labels: np.ndarray) -> list[dict[str, int]]:
    return [{"label": label} for label in labels.tolist()]


@pytest.mark.parametrize("num_classes", [2, 3, 7])
def test_balanced_is_the_rule_of_scikit_learn(num_classes: int) -> None:
    rng = np.random.default_rng(num_classes)
    labels = np.concatenate([np.arange(num_classes), rng.integers(0, num_classes, 100) ** 2 % num_classes])
    expected = compute_class_weight("balanced", classes=np.arange(num_classes), y=labels)
    found = class_weights(items(labels), "balanced", num_classes=num_classes)
    np.testing.assert_allclose(found, expected, rtol=1e-15)


def test_balanced_by_hand() -> None:
    # n / (K n_c): 4 / (2 * 3) and 4 / (2 * 1)
    assert class_weights(items(np.array([0, 0, 0, 1])), "balanced") == [2 / 3, 2.0]


def test_none_and_given_weights() -> None:
    assert class_weights([], None) is None
    assert class_weights([], (1, 2.5)) == [1.0, 2.5]


def test_errors() -> None:
    with pytest.raises(ManifestError) as caught:
        class_weights(items(np.array([0, 2])), "balanced", num_classes=3)
    assert str(caught.value) == "class_weights: expected training rows of every class, got counts [1, 0, 1]"
    for scheme in ([1.0], "even", [1, 2, 3]):
        with pytest.raises(ManifestError) as caught:
            class_weights([], scheme)
        assert str(caught.value) == f"class_weights: expected null, 'balanced' or 2 weights, got {scheme!r}"
