"""A volume is read whole and in its place, or refused with its name and every reason."""

import gzip
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from monai_fair.data import read_labels, read_map, read_volume, write_volume
from monai_fair.errors import GeometryError
from monai_fair.geometry import Axes, Grid

SHAPE = (4, 5, 6)
SPACING_MM = np.array([1.0, 1.5, 2.0])
VALUES = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)


def oblique(*, shear: float = 0.0) -> np.ndarray:
    """Turn by 30 degrees about z, then by 20 about x; voxels of 1 x 1.5 x 2 mm."""
    (c, s), (d, e) = ((np.cos(angle), np.sin(angle)) for angle in np.deg2rad([30.0, 20.0]))
    turn = np.array([[1, 0, 0], [0, d, -e], [0, e, d]]) @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.array([[1, shear, 0], [0, 1, 0], [0, 0, 1]]) @ np.diag(SPACING_MM)
    affine[:3, 3] = [10.0, -20.0, 30.5]
    return affine


def nifti(array: np.ndarray, affine: np.ndarray | None = None, **header: Any) -> bytes:
    """Return the bytes of a file by nibabel, with fields of the header as given: a value, or an index and a value."""
    image = nib.Nifti1Image(array, np.diag([*SPACING_MM, 1.0]) if affine is None else affine, dtype=array.dtype)
    image.set_sform(image.affine, code=1)
    image.set_qform(image.affine, code=1)
    content = image.to_bytes()
    stored = np.frombuffer(content[:348], dtype=image.header.template_dtype).copy()
    for name, value in header.items():
        if isinstance(value, tuple):
            stored[name][0][value[0]] = value[1]
        else:
            stored[name][0] = value
    return stored.tobytes() + content[348:]


def problem(path: Path, read: Callable[[Path], Any] = read_volume) -> str:
    with pytest.raises(GeometryError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value).removeprefix(f"{path}: ")


GRIDS = {
    "anisotropic": Grid(SHAPE, np.diag([*SPACING_MM, 1.0])),
    "flipped": Grid(SHAPE, np.diag([-1.0, 1.5, -2.0, 1.0])),
    "permuted": Grid(SHAPE, np.diag([1.0, 1.5, 2.0, 1.0])[[2, 0, 1, 3]]),
    "oblique": Grid(SHAPE, oblique()),
    "sheared": Grid(SHAPE, oblique(shear=0.2)),
}


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("name", GRIDS)
def test_round_trip_keeps_voxels_and_place(tmp_path: Path, name: str, suffix: str) -> None:
    grid = GRIDS[name]
    path = write_volume(tmp_path / f"a{suffix}", VALUES, grid)
    found = read_volume(str(path))
    np.testing.assert_array_equal(found.array, VALUES)
    assert found.array.dtype == np.float32
    assert found.array.flags.c_contiguous
    assert found.source == str(path)
    # float32 holds 30.5 mm and cosines to 1e-7
    assert found.grid.matches(grid, tolerance_mm=1e-5)


@pytest.mark.parametrize("name", GRIDS)
def test_sform_and_qform_say_the_same_where_a_quaternion_can(tmp_path: Path, name: str) -> None:
    header = nib.load(write_volume(tmp_path / "a.nii", VALUES, GRIDS[name])).header
    sform, sform_code = header.get_sform(coded=True)
    qform, qform_code = header.get_qform(coded=True)
    np.testing.assert_allclose(sform, GRIDS[name].affine, atol=1e-5)
    assert sform_code == 1
    assert header.get_xyzt_units() == ("mm", "unknown")
    if name == "sheared":
        assert qform is None
        assert qform_code == 0
    else:
        np.testing.assert_allclose(qform, GRIDS[name].affine, atol=1e-5)
        assert qform_code == 1


