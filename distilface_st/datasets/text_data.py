"""Cleaned text as a memory-mapped dataset: written once to a cache on disk, then opened at no cost."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import datasets
import pyarrow as pa

from ..errors import InputError
from ..utils.files import atomic_folder, write_json
from .deduplication import SeenTexts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .columns import Block
    from .sources import Source

_FORMAT = 1
"""Part of every cache key: raise it when the same text and settings come to give other rows."""


@dataclass(frozen=True)
class TextData:
    """Text ready for training.

    Attributes:
        dataset: Memory-mapped, with the column ``sentence``, or the columns ``anchor`` and ``positive``.
        read: Lines or records read.
        blank: Records dropped as blank, for pairs also where one side is.
        duplicates: Rows dropped as duplicates of earlier ones.
        fingerprint: 64-bit BLAKE2b of the rows in order: equal text gives an equal fingerprint wherever it lies. It is
            ``provenance.text_fingerprint`` of all cells, row by row.
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
    """How rows are made from a source.

    Attributes:
        kind: Names the way; with ``settings`` it tells cache entries of one source apart.
        settings: Everything else that decides the rows, JSON values only.
        columns: Names of the dataset's columns.
        deduplicate: Whether rows that occurred before are dropped.
    """

    kind: str
    settings: dict[str, Any]
    columns: tuple[str, ...]
    deduplicate: bool = True


def text_data(source: Source, recipe: Recipe, blocks: Iterator[Cleaned], cache_dir: Path | None) -> TextData:
    """Open the cached rows of a source, or make them.

    Args:
        source: Where the text comes from. A cache entry is used while its files' paths, sizes and times are unchanged.
        recipe: How the rows are made.
        blocks: The rows; consumed only where no entry is found.
        cache_dir: Folder of the cache; by default ``distilface`` in the cache folder of ``datasets``.

    Returns:
        The rows and their counts, the same from the cache as when made.

    Raises:
        InputError: If nothing is left after cleaning.
    """
    entry = (cache_dir or Path(datasets.config.HF_DATASETS_CACHE) / "distilface") / _key(source, recipe)
    if not (entry / "counts.json").is_file() or not (entry / "rows.arrow").is_file():
        with atomic_folder(entry) as folder:
            counts = _write_rows(blocks, recipe, folder / "rows.arrow")
            if not counts.pop("rows"):
                raise InputError(f"{source.name}: no text to train on; {_story(recipe, counts)}")
            write_json(folder / "counts.json", counts)
    counts = json.loads((entry / "counts.json").read_text(encoding="utf-8"))
    return TextData(datasets.Dataset.from_file(str(entry / "rows.arrow")), **counts, source=source.name)


def _key(source: Source, recipe: Recipe) -> str:
    decisive = [_FORMAT, source.identity(), recipe.kind, recipe.settings, recipe.deduplicate]
    return f"{recipe.kind}-{hashlib.blake2b(json.dumps(decisive).encode(), digest_size=12).hexdigest()}"


def _story(recipe: Recipe, counts: dict[str, Any]) -> str:
    return f"{counts['read']} records read, {counts['blank']} of them blank, no {' and '.join(recipe.columns)} left"


def _write_rows(blocks: Iterator[Cleaned], recipe: Recipe, path: Path) -> dict[str, Any]:
    schema = pa.schema([(name, pa.string()) for name in recipe.columns])
    seen = SeenTexts()
    digest = hashlib.blake2b(digest_size=8)
    read = blank = duplicates = rows = 0
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
        for block in blocks:
            read += block.read
            blank += block.blank
            kept = block.rows
            if recipe.deduplicate:
                kept = _first_ones(kept, seen)
                duplicates += len(block.rows[0]) - len(kept[0])
            if not kept[0]:
                continue
            rows += len(kept[0])
            digest.update("\0".join(_cells(kept)).encode() + b"\0")
            writer.write_batch(pa.record_batch([pa.array(column, pa.string()) for column in kept], schema=schema))
    return {
        "rows": rows,
        "read": read,
        "blank": blank,
        "duplicates": duplicates,
        "fingerprint": digest.hexdigest(),
    }


def _first_ones(rows: Block, seen: SeenTexts) -> Block:
    new = seen.add(rows)
    return rows if new.all() else [list(compress(column, new)) for column in rows]


def _cells(rows: Block) -> Iterator[str]:
    """All cells, row by row."""
    return iter(rows[0]) if len(rows) == 1 else (cell for row in zip(*rows, strict=True) for cell in row)
