"""A linear map after pooling, learned in seconds from embeddings made once: a head start for training."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from sentence_transformers.base.modules import Dense
from sentence_transformers.sentence_transformer.modules import Normalize
from torch import Tensor, nn

from ..errors import InputError
from ..evaluation.retrieval import ranks_of_own, reciprocal_ranks
from ..losses import GuidedLoss
from ..training.run_record import is_first_process
from ..utils.files import atomic_file
from .guard import agreement, judge

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sentence_transformers import SentenceTransformer

    from .config import AdaptationConfig

_FILE = "linear_map.safetensors"
_BATCH = 1024
_LEARNING_RATE = 1e-3
_MOST_STEPS = 120
_CHECKED_EVERY = 5
_PATIENCE = 4  # checks
_LEAST_HELD_OUT, _MOST_HELD_OUT = 50, 1000
_REHEARSED_AT_ONCE = 512
LEAST_AGREEMENT = 97.0
"""With the start, on everyday sentences; the rest of what the guard allows is left to training."""


class LinearMap(NamedTuple):
    """A matrix for embeddings as rows, shape (d, d), and the MRR@10 of pairs that it did not learn from."""

    matrix: np.ndarray
    before: float
    after: float
    steps: int

    @classmethod
    def read(cls, output: Path) -> LinearMap | None:
        """The map that a run's folder holds, if it holds one; a damaged one is an InputError."""
        file = output / _FILE
        if not file.is_file():
            return None
        try:
            with safe_open(file, "np") as kept:
                facts = kept.metadata()
                return cls(
                    kept.get_tensor("matrix"), float(facts["before"]), float(facts["after"]), int(facts["steps"])
                )
        except (SafetensorError, TypeError, KeyError, ValueError) as error:
            raise InputError(f"{file} is damaged: {error}") from error

    def write(self, output: Path) -> None:
        """Keep the map in a run's folder."""
        facts = {"before": repr(self.before), "after": repr(self.after), "steps": str(self.steps)}
        with atomic_file(output / _FILE) as temporary:
            save_file({"matrix": np.ascontiguousarray(self.matrix)}, temporary, facts)

    @property
    def said(self) -> str:
        """What it brought, as a sentence."""
        if not self.steps:
            return "A linear map after pooling brings nothing here."
        return f"A linear map after pooling lifts MRR@10 of held-out pairs from {self.before:.3f} to {self.after:.3f}."


def head_start(
    model: SentenceTransformer,
    embeddings: Callable[[], np.ndarray],
    rows: np.ndarray,
    loss: GuidedLoss,
    config: AdaptationConfig,
    output: Path,
    resume: bool,
) -> tuple[dict[str, Tensor], str]:
    """Let the model's last layer apply a map that is learned from its embeddings of the texts.

    The run's folder ``output`` keeps it: learned again, on resuming, it might differ in a bit.

    Returns:
        The model's weights before, with a last layer that changes nothing yet, and what the map brings, as a sentence.
    """
    found = None
    if config.linear_map and not model.truncate_dim:
        everyday = loss.known.numpy() if loss.rehearsal else None
        found = LinearMap.read(output) if resume else None
        if found is None:
            settings = (loss.rehearsal, config.temperature, config.seed)
            found = learn_map(embeddings(), rows, judge(model), everyday, *settings)
            if is_first_process():
                found.write(output)
    layer = last_linear(model) if found and found.steps else None
    start = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    if found and layer:
        with torch.no_grad():
            matrix = torch.from_numpy(found.matrix).to(layer.linear.weight)
            layer.linear.weight.copy_(matrix.T @ layer.linear.weight)
    return start, found.said if found else "No linear map after pooling is learned."


def learn_map(
    embeddings: np.ndarray,
    rows: np.ndarray,
    judged: np.ndarray,
    everyday: np.ndarray | None,
    rehearsal: float,
    temperature: float,
    seed: int,
) -> LinearMap:
    """Learn a map under which texts that belong together are near each other, and everyday sentences stay as they were.

    In-batch negatives of large batches, as nothing but a matrix is trained. It ends where pairs that are held out are
    found no better any more, or everyday sentences are judged differently.

    Args:
        embeddings: Of the distinct texts, shape (texts, d), of length 1.
        rows: For each pair the rows of its two texts, shape (pairs, 2).
        judged: Embeddings of sentences whose similarities tell how far the map turned.
        everyday: Embeddings of sentences to rehearse, of length 1; none with ``None``.
        rehearsal: Weight of their similarities.
        temperature: Temperature of the in-batch negatives.
        seed: Decides which pairs are held out, and the batches.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randperm(len(rows), generator=generator).numpy()
    count = min(_MOST_HELD_OUT, len(rows) // 8)
    held_out, learned = rows[drawn[:count]], torch.from_numpy(rows[drawn[count:]])
    # What was learned must not be found again: neither text of a held-out pair is in another pair.
    learned = learned[~torch.from_numpy(np.isin(learned.numpy(), held_out).any(axis=1))]
    if len(held_out) < _LEAST_HELD_OUT or not len(learned):
        return LinearMap(np.eye(embeddings.shape[1], dtype=np.float32), 0.0, 0.0, 0)
    texts, start = (torch.tensor(np.asarray(each), dtype=torch.float32) for each in (embeddings, judged))
    known = None if everyday is None else torch.from_numpy(everyday).float()
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
        if known is not None:
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
    same = (rows[:, None] == rows[None]).any(dim=2) | (rows[:, :1] == rows[:, 1])
    logits = logits.masked_fill(same & ~torch.eye(len(rows), dtype=torch.bool), -torch.inf)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def last_linear(model: SentenceTransformer) -> Dense:
    """The linear layer without bias that a model ends in, but for a normalization; else a new one, the identity.

    The model's embeddings stay as they are.
    """
    end = len(model) - isinstance(model[-1], Normalize)
    last = model[end - 1]
    if _is_linear(last):
        return cast("Dense", last)
    dimension = model.get_embedding_dimension() or 0
    layer = Dense(dimension, dimension, bias=False, activation_function=nn.Identity()).to(model.device)
    nn.init.eye_(layer.linear.weight)
    model.insert(end, layer)
    return layer


def drop_identity(model: SentenceTransformer) -> None:
    """Take a last linear layer that changes nothing out of a model."""
    position = len(model) - isinstance(model[-1], Normalize) - 1
    if _is_linear(model[position]):
        weight = cast("Dense", model[position]).linear.weight
        if weight.shape[0] == weight.shape[1] and torch.equal(weight, torch.eye(len(weight)).to(weight)):
            model.pop(position)


def _is_linear(module: nn.Module) -> bool:
    """Whether a module multiplies the sentence embedding by a matrix and does nothing else."""
    return (
        isinstance(module, Dense)
        and isinstance(module.activation_function, nn.Identity)
        and module.linear.bias is None
        and not getattr(module, "use_residual", False)
        and {module.module_input_name, module.module_output_name or module.module_input_name} == {"sentence_embedding"}
    )
