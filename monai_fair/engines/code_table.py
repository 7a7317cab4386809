"""One code for each subject of a cohort, kept in one table and one file."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from torch import Tensor

from monai_fair.data.artifacts import read_tensors, write_tensors
from monai_fair.errors import ArtifactError


class CodeTable:
    """The codes of a cohort, by the order of its subjects.

    Args:
        subject_ids: of the rows.
        code_shape: of one code.
        device: where the table lies.

    Attributes:
        values: shape ``(N, *code_shape)``, zeros at the start.
    """

    def __init__(
        self, subject_ids: Sequence[str], code_shape: Sequence[int], *, device: torch.device | str = "cpu"
    ) -> None:
        self.subject_ids = [str(subject) for subject in subject_ids]
        self.values = torch.zeros(len(self.subject_ids), *code_shape, device=device)
        self._shared = self.values.clone()

    def add(self, rows: Tensor, change: Tensor) -> None:
        """Change some rows."""
        self.values[rows] += change

    def share(self) -> None:
        """Give every process the rows that others changed since the last call; where several did, their mean.

        The call is collective. With one process it does nothing.
        """
        if idist.get_world_size() == 1:
            return
        change = self.values - self._shared
        touched = (change.flatten(1) != 0).any(dim=1).float()
        total = idist.all_reduce(change)
        count = idist.all_reduce(touched)
        self.values = self._shared + total / count.clamp_min(1.0).reshape(-1, *[1] * (change.dim() - 1))
        self._shared = self.values.clone()

    def state_dict(self) -> dict[str, Any]:
        """Return the table with its subjects."""
        return {"subject_ids": self.subject_ids, "values": self.values}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a table of the same subjects.

        Raises:
            ArtifactError: if the subjects, or the shape of a code, are others.
        """
        if list(state["subject_ids"]) != self.subject_ids:
            raise ArtifactError("codes: expected the subjects of this cohort, in its order, got others")
        expected, found = tuple(self.values.shape[1:]), tuple(state["values"].shape[1:])
        if found != expected:
            raise ArtifactError(f"codes: expected shape {expected}, got {found}; delete the state to start anew")
        self.values = state["values"].to(self.values.device).clone()
        self._shared = self.values.clone()

    def save(self, path: str | Path, *, network_fingerprint: str = "") -> Path:
        """Write the table; see :func:`write_codes`."""
        return write_codes(path, self.subject_ids, self.values, network_fingerprint=network_fingerprint)


def write_codes(path: str | Path, subject_ids: Sequence[str], codes: Tensor, *, network_fingerprint: str = "") -> Path:
    """Write codes as safetensors: tensor ``codes`` of shape ``(N, K)``, and what belongs to it in the header.

    Args:
        path: the file.
        subject_ids: of the rows.
        codes: shape ``(N, *code_shape)``.
        network_fingerprint: hash of the network they were fitted with; without it codes mean nothing.
    """
    header = {
        "kind": "codes",
        "subject_ids": json.dumps(list(subject_ids)),
        "code_shape": json.dumps(list(codes.shape[1:])),
        "network_fingerprint": network_fingerprint,
    }
    return write_tensors(path, {"codes": codes.detach().cpu().flatten(1).numpy()}, header)


def read_codes(path: str | Path) -> tuple[list[str], Tensor]:
    """Read a table of codes.

    Returns:
        The subjects, and their codes of shape ``(N, *code_shape)``.

    Raises:
        ArtifactError: if the file is missing, damaged, or holds no codes.
    """
    tensors, metadata = read_tensors(path)
    wanted = {"subject_ids", "code_shape"} <= set(metadata) and metadata.get("kind") == "codes"
    if not wanted or "codes" not in tensors:
        raise ArtifactError(f"{path}: expected a table of codes, got tensors {sorted(tensors)}; give codes.safetensors")
    shape = json.loads(metadata["code_shape"])
    return json.loads(metadata["subject_ids"]), torch.from_numpy(tensors["codes"]).reshape(-1, *shape)
