"""A field on disk moves an image in ITK and ANTs to the voxels it moves it to here, and their files are read back."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from scipy.ndimage import gaussian_filter

from monai_fair.data import (
    read_displacement,
    read_itk_transform,
    write_displacement,
    write_itk_transform,
    write_volume,
)
from monai_fair.errors import GeometryError
from monai_fair.geometry import Axes, Grid, warp

SHAPE = (16, 18, 20)
INSIDE = (slice(4, -4),) * 3  # fields are at most 2.5 voxels: neither side reads beyond the image


def rotation(seed: int) -> np.ndarray:
    turn, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return turn


def place(directions: np.ndarray, spacing_mm: tuple[float, float, float]) -> Grid:
    affine = np.eye(4)
    affine[:3, :3] = directions * spacing_mm
    affine[:3, 3] = [10.0, -20.0, 30.0]
    return Grid(SHAPE, affine)


GRIDS = {
    "plain": place(np.eye(3), (1.0, 1.0, 1.0)),
    "anisotropic": place(np.eye(3), (0.8, 1.5, 3.0)),
    "flipped": place(np.diag([-1.0, 1.0, -1.0]), (2.0, 1.5, 1.0)),
    "permuted": place(np.eye(3)[[2, 0, 1]], (1.0, 1.5, 2.0)),
    "oblique": place(rotation(0), (1.0, 1.5, 2.0)),
}
EVERY_GRID = pytest.mark.parametrize("name", GRIDS)


def image_and_field(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return a smooth image of standard deviation 1 and a smooth field of at most 2.5 voxels."""
    rng = np.random.default_rng(seed)
    image = gaussian_filter(rng.normal(size=SHAPE), 1.5)
    field = np.stack([gaussian_filter(rng.normal(size=SHAPE), 3) for _ in range(3)])
    return (image / image.std()).astype(np.float32), field / np.abs(field).max() * 2.5


def ours(image: np.ndarray, field: np.ndarray) -> np.ndarray:
    moved = warp(torch.from_numpy(image)[None, None], torch.from_numpy(field.astype(np.float32))[None])
    return moved[0, 0].numpy()


def as_sitk(array: np.ndarray, grid: Grid) -> sitk.Image:
    """Place an array ``(D, H, W)`` or ``(D, H, W, 3)`` in SimpleITK by hand: its axes are LPS, its arrays reversed."""
    vector = array.ndim == 4
    image = sitk.GetImageFromArray(np.ascontiguousarray(np.swapaxes(array, 0, 2)), isVector=vector)
    to_lps = np.diag([-1, -1, 1, 1]) @ grid.affine
    spacing = np.sqrt((to_lps[:3, :3] ** 2).sum(axis=0))
    image.SetSpacing(spacing.tolist())
    image.SetDirection((to_lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(to_lps[:3, 3].tolist())
    return image


def resampled(image: np.ndarray, grid: Grid, transform: sitk.Transform) -> np.ndarray:
    fixed = as_sitk(image, grid)
    return np.swapaxes(sitk.GetArrayFromImage(sitk.Resample(fixed, fixed, transform, sitk.sitkLinear)), 0, 2)


def points_lps(grid: Grid) -> np.ndarray:
    index = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), axis=-1).reshape(-1, 3)
    return np.asarray(grid.points(index.astype(float), Axes.VOXEL, Axes.LPS))


def field_of(transform: sitk.Transform, grid: Grid) -> np.ndarray:
    """Evaluate a transform point by point, and take the difference in voxels through the inverse affine."""
    to_voxel = np.linalg.inv(np.diag([-1, -1, 1]) @ grid.affine[:3, :3])
    before = points_lps(grid)
    after = np.array([transform.TransformPoint(point) for point in before.tolist()])
    return ((after - before) @ to_voxel.T).T.reshape(3, *SHAPE)


