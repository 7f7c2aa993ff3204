"""STS12-16, STS-B and SICK-R, from a SentEval-layout folder or from the Hub, and a user's own scored pairs."""

from __future__ import annotations

import math
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..errors import InputError
from ..utils.provenance import shown, text_fingerprint
from .readers import is_unicode, numbered_lines, read_records, read_rows
from .sources import file_kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

AVERAGE5 = ("STS12", "STS13", "STS14", "STS15", "STS-B")
AVERAGE6 = ("STS12", "STS13", "STS14", "STS15", "STS16", "STS-B")
STS_NAMES = (*AVERAGE6, "SICK-R")
SPLITS = ("train", "dev", "test")

_COLUMNS = ("sentence1", "sentence2", "score")
_GOLD_MAXIMUM = 5.0
_DECIMAL_COMMA = re.compile(r"[+-]?(?!\d{1,3},\d{3}$)\d+,\d+|[+-]?0,\d+")
"""A number such as 3,5; not 1,500, which may be a thousand and more."""

# What makes up each year under the "all" protocol. STS13 has no SMT, whose text may not be passed on.
_SUBSETS = {
    "STS12": ("MSRpar", "MSRvid", "SMTeuroparl", "surprise.OnWN", "surprise.SMTnews"),
    "STS13": ("FNWN", "headlines", "OnWN"),
    "STS14": ("deft-forum", "deft-news", "headlines", "images", "OnWN", "tweet-news"),
    "STS15": ("answers-forums", "answers-students", "belief", "headlines", "images"),
    "STS16": ("answer-answer", "headlines", "plagiarism", "postediting", "question-question"),
}
_SICK_FILES = {"train": "SICK_train.txt", "dev": "SICK_trial.txt", "test": "SICK_test_annotated.txt"}

# Data set and revision, as MTEB's task definitions pin them.
_HUB = {
    "STS12": ("mteb/sts12-sts", "a0d554a64d88156834ff5ae9920b964011b16384"),
    "STS13": ("mteb/sts13-sts", "7e90230a92c190f1bf69ae9002b8cea547a64cca"),
    "STS14": ("mteb/sts14-sts", "6031580fec1f6af667f0bd2da0a551cf4f0b2375"),
    "STS15": ("mteb/sts15-sts", "ae752c7c21bf194d8b67fd573edf7ae58183cbe3"),
    "STS16": ("mteb/sts16-sts", "4d8694f8f0e0100860b497b999b3dbed754a0513"),
    "STS-B": ("mteb/stsbenchmark-sts", "b0fddb56ed78048fa8b90373c8a3cfc37b684831"),
    "SICK-R": ("mteb/sickr-sts", "20a6d6f312dd54037fe07a32d58e5e168867909d"),
}


@dataclass(frozen=True, eq=False)
class STSSubset:
    """Scored sentence pairs from one source, such as ``MSRpar``; ``scores`` of shape (pairs,), 0 to 5 in the STS sets.

    Raises:
        InputError: Sentences and scores differ in length, or there is no pair.
    """

    name: str
    sentences1: list[str]
    sentences2: list[str]
    scores: np.ndarray

    def __post_init__(self) -> None:
        if not len(self.sentences1) == len(self.sentences2) == len(self.scores):
            sentences = f"{len(self.sentences1)} first sentences, {len(self.sentences2)} second sentences"
            raise InputError(f"{self.name}: {sentences} and {len(self.scores)} scores; there must be as many of each.")
        if not self.sentences1:
            raise InputError(f"{self.name}: there is no pair with a score.")

    def __len__(self) -> int:
        return len(self.sentences1)


@dataclass(frozen=True, eq=False)
class STSTask:
    """One STS set: the pairs that give one score.

    Args:
        name: ``STS12`` to ``STS16``, ``STS-B``, ``SICK-R``, or what a user's own pairs are called.
        subsets: Its parts, in the order in which the "all" protocol concatenates them.
        split: ``test``, or ``train`` or ``dev`` where the set has them.
        merged: Whether its source mixes subsets without telling which pair is from which, as the Hub's STS12-16 do.
    """

    name: str
    subsets: tuple[STSSubset, ...]
    split: str = "test"
    merged: bool = False

    def __len__(self) -> int:
        return sum(len(subset) for subset in self.subsets)

    @property
    def label(self) -> str:
        """The key of its scores: the name, and the split unless that is the test split (``STS-B-dev``)."""
        return self.name if self.split == "test" else f"{self.name}-{self.split}"

    @property
    def sentences1(self) -> list[str]:
        """First sentences of all subsets, in order."""
        return [sentence for subset in self.subsets for sentence in subset.sentences1]

    @property
    def sentences2(self) -> list[str]:
        """Second sentences of all subsets, in order."""
        return [sentence for subset in self.subsets for sentence in subset.sentences2]

    @property
    def scores(self) -> np.ndarray:
        """Gold scores of all subsets, in order, shape (pairs,)."""
        return np.concatenate([subset.scores for subset in self.subsets])

    @property
    def fingerprint(self) -> str:
        """64-bit hash of sentences and scores, subset by subset; the same from any source with the same order."""
        return text_fingerprint(
            text
            for subset in self.subsets
            for pair in zip(subset.sentences1, subset.sentences2, subset.scores, strict=True)
            for text in map(str, pair)
        )


