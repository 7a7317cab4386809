"""Similarity of images: values derived on paper; SciPy, NumPy, scikit-learn and MONAI as references."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.losses import LocalNormalizedCrossCorrelationLoss
from scipy.ndimage import gaussian_filter, uniform_filter
from sklearn.metrics import mutual_info_score
from torch import Tensor, nn

from monai_fair.errors import MonaiFairError
from monai_fair.losses import (
    CorrelationLoss,
    LocalCorrelationLoss,
    LocalNormalizedMSELoss,
    MutualInformationLoss,
    gaussian_blur,
    local_normalize,
    local_normalized_mse,
    mutual_information,
    normalized_correlation,
)

SHAPE = (14, 17, 12)
LOSSES: list[nn.Module] = [
    LocalNormalizedMSELoss(sigma_vox=2.0),
    LocalCorrelationLoss(kernel_size=5),
    CorrelationLoss(),
    MutualInformationLoss(),
]


def smooth(seed: int, *, batch: int = 2) -> Tensor:
    """Return smooth images in [0, 1], shape ``(B, 1, D, H, W)``, float64."""
    noise = np.random.default_rng(seed).normal(size=(batch, 1, *SHAPE))
    image = gaussian_filter(noise, (0, 0, 1.2, 1.2, 1.2))
    return torch.from_numpy((image - image.min()) / np.ptp(image))


def ball() -> Tensor:
    """Return a mask of the voxels around the centre, shape ``(1, 1, D, H, W)``."""
    away = np.indices(SHAPE) - (np.array(SHAPE)[:, None, None, None] - 1) / 2
    return torch.from_numpy((away**2).sum(axis=0) < 5**2)[None, None]


# blur and local normalisation


@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.5, 9.0, (1.0, 0.0, 3.0), 2])
def test_blur_is_that_of_scipy(sigma: float | tuple[float, ...]) -> None:
    image = torch.randn(2, 3, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sigmas = sigma if isinstance(sigma, tuple) else (sigma,) * 3
    expected = gaussian_filter(image.numpy(), (0, 0, *sigmas), mode="nearest")
    np.testing.assert_allclose(gaussian_blur(image, sigma).numpy(), expected, rtol=0, atol=1e-12)
    single = gaussian_blur(image.float(), sigma)
    assert single.dtype == torch.float32
    np.testing.assert_allclose(single.numpy(), expected, rtol=0, atol=1e-5)


def test_blur_keeps_flat_images_and_thin_axes() -> None:
    flat = torch.full((1, 1, 1, 5, 6), 7.0)
    torch.testing.assert_close(gaussian_blur(flat, 2.0), flat)
    turned = flat.expand(2, 1, 4, 5, 6).permute(0, 1, 4, 2, 3)  # not contiguous
    torch.testing.assert_close(gaussian_blur(turned, (1.0, 2.0, 3.0)), turned)


def test_local_normalisation_is_that_of_scipy() -> None:
    image = smooth(0)
    difference = image.numpy() - gaussian_filter(image.numpy(), (0, 0, 2, 2, 2), mode="nearest")
    variance = gaussian_filter(difference**2, (0, 0, 2, 2, 2), mode="nearest")
    expected = difference / np.sqrt(variance + 0.05**2)
    np.testing.assert_allclose(local_normalize(image, sigma_vox=2, epsilon=0.05).numpy(), expected, rtol=0, atol=1e-12)


def test_a_checkerboard_is_normalised_to_one() -> None:
    # far from the edge the blur of alternating signs is 0, so I - G I = I = +-0.5, the local variance 0.25, and the
    # value 0.5 / sqrt(0.25 + epsilon^2)
    board = torch.from_numpy((-1.0) ** np.indices((17, 17, 17)).sum(axis=0) / 2)[None, None]
    found = local_normalize(board, sigma_vox=2.0, epsilon=0.5)[..., 8, 8, 8]
    assert abs(found.item()) == pytest.approx(0.5 / math.sqrt(0.5), rel=1e-6)


def test_a_flat_image_is_normalised_to_nothing() -> None:
    flat = torch.full((1, 1, *SHAPE), 1000.0)
    # the blur's weights add up to 1 within float32 rounding: 1000 * 3e-7 over the epsilon
    assert local_normalize(flat, sigma_vox=2.0).abs().max() < 0.1


def test_locally_normalised_mse_inside_a_mask() -> None:
    first, second, mask = smooth(0), smooth(1), ball()
    difference = local_normalize(first, sigma_vox=2) - local_normalize(second, sigma_vox=2)
    inside = mask.expand_as(first).numpy()
    expected = (difference.numpy()[inside] ** 2).mean()
    assert local_normalized_mse(first, second, sigma_vox=2, mask=mask).item() == pytest.approx(expected)
    whole = (difference**2).mean().item()
    assert LocalNormalizedMSELoss(sigma_vox=2)(first, second).item() == pytest.approx(whole)
    assert whole != pytest.approx(expected, rel=1e-3)
    # weights of 1 and 3 for the two samples
    weights = torch.tensor([1.0, 3.0]).reshape(2, 1, 1, 1, 1)
    per_sample = (difference**2).mean(dim=(1, 2, 3, 4))
    found = local_normalized_mse(first, second, sigma_vox=2, mask=weights)
    assert found.item() == pytest.approx(((per_sample[0] + 3 * per_sample[1]) / 4).item())


# correlation


def test_local_correlation_is_that_of_box_filters() -> None:
    first, second, mask = smooth(0), smooth(1), ball()
    expected = []
    for one, two in zip(first[:, 0].numpy(), second[:, 0].numpy(), strict=True):

        def mean(values: np.ndarray) -> np.ndarray:
            return uniform_filter(values, 5, mode="nearest")

        covariance = mean(one * two) - mean(one) * mean(two)
        variances = (mean(one**2) - mean(one) ** 2) * (mean(two**2) - mean(two) ** 2)
        expected.append(covariance**2 / variances)
    loss = LocalCorrelationLoss(kernel_size=5)
    assert loss(first, second).item() == pytest.approx(-np.mean(expected), rel=1e-9)
    inside = np.stack(expected)[:, mask[0, 0].numpy()]
    assert loss(first, second, mask).item() == pytest.approx(-inside.mean(), rel=1e-9)


def test_local_correlation_is_that_of_monai_away_from_the_edge() -> None:
    first, second = smooth(0), smooth(1)
    theirs = LocalNormalizedCrossCorrelationLoss(kernel_size=3, kernel_type="gaussian", reduction="none")
    expected = theirs(first, second)[..., 1:-1, 1:-1, 1:-1].mean()
    inner = torch.zeros(1, 1, *SHAPE)
    inner[..., 1:-1, 1:-1, 1:-1] = 1
    found = LocalCorrelationLoss(kernel_size=3, kernel_type="gaussian")(first, second, inner)
    torch.testing.assert_close(found, expected)


def test_local_correlation_sees_no_edge_of_the_image() -> None:
    # MONAI's windows see 0 beyond the image, so that inverting one image changes them there
    image = smooth(0)
    assert LocalCorrelationLoss()(image, 1 - image).item() == pytest.approx(-1, abs=1e-4)
    assert LocalNormalizedCrossCorrelationLoss(kernel_size=9)(image, 1 - image).item() > -0.95


def test_correlation_is_pearsons() -> None:
    first, second, mask = smooth(0), smooth(1), ball()
    found = normalized_correlation(first, second)
    expected = [np.corrcoef(one.ravel(), two.ravel())[0, 1] for one, two in zip(first, second, strict=True)]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10)
    inside = mask[0].numpy()
    expected = [np.corrcoef(one[inside], two[inside])[0, 1] for one, two in zip(first, second, strict=True)]
    np.testing.assert_allclose(normalized_correlation(first, second, mask=mask).numpy(), expected, rtol=1e-10)
    weights = torch.rand(1, 1, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pair = np.stack([first[0].numpy().ravel(), second[0].numpy().ravel()])
    covariance = np.cov(pair, aweights=weights.numpy().ravel())
    weighted = covariance[0, 1] / math.sqrt(covariance[0, 0] * covariance[1, 1])
    assert normalized_correlation(first, second, mask=weights)[0].item() == pytest.approx(weighted, rel=1e-10)
    assert CorrelationLoss()(first, second).item() == pytest.approx(1 - found.mean().item())


def test_correlation_reaches_one_for_three_points() -> None:
    # a mean of products over the product of sample deviations, as in IDIR, would reach 2/3
    points = torch.tensor([[0.1, 0.7, 0.3]], dtype=torch.float64)
    assert normalized_correlation(points, 5 * points - 2).item() == pytest.approx(1, abs=1e-14)
    assert normalized_correlation(points, 2 - points).item() == pytest.approx(-1, abs=1e-14)


def test_no_contrast_is_no_correlation_and_no_gradient() -> None:
    flat = torch.full((2, 1000), 0.1).requires_grad_()
    other = torch.rand(2, 1000, generator=torch.Generator().manual_seed(0))
    found = normalized_correlation(flat, other)
    assert found.tolist() == [0, 0]
    (gradient,) = torch.autograd.grad(found.sum(), flat)
    assert gradient.abs().max() == 0
    # and far from 0 a small contrast still counts
    assert normalized_correlation(other + 100, other).min() > 0.99


def test_nothing_inside_the_mask_is_undefined() -> None:
    mask = torch.tensor([[0.0], [1.0]])
    found = normalized_correlation(torch.rand(2, 9), torch.rand(2, 9), mask=mask)
    assert found.isnan().tolist() == [True, False]
    assert LocalNormalizedMSELoss(sigma_vox=1.0)(smooth(0), smooth(1), torch.zeros_like(smooth(0))).isnan()


# mutual information


@pytest.mark.parametrize("levels", [2, 3, 4])
def test_mutual_information_of_a_few_levels_is_that_of_counts(levels: int) -> None:
    # levels lie 10 or more bins apart, many widths of the window, so that no two share a bin
    rng = np.random.default_rng(0)
    first = rng.integers(levels, size=400)
    second = np.where(rng.random(400) < 0.6, levels - 1 - first, rng.integers(levels, size=400))
    pair = [torch.from_numpy(values / 7.0 + 3)[None] for values in (first, second)]
    expected = mutual_info_score(first, second)
    assert mutual_information(*pair).item() == pytest.approx(expected, abs=1e-4)


def test_mutual_information_by_hand() -> None:
    # half 0, half 1 against itself: log 2; all four pairs alike: 0
    first = torch.tensor([[0.0, 0, 1, 1]])
    other = torch.tensor([[0.0, 1, 0, 1]])
    assert mutual_information(first, first).item() == pytest.approx(math.log(2), abs=1e-4)
    assert mutual_information(first, other).item() == pytest.approx(0, abs=1e-4)
    assert MutualInformationLoss()(first, 1 - first).item() == pytest.approx(-math.log(2), abs=1e-4)
    assert mutual_information(first, torch.ones_like(first)).item() == pytest.approx(0, abs=1e-4)


def test_mutual_information_counts_only_the_mask() -> None:
    first, second, mask = smooth(0), smooth(1), ball()
    inside = mask[0, 0]
    expected = mutual_information(first[:, 0, inside], second[:, 0, inside])
    torch.testing.assert_close(mutual_information(first, second, mask=mask), expected)
    # an outlier outside does not take the bins of the rest
    first[:, :, 0, 0, 0] = 1e6
    torch.testing.assert_close(mutual_information(first, second, mask=mask), expected)
    assert (mutual_information(first, second) - expected).abs().min() > 0.01


def test_mutual_information_is_largest_where_images_fit() -> None:
    image = smooth(0, batch=1)
    other = (1 - image) ** 2
    values = [mutual_information(image, other.roll(shift, 2)).item() for shift in (-2, -1, 0, 1, 2)]
    assert np.argmax(values) == 2
    assert values[2] > 2 * max(values[1], values[3])


# all of them


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_gradients_lead_to_the_match(loss: nn.Module) -> None:
    # along the way from a shifted image to the target each loss falls, and its gradient says so
    target = smooth(0, batch=1)
    pred = target.roll(2, 3).requires_grad_()
    start = loss(pred, target)
    (gradient,) = torch.autograd.grad(start, pred)
    assert gradient.isfinite().all()
    step = 1e-4 * (target - pred.detach())
    # the two voxels that set the bins of mutual information stay: their gradient is cut off
    step = step.where((pred > pred.min()) & (pred < pred.max()), 0)
    change = (loss(pred.detach() + step, target) - start).item()
    assert change < 0
    assert (gradient * step).sum().item() == pytest.approx(change, rel=0.05)
    assert loss(target, target) < start


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_a_mask_of_ones_changes_nothing(loss: nn.Module) -> None:
    first, second = smooth(0), smooth(1)
    torch.testing.assert_close(loss(first, second, torch.ones_like(first)), loss(first, second))


def test_losses_are_named_in_configs() -> None:
    config = {
        "normalized": {"_target_": "monai_fair.losses.LocalNormalizedMSELoss", "sigma_vox": 3.0, "epsilon": 0.1},
        "mutual": {"_target_": "monai_fair.losses.MutualInformationLoss", "num_bins": 16},
    }
    parser = ConfigParser(config)
    first, second = smooth(0), smooth(1)
    torch.testing.assert_close(
        parser.get_parsed_content("normalized")(first, second),
        local_normalized_mse(first, second, sigma_vox=3.0, epsilon=0.1),
    )
    torch.testing.assert_close(
        parser.get_parsed_content("mutual")(first, second), -mutual_information(first, second, num_bins=16).mean()
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: gaussian_blur(torch.zeros(4, 4, 4), -1.0),
            "gaussian_blur: 2 problems\n"
            "  1. expected an image of shape (B, C, D, H, W), got (4, 4, 4); add the missing axes\n"
            "  2. expected sigma_vox to be one or three finite numbers of at least 0, got -1.0; correct it",
        ),
        (
            lambda: gaussian_blur(torch.zeros(1, 1, 4, 4, 4), (1.0, 2.0)),
            "gaussian_blur: expected sigma_vox to be one or three finite numbers of at least 0, got (1.0, 2.0); "
            "correct it",
        ),
        (
            lambda: local_normalize(torch.zeros(1, 1, 4, 4, 4), sigma_vox=1.0, epsilon=0.0),
            "local_normalize: expected epsilon to be finite and above 0, got 0.0; correct it",
        ),
        (
            lambda: local_normalized_mse(
                torch.zeros(1, 1, 4, 4, 4), torch.zeros(1, 1, 4, 4, 5), sigma_vox=1.0, mask=torch.ones(4, 4, 4)
            ),
            "local_normalized_mse: 2 problems\n"
            "  1. expected two images of one shape, got (1, 1, 4, 4, 4) and (1, 1, 4, 4, 5); bring them to one grid\n"
            "  2. expected a mask that broadcasts to (1, 1, 4, 4, 4), got (4, 4, 4); give it the same axes",
        ),
        (
            lambda: CorrelationLoss()(torch.zeros(2, 9), torch.zeros(2, 9), torch.ones(2, 8)),
            "normalized_correlation: expected a mask that broadcasts to (2, 9), got (2, 8); give it the same axes",
        ),
        (
            lambda: LocalCorrelationLoss()(torch.zeros(1, 1, 9, 9, 9), torch.zeros(1, 1, 9, 9, 8)),
            "LocalCorrelationLoss: expected two images of one shape, got (1, 1, 9, 9, 9) and (1, 1, 9, 9, 8); "
            "bring them to one grid",
        ),
        (
            lambda: mutual_information(torch.zeros(1, 9), torch.zeros(1, 9), num_bins=1),
            "mutual_information: expected num_bins to be at least 2, got 1; raise it",
        ),
        (
            lambda: mutual_information(torch.rand(2, 9), torch.rand(2, 9), mask=torch.tensor([[1.0], [0.0]])),
            "mutual_information: sample 1: expected values where the mask is above 0, got none; "
            "correct the mask or leave the sample out",
        ),
    ],
)
def test_what_does_not_fit_is_refused(call: Callable[[], Tensor], message: str) -> None:
    with pytest.raises(MonaiFairError) as caught:
        call()
    assert str(caught.value) == message
