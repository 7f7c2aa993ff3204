"""Teachers: their embeddings, kept on disk for every run, and pairs that they score, to choose a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import numpy as np
from sentence_transformers import SentenceTransformer

from ..datasets.sts import STSSubset, STSTask
from ..errors import InputError
from ..models.encoders import open_encoder, unit_embeddings
from ..models.fingerprint import encoder_fingerprint
from ..utils.files import only_one, read_json, write_json

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from ..datasets.text_data import TextData
    from ..models.encoders import Encoder

CHUNK = 2048
"""Sentences embedded between two writes: what a killed run loses at most, and what it holds in memory."""

_FORMAT = 1
_NEIGHBOURS = 2
"""Pairs of each sentence with its nearest ones; as many are drawn at random."""


@dataclass(frozen=True)
class Teacher:
    """A model to learn from."""

    encoder: Encoder
    name: str
    fingerprint: str  # tells its embeddings from those of any other weights, modules or settings


def open_teacher(path: str | os.PathLike[str], device: str | None = None) -> Teacher:
    """Open a teacher. An exported one (``distilface export``) runs on its engine, several times as fast on a CPU.

    Args:
        path: The folder or Hub name of a SentenceTransformer, an exported folder, a shipped model's name, or
            ``bundled``.
        device: Where to run a SentenceTransformer; the best there is by default.

    Raises:
        InputError: As :func:`distilface_st.load_model`.
    """
    encoder = open_encoder(path)
    if device and isinstance(encoder, SentenceTransformer):
        encoder.to(device)
    return teacher_of(encoder, Path(path).name)


def teacher_of(encoder: Encoder, name: str = "teacher") -> Teacher:
    """A SentenceTransformer, an ``EdgeEncoder`` or another encoder as a teacher."""
    return Teacher(encoder, name, encoder_fingerprint(encoder, name))


def teacher_embeddings(
    teacher: Teacher,
    data: TextData,
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    progress: Callable[[int], Any] = lambda done: None,
) -> np.memmap[Any, np.dtype[np.float16]]:
    """The teacher's embeddings of all sentences, of length 1, from the cache or computed into it.

    They are written as they are computed, so that a run that was killed goes on where it was, and are read as pages of
    a file: a million sentences of 768 dimensions are 1.5 GB on disk and a batch's worth in memory. The cache is by
    default ``distilface/teachers`` in the cache folder of ``datasets``.

    Returns:
        Shape (rows, d), float16, read only, row i for sentence i.
    """
    folder = Path(cache_dir or Path(datasets.config.HF_DATASETS_CACHE) / "distilface" / "teachers")
    rows = len(data.dataset)
    file = folder / f"{_FORMAT}-{teacher.fingerprint}-{data.fingerprint}-{rows}.f16"
    with only_one(file):  # of processes that torchrun started, say; the others then find all there
        done, dimension = _embedded(file, rows)
        progress(done)
        if done < rows:
            file.touch()
        while done < rows:
            end = min(done + CHUNK, rows)
            embeddings = unit_embeddings(teacher.encoder, data.dataset[done:end]["sentence"])
            if dimension not in (None, embeddings.shape[1]):
                raise InputError(f"{teacher.name} gives {embeddings.shape[1]} dimensions, before {dimension}.")
            dimension = embeddings.shape[1]
            with file.open("r+b") as target:  # closed before the record, which must not say more than the file holds
                target.seek(done * dimension * 2)
                target.write(embeddings.astype(np.float16).data)
            done = end
            record = {"rows": rows, "done": done, "dimension": dimension, "teacher": teacher.name}
            write_json(file.with_suffix(".json"), record)
            progress(done)
    return np.memmap(file, np.float16, "r", shape=(rows, dimension or 0))


def _embedded(file: Path, rows: int) -> tuple[int, int | None]:
    """How many sentences a file of the cache holds, and their dimensions; none where file or record is damaged."""
    try:
        record = read_json(file.with_suffix(".json"))
        done, dimension = int(record["done"]), int(record["dimension"])
        sound = record["rows"] == rows and file.stat().st_size >= done * dimension * 2
    except (OSError, ValueError, KeyError, TypeError):
        return 0, None
    return (done, dimension) if sound else (0, None)


def teacher_pairs(
    teachers: Sequence[Teacher], sentences: Sequence[str], teacher_weights: Sequence[float] | None = None, seed: int = 0
) -> STSTask:
    """Pairs of held-out sentences, near and far, with the teachers' mean similarity as their score.

    A student's Spearman correlation on it says how far it ranks pairs as its teachers do.

    """
    count = len(sentences)
    if count < 2:
        raise InputError("Comparing student and teacher needs at least two sentences that are held out.")
    weights = teacher_weights or [1.0] * len(teachers)
    similarities: np.ndarray = np.zeros((count, count))
    for teacher, weight in zip(teachers, weights, strict=True):
        rows = unit_embeddings(teacher.encoder, sentences).astype(np.float64)
        similarities += weight / sum(weights) * (rows @ rows.T)
    np.fill_diagonal(similarities, -np.inf)
    near = np.argsort(-similarities, axis=1)[:, : min(_NEIGHBOURS, count - 1)]
    rng = np.random.default_rng(seed)
    far = (np.arange(count)[:, None] + rng.integers(1, count, near.shape)) % count
    others = np.hstack([near, far])
    first, second = np.repeat(np.arange(count), others.shape[1]), others.reshape(-1)
    one, other = ([sentences[int(index)] for index in side] for side in (first, second))
    return STSTask("teacher", (STSSubset("held-out", one, other, similarities[first, second]),))
