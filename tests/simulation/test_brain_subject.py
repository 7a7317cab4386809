import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.integrate import trapezoid
from scipy.ndimage import map_coordinates

from monai_fair.errors import MonaiFairError
from monai_fair.geometry import Axes
from monai_fair.simulation import BrainAnatomy, BrainCohort, BrainSubject, load_brain_anatomy, simulate_brain_subject
from monai_fair.simulation.brain_fields import flow
from monai_fair.simulation.brain_regions import DISEASE_SITE, DISTRACTOR_SITES, GROUP_SITE, Site
from monai_fair.simulation.brain_sampling import sample_people
from monai_fair.simulation.brain_subject import brain_velocity, draw_subject

CLEAN = BrainCohort(noise=0, bias_field=0)
STILL = BrainCohort(
    noise=0, bias_field=0, deformation_mm=0, detail_mm=0, scale_sd=0, disease_effect=0, group_effect=0, distractors=6
)


@pytest.fixture(scope="module")
def anatomy() -> BrainAnatomy:
    return load_brain_anatomy("phantom", shape=(36, 44, 36))


def read(array: np.ndarray, displacement_vox: np.ndarray, order: int) -> np.ndarray:
    """The pull-back written with SciPy: ``array(x + u(x))``, the edge repeated outside."""
    points = np.indices(array.shape) + displacement_vox.astype(np.float64)
    return map_coordinates(array.astype(np.float64), points, order=order, mode="nearest")


def determinants(displacement_vox: np.ndarray) -> np.ndarray:
    gradients = np.stack([np.stack(np.gradient(component)) for component in displacement_vox])
    return np.linalg.det(gradients.transpose(2, 3, 4, 0, 1) + np.eye(3))


def pushed(subject: BrainSubject, anatomy: BrainAnatomy, site: Site) -> float:
    """Log determinant of the pull-back at a site, by differences of the displacement over 2 mm either way."""
    spacing, centre = anatomy.grid.spacing_mm[0], np.array(site.centre_mm)
    matrix = np.zeros((3, 3))
    for axis in range(3):
        ends = []
        for side in (-2.0, 2.0):
            point = centre + side * np.eye(3)[axis]
            index = anatomy.grid.points(point, Axes.RAS, Axes.VOXEL)
            moved = [map_coordinates(c, index[:, None], order=3)[0] * spacing for c in subject.displacement_vox]
            ends.append(point + moved)
        matrix[:, axis] = (ends[1] - ends[0]) / 4.0
    return math.log(np.linalg.det(matrix))


def test_without_noise_the_image_is_the_warped_template(anatomy: BrainAnatomy) -> None:
    subject = simulate_brain_subject(3, anatomy=anatomy, seed=1, cohort=CLEAN)
    np.testing.assert_allclose(subject.image, read(anatomy.image, subject.displacement_vox, 1), atol=1e-5)
    assert np.abs(subject.image - anatomy.image).mean() > 0.005


def test_labels_follow_by_nearest_neighbour(anatomy: BrainAnatomy) -> None:
    subject = simulate_brain_subject(0, anatomy=anatomy, seed=1)
    for found, labels in (
        (subject.tissue, anatomy.tissue),
        (subject.roi, anatomy.roi),
        (subject.mask, anatomy.mask),
    ):
        assert found.dtype == np.uint8
        expected = read(labels, subject.displacement_vox, 0)
        # a point half way between two voxels may go either way
        assert (found != expected).mean() < 1e-3
    np.testing.assert_array_equal(subject.tissue > 0, subject.mask == 1)


def test_nothing_planted_changes_nothing(anatomy: BrainAnatomy) -> None:
    subject = simulate_brain_subject(2, anatomy=anatomy, cohort=replace(STILL, distractor_effect=0))
    np.testing.assert_allclose(subject.image, anatomy.image, atol=1e-5)
    np.testing.assert_array_equal(subject.roi, anatomy.roi)
    assert subject.displacement_vox.any() == False  # noqa: E712
    assert (subject.mean_displacement_mm, subject.tissue_dice) == (0.0, 1.0)
    assert (subject.volumes.minimum, subject.volumes.maximum, subject.volumes.log_sd) == (1.0, 1.0, 0.0)


