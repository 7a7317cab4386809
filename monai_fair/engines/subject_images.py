"""New subjects, read as they are needed; one that cannot be read is a row with a reason."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.data import Dataset

from monai_fair.engines.cohort_images import read_on_grid
from monai_fair.errors import MonaiFairError
from monai_fair.geometry import Grid


class SubjectImages(Dataset):
    """Images of subjects on the template's grid, one item a subject; an item never raises because of its file.

    Args:
        data: dictionaries with ``subject_id`` and ``image`` (a path).
        grid: of the template.
        mask: of the brain; an image that is constant inside it cannot be registered and is an item without an image.
        keep: hold what was read in memory, for images that are asked for in every epoch.
        limit: take only the first so many subjects.
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        grid: Grid,
        *,
        mask: npt.NDArray[np.bool_] | None = None,
        keep: bool = False,
        limit: int | None = None,
    ) -> None:
        super().__init__([dict(row) for row in data[:limit]])
        self.grid = grid
        self.mask = mask
        self._kept: dict[int, dict[str, Any]] | None = {} if keep else None

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return the row with ``image``, float32 of shape ``(D, H, W)`` or ``None``, and the ``reason`` for none."""
        if self._kept is None:
            return self._read(index)
        if index not in self._kept:
            self._kept[index] = self._read(index)
        return self._kept[index]

    def _read(self, index: int) -> dict[str, Any]:
        row = dict(self.data[index])
        try:
            volume = read_on_grid(Path(row["image"]), self.grid, mask=self.mask)
        except (MonaiFairError, OSError) as error:
            return {**row, "path": row["image"], "image": None, "reason": str(error)}
        return {**row, "path": row["image"], "image": torch.from_numpy(volume.array), "reason": ""}


def collate_subjects(items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Stack the images that could be read.

    Returns:
        ``image`` of shape ``(B, D, H, W)`` or ``None`` if there is none, ``rows`` of those subjects, and ``failed``,
        the rows of the others.
    """
    rows = [dict(item) for item in items]
    images = [row.pop("image") for row in rows]
    read = [image for image in images if image is not None]
    return {
        "image": torch.stack(read) if read else None,
        "rows": [row for row, image in zip(rows, images, strict=True) if image is not None],
        "failed": [row for row, image in zip(rows, images, strict=True) if image is None],
    }
