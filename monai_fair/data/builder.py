"""The one builder that turns any recipe and the dataset's files into a manifest and its record."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from monai_fair.data.artifacts import fingerprint, sha256, write_json
from monai_fair.data.columns import inputs_of, pattern_columns
from monai_fair.data.crosstables import code_groups, cross_tables, small_cells
from monai_fair.data.derivations import Derived, derive
from monai_fair.data.gathering import Gathered, gather_rows
from monai_fair.data.manifest import check_manifest
from monai_fair.data.recipe_split import split_record, split_rows
from monai_fair.data.recipes import Recipe, read_recipe
from monai_fair.data.row_filters import add_reasons, filter_reasons
from monai_fair.data.sources import locate_images
from monai_fair.data.tables import write_table
from monai_fair.errors import ManifestError, RecipeError, raise_problems


@dataclass(frozen=True)
class BuiltManifest:
    """A manifest with the record of how it was made.

    Attributes:
        table: the manifest, every column as text.
        record: recipe, options, files read and notes on them, derivations, codes by group, dropped rows, split,
            cross-tables and warnings; JSON-like.
    """

    table: pd.DataFrame
    record: dict[str, Any]


def build_manifest(
    recipe: str | Path,
    root: str | Path,
    *,
    options: Mapping[str, Any] | None = None,
    split: str | Path | None = None,
    seed: int = 0,
) -> BuiltManifest:
    """Build a manifest from a dataset's own files.

    Args:
        recipe: name or path of a recipe, see :func:`monai_fair.data.recipes.read_recipe`.
        root: the dataset's folder.
        options: choices for the recipe's options.
        split: a CSV with ``subject_id`` and ``split`` to use instead of the recipe's own split.
        seed: seed of the recipe's own split.

    Returns:
        The manifest and its record.

    Raises:
        RecipeError: if a file or column is missing or a code is unknown, with every problem.
        SplitError: if the given split does not cover the subjects.
        ManifestError: if the result breaks the manifest's contract.
    """
    chosen = read_recipe(recipe, options)
    content, folder = chosen.content, Path(root)
    gathered = gather_rows(content, folder, chosen.source)
    _need_columns(gathered, chosen)
    judged = _judge(gathered, content, folder)
    table, dropped = _table(judged, gathered, content, folder)
    gone = _without_image(gathered, content) + _drop_record(dropped, _identity(gathered.rows, content))
    if not len(table):
        reasons = {entry["reason"]: entry["n"] for entry in gone}
        raise RecipeError(f"{chosen.source} on {folder}: every row is dropped: {reasons}")
    parts = split_rows(table, gathered.rows.loc[table.index], content, split, seed)
    table.insert(list(table).index("label") + 1, "split", parts)
    codes = _codes(judged, dropped, gathered.rows, content)
    table = table.reset_index(drop=True)

    groups = content["label"]["groups"]
    checked = check_manifest(table, f"{chosen.source} on {folder}", num_classes=len(groups)).table
    names = [name for name, rule in content["attributes"].items() if "number" not in rule]
    cells = cross_tables(checked, names, intersect=content.get("stratify", []), num_classes=len(groups))
    record = {
        "recipe": content["name"],
        "recipe_file": chosen.source,
        "recipe_hash": fingerprint(content),
        "options": chosen.options,
        "sources": gathered.sources,
        "notes": gathered.notes,
        "num_classes": len(groups),
        "derivations": {name: result.record for name, result in judged.derived.items()},
        "codes": codes,
        "dropped": gone,
        "split": split_record(content, split, seed),
        "n": len(table),
        "n_subjects": int(table["subject_id"].nunique()),
        "cross_tables": cells,
        "warnings": small_cells(cells),
    }
    return BuiltManifest(table, record)


@dataclass(frozen=True)
class _Judged:
    """What the recipe's rules say: the derived columns of the rows that they read, and why each row leaves."""

    derived: dict[str, Derived]
    dropped: pd.Series


def _judge(gathered: Gathered, content: Mapping[str, Any], folder: Path) -> _Judged:
    """Apply the filters, then the rules to the rows that are left: codes of other rows need not be known."""
    rows = gathered.rows
    dropped = filter_reasons(rows, content.get("filters", {}))
    dropped = add_reasons(dropped, gathered.without_partner, gathered.without_partner != "")
    left = rows[dropped == ""]
    derived = {name: derive(left[rule["column"]], name, rule) for name, rule in _rules(content).items()}
    raise_problems(RecipeError, folder, [problem for result in derived.values() for problem in result.problems])
    dropped[left.index] = _drop_reasons(derived)
    return _Judged(derived, _later_scans(dropped, rows, content))


def _table(
    judged: _Judged, gathered: Gathered, content: Mapping[str, Any], folder: Path
) -> tuple[pd.DataFrame, pd.Series]:
    """Return the manifest without its split, of the rows that are kept and have an image, and why others leave."""
    dropped = judged.dropped.copy()
    images = _images(gathered, gathered.rows[dropped == ""], content, folder)
    dropped[images.index[images == ""]] = "no image"
    kept = gathered.rows[dropped == ""]
    table = _identity(kept, content)
    table.insert(1, "image", images[kept.index])
    return table.assign(**{name: result.values[kept.index] for name, result in judged.derived.items()}), dropped


