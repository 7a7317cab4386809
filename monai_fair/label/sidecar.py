"""What a bundle found of each image, in one file beside the studies: embeddings, scores, probabilities of subgroups.

MONAI Label's own table of images is rewritten with every note; thousands of numbers for each image do not belong there.
"""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from filelock import FileLock

from monai_fair.data.artifacts import read_tensors, write_tensors
from monai_fair.errors import ArtifactError, LabelError

FloatArray = npt.NDArray[np.float64]
_KIND, _VERSION = "image_scores", "1"
_NO_WAIT = -1


def sidecar_path(studies: str | Path, bundle: str) -> Path:
    """Return where the scores of a bundle lie beside the images of a server."""
    return Path(studies) / ".monai_fair" / bundle / "scores.safetensors"


@dataclass(frozen=True, eq=False)
class ImageScores:
    """What a bundle found of images; a row each.

    Attributes:
        image_ids: each once.
        fingerprints: of what each row was made from: the image, and what else the bundle looked at.
        reasons: why an image has no numbers; empty for those that have.
        scores: of class 1, shape ``(n,)``; of every class, shape ``(n, C)``, where there are more than two. NaN where
            there is none.
        embeddings: shape ``(n, d)``; no columns where the bundle has none.
        subgroups: probabilities, shape ``(n, K)``; no columns where the bundle finds none.
        subgroup_names: of the K.
    """

    image_ids: tuple[str, ...]
    fingerprints: tuple[str, ...]
    reasons: tuple[str, ...]
    scores: FloatArray
    embeddings: npt.NDArray[np.float32]
    subgroups: FloatArray
    subgroup_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse rows that do not fit together.

        Raises:
            LabelError: with the lengths.
        """
        lengths = [
            len(part) for part in (self.fingerprints, self.reasons, self.scores, self.embeddings, self.subgroups)
        ]
        if set(lengths) - {len(self.image_ids)} or len(set(self.image_ids)) < len(self.image_ids):
            raise LabelError(
                f"scores: expected a row for each of {len(self.image_ids)} different images, got {lengths} rows"
            )
        if self.subgroups.shape[1:] != (len(self.subgroup_names),):
            raise LabelError(
                f"scores: expected a name for each subgroup, got {len(self.subgroup_names)} for shape "
                f"{self.subgroups.shape}"
            )

    @classmethod
    def of(
        cls,
        images: Mapping[str, str],
        *,
        reasons: Mapping[str, str] | None = None,
        scores: npt.ArrayLike | None = None,
        embeddings: npt.ArrayLike | None = None,
        subgroups: npt.ArrayLike | None = None,
        subgroup_names: Sequence[str] = (),
    ) -> "ImageScores":
        """Return rows of images, where what is not given is unknown.

        Args:
            images: id to fingerprint.
            reasons: id to why it has no numbers.
            scores: see :class:`ImageScores`, as the others; in the order of ``images``.
            embeddings: shape ``(n, d)``.
            subgroups: shape ``(n, K)``.
            subgroup_names: of the K.
        """
        n = len(images)
        given = reasons or {}
        return cls(
            tuple(images),
            tuple(images.values()),
            tuple(given.get(name, "") for name in images),
            np.full(n, np.nan) if scores is None else np.asarray(scores, np.float64),
            np.zeros((n, 0), np.float32) if embeddings is None else np.asarray(embeddings, np.float32),
            np.full((n, len(subgroup_names)), np.nan) if subgroups is None else np.asarray(subgroups, np.float64),
            tuple(subgroup_names),
        )

    def place(self) -> dict[str, int]:
        """Return the row of each image."""
        return {name: row for row, name in enumerate(self.image_ids)}

    def take(self, rows: Sequence[int]) -> "ImageScores":
        """Return some of the rows, in this order."""
        chosen = np.asarray(rows, dtype=np.int64)
        return ImageScores(
            tuple(self.image_ids[row] for row in chosen),
            tuple(self.fingerprints[row] for row in chosen),
            tuple(self.reasons[row] for row in chosen),
            self.scores[chosen],
            self.embeddings[chosen],
            self.subgroups[chosen],
            self.subgroup_names,
        )

    def with_rows(self, new: "ImageScores") -> "ImageScores":
        """Return both, where rows of ``new`` replace those of the same image; ordered by image.

        A part that only one of them has is NaN in the rows of the other. Where both have it in different shapes, or
        subgroups of different names, the earlier is of another model and is left out.
        """
        kept = self.take([row for row, name in enumerate(self.image_ids) if name not in set(new.image_ids)])
        parts: dict[str, Any] = {
            name: _stacked(getattr(kept, name), getattr(new, name)) for name in ("scores", "embeddings")
        }
        names = new.subgroup_names or self.subgroup_names
        columns = [
            rows.subgroups if rows.subgroup_names == names else _nothing(rows, len(names)) for rows in (kept, new)
        ]
        whole = ImageScores(
            kept.image_ids + new.image_ids,
            kept.fingerprints + new.fingerprints,
            kept.reasons + new.reasons,
            subgroups=np.concatenate(columns),
            subgroup_names=names,
            **parts,
        )
        return whole.take(sorted(range(len(whole.image_ids)), key=whole.image_ids.__getitem__))


NONE = ImageScores.of({})


@dataclass(frozen=True)
class Sidecar:
    """The file of a bundle's scores; safe where several processes write at once.

    Attributes:
        path: of the file; parents are made.
        model: fingerprint of the model and of all that its rows depend on; rows of another one count as absent.
    """

    path: Path
    model: str
    _memory: dict[bool, tuple[int, ImageScores]] = field(default_factory=dict, repr=False, compare=False)

    def read(self, *, embeddings: bool = True) -> ImageScores:
        """Return all rows of the model; none where there is no file, or it is of another model.

        Args:
            embeddings: read the embeddings too, which strategies do not need.

        Raises:
            LabelError: if the file is damaged, or of another kind.
        """
        try:
            state = self.path.stat().st_mtime_ns
        except FileNotFoundError:
            return NONE
        known = self._memory.get(embeddings)
        if known is None or known[0] != state:
            self._memory[embeddings] = known = state, self._read(embeddings)
        return known[1]

    def current(self, fingerprints: Mapping[str, str], *, embeddings: bool = True) -> ImageScores:
        """Return the rows of images that are as they were; those of a changed image count as absent.

        Args:
            fingerprints: of the images there are, by id.
            embeddings: see :meth:`read`.
        """
        rows = self.read(embeddings=embeddings)
        pairs = zip(rows.image_ids, rows.fingerprints, strict=True)
        return rows.take([row for row, (name, made) in enumerate(pairs) if fingerprints.get(name) == made])

    def update(self, rows: ImageScores) -> None:
        """Add rows, or replace those of the same images: the file is read, merged and written under a lock.

        Raises:
            LabelError: if the file there is of another kind.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{self.path}.lock", timeout=_NO_WAIT):
            for left in self.path.parent.glob(f".{self.path.name}.*.part"):
                left.unlink()  # of a process that was killed: under the lock nobody else writes
            _write(self.path, self._read(embeddings=True).with_rows(rows), self.model)

    def _read(self, embeddings: bool) -> ImageScores:
        if not self.path.is_file():
            return NONE
        try:
            tensors, metadata = read_tensors(self.path)
            if (metadata.get("kind"), metadata.get("version")) != (_KIND, _VERSION):
                raise KeyError(f"kind '{_KIND}', version {_VERSION}")
            if metadata["model"] != self.model:
                return NONE
            content = json.loads(metadata["content"])
            n = len(content["image_ids"])
            return ImageScores(
                tuple(content["image_ids"]),
                tuple(content["fingerprints"]),
                tuple(content["reasons"]),
                tensors["scores"],
                tensors["embeddings"] if embeddings else np.zeros((n, 0), np.float32),
                tensors["subgroups"],
                tuple(content["subgroup_names"]),
            )
        except (ArtifactError, KeyError, ValueError) as error:
            raise LabelError(
                f"{self.path}: expected scores of images, got a file without {error}; remove it and score again"
            ) from error


