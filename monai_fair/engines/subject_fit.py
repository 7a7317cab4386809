"""Register subjects a network has not seen: their codes by Gauss-Newton, then a free residual."""

import itertools
from dataclasses import dataclass, replace

import torch
from monai.inferers import Inferer
from torch import Tensor

from monai_fair.engines.code_fit import CodeMetric, code_step, residual_step
from monai_fair.engines.image_match import Level, LevelList, TemplateMatch
from monai_fair.errors import RegistrationError
from monai_fair.networks import DeformationINR

_RECOLOURINGS = 3  # of the template at each level of the codes, where it still moves far
Offsets = tuple[int, int, int]


@dataclass(frozen=True)
class Deformations:
    """What registration found for a batch of subjects.

    Attributes:
        codes: shape ``(B, *code_shape)``.
        residual: lattice coefficients of the free part, shape ``(B, 3, *lattice.shape)``; zeros without that stage.
        noise: standard deviation of what is left between warped template and subject, ``(B,)``.
        last_step_vox: largest displacement that the last step changed, in voxels, ``(B,)``; small when converged.
    """

    codes: Tensor
    residual: Tensor
    noise: Tensor
    last_step_vox: Tensor

    def without_residual(self) -> "Deformations":
        """Return the answer of the codes alone."""
        return replace(self, residual=torch.zeros_like(self.residual))

    @torch.no_grad()
    def displacement(self, network: DeformationINR) -> Tensor:
        """Return dense displacements in voxels, shape ``(B, 3, D, H, W)``."""
        return network.forward(self.codes, network.lattice.sampling_grid(), self.residual)

    @torch.no_grad()
    def inverse(self, network: DeformationINR) -> Tensor:
        """Return dense displacements of the inverse maps in voxels, shape ``(B, 3, D, H, W)``."""
        return network.inverse(self.codes, network.lattice.sampling_grid(), self.residual)


class SubjectFit(Inferer):
    """Register batches of subjects with a trained network: an inferer whose answer is :class:`Deformations`.

    Args:
        match: compares the template with subjects; one level for each of ``code_levels`` and ``residual_levels``.
        code_levels: from coarse to fine, for the codes.
        residual_levels: from coarse to fine, for the residual; none leaves it at zero.
        smoothness: weight of the roughness of code fields and of residuals, per squared voxel.
        iterations: conjugate gradients within a step.
        thinning: of the curvature at stride 1, see :func:`residual_step`.

    Raises:
        RegistrationError: if there is no level for the codes, or ``match`` is of other levels.
    """

    def __init__(
        self,
        match: TemplateMatch,
        *,
        code_levels: LevelList,
        residual_levels: LevelList = (),
        smoothness: float = 0.1,
        iterations: int = 8,
        thinning: int = 2,
    ) -> None:
        super().__init__()
        self.match = match
        if not code_levels:
            raise RegistrationError("code_levels: expected at least one level, got none")
        self.code_levels = Level.parse(code_levels)
        self.residual_levels = Level.parse(residual_levels)
        blurs = tuple(level.blur_vox for level in (*self.code_levels, *self.residual_levels))
        if match.blurs_vox != blurs:
            raise RegistrationError(f"match: expected one made for the levels' blurs {blurs}, got {match.blurs_vox}")
        self.smoothness = smoothness
        self.iterations = iterations
        self.thinning = thinning

    @torch.no_grad()
    def __call__(self, inputs: Tensor, network: DeformationINR) -> Deformations:
        """Register subjects; the network is put into evaluation mode and not changed.

        Args:
            inputs: images on the template's grid, shape ``(B, D, H, W)``.
            network: maps codes to deformations.

        Raises:
            RegistrationError: if images, template and network are of different shapes.
        """
        shapes = tuple(inputs.shape[1:]), tuple(self.match.mask.shape), network.lattice.image_shape
        if len(set(shapes)) > 1:
            raise RegistrationError(
                f"registration: expected images, template and network of one shape, got {shapes[0]}, {shapes[1]} and "
                f"{shapes[2]}"
            )
        network.eval()
        codes = inputs.new_zeros(len(inputs), *network.code_shape)
        residual = inputs.new_zeros(len(inputs), 3, *network.lattice.shape)
        nothing = inputs.new_zeros(len(inputs))
        found = self._fit_codes(inputs, network, Deformations(codes, residual, nothing, nothing))
        return self._fit_residual(inputs, network, found)

    def _fit_codes(self, images: Tensor, network: DeformationINR, found: Deformations) -> Deformations:
        metric = CodeMetric.of(network)
        for number, level in enumerate(self.code_levels):
            subjects = self.match.normalised(images, number)
            templates = None
            for count, offsets in enumerate(itertools.islice(shifts(level.stride), level.steps)):
                grid = network.lattice.sampling_grid(level.stride, offsets)
                linear, displacement = network.linearise(found.codes, grid), network.forward(found.codes, grid)
                if self.match.contrast == "any" and count < _RECOLOURINGS:
                    templates = self.match.recoloured(displacement, images, grid, number)
                match = self.match(displacement, subjects[(..., *grid.slices)], grid, number, templates)
                step = code_step(
                    found.codes,
                    linear,
                    match,
                    metric,
                    smoothness=self.smoothness,
                    points=network.lattice.size,
                    iterations=self.iterations,
                )
                moved = _largest(linear.push(step))
                found = replace(found, codes=found.codes + step, noise=match.noise, last_step_vox=moved)
        return found

    def _fit_residual(self, images: Tensor, network: DeformationINR, found: Deformations) -> Deformations:
        lattice = network.lattice
        for number, level in enumerate(self.residual_levels, start=len(self.code_levels)):
            subjects = self.match.normalised(images, number)
            templates = None
            for count, offsets in enumerate(itertools.islice(shifts(level.stride), level.steps)):
                grid = lattice.sampling_grid(level.stride, offsets)
                displacement = network.forward(found.codes, grid, found.residual)
                if self.match.contrast == "any" and count == 0:
                    templates = self.match.recoloured(displacement, images, grid, number)
                match = self.match(displacement, subjects[(..., *grid.slices)], grid, number, templates)
                step = residual_step(
                    found.residual,
                    match,
                    lattice,
                    grid,
                    smoothness=self.smoothness,
                    iterations=self.iterations,
                    thinning=self.thinning if level.stride == 1 else 1,
                )
                moved = _largest(lattice.upsample(step, grid.weights))
                found = replace(found, residual=found.residual + step, noise=match.noise, last_step_vox=moved)
        return found


def shifts(stride: int) -> "itertools.cycle[Offsets]":
    """Return first voxels that differ from step to step, so that no voxel of a strided grid is always left out."""
    # 1, 2 and 3 steps along the axes run through diagonals of the block that a stride leaves out
    return itertools.cycle([(place % stride, 2 * place % stride, 3 * place % stride) for place in range(stride)])


def _largest(displacement: Tensor) -> Tensor:
    return displacement.square().sum(dim=1).amax(dim=(1, 2, 3)).sqrt()
