"""One simulated cohort's study, taken apart: every stage of the bundle's ``study.yaml``, with the arms it has not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from monai.bundle import ConfigParser

from monai_fair.data import read_manifest, read_predictions
from monai_fair.data.artifacts import read_tensors
from monai_fair.data.tables import write_table
from monai_fair.engines import BundleRun, BundleStudy
from monai_fair.engines.bundle_runs import run_bundles
from monai_fair.subgroups.discovery_inputs import Cohort, read_cohort

BUNDLE = Path(__file__).resolve().parents[1] / "bundles/brain_mri_fair_classification"
GROUP = "sex"  # the truth: for the oracle and for scores, and for nothing else
STUDY = "log_jacobian"  # what the study looks for subgroups in
SMALL = "small.yaml"  # as the demo has it
_REBALANCED = ["rebalanced.yaml"]
# what each arm lays over train.yaml
ARMS = {
    "erm": [],
    "oracle": _REBALANCED,
    "intensity": _REBALANCED,
    "features": _REBALANCED,
    "deformation": _REBALANCED,
    "augmented": ["augmented.yaml"],
    "nir": ["nir.yaml"],
    "group_dro": ["rebalanced.yaml", "group_dro.yaml"],
}
_PLAIN = ("erm", "nir")  # train on the manifest as it is, all others on one that is re-balanced by subgroups
_DISCOVERED = ("deformation", "augmented", "group_dro")


@dataclass(frozen=True)
class CohortStudy:
    """The study of one simulated cohort, its stages read from ``study.yaml``.

    Attributes:
        folder: that everything is written to; the cohort is in ``data``.
        seed: of registration, discovery and generation.
        seeds: of the trainings.
        overrides: of the trainings, such as ``max_epochs``.
    """

    folder: Path
    seed: int
    seeds: tuple[int, ...]
    overrides: Mapping[str, Any] = field(default_factory=dict)

    @property
    def data(self) -> Path:
        """Folder of the simulated cohort."""
        return self.folder / "data"

    @property
    def manifest(self) -> Path:
        """What the simulation wrote."""
        return self.data / "manifest.csv"

    def part(self, name: str, changes: Mapping[str, Any] | None = None) -> Any:
        """Return one object of ``study.yaml``, as the bundle would make it.

        Args:
            name: its key, such as ``registration``.
            changes: values of other keys.
        """
        parser = ConfigParser()
        parser.read_config(str(BUNDLE / "configs/study.yaml"))
        own = {
            "bundle_root": str(BUNDLE),
            "dataset_dir": str(self.data),
            "output_dir": str(self.folder / "study"),
            "seed": self.seed,
            "seeds": list(self.seeds),
            "usable": str(self.manifest),  # every simulated image can be read
            "base": ["train.yaml", SMALL],
            "overrides": dict(self.overrides),
        }
        parser.update({**own, **(changes or {})})
        return parser.get_parsed_content(name)

    def cohort(self) -> Cohort:
        """Return the registered subjects."""
        return read_cohort(self.folder / "study/registered", self.manifest)

    def discover(self, representation: str) -> Path:
        """Look for subgroups as the study does, in one representation; return the folder.

        Args:
            representation: what to look in; ``embeddings`` are those of :meth:`features`.
        """
        out = self.folder / ("study/discovery" if representation == STUDY else f"detection/{representation}")
        look = self.part("discovery", {"representations": [representation], "discovery#out": str(out)})
        more = {"embeddings": str(self.embeddings)} if representation == "embeddings" else {}
        return Path(look(**more)).parent

    def rebalance(self, arm: str, membership: np.ndarray | None) -> None:
        """Write the manifest that an arm trains on.

        Args:
            arm: its name.
            membership: of the registered subjects in an arm's subgroups, shape ``(n, K)``; ``None`` takes the discovery
                of the study.
        """
        subgroups = self.folder / "study/discovery/subgroups.csv"
        if membership is not None:
            subgroups = write_table(self.folder / f"manifests/{arm}_subgroups.csv", self._table(membership))
        self.part("rebalancing", {"subgroups": str(subgroups), "balanced": str(self._manifest(arm))})()

    def _table(self, membership: np.ndarray) -> pd.DataFrame:
        """Return memberships as a discovery writes them: subgroups by falling size among the fitted rows."""
        cohort = self.cohort()
        fitted = cohort.fitted(["train", "val"])
        sizes = np.bincount(membership[fitted].argmax(axis=1), minlength=membership.shape[1])
        ordered = membership[:, np.argsort(-sizes, kind="stable")]
        names = [f"S{place}" for place in range(1, len(sizes) + 1)]
        table = cohort.table[["subject_id", "split"]].assign(
            fitted=fitted.astype(int), subgroup=np.array(names)[ordered.argmax(axis=1)]
        )
        return table.assign(**{f"membership_{name}": ordered[:, place] for place, name in enumerate(names)})

    def _manifest(self, arm: str) -> Path:
        if arm in _PLAIN:
            return self.manifest
        return self.folder / f"manifests/{'deformation' if arm in _DISCOVERED else arm}.csv"

    def train(self, arms: Sequence[str], jobs: int) -> None:
        """Train and evaluate arms with every seed, ``jobs`` runs at a time."""
        run_bundles([run for arm in arms for run in self._training(arm).runs], source=str(self.folder), jobs=jobs)

    def _training(self, arm: str) -> BundleStudy:
        augmented = [str(self.data / "derivatives/generated/manifest.csv")]
        changes = {
            "training#arms": {arm: ARMS[arm]},
            "training#manifest": str(self._manifest(arm)),
            "training#output_dir": str(self.folder / "arms"),
            "training#inputs": {arm: augmented if arm == "augmented" else []},
        }
        study: BundleStudy = self.part("training", changes)
        return study

    def predictions(self, arm: str, seed: int) -> pd.DataFrame:
        """Return the test rows of one run."""
        table = read_predictions(self.folder / f"arms/{arm}/seed_{seed}/predictions.csv").table
        return table[table["split"] == "test"]

    @property
    def embeddings(self) -> Path:
        """Table of penultimate features."""
        return self.folder / "features/embeddings.csv"

    def features(self) -> None:
        """Score all subjects with the first ERM model, and write its penultimate features as a table."""
        model = self.folder / f"arms/erm/seed_{self.seeds[0]}/model.pt"
        run = BundleRun(
            self.embeddings.parent,
            [[BUNDLE / "configs/inference.yaml", BUNDLE / "configs" / SMALL]],
            overrides={
                "bundle_root": str(BUNDLE),
                "dataset_dir": str(self.data),
                "manifest": str(self.manifest),
                "ckpt_path": str(model),
                "save_features": True,
                "progress": False,
            },
            inputs=[self.manifest, model],
        )
        run_bundles([run], source=str(self.folder))
        values = read_tensors(run.folder / "features.safetensors")[0]["features"]
        table = pd.DataFrame(values, columns=[f"f{place}" for place in range(values.shape[1])])
        table.insert(0, "subject_id", self.scores()["subject_id"].to_numpy())
        write_table(self.embeddings, table)

    def scores(self) -> pd.DataFrame:
        """Return the first ERM model's scores of all subjects, as ``subject_id, score``."""
        return read_predictions(self.embeddings.with_name("predictions.csv")).table[["subject_id", "score"]]

    def training_rows(self) -> pd.DataFrame:
        """Return the training rows of the manifest, with the true group."""
        table = read_manifest(self.manifest).table
        return table[table["split"] == "train"]