@pytest.mark.parametrize(
    ("name", "site"),
    [("disease_effect", DISEASE_SITE), ("group_effect", GROUP_SITE), ("distractor_effect", DISTRACTOR_SITES[2])],
)
def test_an_effect_changes_the_volume_at_its_place_as_stated(anatomy: BrainAnatomy, name: str, site: Site) -> None:
    cohort = replace(STILL, **{"distractor_effect": 0, name: 0.2})
    seen = []
    for index in range(6):
        subject = simulate_brain_subject(index, anatomy=anatomy, cohort=cohort)
        person = subject.person
        strength = {
            "disease_effect": person.disease_strength,
            "group_effect": person.group_strength,
            "distractor_effect": person.distractor_strengths[2],
        }[name]
        # the flow rests at the centre, where log det J of the pull-back is the divergence, effect * strength; what the
        # grid of 4.4 mm and the differences lose is about a tenth
        log_det = pushed(subject, anatomy, site)
        assert log_det == pytest.approx(0.2 * strength, rel=0.2, abs=0.01)
        seen.append((strength, log_det))
    assert min(strength for strength, _ in seen) < 0 < max(strength for strength, _ in seen)


def test_a_positive_effect_shrinks_the_hippocampus_of_patients(anatomy: BrainAnatomy) -> None:
    cohort = replace(STILL, distractor_effect=0, disease_effect=0.25)
    template = [float((anatomy.roi == label).sum()) for label in (1, 2)]
    changes: dict[int, list[float]] = {0: [], 1: []}
    for index in range(12):
        subject = simulate_brain_subject(index, anatomy=anatomy, cohort=cohort)
        # by linear interpolation, as a change of a few tenths of a voxel moves no label
        left, right = (read(anatomy.roi == label, subject.displacement_vox, 1).sum() for label in (1, 2))
        changes[subject.person.label].append(left / template[0])
        assert right == pytest.approx(template[1], rel=0.005)
    assert np.mean(changes[1]) < 0.97
    assert np.mean(changes[0]) > 1.03


def test_the_overall_size_is_the_stated_one(anatomy: BrainAnatomy) -> None:
    cohort = replace(STILL, distractor_effect=0, scale_sd=0.05)
    for index in range(4):
        subject = simulate_brain_subject(index, anatomy=anatomy, cohort=cohort)
        inside = np.s_[12:24, 15:29, 12:24]  # away from the faces, where the field is the scaling alone
        assert determinants(subject.displacement_vox)[inside].mean() == pytest.approx(
            subject.person.scale**-3, rel=0.01
        )


def test_the_brain_stays_in_the_grid_and_the_faces_do_not_move(anatomy: BrainAnatomy) -> None:
    subject = simulate_brain_subject(1, anatomy=anatomy, seed=3, cohort=BrainCohort(deformation_mm=2.5, scale_sd=0.08))
    for axis in range(3):
        assert not np.take(subject.displacement_vox, [0, -1], axis=axis + 1).any()
    # so the map takes the grid onto itself: its determinants have the mean 1, by the trapezoidal rule
    determinant = determinants(subject.displacement_vox)
    assert determinant.min() > 0
    for size in determinant.shape[::-1]:
        determinant = trapezoid(determinant, axis=-1) / (size - 1)
    assert determinant == pytest.approx(1.0, abs=0.005)


def test_the_flow_has_converged(anatomy: BrainAnatomy) -> None:
    person = sample_people(1, seed=2, cohort=BrainCohort())[0]
    velocity = brain_velocity(person, anatomy, 2, BrainCohort())
    fields = {steps: flow(velocity, steps=steps) for steps in (7, 8, 10)}
    spacing = anatomy.grid.spacing_mm[0]
    apart = {steps: spacing * np.abs(fields[steps] - fields[10]).max() for steps in (7, 8)}
    assert apart[8] < apart[7] < 0.1
    assert apart[8] < 0.05


def test_a_subject_does_not_depend_on_the_parameters_of_others_and_repeats(anatomy: BrainAnatomy) -> None:
    first, again = (simulate_brain_subject(4, anatomy=anatomy, seed=9) for _ in range(2))
    assert first.image.tobytes() == again.image.tobytes()
    assert first.displacement_vox.tobytes() == again.displacement_vox.tobytes()
    assert first.person == again.person
    assert not np.array_equal(simulate_brain_subject(4, anatomy=anatomy, seed=8).image, first.image)
    assert not np.array_equal(simulate_brain_subject(5, anatomy=anatomy, seed=9).image, first.image)


def test_the_same_subject_at_two_resolutions() -> None:
    """Voxel centres of the coarse grid are every second one of the fine grid, and the faces are the same."""
    fine, coarse = (
        load_brain_anatomy("phantom", shape=shape, spacing_mm=spacing)
        for shape, spacing in (((41, 49, 41), 4.0), ((21, 25, 21), 8.0))
    )
    person = sample_people(1, seed=0, cohort=BrainCohort())[0]
    velocities = [brain_velocity(person, anatomy, 0, BrainCohort()) for anatomy in (fine, coarse)]
    np.testing.assert_allclose(4.0 * velocities[0][:, ::2, ::2, ::2], 8.0 * velocities[1], atol=1e-4)


