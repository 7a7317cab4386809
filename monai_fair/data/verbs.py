"""The verbs of the command line that make and check manifests: each returns what is printed of its work."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from monai_fair.data.artifacts import read_json
from monai_fair.data.builder import build_manifest, write_manifest
from monai_fair.data.folds import write_folds
from monai_fair.data.gap_enlarging_files import enlarge_gap_files
from monai_fair.data.images import check_images
from monai_fair.data.label_bias_files import bias_label_files
from monai_fair.data.manifest import read_manifest, recorded_num_classes
from monai_fair.data.option_values import option_gaps, option_names, option_pairs
from monai_fair.data.rebalancing_files import rebalance_files


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
        recipe: name of a recipe in data_manifests (ham10000, harvard_gdp, harvard_gf, papila, chexpert, mimic_cxr,
            bids, oasis1, oasis2, oasis3, ixi, adni, openbhb) or path of a YAML file.
        root: the dataset's folder.
        out: the CSV file to write; how it was made stands in a JSON file of the same name beside it.
        split: a CSV with subject_id and split to use instead of the recipe's own split.
        seed: seed of the recipe's own split.
        options: choices for the recipe's options, such as label=akiec_bcc_mel,missing=drop.
    """
    built = build_manifest(recipe, root, options=option_pairs("--options", options), split=split, seed=seed)
    path = write_manifest(built, out)
    record = built.record
    dropped = sum(reason["n"] for reason in record["dropped"])
    lines = [
        f"{record['recipe']}: {record['n']} images of {record['n_subjects']} subjects, {dropped} rows dropped",
        "images (prevalence) per group and split:",
        _cross_table(record["cross_tables"]),
        *(f"note: {note}" for note in record["notes"]),
        *(f"warning: under 10 of a class: {warning}" for warning in record["warnings"]),
        f"record: {path.with_suffix('.json')}",
        str(path),
    ]
    return "\n".join(lines)


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
    classes = num_classes or recorded_num_classes(manifest) or 2
    checked = read_manifest(manifest, num_classes=classes)
    found = check_images(checked, root, full=full, num_workers=num_workers or os.cpu_count() or 1)
    table = checked.table
    parts = ", ".join(f"{name} {count}" for name, count in table[checked.part].value_counts().items())
    missing = {name: int((table[name] == "").sum()) for name in checked.attributes}
    looked = "every image decoded" if full else "every header read; --full decodes every image"
    lines = [
        f"{len(table)} images of {table['subject_id'].nunique()} subjects",
        f"{checked.part}: {parts}",
        *(f"{name}: {table[name].nunique()} values, {count} missing" for name, count in missing.items()),
        *(f"{kind}: {count}" for kind, count in found.kinds.items()),
        *(f"note: lines {', '.join(map(str, same))} hold the same image" for same in found.repeated),
        f"{manifest}: no problem found ({looked})",
    ]
    return "\n".join(lines)


def enlarge_gaps(
    manifest: str,
    out: str,
    gaps: str | Sequence[str] | dict[str, dict[str, float]],
    parts: str | Sequence[str] = "",
    prevalence: float | None = None,
    seed: int = 0,
) -> str:
    """Write a manifest without some rows, so that the positive rates of groups differ by wanted gaps.

    Args:
        manifest: the CSV file, of two classes.
        out: the CSV file to write; how it was made stands in a JSON file of the same name beside it.
        gaps: positive rate of a group minus that of all others of its attribute, such as sex:female=0.16; several with
            commas between, in quotes where a name has a sign of the shell. A dictionary of dictionaries does too.
        parts: those to leave rows out of, each on its own, such as train,val; by default all.
        prevalence: positive rate of all rows of a part; by default as it is.
        seed: of the draw.
    """
    record = enlarge_gap_files(
        manifest,
        out,
        gaps=option_gaps("--gaps", gaps),
        parts=option_names(parts) if parts != "" else None,
        prevalence=prevalence,
        seed=seed,
    ).record
    lines = [
        f"{record['n']} of {record['n_before']} images kept, of {record['n_subjects']} of "
        f"{record['n_subjects_before']} subjects",
        *(
            f"{gap['split']}, {gap['attribute']}: {gap['group']} minus others {gap['before']:.3f} before, "
            f"{gap['after']:.3f} after (wanted {gap['wanted']:.3f}); n {gap['n_group_after']} and "
            f"{gap['n_others_after']}, {gap['n_missing_after']} missing"
            for gap in record["gap_enlarging"]["measured"]
        ),
        *(f"warning: {warning}" for warning in record["warnings"]),
        f"record: {Path(out).with_suffix('.json')}",
        out,
    ]
    return "\n".join(lines)


