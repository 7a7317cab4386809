"""One subject of a simulated brain cohort: the true deformation, the image, and the labels that follow it."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from monai_fair.errors import MonaiFairError
from monai_fair.geometry import Axes
from monai_fair.simulation.brain_anatomy import BrainAnatomy, axes_of
from monai_fair.simulation.brain_cohort import BrainCohort
from monai_fair.simulation.brain_fields import Field, VolumeChanges, flow, volume_changes, warped
from monai_fair.simulation.brain_regions import DISEASE_SITE, DISTRACTOR_SITES, GROUP_SITE, TISSUES
from monai_fair.simulation.brain_sampling import COARSE, FINE, INTENSITY, BrainPerson, sample_people, stream
from monai_fair.simulation.brain_velocity import local_effect, scaling, smooth_noise, taper

_BIAS_SMOOTHNESS_MM = 40.0
_GAMMA_LIMITS = (0.6, 1.6)


@dataclass(frozen=True, eq=False)
class BrainSubject:
    """One subject on the template's grid, all of shape ``(D, H, W)`` but the field.

    Attributes:
        person: what is on record, and what is planted.
        image: float32, 0 or more; the brightest tissue of the template is near 1.
        displacement_vox: float32, shape ``(3, D, H, W)``, in voxels: ``subject(x) = template(x + u(x))``.
        tissue: uint8, the template's labels under the same field.
        roi: uint8, the template's labels under the same field.
        mask: uint8, the template's mask under the same field.
        volumes: Jacobian determinants of the field.
        mean_displacement_mm: mean length of the field inside the mask.
        tissue_dice: mean Dice coefficient of the tissues of template and subject, before any registration; a tissue
            that a coarse template does not have is left out.
    """

    person: BrainPerson
    image: npt.NDArray[np.float32]
    displacement_vox: Field
    tissue: npt.NDArray[np.uint8]
    roi: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.uint8]
    volumes: VolumeChanges
    mean_displacement_mm: float
    tissue_dice: float


def simulate_brain_subject(
    index: int, *, anatomy: BrainAnatomy, seed: int = 0, cohort: BrainCohort | None = None
) -> BrainSubject:
    """Return subject ``index`` (from 0) of a cohort, without writing anything.

    The same seed, number and parameters give the same bits, however many subjects there are.

    Args:
        index: number of the subject.
        anatomy: the template, see :func:`~monai_fair.simulation.brain_anatomy.load_brain_anatomy`.
        seed: seed of the cohort.
        cohort: what is planted; by default ``BrainCohort()``.

    Raises:
        MonaiFairError: if the deformation folds: the parameters ask for too much.

    Example:
        >>> from monai_fair.simulation import load_brain_anatomy
        >>> subject = simulate_brain_subject(0, anatomy=load_brain_anatomy("phantom", shape=(24, 28, 24)))
        >>> subject.person.subject_id, subject.image.shape, subject.displacement_vox.shape
        ('sub-0001', (24, 28, 24), (3, 24, 28, 24))
    """
    cohort = BrainCohort() if cohort is None else cohort
    return draw_subject(sample_people(index + 1, seed=seed, cohort=cohort)[index], anatomy, seed, cohort)


def draw_subject(person: BrainPerson, anatomy: BrainAnatomy, seed: int, cohort: BrainCohort) -> BrainSubject:
    """Draw one subject; see :func:`simulate_brain_subject`."""
    # sums in a matrix product depend on the number of threads, and so would the bits
    with threadpool_limits(1):
        displacement = flow(brain_velocity(person, anatomy, seed, cohort))
        tissue, roi, mask = (
            warped(labels, displacement, mode="nearest") for labels in (anatomy.tissue, anatomy.roi, anatomy.mask)
        )
        image = _image(person, anatomy, displacement, seed, cohort)
        changes = volume_changes(displacement, mask > 0)
    if not changes.minimum > 0:
        raise MonaiFairError(
            f"{person.subject_id}: expected a deformation without folds, got a smallest Jacobian determinant of "
            f"{changes.minimum:.3g}; lower deformation_mm, detail_mm or an effect, or raise a smoothness"
        )
    moved = anatomy.grid.displacement(displacement, Axes.VOXEL, Axes.RAS)
    return BrainSubject(
        person=person,
        image=image,
        displacement_vox=displacement,
        tissue=tissue,
        roi=roi,
        mask=mask,
        volumes=changes,
        mean_displacement_mm=float(np.linalg.norm(moved, axis=0)[mask > 0].mean()),
        tissue_dice=_dice(anatomy.tissue, tissue),
    )


def brain_velocity(person: BrainPerson, anatomy: BrainAnatomy, seed: int, cohort: BrainCohort) -> Field:
    """Return the velocity whose flow is the subject's displacement, shape ``(3, D, H, W)``, in voxels."""
    axes = axes_of(anatomy.grid)
    velocity = scaling(axes, math.log(person.scale))
    for purpose, amount, smoothness in (
        (COARSE, cohort.deformation_mm, cohort.smoothness_mm),
        (FINE, cohort.detail_mm, cohort.detail_smoothness_mm),
    ):
        if amount:
            noise = smooth_noise(axes, smoothness, stream(seed, purpose, person.index))
            velocity += np.float32(amount) * noise
    effects = [
        (DISEASE_SITE, cohort.disease_effect * person.disease_strength),
        (GROUP_SITE, cohort.group_effect * person.group_strength),
    ]
    sites = DISTRACTOR_SITES[: cohort.distractors]
    effects += [
        (site, cohort.distractor_effect * strength)
        for site, strength in zip(sites, person.distractor_strengths, strict=True)
    ]
    for site, log_shrinkage in effects:
        if log_shrinkage:
            velocity += local_effect(axes, site, -log_shrinkage)
    velocity *= taper(axes)
    return np.asarray(anatomy.grid.displacement(velocity, Axes.RAS, Axes.VOXEL), dtype=np.float32)


