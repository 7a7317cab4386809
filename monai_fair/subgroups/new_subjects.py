"""New subjects and the subgroups that a discovery claimed: registered as its own, assigned by its stored model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from threadpoolctl import threadpool_limits

from monai_fair.data import sha256
from monai_fair.data.artifacts import read_json
from monai_fair.data.tables import write_table
from monai_fair.errors import ArtifactError, MonaiFairError, raise_problems
from monai_fair.subgroups.discovery_inputs import find_mask, read_new_subjects
from monai_fair.subgroups.discovery_settings import representation_problems
from monai_fair.subgroups.nuisances import coded_nuisances
from monai_fair.subgroups.registered_rows import ON_TEMPLATE, Cohort, RowReader
from monai_fair.subgroups.subgroup_model import SUBGROUP_MODEL, SubgroupModel, probability_columns, read_subgroup_model

FloatArray = npt.NDArray[np.float64]


def read_discovered(discovery: str | Path) -> SubgroupModel:
    """Read the model of a folder of a discovery.

    Raises:
        ArtifactError: if the folder is of no discovery, nothing is claimed there, or its model is missing or of another
            discovery.
    """
    folder = Path(discovery)
    record = read_json(folder / "discovery.json", "discovery")
    if not record["claimed"]:
        raise ArtifactError(
            f"{folder / 'discovery.json'}: expected subgroups that are claimed, got none; where nothing is "
            "claimed there is no subgroup to assign"
        )
    if not (folder / SUBGROUP_MODEL).is_file():
        raise ArtifactError(
            f"{folder}: expected {SUBGROUP_MODEL}, found none; run discover again with the options of the folder, "
            "which completes it"
        )
    model = read_subgroup_model(folder / SUBGROUP_MODEL)
    if model.key != record["key"]:
        raise ArtifactError(
            f"{folder / SUBGROUP_MODEL}: expected the model of discovery.json beside it, got that of another "
            "discovery; run discover again"
        )
    return model


def registration_settings(registered: str | Path) -> Mapping[str, Any] | None:
    """Return the settings of a registration, or ``None`` where its folder does not say them."""
    path = Path(registered) / "registration.json"
    return dict(read_json(path, "registration")["settings"]) if path.is_file() else None


def assign_files(
    discovery: str | Path,
    registered: str | Path,
    manifest: str | Path,
    out: str | Path,
    *,
    root: str | Path,
    template_mask: str | Path | None = None,
    regions: str | Path | None = None,
    embeddings: str | Path | None = None,
    num_workers: int = 4,
) -> Path:
    """Give registered subjects their probabilities of the subgroups of a discovery, and write them.

    For subjects of the discovery these are those of its ``subgroups.csv``; for every other subject, what it would have
    written had the subject been in its test part.

    Args:
        discovery: folder of :func:`~monai_fair.subgroups.discover_files`.
        registered: folder of the new subjects' registration, by the model and the settings of the discovery's.
        manifest: of the subjects; labels and splits are not needed.
        out: CSV file to write: ``subject_id``, ``subgroup``, a probability per subgroup, and ``reason`` why a subject
            has none.
        root: data root of the manifest; the template's brain mask is looked for there.
        template_mask: brain mask of the template, where it does not lie under ``root``.
        regions: label image, where the discovery looked at ``regional_volumes``.
        embeddings: table or features, where it looked at ``embeddings``.
        num_workers: threads that read.

    Returns:
        ``out`` as a ``Path``.

    Raises:
        ArtifactError: see :func:`read_discovered`; or if the subjects lie on another grid, or were registered in
            another way.
        MonaiFairError: with every problem of options and files.
    """
    model = read_discovered(discovery)
    cohort = read_new_subjects(registered, manifest)
    mask = find_mask(root, template_mask, [model.representation])
    table = assign_subjects(
        model, cohort, root=root, mask=mask, regions=regions, embeddings=embeddings, num_workers=num_workers
    )
    return write_table(out, table)


def assign_subjects(
    model: SubgroupModel,
    cohort: Cohort,
    *,
    root: str | Path,
    mask: Path | None,
    regions: str | Path | None = None,
    embeddings: str | Path | None = None,
    num_workers: int = 4,
) -> pd.DataFrame:
    """Return the table of :func:`assign_files`: registered subjects first, then those that are not.

    Args:
        model: of :func:`read_discovered`.
        cohort: of :func:`~monai_fair.subgroups.discovery_inputs.read_new_subjects`.
        root: see :func:`assign_files`, as the others.
        mask: brain mask of the template; ``None`` where the representation lies on no grid.
        regions: label image.
        embeddings: table or features.
        num_workers: threads that read.

    Raises:
        ArtifactError: if the subjects lie on another grid, or were registered in another way.
        MonaiFairError: with every problem of options and files.
    """
    check_place(model, cohort.folder, mask=mask, regions=regions, embeddings=embeddings)
    recorded, reasons = coded_nuisances(cohort.table, model.nuisances, model.categories)
    membership = np.full((len(cohort.subjects), len(model.names)), np.nan)
    known = np.array([not reason for reason in reasons], dtype=bool)
    if known.any():
        reader = RowReader(
            cohort=cohort,
            root=Path(root),
            mask=mask,
            embeddings=Path(embeddings) if embeddings else None,
            regions=Path(regions) if regions else None,
            block_mm=model.block_mm,
            num_workers=num_workers,
        )
        values = reader.rows(model.representation)[0].values
        with threadpool_limits(1):
            membership[known] = model.membership(values[known], recorded[known])
    return _table(model, [*cohort.subjects, *cohort.failed], membership, [*reasons, *cohort.failed.values()])


def check_place(
    model: SubgroupModel,
    registered: str | Path,
    *,
    mask: str | Path | None,
    regions: str | Path | None = None,
    embeddings: str | Path | None = None,
) -> None:
    """Raise what makes subjects other than those of the discovery: their template, regions or registration.

    Args:
        model: of the discovery.
        registered: folder of the subjects' registration.
        mask: brain mask of the template.
        regions: label image.
        embeddings: table or features.

    Raises:
        MonaiFairError: if a file is given that is not needed, or the other way round.
        ArtifactError: with every difference.
    """
    asked = representation_problems([model.representation], embeddings=embeddings, regions=regions)
    raise_problems(MonaiFairError, "assign", asked)
    wanted = [("mask", mask, model.template_mask_sha256), ("regions", regions, model.regions_sha256)]
    problems = [
        f"{path}: expected the {name} of the discovery's template (SHA-256 {own[:12]}...), got another "
        f"({sha256(str(path))[:12]}...); give the template of the discovery"
        for name, path, own in wanted
        if own and sha256(str(path)) != own
    ]
    problems += [f"{registered}: {text}" for text in model.registration_problems(registration_settings(registered))]
    raise_problems(ArtifactError, "assign", problems)


def mask_sha256(mask: Path | None, representation: str) -> str:
    """Return what binds rows to the grid of a template; empty for those that lie on none."""
    return sha256(mask) if mask is not None and representation in ON_TEMPLATE else ""


def _table(
    model: SubgroupModel, subjects: Sequence[str], membership: FloatArray, reasons: Sequence[str]
) -> pd.DataFrame:
    """Return a row for each subject; those without probabilities have empty cells and a reason."""
    whole = np.full((len(subjects), len(model.names)), np.nan)
    whole[: len(membership)] = membership
    best = [
        "" if np.isnan(row).any() else model.names[place]
        for row, place in zip(whole, np.nan_to_num(whole).argmax(axis=1), strict=True)
    ]
    table = pd.DataFrame({"subject_id": list(subjects), "subgroup": best})
    columns = {name: whole[:, place] for place, name in enumerate(probability_columns(model))}
    return table.assign(**columns, reason=list(reasons))
