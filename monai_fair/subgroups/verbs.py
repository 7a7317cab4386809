"""The verb ``discover`` of the command line."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_fair.data.artifacts import read_json
from monai_fair.data.option_values import option_names


def discover(
    registered: str,
    manifest: str,
    root: str,
    out: str,
    representations: str | Sequence[str] = "log_jacobian",
    methods: str | Sequence[str] = "local,mixture",
    attributes: str | Sequence[str] = "",
    fit_splits: str | Sequence[str] = "train,val",
    block_mm: float = 8.0,
    keep_scale: bool = False,
    alpha: float = 0.05,
    min_stability: float = 0.6,
    embeddings: str = "",
    template_mask: str = "",
    seed: int = 0,
    num_workers: int = 4,
) -> str:
    """Find subgroups of registered subjects without labels or attributes; ends with the path of subgroups.csv.

    Args:
        registered: folder that a registration wrote, with registration.csv.
        manifest: its manifest.csv, with splits.
        root: data root that the image paths start from; the template's brain mask is looked for there.
        out: folder for subgroups.csv, discovery.json and maps; a finished one of the same options is left as it is.
        representations: what subjects are compared by: log_jacobian (local volume), displacement, codes, intensity
            (the images as they are), embeddings. Every one costs some power: p is adjusted for all.
        methods: local (two kinds in one place of the brain), mixture (clouds in the leading principal components).
        attributes: recorded attributes to compare subgroups with afterwards, such as sex,age; by default all.
        fit_splits: parts of the manifest that the search sees; never test.
        block_mm: side of the blocks that maps are averaged over.
        keep_scale: look also at the overall size of the brain; by default it is taken out of log_jacobian.
        alpha: chance of a claim where there are no subgroups.
        min_stability: least agreement between resamples of the subjects that a claim needs, 1 for the same each time.
        embeddings: table of subject_id and numbers that another model made; looked at beside the representations.
        template_mask: brain mask of the template, if it is not under root.
        seed: of everything drawn.
        num_workers: threads that read.
    """
    from monai_fair.subgroups.discovery_files import discover_files

    names = option_names(representations)
    if embeddings and "embeddings" not in names:
        names.append("embeddings")
    table = discover_files(
        registered,
        manifest,
        out,
        root=root,
        representations=names,
        methods=option_names(methods),
        attributes=option_names(attributes) if attributes else None,
        fit_splits=option_names(fit_splits),
        block_mm=block_mm,
        keep_scale=keep_scale,
        alpha=alpha,
        min_stability=min_stability,
        embeddings=embeddings or None,
        template_mask=template_mask or None,
        seed=seed,
        num_workers=num_workers,
    )
    return "\n".join([*_lines(read_json(Path(out) / "discovery.json", "discovery")), str(table)])


def _lines(record: Mapping[str, Any]) -> Iterator[str]:
    """Say in plain lines what was found and how sure that is."""
    failed = f"; {len(record['failed'])} of the manifest are not registered" if record["failed"] else ""
    yield f"{record['n']} subjects, {record['n_fitted']} of them fitted{failed}"
    tried = record["candidates"]
    for one in tried:
        sizes = "+".join(map(str, one["sizes"]))
        p = f"p {_number(one['p'])}, adjusted for {len(tried)} {_number(one['p_holm'])}"
        rest = f" ({one['reason']})" if one["reason"] else ""
        yield f"{one['representation']}, {one['method']}: {sizes}, {p}, stability {_number(one['stability'])}{rest}"
    if not record["claimed"]:
        yield "no subgroup claimed: all subjects are in S1"
    elif record["place"]:
        x, y, z = record["place"]["world_mm"]
        yield f"claimed: subgroups that differ around x {x:.0f}, y {y:.0f}, z {z:.0f} mm (right, anterior, superior)"
    for group in record["subgroups"]:
        yield f"{group['name']}: {', '.join(f'{part} {n}' for part, n in group['n_by_split'].items())}"
    yield from _association_lines(record)


def _association_lines(record: Mapping[str, Any]) -> Iterator[str]:
    for part, found in record["label_association"].items() if record["claimed"] else ():
        for row in found["rows"]:
            share = f"label 1 in {row['n_positive']} of {row['n']}"
            odds = f"odds ratio {_number(row['odds_ratio'])} ({_number(row['low'])} to {_number(row['high'])})"
            yield f"{part}, {row['subgroup']}: {share}, {row['reason'] or odds}"
    for row in record["attribute_associations"] if record["claimed"] else ():
        measure = "Cramer's V" if row["measure"] == "cramers_v" else f"AUROC of {row['subgroup']}"
        value = f"{measure} {_number(row['value'])}, p {_number(row['p'])}, adjusted {_number(row['p_holm'])}"
        yield f"{row['attribute']}: {row['reason'] or value}, n {row['n']}"
    for note in record["notes"]:
        yield f"note: {note}"


def _number(value: float | None) -> str:
    """Show a number; JSON has no infinity and no NaN."""
    return "undefined" if value is None else f"{value:.2g}"
