"""Mistakes collected, so that a user hears of all of them at once."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator


class Problems:
    """A list of what is wrong with the input.

    Attributes:
        found: The messages.

    Example:
        >>> problems = Problems()
        >>> with problems.collected():
        ...     raise InputError("steps is 0.")
        >>> problems.found
        ['steps is 0.']
    """

    def __init__(self) -> None:
        self.found: list[str] = []

    def add(self, message: str) -> None:
        """Note a problem, once."""
        if message not in self.found:
            self.found.append(message)

    @contextmanager
    def collected(self) -> Iterator[None]:
        """Note the error that the block ends with, if it is the user's."""
        try:
            yield
        except (InputError, OSError) as error:
            self.add(str(error))

    def check(self) -> None:
        """End here if something is wrong.

        Raises:
            InputError: It names every problem.
        """
        if len(self.found) == 1:
            raise InputError(self.found[0])
        if self.found:
            numbered = " ".join(f"({number}) {message}" for number, message in enumerate(self.found, 1))
            raise InputError(f"{len(self.found)} problems: {numbered}")
