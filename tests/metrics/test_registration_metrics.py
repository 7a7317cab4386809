"""Quality of a registration: values derived on paper; scikit-learn, SimpleITK and NumPy as references."""

import logging
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from scipy.ndimage import gaussian_filter, map_coordinates
from sklearn.metrics import f1_score

from monai_fair.errors import GeometryError
from monai_fair.metrics import (
    det_jacobian,
    dice_by_label,
    endpoint_error_mm,
    fold_share,
    inverse_consistency_mm,
    local_correlation,
    log_det_jacobian,
    registration_quality,
    sd_log_det_jacobian,
)

SHAPE = (12, 14, 10)
SPACING = (2.0, 3.0, 5.0)
MASK = np.zeros(SHAPE, dtype=bool)
MASK[2:-2, 2:-2, 2:-2] = True
LOGGER = "monai_fair.metrics.registration"


def labels_of(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 5, SHAPE)


def image_of(seed: int) -> np.ndarray:
    return np.asarray(gaussian_filter(np.random.default_rng(seed).normal(size=SHAPE), 1.0), dtype=np.float32)


def constant(*vector: float) -> np.ndarray:
    return np.broadcast_to(np.reshape(vector, (3, 1, 1, 1)), (3, *SHAPE)).astype(np.float32)


# overlap


def test_dice_by_hand() -> None:
    # label 1: 2 and 3 voxels, 1 shared; label 2: 1 and 1, 1 shared; label 7 only in one
    pred, truth = np.array([1, 1, 0, 2, 7]), np.array([1, 0, 1, 2, 1])
    assert dice_by_label(pred, truth) == {1: 2 / 5, 2: 1.0, 7: 0.0}
    assert dice_by_label(pred, truth, [2, 0]) == {2: 1.0, 0: 0.0}


def test_dice_is_the_f1_score() -> None:
    pred, truth = labels_of(0), labels_of(1)
    expected = f1_score(truth.ravel(), pred.ravel(), labels=[1, 2, 3, 4], average=None)
    np.testing.assert_allclose(list(dice_by_label(pred, truth).values()), expected, rtol=1e-12)


def test_dice_is_that_of_simpleitk() -> None:
    pred, truth = labels_of(0), labels_of(1)
    overlap = sitk.LabelOverlapMeasuresImageFilter()
    overlap.Execute(*(sitk.GetImageFromArray(values.astype(np.uint8)) for values in (truth, pred)))
    for label, value in dice_by_label(pred, truth).items():
        assert value == pytest.approx(overlap.GetDiceCoefficient(label), rel=1e-12)


def test_a_label_in_neither_map_has_no_dice(caplog: pytest.LogCaptureFixture) -> None:
    pred, truth = np.array([1, 0], dtype=np.uint8), np.array([1, 3], dtype=np.int16)
    with caplog.at_level(logging.WARNING, LOGGER):
        found = dice_by_label(pred, truth, [1, 2, 3, 9])
    assert (found[1], found[3]) == (1.0, 0.0)
    assert np.isnan([found[2], found[9]]).all()
    assert caplog.messages == ["dice_by_label: labels in neither map, so without a value: 2, 9"]
    assert dice_by_label(np.zeros(4, dtype=int), np.zeros(4, dtype=int)) == {}


def test_maps_that_are_none_are_refused() -> None:
    with pytest.raises(GeometryError) as caught:
        dice_by_label(np.array([1.0, 2.0]), np.array([-1, 2, 3]))
    assert str(caught.value) == (
        "dice_by_label: 3 problems\n"
        "  1. expected two maps of one shape, got (2,) and (3,); bring them to one grid\n"
        "  2. expected pred of an integer type, got float64; round it if it holds labels\n"
        "  3. expected truth to hold labels of at least 0, got -1; correct it"
    )


# distances


def test_endpoint_error_by_hand() -> None:
    # (1, 1, 0) voxels of (2, 3, 5) mm: sqrt(4 + 9) everywhere but in one voxel of 384, (0, 0, 2): 10 mm
    field = constant(1, 1, 0).copy()
    field[:, 5, 5, 5] = [0, 0, 2]
    count = 8 * 10 * 6
    mean, p95 = endpoint_error_mm(field, constant(0, 0, 0), spacing_mm=SPACING, mask=MASK)
    assert mean == pytest.approx((10 + (count - 1) * np.sqrt(13)) / count)
    assert p95 == pytest.approx(np.sqrt(13))