@EVERY_GRID
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".h5", ".hdf5"])
def test_simpleitk_warps_with_our_file_as_we_do(tmp_path: Path, name: str, suffix: str) -> None:
    image, field = image_and_field()
    grid, path = GRIDS[name], tmp_path / f"field{suffix}"
    if suffix.startswith(".nii"):
        assert write_displacement(path, field, grid) == path
        transform = sitk.DisplacementFieldTransform(sitk.ReadImage(str(path), sitk.sitkVectorFloat64))
    else:
        assert write_itk_transform(path, field, grid) == path
        transform = sitk.ReadTransform(str(path))
    expected = ours(image, field)
    np.testing.assert_allclose(resampled(image, grid, transform)[INSIDE], expected[INSIDE], atol=1e-4)
    # the field moves the image by far more than that
    assert np.abs(expected - image)[INSIDE].max() > 0.5
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


# in a process of its own: the warnings that itk's import gives end it where they are errors, as in this suite
READ_BY_ITK = """
import itk, json, sys
found = {}
for name in json.loads(sys.argv[2]):
    image = itk.imread(f"{sys.argv[1]}/{name}.nii.gz")
    (transform,) = itk.transformread(f"{sys.argv[1]}/{name}.h5")
    for index in ((0, 0, 0), (3, 1, 2), (15, 17, 19)):
        point = image.TransformIndexToPhysicalPoint(index)
        vector = itk.array_view_from_image(image)[index[::-1]].tolist()
        found.setdefault(name, []).append([index, list(point), vector, list(transform.TransformPoint(point))])
print(json.dumps(found))
"""