@pytest.mark.parametrize("contrast", ["same", "gamma", "inverted"])
def test_intensity_knows_neither_sex_nor_diagnosis(anatomy: BrainAnatomy, contrast: str) -> None:
    cohort = BrainCohort(disease_effect=0, group_effect=0, contrast=contrast)
    person = sample_people(3, seed=0, cohort=cohort)[2]
    other = replace(person, sex="female" if person.sex == "male" else "male", label=1 - person.label, age=50)
    images = [draw_subject(each, anatomy, 0, cohort).image for each in (person, other)]
    np.testing.assert_array_equal(*images)


def test_noise_is_rician(anatomy: BrainAnatomy) -> None:
    cohort = replace(STILL, distractor_effect=0, noise=0.05)
    image = simulate_brain_subject(0, anatomy=anatomy, cohort=cohort).image
    air = image[anatomy.image < 1e-6]
    # Rayleigh: mean s sqrt(pi / 2), second moment 2 s^2
    assert air.mean() == pytest.approx(0.05 * math.sqrt(math.pi / 2), rel=0.02)
    assert (air**2).mean() == pytest.approx(2 * 0.05**2, rel=0.03)
    white = (image - anatomy.image)[anatomy.image > 0.8]
    assert white.std() == pytest.approx(0.05, rel=0.03)
    assert image.min() >= 0


def test_the_bias_field_is_smooth_and_as_large_as_stated(anatomy: BrainAnatomy) -> None:
    cohort = replace(STILL, distractor_effect=0, bias_field=0.4)
    image = simulate_brain_subject(0, anatomy=anatomy, cohort=cohort).image
    bright = anatomy.image > 0.05
    factor = image[bright] / anatomy.image[bright]
    assert 0.1 < np.abs(factor - 1).max() <= 0.4 + 1e-5
    ratio = np.where(bright, image / np.maximum(anatomy.image, 0.05), np.nan)
    # a field of width 40 mm and size 0.4 changes by about 0.4 / (40 sqrt 2) = 0.007 a millimetre
    steps = np.diff(ratio, axis=1)
    assert np.nanmax(np.abs(steps)) < 5 * 0.007 * anatomy.grid.spacing_mm[0]


def test_gamma_is_one_power_per_subject(anatomy: BrainAnatomy) -> None:
    powers = []
    for index in range(5):
        plain, changed = (
            simulate_brain_subject(index, anatomy=anatomy, cohort=replace(CLEAN, contrast=contrast)).image
            for contrast in ("same", "gamma")
        )
        inside = (plain > 0.1) & (plain < 0.9)
        power = np.log(changed[inside]) / np.log(plain[inside])
        assert np.ptp(power) < 1e-3
        powers.append(power.mean())
    assert 0.6 <= min(powers) < 0.95 < 1.05 < max(powers) <= 1.6


def test_inverted_contrast_turns_the_order_of_tissues_round(anatomy: BrainAnatomy) -> None:
    subject = simulate_brain_subject(0, anatomy=anatomy, cohort=replace(CLEAN, contrast="inverted"))
    fluid, grey, white = (subject.image[subject.tissue == label].mean() for label in (1, 2, 3))
    assert white + 0.1 < grey < fluid
    assert subject.image[anatomy.image == anatomy.image.min()].mean() < 0.01
    assert subject.image.min() >= 0


def test_a_deformation_that_folds_is_refused(anatomy: BrainAnatomy) -> None:
    cohort = BrainCohort(deformation_mm=10.0, smoothness_mm=4.0)
    with pytest.raises(MonaiFairError, match="sub-0001: expected a deformation without folds, got a smallest Jacobian"):
        simulate_brain_subject(0, anatomy=anatomy, cohort=cohort)


@pytest.mark.slow
def test_the_default_is_as_hard_as_stated() -> None:
    """At 80 x 96 x 80 and 2 mm: about 2.8 mm to correct, a tissue Dice of about 0.67, no folds."""
    anatomy = load_brain_anatomy("mni152")
    subjects = [simulate_brain_subject(index, anatomy=anatomy) for index in range(16)]
    assert np.mean([subject.mean_displacement_mm for subject in subjects]) == pytest.approx(2.8, abs=0.25)
    assert np.mean([subject.tissue_dice for subject in subjects]) == pytest.approx(0.67, abs=0.02)
    assert min(subject.volumes.minimum for subject in subjects) > 0.1
    assert np.mean([subject.volumes.log_sd for subject in subjects]) == pytest.approx(0.165, abs=0.02)
    velocity = brain_velocity(subjects[0].person, anatomy, 0, BrainCohort())
    assert 2.0 * np.abs(flow(velocity, steps=7) - flow(velocity, steps=10)).max() < 0.05
