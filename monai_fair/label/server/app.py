"""The app: what MONAI Label starts, and how its parts meet."""

import json
import logging
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from monailabel.config import settings
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import DefaultLabelTag
from monailabel.interfaces.exception import ImageNotFoundException, MONAILabelError, MONAILabelException
from monailabel.interfaces.tasks.infer_v2 import InferTask
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.interfaces.tasks.train import TrainTask
from monailabel.tasks.activelearning.first import First
from monailabel.tasks.activelearning.random import Random
from monailabel.tasks.infer.bundle import BundleInferTask

from monai_fair import __version__
from monai_fair.errors import LabelError, MonaiFairError, root_cause
from monai_fair.label.app_conf import AppConf
from monai_fair.label.demographics import Demographics
from monai_fair.label.labels import LABEL_SUFFIX
from monai_fair.label.requests import check_id, truth
from monai_fair.label.served_bundle import ServedBundle
from monai_fair.label.server.batch import FairBatchInfer
from monai_fair.label.server.classification_infer import KNOWN, ClassificationInfer, finish_killed
from monai_fair.label.server.datastore import PRIVATE, CheckedDatastore
from monai_fair.label.server.doors import close_doors, refuse_public_host
from monai_fair.label.server.registration_infer import RegistrationInfer
from monai_fair.label.server.routes import LENT
from monai_fair.label.server.scoring import fair_scoring
from monai_fair.label.server.sessions import CheckedSessions
from monai_fair.label.server.strategies import fair_strategies
from monai_fair.label.server.training import FairTrainTask

logger = logging.getLogger(__name__)


