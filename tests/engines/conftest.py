"""A small head of ellipsoids, subjects cut from it by known fields, and networks for them."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from monai_fair.data import write_volume
from monai_fair.engines import SubjectFit, TemplateMatch, TemplateSpace, template_match
from monai_fair.geometry import voxel_points, warp
from monai_fair.networks import LatticeINR
from monai_fair.simulation import BrainCohort, load_brain_anatomy, simulate_brain_subject

SHAPE = (28, 32, 28)
CODE_LEVELS = [[1.0, 2, 5], [0.5, 2, 3]]
RESIDUAL_LEVELS = [[0.5, 2, 2], [0.3, 1, 2]]


class Brain:
    """The phantom, what lies on its grid, and fields that are known everywhere."""

    code_levels = CODE_LEVELS
    residual_levels = RESIDUAL_LEVELS

    def __init__(self) -> None:
        self.anatomy = load_brain_anatomy("phantom", shape=SHAPE)
        self.grid = self.anatomy.grid
        labels = {name: getattr(self.anatomy, name).astype(np.int64) for name in ("tissue", "roi")}
        self.space = TemplateSpace(self.anatomy.image, self.anatomy.mask > 0, self.grid, labels)
        self.template = torch.from_numpy(self.anatomy.image)
        brains = BrainCohort(
            deformation_mm=1.55, detail_mm=0.45, disease_effect=0.25, group_effect=0.25, group_spread=1
        )
        self.subjects = [
            simulate_brain_subject(index, anatomy=self.anatomy, seed=3, cohort=brains) for index in range(4)
        ]
        self.images = torch.stack([torch.from_numpy(subject.image) for subject in self.subjects])

    def network(self, *, width: int = 160, seed: int = 0, **options: Any) -> LatticeINR:
        """A network as it starts: a cosine basis, which reaches any smooth field."""
        torch.manual_seed(seed)
        return LatticeINR(SHAPE, spacing=4.0, order=4, width=width, hidden=16, depth=2, **options)

    def match(self, levels: Any, more_levels: Any = (), **options: Any) -> TemplateMatch:
        """The comparison with the phantom, or with another space; figures of tests do not follow the defaults."""
        options = {"sigma_vox": 2.0, "epsilon": 0.3} | options
        return template_match(options.pop("space", self.space), levels, more_levels, **options)

    def fit(self, *, residual: bool = True, **options: Any) -> SubjectFit:
        levels = RESIDUAL_LEVELS if residual else []
        shared = {name: options.pop(name) for name in ("space", "contrast") if name in options}
        match = self.match(CODE_LEVELS, levels, **shared)
        options = {"smoothness": 0.1, "iterations": 8, "thinning": 2} | options
        return SubjectFit(match, code_levels=CODE_LEVELS, residual_levels=levels, **options)

    def warped(self, field: Tensor) -> Tensor:
        """The template seen through a field ``(1, 3, D, H, W)``, as a batch of one image."""
        return warp(self.template[None, None], field)[:, 0]

    def mean_error(self, found: Tensor, truth: Tensor) -> float:
        """Mean distance of two fields ``(1, 3, D, H, W)`` in voxels, inside the true subject's brain."""
        mask = torch.from_numpy(self.space.mask.astype(np.float32))
        inside = warp(mask[None, None], truth, mode="nearest")[0, 0] > 0
        return float((found - truth).norm(dim=1)[0][inside].mean())

    def field(self, kind: str) -> Tensor:
        """A field of the subject, shape ``(1, 3, D, H, W)`` in voxels."""
        points = voxel_points(SHAPE)
        if kind == "identity":
            field = torch.zeros_like(points)
        elif kind == "shift":
            field = torch.tensor([0.6, -0.4, 0.3])[:, None, None, None].expand_as(points).clone()
        elif kind == "rotation":  # 4 degrees around the third axis
            angle = math.radians(4)
            turn = torch.tensor(
                [[math.cos(angle), -math.sin(angle), 0.0], [math.sin(angle), math.cos(angle), 0.0], [0.0, 0.0, 1.0]]
            )
            centred = points - (torch.tensor(SHAPE)[:, None, None, None] - 1) / 2
            field = torch.einsum("ab,bxyz->axyz", turn, centred) - centred
        else:  # sine: one wave over each axis
            phase = 2 * math.pi * points / torch.tensor(SHAPE)[:, None, None, None]
            field = phase[[1, 2, 0]].sin()
        return field[None]

    def write_template(self, folder: Path) -> Path:
        """Write the template as simulated and prepared cohorts have it; return the folder."""
        images = {"T1w": "image", "desc-brain_mask": "mask", "dseg": "tissue", "desc-roi_dseg": "roi"}
        for name, part in images.items():
            write_volume(folder / f"template_{name}.nii.gz", getattr(self.anatomy, part), self.grid)
        return folder

    def write(self, folder: Path, count: int = 4) -> list[dict[str, Any]]:
        """Write subjects as files; return the rows of their datalist."""
        return self.write_images(folder, self.images[:count])

    def write_images(self, folder: Path, images: Tensor) -> list[dict[str, Any]]:
        """Write other images of the subjects."""
        rows = []
        for subject, image in zip(self.subjects, images, strict=False):
            name = subject.person.subject_id
            path = write_volume(folder / f"{name}_T1w.nii.gz", image.numpy(), self.grid)
            rows.append({"subject_id": name, "image": str(path), "split": "test"})
        return rows


@pytest.fixture(scope="session")
def brain() -> Brain:
    return Brain()


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums in several threads differ in the last bit, and tests run side by side."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