def _image(
    person: BrainPerson,
    anatomy: BrainAnatomy,
    displacement: Field,
    seed: int,
    cohort: BrainCohort,
) -> npt.NDArray[np.float32]:
    generator = stream(seed, INTENSITY, person.index)
    low, high = (math.log(limit) for limit in _GAMMA_LIMITS)
    # drawn for every contrast, so that bias field and noise do not depend on it
    power = math.exp(generator.uniform(low, high))
    signal = _contrast(warped(anatomy.image, displacement), cohort.contrast, power)
    smooth = smooth_noise(axes_of(anatomy.grid), _BIAS_SMOOTHNESS_MM, generator, components=1)[0]
    if cohort.bias_field:
        signal *= 1.0 + np.float32(cohort.bias_field) * smooth / np.abs(smooth).max()
    if cohort.noise:
        # magnitude of a complex signal (Gudbjartsson and Patz, MRM 1995): Rician in tissue, Rayleigh in air
        real, imaginary = generator.standard_normal((2, *signal.shape), dtype=np.float32) * np.float32(cohort.noise)
        signal = np.hypot(signal + real, imaginary)
    return signal


def _contrast(signal: npt.NDArray[np.float32], contrast: str, power: float) -> npt.NDArray[np.float32]:
    """Change the contrast of a T1-weighted signal in [0, 1]; 0 stays 0."""
    if contrast == "gamma":
        return np.asarray(signal ** np.float32(power))
    if contrast == "inverted":
        # air stays dark: a ramp up to 0.2, below which the template has only partial volume with air
        return np.asarray(np.minimum(signal / np.float32(0.2), 1.0) * (np.float32(1.1) - signal), dtype=np.float32)
    return signal


def _dice(template: npt.NDArray[np.uint8], subject: npt.NDArray[np.uint8]) -> float:
    """Return the mean of ``2 |A and B| / (|A| + |B|)`` over the tissues of the template."""
    shares = []
    for label in np.intersect1d(list(TISSUES), template):
        first, second = template == label, subject == label
        shares.append(2.0 * float((first & second).sum()) / float(first.sum() + second.sum()))
    return float(np.mean(shares))
