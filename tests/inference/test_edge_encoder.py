from __future__ import annotations

import copy
import json
import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distilface_st import EdgeEncoder, InputError, load_model
from distilface_st.inference.edge_encoder import _cut
from distilface_st.inference.manifest import graph_files
from tests.conftest import COMMON_WORDS

pytest.importorskip("onnxruntime")

RUNTIMES = ["onnxruntime", "openvino"]

BLOCKED = """
import sys
for name in ("torch", "transformers", "sentence_transformers", "scipy", "datasets", "openvino"):
    sys.modules[name] = None
{line}
embeddings = EdgeEncoder(sys.argv[1], "onnxruntime").encode(["a cat", "a dog", "the king of the state"])
print(embeddings.shape, embeddings.dtype, sorted(m for m in ("typer", "rich", "huggingface_hub") if m in sys.modules))
"""
"""A program that imports the encoder with the line that the model's card shows."""


@pytest.fixture(scope="module")
def encoder(exported) -> EdgeEncoder:
    return EdgeEncoder(exported, "onnxruntime")


@pytest.fixture
def copied(exported, tmp_path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "copy"))


def sentences(count: int, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(COMMON_WORDS, rng.integers(0, 30))) for _ in range(count)]


def test_it_runs_where_torch_and_transformers_cannot_be_imported(exported):
    card = (exported / "README.md").read_text(encoding="utf-8")
    (line,) = (line for line in card.splitlines() if line.startswith("from") and "EdgeEncoder" in line)
    program = BLOCKED.replace("{line}", line)
    done = subprocess.run([sys.executable, "-c", program, exported], capture_output=True, text=True, check=False)
    assert done.stdout == "(3, 32) float32 []\n", done.stderr


def test_it_gives_what_the_model_gives_in_the_order_of_the_sentences(tiny_model, encoder):
    texts = sentences(1300)  # more than two chunks
    np.testing.assert_allclose(encoder.encode(texts), tiny_model.encode(texts), atol=1e-4, rtol=1e-4)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.sampled_from(sentences(40)), max_size=30), st.integers(1, 200))
def test_a_sentences_embedding_does_not_depend_on_its_batch(encoder, texts, batch_tokens):
    found = encoder.encode(texts, batch_tokens=batch_tokens)
    assert found.shape == (len(texts), 32)
    for text, row in zip(texts, found, strict=True):
        np.testing.assert_allclose(row, encoder.encode(text), atol=1e-5)


@given(st.lists(st.integers(1, 60), max_size=50), st.integers(1, 200))
def test_batches_hold_every_row_once_and_no_more_tokens_than_the_budget(lengths, budget):
    ids = [[0] * length for length in lengths]
    order = sorted(range(len(ids)), key=lambda row: -lengths[row])
    parts = list(_cut(order, ids, budget))
    assert [row for part in parts for row in part] == order
    for part in parts:
        assert len(part) == 1 or len(part) * max(lengths[row] for row in part) <= budget


def test_a_string_gives_a_vector_and_a_list_a_matrix(encoder):
    assert encoder.encode("a cat").shape == (32,)
    assert encoder.encode(["a cat"]).shape == (1, 32)
    assert encoder.encode([]).shape == (0, 32)
    assert encoder.encode(("a cat", "a dog")).dtype == np.float32


@pytest.mark.parametrize("text", ["", " ", "🙂🙃", "a\0b", "\u202e", "ﷺ" * 50, "word " * 100_000])
def test_unusual_strings_are_embedded_as_the_model_does(tiny_model, encoder, text):
    np.testing.assert_allclose(encoder.encode(text), tiny_model.encode(text), atol=1e-4)
    np.testing.assert_allclose(encoder.encode([text, "a cat"])[0], tiny_model.encode(text), atol=1e-4)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("opened", [EdgeEncoder, load_model])
def test_texts_without_any_token_have_zeros_and_change_no_other(copied, runtime, side, opened):
    pytest.importorskip(runtime)
    for name, changes in (("tokenizer.json", {"post_processor": None}), ("export.json", {"padding_side": side})):
        (copied / name).write_text(json.dumps(json.loads((copied / name).read_text()) | changes))
    encoder = opened(copied, runtime=runtime)
    cat = encoder.encode("a cat")
    assert np.isfinite(cat).all()
    assert cat.any()
    for empty in ("", " ", "\n"):
        np.testing.assert_array_equal(encoder.encode(empty), np.zeros(32))
        np.testing.assert_array_equal(encoder.encode([empty]), np.zeros((1, 32)))
        np.testing.assert_array_equal(encoder.encode([empty] * 3, batch_size=2), np.zeros((3, 32)))
        rows = encoder.encode([empty, "a cat", empty], normalize_embeddings=False)
        np.testing.assert_allclose(rows, np.stack([np.zeros(32), cat, np.zeros(32)]), atol=1e-5)
    assert np.isfinite(encoder.encode(["[CLS]", "[PAD]", "🙂"], normalize_embeddings=True)).all()
    assert len(encoder.encode([])) == 0
    assert encoder.encode(["", "cat"], prompt="a ").shape == (2, 32)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([3], "Sentence 0 is of type int"),
        (["a", None], "Sentence 1 is of type NoneType"),
        ([("a", "b")], "Sentence 0 is of type tuple"),
        ([b"a"], "Sentence 0 is of type bytes"),
        (["\ud800"], "Sentence 0 is not valid Unicode"),
        ("\ud800", "Sentence 0 is not valid Unicode"),
    ],
)
def test_what_is_no_string_is_refused(encoder, bad, message):
    with pytest.raises(InputError, match=message):
        encoder.encode(bad)


