"""RGBReader: three channels, rows first, upright, of the asked size, whatever kind of file it is."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from monai.transforms import Compose, LoadImage, LoadImaged
from PIL import Image, ImageOps

from monai_fair.errors import ImageFileError
from monai_fair.transforms import RGBReader

RED, GREEN, GREY = (255, 0, 0), (0, 128, 0), (90, 90, 90)


def load(path: Path, size: int | tuple[int, int] | None = None, **options: bool) -> npt.NDArray[np.float32]:
    image = LoadImage(reader=RGBReader(size, **options), image_only=True, ensure_channel_first=True)(str(path))
    return np.asarray(image)


def halves(left: tuple[int, ...], right: tuple[int, ...], *, height: int = 4, width: int = 6) -> Image.Image:
    pixels = np.zeros((height, width, len(left)), np.uint8)
    pixels[:, : width // 2], pixels[:, width // 2 :] = left, right
    return Image.fromarray(pixels.squeeze())


def saved(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)
    return path


def test_rows_come_first_and_channels_before_them(tmp_path: Path) -> None:
    image = load(saved(halves(RED, GREEN), tmp_path / "a.png"))
    assert image.shape == (3, 4, 6)  # 4 rows, 6 columns
    np.testing.assert_array_equal(image[:, 0, 0], RED)
    np.testing.assert_array_equal(image[:, 3, 5], GREEN)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1", "RGB"])
def test_every_mode_of_a_png_becomes_rgb(tmp_path: Path, mode: str) -> None:
    white, black = (255, 255, 255), (0, 0, 0)
    image = load(saved(halves(white, black).convert(mode), tmp_path / "a.png"))
    assert image.shape == (3, 4, 6)
    np.testing.assert_array_equal(image[:, 0, 0], white)
    np.testing.assert_array_equal(image[:, 0, 5], black)


def test_a_palette_keeps_its_colours(tmp_path: Path) -> None:
    image = load(saved(halves(RED, GREEN).convert("P", palette=Image.Palette.ADAPTIVE), tmp_path / "a.png"))
    np.testing.assert_array_equal(image[:, 0, 0], RED)


def test_a_transparent_palette_is_read_without_a_warning(tmp_path: Path) -> None:
    palette = halves(RED, GREEN).convert("P", palette=Image.Palette.ADAPTIVE)
    image = load(saved(palette, tmp_path / "a.png", transparency=bytes([0] * 256)))
    np.testing.assert_array_equal(image[:, 0, 0], RED)


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    image = load(saved(halves(RED, GREY).convert("CMYK"), tmp_path / "a.tif"))
    np.testing.assert_allclose(image[:, 0, 0], RED, atol=2)
    np.testing.assert_allclose(image[:, 0, 5], GREY, atol=2)


def test_grayscale_gives_one_channel(tmp_path: Path) -> None:
    image = load(saved(halves(GREY, RED), tmp_path / "a.png"), grayscale=True)
    assert image.shape == (1, 4, 6)
    assert image[0, 0, 0] == 90


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [None, (48, 32)])
def test_a_photograph_stands_upright(tmp_path: Path, orientation: int, size: tuple[int, int] | None) -> None:
    """A camera stores a turned or mirrored picture with the EXIF tag that undoes it; all eight must look the same."""
    upright = Image.fromarray(np.kron(np.array([[255, 0], [90, 0], [200, 40]], np.uint8), np.ones((16, 16), np.uint8)))
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    stored = upright if orientation == 1 else upright.transpose(undo[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(stored, tmp_path / "a.jpg", exif=exif, quality=95)
    image = load(path, size)
    assert image.shape == (3, 48, 32)
    np.testing.assert_allclose(image[0], np.asarray(upright), atol=6)


@pytest.mark.parametrize("size", [5, (5, 5), (3, 8)])
def test_size_is_height_and_width(tmp_path: Path, size: int | tuple[int, int]) -> None:
    expected = (5, 5) if size == 5 else size
    assert load(saved(halves(RED, GREEN), tmp_path / "a.png"), size).shape == (3, *expected)


def photograph(height: int, width: int) -> Image.Image:
    """Smooth patterns with fine structure, as a skin photograph has."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(40, 220, (9, 9, 3), dtype=np.uint8)).resize((width, height), 3)
    return Image.fromarray(np.clip(np.asarray(coarse) + rng.normal(0, 12, (height, width, 3)), 0, 255).astype(np.uint8))


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("size", [(64, 64), (64, 200), (200, 64), (70, 290)])
def test_decoding_at_a_reduced_scale_is_close_to_full_decoding(
    tmp_path: Path, size: tuple[int, int], turned: bool
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6 if turned else 1
    path = saved(photograph(450, 600), tmp_path / "a.jpg", quality=92, exif=exif)
    with Image.open(path) as file:
        full = ImageOps.exif_transpose(file).convert("RGB").resize(size[::-1], Image.Resampling.BILINEAR)
    expected = np.moveaxis(np.asarray(full, dtype=float), -1, 0)
    difference = np.abs(load(path, size) - expected)
    # of 255 grey levels; the two average the camera's noise differently
    assert difference.mean() < 1.5
    assert np.quantile(difference, 0.99) < 6


def test_a_png_is_not_reduced(tmp_path: Path) -> None:
    """Only JPEG can be decoded at a scale; others must be the plain resize."""
    path = saved(photograph(300, 400), tmp_path / "a.png")
    with Image.open(path) as file:
        expected = np.asarray(file.resize((32, 32), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(load(path, 32), np.moveaxis(expected, -1, 0))


@pytest.mark.parametrize("kind", ["empty", "text", "truncated"])
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_damaged_file_is_named(tmp_path: Path, kind: str, suffix: str) -> None:
    path = saved(photograph(64, 64), tmp_path / f"sick.{suffix}")
    whole = path.read_bytes()
    path.write_bytes({"empty": b"", "text": b"not an image", "truncated": whole[: len(whole) // 2]}[kind])
    with pytest.raises(ImageFileError) as caught:
        load(path, 32)
    assert str(caught.value).startswith(f"{path}: expected a readable image; ")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageFileError, match=r"none\.jpg: expected a readable image"):
        load(tmp_path / "none.jpg")


def test_no_other_reader_of_monai_takes_a_file_that_this_one_refuses(tmp_path: Path) -> None:
    """MONAI tries its other readers after an error in `read`; NumpyReader would take this one."""
    path = tmp_path / "array.jpg"
    with path.open("wb") as file:
        np.save(file, np.zeros((4, 6)))
    transform = Compose([LoadImaged(keys="image", image_only=True, reader=RGBReader(8))])
    with pytest.raises(RuntimeError) as caught:
        transform({"image": str(path)})
    assert isinstance(caught.value.__cause__, ImageFileError)


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_more_than_eight_bits_are_refused(tmp_path: Path, mode: str) -> None:
    """Pillow would clip a 16-bit picture at 255: white nearly everywhere, without a word."""
    dtype = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
    path = saved(Image.fromarray(np.array([[0, 300, 65535]], dtype)), tmp_path / "a.tif")
    with pytest.raises(ImageFileError) as caught:
        load(path)
    assert str(caught.value) == (
        f"{path}: expected a readable image; expected 8 bits per channel, got mode '{mode}'; convert it to 8 bits first"
    )


def test_several_files_become_channels(tmp_path: Path) -> None:
    one, other = (saved(halves(left, GREY), tmp_path / f"{max(left)}.png") for left in (RED, GREEN))
    image = LoadImage(reader=RGBReader(), image_only=True)([str(one), str(other)])
    assert tuple(image.shape) == (4, 6, 6)
    np.testing.assert_array_equal(image[0, 0], [*RED, *GREEN])