@pytest.mark.parametrize("name", [name for name in GRIDS if name != "sheared"])
def test_simpleitk_sees_the_same_voxels_at_the_same_points(tmp_path: Path, name: str) -> None:
    grid = GRIDS[name]
    image = sitk.ReadImage(str(write_volume(tmp_path / "a.nii.gz", VALUES, grid)))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), VALUES.T)
    for corner in itertools.product(*((0, size - 1) for size in SHAPE)):
        expected = grid.points(np.array(corner, dtype=float), Axes.VOXEL, Axes.LPS)
        np.testing.assert_allclose(image.TransformIndexToPhysicalPoint(corner), expected, atol=1e-5)


def test_equal_content_gives_equal_bytes_without_a_time(tmp_path: Path) -> None:
    paths = [write_volume(tmp_path / name, VALUES, GRIDS["oblique"]) for name in ("a.nii.gz", "b.nii.gz", "c.nii")]
    first, second, plain = (path.read_bytes() for path in paths)
    assert first == second
    assert gzip.decompress(first) == plain
    # RFC 1952: no flags, so no file name; modification time 0
    assert first[3:8] == b"\0" * 5


def test_arrays_in_any_layout_are_written_alike(tmp_path: Path) -> None:
    grid = GRIDS["anisotropic"]
    expected = write_volume(tmp_path / "a.nii", VALUES, grid).read_bytes()
    for other in (np.asfortranarray(VALUES), VALUES[::-1, :, ::-1].copy()[::-1, :, ::-1], VALUES.astype(">f4")):
        assert write_volume(tmp_path / "b.nii", other, grid).read_bytes() == expected


@pytest.mark.parametrize(
    ("given", "asked", "stored"),
    [
        (np.float64, None, "float32"),
        (np.float16, None, "float32"),
        (np.bool_, None, "uint8"),
        (np.int64, None, "int32"),
        (np.uint64, None, "int32"),
        (np.int16, None, "int16"),
        (np.uint8, None, "uint8"),
        (np.float32, np.int16, "int16"),
        (np.float32, np.float64, "float64"),
        (np.int64, "int64", "int64"),
    ],
)
def test_types_on_disk(tmp_path: Path, given: Any, asked: Any, stored: str) -> None:
    array = np.arange(120).reshape(SHAPE).astype(given)
    path = write_volume(tmp_path / "a.nii", array, GRIDS["anisotropic"], dtype=asked)
    image = nib.load(path)
    assert image.get_data_dtype() == stored
    assert (image.dataobj.slope, image.dataobj.inter) == (1, 0)
    np.testing.assert_array_equal(read_labels(path).array, array.astype(int))


def test_what_cannot_be_written_leaves_no_file(tmp_path: Path) -> None:
    grid = GRIDS["anisotropic"]
    half, nan = np.full(SHAPE, 1.5), np.full(SHAPE, np.nan)
    large = np.zeros(SHAPE, dtype=np.int64)
    large[3, 4, 5] = 2**31
    table: list[tuple[np.ndarray, Any, str]] = [
        (VALUES[:3], None, "expected an array of the grid's shape (4, 5, 6), got (3, 5, 6)"),
        (VALUES.astype(complex), None, "expected an array of real numbers, got complex128; convert it"),
        (half, "uint8", "expected values that uint8 can hold, got 120 other voxels of 120, the first is 1.5"),
        (nan, "int16", "expected values that int16 can hold, got 120 other voxels of 120, the first is nan"),
        (
            -np.ones(SHAPE),
            "uint16",
            "expected values that uint16 can hold, got 120 other voxels of 120, the first is -1",
        ),
        (large, None, "expected values that int32 can hold, got 1 other voxels of 120, the first is 2.14748e+09"),
    ]
    for array, dtype, expected in table:
        with pytest.raises(GeometryError) as caught:
            write_volume(tmp_path / "a.nii", array, grid, dtype=dtype)
        assert str(caught.value).removesuffix("; choose another dtype") == f"{tmp_path / 'a.nii'}: {expected}"
    with pytest.raises(GeometryError) as caught:
        write_volume(tmp_path / "a.mha", VALUES, grid)
    expected = "expected a name that ends in .nii or .nii.gz, got 'a.mha'; rename it"
    assert str(caught.value) == f"{tmp_path / 'a.mha'}: {expected}"
    assert list(tmp_path.iterdir()) == []


