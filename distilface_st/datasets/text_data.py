"""Cleaned text as a memory-mapped dataset: written once to a cache on disk, then opened at no cost."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from itertools import chain, compress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import datasets
import numpy as np
import pyarrow as pa
from xxhash import xxh3_64_intdigest

from ..errors import InputError
from ..utils.files import FolderKind, atomic_folder, only_one, read_json, write_json
from .readers import Block, Columns, read_blocks
from .sources import Source, find_source

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

_FORMAT = 2
"""Part of every cache key: raise it when the same text and settings come to give other rows."""

_COUNTS, _ROWS = "counts.json", "rows.arrow"
_ENTRY = FolderKind("a text's cache", _COUNTS, early=frozenset({_ROWS}))


@dataclass(frozen=True)
class TextData:
    """Text ready for training.

    Attributes:
        dataset: Memory-mapped, with the column ``sentence``, or the columns ``anchor`` and ``positive``.
        read: Lines or records read.
        blank: Records dropped as blank, for pairs also where one side is.
        duplicates: Rows dropped as duplicates of earlier ones.
        fingerprint: 64-bit BLAKE2b of the rows in order (``provenance.text_fingerprint`` of all cells, row by row).
        source: What the user gave: a file name, a folder name or a Hub id.
    """

    dataset: datasets.Dataset
    read: int
    blank: int
    duplicates: int
    fingerprint: str
    source: str


class Cleaned(NamedTuple):
    """A block of cleaned rows, and what became of the records it was made from."""

    rows: Block
    read: int
    blank: int


@dataclass(frozen=True)
class Recipe:
    """How rows are made from a source: ``kind``, ``settings`` (JSON values) and ``deduplicate`` decide them."""

    kind: str
    settings: dict[str, Any]
    columns: tuple[str, ...]
    deduplicate: bool = True


def load_text(
    source: str | os.PathLike[str],
    columns: Columns,
    recipe: Recipe,
    clean: Callable[[Block], Cleaned],
    cache_dir: Path | None,
) -> TextData:
    """Read a source, clean it block by block, and keep the rows; ``limit`` in the recipe's settings counts records."""
    limit = recipe.settings["limit"]
    if limit is not None and limit < 1:
        raise InputError(f"limit must be 1 or more, found {limit}")
    found = find_source(source)
    return text_data(found, recipe, map(clean, _first_records(read_blocks(found, columns), limit)), cache_dir)


def text_data(source: Source, recipe: Recipe, blocks: Iterator[Cleaned], cache_dir: Path | None) -> TextData:
    """Open the cached rows of a source while the paths, sizes and times of its files are unchanged, else make them."""
    decisive = [_FORMAT, source.identity(), recipe.kind, recipe.settings, recipe.deduplicate]
    key = hashlib.blake2b(json.dumps(decisive).encode(), digest_size=12).hexdigest()
    entry = (cache_dir or Path(datasets.config.HF_DATASETS_CACHE) / "distilface") / f"{recipe.kind}-{key}"
    if not _is_whole(entry):
        with only_one(entry):
            if not _is_whole(entry):
                _write_entry(entry, source, recipe, blocks)
    counts = read_json(entry / _COUNTS)
    return TextData(datasets.Dataset.from_file(str(entry / _ROWS)), **counts, source=source.name)


def _is_whole(entry: Path) -> bool:
    return (entry / _COUNTS).is_file() and (entry / _ROWS).is_file()


def _write_entry(entry: Path, source: Source, recipe: Recipe, blocks: Iterator[Cleaned]) -> None:
    with atomic_folder(entry, _ENTRY) as folder:
        counts = _write_rows(blocks, recipe, folder / _ROWS)
        if not counts.pop("rows"):
            story = f"{counts['read']} records read, {counts['blank']} of them blank"
            raise InputError(f"{source.name}: no text to train on; {story}, no {' and '.join(recipe.columns)} left")
        write_json(folder / _COUNTS, counts)


def _first_records(blocks: Iterable[Block], limit: int | None) -> Iterator[Block]:
    """The first ``limit`` records; blocks after the one that holds the last of them are not read."""
    read = 0
    for block in blocks:
        yield block if limit is None else [column[: limit - read] for column in block]
        read += len(block[0])
        if limit is not None and read >= limit:
            return


def _write_rows(blocks: Iterator[Cleaned], recipe: Recipe, path: Path) -> dict[str, Any]:
    schema = pa.schema([(name, pa.string()) for name in recipe.columns])
    seen = SeenTexts()
    digest = hashlib.blake2b(digest_size=8)
    counts = dict.fromkeys(("rows", "read", "blank", "duplicates"), 0)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
        for block in blocks:
            kept = block.rows
            if recipe.deduplicate and not (new := seen.add(kept)).all():
                kept = [list(compress(column, new)) for column in kept]
            counts["read"] += block.read
            counts["blank"] += block.blank
            counts["duplicates"] += len(block.rows[0]) - len(kept[0])
            if not kept[0]:
                continue
            counts["rows"] += len(kept[0])
            digest.update("\0".join(chain.from_iterable(zip(*kept, strict=True))).encode() + b"\0")
            writer.write_batch(pa.record_batch([pa.array(column, pa.string()) for column in kept], schema=schema))
    return {**counts, "fingerprint": digest.hexdigest()}


class SeenTexts:
    """A growing set of texts that remembers only their 64-bit hashes (XXH3), in 8 bytes each.

    Two different texts are taken for one with a probability of about n**2 / 2**65: for 10 million texts, 0.0003 %.

    Example:
        >>> seen = SeenTexts()
        >>> seen.add([["a", "b", "a"]]).tolist(), seen.add([["c", "b"]]).tolist(), len(seen)
        ([True, True, False], [True, False], 3)
    """

    def __init__(self) -> None:
        # Two sorted arrays: a merge copies the long one, so it waits until the short one has grown.
        self._long = self._short = np.empty(0, dtype=np.uint64)

    def __len__(self) -> int:
        return len(self._long) + len(self._short)

    def add(self, columns: Sequence[Sequence[str]]) -> NDArray[np.bool_]:
        """Add n records, a list of n strings for each column; shape (n,), True where one occurs for the first time."""
        hashes = list(map(xxh3_64_intdigest, map(str.encode, columns[0])))
        for column in columns[1:]:
            hashes = list(map(xxh3_64_intdigest, map(str.encode, column), hashes))
        distinct, first = np.unique(np.array(hashes, dtype=np.uint64), return_index=True)
        for known in (self._long, self._short):
            at = np.minimum(np.searchsorted(known, distinct), len(known) - 1)
            is_new = known[at] != distinct if len(known) else np.ones(len(distinct), dtype=np.bool_)
            distinct, first = distinct[is_new], first[is_new]
        self._short = _merged(self._short, distinct)
        if len(self._short) > len(self._long) // 8:
            self._long, self._short = _merged(self._long, self._short), self._short[:0]
        new = np.zeros(len(hashes), dtype=np.bool_)
        new[first] = True
        return new


def _merged(first: NDArray[np.uint64], second: NDArray[np.uint64]) -> NDArray[np.uint64]:
    both = np.concatenate([first, second])
    both.sort(kind="stable")  # timsort, which merges two sorted runs in linear time
    return both
