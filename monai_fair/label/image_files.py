"""The folder of a server's images: which files are images, and what is left out."""

import fnmatch
import logging
from collections.abc import Sequence
from pathlib import Path

from monai_fair.errors import LabelError, raise_problems
from monai_fair.label.labels import LABEL_SUFFIX
from monai_fair.label.requests import is_id

logger = logging.getLogger(__name__)

_LABELS = "labels"  # folder in which MONAI Label keeps them
_NO_IMAGES = (".csv", ".tsv", ".json", ".txt", ".md")  # what may lie beside images
_SHOWN = 5


def file_ending(file: str, extensions: Sequence[str]) -> str | None:
    """Return the longest ending of a file's name that is known; ``None`` where none is.

    Args:
        file: its name.
        extensions: patterns of image files, such as ``*.nii.gz``; labels of whole images are known, too.
    """
    known = sorted((*(pattern.removeprefix("*") for pattern in extensions), LABEL_SUFFIX), key=len)
    return next((ending for ending in reversed(known) if file.endswith(ending)), None)


def check_files(studies: Path, extensions: Sequence[str]) -> None:
    """Refuse two image files of one id, and say in the log which files and folders are left out.

    Args:
        studies: the folder; it need not be there yet.
        extensions: patterns of image files.

    Raises:
        LabelError: with every id that several files have: one would be taken, and its labels be those of all.
    """
    found = sorted(studies.iterdir()) if studies.is_dir() else []
    seen = [path for path in found if not path.name.startswith(".")]
    by_id: dict[str, list[str]] = {}
    left_out = []
    for name in (path.name for path in seen if path.is_file()):
        image = name.removesuffix(file_ending(name, extensions) or "")
        if not any(fnmatch.fnmatch(name, pattern) for pattern in extensions):
            left_out += [] if name.endswith(_NO_IMAGES) else [name]
        elif is_id(image):
            by_id.setdefault(image, []).append(name)
        else:
            left_out.append(name)
    raise_problems(LabelError, studies, [
        f"'{image}': expected one image file of this name, found {', '.join(names)}; rename or remove all but one"
        for image, names in by_id.items() if len(names) > 1
    ])  # fmt: skip
    folders = [f"{path.name}/" for path in seen if path.is_dir() and path.name != _LABELS]
    if left_out:
        logger.warning(
            "%s: %d files are left out: %s; images have names of letters, digits, '_', '.' and '-' and end in %s",
            studies, len(left_out), _first(left_out), ", ".join(extensions),
        )  # fmt: skip
    if folders:
        logger.warning("%s: %d folders are not looked into: %s; images lie in the folder itself",
                       studies, len(folders), _first(folders))  # fmt: skip


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