def test_undefined_values_are_written_as_they_are(tmp_path: Path) -> None:
    # the logarithm of a Jacobian that folds has no value; the reader of images refuses it, that of maps does not
    values = np.where(VALUES > 1, np.nan, VALUES)
    path = write_volume(tmp_path / "a.nii.gz", values, GRIDS["anisotropic"])
    np.testing.assert_array_equal(nib.load(path).get_fdata(dtype=np.float32), values)
    assert problem(path).startswith(f"expected finite voxels, got {np.isnan(values).sum()} that are not, of 120;")
    found = read_map(path)
    np.testing.assert_array_equal(found.array, values.astype(np.float32))
    assert found.grid.matches(GRIDS["anisotropic"])


def test_slope_and_intercept_are_applied(tmp_path: Path) -> None:
    counts = np.arange(120, dtype=np.int16).reshape(SHAPE)
    (tmp_path / "a.nii").write_bytes(nifti(counts, scl_slope=0.5, scl_inter=-3.0))
    np.testing.assert_array_equal(read_volume(tmp_path / "a.nii").array, counts * np.float32(0.5) - 3)


def test_the_sform_counts_where_the_two_differ(tmp_path: Path) -> None:
    (tmp_path / "a.nii").write_bytes(nifti(VALUES, qoffset_x=99.0))
    (tmp_path / "b.nii").write_bytes(nifti(VALUES, qoffset_x=99.0, sform_code=0))
    assert read_volume(tmp_path / "a.nii").grid.affine[0, 3] == 0
    assert read_volume(tmp_path / "b.nii").grid.affine[0, 3] == 99


def test_trailing_axes_of_length_1_and_other_flavours_of_nifti(tmp_path: Path) -> None:
    affine = np.diag([*SPACING_MM, 1.0])
    nib.save(nib.Nifti1Image(VALUES[..., None, None], affine), tmp_path / "trailing.nii.gz")
    nib.save(nib.Nifti2Image(VALUES, affine), tmp_path / "second.nii.gz")
    nib.save(nib.Nifti1Image(VALUES, affine, header=nib.Nifti1Header(endianness=">")), tmp_path / "big_endian.nii")
    sitk.WriteImage(sitk.ReadImage(str(tmp_path / "big_endian.nii")), str(tmp_path / "itk.nii.gz"))
    for name in ("trailing.nii.gz", "second.nii.gz", "big_endian.nii", "itk.nii.gz"):
        found = read_volume(tmp_path / name)
        np.testing.assert_array_equal(found.array, VALUES)
        assert found.grid.matches(GRIDS["anisotropic"])


WHOLE = "expected a whole NIfTI file, which cannot be read ({}); fetch or write it again"
OTHER = "expected a NIfTI file (.nii, .nii.gz), got {} bytes of another kind; convert it"
FINITE = "expected finite voxels, got {} that are not, of 120; repair the image"
SPACING = "expected a voxel spacing above 0, got {}; repair the header (pixdim)"
UNIT = "expected a spacing in millimetres, got one in {}; convert the header"
NO_AFFINE = "expected an affine (sform or qform), got neither, so left and right are not known; copy it from the scan"
PLAIN = nifti(VALUES)  # 352 bytes of header and 480 of voxels
# stored, not compressed, so that a flipped bit leaves a stream that can be read to its end
STORED = gzip.compress(PLAIN, compresslevel=0)
ABOVE_1 = int((VALUES > 1).sum())


def flipped(content: bytes, position: int) -> bytes:
    changed = bytearray(content)
    changed[position] ^= 1
    return bytes(changed)


def colours() -> np.ndarray:
    return np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])


