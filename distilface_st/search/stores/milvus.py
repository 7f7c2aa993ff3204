"""An index in Milvus: a local file (Milvus Lite) or, by another address, a server or a cluster."""

from __future__ import annotations

import hashlib
import logging
import os
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from typing_extensions import override

from ...errors import InputError
from ...utils.chunks import chunked
from ...utils.extras import require
from ...utils.files import read_json, remove, write_json
from ..filters import COMPARED, compared, milvus_literal, milvus_of
from ..hits import Passage
from .base import REBUILD, Counts, Scored, VectorStore

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from ..filters import Condition

TOKEN_VARIABLE = "MILVUS_TOKEN"  # environment variable with a server's token, which is never written to the index
_STATE, _LOCAL_FILE = "milvus.json", "milvus.db"
_INDEXES = {"exact": "FLAT", "hnsw": "HNSW", "auto": "AUTOINDEX"}
_AT_ONCE, _DELETED_AT_ONCE = 512, 128
_LONGEST_TEXT = 65_535
_MOST_HITS = 16_384
# Milvus Lite's server ends a connection that asks more than once in five minutes whether it lives; pymilvus does.
_PATIENT = {"grpc.keepalive_time_ms": 360_000}


class MilvusStore(VectorStore):
    """Passages and vectors in one collection.

    A passage's key is made from its document's id and its number, so that work done again after a kill changes
    nothing; how far it had come is in ``milvus.json`` in the index's folder.

    Settings: ``uri``, the server's address, none for Milvus Lite in the index's folder; ``collection``; ``index``,
    ``exact``, ``hnsw`` or ``auto``. A server's token is read from MILVUS_TOKEN.
    """

    files = (_LOCAL_FILE, _STATE)
    is_transactional = False

    def __init__(self, folder: Path, dimension: int, settings: dict[str, Any], create: bool = False) -> None:
        super().__init__(folder, dimension, settings, create)
        self.collection: str = settings["collection"]
        self._client = _connect(settings["uri"] or str(folder / _LOCAL_FILE), bool(settings["uri"]))
        try:
            self._open(create)
        except InputError:
            self._client.close()
            raise

    def _open(self, create: bool) -> None:
        folder, dimension, settings = self.folder, self.dimension, self.settings
        with self._errors():
            if create:
                self._create(_INDEXES[settings["index"]])
                write_json(folder / _STATE, {"position": "", "changes": 0})
            elif not self._client.has_collection(self.collection):
                raise InputError(f"Milvus has no collection {self.collection}: the index is damaged; {REBUILD}.")
            self._client.load_collection(self.collection)
            fields = self._client.describe_collection(self.collection)["fields"]
        width = next((int(field["params"]["dim"]) for field in fields if field["name"] == "vector"), None)
        if width != dimension:
            raise InputError(f"Collection {self.collection} holds vectors of {width}, the model gives {dimension}.")

    def _create(self, index: str) -> None:
        kinds = _library().DataType
        schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("key", kinds.INT64, is_primary=True)
        schema.add_field("document", kinds.VARCHAR, max_length=512)
        schema.add_field("number", kinds.INT64)
        schema.add_field("text", kinds.VARCHAR, max_length=_LONGEST_TEXT)
        schema.add_field("metadata", kinds.JSON)
        schema.add_field("vector", kinds.FLOAT_VECTOR, dim=self.dimension)
        parameters = {"M": 32, "efConstruction": 200} if index == "HNSW" else {}
        indexes = self._client.prepare_index_params()
        indexes.add_index("vector", index_type=index, metric_type="IP", params=parameters)
        if self._client.has_collection(self.collection):
            raise InputError(f"Milvus has a collection {self.collection} already: name another.")
        self._client.create_collection(self.collection, schema=schema, index_params=indexes, consistency_level="Strong")

    @override
    @classmethod
    def check(cls, settings: dict[str, Any]) -> dict[str, Any]:
        _library()
        unknown = set(settings) - {"uri", "collection", "index"}
        kind = settings.get("index", "exact")
        if unknown or kind not in _INDEXES:
            raise InputError(f"A Milvus index is one of {', '.join(_INDEXES)}; found {', '.join(unknown) or kind}.")
        name = settings.get("collection") or f"distilface_{uuid.uuid4().hex[:12]}"
        return {"uri": settings.get("uri"), "collection": name, "index": kind}

    @override
    def add(self, passages: Sequence[Passage], vectors: np.ndarray, documents: Sequence[str], position: str) -> None:
        for passage in passages:
            if len(passage.text.encode()) > _LONGEST_TEXT:
                raise InputError(f"A passage of {passage.document!r} is over {_LONGEST_TEXT} bytes, Milvus's most.")
        rows = [
            {
                "key": _key(passage),
                **vars(passage),
                "metadata": {**passage.metadata, COMPARED: compared(passage.metadata)},
                "vector": vector.tolist(),
            }
            for passage, vector in zip(passages, vectors, strict=True)
        ]
        last = {passage.document: passage.number for passage in passages}
        with self._errors():
            for part in chunked(rows, _AT_ONCE):
                self._client.upsert(self.collection, part)
            # What the documents had before, if that was more passages than they have now.
            for names in chunked(documents, _DELETED_AT_ONCE):
                more = [f"(document == {milvus_literal(name)} and number > {last.get(name, -1)})" for name in names]
                self._client.delete(self.collection, filter=" or ".join(more))
        self.set_position(position, changed=True)

    @override
    def delete(self, documents: Sequence[str], position: str) -> int:
        found = self.known(documents)
        with self._errors():
            for names in chunked(sorted(found), _DELETED_AT_ONCE):
                self._client.delete(self.collection, filter=_named(names))
        self.set_position(position, changed=True)
        return len(found)

    @override
    def position(self) -> str:
        return str(self._state()["position"])

    @override
    def set_position(self, position: str, changed: bool = False) -> None:
        write_json(self.folder / _STATE, {"position": position, "changes": self._state()["changes"] + changed})

    @override
    def version(self) -> str:
        """The number of changes made from here, and of passages, which others may have changed."""
        return f"{self._state()['changes']}-{self.counts().passages}"

    def _state(self) -> dict[str, Any]:
        path = self.folder / _STATE
        try:
            state = read_json(path)
            return {"position": str(state["position"]), "changes": int(state["changes"])}
        except (FileNotFoundError, InputError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} is damaged or missing: {REBUILD}.") from error

    @override
    def known(self, documents: Sequence[str]) -> set[str]:
        parts = chunked(documents, _AT_ONCE)
        found = (row for part in parts for row in self._rows(f"{_named(part)} and number == 0", ["document"]))
        return {row["document"] for row in found}

    @override
    def search(self, vectors: np.ndarray, k: int, conditions: Sequence[Condition] = ()) -> list[list[Scored]]:
        k = min(k, _MOST_HITS)
        with self._errors():
            found = self._client.search(
                self.collection,
                vectors.tolist(),
                filter=milvus_of(conditions, "metadata"),
                limit=k,
                search_params={"params": {"ef": max(96, 2 * k)}} if self.settings["index"] == "hnsw" else {},
            )
        return [[Scored(int(hit["key"]), float(hit["distance"])) for hit in hits] for hits in found]

    @override
    def matching(self, conditions: Sequence[Condition]) -> list[int]:
        return [row["key"] for row in self._rows(milvus_of(conditions, "metadata"), ["key"])]

    @override
    def fetch(self, keys: Sequence[int]) -> dict[int, Passage]:
        rows = self._by_key(keys, ["key", "document", "number", "text", "metadata"])
        return {row["key"]: _passage(row) for row in rows}

    @override
    def texts(self) -> Iterator[tuple[int, str]]:
        return ((row["key"], row["text"]) for row in self._rows("", ["key", "text"]))

    @override
    def sample(self, size: int, seed: int) -> tuple[list[Passage], np.ndarray]:
        keys = np.asarray([row["key"] for row in self._rows("", ["key"])], np.int64)
        rows = self._by_key(np.random.default_rng(seed).choice(keys, min(size, len(keys)), replace=False).tolist())
        vectors = np.asarray([row["vector"] for row in rows], np.float32).reshape(len(rows), self.dimension)
        return [_passage(row) for row in rows], vectors

    @override
    def counts(self) -> Counts:
        with self._errors():
            documents, passages = (
                int(self._client.query(self.collection, where, output_fields=["count(*)"])[0]["count(*)"])
                for where in ("number == 0", "number >= 0")
            )
        return Counts(documents, passages)

    @override
    def finish(self) -> None:
        """Have Milvus write what it holds in memory."""
        with self._errors():
            self._client.flush(self.collection)

    @override
    def close(self) -> None:
        self._client.close()

    @override
    def destroy(self) -> None:
        with self._errors():
            self._client.drop_collection(self.collection)
        self.close()
        for name in self.files:
            remove(self.folder / name)

    def _by_key(self, keys: Sequence[int], fields: list[str] | None = None) -> list[dict[str, Any]]:
        """Rows by key; by default with all their fields."""
        rows: list[dict[str, Any]] = []
        with self._errors():
            for part in chunked(map(int, keys), _AT_ONCE):
                rows += self._client.get(self.collection, ids=part, output_fields=fields)
        return rows

    def _rows(self, where: str, fields: list[str]) -> Iterator[dict[str, Any]]:
        with self._errors():
            found = self._client.query_iterator(self.collection, _AT_ONCE, filter=where, output_fields=fields)
            try:
                while batch := found.next():
                    yield from batch
            finally:
                found.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Milvus's errors as ours, in one line."""
        try:
            yield
        except _library().MilvusException as error:
            raise InputError(f"Milvus: {error.message}") from error


def _connect(uri: str, is_remote: bool) -> Any:
    milvus = _library()
    for name in ("pymilvus", "milvus_lite"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    given: dict[str, Any] = {} if is_remote else {"grpc_options": _PATIENT}
    if is_remote and TOKEN_VARIABLE in os.environ:
        given["token"] = os.environ[TOKEN_VARIABLE]
    try:
        return milvus.MilvusClient(uri, timeout=20, **given)
    except (milvus.MilvusException, ValueError, OSError) as error:
        raise InputError(f"Cannot open Milvus at {uri}: {error}") from error


def _library() -> Any:
    return require("pymilvus", "A Milvus index", "milvus")


def _named(documents: Sequence[str]) -> str:
    return f"document in [{', '.join(map(milvus_literal, documents))}]"


def _key(passage: Passage) -> int:
    digest = hashlib.blake2b(f"{passage.number} {passage.document}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _passage(row: dict[str, Any]) -> Passage:
    metadata = {name: value for name, value in row["metadata"].items() if name != COMPARED}
    return Passage(row["document"], row["number"], row["text"], metadata)
