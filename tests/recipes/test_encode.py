from __future__ import annotations

import json

import numpy as np
import pytest
from pyarrow import parquet

from distilface_st import InputError
from distilface_st.inference.precision import PRECISIONS, SCALED, quantize_embeddings, ranges_of
from distilface_st.models import encode_file as encoding
from distilface_st.models.build import build_model
from distilface_st.models.load import load_model
from distilface_st.models.save import save_model

LINES = ["the cat", "", "a man in the house", "war", "the king and the queen"]


@pytest.fixture
def model(tiny_encoder, tmp_path):
    save_model(build_model(tiny_encoder, device="cpu"), tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def source(tmp_path):
    (tmp_path / "in.txt").write_text("\n".join(LINES) + "\n")
    return tmp_path / "in.txt"


def read(path):
    if path.suffix == ".npy":
        return None, np.load(path)
    if path.suffix == ".parquet":
        table = parquet.read_table(path)
        return table["text"].to_pylist(), np.stack(table["embedding"].to_numpy())
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [row["text"] for row in rows], np.array([row["embedding"] for row in rows], dtype=np.float32)


@pytest.mark.parametrize("ending", [".npy", ".parquet", ".jsonl"])
def test_row_i_belongs_to_line_i_across_chunks(invoke, model, source, tmp_path, monkeypatch, ending):
    monkeypatch.setattr(encoding, "CHUNK", 2)
    output = tmp_path / f"out{ending}"
    result = invoke("encode", "--model", model, source, output, "--device", "cpu", "--json", "-")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["rows"] == 5
    texts, embeddings = read(output)
    assert texts in (None, LINES)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(embeddings, load_model(model, device="cpu").encode(LINES), atol=1e-5)


def test_normalized_embeddings_have_length_1(invoke, model, source, tmp_path):
    invoke("encode", "--model", model, source, tmp_path / "out.npy", "--normalize")
    np.testing.assert_allclose(np.linalg.norm(np.load(tmp_path / "out.npy"), axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("runtime", ["torch", None])
def test_texts_that_are_longer_than_the_model_reads_are_counted(invoke, model, exported, tmp_path, runtime):
    lines = ["cat " * 62, "cat " * 63, "e" * 70, "zwei", "cat " * 500]  # 62 tokens and two special ones are read
    (tmp_path / "in.txt").write_text("\n".join(lines), encoding="utf-8")
    folder = model if runtime else exported
    result = invoke("encode", "--model", folder, tmp_path / "in.txt", tmp_path / "out.npy", "--json", tmp_path / "j")
    assert json.loads((tmp_path / "j").read_text())["cut"] == 3
    assert "3 of 5 texts are longer than the model reads" in " ".join(result.output.split())
    (tmp_path / "in.txt").write_text("\n".join(lines[3:4]), encoding="utf-8")
    assert "are longer" not in invoke("encode", "--model", folder, tmp_path / "in.txt", tmp_path / "out.npy").output


def test_an_unknown_ending_is_refused_before_anything_runs(invoke, model, source, tmp_path):
    result = invoke("encode", "--model", model, source, tmp_path / "out.xlsx")
    assert result.exit_code == 1
    assert "embeddings go to .npy, .jsonl, .parquet" in result.stderr


def test_a_failure_leaves_no_half_file_and_an_old_one_alone(invoke, model, tmp_path):
    output = tmp_path / "out.npy"
    output.write_bytes(b"precious")
    (tmp_path / "bad.txt").write_bytes(b"fine\n\xff\xfe\n")
    result = invoke("encode", "--model", model, tmp_path / "bad.txt", output)
    assert result.exit_code == 1
    assert "UTF-8" in result.stderr
    assert output.read_bytes() == b"precious"
    assert {path.name for path in tmp_path.iterdir()} == {"model", "bad.txt", "out.npy"}


def test_the_text_itself_is_not_written_over(tmp_path):
    text = tmp_path / "text.jsonl"
    text.write_text('{"text": "a"}\n', encoding="utf-8")
    (tmp_path / "link.jsonl").symlink_to(text)
    for output in (text, tmp_path / "link.jsonl"):
        with pytest.raises(InputError, match="is the text itself"):
            encoding.encode_file(None, text, output)
    assert text.read_text(encoding="utf-8") == '{"text": "a"}\n'


class Numbers:
    """Embeds a text that is a number by as many random ones, the same each time, which grow with it."""

    def get_embedding_dimension(self):
        return 12

    def encode(self, texts, **_):
        return np.stack([np.random.default_rng(int(text)).normal(size=12) * (1 + int(text)) for text in texts])


@pytest.fixture
def numbers(tmp_path, monkeypatch):
    """Seven texts in three chunks, the last of one text, and their embeddings."""
    monkeypatch.setattr(encoding, "CHUNK", 3)
    texts = [str(number) for number in range(7)]
    (tmp_path / "numbers.txt").write_text("\n".join(texts) + "\n")
    return tmp_path / "numbers.txt", Numbers().encode(texts).astype(np.float32)


@pytest.mark.parametrize("ending", [".npy", ".parquet", ".jsonl"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_file_is_quantized_as_a_whole(numbers, tmp_path, ending, precision):
    source, embeddings = numbers
    done = []
    result = encoding.encode_file(
        Numbers(), source, tmp_path / f"out{ending}", precision=precision, progress=done.append
    )
    _, found = read(tmp_path / f"out{ending}")
    expected = quantize_embeddings(embeddings, precision)
    assert ending == ".jsonl" or found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
    ranges = ranges_of(embeddings).tolist() if precision in SCALED else None
    assert (result["precision"], result["width"], result["ranges"]) == (precision, expected.shape[1], ranges)
    assert (result["rows"], result["dimension"], done) == (7, 12, [3, 6, 7])
    assert {path.name for path in tmp_path.iterdir()} == {"numbers.txt", f"out{ending}"}
    if ending == ".jsonl":
        row = json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])
        assert {type(number) for number in row["embedding"]} == {float if precision == "float32" else int}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_parquet_says_how_its_embeddings_are_stored(numbers, tmp_path, precision):
    source, _ = numbers
    result = encoding.encode_file(Numbers(), source, tmp_path / "out.parquet", precision=precision)
    metadata = parquet.read_schema(tmp_path / "out.parquet").metadata
    assert metadata[b"precision"].decode() == precision
    assert json.loads(metadata.get(b"ranges", b"null")) == result["ranges"]


def test_a_second_file_takes_the_ranges_of_the_first(numbers, tmp_path):
    source, embeddings = numbers
    (tmp_path / "one.txt").write_text("3\n")
    first = encoding.encode_file(Numbers(), source, tmp_path / "first.npy", precision="int8")
    encoding.encode_file(Numbers(), tmp_path / "one.txt", tmp_path / "n.npy", precision="int8", ranges=first["ranges"])
    np.testing.assert_array_equal(np.load(tmp_path / "n.npy"), np.load(tmp_path / "first.npy")[3:4])
    query = quantize_embeddings(embeddings[3], "int8", first["ranges"])
    np.testing.assert_array_equal(query, np.load(tmp_path / "first.npy")[3])


@pytest.mark.parametrize(
    ("lines", "precision", "message"),
    [
        ("3\n", "uint8", "uint8 needs the range of each dimension"),
        ("", "int8", "holds no text"),
        ("3\n4\n", "half", "no precision 'half': choose from float32, int8, uint8, binary, ubinary"),
    ],
)
def test_what_cannot_be_quantized_is_refused_and_leaves_nothing(tmp_path, lines, precision, message):
    (tmp_path / "in.txt").write_text(lines)
    with pytest.raises(InputError, match=message):
        encoding.encode_file(Numbers(), tmp_path / "in.txt", tmp_path / "out.npy", precision=precision)
    assert [path.name for path in tmp_path.iterdir()] == ["in.txt"]


@pytest.mark.parametrize("precision", ["int8", "ubinary"])
@pytest.mark.parametrize("runtime", ["torch", None])
def test_the_command_quantizes_in_torch_and_without(invoke, model, exported, source, tmp_path, precision, runtime):
    folder = model if runtime else exported
    invoke("encode", "--model", folder, source, tmp_path / "float.npy")
    arguments = ["--precision", precision, "--json", tmp_path / "result.json"]
    result = invoke("encode", "--model", folder, source, tmp_path / "out.npy", *arguments)
    assert result.exit_code == 0, result.output
    written = json.loads((tmp_path / "result.json").read_text())
    assert f"32 dimensions in {precision}, {written['width']} bytes each" in " ".join(result.output.split())
    expected = quantize_embeddings(np.load(tmp_path / "float.npy"), precision, written["ranges"])
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), expected)
