"""BM25 over an index's passages, by bm25s, built when first asked for and kept beside the index."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import MissingExtraError
from ..utils.files import atomic_folder, write_json

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from .stores.base import Scored, VectorStore

_RECORD = "lexical.json"
_KEYS = "keys.npy"


class LexicalIndex:
    """BM25 scores of passages.

    Args:
        folder: Where it is kept.
        store: The passages. When they have changed, the whole is built anew.

    Raises:
        MissingExtraError: bm25s is not installed.
    """

    def __init__(self, folder: Path, store: VectorStore) -> None:
        self._library = _library()
        if not _is_current(folder, store.version()):
            _build(self._library, folder, store)
        self.version = json.loads((folder / _RECORD).read_text(encoding="utf-8"))["version"]
        self._keys = np.load(folder / _KEYS, mmap_mode="r")
        self._index = self._library.BM25.load(str(folder), mmap=True) if len(self._keys) else None

    def search(self, queries: Sequence[str], k: int, allowed: Collection[int] | None = None) -> list[list[Scored]]:
        """Passages that share words with each query, best first.

        Args:
            queries: Queries.
            k: Most passages a query.
            allowed: Keys of the only passages to find; None allows all.
        """
        if self._index is None:
            return [[] for _ in queries]
        mask = None if allowed is None else np.isin(self._keys, np.fromiter(allowed, np.int64)).astype(np.float32)
        found: list[list[Scored]] = []
        for words in _words(self._library, list(queries)):
            if not words:
                found.append([])
                continue
            rows, scores = self._index.retrieve(
                [words], k=min(k, len(self._keys)), weight_mask=mask, show_progress=False, n_threads=0
            )
            own = zip(rows[0].tolist(), scores[0].tolist(), strict=True)
            found.append([(int(self._keys[row]), score) for row, score in own if score > 0])
        return found


def _is_current(folder: Path, version: str) -> bool:
    try:
        known = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(known.get("version") == version)


def _build(library: Any, folder: Path, store: VectorStore) -> None:
    version = store.version()
    keys, texts = [], []
    for key, text in store.texts():
        keys.append(key)
        texts.append(text)
    with atomic_folder(folder) as temporary:
        if keys:
            index = library.BM25()
            index.index(_words(library, texts), show_progress=False)
            index.save(str(temporary))
        np.save(temporary / _KEYS, np.asarray(keys, np.int64))
        write_json(temporary / _RECORD, {"version": version, "passages": len(keys)})


def _words(library: Any, texts: list[str]) -> list[list[str]]:
    found: list[list[str]] = library.tokenize(texts, stopwords="en", return_ids=False, show_progress=False)
    return found


def _library() -> Any:
    try:
        import bm25s
    except ImportError as error:
        raise MissingExtraError("Hybrid search", "search") from error
    return bm25s


def fuse(rankings: Sequence[Sequence[Scored]], constant: int = 60) -> list[Scored]:
    """Reciprocal rank fusion (Cormack et al., 2009): each ranking gives a passage 1 / (constant + its rank from 1).

    Example:
        >>> [key for key, _ in fuse([[(1, 0.9), (2, 0.8)], [(2, 7.0), (3, 5.0)]])]
        [2, 1, 3]
    """
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, (key, _) in enumerate(ranking, 1):
            scores[key] = scores.get(key, 0.0) + 1 / (constant + rank)
    return sorted(scores.items(), key=lambda item: -item[1])
