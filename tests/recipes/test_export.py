from __future__ import annotations

import json

import pytest

from distilface_st import EdgeEncoder, build_model, save_model
from tests.conftest import make_encoder

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

PAIRS = "\n".join(
    f"a {a} is here\tthe {b} is here\t{len(a) % 4}"
    for a, b in zip("cat dogs river".split() * 4, range(12), strict=True)
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A saved model of a single layer, which is exported twice as fast as ``tiny_model``."""
    folder = tmp_path_factory.mktemp("model")
    encoder = make_encoder(folder / "encoder", num_hidden_layers=1)
    save_model(build_model(encoder, layers="last", device="cpu"), folder / "model")
    return folder / "model"


def test_it_exports_scores_and_says_what_it_wrote(model, tmp_path, invoke):
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("sentence1\tsentence2\tscore\n" + PAIRS)
    text = tmp_path / "text.txt"
    text.write_text("a cat is here\nthe river is small\n" * 20)
    items = [{"query": f"a {word}", "document": f"the {word} is here"} for word in ("cat", "dog", "river")]
    (model.parent / "test.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    result = invoke(
        *("export", model, "--output", tmp_path / "export", "--precision", "int8"),
        *("--calibration", text, "--eval-file", pairs, "--max-loss", 100, "--json", tmp_path / "export.json"),
    )
    assert result.exit_code == 0, result.output
    assert "onnxruntime" in result.output
    written = json.loads((tmp_path / "export.json").read_text())
    graph = written["graphs"]["onnxruntime"]
    assert (written["precision"], written["activations"]) == ("int8", "dynamic")
    assert graph["scores"]["loss"] == pytest.approx(graph["scores"]["before"] - graph["scores"]["after"])
    assert written["own_test"].keys() == {"before", "after"}
    assert "in the run's own test" in result.output
    assert EdgeEncoder(tmp_path / "export").encode("a cat").shape == (32,)


def test_an_exported_folder_serves_the_other_commands(exported, tmp_path, invoke):
    result = invoke("similarity", "--model", exported, "--runtime", "onnxruntime", "--threads", 1, "a cat", "a cat")
    assert result.output.strip() == "1.0000"
    (tmp_path / "text.txt").write_text("a cat\na dog\n")
    result = invoke("encode", tmp_path / "text.txt", tmp_path / "out.npy", "--model", exported, "--runtime", "auto")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out.npy").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "tflite"], "'tflite' is not one of onnx, openvino"),
        (["--precision", "int4"], "'int4' is not one of fp32, fp16, int8"),
        (["--max-loss", "1", "--eval-file", "nothing.tsv"], "nothing.tsv"),
        (["--calibration", "nothing.txt", "--precision", "int8"], "nothing.txt"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(model, tmp_path, invoke, arguments, message):
    result = invoke("export", model, "--output", tmp_path / "export", *arguments)
    assert result.exit_code == 1
    assert message in result.output
    assert result.output.strip().count("\n") == 0
    assert not list(tmp_path.iterdir())


def test_outputs_that_cannot_be_written_and_models_that_are_not_there_are_one_line(model, tmp_path, invoke):
    (tmp_path / "file").write_text("kept")
    result = invoke("export", model, "--output", tmp_path / "file")
    assert (result.exit_code, "is a file" in result.output) == (1, True)
    assert (tmp_path / "file").read_text() == "kept"
    result = invoke("export", model, "--output", "/proc/export")
    assert (result.exit_code, result.output.strip().count("\n")) == (1, 0)
    result = invoke("export", tmp_path / "nothing", "--output", tmp_path / "export")
    assert (result.exit_code, "no such folder" in result.output) == (1, True)


def test_a_runtime_for_a_model_that_is_not_exported_is_one_line(model, invoke):
    result = invoke("similarity", "--model", model, "--runtime", "openvino", "a", "b")
    assert result.exit_code == 1
    assert "is not an exported model" in result.output
