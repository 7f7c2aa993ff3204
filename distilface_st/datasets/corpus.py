"""A user's own text as documents, with titles where there are some: from one file, or a folder of them."""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import InputError
from .html import html_sections
from .pairs import PAIR_COLUMNS
from .readers import TEXT_COLUMNS, listed, numbered_lines, read_records
from .segmentation import cut_points, joined, split_sentences
from .sources import Source, file_kind, find_source

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

TEXT_FIELDS = (*(name for (name,) in TEXT_COLUMNS), "description", "abstract", "answer", "document")
TITLE_FIELDS = ("title", "heading", "headline", "subject", "summary", "name", "question", "query")
PASSAGE_CHARACTERS = 600
"""About 130 tokens of English: what is trained on and searched for is no longer."""

_PROSE = (".txt", ".md", ".rst", ".html", ".htm")
_FEWEST_LINES = 20
_UNDERLINE = re.compile(r"([=\-~^\"'#*+.:_`])\1{2,}\s*$")
_LETTER = re.compile(r"[^\W\d_]")


class TextDocument(NamedTuple):
    """One document: a title, or ``""``, and its paragraphs."""

    title: str
    paragraphs: tuple[str, ...]


@dataclass(frozen=True)
class Corpus:
    """Documents, and what was left out.

    Attributes:
        documents: The different documents, in the order in which they were read.
        source: What the user gave: a file name, a folder name, or what the texts are called.
        duplicates: Documents whose text had occurred before.
        blank: Documents without a letter.
        skipped: Files of a folder that are no text, by suffix.
    """

    documents: list[TextDocument]
    source: str
    duplicates: int = 0
    blank: int = 0
    skipped: Counter[str] | None = None

    @property
    def titled(self) -> float:
        """The share of documents that have a title."""
        return sum(bool(document.title) for document in self.documents) / max(1, len(self.documents))


def read_corpus(source: str | os.PathLike[str], columns: Sequence[str] = (), limit: int | None = None) -> Corpus:
    """Read documents.

    - .jsonl, .csv, .tsv, .parquet: a record is a document. Its text is the first of ``TEXT_FIELDS`` that is there, its
      title the first of ``TITLE_FIELDS``; of a pair of texts the first is the title.
    - .txt without blank lines: a line is a document without a title, be it a sentence or a paragraph.
    - .html and .htm: a section below a heading is a document, with the heading as its title.
    - .txt, .md and .rst with blank lines between paragraphs: a section below a heading is a document, with the heading
      as its title; where there is no heading, a file of a folder is a document, and of a lone file each paragraph.

    Args:
        source: A file, a folder (with its sub-folders, but for hidden ones), or a Hub dataset.
        columns: The field with the text, or those with title and text.
        limit: Read this many documents at most.

    Raises:
        InputError: Nothing is there, or a file cannot be read (reported with file and line).
    """
    path = Path(source)
    skipped: Counter[str] = Counter()
    if path.is_dir():
        inside = sorted(file for file in path.rglob("*") if file.is_file())
        files = [file for file in inside if not any(part[0] == "." for part in file.relative_to(path).parts)]
        readable = [file for file in files if _kind(file)]
        skipped.update(file.suffix or file.name for file in files if not _kind(file))
        if not readable:
            what = ", ".join(suffix for suffix, _ in skipped.most_common(5)) or "nothing"
            raise InputError(f"{path}: no file here is text that can be read; found: {what}")
        found = Source(path.resolve().name, tuple(readable))
    else:
        found = Source(path.name, (path,)) if path.is_file() and _kind(path) in _PROSE else find_source(source)
    documents = (
        document
        for file in found.files
        for document in (
            _prose(file, is_lone=len(found.files) == 1) if _kind(file) in _PROSE else _records(file, columns)
        )
    )
    return corpus_of(documents, found.name, limit, skipped)


def as_corpus(
    texts: str | os.PathLike[str] | Sequence[str | tuple[str, str]] | Corpus,
    columns: Sequence[str] = (),
    limit: int | None = None,
) -> Corpus:
    """A corpus from whatever holds text: a path, see :func:`read_corpus`; texts or (title, text); or a corpus."""
    if isinstance(texts, Corpus):
        return texts
    return (
        read_corpus(texts, columns, limit) if isinstance(texts, (str, os.PathLike)) else corpus_of(texts, limit=limit)
    )


def corpus_of(
    documents: Iterable[TextDocument | tuple[str, str] | str],
    source: str = "texts",
    limit: int | None = None,
    skipped: Counter[str] | None = None,
) -> Corpus:
    """Documents in memory as a corpus: texts, or (title, text); a line break ends a paragraph."""
    kept: dict[str, TextDocument] = {}
    duplicates = blank = 0
    for given in islice(documents, limit):
        if isinstance(given, str):
            title, paragraphs = "", tuple(given.splitlines())
        else:
            title, paragraphs = given[0], (tuple(given[1].splitlines()) if isinstance(given[1], str) else given[1])
        document = TextDocument(" ".join(title.split()), tuple(filter(None, (" ".join(p.split()) for p in paragraphs))))
        key = "\n".join(document.paragraphs).casefold()
        if not _LETTER.search(key):
            blank += 1
        elif key in kept:
            duplicates += 1
        else:
            kept[key] = document
    return Corpus(list(kept.values()), source, duplicates, blank, skipped)


