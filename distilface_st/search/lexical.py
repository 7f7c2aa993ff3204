"""BM25 over an index's passages, by bm25s, built when first asked for and kept beside the index."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from ..datasets.words import words_of
from ..errors import InputError
from ..utils.files import FolderKind, atomic_folder, only_one, read_json, write_json
from .stores.base import Scored

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from pathlib import Path

    from .stores.base import VectorStore

logger = logging.getLogger(__name__)

_RECORD = "lexical.json"
_KEYS = "keys.npy"
_FOLDER = FolderKind("the words of an index", _RECORD)
_FORM = 2  # of the words, see words_of: another one, and the words of an index are found anew


class LexicalIndex:
    """BM25 scores of a store's passages, kept in a folder, or in memory where that cannot be written to.

    When the passages have changed, the whole is built anew.
    """

    def __init__(self, folder: Path, store: VectorStore) -> None:
        import bm25s

        self.version = store.version()
        if _version_of(folder) != (self.version, _FORM):
            try:
                with only_one(folder):
                    if _version_of(folder) != (self.version, _FORM):
                        self._build(store)
                        self._save(folder)
            except OSError as error:
                logger.info("%s cannot be written (%s): the words are kept in memory.", folder, error)
                self._build(store)
                return
        self._keys = np.load(folder / _KEYS, mmap_mode="r")
        self._index = bm25s.BM25.load(str(folder), mmap=True) if len(self._keys) else None

    def _build(self, store: VectorStore) -> None:
        passages = [(key, words) for key, words in ((key, words_of(text)) for key, text in store.texts()) if words]
        self._keys, self._index = np.asarray([key for key, _ in passages], np.int64), None
        if passages:
            import bm25s

            self._index = bm25s.BM25()
            self._index.index([words for _, words in passages], show_progress=False)

    def _save(self, folder: Path) -> None:
        with atomic_folder(folder, _FOLDER) as temporary:
            if self._index is not None:
                self._index.save(str(temporary))
            np.save(temporary / _KEYS, self._keys)
            write_json(temporary / _RECORD, {"version": self.version, "form": _FORM, "passages": len(self._keys)})

    def search(self, queries: Sequence[str], k: int, allowed: Collection[int] | None = None) -> list[list[Scored]]:
        """At most ``k`` passages that share words with each query, best first, of those with ``allowed`` keys."""
        if self._index is None:
            return [[] for _ in queries]
        mask = None if allowed is None else np.isin(self._keys, np.fromiter(allowed, np.int64)).astype(np.float32)
        found: list[list[Scored]] = []
        for words in (words_of(query, is_query=True) for query in queries):
            if not words:
                found.append([])
                continue
            rows, scores = self._index.retrieve(
                [words], k=min(k, len(self._keys)), weight_mask=mask, show_progress=False, n_threads=0
            )
            own = zip(self._keys[rows[0]].tolist(), scores[0].tolist(), strict=True)
            found.append([Scored(key, score) for key, score in own if score > 0])
        return found


def is_lexical(folder: Path) -> bool:
    """Whether a folder is one of ours."""
    return (folder / _RECORD).is_file()


def _version_of(folder: Path) -> tuple[Any, Any] | None:
    """Version of the passages that a BM25 index was built over, and of its words; None where none can be read."""
    record = folder / _RECORD
    if folder.exists() and not is_lexical(folder):
        raise InputError(f"{folder} is not of this index: move it elsewhere, hybrid search keeps its words there.")
    try:
        known = read_json(record)
        return known.get("version"), known.get("form")
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
