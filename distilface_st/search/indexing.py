"""Making an index and changing it: documents stream in, and work that was killed goes on where it was."""

from __future__ import annotations

import hashlib
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..datasets.sources import find_source
from ..errors import InputError
from .documents import in_chunks, read_documents
from .encoders import TextEncoder
from .index import MANIFEST, SearchIndex, write_manifest
from .passages import PassageSplitter
from .stores.base import store_class

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator

    import numpy as np

    from .hits import Document, Passage
    from .stores.base import VectorStore

CHUNK = 2048
"""Documents between two commits: what a killed run does again at most, and what is in memory."""

_SPECIAL = 2
"""Tokens that a model puts around a text."""

_OF_OURS = ("passages.sqlite", "vectors-", "structure-", "milvus.", "lexical", "ray-", ".milvus.", ".manifest")


@dataclass(frozen=True)
class IndexSettings:
    """How an index is made.

    Attributes:
        store: ``faiss`` or ``milvus``.
        options: The store's own: ``index``; for Milvus ``uri`` and ``collection``.
        tokens: Most tokens of a passage, at most what the model reads beside its own special ones.
        overlap: Tokens that neighbouring passages may share; by default a quarter of ``tokens``.
    """

    store: str = "faiss"
    options: dict[str, Any] = field(default_factory=dict)
    tokens: int = 128
    overlap: int | None = None


def index_corpus(
    source: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    encoder: Any,
    settings: IndexSettings | None = None,
    *,
    mode: str = "create",
    id_field: str | None = None,
    text_field: str | None = None,
    progress: Callable[[int], Any] = lambda done: None,
) -> dict[str, Any]:
    """Index a corpus. Run again after a kill, it goes on where it was, and the index is as if nothing had happened.

    Args:
        source: Documents, see :func:`distilface_st.search.documents.read_documents`.
        folder: The index.
        encoder: The model: an ``EdgeEncoder``, a ``SentenceTransformer``, or a
            :class:`distilface_st.search.encoders.TextEncoder`, which also has a name to open it again by.
        settings: How to make a new index; one that is there keeps its own.
        mode: ``create`` a new index, ``add`` documents with new ids, or ``update``: put documents in the place of
            those with their ids, and add the others.
        id_field: Field with the documents' ids.
        text_field: Field with their text.
        progress: Called with the number of documents done.

    Returns:
        ``documents`` read by this run, ``blank`` ones among them, which are not kept, and the index's ``total``.

    Raises:
        InputError: A source that cannot be read, an id that is there twice, an index that exists (``create``) or does
            not (otherwise), one that another model made, or one with other work unfinished.
    """
    known = encoder if isinstance(encoder, TextEncoder) else TextEncoder(encoder, type(encoder).__name__)
    folder = Path(folder)
    job = Job.of(mode, source, id_field, text_field)
    if mode == "create" and not (folder / MANIFEST).exists():
        create_index(folder, known, settings or IndexSettings(), job)
    with SearchIndex.open(folder, known) as index:
        done, is_new = job.begin(index.store, may_be_new=mode != "create")
        progress(done)
        documents = islice(read_documents(source, id_field, text_field), done, None)
        embedded = (
            Embedded(chunk, passages, known.encode_documents([passage.text for passage in passages]))
            for chunk, passages in _ahead(documents, splitter_of(index, known))
        )
        return store_chunks(index, job, done, embedded, progress, is_new)


@dataclass(frozen=True)
class Embedded:
    """Consecutive documents, their passages, and the passages' vectors, shape (passages, d)."""

    documents: list[Document]
    passages: list[Passage]
    vectors: np.ndarray


def splitter_of(index: SearchIndex, encoder: TextEncoder) -> PassageSplitter:
    """Splits documents as those of the index were."""
    made_with = index.manifest["passages"]
    return PassageSplitter(encoder.token_counts, made_with["tokens"], made_with["overlap"])


def store_chunks(
    index: SearchIndex,
    job: Job,
    done: int,
    chunks: Iterable[Embedded],
    progress: Callable[[int], Any],
    is_new: bool = False,
) -> dict[str, Any]:
    """Put embedded chunks into the store, one commit each, and finish the job.

    Args:
        index: The index.
        job: What is being done.
        done: Documents that are in the store already.
        chunks: The others.
        progress: Called with the number of documents done.
        is_new: Whether this job was begun just now, so that no part of a chunk can be there from before a kill.

    Raises:
        InputError: An id that is there twice.
    """
    read = blank = 0
    is_clean = is_new or index.store.is_transactional
    for chunk in chunks:
        ids = _distinct(chunk.documents)
        if job.mode != "update" and is_clean and (there := index.store.known(ids)):
            twice = next(document for document in chunk.documents if document.id in there)
            raise InputError(f"{twice.where}: the index has a document {twice.id!r} already (see --update).")
        read += len(ids)
        blank += len(ids) - len({passage.document for passage in chunk.passages})
        index.store.add(chunk.passages, chunk.vectors, ids, job.at(done + read))
        is_clean = True
        progress(done + read)
    return _finish(index, job, done + read, documents=read, blank=blank)


