"""Splitting running text into sentences by rule, for text punctuated as English is."""

from __future__ import annotations

import re

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

    Example:
        >>> split_sentences('Dr. J. Smith paid 3.5 million. "Why?" Nobody at Acme Inc. knew.')
        ['Dr. J. Smith paid 3.5 million.', '"Why?"', 'Nobody at Acme Inc. knew.']
    """
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
