"""From a manifest and a table of subgroups to a re-balanced manifest."""

from pathlib import Path
from typing import Literal

from monai_fair.data.builder import BuiltManifest, write_manifest
from monai_fair.data.manifest import read_manifest, recorded_num_classes
from monai_fair.data.rebalancing import rebalanced_manifest
from monai_fair.data.tables import read_table
from monai_fair.errors import ManifestError, raise_problems


def read_subgroups(path: str | Path) -> dict[str, str]:
    """Read the subgroup of each subject, such as from the ``subgroups.csv`` of a discovery.

    Args:
        path: CSV or Parquet with ``subject_id`` and ``subgroup``; other columns are not looked at.

    Returns:
        Subject to subgroup; empty where the table has none.

    Raises:
        ManifestError: if a column is absent, or a subject has several rows.
    """
    table = read_table(path, ManifestError)
    problems = [
        f"expected a column '{name}', found none; add it" for name in ("subject_id", "subgroup") if name not in table
    ]
    if not problems and table["subject_id"].duplicated().any():
        several = table.loc[table["subject_id"].duplicated(), "subject_id"]
        problems = [f"expected one row per subject, {several.nunique()} have more, such as '{several.iloc[0]}'"]
    raise_problems(ManifestError, path, problems)
    return dict(zip(table["subject_id"], table["subgroup"], strict=True))


def rebalance_files(
    manifest: str | Path,
    subgroups: str | Path,
    out: str | Path,
    *,
    method: Literal["weights", "resample"] = "weights",
    missing: Literal["error", "drop", "group"] = "error",
    seed: int = 0,
) -> BuiltManifest:
    """Write a manifest whose training rows are balanced over subgroups; see :func:`rebalanced_manifest`.

    Args:
        manifest: CSV with ``label`` and ``split``.
        subgroups: of :func:`read_subgroups`.
        out: the CSV file to write, with its record beside it; not the manifest itself.
        method: see :func:`rebalanced_manifest`.
        missing: as well.
        seed: as well.

    Returns:
        What was written.

    Raises:
        ManifestError: with every problem.
    """
    if Path(out).resolve() == Path(manifest).resolve():
        raise ManifestError(f"{out}: expected another file than the manifest, which would be overwritten; rename it")
    checked = read_manifest(manifest, num_classes=recorded_num_classes(manifest) or 2)
    built = rebalanced_manifest(checked, read_subgroups(subgroups), method=method, missing=missing, seed=seed)
    write_manifest(built, out)
    return built
