"""The texts of a benchmark: STS-B for one sentence at a time, and single sentences and long passages for batches."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain, cycle, islice
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..utils.provenance import text_fingerprint

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Sequence

    from ..datasets.sts import STSTask

STSB = "STS-B"
PASSAGE_WORDS = 200

_LINES_A_PASSAGE = 40


@dataclass(frozen=True)
class BenchmarkText:
    """Sentences that every arm encodes.

    Args:
        name: ``one_by_one``, ``stsb``, ``sentences`` or ``passages``.
        source: Where they come from, for the report.
        sentences: The sentences, in the order in which they are encoded.
    """

    name: str
    source: str
    sentences: list[str]

    def describe(self) -> dict[str, Any]:
        """What the report says of it: ``source``, ``sentences``, ``words`` (of one, on average), ``fingerprint``."""
        words = sum(len(text.split()) for text in self.sentences)
        return {
            "source": self.source,
            "sentences": len(self.sentences),
            "words": round(words / len(self.sentences), 1),
            "fingerprint": text_fingerprint(self.sentences),
        }


def benchmark_texts(
    tasks: Sequence[STSTask],
    text: str | os.PathLike[str] | None,
    sentences: int,
    passages: int,
    pairs: int | None,
) -> dict[str, BenchmarkText]:
    """Gather the texts.

    Args:
        tasks: STS sets; of these only STS-B's test split is timed.
        text: What :func:`distilface_st.datasets.sentences.load_sentences` takes; ``None`` reads what Python's own
            modules say of themselves.
        sentences: The most sentences in ``stsb`` and in ``sentences``.
        passages: Passages of about 200 words.
        pairs: The most pairs of STS-B, both sentences of which are encoded one by one; ``None`` for all.

    Returns:
        By name: ``one_by_one`` (STS-B's pairs, or else the sentences), ``stsb`` (its distinct sentences; not without
        STS-B), ``sentences`` and ``passages``.

    Raises:
        InputError: Text that cannot be read.
    """
    lines, source = _lines(text, sentences + passages * _LINES_A_PASSAGE)
    singles = BenchmarkText("sentences", source, lines[:sentences])
    joined = islice(_passages(lines[sentences:] or lines), passages)
    found = [singles, BenchmarkText("passages", f"{source}, {PASSAGE_WORDS} words each", list(joined))]
    stsb = next((task for task in tasks if task.label == STSB), None)
    if stsb is None:
        some = singles.sentences[: None if pairs is None else 2 * pairs]
        return _by_name([BenchmarkText("one_by_one", source, some), *found])
    both = list(chain.from_iterable(zip(stsb.sentences1[:pairs], stsb.sentences2[:pairs], strict=True)))
    distinct = list(dict.fromkeys([*stsb.sentences1, *stsb.sentences2]))
    one_by_one = BenchmarkText("one_by_one", f"{STSB}, {len(both) // 2} pairs", both)
    return _by_name([one_by_one, BenchmarkText("stsb", STSB, _even_sample(distinct, sentences)), *found])


def _by_name(texts: list[BenchmarkText]) -> dict[str, BenchmarkText]:
    return {text.name: text for text in texts}


def _lines(text: str | os.PathLike[str] | None, count: int) -> tuple[list[str], str]:
    if text is None:
        from ..datasets.python_docs import python_sentences

        return python_sentences(count), "Python's docstrings"
    from ..datasets.sentences import load_sentences

    data = load_sentences(text, limit=count)
    return [str(line) for line in data.dataset["sentence"]], data.source


def _even_sample(texts: list[str], count: int) -> list[str]:
    step = max(1, len(texts) // count)
    return texts[::step][:count]


def _passages(lines: list[str]) -> Iterator[str]:
    """Lines joined until they have ``PASSAGE_WORDS`` words; after the last line comes the first."""
    if not any(line.split() for line in lines):
        raise InputError("The text has no words to join to passages.")
    words: list[str] = []
    for line in cycle(lines):
        words += line.split()
        if len(words) >= PASSAGE_WORDS:
            yield " ".join(words[:PASSAGE_WORDS])
            words = []
