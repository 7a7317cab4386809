import dataclasses

import numpy as np
import numpy.typing as npt
import pytest

from monai_fair.simulation.chest_image import ChestView, draw_chest

SIZE = 128


def view(patient: int = 0, image: int = 0, **look: float) -> ChestView:
    seeds = np.random.SeedSequence([7, patient]), np.random.SeedSequence([8, image])
    neutral = {"heart": 0.0, "fluid": 0.0, "sex_cue": 0.0, "race_cue": 0.0, "age_cue": 0.0}
    return ChestView(**{**neutral, **look}, patient_seed=seeds[0], image_seed=seeds[1])


def draw(shown: ChestView) -> npt.NDArray[np.float64]:
    return draw_chest(shown, size=SIZE).astype(np.float64)


def change(patient: int, name: str, low: float, high: float) -> npt.NDArray[np.float64]:
    """What one number changes; position, exposure and noise are the same in both images."""
    return draw(view(patient, patient, **{name: high})) - draw(view(patient, patient, **{name: low}))


def box(left: float, right: float, top: float, bottom: float) -> tuple[slice, slice]:
    """Pixels of a part of the unit frame."""
    columns, rows = ([round((end + 1) / 2 * SIZE) for end in ends] for ends in ((left, right), (top, bottom)))
    return slice(*rows), slice(*columns)


def test_shape_type_and_the_same_pixels_again() -> None:
    first, again = (draw_chest(view(), size=SIZE) for _ in range(2))
    assert first.shape == (SIZE, SIZE)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize("size", [32, 129])
def test_any_size_shows_the_same_chest(size: int) -> None:
    # Means of quarters differ by noise and by where a pixel's middle lies; the spine and the corners differ by 100.
    def quarters(side: int) -> npt.NDArray[np.float64]:
        rows = np.array_split(draw_chest(view(), size=side).astype(np.float64), 4)
        return np.array([[part.mean() for part in np.array_split(row, 4, axis=1)] for row in rows])

    np.testing.assert_allclose(quarters(size), quarters(SIZE), atol=12)


def test_lungs_are_dark_between_bright_heart_spine_and_liver() -> None:
    mean = np.mean([draw(view(index, index)) for index in range(20)], axis=0)
    lungs = [mean[box(*side, -0.3, 0.0)].mean() for side in ((-0.6, -0.4), (0.4, 0.6))]
    others = [
        mean[place].mean()
        for place in (box(-0.05, 0.05, -0.5, 0.0), box(0.05, 0.2, 0.2, 0.4), box(-0.6, -0.2, 0.8, 0.95))
    ]
    air = mean[box(-1.0, -0.8, -1.0, -0.9)].mean()
    assert air < 25 < 45 < min(lungs) <= max(lungs) < 110 < 150 < min(others)


def heart_width(image: npt.NDArray[np.float64]) -> float:
    """Bright pixels between the lungs, in the rows of the heart, as a share of the image."""
    return float((image[box(-0.6, 0.6, 0.12, 0.28)] > 115).mean() * 0.6)


def test_heart_is_wider_by_the_planted_share() -> None:
    # Three more standard deviations are 3 * 0.036 of the thorax, whose mean width is 1.54 of the frame's 2, and the
    # heart is that wide in the middle; over the measured rows it is a little less.
    widths = [[heart_width(draw(view(index, index, heart=size))) for index in range(25)] for size in (0.0, 3.0)]
    found = np.diff(np.mean(widths, axis=1))[0]
    assert found == pytest.approx(3 * 0.036 * 1.54 / 2, rel=0.25)
    assert np.corrcoef(widths[0], widths[1])[0, 1] > 0.5


def test_fluid_rises_above_the_diaphragm_and_spares_the_rest() -> None:
    for patient in range(8):
        found = change(patient, "fluid", 0.0, 3.0)
        assert found[box(0.45, 0.75, 0.35, 0.65)].mean() > 8
        np.testing.assert_array_equal(found[box(-1.0, 1.0, -1.0, 0.0)], 0.0)


def test_no_fluid_is_the_least_there_is() -> None:
    np.testing.assert_array_equal(change(0, "fluid", -4.0, -2.0), 0.0)


