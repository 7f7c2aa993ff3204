"""Documents split into passages: whole sentences up to a budget of tokens, with some of the last ones repeated."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..datasets.segmentation import split_sentences
from ..errors import InputError
from .hits import Passage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .hits import Document


class PassageSplitter:
    """Splits documents into passages of whole sentences.

    Args:
        token_counts: Tokens of each of some texts.
        budget: Most tokens of a passage. A longer sentence is cut between words.
        overlap: Tokens of a passage's end that may be repeated at the beginning of the next, in whole sentences.

    Raises:
        InputError: A budget below 8, or an overlap that is not below half of it.

    Example:
        >>> from distilface_st.search.hits import Document
        >>> words = lambda texts: [len(text.split()) for text in texts]
        >>> document = Document("1", "One two three four. Five six seven eight. Nine ten eleven.")
        >>> [passage.text for passage in PassageSplitter(words, 8, 0)([document])]
        ['One two three four. Five six seven eight.', 'Nine ten eleven.']
    """

    def __init__(self, token_counts: Callable[[Sequence[str]], list[int]], budget: int, overlap: int) -> None:
        if budget < 8 or not 0 <= overlap < budget / 2:
            raise InputError(
                f"Passages of {budget} tokens with {overlap} repeated: give 8 or more, and repeat less than half."
            )
        self.token_counts = token_counts
        self.budget = budget
        self.overlap = overlap

    def __call__(self, documents: Sequence[Document]) -> list[Passage]:
        """The passages of documents, in order; a blank document has none."""
        parts = [_sentences(document.text, self.budget) for document in documents]
        # A token has a byte at least, so that a short text is one passage, and its tokens need no counting.
        counted = [i for i, units in enumerate(parts) if len(units) > 1 or len("".join(units).encode()) > self.budget]
        counts = iter(self.token_counts([unit for index in counted for unit in parts[index]]))
        for index in counted:
            pieces = [piece for unit in parts[index] for piece in self._cut(unit, next(counts))]
            parts[index] = self._join(pieces)
        return [
            Passage(document.id, number, text, document.metadata)
            for document, texts in zip(documents, parts, strict=True)
            for number, text in enumerate(texts)
        ]

    def _join(self, sized: list[tuple[str, int]]) -> list[str]:
        passages: list[str] = []
        begun: list[tuple[str, int]] = []
        size = 0
        for unit, count in sized:
            if begun and size + count > self.budget:
                passages.append(" ".join(text for text, _ in begun))
                begun = self._repeated(begun, self.budget - count)
                size = sum(tokens for _, tokens in begun)
            begun.append((unit, count))
            size += count
        return [*passages, " ".join(text for text, _ in begun)]

    def _repeated(self, passage: list[tuple[str, int]], room: int) -> list[tuple[str, int]]:
        kept, size = 0, 0
        for _, count in reversed(passage[1:]):
            if size + count > min(self.overlap, room):
                break
            size += count
            kept += 1
        return passage[len(passage) - kept :]

    def _cut(self, unit: str, count: int) -> list[tuple[str, int]]:
        """A unit as it is, or where it is longer than the budget in halves of words, again and again."""
        if count <= self.budget:
            return [(unit, count)]
        words = unit.split()
        whole: list[str] | str = words if len(words) > 1 else unit
        if len(whole) < 2:
            return [(unit, count)]
        joint = " " if len(words) > 1 else ""
        halves = [joint.join(half) for half in (whole[: len(whole) // 2], whole[len(whole) // 2 :])]
        return [piece for half in zip(halves, self.token_counts(halves), strict=True) for piece in self._cut(*half)]


def _sentences(text: str, budget: int) -> list[str]:
    """The sentences of a text, or the text whole where it cannot be over the budget; none of a blank one."""
    text = text.strip()
    if len(text.encode()) <= budget:
        return [text] if text else []
    return [sentence for line in text.splitlines() for sentence in split_sentences(line)]
