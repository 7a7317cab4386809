"""A head made of smooth ellipsoids, known at every point of the world, so that no test interpolates its input."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk  # noqa: N813
from scipy.spatial.transform import Rotation

from monai_fair.data import Volume, write_volume
from monai_fair.data.tables import write_table
from monai_fair.geometry import Axes, Grid, voxel_points
from monai_fair.preparation.conversion import itk_affine

# centre and half axes in RAS millimetres, and what is added inside; nothing is symmetric
BRAIN = ((0.0, -17.0, 5.0), (65.0, 82.0, 70.0))
PARTS = (
    (*BRAIN, 0.45),
    ((5.0, -12.0, 12.0), (48.0, 62.0, 50.0), 0.45),
    ((-8.0, -20.0, 15.0), (14.0, 30.0, 12.0), -0.6),
    ((22.0, 12.0, 8.0), (14.0, 16.0, 12.0), -0.25),
    ((-30.0, -45.0, -14.0), (16.0, 18.0, 14.0), -0.3),
)
# a registration takes as long as the template has voxels: these are for what does not depend on where it ends
TEMPLATE_GRID = Grid((21, 24, 21), np.array([[8.0, 0, 0, -80], [0, 8, 0, -109], [0, 0, 8, -75], [0, 0, 0, 1]]))
# of the same box, for how exactly a map is found
FINE_GRID = Grid((28, 32, 28), np.array([[6.0, 0, 0, -81], [0, 6, 0, -110], [0, 0, 6, -76], [0, 0, 0, 1]]))


def world(grid: Grid) -> np.ndarray:
    """RAS millimetres of every voxel, shape (D, H, W, 3)."""
    return grid.points(voxel_points(grid.shape).numpy().astype(np.float64).transpose(1, 2, 3, 0), Axes.VOXEL, Axes.RAS)


def inside(points: np.ndarray, centre: tuple[float, ...], half: tuple[float, ...]) -> np.ndarray:
    """About 1 inside an ellipsoid and 0 outside, with an edge a few millimetres wide."""
    radius = np.sqrt((((points - centre) / half) ** 2).sum(axis=-1))
    return 1 / (1 + np.exp((radius - 1) * min(half) / 1.5))


def head(grid: Grid, matrix: np.ndarray | None = None) -> tuple[Volume, Volume]:
    """The phantom moved by ``matrix`` (phantom to world) on ``grid``, and its brain."""
    points = world(grid)
    if matrix is not None:
        back = np.linalg.inv(matrix)
        points = points @ back[:3, :3].T + back[:3, 3]
    image = sum(value * inside(points, centre, half) for centre, half, value in PARTS)
    # folds, so that every direction is seen everywhere
    folds = np.sin(points[..., 0] / 9 + 1) * np.sin(points[..., 1] / 10) * np.sin(points[..., 2] / 11 + 2)
    image = image * (1 + 0.25 * folds)
    return Volume((1000 * image).astype(np.float32), grid, "phantom"), Volume(
        inside(points, *BRAIN) >= 0.5, grid, "brain"
    )


def affine(
    degrees: tuple[float, ...] = (0, 0, 0),
    scale: tuple[float, ...] = (1, 1, 1),
    shear: float = 0.0,
    shift_mm: tuple[float, ...] = (0, 0, 0),
) -> np.ndarray:
    """Rotation @ scale @ shear around the brain's centre, then a shift; RAS millimetres."""
    matrix = np.eye(4)
    linear = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix() @ np.diag(scale)
    matrix[:3, :3] = linear @ np.array([[1, shear, 0], [0, 1, shear], [0, 0, 1]])
    matrix[:3, 3] = np.add(BRAIN[0], shift_mm) - matrix[:3, :3] @ BRAIN[0]
    return matrix


def scan_grid(matrix: np.ndarray, spacing_mm: float = 6.0, shape: tuple[int, ...] = (38, 44, 40)) -> Grid:
    """A grid whose middle is where ``matrix`` puts the brain."""
    grid = Grid.isotropic(shape, spacing_mm)
    moved = grid.affine.copy()
    moved[:3, 3] += (matrix @ [*BRAIN[0], 1])[:3]
    return Grid(grid.shape, moved)


def coarse_grid(matrix: np.ndarray) -> Grid:
    """As coarse as ``TEMPLATE_GRID``."""
    return scan_grid(matrix, 8.0, (28, 33, 30))


@pytest.fixture(scope="session")
def coarse_template() -> tuple[Volume, Volume]:
    return head(TEMPLATE_GRID)


@pytest.fixture(scope="session")
def template() -> tuple[Volume, Volume]:
    return head(FINE_GRID)


@pytest.fixture(scope="session")
def template_files(tmp_path_factory: pytest.TempPathFactory, coarse_template: tuple[Volume, Volume]) -> dict[str, str]:
    """The phantom as a template in files: options of a preparation that needs no MNI152."""
    folder = tmp_path_factory.mktemp("template")
    return {
        "template": str(write_volume(folder / "phantom.nii.gz", coarse_template[0].array, TEMPLATE_GRID)),
        "template_mask": str(write_volume(folder / "phantom_mask.nii.gz", coarse_template[1].array, TEMPLATE_GRID)),
    }


MATRICES = {
    "a_1": affine((5, -4, 6), (1.05, 0.98, 1.02), 0.02, (8, -6, 10)),
    "a_2": affine((-6, 3, 2), (0.92, 0.95, 0.9), 0.0, (-5, 4, -8)),
    "b-3": affine((2, 6, -5), (1.1, 1.06, 1.12), -0.02, (0, 12, 5)),
}


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three scans with masks and the maps they were moved by, one of NaN, and their manifest."""
    folder = tmp_path_factory.mktemp("scans")
    (folder / "maps").mkdir()
    rows = []
    for number, (name, matrix) in enumerate(MATRICES.items()):
        image, brain = head(coarse_grid(matrix), matrix)
        write_volume(folder / f"{name}.nii.gz", image.array, image.grid)
        write_volume(folder / "masks" / f"{name}.nii.gz", brain.array, brain.grid)
        sitk.WriteTransform(itk_affine(matrix), str(folder / "maps" / f"{name}.nii.gz.tfm"))
        rows.append((name, f"{name}.nii.gz", str(number % 2), ("train", "val", "test")[number], "mf"[number % 2], "71"))
    poisoned = image.array.copy()
    poisoned[0] = np.nan
    write_volume(folder / "poisoned.nii.gz", poisoned, image.grid)
    write_volume(folder / "masks" / "poisoned.nii.gz", brain.array, brain.grid)
    rows.insert(1, ("poisoned", "poisoned.nii.gz", "1", "test", "f", ""))
    columns = ["subject_id", "image", "label", "split", "sex", "age"]
    write_table(folder / "manifest.csv", pd.DataFrame(rows, columns=columns))
    return folder


@pytest.fixture(scope="session")
def tree() -> Callable[[Path], dict[str, bytes]]:
    """Every file of a folder with its bytes."""
    return lambda folder: {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }
