"""The errors users see: each is one sentence that says what was wrong, what was found and what to do."""

from __future__ import annotations


class InputError(ValueError):
    """The user's input cannot be used: a file, an option or a combination of them.

    Commands print its message as one line and exit with status 1; any other exception is a bug and keeps its traceback.
    """


class MissingExtraError(ImportError):
    """An optional dependency is missing.

    Args:
        what: The capability that needs it, as a user would name it.
        extra: The extra of this package that brings it.

    Example:
        >>> str(MissingExtraError("Plotting", "plots"))
        'Plotting needs an optional dependency: run `pip install "distilface-st[plots]"`.'
    """

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f'{what} needs an optional dependency: run `pip install "distilface-st[{extra}]"`.')
