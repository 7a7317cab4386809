"""Labels of a template on new subjects as a segmentation: what MONAI Label and other users of MONAI expect."""

import copy
import logging
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.inferers import Inferer
from monai.transforms import MapTransform
from monai.utils import convert_to_dst_type, convert_to_tensor
from torch import Tensor

from monai_fair.engines.registration_files import TemplateSpace, moved_labels
from monai_fair.engines.registration_outcome import dense_fields, doubt_about, quality_of
from monai_fair.engines.subject_fit import SubjectFit
from monai_fair.errors import RegistrationError
from monai_fair.networks import DeformationINR

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class RegisteredSubject:
    """One subject's answer.

    Attributes:
        displacement: pull-back on the subject's grid that reads the template, ``(3, D, H, W)``, in voxels, on the CPU.
        noise: standard deviation of what is left between warped template and subject.
        quality: of :func:`~monai_fair.engines.registration_outcome.quality_of`.
        doubt: why the answer does not count; empty if it does.
    """

    displacement: Tensor
    noise: float
    quality: Mapping[str, float]
    doubt: str


class LabelPropagation(Inferer):
    """Register subjects and carry a label map of the template to them: an inferer from images to one-hot labels.

    Args:
        fit: registers.
        space: of the template.
        label_map: which of the template's label maps, such as ``tissue``; by default the first.
        max_folds: share of the brain that may fold; above it an answer does not count.

    Attributes:
        values: the labels of the map, ascending; channel ``c`` of an answer stands for ``values[c]``.

    Raises:
        RegistrationError: if the template has no label map, or none of this name.
    """

    def __init__(
        self, fit: SubjectFit, space: TemplateSpace, *, label_map: str | None = None, max_folds: float = 0.01
    ) -> None:
        super().__init__()
        if not space.labels:
            raise RegistrationError(
                f"{space.source}: expected a label map beside the template, such as template_dseg.nii.gz, found none; "
                "put it there, labels are what is carried to subjects"
            )
        chosen = next(iter(space.labels)) if label_map is None else label_map
        if chosen not in space.labels:
            raise RegistrationError(f"label_map: expected one of {', '.join(space.labels)}, got {chosen!r}; choose one")
        self.fit = fit
        self.space = space
        self.label_map = chosen
        self.max_folds = max_folds
        self.values: tuple[int, ...] = tuple(np.unique(space.labels[chosen]).tolist())

    def __call__(self, inputs: Tensor, network: DeformationINR) -> Tensor:
        """Return the template's labels on each subject.

        Args:
            inputs: images on the template's grid, axes in RAS order, shape ``(B, 1, D, H, W)``.
            network: maps codes to deformations.

        Returns:
            uint8, shape ``(B, C, D, H, W)``, one channel for each of ``values``; with the metadata of ``inputs``. An
            answer that does not count is given too, and the log warns of it.

        Raises:
            MonaiFairError: if a subject has no answer, such as one whose fit diverged.
        """
        subjects = self.register(inputs, network)
        for subject in subjects:
            if subject.doubt:
                logger.warning("the registration does not count: %s", subject.doubt)
        labels = torch.stack([self.one_hot(subject.displacement) for subject in subjects])
        answer: Tensor = convert_to_dst_type(labels, inputs, dtype=torch.uint8)[0]
        return answer

    def register(self, inputs: Tensor, network: DeformationINR) -> list[RegisteredSubject]:
        """Register each subject; arguments and errors are those of a call."""
        if inputs.dim() != 5 or inputs.shape[1] != 1:
            raise RegistrationError(
                f"registration: expected images of shape (B, 1, D, H, W), got {tuple(inputs.shape)}; give one channel"
            )
        images = convert_to_tensor(inputs, dtype=torch.float32, track_meta=False)[:, 0]
        found = self._fit_on(images.device)(images, network)
        fields = {name: field.cpu() for name, field in dense_fields(found, network).items()}
        subjects = []
        for place, image in enumerate(images.cpu()):
            own = {name: field[place] for name, field in fields.items()}
            quality = quality_of(self.space, image, own)
            doubt = doubt_about(quality, contrast=self.fit.match.contrast, max_folds=self.max_folds)
            subjects.append(RegisteredSubject(own[""], float(found.noise[place]), quality, doubt))
        return subjects

    def one_hot(self, displacement: Tensor) -> Tensor:
        """Return the label map under a displacement on the CPU, uint8, shape ``(C, D, H, W)``."""
        moved = torch.from_numpy(moved_labels(self.space.labels[self.label_map], displacement))
        return torch.stack([moved == value for value in self.values]).to(torch.uint8)

    def of_map(self, label_map: str) -> "LabelPropagation":
        """Return the same registration with another label map."""
        return LabelPropagation(self.fit, self.space, label_map=label_map, max_folds=self.max_folds)

    def _fit_on(self, device: torch.device) -> SubjectFit:
        """Return the fit on the images' device: servers choose it for each request, after this was built."""
        if self.fit.match.mask.device == device:
            return self.fit
        moved = copy.copy(self.fit)
        moved.match = copy.deepcopy(self.fit.match).to(device)
        return moved


class LabelValuesd(MapTransform):
    """Turn channel numbers, as ``AsDiscreted(argmax=True)`` leaves them, into the labels of the template.

    Args:
        keys: of the channel numbers, shape ``(1, D, H, W)``.
        inferer: made the channels.
    """

    def __init__(self, keys: KeysCollection, inferer: LabelPropagation, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.values = inferer.values

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the data with labels in the smallest of uint8, int16 and int32 that holds all of them."""
        changed = dict(data)
        for key in self.key_iterator(changed):
            channels = changed[key]
            table = torch.as_tensor(self.values, dtype=_smallest_type(self.values), device=channels.device)
            labels = table[convert_to_tensor(channels, dtype=torch.long, track_meta=False)]
            changed[key] = convert_to_dst_type(labels, channels, dtype=table.dtype)[0]
        return changed


def _smallest_type(values: tuple[int, ...]) -> torch.dtype:
    # other programs know these; 64-bit labels few of them
    fitting = (kind for kind in (torch.uint8, torch.int16) if _holds(kind, values))
    return next(fitting, torch.int32)


def _holds(kind: torch.dtype, values: tuple[int, ...]) -> bool:
    limits = torch.iinfo(kind)
    return bool(limits.min <= min(values) and max(values) <= limits.max)
