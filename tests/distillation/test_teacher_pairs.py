from __future__ import annotations

import numpy as np
import pytest

from distilface_st import InputError
from distilface_st.distillation.teachers import Teacher, teacher_of, teacher_pairs
from distilface_st.evaluation.sts import sts_suite


class Vectors:
    def __init__(self, sentences, seed):
        rng = np.random.default_rng(seed)
        self.known = {sentence: rng.normal(size=6) for sentence in sentences}

    def encode(self, sentences, **options):
        rows = np.array([self.known[sentence] for sentence in sentences])
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


SENTENCES = [f"sentence {number}" for number in range(40)]


def test_pairs_are_scored_as_the_teachers_say_and_hold_each_sentences_nearest():
    one, two = Vectors(SENTENCES, 1), Vectors(SENTENCES, 2)
    task = teacher_pairs([Teacher(one, "a", "a"), Teacher(two, "b", "b")], SENTENCES, [1.0, 3.0])
    cosines = [(v.encode(task.sentences1) * v.encode(task.sentences2)).sum(axis=1) for v in (one, two)]
    np.testing.assert_allclose(task.subsets[0].scores, cosines[0] / 4 + cosines[1] * 3 / 4, atol=1e-6)
    assert all(first != second for first, second in zip(task.sentences1, task.sentences2, strict=True))
    whole = (one.encode(SENTENCES) @ one.encode(SENTENCES).T) / 4 + (
        two.encode(SENTENCES) @ two.encode(SENTENCES).T
    ) * 0.75
    np.fill_diagonal(whole, -1)
    pairs = set(zip(task.sentences1, task.sentences2, strict=True))
    assert all((SENTENCES[i], SENTENCES[int(whole[i].argmax())]) in pairs for i in range(len(SENTENCES)))


def test_the_teacher_itself_agrees_and_a_stranger_does_not(teacher_model, data):
    task = teacher_pairs([teacher_of(teacher_model)], data.dataset[:50]["sentence"])
    assert sts_suite(teacher_model, tasks=[task])["scores"]["teacher"] > 99.9
    own = teacher_pairs([Teacher(Vectors(data.dataset[:50]["sentence"], 3), "v", "v")], data.dataset[:50]["sentence"])
    assert sts_suite(teacher_model, tasks=[own])["scores"]["teacher"] < 50


def test_one_sentence_is_too_few():
    with pytest.raises(InputError, match="at least two"):
        teacher_pairs([Teacher(Vectors(SENTENCES, 1), "a", "a")], SENTENCES[:1])