class _Pair(NamedTuple):
    first: str
    second: str
    score: float


def load_sts(
    name: str, sts_dir: Path | str | None = None, split: str = "test", *, source: Path | str | None = None
) -> STSTask:
    """Load one STS set.

    Args:
        name: ``STS12``, ``STS13``, ``STS14``, ``STS15``, ``STS16``, ``STS-B`` or ``SICK-R``.
        sts_dir: Folder in SentEval's layout: ``STS12-en-test/STS.input.MSRpar.txt`` with ``STS.gs.MSRpar.txt``,
            ``STSBenchmark/sts-test.csv``, ``SICK/SICK_test_annotated.txt`` (SICK may also lie beside the folder, as
            SentEval has it). ``None`` loads the Hub's copy at a pinned revision; there, STS12-16 come without
            subsets, and SICK-R is all 9,927 pairs of the three splits, as MTEB scores it.
        split: ``train``, ``dev`` or ``test`` of STS-B and SICK-R; the others have a test split only.
        source: Former name of ``sts_dir``; the next release drops it.

    Returns:
        The pairs that have a gold score; pairs without one are dropped.

    Raises:
        InputError: An unknown name or split, a missing file, or malformed data, named with file and line.
    """
    sts_dir = former_source(sts_dir, source)
    if name not in STS_NAMES:
        raise InputError(f"{name!r} is no STS set: choose from {', '.join(STS_NAMES)}.")
    if split not in SPLITS:
        raise InputError(f"{split!r} is no split: choose from {', '.join(SPLITS)}.")
    if split != "test" and (name in _SUBSETS or (name == "SICK-R" and sts_dir is None)):
        raise InputError(f"{name}{' on the Hub' if sts_dir is None else ''} has a test split only, no {split} split.")
    if sts_dir is None:
        return _from_hub(name, split)
    folder = Path(sts_dir)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: give the one that holds STS12-en-test, ..., STSBenchmark.")
    if name in _SUBSETS:
        home = folder / f"{name}-en-test"
        return STSTask(name, tuple(_subset(subset, _subset_pairs(home, subset)) for subset in _SUBSETS[name]))
    pairs = _stsb_pairs(folder, split) if name == "STS-B" else _sick_pairs(folder, split)
    return STSTask(name, (_subset(name, pairs),), split)


def load_scored_pairs(path: Path | str) -> STSTask:
    """Load a user's own scored pairs.

    Args:
        path: ``.tsv`` or ``.csv``, either with a first line that names the columns ``sentence1``, ``sentence2`` and
            ``score``, in any order and among others, or with just these three; or ``.jsonl`` or ``.parquet`` with those
            keys. Each but the last also gzipped (.gz). UTF-8. In ``.tsv`` quotes are plain characters. Scores are any
            finite numbers, greater for more similar; a decimal comma (``3,5``) is understood.

    Returns:
        A task of one subset, named like the file without its suffix.

    Raises:
        InputError: Another suffix, a missing file, or malformed data, named with file and line.
    """
    path = Path(path)
    kind = file_kind(path)
    if kind not in (".tsv", ".csv", ".jsonl", ".parquet"):
        known = ".tsv, .csv, .jsonl or .parquet"
        raise InputError(f"{path}: scored pairs are read from {known}, not from {path.suffix or 'this'}.")
    if not path.is_file():
        raise InputError(f"{path} is missing.")
    name = shown(Path(path.name.removesuffix(".gz")).stem)
    return STSTask(name, (_subset(name, _row_pairs(path) if kind in (".tsv", ".csv") else _object_pairs(path)),))


def former_source(sts_dir: Path | str | None, source: Path | str | None) -> Path | str | None:
    """``sts_dir``, also where it was given by its former name ``source``, which warns."""
    if source is None:
        return sts_dir
    warnings.warn("source is now sts_dir: the next release drops the old name.", DeprecationWarning, stacklevel=3)
    return source


def _subset(name: str, pairs: Iterable[_Pair]) -> STSSubset:
    pairs = list(pairs)
    scores = np.array([pair.score for pair in pairs])
    return STSSubset(name, [pair.first for pair in pairs], [pair.second for pair in pairs], scores)


