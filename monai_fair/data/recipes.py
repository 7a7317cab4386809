"""Recipes: from a public dataset's own files to a manifest, described in YAML and read by one builder.

A recipe says which file holds the table (or that the rows are ``.npz`` files), how label and attributes are
derived, where the images lie, and how the split is made. ``data_manifests/`` holds one per dataset.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from monai_fair.data.derivations import RULES
from monai_fair.data.predictions import SPLITS
from monai_fair.errors import RecipeError, raise_problems

_KEYS = {
    "name": True, "reference": True, "licence": True, "source": True, "subject_id": True, "image": True,
    "label": True, "attributes": True, "split": True,
    "notes": False, "image_id": False, "stratify": False, "options": False,
}  # fmt: skip
_RULE_KEYS = {"column", "missing", "drop", "if_missing", *RULES}


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
    content, chosen = _apply_options(content, dict(options or {}), path)
    raise_problems(RecipeError, path, _problems(content))
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


def _apply_options(
    content: dict[str, Any], chosen: dict[str, Any], path: Path
) -> tuple[dict[str, Any], dict[str, str]]:
    """Lay the patch of each choice over the recipe."""
    available: dict[str, Any] = content.get("options", {})
    problems = [
        f"expected an option of {', '.join(available) or 'none'}, got '{name}'"
        for name in chosen
        if name not in available
    ]
    choices = {name: str(chosen.get(name, option["default"])) for name, option in available.items()}
    for name, choice in choices.items():
        patches = {str(key): patch for key, patch in available[name]["choices"].items()}
        if choice not in patches:
            problems.append(f"option '{name}': expected one of {', '.join(patches)}, got '{choice}'")
            continue
        content = _merge(content, patches[choice] or {})
    raise_problems(RecipeError, path, problems)
    return content, choices


def _merge(base: Any, patch: Any) -> Any:
    """Lay ``patch`` over ``base``: mappings are merged key by key, anything else is replaced."""
    if not isinstance(base, dict) or not isinstance(patch, dict):
        return patch
    return {**base, **{key: _merge(base.get(key), value) for key, value in patch.items()}}


def _problems(content: dict[str, Any]) -> list[str]:
    problems = [f"key '{key}': expected, found none" for key, needed in _KEYS.items() if needed and key not in content]
    problems += [f"key '{key}': not a key of a recipe ({', '.join(_KEYS)})" for key in content if key not in _KEYS]
    if problems:
        return problems
    if len({"table", "npz"} & set(content["source"])) != 1:
        problems.append("source: expected exactly one of 'table' and 'npz'")
    problems += _rule_problems("label", content["label"])
    for name, rule in content["attributes"].items():
        problems += _rule_problems(f"attribute '{name}'", rule)
    if "groups" not in content["label"]:
        problems.append("label: expected the rule 'groups', from class index to codes")
    problems += _split_problems(content["split"])
    unknown = [name for name in content.get("stratify", []) if name not in content["attributes"]]
    return problems + [f"stratify: '{name}' is not an attribute of this recipe" for name in unknown]


def _rule_problems(where: str, rule: Any) -> list[str]:
    if not isinstance(rule, dict) or "column" not in rule:
        return [f"{where}: expected a mapping with 'column'"]
    problems = [f"{where}: '{key}' is not a key of a rule" for key in rule if key not in _RULE_KEYS]
    if len(set(RULES) & set(rule)) != 1:
        problems.append(f"{where}: expected exactly one of {', '.join(RULES)}")
    if rule.get("if_missing", "keep") not in {"keep", "drop"}:
        problems.append(f"{where}: if_missing: expected 'keep' or 'drop', got '{rule['if_missing']}'")
    if isinstance(rule.get("bins"), dict) and rule["bins"].get("equal", "above") not in {"above", "below"}:
        problems.append(f"{where}: bins: equal: expected 'above' or 'below', got '{rule['bins']['equal']}'")
    return problems


def _split_problems(split: Any) -> list[str]:
    if not isinstance(split, dict) or len({"shares", "column"} & set(split)) != 1:
        return ["split: expected exactly one of 'shares' (part to share) and 'column' (with 'groups')"]
    names = set(split.get("shares") or split.get("groups") or {})
    return [] if names and names <= set(SPLITS) else [f"split: expected parts among {', '.join(SPLITS)}, got {names}"]
