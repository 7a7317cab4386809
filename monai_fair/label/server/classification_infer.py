"""Classification: the scores that ``bundle run`` gives, and the decision by the threshold of the patient's group."""

import json
import math
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from monai.inferers import Inferer
from monailabel.interfaces.tasks.infer_v2 import InferType
from monailabel.tasks.infer.bundle import BundleInferTask

from monai_fair.data import AttributeCodes
from monai_fair.errors import LabelError
from monai_fair.label.decisions import decide
from monai_fair.label.demographics import Known
from monai_fair.label.labels import class_names
from monai_fair.label.model_replacement import finish_replacement, plan_of, training_lock
from monai_fair.label.requests import INFER
from monai_fair.label.served_bundle import ServedBundle
from monai_fair.metrics import Thresholds, read_thresholds
from monai_fair.networks import MarginalInferer

CODES = "attribute_codes"  # the key under which batches of our bundles bring them; see with_attribute_codes
KNOWN = "known"  # of a request: what is known of the patient, put there by the app
_PATIENCE = 10.0  # seconds for a training of another process to put its model in place
_PAUSE = 0.1

_State = tuple[int, int, int] | None  # of a file, what another one in its place has otherwise; None without one


class ClassificationInfer(BundleInferTask):
    """A classification bundle as MONAI Label asks it.

    A bundle whose batches bring more than images, by ``prepare_batch`` of its config, gets that from what is known of
    the patient: codes of the attributes the model was trained with, missing where nobody tells. What such a model
    makes of a missing one is its inferer's affair.

    Args:
        bundle: its folder.
        conf: options of the server; ``preload`` is read.

    Raises:
        LabelError: if its batches bring something else, or its channels are not its classes.
    """

    request_keys = INFER

    def __init__(self, bundle: ServedBundle, conf: Mapping[str, str]) -> None:
        config = bundle.config()
        self.bundle = bundle
        self.codes = _codes(bundle, config)
        self.averaged = _averaged(self.codes, config)
        self.amp = bool(config.get_parsed_content("amp")) if "amp" in config.config else False
        self.classes = _classes(bundle, config)
        super().__init__(
            str(bundle.path),
            dict(conf),
            type=InferType.CLASSIFICATION,
            add_post_restore=False,
            load_strict=True,
        )
        self._config.pop("model_filename", None)  # there is one; nobody chooses a file
        self._stored: tuple[_State, Thresholds] | None = None

    def __call__(self, request: Mapping[str, Any], callbacks: Any = None) -> tuple[str | None, dict[str, Any]]:
        """Answer a request; see :class:`monailabel.tasks.infer.basic_infer.BasicInferTask`.

        Model and thresholds belong together, and a training, which is a process of its own, replaces one after the
        other: an answer counts if neither changed while it was made.

        Raises:
            LabelError: if no such answer comes within 10 seconds.
        """
        end = time.monotonic() + _PATIENCE
        while True:
            finish_killed(self.bundle.models)
            before = self._state()
            if before is not None:
                try:
                    file, answer = super().__call__(request, callbacks)
                except Exception:
                    if self._state() == before:
                        raise
                else:
                    if self._state() == before:
                        return file, answer
            if time.monotonic() > end:
                raise LabelError(
                    f"model '{self.bundle.name}': expected model and thresholds that belong together, found them "
                    f"being replaced for {_PATIENCE:.0f} seconds; ask again"
                )
            time.sleep(_PAUSE)

    def _state(self) -> tuple[_State, _State] | None:
        """Return the state of model and thresholds, or ``None`` while they are being replaced."""
        models = self.bundle.models
        state = _file_state(self.bundle.model), _file_state(models / "thresholds.json")
        return None if plan_of(models).is_file() else state

    @property
    def thresholds(self) -> Thresholds | None:
        """Those stored beside the model; a training may have replaced them since the server started."""
        path = self.bundle.thresholds
        if path is None:
            return None
        state = _file_state(path)
        if self._stored is None or self._stored[0] != state:
            self._stored = state, read_thresholds(path)
        return self._stored[1]

    def info(self) -> dict[str, Any]:
        """Return what clients are told of the model: also its classes, and which attributes it looks at."""
        return {**super().info(), "classes": list(self.classes), "attributes": self.attributes}

    @property
    def attributes(self) -> list[str]:
        """Attributes that scores or thresholds depend on."""
        levels = list(self.codes.levels) if self.codes is not None else []
        stored = self.thresholds
        return list(dict.fromkeys([*levels, *(stored.attributes if stored is not None else ())]))

    def inferer(self, data: Any = None) -> Inferer:
        """Return the bundle's inferer, with what its batches bring beside the image."""
        extra = [] if self.codes is None else [self._encoded(data.get(KNOWN, Known()))]
        cuda = str(data["device"]).startswith("cuda")
        return _InferWith(super().inferer(data), extra, amp=self.amp and cuda)

    def writer(self, data: dict[str, Any], extension: Any = None, dtype: Any = None) -> tuple[None, dict[str, Any]]:
        """Return scores and decision."""
        known: Known = data.get(KNOWN, Known())
        # as predictions.csv has them, on which thresholds were chosen: the shortest decimals that tell float32 apart
        scores = [float(str(value)) for value in data[self.output_label_key].float().cpu().numpy().reshape(-1)]
        if not all(map(math.isfinite, scores)):
            raise LabelError(f"model '{self.bundle.name}': expected finite scores, got {scores}; train it again")
        _, answer = super().writer(data, extension, dtype)
        used = self.attributes
        seen = Known(
            {name: value for name, value in known.values.items() if name in used},
            {name: source for name, source in known.sources.items() if name in used},
        )
        decision = decide(scores, self.classes, self.thresholds, seen)
        missing = [name for name in used if name not in seen.values]
        return None, {**answer, **decision, "missing": missing, "score_note": self._note(seen)}

    def _encoded(self, known: Known) -> torch.Tensor:
        assert self.codes is not None
        return torch.from_numpy(self.codes.encode(self._row(known))[0])

    def _row(self, known: Known) -> pd.DataFrame:
        assert self.codes is not None
        return pd.DataFrame([{name: known.values.get(name, "") for name in self.codes.levels}], dtype=object)

    def _note(self, known: Known) -> str:
        """Say what the model made of attributes it is told: nothing to say where it is told of none, or of all."""
        if self.codes is None:
            return ""
        values, strange = self.codes.encode(self._row(known))
        lacking = [f"{name} is not known" for name in self.codes.levels if name not in known.values]
        unread = [name for name, value in zip(self.codes.levels, values[0], strict=True) if math.isnan(value)]
        told = [name for name in unread if name not in self.averaged]
        mean = [name for name in unread if name in self.averaged]
        done = [f"the model is told that {' and '.join(told)} is missing"] if told else []
        if mean:
            done.append(f"the probability is the mean over what {' and '.join(mean)} could be, by the training rows")
        return f"{'; '.join([*lacking, *strange])}: {', and '.join(done)}" if unread else ""


class _InferWith(Inferer):
    """An inferer with inputs beside the image, and with the precision that the bundle runs at."""

    def __init__(self, inferer: Inferer, extra: list[torch.Tensor], *, amp: bool) -> None:
        super().__init__()
        self.base, self.extra, self.amp = inferer, extra, amp

    def __call__(self, inputs: torch.Tensor, network: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        extra = [value.to(inputs.device) for value in self.extra]
        with torch.autocast(inputs.device.type, enabled=self.amp):
            return self.base(inputs, network, *extra, *args, **kwargs)


def finish_killed(models: Path) -> None:
    """Put the rest of a new model in its place, where a training was killed while it did that.

    Args:
        models: folder ``models`` of a bundle.
    """
    if plan_of(models).is_file():
        # a training that has the lock is alive, and does it
        with suppress(LabelError), training_lock(models):
            finish_replacement(models)


def _file_state(path: Path) -> _State:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


def _averaged(codes: AttributeCodes | None, config: Any) -> frozenset[str]:
    """Return the attributes over which the probability is averaged where they are missing."""
    inferer = config.get_parsed_content("inferer") if codes is not None and "inferer" in config.config else None
    if codes is None or not isinstance(inferer, MarginalInferer):
        return frozenset()
    told = inferer.told or [False] * len(codes.levels)
    return frozenset(name for name, one in zip(codes.levels, told, strict=True) if not one)


def _codes(bundle: ServedBundle, config: Any) -> AttributeCodes | None:
    """Return the codes that the config's batches bring, or ``None`` where they bring images alone."""
    prepare = config.get("prepare_batch") or {}
    keys = prepare.get("extra_keys") or []
    keys = [keys] if isinstance(keys, str) else list(keys)
    if not keys:
        return None
    codes = config.get_parsed_content("codes") if keys == [CODES] and "codes" in config.config else None
    if not isinstance(codes, AttributeCodes):
        raise LabelError(
            f"{bundle.path}: prepare_batch: expected nothing beside images, or extra_keys '{CODES}' with the codes "
            f"under the key 'codes', got {keys}; this server knows no other inputs"
        )
    return codes


def _classes(bundle: ServedBundle, config: Any) -> tuple[str, ...]:
    metadata = json.loads((bundle.path / "configs" / "metadata.json").read_text(encoding="utf-8"))
    output = next(iter(metadata["network_data_format"]["outputs"].values()))
    channels = len(output.get("channel_def", {}))
    num_classes = config.get_parsed_content("num_classes") if "num_classes" in config.config else max(2, channels)
    return class_names(output, num_classes)
