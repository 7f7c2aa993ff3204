"""An index: the passages of a corpus with their vectors, and the model that made them."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..datasets.segmentation import split_sentences
from ..errors import InputError
from ..inference.tokenization import sentence_list
from ..models.encoders import embedding_dimension, lasting_name, open_encoder, runtime_of, unit_embeddings
from ..models.fingerprint import encoder_fingerprint, fingerprints_of
from ..utils.files import read_json, write_json
from ..utils.provenance import versions
from .filters import SURROGATE, Condition, as_number, parse_filter
from .hits import Hit
from .lexical import LexicalIndex, fuse
from .stores.base import REBUILD, store_class

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..models.encoders import Encoder
    from .hits import Passage
    from .stores.base import Scored, VectorStore

MANIFEST = "manifest.json"
_TYPE, _FORMAT = "distilface-index", 1
LEXICAL = "lexical"
_FUSED = 100  # passages taken from each of the two rankings of a hybrid search, at least
_EXAMPLES = 20
_SAMPLED = 200
_LEAST = -sys.float_info.max


class SearchIndex:
    """An index that can be searched. Open one with :meth:`open`; it may be used from several threads, copied, pickled.

    Attributes:
        folder: Where it lies.
        manifest: What it was made with: ``model``, ``store``, ``settings``, ``passages``.
        store: Its passages and vectors.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any], store: VectorStore) -> None:
        self.folder = folder
        self.manifest = manifest
        self.store = store
        self._encoder: Any = None
        self._lexical: LexicalIndex | None = None
        self._lexical_lock = Lock()

    @classmethod
    def open(cls, folder: str | os.PathLike[str], encoder: Any = None) -> SearchIndex:
        """Open an index. Vectors are mapped, not read, and the model is opened with the first query.

        Args:
            folder: The index's folder.
            encoder: The model to embed queries with: its name or folder, or an encoder; by default the one that made
                the index.

        Raises:
            InputError: No index, a damaged one, one of a later version, or a model that did not make it.
            MissingExtraError: The store's library is not installed.
        """
        manifest = read_manifest(Path(folder))
        kind = store_class(manifest["store"])
        store = kind(Path(folder), manifest["model"]["dimension"], kind.check(manifest["settings"]))
        index = cls(Path(folder), manifest, store)
        if encoder is not None:
            index.use(encoder)
        return index

    @property
    def model(self) -> str:
        """Name of the model that made the index."""
        return str(self.manifest["model"]["name"])

    @property
    def runtime(self) -> str | None:
        """``torch`` where that made it: the graph of the same packed model gives slightly other embeddings."""
        runtime: str | None = self.manifest["model"].get("runtime")
        return runtime

    @property
    def encoder(self) -> Any:
        """What embeds queries: anything with ``encode``. Setting it checks nothing; :meth:`use` does."""
        if self._encoder is None:
            self.use(self.model)
        return self._encoder

    @encoder.setter
    def encoder(self, encoder: Any) -> None:
        self._encoder = encoder

    def use(self, encoder: str | os.PathLike[str] | Encoder, name: str | None = None) -> None:
        """Embed queries with a model, after a check that it is the index's own.

        Args:
            encoder: Its name or folder, or an encoder.
            name: The encoder's name; by default that of the index's model.

        Raises:
            InputError: It is another one.
        """
        known = named_encoder(encoder, name or self.model, self.runtime)
        made = self.manifest["model"]
        if made["fingerprint"] not in fingerprints_of(*known):
            raise InputError(
                f"{self.folder} was made with {made['name']} ({made['fingerprint']}); {known.name} "
                f"({encoder_fingerprint(*known)}) is another model, whose embeddings cannot be compared with it."
            )
        self._encoder = known.encoder

    def search(
        self,
        queries: Sequence[str],
        k: int = 10,
        filter: dict[str, Any] | None = None,  # noqa: A002 (the word of every search library)
        hybrid: bool = False,
        highlight: bool = True,
    ) -> list[list[Hit]]:
        """Find documents.

        Args:
            queries: Queries.
            k: Most documents a query.
            filter: What a document's metadata must meet, see :func:`distilface_st.search.parse_filter`.
            hybrid: Fuse the ranking by vectors with that by BM25, by reciprocal rank fusion.
            highlight: Find the sentence of each hit that is nearest to the query.

        Returns:
            Hits of each query, best first, a document once, with its best passage.

        Raises:
            InputError: A query that is no text or is blank, a k below 1, a filter that is none, or that can match
                nothing since its field holds values of another type alone.
        """
        queries = sentence_list(queries)
        for query in queries:
            if not isinstance(query, str) or not query.strip():
                raise InputError("A query must be text, and not blank.")
            if SURROGATE.search(query):
                raise InputError("A query is not valid Unicode.")
        if not queries:
            return []
        vectors = unit_embeddings(self.encoder, queries, "query")
        hits = self.search_vectors(vectors, k, filter, queries if hybrid else None)
        return self._highlighted(vectors, hits) if highlight else hits

    def search_vectors(
        self,
        vectors: np.ndarray,
        k: int = 10,
        filter: dict[str, Any] | None = None,  # noqa: A002
        queries: Sequence[str] | None = None,
    ) -> list[list[Hit]]:
        """Find documents by embedded queries, without highlights.

        Args:
            vectors: Shape (queries, d), of length 1.
            k: As in :meth:`search`.
            filter: As in :meth:`search`.
            queries: The queries' words, for a hybrid search; by default vectors alone decide.
        """
        if k < 1:
            raise InputError(f"k is {k}: it must be at least 1.")
        if vectors.ndim != 2 or vectors.shape[1] != self.store.dimension:
            raise InputError(f"Queries of shape {vectors.shape} for an index of {self.store.dimension} dimensions.")
        if not np.isfinite(vectors).all():
            raise InputError("A query's vector is not finite.")
        conditions = parse_filter(filter)
        wanted = 2 * k
        while True:
            ranked = self._ranked(vectors, wanted, conditions, queries)
            passages = self.store.fetch(sorted({key for own in ranked for key, _ in own}))
            hits = [_best_passages(own, passages, k) for own in ranked]
            # Long documents fill a ranking with their passages: look further where there may be more documents.
            if not any(len(found) < k and len(own) >= wanted for found, own in zip(hits, ranked, strict=True)):
                break
            wanted *= 4
        if conditions and not any(hits):
            for condition in conditions:
                self._check_types(condition, vectors[:1])
        return hits

    def _check_types(self, condition: Condition, vector: np.ndarray) -> None:
        """Refuse a condition that no document can meet, since its field holds values of another type alone."""
        if condition.operator == "!=":
            return
        number = self._example(Condition(condition.field, ">=", (_LEAST,)), vector)
        text = self._example(Condition(condition.field, ">", ("",)), vector)
        values = condition.values
        meets_text = text is not None and any(isinstance(value, str) for value in values)
        meets_number = number is not None and any(as_number(value) is not None for value in values)
        if meets_text or meets_number or (text is None and number is None):
            return
        held, example = ("text that is no number", text) if number is None else ("numbers", number)
        said = json.dumps(example, ensure_ascii=False)[:80]
        if number is None and as_number(example) is not None:
            said += ", for an earlier version stored it: put the documents in again with --update"
        raise InputError(f"The filter {condition} can match nothing: {condition.field} holds {held}, such as {said}.")

    def _example(self, condition: Condition, vector: np.ndarray) -> Any:
        """What some document that meets a condition holds in the field; None where none does."""
        (found,) = self.store.search(vector, 1, [condition])
        passages = self.store.fetch([key for key, _ in found])
        return next((passage.metadata[condition.field] for passage in passages.values()), None)

    def _ranked(
        self, vectors: np.ndarray, wanted: int, conditions: list[Condition], queries: Sequence[str] | None
    ) -> list[list[Scored]]:
        if queries is None:
            return self.store.search(vectors, wanted, conditions)
        wanted = max(wanted, _FUSED)
        by_vector = self.store.search(vectors, wanted, conditions)
        with self._lexical_lock:  # built once, however many ask
            if self._lexical is None or self._lexical.version != self.store.version():
                self._lexical = LexicalIndex(self.folder / LEXICAL, self.store)
            lexical = self._lexical
        allowed = self.store.matching(conditions) if conditions else None
        by_word = lexical.search(queries, wanted, allowed)
        return [fuse(pair) for pair in zip(by_vector, by_word, strict=True)]

    def _highlighted(self, vectors: np.ndarray, hits: list[list[Hit]]) -> list[list[Hit]]:
        """The hits with the sentence nearest to their query."""
        spans = {hit.text: _sentence_spans(hit.text) for own in hits for hit in own}
        several = {text: found for text, found in spans.items() if len(found) > 1}
        sentences = [text[start:end] for text, found in several.items() for start, end in found]
        embedded = iter(unit_embeddings(self.encoder, sentences, "query") if sentences else ())
        rows = {text: np.stack([next(embedded) for _ in found]) for text, found in several.items()}

        def nearest(text: str, vector: np.ndarray) -> tuple[int, int] | None:
            best = int((rows[text] @ vector).argmax()) if text in rows else 0
            return spans[text][best] if spans[text] else None

        return [
            [replace(hit, highlight=nearest(hit.text, vector)) for hit in own]
            for own, vector in zip(hits, vectors, strict=True)
        ]

    def semantic_search(self, query_embeddings: Any, top_k: int = 10) -> list[list[dict[str, Any]]]:
        """What ``sentence_transformers.util.semantic_search`` gives, from the index.

        Args:
            query_embeddings: Shape (queries, d); a tensor or an array. Scaled to length 1 here.
            top_k: Most documents a query.

        Returns:
            For each query its documents, best first: ``score``, and as ``corpus_id`` the number of the record in the
            corpus where that has no ids of its own, else the document's id.
        """
        detached = query_embeddings.detach().cpu().float() if hasattr(query_embeddings, "detach") else query_embeddings
        vectors = np.atleast_2d(np.array(detached, dtype=np.float32))
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return [
            [{"corpus_id": self._corpus_id(hit.id), "score": hit.score} for hit in own]
            for own in self.search_vectors(vectors, top_k)
        ]

    def _corpus_id(self, document: str) -> str | int:
        is_number = document.isascii() and document.isdecimal() and str(int(document)) == document
        return int(document) if is_number and self.manifest.get("numbered", True) else document

    def sample(self, n: int, seed: int = 0) -> tuple[list[Hit], np.ndarray]:
        """Some passages at random, as hits of score 0, and their vectors, shape (n, d)."""
        passages, vectors = self.store.sample(n, seed)
        return [_hit(passage, 0.0) for passage in passages], vectors

    def info(self) -> dict[str, Any]:
        """The index's ``documents``, ``passages``, ``dimension``, ``model``, ``store``, ``fields``, ``unique``.

        ``fields`` has some values of each metadata field that holds text, numbers, or lists of those. ``unique`` names
        the fields whose values belong to one document each, such as a title or an address, among some passages.
        """
        counts = self.store.counts()
        holders: dict[str, dict[Any, set[str]]] = {}
        for passage in self.store.sample(_SAMPLED, 0)[0]:
            for name, value in passage.metadata.items():
                for item in value if isinstance(value, list) else [value]:
                    if isinstance(item, (str, int, float)):
                        holders.setdefault(name, {}).setdefault(item, set()).add(passage.document)
        fields = dict(sorted(holders.items()))
        return {
            "documents": counts.documents,
            "passages": counts.passages,
            "dimension": self.store.dimension,
            "model": self.model,
            "store": self.manifest["store"],
            "fields": {name: sorted([*values][:_EXAMPLES], key=str) for name, values in fields.items()},
            "unique": [name for name, values in fields.items() if all(len(own) == 1 for own in values.values())],
        }

    def verify(self) -> None:
        """Read the whole index and compare it with its checksums; an InputError says what is damaged."""
        self.store.verify()

    def close(self) -> None:
        """Let go of files and connections."""
        self.store.close()

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy, also one in another process, opens the folder anew, with the same encoder."""
        return _reopened, (type(self), self.folder.absolute(), self._encoder)

    def __enter__(self) -> SearchIndex:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _reopened(kind: type[SearchIndex], folder: Path, encoder: Any) -> SearchIndex:
    index = kind.open(folder)
    index.encoder = encoder
    return index


class NamedEncoder(NamedTuple):
    """An encoder, and the name that opens it again where there is one."""

    encoder: Any
    name: str


def named_encoder(encoder: Any, name: str | None = None, runtime: str | None = None) -> NamedEncoder:
    """An encoder as it is, called by ``name`` or its type; or one opened by its name or folder."""
    if isinstance(encoder, (str, os.PathLike)):
        return NamedEncoder(open_encoder(encoder, runtime=runtime), lasting_name(encoder))
    return NamedEncoder(encoder, name or type(encoder).__name__)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of an index; an InputError where there is none that this version can read."""
    path = folder / MANIFEST
    try:
        manifest = read_json(path)
    except FileNotFoundError:
        raise InputError(f"{folder} is no index: make one with `distilface index CORPUS {folder}`.") from None
    except InputError as error:
        raise InputError(f"{str(error).rstrip('.')}; {REBUILD}.") from error
    if manifest.get("type") != _TYPE:
        raise InputError(f"{path} is not the manifest of an index of this package.")
    if manifest.get("format") != _FORMAT:
        raise InputError(
            f"{folder} has format {manifest.get('format')}, this version reads {_FORMAT}: update distilface-st, or "
            "delete its folder and build the index again."
        )
    if not _has_shape(manifest, _SHAPE):
        raise InputError(f"{path} is damaged: {REBUILD}.")
    return manifest


