"""Every pooling of the paper, scored without training from one encoding pass (the paper's Figure 8)."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import torch
from sentence_transformers.sentence_transformer.modules import Pooling
from torch import Tensor, nn
from tqdm import tqdm  # type: ignore[import-untyped]

from ..errors import InputError
from ..models.build import build_model
from ..models.encoders import embeddings_of
from ..models.fingerprint import model_fingerprint
from ..modules.multi_layer_pooling import LAYER_REDUCTIONS, LAYER_SELECTIONS, MultiLayerPooling, resolve_layers
from ..utils.files import atomic_file
from ..utils.plots import check_plot_file
from ..utils.provenance import command, text_fingerprint, versions
from .sts import Aggregation, averages, check_tasks, score_task

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from sentence_transformers import SentenceTransformer

    from ..datasets.sts import STSTask

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


def plot_poolings(study: PoolingStudy, path: str | os.PathLike[str]) -> None:
    """Draw the score of each pooling, the best bar highlighted (the paper's Figure 8).

    Args:
        study: The scores.
        path: The image; its ending says the format.

    Raises:
        InputError: matplotlib does not draw files with this ending.
        MissingExtraError: matplotlib is not installed.
    """
    check_plot_file(path)
    from matplotlib.figure import Figure

    results = study.distinct()
    modes = sorted({result.pooling_mode for result in results}, key=[r.pooling_mode for r in results].index)
    rows = list(dict.fromkeys(result.layer_pooling for result in results))
    low, high = min(0, *(result.rank_score for result in results)), max(0, study.best.rank_score)
    margin = 0.2 * (high - low)
    figure = Figure(figsize=(1.6 + 2.8 * len(modes), 1.1 + 0.3 * len(rows)), layout="constrained")
    panels = figure.subplots(1, len(modes), sharex=True, sharey=True, squeeze=False)[0]
    for axes, mode in zip(panels, modes, strict=True):
        bars = {result.layer_pooling: result for result in results if result.pooling_mode == mode}
        scores = [bars[row].rank_score for row in rows]
        colours = ["tab:orange" if bars[row] is study.best else "lightsteelblue" for row in rows]
        axes.bar_label(axes.barh(rows, scores, color=colours), fmt="%.1f", padding=3, fontsize=8)
        axes.set_title(f"{mode} over tokens", fontsize=10)
        axes.set_xlim(low - margin * (low < 0), high + margin * (high > 0))
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
    panels[0].invert_yaxis()
    what = "average5" if study.best.average5 is not None else f"mean of {', '.join(study.pairs)}"
    figure.supxlabel(f"Spearman x 100, {what}", fontsize=10)
    figure.suptitle(f"{study.model}, no training", fontsize=11)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=150)


class PoolingKey(NamedTuple):
    """What one pooling is."""

    layer_indices: tuple[int, ...]
    layer_reduction: str
    pooling_mode: str


def pooling_key(indices: tuple[int, ...], reduction: str, mode: str) -> PoolingKey:
    """The key of a pooling; the same for all reductions of a single layer, since they are the same pooling."""
    return PoolingKey(indices, reduction if len(indices) > 1 else "mean", mode)


class PoolingBank(nn.Module):
    """Pools the hidden states of one forward pass in every way that the poolings asked for cannot share.

    The sentence embedding it gives is the concatenation of slots, each of the encoder's hidden size d. A reduction that
    commutes with the token pooling shares the slots of its single layers: the mean over two layers, then over tokens,
    is the mean of the two layers' means over tokens. One that does not commute has a slot of its own, pooled token by
    token: the mean over two layers, then the maximum over tokens, is not the mean of two maxima. For layers 1 and 2:

    ========== ======================== ================================================
    reduction  token pooling            slots
    ========== ======================== ================================================
    concat     any                      (1,) and (2,), side by side
    mean       max                      (1, 2), token by token
    mean       any other                (1,) and (2,), averaged
    max        cls, lasttoken, max      (1,) and (2,), the greater
    max        any other, such as mean  (1, 2), token by token
    ========== ======================== ================================================

    Size and depth of the encoder, and whether prompts take part, are those of ``template``, which pools the last layer.
    """

    def __init__(self, template: MultiLayerPooling, keys: Sequence[PoolingKey]) -> None:
        super().__init__()
        self.keys = tuple(keys)
        self.dimension = template.embedding_dimension
        needed: dict[tuple[tuple[int, ...], str], dict[str, None]] = {}
        for part in (part for key in keys for part in _parts(key)):
            needed.setdefault(part[:2], {})[part.pooling_mode] = None
        poolings = [
            MultiLayerPooling(
                self.dimension,
                template.num_hidden_layers,
                layers=indices,
                layer_reduction=cast("Any", reduction),
                pooling_mode=tuple(modes),
                include_prompt=template.include_prompt,
            )
            for (indices, reduction), modes in needed.items()
        ]
        self.poolings = nn.ModuleList(poolings)
        found = (PoolingKey(*layers, mode) for layers, modes in needed.items() for mode in modes)
        self.slots = {part: slot for slot, part in enumerate(found)}

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        """The features with ``sentence_embedding`` of shape (batch, slots x d), float32."""
        pooled = [pooling(dict(features))["sentence_embedding"].float() for pooling in self.poolings]
        return {**features, "sentence_embedding": torch.cat(pooled, dim=-1)}

    def combine(self, slots: Tensor, key: PoolingKey) -> Tensor:
        """The embedding one pooling gives: from slots of shape (n, slots, d), shape (n, d or layers x d)."""
        parts = slots[:, [self.slots[part] for part in _parts(key)]]
        if key.layer_reduction == "concat":
            return parts.flatten(1)
        return parts.amax(dim=1) if key.layer_reduction == "max" else parts.mean(dim=1)


def _parts(key: PoolingKey) -> list[PoolingKey]:
    """The slots that a pooling is put together from, see :class:`PoolingBank`."""
    indices, reduction, mode = key
    commutes = {"concat": True, "mean": mode != "max", "max": mode in ("cls", "lasttoken", "max")}
    if len(indices) == 1 or not commutes[reduction]:
        return [key]
    return [PoolingKey((index,), "mean", mode) for index in indices]


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
        vectors = dict(enumerate(embeddings_of(model, texts, batch_size=batch_size, show_progress_bar=False), start))
        now = np.flatnonzero(ready == chunk)
        if now.size:
            at_hand = waiting | vectors
            sides = (np.stack([at_hand[index] for index in side]) for side in members[now].T.tolist())
            first, second = (torch.from_numpy(side).view(len(now), -1, bank.dimension) for side in sides)
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
