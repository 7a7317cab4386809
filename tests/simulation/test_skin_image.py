import dataclasses

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from monai_fair.simulation.skin_image import SkinPhoto, draw_photo

SIZE = 96


def photo(lesion: int = 0, view: int = 0, *, ragged: float = 0.2, mixed: float = 0.2, cue: float = 0.0) -> SkinPhoto:
    seeds = np.random.SeedSequence([7, lesion]), np.random.SeedSequence([8, view])
    return SkinPhoto(ragged, mixed, 0.9, cue, *seeds)


def draw(shown: SkinPhoto) -> npt.NDArray[np.float64]:
    return draw_photo(shown, size=SIZE).astype(np.float64)


def test_shape_type_and_the_same_pixels_again() -> None:
    first, again = (draw_photo(photo(), size=SIZE) for _ in range(2))
    assert first.shape == (SIZE, SIZE, 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)


def test_cue_scales_red_and_blue_and_leaves_green() -> None:
    # One unit of cue is 9 % more red and 9 % less blue; noise and rounding are the same in both.
    # Red stays below 255 at a cue of 0.5 in the darker half of the pixels, where nothing is clipped.
    plain, warm = draw(photo()), draw(photo(cue=0.5))
    np.testing.assert_array_equal(plain[..., 1], warm[..., 1])
    inside = (plain[..., 0] > 40) & (plain[..., 0] < 200)
    assert inside.sum() > 1000
    for channel, factor in ((0, 1.045), (2, 0.955)):
        assert np.median(warm[..., channel][inside] / plain[..., channel][inside]) == pytest.approx(factor, abs=0.01)


def test_contrast_moves_the_lesion_and_not_the_skin() -> None:
    strong = draw(photo())
    weak = draw(dataclasses.replace(photo(), contrast=0.4))
    none = draw(dataclasses.replace(photo(), contrast=0.0))
    corner, middle = np.s_[:8, :8], np.s_[SIZE // 2 - 8 : SIZE // 2 + 8, SIZE // 2 - 8 : SIZE // 2 + 8]
    np.testing.assert_allclose(strong[corner], none[corner], atol=1)
    depth = [none[middle].mean() - shown[middle].mean() for shown in (weak, strong)]
    # The lesion is blended in, so its depth is proportional to contrast: 0.4 / 0.9.
    assert depth[1] > 20
    assert depth[0] / depth[1] == pytest.approx(0.4 / 0.9, abs=0.03)


def compactness(image: npt.NDArray[np.float64]) -> float:
    """Boundary pixels squared over area of what is darker than halfway between skin and lesion."""
    grey = ndimage.gaussian_filter(image.mean(axis=2), 1.5)
    dark = grey < 0.5 * (
        np.percentile(grey, 90) + grey[SIZE // 2 - 6 : SIZE // 2 + 6, SIZE // 2 - 6 : SIZE // 2 + 6].mean()
    )
    dark = ndimage.binary_opening(dark, iterations=2)
    return float((dark & ~ndimage.binary_erosion(dark)).sum() ** 2 / dark.sum())


def colour_spread(image: npt.NDArray[np.float64]) -> float:
    middle = image[SIZE // 2 - 14 : SIZE // 2 + 14, SIZE // 2 - 14 : SIZE // 2 + 14]
    return float((middle[..., 0] - middle[..., 2]).std())


def test_irregularity_is_seen_in_the_outline() -> None:
    smooth, ragged = (
        np.median([compactness(draw(photo(index, index, ragged=amount))) for index in range(30)])
        for amount in (0.0, 1.0)
    )
    assert ragged > 1.15 * smooth


def test_variegation_is_seen_in_the_colours() -> None:
    plain, mixed = (
        np.median([colour_spread(draw(photo(index, index, mixed=amount))) for index in range(30)])
        for amount in (0.0, 1.0)
    )
    assert mixed > 1.5 * plain


def test_photographs_of_a_lesion_are_alike_but_not_the_same() -> None:
    # Ratio of red to blue over the image: mostly skin tone and pigment, which belong to the lesion.
    tone = np.array(
        [
            [np.log(np.divide(*draw(photo(lesion, 2 * lesion + view)).mean(axis=(0, 1))[[0, 2]])) for view in (0, 1)]
            for lesion in range(30)
        ]
    )
    within, between = np.var(tone[:, 0] - tone[:, 1]) / 2.0, np.var(tone.mean(axis=1))
    assert 0.0 < within < 0.25 * between
