"""BM25 over an index's passages, by bm25s, built when first asked for and kept beside the index."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from ..utils.extras import require
from ..utils.files import FolderKind, atomic_folder, only_one, read_json, write_json
from .stores.base import Scored

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from pathlib import Path

    from .stores.base import VectorStore

_RECORD = "lexical.json"
_KEYS = "keys.npy"
_FOLDER = FolderKind("the words of an index", _RECORD)


class LexicalIndex:
    """BM25 scores of a store's passages, kept in a folder. When the passages have changed, the whole is built anew."""

    def __init__(self, folder: Path, store: VectorStore) -> None:
        self._bm25s = require("bm25s", "Hybrid search", "search")
        self.version = store.version()
        if _version_of(folder) != self.version:
            with only_one(folder):
                if _version_of(folder) != self.version:
                    self._build(folder, list(store.texts()))
        self._keys = np.load(folder / _KEYS, mmap_mode="r")
        self._index = self._bm25s.BM25.load(str(folder), mmap=True) if len(self._keys) else None

    def _build(self, folder: Path, passages: list[tuple[int, str]]) -> None:
        with atomic_folder(folder, _FOLDER) as temporary:
            if passages:
                index = self._bm25s.BM25()
                index.index(self._words([text for _, text in passages]), show_progress=False)
                index.save(str(temporary))
            np.save(temporary / _KEYS, np.asarray([key for key, _ in passages], np.int64))
            write_json(temporary / _RECORD, {"version": self.version, "passages": len(passages)})

    def _words(self, texts: list[str]) -> list[list[str]]:
        words: list[list[str]] = self._bm25s.tokenize(texts, stopwords="en", return_ids=False, show_progress=False)
        return words

    def search(self, queries: Sequence[str], k: int, allowed: Collection[int] | None = None) -> list[list[Scored]]:
        """At most ``k`` passages that share words with each query, best first, of those with ``allowed`` keys."""
        if self._index is None:
            return [[] for _ in queries]
        mask = None if allowed is None else np.isin(self._keys, np.fromiter(allowed, np.int64)).astype(np.float32)
        found: list[list[Scored]] = []
        for words in self._words(list(queries)):
            if not words:
                found.append([])
                continue
            rows, scores = self._index.retrieve(
                [words], k=min(k, len(self._keys)), weight_mask=mask, show_progress=False, n_threads=0
            )
            own = zip(self._keys[rows[0]].tolist(), scores[0].tolist(), strict=True)
            found.append([Scored(key, score) for key, score in own if score > 0])
        return found


def _version_of(folder: Path) -> Any:
    """Version of the passages that a BM25 index was built over; None where there is none that can be read."""
    record = folder / _RECORD
    if folder.exists() and not record.is_file():
        raise InputError(f"{folder} is not of this index: move it elsewhere, hybrid search keeps its words there.")
    try:
        return read_json(record).get("version")
    except (FileNotFoundError, InputError):
        return None


def fuse(rankings: Iterable[Sequence[Scored]], constant: int = 60) -> list[Scored]:
    """Reciprocal rank fusion (Cormack et al., 2009): each ranking gives a passage 1 / (constant + its rank from 1).

    Example:
        >>> one, other = [Scored(1, 0.9), Scored(2, 0.8)], [Scored(2, 7.0), Scored(3, 5.0)]
        >>> [key for key, _ in fuse([one, other])]
        [2, 1, 3]
    """
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, (key, _) in enumerate(ranking, 1):
            scores[key] = scores.get(key, 0.0) + 1 / (constant + rank)
    return sorted((Scored(*item) for item in scores.items()), key=lambda one: -one.score)