def _write(path: Path, rows: ImageScores, model: str) -> None:
    content = {name: list(getattr(rows, name)) for name in ("image_ids", "fingerprints", "reasons", "subgroup_names")}
    metadata = {"kind": _KIND, "version": _VERSION, "model": model, "content": json.dumps(content)}
    before = 0
    with suppress(FileNotFoundError):
        before = path.stat().st_mtime_ns
    tensors: dict[str, npt.NDArray[Any]] = {
        "scores": rows.scores,
        "embeddings": rows.embeddings,
        "subgroups": rows.subgroups,
    }
    write_tensors(path, tensors, metadata)
    _later(path, before)


def _later(path: Path, before: int) -> None:
    """See that a file is younger than it was: where a clock ticks slowly, readers would miss that it has changed."""
    now = path.stat()
    if now.st_mtime_ns <= before:
        os.utime(path, ns=(now.st_atime_ns, before + 1000))


def _stacked(kept: npt.NDArray[Any], new: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Put rows below each other; where their shapes differ, those that say nothing take the other's shape."""
    if kept.shape[1:] != new.shape[1:]:
        told = new if _says(new) or not _says(kept) else kept
        kept, new = (
            part if part.shape[1:] == told.shape[1:] else np.full((len(part), *told.shape[1:]), np.nan, part.dtype)
            for part in (kept, new)
        )
    return np.concatenate([kept, new])


def _says(part: npt.NDArray[Any]) -> bool:
    return bool(part.size and not np.isnan(part).all())


def _nothing(rows: ImageScores, count: int) -> FloatArray:
    return np.full((len(rows.image_ids), count), np.nan)
