"""An index in a folder: a catalogue in SQLite, vectors in a flat file, and if wanted a FAISS structure over them."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ...errors import InputError
from ...utils.files import atomic_file, sha256
from .approximate import KINDS, build, candidates, open_structure
from .base import Counts, Scored, VectorStore
from .catalogue import Catalogue
from .vectors import VectorFile, load_faiss, nearest

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

    from ..filters import Condition
    from ..hits import Passage

_CATALOGUE = "passages.sqlite"
_OWN_FILE = re.compile(r"(vectors-[0-9]+\.f32|structure-[0-9]+\.faiss)")
_WORTH_COMPACTING = 0.25
"""Share of rows taken out from which on :meth:`FaissStore.finish` writes the vectors anew."""

_RESCORED = 4
"""Candidates of a structure compared exactly, for each hit wanted."""

_FEW = 0.1
"""Share of rows below which a filter's rows are compared one by one, and no structure is asked."""


class FaissStore(VectorStore):
    """Passages in ``passages.sqlite``, vectors in ``vectors-N.f32``, a structure in ``structure-N.faiss``.

    The catalogue decides what is there: a change writes vectors behind those it knows, then commits. Killed in
    between, the next change writes over them. Rows that a structure does not know yet are compared exactly.

    Settings: ``index``, one of ``exact`` (compares all), ``hnsw``, ``ivf-pq``, ``int8``. All but the first find
    candidates that are compared exactly after.
    """

    kind: ClassVar[str] = "faiss"
    is_transactional: ClassVar[bool] = True

    def __init__(self, folder: Path, dimension: int, settings: dict[str, Any], create: bool = False) -> None:
        super().__init__(folder, dimension, settings, create)
        self._catalogue = Catalogue(folder / _CATALOGUE, create)
        if create:
            with self._catalogue.change():
                self._catalogue.set_value("vectors", "vectors-0.f32")
        self._structure: tuple[str, Any] | None = None
        self._mapped: tuple[str, int, np.ndarray] | None = None
        self._alive: tuple[str, np.ndarray | None] | None = None
        self._file.rows(self._rows)

    @classmethod
    def check(cls, settings: dict[str, Any]) -> dict[str, Any]:
        """``index`` as given, or ``exact``.

        Raises:
            InputError: Another setting, or an index that is none of the four.
            MissingExtraError: FAISS is not installed.
        """
        load_faiss()
        unknown = set(settings) - {"index"}
        kind = settings.get("index", "exact")
        if unknown or kind not in KINDS:
            raise InputError(f"A FAISS index is one of {', '.join(KINDS)}; found {', '.join(unknown) or kind}.")
        return {"index": kind}

    @property
    def _file(self) -> VectorFile:
        return VectorFile(self._inside(self._catalogue.value("vectors")), self.dimension)

    def _inside(self, name: str) -> Path:
        """The path of a file that the catalogue names, which may name no other."""
        if not _OWN_FILE.fullmatch(name):
            raise InputError(f"{self.folder / _CATALOGUE} names a file {name!r}: the index is damaged.")
        return self.folder / name

    @property
    def _rows(self) -> int:
        """Rows ever given, those of passages taken out included."""
        return int(self._catalogue.value("rows", "0"))

    def add(self, passages: Sequence[Passage], vectors: np.ndarray, documents: Sequence[str], position: str) -> None:
        """Put documents in, in the place of those with the same ids."""
        with self._catalogue.change():
            start = self._rows
            digest = self._file.write(start, vectors) if len(vectors) else ""
            self._catalogue.remove(sorted(self._catalogue.known(documents)))
            self._catalogue.insert(start, passages)
            if digest:
                self._catalogue.add_block(start, len(vectors), digest)
            self._catalogue.set_value("rows", str(start + len(vectors)))
            self._changed(position)

    def delete(self, documents: Sequence[str], position: str) -> int:
        """Take documents out; how many were there."""
        with self._catalogue.change():
            found = self._catalogue.remove(documents)
            self._changed(position)
        return found

    def _changed(self, position: str) -> None:
        self._catalogue.set_value("position", position)
        self._catalogue.set_value("version", str(int(self.version()) + 1))

    def position(self) -> str:
        """What was given with the last change."""
        return self._catalogue.value("position")

    def set_position(self, position: str) -> None:
        """Change the position alone."""
        with self._catalogue.change():
            self._catalogue.set_value("position", position)

    def version(self) -> str:
        """The number of changes."""
        return self._catalogue.value("version", "0")

    def known(self, documents: Sequence[str]) -> set[str]:
        """Those of the ids that the store has."""
        return self._catalogue.known(documents)

    def search(self, vectors: np.ndarray, k: int, conditions: Sequence[Condition] = ()) -> list[list[Scored]]:
        """The passages nearest to each vector."""
        state = self._catalogue.values()
        total = int(state.get("rows", "0"))
        stored = self._mapped_rows(state.get("vectors", ""), total)
        alive = None if conditions else self._alive_rows(total, state.get("version", "0"))
        rows = np.asarray(self._catalogue.rows(conditions), np.int64) if conditions else alive
        structure, covered = self._open_structure(state.get("structure", ""))
        if structure is None or (rows is not None and len(rows) < _FEW * total):
            found, scores = nearest(stored, vectors, k, rows)
        else:
            found, scores = self._through(structure, covered, stored, vectors, k, rows)
        return [
            [(int(row), float(score)) for row, score in zip(own, values, strict=True) if row >= 0]
            for own, values in zip(found, scores, strict=True)
        ]

    def _through(
        self, structure: Any, covered: int, stored: np.ndarray, vectors: np.ndarray, k: int, rows: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """A structure's candidates compared exactly, and with them the rows that it does not know."""
        bits = None
        if rows is not None:
            allowed = np.zeros(covered, bool)
            allowed[rows[rows < covered]] = True
            bits = np.packbits(allowed, bitorder="little")
        likely = candidates(structure, vectors, min(_RESCORED * k, covered), bits)
        own = np.where(likely < 0, 0, likely)
        similarities = np.einsum("qkd,qd->qk", stored[own], vectors)
        similarities[likely < 0] = -np.inf
        later = np.arange(covered, len(stored)) if rows is None else rows[rows >= covered]
        if len(later):
            exact, scores = nearest(stored, vectors, k, later)
            likely, similarities = np.hstack([likely, exact]), np.hstack([similarities, scores])
        order = np.argsort(-similarities, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(likely, order, 1), np.take_along_axis(similarities, order, 1)

    def _mapped_rows(self, name: str, total: int) -> np.ndarray:
        """The first rows of a file, mapped once: every new mapping would fault in all its pages again."""
        mapped = self._mapped
        if mapped is None or mapped[:2] != (name, total):
            mapped = self._mapped = (name, total, VectorFile(self._inside(name), self.dimension).rows(total))
        return mapped[2]

    def _alive_rows(self, total: int, version: str) -> np.ndarray | None:
        """Rows of passages that are there, None if none was ever taken out."""
        if self._alive is None or self._alive[0] != version:
            some_gone = self.counts().passages < total
            self._alive = (version, np.asarray(self._catalogue.rows(), np.int64) if some_gone else None)
        return self._alive[1]

    def _open_structure(self, record: str) -> tuple[Any, int]:
        """The structure and the rows it covers; None and 0 without."""
        if not record:
            return None, 0
        known = json.loads(record)
        if self._structure is None or self._structure[0] != record:
            path = self._inside(known["file"])
            if not path.is_file() or path.stat().st_size != known["bytes"]:
                raise InputError(f"{path} is missing or cut short: build the index again.")
            index = open_structure(path)
            if index.ntotal != known["rows"] or index.d != self.dimension:
                raise InputError(f"{path} is not this index's: build the index again.")
            self._structure = (record, index)
        return self._structure[1], known["rows"]

    def matching(self, conditions: Sequence[Condition]) -> Collection[int]:
        """Keys of all passages whose documents meet the conditions."""
        return self._catalogue.rows(conditions)

    def fetch(self, keys: Sequence[int]) -> dict[int, Passage]:
        """Passages by key."""
        return self._catalogue.fetch(keys)

    def texts(self) -> Iterator[tuple[int, str]]:
        """Key and text of every passage."""
        return self._catalogue.texts()

    def sample(self, size: int, seed: int) -> tuple[list[Passage], np.ndarray]:
        """Some passages at random with their vectors."""
        rows = np.asarray(self._catalogue.rows(), np.int64)
        chosen = np.sort(np.random.default_rng(seed).choice(rows, min(size, len(rows)), replace=False))
        found = self.fetch(chosen.tolist())
        return [found[row] for row in chosen.tolist()], np.array(self._file.rows(self._rows)[chosen])

    def counts(self) -> Counts:
        """How much there is."""
        return self._catalogue.counts()

    def finish(self) -> None:
        """Drop the vectors of what was taken out, if many, and build the structure, if one is wanted."""
        alive = self.counts().passages
        if self._rows - alive > _WORTH_COMPACTING * max(1, self._rows):
            self._compact()
        covered = json.loads(self._catalogue.value("structure") or '{"rows": 0}')["rows"]
        if self.settings["index"] != "exact" and alive and covered < self._rows:
            self._build_structure()
        self._sweep()

    def _compact(self) -> None:
        old = self._catalogue.rows()
        stored = self._file.rows(self._rows)
        name = f"vectors-{int(self._file.path.stem.split('-')[1]) + 1}.f32"
        target = VectorFile(self.folder / name, self.dimension)
        target.path.unlink(missing_ok=True)
        with self._catalogue.change():
            self._catalogue.clear_blocks()
            for start in range(0, len(old), 65_536):
                part = old[start : start + 65_536]
                self._catalogue.add_block(start, len(part), target.write(start, stored[part]))
            self._catalogue.renumber(old)
            for key, value in (("vectors", name), ("rows", str(len(old))), ("structure", "")):
                self._catalogue.set_value(key, value)
            self._changed(self.position())

    def _build_structure(self) -> None:
        rows = self._rows
        path = self.folder / f"structure-{self.version()}.faiss"
        with atomic_file(path) as temporary:
            build(self.settings["index"], self._file.rows(rows), temporary)
        record = {"file": path.name, "rows": rows, "bytes": path.stat().st_size, "sha256": sha256(path)}
        with self._catalogue.change():
            self._catalogue.set_value("structure", json.dumps(record))

    def _sweep(self) -> None:
        """Remove files that the catalogue no longer names."""
        named = {self._file.path.name, json.loads(self._catalogue.value("structure") or "{}").get("file")}
        for path in [*self.folder.glob("vectors-*.f32"), *self.folder.glob("structure-*.faiss")]:
            if path.name not in named:
                os.unlink(path)

    def verify(self) -> None:
        """Read everything and compare it with its checksums."""
        self._catalogue.check()
        stored = self._file.rows(self._rows)
        for start, rows, digest in self._catalogue.read("SELECT start, rows, digest FROM blocks ORDER BY start"):
            if VectorFile.digest(np.asarray(stored[start : start + rows])) != digest:
                raise InputError(f"{self._file.path} is damaged: build the index again.")
        if record := self._catalogue.value("structure"):
            self._open_structure(record)
            path = self._inside(json.loads(record)["file"])
            if sha256(path) != json.loads(record)["sha256"]:
                raise InputError(f"{path} is damaged: build the index again.")

    def close(self) -> None:
        """Let go of the files."""
        self._structure = self._mapped = None
        self._catalogue.close()
