"""The work on one layer of one seed, apart from the others so that processes can share it: probes, and a picture."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from monai_fair.data.artifacts import read_tensors
from monai_fair.errors import MonaiFairError
from monai_fair.metrics.arrays import FloatArray, IntArray
from monai_fair.metrics.label_probes import label_alone_probe, within_label_probe
from monai_fair.metrics.probes import Probe, attribute_probe
from monai_fair.metrics.projections import LEAST_ROWS, pca_plane, tsne_plane
from monai_fair.parallel import run_all
from monai_fair.report.quantities import Record

FIT_ON = "val"
_STEPS = 1000  # of a coordinate in a picture: a step is less than a pixel
_HERE = 1_000_000  # numbers; starting processes takes longer than so few


@dataclass(frozen=True)
class Rows:
    """Rows of a table that work is done on.

    Attributes:
        places: in the table and in the tensors, shape ``(m,)``.
        part: split of each.
        label: class of each.
        attributes: levels of each, by attribute; empty where missing.
    """

    places: IntArray
    part: npt.NDArray[np.str_]
    label: IntArray
    attributes: Mapping[str, npt.NDArray[np.str_]]

    def digest(self) -> bytes:
        """Return what tells these rows from others, except for their places."""
        found = hashlib.sha256("\n".join(self.part).encode())
        found.update(self.label.tobytes())
        for name, levels in self.attributes.items():
            found.update("\n".join(["", name, *levels]).encode())
        return found.digest()


@dataclass(frozen=True)
class LayerWork:
    """What is to be done with one layer.

    Attributes:
        kind: ``probes``, ``label`` (probes of the label alone) or ``picture``.
        path: the file of its tensors; not read for ``label``.
        layer: name of the tensor.
        rows: of the table.
        split: the part that probes are judged on.
        seed: of folds and of t-SNE.
        size: numbers that are looked at.
    """

    kind: str
    path: Path
    layer: str
    rows: Rows
    split: str
    seed: int
    size: int


def do_all(works: Mapping[bytes, LayerWork]) -> dict[bytes, Any]:
    """Return the records of all work, done by all cores where it is much.

    Args:
        works: by key.

    Returns:
        Records by the same keys.

    Raises:
        MonaiFairError: if any of it fails.
    """
    # pictures take longest: none should start last
    keys = sorted(works, key=lambda key: works[key].kind != "picture")
    few = sum(works[key].size for key in keys) < _HERE
    outcomes = run_all(do_work, [works[key] for key in keys], workers=1 if few else None)
    for outcome in outcomes:
        if outcome.error:
            raise MonaiFairError(f"{outcome.item.path}, layer '{outcome.item.layer}': {outcome.error}")
    return {key: outcome.value for key, outcome in zip(keys, outcomes, strict=True)}


def do_work(work: LayerWork) -> Any:
    """Return probes (a list of records) or a picture (a record)."""
    if work.kind == "label":
        return [_record(name, "all", work, label_alone(work, name)) for name in work.rows.attributes]
    features = read_tensors(work.path)[0][work.layer][work.rows.places].astype(np.float64)
    return layer_picture(features, seed=work.seed) if work.kind == "picture" else layer_probes(work, features)


def label_alone(work: LayerWork, attribute: str) -> Probe:
    """Return the probe of the label alone; NaN where the audited rows are those it would be fitted on."""
    if work.split == FIT_ON:
        return _not_judged(work)
    rows = work.rows
    return label_alone_probe(
        rows.attributes[attribute].tolist(), rows.label, rows.part.tolist(), judge_on=work.split, seed=work.seed
    )


def layer_probes(work: LayerWork, features: FloatArray) -> list[Record]:
    """Return two records per attribute: of all rows (``all``), and within each label (``label``)."""
    rows, found = work.rows, []
    part = rows.part.tolist()
    for name, own in rows.attributes.items():
        level = own.tolist()
        if work.split == FIT_ON:
            found += [_record(name, stratum, work, _not_judged(work)) for stratum in ("all", "label")]
            continue
        probe = attribute_probe(features, level, part, judge_on=work.split, seed=work.seed)
        within = within_label_probe(features, level, rows.label, part, judge_on=work.split, seed=work.seed)
        found += [_record(name, "all", work, probe), _record(name, "label", work, within)]
    return found


def _not_judged(work: LayerWork) -> Probe:
    return Probe(float("nan"), 0, 0, f"the audited rows ('{work.split}') are those a probe is fitted on")


def _record(attribute: str, stratum: str, work: LayerWork, probe: Probe) -> Record:
    missing = (work.rows.part == FIT_ON) & (work.rows.attributes[attribute] == "")
    return {
        "attribute": attribute,
        "stratum": stratum,
        "auc": probe.auc,
        "n": probe.n,
        "n_fitted": probe.n_fitted,
        "n_missing_fitted": int(missing.sum()),
        "reason": probe.reason or None,
    }


def layer_picture(features: FloatArray, *, seed: int) -> Record:
    """Return coordinates by PCA and t-SNE as whole numbers from 0 to 1,000 along each axis, or why there are none."""
    if len(features) < LEAST_ROWS:
        return {"reason": f"fewer than {LEAST_ROWS} cases"}
    if _different_rows(features) < len(features) / 2:
        return {"reason": "most cases have the same features as others"}
    plane, shares = pca_plane(features)
    return {
        "reason": None,
        "variance": list(shares),
        "pca": _steps(plane),
        "tsne": _steps(tsne_plane(features, seed=seed)),
    }


def _different_rows(features: FloatArray) -> int:
    """Count the rows that differ by more than what is lost between batches.

    Features of recorded attributes alone are the same for all cases of a joint group: their places would be a table of
    these, in which dots lie over each other.
    """
    spread = float(features.std())
    return len(np.unique(np.rint(features / (spread if spread > 0 else 1.0) * 1e4), axis=0))


def _steps(plane: FloatArray) -> Record:
    span = np.ptp(plane, axis=0)
    scaled = (plane - plane.min(axis=0)) / np.where(span > 0, span, 1.0) * _STEPS
    return {axis: np.rint(scaled[:, index]).astype(int).tolist() for index, axis in enumerate("xy")}