@pytest.mark.slow
def test_itk_reads_our_files(tmp_path: Path) -> None:
    if importlib.util.find_spec("itk") is None:
        pytest.skip("itk is not installed")
    _, field = image_and_field()
    for name, grid in GRIDS.items():
        write_displacement(tmp_path / f"{name}.nii.gz", field, grid)
        write_itk_transform(tmp_path / f"{name}.h5", field, grid)
    done = subprocess.run(
        [sys.executable, "-c", READ_BY_ITK, str(tmp_path), json.dumps(list(GRIDS))],
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    assert set(found) == set(GRIDS)
    for name, grid in GRIDS.items():
        to_lps = np.diag([-1, -1, 1, 1]) @ grid.affine
        for index, point, vector, target in found[name]:
            expected = to_lps[:3, :3] @ field[(slice(None), *index)]
            np.testing.assert_allclose(point, (to_lps @ [*index, 1])[:3], atol=1e-4)
            np.testing.assert_allclose(vector, expected, atol=1e-5)
            # the point comes through float32, and at an edge may lie just outside the field
            if index == [3, 1, 2]:
                np.testing.assert_allclose(np.subtract(target, point), expected, atol=1e-4)


def test_ants_warps_with_our_files_as_we_do(tmp_path: Path) -> None:
    ants = pytest.importorskip("ants")
    image, field = image_and_field()
    for name, grid in GRIDS.items():
        moving = ants.image_read(str(write_volume(tmp_path / f"{name}.nii.gz", image, grid)))
        for path in (
            write_displacement(tmp_path / f"{name}_field.nii.gz", field, grid),
            write_itk_transform(tmp_path / f"{name}_field.h5", field, grid),
        ):
            moved = ants.apply_transforms(moving, moving, [str(path)], interpolator="linear").numpy()
            np.testing.assert_allclose(moved[INSIDE], ours(image, field)[INSIDE], atol=1e-4)


@EVERY_GRID
def test_our_own_round_trips(tmp_path: Path, name: str) -> None:
    _, field = image_and_field()
    grid = GRIDS[name]
    found, on = read_displacement(str(write_displacement(tmp_path / "a.nii.gz", field, grid)))
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    assert on.matches(grid, tolerance_mm=1e-4)
    np.testing.assert_allclose(found, field, atol=1e-5)
    sampled = read_itk_transform(str(write_itk_transform(tmp_path / "a.h5", field, grid)), grid)
    assert sampled.dtype == np.float32
    assert sampled.flags.c_contiguous
    np.testing.assert_allclose(sampled, field, atol=1e-5)


def test_the_file_is_as_ants_writes_it_and_always_the_same(tmp_path: Path) -> None:
    _, field = image_and_field()
    paths = [write_displacement(tmp_path / f"{name}.nii.gz", field, GRIDS["oblique"]) for name in "ab"]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    stored = nib.load(paths[0])
    assert stored.shape == (*SHAPE, 1, 3)
    assert stored.get_data_dtype() == np.float32
    assert stored.header.get_intent()[0] == "vector"
    assert stored.header["sform_code"] == stored.header["qform_code"] == 1


def test_a_sheared_grid_keeps_its_field(tmp_path: Path) -> None:
    # ITK's NIfTI has no place for shears, its HDF5 has
    _, field = image_and_field()
    grid = place(rotation(1) @ np.array([[1, 0.2, 0], [0, 1, 0], [0, 0, 1]]), (1.0, 1.5, 2.0))
    found, on = read_displacement(write_displacement(tmp_path / "a.nii.gz", field, grid))
    assert on.matches(grid, tolerance_mm=1e-4)
    np.testing.assert_allclose(found, field, atol=1e-5)
    sampled = read_itk_transform(write_itk_transform(tmp_path / "a.h5", field, grid), grid)
    np.testing.assert_allclose(sampled, field, atol=1e-5)


@EVERY_GRID
@pytest.mark.parametrize("suffix", ["nii", "nii.gz", "mha", "nrrd"])
@pytest.mark.parametrize("kind", [sitk.sitkVectorFloat32, sitk.sitkVectorFloat64])
def test_images_of_vectors_by_simpleitk_are_read(tmp_path: Path, name: str, suffix: str, kind: int) -> None:
    _, field = image_and_field()
    grid, path = GRIDS[name], tmp_path / f"theirs.{suffix}"
    lps = np.moveaxis(np.einsum("ab,bxyz->axyz", np.diag([-1, -1, 1]) @ grid.affine[:3, :3], field), 0, -1)
    sitk.WriteImage(sitk.Cast(as_sitk(lps, grid), kind), str(path))
    found, on = read_displacement(path)
    assert on.matches(grid, tolerance_mm=1e-4)
    np.testing.assert_allclose(found, field, atol=1e-5)


def test_the_intent_decides_the_axes_as_in_itk(tmp_path: Path) -> None:
    _, field = image_and_field()
    path = write_displacement(tmp_path / "a.nii", field, GRIDS["oblique"])
    image = nib.load(path)
    image.header.set_intent("displacement vector")
    nib.save(image, tmp_path / "b.nii")
    in_lps = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "b.nii")))
    to_voxel = np.linalg.inv(np.diag([-1, -1, 1]) @ GRIDS["oblique"].affine[:3, :3])
    found, _ = read_displacement(tmp_path / "b.nii")
    np.testing.assert_allclose(found, np.einsum("ab,zyxb->axyz", to_voxel, in_lps), atol=1e-5)
    assert np.abs(found - field).max() > 0.5


def affine() -> sitk.Transform:
    return sitk.AffineTransform((rotation(2) * [1.1, 0.9, 1.0]).ravel().tolist(), (1.0, -2.0, 3.0), (10.0, 20.0, 30.0))


def bspline() -> sitk.Transform:
    # reaches well beyond every grid, because outside its domain a B-spline moves nothing
    transform = sitk.BSplineTransform(3)
    transform.SetTransformDomainOrigin((-200.0, -200.0, -200.0))
    transform.SetTransformDomainPhysicalDimensions((400.0, 400.0, 400.0))
    transform.SetTransformDomainMeshSize((9, 9, 9))
    count = len(transform.GetParameters())
    transform.SetParameters(np.random.default_rng(3).normal(0, 2, count).tolist())
    return transform


