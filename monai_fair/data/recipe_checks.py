"""What a recipe may say: every key and rule checked before any file of the dataset is read."""

import re
from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from monai_fair.data.columns import pattern_columns
from monai_fair.data.derivations import RULES
from monai_fair.data.manifest import RESERVED
from monai_fair.data.predictions import SPLITS

_KEYS = {
    "name": True, "reference": True, "licence": True, "source": True, "subject_id": True, "image": True,
    "label": True, "attributes": True, "split": True,
    "notes": False, "image_id": False, "columns": False, "join": False, "first_by": False, "stratify": False,
    "options": False, "filters": False,
}  # fmt: skip
_RULE_KEYS = {"column", "missing", "drop", "if_missing", "capped", *RULES}
_TABLE_KEYS = {"table", "sheet", "one_row_per", "missing", "contradiction", "also_named"}
_SOURCE_KEYS = {*_TABLE_KEYS, "more", "header_rows", "origin"}
_FILE_KEYS = {"file", "folders", "beside", "if_missing"}
_GLOB_KEYS = {"glob", "match", "per", "several", "if_missing"}
_JOIN_KEYS = {*_TABLE_KEYS, "columns", "keys", "take", "nearest", "if_missing"}
_COLUMN_KINDS = (
    {"to"},
    {"from", "match"},
    {"from", "match", "to"},
    {"age_at_entry", "days"},
    {"age_at_entry", "entry_year", "year"},
)


