"""Fine-tuning of a served classification bundle on labels that annotators have submitted.

The bundle's own ``train.yaml`` goes on from the model that is served; what differs is laid over it as another file. A
training that is killed goes on when it is asked for again with the same labels, and until its end nothing of the
served bundle changes.
"""

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from monai.bundle import ConfigParser

from monai_fair.data import check_manifest, read_manifest, read_split, sha256, write_split
from monai_fair.data.artifacts import atomic_path, fingerprint, read_json
from monai_fair.data.predictions import SPLITS
from monai_fair.data.tables import read_table, table_sha256, write_table
from monai_fair.engines.bundle_runs import BundleRun
from monai_fair.errors import LabelError, ManifestError, MonaiFairError, raise_problems
from monai_fair.label.bundle_scores import device_of
from monai_fair.label.demographics import image_id_of
from monai_fair.label.fine_tuning_configs import config_files, stages, train_config, training_problems
from monai_fair.label.fine_tuning_options import FineTuning, Replace
from monai_fair.label.labels import check_enough, class_names, group_names, split_labels, with_weights
from monai_fair.label.model_replacement import EARLIER, finish_replacement, replace_model, training_lock
from monai_fair.label.served_bundle import ServedBundle
from monai_fair.metrics import read_thresholds, store_thresholds

_RUN = re.compile(r"run_[0-9a-f]{16}")


def fine_tune(
    bundle: ServedBundle,
    manifest: str | Path,
    dataset_dir: str | Path,
    workdir: str | Path,
    *,
    max_epochs: int = 50,
    val_split: float = 0.2,
    seed: int = 0,
    attributes: Sequence[str] = (),
    rebalance: bool = True,
    replace: Replace = "better",
    learning_rate: float | None = None,
    device: str = "",
) -> dict[str, Any]:
    """Train the bundle's model on labelled images, and put the new one in its place where that is asked for.

    With ``replace="better"`` that is unless it is worse, with ``"always"`` whatever it is. Both models are measured on
    the same validation rows by the bundle's own key metric. The new one's epoch is the
    best on these rows, so the comparison favours it; the present one never learned from them, see
    :func:`monai_fair.label.labels.split_labels`. Where the bundle has thresholds they are fitted anew on the validation
    rows, in the way and for the groups of the stored ones; with too few rows for that they are REMOVED, and 0.5 applies
    to every group until a training has enough.

    Args:
        bundle: what is served; ``models`` gets the new model, and the earlier one is kept in ``models/earlier``.
        manifest: of the labelled images: ``subject_id``, ``image``, ``label`` and attributes, no split.
        dataset_dir: data root of the images.
        workdir: of this bundle's trainings; keeps the split of subjects from one to the next.
        max_epochs: see :class:`FineTuning`, as for the following.
        val_split: share of subjects to validate on.
        seed: of split and training.
        attributes: whose joint groups are balanced.
        rebalance: whether they are.
        replace: ``better`` or ``always``.
        learning_rate: ``None`` for the bundle's own.
        device: such as ``cpu`` or ``cuda:0``; anything else leaves the choice to the bundle.

    Returns:
        What became of it, JSON-like: counts by part and group, epochs, the metric of both models, whether the new one
        is in place and why, what became of the thresholds, and notes.

    Raises:
        LabelError: with the reasons, if an option is wrong, labels are too few, the bundle cannot be trained, or is
            being trained; nothing has changed then.
        MonaiFairError: if the training fails; nothing has changed then.
    """
    options = FineTuning(max_epochs, val_split, seed, tuple(attributes), rebalance, replace, learning_rate)
    raise_problems(LabelError, bundle.name, training_problems(bundle))
    folder = Path(workdir)
    with training_lock(bundle.models):
        finish_replacement(bundle.models)
        rows, groups, notes = _training_rows(bundle, manifest, folder, options)
        run, start = _prepare(bundle, rows, dataset_dir, folder, options, device_of(device))
        run.run()
        result = _result(bundle, run.folder, rows, groups, options, notes)
        if result["replaced"]:
            result["earlier_model"] = replace_model(bundle.models, run.folder, result, start_sha256=start)
        return result


