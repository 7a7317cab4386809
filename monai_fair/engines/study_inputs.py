"""What a study is given: every problem is told at once, before it starts."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from monai_fair.data import Manifest, load_datalist, read_manifest, recorded_num_classes
from monai_fair.data.predictions import SPLITS, Predictions
from monai_fair.engines.generation_plan import PREFIX
from monai_fair.errors import ManifestError, MonaiFairError, raise_problems
from monai_fair.metrics.binning import with_bins
from monai_fair.metrics.cases import MAX_LEVELS, MAX_NUMERIC_LEVELS
from monai_fair.subgroups.discovery import LEAST_ROWS
from monai_fair.subgroups.discovery_settings import representation_problems
from monai_fair.subgroups.nuisances import nuisance_problems

_USES = {"train": "models learn from them", "val": "thresholds are chosen on them", "test": "arms are compared on them"}
_SHOWN = 5  # subjects named in a message; the rest is counted


def check_study_inputs(
    manifest: str | Path,
    *,
    dataset_dir: str | Path,
    generated_dir: str | Path,
    attributes: Sequence[str] = (),
    nuisances: Sequence[str] | None = None,
    representations: Sequence[str] = ("log_jacobian",),
    embeddings: str | Path | None = None,
    regions: str | Path | None = None,
    outputs: Sequence[str | Path] = (),
    config_dir: str | Path = ".",
    base: Sequence[str] = (),
    arms: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Refuse what a study of registration, discovery, generation and training could not finish with.

    Args:
        manifest: of the cohort.
        dataset_dir: data root that its image paths start from.
        generated_dir: where generated images are to lie.
        attributes: what the audit compares, as columns or ``column:rule``.
        nuisances: columns that are taken out before looking for subgroups.
        representations: what they are looked for in.
        embeddings: file of the representation of that name.
        regions: label image of the representation ``regional_volumes``.
        outputs: manifests that the study writes.
        config_dir: where config files lie.
        base: names of those of every training.
        arms: arm to the names of its own.

    Raises:
        ManifestError: if the manifest breaks its contract; else with every problem of the study.
    """
    num_classes = recorded_num_classes(manifest) or 2
    checked = read_manifest(manifest, num_classes=num_classes, labelled=False)
    # names every path that leaves the root
    load_datalist(manifest, dataset_dir, num_classes=num_classes, labelled=False)
    problems = [*_column_problems(checked), *row_problems(checked)]
    problems += _subject_problems(checked.table["subject_id"].tolist())
    problems += _attribute_problems(checked, attributes)
    problems += _nuisance_problems(checked, nuisances or ())
    problems += _look_problems(representations, embeddings, regions)
    problems += _place_problems(Path(generated_dir), Path(dataset_dir))
    problems += [overwritten(path) for path in outputs if Path(path).resolve() == Path(manifest).resolve()]
    files = dict.fromkeys(Path(config_dir) / name for names in (base, *(arms or {}).values()) for name in names)
    problems += [f"expected the file {path}, found none; correct the arms" for path in files if not path.is_file()]
    raise_problems(ManifestError, manifest, problems)


def _column_problems(manifest: Manifest) -> list[str]:
    problems = []
    if "label" not in manifest.table:
        problems.append(
            "expected a column 'label', found none; add it (python -m monai_fair discover looks for subgroups without)"
        )
    if "split" not in manifest.table:
        problems.append("expected a column 'split' (train, val, test), found none; add it")
    problems += [
        f"expected no column '{name}', the study makes its own; rename or remove it"
        for name in ("subgroup", "weight")
        if name in manifest.table
    ]
    return problems


def row_problems(manifest: Manifest) -> list[str]:
    """Return what parts and labels of a manifest lack for a study; nothing is said of a column that is absent."""
    problems = _part_problems(manifest) if "split" in manifest.table else []
    return problems + (_class_problems(manifest) if {"label", "split"} <= set(manifest.table) else [])


def _part_problems(manifest: Manifest) -> list[str]:
    sizes = manifest.table["split"].value_counts()
    found = ", ".join(f"{name} {sizes[name]}" for name in SPLITS if name in sizes) or "no rows"
    problems = [
        f"expected rows with split '{name}' ({use}), got none; found {found}"
        for name, use in _USES.items()
        if name not in sizes
    ]
    fitted = int(sum(sizes.get(name, 0) for name in ("train", "val")))
    if fitted < LEAST_ROWS:
        problems.append(
            f"expected at least {LEAST_ROWS} subjects in train and val to look for subgroups in, got {fitted}; fewer "
            "show no shape to speak of"
        )
    return problems