HOSTILE: dict[str, tuple[bytes, str]] = {
    "empty.nii": (b"", OTHER.format(0)),
    "empty.nii.gz": (b"", OTHER.format(0)),
    "text.nii": (b"hello", OTHER.format(5)),
    "half a header.nii": (PLAIN[:300], OTHER.format(300)),
    "header alone.nii": (PLAIN[:352], WHOLE.format("EOFError: the header asks for 832 bytes, the file has 352")),
    "cut.nii": (PLAIN[:-50], WHOLE.format("EOFError: the header asks for 832 bytes, the file has 782")),
    "cut.nii.gz": (
        STORED[:400],
        WHOLE.format("EOFError: Compressed file ended before the end-of-stream marker was reached"),
    ),
    "checksum cut off.nii.gz": (
        STORED[:-4],
        WHOLE.format("EOFError: Compressed file ended before the end-of-stream marker was reached"),
    ),
    "flipped bit.nii.gz": (
        flipped(STORED, -60),
        WHOLE.format("BadGzipFile: CRC check failed"),
    ),
    "not gzip.nii.gz": (PLAIN, WHOLE.format(f"BadGzipFile: Not a gzipped file ({PLAIN[:2]!r})")),
    "gzip.nii": (STORED, OTHER.format(len(STORED))),
    "pair.nii": (nifti(VALUES, magic=b"ni1"), OTHER.format(832)),
    "2D.nii": (nifti(VALUES[0]), "expected one 3D volume, got shape (5, 6); give one volume per file"),
    "4D.nii": (
        nifti(np.stack([VALUES, VALUES], axis=-1)),
        "expected one 3D volume, got shape (4, 5, 6, 2); give one volume per file",
    ),
    "slice.nii": (
        nifti(VALUES[:1]),
        "grid: expected three axes of at least 2 voxels, got shape (1, 5, 6); give a 3D volume",
    ),
    "complex.nii": (
        nifti(VALUES.astype(np.complex64)),
        "expected voxels that are real numbers, got complex64; convert the image",
    ),
    "colours.nii": (
        nifti(colours()),
        "expected voxels that are real numbers, got colours (R, G, B); convert the image",
    ),
    "nan.nii.gz": (gzip.compress(nifti(np.where(VALUES > 1, np.nan, VALUES))), FINITE.format(ABOVE_1)),
    "inf.nii": (nifti(np.where(VALUES > 1, -np.inf, VALUES)), FINITE.format(ABOVE_1)),
    "beyond float32.nii": (nifti(np.where(VALUES > 1, 1e300, VALUES.astype(float))), FINITE.format(ABOVE_1)),
    "constant.nii": (
        nifti(np.full(SHAPE, 3, dtype=np.uint8)),
        "expected an image, got the value 3 in every voxel; give another file",
    ),
    "zero spacing.nii": (nifti(VALUES, pixdim=(2, 0.0)), SPACING.format([1.0, 0.0, 2.0])),
    "nan spacing.nii": (nifti(VALUES, pixdim=(3, np.nan)), SPACING.format([1.0, 1.5, np.nan])),
    "metres.nii": (nifti(VALUES, xyzt_units=1), UNIT.format("metres")),
    "micrometres.nii": (nifti(VALUES, xyzt_units=3 + 8), UNIT.format("micrometres")),
    "no affine.nii": (nifti(VALUES, sform_code=0, qform_code=0), NO_AFFINE),
    "singular.nii": (
        nifti(VALUES, srow_x=(slice(None), 0.0)),
        "grid: expected voxels of positive size, got the singular affine "
        "[[0.0, 0.0, 0.0, 0.0], [0.0, 1.5, 0.0, 0.0], [0.0, 0.0, 2.0, 0.0], [0.0, 0.0, 0.0, 1.0]]",
    ),
    "nan affine.nii": (
        nifti(VALUES, srow_z=(3, np.nan)),
        "grid: expected a finite affine of shape (4, 4) with last row 0 0 0 1, got "
        "[[1.0, 0.0, 0.0, 0.0], [0.0, 1.5, 0.0, 0.0], [0.0, 0.0, 2.0, nan], [0.0, 0.0, 0.0, 1.0]]",
    ),
    "no rotation.nii": (
        nifti(VALUES, sform_code=0, quatern_b=3.0),
        WHOLE.format("ValueError: w2 should be positive, but is -8.000000e+00"),
    ),
    "negative.nii": (nifti(VALUES, dim=(1, -4)), WHOLE.format("ValueError: the header asks for the shape (-4, 5, 6)")),
    # 32767 cubed voxels of 4 bytes would be 128 TiB: refused before a byte is reserved
    "huge.nii": (
        nifti(VALUES, dim=(slice(1, 4), 32767)),
        WHOLE.format(f"EOFError: the header asks for {32767**3 * 4 + 352} bytes, the file has 832"),
    ),
    "none at all.nii": (
        nifti(VALUES, dim=(1, 0)),
        "grid: expected three axes of at least 2 voxels, got shape (0, 5, 6); give a 3D volume",
    ),
    "far away.nii": (
        nifti(VALUES, vox_offset=1e9),
        WHOLE.format("EOFError: the header asks for 1000000480 bytes, the file has 832"),
    ),
    "unknown type.nii": (
        nifti(VALUES, datatype=777),
        WHOLE.format("HeaderDataError: data code 777 not recognized"),
    ),
    "much.nii": (
        nifti(np.where(VALUES > 1, np.nan, VALUES), pixdim=(1, 0.0), xyzt_units=1, sform_code=0, qform_code=0),
        f"4 problems\n  1. {SPACING.format([0.0, 1.5, 2.0])}\n  2. {UNIT.format('metres')}\n  3. {NO_AFFINE}\n"
        f"  4. {FINITE.format(ABOVE_1)}",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_every_bad_file_is_named_with_its_reason(tmp_path: Path, name: str) -> None:
    content, expected = HOSTILE[name]
    path = tmp_path / name
    path.write_bytes(content)
    assert problem(path) == expected


@pytest.mark.parametrize("read", [read_volume, read_labels, read_map])
def test_missing_files_and_folders(tmp_path: Path, read: Callable[[Path], Any]) -> None:
    (tmp_path / "folder.nii").mkdir()
    for name in ("folder.nii", "gone.nii.gz"):
        assert problem(tmp_path / name, read) == "expected a NIfTI file, found none; check the path"


def test_labels_are_whole_numbers(tmp_path: Path) -> None:
    # 2**24 + 1 is the first whole number that float32 does not have
    labels = np.arange(120).reshape(SHAPE) + 2**24
    path = write_volume(tmp_path / "a.nii.gz", labels, GRIDS["oblique"])
    found = read_labels(path)
    assert found.array.dtype == np.int32
    assert found.array.flags.c_contiguous
    assert found.grid.matches(GRIDS["oblique"])
    np.testing.assert_array_equal(found.array, labels)
    write_volume(path, np.ones(SHAPE, dtype=bool), GRIDS["oblique"])
    assert read_labels(path).array.tolist() == np.ones(SHAPE, dtype=int).tolist()


@pytest.mark.parametrize(
    ("value", "shown"), [(0.5, "0.5"), (np.nan, "nan"), (-np.inf, "-inf"), (2.0**31, "2.14748e+09")]
)
def test_what_is_no_label_is_refused(tmp_path: Path, value: float, shown: str) -> None:
    values = np.zeros(SHAPE)
    values[1, 2, 3] = values[3, 0, 0] = value
    path = write_volume(tmp_path / "a.nii", values, GRIDS["oblique"], dtype=np.float64)
    assert problem(path, read_labels) == (
        f"expected labels, whole numbers of 32 bits, got 2 other voxels of 120, the first is {shown}; "
        "give a label map, or resample it with nearest neighbours"
    )


@pytest.mark.parametrize("name", ["4D.nii", "colours.nii", "no affine.nii", "cut.nii"])
def test_labels_are_refused_as_volumes_are(tmp_path: Path, name: str) -> None:
    content, expected = HOSTILE[name]
    path = tmp_path / name
    path.write_bytes(content)
    found = problem(path, read_labels)
    # the voxels of the file without an affine are no labels either, and are said beside it
    assert found == expected or f"1. {expected}\n  2. expected labels" in found
    assert problem(path, read_map) == expected