def _training_rows(
    bundle: ServedBundle, manifest: str | Path, folder: Path, options: FineTuning
) -> tuple[pd.DataFrame, list[str], list[str]]:
    """Return the manifest with split and weight, the group of every row, and what is to be said of them."""
    table, num_classes = read_table(manifest, ManifestError), train_config(bundle)["num_classes"]
    groups = group_names(table, options.attributes)
    earlier = _earlier_split(folder / "split.csv")
    came_with = _parts_of(table, _split_of(bundle, num_classes))
    parts = came_with | _parts_of(table, {who: {part} for who, part in earlier.items()})
    rows = split_labels(
        table,
        val_split=options.val_split,
        seed=options.seed,
        attributes=options.attributes,
        # what the bundle came with may be of a later training elsewhere than the split here
        known=parts | {who: part for who, part in came_with.items() if part == "train"},
    )
    source = f"{bundle.name}: {len(table)} labelled images"
    check_enough(rows, bundle_classes(bundle), val_split=options.val_split, source=source)
    rows = with_weights(rows, groups if options.rebalance else ["all"] * len(rows))
    check_manifest(rows, str(manifest), num_classes=num_classes)
    earlier |= dict(zip(rows["subject_id"], rows["split"], strict=True))
    write_split(folder / "split.csv", pd.DataFrame(sorted(earlier.items()), columns=["subject_id", "split"]))
    tested = sum(came_with.get(who) == "test" for who in rows["subject_id"].unique())
    note = f"{tested} subjects are of the test part that the bundle came with; test the new model on others"
    return rows, groups, [note] if tested else []


def bundle_classes(bundle: ServedBundle) -> tuple[str, ...]:
    """Return the names of the classes that labels of this bundle can have, by index."""
    metadata = ConfigParser.load_config_file(bundle.path / "configs" / "metadata.json")
    output = next(iter(metadata["network_data_format"]["outputs"].values()))
    return class_names(output, train_config(bundle)["num_classes"])