def _codes(
    judged: _Judged, dropped: pd.Series, rows: pd.DataFrame, content: Mapping[str, Any]
) -> dict[str, list[dict[str, Any]]]:
    """Count codes by group for every rule that sorts codes into groups."""
    sorting = {name: rule["column"] for name, rule in _rules(content).items() if "groups" in rule}
    found = {}
    for name, column in sorting.items():
        groups = judged.derived[name].values
        read = rows.loc[groups.index]
        kept = dropped[groups.index] == ""
        found[name] = code_groups(read[column].str.strip(), groups, read[content["subject_id"]], kept)
    return found


def write_manifest(built: BuiltManifest, path: str | Path) -> Path:
    """Write a manifest as CSV, and its record as JSON of the same name beside it.

    Raises:
        ManifestError: if ``path`` itself ends in ``.json``, which is the record's name.
    """
    target = Path(path)
    if target.suffix == ".json":
        raise ManifestError(
            f"{target}: expected a name for a table, the record takes .json; give one that ends in .csv"
        )
    write_table(target, built.table)
    write_json(target.with_suffix(".json"), "manifest", {"manifest_sha256": sha256(target), **built.record})
    return target


def _rules(content: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {"label": content["label"], **content["attributes"]}


def _need_columns(gathered: Gathered, recipe: Recipe) -> None:
    """Name every column the recipe reads and the dataset lacks."""
    content, rows = recipe.content, gathered.rows
    split = content["split"]
    wanted = {
        content["subject_id"]: "subject_id",
        **({content["image_id"]: "image_id"} if "image_id" in content else {}),
        **({content["first_by"]: "first_by"} if "first_by" in content else {}),
    }
    wanted |= dict.fromkeys(pattern_columns(content["image"].get("file", "")), "image")
    wanted |= {rule["column"]: name for name, rule in content.get("filters", {}).items()}
    wanted |= {rule["column"]: name for name, rule in _rules(content).items()}
    wanted |= {split["column"]: "split"} if "column" in split else {}
    wanted |= {need: f"column '{name}'" for name, made in gathered.waiting.items() for need in inputs_of(made)}
    found = ", ".join(map(str, rows.columns))
    raise_problems(
        RecipeError,
        recipe.source,
        [
            f"expected a column '{name}' (for {use}), found {found}"
            for name, use in wanted.items()
            if name not in rows and name not in gathered.waiting
        ],
    )


def _images(gathered: Gathered, kept: pd.DataFrame, content: Mapping[str, Any], root: Path) -> pd.Series:
    """Return the image of every kept row, empty where it may be missing; rows that are dropped need none."""
    if gathered.found is None:
        return locate_images(content["image"], kept, root, table=next(iter(gathered.sources)))
    problems = gathered.found.problems[kept.index]
    subjects = kept[content["subject_id"]]
    raise_problems(
        RecipeError,
        root,
        [f"subject '{subjects[row]}': {problem}" for row, problem in problems[problems != ""].items()],
    )
    return gathered.found.images[kept.index]


def _identity(rows: pd.DataFrame, content: Mapping[str, Any]) -> pd.DataFrame:
    names = {
        "subject_id": content["subject_id"],
        **({"image_id": content["image_id"]} if "image_id" in content else {}),
    }
    return pd.DataFrame({name: rows[column] for name, column in names.items()})


def _drop_reasons(derived: Mapping[str, Derived]) -> pd.Series:
    """Join the reasons of all rules; a row is kept when there is none."""
    reasons = pd.concat([result.drop_reason for result in derived.values()], axis=1)
    joined = ["; ".join(filter(None, row)) for row in reasons.itertuples(index=False)]
    return pd.Series(joined, index=reasons.index)


def _later_scans(dropped: pd.Series, rows: pd.DataFrame, content: Mapping[str, Any]) -> pd.Series:
    """Drop all but the first scan of every subject, among the rows that are kept so far, if the recipe asks for it."""
    if "first_by" not in content:
        return dropped
    name = content["first_by"]
    kept = rows[dropped == ""]
    order = pd.to_numeric(kept[name], errors="coerce")
    bad = kept.loc[order.isna() & (kept[name].str.strip() != ""), name].value_counts()
    problems = [f"first_by: expected numbers in '{name}', got {text!r} in {n} rows" for text, n in bad.items()]
    raise_problems(RecipeError, content["name"], problems)
    in_order = kept.loc[order.sort_values(kind="stable").index]
    later = in_order.index[in_order[content["subject_id"]].duplicated()]
    return dropped.mask(dropped.index.isin(later), f"a later scan of the subject, by '{name}'")


def _without_image(gathered: Gathered, content: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = gathered.without_image
    if not len(rows):
        return []
    return [{"reason": "no image", "n": len(rows), "subject_id": rows[content["subject_id"]].tolist()}]


def _drop_record(dropped: pd.Series, identity: pd.DataFrame) -> list[dict[str, Any]]:
    gone = dropped[dropped != ""]
    name = "image_id" if "image_id" in identity else "subject_id"
    return [
        {"reason": reason, "n": len(rows), name: identity.loc[rows.index, name].tolist()}
        for reason, rows in gone.groupby(gone)
    ]
