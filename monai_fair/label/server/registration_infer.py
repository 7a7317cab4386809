"""Registration: the template's labels on an image, or the deformation as a file, and whether the fit counts."""

import json
import math
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.data import MetaTensor
from monailabel.interfaces.tasks.infer_v2 import InferType
from monailabel.tasks.infer.bundle import BundleInferTask

from monai_fair.data import write_itk_transform
from monai_fair.engines import LabelPropagation, LabelValuesd, RegisteredSubject
from monai_fair.errors import LabelError, MonaiFairError, root_cause
from monai_fair.label.requests import INFER, truth
from monai_fair.label.served_bundle import ServedBundle
from monai_fair.subgroups.regions import read_regions, region_table

RESULTS = ("labels", "transform")
_SHOWN = ("similarity", "similarity_before", "folds")
_SUBJECT, _ANSWER = "registered", "registration"  # keys of a request's data


class RegistrationInfer(BundleInferTask):
    """A registration bundle as MONAI Label asks it.

    A request may choose what comes back (``result``) and which of the template's label maps (``label_map``):

    - ``labels``: the label map in the image's own grid and orientation, as ``bundle run`` writes it.
    - ``transform``: an ITK transform, ``.h5``, that reads the template: the file that ``bundle run`` exports as
      ``from-template_to-T1w_xfm.h5``. It leads from world to world, whatever the order of the image's axes.

    The answer's parameters say ``noise``, ``similarity`` (``null`` if undefined), which share of the brain ``folds``,
    and as ``status`` and ``reason`` whether the fit counts, by the rule of registration.csv.

    Args:
        bundle: its folder.
        conf: options of the server; ``preload`` is read.

    Raises:
        LabelError: if the template or its label maps cannot be read.
    """

    request_keys = INFER | {"result", "label_map"}

    def __init__(self, bundle: ServedBundle, conf: Mapping[str, str]) -> None:
        self.bundle = bundle
        try:
            super().__init__(
                str(bundle.path),
                dict(conf),
                type=InferType.SEGMENTATION,
                load_strict=True,
                output_json_key=_ANSWER,  # by default result, which is an option here
            )
            # once, not for each request: a parser of MONAI is not made for several threads
            self._preprocessing = list(super().pre_transforms())
            self._postprocessing = list(super().post_transforms())
            first: LabelPropagation = super().inferer()
            self._by_map = {first.label_map: first} | {
                name: first.of_map(name) for name in first.space.labels if name != first.label_map
            }
            names = {name: _label_names(one) for name, one in self._by_map.items()}
            # the names of the metadata are those of the map that the config takes
            names[first.label_map] = names[first.label_map] or self._named_in_metadata(first)
        except (MonaiFairError, RuntimeError) as error:
            raise LabelError(
                f"{bundle.path}: expected a registration that can be built; {root_cause(error)}"
            ) from error
        self._names = {name: found or _numbered(self._by_map[name]) for name, found in names.items()}
        self.labels = self._names[first.label_map]
        self._config.pop("model_filename", None)  # there is one; nobody chooses a file
        self._config |= {"result": list(RESULTS), "label_map": list(self._by_map)}

    def __call__(self, request: Mapping[str, Any], callbacks: Any = None) -> tuple[str | None, dict[str, Any]]:
        """Answer a request; see :class:`monailabel.tasks.infer.basic_infer.BasicInferTask`.

        Raises:
            LabelError: if an option has an impossible value, or the image has no registration, with the reason.
        """
        result, label_map = self._choice("result", request, RESULTS), self._choice("label_map", request, self._by_map)
        if result == "transform" and truth(request.get("save_label", False)):
            raise LabelError(
                f"model '{self.bundle.name}': expected no save_label with the result transform, which is no label; "
                "leave it out"
            )
        try:
            file, answer = super().__call__({**request, "result": result, "label_map": label_map}, callbacks)
        except MonaiFairError as error:
            # a client knows images by name; where they lie is no affair of its own
            path = str(request.get("image", ""))
            reason = str(error).replace(path, Path(path).name) if path else str(error)
            raise LabelError(f"model '{self.bundle.name}': {reason}") from error
        return file, {**answer, "result": result, "label_map": label_map, "label_names": self._names[label_map]}

    def pre_transforms(self, data: Any = None) -> Sequence[Callable[..., Any]]:
        """Return the bundle's preprocessing."""
        return self._preprocessing

    def inferer(self, data: Any = None) -> LabelPropagation:
        """Return the bundle's inferer, for the label map that a request chooses."""
        return self._by_map[data["label_map"]]

    def post_transforms(self, data: Any = None) -> Sequence[Callable[..., Any]]:
        """Return the bundle's postprocessing, for the label map that a request chooses; a transform needs none."""
        if data["result"] == "transform":
            return []
        inferer = self.inferer(data)
        return [
            LabelValuesd(one.keys, inferer) if isinstance(one, LabelValuesd) else one for one in self._postprocessing
        ]

    def run_inferer(self, data: dict[str, Any], convert_to_batch: bool = True, device: str = "cpu") -> dict[str, Any]:
        """Register the image; keep the answer and its quality."""
        inferer, image = self.inferer(data), data[self.input_key]
        subject = inferer.register(image[None].to(device), self._get_network(device, data))[0]
        data[_SUBJECT] = subject
        data[_ANSWER] = _answer(subject)
        # metadata of the image, by which postprocessing finds its orientation
        data[self.output_label_key] = MetaTensor(inferer.one_hot(subject.displacement), meta=image.meta)
        return data

    def writer(self, data: dict[str, Any], extension: Any = None, dtype: Any = None) -> tuple[Any, dict[str, Any]]:
        """Write the file of the result that was asked for."""
        if data["result"] == "labels":
            file, answer = super().writer(data, extension, dtype)
            return file, answer
        handle, file = tempfile.mkstemp(suffix=".h5")
        os.close(handle)
        subject: RegisteredSubject = data[_SUBJECT]
        write_itk_transform(file, subject.displacement.numpy(), self.inferer(data).space.grid)
        return file, data[_ANSWER]

    def _choice(self, name: str, request: Mapping[str, Any], choices: Any) -> str:
        """Return what a request chooses, the first when it does not."""
        listed = list(choices)
        # viewers send the list of choices back when nobody has chosen
        value = request.get(name) or listed
        chosen = value[0] if isinstance(value, list) else value
        if chosen not in listed:
            raise LabelError(
                f"model '{self.bundle.name}', option '{name}': expected one of {', '.join(listed)}, got "
                f"{str(chosen)[:100]!r}; choose one"
            )
        return str(chosen)

    def _named_in_metadata(self, inferer: LabelPropagation) -> dict[str, int]:
        """Return label to name of metadata.json, if these are the labels of the map."""
        metadata = json.loads((self.bundle.path / "configs" / "metadata.json").read_text(encoding="utf-8"))
        named = metadata["network_data_format"]["outputs"][self.key_pred].get("channel_def", {})
        if {str(value) for value in inferer.values} != set(named):
            return {}
        return {str(named[str(value)]).lower(): value for value in inferer.values if value}


def _label_names(inferer: LabelPropagation) -> dict[str, int]:
    """Return names and labels of a table of BIDS beside the label map; none where there is no table."""
    path = inferer.space.label_sources.get(inferer.label_map)
    if path is None or not region_table(path).is_file():
        return {}
    return dict(zip(read_regions(path).names, (value for value in inferer.values if value), strict=True))


def _numbered(inferer: LabelPropagation) -> dict[str, int]:
    return {f"label {value}": value for value in inferer.values if value}


def _answer(subject: RegisteredSubject) -> dict[str, Any]:
    """Return what the answer's parameters say of a registration; JSON has no NaN."""
    numbers = {"noise": subject.noise, **{name: subject.quality[name] for name in _SHOWN}}
    finite = {name: float(value) if math.isfinite(value) else None for name, value in numbers.items()}
    return {**finite, "status": "failed" if subject.doubt else "registered", "reason": subject.doubt}
