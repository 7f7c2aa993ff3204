"""Conditions on metadata, translated for each store."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Value = str | int | float | bool

_OPERATORS = ("==", "!=", ">=", "<=", ">", "<")
_FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
_TYPED = re.compile(r"\s*([^=!<>\s]+)\s*(==|!=|>=|<=|=|>|<)\s*(.*?)\s*", re.DOTALL)
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_LONGEST_NUMBER = 300  # characters, which a float can hold
_MOST_VALUES = 256
SURROGATE = re.compile(r"[\ud800-\udfff]")  # half a surrogate pair, which no file and no database takes


@dataclass(frozen=True)
class Condition:
    """One condition on a field of a document's metadata.

    Two texts are compared as texts, letter by letter; where either side is a number, both are, as
    :func:`as_number` reads a text. A text that is no number meets no condition on numbers, an empty one none on order.
    So ``"007"`` equals the text ``"007"`` alone, and the number 7 too.

    A field that holds a list meets a condition if one of its items does. ``!=`` is the contrary of ``==``. A field that
    is missing or null meets none, ``!=`` included.

    Attributes:
        field: Name of the field.
        operator: ``==``, ``!=``, ``>``, ``>=``, ``<``, ``<=`` or ``in``.
        values: What to compare with: one value, or with ``in`` several.
    """

    field: str
    operator: str
    values: tuple[Value, ...]

    @property
    def orders(self) -> bool:
        """Whether it asks for what is above or below a value."""
        return self.operator in (">", ">=", "<", "<=")

    @property
    def texts(self) -> list[Value]:
        """What a text is compared with as a text."""
        return [value for value in self.values if isinstance(value, str)]

    @property
    def numbers(self) -> list[Value]:
        """What a text is compared with as a number."""
        return [int(value) if isinstance(value, bool) else value for value in self.values if not isinstance(value, str)]

    @property
    def all_numbers(self) -> list[Value]:
        """What a number is compared with."""
        return [number for value in self.values if (number := as_number(value)) is not None]

    def __str__(self) -> str:
        return f"{self.field} {self.operator} {', '.join(map(repr, self.values))}"


def as_number(value: Any) -> int | float | None:
    """A value as a number: true and false are 1 and 0, a text is what it says in decimal notation, else None.

    Example:
        >>> [as_number(text) for text in ("1990", "-1.50", "1e5", "007", "true", " 7", "c. 1850", "nan", "1_000")]
        [1990, -1.5, 100000.0, 7, 1, 7, None, None, None]
    """
    if isinstance(value, (int, float)):
        return int(value) if isinstance(value, bool) else value
    if not isinstance(value, str):
        return None
    value = value.strip()
    if value.lower() in ("true", "false"):
        return int(value.lower() == "true")
    if len(value) > _LONGEST_NUMBER or not _NUMBER.fullmatch(value):
        return None
    number = float(value) if set(value) & set(".eE") else int(value)
    return number if abs(number) < 2**63 else float(number) if abs(number) < float("inf") else None


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
        tests = wanted if isinstance(wanted, dict) else {"==": wanted}
        if unknown := [operator for operator in tests if operator not in _OPERATORS]:
            raise InputError(f"{unknown[0]!r} in the filter on {field!r} is no operator: {', '.join(_OPERATORS)}.")
        conditions += [_condition(field, operator, value) for operator, value in tests.items()]
    return conditions


def _condition(field: str, operator: str, value: Any) -> Condition:
    if operator != "==" or not isinstance(value, list):
        return Condition(field, operator, (_value(field, value),))
    if not 1 <= len(value) <= _MOST_VALUES:
        raise InputError(f"The filter on {field!r} lists {len(value)} values: give 1 to {_MOST_VALUES}.")
    return Condition(field, "in", tuple(_value(field, item) for item in value))


def filter_of_words(words: list[str]) -> dict[str, Any] | None:
    """A filter as typed: ``lang=en``, ``year>=2000``, ``tag=a,b``, each a condition.

    What is typed is text, which equals a number that it says, too; above or below, a number is meant where it is one.

    Example:
        >>> filter_of_words(["lang=en", "year>=2000", "code=007", "tag=a,b"])
        {'lang': 'en', 'year': {'>=': 2000}, 'code': '007', 'tag': ['a', 'b']}
    """
    found: dict[str, dict[str, Any]] = {}
    for word in words:
        match = _TYPED.fullmatch(word)
        if match is None:
            raise InputError(f"--filter {word}: give field=value, field=one,other, or field>=number.")
        field, operator, text = match.groups()
        operator = "==" if operator == "=" else operator
        if operator in found.setdefault(field, {}):
            raise InputError(f"--filter {word}: {operator} on {field!r} is there twice; {field}=one,other is either.")
        if operator == "==":
            found[field][operator] = text.split(",") if "," in text else text
        else:
            number = None if operator == "!=" else as_number(text)
            found[field][operator] = text if number is None else number
    return {field: tests["=="] if set(tests) == {"=="} else tests for field, tests in found.items()} or None


def sql_of(conditions: Sequence[Condition], column: str) -> tuple[str, list[Value]]:
    """A condition in SQLite's SQL on a column of JSON objects, with its parameters; empty without conditions.

    It calls a function ``as_number`` of one value, :func:`as_number` here.
    """
    parts: list[str] = []
    parameters: list[Value] = []
    for condition in conditions:
        tests = []
        for what, values in (
            (
                "type = 'text' AND value <> '' AND value" if condition.orders else "type = 'text' AND value",
                condition.texts,
            ),
            ("type NOT IN ('text', 'array', 'object') AND value", condition.all_numbers),
            ("type = 'text' AND as_number(value)", condition.numbers),
        ):
            compare = f"{condition.operator} ?" if condition.orders else f"IN ({', '.join('?' * len(values))})"
            tests += [f"{what} {compare}"] if values else []
            parameters += values
        path = f"'$.\"{condition.field}\"'"
        items = f"json_each({column}, {path}) WHERE typeof(key) <> 'text'"  # an object's values have names
        met = f"EXISTS (SELECT 1 FROM {items} AND ({' OR '.join(tests)}))"
        if condition.operator == "!=":
            met = f"coalesce(json_type({column}, {path}), 'null') <> 'null' AND NOT {met}"
        parts.append(met)
    return " AND ".join(parts), parameters


COMPARED = "distilface:compared"
"""Key of a passage's metadata in Milvus with what its filters cannot see by themselves, see :func:`compared`."""


