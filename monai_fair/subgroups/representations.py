"""What a subject looks like as a row of numbers, and such rows that another stage or model has written."""

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from monai_fair.data import sha256
from monai_fair.data.artifacts import read_tensors
from monai_fair.data.tables import read_table
from monai_fair.errors import ArtifactError, MonaiFairError, raise_problems

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Representation:
    """Subjects as rows.

    Attributes:
        kind: what the numbers are, such as ``log_jacobian``.
        subject_ids: one per row.
        values: shape ``(n, d)``.
    """

    kind: str
    subject_ids: list[str]
    values: FloatArray

    def of(self, subject_ids: Sequence[str]) -> FloatArray:
        """Return the rows of these subjects, in this order.

        Raises:
            MonaiFairError: naming subjects without a row.
        """
        place = {subject: row for row, subject in enumerate(self.subject_ids)}
        absent = [subject for subject in subject_ids if subject not in place]
        if absent:
            raise MonaiFairError(
                f"{self.kind}: expected a row for each of {len(subject_ids)} subjects, got none for {len(absent)}, "
                f"such as '{absent[0]}'; give them one or leave them out"
            )
        return self.values[[place[subject] for subject in subject_ids]]


def read_rows(
    kind: str, paths: Mapping[str, str | Path], row: Callable[[str | Path], FloatArray], num_workers: int
) -> Representation:
    """Return a row for every subject, read side by side.

    Args:
        kind: of the representation.
        paths: subject to its file.
        row: from a file to its row, shape ``(d,)``.
        num_workers: threads that read.

    Raises:
        MonaiFairError: naming every file that cannot be read or used.
    """

    def attempt(path: str | Path) -> FloatArray | str:
        try:
            return row(path)
        except (MonaiFairError, OSError) as error:
            return f"{path}: {error}" if str(path) not in str(error) else str(error)

    with ThreadPoolExecutor(max(1, num_workers)) as pool:
        rows = list(pool.map(attempt, paths.values()))
    raise_problems(MonaiFairError, kind, [found for found in rows if isinstance(found, str)])
    values = np.stack([found for found in rows if not isinstance(found, str)]) if rows else np.empty((0, 0))
    return Representation(kind, list(paths), values)


def code_rows(path: str | Path) -> Representation:
    """Return the codes of a registration, ``codes.safetensors``, one row per subject."""
    tensors, metadata = read_tensors(path)
    if metadata.get("kind") != "codes" or "codes" not in tensors:
        raise ArtifactError(f"{path}: expected a table of codes, got tensors {sorted(tensors)}; give codes.safetensors")
    codes = tensors["codes"].astype(np.float64)
    return Representation("codes", json.loads(metadata["subject_ids"]), codes.reshape(len(codes), -1))


def embedding_rows(path: str | Path) -> Representation:
    """Return what another model made of each subject.

    Args:
        path: CSV (also gzipped) or Parquet with ``subject_id`` and columns of numbers, one row per subject; or
            ``features.safetensors``, the penultimate features that inference or evaluation of a classifier writes
            beside its ``predictions.csv``, one image per subject. A classifier has seen the labels of the rows it was
            trained on, and its features of these rows tell them.

    Raises:
        ArtifactError: with every problem of the file.
    """
    file = Path(path)
    subjects, values, problems = _features(file) if is_features(file) else _table(file)
    raise_problems(ArtifactError, path, problems)
    return Representation("embeddings", subjects, values)


def is_features(path: str | Path) -> bool:
    """Say whether embeddings are the features of a classifier, whose subjects stand in ``predictions.csv`` beside."""
    return Path(path).suffix == ".safetensors"


def _table(path: Path) -> tuple[list[str], FloatArray, list[str]]:
    """Return subjects, numbers and problems of a table."""
    table = read_table(path, ArtifactError)
    problems = []
    if "subject_id" not in table:
        problems.append("expected a column 'subject_id', got none; name the subjects")
    elif table["subject_id"].duplicated().any():
        first = table.loc[table["subject_id"].duplicated(), "subject_id"].iloc[0]
        problems.append(f"expected one row per subject, got several of '{first}'; average them")
    columns = [name for name in table if name != "subject_id"]
    if not columns:
        problems.append("expected columns of numbers beside subject_id, got none")
    values = np.full((len(table), len(columns)), np.nan)
    for place, name in enumerate(columns):
        try:
            values[:, place] = table[name].astype(np.float64)
        except ValueError:
            problems.append(f"column '{name}': expected numbers, got text; leave the column out")
            continue
        if not np.isfinite(values[:, place]).all():
            problems.append(f"column '{name}': expected finite numbers, got others; leave the rows or the column out")
    return table["subject_id"].tolist() if "subject_id" in table else [], values, problems


def _features(path: Path) -> tuple[list[str], FloatArray, list[str]]:
    """Return subjects, penultimate features and problems; rows are those of the predictions beside."""
    tensors, metadata = read_tensors(path)
    if "features" not in tensors:
        found = ", ".join(sorted(tensors)) or "none"
        return [], np.empty((0, 0)), [f"expected a tensor 'features', found {found}; give that of a classifier"]
    beside = path.with_name("predictions.csv")
    predictions = read_table(beside, ArtifactError)
    if metadata.get("predictions_sha256") != sha256(beside) or "subject_id" not in predictions:
        return [], np.empty((0, 0)), [f"expected features of {beside}, got those of others; predict again"]
    values, subjects = tensors["features"].astype(np.float64), predictions["subject_id"]
    problems = []
    if values.ndim != 2 or len(values) != len(subjects):
        problems.append(f"expected features of shape ({len(subjects)}, D), a row per prediction, got {values.shape}")
    elif not np.isfinite(values).all():
        problems.append(
            f"expected finite features, got {int((~np.isfinite(values)).any(axis=1).sum())} rows with others"
        )
    if subjects.duplicated().any():
        first = subjects[subjects.duplicated()].iloc[0]
        problems.append(f"expected one image per subject, got several of '{first}'; predict one of each")
    return subjects.tolist(), values, problems
