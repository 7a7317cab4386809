"""The command line: ``python -m monai_fair <verb>``. Engines run as bundles: ``python -m monai.bundle run``."""

import sys
from collections.abc import Sequence
from typing import Literal

import fire

from monai_fair.data.option_values import option_names, option_pairs
from monai_fair.errors import MonaiFairError


def audit(
    *predictions: str,
    attributes: str | Sequence[str],
    out: str = "audit",
    columns: str | Sequence[str] | dict[str, str] = "",
    missing: Literal["drop", "group"] = "drop",
    thresholds: str | Sequence[str] = "youden,0.5",
    intersections: bool = True,
    resamples: int = 2000,
    permutations: int = 2000,
    seed: int = 0,
    min_count: int = 10,
    split: str = "test",
    confidence: float = 0.95,
    show_small: bool = False,
    subgroups: str = "",
    registered: str = "",
    root: str = "",
    stages: str = "",
) -> str:
    """Compare groups, and runs, from tables of predictions; ends with the path of report.html.

    Args:
        predictions: files (CSV, also gzipped, or Parquet), patterns, or name=pattern; those of one name are seeds.
        attributes: attributes to compare groups by, such as sex,age_group; their intersections come with them. A
            continuous one gets a rule: age:quartiles, age:40/60/80.
        out: folder for report.html, metrics.json and model_card.md.
        columns: the files' own names, such as subject_id=PatientID,label=y_true,score=prob.
        missing: rows without a value: drop (counted, left out for that attribute) or group (a group of their own).
        thresholds: rules, such as youden,0.5,sensitivity=0.9; min_gap, g_means, f1, specificity=0.9, given (the column
            threshold), "youden by sex" (one per group) and file:PATH (stored by the verb thresholds) are others.
        intersections: also compare intersections of attributes.
        resamples: number of resamples of subjects behind intervals.
        permutations: number of permutations behind each p value and chance level.
        seed: seed of both.
        min_count: subjects a group needs for an interval and to take part in a gap; smaller counts are masked.
        split: the part to audit.
        confidence: of the intervals.
        show_small: show small counts on the page instead of masking them.
        subgroups: folder of discover; what was found stands on the page too.
        registered: folder of the registration behind it, for pictures of typical members.
        root: data root, for the template they are drawn on.
        stages: stages.json of a study, whose times stand on the page.
    """
    from monai_fair.report import audit_files

    path = audit_files(
        predictions,
        attributes=option_names(attributes),
        out=out,
        columns=option_pairs("--columns", columns),
        missing=missing,
        thresholds=option_names(thresholds),
        intersections=intersections,
        resamples=resamples,
        permutations=permutations,
        seed=seed,
        min_count=min_count,
        split=split,
        confidence=confidence,
        show_small=show_small,
        subgroups=subgroups or None,
        registered=registered or None,
        root=root or None,
        stages=stages or None,
    )
    return str(path)


def thresholds(
    predictions: str,
    out: str,
    rule: str = "youden",
    columns: str | Sequence[str] | dict[str, str] = "",
    min_count: int = 10,
    shrinkage: float = 10.0,
    towards: Literal["pooled", "shifted"] = "pooled",
) -> str:
    """Choose decision thresholds on the validation rows of one table and store them with their counts.

    Args:
        predictions: the table; only its rows with split val are looked at.
        out: the JSON file to write; the audit applies it with --thresholds file:OUT.
        rule: how they are chosen, such as youden, sensitivity=0.9, or "min_gap by sex+age_group" (one per group).
        columns: the file's own names, such as subject_id=PatientID,label=y_true,score=prob.
        min_count: positives and negatives a group needs for a threshold of its own.
        shrinkage: positives or negatives at which a group's own threshold weighs one half.
        towards: what it is drawn towards, pooled or shifted: the group's own if it differed by a shift of scores alone.
    """
    from monai_fair.metrics import store_thresholds

    fitted = store_thresholds(
        predictions,
        out,
        rule=rule,
        columns=option_pairs("--columns", columns),
        min_count=min_count,
        shrinkage=shrinkage,
        towards=towards,
    )
    positives, negatives = fitted.pooled_counts
    print(f"pooled: {fitted.pooled:.6g} ({positives} positives, {negatives} negatives) {fitted.reason}".rstrip())
    for group in fitted.groups if fitted.attributes else ():
        counts = f"{group.n_positive} positives, {group.n_negative} negatives, weight {group.weight:.2f}"
        print(f"{group.name}: {group.threshold:.6g} ({counts}) {group.reason}".rstrip())
    return str(out)


