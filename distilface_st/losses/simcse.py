"""Contrastive loss with in-batch negatives, on dropout views of a sentence or on given positives."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from sentence_transformers.base.losses.gradcache import CachedLossMixin
from sentence_transformers.base.losses.merged_forward import embed_columns
from sentence_transformers.util import all_gather_with_grad, get_rank
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sentence_transformers import SentenceTransformer


class SimCSELoss(CachedLossMixin, nn.Module):
    """In-batch negatives with a temperature (InfoNCE), as in SimCSE (Gao et al., 2021).

    For anchor i of a batch of b: ``-log(exp(s(a_i, p_i) / t) / sum_j exp(s(a_i, c_j) / t))``, where s is the
    similarity, t the temperature, and c runs over all positives and hard negatives of the batch. The mean
    over i is returned.

    With one text column the two views of a sentence differ by their dropout masks alone: the batch is tokenized once
    and runs through the encoder once, as the concatenation of the batch with itself.

    The data has the column ``sentence`` (its positive is the sentence under another dropout mask), or anchor and
    positive, or anchor, positive and any number of hard negatives; labels are not used.

    On the same embeddings it equals sentence-transformers' ``MultipleNegativesRankingLoss(scale=1/temperature)``,
    which needs the sentence column twice for dropout views, tokenizes it twice and runs the encoder twice.

    Args:
        model: The model to train.
        temperature: t above; smaller is sharper. 0.05 in the paper's Table 1.
        similarity: ``cosine`` or ``dot``.
        symmetric: Average with the same loss from positives to anchors.
        gather_across_devices: Use the other processes' candidates as negatives as well.
        mini_batch_size: Sentences a forward pass. With it, gradients are cached (GradCache, Gao et al., 2021): memory
            is that of a mini-batch, the gradient that of the whole batch, since dropout is replayed; it takes one more
            forward pass.

    Raises:
        ValueError: A temperature that is not positive, an unknown similarity, a mini-batch size below one; when
            called with one column while no dropout is active, since both views would be the same.

    Example:
        ::

            model = build_model("distilbert-base-uncased", layers="last_four")
            dataset = Dataset.from_dict({"sentence": ["It is sunny.", "He drove to work."]})
            trainer = SentenceTransformerTrainer(model=model, train_dataset=dataset, loss=SimCSELoss(model))
            trainer.train()
    """

    def __init__(
        self,
        model: SentenceTransformer,
        temperature: float = 0.05,
        similarity: Literal["cosine", "dot"] = "cosine",
        symmetric: bool = False,
        gather_across_devices: bool = False,
        mini_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature is {temperature}: it must be above 0 (0.05 is the paper's).")
        if similarity == "cos":  # type: ignore[comparison-overlap]
            warnings.warn("similarity='cos' is now called 'cosine'.", DeprecationWarning, stacklevel=2)
            similarity = "cosine"
        if similarity not in ("cosine", "dot"):
            raise ValueError(f"similarity is {similarity!r}: allowed are cosine and dot.")
        if mini_batch_size is not None and mini_batch_size < 1:
            raise ValueError(f"mini_batch_size is {mini_batch_size}: it must be at least 1, or None.")
        self.model = model
        self.temperature = temperature
        self.similarity = similarity
        self.symmetric = symmetric
        self.gather_across_devices = gather_across_devices
        self.mini_batch_size = mini_batch_size  # type: ignore[assignment]
        self.uses_gradient_cache = mini_batch_size is not None
        self._statistics: list[Tensor] = []

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None = None) -> Tensor:
        """Embed the columns, each a dict of tokenized features, and return the loss, a scalar; labels are ignored."""
        columns = list(sentence_features)
        if len(columns) == 1:
            self._require_dropout()
            columns = [columns[0], dict(columns[0])]
        if self.mini_batch_size is not None:
            return self.forward_cached(columns, labels)
        # One forward pass for all columns, unless their lengths differ so that padding would cost more than it saves.
        lengths = [column["input_ids"].shape[-1] for column in columns if "input_ids" in column]
        separate = bool(lengths) and max(lengths) > 1.25 * min(lengths)
        return self.compute_loss_from_embeddings(embed_columns(self.model, columns, separate_first=separate))

    def calculate_loss(
        self, reps: list[list[Tensor]], labels: Tensor | None = None, *, with_backward: bool = False
    ) -> Tensor:
        """The loss from mini-batches of embeddings, one list a column; the hook of the gradient cache."""
        loss = self.compute_loss_from_embeddings([torch.cat(column) for column in reps])
        if not with_backward:
            return loss
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None = None) -> Tensor:
        """The loss from embeddings of anchors, positives and any hard negatives, each of shape (batch, dimension).

        Half precision is computed in float32, also under autocast; labels are ignored.
        """
        with torch.autocast(embeddings[0].device.type, enabled=False):
            columns = [column.to(torch.promote_types(column.dtype, torch.float32)) for column in embeddings]
            if self.similarity == "cosine":
                columns = [F.normalize(column, dim=-1) for column in columns]
            anchors, positives = columns[:2]
            offset = 0
            if self.gather_across_devices:
                columns = [all_gather_with_grad(column) for column in columns]
                offset = get_rank() * len(anchors)
            targets = torch.arange(offset, offset + len(anchors), device=anchors.device)
            all_anchors, *candidates = columns
            similarities = anchors @ torch.cat(candidates).T
            if self.model.training:
                self._record(similarities.detach(), targets)
            loss = F.cross_entropy(similarities / self.temperature, targets)
            if self.symmetric:
                backward = F.cross_entropy(positives @ all_anchors.T / self.temperature, targets)
                loss = (loss + backward) / 2
        return loss

    def pop_statistics(self) -> dict[str, float]:
        """Mean ``positive_similarity`` and ``negative_similarity`` over the calls since the last time.

        A batch without negatives has no negative similarity.
        """
        if not self._statistics:
            return {}
        positive, negative = torch.stack(self._statistics).nanmean(dim=0).tolist()
        self._statistics.clear()
        found = {"positive_similarity": positive, "negative_similarity": negative}
        return {name: value for name, value in found.items() if not math.isnan(value)}

    def get_config_dict(self) -> dict[str, Any]:
        """The settings, as sentence-transformers lists them in a model card."""
        names = ("temperature", "similarity", "symmetric", "gather_across_devices", "mini_batch_size")
        return {name: getattr(self, name) for name in names}

    @property
    def citation(self) -> str:
        """BibTeX of the loss's source."""
        return """
@inproceedings{gao2021simcse,
    title = {{SimCSE}: Simple Contrastive Learning of Sentence Embeddings},
    author = {Gao, Tianyu and Yao, Xingcheng and Chen, Danqi},
    booktitle = {Empirical Methods in Natural Language Processing (EMNLP)},
    year = {2021}
}
"""

    def _record(self, similarities: Tensor, targets: Tensor) -> None:
        positive = similarities.gather(1, targets[:, None]).sum()
        negative_count = similarities.numel() - len(targets)
        negative = (similarities.sum() - positive) / (negative_count or math.nan)
        self._statistics.append(torch.stack([positive / len(targets), negative]))

    def _require_dropout(self) -> None:
        if any(module.training and module.p > 0 for module in self.model.modules() if isinstance(module, _DropoutNd)):
            return
        why = "every dropout probability is 0" if self.model.training else "the model is in eval mode"
        raise ValueError(
            f"Dropout views need active dropout, but {why}, so both views of a sentence would be the same: "
            "train with a dropout probability above 0, or give (anchor, positive) pairs."
        )
