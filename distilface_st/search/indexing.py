"""Making an index and changing it: documents stream in, and work that was killed goes on where it was."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..datasets.sources import find_source
from ..errors import InputError
from ..models.encoders import embedding_dimension, embeddings_of, longest_input, token_counter, unit_embeddings
from ..utils.chunks import chunked
from ..utils.files import remove
from ..utils.ray import ray_library
from .documents import PassageSplitter, read_documents
from .index import LEXICAL, MANIFEST, NamedEncoder, SearchIndex, named_encoder, read_manifest, write_manifest
from .lexical import is_lexical
from .stores.base import STORES, store_class

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator

    from ..models.encoders import Encoder
    from .hits import Document, Passage
    from .stores.base import VectorStore

logger = logging.getLogger(__name__)

CHUNK = 2048
"""Documents between two commits: what a killed run does again at most, and what is in memory."""

_SPECIAL = 2  # tokens that a model puts around a text
_BEGUN = ".index-begun"  # holds the store's kind, from the making of an index's folder until its manifest is there
_TEMPORARY = re.compile(r"\.(manifest|milvus)\.[0-9]+\.tmp\.json")  # left by a kill in the middle of writing these


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


@dataclass(frozen=True)
class RaySettings:
    """How passages are embedded on a Ray cluster.

    Attributes:
        address: The cluster's; ``local`` starts one on this machine.
        workers: Actors, each with a model and a core.
        batch_size: Passages a batch.
    """

    address: str = "local"
    workers: int = 2
    batch_size: int = 256


def index_corpus(
    source: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    encoder: str | os.PathLike[str] | Encoder,
    settings: IndexSettings | None = None,
    *,
    model_name: str | None = None,
    mode: str = "create",
    id_field: str | None = None,
    text_field: str | None = None,
    progress: Callable[[int], Any] = lambda done: None,
    ray: RaySettings | None = None,
) -> dict[str, Any]:
    """Index a corpus. Run again after a kill, it goes on where it was, and the index is as if nothing had happened.

    Args:
        source: Documents, see :func:`distilface_st.search.documents.read_documents`.
        folder: The index.
        encoder: The model's name or folder, or an encoder: anything that encodes as a ``SentenceTransformer``.
        settings: How to make a new index; one that is there keeps its own.
        model_name: A name to open an encoder again by; by default its type's name, which opens nothing.
        mode: ``create`` a new index, ``add`` documents with new ids, or ``update``: put documents in the place of
            those with their ids, and add the others.
        id_field: Field with the documents' ids.
        text_field: Field with their text.
        progress: Called with the number of documents done.
        ray: Embed on a Ray cluster, whose nodes must see the index's folder (a shared disk), have this package, and
            open the model by its name. See :mod:`distilface_st.search.ray_indexing`.

    Returns:
        ``documents`` read by this run, ``blank`` ones among them, which are not kept, and the index's ``total``.

    Raises:
        InputError: A source that cannot be read, an id that is there twice, an index that exists (``create``) or does
            not (otherwise), was made by another model or has other work unfinished; a folder that holds something else;
            passages that did not come back from Ray.
        MissingExtraError: The store's library or Ray is not installed.
    """
    if ray is not None:
        ray_library("Indexing on Ray")
    folder = Path(folder)
    job = Job.of(mode, source, id_field, text_field)
    settings = settings or IndexSettings()
    is_there = (folder / MANIFEST).exists()
    runtime = read_manifest(folder)["model"].get("runtime") if is_there else None
    model = named_encoder(encoder, model_name, runtime)
    if mode == "create":
        first = next(read_documents(source, id_field, text_field), None)  # before anything is written
        if not is_there or _discard_half(folder, job, settings):
            _create(folder, model, settings, job, numbered=first is None or first.is_numbered)
    try:
        with SearchIndex.open(folder) as index:
            index.use(*model)
            (folder / _BEGUN).unlink(missing_ok=True)
            job.begin(index.store, may_be_new=mode != "create")
            with job.given_up_where_it_fails(index.store):
                return _index(index, job, model, source, id_field, text_field, progress, ray)
    except InputError:
        if mode == "create" and job.stored_nothing:
            _discard(folder, job.key)
            _clear_begun(folder)
        raise


def _index(
    index: SearchIndex,
    job: Job,
    model: NamedEncoder,
    source: str | os.PathLike[str],
    id_field: str | None,
    text_field: str | None,
    progress: Callable[[int], Any],
    ray: RaySettings | None,
) -> dict[str, Any]:
    """Do a job, or what is left of it."""
    progress(job.done)
    made_with = index.manifest["passages"]
    splitter = PassageSplitter(token_counter(model.encoder), made_with["tokens"], made_with["overlap"])
    documents = read_documents(source, id_field, text_field)
    if ray is None:
        return _store(index, job, _embedded(islice(documents, job.done, None), splitter, model.encoder), progress)
    from .ray_indexing import embedded_by_ray

    work = index.folder.absolute() / f"ray-{job.key}"
    result = _store(index, job, embedded_by_ray(documents, splitter, model, ray, work, job.done), progress)
    shutil.rmtree(work)
    return result


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
    is_plain = all(path.name.lower().removesuffix(".gz").endswith(".txt") for path in find_source(source).files)
    documents = read_documents(source, id_field)
    names = filter(None, (document.text.strip() if is_plain else document.id for document in documents))
    deleted = asked = 0
    with SearchIndex.open(folder) as index:
        job.begin(index.store, may_be_new=True)
        for chunk in chunked(islice(names, job.done, None), CHUNK):
            ids = list(dict.fromkeys(chunk))
            asked += len(ids)
            job.done += len(chunk)
            deleted += index.store.delete(ids, job.position())
        return _finish(index, job, deleted=deleted, missing=asked - deleted)


class Embedded(NamedTuple):
    """Consecutive documents, their passages, and the passages' vectors, shape (passages, d)."""

    documents: list[Document]
    passages: list[Passage]
    vectors: np.ndarray


