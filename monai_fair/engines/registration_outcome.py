"""What comes out of a fit, for tables and for annotators alike: dense fields, their quality, and whether it counts."""

from collections.abc import Mapping

import torch
from torch import Tensor

from monai_fair.engines.registration_files import SubjectTruth, TemplateSpace, measures
from monai_fair.engines.subject_fit import Deformations
from monai_fair.errors import RegistrationError
from monai_fair.networks import DeformationINR


def dense_fields(found: Deformations, network: DeformationINR) -> dict[str, Tensor]:
    """Return displacements in voxels, each of shape ``(B, 3, D, H, W)``.

    Returns:
        The answer under an empty name, its ``inverse``, and the answer of the codes alone as ``_codes`` where that is
        another one.
    """
    fields = {"": found.displacement(network), "inverse": found.inverse(network)}
    if bool(found.residual.any()):
        fields["_codes"] = found.without_residual().displacement(network)
    return fields


def quality_of(
    space: TemplateSpace, image: Tensor, fields: Mapping[str, Tensor], *, truth: SubjectTruth | None = None
) -> dict[str, float]:
    """Return what a table says of one subject's fields; see :func:`~monai_fair.engines.registration_files.measures`.

    Args:
        space: of the template.
        image: the subject, shape ``(D, H, W)``.
        fields: of :func:`dense_fields` for this subject, shapes ``(3, D, H, W)``.
        truth: what is known of the subject.

    Raises:
        MonaiFairError: if there is no answer: the fit diverged, or the brain was moved out of the image.
    """
    if not all(bool(torch.isfinite(field).all()) for field in fields.values()):
        raise RegistrationError(
            "expected finite displacements, got some that are not: the fit diverged; look at the image"
        )
    quality = measures(space, image, fields[""], inverse=fields["inverse"], truth=truth, before=True)
    if "_codes" in fields:
        codes = measures(space, image, fields["_codes"], inverse=None, truth=truth, before=False)
        quality |= {f"{name}_codes": value for name, value in codes.items()}
    return quality


def doubt_about(quality: Mapping[str, float], *, contrast: str, max_folds: float) -> str:
    """Say why an answer does not count; nothing if it does.

    Args:
        quality: of :func:`quality_of`.
        contrast: that the template was compared in, ``same`` or ``any``.
        max_folds: share of the brain's voxels that may fold.
    """
    before = quality["similarity_before"]
    if before < 0 and contrast == "same":
        return (
            f"expected an image that is bright where the template is, got a local correlation of {before:.2f} "
            "before registration; give --contrast any"
        )
    if quality["folds"] > max_folds:
        return f"{100 * quality['folds']:.2f} % of the brain folds, more than {100 * max_folds:g} %"
    return ""