def write_manifest(folder: Path, model: NamedEncoder, store: str, settings: dict[str, Any], **more: Any) -> None:
    """Write the manifest of a new index."""
    dimension = embedding_dimension(model.encoder)
    made = {"name": model.name, "fingerprint": encoder_fingerprint(*model), "dimension": dimension}
    made |= {"runtime": runtime} if (runtime := runtime_of(model.encoder)) else {}
    manifest = {"type": _TYPE, "format": _FORMAT, "model": made, "store": store, "settings": settings, **more}
    write_json(folder / MANIFEST, {**manifest, "made_with": versions()})


_SHAPE = {
    "model": {"name": str, "fingerprint": str, "dimension": int},
    "store": str,
    "settings": dict,
    "passages": {"tokens": int, "overlap": int},
}


def _has_shape(value: Any, shape: Any) -> bool:
    if not isinstance(shape, dict):
        return isinstance(value, shape)
    return isinstance(value, dict) and all(_has_shape(value.get(name), inner) for name, inner in shape.items())


def _best_passages(ranked: list[Scored], passages: dict[int, Passage], k: int) -> list[Hit]:
    """The first ``k`` documents of ranked passages, each with its best."""
    hits: dict[str, Hit] = {}
    for key, score in ranked:
        if key in passages and passages[key].document not in hits:
            hits[passages[key].document] = _hit(passages[key], score)
    return list(hits.values())[:k]


def _hit(passage: Passage, score: float) -> Hit:
    return Hit(passage.document, score, passage.text, passage.metadata, passage.number)


def _sentence_spans(text: str) -> list[tuple[int, int]]:
    spans, position = [], 0
    for sentence in split_sentences(text):
        start = text.index(sentence, position)
        position = start + len(sentence)
        spans.append((start, position))
    return spans
