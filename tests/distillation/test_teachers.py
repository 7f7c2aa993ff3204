from __future__ import annotations

import copy
import json
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling

from distilface_st import InputError, open_teacher
from distilface_st.distillation import teachers
from distilface_st.distillation.teachers import Teacher, teacher_embeddings, teacher_of


class Counting:
    """A teacher that counts what it embeds and can be killed."""

    def __init__(self, dimension=5, fail_at=None, value=None):
        self.seen, self.dimension, self.fail_at, self.value = [], dimension, fail_at, value

    def encode(self, sentences, **options):
        if self.fail_at is not None and len(self.seen) >= self.fail_at:
            raise KeyboardInterrupt
        self.seen += sentences
        rows = np.array([np.random.default_rng(len(s)).normal(size=self.dimension) for s in sentences])
        return rows if self.value is None else rows * self.value


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(teachers, "CHUNK", 50)


def test_embeddings_are_the_teachers_row_by_row(teacher_model, data, tmp_path):
    found = teacher_embeddings(teacher_of(teacher_model), data, cache_dir=tmp_path)
    expected = teacher_model.encode(data.dataset["sentence"], normalize_embeddings=True)
    assert found.dtype == np.float16
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_a_killed_run_goes_on_where_it_was(data, tmp_path):
    whole = teacher_embeddings(Teacher(Counting(), "t", "a"), data, cache_dir=tmp_path / "whole")
    killed, again = Counting(fail_at=100), Counting()
    with pytest.raises(KeyboardInterrupt):
        teacher_embeddings(Teacher(killed, "t", "a"), data, cache_dir=tmp_path / "killed")
    done = []
    resumed = teacher_embeddings(Teacher(again, "t", "a"), data, cache_dir=tmp_path / "killed", progress=done.append)
    assert killed.seen + again.seen == list(data.dataset["sentence"])
    assert done == [100, 150, len(data.dataset)]
    np.testing.assert_array_equal(resumed, whole)


def test_a_run_on_the_same_text_embeds_nothing_again(data, tmp_path):
    teacher_embeddings(Teacher(Counting(), "t", "a"), data, cache_dir=tmp_path)
    second, other = Counting(), Counting()
    teacher_embeddings(Teacher(second, "t", "a"), data, cache_dir=tmp_path)
    teacher_embeddings(Teacher(other, "t", "b"), data, cache_dir=tmp_path)
    assert second.seen == []
    assert len(other.seen) == len(data.dataset)


@pytest.mark.parametrize("damage", ["{", '{"rows": 3}', None])
def test_a_damaged_cache_is_made_again(data, tmp_path, damage):
    whole = np.array(teacher_embeddings(Teacher(Counting(), "t", "a"), data, cache_dir=tmp_path))
    (record,) = tmp_path.glob("*.json")
    if damage is None:
        with record.with_suffix(".f16").open("r+b") as file:
            file.truncate(10)
    else:
        record.write_text(damage)
    again = Counting()
    found = teacher_embeddings(Teacher(again, "t", "a"), data, cache_dir=tmp_path)
    assert len(again.seen) == len(data.dataset)
    np.testing.assert_array_equal(found, whole)


def test_many_who_ask_a_new_teacher_at_once_have_each_sentence_embedded_once(data, tmp_path):
    together, counting = Barrier(4, timeout=20), Counting()

    def ask(number):
        together.wait()
        return np.array(teacher_embeddings(Teacher(counting, "t", "fp"), data, cache_dir=tmp_path))

    with ThreadPoolExecutor(4) as askers:
        first, *others = askers.map(ask, range(4))
    assert counting.seen == list(data.dataset["sentence"])
    assert all(np.array_equal(other, first) for other in others)


def test_other_settings_of_the_same_weights_are_another_teacher(teacher_model):
    found = [teacher_of(teacher_model).fingerprint]
    other = copy.deepcopy(teacher_model)
    assert teacher_of(other).fingerprint == found[0]
    other.max_seq_length = 7
    found.append(teacher_of(other).fingerprint)
    other.truncate_dim = 8
    found.append(teacher_of(other).fingerprint)
    other.prompts = {"query": "query: "}
    other.default_prompt_name = "query"
    found.append(teacher_of(other).fingerprint)
    pooled = SentenceTransformer(modules=[teacher_model[0], Pooling(32, "cls")], device="cpu")
    found.append(teacher_of(pooled).fingerprint)
    assert len(set(found)) == len(found)


def test_embeddings_that_cannot_be_are_refused(data, tmp_path):
    with pytest.raises(InputError, match="not finite"):
        teacher_embeddings(Teacher(Counting(value=np.nan), "t", "a"), data, cache_dir=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        teacher_embeddings(Teacher(Counting(fail_at=50), "t", "a"), data, cache_dir=tmp_path)
    with pytest.raises(InputError, match="gives 7 dimensions, before 5"):
        teacher_embeddings(Teacher(Counting(dimension=7), "t", "a"), data, cache_dir=tmp_path)


@pytest.mark.slow
def test_an_exported_teacher_runs_on_its_engine(exported, tiny_model):
    teacher = open_teacher(exported)
    assert type(teacher.encoder).__name__ == "EdgeEncoder"
    found = teacher.encoder.encode(["a red car"], normalize_embeddings=True)
    np.testing.assert_allclose(found, tiny_model.encode(["a red car"], normalize_embeddings=True), atol=1e-2)
    manifest = json.loads((exported / "export.json").read_text())
    assert teacher.fingerprint != manifest["model"]["fingerprint"]
