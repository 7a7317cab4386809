"""Recipes: from a public dataset's own files to a manifest, described in YAML and read by one builder.

A recipe says which file holds the table (or that the rows are ``.npz`` files), how label and attributes are
derived, where the images lie, and how the split is made. ``data_manifests/`` holds one per dataset.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from monai_fair.data.derivations import RULES
from monai_fair.data.manifest import RESERVED
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
    available: dict[str, Any] = content.get("options") or {}
    raise_problems(RecipeError, path, _option_problems(available))
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
    checks = {
        "source": _source_problems, "image": _image_problems, "label": _label_problems,
        "attributes": _attribute_problems, "split": _split_problems,
    }  # fmt: skip
    problems += [found for key, check in checks.items() if key in content for found in check(content[key])]
    known = content.get("attributes") or {}
    unknown = [name for name in content.get("stratify") or [] if name not in known]
    return problems + [f"stratify: '{name}' is not an attribute of this recipe" for name in unknown]


def _option_problems(options: Any) -> list[str]:
    if not isinstance(options, dict):
        return [f"options: expected a mapping from name to option, got {type(options).__name__}"]
    return [
        f"option '{name}': expected a mapping with 'default' and 'choices' (choice to its changes)"
        for name, option in options.items()
        if not isinstance(option, dict) or "default" not in option or not isinstance(option.get("choices"), dict)
    ]


def _source_problems(source: Any) -> list[str]:
    if not isinstance(source, dict) or len({"table", "npz"} & set(source)) != 1:
        return ["source: expected exactly one of 'table' and 'npz'"]
    if "npz" in source and not isinstance(source.get("columns"), list):
        return ["source: expected 'columns', the list of arrays to read from each npz file"]
    return []


def _image_problems(image: Any) -> list[str]:
    named = isinstance(image, dict) and isinstance(image.get("file"), str)
    return [] if named else ["image: expected a mapping with 'file', a pattern such as '{image_id}.jpg'"]


def _label_problems(label: Any) -> list[str]:
    if isinstance(label, dict) and "groups" not in label:
        return ["label: expected the rule 'groups', from class index to codes", *_rule_problems("label", label)]
    return _rule_problems("label", label)


def _attribute_problems(attributes: Any) -> list[str]:
    if not isinstance(attributes, dict):
        return [f"attributes: expected a mapping from name to rule, got {type(attributes).__name__}"]
    problems = [f"attribute '{name}': a manifest needs this name for itself" for name in attributes if name in RESERVED]
    return problems + [
        found for name, rule in attributes.items() for found in _rule_problems(f"attribute '{name}'", rule)
    ]


def _rule_problems(where: str, rule: Any) -> list[str]:
    if not isinstance(rule, dict) or "column" not in rule:
        return [f"{where}: expected a mapping with 'column'"]
    problems = [f"{where}: '{key}' is not a key of a rule" for key in rule if key not in _RULE_KEYS]
    if len(set(RULES) & set(rule)) != 1:
        problems.append(f"{where}: expected exactly one of {', '.join(RULES)}")
    if rule.get("if_missing", "keep") not in {"keep", "drop"}:
        problems.append(f"{where}: if_missing: expected 'keep' or 'drop', got '{rule['if_missing']}'")
    problems += _code_problems(where, rule)
    return problems + (_bins_problems(where, rule["bins"]) if "bins" in rule else [])


def _code_problems(where: str, rule: Mapping[str, Any]) -> list[str]:
    """Every code in exactly one list; text instead of a list would be taken letter by letter."""
    groups = rule.get("groups", {})
    if not isinstance(groups, dict):
        return [f"{where}: groups: expected a mapping from group to codes"]
    lists = {**groups, **{key: rule[key] for key in ("missing", "drop") if key in rule}}
    problems = [f"{where}: {name}: expected a list of codes" for name in lists if not isinstance(lists[name], list)]
    if problems:
        return problems
    counts = Counter(str(code) for codes in lists.values() for code in codes)
    return [f"{where}: code '{code}' is listed {n} times; keep one" for code, n in counts.items() if n > 1]


def _bins_problems(where: str, bins: Any) -> list[str]:
    edges = bins.get("edges") if isinstance(bins, dict) else None
    if not isinstance(edges, list) or not edges or not all(isinstance(edge, int | float) for edge in edges):
        return [f"{where}: bins: expected 'edges', a list of rising numbers"]
    if any(low >= high for low, high in pairwise(edges)):
        return [f"{where}: bins: expected 'edges', a list of rising numbers"]
    problems = []
    if bins.get("equal", "above") not in {"above", "below"}:
        problems.append(f"{where}: bins: equal: expected 'above' or 'below', got '{bins['equal']}'")
    if len(bins.get("names", range(len(edges) + 1))) != len(edges) + 1:
        problems.append(f"{where}: bins: expected {len(edges) + 1} names, got {len(bins['names'])}")
    return problems


def _split_problems(split: Any) -> list[str]:
    if not isinstance(split, dict) or len({"shares", "column"} & set(split)) != 1:
        return ["split: expected exactly one of 'shares' (part to share) and 'column' (with 'groups')"]
    names = set(split.get("shares") or split.get("groups") or {})
    return [] if names and names <= set(SPLITS) else [f"split: expected parts among {', '.join(SPLITS)}, got {names}"]