def _subset_pairs(folder: Path, name: str) -> Iterator[_Pair]:
    input_file, gold_file = folder / f"STS.input.{name}.txt", folder / f"STS.gs.{name}.txt"
    pairs, golds = _lines(input_file), _lines(gold_file)
    if len(pairs) != len(golds):
        short = input_file if len(pairs) < len(golds) else gold_file
        found = f"{input_file.name} has {len(pairs)} lines and {gold_file.name} {len(golds)}."
        raise InputError(f"{short}:{min(len(pairs), len(golds)) + 1}: missing; {found}")
    for (where, pair), (gold_where, gold) in zip(pairs, golds, strict=True):
        first, second, *_ = _split(pair, 2, where)
        if gold.strip():
            yield _pair(first, second, gold, where, score_where=gold_where)


def _stsb_pairs(folder: Path, split: str) -> Iterator[_Pair]:
    for where, line in _lines(folder / "STSBenchmark" / f"sts-{split}.csv"):
        score, first, second = _split(line, 7, where)[4:7]
        yield _pair(first, second, score, where)


def _sick_pairs(folder: Path, split: str) -> Iterator[_Pair]:
    homes = (folder / "SICK", folder.parent / "SICK")
    path = next((home for home in homes if home.is_dir()), homes[0]) / _SICK_FILES[split]
    (_, header), *lines = _lines(path) or [("", "")]
    if not header.startswith("pair_ID\t"):
        raise InputError(f"{path}:1: the header (pair_ID, sentence_A, sentence_B, relatedness_score) is missing.")
    for where, line in lines:
        first, second, score = _split(line, 4, where)[1:4]
        yield _pair(first, second, score, where)


def _from_hub(name: str, split: str) -> STSTask:
    from datasets import load_dataset

    home, revision = _HUB[name]
    try:
        data = load_dataset(home, revision=revision, split="validation" if split == "dev" else split)
    except (OSError, ValueError) as error:
        hint = "give a folder in SentEval's layout instead"
        raise InputError(f"{name} cannot be had from the Hub: {hint} ({error})") from error
    where = f"{home} ({split})"
    if missing := set(_COLUMNS) - set(data.column_names):
        raise InputError(f"{where}: no column {', '.join(sorted(missing))}.")
    pairs = []
    for number, (first, second, score) in enumerate(zip(*(data[column] for column in _COLUMNS), strict=True), 1):
        pairs.append(_pair(first, second, score, f"{where}, row {number}"))
    return STSTask(name, (_subset(name, pairs),), split, merged=name in _SUBSETS)


def _row_pairs(path: Path) -> Iterator[_Pair]:
    order = [0, 1, 2]
    width = len(_COLUMNS)
    for number, cells in read_rows(path):
        names = [cell.strip().lower() for cell in cells]
        if number == 1 and set(_COLUMNS) <= set(names):
            order, width = [names.index(column) for column in _COLUMNS], len(names)
            continue
        if not any(names):
            continue
        where = f"{path}:{number}"
        try:
            if len(cells) != width:
                wanted = "sentence 1, sentence 2 and a score" if width == len(_COLUMNS) else "the header's columns"
                raise InputError(f"{where}: {len(cells)} column(s), where {width} are needed: {wanted}.")
            first, second, score = (cells[column] for column in order)
            yield _pair(first, second, score, where, maximum=None)
        except InputError as error:
            hint = " A header must name the columns sentence1, sentence2 and score." if number == 1 else ""
            raise InputError(f"{error}{hint}") from None


def _object_pairs(path: Path) -> Iterator[_Pair]:
    for where, record in read_records(path):
        if not set(_COLUMNS) <= record.keys():
            raise InputError(f"{where}: not an object with the keys sentence1, sentence2 and score.")
        first, second, score = (record[column] for column in _COLUMNS)
        yield _pair(first, second, score, where, maximum=None)


def _lines(path: Path) -> list[tuple[str, str]]:
    """Where each line of a file stands, and the line."""
    if not path.is_file():
        raise InputError(f"{path} is missing.")
    return [(f"{path}:{number}", line) for number, line in numbered_lines(path)]


def _split(line: str, least: int, where: str) -> list[str]:
    columns = line.split("\t")
    if len(columns) < least:
        raise InputError(f"{where}: {len(columns)} tab-separated column(s), where at least {least} are needed.")
    return columns


def _pair(
    first: Any, second: Any, score: Any, where: str, *, score_where: str = "", maximum: float | None = _GOLD_MAXIMUM
) -> _Pair:
    for sentence in (first, second):
        if not isinstance(sentence, str) or not sentence.strip():
            raise InputError(f"{where}: a sentence is empty or not text ({sentence!r}).")
        if not is_unicode(sentence):
            raise InputError(f"{where}: a sentence holds half a surrogate pair, which is not text.")
    if isinstance(score, str) and _DECIMAL_COMMA.fullmatch(score.strip()):
        score = score.replace(",", ".")
    try:
        value = math.nan if isinstance(score, bool) else float(score)
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value) or (maximum is not None and not 0 <= value <= maximum):
        wanted = "a finite number" if maximum is None else f"a number from 0 to {maximum:g}"
        raise InputError(f"{score_where or where}: the score is {score!r}, not {wanted}.")
    return _Pair(first, second, value)
