"""A registered cohort in the layout of a registration: small maps, with a kind of brains that differs in one place."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from monai_fair.data import write_displacement, write_volume
from monai_fair.data.artifacts import write_tensors
from monai_fair.geometry import Axes, Grid

SHAPE = (10, 12, 10)
GRID = Grid.isotropic(SHAPE, 8.0)
CENTRE = np.array([7, 6, 4])  # voxel of the place
N, N_TRAIN, N_VAL = 80, 48, 12
FAILED = "sub-077"


@dataclass(frozen=True)
class RegisteredCohort:
    """Folders and truth."""

    root: Path
    registered: Path
    manifest: Path
    table: pd.DataFrame
    member: npt.NDArray[np.bool_]
    maps: dict[str, npt.NDArray[np.float32]]

    def options(self, out: Path) -> dict[str, Path]:
        """Arguments of a discovery."""
        return {"registered": self.registered, "manifest": self.manifest, "out": out, "root": self.root}


def smooth(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """A wave of random direction and phase."""
    points = np.moveaxis(np.indices(SHAPE), 0, -1) / 12
    waves = [np.cos(points @ rng.normal(size=3) * 1.5 + rng.uniform(0, 6.3)) for _ in range(4)]
    return np.sum(waves, axis=0) / 2


def build(root: Path, *, effect: float) -> RegisteredCohort:
    """Write the files of a cohort; the effect is of the log volume at the place."""
    rng = np.random.default_rng(0)
    member = rng.random(N) < 0.4
    split = np.repeat(["train", "val", "test"], [N_TRAIN, N_VAL, N - N_TRAIN - N_VAL])
    follows = np.where(split == "test", 0.5, 0.85)  # how often the label is that of the kind
    label = np.where(rng.random(N) < follows, member, ~member).astype(int)
    table = pd.DataFrame({"subject_id": [f"sub-{row:03d}" for row in range(N)]})
    table["image"] = [f"{subject}/anat/{subject}_T1w.nii.gz" for subject in table["subject_id"]]
    table = table.assign(label=label, split=split, sex=np.where(member, "male", "female"))
    table["age"] = rng.integers(40, 90, size=N)
    table["code"] = [f"P{row}" for row in range(N)]
    root.mkdir(parents=True)
    table.to_csv(root / "manifest.csv", index=False)
    write_volume(root / "template_T1w.nii.gz", smooth(rng).astype(np.float32), GRID)
    mask = np.zeros(SHAPE, bool)
    mask[1:-1, 1:-1, 1:-1] = True
    write_volume(root / "template_desc-brain_mask.nii.gz", mask, GRID)
    bump = np.exp(-0.5 * np.sum((np.moveaxis(np.indices(SHAPE), 0, -1) - CENTRE) ** 2, axis=-1))
    maps = {}
    for row, subject in enumerate(table["subject_id"]):
        size = rng.normal(0, 0.3)  # of the whole brain
        values = 0.25 * smooth(rng) + 0.05 * rng.standard_normal(SHAPE) + size - effect * member[row] * bump
        maps[subject] = values.astype(np.float32)
        folder = root / "registered" / subject
        write_volume(folder / f"{subject}_desc-logdetjacobian_map.nii.gz", maps[subject], GRID)
        field = np.stack([smooth(rng) for _ in range(3)]).astype(np.float32)
        write_displacement(folder / f"{subject}_from-T1w_to-template_xfm.nii.gz", field, GRID)
        write_volume(root / table["image"][row], rng.random(SHAPE).astype(np.float32), GRID)
    status = table[["subject_id", "split"]].assign(status="registered", reason="", similarity=0.9)
    status.loc[status["subject_id"] == FAILED, ["status", "reason"]] = ["failed", "2.00 % of the brain folds"]
    status = status[status["subject_id"] != "sub-078"]  # never registered
    status.to_csv(root / "registered" / "registration.csv", index=False)
    names = '["' + '", "'.join(status["subject_id"]) + '"]'
    codes = rng.standard_normal((len(status), 30)).astype(np.float32)
    write_tensors(root / "registered" / "codes.safetensors", {"codes": codes}, {"kind": "codes", "subject_ids": names})
    return RegisteredCohort(root, root / "registered", root / "manifest.csv", table, member, maps)


@pytest.fixture(scope="session")
def registered_cohort(tmp_path_factory: pytest.TempPathFactory) -> RegisteredCohort:
    """A cohort with a planted kind; to be read only."""
    return build(tmp_path_factory.mktemp("discovery") / "cohort", effect=1.2)


@pytest.fixture
def own_cohort(tmp_path: Path) -> Callable[..., RegisteredCohort]:
    """Build a cohort that a test may change."""

    def make(effect: float = 1.2) -> RegisteredCohort:
        return build(tmp_path / "own", effect=effect)

    return make


@pytest.fixture(scope="session")
def place_mm() -> npt.NDArray[np.float64]:
    """Where the planted kind differs."""
    return np.asarray(GRID.points(CENTRE, Axes.VOXEL, Axes.RAS))