def _embedded(documents: Iterator[Document], splitter: PassageSplitter, encoder: Encoder) -> Iterator[Embedded]:
    """Chunks of documents, the next one read and split while the model and the store work on the last."""
    split = ((chunk, splitter(chunk)) for chunk in chunked(documents, CHUNK))
    with ThreadPoolExecutor(1) as thread:
        following = thread.submit(next, split, None)
        while (prepared := following.result()) is not None:
            following = thread.submit(next, split, None)
            texts = [passage.text for passage in prepared[1]]
            yield Embedded(*prepared, unit_embeddings(encoder, texts, "document"))


def _store(index: SearchIndex, job: Job, chunks: Iterable[Embedded], progress: Callable[[int], Any]) -> dict[str, Any]:
    """Put the chunks that are not stored yet into the store, one commit each, and finish the job."""
    begun_at, blank = job.done, 0
    # A part of the first chunk may be there from before a kill, where the store does not undo it.
    is_clean = job.is_new or index.store.is_transactional
    for chunk in chunks:
        seen: dict[str, Document] = {}
        for document in chunk.documents:
            if document.id in seen:
                raise InputError(f"{document.where}: the id {document.id!r} is also that of {seen[document.id].where}.")
            seen[document.id] = document
        ids = list(seen)
        if job.mode != "update" and is_clean and (there := index.store.known(ids)):
            twice = next(document for document in chunk.documents if document.id in there)
            raise InputError(f"{twice.where}: the index has a document {twice.id!r} already (see --update).")
        job.done += len(ids)
        blank += len(ids) - len({passage.document for passage in chunk.passages})
        index.store.add(chunk.passages, chunk.vectors, ids, job.position())
        is_clean = True
        progress(job.done)
    return _finish(index, job, documents=job.done - begun_at, blank=blank)


def _finish(index: SearchIndex, job: Job, **counts: int) -> dict[str, Any]:
    index.store.finish()
    index.store.set_position(job.position(finished=True))
    return {**counts, "total": index.store.counts().documents}


def _create(folder: Path, model: NamedEncoder, settings: IndexSettings, job: Job, numbered: bool) -> None:
    """Make an empty index, at the beginning of a job; its documents are ``numbered`` where they have no ids."""
    kind = store_class(settings.store)
    options = kind.check(settings.options)
    longest = longest_input(model.encoder)
    tokens = settings.tokens if longest is None else min(settings.tokens, longest - _SPECIAL)
    overlap = tokens // 4 if settings.overlap is None else settings.overlap
    PassageSplitter(token_counter(model.encoder), tokens, overlap)  # which refuses budgets that make no sense
    _warn_of_lengths(model)
    begun = folder / _BEGUN
    if begun.is_file():  # a run was killed before there was a manifest
        _clear_begun(folder)
    if folder.exists() and not begun.is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is there already and is no index: name another folder.")
    folder.mkdir(parents=True, exist_ok=True)
    begun.write_text(settings.store, encoding="utf-8")
    try:
        store = kind(folder, embedding_dimension(model.encoder), options, create=True)
        store.set_position(job.position())
        store.close()
        passages = {"tokens": tokens, "overlap": overlap}
        write_manifest(folder, model, settings.store, options, passages=passages, numbered=numbered)
    except InputError:
        _clear_begun(folder)
        raise


def _warn_of_lengths(model: NamedEncoder) -> None:
    """Say so where a model means the lengths of its embeddings to count, which an index makes 1."""
    compares = getattr(model.encoder, "similarity_fn_name", None) or "cosine"
    if compares != "cosine" and not np.isclose(np.linalg.norm(embeddings_of(model.encoder, ["."])), 1, atol=1e-2):
        logger.warning(
            "%s compares embeddings by %s, an index by cosine: it may rank otherwise than the model was trained to.",
            *(model.name, compares),
        )


