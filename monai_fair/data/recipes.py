"""Recipes: from a public dataset's own files to a manifest, described in YAML and read by one builder.

A recipe says which file holds the table (or that the rows are ``.npz`` files), how label and attributes are
derived, where the images lie, and how the split is made. ``data_manifests/`` holds one per dataset.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from monai_fair.data.recipe_checks import recipe_problems
from monai_fair.data.recipe_options import apply_options
from monai_fair.errors import RecipeError, raise_problems


@dataclass(frozen=True)
class Recipe:
    """A checked recipe with its options applied.

    Attributes:
        content: the recipe's keys, see ``data_manifests/README.md``.
        options: the choice made for each of its options.
        source: the file it came from.
    """

    content: dict[str, Any]
    options: dict[str, str]
    source: str


def recipe_folder() -> Path:
    """Return the folder of the recipes: in the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "data_manifests"
    return installed if installed.is_dir() else package.parent / "data_manifests"


def read_recipe(recipe: str | Path, options: Mapping[str, Any] | None = None) -> Recipe:
    """Read a recipe by name or path and apply the chosen options.

    Args:
        recipe: the name of a file in ``data_manifests`` such as ``ham10000``, or the path of a YAML file.
        options: option name to choice; an option that is not named keeps its default.

    Returns:
        The checked recipe.

    Raises:
        RecipeError: with every problem, if the recipe is unknown, malformed, or lacks an option or choice.
    """
    path = _find(recipe)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"{path}: expected a recipe in YAML; {error}") from error
    if not isinstance(content, dict):
        raise RecipeError(f"{path}: expected a mapping of keys, got {type(content).__name__}")
    content, chosen = apply_options(content, options or {}, path)
    raise_problems(RecipeError, path, recipe_problems(content))
    return Recipe(content, chosen, path.name)


def _find(recipe: str | Path) -> Path:
    path = Path(recipe)
    if path.suffix in {".yaml", ".yml"}:
        return path
    found = recipe_folder() / f"{recipe}.yaml"
    if not found.is_file():
        names = sorted(file.stem for file in recipe_folder().glob("*.yaml"))
        raise RecipeError(f"expected the name of a recipe ({', '.join(names)}) or a .yaml file, got '{recipe}'")
    return found