def recipe_problems(content: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with a recipe whose options are applied, one sentence each."""
    problems = [f"key '{key}': expected, found none" for key, needed in _KEYS.items() if needed and key not in content]
    problems += [f"key '{key}': not a key of a recipe ({', '.join(_KEYS)})" for key in content if key not in _KEYS]
    checks = {
        "source": _source_problems, "image": _image_problems, "label": _label_problems, "columns": _column_problems,
        "join": _join_problems, "attributes": _attribute_problems, "split": _split_problems,
        "filters": _filter_problems,
    }  # fmt: skip
    problems += [found for key, check in checks.items() if key in content for found in check(content[key])]
    known = content.get("attributes") or {}
    unknown = [name for name in content.get("stratify") or [] if name not in known]
    return problems + [f"stratify: '{name}' is not an attribute of this recipe" for name in unknown]


def _source_problems(source: Any) -> list[str]:
    if not isinstance(source, dict) or len({"table", "npz"} & set(source)) != 1:
        return ["source: expected exactly one of 'table' and 'npz'"]
    if "npz" in source:
        listed = isinstance(source.get("columns"), list)
        return [] if listed else ["source: expected 'columns', the list of arrays to read from each npz file"]
    problems = _unknown_keys("source", source, _SOURCE_KEYS)
    if "more" in source and (not isinstance(source["more"], dict) or "one_row_per" in source):
        problems.append("source: more: expected a mapping from name to table, and no 'one_row_per'")
    rows = source.get("header_rows", 1)
    if isinstance(rows, bool) or not isinstance(rows, int) or rows < 1:
        problems.append(f"source: header_rows: expected a whole number from 1 on, got {rows}")
    if "origin" in source and not (isinstance(source["origin"], dict) and len(source["origin"]) == 1):
        problems.append("source: origin: expected a column, and what it says in rows of the first table")
    return problems + _name_problems("source", source)


def _name_problems(where: str, table: Mapping[str, Any]) -> list[str]:
    others = table.get("also_named", {})
    named = isinstance(others, dict) and all(isinstance(names, list) for names in others.values())
    return [] if named else [f"{where}: also_named: expected a mapping from column to a list of its other names"]


def _unknown_keys(where: str, found: Mapping[str, Any], known: set[str]) -> list[str]:
    return [f"{where}: '{key}' is not one of {', '.join(sorted(known))}" for key in found if key not in known]


def _image_problems(image: Any) -> list[str]:
    if isinstance(image, dict) and isinstance(image.get("file"), str):
        problems = _unknown_keys("image", image, _FILE_KEYS)
        if {"folders", "beside"} <= set(image) or image.get("beside", "table") != "table":
            problems.append("image: expected either 'folders' or 'beside: table'")
        if "if_missing" in image and not {"folders", "beside"} & set(image):
            problems.append("image: if_missing: expected 'folders' or 'beside' too, other images are not looked for")
        return problems + _word_problems("image", image, "if_missing", ("error", "drop"))
    if not isinstance(image, dict) or "glob" not in image or "match" not in image:
        return ["image: expected a mapping with 'file', a pattern such as '{image_id}.jpg', or with 'glob' and 'match'"]
    problems = _unknown_keys("image", image, _GLOB_KEYS)
    groups = _group_names(image["match"])
    if not groups:
        problems.append(f"image: match: expected a regular expression with named groups, got '{image['match']}'")
    per = image.get("per", [])
    if not isinstance(per, list):
        problems.append(f"image: per: expected a list of named groups, got '{per}'")
    elif groups:
        problems += [f"image: per: '{name}' is not a named group of 'match'" for name in per if name not in groups]
    problems += _word_problems("image", image, "several", ("error", "first", "last"))
    return problems + _word_problems("image", image, "if_missing", ("error", "drop"))


def _word_problems(where: str, found: Mapping[str, Any], key: str, known: tuple[str, ...]) -> list[str]:
    word = found.get(key, known[0])
    return [] if word in known else [f"{where}: {key}: expected one of {', '.join(known)}, got '{word}'"]


def _group_names(pattern: Any) -> list[str]:
    """Return the named groups of a regular expression; none if it is not one."""
    try:
        return list(re.compile(pattern).groupindex)
    except (re.error, TypeError):
        return []


def _column_problems(columns: Any) -> list[str]:
    if not isinstance(columns, dict):
        return [f"columns: expected a mapping from name to how it is made, got {type(columns).__name__}"]
    problems = []
    for name, made in columns.items():
        if not isinstance(made, dict) or set(made) not in _COLUMN_KINDS:
            problems.append(
                f"column '{name}': expected 'to', or 'from' and 'match' (and 'to'), or 'age_at_entry' and 'days' "
                "(or 'entry_year' and 'year')"
            )
            continue
        try:
            groups = re.compile(str(made.get("match", ""))).groups
        except re.error as error:
            problems.append(f"column '{name}': match: expected a regular expression, got '{made['match']}': {error}")
            continue
        if {"match", "to"} <= set(made) and not set(pattern_columns(made["to"])) <= set(map(str, range(groups + 1))):
            problems.append(f"column '{name}': to: expected the numbers of groups of 'match', got '{made['to']}'")
    return problems


def _join_problems(join: Any) -> list[str]:
    if not isinstance(join, dict):
        return [f"join: expected a mapping from name to table, got {type(join).__name__}"]
    problems = []
    for name, spec in join.items():
        where = f"join '{name}'"
        keyed = isinstance(spec, dict) and isinstance(spec.get("keys"), dict) and isinstance(spec.get("take"), list)
        if not keyed or "table" not in spec or not spec["keys"] or not spec["take"]:
            problems.append(f"{where}: expected 'table', 'keys' (column here to column there) and 'take', a list")
            continue
        problems += _unknown_keys(where, spec, _JOIN_KEYS)
        problems += _name_problems(where, spec) + _word_problems(where, spec, "if_missing", ("keep", "drop"))
        problems += [f"{where}: {found}" for found in _column_problems(spec.get("columns", {}))]
        if "nearest" in spec and not _is_nearest(spec["nearest"]):
            problems.append(f"{where}: nearest: expected 'here', 'there' (columns) and 'within_days', a whole number")
        if {"nearest", "one_row_per"} <= set(spec):
            problems.append(f"{where}: expected only one of 'nearest' and 'one_row_per'")
    return problems


def _is_nearest(nearest: Any) -> bool:
    named = isinstance(nearest, dict) and set(nearest) == {"here", "there", "within_days"}
    return named and isinstance(nearest["within_days"], int) and nearest["within_days"] >= 0


def _filter_problems(filters: Any) -> list[str]:
    if not isinstance(filters, dict):
        return [f"filters: expected a mapping from name to filter, got {type(filters).__name__}"]
    return [
        f"filter '{name}': expected 'column' and 'keep', a list of codes"
        for name, rule in filters.items()
        if not isinstance(rule, dict) or set(rule) != {"column", "keep"} or not isinstance(rule["keep"], list)
    ]


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
    if "capped" in rule and (rule["capped"] is not True or not {"bins", "number"} & set(rule)):
        problems.append(f"{where}: capped: expected 'true', and the rule 'bins' or 'number'")
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
    if not isinstance(split, dict) or len({"shares", "folds", "column"} & set(split)) != 1:
        return ["split: expected exactly one of 'shares' (part to share), 'folds' and 'column' (with 'groups')"]
    if "folds" in split:
        return _fold_problems(split)
    names = set(split.get("shares") or split.get("groups") or {})
    return [] if names and names <= set(SPLITS) else [f"split: expected parts among {', '.join(SPLITS)}, got {names}"]


def _fold_problems(split: Mapping[str, Any]) -> list[str]:
    folds, fold, test = (split.get(key) for key in ("folds", "fold", "test"))
    if not isinstance(folds, int) or folds < 2:
        return [f"split: folds: expected a whole number from 2, got {folds}"]
    problems = []
    if not isinstance(fold, int) or not 0 <= fold < folds:
        problems.append(f"split: fold: expected a whole number from 0 to {folds - 1}, got {fold}")
    if not isinstance(test, float) or not 0 < test < 1:
        problems.append(f"split: test: expected a share between 0 and 1, got {test}")
    return problems