@pytest.mark.parametrize("kind", [tuple, np.array, pandas.Series, iter, lambda texts: dict.fromkeys(texts).keys()])
def test_a_sequence_of_any_kind_is_a_list(encoder, kind):
    texts = ["the cat", "a dog barks"]
    np.testing.assert_array_equal(encoder.encode(kind(texts)), encoder.encode(texts))


@pytest.mark.parametrize(
    "given",
    [{"a": "the cat"}, {"the cat"}, pandas.DataFrame({"text": ["the cat"]}), np.array("the cat"), None, 3, b"a"],
)
def test_what_has_names_or_no_order_is_refused(encoder, given):
    for call in (encoder.encode, encoder.token_counts, encoder.input_lengths):
        with pytest.raises(InputError, match="must be a list of strings, not of type"):
            call(given)
    with pytest.raises(InputError, match="not of type str"):
        encoder.token_counts("the cat")  # not of each letter


def test_prompts_truncation_and_normalization_are_the_models(tiny_model, encoder):
    texts = sentences(5, seed=1)
    kwargs = {"prompt_name": "query", "truncate_dim": 8, "normalize_embeddings": True}
    np.testing.assert_allclose(encoder.encode(texts, **kwargs), tiny_model.encode(texts, **kwargs), atol=1e-5)
    assert encoder.encode("a cat", truncate_dim=8).shape == (8,)
    assert np.linalg.norm(encoder.encode("a cat", normalize_embeddings=True)) == pytest.approx(1, abs=1e-6)
    with pytest.raises(InputError, match="no prompt 'nothing'; it has document, query"):
        encoder.encode(texts, prompt_name="nothing")
    for wrong in (0, 33):
        with pytest.raises(InputError, match=f"truncate_dim is {wrong}"):
            encoder.encode(texts, truncate_dim=wrong)
    with pytest.raises(InputError, match="batch_tokens is 0"):
        encoder.encode(texts, batch_tokens=0)


def test_the_longest_input_can_be_shortened_but_not_lengthened(exported):
    encoder = EdgeEncoder(exported, "onnxruntime")
    long = "cat dog " * 40
    whole = encoder.encode(long)
    encoder.max_seq_length = 6
    np.testing.assert_allclose(encoder.encode(long), encoder.encode("cat dog cat dog"), atol=1e-6)
    assert not np.allclose(encoder.encode(long), whole, atol=1e-3)
    with pytest.raises(InputError, match="1 to 64 tokens"):
        encoder.max_seq_length = 65


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_threads_may_share_an_encoder(exported, runtime):
    pytest.importorskip(runtime)
    encoder = EdgeEncoder(exported, runtime)
    texts = [sentences(20, seed) for seed in range(16)]
    alone = [encoder.encode(part) for part in texts]
    with ThreadPoolExecutor(8) as pool:
        for expected, found in zip(alone, pool.map(encoder.encode, texts), strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("travel", [copy.deepcopy, lambda encoder: pickle.loads(pickle.dumps(encoder))])
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_copy_opens_the_folder_anew_as_it_was_set(exported, monkeypatch, travel, runtime):
    pytest.importorskip(runtime)
    monkeypatch.chdir(exported.parent)
    encoder = EdgeEncoder(exported.name, runtime, threads=1)
    encoder.max_seq_length, encoder.default_prompt_name, encoder.truncate_dim = 5, "query", 8
    expected = encoder.encode(["cat dog " * 9, "a cat"])
    monkeypatch.chdir(exported.parent.parent)
    twin = travel(encoder)
    np.testing.assert_array_equal(twin.encode(["cat dog " * 9, "a cat"]), expected)
    assert (twin.runtime, twin.max_seq_length) == (runtime, 5)
    twin.max_seq_length = 4
    assert encoder.max_seq_length == 5


def test_a_pickle_holds_the_folders_name_and_not_its_files(copied):
    pickled = pickle.dumps(EdgeEncoder(copied, "onnxruntime"))
    assert len(pickled) < 4000
    assert b"distilface-micro" in pickle.dumps(EdgeEncoder("micro"))
    manifest = json.loads((copied / "export.json").read_text())
    (copied / "export.json").write_text(json.dumps(manifest | {"max_seq_length": 32}))
    with pytest.raises(InputError, match="another model than when this encoder was copied"):
        pickle.loads(pickled)


def test_what_one_call_returned_is_not_overwritten_by_the_next(exported):
    pytest.importorskip("openvino")
    encoder = EdgeEncoder(exported, "openvino")
    first = encoder.encode("a cat")
    before = first.copy()
    encoder.encode("the king and the queen")
    np.testing.assert_array_equal(first, before)


def test_auto_takes_one_of_the_installed_runtimes(exported):
    pytest.importorskip("openvino")
    encoder = EdgeEncoder(exported, "auto", threads=1)
    assert encoder.runtime in RUNTIMES
    assert encoder.encode("a cat").shape == (32,)


def test_auto_and_the_default_leave_out_what_is_not_installed(exported, monkeypatch):
    from distilface_st.inference import engines

    monkeypatch.setattr(engines, "find_spec", lambda name: object() if name == "onnxruntime" else None)
    assert EdgeEncoder(exported, "auto").runtime == "onnxruntime"
    assert EdgeEncoder(exported).runtime == "onnxruntime"
    with pytest.raises(ImportError, match=r'pip install "distilface-st\[openvino\]"'):
        EdgeEncoder(exported, "openvino")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"runtime": "tensorrt"}, "no runtime 'tensorrt'"),
        ({"runtime": "onnxruntime", "threads": 0}, "threads is 0"),
        ({"runtime": "onnxruntime", "providers": ["TeapotExecutionProvider"]}, "no provider TeapotExecutionProvider"),
        ({"runtime": "openvino", "providers": ["TEAPOT"]}, "OpenVINO cannot open"),
    ],
)
def test_settings_that_no_engine_has_are_refused(exported, options, message):
    pytest.importorskip(options["runtime"] if options["runtime"] in RUNTIMES else "onnxruntime")
    with pytest.raises(InputError, match=message):
        EdgeEncoder(exported, **options)


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "remove"])
@pytest.mark.parametrize(("runtime", "name"), [(r, name) for r in RUNTIMES for name in graph_files(r, "fp32")])
@pytest.mark.parametrize("opened", [EdgeEncoder, load_model])
def test_damaged_graph_files_are_refused(copied, runtime, name, damage, opened):
    path = copied / name
    content = bytearray(path.read_bytes())
    if damage == "truncate":
        path.write_bytes(content[:-100])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "remove":
        path.unlink()
    else:
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    with pytest.raises(InputError, match=f"{name} is (damaged|missing)"):
        opened(copied, runtime=runtime)


