"""Pairs of texts that belong together: sentences that stand next to each other, or two columns as given."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from ..errors import InputError
from .readers import TEXT_COLUMNS, Block, Columns
from .segmentation import count_words, split_sentences
from .text_data import Cleaned, Recipe, TextData, load_text

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator
    from pathlib import Path

PAIR_COLUMNS = (
    ("anchor", "positive"),
    ("sentence1", "sentence2"),
    ("sentence_1", "sentence_2"),
    ("text1", "text2"),
    ("query", "positive"),
    ("query", "answer"),
    ("question", "answer"),
)
"""The columns paired where none are named, first choice first."""

_COLUMNS = ("anchor", "positive")


def load_neighbours(
    source: str | os.PathLike[str],
    *,
    column: str | None = None,
    cache_dir: Path | None = None,
    limit: int | None = None,
) -> TextData:
    """Load documents, and pair each sentence with the one that follows it.

    Neighbouring sentences as positives need no labels and no second view of one sentence (Giorgi et al. 2021, DeCLUTR;
    Izacard et al. 2022, Contriever, whose pairs are spans of one document). A line break inside a field ends a
    paragraph, and no pair crosses one; a line of a .txt file is a paragraph of its own. Sentences are found by
    :func:`~distilface_st.datasets.segmentation.split_sentences`. One of fewer than three words (in scripts
    without spaces: six letters) is paired with nothing.

    Args:
        source: As for :func:`~distilface_st.datasets.sentences.load_sentences`, a document a line or record.
        column: Field or column that holds the documents; by default ``text``, else ``sentence``, else the only one.
        cache_dir: Where the pairs are kept; by default ``distilface`` in the cache folder of ``datasets``.
        limit: Read this many documents at most.

    Returns:
        The pairs, in the columns ``anchor`` and ``positive``, in the order of the text. ``read`` and ``blank`` count
        documents, ``duplicates`` pairs.

    Raises:
        InputError: If the source is missing, malformed (reported with file and line) or gives no pair.
    """
    columns = Columns(TEXT_COLUMNS, None if column is None else (column,))
    recipe = Recipe("neighbours", {"column": column, "limit": limit}, _COLUMNS)
    return load_text(source, columns, recipe, _neighbours_of, cache_dir)


def neighbouring_sentences(document: str) -> Iterator[tuple[str, str]]:
    r"""Each two sentences of three words or more that follow each other in a paragraph.

    Example:
        >>> list(neighbouring_sentences("It rained all day. We stayed at home. Why?\nIt was cold outside."))
        [('It rained all day.', 'We stayed at home.')]
    """
    for paragraph in document.split("\n"):
        for first, second in pairwise(split_sentences(paragraph)):
            if count_words(first) >= 3 and count_words(second) >= 3:
                yield first, second


def _neighbours_of(block: Block) -> Cleaned:
    (documents,) = block
    pairs = [pair for document in documents for pair in neighbouring_sentences(document)]
    return Cleaned(_columns_of(pairs), read=len(documents), blank=sum(not document.strip() for document in documents))


def load_pairs(
    source: str | os.PathLike[str],
    *,
    columns: tuple[str, str] | None = None,
    cache_dir: Path | None = None,
    limit: int | None = None,
) -> TextData:
    """Load pairs of texts from two columns.

    White space around a text is dropped, inside it nothing is changed. Pairs with a blank side are dropped, and of
    equal pairs all but the first.

    Args:
        source: A .tsv, .csv or .jsonl file, each also gzipped (.gz), a .parquet file, a folder of those, or a Hub
            dataset. A .tsv file of two columns is taken to have no header, unless ``columns`` are given or its first
            line holds names looked for; all other files name their columns.
        columns: The two columns; by default the first of ``PAIR_COLUMNS`` that is there, else the only two.
        cache_dir: Where the pairs are kept; by default ``distilface`` in the cache folder of ``datasets``.
        limit: Read this many lines or records at most.

    Returns:
        The pairs, in the columns ``anchor`` and ``positive``, and what was dropped.

    Raises:
        InputError: As :func:`load_neighbours`, or both columns are the same.
    """
    if columns is not None and columns[0] == columns[1]:
        raise InputError(f"two different columns are needed to make pairs, found {columns[0]!r} twice")
    recipe = Recipe("pairs", {"columns": columns, "limit": limit}, _COLUMNS)
    return load_text(source, Columns(PAIR_COLUMNS, columns), recipe, _clean, cache_dir)


def _clean(block: Block) -> Cleaned:
    anchors, positives = block
    stripped = zip(map(str.strip, anchors), map(str.strip, positives), strict=True)
    pairs = [pair for pair in stripped if all(pair)]
    return Cleaned(_columns_of(pairs), read=len(anchors), blank=len(anchors) - len(pairs))


def _columns_of(pairs: list[tuple[str, str]]) -> Block:
    return [[first for first, _ in pairs], [second for _, second in pairs]]
