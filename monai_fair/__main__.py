"""The command line: ``python -m monai_fair <verb>``. Engines run as bundles: ``python -m monai.bundle run``."""

import sys
from collections.abc import Sequence

import fire

from monai_fair.data.option_values import option_names
from monai_fair.errors import MonaiFairError


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
    from monai_fair.audit_verbs import audit, thresholds
    from monai_fair.data.verbs import bias_labels, check, enlarge_gaps, folds, manifest, rebalance
    from monai_fair.label.verbs import label_app, pack
    from monai_fair.simulation import (
        simulate_brain_from_options,
        simulate_chest_from_options,
        simulate_skin_from_options,
    )
    from monai_fair.subgroups.assign_verb import assign
    from monai_fair.subgroups.embed_verb import embed

    simulate = {
        "skin": simulate_skin_from_options,
        "brain": simulate_brain_from_options,
        "chest": simulate_chest_from_options,
    }
    verbs = {"simulate": simulate, "manifest": manifest, "check": check, "enlarge_gaps": enlarge_gaps, "folds": folds}
    verbs |= {"prepare": prepare, "embed": embed, "discover": discover, "assign": assign}
    verbs |= {"rebalance": rebalance, "bias_labels": bias_labels, "thresholds": thresholds, "audit": audit}
    verbs |= {"pack": pack, "label_app": label_app}
    try:
        fire.Fire(verbs, name="monai_fair")
    except MonaiFairError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
