from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from distilface_st.models.build import build_model
from distilface_st.models.save import save_model
from distilface_st.recipes.app import app


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


def test_a_damaged_model_is_refused_by_every_command_in_one_line_and_nothing_is_written(invoke, tiny_encoder, tmp_path):
    damaged = build_model(tiny_encoder, device="cpu")
    next(damaged[0].parameters()).data.fill_(float("nan"))
    save_model(damaged, tmp_path / "model")
    (tmp_path / "c.txt").write_text("a cat\n", encoding="utf-8")
    before = {path.name for path in tmp_path.iterdir()}
    for command, *arguments in (
        ["similarity", "a cat", "a dog"],
        ["encode", tmp_path / "c.txt", tmp_path / "out.npy"],
        ["encode", tmp_path / "c.txt", tmp_path / "out.jsonl"],
        ["index", tmp_path / "c.txt", tmp_path / "index"],
    ):
        result = invoke(command, "--model", tmp_path / "model", *arguments)
        assert (command, result.exit_code) == (command, 1)
        assert "error: The model's embedding of 'a cat' is not finite" in result.stderr
        assert "Traceback" not in result.stderr
    result = invoke("serve", tmp_path / "model", "--port", 0)
    assert (result.exit_code, "is not finite" in result.stderr) == (1, True)
    assert {path.name for path in tmp_path.iterdir()} == before


def test_one_sentence_is_refused(invoke, model):
    result = invoke("similarity", "-m", model, "alone")
    assert result.exit_code == 1
    assert "Give two sentences or more" in result.stderr


@pytest.mark.parametrize("charset", ["cp1252", "ascii", "utf-8"])
@pytest.mark.parametrize("arguments", [("--json", "-"), ()])
def test_what_stdout_cannot_show_is_escaped(model, charset, arguments):
    texts = ["a cat", "猫", "😀 Grüße"]
    result = CliRunner(charset=charset).invoke(app, ["similarity", "-m", str(model), *texts, *arguments])
    assert result.exit_code == 0, result.output
    shown = result.stdout_bytes.decode(charset)
    if arguments:
        assert json.loads(shown)["sentences"] == texts
        assert ("猫" in shown) == (charset == "utf-8")
    else:
        assert ("猫" if charset == "utf-8" else "\\u732b") in shown


def test_text_in_another_encoding_is_refused_in_one_line(invoke, model):
    result = invoke("similarity", "-m", model, "caf\udce9", "tea")
    assert result.exit_code == 1
    assert result.stderr == "error: 'caf\\udce9' is not valid UTF-8: convert or rename it.\n"
