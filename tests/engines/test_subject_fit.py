"""Known deformations are found again, by codes alone and with a free residual."""

from typing import Any

import numpy as np
import pytest
import torch

from monai_fair.engines import SubjectFit, TemplateSpace
from monai_fair.engines.subject_fit import shifts
from monai_fair.errors import RegistrationError
from monai_fair.geometry import Grid, inverse_error, jacobian_determinant, voxel_points, warp
from monai_fair.metrics.registration import dice_by_label
from monai_fair.networks import LatticeINR

# Mean distance to the truth inside the brain, in voxels. Before: 0, 0.78, 0.57 and 1.24.
BOUNDS = {"identity": 1e-3, "shift": 0.12, "rotation": 0.12, "sine": 0.15}


@pytest.mark.parametrize("residual", [False, True], ids=["codes", "codes and residual"])
@pytest.mark.parametrize("kind", BOUNDS)
def test_a_known_field_is_found(brain: Any, kind: str, residual: bool) -> None:
    truth = brain.field(kind)
    network = brain.network()
    found = brain.fit(residual=residual)(brain.warped(truth), network)
    assert brain.mean_error(found.displacement(network), truth) < BOUNDS[kind]
    assert residual or not found.residual.any()
    assert float(jacobian_determinant(found.displacement(network)).min()) > 0.5


def test_a_velocity_is_found_and_its_inverse_is_its_negative(brain: Any) -> None:
    truth = brain.field("sine")
    network = brain.network(integration_steps=5)
    found = brain.fit()(brain.warped(truth), network)
    field, inverse = found.displacement(network), found.inverse(network)
    assert brain.mean_error(field, truth) < 0.15
    assert float(inverse_error(field, inverse)[0][torch.from_numpy(brain.space.mask)].mean()) < 0.05


def test_simulated_subjects_come_closer_with_every_stage(brain: Any) -> None:
    """Image noise, a bias field and deformations of 5 mm: what a fit is for."""
    network = brain.network()
    found = brain.fit()(brain.images, network)
    before, codes, full = [], [], []
    for place, subject in enumerate(brain.subjects):
        truth = torch.from_numpy(subject.displacement_vox)[None]
        before.append(brain.mean_error(torch.zeros_like(truth), truth))
        codes.append(brain.mean_error(found.without_residual().displacement(network)[place, None], truth))
        full.append(brain.mean_error(found.displacement(network)[place, None], truth))
    assert np.mean(full) < np.mean(codes) < 0.75 * np.mean(before)


ELLIPSOID_SHAPE = (36, 40, 36)


def ellipsoid(half: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """An ellipsoid with a core of 0.6 of its size, as an image with soft edges and as labels 1 and 2."""
    centre, size = (np.array(values)[:, None, None, None] for values in ((17.3, 19.6, 17.4), half))
    radius = np.sqrt((((voxel_points(ELLIPSOID_SHAPE).numpy() - centre) / size) ** 2).sum(axis=0))
    image = 0.6 / (1 + np.exp(10 * (radius - 1))) + 0.4 / (1 + np.exp(10 * (radius - 0.6)))
    return image.astype(np.float32), (radius < 1).astype(np.int64) + (radius < 0.6)


def test_two_ellipsoids(brain: Any) -> None:
    """A stored baseline: another figure belongs into the changelog, under "Results change"."""
    (template, labels), (subject, truth) = ellipsoid((12, 15, 12)), ellipsoid((14, 13, 11))
    space = TemplateSpace(template, labels > 0, Grid.isotropic(ELLIPSOID_SHAPE, 2.0), {"tissue": labels})
    torch.manual_seed(0)
    network = LatticeINR(ELLIPSOID_SHAPE, spacing=4.0, order=4, width=120, hidden=16, depth=2)
    field = brain.fit(space=space)(torch.from_numpy(subject)[None], network).displacement(network)
    warped = warp(torch.from_numpy(labels).float()[None, None], field, mode="nearest")[0, 0].numpy()
    assert dice_by_label(labels, truth) == pytest.approx({1: 0.8246, 2: 0.8845}, abs=1e-3)
    assert dice_by_label(warped.astype(np.int64), truth) == pytest.approx({1: 0.958, 2: 0.960}, abs=0.01)
    determinant = jacobian_determinant(field)[0].numpy()
    assert (determinant <= 0).mean() == 0
    assert float(determinant.min()) == pytest.approx(0.879, abs=0.03)


def test_the_same_bits_on_every_run(brain: Any) -> None:
    runs = [brain.fit()(brain.images[:2], brain.network()) for _ in range(2)]
    assert all(torch.equal(getattr(runs[0], name), getattr(runs[1], name)) for name in vars(runs[0]))


def test_a_subject_does_not_see_the_others_of_its_batch(brain: Any) -> None:
    network = brain.network()
    together = brain.fit()(brain.images[:3], network).displacement(network)
    alone = brain.fit()(brain.images[1:2], network).displacement(network)
    torch.testing.assert_close(together[1:2], alone, rtol=0, atol=1e-3)
    spoiled = brain.images[:3].clone()
    spoiled[0] = torch.nan
    spoiled[2] = 5.0  # without contrast
    found = brain.fit()(spoiled, network)
    assert torch.isfinite(found.displacement(network)).flatten(1).all(dim=1).tolist() == [False, True, False]
    torch.testing.assert_close(found.displacement(network)[1:2], alone, rtol=0, atol=1e-3)


def test_without_levels_for_it_the_residual_stays_zero(brain: Any) -> None:
    network = brain.network()
    found = brain.fit(residual=False)(brain.images, network)
    assert torch.equal(found.residual, torch.zeros(4, 3, *network.lattice.shape))


def test_an_evaluation_leaves_the_network_as_it_was(brain: Any) -> None:
    network = brain.network().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    brain.fit()(brain.images[:1], network)
    assert not network.training
    torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize("stride", [1, 2, 3, 4])
def test_the_first_voxels_change_from_step_to_step(stride: int) -> None:
    steps = shifts(stride)
    found = [next(steps) for _ in range(2 * stride)]
    assert found[:stride] == found[stride:]  # a cycle
    assert len(set(found[:stride])) == stride
    assert found[0] == (0, 0, 0)
    assert {place for triple in found for place in triple} <= set(range(stride))
    assert {triple[0] for triple in found} == set(range(stride))


def test_levels_that_do_not_belong_to_the_match(brain: Any) -> None:
    match = brain.match([[1.0, 2, 1]])
    with pytest.raises(RegistrationError) as caught:
        SubjectFit(match, code_levels=[])
    assert str(caught.value) == "code_levels: expected at least one level, got none"
    with pytest.raises(RegistrationError) as caught:
        SubjectFit(match, code_levels=[[1.0, 2, 1]], residual_levels=[[0.5, 1, 1]])
    assert str(caught.value) == "match: expected one made for the levels' blurs (1.0, 0.5), got (1.0,)"


def test_images_of_another_shape(brain: Any) -> None:
    with pytest.raises(RegistrationError) as caught:
        brain.fit()(torch.rand(1, 28, 32, 27), brain.network())
    assert str(caught.value) == (
        "registration: expected images, template and network of one shape, got (28, 32, 27), (28, 32, 28) and "
        "(28, 32, 28)"
    )
