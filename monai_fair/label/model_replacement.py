"""A served bundle gets a new model: all of it or, after a kill, the rest when asked again; the earlier one is kept.

The files of a model belong together, and several cannot be renamed at once. The new ones are laid ready and what is to
be done is written down first; thresholds and audit are gone before the model changes, so that at no moment a model
stands beside another one's. All of it lies in the bundle: several servers may have one bundle, with studies of their
own.
"""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from monai_fair.data.artifacts import atomic_path, read_json, sha256, write_json
from monai_fair.errors import LabelError

EARLIER = "earlier"  # beside the model, in a folder of its own: a server takes any models/*.pt for the model
_UNDER_WAY, _NEW = ".training", "new"
_KIND = "model_replacement"
_MODEL, _SETTINGS, _THRESHOLDS, _RECORD = "model.pt", "model.json", "thresholds.json", "training.json"
_AUDIT = "metrics.json"
_KEPT = (_SETTINGS, _THRESHOLDS, _AUDIT, _MODEL)  # in this order
_PUT = (_SETTINGS, _MODEL, _THRESHOLDS)  # in this order


def plan_of(models: Path) -> Path:
    """Return where it is written down that a replacement is under way; a file only while one is."""
    return models / _UNDER_WAY / "replacement.json"


@contextmanager
def training_lock(models: Path) -> Iterator[None]:
    """Let one training of a bundle, or what finishes one, run at a time, whichever server asks.

    Raises:
        LabelError: if there is one.
    """
    folder = models / _UNDER_WAY
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        name = models.resolve().parent.name
        raise LabelError(f"{name}: is being trained already; wait for its end, or stop it") from error
    try:
        yield
    finally:
        lock.release()


def replace_model(models: Path, new: Path, record: Mapping[str, Any], *, start_sha256: str) -> str:
    """Put ``new/model.pt`` and what belongs to it in the place of the present model; needs :func:`training_lock`.

    Args:
        models: folder ``models`` of the bundle; gets ``model.pt``, ``model.json``, ``thresholds.json`` (removed, where
            the new model has none) and ``training.json``; ``metrics.json``, an audit of the earlier model, is removed.
        new: folder with the new files.
        record: what ``training.json`` says of the training.
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
    ready = models / _UNDER_WAY / _NEW
    shutil.rmtree(ready, ignore_errors=True)  # of one that was killed before it had a plan
    for name in _PUT:
        if (new / name).is_file():
            _copy(new / name, ready / name)
    write_json(plan_of(models), _KIND, {"stamp": stamp, "record": record})
    finish_replacement(models)
    return f"{EARLIER}/model_{stamp}.pt"


def finish_replacement(models: Path) -> bool:
    """Do what is left of a replacement, and return whether there was one under way; needs :func:`training_lock`."""
    plan, ready = plan_of(models), models / _UNDER_WAY / _NEW
    if not plan.is_file():
        return False
    what = read_json(plan, _KIND)
    stamp = what["stamp"]
    kept = {name: models / EARLIER / f"{Path(name).stem}_{stamp}{Path(name).suffix}" for name in _KEPT}
    if not kept[_MODEL].is_file():  # the last one kept: nothing has changed before it is there
        for name in _KEPT:
            if (models / name).is_file():
                _copy(models / name, kept[name])
    if (ready / _MODEL).is_file():  # once it has moved, thresholds in place are those of the new model
        for name in (_THRESHOLDS, _AUDIT):
            (models / name).unlink(missing_ok=True)
    for name in _PUT:
        if (ready / name).is_file():
            _move(ready / name, models / name)
    write_json(models / _RECORD, "training", what["record"])
    plan.unlink()
    shutil.rmtree(ready, ignore_errors=True)
    return True


def _copy(source: Path, target: Path) -> None:
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)


def _move(source: Path, target: Path) -> None:
    source.replace(target)
