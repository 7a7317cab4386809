"""What holds for the whole package."""

import importlib
import pkgutil
from pathlib import Path

import pytest

import monai_fair

ROOMS = sorted(found.name for found in pkgutil.iter_modules(monai_fair.__path__) if found.ispkg)


@pytest.mark.parametrize("room", ROOMS)
def test_every_exported_name_is_found_by_its_path(room: str) -> None:
    """A module of the same name would hide it: MONAI finds a ``_target_`` by importing as far as it can."""
    package = importlib.import_module(f"monai_fair.{room}")
    modules = {found.name for found in pkgutil.iter_modules(package.__path__)}
    assert modules.isdisjoint(package.__all__)
    assert package.__doc__
    assert all(getattr(package, name).__doc__ for name in package.__all__)


@pytest.mark.parametrize("path", sorted(Path(monai_fair.__file__).parent.rglob("*.py")), ids=lambda path: path.name)
def test_no_file_grows_past_a_page_that_can_be_read(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300
