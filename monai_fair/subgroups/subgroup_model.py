"""What was found, as a file: all that new subjects need to be given the subgroups of a discovery.

``subgroup_model.safetensors`` holds numbers, and in its header what they are of; it lies beside ``subgroups.csv``.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from monai_fair.data.artifacts import fingerprint, read_tensors, write_tensors
from monai_fair.errors import ArtifactError, raise_problems
from monai_fair.subgroups.assignment import ASSIGNMENTS, OrderedAssignment
from monai_fair.subgroups.registered_rows import REPRESENTATIONS
from monai_fair.subgroups.row_rules import RowRule

FloatArray = npt.NDArray[np.float64]
SUBGROUP_MODEL = "subgroup_model.safetensors"
_KIND, _VERSION = "subgroup_model", "1"
_NOT_OF_ROWS = ("max_folds",)  # settings of a registration that change no number of a subject


@dataclass(frozen=True, eq=False)
class SubgroupModel:
    """How a subject's numbers become probabilities of subgroups.

    Attributes:
        assignment: from rows to responsibilities, ``S1`` first.
        rule: from the numbers of a subject to its row.
        nuisances: names of the recorded attributes that the rule takes out.
        categories: of each, sorted; empty for one of numbers.
        block_mm: side of the blocks that maps are averaged over.
        template_mask_sha256: of the brain mask that says where the blocks are; empty for what lies on no grid.
        regions_sha256: of the label image of ``regional_volumes``; empty without.
        registration: settings of the registration behind the rows; ``None`` where they are not known.
        key: of the discovery that it belongs to.
    """

    assignment: OrderedAssignment
    rule: RowRule
    nuisances: tuple[str, ...]
    categories: tuple[tuple[str, ...], ...]
    block_mm: float
    template_mask_sha256: str
    regions_sha256: str
    registration: Mapping[str, Any] | None
    key: str

    @property
    def representation(self) -> str:
        """Kind of the rows."""
        return self.rule.kind

    @property
    def names(self) -> list[str]:
        """Names of the subgroups, ``S1`` for the largest of the fit."""
        return self.assignment.names

    def membership(self, values: FloatArray, recorded: FloatArray) -> FloatArray:
        """Return probabilities of the subgroups, shape ``(n, K)``.

        Args:
            values: numbers of the subjects as they were read, shape ``(n, c)``; undefined ones are NaN.
            recorded: their nuisances as numbers, shape ``(n, m)``.

        Raises:
            ArtifactError: if the numbers are of another grid.
        """
        # the volume of the brain is in no row
        wanted = self.assignment.assign.n_columns + (self.representation == "regional_volumes")
        if values.shape[1] != wanted:
            raise ArtifactError(
                f"subgroup model: expected {wanted} numbers of {self.representation} per subject, got "
                f"{values.shape[1]}; give subjects that are registered to the template of the discovery"
            )
        return self.assignment(self.rule.rows(values, recorded))

    def registration_problems(self, settings: Mapping[str, Any] | None) -> list[str]:
        """Say how subjects were registered otherwise than those of the fit; settings that are not known are not asked.

        Args:
            settings: of their registration.
        """
        if settings is None or self.registration is None:
            return []
        names = sorted({*settings, *self.registration} - set(_NOT_OF_ROWS))
        return [
            f"{name}: expected {self.registration.get(name, 'none')} as in the discovery, got "
            f"{settings.get(name, 'none')}; register with the model and the settings of the discovery"
            for name in names
            if fingerprint(settings.get(name)) != fingerprint(self.registration.get(name))
        ]


def write_subgroup_model(path: str | Path, model: SubgroupModel) -> Path:
    """Write a model as safetensors, whole or not at all."""
    method = next(name for name, kind in ASSIGNMENTS.items() if isinstance(model.assignment.assign, kind))
    content = {
        "method": method,
        "representation": model.representation,
        "keep_scale": model.rule.keep_scale,
        "nuisances": model.nuisances,
        "categories": model.categories,
        "block_mm": model.block_mm,
        "template_mask_sha256": model.template_mask_sha256,
        "regions_sha256": model.regions_sha256,
        "registration": model.registration,
        "key": model.key,
    }
    tensors = {
        **model.assignment.assign.tensors(),
        **model.rule.tensors(),
        "order": model.assignment.order.astype(np.int64),
    }
    return write_tensors(path, tensors, {"kind": _KIND, "version": _VERSION, "content": json.dumps(content)})


def read_subgroup_model(path: str | Path) -> SubgroupModel:
    """Read a model of :func:`write_subgroup_model`.

    Raises:
        ArtifactError: if the file is missing or damaged, of another kind or version, or its numbers do not fit.
    """
    tensors, metadata = read_tensors(path)
    if (metadata.get("kind"), metadata.get("version")) != (_KIND, _VERSION):
        raise ArtifactError(
            f"{path}: expected a file of kind '{_KIND}', version {_VERSION}, got '{metadata.get('kind')}', version "
            f"{metadata.get('version')}; give the {SUBGROUP_MODEL} that the verb discover writes"
        )
    try:
        model = _model(json.loads(metadata["content"]), tensors)
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(
            f"{path}: expected a whole model, got one without {error}; remove it and run discover again"
        ) from error
    raise_problems(ArtifactError, path, _problems(model))
    return model


def _model(content: Mapping[str, Any], tensors: Mapping[str, npt.NDArray[Any]]) -> SubgroupModel:
    assign = ASSIGNMENTS[content["method"]].of(tensors)
    return SubgroupModel(
        assignment=OrderedAssignment(assign, tensors["order"]),
        rule=RowRule.of(content["representation"], bool(content["keep_scale"]), tensors),
        nuisances=tuple(content["nuisances"]),
        categories=tuple(map(tuple, content["categories"])),
        block_mm=float(content["block_mm"]),
        template_mask_sha256=str(content["template_mask_sha256"]),
        regions_sha256=str(content["regions_sha256"]),
        registration=content["registration"],
        key=str(content["key"]),
    )


def _problems(model: SubgroupModel) -> list[str]:
    """Say which numbers do not fit together: a file that was put together by hand would else fail far away."""
    assign, rule, problems = model.assignment.assign, model.rule, []
    if model.representation not in REPRESENTATIONS:
        problems.append(f"expected a representation of {', '.join(REPRESENTATIONS)}, got '{model.representation}'")
    count = len(assign.weights)
    if sorted(model.assignment.order.tolist()) != list(range(count)):
        problems.append(f"order: expected each of 0 to {count - 1} once, got {model.assignment.order.tolist()}")
    if rule.effects is not None and rule.effects.coefficients.shape[0] != assign.n_columns:
        shape = rule.effects.coefficients.shape
        problems.append(f"coefficients: expected one row for each of {assign.n_columns} columns, got shape {shape}")
    if len(model.categories) != len(model.nuisances):
        problems.append(f"categories: expected those of {len(model.nuisances)} nuisances, got {len(model.categories)}")
    if any(not np.isfinite(value).all() for value in {**assign.tensors(), **rule.tensors()}.values()):
        problems.append("expected finite numbers, got others")
    return [f"{problem}; remove the file and run discover again" for problem in problems]


def probability_columns(model: SubgroupModel) -> list[str]:
    """Return the columns of probabilities, as ``subgroups.csv`` names them."""
    return [f"membership_{name}" for name in model.names]
