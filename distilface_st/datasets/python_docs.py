"""Real text that is on every machine with Python: documentation of the standard library and of installed packages.

Docstrings are read from source files with :mod:`ast`; no module is imported for them. Each documented object gives a
summary line and a body: a pair that says the same thing twice, written by people, without any labelling. Half of
the standard library's modules are held out, to see whether what was learned carries over to text about other things.
"""

from __future__ import annotations

import ast
import gc
import hashlib
import importlib.util
import inspect
import re
import sys
import sysconfig
import warnings
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from .pairs import neighbouring_sentences
from .segmentation import split_sentences

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

PACKAGES = ("PIL", "click", "datasets", "fsspec", "huggingface_hub", "jinja2", "joblib", "rich")
"""Packages whose docstrings are read where they are installed; most come with this package's dependencies.

No scientific ones (numpy, ...): with their text, what was learned carried over less (see results/quickstart)."""

_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
_BODY_CHARACTERS = 600
_SUMMARY_WORDS = (3, 40)
_BODY_WORDS = 6
_SHARED_WORDS = 4
_SKIPPED_FOLDERS = frozenset(
    {"test", "tests", "testing", "site-packages", "dist-packages", "_vendor", "externals", "__pycache__"}
    | {"lib2to3", "idlelib", "turtledemo", "ensurepip"}
)

# What marks text up in docstrings: roles, literals, emphasis, fields, directives, rules and signatures.
_ROLE = re.compile(r":[a-z][\w:+-]*:(?=`)")
_LITERAL = re.compile(r"`+[~!]?([^`]+?)(?:\s+<[^`<>]*>)?`+_*")
_EMPHASIS = re.compile(r"(?<![\w*])\*{1,2}(?=[^\s*])([^*]+?)(?<=[^\s*])\*{1,2}(?![\w*])")
_FIELD = re.compile(r"(?<!\S):(?:(?:param|parameter|arg|type|keyword|var|ivar|cvar|raises?)\s+)?([^:`]+):(?=\s)")
_DIRECTIVE = re.compile(r"\.\.\s+(?:[\w:-]+::.*|\[.*|_.*:.*|\|.*)$|:\w+-[\w-]+:|>\s*\[!\w+\]$")
_RULE = re.compile(r"([-=~*^_#+\"'.])\1{2,}$|[=\s]+$")
_SIGNATURE = re.compile(r"[\w.]+\([^()]*\)(\s*->.*)?[:.]?$")
_WORD = re.compile(r"[^\W_]+")
_HEADINGS = frozenset(
    {"parameters", "returns", "return", "yields", "raises", "args", "arguments", "attributes", "notes", "note"}
    | {"examples", "example", "usage", "warnings", "warning", "methods", "properties", "other parameters", "warns"}
)
# What follows these is code or literature.
_LAST_HEADINGS = frozenset({"references", "see also", "examples", "example", "bibliography"})


class DocEntry(NamedTuple):
    """What one documented object says of itself: the first sentence, and at most 600 characters of the rest.

    ``name`` is dotted, such as ``shutil.copytree``; objects of one ``module``, a top-level one, are held out together.
    """

    name: str
    module: str
    summary: str
    body: str


@dataclass(frozen=True)
class PythonDocs:
    """The text gathered, split by module.

    Attributes:
        train: Entries with a summary and a body, of modules that are not held out.
        test: The same, of held-out modules; no sentence of theirs occurs in ``train`` or ``texts``.
        entries: Every entry, held out or not, with or without a body.
        counts: Documented objects by source: ``stdlib``, ``topics`` and each package found.
        texts: The whole text of each object that is not held out, a paragraph a line.
    """

    train: list[DocEntry]
    test: list[DocEntry]
    entries: list[DocEntry]
    counts: dict[str, int]
    texts: list[str] = field(default_factory=list)

    @cached_property
    def neighbours(self) -> list[tuple[str, str]]:
        """Pairs of sentences that stand next to each other in one paragraph of ``texts``."""
        return list(dict.fromkeys(pair for text in self.texts for pair in neighbouring_sentences(text)))


class _Document(NamedTuple):
    name: str
    module: str
    paragraphs: list[str]


