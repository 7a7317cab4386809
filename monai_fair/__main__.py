"""The command line: ``python -m monai_fair <verb>``. Engines run as bundles: ``python -m monai.bundle run``."""

import os
import sys
from collections.abc import Sequence
from typing import Any, Literal

import fire

from monai_fair.errors import MonaiFairError


def manifest(
    recipe: str,
    root: str,
    out: str,
    split: str | None = None,
    seed: int = 0,
    options: str | Sequence[str] | dict[str, str] = "",
) -> str:
    """Build manifest.csv from a dataset's own files.

    Args:
        recipe: name of a recipe in data_manifests (ham10000, harvard_gdp, harvard_gf) or path of a YAML file.
        root: the dataset's folder.
        out: the CSV file to write; how it was made stands in a JSON file of the same name beside it.
        split: a CSV with subject_id and split to use instead of the recipe's own split.
        seed: seed of the recipe's own split.
        options: choices for the recipe's options, such as label=akiec_bcc_mel,missing=drop.
    """
    from monai_fair.data import build_manifest, write_manifest

    built = build_manifest(recipe, root, options=_pairs(options), split=split, seed=seed)
    path = write_manifest(built, out)
    record = built.record
    dropped = sum(reason["n"] for reason in record["dropped"])
    print(f"{record['recipe']}: {record['n']} images of {record['n_subjects']} subjects, {dropped} rows dropped")
    print("images (prevalence) per group and split:")
    print(_cross_table(record["cross_tables"]))
    for warning in record["warnings"]:
        print(f"warning: under 10 of a class: {warning}")
    print(f"record: {path.with_suffix('.json')}")
    return str(path)


def check(
    manifest: str, root: str, full: bool = False, num_classes: int | None = None, num_workers: int | None = None
) -> str:
    """Check a manifest and its images; every problem is named in one message.

    Args:
        manifest: the CSV file.
        root: data root that the image paths start from.
        full: decode every image, compare checksums and look for repeated contents (slower).
        num_classes: number of classes; by default as recorded beside the manifest, else 2.
        num_workers: threads to read with; by default one per core.
    """
    from monai_fair.data import check_images, read_manifest, recorded_num_classes

    classes = num_classes or recorded_num_classes(manifest) or 2
    checked = read_manifest(manifest, num_classes=classes)
    found = check_images(checked, root, full=full, num_workers=num_workers or os.cpu_count() or 1)
    table = checked.table
    print(f"{len(table)} images of {table['subject_id'].nunique()} subjects")
    print(
        f"{checked.part}: " + ", ".join(f"{name} {count}" for name, count in table[checked.part].value_counts().items())
    )
    for name in checked.attributes:
        missing = int((table[name] == "").sum())
        print(f"{name}: {table[name].nunique()} values, {missing} missing")
    for kind, count in found.kinds.items():
        print(f"{kind}: {count}")
    for lines in found.repeated:
        print(f"note: lines {', '.join(map(str, lines))} hold the same image")
    looked = "every image decoded" if full else "every header read; --full decodes every image"
    return f"{manifest}: no problem found ({looked})"


def audit(
    *predictions: str,
    attributes: str | Sequence[str],
    out: str = "audit",
    missing: Literal["drop", "group"] = "drop",
    permutations: int = 2000,
    seed: int = 0,
) -> str:
    """Compare groups, and runs, from tables of predictions; ends with the path of report.html.

    Args:
        predictions: files predictions.csv, patterns, or name=pattern; files of one name are seeds of one run.
        attributes: attributes to compare groups by, such as sex,age_group; their intersection comes with them.
        out: folder for report.html and metrics.json.
        missing: rows without a value: drop (counted, left out for that attribute) or group (a group of their own).
        permutations: number of permutations behind each p value and chance level.
        seed: seed of the permutations.
    """
    from monai_fair.report import audit_files

    path = audit_files(
        predictions, attributes=_names(attributes), out=out, missing=missing, permutations=permutations, seed=seed
    )
    return str(path)


def _pairs(options: str | Sequence[str] | dict[str, str]) -> dict[str, str]:
    if isinstance(options, dict):
        return {str(name): str(choice) for name, choice in options.items()}
    pairs = [part.split("=", 1) for part in _names(options) if part]
    if any(len(pair) != 2 for pair in pairs):
        raise MonaiFairError(f"--options: expected name=choice,name=choice, got '{','.join(_names(options))}'")
    return {name.strip(): choice.strip() for name, choice in pairs}


def _names(value: str | Sequence[str]) -> list[str]:
    # fire has already made a tuple of a,b and a number of 5
    listed = value if isinstance(value, list | tuple) else str(value).split(",")
    return [str(name).strip() for name in listed]


def _cross_table(cells: Sequence[dict[str, Any]]) -> str:
    """Lay n and prevalence out with one line per group and one column per part."""
    import pandas as pd

    table = pd.DataFrame(cells)
    shares = ["" if pd.isna(share) else f" ({100 * share:.1f} %)" for share in table["prevalence"]]
    table["shown"] = [f"{n}{share}" for n, share in zip(table["n"], shares, strict=True)]
    wide = table.pivot_table(
        index=["attribute", "group"], columns="split", values="shown", aggfunc="first", fill_value="0", sort=False
    )
    return str(wide[[name for name in ("train", "val", "test") if name in wide]].to_string())


def main() -> None:
    """Run a verb; an error of the data or the options is one message and exit status 2, without a traceback."""
    from monai_fair.simulation import simulate_skin_from_options

    verbs = {"simulate": {"skin": simulate_skin_from_options}, "manifest": manifest, "check": check, "audit": audit}
    try:
        fire.Fire(verbs, name="monai_fair")
    except MonaiFairError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
