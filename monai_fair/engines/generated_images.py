"""Images of subjects that do not exist: a scan in another subject's shape, or in a shape that nobody has."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from ignite.engine import Engine
from monai.data import Dataset
from monai.engines import Evaluator
from scipy.ndimage import map_coordinates
from torch import Tensor
from torch.utils.data import DataLoader

from monai_fair.data import read_displacement
from monai_fair.engines.cohort_images import read_on_grid
from monai_fair.errors import RegistrationError, raise_problems
from monai_fair.geometry import Grid, compose, voxel_points
from monai_fair.networks import DeformationINR
from monai_fair.subgroups.code_sampling import CodeSampler, SampledCode
from monai_fair.transforms import smallest_determinant

Images = npt.NDArray[np.float32]


class CodeDecoder:
    """Turns flat codes into displacements with a trained network.

    Args:
        network: put into evaluation mode and not changed.
    """

    def __init__(self, network: DeformationINR) -> None:
        self.network = network.eval()

    @torch.no_grad()
    def __call__(self, codes: Tensor) -> Tensor:
        """Return pull-backs on the subject's grid that read the template.

        Args:
            codes: shape ``(B, K)``, the numbers of a code in a row.

        Returns:
            Displacements in voxels, shape ``(B, 3, D, H, W)``.
        """
        grid = self.network.lattice.sampling_grid()
        codes = codes.to(grid.positions[0])
        return self.network.forward(codes.reshape(-1, *self.network.code_shape), grid)


class DonorScans(Dataset):
    """Scans with the way that leads from the template to them, one item for each image that is to be made.

    Args:
        data: dictionaries with ``scan``, a file on the template's grid, and ``field``, its
            ``from-T1w_to-template_xfm.nii.gz``.
        grid: of the template.
    """

    def __init__(self, data: Sequence[Mapping[str, Any]], grid: Grid) -> None:
        super().__init__([dict(row) for row in data])
        self.grid = grid

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return the ``row``, its ``image`` of shape ``(D, H, W)``, and ``to_scan``, ``(3, D, H, W)`` in voxels.

        Raises:
            MonaiFairError: naming the file that cannot be read or lies on another grid.
        """
        row = self.data[index]
        field, grid = read_displacement(row["field"])
        if not grid.matches(self.grid):
            raise RegistrationError(f"{row['field']}: expected a field on the template's grid, got one elsewhere")
        image = read_on_grid(row["scan"], self.grid).array
        return {"row": row, "image": image, "to_scan": torch.from_numpy(np.asarray(field, dtype=np.float32))}


def collate_donors(items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return ``rows`` and ``image`` as lists, and ``to_scan`` stacked, shape ``(B, 3, D, H, W)``."""
    return {
        "rows": [item["row"] for item in items],
        "image": [item["image"] for item in items],
        "to_scan": torch.stack([item["to_scan"] for item in items]),
    }


class ImageGenerator(Evaluator):
    """Generate the images of every batch of :func:`collate_donors`.

    For a row a code of its cell is drawn and decoded to the displacement u, which reads the template; the donor's w
    reads its scan S from there. The image is ``S(y + w(y))`` at ``y = x + u(x)``, interpolated once, by splines: what
    is interpolated twice, or linearly, is so much softer than a scan that a classifier can tell. Values stay within the
    scan's. Where det J of ``x + u(x)`` is 0 or less somewhere in the brain, the code is drawn again. The draws of a row
    depend on the seed and its number only.

    An iteration's output has ``rows``, with what is recorded of each (``sources``, ``mix``, ``distance``, ``outside``,
    ``folded``, ``min_det``); ``pred``, images of shape ``(D, H, W)``; and ``displacement``, u in voxels.

    Args:
        device: where codes are decoded; scans are interpolated on the CPU.
        val_data_loader: batches of donors; a row has ``number``, ``subject_id``, ``cell`` and ``donor``.
        network: of the codes.
        sampler: of the training codes.
        mask: of the template's brain, bool, shape ``(D, H, W)``.
        seed: of the draws.
        max_draws: of codes for one image; when all of them fold it is an error.
        order: of the splines, 1 (linear) to 5.
        val_handlers: handlers to attach.

    Raises:
        MonaiFairError: if ``order`` is another one; by a run, if a donor cannot be read, a cell cannot be sampled, or
            every draw folds.
    """

    def __init__(
        self,
        device: torch.device | str,
        val_data_loader: DataLoader[Any],
        network: DeformationINR,
        sampler: CodeSampler,
        *,
        mask: npt.NDArray[np.bool_],
        seed: int = 0,
        max_draws: int = 50,
        order: int = 3,
        val_handlers: Sequence[Any] | None = None,
    ) -> None:
        super().__init__(device=device, val_data_loader=val_data_loader, val_handlers=val_handlers)
        if order not in range(1, 6):
            raise RegistrationError(f"order: expected a whole number from 1 to 5, got {order!r}")
        self.decode = CodeDecoder(network)
        self.sampler = sampler
        self.mask = torch.from_numpy(mask).to(device)
        self.seed = seed
        self.max_draws = max_draws
        self.order = order

    def _iteration(self, engine: Engine, batchdata: dict[str, Any]) -> dict[str, Any]:
        rows, scans = batchdata["rows"], batchdata["image"]
        fields, found = self._fields(rows)
        whole = compose(batchdata["to_scan"].to(fields), fields)
        points = (voxel_points(whole.shape[2:]) + whole.cpu()).numpy()
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            images = list(pool.map(self._read, scans, points))
        rows = [{**row, **more} for row, more in zip(rows, found, strict=True)]
        return {"rows": rows, "pred": images, "displacement": fields}

    def _read(self, scan: Images, points: Images) -> Images:
        # splines swing beyond the values they go through
        values: Images = map_coordinates(scan, points, order=self.order, mode="nearest")
        return values.clip(scan.min(), scan.max())

    @torch.no_grad()
    def _fields(self, rows: Sequence[dict[str, Any]]) -> tuple[Tensor, list[dict[str, Any]]]:
        """Draw codes for rows until none of their fields folds; return the fields and what is recorded."""
        generators = [np.random.default_rng([self.seed, row["number"], 1]) for row in rows]
        found: list[dict[str, Any]] = [{"outside": 0} for _ in rows]
        fields = torch.empty(len(rows), 3, *self.mask.shape, device=self.state.device)
        left = list(range(len(rows)))
        for folded in range(self.max_draws):
            draws = [self.sampler.draw(rows[at]["cell"], generators[at], donor=rows[at]["donor"]) for at in left]
            fields[left] = self.decode(torch.from_numpy(np.array([draw.code for draw in draws])).float())
            least = smallest_determinant(fields[left], self.mask).tolist()
            for at, draw, value in zip(left, draws, least, strict=True):
                outside = found[at]["outside"] + draw.outside
                found[at] = {**_record(draw), "outside": outside, "folded": folded, "min_det": value}
            left = [at for at, value in zip(left, least, strict=True) if not value > 0]
            if not left:
                break
        problems = [
            f"{rows[at]['subject_id']}: expected a deformation without folds, got none in {self.max_draws} draws (the "
            f"last has det J {found[at]['min_det']:.3g}); fit the registration with integration_steps, or take another "
            "rule"
            for at in left
        ]
        raise_problems(RegistrationError, "generated images", problems)
        return fields, found


def _record(draw: SampledCode) -> dict[str, Any]:
    return {"sources": draw.sources, "mix": draw.mix, "distance": draw.distance}
