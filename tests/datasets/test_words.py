import unicodedata

from distilface_st.datasets.words import words_of


def test_words_of_one_form():
    assert words_of("x²: İ") == words_of(unicodedata.normalize("NFD", "X2: i̇"))
    assert words_of("don't, it’s R&D") == ["don", "r", "d"]
