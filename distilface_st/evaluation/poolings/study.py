"""Every pooling of the paper, scored without training from one encoding pass (the paper's Figure 8)."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from sentence_transformers.sentence_transformer.modules import Pooling
from torch import Tensor, nn
from tqdm import tqdm  # type: ignore[import-untyped]

from ...errors import InputError
from ...models.build import build_model
from ...models.fingerprint import model_fingerprint
from ...modules.multi_layer_pooling import LAYER_REDUCTIONS, LAYER_SELECTIONS, resolve_layers
from ...utils.provenance import command, text_fingerprint, versions
from ..sts import averages, check_tasks, score_task
from .bank import PoolingBank, pooling_key

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from sentence_transformers import SentenceTransformer

    from ...datasets.sts import STSTask
    from ...modules import MultiLayerPooling
    from ..sts import Aggregation

POOLING_MODES = ("cls", "mean", "max")
"""The token poolings studied unless others are asked for."""

_CHUNK_SENTENCES = 1024


@dataclass(frozen=True)
class PoolingScore:
    """What one pooling scores.

    Args:
        layers: Name of the layer selection.
        layer_indices: The hidden states it selects in this encoder.
        layer_reduction: ``mean``, ``max`` or ``concat``; with a single layer all three are the same.
        pooling_mode: Token pooling.
        scores: Spearman x 100 of each STS set.
        average: Mean over all sets scored.
        average5: The paper's average, ``None`` where one of its five sets is not scored.
        average6: The same with STS16.
    """

    layers: str
    layer_indices: tuple[int, ...]
    layer_reduction: str
    pooling_mode: str
    scores: dict[str, float]
    average: float
    average5: float | None
    average6: float | None

    @property
    def layer_pooling(self) -> str:
        """The selection and, where it is of several layers, the reduction: ``last_four, mean``."""
        return self.layers if len(self.layer_indices) == 1 else f"{self.layers}, {self.layer_reduction}"

    @property
    def rank_score(self) -> float:
        """What poolings are ranked by: ``average5`` where there is one, else ``average``."""
        return self.average if self.average5 is None else self.average5


@dataclass(frozen=True)
class PoolingStudy:
    """What all poolings of one encoder score; ``asdict`` of it is what ``distilface poolings --json`` writes.

    Args:
        model: Name of the encoder.
        num_hidden_layers: Its depth.
        aggregation: ``all``, ``mean`` or ``wmean``.
        results: Every combination of selection, reduction and token pooling, best first.
        left_out: Selections that need more layers than the encoder has.
        pairs: Pairs in each STS set.
        seconds: Encoding and scoring.
        versions: Package versions.
        command: The command line.
        seed: ``None``: nothing here is random.
        model_fingerprint: Hash of the encoder's weights.
        data_fingerprint: Hash of the scored pairs.
    """

    model: str
    num_hidden_layers: int
    aggregation: str
    results: tuple[PoolingScore, ...]
    left_out: tuple[str, ...]
    pairs: dict[str, int]
    seconds: float
    versions: dict[str, str]
    command: str
    seed: int | None
    model_fingerprint: str
    data_fingerprint: str

    @property
    def best(self) -> PoolingScore:
        """The pooling with the highest average."""
        return self.results[0]

    def distinct(self) -> list[PoolingScore]:
        """The results, best first, with selections of a single layer once: all reductions of one layer are the same."""
        return [result for result in self.results if len(result.layer_indices) > 1 or result.layer_reduction == "mean"]

    def to_dict(self) -> dict[str, Any]:
        """As plain dictionaries, for JSON."""
        return asdict(self)


def score_poolings(
    encoder: str | os.PathLike[str] | SentenceTransformer,
    tasks: STSTask | Sequence[STSTask],
    pooling_modes: Sequence[str] = POOLING_MODES,
    aggregation: Aggregation = "all",
    batch_size: int = 64,
    device: str | None = None,
    model_name: str | None = None,
    show_progress_bar: bool = False,
) -> PoolingStudy:
    """Score every layer selection x layer reduction x token pooling, encoding each distinct sentence once.

    All poolings happen inside the one forward pass, token by token where the reduction needs it. A sentence's pooled
    vectors are kept until its last pair is scored, so memory grows with the pairs' scores, not with the vectors.

    Args:
        encoder: Anything :func:`distilface_st.build_model` takes; an existing pooling is left aside.
        tasks: The STS sets.
        pooling_modes: Token poolings, from those of sentence-transformers' ``Pooling``.
        aggregation: ``all``, ``mean`` or ``wmean``, see :func:`distilface_st.evaluation.sts.score_task`.
        batch_size: Sentences in one forward pass.
        device: Where to run; the best there is by default.
        model_name: What to call the encoder in the study; by default its path, name or class.
        show_progress_bar: Whether to show progress.

    Returns:
        The scores, best first.

    Raises:
        InputError: An encoder that cannot be opened; a token pooling that does not exist; zero or non-finite
            embeddings; sets that cannot be scored.
    """
    start = time.perf_counter()
    unknown = [mode for mode in pooling_modes if mode not in Pooling.POOLING_MODES]
    if unknown or not pooling_modes:
        raise InputError(f"{', '.join(unknown) or 'None'}: token poolings are {', '.join(Pooling.POOLING_MODES)}.")
    tasks = check_tasks(tasks, aggregation)
    model = build_model(encoder, layers="last", device=device)
    model.truncate_dim = None
    template = cast("MultiLayerPooling", model[1])
    selections: dict[str, tuple[int, ...]] = {}
    for name in LAYER_SELECTIONS:
        with suppress(ValueError):  # more layers than the encoder has
            selections[name] = resolve_layers(name, template.num_hidden_layers)
    combinations = {
        (name, reduction, mode): pooling_key(indices, reduction, mode)
        for (name, indices), reduction, mode in product(selections.items(), LAYER_REDUCTIONS, pooling_modes)
    }
    fingerprint = model_fingerprint(model)
    bank = PoolingBank(template, list(dict.fromkeys(combinations.values())))
    model[1] = bank
    rows = _all_similarities(model, bank, tasks, batch_size, show_progress_bar)
    scores = {key: _score(tasks, row, aggregation) for key, row in zip(bank.keys, rows, strict=True)}
    results = [
        PoolingScore(name, key.layer_indices, reduction, mode, **scores[key])
        for (name, reduction, mode), key in combinations.items()
    ]
    return PoolingStudy(
        model=model_name or (encoder.__class__.__name__ if isinstance(encoder, nn.Module) else str(encoder)),
        num_hidden_layers=template.num_hidden_layers,
        aggregation=aggregation,
        results=tuple(sorted(results, key=lambda result: -result.rank_score)),
        left_out=tuple(name for name in LAYER_SELECTIONS if name not in selections),
        pairs={task.label: len(task) for task in tasks},
        seconds=round(time.perf_counter() - start, 3),
        versions=versions(),
        command=command(),
        seed=None,
        model_fingerprint=fingerprint,
        data_fingerprint=text_fingerprint(task.fingerprint for task in tasks),
    )


def _all_similarities(
    model: SentenceTransformer, bank: PoolingBank, tasks: Sequence[STSTask], batch_size: int, show_progress_bar: bool
) -> np.ndarray:
    """Cosine similarities, shape (poolings, pairs of all tasks).

    Sentences go through the encoder from long to short, a chunk at a time; a pair is scored with the chunk of its
    second member to come, and vectors wait for their last pair.
    """
    pairs = [pair for task in tasks for pair in zip(task.sentences1, task.sentences2, strict=True)]
    sentences = sorted(dict.fromkeys(text for pair in pairs for text in pair), key=len, reverse=True)
    row = {sentence: index for index, sentence in enumerate(sentences)}
    members = np.array([(row[first], row[second]) for first, second in pairs])
    ready = members.max(axis=1) // _CHUNK_SENTENCES
    last_use = np.zeros(len(sentences), dtype=np.int64)
    np.maximum.at(last_use, members, ready[:, None])
    similarities = np.empty((len(bank.keys), len(pairs)))
    waiting: dict[int, np.ndarray] = {}
    starts = range(0, len(sentences), _CHUNK_SENTENCES)
    for chunk, start in enumerate(tqdm(starts, desc="Encoding", disable=not show_progress_bar)):
        texts = sentences[start : start + _CHUNK_SENTENCES]
        vectors = dict(enumerate(model.encode(texts, batch_size=batch_size, show_progress_bar=False), start))
        now = np.flatnonzero(ready == chunk)
        if now.size:
            at_hand = waiting | vectors
            first, second = (
                torch.from_numpy(np.stack([at_hand[index] for index in members[now, side].tolist()])).view(
                    len(now), -1, bank.dimension
                )
                for side in (0, 1)
            )
            similarities[:, now] = _similarities(bank, first, second)
        waiting = {index: vector for index, vector in waiting.items() if last_use[index] > chunk}
        waiting |= {index: vector.copy() for index, vector in vectors.items() if last_use[index] > chunk}
    return similarities


def _similarities(bank: PoolingBank, first: Tensor, second: Tensor) -> np.ndarray:
    found = []
    for key in bank.keys:
        a, b = bank.combine(first, key), bank.combine(second, key)
        found.append((a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1)))
        if not found[-1].isfinite().all():
            pooling = f"{key.layer_reduction} of layers {key.layer_indices} under {key.pooling_mode} pooling"
            raise InputError(f"The {pooling} is zero or not finite somewhere.")
    return torch.stack(found).numpy()


def _score(tasks: Sequence[STSTask], similarities: np.ndarray, aggregation: Aggregation) -> dict[str, Any]:
    parts = np.split(similarities, np.cumsum([len(task) for task in tasks])[:-1])
    scores = {
        task.label: score_task(task, part, aggregation).total.spearman * 100
        for task, part in zip(tasks, parts, strict=True)
    }
    return {"scores": scores, "average": float(np.mean(list(scores.values()))), **averages(scores)}
