"""Every published kind of file is read into the right place in the world, and every bad one is named."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from monai_fair.data import write_volume
from monai_fair.errors import GeometryError
from monai_fair.geometry import Grid
from monai_fair.preparation import read_scan
from monai_fair.preparation.reading import oriented_affine

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(1, 900, (6, 7, 8)).astype(np.int16)


def analyze(folder: Path, array: np.ndarray = IMAGE, spacing: tuple[float, ...] = (1.0, 1.0, 1.25)) -> Path:
    """A pair as OASIS-1 publishes: Analyze 7.5, big-endian, no affine."""
    header = nib.AnalyzeHeader(endianness=">")
    header.set_data_dtype(array.dtype)
    header.set_data_shape(array.shape)
    header["pixdim"][1:4] = spacing
    path = folder / "OAS1_0001_MR1_mpr-1_anon.hdr"
    path.write_bytes(header.binaryblock)
    path.with_suffix(".img").write_bytes(array.astype(array.dtype.newbyteorder(">")).tobytes(order="F"))
    return path


@pytest.mark.parametrize("suffix", [".hdr", ".img"])
def test_oasis_1_lies_as_its_orientation_says(tmp_path: Path, suffix: str) -> None:
    scan, source = read_scan(analyze(tmp_path).with_suffix(suffix), orientation="ASL")
    assert source == "option"
    np.testing.assert_array_equal(scan.array, IMAGE)
    assert (scan.array.dtype, scan.array.flags.c_contiguous) == (np.float32, True)
    # i runs to anterior (+y), j to superior (+z), k to the left (-x); the middle voxel (2.5, 3, 3.5) is the origin:
    # x = -1.25 k + 1.25 * 3.5, y = i - 2.5, z = j - 3
    expected = [[0, 0, -1.25, 4.375], [1, 0, 0, -2.5], [0, 1, 0, -3], [0, 0, 0, 1]]
    np.testing.assert_allclose(scan.grid.affine, expected)
    assert scan.grid.orientation == "ASL"


@pytest.mark.parametrize("code", ["RAS", "LPI", "ASL", "SRA", "PIR"])
def test_an_orientation_is_that_of_nibabel(code: str) -> None:
    affine = oriented_affine((4, 5, 6), (1.0, 2.0, 3.0), code)
    assert "".join(nib.aff2axcodes(affine)) == code
    np.testing.assert_allclose(nib.affines.voxel_sizes(affine), (1, 2, 3))
    np.testing.assert_allclose(affine @ [1.5, 2, 2.5, 1], [0, 0, 0, 1])


def test_an_array_of_openbhb_lies_on_the_grid_of_fsl(tmp_path: Path) -> None:
    array = np.zeros((1, 182, 218, 182), dtype=np.float32)
    array[0, 90, 126, 72] = 5
    np.save(tmp_path / "sub-1.npy", array)
    scan, source = read_scan(tmp_path / "sub-1.npy")
    assert source == "MNI152 (array)"
    assert scan.grid.orientation == "LAS"
    # FSL's MNI152_T1_1mm: voxel (90, 126, 72) is the anterior commissure, the origin
    place = np.unravel_index(scan.array.argmax(), scan.array.shape)
    np.testing.assert_allclose(scan.grid.affine @ [*place, 1], [0, 0, 0, 1])


def test_another_array_needs_an_orientation(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, IMAGE)
    assert read_scan(path, orientation="LPS")[0].grid.orientation == "LPS"
    with pytest.raises(GeometryError) as raised:
        read_scan(path)
    assert str(raised.value) == (
        f"{path}: expected an array of shape (182, 218, 182), which lies on the MNI152 grid, got (6, 7, 8), whose "
        "affine is not known; give --orientation (voxels of 1 mm), or convert it to NIfTI"
    )


def test_a_nifti_without_an_affine_takes_the_orientation_and_one_with_an_affine_keeps_it(tmp_path: Path) -> None:
    bare = nib.Nifti1Image(IMAGE, None)
    bare.header.set_zooms((2, 2, 2))
    nib.save(bare, tmp_path / "bare.nii.gz")
    scan, source = read_scan(tmp_path / "bare.nii.gz", orientation="PIR")
    assert (scan.grid.orientation, scan.grid.spacing_mm, source) == ("PIR", (2.0, 2.0, 2.0), "option")
    said = write_volume(
        tmp_path / "said.nii.gz", IMAGE, Grid(IMAGE.shape, oriented_affine(IMAGE.shape, [1] * 3, "LAS"))
    )
    scan, source = read_scan(said, orientation="PIR")
    assert (scan.grid.orientation, source) == ("LAS", "file")


def test_a_nifti_pair_says_its_orientation(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Pair(IMAGE, np.diag([-2.0, 2, 2, 1])), tmp_path / "pair.img")
    scan, source = read_scan(tmp_path / "pair.img")
    assert (scan.grid.orientation, source) == ("LAS", "file")
    np.testing.assert_array_equal(scan.array, IMAGE)


@pytest.mark.parametrize("code", ["RRS", "RA", "RASL", "XYZ", "ras"])
def test_a_wrong_orientation_code(code: str, tmp_path: Path) -> None:
    with pytest.raises(GeometryError) as raised:
        read_scan(analyze(tmp_path), orientation=code)
    assert str(raised.value) == (
        "orientation: expected three letters, one each of L or R, A or P, I or S, in the order of the array's axes, "
        f"got '{code}'; give one such as ASL"
    )


def bad_nifti(path: Path, array: np.ndarray, *, spacing: float = 1.0, forms: bool = True) -> Path:
    image = nib.Nifti1Image(array, np.eye(4) if forms else None)
    image.header["pixdim"][1:4] = spacing
    content = bytearray(image.to_bytes())
    # the header again, because nibabel repairs the spacing on the way
    content[80:92] = np.full(3, spacing, dtype="<f4").tobytes()
    path.write_bytes(bytes(content))
    return path


def bad_files(folder: Path) -> dict[str, tuple[Path, str]]:
    """Path and the text after it, for each kind of damage."""
    nan = IMAGE.astype(np.float32)
    nan[1, 2, 3:5] = np.nan
    flat = np.full((6, 7, 8), 7, dtype=np.int16)
    whole = write_volume(folder / "whole.nii.gz", IMAGE, Grid.isotropic(IMAGE.shape)).read_bytes()
    cut = folder / "cut.nii.gz"
    cut.write_bytes(whole[: len(whole) // 2])
    for name in ("analyze", "alone"):
        (folder / name).mkdir()
    alone = analyze(folder / "alone")
    alone.with_suffix(".img").unlink()
    np.save(folder / "objects.npy", np.array([{}]), allow_pickle=True)
    stem = "OAS1_0001_MR1_mpr-1_anon"
    return {
        "missing": (folder / "none.nii.gz", "expected a NIfTI file, found none; check the path"),
        "missing array": (folder / "none.npy", "expected an array, found none; check the path"),
        "truncated": (
            cut,
            "expected a whole NIfTI file, which cannot be read (EOFError: Compressed file ended before the "
            "end-of-stream marker was reached); fetch or write it again",
        ),
        "no affine": (
            bad_nifti(folder / "bare.nii", IMAGE, forms=False),
            "expected an affine (sform or qform), got neither, so left and right are not known; copy it from the scan",
        ),
        "zero spacing": (
            bad_nifti(folder / "zero.nii", IMAGE, spacing=0.0),
            "expected a voxel spacing above 0, got [0.0, 0.0, 0.0]; repair the header (pixdim)",
        ),
        "NaN": (
            bad_nifti(folder / "nan.nii", nan),
            "expected finite voxels, got 2 that are not, of 336; repair the image",
        ),
        "4D": (
            bad_nifti(folder / "four.nii", np.zeros((6, 7, 8, 2), dtype=np.int16)),
            "expected one 3D volume, got shape (6, 7, 8, 2); give one volume per file",
        ),
        "constant": (
            bad_nifti(folder / "flat.nii", flat),
            "expected an image, got the value 7 in every voxel; give another file",
        ),
        "Analyze without orientation": (
            analyze(folder / "analyze"),
            "expected an affine, found none (Analyze does not say where left is); give --orientation, such as ASL for "
            "OASIS-1",
        ),
        "no .img": (alone, f"expected a pair of files {stem}.hdr and {stem}.img, found no .img or .img.gz"),
        "pickled objects": (
            folder / "objects.npy",
            "expected a whole .npy file, which cannot be read (ValueError: Object arrays cannot be loaded when "
            "allow_pickle=False); fetch or write it again",
        ),
    }


KINDS = ["missing", "missing array", "truncated", "no affine", "zero spacing", "NaN", "4D", "constant",
         "Analyze without orientation", "no .img", "pickled objects"]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_bad_file_is_named_with_its_reason(kind: str, tmp_path: Path) -> None:
    files = bad_files(tmp_path)
    assert list(files) == KINDS
    path, reason = files[kind]
    with pytest.raises(GeometryError) as raised:
        read_scan(path)
    assert str(raised.value) == f"{path}: {reason}"


def test_bad_pairs_and_arrays_are_named_too(tmp_path: Path) -> None:
    zero = analyze(tmp_path, spacing=(0, 1, 1))
    with pytest.raises(GeometryError, match=r"expected a voxel spacing above 0, got \[0\.0, 1\.0, 1\.0\]"):
        read_scan(zero, orientation="ASL")
    nan = np.full((6, 7, 8), np.nan, dtype=np.float32)
    with pytest.raises(GeometryError, match="expected finite voxels, got 336 that are not, of 336"):
        read_scan(analyze(tmp_path, nan), orientation="ASL")
    flat = np.full((6, 7, 8), 3, dtype=np.int16)
    with pytest.raises(GeometryError, match="expected an image, got the value 3 in every voxel"):
        read_scan(analyze(tmp_path, flat), orientation="ASL")
    series = np.ones((6, 7, 8, 3), dtype=np.int16)
    with pytest.raises(GeometryError, match=r"expected one 3D volume, got shape \(6, 7, 8, 3\)"):
        read_scan(analyze(tmp_path, series, (1, 1, 1)), orientation="ASL")
    path = analyze(tmp_path)
    path.with_suffix(".img").write_bytes(b"\0" * 100)
    with pytest.raises(
        GeometryError, match=r"expected a whole Analyze or NIfTI pair, which cannot be read \(OSError: Expected 672"
    ):
        read_scan(path, orientation="ASL")
