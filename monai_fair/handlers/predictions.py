"""Write ``predictions.csv`` from any MONAI evaluator, each image once, whatever the number of processes."""

from collections.abc import Sequence
from pathlib import Path

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.utils import evenly_divisible_all_gather

from monai_fair.data.artifacts import sha256, write_tensors
from monai_fair.data.manifest import read_manifest
from monai_fair.data.predictions import score_names, write_predictions
from monai_fair.errors import PredictionsError
from monai_fair.handlers.layer_outputs import LayerOutputs
from monai_fair.networks import LayerInput

# what a batch brings, by name
_SCORES, _FEATURES, _LAYER = "scores", "features", "layer "


class PredictionSaver:
    """Collect scores by manifest row and write them as ``predictions.csv`` when the evaluator is done.

    The evaluator's postprocessing must leave probabilities in ``pred``, and its data must come from
    :func:`monai_fair.data.load_datalist`, whose ``row`` says which line of the manifest an image is. Rows that a
    distributed sampler repeats are written once.

    Args:
        path: the file to write.
        manifest: the manifest the data come from; its rows and attributes are copied.
        num_classes: number of classes, to check the manifest with.
        labelled: ask for labels in the manifest; without them ``label`` and ``split`` may be empty.
        split: the part to write for every row whatever the manifest says, such as ``test`` for another dataset or for
            the fold that is left out; empty for the manifest's own.
        network: the network; needed with ``features_layer``.
        features_layer: name of the last linear layer, such as ``fc``. When given, its input (the penultimate
            features), weight and bias are written to ``features.safetensors`` beside ``path``, rows in the order
            of ``predictions.csv``.
        layers: what else is to be kept of each image; written to ``layers.safetensors`` beside ``path``, rows in the
            same order.

    Raises:
        PredictionsError: when the run ends, if it saw no image, or a score is not in [0, 1].
    """

    def __init__(
        self,
        path: str,
        manifest: str,
        *,
        num_classes: int = 2,
        labelled: bool = True,
        split: str = "",
        network: torch.nn.Module | None = None,
        features_layer: str | None = None,
        layers: Sequence[LayerOutputs] | None = None,
    ) -> None:
        self.path = Path(path)
        self.manifest = read_manifest(manifest, num_classes=num_classes, labelled=labelled)
        if labelled and not split and "split" not in self.manifest.table:
            # said before the run and not after it
            raise PredictionsError(f"{manifest}: expected a column 'split', found none; say which split its rows are")
        self.split = split
        self.labelled = labelled
        if features_layer and network is None:
            raise PredictionsError(f"features_layer '{features_layer}': expected the network too, got none")
        self.network = network
        self.features_layer = features_layer
        self.layers = tuple(layers or ())
        self.layer_input: LayerInput | None = None
        self._rows: list[int] = []
        self._batches: dict[str, list[torch.Tensor]] = {}

    def attach(self, engine: Engine) -> None:
        """Register with a MONAI evaluator."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _start(self, _: Engine) -> None:
        self._rows, self._batches = [], {}
        self._remove_hooks()  # of a run that failed
        # hooked only while the evaluator runs, so that a training of the same network is not watched
        if self.network is not None and self.features_layer:
            self.layer_input = LayerInput(self.network, self.features_layer)
        for layers in self.layers:
            layers.start()

    def _collect(self, engine: Engine) -> None:
        self._rows += [int(item["row"]) for item in engine.state.batch]
        scores = torch.stack([torch.as_tensor(item["pred"]).reshape(-1) for item in engine.state.output])
        found = {_SCORES: scores.detach().float()}
        if self.layer_input is not None:
            found[_FEATURES] = self.layer_input.take().detach().float()
        for layers in self.layers:
            found |= {f"{_LAYER}{name}": value for name, value in layers.take().items()}
        for name, value in found.items():
            self._batches.setdefault(name, []).append(value)

    def _write(self, engine: Engine) -> None:
        if not self._rows and idist.get_world_size() == 1:
            raise PredictionsError(f"{self.path}: expected predictions, but the evaluator saw no image")
        layer = None if self.layer_input is None else self.layer_input.layer
        self._remove_hooks()
        seen = evenly_divisible_all_gather(torch.as_tensor(self._rows, device=engine.state.device))
        rows, first = np.unique(seen.cpu().numpy(), return_index=True)
        found = {
            name: evenly_divisible_all_gather(torch.cat(batches)).cpu().numpy()[first]
            for name, batches in self._batches.items()
        }
        if idist.get_rank() != 0:
            return
        self._write_scores(rows, found[_SCORES])
        if layer is not None:
            self._write_features(layer, found[_FEATURES])
        if self.layers:
            kept = {name.removeprefix(_LAYER): found[name] for name in found if name.startswith(_LAYER)}
            self._write_beside("layers.safetensors", kept)

    def _remove_hooks(self) -> None:
        if self.layer_input is not None:
            self.layer_input.remove()
            self.layer_input = None
        for layers in self.layers:
            layers.remove()

    def _write_scores(self, rows: np.ndarray, scores: np.ndarray) -> None:
        manifest = self.manifest
        table = manifest.table.loc[rows].drop(columns=["sha256", "weight", "fold"], errors="ignore")
        for name, value in (("split", self.split), ("label", "")):
            if value or name not in table:
                table[name] = value
        if self.split == "test" and "clean_label" in table:  # of a fold left out: nobody is judged on biased ones
            table["label"] = table["clean_label"]
        # float32 scores are written with the digits that tell them apart, and no more
        named = {name: [np.format_float_positional(value, unique=True) for value in scores[:, index]]
                 for index, name in enumerate(score_names(scores.shape[1]))}  # fmt: skip
        order = ["subject_id", "image", *(["image_id"] if "image_id" in table else []), "split", "label"]
        table = table.assign(**named)[[*order, *named, *manifest.attributes]]
        write_predictions(self.path, table, labelled=self.labelled)

    def _write_features(self, layer: torch.nn.Linear, features: np.ndarray) -> None:
        bias = layer.bias if layer.bias is not None else torch.zeros(layer.out_features)
        tensors = {
            "features": features,
            "weight": layer.weight.detach().float().cpu().numpy(),
            "bias": bias.detach().float().cpu().numpy(),
        }
        self._write_beside("features.safetensors", tensors)

    def _write_beside(self, name: str, tensors: dict[str, np.ndarray]) -> None:
        # the audit refuses what belongs to other predictions
        metadata = {"predictions_sha256": sha256(self.path)}
        write_tensors(self.path.with_name(name), tensors, metadata)
