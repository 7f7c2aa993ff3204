"""A linear map after pooling, learned in seconds from embeddings made once: a head start for training."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from sentence_transformers.base.modules import Dense
from sentence_transformers.sentence_transformer.modules import Normalize
from torch import Tensor, nn

from ..evaluation.retrieval import ranks_of_own, reciprocal_ranks
from ..losses import GuidedLoss
from .guard import agreement, judge

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from .config import AdaptationConfig

_BATCH = 1024
_LEARNING_RATE = 1e-3
_MOST_STEPS = 120
_CHECKED_EVERY = 5
_PATIENCE = 4  # checks
_MOST_HELD_OUT = 1000
_REHEARSED_AT_ONCE = 512
LEAST_AGREEMENT = 97.0
"""With the start, on everyday sentences; the rest of what the guard allows is left to training."""


class LinearMap(NamedTuple):
    """A matrix for embeddings as rows, shape (d, d), and the MRR@10 of pairs that it did not learn from."""

    matrix: np.ndarray
    before: float
    after: float
    steps: int

    @property
    def said(self) -> str:
        """What it brought, as a sentence."""
        if not self.steps:
            return "A linear map after pooling brings nothing here."
        return f"A linear map after pooling lifts pairs held out from {self.before:.3f} to {self.after:.3f} MRR@10."


def head_start(
    model: SentenceTransformer,
    layer: Dense,
    embeddings: np.ndarray,
    rows: np.ndarray,
    loss: GuidedLoss,
    config: AdaptationConfig,
) -> LinearMap:
    """Learn a map from the model's embeddings of the texts and let ``layer``, its last one, apply it."""
    everyday = loss.known.numpy() if loss.rehearsal else np.zeros((0, embeddings.shape[1]), np.float32)
    settings = (config.temperature, loss.rehearsal, config.seed)
    found = learn_map(embeddings, rows, everyday, judge(model), *settings)
    with torch.no_grad():
        matrix = torch.from_numpy(found.matrix).to(layer.linear.weight)
        layer.linear.weight.copy_(matrix.T @ layer.linear.weight)
    return found


def learn_map(
    embeddings: np.ndarray,
    rows: np.ndarray,
    everyday: np.ndarray,
    judged: np.ndarray,
    temperature: float,
    rehearsal: float,
    seed: int,
) -> LinearMap:
    """Learn a map under which texts that belong together are near each other, and everyday sentences stay as they were.

    In-batch negatives of large batches, as nothing but a matrix is trained. It ends where pairs that are held out are
    found no better any more, or everyday sentences are judged differently.

    Args:
        embeddings: Of the distinct texts, shape (texts, d), of length 1.
        rows: For each pair the rows of its two texts, shape (pairs, 2).
        everyday: Embeddings of sentences to rehearse, of length 1.
        judged: Embeddings of sentences whose similarities tell how far the map turned.
        temperature: Temperature of the in-batch negatives.
        rehearsal: Weight of the everyday sentences' similarities.
        seed: Decides which pairs are held out, and the batches.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randperm(len(rows), generator=generator).numpy()
    count = min(_MOST_HELD_OUT, len(rows) // 8)
    held_out, learned = rows[drawn[:count]], torch.from_numpy(rows[drawn[count:]])
    # What was learned must not be found again: neither text of a held-out pair is in another pair.
    learned = learned[~torch.from_numpy(np.isin(learned.numpy(), held_out).any(axis=1))]
    texts, known, start = (
        torch.tensor(np.asarray(each), dtype=torch.float32) for each in (embeddings, everyday, judged)
    )
    matrix = nn.Parameter(torch.eye(texts.shape[1]))
    optimizer = torch.optim.AdamW([matrix], lr=_LEARNING_RATE, weight_decay=0.0)

    def mapped(rows: Tensor) -> Tensor:
        return F.normalize(rows @ matrix, dim=1)

    @torch.no_grad()
    def found() -> float:
        anchors, positives = (mapped(texts[side]).numpy() for side in held_out.T)
        return float(reciprocal_ranks(ranks_of_own(anchors, positives)).mean())

    before = highest = found()
    best, steps, waited = matrix.detach().clone(), 0, 0
    batch = min(_BATCH, len(learned))
    for step in range(1, _MOST_STEPS + 1):
        chosen = learned[torch.randperm(len(learned), generator=generator)[:batch]]
        loss = _contrast(mapped(texts[chosen[:, 0]]), mapped(texts[chosen[:, 1]]), chosen, temperature)
        if rehearsal:
            some = known[torch.randperm(len(known), generator=generator)[:_REHEARSED_AT_ONCE]]
            now = mapped(some)
            loss = loss + rehearsal * GuidedLoss.RELATIONAL_SCALE * F.mse_loss(now @ now.T, some @ some.T)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if step % _CHECKED_EVERY == 0:
            with torch.no_grad():
                agreed = agreement(start.numpy(), mapped(start).numpy())
            if agreed < LEAST_AGREEMENT or waited == _PATIENCE:
                break
            reached, waited = found(), waited + 1
            if reached > highest:
                best, highest, steps, waited = matrix.detach().clone(), reached, step, 0
    return LinearMap(best.numpy(), before, highest, steps)


def _contrast(anchors: Tensor, positives: Tensor, rows: Tensor, temperature: float) -> Tensor:
    """InfoNCE in both directions; a text that occurs twice in a batch is no negative of itself."""
    logits, own = anchors @ positives.T / temperature, torch.arange(len(rows))
    same = (rows[:, None] == rows[None]).any(dim=2)
    logits = logits.masked_fill(same & ~torch.eye(len(rows), dtype=torch.bool), -torch.inf)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def map_of(model: SentenceTransformer) -> Dense | None:
    """The linear layer without bias that a model ends in, but for a normalization; else a new one, the identity.

    The model's embeddings stay as they are. ``None`` for a model that cuts its embeddings off.
    """
    end = len(model) - isinstance(model[-1], Normalize)
    last = model[end - 1]
    if isinstance(last, Dense) and isinstance(last.activation_function, nn.Identity) and last.linear.bias is None:
        return last
    dimension = model.get_embedding_dimension()
    if model.truncate_dim or not dimension:
        return None
    layer = Dense(dimension, dimension, bias=False, activation_function=nn.Identity()).to(model.device)
    nn.init.eye_(layer.linear.weight)
    model.insert(end, layer)
    return layer


def remove_map(model: SentenceTransformer, layer: Dense) -> None:
    """Take a layer that changes nothing out of a model again."""
    weight = layer.linear.weight
    if weight.shape[0] == weight.shape[1] and torch.equal(weight, torch.eye(len(weight)).to(weight)):
        model.pop([module is layer for module in model].index(True))
