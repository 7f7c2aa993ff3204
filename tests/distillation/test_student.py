from __future__ import annotations

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, ElectraModel

from distilface_st import InputError, make_student, save_model
from distilface_st.distillation.student import choose_layers, factorised_encoder

SENTENCES = ["the old king of the north", "a red car", "she has been at school for two years", "music"]


def cosines(one, other):
    one, other = (model.encode(SENTENCES, normalize_embeddings=True) for model in (one, other))
    return (one * other).sum(axis=1)


@pytest.mark.parametrize(
    ("layers", "depth", "chosen"),
    [
        (None, 3, [0, 1, 2]),
        (3, 6, [0, 2, 4]),
        (2, 3, [0, 1]),
        (6, 12, [0, 2, 4, 6, 8, 10]),
        ("first:2", 6, [0, 1]),
        ([5, 0, 0], 6, [5, 0, 0]),
    ],
)
def test_layers_are_chosen_evenly_from_the_first_or_by_a_list(layers, depth, chosen):
    assert choose_layers(layers, depth) == chosen


@pytest.mark.parametrize("layers", [0, 7, "first:7", "first:x", "evenly", [6], [-1], []])
def test_layers_that_are_not_there_are_refused(layers):
    with pytest.raises(InputError, match="layers"):
        choose_layers(layers, 6)


def test_a_student_of_all_layers_is_its_teacher(teacher_model):
    student = make_student(teacher_model, device="cpu")
    np.testing.assert_allclose(student.encode(SENTENCES), teacher_model.encode(SENTENCES), atol=1e-6)


def test_kept_layers_are_the_teachers_and_the_teacher_stays_whole(teacher_model):
    before = teacher_model.encode(SENTENCES)
    student = make_student(teacher_model, layers=[3, 1, 1], device="cpu")
    mine, theirs = student[0].model.encoder.layer, teacher_model[0].model.encoder.layer
    for layer, index in zip(mine, (3, 1, 1), strict=True):
        for own, original in zip(layer.parameters(), theirs[index].parameters(), strict=True):
            assert own is not original
            np.testing.assert_array_equal(own.detach(), original.detach())
    assert mine[1] is not mine[2]
    np.testing.assert_array_equal(teacher_model.encode(SENTENCES), before)


def test_factorised_at_almost_full_width_is_the_teacher(teacher_model):
    student = make_student(teacher_model, embedding_size=31, device="cpu")
    assert cosines(student, teacher_model).min() > 0.98


def test_narrower_word_embeddings_are_farther_from_the_teacher_but_near(teacher_model):
    errors = [
        1 - cosines(make_student(teacher_model, embedding_size=size, device="cpu"), teacher_model).mean()
        for size in (31, 24, 12)
    ]
    assert errors == sorted(errors)
    assert errors[-1] < 0.5


def test_a_factorised_student_is_a_stock_model(teacher_model, tmp_path):
    student = make_student(teacher_model, layers=2, embedding_size=16, device="cpu")
    save_model(student, tmp_path / "student")
    opened = SentenceTransformer(str(tmp_path / "student"), device="cpu")
    assert isinstance(opened[0].model, ElectraModel)
    assert opened[0].model.config.embedding_size == 16
    assert isinstance(AutoModel.from_pretrained(tmp_path / "student"), ElectraModel)
    np.testing.assert_allclose(opened.encode(SENTENCES), student.encode(SENTENCES), atol=1e-6)


def test_a_trimmed_vocabulary_leaves_covered_text_alone(teacher_model, data):
    whole = make_student(teacher_model, device="cpu")
    student = make_student(teacher_model, vocabulary=215, data=data, device="cpu")
    assert student[0].model.config.vocab_size == len(student.tokenizer) == 215
    sentences = data.dataset[:40]["sentence"]
    covered = [s for s in sentences if student.tokenizer.tokenize(s) == whole.tokenizer.tokenize(s)]
    assert len(covered) > 5
    np.testing.assert_allclose(student.encode(covered), whole.encode(covered), atol=1e-6)


def test_all_dimensions_by_principal_components_keep_every_similarity(teacher_model, data):
    student = make_student(teacher_model, dimension=32, data=data, device="cpu")
    mine, theirs = (model.encode(SENTENCES, normalize_embeddings=True) for model in (student, teacher_model))
    np.testing.assert_allclose(mine @ mine.T, theirs @ theirs.T, atol=1e-5)


def test_fewer_dimensions_keep_similarities_better_than_the_first_ones_do(teacher_model, data):
    student = make_student(teacher_model, dimension=6, data=data, device="cpu")
    assert student.get_embedding_dimension() == 6
    texts = data.dataset[:100]["sentence"]
    whole = teacher_model.encode(texts, normalize_embeddings=True)
    mine = student.encode(texts, normalize_embeddings=True)
    first = teacher_model.encode(texts)[:, :6]
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    error, error_of_first = (np.square(rows @ rows.T - whole @ whole.T).mean() for rows in (mine, first))
    assert error < error_of_first


def test_what_cannot_be_cut_is_refused(teacher_model, tiny_distilbert, data, tmp_path):
    with pytest.raises(InputError, match="must be from 8 to 31"):
        make_student(teacher_model, embedding_size=32)
    with pytest.raises(InputError, match="dimension is 33"):
        make_student(teacher_model, dimension=33, data=data)
    with pytest.raises(InputError, match="needs sentences"):
        make_student(teacher_model, vocabulary=100)
    with pytest.raises(InputError, match="followed by a pooling"):
        make_student(SentenceTransformer(modules=[teacher_model[0]], device="cpu"))
    with pytest.raises(InputError, match="BERT and ELECTRA encoders, not in distilbert"):
        factorised_encoder(AutoModel.from_pretrained(tiny_distilbert), 16)
    with pytest.raises(InputError, match="factorised already"):
        factorised_encoder(make_student(teacher_model, embedding_size=16)[0].model, 12)
    with pytest.raises(InputError, match="no such folder"):
        make_student(tmp_path / "nothing")
