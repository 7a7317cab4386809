"""One part of a scoring: the bundle's own inference over some images, and what it found of each."""

import logging
import os
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from monai.bundle import ConfigWorkflow

from monai_fair.data import sha256
from monai_fair.data.artifacts import fingerprint, read_tensors
from monai_fair.data.predictions import is_score_column
from monai_fair.data.tables import read_table, write_table
from monai_fair.errors import LabelError, PredictionsError, root_cause
from monai_fair.label.bundle_checks import inference_file
from monai_fair.label.image_states import StoredImage, told_attributes
from monai_fair.label.served_bundle import ServedBundle
from monai_fair.label.sidecar import ImageScores
from monai_fair.subgroups import assign_subjects, read_discovered
from monai_fair.subgroups.discovery_inputs import read_new_subjects
from monai_fair.subgroups.registered_rows import ON_TEMPLATE
from monai_fair.subgroups.subgroup_model import SubgroupModel, probability_columns

logger = logging.getLogger(__name__)

Scorer = Callable[[Sequence[StoredImage], Path], ImageScores]
WORK = "part."  # folders of parts under way
_EXPORTS = {"displacement": ["field", "inverse"]}
_MASK, _REGIONS = "template_desc-brain_mask.nii.gz", ("template_desc-roi_dseg.nii.gz", "template_dseg.nii.gz")
# of PyTorch on a card and beside it, and of the system; readers and writers wrap the latter in errors of their own
_FULL = ("out of memory", "allocate memory", "no space left", "quota exceeded")
_DEVICE = re.compile(r"cpu|cuda(:[0-9]+)?")


def scorer_of(bundle: ServedBundle, *, device: str = "") -> Scorer:
    """Return what scores images by a bundle.

    Args:
        bundle: a classifier of this project, or a registration with discovered subgroups.
        device: such as ``cpu`` or ``cuda:0``; anything else leaves the choice to the bundle.

    Raises:
        LabelError: if the bundle's inference writes no predictions, or it has no subgroups.
        ArtifactError: if its subgroups cannot be assigned.
    """
    own = device_of(device)
    told = told_attributes(bundle)
    if bundle.kind == "registration":
        if bundle.subgroups is None:
            raise LabelError(f"{bundle.name}: expected models/subgroups, found none; pack it with --subgroups")
        model = read_discovered(bundle.subgroups)
        if model.representation == "embeddings":
            raise LabelError(
                f"{bundle.name}: expected subgroups of deformations or images, got those of embeddings, which no "
                "registration makes"
            )
        return lambda images, folder: _registered(bundle, model, images, folder, told=told, device=own)
    config = bundle.config().config
    absent = [name for name in ("manifest", "output_dir", "predictions") if name not in config]
    if absent:
        raise LabelError(
            f"{bundle.name}: expected an inference config with manifest, output_dir and predictions, found no "
            f"{', '.join(absent)}; only bundles that write predictions.csv are scored"
        )
    return lambda images, folder: _classified(bundle, images, folder, told=told, device=own)


def device_of(text: str) -> torch.device | None:
    """Return the device of a text such as ``cpu`` or ``cuda:0``; ``None`` for any other, such as a card's name."""
    return torch.device(text) if _DEVICE.fullmatch(text) else None


def _classified(
    bundle: ServedBundle,
    images: Sequence[StoredImage],
    folder: Path,
    *,
    told: Sequence[str],
    device: torch.device | None,
) -> ImageScores:
    """Score images; one that cannot be read has a reason, and is found by halves.

    Raises:
        LabelError: if memory or disk were full, which is no fault of an image.
    """
    made = {image.image_id: image.fingerprint(told) for image in images}
    try:
        return _predicted(bundle, images, made, folder, told=told, device=device)
    except Exception as error:  # readers of images and networks raise many classes
        if len(images) == 1:
            reason = root_cause(error)
            if _is_full(error):
                raise LabelError(f"scoring {bundle.name}: expected room for {images[0].image_id}; {reason}") from error
            logger.warning("scoring %s: %s has no score: %s", bundle.name, images[0].image_id, reason)
            return ImageScores.of(made, reasons={images[0].image_id: reason})
    half = len(images) // 2
    first, second = (
        _classified(bundle, part, folder, told=told, device=device) for part in (images[:half], images[half:])
    )
    return first.with_rows(second)


def _is_full(error: BaseException | None) -> bool:
    """Say whether memory or a disk was full, here or in what led to it."""
    while error is not None:
        told = str(error).lower()
        if isinstance(error, MemoryError) or any(text in told for text in _FULL):
            return True
        error = error.__cause__ or error.__context__
    return False


