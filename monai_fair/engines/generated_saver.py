"""Write generated images one by one, and at the end the manifest that has them among its training rows."""

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from ignite.engine import Engine, Events

from monai_fair.data import check_manifest, sha256, write_manifest
from monai_fair.data.artifacts import fingerprint, read_json, write_json
from monai_fair.data.builder import BuiltManifest
from monai_fair.data.manifest import resolve_inside
from monai_fair.data.tables import write_table
from monai_fair.data.volumes import grid_of, load_nifti, write_volume
from monai_fair.engines.generated_images import ImageGenerator
from monai_fair.engines.generation_plan import GenerationPlan
from monai_fair.errors import ArtifactError, RegistrationError
from monai_fair.geometry import Grid

logger = logging.getLogger(__name__)
_KIND = "generated_image"
_COLUMNS = (
    "subject_id", "image", "label", "subgroup", "rule", "donor", "sources", "mix", "distance", "min_det", "outside",
    "folded", "seed", "sha256", "donor_sha256", "field_sha256",
)  # fmt: skip

# columns of a manifest that a generated row fills; attributes stay empty, because nobody has them
_OWN = ("subject_id", "image", "label", "split", "subgroup", "image_id", "sha256")


class GeneratedImageSaver:
    """Write every generated image with its record, then ``generated.csv`` and ``manifest.csv``.

    An image is finished when its record stands beside it. :meth:`unfinished` gives whole batches, so that what is left
    is computed in the same company, and to the same bits, as in a run that was not stopped.

    Args:
        output_dir: folder of the results, below ``dataset_dir``.
        plan: what is to be made.
        registered: folder of the registration, with a field from each donor to the template.
        dataset_dir: data root that the manifest's image paths start from.
        grid: of the template.
        settings: what else the images depend on, JSON-like; kept in ``generation.json``.
        batch_size: of the loader.

    Raises:
        ManifestError: if ``output_dir`` does not lie below ``dataset_dir``.
        RegistrationError: if donors have no field.
        ArtifactError: if the folder is of other settings.
    """

    def __init__(
        self,
        output_dir: str | Path,
        plan: GenerationPlan,
        registered: str | Path,
        *,
        dataset_dir: str | Path,
        grid: Grid,
        settings: Mapping[str, Any],
        batch_size: int,
    ) -> None:
        self.folder = Path(output_dir)
        self.plan = plan
        self.root = Path(dataset_dir)
        self.grid = grid
        self.batch_size = batch_size
        options = {**asdict(plan.options), "donors": plan.options.pool, "batch_size": batch_size}
        self.settings = {**plan.inputs, **settings, **options}
        self.key = fingerprint(self.settings)
        self._below = _below(self.folder, self.root)
        self._fields = _field_files(plan, Path(registered))
        images = dict(zip(plan.manifest.table["subject_id"], plan.manifest.table["image"], strict=True))
        self._scans = [resolve_inside(self.root, images[subject]) for subject in plan.subject_ids]
        self._bind()
        for warning in plan.warnings:
            logger.warning(warning)

    def attach(self, engine: ImageGenerator) -> None:
        """Register with the generator."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.save_batch)
        engine.add_event_handler(Events.COMPLETED, lambda _: self.write_tables())

    def run(self, engine: ImageGenerator) -> None:
        """Generate what is not finished; when nothing is left, write the tables only."""
        if self.unfinished():
            engine.run()
        else:
            self.write_tables()

    def unfinished(self) -> list[dict[str, Any]]:
        """Return the rows of every batch in which an image is missing, for :class:`DonorScans`."""
        rows = [
            {**asdict(each), "scan": str(self._scans[each.donor]), "field": str(self._fields[each.donor])}
            for each in self.plan.images
        ]
        batches = [rows[start : start + self.batch_size] for start in range(0, len(rows), self.batch_size)]
        return [row for batch in batches if not all(map(self._is_finished, batch)) for row in batch]

    def save_batch(self, engine: Engine) -> None:
        """Write the images and records of a batch; what is finished is left as it is."""
        output = engine.state.output
        assert isinstance(output, dict)
        left = [pair for pair in zip(output["rows"], output["pred"], strict=True) if not self._is_finished(pair[0])]
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            list(pool.map(lambda pair: self._save(*pair), left))

    def write_tables(self) -> None:
        """Write ``generated.csv``, and ``manifest.csv`` with its record."""
        rows = [read_json(self._path(each.subject_id, ".json"), _KIND)["row"] for each in self.plan.images]
        table = pd.DataFrame(rows, columns=list(_COLUMNS))
        write_table(self.folder / "generated.csv", table)
        write_manifest(self._manifest(rows), self.folder / "manifest.csv")

    def _bind(self) -> None:
        """Bind the folder to these settings."""
        path = self.folder / "generation.json"
        if path.is_file() and (saved := read_json(path, "generation"))["key"] != self.key:
            then = saved["settings"]
            changes = [
                f"{name}: {then.get(name, 'not set')} there, {self.settings.get(name, 'not set')} now"
                for name in sorted({*then, *self.settings})
                if fingerprint(then.get(name)) != fingerprint(self.settings.get(name))
            ]
            raise ArtifactError(
                f"{path}: made with other settings ({'; '.join(changes)}); choose another output_dir or remove "
                "the folder"
            )
        write_json(path, "generation", {"key": self.key, "settings": self.settings})

    def _path(self, subject: str, ending: str) -> Path:
        return self.folder / "images" / f"{subject}_T1w{ending}"

    def _is_finished(self, row: Mapping[str, Any]) -> bool:
        record = self._path(row["subject_id"], ".json")
        if not (record.is_file() and self._path(row["subject_id"], ".nii.gz").is_file()):
            return False
        return bool(read_json(record, _KIND)["key"] == self.key)

    def _save(self, row: Mapping[str, Any], image: npt.NDArray[np.float32]) -> None:
        path = self._path(row["subject_id"], ".nii.gz")
        # as the donor's scan lies in its file, so that a reader which does not look at the affine sees it turned alike
        array, grid = turned_like(image, self.grid, grid_of(load_nifti(self._scans[row["donor"]])))
        write_volume(path, array, grid)
        label, subgroup = row["cell"]
        names = self.plan.subject_ids
        record = {
            "subject_id": row["subject_id"],
            "image": f"{self._below}/images/{path.name}",
            "label": label,
            "subgroup": subgroup,
            "rule": self.plan.options.rule,
            "donor": names[row["donor"]],
            "sources": " ".join(names[source] for source in row["sources"]),
            **{name: row[name] for name in ("mix", "distance", "min_det", "outside", "folded")},
            "seed": self.plan.options.seed,
            "sha256": sha256(path),
            "donor_sha256": sha256(self._scans[row["donor"]]),
            "field_sha256": sha256(self._fields[row["donor"]]),
        }
        write_json(self._path(row["subject_id"], ".json"), _KIND, {"key": self.key, "row": record})

    def _manifest(self, rows: Sequence[Mapping[str, Any]]) -> BuiltManifest:
        manifest, plan = self.plan.manifest, self.plan
        table = manifest.table.assign(
            label=manifest.table["label"].astype(str),
            subgroup=[plan.subgroups.get(subject, "") for subject in manifest.table["subject_id"]],
        )
        filled = [{**row, "split": "train", "image_id": row["subject_id"]} for row in rows]
        added = [{name: str(row[name]) if name in _OWN else "" for name in table} for row in filled]
        whole = pd.concat([table, pd.DataFrame(added, columns=table.columns, dtype=str)], ignore_index=True)
        check_manifest(whole, str(self.folder / "manifest.csv"), num_classes=manifest.num_classes)
        generation = {**self.settings, "cells": [asdict(cell) for cell in plan.cells], "n_generated": len(rows)}
        record = {
            "num_classes": manifest.num_classes,
            "generation": generation,
            "dropped": [],
            "n": len(whole),
            "n_subjects": int(whole["subject_id"].nunique()),
            "warnings": plan.warnings,
        }
        return BuiltManifest(whole, record)


def turned_like(array: npt.NDArray[Any], grid: Grid, like: Grid) -> tuple[npt.NDArray[Any], Grid]:
    """Flip and permute the axes of ``array`` to those of a grid with the same voxels; no value is interpolated.

    Args:
        array: shape ``(D, H, W)``, on ``grid``.
        grid: its grid.
        like: a grid whose axes run along the same lines, in any order and direction.

    Returns:
        The array in the order of ``like`` (a view), and its grid.
    """
    along = np.rint(np.linalg.solve(like.affine[:3, :3], grid.affine[:3, :3])).astype(int)
    order = np.abs(along).argmax(axis=1)
    backwards = along[np.arange(3), order] < 0
    affine = grid.affine.copy()
    affine[:3, :3] = grid.affine[:3, order] * np.where(backwards, -1.0, 1.0)
    last = np.array(array.shape)[order] - 1
    affine[:3, 3] += grid.affine[:3, order] @ np.where(backwards, last, 0.0)
    turned = np.flip(array.transpose(order), tuple(np.flatnonzero(backwards).tolist()))
    return turned, Grid(turned.shape, affine)


def _below(folder: Path, root: Path) -> str:
    """Return the path of ``folder`` under the data root, as a manifest writes it."""
    inside, outside = folder.resolve(), root.resolve()
    if inside == outside or not inside.is_relative_to(outside):
        raise RegistrationError(
            f"{folder}: expected an output_dir in a folder of its own below dataset_dir ({root}), because a manifest's "
            f"images lie under its data root; give one such as {root / 'generated'}"
        )
    return inside.relative_to(outside).as_posix()


def _field_files(plan: GenerationPlan, registered: Path) -> list[Path]:
    bare = [subject.removeprefix("sub-") for subject in plan.subject_ids]
    paths = [registered / f"sub-{name}" / f"sub-{name}_from-T1w_to-template_xfm.nii.gz" for name in bare]
    used = sorted({each.donor for each in plan.images})
    absent = [paths[row].name for row in used if not paths[row].is_file()]
    if absent:
        raise RegistrationError(
            f"{registered}: expected a field to the template from each of {len(used)} donors, {len(absent)} have none, "
            f"such as {absent[0]}; register with exports that hold 'field' and 'inverse'"
        )
    return paths
