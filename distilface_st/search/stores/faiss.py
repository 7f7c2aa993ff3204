"""An index in a folder: a catalogue in SQLite, vectors in a flat file, and if wanted a FAISS structure over them."""

from __future__ import annotations

import json
import os
import re
import sqlite3
from contextlib import contextmanager
from itertools import count
from threading import RLock
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from typing_extensions import override

from ...errors import InputError
from ...utils.chunks import chunked
from ...utils.files import sha256
from ..filters import as_number, sql_of
from ..hits import Passage
from .base import REBUILD, Counts, Scored, VectorStore
from .vectors import (
    BLOCK,
    IVF_ROWS,
    KINDS,
    Nearest,
    VectorFile,
    best_of,
    build_structure,
    candidates,
    check_kind,
    load_faiss,
    nearest,
    open_structure,
    structure_dimension,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from ..filters import Condition

_CATALOGUE = "passages.sqlite"
_TABLES = """
CREATE TABLE documents (id TEXT PRIMARY KEY, metadata TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE passages (row INTEGER PRIMARY KEY, document TEXT NOT NULL, number INTEGER NOT NULL, text TEXT NOT NULL);
CREATE INDEX passages_of ON passages (document);
CREATE TABLE blocks (start INTEGER PRIMARY KEY, rows INTEGER NOT NULL, digest TEXT NOT NULL);
CREATE TABLE state (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""
_AT_ONCE = 500  # values bound to one statement

_OWN_FILE = re.compile(r"(vectors-[0-9]+\.f32|structure-[0-9]+\.faiss)")
_WORTH_COMPACTING = 0.25  # share of rows taken out from which on the vectors are written anew
# Candidates of a structure compared exactly, for each hit wanted; signs alone need many (results/search/README.md).
_RESCORED = dict.fromkeys(KINDS, 4) | {"binary": 32}
_FEW = 0.1  # share of rows below which a filter's rows are compared one by one, and no structure is asked
_COMPACTED_AT_ONCE = 65_536


class SqliteStore(VectorStore):
    """Passages in ``passages.sqlite``, each with a row number, its key; a subclass keeps the vectors."""

    files = (_CATALOGUE, f"{_CATALOGUE}-journal")
    is_transactional = True

    def __init__(self, folder: Path, dimension: int, settings: dict[str, Any], create: bool = False) -> None:
        super().__init__(folder, dimension, settings, create)
        self.path = folder / _CATALOGUE
        if not create and not self.path.is_file():
            raise InputError(f"{self.path} is missing: the index is damaged; {REBUILD}.")
        self._connect()
        try:
            if create:
                self._connection.executescript(f"PRAGMA journal_mode = DELETE; BEGIN; {_TABLES} COMMIT;")
            self.position()
        except (sqlite3.DatabaseError, InputError) as error:
            self._connection.close()
            raise InputError(f"{self.path} is damaged or no catalogue of an index ({error}); {REBUILD}.") from error

    def _connect(self) -> None:
        self._process, self._lock = os.getpid(), RLock()
        self._connection = sqlite3.connect(self.path, check_same_thread=False, isolation_level=None, timeout=60)
        self._connection.create_function("as_number", 1, as_number, deterministic=True)

    @contextmanager
    def _catalogue(self) -> Iterator[None]:
        """The connection, for one thread. A forked process opens its own, and never closes its parent's."""
        if self._process != os.getpid():
            self._parents = self._connection
            self._connect()
        with self._lock, self._damage():
            yield

    @contextmanager
    def change(self) -> Iterator[None]:
        """A transaction."""
        with self._catalogue():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _damage(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise InputError(f"{self.path}: {error}.") from error
        except sqlite3.IntegrityError as error:
            raise InputError(f"{self.path}: an id that is there already ({error}).") from error
        except sqlite3.DatabaseError as error:
            raise InputError(f"{self.path} is damaged ({error}); {REBUILD}.") from error

    def read(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        with self._catalogue():
            return self._connection.execute(statement, values).fetchall()

    def write(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run a statement with each row of values, within a change."""
        self._connection.executemany(statement, rows)

    def state(self) -> dict[str, str]:
        """All that :meth:`set_state` kept."""
        return dict(self.read("SELECT name, value FROM state"))

    def set_state(self, **values: str) -> None:
        """Keep values by name, within a change."""
        self.write("INSERT OR REPLACE INTO state VALUES (?, ?)", values.items())

    def remove(self, documents: Iterable[str]) -> int:
        """:meth:`delete` within a change."""
        ids = [(document,) for document in documents]
        self.write("DELETE FROM passages WHERE document = ?", ids)
        before = self._connection.total_changes
        self.write("DELETE FROM documents WHERE id = ?", ids)
        return self._connection.total_changes - before

    @override
    def delete(self, documents: Sequence[str], position: str) -> int:
        with self.change():
            found = self.remove(documents)
            self.changed(position)
        return found

    def changed(self, position: str) -> None:
        """Note, within a change, that passages have changed."""
        self.set_state(position=position, version=str(int(self.version()) + 1))

    @override
    def position(self) -> str:
        return self.state().get("position", "")

    @override
    def set_position(self, position: str) -> None:
        with self.change():
            self.set_state(position=position)

    @override
    def version(self) -> str:
        return self.state().get("version", "0")

    @override
    def known(self, documents: Sequence[str]) -> set[str]:
        found: set[str] = set()
        for part in chunked(documents, _AT_ONCE):
            marks = ", ".join("?" * len(part))
            found |= {row[0] for row in self.read(f"SELECT id FROM documents WHERE id IN ({marks})", part)}
        return found

    @override
    def matching(self, conditions: Sequence[Condition] = ()) -> list[int]:
        """Row numbers of all passages whose documents meet the conditions, ascending."""
        where, values = sql_of(conditions, "documents.metadata")
        join = f"JOIN documents ON documents.id = passages.document WHERE {where}" if where else ""
        return [row[0] for row in self.read(f"SELECT row FROM passages {join} ORDER BY row", values)]

    @override
    def fetch(self, keys: Sequence[int]) -> dict[int, Passage]:
        found = {}
        for part in chunked(keys, _AT_ONCE):
            marks = ", ".join("?" * len(part))
            statement = f"""SELECT row, document, number, text, metadata FROM passages
                JOIN documents ON documents.id = passages.document WHERE row IN ({marks})"""
            for row, document, number, text, metadata in self.read(statement, part):
                found[row] = Passage(document, number, text, json.loads(metadata))
        return found

    @override
    def texts(self, at_once: int = 4096) -> Iterator[tuple[int, str]]:
        last = -1
        while found := self.read("SELECT row, text FROM passages WHERE row > ? ORDER BY row LIMIT ?", (last, at_once)):
            yield from found
            last = found[-1][0]

    @override
    def counts(self) -> Counts:
        ((documents, passages),) = self.read("SELECT (SELECT count(*) FROM documents), (SELECT count(*) FROM passages)")
        return Counts(documents, passages)

    @override
    def verify(self) -> None:
        found = self.read("PRAGMA integrity_check")
        if found != [("ok",)]:
            raise InputError(f"{self.path} is damaged ({found[0][0]}); {REBUILD}.")

    @override
    def close(self) -> None:
        self._connection.close()


class _View(NamedTuple):
    """What a search looks at, opened once: every new mapping of the vectors would fault in all its pages again.

    ``alive`` are the rows of passages that are there, None if none was ever taken out; the structure knows the first
    ``covered`` rows.
    """

    version: tuple[str | None, str | None]
    vectors: np.ndarray
    alive: np.ndarray | None
    structure: Any
    covered: int


class FaissStore(SqliteStore):
    """Passages in ``passages.sqlite``, vectors in ``vectors-N.f32``, a structure in ``structure-N.faiss``.

    The catalogue decides what is there: a change writes vectors behind those it knows, then commits. Killed in
    between, the next change writes over them. Rows that a structure does not know yet are compared exactly. A file is
    noted in the catalogue before it is written, and only files noted there are ever removed.

    Settings: ``index``, one of ``exact`` (compares all), ``hnsw``, ``ivf-pq``, ``int8``, ``binary``. All but the first
    find candidates that are compared exactly after; ``ivf-pq`` compares all while there are fewer than 2,048 passages.
    """

    def __init__(self, folder: Path, dimension: int, settings: dict[str, Any], create: bool = False) -> None:
        if create:
            check_kind(settings["index"], dimension)
        super().__init__(folder, dimension, settings, create)
        if create:
            path = self._new_file("vectors-{}.f32", 0)
            with self.change():
                self.set_state(vectors=path.name)
        self._view: _View | None = None
        self._vectors(self.state())

    @override
    @classmethod
    def check(cls, settings: dict[str, Any]) -> dict[str, Any]:
        load_faiss()
        unknown = set(settings) - {"index"}
        kind = settings.get("index", "exact")
        if unknown or kind not in KINDS:
            raise InputError(f"A FAISS index is one of {', '.join(KINDS)}; found {', '.join(unknown) or kind}.")
        return {"index": kind}

    def _inside(self, name: str) -> Path:
        """The path of a file that the catalogue names; a damaged one may name anything."""
        if not _OWN_FILE.fullmatch(name):
            raise InputError(f"{self.path} names a file {name!r}: the index is damaged.")
        return self.folder / name

    def _vector_file(self, state: dict[str, str]) -> VectorFile:
        return VectorFile(self._inside(state.get("vectors", "")), self.dimension)

    def _vectors(self, state: dict[str, str]) -> np.ndarray:
        """All rows ever given, those of passages taken out included."""
        return self._vector_file(state).rows(int(state.get("rows", "0")))

    @override
    def add(self, passages: Sequence[Passage], vectors: np.ndarray, documents: Sequence[str], position: str) -> None:
        with self.change():
            state = self.state()
            start = int(state.get("rows", "0"))
            self.remove(sorted(self.known(documents)))
            metadata = {passage.document: json.dumps(passage.metadata, ensure_ascii=False) for passage in passages}
            self.write("INSERT INTO documents VALUES (?, ?)", metadata.items())
            rows = [(row, one.document, one.number, one.text) for row, one in enumerate(passages, start)]
            self.write("INSERT INTO passages VALUES (?, ?, ?, ?)", rows)
            if len(vectors):
                digest = self._vector_file(state).write(start, vectors)
                self.write("INSERT INTO blocks VALUES (?, ?, ?)", [(start, len(vectors), digest)])
            self.set_state(rows=str(start + len(vectors)))
            self.changed(position)

    @override
    def search(self, vectors: np.ndarray, k: int, conditions: Sequence[Condition] = ()) -> list[list[Scored]]:
        view = self._current_view()
        rows = np.asarray(self.matching(conditions), np.int64) if conditions else view.alive
        if view.structure is None or (rows is not None and len(rows) < _FEW * len(view.vectors)):
            found = nearest(view.vectors, vectors, k, rows)
        else:
            found = self._through_structure(view, vectors, k, rows)
        return [
            [Scored(row, score) for row, score in zip(own, scores, strict=True) if row >= 0]
            for own, scores in zip(found.rows.tolist(), found.similarities.tolist(), strict=True)
        ]

    def _through_structure(self, view: _View, vectors: np.ndarray, k: int, rows: np.ndarray | None) -> Nearest:
        """A structure's candidates compared exactly, and with them the rows that it does not know."""
        allowed = None
        if rows is not None:
            allowed = np.zeros(view.covered, bool)
            allowed[rows[rows < view.covered]] = True
        wanted = _RESCORED[self.settings["index"]] * k
        likely = candidates(view.structure, vectors, min(wanted, view.covered), allowed)
        similarities = np.empty(likely.shape, np.float32)
        at_once = max(1, BLOCK // likely.shape[1])
        for start in range(0, len(vectors), at_once):
            part = slice(start, start + at_once)
            compared = view.vectors[np.maximum(likely[part], 0)]
            similarities[part] = np.einsum("qkd,qd->qk", compared, vectors[part])
        similarities[likely < 0] = -np.inf
        later = np.arange(view.covered, len(view.vectors)) if rows is None else rows[rows >= view.covered]
        return best_of([Nearest(likely, similarities), nearest(view.vectors, vectors, k, later)], k)

    def _current_view(self) -> _View:
        state = self.state()
        version = (state.get("version"), state.get("structure"))
        if self._view is None or self._view.version != version:
            vectors = self._vectors(state)
            alive = np.asarray(self.matching(), np.int64) if self.counts().passages < len(vectors) else None
            known = _structure(state)
            structure = self._open_structure(known) if known["rows"] else None
            self._view = _View(version, vectors, alive, structure, known["rows"])
        return self._view

    def _open_structure(self, known: dict[str, Any]) -> Any:
        path = self._inside(known["file"])
        if not path.is_file() or path.stat().st_size != known["bytes"]:
            raise InputError(f"{path} is missing or cut short: {REBUILD}.")
        kind = self.settings["index"]
        index = open_structure(kind, path)
        if index.ntotal != known["rows"] or index.d != structure_dimension(kind, self.dimension):
            raise InputError(f"{path} is not this index's: {REBUILD}.")
        return index

    @override
    def sample(self, size: int, seed: int) -> tuple[list[Passage], np.ndarray]:
        rows = np.asarray(self.matching(), np.int64)
        chosen = np.sort(np.random.default_rng(seed).choice(rows, min(size, len(rows)), replace=False))
        found = self.fetch(chosen.tolist())
        return [found[row] for row in chosen.tolist()], np.array(self._vectors(self.state())[chosen])

    @override
    def finish(self) -> None:
        """Drop the vectors of what was taken out, if many, and build the structure, if one is wanted."""
        alive = self.counts().passages
        rows = int(self.state().get("rows", "0"))
        if rows - alive > _WORTH_COMPACTING * max(1, rows):
            self._compact()
        state = self.state()
        kind, rows = self.settings["index"], int(state.get("rows", "0"))
        is_wanted = kind != "exact" and (kind != "ivf-pq" or rows >= IVF_ROWS)
        if is_wanted and alive and _structure(state)["rows"] < rows:
            path = self._new_file("structure-{}.faiss", int(self.version()))
            vectors = self._vectors(state)
            build_structure(kind, vectors, path)
            record = {"file": path.name, "rows": len(vectors), "bytes": path.stat().st_size, "sha256": sha256(path)}
            with self.change():
                self.set_state(structure=json.dumps(record))
        state = self.state()
        for name in _noted(state) - _current(state):
            self._inside(name).unlink(missing_ok=True)
        with self.change():
            self.set_state(files=json.dumps(sorted(_current(state))))

    def _compact(self) -> None:
        state = self.state()
        stored, kept = self._vectors(state), self.matching()
        # Never an earlier number: another process may have the file of that name mapped, and would not see the change.
        number = int(re.findall(r"[0-9]+", state["vectors"])[0]) + 1
        target = VectorFile(self._new_file("vectors-{}.f32", number), self.dimension)
        with self.change():
            self.write("DELETE FROM blocks", [()])
            for start in range(0, len(kept), _COMPACTED_AT_ONCE):
                part = kept[start : start + _COMPACTED_AT_ONCE]
                digest = target.write(start, stored[part])
                self.write("INSERT INTO blocks VALUES (?, ?, ?)", [(start, len(part), digest)])
            moved = [(new, old) for new, old in enumerate(kept) if new != old]
            self.write("UPDATE passages SET row = ? WHERE row = ?", moved)
            self.set_state(vectors=target.path.name, rows=str(len(kept)), structure="")
            self.changed(self.position())

    def _new_file(self, pattern: str, first: int) -> Path:
        """A file that is not there yet, noted before it is written: a kill leaves nothing that is not known."""
        path = next(path for number in count(first) if not (path := self.folder / pattern.format(number)).exists())
        with self.change():
            state = self.state()
            self.set_state(files=json.dumps(sorted({*_noted(state), *_current(state), path.name})))
        return path

    @override
    def verify(self) -> None:
        super().verify()
        state = self.state()
        stored = self._vectors(state)
        for start, rows, digest in self.read("SELECT start, rows, digest FROM blocks ORDER BY start"):
            if VectorFile.digest(np.asarray(stored[start : start + rows])) != digest:
                raise InputError(f"{self.folder / state['vectors']} is damaged: {REBUILD}.")
        known = _structure(state)
        if known["rows"]:
            self._open_structure(known)
            if sha256(path := self._inside(known["file"])) != known["sha256"]:
                raise InputError(f"{path} is damaged: {REBUILD}.")

    @override
    def close(self) -> None:
        self._view = None
        super().close()

    @override
    def destroy(self) -> None:
        state = self.state()
        self.close()
        for name in (*sorted(_noted(state) | _current(state)), *self.files):
            (self.folder / name if name in self.files else self._inside(name)).unlink(missing_ok=True)


def _structure(state: dict[str, str]) -> dict[str, Any]:
    """The structure's ``file``, ``rows``, ``bytes`` and ``sha256``; without one, ``rows`` is 0."""
    known: dict[str, Any] = json.loads(state.get("structure") or '{"rows": 0}')
    return known


def _noted(state: dict[str, str]) -> set[str]:
    """Files that were begun and not removed since."""
    return set(json.loads(state.get("files") or "[]"))


def _current(state: dict[str, str]) -> set[str]:
    """Files that hold what is searched."""
    return {name for name in (state.get("vectors"), _structure(state).get("file")) if name}
