"""The images of a cohort, decoded once: normalised copies in files that are read by parts, and rows for failures."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import numpy.typing as npt
import torch
from monai.data import Dataset
from torch import Tensor
from tqdm import tqdm

from monai_fair.data import Volume, read_volume
from monai_fair.data.artifacts import atomic_path, fingerprint
from monai_fair.engines.image_match import TemplateMatch
from monai_fair.errors import MonaiFairError, RegistrationError
from monai_fair.geometry import Grid, canonical

_HALF = 0.5


@dataclass(frozen=True)
class Failure:
    """A subject that could not be used, with the reason."""

    subject_id: str
    reason: str


def read_on_grid(path: str | Path, grid: Grid, *, mask: npt.NDArray[np.bool_] | None = None) -> Volume:
    """Read a volume whose voxels lie on ``grid``, turned to the same orientation.

    Flipped and permuted axes are turned back without interpolation, so the outcome depends on the world, not the array.

    Args:
        path: a NIfTI file.
        grid: expected, in RAS order.
        mask: where the image must show something, shape ``(D, H, W)``; its spread there is what images are scaled by.

    Raises:
        GeometryError: if the file cannot be read.
        RegistrationError: if its grid is another one; the message says how far it is off. If it has one value inside
            the mask, or a spread there that float32 cannot hold.
    """
    return placed_on_grid(read_volume(path), grid, mask=mask)


def placed_on_grid(volume: Volume, grid: Grid, *, mask: npt.NDArray[np.bool_] | None = None) -> Volume:
    """Return a volume that has been read, turned to the orientation of ``grid``; see :func:`read_on_grid`."""
    path = volume.source
    array, found = canonical(volume.array, volume.grid)
    if found.shape != grid.shape:
        raise RegistrationError(
            f"{path}: expected a volume on the template's grid of {grid.shape} voxels, got {found.shape}; run "
            "`python -m monai_fair prepare`"
        )
    if not found.matches(grid):
        raise RegistrationError(
            f"{path}: expected voxels where the template's are, got a grid {found.distance_mm(grid):.2f} mm away; run "
            "`python -m monai_fair prepare`"
        )
    array = np.ascontiguousarray(array)
    if mask is not None and mask.any():
        _check_spread(path, array[mask])
    return Volume(array, grid, path)


def _check_spread(path: str, inside: npt.NDArray[np.float32]) -> None:
    low, high = inside.min(), inside.max()
    if low == high:
        raise RegistrationError(
            f"{path}: expected different intensities inside the brain's mask, got {low:g} in every voxel of it; give "
            "another file"
        )
    with np.errstate(over="ignore"):  # an infinite spread is what is looked for
        spread = inside.std()
    if not 0 < spread < np.inf:
        raise RegistrationError(
            f"{path}: expected intensities inside the brain's mask whose spread float32 can hold, got {low:g} to "
            f"{high:g}; rescale the image"
        )


class CohortImages(Dataset):
    """The normalised images of a cohort, one item a subject.

    Each image is decoded once; what the levels compare is kept as one float16 file a subject in ``cache_dir``, mapped
    into memory, so that memory does not grow with the cohort. A file is found again by the image's size and time of
    change and by what it was made with. A subject that cannot be read is left out and kept in ``failures``.

    Args:
        data: dictionaries with ``subject_id`` and ``image`` (a path).
        grid: of the template.
        match: how images are normalised.
        cache_dir: folder of the copies.
        num_workers: threads that read.
        progress: show a progress bar.

    Attributes:
        level: the level that items are of; an engine changes it.
        subject_ids: in the order of items.
        failures: what was left out.

    Raises:
        RegistrationError: if no subject is left.
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        grid: Grid,
        match: TemplateMatch,
        cache_dir: str | Path,
        *,
        num_workers: int = 4,
        progress: bool = True,
    ) -> None:
        self.level = 0
        self.failures: list[Failure] = []
        self._grid, self._match, self._folder = grid, match, Path(cache_dir)
        mask = match.mask.cpu().numpy()
        self._inside = mask > _HALF
        mask_key = sha256(mask.tobytes()).hexdigest()
        self._key = fingerprint([match.settings(), match.contrast, mask_key, grid.shape, grid.affine])[:12]
        # several processes share the work of decoding; then each of them finds every copy there
        own = data[idist.get_rank() :: idist.get_world_size()]
        with ThreadPoolExecutor(max(1, num_workers)) as pool:
            if len(own) < len(data):
                list(pool.map(self._prepare, own))
                idist.barrier()
            made = pool.map(self._prepare, data)
            bar = tqdm(made, total=len(data), desc="reading the cohort", unit="subject", disable=not progress)
            outcomes = list(bar)
        items = []
        for row, outcome in zip(data, outcomes, strict=True):
            if isinstance(outcome, Path):
                items.append({"subject_id": row["subject_id"], "copy": outcome})
            else:
                self.failures.append(Failure(str(row["subject_id"]), outcome))
        if not items:
            reasons = "; ".join(failure.reason for failure in self.failures[:3]) or "the list is empty"
            raise RegistrationError(f"cohort: expected at least one subject that can be read, got none: {reasons}")
        self.subject_ids = [str(item["subject_id"]) for item in items]
        super().__init__(items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return ``index`` and ``image``, float16 of shape ``(D, H, W)``, at the present level.

        If the contrast may be any, ``scan`` is the image as it was read, scaled, for ``match.recoloured``.
        """
        stored = np.load(self.data[index]["copy"], mmap_mode="r", allow_pickle=False)
        item = {"index": index, "image": torch.from_numpy(np.array(stored[self.level]))}
        if self._match.contrast == "any":
            item["scan"] = torch.from_numpy(np.array(stored[-1]))
        return item

    def _prepare(self, row: Mapping[str, Any]) -> Path | str:
        """Return the subject's copy, made if need be, or the reason why there is none."""
        path = Path(row["image"])
        try:
            stat = path.stat()
            key = fingerprint([self._key, str(path.resolve()), stat.st_size, stat.st_mtime_ns])[:16]
            copy = self._folder / f"{row['subject_id']}_{key}.npy"
            if not copy.is_file():
                planes = self._planes(path)
                with atomic_path(copy, suffix=".npy") as temporary:
                    np.save(temporary, planes.numpy(), allow_pickle=False)
        except FileNotFoundError:
            return f"{path}: expected a NIfTI file, found none; check the path"
        except (MonaiFairError, OSError) as error:
            return str(error)
        return copy

    @torch.no_grad()
    def _planes(self, path: Path) -> Tensor:
        """Return what a copy holds: the image as each level compares it, and as it was read if the contrast is any."""
        match = self._match
        image = torch.from_numpy(read_on_grid(path, self._grid, mask=self._inside).array).to(match.mask.device)[None]
        planes = [match.normalised(image, level) for level in range(len(match.blurs_vox))]
        if match.contrast == "any":
            planes.append(match.scaled(image))
        elif (agreement := match.agreement(planes[0][0])) < 0:
            raise RegistrationError(
                f"{path}: expected an image that is bright where the template is, got a correlation of "
                f"{agreement:.2f}; give --contrast any"
            )
        stored = torch.cat([plane.half() for plane in planes]).cpu()
        if not torch.isfinite(stored).all():
            raise RegistrationError(
                f"{path}: expected an image that can be normalised, got values that are not finite; look at its "
                "intensities"
            )
        return stored
