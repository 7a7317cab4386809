"""Our registration behind the interface of the peers: the one place that knows the engine.

All unseen subjects go through one process in batches of 8, so seconds are those of all over their number, and the
memory is that of a batch.
"""

import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from registration_peers import Prepared
from torch.utils.data import DataLoader, DistributedSampler
from torch.utils.flop_counter import FlopCounterMode

from monai_fair import __version__
from monai_fair.data import Volume, read_volume, write_displacement
from monai_fair.engines import (
    CodeTable,
    CohortImages,
    CohortTrainer,
    SubjectFit,
    TemplateSpace,
    read_template,
    template_match,
)
from monai_fair.networks import LatticeINR

Field = npt.NDArray[np.float32]

FIT_LEVELS = [[2.0, 4, 5], [1.0, 4, 5], [0.5, 3, 5]]
CODE_LEVELS = [[2.0, 4, 3], [1.0, 4, 2], [0.5, 2, 2]]
RESIDUAL_LEVELS = [[0.3, 1, 3]]
SMOOTHNESS = 0.1
BATCH = 8


def _space(template: Volume) -> TemplateSpace:
    """Return the template with the mask that lies beside it, as the bundle reads them."""
    return read_template(Path(template.source).parent)


def _network(space: TemplateSpace) -> LatticeINR:
    return LatticeINR(space.grid.shape, width=512, hidden=128)


def fitted_network(template: Volume, model: Path) -> LatticeINR:
    """Return the network that :func:`fit_cohort` left in the folder ``model``."""
    network = _network(_space(template))
    network.load_state_dict(torch.load(model / "model.pt", weights_only=True))
    return network


def fit_cohort(template: Volume, subjects: Sequence[Volume], model: Path, *, contrast: str = "same") -> None:
    """Fit the shared network to the training subjects and leave it in the folder ``model``; timed.

    Args:
        template: the image that is moved.
        subjects: on the template's grid.
        model: an empty folder.
        contrast: ``same``, or ``any`` to give the template each subject's contrast.
    """
    torch.manual_seed(0)
    space = _space(template)
    match = template_match(space, FIT_LEVELS, contrast=contrast)
    rows = [{"subject_id": f"s{number:04d}", "image": volume.source} for number, volume in enumerate(subjects)]
    network = _network(space)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3, betas=(0.9, 0.99))
    with tempfile.TemporaryDirectory() as cache:
        images = CohortImages(rows, space.grid, match, cache, progress=False)
        codes = CodeTable(images.subject_ids, network.code_shape)
        sampler = DistributedSampler(images, num_replicas=1, rank=0)
        trainer = CohortTrainer(
            "cpu",
            DataLoader(images, batch_size=16, sampler=sampler),
            network,
            optimizer,
            match,
            codes,
            levels=FIT_LEVELS,
            smoothness=SMOOTHNESS,
        )
        trainer.run()
    torch.save(network.state_dict(), model / "model.pt")
    codes.save(model / "codes.safetensors")


def ours(
    template: Volume,
    subjects: Sequence[Volume],
    model: Path,
    *,
    residual: bool,
    contrast: str = "same",
    smoothness: float = SMOOTHNESS,
) -> list[Field]:
    """Register the template to unseen subjects; timed from the first statement to the last.

    Args:
        template: the image that is moved.
        subjects: on the template's grid.
        model: folder that :func:`fit_cohort` filled.
        residual: codes and a free residual per subject, or codes only.
        contrast: as in :func:`fit_cohort`.
        smoothness: weight of the prior.

    Returns:
        One field per subject, shape ``(3, D, H, W)``, in voxels: ``subject(x) = template(x + u(x))``.
    """
    space = _space(template)
    levels = RESIDUAL_LEVELS if residual else []
    fit = SubjectFit(
        template_match(space, CODE_LEVELS, levels, contrast=contrast),
        code_levels=CODE_LEVELS,
        residual_levels=levels,
        smoothness=smoothness,
        iterations=10,
    )
    network = fitted_network(template, model)
    fields: list[Field] = []
    for start in range(0, len(subjects), BATCH):
        images = torch.stack([torch.from_numpy(volume.array) for volume in subjects[start : start + BATCH]])
        fields += list(fit(images, network).displacement(network).numpy())
    return fields


def prepare(
    method: str, template: Path, images: Sequence[Path], outs: Sequence[Path], *, model: Path, threads: int
) -> Prepared:
    """Read the images and return what is timed."""
    torch.set_num_threads(threads)
    moving, subjects = read_volume(template), [read_volume(path) for path in images]
    stage, contrast = (method.removesuffix("_any"), "any") if method.endswith("_any") else (method, "same")
    model = model / contrast
    model.mkdir(parents=True, exist_ok=True)
    versions = {"monai_fair": __version__, "torch": version("torch")}

    def run() -> Any:
        if stage == "ours_fit":
            return fit_cohort(moving, subjects, model, contrast=contrast)
        return ours(moving, subjects, model, residual=stage == "ours_residual", contrast=contrast)

    def write(fields: Any) -> None:
        for out, field in zip(outs, fields or [], strict=True):
            write_displacement(out, field, moving.grid)

    def flops() -> float:
        # a second run: counting slows the first
        with FlopCounterMode(display=False) as counter:
            run()
        return float(counter.get_total_flops())

    return Prepared(run, write, versions, None if stage == "ours_fit" else flops)
