"""Which images are to be generated: read from manifest, subgroups and codes, before any image is made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from monai_fair.data import Manifest, read_manifest, recorded_num_classes, sha256
from monai_fair.data.artifacts import read_tensors
from monai_fair.data.rebalancing_files import read_subgroups
from monai_fair.engines.code_table import read_codes
from monai_fair.engines.generation_cells import CellPlan, GenerationOptions, PlannedImage, plan_cells, plan_images
from monai_fair.errors import ArtifactError, ManifestError, raise_problems
from monai_fair.subgroups.code_sampling import CodeSampler

PREFIX = "gen-"
_SHOWN = 5  # subjects named in a message; the rest is counted


@dataclass(frozen=True, eq=False)
class GenerationPlan:
    """What is to be made, before any image is.

    Attributes:
        images: what each is made of.
        sampler: of the training codes.
        subject_ids: of the sampler's rows.
        manifest: that the images are added to.
        subgroups: subject to subgroup, of all that have one.
        cells: one for every label and subgroup, empty ones too.
        warnings: what whoever uses the images should know.
        options: as given.
        inputs: names of the files it was made of, with their SHA-256.
    """

    images: list[PlannedImage]
    sampler: CodeSampler
    subject_ids: list[str]
    manifest: Manifest
    subgroups: dict[str, str]
    cells: list[CellPlan]
    warnings: list[str]
    options: GenerationOptions
    inputs: dict[str, str]


def read_generation_plan(
    manifest: str | Path,
    subgroups: str | Path,
    registered: str | Path,
    ckpt_path: str | Path,
    options: GenerationOptions,
) -> GenerationPlan:
    """Plan images from files; see :func:`plan_generation`.

    Args:
        manifest: of the cohort.
        subgroups: a table with ``subject_id`` and ``subgroup``, such as that of ``python -m monai_fair discover``.
        registered: folder of a registration.
        ckpt_path: of the network that it used.
        options: how many images, and how.

    Raises:
        ArtifactError: if the codes are of another network, or a file cannot be read.
    """
    path = Path(registered) / "codes.safetensors"
    subjects, codes = read_codes(path)
    # read before they are hashed, so that a missing file is named by its reader
    cohort = read_manifest(manifest, num_classes=recorded_num_classes(manifest) or 2)
    groups = {subject: group for subject, group in read_subgroups(subgroups).items() if group}
    files = {"manifest": manifest, "subgroups": subgroups, "codes": path, "model": ckpt_path}
    inputs = {f"{name}_sha256": sha256(file) for name, file in files.items()}
    fitted = read_tensors(path)[1].get("network_fingerprint", "")
    if fitted != inputs["model_sha256"]:
        raise ArtifactError(
            f"{path}: expected codes of {Path(ckpt_path).name}, got those of another network; give the registration "
            "and the network that belong together"
        )
    return plan_generation(cohort, groups, subjects, codes.numpy(), options, inputs=inputs)


def plan_generation(
    manifest: Manifest,
    subgroups: Mapping[str, str],
    subject_ids: Sequence[str],
    codes: npt.ArrayLike,
    options: GenerationOptions,
    *,
    inputs: Mapping[str, str] | None = None,
) -> GenerationPlan:
    """Decide what fills the training rows' cells, label by subgroup, up to the largest.

    Args:
        manifest: with ``label`` and ``split``, one row per training subject.
        subgroups: subject to its subgroup. Training subjects without one, whose registration failed, do not count.
        subject_ids: of the codes; those of other splits are not looked at.
        codes: shape ``(n, ...)``.
        options: how many images, and how.
        inputs: hashes for the record.

    Raises:
        ManifestError: with every problem of manifest, subgroups and codes.
        MonaiFairError: with every problem of the codes.
    """
    row_of = {str(subject): row for row, subject in enumerate(subject_ids)}
    raise_problems(ManifestError, manifest.source, _problems(manifest, subgroups, row_of))
    training = manifest.table[manifest.table["split"] == "train"]
    known = training[training["subject_id"].isin(list(subgroups))]
    subjects = known["subject_id"].tolist()
    cells = [(int(label), subgroups[subject]) for label, subject in zip(known["label"], subjects, strict=True)]
    values = np.asarray(codes, dtype=np.float64)[[row_of[subject] for subject in subjects]]
    sampler = CodeSampler(
        values.reshape(len(values), -1), cells, rule=options.rule, explained=options.explained, level=options.level
    )
    planned = plan_cells(cells, sampler, options)
    return GenerationPlan(
        plan_images(planned, cells, options, prefix=PREFIX),
        sampler,
        subjects,
        manifest,
        dict(subgroups),
        planned,
        _warnings(planned, len(training) - len(known), len(training)),
        options,
        dict(inputs or {}),
    )


def _problems(manifest: Manifest, subgroups: Mapping[str, str], row_of: Mapping[str, int]) -> list[str]:
    table = manifest.table
    problems = [f"expected a column '{name}', found none; add it" for name in ("label", "split") if name not in table]
    if "weight" in table:
        problems.append(
            "expected no column 'weight', its weights are those of the rows without generated ones; give the manifest "
            "it was made of"
        )
    if problems:
        return problems
    if "subgroup" in table and _disagreeing(manifest, subgroups):
        problems.append("column 'subgroup': expected the given subgroups or no such column, got others; rename it")
    taken = [subject for subject in table["subject_id"] if subject.startswith(PREFIX)]
    if taken:
        problems.append(f"expected no subject named '{PREFIX}...', which generated ones are, got {_some(taken)}")
    training = table.loc[table["split"] == "train", "subject_id"]
    if several := training[training.duplicated()].unique().tolist():
        problems.append(
            f"expected one image per training subject, {len(several)} have more: {_some(several)}; keep one"
        )
    members = [subject for subject in training if subject in subgroups]
    if not members:
        problems.append("expected training subjects with a subgroup, got none; check the ids")
    if absent := [subject for subject in members if subject not in row_of]:
        problems.append(
            f"expected a code for every training subject with a subgroup, {len(absent)} of {len(members)} have none: "
            f"{_some(absent)}; give the registration that the subgroups were found in"
        )
    return problems


def _disagreeing(manifest: Manifest, subgroups: Mapping[str, str]) -> bool:
    pairs = zip(manifest.table["subject_id"], manifest.table["subgroup"], strict=True)
    return any(written != subgroups.get(subject, "") for subject, written in pairs)


def _warnings(cells: Sequence[CellPlan], without: int, n: int) -> list[str]:
    warnings = []
    if len({cell.subgroup for cell in cells}) == 1:
        warnings.append("there is one subgroup only: nothing but the labels' deficit can be filled")
    if without:
        warnings.append(f"{without} of {n} training subjects have no subgroup and are not counted in any cell")
    warnings += [
        f"label {cell.label} in subgroup '{cell.subgroup}': {cell.generated} images for a deficit of {cell.deficit}: "
        f"{cell.reason}"
        for cell in cells
        if cell.reason
    ]
    if not any(cell.generated for cell in cells):
        warnings.append("no image was generated: no cell lacks any, or none could be sampled")
    return warnings


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