def gather_python_docs(packages: Sequence[str] = PACKAGES, *, held_out: Sequence[int] = (0, 1, 2)) -> PythonDocs:
    """Gather documentation from this machine's Python and split it by module.

    A standard-library module falls into one of six parts by a hash of its name; an implementation such as
    ``_pydecimal`` falls with its public module. The parts ``held_out`` make the test entries; packages (those
    that are not installed are skipped) and language topics are never held out. The result, deduplicated by summary
    and by body, depends on nothing but the installed versions.
    """

    def is_held_out(document: _Document) -> bool:
        part = hashlib.blake2b(document.module.encode(), digest_size=8).digest()[0] % 6
        return document.module in sys.stdlib_module_names and part in held_out

    sources = _read_all(packages)
    every = [document for documents in sources.values() for document in documents]
    test = _distinct_pairs(map(_entry, filter(is_held_out, every)))
    held_out_text = _SentenceIndex(text for entry in test for text in (entry.summary, *split_sentences(entry.body)))
    seen = [
        document
        for document in every
        if not is_held_out(document) and not any(map(held_out_text.occurs_in, document.paragraphs))
    ]
    return PythonDocs(
        train=_distinct_pairs(map(_entry, seen)),
        test=test,
        entries=_distinct_summaries(map(_entry, every)),
        counts={source: len(documents) for source, documents in sources.items()},
        texts=["\n".join(document.paragraphs) for document in seen],
    )


