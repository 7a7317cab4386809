"""From the images of a manifest to a table of what an image encoder makes of each subject."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from monai_fair.data import load_datalist, recorded_num_classes, sha256
from monai_fair.data.artifacts import file_state, fingerprint, read_json, read_tensors, write_json, write_tensors
from monai_fair.data.tables import write_table
from monai_fair.errors import ImageFileError, MonaiFairError, raise_problems
from monai_fair.subgroups.clip_encoder import ClipEncoder, check_files, is_config, load_clip_encoder
from monai_fair.subgroups.image_views import read_views

FloatArray = npt.NDArray[np.float32]
_KIND = "embeddings"
_PART = 256  # images after which work is safe from being killed


def embed_images(
    paths: Sequence[str | Path],
    encoder: ClipEncoder,
    *,
    slices: int = 3,
    batch_size: int = 16,
    num_workers: int = 4,
) -> Iterator[FloatArray | str]:
    """Yield the mean feature of the views of each image, shape ``(D,)``, or why there is none.

    The features of a view have length 1; their mean is at most as long.

    Args:
        paths: of the images, see :func:`~monai_fair.subgroups.image_views.read_views`.
        encoder: of :func:`~monai_fair.subgroups.clip_encoder.load_clip_encoder`.
        slices: of each direction of a volume.
        batch_size: images that are encoded at once, a volume with all its views.
        num_workers: threads that read, one batch ahead.
    """
    read = partial(_read, slices=slices, transform=encoder.transform)
    batches = [paths[start : start + batch_size] for start in range(0, len(paths), batch_size)]
    # threads, because a batch of views is larger than the shared memory that a container has for processes
    with ThreadPoolExecutor(num_workers) as pool:
        ahead = [pool.submit(read, path) for path in batches[0]] if batches else []
        for following in [*batches[1:], []]:
            batch = [reading.result() for reading in ahead]
            ahead = [pool.submit(read, path) for path in following]
            views = [found for found in batch if isinstance(found, Tensor)]
            sizes = [len(found) for found in views]
            features = iter(torch.split(encoder.encode(torch.cat(views)), sizes) if views else ())
            for found in batch:
                yield found if isinstance(found, str) else _mean(next(features))


def embed_files(
    manifest: str | Path,
    out: str | Path,
    *,
    root: str | Path,
    model: str,
    weights: str | Path,
    slices: int = 3,
    batch_size: int = 16,
    num_workers: int = 4,
    progress: bool = True,
) -> Path:
    """Write a table of what an image encoder makes of each subject, and a record beside it.

    The table has ``subject_id`` and ``e0``, ``e1``, ... : the mean over the subject's images that can be read of
    :func:`embed_images`. The record, of the same name with ``.json``, names images that are left out, with the
    reason. A finished table without any is left as it is until an image changes; a killed run goes on where it
    stopped.

    Args:
        manifest: CSV file; ``subject_id`` and ``image`` suffice.
        out: CSV file to write.
        root: data root that the image paths start from.
        model: see :func:`~monai_fair.subgroups.clip_encoder.load_clip_encoder`.
        weights: as well.
        slices: of each direction of a volume.
        batch_size: images that are encoded at once.
        num_workers: threads that read, one batch ahead.
        progress: show a progress bar.

    Returns:
        ``out`` as a ``Path``.

    Raises:
        MonaiFairError: with every problem of the options, the manifest, the model or its weights.
        ImageFileError: if no image can be used, with every reason.
    """
    table, sizes = Path(out), {"slices": slices, "batch_size": batch_size, "num_workers": num_workers}
    raise_problems(MonaiFairError, "embed", _option_problems(table, Path(manifest), sizes))
    rows = load_datalist(manifest, root, num_classes=recorded_num_classes(manifest) or 2, labelled=False)
    check_files(model, weights)
    files = {"manifest": manifest, "weights": weights, **({"model": model} if is_config(model) else {})}
    inputs = {name: {"file": Path(file).name, "sha256": sha256(file)} for name, file in files.items()}
    settings = {"model": Path(model).name if is_config(model) else model, "slices": slices}
    key = fingerprint([settings, inputs, [file_state(row["image"]) for row in rows]])
    if _is_finished(table, key):
        return table
    encoder = load_clip_encoder(model, weights)
    parts = table.with_name(f"{table.name}.parts")
    found = _found(rows, encoder, sizes, parts=parts, key=key, progress=progress)
    failed = [_failure(row, one, Path(root)) for row, one in zip(rows, found, strict=True) if isinstance(one, str)]
    if len(failed) == len(rows):
        raise_problems(ImageFileError, manifest, [f"{failure['image']}: {failure['reason']}" for failure in failed])
    _write(table, rows, found, encoder, {"key": key, "settings": settings, "inputs": inputs, "failed": failed})
    shutil.rmtree(parts, ignore_errors=True)
    return table


def _write(
    table: Path,
    rows: Sequence[Mapping[str, Any]],
    found: Sequence[FloatArray | str],
    encoder: ClipEncoder,
    made: Mapping[str, Any],
) -> None:
    """Write the table and, last, the record that says it is finished."""
    written = _table([row["subject_id"] for row in rows], found)
    write_table(table, written)
    record = {
        **made,
        "preprocessing": encoder.preprocessing,
        "versions": {name: version(name) for name in ("open_clip_torch", "timm", "torch")},
        "device": encoder.device.type,
        "n": len(written),
        "n_images": len(rows) - len(made["failed"]),
        "n_dimensions": encoder.dimensions,
        "notes": encoder.notes,
        "embeddings_sha256": sha256(table),
    }
    write_json(table.with_suffix(".json"), _KIND, record)


def _read(path: str | Path, *, slices: int, transform: Callable[[Image.Image], Tensor]) -> Tensor | str:
    """Return the views of an image, shape ``(V, 3, H, W)``, or why there are none."""
    try:
        return torch.stack([transform(view) for view in read_views(path, slices=slices)])
    except MonaiFairError as error:
        return str(error)
    except Exception as error:  # decoders raise many classes; one image never stops a cohort
        return f"{path}: cannot be read ({type(error).__name__}: {error})"


def _mean(features: Tensor) -> FloatArray | str:
    mean: FloatArray = features.mean(dim=0).numpy()
    return (
        mean if np.isfinite(mean).all() else "expected finite features, got others; look at the image and the weights"
    )


def _found(
    rows: Sequence[Mapping[str, Any]],
    encoder: ClipEncoder,
    sizes: Mapping[str, int],
    *,
    parts: Path,
    key: str,
    progress: bool,
) -> list[FloatArray | str]:
    """Encode images part by part; a part without a failure is kept until all are done."""
    found: list[FloatArray | str] = []
    batch = sizes["batch_size"]
    size = max(1, _PART // batch) * batch  # whole batches, so that a killed run ends with the numbers of another
    with tqdm(total=len(rows), desc="embedding", unit="image", disable=not progress) as bar:
        for start in range(0, len(rows), size):
            paths = [row["image"] for row in rows[start : start + size]]
            part = parts / f"{key[:16]}-{size}-{start}.safetensors"
            if part.is_file():
                own: list[FloatArray | str] = list(read_tensors(part)[0]["features"])
                bar.update(len(own))
            else:
                own = []
                for one in embed_images(paths, encoder, **sizes):
                    own.append(one)
                    bar.update()
                whole = [one for one in own if not isinstance(one, str)]
                if len(whole) == len(own):  # what failed is tried again
                    write_tensors(part, {"features": np.stack(whole)})
            found += own
    return found


def _table(subjects: Sequence[str], found: Sequence[FloatArray | str]) -> pd.DataFrame:
    """Return the mean over the images of each subject, in the order of its first one."""
    kept = [subject for subject, one in zip(subjects, found, strict=True) if not isinstance(one, str)]
    values = np.stack([one for one in found if not isinstance(one, str)]).astype(np.float64)
    table = pd.DataFrame(values, columns=[f"e{place}" for place in range(values.shape[1])])
    means = table.groupby(np.asarray(kept, dtype=object), sort=False).mean().astype(np.float32)
    return means.rename_axis("subject_id").reset_index()


def _failure(row: Mapping[str, Any], reason: str, root: Path) -> dict[str, str]:
    """Name an image by its path under the root: a record tells nothing of the machine."""
    image = str(Path(row["image"]).relative_to(root))
    text = reason.removeprefix(f"{row['image']}: ").replace(row["image"], image)
    return {"subject_id": row["subject_id"], "image": image, "reason": text}


def _option_problems(table: Path, manifest: Path, sizes: Mapping[str, Any]) -> list[str]:
    problems = [
        f"--{name}: expected a whole number from 1, got {size!r}; correct it"
        for name, size in sizes.items()
        if not isinstance(size, int) or isinstance(size, bool) or size < 1
    ]
    if table.suffix != ".csv":
        problems.append(f"--out: expected the name of a .csv file, got '{table}'; rename it")
    if table.resolve() == manifest.resolve():
        problems.append("--out: expected another file than the manifest, which would be overwritten; rename it")
    return problems


def _is_finished(table: Path, key: str) -> bool:
    """Say whether the table is that of the same settings and inputs, and no image failed.

    Raises:
        ArtifactError: if the file of the record is one of another kind, such as the record of a manifest.
    """
    path = table.with_suffix(".json")
    if not path.is_file():
        return False
    saved = read_json(path, _KIND)
    same = saved["key"] == key and not saved["failed"]
    return same and table.is_file() and sha256(table) == saved["embeddings_sha256"]
