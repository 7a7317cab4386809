"""A bundle as an annotation server uses it: one folder that stands alone, checked before anything is served."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_fair.errors import LabelError, raise_problems
from monai_fair.label.bundle_checks import bundle_problems, read_inference

_PROPAGATION = "monai_fair.engines.LabelPropagation"


@dataclass(frozen=True)
class ServedBundle:
    """A bundle's folder; ``python -m monai_fair pack`` writes one, and :meth:`read` takes those of others too.

    A bundle is a program: reading it builds the network that its config names. Whoever starts a server chooses
    bundles; nobody who sends a request does.

    Attributes:
        name: of the folder, and of the model in the server's addresses.
        path: the folder, absolute.
        kind: ``registration`` if its inferer propagates labels of a template, ``classification`` if the name says so,
            which is how MONAI Label tells; else ``other``.
    """

    name: str
    path: Path
    kind: str

    @classmethod
    def read(cls, path: str | Path) -> "ServedBundle":
        """Check a folder: its config, metadata and weights, whether they fit, and the records beside the weights.

        Raises:
            LabelError: with everything that is wrong.
        """
        folder = Path(path).resolve()
        raise_problems(LabelError, path, bundle_problems(folder))
        return cls.of_checked(folder)

    @classmethod
    def of_checked(cls, folder: Path) -> "ServedBundle":
        """Return the bundle of a folder in which :func:`~monai_fair.label.bundle_checks.bundle_problems` found none."""
        inferer = read_inference(folder).get("inferer")
        propagates = isinstance(inferer, dict) and inferer.get("_target_") == _PROPAGATION
        other = "classification" if "classification" in folder.name.lower() else "other"
        return cls(folder.name, folder.resolve(), "registration" if propagates else other)

    @property
    def models(self) -> Path:
        """Folder of the weights and what belongs to them."""
        return self.path / "models"

    @property
    def model(self) -> Path:
        """The weights, a plain state dict."""
        return self.models / "model.pt"

    @property
    def settings(self) -> Path | None:
        """Record of the settings it was trained with, if there is one: without it they cannot be compared."""
        return self._present("model.json")

    @property
    def thresholds(self) -> Path | None:
        """Thresholds of the groups, if there are any."""
        return self._present("thresholds.json")

    @property
    def audit(self) -> Path | None:
        """An audit of the model, if there is one."""
        return self._present("metrics.json")

    @property
    def manifest(self) -> Path | None:
        """The manifest of its training, for how often groups are in it, if there is one."""
        return self._present("manifest.csv")

    @property
    def subgroups(self) -> Path | None:
        """Folder of discovered subgroups, if there is one."""
        return self._present("subgroups")

    def config(self) -> Any:
        """Return a new ``ConfigParser`` of MONAI for its inference config, with ``bundle_root`` set."""
        return read_inference(self.path)

    def _present(self, name: str) -> Path | None:
        return self.models / name if (self.models / name).exists() else None