def compared(metadata: dict[str, Any]) -> dict[str, dict[str, list[Any]]]:
    """For fields that Milvus cannot compare as :class:`Condition` says: lists, true and false, texts that are numbers.

    ``numbers``, ``texts`` and ``read`` (numbers that texts say) of a field each begin with the least and the greatest,
    then have all.
    """
    found: dict[str, dict[str, list[Any]]] = {}
    for field, value in metadata.items():
        items = value if isinstance(value, list) else [value] if isinstance(value, (str, bool)) else []
        texts = [item for item in items if isinstance(item, str)]
        kinds: dict[str, list[Any]] = {
            "numbers": [as_number(item) for item in items if isinstance(item, (int, float))],
            "texts": [text for text in texts if text] if isinstance(value, list) else [],
            "read": [number for number in map(as_number, texts) if number is not None],
        }
        if own := {kind: [min(values), max(values), *values] for kind, values in kinds.items() if values}:
            found[field] = own
    return found


def milvus_of(conditions: Sequence[Condition], column: str) -> str:
    """A condition in Milvus's language on a JSON column with :func:`compared`; empty without conditions."""
    parts = []
    for condition in conditions:
        met = f"({' or '.join(_milvus_tests(condition, column))})"
        name = f'{column}["{condition.field}"]'
        parts.append(f"(exists {name} and not {met})" if condition.operator == "!=" else met)
    return " and ".join(parts)


def _milvus_tests(condition: Condition, column: str) -> Iterator[str]:
    """Any of which meets a condition; passages stored by an earlier version have nothing but the field itself."""
    name, known = f'{column}["{condition.field}"]', f'{column}["{COMPARED}"]["{condition.field}"]'
    for kind, values in (
        ("texts", condition.texts),
        ("numbers", condition.all_numbers),
        ("read", condition.numbers),
    ):
        literals = list(map(milvus_literal, values))
        if not literals:
            continue
        if condition.orders:
            end = 0 if condition.operator[0] == "<" else 1  # the least, or the greatest
            not_empty = f' and {name} != ""' if kind == "texts" else ""
            yield f"({name} {condition.operator} {literals[0]}{not_empty})"
            yield f'{known}["{kind}"][{end}] {condition.operator} {literals[0]}'
        else:
            yield from (f"{name} == {literal}" for literal in literals)
            for place in (name, f'{known}["{kind}"]'):
                yield f"json_contains_any({place}, [{', '.join(literals)}])"


def _value(field: str, value: Any) -> Value:
    if isinstance(value, (bool, int, float)) and abs(value) < 2**63:
        return value
    if not isinstance(value, str):
        known = "text, true, false, or numbers below 2^63: write a greater one as text"
        raise InputError(f"The filter on {field!r} must compare with {known}.")
    if SURROGATE.search(value):
        raise InputError(f"The filter on {field!r} holds text that is not valid Unicode.")
    return value


def milvus_literal(value: Value) -> str:
    """A value as Milvus' filter language writes it, which knows fewer escapes than JSON."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        return repr(value)
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'"{escaped}"'