def prepare(
    root: str,
    out: str,
    manifest: str = "",
    recipe: str = "",
    template: str = "",
    template_mask: str = "",
    spacing: float = 2.0,
    shape: str | Sequence[int] = (80, 96, 80),
    masks: str = "",
    affines: str = "",
    skull_stripped: bool = False,
    orientation: str = "",
    n4: bool = True,
    keep_scale: bool = False,
    keep_background: bool = False,
    interpolation: str = "linear",
    workers: int | None = None,
    ray: str | None = None,
) -> str:
    """Bring brain scans to a template's grid (N4, affine, intensities); ends with the path of preparation.html.

    Args:
        root: data root that the image paths start from.
        out: folder to write to; a folder of the same options is completed.
        manifest: the scans' manifest.csv.
        recipe: instead of a manifest: a recipe that builds one from root, in OUT_source_manifest.csv beside out.
        template: NIfTI file to register to; by default the MNI152 brain at --spacing and --shape.
        template_mask: brain mask of --template; by default its foreground.
        spacing: millimetres between the voxels of the output.
        shape: voxels along right, anterior, superior, such as 80,96,80.
        masks: brain masks of the scans under root, such as masks/{subject_id}.nii.gz.
        affines: affine maps of other software under root, ITK transforms from the template to the scan (what ANTs
            writes with the template as fixed image), such as ants/{subject_id}_0GenericAffine.mat.
        skull_stripped: the scans are brains on a background of exactly 0.
        orientation: of files that do not say it, such as ASL for the Analyze files of OASIS-1.
        n4: correct the scanner's shading.
        keep_scale: leave the size of the brain as it is; by default it is scaled to the template's.
        keep_background: keep what lies outside the brain mask.
        interpolation: linear or bspline.
        workers: processes; by default one per core.
        ray: local, or the address of a Ray cluster.
    """
    from monai_fair.preparation import PreparationOptions, prepare_cohort, source_manifest
    from monai_fair.report.preparation import write_preparation_pages

    options = PreparationOptions(
        spacing_mm=spacing,
        shape=tuple(int(size) if size.isdecimal() else size for size in option_names(shape)),  # type: ignore[misc]
        template=template,
        template_mask=template_mask,
        masks=masks,
        affines=affines,
        skull_stripped=skull_stripped,
        orientation=orientation,
        n4=n4,
        keep_scale=keep_scale,
        keep_background=keep_background,
        interpolation=interpolation,
    )
    source = source_manifest(manifest, recipe, root, out)
    done = prepare_cohort(source, root, out, options=options, workers=workers, ray_address=ray)
    print(f"{done.n_prepared} scans prepared, {len(done.failed)} failed")
    for reason in done.failed:
        print(f"failed: {reason}")
    return str(write_preparation_pages(out, workers=workers, ray_address=ray)[0])


