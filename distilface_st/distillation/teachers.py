"""Teachers' embeddings: computed once, kept on disk, read from there by every run."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import datasets
import numpy as np

from ..errors import InputError
from ..inference.edge_encoder import EdgeEncoder
from ..inference.manifest import is_export, read_manifest
from ..models.fingerprint import model_fingerprint
from ..models.load import load_model
from ..utils.files import write_json

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from sentence_transformers import SentenceTransformer

    from ..datasets.text_data import TextData

CHUNK = 2048
"""Sentences embedded between two writes: what a killed run loses at most, and what it holds in memory."""

_FORMAT = 1


class Encoder(Protocol):
    """Anything that embeds sentences: a ``SentenceTransformer``, an ``EdgeEncoder``, ..."""

    def encode(self, sentences: list[str], *, normalize_embeddings: bool) -> Any:
        """Embeddings of shape (sentences, d)."""
        ...


@dataclass(frozen=True)
class Teacher:
    """A model to learn from.

    Attributes:
        encoder: What embeds.
        name: What to call it.
        fingerprint: Tells its embeddings from those of any other weights, modules or settings.
    """

    encoder: Encoder
    name: str
    fingerprint: str


def open_teacher(path: str | os.PathLike[str], device: str | None = None) -> Teacher:
    """Open a teacher. An exported one (``distilface export``) runs on its engine, several times as fast on a CPU.

    Args:
        path: The folder or Hub name of a SentenceTransformer, or an exported folder.
        device: Where to run a SentenceTransformer; the best there is by default.

    Raises:
        InputError: As :func:`distilface_st.load_model`.
    """
    if not is_export(path):
        return teacher_of(load_model(path, device=device), Path(path).name)
    manifest = read_manifest(path)
    sums = [entry["sha256"] for graph in manifest.graphs.values() for entry in graph.files.values()]
    encoder: Any = EdgeEncoder(path)
    settings = [encoder.max_seq_length, encoder.prompts, encoder.default_prompt_name, encoder.truncate_dim]
    return Teacher(encoder, Path(path).name, _digest([manifest.model["fingerprint"], *sums, *settings]))


def teacher_of(model: SentenceTransformer, name: str = "teacher") -> Teacher:
    """A SentenceTransformer as a teacher."""
    modules = [f"{type(module).__name__} {module}" for module in model]
    settings = [model.max_seq_length, dict(model.prompts), model.default_prompt_name, model.truncate_dim]
    return Teacher(cast("Encoder", model), name, _digest([model_fingerprint(model), *modules, *settings]))


def _digest(parts: list[Any]) -> str:
    """64-bit BLAKE2b of what decides an embedding: weights, modules, and the settings of ``encode``."""
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=8).hexdigest()


def teacher_embeddings(
    teacher: Teacher,
    data: TextData,
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    progress: Callable[[int], Any] = lambda done: None,
) -> np.memmap[Any, np.dtype[np.float16]]:
    """The teacher's embeddings of all sentences, of length 1, from the cache or computed into it.

    They are written as they are computed, so that a run that was killed goes on where it was, and are read as pages of
    a file: a million sentences of 768 dimensions are 1.5 GB on disk and a batch's worth in memory.

    Args:
        teacher: The teacher.
        data: Sentences, in the column ``sentence``.
        cache_dir: Folder of the cache; by default ``distilface/teachers`` in the cache folder of ``datasets``.
        progress: Called with the number of sentences done, after each chunk.

    Returns:
        Shape (rows, d), float16, read only, row i for sentence i.

    Raises:
        InputError: Embeddings that are not finite, or of another number of dimensions than those before.
    """
    folder = Path(cache_dir or Path(datasets.config.HF_DATASETS_CACHE) / "distilface" / "teachers")
    rows = len(data.dataset)
    key = f"{_FORMAT}-{teacher.fingerprint}-{data.fingerprint}-{rows}"
    file, record = folder / f"{key}.f16", folder / f"{key}.json"
    state = _read(record, rows)
    folder.mkdir(parents=True, exist_ok=True)
    progress(state["done"])
    while state["done"] < rows:
        start = state["done"]
        end = min(start + CHUNK, rows)
        embeddings = _embed(teacher, data.dataset[start:end]["sentence"])
        if state["dimension"] not in (None, embeddings.shape[1]):
            raise InputError(f"{teacher.name} gives {embeddings.shape[1]} dimensions, before {state['dimension']}.")
        _write(file, start, embeddings)
        state = {**state, "done": end, "dimension": embeddings.shape[1], "teacher": teacher.name}
        write_json(record, state)
        progress(end)
    return np.memmap(file, np.float16, "r", shape=(rows, state["dimension"]))


def _read(record: Path, rows: int) -> dict[str, Any]:
    fresh = {"rows": rows, "done": 0, "dimension": None}
    try:
        state: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
        size = record.with_suffix(".f16").stat().st_size
        sound = state["rows"] == rows and size >= state["done"] * state["dimension"] * 2
    except (OSError, ValueError, KeyError, TypeError):
        return fresh
    return state if sound else fresh


def _embed(teacher: Teacher, sentences: Sequence[str]) -> np.ndarray:
    embeddings = np.asarray(teacher.encoder.encode(list(sentences), normalize_embeddings=True))
    if not np.isfinite(embeddings).all():
        raise InputError(f"{teacher.name} gives embeddings that are not finite.")
    return embeddings.astype(np.float16)


def _write(file: Path, start: int, embeddings: np.ndarray) -> None:
    with file.open("r+b" if file.exists() else "w+b") as target:
        target.seek(start * embeddings.shape[1] * 2)
        target.write(np.ascontiguousarray(embeddings).data)
        target.flush()