def _clear_begun(folder: Path) -> None:
    """Remove what a run made that ended before there was a manifest, by name, and nothing else; the folder if empty."""
    begun = folder / _BEGUN
    former = begun.read_text(encoding="utf-8")  # empty where nothing was made yet
    names = store_class(former).files if former in STORES else ()
    for path in [path for path in folder.iterdir() if path.name in names or _TEMPORARY.fullmatch(path.name)]:
        remove(path)
    if list(folder.iterdir()) == [begun]:
        begun.unlink()
        folder.rmdir()


def _discard(folder: Path, job: str) -> None:
    """Turn an index that was never finished into what a run leaves that is killed at its very beginning."""
    with SearchIndex.open(folder) as index:
        (folder / _BEGUN).write_text(index.manifest["store"], encoding="utf-8")
        (folder / MANIFEST).unlink()
        index.store.destroy()
    remove(folder / f"ray-{job}")
    if is_lexical(folder / LEXICAL):
        remove(folder / LEXICAL)


def _discard_half(folder: Path, job: Job, settings: IndexSettings) -> bool:
    """Whether an index was half made, and cannot or shall not be gone on with; it is discarded then."""
    with SearchIndex.open(folder) as index:
        known = Job.known(index.store)
        made = index.manifest
    if known["finished"] or known["mode"] != "create":
        return False
    options = {"index": "exact", **settings.options}
    is_other = settings.store != made["store"] or any(made["settings"].get(key) != options[key] for key in options)
    if not is_other and (known["job"] == job.key or Job.can_go_on(known)):
        return False
    _discard(folder, known["job"])
    return True


@dataclass
class Job:
    """A piece of work on an index, and how many documents of it are done, as the store's position keeps it.

    ``key`` tells it from other work, ``name`` says what it is. One that ``is_new`` was begun just now, so that nothing
    can be there from before a kill; one that ``stored_nothing`` failed before its first commit.
    """

    key: str
    name: str
    mode: str
    source: str
    fields: tuple[str | None, str | None]
    done: int = 0
    is_new: bool = False
    stored_nothing: bool = False

    @classmethod
    def of(cls, mode: str, source: str | os.PathLike[str], id_field: str | None, text_field: str | None) -> Job:
        """The job of doing something with a source; an InputError where there is no such mode or source."""
        if mode not in ("create", "add", "update", "delete"):
            raise InputError(f"mode is {mode!r}: choose create, add or update.")
        found = find_source(source)
        decisive = json.dumps([mode, found.identity(), id_field, text_field])
        key = hashlib.blake2b(decisive.encode(), digest_size=12).hexdigest()
        lasting = str(Path(source).absolute()) if Path(source).exists() else str(source)
        return cls(key, f"{mode} {found.name}", mode, lasting, (id_field, text_field))

    def position(self, finished: bool = False, failed: bool = False) -> str:
        """What the store keeps."""
        return json.dumps(
            {
                "job": self.key,
                "name": self.name,
                "mode": self.mode,
                "source": self.source,
                "fields": self.fields,
                "done": self.done,
                "finished": finished,
                "failed": failed,
            }
        )

    @staticmethod
    def known(store: VectorStore) -> dict[str, Any]:
        """The last position that a store was given. Version 0.1 noted neither ``mode`` nor ``source``."""
        known: dict[str, Any] = json.loads(store.position() or "{}")
        return {"finished": True, "failed": False, "mode": str(known.get("name")).partition(" ")[0], **known}

    @staticmethod
    def can_go_on(known: dict[str, Any]) -> bool:
        """Whether unfinished work did not fail, and its source is what it was."""
        if known["failed"]:
            return False
        if "source" not in known:
            return True  # as far as version 0.1 has noted
        try:
            return bool(Job.of(known["mode"], known["source"], *known["fields"]).key == known["job"])
        except InputError:
            return False

    def begin(self, store: VectorStore, may_be_new: bool) -> None:
        """Go on where the store says that the job was, or note in it that the job is begun.

        Other work must be finished first, but for what failed, or cannot be done any more since its source is another.
        """
        known = self.known(store)
        if not known["finished"] and known["job"] == self.key:
            self.done = int(known["done"])
            return
        if not known["finished"]:
            anew = "" if known["mode"] != "create" else f", or delete {store.folder} and begin anew"
            if self.can_go_on(known):
                raise InputError(f"The index has unfinished work ({known['name']}): run that again first{anew}.")
            if known["mode"] == "create":
                raise InputError(
                    f"The index was never finished ({known['name']}): make it again first, without --{self.mode}."
                )
        elif not may_be_new:
            raise InputError("There is an index already: --add or --update changes it; or name another folder.")
        store.set_position(self.position())
        self.is_new = True

    @contextmanager
    def given_up_where_it_fails(self, store: VectorStore) -> Iterator[None]:
        """Note in the store that the job failed, so that other work need not wait until it is finished."""
        try:
            yield
        except InputError:
            known = self.known(store)
            self.stored_nothing = known["done"] == 0
            store.set_position(json.dumps({**known, "failed": True}))
            raise
