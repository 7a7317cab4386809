"""Scores, embeddings and discovered subgroups of the images of a server, as MONAI Label asks for them."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from monailabel.interfaces.tasks.scoring import ScoringMethod

from monai_fair.errors import LabelError, MonaiFairError
from monai_fair.label.bundle_scores import scorer_of
from monai_fair.label.demographics import Demographics
from monai_fair.label.image_scoring import score_images
from monai_fair.label.next_image import told_attributes_of
from monai_fair.label.requests import truth
from monai_fair.label.served_bundle import ServedBundle
from monai_fair.label.server.strategies import stored_images, studies_of

logger = logging.getLogger(__name__)


class FairScoring(ScoringMethod):
    """Scores all images by a bundle; those without a label first.

    Args:
        bundle: a classifier, whose scores and embeddings are kept; or a registration with discovered subgroups, whose
            probabilities are.
        demographics: what is known of the patients.
    """

    request_keys = frozenset({"part", "retry"})

    def __init__(self, bundle: ServedBundle, demographics: Demographics) -> None:
        what = "probabilities of discovered subgroups" if bundle.kind == "registration" else "scores and embeddings"
        super().__init__(f"{bundle.name}: {what} of all images, for strategies")
        self.bundle, self.demographics = bundle, demographics

    def __call__(self, request: Mapping[str, Any], datastore: Any) -> dict[str, Any]:
        """Score what is not scored yet; see :func:`~monai_fair.label.image_scoring.score_images`.

        Args:
            request: ``part`` (images between two writes), ``retry`` (true tries images again that had no score) and
                ``device``.
            datastore: the images.

        Raises:
            LabelError: if an option is wrong.
        """
        part = request.get("part")
        if part is not None and (not isinstance(part, int) or isinstance(part, bool) or part < 1):
            raise LabelError(f"scoring: part: expected a whole number from 1, got {str(part)[:100]!r}; correct it")
        images, facts = stored_images(datastore, self.demographics, classes=self.bundle.kind == "classification")
        order = sorted(zip(images, facts, strict=True), key=lambda both: (both[1].labelled, both[1].image_id))
        done = score_images(
            self.bundle,
            [image for image, _ in order],
            studies_of(datastore),
            scorer_of(self.bundle, device=str(request.get("device") or "")),
            told=told_attributes_of(self.bundle),
            part=part,
            retry=truth(request.get("retry", False)),
        )
        return {"model": self.bundle.name, **done}


def fair_scoring(bundles: Sequence[ServedBundle], demographics: Demographics) -> dict[str, ScoringMethod]:
    """Return a scoring for each bundle that can score, by name; the log says why another one cannot.

    Args:
        bundles: of the server.
        demographics: what is known of the patients.
    """
    found: dict[str, ScoringMethod] = {}
    for bundle in bundles:
        if bundle.kind == "other":
            continue
        try:
            scorer_of(bundle)
        except MonaiFairError as error:
            logger.info("no scoring by %s: %s", bundle.name, error)
        else:
            found[bundle.name] = FairScoring(bundle, demographics)
    return found
