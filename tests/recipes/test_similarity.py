from __future__ import annotations

import json

import pytest

from distilface_st.models.build import build_model
from distilface_st.models.save import save_model


@pytest.fixture
def model(tiny_encoder, tmp_path):
    save_model(build_model(tiny_encoder, device="cpu"), tmp_path / "model")
    return tmp_path / "model"


def test_two_sentences_give_a_number(invoke, model):
    result = invoke("similarity", "--model", model, "a cat", "a cat")
    assert result.exit_code == 0
    assert result.stdout.strip() == "1.0000"


def test_more_give_a_table(invoke, model):
    result = invoke("similarity", "-m", model, "a cat", "a dog", "the war")
    assert result.exit_code == 0
    assert result.stdout.count("1.000") == 3


def test_json_on_stdout_is_all_there_is(invoke, model):
    result = invoke("similarity", "-m", model, "a cat", "a dog", "--json", "-")
    found = json.loads(result.stdout)
    assert found["similarity"] == "cosine"
    assert found["scores"][0][1] == pytest.approx(found["scores"][1][0])


def test_one_sentence_is_refused(invoke, model):
    result = invoke("similarity", "-m", model, "alone")
    assert result.exit_code == 1
    assert "Give two sentences or more" in result.stderr
