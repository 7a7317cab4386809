"""Keep a classifier's embedding apart from that of attributes, in any MONAI ``SupervisedTrainer``."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args

import torch
from monai.engines import SupervisedTrainer
from monai.utils.enums import CommonKeys as Keys

from monai_fair.errors import MonaiFairError
from monai_fair.handlers.loss_term import LayerTerm
from monai_fair.losses import ColumnOrthogonality, RowOrthogonality, sensitive_basis
from monai_fair.losses.nir_loss import checked_weight
from monai_fair.losses.sensitive_space import RankRule
from monai_fair.networks import EmbeddingClassifier

FairFeature = Literal["projection", "map"]
_LAYERS: dict[str, str] = {"projection": "out", "map": "projection"}  # whose input each is


class OrthogonalityHandler(LayerTerm):
    """Add column- and row-space orthogonality to an attribute model that is finished (FCRO, stage 1 of FairREAD).

    At the start of a run the attribute model embeds the training images once, in ``eval()``; their leading directions
    are the sensitive space of the column loss. In every iteration it embeds the batch for the row loss. The embedding
    that is kept apart is one of an :class:`~monai_fair.networks.EmbeddingClassifier`, of both models the same. How the
    losses are added and logged is that of :class:`monai_fair.handlers.LossTerm`; the values are ``column`` and ``row``,
    before their weights.

    Args:
        attribute_model: finished; it is frozen and stays in ``eval()``.
        images: batches with ``image`` and ``label`` of the training set, without augmentation.
        column_weight: factor of the column loss, at least 0; the paper's code has 80.
        row_weight: factor of the row loss, at least 0; the paper's code has 500, for batches of 128.
        fair_feature: ``projection``, the normalised embedding, as published; or ``map``, the mean over places of the
            encoder's map behind its ReLU, which is nearer to what stage 2 takes. The weights are for the first, whose
            rows have length 1.
        num_classes: by class, as the published runs are; ``None`` takes all samples together.
        rank: see :func:`monai_fair.losses.sensitive_basis`, as the next three.
        energy: tau.
        rule: of the rank.
        center: of the embeddings.
        per_sample: see :class:`monai_fair.losses.RowOrthogonality`.

    Raises:
        MonaiFairError: if an option is out of range; in a run, if the layer is not there, or a class has no image.

    References:
        Deng, Zhong, Dou, Li, IPMI 2023, arXiv:2301.01481.
    """

    elsewhere = "monai_fair.losses.ColumnOrthogonality and RowOrthogonality"

    def __init__(
        self,
        attribute_model: EmbeddingClassifier,
        images: Iterable[Mapping[str, Any]],
        *,
        column_weight: float = 80.0,
        row_weight: float = 500.0,
        fair_feature: FairFeature = "projection",
        num_classes: int | None = 2,
        rank: int | None = None,
        energy: float = 0.99,
        rule: RankRule = "least",
        center: bool = False,
        per_sample: bool = False,
    ) -> None:
        if fair_feature not in get_args(FairFeature):
            raise MonaiFairError(
                f"OrthogonalityHandler: expected fair_feature {' or '.join(get_args(FairFeature))}, got "
                f"'{fair_feature}'; choose one"
            )
        super().__init__(_LAYERS[fair_feature])
        self.fair_feature = fair_feature
        self.column_weight = checked_weight("OrthogonalityHandler", column_weight)
        self.row_weight = checked_weight("OrthogonalityHandler", row_weight)
        self.attribute_model, self.images = attribute_model, images
        self.num_classes = num_classes
        self._basis_options: dict[str, Any] = {"rank": rank, "energy": energy, "rule": rule, "center": center}
        self._row = RowOrthogonality(num_classes=num_classes, per_sample=per_sample)
        self._column: ColumnOrthogonality | None = None

    def begin(self, engine: SupervisedTrainer) -> None:
        """Find the sensitive space, and look at the embedding."""
        super().begin(engine)
        self.attribute_model.requires_grad_(False)
        self.attribute_model.to(engine.state.device).eval()
        embeddings, labels = self._embedded(engine.state.device)
        self._column = ColumnOrthogonality(
            [sensitive_basis(own, **self._basis_options) for own in self._by_class(embeddings, labels)]
        ).to(engine.state.device)

    def about(self) -> str:
        """Return the layer and the rank."""
        rank = 0 if self._column is None else self._column.bases.shape[2]
        return f"{super().about()}, sensitive directions {rank}"

    def terms(self, engine: SupervisedTrainer) -> tuple[torch.Tensor | None, dict[str, torch.Tensor]]:
        """Return the weighted sum of both losses."""
        output, z = engine.state.output, self.input.take()
        assert self._column is not None  # of begin, as the hook is
        with torch.no_grad():
            sensitive = self._sensitive(output[Keys.IMAGE])
        column = self._column(z, output[Keys.LABEL])
        row = self._row(z, sensitive, output[Keys.LABEL])
        return self.column_weight * column + self.row_weight * row, {"column": column, "row": row}

    def _sensitive(self, images: torch.Tensor) -> torch.Tensor:
        model = self.attribute_model
        return model.embed(images) if self.fair_feature == "projection" else model.features(images)

    @torch.no_grad()
    def _embedded(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        embeddings, labels = [], []
        for batch in self.images:
            embeddings.append(self._sensitive(batch[Keys.IMAGE].to(device)))
            labels.append(batch[Keys.LABEL].reshape(-1))
        return torch.cat(embeddings), torch.cat(labels).to(device)

    def _by_class(self, embeddings: torch.Tensor, labels: torch.Tensor) -> list[torch.Tensor]:
        if self.num_classes is None:
            return [embeddings]
        parts = [embeddings[labels == label] for label in range(self.num_classes)]
        if empty := [str(label) for label, own in enumerate(parts) if not len(own)]:
            raise MonaiFairError(
                f"OrthogonalityHandler: expected training images of every class, got none of {', '.join(empty)}; check "
                "the labels, or take num_classes None"
            )
        return parts
