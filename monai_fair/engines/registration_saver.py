"""Save what registration finds, subject by subject, so that a run that was stopped goes on where it was."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from ignite.engine import Engine, Events
from torch import Tensor

from monai_fair.data.artifacts import atomic_path, fingerprint, read_json, read_tensors, write_json, write_tensors
from monai_fair.engines.code_table import write_codes
from monai_fair.engines.registration_evaluator import RegistrationEvaluator
from monai_fair.engines.registration_files import TemplateSpace, check_exports, read_or_reason, write_subject
from monai_fair.engines.registration_outcome import dense_fields, doubt_about, quality_of
from monai_fair.engines.subject_fit import Deformations
from monai_fair.errors import ArtifactError, MonaiFairError, RegistrationError

_KIND = "registered_subject"


class RegistrationSaver:
    """Write files and a row for every subject, and at the end ``registration.csv`` and ``codes.safetensors``.

    A subject is finished when its ``sub-ID_registration.json`` stands in its folder; :meth:`unfinished` leaves those
    out, so that the union of several runs, or of several machines, is one table. A folder of other settings is refused.

    Args:
        output_dir: folder of the results.
        space: of the template.
        datalist: all subjects of the table, in its order.
        settings: what results depend on, JSON-like; kept in ``registration.json``.
        exports: which files to write for a subject, of :data:`~monai_fair.engines.registration_files.EXPORTS`.
        dataset_dir: root of ``truth``.
        truth: path patterns of what is known, for evaluation; see
            :func:`~monai_fair.engines.registration_files.read_truth`.
        max_folds: share of the brain's voxels that may fold; above it the subject counts as failed.
        shard: part ``k`` of ``n``, from 0: rows ``k, k + n, ...`` of the datalist are left for this run. The tables are
            of all rows; of several parts, the one that finishes last writes them.

    Raises:
        RegistrationError: if ``shard`` or ``exports`` is something else, or a subject has several rows.
        ArtifactError: if the folder is of other settings.
    """

    def __init__(
        self,
        output_dir: str | Path,
        space: TemplateSpace,
        datalist: Sequence[Mapping[str, Any]],
        *,
        settings: Mapping[str, Any],
        exports: Sequence[str] = ("field", "inverse", "warped", "labels", "logdet"),
        dataset_dir: str | Path = ".",
        truth: Mapping[str, Any] | None = None,
        max_folds: float = 0.01,
        shard: Sequence[int] = (0, 1),
    ) -> None:
        self.folder = Path(output_dir)
        self.space = space
        self.datalist = _check_subjects(datalist)
        self.settings = dict(settings)
        self.exports = check_exports(exports)
        self.root = Path(dataset_dir)
        self.truth = dict(truth or {})
        self.max_folds = max_folds
        self.shard = _check_shard(shard)
        self.key = fingerprint([self.settings, self.truth, sorted(self.exports)])
        self._bind()

    def attach(self, engine: RegistrationEvaluator) -> None:
        """Register with the evaluator."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.save_batch)
        engine.add_event_handler(Events.COMPLETED, lambda _: self._finish())

    def run(self, evaluator: RegistrationEvaluator) -> None:
        """Register what is not finished; when nothing is left, write the tables only."""
        if self.unfinished():
            evaluator.run()
        else:
            self._finish()

    def unfinished(self) -> list[dict[str, Any]]:
        """Return the rows of this shard without a result; a failed subject is tried again."""
        part, parts = self.shard
        return [dict(row) for row in self.datalist[part::parts] if not self._is_finished(row)]

    def save_batch(self, engine: Engine) -> None:
        """Write the files and rows of a batch."""
        output = engine.state.output
        assert isinstance(output, dict)
        for row in output["failed"]:
            self._write_row(row, {"status": "failed", "reason": row["reason"]})
        if output["pred"] is not None:
            answers = dense_fields(output["pred"], engine.network)

            def save(place: int) -> None:
                image = output["image"][place].cpu()
                self._save(output["rows"][place], image, output["pred"], answers, place, output["seconds"])

            _in_threads(save, range(len(output["rows"])))

    def write_tables(self) -> None:
        """Write ``registration.csv`` and ``codes.safetensors`` from all finished subjects."""
        rows, codes, names = [], [], []
        for row in self.datalist:
            path = self._path(row, "registration.json")
            if not path.is_file():
                continue
            found = read_json(path, _KIND)["row"]
            rows.append(found)
            if found["status"] == "registered":
                codes.append(torch.from_numpy(read_tensors(self._path(row, "code.safetensors"))[0]["code"]))
                names.append(found["subject_id"])
        with atomic_path(self.folder / "registration.csv") as temporary:
            pd.DataFrame(rows).to_csv(temporary, index=False)
        if codes:
            network = str(self.settings.get("model_sha256", ""))
            write_codes(self.folder / "codes.safetensors", names, torch.stack(codes), network_fingerprint=network)

    def _finish(self) -> None:
        """Write the tables, unless other shards still have rows to do: theirs would be missing."""
        if self.shard[1] == 1 or all(self._path(row, "registration.json").is_file() for row in self.datalist):
            self.write_tables()

    def _bind(self) -> None:
        """Bind the folder to these settings."""
        path = self.folder / "registration.json"
        own = {"settings": self.settings, "truth": self.truth, "exports": sorted(self.exports)}
        if path.is_file():
            saved = read_json(path, "registration")
            if saved["key"] != self.key:
                raise ArtifactError(
                    f"{path}: made with other settings ({_changes(saved, own)}); choose another output_dir or remove "
                    "the folder"
                )
        write_json(path, "registration", {"key": self.key, **own})

    def _is_finished(self, row: Mapping[str, Any]) -> bool:
        path = self._path(row, "registration.json")
        if not path.is_file():
            return False
        found = read_json(path, _KIND)
        return bool(found["key"] == self.key and found["row"]["status"] == "registered")

    def _path(self, row: Mapping[str, Any], name: str) -> Path:
        bare = _bare(row)
        return self.folder / f"sub-{bare}" / f"sub-{bare}_{name}"

    def _write_row(self, row: Mapping[str, Any], content: Mapping[str, Any]) -> None:
        table = {"subject_id": str(row["subject_id"]), "split": str(row.get("split", "")), **content}
        write_json(self._path(row, "registration.json"), _KIND, {"key": self.key, "row": table})

    def _save(
        self,
        row: Mapping[str, Any],
        image: Tensor,
        found: Deformations,
        answers: Mapping[str, Tensor],
        place: int,
        seconds: float,
    ) -> None:
        fields = {name: field[place].cpu() for name, field in answers.items()}
        truth, reason = read_or_reason(self.truth, _bare(row), self.root, self.space)
        try:
            quality = quality_of(self.space, image, fields, truth=truth)
        except MonaiFairError as error:
            self._write_row(row, {"status": "failed", "reason": str(error)})
            return
        doubt = doubt_about(quality, contrast=self.settings.get("contrast", "same"), max_folds=self.max_folds)
        write_subject(
            self._path(row, "").parent,
            _bare(row),
            self.space,
            image,
            displacement=fields[""],
            inverse=fields["inverse"],
            exports=self.exports,
        )
        code = found.codes[place].cpu()
        write_tensors(self._path(row, "code.safetensors"), {"code": code.numpy()})
        content = {
            "status": "failed" if doubt else "registered",
            "reason": doubt or reason,
            "noise": float(found.noise[place]),
            "last_step_mm": float(found.last_step_vox[place]) * max(self.space.grid.spacing_mm),
            "code_norm": float(code.norm()),
            "seconds": seconds,
            **quality,
        }
        self._write_row(row, content)


