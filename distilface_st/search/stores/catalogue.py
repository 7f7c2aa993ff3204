"""Passages, documents and their metadata in one SQLite file: the part of a FAISS index that decides what is there."""

from __future__ import annotations

import json
import sqlite3
from contextlib import contextmanager
from threading import RLock
from typing import TYPE_CHECKING, Any

from ...errors import InputError
from ..filters import sql_of
from ..hits import Passage
from .base import Counts

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from ..filters import Condition

_TABLES = """
CREATE TABLE documents (id TEXT PRIMARY KEY, metadata TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE passages (row INTEGER PRIMARY KEY, document TEXT NOT NULL, number INTEGER NOT NULL, text TEXT NOT NULL);
CREATE INDEX passages_of ON passages (document);
CREATE TABLE blocks (start INTEGER PRIMARY KEY, rows INTEGER NOT NULL, digest TEXT NOT NULL);
CREATE TABLE state (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""
_AT_ONCE = 500
"""Values bound to one statement."""


class Catalogue:
    """What is in an index. Row numbers are given once and never again, and name the vectors beside it.

    Args:
        path: The SQLite file.
        create: Make a new one.

    Raises:
        InputError: No such file, or one that is damaged or something else.
    """

    def __init__(self, path: Path, create: bool = False) -> None:
        if not create and not path.is_file():
            raise InputError(f"{path} is missing: the index is damaged; build it again.")
        self.path = path
        self._lock = RLock()
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=60)
        try:
            if create:
                self._connection.executescript(f"PRAGMA journal_mode = DELETE; BEGIN; {_TABLES} COMMIT;")
            self.value("position")
        except (sqlite3.DatabaseError, InputError) as error:
            self.close()
            raise InputError(f"{path} is damaged or no catalogue of an index ({error}); build it again.") from error

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

    def read(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        with self._lock, self._damage():
            return self._connection.execute(statement, values).fetchall()

    def value(self, name: str, default: str = "") -> str:
        """A value that :meth:`set_value` kept."""
        found = self.read("SELECT value FROM state WHERE name = ?", (name,))
        return str(found[0][0]) if found else default

    def values(self) -> dict[str, str]:
        """All that :meth:`set_value` kept, as of one moment."""
        return dict(self.read("SELECT name, value FROM state"))

    def set_value(self, name: str, value: str) -> None:
        """Keep a value, within a change."""
        self._connection.execute("INSERT OR REPLACE INTO state VALUES (?, ?)", (name, value))

    def insert(self, first_row: int, passages: Sequence[Passage]) -> None:
        """Passages and their documents from a row number on, within a change; ids must be new."""
        metadata = {passage.document: passage.metadata for passage in passages}
        self._connection.executemany(
            "INSERT INTO documents VALUES (?, ?)",
            [(document, json.dumps(own, ensure_ascii=False)) for document, own in metadata.items()],
        )
        self._connection.executemany(
            "INSERT INTO passages VALUES (?, ?, ?, ?)",
            [(first_row + i, passage.document, passage.number, passage.text) for i, passage in enumerate(passages)],
        )

    def remove(self, documents: Sequence[str]) -> int:
        """Take documents out, within a change; how many were there."""
        ids = [(document,) for document in documents]
        self._connection.executemany("DELETE FROM passages WHERE document = ?", ids)
        before = self._connection.total_changes
        self._connection.executemany("DELETE FROM documents WHERE id = ?", ids)
        return self._connection.total_changes - before

    def add_block(self, start: int, rows: int, digest: str) -> None:
        """Note the checksum of vectors, within a change."""
        self._connection.execute("INSERT INTO blocks VALUES (?, ?, ?)", (start, rows, digest))

    def clear_blocks(self) -> None:
        """Forget all checksums, within a change."""
        self._connection.execute("DELETE FROM blocks")

    def renumber(self, rows: Sequence[int]) -> None:
        """Give the passages of these rows, ascending, the numbers from 0 on, within a change."""
        changes = [(new, old) for new, old in enumerate(rows) if new != old]
        self._connection.executemany("UPDATE passages SET row = ? WHERE row = ?", changes)

    def known(self, documents: Sequence[str]) -> set[str]:
        """Those of the ids that are there."""
        found: set[str] = set()
        for part in _parts(documents):
            marks = ", ".join("?" * len(part))
            found |= {row[0] for row in self.read(f"SELECT id FROM documents WHERE id IN ({marks})", part)}
        return found

    def rows(self, conditions: Sequence[Condition] = ()) -> list[int]:
        """Row numbers of all passages whose documents meet the conditions, ascending."""
        where, values = sql_of(list(conditions), "documents.metadata")
        if not where:
            return [row[0] for row in self.read("SELECT row FROM passages ORDER BY row")]
        statement = f"""SELECT row FROM passages JOIN documents ON documents.id = passages.document
            WHERE {where} ORDER BY row"""
        return [row[0] for row in self.read(statement, values)]

    def fetch(self, rows: Sequence[int]) -> dict[int, Passage]:
        """Passages by row number."""
        found = {}
        for part in _parts(rows):
            marks = ", ".join("?" * len(part))
            statement = f"""SELECT row, document, number, text, metadata FROM passages
                JOIN documents ON documents.id = passages.document WHERE row IN ({marks})"""
            for row, document, number, text, metadata in self.read(statement, part):
                found[row] = Passage(document, number, text, json.loads(metadata))
        return found

    def texts(self, at_once: int = 4096) -> Iterator[tuple[int, str]]:
        """Row number and text of every passage, ascending."""
        last = -1
        while found := self.read("SELECT row, text FROM passages WHERE row > ? ORDER BY row LIMIT ?", (last, at_once)):
            yield from found
            last = found[-1][0]

    def counts(self) -> Counts:
        """How much there is."""
        ((documents,),) = self.read("SELECT count(*) FROM documents")
        ((passages,),) = self.read("SELECT count(*) FROM passages")
        return Counts(documents, passages)

    def check(self) -> None:
        """Have SQLite check its file.

        Raises:
            InputError: It is damaged.
        """
        found = self.read("PRAGMA integrity_check")
        if found != [("ok",)]:
            raise InputError(f"{self.path} is damaged ({found[0][0]}); build the index again.")

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    @contextmanager
    def _damage(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise InputError(f"{self.path}: {error}.") from error
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.IntegrityError):
                raise InputError(f"{self.path}: an id that is there already ({error}).") from error
            raise InputError(f"{self.path} is damaged ({error}); build the index again.") from error


def _parts(values: Sequence[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(values), _AT_ONCE):
        yield list(values[start : start + _AT_ONCE])
