"""Unlabelled sentences, for training on dropout views."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import InputError
from .columns import Block, Columns
from .readers import read_blocks
from .sources import find_source
from .text_data import Cleaned, Recipe, TextData, text_data

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator
    from pathlib import Path

TEXT_COLUMNS = (("text",), ("sentence",))
"""The column read where none is named: ``text``, else ``sentence``, else the only one."""


def load_sentences(
    source: str | os.PathLike[str],
    *,
    column: str | None = None,
    deduplicate: bool = True,
    cache_dir: Path | None = None,
    limit: int | None = None,
) -> TextData:
    """Load unlabelled sentences, one a line or record.

    White space around a sentence is dropped, inside it nothing is changed. Blank sentences are dropped, and of equal
    ones all but the first. Text is streamed to a cache on disk and memory-mapped from there, so memory grows by 8 bytes
    a different sentence while loading, and by nothing after.

    Args:
        source: A .txt file (one sentence a line), a .jsonl, .csv or .tsv file (the latter two with a header), each also
            gzipped (.gz), a .parquet file, a folder of those, or a Hub dataset such as
            ``princeton-nlp/datasets-for-simcse`` (Wiki1M). Text is UTF-8.
        column: Field or column that holds the sentences; by default ``text``, else ``sentence``, else the only one.
        deduplicate: Whether to drop sentences that occurred before.
        cache_dir: Where cleaned text is kept; by default ``distilface`` in the cache folder of ``datasets``.
        limit: Read this many lines or records at most.

    Returns:
        The sentences, in the column ``sentence``, and what was dropped.

    Raises:
        InputError: If the source is missing, malformed (reported with file and line) or empty once cleaned.
    """
    check_limit(limit)
    found = find_source(source)
    columns = Columns(TEXT_COLUMNS, None if column is None else (column,))
    recipe = Recipe("sentences", {"column": column, "limit": limit}, ("sentence",), deduplicate)
    blocks = (_clean(block) for block in first_records(read_blocks(found, columns), limit))
    return text_data(found, recipe, blocks, cache_dir)


def _clean(block: Block) -> Cleaned:
    (texts,) = block
    kept = [text for text in map(str.strip, texts) if text]
    return Cleaned([kept], read=len(texts), blank=len(texts) - len(kept))


def check_limit(limit: int | None) -> None:
    """Raise InputError if ``limit`` is less than one."""
    if limit is not None and limit < 1:
        raise InputError(f"limit must be 1 or more, found {limit}")


def first_records(blocks: Iterable[Block], limit: int | None) -> Iterator[Block]:
    """The first ``limit`` records; blocks after the one that holds the last of them are not read."""
    left = limit
    for block in blocks:
        if left is None:
            yield block
            continue
        yield [column[:left] for column in block]
        left -= len(block[0])
        if left <= 0:
            return
