"""The registered subjects of a manifest, and the rows of numbers that were written of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from monai_fair.data import read_labels
from monai_fair.data.manifest import resolve_inside
from monai_fair.errors import GeometryError, MonaiFairError, RegistrationError
from monai_fair.geometry import Grid, canonical
from monai_fair.subgroups.block_maps import (
    block_positions,
    displacement_blocks,
    intensity_blocks,
    log_jacobian_blocks,
)
from monai_fair.subgroups.regions import Regions, read_regions, regional_volumes
from monai_fair.subgroups.representations import Representation, code_rows, embedding_rows

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
REPRESENTATIONS = ("log_jacobian", "regional_volumes", "displacement", "codes", "intensity", "embeddings")
ON_TEMPLATE = frozenset(REPRESENTATIONS) - {"codes", "embeddings"}  # what lies on the template's grid
LOG_JACOBIAN = "desc-logdetjacobian_map.nii.gz"
_FILES = {
    "log_jacobian": (LOG_JACOBIAN, "'logdet'"),
    "regional_volumes": (LOG_JACOBIAN, "'logdet'"),
    "displacement": ("from-T1w_to-template_xfm.nii.gz", "'field' and 'inverse'"),
}
_BLOCKS: dict[str, Callable[..., Representation]] = {
    "log_jacobian": partial(log_jacobian_blocks, allow_undefined=True),
    "displacement": displacement_blocks,
    "intensity": intensity_blocks,
}


@dataclass(frozen=True, eq=False)
class Cohort:
    """The registered subjects of a manifest.

    Attributes:
        table: their rows, one each, in the manifest's order.
        attributes: attribute columns.
        num_classes: of ``label``, if there is one.
        failed: subject to the reason why it has no registration.
        folder: of the registration.
    """

    table: pd.DataFrame
    attributes: tuple[str, ...]
    num_classes: int
    failed: Mapping[str, str]
    folder: Path

    @property
    def subjects(self) -> list[str]:
        """Ids, in the order of the table."""
        return list(map(str, self.table["subject_id"]))

    def fitted(self, splits: Sequence[str]) -> BoolArray:
        """Say which rows are in these splits, shape ``(n,)``."""
        return np.asarray(self.table["split"].isin(list(splits)), dtype=bool)

    @property
    def codes(self) -> Path:
        """Path of the codes of its subjects."""
        return self.folder / "codes.safetensors"

    def path(self, subject: str, name: str) -> Path:
        """Return the path of a file that the registration wrote for a subject."""
        bare = subject.removeprefix("sub-")
        return self.folder / f"sub-{bare}" / f"sub-{bare}_{name}"


def image_paths(cohort: Cohort, root: str | Path) -> dict[str, Path]:
    """Return where the manifest's image of each subject lies."""
    images = zip(cohort.subjects, cohort.table["image"], strict=True)
    return {subject: resolve_inside(Path(root), str(image)) for subject, image in images}


@dataclass(frozen=True, eq=False)
class RowReader:
    """Reads the rows of a cohort by the name of a representation.

    Attributes:
        cohort: whose rows.
        root: data root of the images; ``intensity`` are the manifest's own images, which a registration asks to lie on
            the template's grid: what is seen without registering.
        mask: brain mask of the template, for what lies on its grid.
        embeddings: file for ``embeddings``.
        regions: label image for ``regional_volumes``.
        block_mm: side of a block.
        num_workers: threads that read.
    """

    cohort: Cohort
    root: Path
    mask: Path | None
    embeddings: Path | None
    regions: Path | None
    block_mm: float
    num_workers: int

    def rows(self, name: str) -> tuple[Representation, FloatArray | None]:
        """Return rows of all subjects, and where their columns lie in mm, ``None`` where they lie nowhere.

        ``regional_volumes`` have a last column more than they have places: that of the brain.

        Raises:
            MonaiFairError: with every subject whose file is missing or cannot be read.
        """
        if name in ON_TEMPLATE:
            return self._volumes() if name == "regional_volumes" else self._blocks(name)
        every = code_rows(self.cohort.codes) if name == "codes" else embedding_rows(str(self.embeddings))
        return Representation(name, self.cohort.subjects, every.of(self.cohort.subjects)), None

    @cached_property
    def brain(self) -> tuple[BoolArray, Grid]:
        """The brain of the template, and its grid in RAS order."""
        volume = read_labels(str(self.mask))
        array, grid = canonical(volume.array, volume.grid)
        if not (array > 0).any():
            raise MonaiFairError(f"{self.mask}: expected a mask with voxels above 0, got none")
        return np.ascontiguousarray(array > 0), grid

    @cached_property
    def template_regions(self) -> Regions:
        """The regions of the template."""
        return read_regions(str(self.regions))

    def _blocks(self, name: str) -> tuple[Representation, FloatArray]:
        inside, grid = self.brain
        block = max(1, round(self.block_mm / float(np.mean(grid.spacing_mm))))
        rows = _BLOCKS[name](self._paths(name), inside, block=block, grid=grid, num_workers=self.num_workers)
        places = block_positions(inside, grid, block=block)
        return rows, np.tile(places, (rows.values.shape[1] // len(places), 1))

    def _volumes(self) -> tuple[Representation, FloatArray]:
        inside, grid = self.brain
        found = self.template_regions
        if not found.grid.matches(grid):
            raise GeometryError(
                f"{self.regions}: expected the grid of {self.mask}, {grid.shape} voxels, got another of "
                f"{found.grid.shape} voxels; give regions of the template of the registration"
            )
        paths = self._paths("regional_volumes")
        return regional_volumes(paths, found, mask=inside, num_workers=self.num_workers), found.positions

    def _paths(self, name: str) -> dict[str, Path]:
        cohort = self.cohort
        if name == "intensity":
            return image_paths(cohort, self.root)
        file, exports = _FILES[name]
        paths = {subject: cohort.path(subject, file) for subject in cohort.subjects}
        absent = [subject for subject, path in paths.items() if not path.is_file()]
        if absent:
            raise RegistrationError(
                f"{cohort.folder}: expected {paths[absent[0]].name} and its like for each of {len(paths)} registered "
                f"subjects, {len(absent)} have none; register with exports that hold {exports}"
            )
        return paths