def discover(
    registered: str,
    manifest: str,
    root: str,
    out: str,
    representations: str | Sequence[str] = "log_jacobian",
    methods: str | Sequence[str] = "local,mixture",
    attributes: str | Sequence[str] = "",
    nuisances: str | Sequence[str] = "",
    fit_splits: str | Sequence[str] = "train,val",
    block_mm: float = 8.0,
    keep_scale: bool = False,
    alpha: float = 0.05,
    min_stability: float = 0.6,
    embeddings: str = "",
    regions: str = "",
    template: str = "",
    template_mask: str = "",
    seed: int = 0,
    num_workers: int = 4,
) -> str:
    """Find subgroups of registered subjects without labels or attributes; ends with the path of discovery.html.

    Args:
        registered: folder that a registration wrote, with registration.csv.
        manifest: its manifest.csv, with splits.
        root: data root that the image paths start from; the template's brain mask is looked for there.
        out: folder for subgroups.csv, discovery.json, maps and discovery.html; what is finished with the same options
            stays as it is.
        representations: what subjects are compared by: log_jacobian (local volume), regional_volumes, displacement,
            codes, intensity (the images as they are), embeddings. Every one costs some power: p is adjusted for all.
        methods: local (two kinds in one place of the brain), mixture (clouds in the leading principal components).
        attributes: recorded attributes to compare subgroups with afterwards, such as sex,age; by default all.
        nuisances: recorded attributes to take out before looking, such as site,age (their linear effect).
        fit_splits: parts of the manifest that the search sees; never test.
        block_mm: side of the blocks that maps are averaged over.
        keep_scale: look also at the overall size of the brain; by default it is taken out of volumes.
        alpha: chance of a claim where there are no subgroups.
        min_stability: least agreement between resamples of the subjects that a claim needs, 1 for the same each time.
        embeddings: table of subject_id and numbers that another model made, or features.safetensors of a classifier
            beside its predictions.csv; looked at beside the representations.
        regions: label image on the template's grid, for regional_volumes; looked at beside the representations.
        template: image of the template, for the page, if it is not under root.
        template_mask: mask of its brain, if it is not under root.
        seed: of everything drawn.
        num_workers: threads that read.
    """
    from monai_fair.data.artifacts import read_json
    from monai_fair.report import write_discovery_page
    from monai_fair.subgroups.discovery_files import discover_files
    from monai_fair.subgroups.discovery_lines import discovery_lines

    names = option_names(representations)
    files = {"embeddings": embeddings, "regional_volumes": regions}
    names += [name for name, file in files.items() if file and name not in names]
    discover_files(
        registered,
        manifest,
        out,
        root=root,
        representations=names,
        methods=option_names(methods),
        attributes=option_names(attributes) if attributes else None,
        nuisances=option_names(nuisances) if nuisances else None,
        fit_splits=option_names(fit_splits),
        block_mm=block_mm,
        keep_scale=keep_scale,
        alpha=alpha,
        min_stability=min_stability,
        embeddings=embeddings or None,
        regions=regions or None,
        template_mask=template_mask or None,
        seed=seed,
        num_workers=num_workers,
    )
    for line in discovery_lines(read_json(f"{out}/discovery.json", "discovery")):
        print(line)
    return str(
        write_discovery_page(
            out, root=root, registered=registered, template=template or None, mask=template_mask or None
        )
    )


def main() -> None:
    """Run a verb; an error of the data or the options is one message and exit status 2, without a traceback."""
    from monai_fair.data.verbs import check, enlarge_gaps, folds, manifest, rebalance
    from monai_fair.simulation import (
        simulate_brain_from_options,
        simulate_chest_from_options,
        simulate_skin_from_options,
    )
    from monai_fair.subgroups.embed_verb import embed

    simulate = {
        "skin": simulate_skin_from_options,
        "brain": simulate_brain_from_options,
        "chest": simulate_chest_from_options,
    }
    verbs = {"simulate": simulate, "manifest": manifest, "check": check, "enlarge_gaps": enlarge_gaps, "folds": folds}
    verbs |= {"prepare": prepare, "embed": embed, "discover": discover, "rebalance": rebalance}
    verbs |= {"thresholds": thresholds, "audit": audit}
    try:
        fire.Fire(verbs, name="monai_fair")
    except MonaiFairError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