def _class_problems(manifest: Manifest) -> list[str]:
    training = manifest.table.loc[manifest.table["split"] == "train", "label"]
    counts = training.value_counts()
    found = ", ".join(f"label {label} {counts[label]}" for label in sorted(counts.index)) or "no rows"
    absent = [str(label) for label in range(manifest.num_classes) if label not in counts]
    wanted = f"expected training rows of every label, got none of {', '.join(absent)}; found {found}"
    return [wanted] if len(training) and absent else []


def _subject_problems(subjects: Sequence[str]) -> list[str]:
    # a registration's folders are named sub-ID, whether the id has the prefix or not
    counts = Counter(subject.removeprefix("sub-") for subject in subjects)
    problems = []
    if several := [name for name, count in counts.items() if count > 1]:
        problems.append(
            f"expected one image for each subject, {len(several)} of {len(counts)} have more: {_some(several)}; keep "
            "one (most recipes have --options sessions=first)"
        )
    if taken := [subject for subject in subjects if subject.startswith(PREFIX)]:
        problems.append(f"expected no subject named '{PREFIX}...', which generated ones are, got {_some(taken)}")
    return problems


def _name_problems(option: str, names: Sequence[str]) -> list[str]:
    if isinstance(names, str):  # each of its letters would be a name
        return [f"{option}: expected a list such as \"['{names}']\", got '{names}'; write it as one"]
    repeated = [name for name, count in Counter(names).items() if count > 1]
    return [f"{option}: expected '{name}' once, got it several times; keep one" for name in repeated]


def _nuisance_problems(manifest: Manifest, nuisances: Sequence[str]) -> list[str]:
    problems = _name_problems("nuisances", nuisances)
    if isinstance(nuisances, str):
        return problems
    recorded = ", ".join(manifest.attributes) or "none"
    wanted = list(dict.fromkeys(nuisances))
    problems += [
        f"nuisances: expected recorded ones ({recorded}), got '{name}'; correct the name"
        for name in wanted
        if name not in manifest.attributes
    ]
    if "split" not in manifest.table:
        return problems
    fitted = manifest.table["split"].isin(["train", "val"]).to_numpy(dtype=bool)
    known = [name for name in wanted if name in manifest.attributes]
    return problems + nuisance_problems(manifest.table, known, fitted)


def _look_problems(names: Sequence[str], embeddings: str | Path | None, regions: str | Path | None) -> list[str]:
    if problems := _name_problems("representations", names):
        return problems
    files = {"embeddings": embeddings, "regions": regions}
    return representation_problems(names, **files) + [
        f"{option}: expected the file {path}, found none; correct the path"
        for option, path in files.items()
        if path and not Path(path).is_file()
    ]


def _attribute_problems(manifest: Manifest, attributes: Sequence[str]) -> list[str]:
    recorded = ", ".join(manifest.attributes) or "none"
    problems = _name_problems("attributes", attributes)
    if isinstance(attributes, str):
        return problems
    for name in dict.fromkeys(attributes):
        column = name.rpartition(":")[0] or name
        if column not in manifest.attributes:
            problems.append(
                f"attributes: expected recorded ones ({recorded}), got '{column}'; correct the name, or give "
                '--attributes "[]" to compare the discovered subgroups alone'
            )
        elif "split" in manifest.table and (problem := _group_problem(manifest, name)):
            problems.append(problem)
    return problems


def _group_problem(manifest: Manifest, name: str) -> str:
    """Say why the audit, at the end of the study, could not make groups of an attribute."""
    if ":" in name:
        rows = Predictions(manifest.table, (), manifest.attributes, manifest.source)
        try:
            with_bins({"study": [rows]}, [name], split="test")
        except MonaiFairError as error:
            return str(error)
        return ""
    values = manifest.table.loc[manifest.table["split"] == "test", name]
    distinct = values[values != ""].drop_duplicates()
    if len(distinct) > MAX_NUMERIC_LEVELS and pd.to_numeric(distinct, errors="coerce").notna().all():
        return (
            f"attributes: expected groups in '{name}', got {len(distinct)} different numbers in test rows; give "
            f"'{name}:quartiles', or cuts of your own such as '{name}:40/60/80'"
        )
    if len(distinct) > MAX_LEVELS:
        return (
            f"attributes: expected at most {MAX_LEVELS} groups in '{name}', got {len(distinct)} different values in "
            "test rows; group them in a column of its own"
        )
    return ""


def _place_problems(generated: Path, root: Path) -> list[str]:
    inside, outside = generated.resolve(), root.resolve()
    if inside != outside and inside.is_relative_to(outside):
        return []
    return [
        f"generated_dir: expected a folder of its own below dataset_dir ({root}), where a manifest's images lie, "
        f"got {generated}; give one such as {root / 'derivatives' / 'generated'}"
    ]


def overwritten(path: str | Path) -> str:
    """Return the problem of a manifest that would be written over."""
    return f"{path}: expected another file than the manifest, which would be overwritten; choose another output_dir"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
