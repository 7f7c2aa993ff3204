"""Conditions on metadata, translated for each store."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

Value = str | int | float | bool

_OPERATORS = ("==", "!=", ">=", "<=", ">", "<")
_FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
_TYPED = re.compile(r"\s*([^=!<>\s]+)\s*(==|!=|>=|<=|=|>|<)\s*(.*?)\s*", re.DOTALL)
_MOST_VALUES = 256
SURROGATE = re.compile(r"[\ud800-\udfff]")  # half a surrogate pair, which no file and no database takes


@dataclass(frozen=True)
class Condition:
    """One condition on a field of a document's metadata.

    A field that holds a list meets it if one of its items does; a field that is missing meets none, ``!=`` included.

    Attributes:
        field: Name of the field.
        operator: ``==``, ``!=``, ``>``, ``>=``, ``<``, ``<=`` or ``in``.
        values: What to compare with: one value, or with ``in`` several.
    """

    field: str
    operator: str
    values: tuple[Value, ...]


def parse_filter(given: Any) -> list[Condition]:
    """Conditions, all of which must hold.

    Args:
        given: A dict from field to a value (equal), a list (one of), or a dict from operator to value. None is no
            condition.

    Raises:
        InputError: Something else, an unknown operator, or a field name that is none.

    Example:
        >>> parse_filter({"lang": "en", "year": {">=": 2000}})[1]
        Condition(field='year', operator='>=', values=(2000,))
    """
    if given is None:
        return []
    if not isinstance(given, dict):
        raise InputError('A filter is an object such as {"lang": "en", "year": {">=": 2000}, "tag": ["a", "b"]}.')
    conditions = []
    for field, wanted in given.items():
        if not isinstance(field, str) or not _FIELD.fullmatch(field):
            raise InputError(f"{field!r} is no name of a field: letters, digits, _ and -, beginning with a letter.")
        if isinstance(wanted, list):
            if not 1 <= len(wanted) <= _MOST_VALUES:
                raise InputError(f"The filter on {field!r} lists {len(wanted)} values: give 1 to {_MOST_VALUES}.")
            conditions.append(Condition(field, "in", tuple(_value(field, item) for item in wanted)))
        elif isinstance(wanted, dict):
            if unknown := [operator for operator in wanted if operator not in _OPERATORS]:
                raise InputError(f"{unknown[0]!r} in the filter on {field!r} is no operator: {', '.join(_OPERATORS)}.")
            conditions += [Condition(field, operator, (_value(field, value),)) for operator, value in wanted.items()]
        else:
            conditions.append(Condition(field, "==", (_value(field, wanted),)))
    return conditions


def filter_of_words(words: list[str]) -> dict[str, Any] | None:
    """A filter as typed: ``lang=en``, ``year>=2000``, ``tag=a,b``, each a condition; numbers and true/false are such.

    Example:
        >>> filter_of_words(["lang=en", "year>=2000", "tag=a,b"])
        {'lang': 'en', 'year': {'>=': 2000}, 'tag': ['a', 'b']}
    """
    found: dict[str, Any] = {}
    for word in words:
        match = _TYPED.fullmatch(word)
        if match is None:
            raise InputError(f"--filter {word}: give field=value, field=one,other, or field>=number.")
        field, operator, text = match.groups()
        if operator in ("=", "=="):
            found[field] = [_typed(part) for part in text.split(",")] if "," in text else _typed(text)
        else:
            earlier = found.get(field)
            found[field] = {**(earlier if isinstance(earlier, dict) else {}), operator: _typed(text)}
    return found or None


def sql_of(conditions: Sequence[Condition], column: str) -> tuple[str, list[Value]]:
    """A condition in SQLite's SQL on a column of JSON objects, with its parameters; empty without conditions."""
    parts: list[str] = []
    parameters: list[Value] = []
    for condition in conditions:
        marks = ", ".join("?" for _ in condition.values)
        test = f"IN ({marks})" if condition.operator == "in" else f"{condition.operator} ?"
        if condition.operator in (">", ">=", "<", "<="):  # SQLite orders every text after every number
            is_text = isinstance(condition.values[0], str)
            test += " AND type = 'text'" if is_text else " AND type IN ('integer', 'real', 'true', 'false')"
        parts.append(f"EXISTS (SELECT 1 FROM json_each({column}, '$.\"{condition.field}\"') WHERE value {test})")
        parameters += condition.values
    return " AND ".join(parts), parameters


def milvus_of(conditions: Sequence[Condition], column: str) -> str:
    """A condition in Milvus's language on a JSON column; empty without conditions."""
    parts = []
    for condition in conditions:
        name = f'{column}["{condition.field}"]'
        operator = "==" if condition.operator == "in" else condition.operator
        tests = [f"{name} {operator} {milvus_literal(value)}" for value in condition.values]
        if condition.operator in ("==", "in"):
            tests += [f"json_contains({name}, {milvus_literal(value)})" for value in condition.values]
        parts.append(f"({' or '.join(tests)})")
    return " and ".join(parts)


def _value(field: str, value: Any) -> Value:
    if isinstance(value, (bool, int, float)) and abs(value) < 2**63:
        return value
    if not isinstance(value, str):
        raise InputError(f"The filter on {field!r} must compare with text, numbers below 2^63, true or false.")
    if SURROGATE.search(value):
        raise InputError(f"The filter on {field!r} holds text that is not valid Unicode.")
    return value


def _typed(text: str) -> Value:
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text


def milvus_literal(value: Value) -> str:
    """A value as Milvus' filter language writes it, which knows fewer escapes than JSON."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        return repr(value)
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'"{escaped}"'