def bias_labels(
    manifest: str,
    out: str,
    group: str | Sequence[str] | dict[str, str],
    rate: float,
    method: Literal["exact", "bernoulli"] = "exact",
    parts: str | Sequence[str] = "",
    seed: int = 0,
) -> str:
    """Write a manifest in which a share of the positives of a group is labelled 0 in train and val; test stays clean.

    Args:
        manifest: the CSV file, of two classes.
        out: the CSV file to write, with the labels as they were in the column clean_label; how it was made stands in a
            JSON file of the same name beside it, and the changed labels in NAME_changes.csv.
        group: whose positives, such as sex=female; with several attributes (sex=female,age_group=<60, in quotes) rows
            that have all of them.
        rate: share of these positives, from 0 to 1.
        method: exact (the rounded count, in each part) or bernoulli (each on its own, by chance).
        parts: train, val or both; by default both.
        seed: of the draw.
    """
    record = bias_label_files(
        manifest,
        out,
        group=option_pairs("--group", group),
        rate=rate,
        method=method,
        parts=option_names(parts) if parts != "" else None,
        seed=seed,
    ).record
    made = record["label_bias"]
    lines = [
        f"{record['n']} images of {record['n_subjects']} subjects, {sum(row['n_changed'] for row in made['measured'])} "
        "labels changed",
        *(
            f"{row['split']}: {row['n_changed']} of {row['n_eligible']} positives of the group labelled 0; n "
            f"{row['n_group']} in the group, {row['n']} in all, {row['n_missing']} missing"
            for row in made["measured"]
        ),
        *(f"warning: {warning}" for warning in record["warnings"]),
        f"changes: {Path(out).with_name(made['changes'])}",
        f"record: {Path(out).with_suffix('.json')}",
        out,
    ]
    return "\n".join(lines)


def folds(manifest: str, out: str, folds: int = 5, seed: int = 0) -> str:
    """Write one manifest per fold for cross-validation: fold_0.csv and so on, by subject; rows of test stay test.

    Args:
        manifest: the CSV file; where it has a column fold, that is used as it is.
        out: folder to write to; how the folds were made stands in folds.json there.
        folds: number of folds.
        seed: of the dealing.
    """
    paths = write_folds(manifest, out, folds=folds, seed=seed)
    record = Path(out) / "folds.json"
    stored = read_json(record, "folds")
    counts = [", ".join(f"{part['split']} {part['n']}" for part in fold["parts"]) for fold in stored["manifests"]]
    lines = [
        *(f"{path}: {count}" for path, count in zip(paths, counts, strict=True)),
        *(f"warning: {warning}" for warning in stored["warnings"]),
        str(record),
    ]
    return "\n".join(lines)


def rebalance(
    manifest: str,
    subgroups: str,
    out: str,
    method: Literal["weights", "resample"] = "weights",
    missing: Literal["error", "drop", "group"] = "error",
    seed: int = 0,
) -> str:
    """Write a manifest whose training rows carry weights that balance label and subgroup; val and test rows stay.

    Args:
        manifest: the CSV file.
        subgroups: table of subject_id and subgroup, such as the subgroups.csv of discover.
        out: the CSV file to write; how it was made stands in a JSON file of the same name beside it.
        method: weights (Kamiran and Calders), or resample (how often a draw to equal cells takes the row).
        missing: training subjects without a subgroup: error, drop their rows, or put them in a group of their own.
        seed: of resample.
    """
    record = rebalance_files(manifest, subgroups, out, method=method, missing=missing, seed=seed).record
    made = record["rebalancing"]
    dropped = sum(reason["n"] for reason in record["dropped"])
    lines = [
        f"{record['n']} images of {record['n_subjects']} subjects, {dropped} rows dropped",
        "training rows per cell:",
        *(
            f"label {cell['label']}, {cell['subgroup']}: n {cell['n_before']}, weight {cell['weight_after']:.6g}"
            for cell in made["cells"]
        ),
        f"effective number of training rows: {made['effective_n']:.1f}",
        *(f"warning: {warning}" for warning in record["warnings"]),
        f"record: {Path(out).with_suffix('.json')}",
        out,
    ]
    return "\n".join(lines)


def _cross_table(cells: Sequence[dict[str, Any]]) -> str:
    """Lay n and prevalence out with one line per group and one column per part."""
    table = pd.DataFrame(cells)
    shares = ["" if pd.isna(share) else f" ({100 * share:.1f} %)" for share in table["prevalence"]]
    table["shown"] = [f"{n}{share}" for n, share in zip(table["n"], shares, strict=True)]
    wide = table.pivot_table(
        index=["attribute", "group"], columns="split", values="shown", aggfunc="first", fill_value="0", sort=False
    )
    return str(wide[[name for name in ("train", "val", "test") if name in wide]].to_string())