def passages(document: TextDocument) -> list[str]:
    """The document in passages of at most ``PASSAGE_CHARACTERS``, of whole sentences where these are no longer."""
    found: list[str] = []
    begun = ""
    for paragraph in document.paragraphs:
        whole = len(paragraph) <= PASSAGE_CHARACTERS
        for sentence in [paragraph] if whole else split_sentences(paragraph):
            for piece in _pieces(sentence):
                longer = joined([begun, piece]) if begun else piece
                if len(longer) > PASSAGE_CHARACTERS:
                    found.append(begun)
                    longer = piece
                begun = longer
    return [*found, begun] if begun else found


def _pieces(sentence: str) -> Iterator[str]:
    """The sentence, or where it is too long for a passage in pieces of whole words."""
    if len(sentence) <= PASSAGE_CHARACTERS:
        yield sentence
        return
    parts, joint = cut_points(sentence)
    begun = ""
    for part in parts:
        if begun and len(begun) + len(joint) + len(part) > PASSAGE_CHARACTERS:
            yield begun
            begun = ""
        if len(part) > PASSAGE_CHARACTERS:  # one word
            *whole, part = _pieces(part) if len(parts) > 1 else [part]  # noqa: PLW2901
            yield from whole
        begun = f"{begun}{joint}{part}" if begun else part
    yield begun


def _kind(path: Path) -> str | None:
    suffix = Path(path.name.lower().removesuffix(".gz")).suffix
    return suffix if suffix in _PROSE else file_kind(path)


def _records(path: Path, columns: Sequence[str]) -> Iterator[TextDocument]:
    fields: tuple[str, str] | None = None
    for where, record in read_records(path):
        if fields is None:
            fields = _fields(record, columns, where)
        title, text = (record.get(name) if name else "" for name in fields)
        if fields[1] not in record or not isinstance(text, (str, type(None))):
            raise InputError(f"{where}: no text in field {fields[1]!r}; found: {listed(record)}")
        yield TextDocument(title if isinstance(title, str) else "", tuple((text or "").splitlines()))


def _fields(record: dict[str, Any], columns: Sequence[str], where: str) -> tuple[str, str]:
    """The names of the title's field, or ``""``, and of the text's."""
    for name in columns:
        if name not in record:
            raise InputError(f"{where}: no field {name!r}; found: {listed(record)}")
    if len(columns) == 2:
        return columns[0], columns[1]
    lowered = {name.lower(): name for name in record}
    if not columns:
        for first, second in PAIR_COLUMNS:
            if first in lowered and second in lowered:
                return lowered[first], lowered[second]
    texts = [name for name, value in record.items() if isinstance(value, str)]
    text = columns[0] if columns else next((lowered[name] for name in TEXT_FIELDS if name in lowered), None)
    if text is None:
        if len(texts) != 1:
            raise InputError(f"{where}: name the field that holds the text (--column); found: {listed(record)}")
        text = texts[0]
    return next((lowered[name] for name in TITLE_FIELDS if name in lowered and lowered[name] != text), ""), text


def _prose(path: Path, is_lone: bool) -> Iterator[TextDocument]:
    lines = [line.rstrip() for _, line in numbered_lines(path)]
    if any("\0" in line for line in lines):
        raise InputError(f"{path}: not text (it holds NUL bytes)")
    if file_kind(path) == ".txt" and len(lines) >= _FEWEST_LINES and all(lines):
        yield from (TextDocument("", (line,)) for line in lines)
        return
    is_html = _kind(path) in (".html", ".htm")
    for title, paragraphs in html_sections("\n".join(lines)) if is_html else _sections(lines):
        if is_lone and not title:
            yield from (TextDocument("", (paragraph,)) for paragraph in paragraphs)
        elif paragraphs:
            yield TextDocument(title, tuple(paragraphs))


def _sections(lines: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Headings, Markdown's or underlined ones, each with the paragraphs up to the next; ``""`` before the first."""
    title = ""
    paragraphs: list[str] = []
    block: list[str] = []

    def end_block() -> None:
        if block:
            paragraphs.append(" ".join(map(str.strip, block)))
            block.clear()

    following = [*lines[1:], ""]
    for line, below in zip(lines, following, strict=True):
        if _UNDERLINE.match(line):
            end_block()
        elif re.match(r"#{1,6}\s", line) or (line.strip() and not block and _UNDERLINE.match(below)):
            end_block()
            yield title, paragraphs
            title, paragraphs = line.strip("# \t"), []
        elif line.strip():
            block.append(line)
        else:
            end_block()
    end_block()
    yield title, paragraphs