def python_sentences(count: int) -> list[str]:
    """At most ``count`` sentences that every machine has: an even sample of the standard library's docstrings."""
    documents = [document for source in _read_all(()).values() for document in source]
    sentences = [entry.summary for entry in _distinct_summaries(map(_entry, documents))]
    return sentences[:: max(1, len(sentences) // count)][:count]


def _read_all(packages: Sequence[str]) -> dict[str, list[_Document]]:
    """What the standard library, the language's topics and the packages that are installed say, by source."""
    from pydoc_data.topics import topics  # the language reference that comes with help()

    documents = {"stdlib": _standard_library(), "topics": []}
    for topic, text in sorted(topics.items()):
        module = "pdb" if topic == "debugger" else "topics"
        documents["topics"].append(_Document(f"topics.{topic}", module, paragraphs_of(text)))
    for package in packages:
        spec = importlib.util.find_spec(package)  # imports nothing, since the name is a top-level one
        if spec is not None and spec.origin is not None and spec.origin.endswith("__init__.py"):
            folder = Path(spec.origin).parent
            if files := _source_files(folder, folder.parent):
                documents[package] = _documents(files)
    return documents


@cache
def _standard_library() -> list[_Document]:
    root = Path(sysconfig.get_paths()["stdlib"])
    files = _source_files(root, root)
    return _documents([(name, path) for name, path in files if name.split(".")[0] in sys.stdlib_module_names])


def _source_files(folder: Path, root: Path) -> list[tuple[str, Path]]:
    """The Python files in a folder, each with its dotted name as seen from ``root``."""
    files = []
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if not _SKIPPED_FOLDERS.intersection(parts):
            files.append((".".join(parts).removesuffix(".__init__"), path))
    return files


def _documents(files: list[tuple[str, Path]]) -> list[_Document]:
    documents = []
    was_enabled = gc.isenabled()
    gc.disable()  # syntax trees hold no cycles, and looking for some takes as long as parsing
    try:
        for name, path in files:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    tree = ast.parse(path.read_bytes())
            except (SyntaxError, ValueError, OSError):
                continue
            module, dot, rest = name.partition(".")
            for public in (module.removeprefix("_py"), module.removeprefix("_")):
                if public != module and public in sys.stdlib_module_names:
                    module = public  # _pydecimal implements decimal, and is held out with it
                    break
            for qualified, docstring in _docstrings(tree, f"{module}{dot}{rest}"):
                if paragraphs := paragraphs_of(docstring):
                    documents.append(_Document(qualified, module, paragraphs))
    finally:
        if was_enabled:
            gc.enable()
    return documents


def _docstrings(node: ast.AST, name: str) -> Iterator[tuple[str, str]]:
    """Dotted names and docstrings of a module and of the classes and functions in it, however nested, in order."""
    if isinstance(node, _DOCUMENTED) and (docstring := ast.get_docstring(node)):
        yield name, docstring
    for child in ast.iter_child_nodes(node):
        if isinstance(child, _DOCUMENTED):
            yield from _docstrings(child, f"{name}.{getattr(child, 'name', '')}")
        elif isinstance(child, ast.If | ast.Try | ast.With):
            yield from _docstrings(child, name)


def _entry(document: _Document) -> DocEntry:
    first, *rest = document.paragraphs
    summary, *more = split_sentences(first)
    body = " ".join([*more, *rest])
    if len(body) > _BODY_CHARACTERS:
        body = body[:_BODY_CHARACTERS].rpartition(" ")[0]
    return DocEntry(document.name, document.module, summary, body)


def _distinct_pairs(entries: Iterable[DocEntry]) -> list[DocEntry]:
    """Entries with a summary and a body, neither of them seen before, letter case and punctuation aside."""
    kept, seen = [], set[tuple[str, ...]]()
    fewest, most = _SUMMARY_WORDS
    for entry in entries:
        summary, body = words_of(entry.summary), words_of(entry.body)
        if fewest <= len(summary) <= most and len(body) >= _BODY_WORDS:
            keys = {summary, body[:30]}
            if seen.isdisjoint(keys):
                kept.append(entry)
            seen |= keys
    return kept


def _distinct_summaries(entries: Iterable[DocEntry]) -> list[DocEntry]:
    first = {words_of(entry.summary): entry for entry in reversed(list(entries))}
    return [entry for entry in reversed(first.values()) if len(words_of(entry.summary)) >= _SUMMARY_WORDS[0]]


class _SentenceIndex:
    """Sentences of four words or more (shorter ones give nothing away), to be found word by word in longer texts."""

    def __init__(self, sentences: Iterable[str]) -> None:
        self._by_start: dict[tuple[str, ...], set[tuple[str, ...]]] = defaultdict(set)
        for words in map(words_of, sentences):
            if len(words) >= _SHARED_WORDS:
                self._by_start[words[:_SHARED_WORDS]].add(words)

    def occurs_in(self, text: str) -> bool:
        words = words_of(text)
        return any(
            words[start : start + len(sentence)] == sentence
            for start in range(len(words))
            for sentence in self._by_start.get(words[start : start + _SHARED_WORDS], ())
        )


def paragraphs_of(docstring: str) -> list[str]:
    r"""The docstring's text as one string a paragraph, without markup, doctests, section headings and rules.

    Example:
        >>> paragraphs_of("Do it.\n\nTakes a :class:`list`.\n\n>>> do()\n1\n\nReferences\n----------\nKnuth")
        ['Do it.', 'Takes a list.']
    """
    paragraphs: list[str] = []
    for block in re.split(r"\n\s*\n", inspect.cleandoc(docstring)):
        lines = [line.strip() for line in block.splitlines()]
        if lines and lines[0].rstrip(":").lower() in _LAST_HEADINGS and paragraphs:
            break
        text = _ROLE.sub("", " ".join(_text_lines(lines)))
        text = _EMPHASIS.sub(r"\1", _LITERAL.sub(r"\1", text))
        text = _FIELD.sub(r"\1:", text).replace("::", ":").replace("\\", "")
        if text := " ".join(text.split()):
            paragraphs.append(text)
    return paragraphs


def _text_lines(lines: list[str]) -> list[str]:
    kept: list[str] = []
    for line in lines:
        if line.startswith((">>>", "In [")):
            break
        is_markup = _RULE.match(line) or _DIRECTIVE.match(line) or line.rstrip(":").lower() in _HEADINGS
        if line and not is_markup and not (not kept and _SIGNATURE.match(line)):
            kept.append(line)
    return kept


def words_of(text: str) -> tuple[str, ...]:
    """Lower-case words and numbers of a text, by which texts are compared.

    Example:
        >>> words_of("Don't `open` it_twice!")
        ('don', 't', 'open', 'it', 'twice')
    """
    return tuple(_WORD.findall(text.lower()))
