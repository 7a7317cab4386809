"""Are the images of a manifest readable? One look at every file, and every damaged one named with its reason."""

import gzip
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

from monai_fair.data.artifacts import sha256
from monai_fair.data.manifest import Manifest, resolve_inside
from monai_fair.data.sources import open_npz
from monai_fair.errors import ImageFileError, raise_problems


@dataclass(frozen=True)
class ImageCheck:
    """What a look at the images found.

    Attributes:
        kinds: kind of image, such as ``JPEG RGB 600 x 450``, to the number of files.
        repeated: groups of rows (lines from 2) that hold the same bytes within one part; empty without ``full``.
    """

    kinds: Mapping[str, int]
    repeated: list[list[int]]


def check_images(
    manifest: Manifest, root: str | Path, *, full: bool = False, num_workers: int = 4, progress: bool = True
) -> ImageCheck:
    """Open every image of a manifest.

    The header tells type and size, and that the file is what its name says. With ``full`` every image is decoded
    as well: truncated data, values that are not finite, checksums (column ``sha256``) and files with the same
    bytes in two parts come to light.

    Args:
        manifest: a checked manifest.
        root: data root that the image paths start from.
        full: decode every image and compare contents.
        num_workers: threads to read with.
        progress: show a progress bar.

    Returns:
        Kinds of images with counts, and repeated contents.

    Raises:
        ImageFileError: with every unreadable image, each with line, subject and reason.
    """
    table = manifest.table
    look = partial(_look, Path(root), full)
    digests = table["sha256"] if "sha256" in table else pd.Series("", index=table.index)
    with ThreadPoolExecutor(num_workers) as pool:
        results = pool.map(look, table["image"], digests)
        label = "decoding images" if full else "reading image headers"
        seen = list(tqdm(results, total=len(table), desc=label, unit="image", disable=not progress))
    problems = [
        f"line {line}, subject '{subject}', image '{image}': {look.problem}"
        for line, (subject, image, look) in enumerate(zip(table["subject_id"], table["image"], seen, strict=True), 2)
        if look.problem
    ]
    repeated, leaks = _repeated(manifest, [look.digest for look in seen]) if full else ([], [])
    raise_problems(ImageFileError, manifest.source, problems + leaks)
    return ImageCheck(dict(Counter(look.kind for look in seen).most_common()), repeated)


@dataclass(frozen=True)
class _Look:
    kind: str = ""
    digest: str = ""
    problem: str = ""


def _look(root: Path, full: bool, image: str, digest: str) -> _Look:
    try:
        path = resolve_inside(root, image)
        if not path.is_file():
            return _Look(problem="expected a file, found none")
        kind = _reader(path)(path, full)
        found = sha256(path) if full else ""
    except Exception as error:
        # Pillow, zlib, zipfile and nibabel raise many classes; one image never stops a cohort, and its reason
        # is reported with all others
        return _Look(problem=f"cannot be read ({type(error).__name__}: {_first_line(error)})")
    if digest and full and digest != found:
        return _Look(kind, found, f"expected sha256 {digest[:12]}..., got {found[:12]}...: the file has changed")
    return _Look(kind, found)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]


def _reader(path: Path) -> Callable[[Path, bool], str]:
    if path.name.endswith((".nii", ".nii.gz", ".img", ".hdr")):
        return _look_at_nifti
    return _look_at_numpy if path.suffix in {".npy", ".npz"} else _look_at_picture


def _look_at_picture(path: Path, full: bool) -> str:
    with Image.open(path) as image:
        if full:
            image.load()
        return f"{image.format} {image.mode} {image.width} x {image.height}"


def _look_at_numpy(path: Path, full: bool) -> str:
    if path.suffix == ".npy":
        # memory-mapped, so that the header alone is read; refuses objects
        array = np.lib.format.open_memmap(path, mode="r")
        if full:
            _need_finite(array)
        return "npy with array"
    with open_npz(path) as arrays:
        names = list(arrays)
        for name in names if full else []:
            _need_finite(arrays[name])
        return f"npz with {', '.join(names)}"


def _look_at_nifti(path: Path, full: bool) -> str:
    image = nib.load(path)
    with image.file_map["image"].get_prepare_fileobj("rb") as file:
        # nibabel turns a spacing of 0 into 1 when it loads; the header as stored still has the 0
        stored = type(image.header).from_fileobj(file, check=False)
    spacing = np.abs(np.asarray(stored.get_zooms()[:3], dtype=float))
    if not (np.isfinite(spacing).all() and (spacing > 0).all()):
        raise ImageFileError(f"expected a voxel spacing other than 0, got {spacing.tolist()}")
    affine = np.asarray(image.affine)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise ImageFileError("expected an invertible affine")
    if full:
        _need_finite(np.asarray(image.dataobj))
        _need_whole_gzip(path)
    size = " x ".join(map(str, image.shape))
    return f"NIfTI {size} at {' x '.join(f'{step:.3g}' for step in spacing)} mm"


def _need_whole_gzip(path: Path) -> None:
    """Read to the end, where gzip keeps its checksum; nibabel stops at the last voxel and never sees it."""
    if path.suffix == ".gz":
        with gzip.open(path) as file:
            while file.read(1 << 20):
                pass


def _need_finite(array: np.ndarray) -> None:
    if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
        raise ImageFileError(f"expected finite values, got {int((~np.isfinite(array)).sum())} that are not")


def _repeated(manifest: Manifest, digests: list[str]) -> tuple[list[list[int]], list[str]]:
    """Find rows with the same bytes: within a part they are worth a note, across parts they are a leak."""
    table = manifest.table.assign(digest=digests, line=np.arange(2, len(digests) + 2))
    repeated, leaks = [], []
    for digest, rows in table[table["digest"].duplicated(keep=False)].groupby("digest", sort=False):
        lines = [int(line) for line in rows["line"]]
        if digest == "":
            continue
        if manifest.part in rows and rows[manifest.part].nunique() > 1:
            parts = " and ".join(sorted(rows[manifest.part].unique()))
            leaks.append(f"lines {', '.join(map(str, lines))}: the same image content in {parts}; keep one")
        else:
            repeated.append(lines)
    return repeated, leaks
