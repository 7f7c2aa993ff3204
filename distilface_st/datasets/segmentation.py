"""Splitting running text into sentences by rule: as English is punctuated, and by Unicode's marks of other scripts."""

from __future__ import annotations

import re
import unicodedata
from itertools import pairwise

import regex

# Scripts that put no space between words, and Unicode's sentence terminals but for those of Latin text: 。 ！ ؟ । ۔ ።
_UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}]"
_MARKS = rf"(?:[\p{{Sentence_Terminal}}--[.!?．]]|(?<={_UNSPACED})．(?!\p{{Nd}}))"
_BOUNDARY = regex.compile(
    # A run of such marks with what closes after it; or Latin ones between letters of a script without spaces.
    rf"(?V1)(?:(?:{_MARKS}[!?]*)+|(?<={_UNSPACED})[.!?]+(?={_UNSPACED}))[\p{{Pe}}\p{{Pf}}\"']*+\s*"
)
_UNSPACED_LETTER = regex.compile(_UNSPACED)
_WORD_BOUNDARY = regex.compile(r"(?V1w)\b")
_GRAPHEME = regex.compile(r"\X")
_OPENING = "\"'“‘«([{"
# An end mark with the quotes and brackets that close after it, white space, and the first character of what follows.
# The lookbehind lets a run of marks be tried from its start only, which keeps the search linear.
_CANDIDATE = re.compile(
    rf"(?<![.!?…])([.!?…]+)[\"'”’»)\]}}]*\s+(?=[{re.escape(_OPENING)}]*([^\s{re.escape(_OPENING)}]))"
)
_FIRST_WORD = re.compile(r"\W*(\w+)\b(?!\.)")
_LAST_WORD = re.compile(r"[\w.]+$")
_DOTTED = re.compile(r"(?:[^\W\d_]\.)+[^\W\d_]")
_LONGEST_ABBREVIATION = 12
_BEFORE_A_NAME = frozenset(
    "mr mrs ms mx dr prof rev fr hon pres gov sen rep gen lt col maj capt cpt cmdr adm sgt cpl pvt st mt ft "
    "mme mlle msgr vs viz cf e.g i.e eg ie incl".split()
)
_BEFORE_A_NUMBER = frozenset(
    "no nos nr fig figs eq eqs vol vols ch chap sec sect art p pp para c ca approx circa b d r fl est op jan feb mar "
    "apr jun jul aug sep sept oct nov dec".split()
)
_ANYWHERE = frozenset(
    "etc inc ltd co corp bros llc plc jr sr esq ph.d m.d b.a m.a al ed eds dept univ assn ave blvd rd bldg".split()
)
_STARTERS = frozenset(
    "a after all also although an and as at before both but by during each for from he her his how however i if in it "
    "its later many most my no on once one our she since so some such that the their then there these they this those "
    "to today two under until we what when where while who with you your".split()
)


def split_sentences(text: str) -> list[str]:
    r"""Split text into its sentences, stripped, none empty; white space between them is dropped and nothing else.

    A sentence ends at ``.``, ``!``, ``?`` or an ellipsis, with the quotes and brackets that close after it, where
    white space and something that can begin a sentence (a capital, a digit, a letter of a script without case) follow.
    A full stop ends none after a title (``Dr.``), before a number where it abbreviates (``No. 5``, ``Jan. 3``), or
    after the number that heads a list item; after an initial, a dotted acronym or an abbreviation such as ``Inc.`` it
    ends one only where a word follows that usually begins a sentence (``The``, ``He``, ``In``). Line breaks count as
    white space: split into paragraphs first, if that matters.

    The sentence terminals of other scripts (Unicode Standard Annex 29: Chinese and Japanese full stops, the Devanagari
    danda, Arabic question marks, ...) end one with or without white space. Thai and Lao have none.

    Example:
        >>> split_sentences('Dr. J. Smith paid 3.5 million. "Why?" Nobody at Acme Inc. knew.')
        ['Dr. J. Smith paid 3.5 million.', '"Why?"', 'Nobody at Acme Inc. knew.']
        >>> split_sentences("今天下雨。我们在家！")
        ['今天下雨。', '我们在家！']
    """
    if text.isascii():
        return _split_latin(text)
    ends = [found.end() for found in _BOUNDARY.finditer(text)]
    parts = [text[start:end] for start, end in zip([0, *ends], [*ends, len(text)], strict=True)]
    return [sentence for part in parts for sentence in _split_latin(part)]


def count_words(text: str) -> int:
    """Words of a text; in scripts that put no space between them, two letters count as one.

    Example:
        >>> count_words("It rained all day."), count_words("今天一直在下雨。")
        (4, 3)
    """
    return len(text.split()) if text.isascii() else max(len(text.split()), len(_UNSPACED_LETTER.findall(text)) // 2)


def cut_points(text: str) -> tuple[list[str], str]:
    """The smallest parts that text may be cut into, and what joins them again.

    They are words between white space; of a single such word, words by Unicode's rules; of one of these, graphemes:
    letters with their accents, emoji with what changes them.
    """
    words = text.split()
    if len(words) > 1:
        return words, " "
    parts = [part for part in _WORD_BOUNDARY.split(text) if part]
    return (parts if len(parts) > 1 else _GRAPHEME.findall(text)), ""


def joined(sentences: list[str]) -> str:
    """Sentences as one text, with a space between two unless both are wide, as in Chinese and Japanese.

    Example:
        >>> joined(["It rained.", "Why?"]), joined(["今天下雨。", "我们在家！"])
        ('It rained. Why?', '今天下雨。我们在家！')
    """
    text = "".join(sentences[:1])
    for before, sentence in pairwise(sentences):
        is_wide = all(unicodedata.east_asian_width(edge) in "WF" for edge in before[-1] + sentence[0])
        text += sentence if is_wide else f" {sentence}"
    return text


def _split_latin(text: str) -> list[str]:
    sentences = []
    start = 0
    for candidate in _CANDIDATE.finditer(text):
        if _ends_sentence(text, start, candidate):
            sentences.append(text[start : candidate.end()].strip())
            start = candidate.end()
    rest = text[start:].strip()
    return [*sentences, rest] if rest else sentences


def _ends_sentence(text: str, start: int, candidate: re.Match[str]) -> bool:
    mark, following = candidate.groups()
    if following.islower() or not (following.isalnum() or following in "$€£¥#@"):
        return False
    if mark != ".":
        return True
    before = text[max(start, candidate.start() - _LONGEST_ABBREVIATION) : candidate.start()]
    last_word = _LAST_WORD.search(before)
    if last_word is None:
        return True
    word = last_word.group()
    if word.isdigit():
        return bool(text[start : candidate.start()].strip() != word)
    abbreviation = word.lower()
    if abbreviation in _BEFORE_A_NAME or (abbreviation in _BEFORE_A_NUMBER and following.isdigit()):
        return False
    is_initial = len(word) == 1 and word.isupper()
    if is_initial or abbreviation in _ANYWHERE or _DOTTED.fullmatch(word):
        first_word = _FIRST_WORD.match(text, candidate.end())
        return first_word is not None and first_word[1].lower() in _STARTERS
    return True
