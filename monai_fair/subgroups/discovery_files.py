"""From the folder of a registration to a folder of subgroups; its files are what later stages read.

``subgroups.csv`` has a row per registered subject: ``subject_id, split, fitted, subgroup`` and a probability per
subgroup. ``discovery.json`` says how they were found, how sure that is, and what goes along with them. ``maps`` holds
what sets each of them apart on the template. ``subgroup_model.safetensors``, written where something is claimed, gives
new subjects the same subgroups.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_fair.data import sha256, write_volume
from monai_fair.data.artifacts import fingerprint, read_json, write_json
from monai_fair.data.tables import write_table
from monai_fair.errors import ArtifactError
from monai_fair.subgroups.discovery import METHODS, Discovery, discover
from monai_fair.subgroups.discovery_inputs import (
    CohortRows,
    find_mask,
    input_hashes,
    read_cohort,
    read_representations,
)
from monai_fair.subgroups.discovery_record import associations, finding, membership_table, place_record
from monai_fair.subgroups.discovery_settings import FIT_SPLITS, DiscoverySettings
from monai_fair.subgroups.new_subjects import mask_sha256, registration_settings
from monai_fair.subgroups.registered_rows import LOG_JACOBIAN, Cohort
from monai_fair.subgroups.subgroup_maps import subgroup_maps
from monai_fair.subgroups.subgroup_model import SUBGROUP_MODEL, SubgroupModel, write_subgroup_model

_KIND = "discovery"


def discover_files(
    registered: str | Path,
    manifest: str | Path,
    out: str | Path,
    *,
    root: str | Path,
    representations: Sequence[str] = ("log_jacobian",),
    methods: Sequence[str] = METHODS,
    attributes: Sequence[str] | None = None,
    nuisances: Sequence[str] | None = None,
    fit_splits: Sequence[str] = FIT_SPLITS,
    block_mm: float = 8.0,
    keep_scale: bool = False,
    alpha: float = 0.05,
    min_stability: float = 0.6,
    embeddings: str | Path | None = None,
    regions: str | Path | None = None,
    template_mask: str | Path | None = None,
    seed: int = 0,
    num_workers: int = 4,
) -> Path:
    """Look for subgroups in registered subjects, and write what was found.

    A finished folder of the same settings and inputs is left as it is.

    Args:
        registered: folder of a registration, with ``registration.csv``.
        manifest: its manifest, with ``split``; ``label`` may be absent.
        out: folder to write to.
        root: data root of the manifest; its template's brain mask is looked for there.
        representations: names of :data:`~monai_fair.subgroups.registered_rows.REPRESENTATIONS`. Local volume shows
            local effects where codes, displacements and intensities do not; each more is one more chance of a false
            claim, which the adjusted p pays for.
        methods: see :func:`discover`.
        attributes: columns to compare the subgroups with afterwards, never used to find them; ``None`` takes every
            attribute of the manifest. One of numbers with more than 10 different values counts as numeric.
        nuisances: attributes whose linear effect, estimated in the fitted subjects, is taken out of every
            representation before looking; see :func:`~monai_fair.subgroups.read_nuisances`. A claim then says that
            there are subgroups which differ in more than that.
        fit_splits: parts the fit sees: ``train``, ``val`` or both.
        block_mm: side of the blocks that maps are averaged over.
        keep_scale: leave the size of a subject's brain in its log Jacobians and regional volumes.
        alpha: see :func:`discover`.
        min_stability: as well.
        embeddings: for ``embeddings``: a table of ``subject_id`` and numbers, or ``features.safetensors`` of a
            classifier beside its predictions; see :func:`~monai_fair.subgroups.embedding_rows`.
        regions: for ``regional_volumes``: label image on the template's grid; see
            :func:`~monai_fair.subgroups.read_regions`.
        template_mask: brain mask of the template, where it does not lie under ``root``.
        seed: of everything drawn.
        num_workers: threads that read.

    Returns:
        Path of ``subgroups.csv``.

    Raises:
        ArtifactError: if ``out`` is of other settings or inputs.
        MonaiFairError: with every problem of options and files.
    """
    settings = DiscoverySettings(
        representations=tuple(representations),
        methods=tuple(methods),
        attributes=None if attributes is None else tuple(attributes),
        nuisances=tuple(nuisances) if nuisances else None,
        fit_splits=tuple(fit_splits),
        block_mm=block_mm,
        keep_scale=keep_scale,
        alpha=alpha,
        min_stability=min_stability,
        seed=seed,
    )
    settings.check(embeddings=embeddings, regions=regions)
    cohort = read_cohort(registered, manifest)
    mask = find_mask(root, template_mask, representations)
    inputs = input_hashes(
        cohort,
        manifest,
        representations=representations,
        embeddings=embeddings,
        mask=mask,
        regions=regions,
        root=root,
    )
    folder = Path(out)
    if _is_finished(folder, {"settings": settings.record(), "inputs": inputs}):
        return folder / "subgroups.csv"
    settings.check_cohort(cohort, manifest)
    rows, found = _look(
        cohort, settings, root=root, mask=mask, embeddings=embeddings, regions=regions, num_workers=num_workers
    )
    model = _model(cohort, settings, rows, found, mask=mask, regions=regions, key=_key(settings, inputs))
    return _write(folder, cohort, settings, inputs, rows, found, model, num_workers)


def _look(
    cohort: Cohort,
    settings: DiscoverySettings,
    *,
    root: str | Path,
    mask: Path | None,
    embeddings: str | Path | None,
    regions: str | Path | None,
    num_workers: int,
) -> tuple[CohortRows, Discovery]:
    """Read the rows of all subjects, and look for subgroups in those of the fitted ones."""
    rows = read_representations(
        cohort,
        settings.representations,
        root=root,
        mask=mask,
        fit_splits=settings.fit_splits,
        block_mm=settings.block_mm,
        keep_scale=settings.keep_scale,
        embeddings=embeddings,
        num_workers=num_workers,
        regions=regions,
        nuisances=settings.nuisances or (),
    )
    found = discover(
        rows.representations,
        cohort.table.loc[cohort.fitted(settings.fit_splits), "subject_id"].tolist(),
        positions=rows.positions,
        methods=settings.methods,
        alpha=settings.alpha,
        min_stability=settings.min_stability,
        seed=settings.seed,
    )
    return rows, found


def _key(settings: DiscoverySettings, inputs: Mapping[str, str]) -> str:
    return fingerprint([settings.record(), inputs])


def _model(
    cohort: Cohort,
    settings: DiscoverySettings,
    rows: CohortRows,
    found: Discovery,
    *,
    mask: Path | None,
    regions: str | Path | None,
    key: str,
) -> SubgroupModel | None:
    """Return what gives new subjects the subgroups that are claimed, if there are any."""
    if found.chosen is None or found.assignment is None:
        return None
    kind = found.candidates[found.chosen].representation
    return SubgroupModel(
        assignment=found.assignment,
        rule=rows.rules[kind],
        nuisances=rows.nuisances.names,
        categories=rows.nuisances.categories,
        block_mm=settings.block_mm,
        template_mask_sha256=mask_sha256(mask, kind),
        regions_sha256=sha256(regions) if regions and kind == "regional_volumes" else "",
        registration=registration_settings(cohort.folder),
        key=key,
    )


def _write(
    folder: Path,
    cohort: Cohort,
    settings: DiscoverySettings,
    inputs: Mapping[str, str],
    rows: CohortRows,
    found: Discovery,
    model: SubgroupModel | None,
    num_workers: int,
) -> Path:
    """Write table, model, maps and, last, the record that says the folder is finished; return the path of the table."""
    compared = associations(cohort, found, settings.attributes, settings.seed)
    table = write_table(folder / "subgroups.csv", membership_table(cohort, found))
    record = {
        "key": _key(settings, inputs),
        "settings": settings.record(),
        "inputs": inputs,
        "subgroups_sha256": sha256(table),
        "model_sha256": None if model is None else sha256(write_subgroup_model(folder / SUBGROUP_MODEL, model)),
        **finding(cohort, found, settings.alpha),
        "nuisances": rows.nuisances.record(),
        "place": place_record(found, rows),
        **compared,
        "notes": rows.notes + compared["notes"],
        "maps": _write_maps(folder, cohort, found, num_workers),
    }
    write_json(folder / "discovery.json", _KIND, record)
    return table


def _write_maps(folder: Path, cohort: Cohort, found: Discovery, num_workers: int) -> dict[str, str]:
    """Write the maps of fitted subjects; none where the registration left no log Jacobians."""
    subgroup = dict(zip(found.subject_ids, found.subgroup, strict=True))
    fitted = [subject for subject, seen in zip(found.subject_ids, found.fitted, strict=True) if seen]
    paths = {subject: cohort.path(subject, LOG_JACOBIAN) for subject in fitted}
    if not all(path.is_file() for path in paths.values()):
        return {}
    differences, spread, grid = subgroup_maps(paths, subgroup, num_workers=num_workers)
    write_volume(folder / "maps" / "desc-spread_map.nii.gz", spread, grid)
    files = {name: f"maps/{name}_desc-logjacobian_map.nii.gz" for name in differences}
    for name, difference in differences.items():
        write_volume(folder / files[name], difference, grid)
    return files


def _is_finished(folder: Path, own: Mapping[str, Mapping[str, Any]]) -> bool:
    """Say whether the folder holds this very discovery.

    Raises:
        ArtifactError: if it holds one of other settings or inputs.
    """
    path, table = folder / "discovery.json", folder / "subgroups.csv"
    if not path.is_file():
        return False
    saved = read_json(path, _KIND)
    changes = [
        f"{name}: {then.get(name, 'not set')} there, {now.get(name, 'not set')} now"
        for then, now in ((saved["settings"], own["settings"]), (saved["inputs"], own["inputs"]))
        for name in sorted({*then, *now})
        if fingerprint(then.get(name)) != fingerprint(now.get(name))
    ]
    if changes:
        raise ArtifactError(
            f"{path}: made with other settings or inputs ({'; '.join(changes)}); choose another folder or remove it"
        )
    maps = [folder / file for file in saved["maps"].values()]
    # a folder of before has no model
    own_files = [(table, saved["subgroups_sha256"])]
    own_files += [(folder / SUBGROUP_MODEL, saved.get("model_sha256"))] if saved["claimed"] else []
    whole = all(file.is_file() and sha256(file) == digest for file, digest in own_files)
    return whole and all(file.is_file() for file in maps)
