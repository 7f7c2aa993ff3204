"""A loss of pairs with a guide: in-batch negatives without the false ones, and the guide's own view of the batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from sentence_transformers.base.losses.merged_forward import embed_columns
from sentence_transformers.util import batch_to_device
from torch import Tensor
from typing_extensions import override

from .distillation import DistillationLoss

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sentence_transformers import SentenceTransformer

_TIE = 1e-4
_REHEARSED_AT_ONCE = 24


class GuidedLoss(DistillationLoss):
    """Pairs of texts that belong together, learned under a guide: a stronger model, or the one trained as it was.

    Up to three terms, on embeddings of length 1:

    - in-batch negatives with a temperature, in both directions (InfoNCE). A candidate that the guide finds at least as
      near to the anchor as the anchor's own positive is no negative (GISTEmbed, Solatorio, 2024);
    - ``guidance`` times the objectives of :class:`DistillationLoss` on all texts of the batch, which teach what the
      guide knows, or where the guide is the start, keep what the model knew;
    - ``rehearsal`` times the mean squared difference between similarities of other sentences now and as they were,
      scaled as the relational objective is: what the model knew, rehearsed (Robins, 1995). A step takes 24 of them,
      drawn by the numbers of its pairs, so that a resumed run draws the same.

    The data has the columns ``anchor`` and ``positive``, and as label the pair's number.

    Args:
        model: The model to train.
        guide: The guide's embeddings of the distinct texts, shape (texts, d), of length 1; may be memory-mapped.
        rows: For each pair the rows of its anchor and its positive in ``guide``, shape (pairs, 2).
        guidance: Weight of what the guide knows; 0 leaves it out, and the guide judges negatives alone.
        pair_temperature: Temperature of the in-batch negatives.
        rehearsal: Weight of what the model knew; 0 leaves it out.
        rehearsed: Sentences to rehearse; their embeddings are made here.
        objectives: Weights of :class:`DistillationLoss`; by default its own, but for ``contrastive``, which is 0.

    Raises:
        ValueError: As :class:`DistillationLoss`, for a temperature that is not above 0, and for too few sentences to
            rehearse.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        guide: np.ndarray,
        rows: np.ndarray,
        guidance: float = 1.0,
        pair_temperature: float = 0.05,
        rehearsal: float = 0.0,
        rehearsed: Sequence[str] = (),
        **objectives: Any,
    ) -> None:
        super().__init__(model, [guide], **{"contrastive": 0.0, **objectives})
        if not pair_temperature > 0:
            raise ValueError(f"pair_temperature is {pair_temperature}: it must be above 0.")
        if rehearsal and len(rehearsed) < _REHEARSED_AT_ONCE:
            raise ValueError(f"There are {len(rehearsed)} sentences to rehearse, fewer than {_REHEARSED_AT_ONCE}.")
        self.rows = rows
        self.guidance = guidance
        self.pair_temperature = pair_temperature
        self.rehearsal = rehearsal
        self.rehearsed = list(rehearsed)
        if rehearsal:
            self.known = model.encode(self.rehearsed, normalize_embeddings=True, convert_to_tensor=True).cpu()
        self._similarities: list[Tensor] = []

    @override
    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None = None) -> Tensor:
        assert labels is not None
        columns = list(sentence_features)
        lengths = [column["input_ids"].shape[-1] for column in columns]
        separate = max(lengths) > 1.25 * min(lengths)
        anchors, positives = embed_columns(self.model, columns, separate_first=separate)
        rows = self.rows[labels.cpu().numpy()]
        guide = [torch.from_numpy(np.asarray(self.teachers[0][side])).to(anchors.device) for side in rows.T]
        loss = self.compute_pair_loss([anchors, positives], guide)
        return loss + self.rehearsal * self._forgotten(labels) if self.rehearsal else loss

    def _forgotten(self, labels: Tensor) -> Tensor:
        """How far similarities of some sentences are from what they were before training."""
        rng = np.random.default_rng(labels.cpu().numpy())
        rows = rng.choice(len(self.rehearsed), _REHEARSED_AT_ONCE, replace=False)
        features = self.model.preprocess([self.rehearsed[row] for row in rows.tolist()])
        embeddings = self.model(batch_to_device(features, labels.device))["sentence_embedding"]
        with torch.autocast(embeddings.device.type, enabled=False):
            now, known = F.normalize(embeddings.float(), dim=1), self.known[rows].to(embeddings.device).float()
            return self.RELATIONAL_SCALE * F.mse_loss(now @ now.T, known @ known.T)

    def compute_pair_loss(self, embeddings: Sequence[Tensor], guide: Sequence[Tensor]) -> Tensor:
        """The loss from anchors and positives, each of shape (batch, d), and the guide's embeddings of them."""
        with torch.autocast(embeddings[0].device.type, enabled=False):
            anchors, positives = (F.normalize(side.float(), dim=1) for side in embeddings)
            of_anchors, of_positives = (F.normalize(side.float(), dim=1) for side in guide)
            similarities = anchors @ positives.T
            judged = of_anchors @ of_positives.T
            own = torch.eye(len(anchors), dtype=torch.bool, device=anchors.device)
            if self.model.training:
                found = similarities.detach()
                self._similarities.append(torch.stack([found[own].mean(), found[~own].mean()]))
            loss = (self._contrast(similarities, judged, own) + self._contrast(similarities.T, judged.T, own)) / 2
            if self.guidance:
                both = self.compute_loss_from_embeddings(torch.cat([anchors, positives]), [torch.cat(list(guide))])
                loss = loss + self.guidance * both
        return loss

    def _contrast(self, similarities: Tensor, judged: Tensor, own: Tensor) -> Tensor:
        # Texts that occur twice in a batch are judged alike, and so are no negatives of each other.
        false = (judged >= judged.diagonal()[:, None] - _TIE) & ~own
        logits = (similarities / self.pair_temperature).masked_fill(false, -torch.inf)
        return F.cross_entropy(logits, torch.arange(len(logits), device=logits.device))

    @override
    def pop_statistics(self) -> dict[str, float]:
        statistics = super().pop_statistics()
        if self._similarities:
            positive, negative = torch.stack(self._similarities).nanmean(dim=0).tolist()
            statistics |= {"positive_similarity": positive, "negative_similarity": negative}
            self._similarities.clear()
        return statistics

    @override
    def get_config_dict(self) -> dict[str, Any]:
        own = ("guidance", "pair_temperature", "rehearsal")
        return super().get_config_dict() | {name: getattr(self, name) for name in own}

    @property
    @override
    def citation(self) -> str:
        return (
            """
@article{solatorio2024gistembed,
    title = {{GISTEmbed}: Guided In-sample Selection of Training Negatives for Text Embedding Fine-tuning},
    author = {Solatorio, Aivin V.},
    journal = {arXiv preprint arXiv:2402.16829},
    year = {2024}
}
"""
            + super().citation
        )