def test_sex_cue_brightens_the_lower_lungs_only() -> None:
    for patient in range(8):
        found = change(patient, "sex_cue", -0.5, 0.5)
        both = [found[box(*side, 0.25, 0.45)].mean() for side in ((-0.6, -0.3), (0.3, 0.6))]
        assert min(both) > 3
        assert np.abs(found[box(-1.0, 1.0, -1.0, -0.25)]).max() == 0


def test_race_cue_is_a_power_of_the_grey_values() -> None:
    # Means over even blocks take the noise out. One unit of cue is an exponent of exp(0.2): log b2 = exp(0.2) log b1.
    def blocks(cue: float) -> npt.NDArray[np.float64]:
        image = draw(view(3, 3, race_cue=cue)) / 255.0
        return image.reshape(SIZE // 4, 4, SIZE // 4, 4).swapaxes(1, 2).reshape(-1, 16)

    plain, darker = blocks(0.0), blocks(1.0)
    inside = (plain.mean(axis=1) > 0.2) & (plain.mean(axis=1) < 0.8) & (plain.std(axis=1) < 0.035)
    assert inside.sum() > 40
    ratio = np.log(darker.mean(axis=1)[inside]) / np.log(plain.mean(axis=1)[inside])
    assert np.median(ratio) == pytest.approx(np.exp(0.2), abs=0.02)


def rib_contrast(image: npt.NDArray[np.float64]) -> float:
    """Spread along the column of a lung, without what is slow in it."""
    columns = np.concatenate([image[box(*side, -0.5, 0.0)] for side in ((-0.55, -0.4), (0.4, 0.55))], axis=1).mean(
        axis=1
    )
    return float(np.std(columns - np.poly1d(np.polyfit(np.arange(len(columns)), columns, 3))(np.arange(len(columns)))))


def test_age_cue_enlarges_the_knob_and_fades_the_ribs() -> None:
    younger, older = (
        [rib_contrast(draw(view(index, index, age_cue=cue))) for index in range(20)] for cue in (-1.0, 1.0)
    )
    # 0.075 + 0.035 against 0.075 - 0.035 in brightness: a ratio of 2.75, less the texture of the lungs
    assert np.mean(younger) > 1.5 * np.mean(older)
    for patient in range(8):
        found = change(patient, "age_cue", 0.0, 1.0)
        assert found[box(0.18, 0.24, -0.36, -0.24)].mean() > 10


def test_cues_and_signs_do_not_touch_each_other() -> None:
    # The place of the aortic knob tells nothing of heart, fluid and breasts.
    knob = box(0.1, 0.3, -0.45, -0.28)
    for name in ("heart", "fluid", "sex_cue"):
        np.testing.assert_array_equal(change(1, name, -0.5, 0.5)[knob], 0.0)


def chest_width(image: npt.NDArray[np.float64]) -> float:
    """Distance between the outer edges of the lungs, as a share of the image; further out lies the air."""
    dark = np.flatnonzero(image[box(-0.86, 0.86, -0.05, 0.15)].mean(axis=0) < 115)
    return float(dark[-1] - dark[0]) / SIZE


def test_images_of_a_patient_show_the_same_chest_from_another_place() -> None:
    # Half the width is uniform in [0.72, 0.82], a spread of 3.7 %; the distance to the camera adds one of 2.6 % to each
    # image. Two images of a patient correlate by 3.7^2 / (3.7^2 + 2.6^2) = 0.67; standard error 0.07 for 60 patients.
    width = [[chest_width(draw(view(patient, 2 * patient + image))) for image in (0, 1)] for patient in range(60)]
    assert np.corrcoef(np.transpose(width))[0, 1] == pytest.approx(0.67, abs=0.21)
    assert (np.diff(width, axis=1) != 0).mean() > 0.5


def test_equal_seeds_and_other_numbers_keep_the_noise() -> None:
    shown = view(2, 5)
    air = box(-1.0, -0.85, -1.0, -0.92)
    other = dataclasses.replace(shown, heart=2.0, fluid=2.0, sex_cue=1.0, age_cue=1.0)
    np.testing.assert_array_equal(draw(shown)[air], draw(other)[air])
    assert (draw(shown)[air] != draw(view(2, 6))[air]).any()