def displacement() -> sitk.Transform:
    """On a grid of its own, which covers only part of the grids it is sampled on."""
    rng = np.random.default_rng(4)
    image = sitk.GetImageFromArray(rng.normal(size=(9, 10, 11, 3)), isVector=True)
    image.SetOrigin((-30.0, 10.0, 25.0))
    image.SetSpacing((3.0, 3.5, 2.5))
    return sitk.DisplacementFieldTransform(image)


def composite() -> sitk.Transform:
    return sitk.CompositeTransform([affine(), bspline(), sitk.Euler3DTransform((0, 0, 0), 0.1, 0.2, 0.3, (1, 2, 3))])


@EVERY_GRID
@pytest.mark.parametrize(
    ("make", "suffix"),
    [
        (affine, "h5"),
        (affine, "tfm"),
        (affine, "txt"),
        (affine, "mat"),
        (bspline, "h5"),
        (bspline, "tfm"),
        (displacement, "h5"),
        (displacement, "tfm"),
        (composite, "h5"),
        (composite, "tfm"),
    ],
)
def test_transforms_by_simpleitk_are_read(
    tmp_path: Path, name: str, make: Callable[[], sitk.Transform], suffix: str
) -> None:
    path = tmp_path / f"theirs.{suffix}"
    sitk.WriteTransform(make(), str(path))
    found = read_itk_transform(path, GRIDS[name])
    np.testing.assert_allclose(found, field_of(make(), GRIDS[name]), atol=1e-4)
    assert np.abs(found).max() > 0.5


def problem(path: Path, read: Callable[..., Any], *arguments: Any) -> str:
    with pytest.raises(GeometryError) as caught:
        read(path, *arguments)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value).removeprefix(f"{path}: ")


def test_what_cannot_be_written_leaves_no_file(tmp_path: Path) -> None:
    _, field = image_and_field()
    grid = GRIDS["plain"]
    broken = field.copy()
    broken[1, 2, 3, :2] = [np.nan, np.inf]
    for write, name in ((write_displacement, "a.nii.gz"), (write_itk_transform, "a.h5")):
        assert problem(tmp_path / name, write, field[:2], grid) == (
            "expected a field of shape (3, 16, 18, 20) on its grid, got (2, 16, 18, 20)"
        )
        assert problem(tmp_path / name, write, broken, grid) == (
            "expected finite displacements, got 2 values that are not, of 17280"
        )
    assert problem(tmp_path / "a.mha", write_displacement, field, grid) == (
        "expected a name that ends in .nii or .nii.gz, got 'a.mha'; rename it"
    )
    assert problem(tmp_path / "a.tfm", write_itk_transform, field, grid) == (
        "expected a name that ends in .h5 or .hdf5, got 'a.tfm'; rename it"
    )
    assert list(tmp_path.iterdir()) == []


def test_an_error_while_writing_leaves_the_old_transform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, field = image_and_field()
    path = write_itk_transform(tmp_path / "a.h5", field, GRIDS["plain"])
    before = path.read_bytes()

    def fail(_: sitk.Transform, name: str) -> None:
        Path(name).write_bytes(b"half")
        raise RuntimeError("disk full")

    monkeypatch.setattr(sitk, "WriteTransform", fail)
    with pytest.raises(RuntimeError, match="disk full"):
        write_itk_transform(path, field, GRIDS["plain"])
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


SHAPES = (
    "expected a field of shape (D, H, W, 1, 3) with intent 'vector', got shape {} with intent '{}'; "
    "write it with ITK, ANTs or this package"
)