def test_endpoint_error_counts_only_the_mask() -> None:
    rng = np.random.default_rng(0)
    field, truth = rng.normal(size=(2, 3, *SHAPE))
    lengths = [
        np.linalg.norm((field[:, i, j, k] - truth[:, i, j, k]) * SPACING)
        for i, j, k in zip(*MASK.nonzero(), strict=True)
    ]
    mean, p95 = endpoint_error_mm(field, truth, spacing_mm=SPACING, mask=MASK)
    assert mean == pytest.approx(np.mean(lengths))
    assert p95 == pytest.approx(np.percentile(lengths, 95))
    field[:, ~MASK] = 1e9
    assert endpoint_error_mm(field, truth, spacing_mm=SPACING, mask=MASK) == (mean, p95)


def test_inverse_consistency_by_hand() -> None:
    # 1 there and 0.5 back along the second axis of 3 mm
    found = inverse_consistency_mm(constant(0, -0.5, 0), constant(0, 1, 0), spacing_mm=SPACING, mask=MASK)
    assert found == pytest.approx(1.5)


def test_inverse_consistency_reads_the_outer_field_where_the_inner_leads() -> None:
    rng = np.random.default_rng(0)
    outer, inner = (np.stack([gaussian_filter(noise, 2) for noise in rng.normal(0, 3, (3, *SHAPE))]) for _ in range(2))
    places = np.indices(SHAPE) + inner
    left = inner + np.stack([map_coordinates(component, places, order=1, mode="nearest") for component in outer])
    expected = np.linalg.norm(left * np.reshape(SPACING, (3, 1, 1, 1)), axis=0)[MASK].mean()
    assert inverse_consistency_mm(outer, inner, spacing_mm=SPACING, mask=MASK) == pytest.approx(expected, rel=1e-5)
    assert inverse_consistency_mm(inner, outer, spacing_mm=SPACING, mask=MASK) != pytest.approx(expected, rel=1e-2)


# volume


def test_determinants_of_a_stretch_and_a_mirror() -> None:
    # 0.2 of growth along axis 0; then a mirror of axis 1 in the upper half of axis 2
    field = np.zeros((3, *SHAPE))
    field[0] = 0.2 * np.arange(12)[:, None, None]
    found = det_jacobian(field)
    np.testing.assert_allclose(found, 1.2, rtol=1e-5)
    assert fold_share(found, mask=MASK) == 0
    assert sd_log_det_jacobian(found, mask=MASK) == pytest.approx(0, abs=1e-5)
    field[1, :, :, 5:] = -2 * np.arange(14)[:, None]
    found = det_jacobian(field)
    np.testing.assert_allclose(found[:, :, 6:], -1.2, rtol=1e-5)
    np.testing.assert_allclose(found[:, :, :4], 1.2, rtol=1e-5)
    # of the layers 2 to 7 of the mask, 5 to 7 are mirrored whole; none of the derivatives in layer 4 turns the sign
    assert fold_share(found, mask=MASK) == 0.5
    np.testing.assert_allclose(log_det_jacobian(found)[:, :, :4], np.log(1.2), rtol=1e-4)
    assert np.isnan(log_det_jacobian(found)[:, :, 6:]).all()


