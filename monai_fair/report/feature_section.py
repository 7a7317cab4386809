"""What the features of every run and layer tell of attributes: probes of all seeds, and pictures of the first one."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from monai_fair.data.predictions import Predictions
from monai_fair.metrics.arrays import IntArray
from monai_fair.report.layer_work import FIT_ON, LayerWork, Rows, do_all
from monai_fair.report.layers import layer_file, read_layers
from monai_fair.report.quantities import Record

MOST_FITTED = 2000  # rows of a probe: more take minutes and read little more
MOST_PICTURED = 1500  # rows of a picture: more lie over each other


@dataclass(frozen=True)
class _Seed:
    run: str
    name: str
    predictions: Predictions
    path: Path


@dataclass(frozen=True)
class _Wanted:
    """A piece of work, which several seeds and runs may share, and where its result belongs."""

    run: str
    seed: str
    layer: str
    kind: str
    key: bytes


def feature_section(runs: Mapping[str, Sequence[Predictions]], results: Record) -> Record:
    """Return probes and pictures of every run with features beside its predictions; empty if none has any.

    A note in the results says which seeds have none.

    Args:
        runs: predictions of each seed, with a column for every audited attribute, bins included.
        results: of the audit of these runs.

    Returns:
        ``cases`` (the rows of all pictures: ``n``, ``label``, ``attributes``, ``n_joint``, ``panel``), ``most_fitted``
        and ``runs``; each run has ``files``, ``seeds``, ``probes`` and ``label_alone`` (rows per seed, layer, attribute
        and stratum) and ``pictures`` of its first seed.

    Raises:
        ArtifactError: if features are damaged or belong to other predictions.
    """
    settings = results["settings"]
    seeds = list(_seeds(runs, results))
    if not seeds:
        return {}
    works: dict[bytes, LayerWork] = {}
    wanted: list[_Wanted] = []
    first = {seed.run: seed.name for seed in reversed(seeds)}
    for seed in seeds:
        wanted += _plan(seed, settings, works, pictured=first[seed.run] == seed.name)
    done = do_all(works)
    found: Record = {}
    for seed in seeds:
        own = found.setdefault(seed.run, {key: [] for key in ("files", "seeds", "probes", "label_alone", "pictures")})
        own["seeds"].append(seed.name)
        own["files"].append(seed.path.name)
    for item in wanted:
        head = {"seed": item.seed} if item.kind == "label_alone" else {"seed": item.seed, "layer": item.layer}
        record = done[item.key]
        rows = record if isinstance(record, list) else [record]
        found[item.run][item.kind] += [{**head, **row} for row in rows]
    cases = _cases(seeds[0].predictions.table, settings)
    return {"most_fitted": MOST_FITTED, "cases": cases, "runs": found}


def _seeds(runs: Mapping[str, Sequence[Predictions]], results: Record) -> Iterator[_Seed]:
    for entry in results["runs"]:
        tables = runs[entry["name"]]
        paths = [layer_file(predictions) for predictions in tables]
        there = [path for path in paths if path is not None]
        for name, predictions, path in zip(entry["seeds"], tables, paths, strict=True):
            if path is not None:
                yield _Seed(entry["name"], name, predictions, path)
        if 0 < len(there) < len(paths):
            results["notes"].append(
                f"{entry['name']}: what features tell is of {len(there)} of {len(paths)} seeds, the others have none"
            )


def _plan(seed: _Seed, settings: Record, works: dict[bytes, LayerWork], *, pictured: bool) -> Iterator[_Wanted]:
    """Add the work on one file to ``works``, unless the same is there, and yield where its results belong."""
    table, split, draw = seed.predictions.table, settings["split"], settings["seed"]
    fitted = _drawn(_places(table, FIT_ON), MOST_FITTED, draw)
    audited = _places(table, split)
    both = _rows(table, audited if split == FIT_ON else np.concatenate([fitted, audited]), settings)
    shown = _rows(table, _drawn(audited, MOST_PICTURED, draw), settings)
    digest = both.digest()

    def want(kind: str, layer: str, rows: Rows, key: bytes, size: int) -> _Wanted:
        done = {"label_alone": "label", "probes": "probes", "pictures": "picture"}[kind]
        works.setdefault(key, LayerWork(done, seed.path, layer, rows, split, draw, size))
        return _Wanted(seed.run, seed.name, layer, kind, key)

    yield want("label_alone", "", both, b"label" + digest, len(both.part))
    for layer, tensor in read_layers(seed.path, seed.predictions).items():
        key = digest + hashlib.sha256(tensor[both.places].tobytes()).digest()
        yield want("probes", layer, both, b"probes" + key, tensor.shape[1] * len(both.part))
        if pictured:
            # t-SNE takes as long as a probe of many columns
            yield want("pictures", layer, shown, b"picture" + key, 300 * len(shown.part))


def _places(table: pd.DataFrame, split: str) -> IntArray:
    """Rows of a part in an order that does not depend on the file's."""
    keys = table.loc[table["split"] == split, ["subject_id", "image"]]
    positions = np.flatnonzero((table["split"] == split).to_numpy())
    return np.asarray(positions[np.lexsort([keys["image"], keys["subject_id"]])], dtype=np.int64)


def _drawn(places: IntArray, most: int, seed: int) -> IntArray:
    if len(places) <= most:
        return places
    return places[np.sort(np.random.default_rng(seed).choice(len(places), most, replace=False))]


def _rows(table: pd.DataFrame, places: IntArray, settings: Record) -> Rows:
    own = table.iloc[places]
    return Rows(
        places,
        own["split"].to_numpy(dtype=str),
        own["label"].to_numpy(dtype=np.int64),
        {name: own[name].to_numpy(dtype=str) for name in settings["attributes"]},
    )


def _cases(table: pd.DataFrame, settings: Record) -> Record:
    """Rows of the pictures: the same for all runs, as these score the same cases.

    ``n_joint`` is the number of audited subjects in the row's joint group. ``panel`` is the one panel that shows the
    row where small groups are masked, 0 for the label, then the attributes, and one more for none: a person's values
    must not follow from the same dot in several panels, nor a count from all dots together.
    """
    places, names = _places(table, settings["split"]), settings["attributes"]
    rows = _rows(table, _drawn(places, MOST_PICTURED, settings["seed"]), settings)
    audited = table.iloc[places]
    subjects = audited.groupby(list(names), sort=False)["subject_id"].nunique()
    joint = [tuple(levels) for levels in zip(*rows.attributes.values(), strict=True)]
    counts = {key if isinstance(key, tuple) else (key,): int(n) for key, n in subjects.items()}
    panel = np.random.default_rng(settings["seed"]).integers(0, len(names) + 2, len(rows.label))
    return {
        "n": len(places),
        "label": rows.label.tolist(),
        "attributes": {name: levels.tolist() for name, levels in rows.attributes.items()},
        "n_joint": [counts[levels] for levels in joint],
        "panel": panel.tolist(),
    }
