"""What a model was trained on, for how often a group is among its labels."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from monai_fair.data import read_manifest, recorded_num_classes
from monai_fair.data.artifacts import file_state
from monai_fair.data.tables import read_table
from monai_fair.errors import ArtifactError
from monai_fair.label.demographics import image_id_of
from monai_fair.label.image_groups import ImageFacts, TrainingRows
from monai_fair.label.served_bundle import ServedBundle

FloatArray = npt.NDArray[np.float64]
_LARGE = 10**6  # classes: a manifest was checked when it was packed


def training_rows(bundle: ServedBundle, finder: ServedBundle | None, images: Sequence[ImageFacts] = ()) -> TrainingRows:
    """Return what a model was trained on, without images that have a label on the server: those count there.

    Rows of the training part count; where a manifest has no split, all of its rows do.

    Args:
        bundle: whose manifest is read; one without has no such rows.
        finder: whose discovery tells the subgroups of its training part.
        images: of the server; those with a label are left out, and so are other images of the same subjects.
    """
    known = {name for image in images if image.labelled for name in (image.image_id, image.subject_id)}
    rows = _manifest_rows(bundle.manifest, tuple(file_state(bundle.manifest))) if bundle.manifest else ()
    attributes = [dict(row) for own, row in rows if not known & set(own)]
    if finder is None or finder.subgroups is None:
        return TrainingRows(attributes)
    path = finder.subgroups / "subgroups.csv"
    subjects, shares, names = _subgroup_rows(path, tuple(file_state(path)))
    kept = np.array([subject not in known for subject in subjects], dtype=bool)
    return TrainingRows(attributes, shares[kept], names)


@lru_cache(maxsize=16)
def _manifest_rows(
    path: Path, state: tuple[int, ...]
) -> tuple[tuple[tuple[str, ...], tuple[tuple[str, str], ...]], ...]:
    """Return, for each row of training, what it may be called on a server, and its attributes."""
    manifest = read_manifest(path, num_classes=recorded_num_classes(path) or _LARGE, labelled=False)
    table = manifest.table
    table = table[table["split"] == "train"] if "split" in table else table
    own = zip(table["subject_id"], table["image"].map(image_id_of), strict=True)
    values = table[list(manifest.attributes)].astype(str).to_dict("records")
    return tuple(
        (names, tuple((str(name), str(value)) for name, value in row.items()))
        for names, row in zip(own, values, strict=True)
    )


@lru_cache(maxsize=16)
def _subgroup_rows(path: Path, state: tuple[int, ...]) -> tuple[tuple[str, ...], FloatArray, tuple[str, ...]]:
    """Return subjects of the training part, their probabilities, and names of subgroups."""
    table = read_table(path, ArtifactError)
    table = table[table["split"] == "train"]
    columns = [str(name) for name in table if str(name).startswith("membership_")]
    shares = table[columns].astype(np.float64).to_numpy()
    return tuple(table["subject_id"]), shares, tuple(name.removeprefix("membership_") for name in columns)
