from __future__ import annotations

import json

import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

from .test_train import text  # noqa: F401 (a fixture)

pytestmark = pytest.mark.usefixtures("quick_runs")


@pytest.fixture(scope="module")
def teacher(tiny_encoder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher") / "model"
    model = SentenceTransformer(modules=[Transformer(str(tiny_encoder)), Pooling(32, "mean")], device="cpu")
    model.save(str(folder), create_model_card=False)
    return folder


def options(tmp_path, **changes):
    given = {"output": tmp_path / "run", "max-steps": 4, "batch-size": 8, "eval-steps": 2, "device": "cpu"}
    given |= {"cache-dir": tmp_path / "teachers", "layers": "2", "embedding-size": 16} | changes
    return [value for name, value in given.items() for value in (f"--{name}", value)]


def test_a_teacher_and_text_in_a_small_model_out(invoke, text, teacher, tmp_path):  # noqa: F811
    (tmp_path / "mine.tsv").write_text("a cat\ta dog\t4\na cat\tthe war\t1\na king\ta queen\t5\na king\ta car\t0\n")
    changes = {"vocabulary": "trim:170", "dimension": 12, "matryoshka-dim": 6, "eval-file": tmp_path / "mine.tsv"}
    result = invoke("distill", teacher, text, *options(tmp_path, **changes), "--json", "-")
    assert result.exit_code == 0, result.output
    run = json.loads(result.stdout)
    assert run["teachers"][0]["name"] == "model"
    assert run["config"]["matryoshka_dims"] == [6]
    model = SentenceTransformer(str(tmp_path / "run" / "model"), device="cpu")
    assert model.encode("a cat").shape == (12,)
    assert model[0].model.config.to_dict() | {"vocab_size": 170, "num_hidden_layers": 2, "embedding_size": 16} == (
        model[0].model.config.to_dict()
    )


def test_other_models_than_the_one_it_is_cut_from_can_teach(invoke, text, teacher, exported, tmp_path):  # noqa: F811
    several = ["--learn-from", exported, "--learn-from", teacher, "--teacher-weight", 2, "--teacher-weight", 1]
    result = invoke("distill", teacher, text, *options(tmp_path), *several, "--json", "-")
    assert result.exit_code == 0, result.output
    assert [found["name"] for found in json.loads(result.stdout)["teachers"]] == [exported.name, "model"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--layers", "9"], "the teacher has 4 layers"),
        (["--layers", "some"], "give a number, first:N, or indices"),
        (["--vocabulary", "half"], "give keep, or trim:N"),
        (["--vocabulary", "trim:3"], "3"),
        (["--embedding-size", "400"], "must be from 8 to 31"),
        (["--dimension", "99"], "dimension is 99"),
        (["--teacher-weight", "1", "--teacher-weight", "2"], "--teacher-weight is given 2 times, for 1 models"),
        (["--relational", "0", "--regression", "0", "--contrastive", "0"], "one of them must be above"),
        (["--learn-from", "./nowhere"], "no such folder"),
        (["--resume"], "holds no run to resume"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(invoke, text, teacher, tmp_path, arguments, message):  # noqa: F811
    result = invoke("distill", teacher, text, *options(tmp_path), *arguments)
    assert result.exit_code == 1, result.output
    assert message in " ".join(result.stderr.split())
    assert not (tmp_path / "run").exists()
