"""A GPU registers as the CPU does (``-m gpu``). Each test mirrors one of tests/engines."""

import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, DistributedSampler

from monai_fair.data import write_volume
from monai_fair.engines import (
    CodeTable,
    CohortImages,
    CohortTrainer,
    SubjectFit,
    TemplateSpace,
    template_match,
)
from monai_fair.networks import LatticeINR
from monai_fair.simulation import BrainSubject, load_brain_anatomy, simulate_brain_subject

DEVICE = "cuda"
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

CODE_LEVELS = [[1.0, 2, 5], [0.5, 2, 3]]
RESIDUAL_LEVELS = [[0.5, 2, 2], [0.3, 1, 2]]
SHAPE = (28, 32, 28)


@functools.cache
def head() -> tuple[TemplateSpace, list[BrainSubject]]:
    """The phantom and four subjects; made when a test asks for it, not when tests are collected."""
    anatomy = load_brain_anatomy("phantom", shape=SHAPE)
    subjects = [simulate_brain_subject(index, anatomy=anatomy, seed=3) for index in range(4)]
    return TemplateSpace(anatomy.image, anatomy.mask > 0, anatomy.grid, {}), subjects


def network_on(device: str, *, width: int = 160, amp: bool = False) -> LatticeINR:
    torch.manual_seed(0)
    return LatticeINR(SHAPE, spacing=4.0, order=4, width=width, hidden=16, depth=2, amp=amp).to(device)


def registered(device: str, *, amp: bool = False, contrast: str = "same") -> tuple[Tensor, Tensor]:
    """Fields of four subjects, and of their inverses."""
    space, subjects = head()
    match = template_match(space, CODE_LEVELS, RESIDUAL_LEVELS, sigma_vox=2.0, epsilon=0.3, device=device)
    fit = SubjectFit(match, code_levels=CODE_LEVELS, residual_levels=RESIDUAL_LEVELS, smoothness=0.1, contrast=contrast)
    images = torch.stack([torch.from_numpy(subject.image) for subject in subjects]).to(device)
    network = network_on(device, amp=amp)
    found = fit(images, network)
    assert found.codes.device.type == torch.device(device).type
    return found.displacement(network).cpu(), found.inverse(network).cpu()


def mean_distance(one: Tensor, two: Tensor) -> float:
    return mean_length(one - two)


def mean_length(field: Tensor) -> float:
    return float(field.norm(dim=1)[:, torch.from_numpy(head()[0].mask)].mean())


@pytest.mark.parametrize("contrast", ["same", "any"])
def test_a_subject_is_registered_as_on_the_cpu(contrast: str) -> None:
    on_cpu, on_gpu = registered("cpu", contrast=contrast), registered(DEVICE, contrast=contrast)
    for expected, found in zip(on_cpu, on_gpu, strict=True):
        assert mean_distance(found, expected) < 1e-3
        assert mean_length(found) > 0.1


def test_a_trunk_in_bfloat16_finds_the_same_field() -> None:
    truth = torch.stack([torch.from_numpy(subject.displacement_vox) for subject in head()[1]])
    exact, rounded = registered(DEVICE)[0], registered(DEVICE, amp=True)[0]
    assert mean_distance(rounded, exact) < 0.03
    assert mean_distance(rounded, truth) < 1.05 * mean_distance(exact, truth)


def test_the_same_fit_twice_on_the_gpu() -> None:
    """Reading images by gathers leaves nothing to scatter, so that only sums may differ in their order."""
    first, second = registered(DEVICE)[0], registered(DEVICE)[0]
    assert mean_distance(first, second) < 1e-4


def fitted(device: str, folder: Path) -> tuple[dict[str, Tensor], Tensor]:
    """Network and codes after three epochs on four subjects."""
    space, subjects = head()
    rows = []
    for subject in subjects:
        name = subject.person.subject_id
        rows.append({"subject_id": name, "image": write_volume(folder / f"{name}.nii", subject.image, space.grid)})
    levels = [[1.0, 4, 2], [0.5, 3, 1]]
    match = template_match(space, levels, sigma_vox=2.0, epsilon=0.3, device=device)
    images = CohortImages(rows, space.grid, match, folder / "cache", progress=False)
    network = network_on(device, width=40)
    codes = CodeTable(images.subject_ids, network.code_shape, device=device)
    CohortTrainer(
        device,
        DataLoader(images, batch_size=2, sampler=DistributedSampler(images, 1, 0)),
        network,
        torch.optim.Adam(network.parameters(), lr=0.002, betas=(0.9, 0.99)),
        match,
        codes,
        levels=levels,
        smoothness=0.1,
    ).run()
    return {name: value.cpu() for name, value in network.state_dict().items()}, codes.values.cpu()


@pytest.mark.filterwarnings("ignore:`torch.cuda.amp:FutureWarning")  # MONAI's trainer makes its scaler the old way
def test_a_cohort_is_fitted_as_on_the_cpu(tmp_path: Path) -> None:
    (expected, expected_codes), (found, codes) = (fitted(device, tmp_path / device) for device in ("cpu", DEVICE))
    scale = float(expected_codes.abs().max())
    assert scale > 0.01
    torch.testing.assert_close(codes, expected_codes, rtol=0.01, atol=0.01 * scale)
    for name, value in expected.items():
        # Adam's first steps turn a gradient's sign into a whole step, also where the gradient is rounding
        assert float((found[name] - value).abs().mean()) < 1e-3, name
        assert np.isfinite(found[name].numpy()).all()
