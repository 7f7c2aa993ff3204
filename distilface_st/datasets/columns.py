"""Choosing which columns of a file to read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

_SHOWN_NAMES = 8

Block = list[list[str]]
"""Consecutive records, as one list of strings for each column; all lists are of one length."""


@dataclass(frozen=True)
class Columns:
    """Which columns to read.

    Attributes:
        known: Names to look for where none are given, first choice first; each entry has one name per column to read.
        names: The names the user gave, or None.
    """

    known: tuple[tuple[str, ...], ...]
    names: tuple[str, ...] | None = None

    @property
    def width(self) -> int:
        """How many columns are read."""
        return len(self.known[0])

    def find(self, found: Sequence[str], where: str) -> list[int]:
        """Indices of the columns to read among ``found``: those given, else known ones, else all if as many as needed.

        Raises:
            InputError: If none of these applies; the message begins with ``where`` and lists what was found.
        """
        shown = listed(found)
        if self.names is not None:
            missing = [name for name in self.names if name not in found]
            if missing:
                raise InputError(f"{where}: no column {missing[0]!r}; found: {shown}")
            return [found.index(name) for name in self.names]
        indices = self._known_in(found)
        if indices is not None:
            return indices
        if len(found) == self.width:
            return list(range(self.width))
        if self.width == 2:
            raise InputError(f"{where}: name the two columns to pair; found: {shown}")
        hint = " (if each line is a pair of sentences, use views=pairs)" if len(found) == 2 else ""
        raise InputError(f"{where}: name the column that holds the text; found: {shown}{hint}")

    def is_headerless(self, first_line: Sequence[str]) -> bool:
        """Whether the first line of a .tsv file is data: two cells to be paired, none asked for, no known names."""
        return self.names is None and len(first_line) == self.width == 2 and self._known_in(first_line) is None

    def _known_in(self, found: Sequence[str]) -> list[int] | None:
        lowered = [name.lower() for name in found]
        for names in self.known:
            if all(name in lowered for name in names):
                return [lowered.index(name) for name in names]
        return None


def listed(names: Sequence[str]) -> str:
    """Names as they are shown in a message: quoted, shortened, the first few of many."""
    shown = ", ".join(repr(name[:40]) for name in names[:_SHOWN_NAMES])
    return (shown or "none") + (", ..." if len(names) > _SHOWN_NAMES else "")
