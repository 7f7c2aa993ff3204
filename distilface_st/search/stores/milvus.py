"""An index in Milvus: a local file (Milvus Lite) or, by another address, a server or a cluster."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ...errors import InputError, MissingExtraError
from ...utils.files import write_json
from ..filters import milvus_of
from ..hits import Passage
from .base import Counts, Scored, VectorStore

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

    from ..filters import Condition

TOKEN_VARIABLE = "MILVUS_TOKEN"
"""Environment variable with the token of a server; it is never written to the index."""

_STATE = "milvus.json"
_LOCAL_FILE = "milvus.db"
_INDEXES = {"exact": "FLAT", "hnsw": "HNSW", "auto": "AUTOINDEX"}
_AT_ONCE = 512
_LONGEST_TEXT = 65_535
_MOST_HITS = 16_384
_PATIENT = {"grpc.keepalive_time_ms": 360_000}
"""Milvus Lite's server ends a connection that asks more than once in five minutes whether it lives; pymilvus does."""


class MilvusStore(VectorStore):
    """Passages and vectors in one collection.

    A passage's key is made from its document's id and its number, so that work done again after a kill changes
    nothing; how far it had come is in ``milvus.json`` in the index's folder.

    Settings: ``uri``, the server's address, none for Milvus Lite in the index's folder; ``collection``; ``index``,
    ``exact``, ``hnsw`` or ``auto``. A server's token is read from MILVUS_TOKEN.
    """

    kind: ClassVar[str] = "milvus"
    is_transactional: ClassVar[bool] = False

    def __init__(self, folder: Path, dimension: int, settings: dict[str, Any], create: bool = False) -> None:
        super().__init__(folder, dimension, settings, create)
        self.collection: str = settings["collection"]
        self._state_file = folder / _STATE
        self._client = _connect(settings["uri"] or str(folder / _LOCAL_FILE), bool(settings["uri"]))
        with self._errors():
            if create:
                self._create(_INDEXES[settings["index"]])
                write_json(self._state_file, {"position": "", "changes": 0})
            elif not self._client.has_collection(self.collection):
                raise InputError(f"Milvus has no collection {self.collection}: the index is damaged; build it again.")
            self._client.load_collection(self.collection)
            self._check_width()

    @classmethod
    def check(cls, settings: dict[str, Any]) -> dict[str, Any]:
        """``uri``, ``collection`` and ``index`` as given or by default.

        Raises:
            InputError: Another setting or index.
            MissingExtraError: pymilvus is not installed.
        """
        _library()
        unknown = set(settings) - {"uri", "collection", "index"}
        kind = settings.get("index", "exact")
        if unknown or kind not in _INDEXES:
            raise InputError(f"A Milvus index is one of {', '.join(_INDEXES)}; found {', '.join(unknown) or kind}.")
        name = settings.get("collection") or f"distilface_{uuid.uuid4().hex[:12]}"
        return {"uri": settings.get("uri"), "collection": name, "index": kind}

    def add(self, passages: Sequence[Passage], vectors: np.ndarray, documents: Sequence[str], position: str) -> None:
        """Put documents in, in the place of those with the same ids."""
        for passage in passages:
            if len(passage.text.encode()) > _LONGEST_TEXT:
                raise InputError(f"A passage of {passage.document!r} is over {_LONGEST_TEXT} bytes, Milvus's most.")
        kept = {passage.document: passage.number for passage in passages}
        rows = [
            {
                "key": _key(passage.document, passage.number),
                "document": passage.document,
                "number": passage.number,
                "text": passage.text,
                "metadata": passage.metadata,
                "vector": vector.tolist(),
            }
            for passage, vector in zip(passages, vectors, strict=True)
        ]
        with self._errors():
            for start in range(0, len(rows), _AT_ONCE):
                self._client.upsert(self.collection, rows[start : start + _AT_ONCE])
            longer = [(document, kept.get(document, -1)) for document in documents]
            self._delete_where([f"(document == {json.dumps(name)} and number > {last})" for name, last in longer], "or")
        self._note(position, changed=True)

    def delete(self, documents: Sequence[str], position: str) -> int:
        """Take documents out; how many were there."""
        found = self.known(documents)
        with self._errors():
            self._delete_where([json.dumps(name) for name in sorted(found)], "in")
        self._note(position, changed=True)
        return len(found)

    def _delete_where(self, parts: list[str], how: str) -> None:
        for start in range(0, len(parts), 128):
            part = parts[start : start + 128]
            where = f"document in [{', '.join(part)}]" if how == "in" else " or ".join(part)
            self._client.delete(self.collection, filter=where)

    def position(self) -> str:
        """What was given with the last change."""
        return str(self._state()["position"])

    def set_position(self, position: str) -> None:
        """Change the position alone."""
        self._note(position, changed=False)

    def version(self) -> str:
        """The number of changes made from here, and of passages, which others may have changed."""
        return f"{self._state()['changes']}-{self.counts().passages}"

    def known(self, documents: Sequence[str]) -> set[str]:
        """Those of the ids that the store has."""
        found: set[str] = set()
        for start in range(0, len(documents), _AT_ONCE):
            names = ", ".join(json.dumps(name) for name in documents[start : start + _AT_ONCE])
            found |= {row["document"] for row in self._rows(f"document in [{names}] and number == 0", ["document"])}
        return found

    def search(self, vectors: np.ndarray, k: int, conditions: Sequence[Condition] = ()) -> list[list[Scored]]:
        """The passages nearest to each vector."""
        k = min(k, _MOST_HITS)
        with self._errors():
            found = self._client.search(
                self.collection,
                vectors.tolist(),
                filter=milvus_of(list(conditions), "metadata"),
                limit=k,
                search_params={"params": {"ef": max(96, 2 * k)}} if self.settings["index"] == "hnsw" else {},
            )
        return [[(int(hit["key"]), float(hit["distance"])) for hit in hits] for hits in found]

    def matching(self, conditions: Sequence[Condition]) -> Collection[int]:
        """Keys of all passages whose documents meet the conditions."""
        return [row["key"] for row in self._rows(milvus_of(list(conditions), "metadata"), ["key"])]

    def fetch(self, keys: Sequence[int]) -> dict[int, Passage]:
        """Passages by key."""
        fields = ["key", "document", "number", "text", "metadata"]
        found: dict[int, Passage] = {}
        for start in range(0, len(keys), _AT_ONCE):
            with self._errors():
                rows = self._client.get(
                    self.collection, ids=[int(key) for key in keys[start : start + _AT_ONCE]], output_fields=fields
                )
            found |= {row["key"]: _passage(row) for row in rows}
        return found

    def texts(self) -> Iterator[tuple[int, str]]:
        """Key and text of every passage."""
        return ((row["key"], row["text"]) for row in self._rows("", ["key", "text"]))

    def sample(self, size: int, seed: int) -> tuple[list[Passage], np.ndarray]:
        """Some passages at random with their vectors."""
        keys = np.asarray([row["key"] for row in self._rows("", ["key"])], np.int64)
        chosen = np.random.default_rng(seed).choice(keys, min(size, len(keys)), replace=False)
        rows = []
        for start in range(0, len(chosen), _AT_ONCE):
            with self._errors():
                rows += self._client.get(self.collection, ids=chosen[start : start + _AT_ONCE].tolist())
        vectors = np.asarray([row["vector"] for row in rows], np.float32).reshape(len(rows), self.dimension)
        return [_passage(row) for row in rows], vectors

    def counts(self) -> Counts:
        """How much there is."""
        with self._errors():
            ((documents,), (passages,)) = (
                [row["count(*)"] for row in self._client.query(self.collection, where, output_fields=["count(*)"])]
                for where in ("number == 0", "number >= 0")
            )
        return Counts(int(documents), int(passages))

    def finish(self) -> None:
        """Have Milvus write what it holds in memory."""
        with self._errors():
            self._client.flush(self.collection)

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()

    def _rows(self, where: str, fields: list[str]) -> Iterator[dict[str, Any]]:
        with self._errors():
            found = self._client.query_iterator(
                self.collection, batch_size=_AT_ONCE, filter=where, output_fields=fields
            )
            try:
                while batch := found.next():
                    yield from batch
            finally:
                found.close()

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

    def _check_width(self) -> None:
        fields = self._client.describe_collection(self.collection)["fields"]
        width = next((int(field["params"]["dim"]) for field in fields if field["name"] == "vector"), None)
        if width != self.dimension:
            raise InputError(
                f"Collection {self.collection} holds vectors of {width}, the model gives {self.dimension}."
            )

    def _state(self) -> dict[str, Any]:
        try:
            state: dict[str, Any] = json.loads(self._state_file.read_text(encoding="utf-8"))
            return {"position": str(state["position"]), "changes": int(state["changes"])}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{self._state_file} is damaged or missing: build the index again.") from error

    def _note(self, position: str, changed: bool) -> None:
        write_json(self._state_file, {"position": position, "changes": self._state()["changes"] + changed})

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Milvus's errors as ours, in one line."""
        from pymilvus.exceptions import MilvusException

        try:
            yield
        except MilvusException as error:
            raise InputError(f"Milvus: {error.message}") from error


def _connect(uri: str, is_remote: bool) -> Any:
    milvus = _library()
    from pymilvus.exceptions import MilvusException

    for name in ("pymilvus", "milvus_lite"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    given: dict[str, Any] = {} if is_remote else {"grpc_options": _PATIENT}
    if is_remote and TOKEN_VARIABLE in os.environ:
        given["token"] = os.environ[TOKEN_VARIABLE]
    try:
        return milvus.MilvusClient(uri, timeout=20, **given)
    except (MilvusException, ValueError, OSError) as error:
        raise InputError(f"Cannot open Milvus at {uri}: {error}") from error


def _library() -> Any:
    try:
        import pymilvus
    except ImportError as error:
        raise MissingExtraError("A Milvus index", "milvus") from error
    return pymilvus


def _key(document: str, number: int) -> int:
    digest = hashlib.blake2b(f"{number} {document}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _passage(row: dict[str, Any]) -> Passage:
    return Passage(row["document"], row["number"], row["text"], dict(row["metadata"]))