def _earlier_split(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    split = read_split(path)
    return dict(zip(split["subject_id"], split["split"], strict=True))


def _split_of(bundle: ServedBundle, num_classes: int) -> dict[str, set[str]]:
    """Return the parts of all subjects and all images, by id, that the bundle came with, if it says so."""
    if bundle.manifest is None:
        return {}
    table = read_manifest(bundle.manifest, num_classes=num_classes, labelled=False).table
    found: dict[str, set[str]] = {}
    if "split" in table:
        for names in (table["subject_id"], table["image"].map(image_id_of)):
            for name, part in zip(names, table["split"], strict=True):
                found.setdefault(name, set()).add(part)
    return found


def _parts_of(table: pd.DataFrame, named: Mapping[str, set[str]]) -> dict[str, str]:
    """Return the earlier part of subjects: an image without a known subject was or is called by its own id.

    Args:
        table: with ``subject_id`` and ``image``.
        named: parts by the id of a subject or image; where they differ, train counts.
    """
    found: dict[str, set[str]] = {}
    for who, image in zip(table["subject_id"], table["image"], strict=True):
        found.setdefault(who, set()).update(*(named.get(name, set()) for name in (who, image_id_of(image))))
    return {who: next(part for part in SPLITS if part in parts) for who, parts in found.items() if parts}


def _prepare(
    bundle: ServedBundle,
    rows: pd.DataFrame,
    dataset_dir: str | Path,
    folder: Path,
    options: FineTuning,
    device: torch.device | None,
) -> tuple[BundleRun, str]:
    """Write the files of the run, and return it with the SHA-256 of the model it starts from.

    The folder is named by what the result depends on, so that the same labels go on where a killed training stopped;
    runs of other labels are removed.
    """
    start = sha256(bundle.model)
    configs = [sha256(path) for path in config_files(bundle)]
    drawn = options.rebalance and bool(options.attributes)
    chosen = [options.max_epochs, options.seed, options.learning_rate, drawn, device and str(device)]
    run = folder / f"run_{fingerprint([table_sha256(rows), start, configs, chosen])[:16]}"
    for other in folder.iterdir():
        if _RUN.fullmatch(other.name) and other != run:
            shutil.rmtree(other)
    write_table(run / "manifest.csv", rows)
    write_table(run / "val.csv", rows[rows["split"] == "val"])
    for name, source in (("start.pt", bundle.model), ("start.json", bundle.model.with_suffix(".json"))):
        if source.is_file():
            with atomic_path(run / name) as temporary:
                shutil.copyfile(source, temporary)
    count = int((rows["split"] == "train").sum())
    chain = stages(bundle, options, run, start_sha256=start, rows=count)
    places = {"bundle_root": str(bundle.path), "dataset_dir": str(dataset_dir)}
    places |= {"device": f"$torch.device('{device}')"} if device else {}
    inputs = [run / "manifest.csv", run / "start.pt"]
    return BundleRun(run, chain, overrides=places, inputs=inputs, name=bundle.name), start


def _result(
    bundle: ServedBundle,
    run: Path,
    rows: pd.DataFrame,
    groups: Sequence[str],
    options: FineTuning,
    notes: Sequence[str],
) -> dict[str, Any]:
    before, after = (read_json(run / f"{name}.json", "key_metric") for name in ("before", "after"))
    state = torch.load(run / "training_state.pt", map_location="cpu", weights_only=True)
    parts = rows["split"].value_counts()
    replaced, reason = _decide(before["value"], after["value"], options.replace)
    moved = f"metrics.json was of the earlier model and is in models/{EARLIER} now; audit the new one"
    stale = [moved] if replaced and bundle.audit else []
    return {
        "model": bundle.name,
        "n": {"train": int(parts["train"]), "val": int(parts["val"])},
        "groups": _counts(rows, groups),
        "attributes": list(options.attributes),
        "rebalanced": options.rebalance and bool(options.attributes),
        "epochs": int(state["epoch"]),
        "best_epoch": read_json(run / "model.json", "model")["epoch"],
        "metric": {"name": after["name"], "before": before["value"], "after": after["value"], "n": int(parts["val"])},
        "replaced": replaced,
        "reason": reason,
        "thresholds": _fit_thresholds(bundle, run) if replaced else "kept, as the model is",
        "notes": [*notes, *stale],
    }


def _decide(before: float | None, after: float | None, replace: Replace) -> tuple[bool, str]:
    """Say whether the new model replaces the present one, and why; larger values are better."""
    if after is None:
        return False, "the new model's metric is undefined on the validation rows; the present model stays"
    if before is None:
        return (
            True,
            "the present model's metric is undefined on the validation rows; the new one, which has one, is taken",
        )
    if after >= before:
        return True, "the new model is not worse on the validation rows, among which its epoch was chosen"
    if replace == "always":
        return True, "the new model is worse on the validation rows, and was asked for all the same"
    return False, "the new model is worse on the validation rows, so the present one stays; replace=always takes it"


def _counts(rows: pd.DataFrame, groups: Sequence[str]) -> list[dict[str, Any]]:
    """Count rows by group, label and part."""
    counted = rows.assign(group=list(groups)).groupby(["group", "label", "split"]).size().rename("n").reset_index()
    return [{str(name): value for name, value in row.items()} for row in counted.to_dict("records")]


def _fit_thresholds(bundle: ServedBundle, run: Path) -> str:
    """Fit thresholds for the new model in the way of the last ones stored, and say what became of them."""
    found = run / "thresholds.json"
    found.unlink(missing_ok=True)
    # those of an earlier model, where too few rows have removed the present ones
    last = bundle.thresholds or max((bundle.models / EARLIER).glob("thresholds_*.json"), default=None)
    if last is None:
        return "none, as before"
    stored = read_thresholds(last)
    rule = stored.method if stored.target is None else f"{stored.method}={stored.target}"
    way: dict[str, Any] = {name: getattr(stored, name) for name in ("min_count", "shrinkage", "towards")}
    try:
        fitted = store_thresholds(run / "predictions.csv", found, rule=rule, by=stored.attributes, **way)
        counts, reason = fitted.pooled_counts, fitted.reason
        if min(counts) < stored.min_count:
            reason = (
                f"expected at least {stored.min_count} validation rows of each class, got {counts[1]} and {counts[0]}"
            )
    except MonaiFairError as error:
        reason = str(error)
    if reason:
        found.unlink(missing_ok=True)
        return f"none: those of the earlier model do not fit, and new ones cannot be fitted ({reason}); 0.5 applies"
    return f"fitted on {counts[0]} positive and {counts[1]} negative validation rows"
