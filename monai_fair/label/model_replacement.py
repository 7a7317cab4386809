"""A served bundle gets a new model: all of it or, after a kill, the rest when asked again; the earlier one is kept.

The files of a model belong together, and several cannot be renamed at once. What is to be done is written down first,
and thresholds and audit are gone before the model changes: at no moment does a model stand beside another one's.
"""

import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from monai_fair.data.artifacts import atomic_path, read_json, sha256, write_json
from monai_fair.errors import LabelError

EARLIER = "earlier"  # beside the model, in a folder of its own: a server takes any models/*.pt for the model
_KIND = "model_replacement"
_MODEL, _SETTINGS, _THRESHOLDS, _RECORD = "model.pt", "model.json", "thresholds.json", "training.json"
_AUDIT = "metrics.json"
_KEPT = (_SETTINGS, _THRESHOLDS, _AUDIT, _MODEL)  # in this order


def replace_model(models: Path, new: Path, record: Mapping[str, Any], *, plan: Path, start_sha256: str) -> str:
    """Put ``new/model.pt`` and what belongs to it in the place of the present model.

    Args:
        models: folder ``models`` of the bundle; gets ``model.pt``, ``model.json``, ``thresholds.json`` (removed, where
            the new model has none) and ``training.json``; ``metrics.json``, an audit of the earlier model, is removed.
        new: folder with the new files.
        record: what ``training.json`` says of the training.
        plan: where it is written down what is under way.
        start_sha256: of the model that the new one comes from.

    Returns:
        Path of the earlier model under ``models``.

    Raises:
        LabelError: if the model in place is another than the training began with.
    """
    if sha256(models / _MODEL) != start_sha256:
        raise LabelError(
            f"{models / _MODEL}: expected the model that the training began with, found another; it was replaced "
            "meanwhile and stays; train again to go on from it"
        )
    # several trainings may end in one second
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")
    write_json(plan, _KIND, {"new": new.name, "stamp": stamp, "record": record})
    finish_replacement(models, plan)
    return f"{EARLIER}/model_{stamp}.pt"


def finish_replacement(models: Path, plan: Path) -> bool:
    """Do what is left of a replacement, and return whether there was one under way."""
    if not plan.is_file():
        return False
    what = read_json(plan, _KIND)
    new, stamp = plan.parent / what["new"], what["stamp"]
    kept = {name: models / EARLIER / f"{Path(name).stem}_{stamp}{Path(name).suffix}" for name in _KEPT}
    if not kept[_MODEL].is_file():  # the last one kept: nothing has changed before it is there
        for name in _KEPT:
            if (models / name).is_file():
                _copy(models / name, kept[name])
    for name in (_THRESHOLDS, _AUDIT):
        (models / name).unlink(missing_ok=True)
    for name in (_SETTINGS, _MODEL, _THRESHOLDS):
        if (new / name).is_file():
            _copy(new / name, models / name)
    write_json(models / _RECORD, "training", what["record"])
    plan.unlink()
    return True


def _copy(source: Path, target: Path) -> None:
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)
