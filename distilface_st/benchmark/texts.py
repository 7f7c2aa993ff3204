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
_PASSAGE_WORDS = 200


@dataclass(frozen=True)
class BenchmarkText:
    """Sentences that every variant encodes, in this order, and where they come from."""

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
    """Gather the texts; the arguments are those of :func:`distilface_st.benchmark_models`.

    They are, by name: ``one_by_one`` (STS-B's pairs, or else the sentences), ``stsb`` (its distinct sentences; not
    without STS-B), ``sentences`` and ``passages``.
    """
    count = sentences + passages * 40  # lines that are enough for the passages
    if text is None:
        from ..datasets.python_docs import python_sentences

        lines, source = python_sentences(count), "Python's docstrings"
    else:
        from ..datasets.sentences import load_sentences

        data = load_sentences(text, limit=count)
        lines, source = [str(line) for line in data.dataset["sentence"]], data.source
    joined = list(islice(_passages(lines[sentences:] or lines), passages))
    found = {
        "sentences": BenchmarkText(source, lines[:sentences]),
        "passages": BenchmarkText(f"{source}, {_PASSAGE_WORDS} words each", joined),
    }
    stsb = next((task for task in tasks if task.label == STSB), None)
    if stsb is None:
        some = lines[: sentences if pairs is None else min(sentences, 2 * pairs)]
        return {"one_by_one": BenchmarkText(source, some), **found}
    both = list(chain.from_iterable(zip(stsb.sentences1[:pairs], stsb.sentences2[:pairs], strict=True)))
    distinct = list(dict.fromkeys([*stsb.sentences1, *stsb.sentences2]))
    even_sample = distinct[:: max(1, len(distinct) // sentences)][:sentences]
    return {
        "one_by_one": BenchmarkText(f"{STSB}, {len(both) // 2} pairs", both),
        "stsb": BenchmarkText(STSB, even_sample),
        **found,
    }


def _passages(lines: list[str]) -> Iterator[str]:
    """Lines joined until they have ``_PASSAGE_WORDS`` words; after the last line comes the first."""
    if not any(line.split() for line in lines):
        raise InputError("The text has no words to join to passages.")
    words: list[str] = []
    for line in cycle(lines):
        words += line.split()
        if len(words) >= _PASSAGE_WORDS:
            yield " ".join(words[:_PASSAGE_WORDS])
            words = []
