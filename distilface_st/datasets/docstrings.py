"""From a docstring as written to plain paragraphs: markup, doctests, headings and rules removed."""

from __future__ import annotations

import inspect
import re

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
_LAST_HEADINGS = frozenset({"references", "see also", "examples", "example", "bibliography"})


def paragraphs_of(docstring: str) -> list[str]:
    r"""The docstring's text as one string a paragraph, without markup, doctests, section headings and rules.

    What follows a heading such as "Examples" or "References" is code or literature and is left out.

    Example:
        >>> paragraphs_of("Do it.\n\nTakes a :class:`list`.\n\n>>> do()\n1\n\nReferences\n----------\nKnuth")
        ['Do it.', 'Takes a list.']
    """
    paragraphs: list[str] = []
    for block in re.split(r"\n\s*\n", inspect.cleandoc(docstring)):
        lines = [line.strip() for line in block.splitlines()]
        if lines and lines[0].rstrip(":").lower() in _LAST_HEADINGS and paragraphs:
            break
        if text := _plain(" ".join(_text_lines(lines))):
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


def _plain(text: str) -> str:
    text = _ROLE.sub("", text)
    text = _LITERAL.sub(r"\1", text)
    text = _EMPHASIS.sub(r"\1", text)
    text = _FIELD.sub(r"\1:", text).replace("::", ":").replace("\\", "")
    return " ".join(text.split())


def words_of(text: str) -> tuple[str, ...]:
    """Lower-case words and numbers of a text, by which texts are compared.

    Example:
        >>> words_of("Don't `open` it_twice!")
        ('don', 't', 'open', 'it', 'twice')
    """
    return tuple(_WORD.findall(text.lower()))