def _changes(saved: Mapping[str, Any], own: Mapping[str, Any]) -> str:
    """Name the settings that two runs do not share, with both values."""
    then, now = ({**run["settings"], "truth": run["truth"], "exports": run.get("exports")} for run in (saved, own))
    return "; ".join(
        f"{name}: {then.get(name, 'not set')} there, {now.get(name, 'not set')} now"
        for name in sorted({*then, *now})
        if fingerprint(then.get(name)) != fingerprint(now.get(name))
    )


def _check_subjects(datalist: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the datalist, or raise where two images would share one subject's folder."""
    names = Counter(_bare(row) for row in datalist)
    several = [name for name, count in names.items() if count > 1]
    if several:
        shown = ", ".join(several[:5]) + (", ..." if len(several) > 5 else "")
        raise RegistrationError(
            f"registration: expected one image for each subject, {len(several)} of {len(names)} have more ({shown}); "
            "keep one in the manifest, or give every scan a subject_id of its own"
        )
    return list(datalist)


def _in_threads(function: Callable[[int], None], places: Iterable[int]) -> None:
    """Measure and compress one subject per thread: each of them by itself keeps one core busy."""
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            list(pool.map(function, places))
    finally:
        # MKL has one number for all threads of the process
        torch.set_num_threads(threads)


def _check_shard(shard: Sequence[int]) -> tuple[int, int]:
    numbers = list(shard) if isinstance(shard, Sequence) else [shard]
    whole = all(isinstance(number, int) and not isinstance(number, bool) for number in numbers)
    if not whole or len(numbers) != 2 or not 0 <= numbers[0] < numbers[1]:
        raise RegistrationError(
            f"shard: expected a part and how many there are, from [0, n] to [n - 1, n], got {shard!r}"
        )
    return numbers[0], numbers[1]


def _bare(row: Mapping[str, Any]) -> str:
    return str(row["subject_id"]).removeprefix("sub-")
