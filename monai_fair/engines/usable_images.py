"""The images of a manifest that a study can use; what cannot be read is left out, and named."""

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from monai_fair.data import Manifest, load_datalist, read_manifest, read_volume, recorded_num_classes, sha256
from monai_fair.data.artifacts import file_state, fingerprint, read_json
from monai_fair.data.builder import BuiltManifest, write_manifest
from monai_fair.engines.study_inputs import overwritten, row_problems
from monai_fair.errors import ManifestError, MonaiFairError, raise_problems

logger = logging.getLogger(__name__)


def usable_manifest(
    manifest: str | Path, out: str | Path, *, dataset_dir: str | Path, num_workers: int = 4, progress: bool = True
) -> Path:
    """Write the manifest of the images that a classifier can read.

    A file that cannot be read, or has one value everywhere, never stops a study: its row is left out, and subject and
    reason stand in the record beside ``out`` and in the log. What was written of the same images is left as it is.

    Args:
        manifest: of the cohort, with ``label`` and ``split``.
        out: the CSV file to write.
        dataset_dir: data root that the image paths start from.
        num_workers: threads that read images.
        progress: show a progress bar.

    Returns:
        ``out``.

    Raises:
        ManifestError: if too few rows are left, or ``out`` is the manifest itself.
    """
    target, num_classes = Path(out), recorded_num_classes(manifest) or 2
    if target.resolve() == Path(manifest).resolve():
        raise ManifestError(overwritten(target))
    checked = read_manifest(manifest, num_classes=num_classes)
    images = [Path(row["image"]) for row in load_datalist(manifest, dataset_dir, num_classes=num_classes)]
    key = fingerprint([sha256(manifest), [[str(path), *file_state(path)] for path in images]])
    if _is_written(target, key):
        return target
    with ThreadPoolExecutor(max(1, num_workers)) as pool:
        bar = tqdm(pool.map(_reason, images), total=len(images), desc="reading images", unit="image",
                   disable=not progress)  # fmt: skip
        reasons = pd.Series(list(bar), index=checked.table.index)
    left = Manifest(checked.table[reasons == ""], checked.attributes, checked.source, checked.num_classes)
    gone = checked.table[["subject_id"]].assign(reason=reasons)[reasons != ""]
    for row in gone.itertuples():
        logger.warning(f"{row.subject_id} is left out of the study: {row.reason}")
    if len(gone):
        source = f"{manifest} without {len(gone)} of {len(images)} images, such as {gone['reason'].iloc[0]}"
        raise_problems(ManifestError, source, row_problems(left))
    record = {
        "key": key,
        "made_from": {"manifest": Path(manifest).name, "sha256": sha256(manifest)},
        "num_classes": checked.num_classes,
        "dropped": [{"reason": row.reason, "n": 1, "subject_id": [row.subject_id]} for row in gone.itertuples()],
        "n": len(left.table),
        "n_subjects": int(left.table["subject_id"].nunique()),
    }
    return write_manifest(BuiltManifest(left.table.astype(str), record), target)


def _is_written(target: Path, key: str) -> bool:
    record = target.with_suffix(".json")
    if not (target.is_file() and record.is_file()):
        return False
    known = read_json(record, "manifest")
    return bool(known.get("key") == key and known["manifest_sha256"] == sha256(target))


def _reason(path: Path) -> str:
    """Return why an image cannot be used, or nothing."""
    try:
        read_volume(path)
    except (MonaiFairError, OSError) as error:
        return " ".join(str(error).split())
    return ""
