"""A trained network as a module that scripts and exports: the same voxels as the network, from any form of it."""

import io
from pathlib import Path

import pytest
import torch
from torch import Tensor

from monai_fair.geometry import warp
from monai_fair.networks import LatticeINR, TemplateWarp

SHAPE = (10, 13, 12)
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.(script|save|load). is deprecated")
STEPS = pytest.mark.parametrize("steps", [0, 7])


def network_of(steps: int) -> LatticeINR:
    torch.manual_seed(0)
    network = LatticeINR(SHAPE, width=20, hidden=8, integration_steps=steps)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return network


def inputs(batch: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(batch, 1, *SHAPE, generator=generator), torch.randn(batch, 3, 20, generator=generator) * 0.3


@torch.no_grad()
@STEPS
def test_it_warps_as_the_network_does(steps: int) -> None:
    network = network_of(steps)
    image, codes = inputs()
    field = network(codes, network.lattice.sampling_grid())
    module = TemplateWarp(network)
    torch.testing.assert_close(module.displacement(codes), field, rtol=0, atol=1e-5)
    torch.testing.assert_close(module(image, codes), warp(image, field), rtol=0, atol=1e-5)
    assert float(field.abs().max()) > 1
    assert float((module(image, codes) - image).abs().max()) > 0.1


@torch.no_grad()
@STEPS
def test_a_script_stands_alone(steps: int, tmp_path: Path) -> None:
    image, codes = inputs(3)
    module = TemplateWarp(network_of(steps))
    scripted = torch.jit.script(module)
    torch.testing.assert_close(scripted(image, codes), module(image, codes))
    torch.jit.save(scripted, tmp_path / "warp.ts")
    read = torch.jit.load(tmp_path / "warp.ts", map_location="cpu")
    for batch in (3, 1):
        torch.testing.assert_close(read(image[:batch], codes[:batch]), module(image[:batch], codes[:batch]))
    torch.testing.assert_close(read.displacement(codes), module.displacement(codes))


@torch.no_grad()
@STEPS
def test_an_exported_program_takes_any_batch(steps: int) -> None:
    module = TemplateWarp(network_of(steps))
    batch = torch.export.Dim("batch")
    program = torch.export.export(module, inputs(2), dynamic_shapes=({0: batch}, {0: batch}))
    stored = io.BytesIO()
    torch.export.save(program, stored)
    stored.seek(0)
    read = torch.export.load(stored).module()
    for size in (2, 5):
        torch.testing.assert_close(read(*inputs(size)), module(*inputs(size)))


def test_training_on_leaves_it_as_it_was() -> None:
    network = network_of(0).eval()
    image, codes = inputs()
    module = TemplateWarp(network)
    before = module(image, codes)
    network.basis().add_(1.0)  # what the network keeps is not what the module keeps
    with torch.no_grad():
        next(network.parameters()).add_(1.0)
    assert torch.equal(module(image, codes), before)
    assert not before.requires_grad
    assert set(module.state_dict()) == {
        "basis",
        *(f"to_{name}_{axis}" for name in ("voxels", "nodes") for axis in range(3)),
    }


def test_gradients_reach_image_and_codes() -> None:
    module = TemplateWarp(network_of(0)).double()
    image, codes = (value.double() for value in inputs(1))
    code = codes.clone().requires_grad_()
    change = torch.randn(codes.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weight = torch.rand(image.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    (gradient,) = torch.autograd.grad((module(image, code) * weight).sum(), code)
    # trilinear interpolation has kinks between voxels, so a small step
    steps = [float((module(image, codes + sign * 1e-7 * change) * weight).sum()) for sign in (1, -1)]
    assert float((gradient * change).sum()) == pytest.approx((steps[0] - steps[1]) / 2e-7, rel=1e-4)