def delete_from_index(
    source: str | os.PathLike[str], folder: str | os.PathLike[str], *, id_field: str | None = None
) -> dict[str, Any]:
    """Take documents out of an index.

    Args:
        source: Records with the ids, as for :func:`index_corpus`; or a .txt file with an id a line.
        folder: The index.
        id_field: Field with the ids.

    Returns:
        ``deleted`` documents, ids ``missing`` from the index, and the index's ``total``.

    Raises:
        InputError: A source that cannot be read, or no index.
    """
    job = Job.of("delete", source, id_field, None)
    deleted = asked = 0
    with SearchIndex.open(folder) as index:
        done, _ = job.begin(index.store, may_be_new=True)
        for chunk in in_chunks(islice(_named(source, id_field), done, None), CHUNK):
            ids = list(dict.fromkeys(chunk))
            asked += len(ids)
            done += len(chunk)
            deleted += index.store.delete(ids, job.at(done))
        return _finish(index, job, done, deleted=deleted, missing=asked - deleted)


def _named(source: str | os.PathLike[str], id_field: str | None) -> Iterator[str]:
    plain = all(path.name.lower().removesuffix(".gz").endswith(".txt") for path in find_source(source).files)
    for document in read_documents(source, id_field):
        name = document.text.strip() if plain else document.id
        if name:
            yield name


def _finish(index: SearchIndex, job: Job, done: int, **counts: int) -> dict[str, Any]:
    index.store.finish()
    index.store.set_position(job.at(done, finished=True))
    return {**counts, "total": index.store.counts().documents}


def create_index(folder: Path, encoder: TextEncoder, settings: IndexSettings, job: Job) -> None:
    """An empty index, at the beginning of a job.

    Raises:
        InputError: Settings that do not fit, or a folder with something else in it.
    """
    kind = store_class(settings.store)
    options = kind.check(settings.options)
    tokens = min(settings.tokens, encoder.max_tokens - _SPECIAL)
    overlap = tokens // 4 if settings.overlap is None else settings.overlap
    PassageSplitter(encoder.token_counts, tokens, overlap)
    left = list(folder.iterdir()) if folder.is_dir() else []
    if folder.exists() and not (folder.is_dir() and all(path.name.startswith(_OF_OURS) for path in left)):
        raise InputError(f"{folder} is there already and is no index: name another folder.")
    for path in left:  # of a run that was killed before there was a manifest
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    store = kind(folder, encoder.dimension, options, create=True)
    store.set_position(job.at(0))
    store.close()
    passages = {"tokens": tokens, "overlap": overlap}
    write_manifest(folder, encoder, settings.store, options, passages=passages)


def _ahead(documents: Iterator[Document], splitter: PassageSplitter) -> Iterator[tuple[list[Document], list[Passage]]]:
    """Chunks of documents and their passages, the next one read and split while the caller works on the last."""
    chunks = in_chunks(documents, CHUNK)

    def prepare() -> tuple[list[Document], list[Passage]] | None:
        chunk = next(chunks, None)
        return None if chunk is None else (chunk, splitter(chunk))

    with ThreadPoolExecutor(1) as thread:
        following = thread.submit(prepare)
        while (prepared := following.result()) is not None:
            following = thread.submit(prepare)
            yield prepared


def _distinct(chunk: list[Document]) -> list[str]:
    seen: dict[str, Document] = {}
    for document in chunk:
        if document.id in seen:
            raise InputError(f"{document.where}: the id {document.id!r} is also that of {seen[document.id].where}.")
        seen[document.id] = document
    return list(seen)


@dataclass(frozen=True)
class Job:
    """A piece of work on an index, and how far it has come, as the store's position keeps it."""

    key: str
    name: str
    mode: str

    @classmethod
    def of(cls, mode: str, source: str | os.PathLike[str], id_field: str | None, text_field: str | None) -> Job:
        """The job of doing something with a source.

        Raises:
            InputError: There is no such mode or source.
        """
        if mode not in ("create", "add", "update", "delete"):
            raise InputError(f"mode is {mode!r}: choose create, add or update.")
        found = find_source(source)
        decisive = json.dumps([mode, found.identity(), id_field, text_field])
        return cls(hashlib.blake2b(decisive.encode(), digest_size=12).hexdigest(), f"{mode} {found.name}", mode)

    def at(self, done: int, finished: bool = False) -> str:
        """The position after so many documents."""
        return json.dumps({"job": self.key, "name": self.name, "done": done, "finished": finished})

    def begin(self, store: VectorStore, may_be_new: bool) -> tuple[int, bool]:
        """Documents of this job that are done, and whether it is new, which is noted.

        Raises:
            InputError: Another job is unfinished, or there is nothing to begin.
        """
        position = store.position()
        known = json.loads(position) if position else {"finished": True}
        if not known["finished"]:
            if known["job"] != self.key:
                raise InputError(f"The index has unfinished work ({known['name']}): run that again first.")
            return int(known["done"]), False
        if not may_be_new:
            raise InputError("There is an index already: --add or --update changes it; or name another folder.")
        store.set_position(self.at(0))
        return 0, True
