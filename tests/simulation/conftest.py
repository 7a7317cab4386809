from collections.abc import Callable
from pathlib import Path

import pytest

from monai_fair.data.artifacts import sha256


@pytest.fixture(scope="session")
def hashes() -> Callable[[Path], dict[str, str]]:
    """SHA-256 of every file of a folder, by its path inside."""
    return lambda folder: {str(path.relative_to(folder)): sha256(path) for path in folder.rglob("*") if path.is_file()}
