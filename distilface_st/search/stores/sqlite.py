"""Passages, documents and their metadata in one SQLite file: the part of a FAISS index that decides what is there."""

from __future__ import annotations

import json
import sqlite3
from contextlib import contextmanager
from threading import RLock
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from ...errors import InputError
from ...utils.chunks import chunked
from ..filters import sql_of
from ..hits import Passage
from .base import Counts, VectorStore

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
_AT_ONCE = 500
"""Values bound to one statement."""


class SqliteStore(VectorStore):
    """Passages in ``passages.sqlite``, each with a row number, its key; where the vectors are, a subclass says.

    Raises:
        InputError: No such file, or one that is damaged or something else.
    """

    files = (_CATALOGUE, f"{_CATALOGUE}-journal")
    is_transactional = True

    def __init__(self, folder: Path, dimension: int, settings: dict[str, Any], create: bool = False) -> None:
        super().__init__(folder, dimension, settings, create)
        self.path = folder / _CATALOGUE
        if not create and not self.path.is_file():
            raise InputError(f"{self.path} is missing: the index is damaged; build it again.")
        self._lock = RLock()
        self._connection = sqlite3.connect(self.path, check_same_thread=False, isolation_level=None, timeout=60)
        try:
            if create:
                self._connection.executescript(f"PRAGMA journal_mode = DELETE; BEGIN; {_TABLES} COMMIT;")
            self.position()
        except (sqlite3.DatabaseError, InputError) as error:
            self._connection.close()
            raise InputError(
                f"{self.path} is damaged or no catalogue of an index ({error}); build it again."
            ) from error

    @contextmanager
    def change(self) -> Iterator[None]:
        """A change that is made whole or not at all."""
        with self._lock, self._damage():
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
            raise InputError(f"{self.path} is damaged ({error}); build the index again.") from error

    def read(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        with self._lock, self._damage():
            return self._connection.execute(statement, values).fetchall()

    def write(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run a statement with each row of values, within a change."""
        self._connection.executemany(statement, rows)

    def state(self) -> dict[str, str]:
        """All that :meth:`set_state` kept, as of one moment."""
        return dict(self.read("SELECT name, value FROM state"))

    def set_state(self, **values: str) -> None:
        """Keep values by name, within a change."""
        self.write("INSERT OR REPLACE INTO state VALUES (?, ?)", values.items())

    def insert(self, first_row: int, passages: Sequence[Passage]) -> None:
        """Put in passages and their documents from a row number on, within a change; ids must be new."""
        metadata = {passage.document: json.dumps(passage.metadata, ensure_ascii=False) for passage in passages}
        self.write("INSERT INTO documents VALUES (?, ?)", metadata.items())
        rows = [(row, one.document, one.number, one.text) for row, one in enumerate(passages, first_row)]
        self.write("INSERT INTO passages VALUES (?, ?, ?, ?)", rows)

    def remove(self, documents: Iterable[str]) -> int:
        """Take documents out, within a change; how many were there."""
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
            raise InputError(f"{self.path} is damaged ({found[0][0]}); build the index again.")

    @override
    def close(self) -> None:
        self._connection.close()
