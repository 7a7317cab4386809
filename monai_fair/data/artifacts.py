"""Files this package writes and reads back: whole or absent, without pickle, each naming its kind.

A file is written under a temporary name in the same folder and renamed when it is complete, so a reader
never sees half of one, and a killed job leaves the previous version in place.
"""

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from monai_fair import __version__
from monai_fair.errors import ArtifactError


@contextmanager
def atomic_path(path: str | Path, *, suffix: str = ".part") -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that takes its name when the block ends without an error.

    Args:
        path: the final file; missing parent folders are made.
        suffix: end of the temporary name, for writers that choose the format by it.

    Yields:
        Path to write to. It is removed if the block raises.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes the file private; a result is as readable as any file the user creates
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def write_json(path: str | Path, kind: str, content: Mapping[str, Any]) -> Path:
    """Write ``content`` as JSON with its ``kind`` and the version of this package on top.

    Numbers that are not finite become ``null``, because JSON has no NaN; the reason for an undefined value
    belongs beside it in the content.

    Args:
        path: the file to write.
        kind: what the file is, such as ``split`` or ``audit``; :func:`read_json` asks for it by name.
        content: JSON-like values; numpy scalars and arrays are converted.

    Returns:
        ``path`` as a ``Path``.
    """
    document = {"kind": kind, "monai_fair": __version__, **content}
    text = json.dumps(_plain(document), indent=2, ensure_ascii=False, allow_nan=False)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    return Path(path)


def read_json(path: str | Path, kind: str) -> dict[str, Any]:
    """Read a JSON file written by :func:`write_json`.

    Args:
        path: the file.
        kind: the kind it must have.

    Returns:
        The document, with ``kind`` and ``monai_fair`` still in it.

    Raises:
        ArtifactError: if the file is missing, is not JSON, or is of another kind.
    """
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: expected a readable JSON file of kind '{kind}'; {error}") from error
    found = document.get("kind") if isinstance(document, dict) else None
    if found != kind:
        raise ArtifactError(f"{path}: expected a file of kind '{kind}', got '{found}'; give the right file")
    return dict(document)


def write_tensors(
    path: str | Path, tensors: Mapping[str, npt.NDArray[Any]], metadata: Mapping[str, str] | None = None
) -> Path:
    """Write named arrays as one safetensors file, with text ``metadata`` in its header."""
    # np.ascontiguousarray would turn a scalar into an array of length 1
    arrays = {name: np.asarray(value, order="C") for name, value in tensors.items()}
    with atomic_path(path) as temporary:
        save_file(arrays, temporary, metadata={"monai_fair": __version__, **(metadata or {})})
    return Path(path)


def read_tensors(path: str | Path) -> tuple[dict[str, npt.NDArray[Any]], dict[str, str]]:
    """Read a safetensors file.

    Returns:
        The arrays by name, and the header's metadata.

    Raises:
        ArtifactError: if the file is missing or damaged.
    """
    try:
        with safe_open(path, framework="numpy") as stored:
            arrays = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
            return arrays, dict(stored.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"{path}: expected a readable safetensors file; {error}") from error


def sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_state(path: str | Path) -> list[int]:
    """Return what tells a file from a changed one without reading it: size and time; nothing where there is none."""
    try:
        stat = Path(path).stat()
    except OSError:
        return []
    return [stat.st_size, stat.st_mtime_ns]


def fingerprint(content: object) -> str:
    """Return the SHA-256 of JSON-like ``content``, the same for equal content in any key order."""
    text = json.dumps(_plain(content), sort_keys=True, ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _plain(value: Any) -> Any:
    """Turn numpy values into JSON's, and numbers that are not finite into ``None``."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