@pytest.mark.parametrize("opened", [EdgeEncoder, load_model])
def test_a_folder_without_tokenizer_or_with_a_damaged_one_is_refused(copied, opened):
    (copied / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match=r"tokenizer\.json is damaged"):
        opened(copied)
    (copied / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"has no tokenizer\.json"):
        opened(copied)


def test_damaged_manifests_are_refused(copied, tiny_encoder, tmp_path):
    path = copied / "export.json"
    manifest = json.loads(path.read_text())

    def refused(content: object, message: str) -> None:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        with pytest.raises(InputError, match=message):
            EdgeEncoder(copied)

    refused("{", "is damaged")
    refused([], "is damaged")
    refused({}, "is damaged")
    refused({**manifest, "format_version": 3}, "format version 3; this package reads 2")
    refused({**manifest, "graphs": {}}, "is damaged")
    refused({**manifest, "graphs": {"onnxruntime": {"files": {"../model.onnx": {}}}}}, "is damaged")
    refused({**manifest, "graphs": {"tensorrt": {"files": {}}}}, "is damaged")
    refused({**manifest, "unknown": 1}, "is damaged")
    refused({**manifest, "max_seq_length": "64"}, "is damaged")
    refused({**manifest, "max_seq_length": 0}, "is damaged")
    refused({**manifest, "padding_side": "top"}, "is damaged")
    refused({**manifest, "graphs": {"onnxruntime": {"files": {"model.onnx": {"bytes": 3}}}}}, "is damaged")
    with pytest.raises(InputError, match="is not an exported model"):
        EdgeEncoder(tiny_encoder)
    with pytest.raises(InputError, match="no such folder"):
        EdgeEncoder(tmp_path / "nothing")


def test_a_graph_that_is_no_graph_is_refused_even_if_the_manifest_vouches_for_it(copied):
    from dataclasses import replace

    from distilface_st.inference.manifest import describe_files, read_manifest

    (copied / "onnx/model.onnx").write_bytes(b"not a graph" * 100)
    (copied / "openvino/openvino_model.xml").write_text("<net>")
    manifest = read_manifest(copied)
    graphs = {
        name: replace(graph, files=describe_files(copied, [*graph.files])) for name, graph in manifest.graphs.items()
    }
    replace(manifest, graphs=graphs).write(copied)
    for runtime in RUNTIMES:
        with pytest.raises(InputError, match="cannot open"):
            EdgeEncoder(copied, runtime)


def test_a_runtime_that_the_folder_has_no_graph_for_is_refused(copied):
    path = copied / "export.json"
    manifest = json.loads(path.read_text())
    del manifest["graphs"]["openvino"]
    path.write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="no graph for openvino, only for onnxruntime"):
        EdgeEncoder(copied, "openvino")
    assert EdgeEncoder(copied).runtime == "onnxruntime"
