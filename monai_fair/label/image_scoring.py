"""Score all images of a server that are not scored yet, part by part, so that a scoring that is killed goes on."""

import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from monai_fair.errors import LabelError
from monai_fair.label.bundle_scores import WORK, Scorer
from monai_fair.label.image_states import StoredImage, model_key
from monai_fair.label.served_bundle import ServedBundle
from monai_fair.label.sidecar import ImageScores, Sidecar, sidecar_path

logger = logging.getLogger(__name__)

PART = {"registration": 8}  # images between two writes, by kind of bundle
USUAL_PART = 64
_SHOWN = 20  # reasons that the answer lists
_SLOW = 1.0  # seconds after which waiting is said


def score_images(
    bundle: ServedBundle,
    images: Sequence[StoredImage],
    studies: str | Path,
    scorer: Scorer,
    *,
    told: Sequence[str] = (),
    part: int | None = None,
    retry: bool = False,
) -> dict[str, Any]:
    """Score images that have no row in the sidecar of the bundle, or whose row is of another model or image.

    A second scoring of the bundle waits for the first, and finds its rows. An image without a score, such as one that
    cannot be read, is not tried again while it and the model stay as they are.

    Args:
        bundle: whose scores.
        images: of the server; those in front come first.
        studies: folder of the server; scores lie in ``.monai_fair/NAME`` there.
        scorer: of :func:`~monai_fair.label.bundle_scores.scorer_of`.
        told: attributes that scores depend on.
        part: images between two writes; by default 8 of a registration, 64 of others.
        retry: try images again that had no score.

    Returns:
        ``total``, ``skipped`` (scored before), ``scored``, ``failed``, ``reasons`` of failed images (the first 20), and
        ``seconds``.

    Raises:
        LabelError: if the sidecar is damaged, memory or disk are full, or no image has a score yet and those of the
            first part all fail by the same error, which is the bundle's then; nothing is kept of them.
    """
    name, start, path = bundle.name, time.monotonic(), sidecar_path(studies, bundle.name)
    folder = path.parent
    folder.mkdir(parents=True, exist_ok=True)
    size = part or PART.get(bundle.kind, USUAL_PART)
    tried: dict[str, str] = {}  # image to its reason
    with _alone(folder, name):
        for left in folder.glob(f"{WORK}*"):
            shutil.rmtree(left, ignore_errors=True)  # of a scoring that was killed
        model = model_key(bundle)
        waiting = _waiting(images, Sidecar(path, model), told, retry=retry)
        skipped = len(images) - len(waiting)
        while waiting:
            found = scorer(waiting[:size], folder)
            if model_key(bundle) != model:
                logger.info("scoring %s: the model was replaced meanwhile; all images are scored by the new one", name)
                model, tried = model_key(bundle), {}
                waiting = _waiting(images, Sidecar(path, model), told, retry=retry)
                skipped = len(images) - len(waiting)
                continue
            sidecar = Sidecar(path, model)
            if all(sidecar.read(embeddings=False).reasons) and not tried:
                _check_first(bundle.name, waiting[:size], found)
            sidecar.update(found)
            tried |= dict(zip(found.image_ids, found.reasons, strict=True))
            waiting = waiting[size:]
            logger.info("scoring %s: %d of %d images", name, skipped + len(tried), len(images))
    return _summary(len(images), skipped, tried, time.monotonic() - start)


def _waiting(images: Sequence[StoredImage], sidecar: Sidecar, told: Sequence[str], *, retry: bool) -> list[StoredImage]:
    """Return the images without a row; with those that had no score where they are to be tried again."""
    made = {image.image_id: image.fingerprint(told) for image in images}
    rows = sidecar.current(made, embeddings=False)
    finished = {name for name, reason in zip(rows.image_ids, rows.reasons, strict=True) if not (reason and retry)}
    return [image for image in images if image.image_id not in finished]


def _check_first(name: str, images: Sequence[StoredImage], found: ImageScores) -> None:
    """Raise a :class:`LabelError` if several images, the first of a model, all fail by one error."""
    places = {image.image_id: (str(image.path), image.path.name, image.image_id) for image in images}
    reasons = set()
    for image_id, reason in zip(found.image_ids, found.reasons, strict=True):
        for text in places[image_id]:
            reason = reason.replace(text, "the image")
        reasons.add(reason)
    if len(images) > 1 and len(reasons) == 1 and all(found.reasons):
        raise LabelError(
            f"scoring {name}: expected scores, got the same error for all of the first {len(images)} images, and none "
            f"is scored yet: {reasons.pop()}; correct the bundle, or take these images away if it is them"
        )


def _summary(total: int, skipped: int, tried: Mapping[str, str], seconds: float) -> dict[str, Any]:
    failed = {name: reason for name, reason in tried.items() if reason}
    return {
        "total": total,
        "skipped": skipped,
        "scored": len(tried) - len(failed),
        "failed": len(failed),
        "reasons": dict(list(failed.items())[:_SHOWN]),
        "seconds": round(seconds, 3),
    }


def _alone(folder: Path, name: str) -> Any:
    """Return a lock that is held: a process that ends, in whatever way, gives it back."""
    lock = FileLock(folder / "scoring.lock")
    try:
        return lock.acquire(timeout=_SLOW)
    except Timeout:
        logger.info("scoring %s: another scoring of it is under way, waiting for it", name)
        return lock.acquire()
