"""What a corpus offers: a test of known items from documents held out, and positives from the others."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
from xxhash import xxh3_64_intdigest

from ..datasets.corpus import Corpus, passages
from ..datasets.segmentation import count_words, cut_points, joined, split_sentences
from ..errors import InputError
from ..evaluation.retrieval import RetrievalEvaluator
from ..utils.files import atomic_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

FEWEST_DOCUMENTS = 200
ENOUGH_DOCUMENTS = 1_000
_MOST_QUERIES = 400
_MANY_PAIRS = 4_000
_GRAM = 8  # words; documents of which more than half the 8-grams are shared are near-duplicates
_SHORTEST = 3  # words of a title or a sentence that is worth searching with
_KINDS = {
    "title": "title and text",
    "cloze": "a sentence and the rest of its passage",
    "neighbour": "passages that follow each other",
    "words": "a sentence and half of its words",
}


@dataclass(frozen=True)
class Material:
    """A corpus as a run sees it.

    Attributes:
        queries: Of the test; the query at position i belongs to ``documents[i]``.
        documents: Texts to be found, all held out.
        pairs: Positives from the other documents, (anchor, positive), shuffled.
        kinds: How many pairs of each kind there are.
        found: One line that says what the text is.
        plan: One line that says what is made of it, and why.
    """

    queries: list[str]
    documents: list[str]
    pairs: list[tuple[str, str]]
    kinds: dict[str, int]
    found: str
    plan: str


def prepare(corpus: Corpus, seed: int) -> Material:
    """Hold out a tenth of a corpus as a test (at most 400 documents), and make positives of the rest.

    A query is the document's title where at least half of the documents have one, else a sentence taken out of it, and
    of a single sentence half of its words. Documents of the rest that share more than half of their word 8-grams with
    the test are left out.

    Raises:
        InputError: Fewer than 200 documents.
    """
    units = [(document.title, passages(document)) for document in corpus.documents]
    story = _story(corpus, units)
    if len(units) < FEWEST_DOCUMENTS <= sum(len(found) for _, found in units):
        # A book or a few long documents: each passage counts as one.
        units = [(title, [passage]) for title, found in units for passage in found]
    if len(units) < FEWEST_DOCUMENTS:
        raise InputError(
            f"{corpus.source}: {story}. That is too little to learn from and to test on: at least {FEWEST_DOCUMENTS} "
            f"documents are needed, and {ENOUGH_DOCUMENTS:,} or more are better."
        )
    rng = np.random.default_rng(seed)
    has_titles = sum(bool(title) for title, _ in units) >= len(units) / 2
    order = rng.permutation(len(units)).tolist()
    queries: list[str] = []
    documents: list[str] = []
    held_out = set()
    wanted = min(_MOST_QUERIES, len(units) // 10)
    for index in order[: 2 * wanted]:
        if (
            len(queries) < wanted
            and (item := _known_item(units[index][0], units[index][1], has_titles, rng))
            and item[1] not in documents
        ):
            queries.append(item[0])
            documents.append(item[1])
            held_out.add(index)
    if len(queries) < wanted / 2:
        raise InputError(f"{corpus.source}: {story}; too few of them can be searched for: their texts are too short.")
    known = {gram for index in held_out for gram in _grams(" ".join(units[index][1]))}
    pairs: dict[tuple[str, str], str] = {}
    near = 0
    for index in order:
        if index in held_out:
            continue
        grams = _grams(" ".join(units[index][1]))
        if len(grams & known) > len(grams) / 2:
            near += 1
            continue
        for kind, pair in _positives(units[index][0], units[index][1], rng):
            pairs.setdefault(pair, kind)
    found = list(pairs)
    found = [found[index] for index in rng.permutation(len(found)).tolist()]
    if has_titles:
        # What the test's queries are like is learned most: of the other kinds, no more than there are titles, and a
        # quarter of that where titles are many.
        titled = [pair for pair in found if pairs[pair] == "title"]
        others = [pair for pair in found if pairs[pair] != "title"]
        found = [*titled, *others[: min(len(titled), max(len(titled) // 4, _MANY_PAIRS - len(titled)))]]
        found = [found[index] for index in rng.permutation(len(found)).tolist()]
    counts = {kind: count for kind in _KINDS if (count := sum(pairs[pair] == kind for pair in found))}
    made = ", ".join(f"{count:,} of {_KINDS[kind]}" for kind, count in counts.items())
    by = "titles" if has_titles else "sentences taken out of them"
    plan = (
        f"The test: find {len(queries)} documents held out by their {by}. Training: {len(found):,} pairs ({made})"
        + (f"; {near} near-duplicates of the test left out" if near else "")
        + "."
    )
    return Material(queries, documents, found, counts, f"{story}.", plan)


def _story(corpus: Corpus, units: Sequence[tuple[str, list[str]]]) -> str:
    words = [sum(map(count_words, found)) for _, found in units] or [0]
    sentences = [sum(len(split_sentences(passage)) for passage in found[:2]) for _, found in units[:200]] or [0]
    kind = "sentences" if median(sentences) <= 1 and not corpus.titled else "documents"
    titles = (
        f", {corpus.titled:.0%} with a title" if corpus.titled else ", without titles" if kind != "sentences" else ""
    )
    dropped = [
        f"{count:,} {what}"
        for count, what in ((corpus.duplicates, "duplicates"), (corpus.blank, "without text"))
        if count
    ]
    if corpus.skipped:
        kinds = ", ".join(suffix for suffix, _ in corpus.skipped.most_common(4))
        dropped.append(f"{sum(corpus.skipped.values()):,} files that are no text ({kinds})")
    left_out = f"; left out: {', '.join(dropped)}" if dropped else ""
    return f"{corpus.source}: {len(units):,} {kind}{titles}, median length {median(words):.0f} words{left_out}"


def _known_item(title: str, found: list[str], has_titles: bool, rng: np.random.Generator) -> tuple[str, str] | None:
    """A query and the text to be found with it; None where the document gives none."""
    if not found:
        return None
    if has_titles:
        return (title, found[0]) if title and title != found[0] else None
    passage = found[int(rng.integers(len(found)))]
    return _cloze(passage, rng) or _words(passage, rng)


def _positives(title: str, found: list[str], rng: np.random.Generator) -> Iterator[tuple[str, tuple[str, str]]]:
    """The pairs that a document offers, each with its kind."""
    if title and found and title != found[0]:
        yield "title", (title, found[0])
    for passage in found:
        if pair := _cloze(passage, rng):
            yield "cloze", pair
        elif not title and len(found) == 1 and (pair := _words(passage, rng)):
            yield "words", pair
    for first, second in pairwise(found):
        yield "neighbour", (first, second)


def _cloze(passage: str, rng: np.random.Generator) -> tuple[str, str] | None:
    """A sentence taken out of a passage, and what is left (inverse cloze, Lee et al., 2019)."""
    sentences = split_sentences(passage)
    fit = [index for index, sentence in enumerate(sentences) if count_words(sentence) >= _SHORTEST]
    if len(sentences) < 2 or not fit:
        return None
    taken = fit[int(rng.integers(len(fit)))]
    return sentences[taken], joined(sentences[:taken] + sentences[taken + 1 :])


def _words(sentence: str, rng: np.random.Generator) -> tuple[str, str] | None:
    """Half of a sentence's words in their order, and the whole; None of a short one."""
    words, joint = cut_points(sentence)
    kept = [word for word in words if rng.random() < 0.5]
    return (joint.join(kept), sentence) if len(words) >= 2 * _SHORTEST and len(kept) >= _SHORTEST else None


def _grams(text: str) -> set[int]:
    words = re.findall(r"\w+", text.casefold())
    count = max(1, len(words) - _GRAM + 1)
    return {xxh3_64_intdigest(" ".join(words[start : start + _GRAM]).encode()) for start in range(count)}


def write_test(path: Path, material: Material) -> None:
    """Write the self-made test, a JSON object with ``query`` and ``document`` a line."""
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for query, document in zip(material.queries, material.documents, strict=True):
            file.write(json.dumps({"query": query, "document": document}, ensure_ascii=False) + "\n")


def read_test(path: Path) -> RetrievalEvaluator:
    """The self-made test of a run, from its ``test.jsonl``."""
    with path.open(encoding="utf-8") as lines:
        items = [json.loads(line) for line in lines]
    return RetrievalEvaluator([item["query"] for item in items], [item["document"] for item in items], write_csv=False)