def _predicted(
    bundle: ServedBundle,
    images: Sequence[StoredImage],
    made: Mapping[str, str],
    folder: Path,
    *,
    told: Sequence[str],
    device: torch.device | None,
) -> ImageScores:
    with tempfile.TemporaryDirectory(dir=folder, prefix=WORK) as name:
        work = Path(name)
        root, manifest = _manifest(images, work / "manifest.csv", {one.image_id: one.image_id for one in images}, told)
        _run(
            bundle,
            device,
            dataset_dir=str(root),
            manifest=str(manifest),
            output_dir=str(work),
            save_features=True,
            num_workers=0,  # a server has threads, which a fork does not bear
            progress=False,
        )
        table = read_table(work / "predictions.csv", PredictionsError)
        features = work / "features.safetensors"
        embeddings = read_tensors(features)[0]["features"] if features.is_file() else None
    place = {str(subject): row for row, subject in enumerate(table["subject_id"])}
    rows = [place[image.image_id] for image in images]
    columns = [column for column in table if is_score_column(str(column))]
    values = table[columns].astype(np.float64).to_numpy()[rows]
    scores = values if len(columns) > 2 else values[:, -1]
    return ImageScores.of(made, scores=scores, embeddings=None if embeddings is None else embeddings[rows])


def _registered(
    bundle: ServedBundle,
    model: SubgroupModel,
    images: Sequence[StoredImage],
    folder: Path,
    *,
    told: Sequence[str],
    device: torch.device | None,
) -> ImageScores:
    """Register images, which goes on where it was stopped, and assign the subgroups."""
    made = {image.image_id: image.fingerprint(told) for image in images}
    # a changed image is another subject: what was registered of it does not count
    subjects = {
        image.image_id: f"{image.image_id}-{fingerprint([image.image_id, made[image.image_id]])[:16]}"
        for image in images
    }
    registered = folder / "registered" / sha256(bundle.model)[:16]
    with tempfile.TemporaryDirectory(dir=folder, prefix=WORK) as name:
        root, manifest = _manifest(images, Path(name) / "manifest.csv", subjects, told)
        _run(
            bundle,
            device,
            dataset_dir=str(root),
            manifest=str(manifest),
            output_dir=str(registered),
            exports=_EXPORTS.get(model.representation, ["logdet"]),
            num_workers=0,
            progress=False,
            report=False,
        )
        cohort = read_new_subjects(registered, manifest)
        on_grid = model.representation in ON_TEMPLATE
        table = assign_subjects(
            model,
            cohort,
            root=root,
            mask=bundle.models / _MASK if on_grid else None,
            regions=_regions(bundle, model),
            num_workers=1,
        ).set_index("subject_id")
    table = table.loc[[subjects[image.image_id] for image in images]]
    reasons = dict(zip(made, table["reason"].astype(str), strict=True))
    for image, reason in reasons.items():
        if reason:
            logger.warning("scoring %s: %s has no subgroup: %s", bundle.name, image, reason)
    shares = table[probability_columns(model)].to_numpy(np.float64)
    return ImageScores.of(made, reasons=reasons, subgroups=shares, subgroup_names=model.names)


def _regions(bundle: ServedBundle, model: SubgroupModel) -> Path | None:
    """Return the label image of the template that the subgroups were found with."""
    if not model.regions_sha256:
        return None
    files = [bundle.models / name for name in _REGIONS if (bundle.models / name).is_file()]
    found = next((path for path in files if sha256(path) == model.regions_sha256), None)
    if found is None:
        raise LabelError(
            f"{bundle.name}: expected the regions of its subgroups among {' and '.join(_REGIONS)} in models, found "
            "none; pack it with the template of the discovery"
        )
    return found


def _manifest(
    images: Sequence[StoredImage], path: Path, subjects: Mapping[str, str], told: Sequence[str]
) -> tuple[Path, Path]:
    """Write a manifest of images; return the folder that all of them lie under, and its path."""
    root = Path(os.path.commonpath([image.path.parent for image in images]))
    table = pd.DataFrame(
        {
            "subject_id": [subjects[image.image_id] for image in images],
            "image": [image.path.relative_to(root).as_posix() for image in images],
            **{name: [image.attributes.get(name, "") for image in images] for name in told},
        }
    )
    return root, write_table(path, table)


def _run(bundle: ServedBundle, device: torch.device | None, **options: Any) -> None:
    """Run the bundle's inference with those of the options that its config has."""
    config = bundle.config().config
    # the server's random numbers stay as they are: nothing here is drawn
    own = {name: value for name, value in options.items() if name in config} | {"initialize": []}
    own |= {"device": device} if device is not None and "device" in config else {}
    quiet = logging.getLogger("monai.bundle.workflows")  # it warns that it leaves the server's logging alone
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        workflow = ConfigWorkflow(
            str(inference_file(bundle.path)),
            logging_file=False,
            workflow_type=None,
            bundle_root=str(bundle.path),
            **own,
        )
        workflow.initialize()
        workflow.run()
        workflow.finalize()
    finally:
        quiet.setLevel(level)