def test_summaries_of_determinants_by_hand() -> None:
    determinant = np.full(SHAPE, np.e)
    inside = np.flatnonzero(MASK)
    determinant.ravel()[inside[: len(inside) // 2]] = 1 / np.e
    # half at -1, half at 1
    assert sd_log_det_jacobian(determinant, mask=MASK) == pytest.approx(1)
    # 12 of 480 fold, one of them at 0; of the rest 228 at -1 and 240 at 1
    determinant.ravel()[inside[:12]] = [0, *[-3] * 11]
    assert fold_share(determinant, mask=MASK) == pytest.approx(12 / 480)
    mean = (240 - 228) / 468
    assert sd_log_det_jacobian(determinant, mask=MASK) == pytest.approx(np.sqrt(1 - mean**2))
    assert np.isnan(sd_log_det_jacobian(np.zeros(SHAPE), mask=MASK))
    assert np.isnan(log_det_jacobian(determinant)).sum() == 12


# similarity


def test_local_correlation_is_that_of_every_window() -> None:
    first, second = image_of(0), image_of(1) + 0.5 * image_of(0)
    padded = [np.pad(image, 1, mode="edge") for image in (first, second)]
    windows = [[image[i : i + 3, j : j + 3, k : k + 3].ravel() for i, j, k in np.ndindex(SHAPE)] for image in padded]
    expected = np.array([np.corrcoef(one, two)[0, 1] for one, two in zip(*windows, strict=True)])
    for mask in (MASK, np.ones(SHAPE, dtype=bool)):
        found = local_correlation(first, second, mask=mask, window_vox=3)
        assert found == pytest.approx(expected[mask.ravel()].mean(), rel=1e-6)


def test_local_correlation_of_gain_offset_and_inversion() -> None:
    image = image_of(0)
    bias = np.linspace(0.9, 1.1, SHAPE[0])[:, None, None]
    assert local_correlation(image, 3 * image + 1000, mask=MASK) == pytest.approx(1, abs=1e-4)
    assert local_correlation(image, -image, mask=MASK) == pytest.approx(-1)
    assert 0.99 < local_correlation(image, bias * image, mask=MASK) < 1
    assert abs(local_correlation(image, image_of(1), mask=MASK, window_vox=5)) < 0.3


def test_windows_without_contrast_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    image, other = image_of(0), image_of(0)
    other[:6] = 0.3
    with caplog.at_level(logging.WARNING, LOGGER):
        found = local_correlation(image, other, mask=MASK, window_vox=3)
    # windows of 3 whose centre is at 2, 3 or 4 of axis 0 see the flat part alone: 3 * 10 * 6
    assert caplog.messages == ["local_correlation: 180 of 480 windows have no contrast and are left out"]
    rest = MASK & (np.indices(SHAPE)[0] > 4)
    assert found == pytest.approx(local_correlation(image, other, mask=rest, window_vox=3), rel=1e-12)
    assert found > 0.5
    assert local_correlation(other, image, mask=MASK, window_vox=3) == pytest.approx(found, rel=1e-12)
    caplog.clear()
    with caplog.at_level(logging.WARNING, LOGGER):
        assert np.isnan(local_correlation(image, np.ones(SHAPE), mask=MASK))
    assert caplog.messages == ["local_correlation: 480 of 480 windows have no contrast and are left out"]


@pytest.mark.parametrize("window", [1, 4, -3])
def test_windows_have_a_centre(window: int) -> None:
    with pytest.raises(GeometryError) as caught:
        local_correlation(image_of(0), image_of(0), mask=MASK, window_vox=window)
    assert str(caught.value) == (
        f"local_correlation: expected window_vox to be odd and at least 3, got {window}; correct it"
    )


# all columns


def case() -> dict[str, Any]:
    """Return a template, and the subject that it becomes by a shift of 2 voxels along axis 1 (6 mm)."""
    template, tissue = image_of(3), np.asarray(image_of(3) > 0, dtype=np.uint8)
    return {
        "subject": np.roll(template, -2, axis=1),
        "template": template,
        "mask": MASK,
        "spacing_mm": SPACING,
        "truth_vox": constant(0, 2, 0),
        "inverse_vox": constant(0, -2, 0),
        "labels": {"tissue": (tissue, np.roll(tissue, -2, axis=1))},
    }


def test_the_true_map_has_no_error() -> None:
    given = case()
    # rolled voxels would come from beyond the grid
    given["mask"] = MASK & (np.indices(SHAPE)[1] < 7)
    quality = registration_quality(constant(0, 2, 0), **given)
    assert quality["similarity"] == pytest.approx(1, abs=0.02)
    assert quality["folds"] == 0
    assert quality["min_det_jacobian"] == 1
    assert quality["sd_log_det_jacobian"] == 0
    assert quality["inverse_error_mm"] == 0
    assert quality["endpoint_error_mm"] == quality["endpoint_error_p95_mm"] == 0
    assert quality["endpoint_error_mm_before"] == quality["endpoint_error_p95_mm_before"] == 6
    assert quality["similarity_before"] < 0.5
    assert quality["dice_tissue"] > 0.9 > quality["dice_tissue_before"]


def test_columns_are_those_of_their_functions() -> None:
    rng = np.random.default_rng(5)
    field = np.stack([gaussian_filter(noise, 1.5) for noise in rng.normal(0, 12, (3, *SHAPE))]).astype(np.float32)
    given = case()
    roi = labels_of(2)
    given["labels"] = {"roi": (roi, labels_of(3))}
    quality = registration_quality(field, **given)
    places = np.indices(SHAPE) + field
    warped = map_coordinates(given["template"], places, order=1, mode="nearest")
    rois = map_coordinates(roi, places, order=0, mode="nearest")
    determinant = det_jacobian(field)
    expected = {
        "folds": (determinant[MASK] <= 0).mean(),
        "min_det_jacobian": determinant[MASK].min(),
        "sd_log_det_jacobian": sd_log_det_jacobian(determinant, mask=MASK),
        "inverse_error_mm": inverse_consistency_mm(given["inverse_vox"], field, spacing_mm=SPACING, mask=MASK),
        "similarity": local_correlation(given["subject"], warped, mask=MASK),
        "dice_roi": np.mean(list(dice_by_label(rois, labels_of(3)).values())),
        "similarity_before": local_correlation(given["subject"], given["template"], mask=MASK),
        "dice_roi_before": np.mean(list(dice_by_label(roi, labels_of(3)).values())),
    }
    for suffix, tested in (("", field), ("_before", np.zeros_like(field))):
        error = endpoint_error_mm(tested, given["truth_vox"], spacing_mm=SPACING, mask=MASK)
        expected[f"endpoint_error_mm{suffix}"], expected[f"endpoint_error_p95_mm{suffix}"] = error
    assert quality.keys() == expected.keys()
    for name, value in expected.items():
        assert quality[name] == pytest.approx(value, rel=1e-5), name
        assert type(quality[name]) is float
    assert 0 < quality["folds"] < 0.5


def test_only_what_is_known_has_columns() -> None:
    given = {name: value for name, value in case().items() if name in ("subject", "template", "mask", "spacing_mm")}
    measured = ["folds", "min_det_jacobian", "sd_log_det_jacobian", "similarity"]
    assert list(registration_quality(constant(0, 0, 0), **given, before=False)) == measured
    assert list(registration_quality(constant(0, 0, 0), **given)) == [*measured, "similarity_before"]


def test_maps_without_labels_have_no_dice() -> None:
    given = case()
    empty = np.zeros(SHAPE, dtype=np.uint8)
    given["labels"] = {"roi": (empty, empty)}
    assert np.isnan(registration_quality(constant(0, 2, 0), **given)["dice_roi"])


def test_all_that_does_not_fit_is_named_at_once() -> None:
    given = case()
    field = constant(0, 2, 0).copy()
    field[0, 1, 1, :2] = np.nan
    given |= {
        "subject": np.zeros((4, 4, 4)),
        "truth_vox": np.zeros(SHAPE),
        "labels": {"roi": (np.zeros(SHAPE, dtype=int), np.zeros((5, 5, 5), dtype=int))},
        "spacing_mm": (1.0, 1.0, -1.0),
    }
    with pytest.raises(GeometryError) as caught:
        registration_quality(field, **given)
    assert str(caught.value) == (
        "registration_quality: 5 problems\n"
        "  1. expected spacing_mm to be three positive numbers, got (1.0, 1.0, -1.0); take the grid's\n"
        "  2. expected displacement_vox to be finite, got 2 values that are not; leave it out\n"
        "  3. expected truth_vox of shape (3, 12, 14, 10), got (12, 14, 10); bring all to the grid of the mask\n"
        "  4. expected subject of shape (12, 14, 10), got (4, 4, 4); bring all to the grid of the mask\n"
        "  5. expected labels of the subject (roi) of shape (12, 14, 10), got (5, 5, 5); "
        "bring all to the grid of the mask"
    )


@pytest.mark.parametrize(
    "call",
    [
        lambda mask: endpoint_error_mm(constant(0, 0, 0), constant(0, 0, 0), spacing_mm=SPACING, mask=mask),
        lambda mask: inverse_consistency_mm(constant(0, 0, 0), constant(0, 0, 0), spacing_mm=SPACING, mask=mask),
        lambda mask: fold_share(np.ones(SHAPE), mask=mask),
        lambda mask: sd_log_det_jacobian(np.ones(SHAPE), mask=mask),
        lambda mask: local_correlation(image_of(0), image_of(1), mask=mask),
    ],
)
@pytest.mark.parametrize(
    ("mask", "got"),
    [
        (np.zeros(SHAPE, dtype=bool), "bool of shape (12, 14, 10) with 0"),
        (MASK.astype(np.uint8), "uint8 of shape (12, 14, 10) with 480"),
    ],
)
def test_a_mask_that_chooses_nothing_is_refused(call: Callable[[Any], Any], mask: np.ndarray, got: str) -> None:
    with pytest.raises(GeometryError) as caught:
        call(mask)
    assert str(caught.value).endswith(
        f": expected a mask of bool, shape (D, H, W), with at least one voxel, got {got}; give the voxels to measure"
    )


def test_a_field_of_another_shape_has_no_determinant() -> None:
    with pytest.raises(GeometryError, match=r"expected displacement_vox of shape \(3, 4, 4, 4\), got \(2, 4, 4, 4\)"):
        det_jacobian(np.zeros((2, 4, 4, 4)))
    with pytest.raises(GeometryError, match="expected a mask of bool"):
        det_jacobian(np.zeros((3, 4, 4)))


def test_an_audit_loads_no_torch() -> None:
    code = (
        "import sys, monai_fair.metrics as m; assert 'torch' not in sys.modules; "
        "m.dice_by_label; assert 'torch' in sys.modules; assert not hasattr(m, 'no_such_metric')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