class FairLabelApp(MONAILabelApp):
    """Bundles of this project and others in MONAI Label, with what is known of patients.

    Args:
        app_dir: folder with main.py.
        studies: folder of the images.
        conf: see :class:`monai_fair.label.app_conf.AppConf`; and ``public``, true for a server that others reach.

    Raises:
        LabelError: with what is wrong with the options, a bundle, the table of patients, or the table of images.
    """

    def __init__(self, app_dir: str, studies: str, conf: Mapping[str, str]) -> None:
        if studies.startswith(("http://", "https://")):
            raise LabelError(
                f"--studies: expected a folder, got {studies}; this app keeps labels, attributes and scores beside the "
                "images: serve a folder, or take MONAI Label's own app monaibundle for a DICOM server"
            )
        own = dict(conf or {})
        self.public = truth(own.pop("public", "false"))
        self.options = AppConf.parse(own, studies)
        self.bundles = _read_all(self.options.models)
        self.demographics = Demographics.read(self.options.demographics, self.options.attributes)
        # scores are asked for by name: a scoring after every label would begin anew while another one runs
        settings.MONAI_LABEL_AUTO_UPDATE_SCORING = False
        os.environ["MONAI_LABEL_AUTO_UPDATE_SCORING"] = "false"
        super().__init__(
            app_dir=app_dir,
            studies=studies,
            conf=own,
            name="monai_fair",
            description="Predictions with the threshold of the patient's group, and the next case by subgroup",
            version=__version__,
        )

    def init_datastore(self) -> CheckedDatastore:
        """Return the folder of images."""
        return CheckedDatastore(
            self.studies,
            settings.MONAI_LABEL_DATASTORE_FILE_EXT,
            auto_reload=settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD,
            read_only=settings.MONAI_LABEL_DATASTORE_READ_ONLY,
        )

    def init_infers(self) -> dict[str, InferTask]:
        """Return a model for each bundle."""
        conf = {"preload": str(self.options.preload).lower()}
        return {bundle.name: _infer_task(bundle, conf) for bundle in self.bundles}

    def init_trainers(self) -> dict[str, TrainTask]:
        """Return a training for each classification bundle that has a train.yaml."""
        return {
            bundle.name: FairTrainTask(bundle, self.conf, self.demographics, others=self.bundles)
            for bundle in self.bundles
            if bundle.kind == "classification" and (bundle.path / "configs" / "train.yaml").is_file()
        }

    def init_strategies(self) -> dict[str, Strategy]:
        """Return ours, and two of MONAI Label's to compare with."""
        return {**fair_strategies(self.bundles, self.demographics), "random": Random(), "first": First()}

    def init_scoring_methods(self) -> dict[str, ScoringMethod]:
        """Return what scores images, for strategies."""
        found: dict[str, ScoringMethod] = fair_scoring(self.bundles, self.demographics)
        return found

    def init_batch_infer(self) -> Callable[..., Any]:
        """Return batch inference that goes on past images that fail."""
        return FairBatchInfer()

    def on_init_complete(self) -> None:
        """Check the address and close what a request must not reach; only a server calls this, no task of it."""
        refuse_public_host(self.public)
        close_doors(self.public)
        super().on_init_complete()

    def _load_sessions(self, load: bool = False) -> CheckedSessions | None:
        # beside the studies: in the home folder, where MONAI Label has them, servers would share them
        path = settings.MONAI_LABEL_SESSION_PATH or str(Path(self.studies) / PRIVATE / "sessions")
        return CheckedSessions(path, settings.MONAI_LABEL_SESSION_EXPIRY) if load else None

    def cleanup_sessions(self) -> None:
        """Remove sessions that have expired; MONAI Label leaves those that an earlier server has kept."""
        sessions = self.sessions()
        if sessions is not None:  # a dict, which is false while this server has no session yet
            sessions.remove_expired()

    def infer(self, request: Mapping[str, Any], datastore: Any = None) -> dict[str, Any]:
        """Answer for one image.

        Args:
            request: ``model``; ``image``, an id of the datastore, or a file that the server has stored; ``attributes``
                of the patient, which beat what is stored; ``save_label`` and ``label_tag``.
            datastore: where images are, if not in the app's own.

        Raises:
            LabelError: if there is no such model, or it cannot use the image.
            ImageNotFoundException: if there is no such image.
        """
        store = datastore or self.datastore()
        model, image = str(request.get("model", "")), request.get("image")
        if model not in self._infers:
            raise LabelError(f"model: expected one of {', '.join(self._infers)}, got '{model}'; correct the name")
        known = store.is_image(image)
        if not known and not request.get(LENT):
            raise ImageNotFoundException(f"image: expected the id of an image of the datastore, got {image!r}")
        stored = store.get_image_info(image) if known else None
        patient = self.demographics.of(str(image) if known else "", stored=stored, told=request.get("attributes"))
        own = {name: value for name, value in request.items() if name != LENT}
        own |= {"image": store.get_image_uri(image) if known else str(image), KNOWN: patient}
        own |= {"attributes": dict(patient.values), "description": self._infers[model].description}
        name = Path(own["image"]).name  # where it lies is no affair of a client
        try:
            file, params = self._infers[model](own)
        except MonaiFairError as error:
            raise LabelError(str(error).replace(own["image"], name)) from error
        except Exception as error:
            reason = root_cause(error).replace(own["image"], name)
            raise LabelError(f"model '{model}': expected an image it can use, got '{name}'; {reason}") from error
        tag = check_id("label tag", request.get("label_tag") or DefaultLabelTag.ORIGINAL)
        if not known or not truth(request.get("save_label", False)):
            return {"label": file, "tag": tag, "file": file, "params": params}
        label = _keep(store, str(image), tag, file, {"model": model, "params": params})
        # no label where the answer is JSON alone, as it is without being saved; what was saved is the same
        return {"label": label if file else None, "tag": tag, "file": file, "params": {**params, "saved_as": tag}}

    def bundle_path(self, model: str | None) -> str:
        """Return what a task's process adds to its path; without it, a request could name a folder of its own."""
        return str(self.app_dir)

    def infer_wsi(self, request: Mapping[str, Any], datastore: Any = None) -> Any:
        """Refuse: no bundle here is of whole slides.

        Raises:
            LabelError: always.
        """
        raise LabelError("infer/wsi: expected a model of whole slides, this server has none; ask /infer/{model}")

    def next_sample(self, request: Mapping[str, Any]) -> Any:
        """Return the image to label next.

        Raises:
            MONAILabelException: if there is no such strategy.
        """
        strategy = request.get("strategy") or "random"
        if strategy not in self._strategies:
            raise MONAILabelException(
                MONAILabelError.INVALID_INPUT,
                f"strategy: expected one of {', '.join(self._strategies)}, got '{strategy}'; correct the name",
            )
        return super().next_sample(request)


def _keep(store: Any, image: str, tag: str, file: str | None, info: Mapping[str, Any]) -> str:
    """Save an answer as the image's label: its file, or where it has none, such as a class, its JSON."""
    if file:
        return str(store.save_label(image, file, tag, info))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{image}{LABEL_SUFFIX}"
        path.write_text(json.dumps(info["params"], indent=2), encoding="utf-8")
        return str(store.save_label(image, str(path), tag, info))


def _read_all(folders: tuple[Path, ...]) -> list[ServedBundle]:
    """Read all bundles, and say of every one that cannot be served why."""
    bundles, problems = [], []
    for folder in folders:
        try:
            finish_killed(folder / "models")
            bundles.append(ServedBundle.read(folder))
        except LabelError as error:
            problems.append(str(error))
    if problems:
        raise LabelError("\n".join(problems))
    return bundles


def _infer_task(bundle: ServedBundle, conf: Mapping[str, str]) -> InferTask:
    if bundle.kind == "registration":
        return RegistrationInfer(bundle, dict(conf))
    if bundle.kind == "classification":
        return ClassificationInfer(bundle, conf)
    task = BundleInferTask(str(bundle.path), dict(conf), load_strict=True)
    task.config().pop("model_filename", None)  # there is one; nobody chooses a file
    return task
