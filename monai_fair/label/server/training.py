"""Training: a classification bundle learns from the labels in the datastore."""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monailabel.interfaces.datastore import DefaultLabelTag
from monailabel.interfaces.tasks.train import TrainTask

from monai_fair.data.artifacts import read_json
from monai_fair.data.option_values import option_names
from monai_fair.data.tables import write_table
from monai_fair.errors import LabelError, raise_problems
from monai_fair.label.demographics import Demographics
from monai_fair.label.fine_tuning import bundle_classes, fine_tune
from monai_fair.label.fine_tuning_configs import train_config, training_problems
from monai_fair.label.labels import LABEL_SUFFIX, LabelledImage, label_table
from monai_fair.label.requests import check_id
from monai_fair.label.served_bundle import ServedBundle
from monai_fair.label.server.datastore import PRIVATE, CheckedDatastore
from monai_fair.metrics import read_thresholds

logger = logging.getLogger(__name__)

_EPOCHS = 50


class FairTrainTask(TrainTask):
    """Fine-tunes a bundle on labels of whole images, with rows drawn so that label and group are independent.

    All bundles of a server share its labels: an image has one label of a tag, and counts as labelled for each of them.
    Where classifiers differ in their classes a label needs the name of a class, or the key ``model``; see
    :mod:`monai_fair.label.labels`. Those of other models, and those that are no ``.json``, such as masks, are left out.

    Args:
        bundle: the model that learns; see :func:`monai_fair.label.fine_tuning.fine_tune`.
        conf: options of the server; ``attributes`` are those balanced by default, where no thresholds name some.
        demographics: what is known of patients, and which images are of one.
        others: bundles of the server; classes of classifiers among them are told apart from this one's.
    """

    request_keys = frozenset({"gpus", "label_tag"})

    def __init__(
        self,
        bundle: ServedBundle,
        conf: Mapping[str, str],
        demographics: Demographics,
        *,
        others: Sequence[ServedBundle] = (),
    ) -> None:
        super().__init__(f"{bundle.name}, on from the model that is served, on submitted labels")
        self.bundle = bundle
        self.demographics = demographics
        self.others = tuple(other for other in others if other != bundle and not training_problems(other))
        self.attributes = tuple(name for name in option_names(conf.get("attributes", "")) if name)
        # read once: MONAI Label asks for the options of every model with every request
        self._own = {} if training_problems(bundle) else train_config(bundle)

    def config(self) -> dict[str, Any]:
        """Return the options, with their defaults, for viewers; of a list the first is the default."""
        own = self._own
        if not own:
            return {}
        rate = {"learning_rate": own["learning_rate"]} if isinstance(own.get("learning_rate"), float) else {}
        epochs = own["max_epochs"]
        return {
            "max_epochs": epochs if isinstance(epochs, int) else _EPOCHS,
            "val_split": 0.2,
            "seed": 0,
            "attributes": ",".join(self._balanced()),
            "rebalance": True,
            "replace": ["better", "always"],
            **rate,
        }

    def stats(self) -> dict[str, Any]:
        """Return what the training of the model in place came to, if it was one of these."""
        record = self.bundle.models / "training.json"
        return read_json(record, "training") if record.is_file() else {}

    def __call__(self, request: Mapping[str, Any], datastore: CheckedDatastore) -> dict[str, Any]:
        """Train on all labels of a tag.

        Args:
            request: the options of :meth:`config`; ``label_tag``, by default ``final``; and ``device``, see
                :func:`~monai_fair.label.fine_tuning.fine_tune`.
            datastore: images and labels.

        Returns:
            See :func:`monai_fair.label.fine_tuning.fine_tune`.

        Raises:
            LabelError: with the reasons why nothing is trained.
        """
        raise_problems(LabelError, self.bundle.name, training_problems(self.bundle))
        options = {name: _chosen(request.get(name, value)) for name, value in self.config().items()}
        options["attributes"] = _names(request.get("attributes", list(self._balanced())))
        tag = check_id("label_tag", request.get("label_tag") or DefaultLabelTag.FINAL.value)
        studies = Path(datastore._datastore_path).resolve()
        folder = studies / PRIVATE / self.bundle.name / "training"
        images, others = self._labelled(datastore, studies, tag)
        source = f"{self.bundle.name}: {len(images)} labels '{tag}'"
        classes = [bundle_classes(other) for other in self.others]
        table = label_table(images, bundle_classes(self.bundle), source=source, model=self.bundle.name, others=classes)
        foreign = len(images) - len(table)
        # what nobody tells of these patients is missing; a name that nobody knows is an error
        known = {*self._balanced(), *self.demographics.attributes}
        table = table.assign(**{name: "" for name in options["attributes"] if name in known and name not in table})
        manifest = write_table(folder / "labels.csv", table)
        logger.info("%s, training with %s", source, options)
        result = fine_tune(self.bundle, manifest, studies, folder, **options, device=str(request.get("device") or ""))
        if others:
            result["notes"].append(f"{others} labels are no {LABEL_SUFFIX} and were left out")
        if foreign:
            result["notes"].append(f"{foreign} labels are of other models and were left out")
        logger.info("%s: %s", self.bundle.name, result["reason"])
        return result

    def _balanced(self) -> tuple[str, ...]:
        stored = self.bundle.thresholds
        return self.attributes if stored is None else read_thresholds(stored).attributes or self.attributes

    def _labelled(self, datastore: CheckedDatastore, studies: Path, tag: str) -> tuple[list[LabelledImage], int]:
        """Return the images with a label of a class, and how many have another one, such as a mask."""
        found, others = [], 0
        for image in sorted(datastore.list_images()):
            label = datastore.get_label_uri(image, tag)
            if not label:
                continue
            if not label.endswith(LABEL_SUFFIX):
                others += 1
                continue
            known = self.demographics.of(image, stored=datastore.get_image_info(image))
            # one that a link takes out of the studies is told by the check of the manifest
            path = Path(os.path.relpath(datastore.get_image_uri(image), studies)).as_posix()
            found.append(LabelledImage(path, self.demographics.subject(image), Path(label), dict(known.values)))
        return found, others


def _chosen(value: Any) -> Any:
    """Return an option; viewers send the list of choices back when nobody has chosen."""
    return value[0] if isinstance(value, list) and value else value


def _names(given: Any) -> tuple[str, ...]:
    names = option_names(given) if isinstance(given, str | list) else None
    if names is None:
        raise LabelError(f"option 'attributes': expected names with commas between, got {given!r}; correct it")
    return tuple(name for name in names if name)
