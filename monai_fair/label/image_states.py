"""What scores belong to: a bundle's files, an image as it lies there, and what the bundle is told of its patient."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from monai_fair.data import AttributeCodes, sha256
from monai_fair.data.artifacts import file_state, fingerprint
from monai_fair.label.served_bundle import ServedBundle
from monai_fair.subgroups import read_discovered
from monai_fair.subgroups.subgroup_model import SUBGROUP_MODEL

_CONFIGS = ("inference.yaml", "inference.json")


@dataclass(frozen=True)
class StoredImage:
    """An image of a server.

    Attributes:
        image_id: its id.
        path: of its file.
        attributes: of the patient, as text.
    """

    image_id: str
    path: Path
    attributes: Mapping[str, str] = field(default_factory=dict)

    def fingerprint(self, told: Sequence[str]) -> str:
        """Return what changes with the image, or with what the bundle is told: size, time, and attributes.

        Args:
            told: attributes that the bundle looks at.
        """
        return fingerprint([file_state(self.path), [self.attributes.get(name, "") for name in told]])


def model_key(bundle: ServedBundle) -> str:
    """Return the fingerprint of all that a bundle's scores depend on: weights, settings, config, and subgroups."""
    files = [bundle.model, bundle.models / "model.json", *(bundle.path / "configs" / name for name in _CONFIGS)]
    files += [bundle.models / "subgroups" / SUBGROUP_MODEL]
    return fingerprint([[path.name, _digest(path)] for path in files if path.is_file()])


def told_attributes(bundle: ServedBundle) -> tuple[str, ...]:
    """Return the attributes that a bundle's scores depend on: codes that it was trained with, or what subgroups lack.

    Raises:
        ArtifactError: if the subgroups of a registration bundle cannot be assigned.
    """
    if bundle.kind == "registration":
        return read_discovered(bundle.subgroups).nuisances if bundle.subgroups else ()
    config = bundle.config()
    codes = config.get_parsed_content("codes") if "codes" in config.config else None
    return tuple(codes.levels) if isinstance(codes, AttributeCodes) else ()


def _digest(path: Path) -> str:
    return _digest_of(path, tuple(file_state(path)))


@lru_cache(maxsize=64)
def _digest_of(path: Path, state: tuple[int, ...]) -> str:
    return sha256(path)
