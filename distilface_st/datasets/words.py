"""The words that BM25 compares, of text in any script."""

from __future__ import annotations

import unicodedata
from functools import partial

import regex

_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\u30fc\p{Hangul}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_LETTER = rf"[\w--[{_UNSPACED}]]"
# A lone letter after an apostrophe, as in "don't", is no word.
_WORD = regex.compile(
    rf"(?V1)(?P<unspaced>[{_UNSPACED}]+)"
    rf"|(?P<marked>(?:(?<![\w.])\.(?=\p{{L}}))?(?P<word>{_LETTER}{{2,}}|(?<!['\u2019]){_LETTER})(?:[+#]++(?!\p{{L}}))?)"
)
_STOP_WORDS = frozenset(
    """a an and are as at be but by for if in into is it no not of on or such that the their then there these they this
to was will with""".split()
)


def words_of(text: str, is_query: bool = False) -> list[str]:
    """What BM25 compares: words in one Unicode form and case, and those that have marks, as ``c++``, with them too.

    In scripts that put no spaces between words, characters and pairs of neighbours stand for words; of a query pairs
    alone, if it has any.

    Example:
        >>> words_of("The R book, C++ and .NET"), words_of("我喜欢猫", is_query=True)
        (['r', 'book', 'c', 'c++', 'net', '.net'], ['我喜', '喜欢', '欢猫'])
    """
    found: list[str] = []
    form = partial(unicodedata.normalize, "NFKC")
    for match in _WORD.finditer(form(form(text).casefold())):
        if run := match["unspaced"]:
            pairs = [run[at : at + 2] for at in range(len(run) - 1)]
            found += pairs if is_query and pairs else [*run, *pairs]
        else:
            found += [each for each in dict.fromkeys((match["word"], match["marked"])) if each not in _STOP_WORDS]
    return found
