"""Unlabelled sentences, for training on dropout views."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .readers import TEXT_COLUMNS, Block, Columns
from .text_data import Cleaned, Recipe, TextData, load_text

if TYPE_CHECKING:
    import os
    from pathlib import Path


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
    a different sentence while loading (for a moment by 20), and by nothing after.

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
    columns = Columns(TEXT_COLUMNS, None if column is None else (column,))
    recipe = Recipe("sentences", {"column": column, "limit": limit}, ("sentence",), deduplicate)
    return load_text(source, columns, recipe, _clean, cache_dir)


def _clean(block: Block) -> Cleaned:
    (texts,) = block
    kept = [text for text in map(str.strip, texts) if text]
    return Cleaned([kept], read=len(texts), blank=len(texts) - len(kept))