def test_bad_displacement_images_are_named(tmp_path: Path) -> None:
    _, field = image_and_field()
    vectors = np.moveaxis(field, 0, -1).astype(np.float32)
    path = tmp_path / "a.nii.gz"
    # as FSL stores its warps, whose voxels mean something else
    table = [
        (vectors, "none", SHAPES.format((16, 18, 20, 3), "none")),
        (vectors[:, :, :, None], "none", SHAPES.format((16, 18, 20, 1, 3), "none")),
        (vectors[:, :, :, None, :2], "vector", SHAPES.format((16, 18, 20, 1, 2), "vector")),
        (vectors[..., 0], "none", SHAPES.format((16, 18, 20), "none")),
        (vectors[:, :, 0, 0], "vector", SHAPES.format((16, 18), "vector")),
    ]
    for array, intent, expected in table:
        image = nib.Nifti1Image(array, np.eye(4))
        image.header.set_intent(intent)
        nib.save(image, path)
        assert problem(path, read_displacement) == expected
    broken = vectors[:, :, :, None].copy()
    broken[3, 4, 5] = np.nan
    image = nib.Nifti1Image(broken, np.eye(4))
    image.header.set_intent("vector")
    nib.save(image, path)
    assert problem(path, read_displacement) == "expected finite displacements, got 3 values that are not, of 17280"
    path.write_bytes(path.read_bytes()[:-100])
    assert problem(path, read_displacement) == (
        "expected a whole NIfTI file, which cannot be read (EOFError: Compressed file ended before the end-of-stream "
        "marker was reached); fetch or write it again"
    )
    assert problem(tmp_path / "gone.nii", read_displacement) == "expected a NIfTI file, found none; check the path"


def test_bad_images_of_other_formats_are_named(tmp_path: Path) -> None:
    image, field = image_and_field()
    unknown = "(RuntimeError: Unable to determine ImageIO reader for {}); fetch or write it again"
    assert problem(tmp_path / "gone.mha", read_displacement) == (
        "expected a displacement image, found none; check the path"
    )
    (tmp_path / "text.mha").write_text("hello")
    write_itk_transform(tmp_path / "a.h5", field, GRIDS["plain"])
    for name in ("text.mha", "a.h5"):
        reason = unknown.format(f'"{tmp_path / name}"')
        expected = f"expected a displacement image, which cannot be read {reason}"
        assert problem(tmp_path / name, read_displacement) == expected
    sitk.WriteImage(as_sitk(image, GRIDS["plain"]), str(tmp_path / "scalar.mha"))
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((4, 5, 2)), isVector=True), str(tmp_path / "flat.mha"))
    for name, what in (("scalar.mha", "3 dimensions and 1 components"), ("flat.mha", "2 dimensions and 2 components")):
        assert problem(tmp_path / name, read_displacement) == (
            f"expected a 3D image of 3 components, got {what}; a transform file is read by read_itk_transform"
        )


def test_bad_transform_files_are_named(tmp_path: Path) -> None:
    _, field = image_and_field()
    grid = GRIDS["plain"]
    whole = write_itk_transform(tmp_path / "a.h5", field, grid).read_bytes()
    sitk.WriteTransform(sitk.AffineTransform(2), str(tmp_path / "flat.tfm"))
    table: dict[str, tuple[bytes, str]] = {
        "empty.h5": (b"", "Could not create Transform IO object for reading file {}"),
        "cut.h5": (whole[: len(whole) // 2], "Could not create Transform IO object for reading file {}"),
        "text.tfm": (b"hello", "Tags must be delimited by :"),
        "noise.mat": (b"hello", "Transform IO: MatlabTransformIOTemplate"),
        "image.xyz": (b"hello", "Could not create Transform IO object for reading file {}"),
    }
    for name, (content, reason) in table.items():
        path = tmp_path / name
        path.write_bytes(content)
        assert problem(path, read_itk_transform, grid) == (
            f"expected a transform file of ITK, which cannot be read (RuntimeError: {reason.format(path)}); "
            "fetch or write it again"
        )
    assert problem(tmp_path / "gone.h5", read_itk_transform, grid) == (
        "expected a transform file, found none; check the path"
    )
    assert problem(tmp_path / "flat.tfm", read_itk_transform, grid) == "expected a 3D transform, got 2 dimensions"


def test_tables_are_read_without_torch_and_simpleitk() -> None:
    program = "import sys, monai_fair.data as d; print({'torch', 'SimpleITK'} & set(sys.modules)); d.read_volume"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
