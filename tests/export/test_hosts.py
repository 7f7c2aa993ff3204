"""What an export looks like to other software, and what that software makes of it."""

from __future__ import annotations

import functools
import http.server
import json
import shutil
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

from distilface_st import EdgeEncoder, export_model, load_model, save_model
from distilface_st.errors import InputError

SENTENCES = [
    *("A man is playing a guitar.", "the small house", "?", "Ünïcödé and 123", "don't", "a city by the river"),
    "the people of the old city and the first state were at war with the king for a year " * 4,
]
JAVASCRIPT = Path(__file__).with_name("javascript")


def read(path: Path):
    return json.loads(path.read_text(encoding="utf-8"))


def assert_alike(found, folder: Path, least: float = 0.999):
    expected = EdgeEncoder(folder, runtime="onnxruntime").encode(SENTENCES, normalize_embeddings=True)
    found = np.asarray(found) / np.linalg.norm(found, axis=1, keepdims=True)
    assert (found * expected).sum(axis=1).min() >= least


@pytest.fixture(scope="module")
def plain_mean(tiny_encoder, tmp_path_factory):
    """An encoder whose last layer is pooled by its mean, in float32 for torch and onnxruntime."""
    for name in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(name)
    modules = [Transformer(str(tiny_encoder)), Pooling(32, "mean")]
    model = SentenceTransformer(modules=modules, device="cpu", prompts={"query": "the query of "})
    folder = tmp_path_factory.mktemp("hosts") / "export"
    export_model(model, folder, torch_weights=True, plain=True)
    return folder


def test_settings_are_those_that_models_on_the_hub_have(exported, plain_mean):
    assert [entry["type"] for entry in read(plain_mean / "modules.json")] == [
        "sentence_transformers.models.Transformer",
        "sentence_transformers.models.Pooling",
    ]
    assert read(plain_mean / "1_Pooling/config.json") == {
        "word_embedding_dimension": 32,
        "include_prompt": True,
        "pooling_mode_cls_token": False,
        "pooling_mode_mean_tokens": True,
        "pooling_mode_max_tokens": False,
        "pooling_mode_mean_sqrt_len_tokens": False,
        "pooling_mode_weightedmean_tokens": False,
        "pooling_mode_lasttoken": False,
    }
    assert read(plain_mean / "sentence_bert_config.json") == {"max_seq_length": 64, "do_lower_case": False}
    assert read(plain_mean / "config_sentence_transformers.json")["prompts"]["query"] == "the query of "
    for folder in (exported, plain_mean):
        assert read(folder / "config.json")["model_type"] == "bert"
        assert read(folder / "tokenizer_config.json")["model_max_length"] == 64
        assert read(folder / "special_tokens_map.json")["pad_token"] == "[PAD]"
        words = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
        assert {word: row for row, word in enumerate(words)} == read(folder / "tokenizer.json")["model"]["vocab"]


def test_a_graph_gives_tokens_whose_mean_is_the_embedding(exported, tiny_model):
    """Of several layers, too: the tokens are those layers' mean."""
    import onnxruntime

    session = onnxruntime.InferenceSession(exported / "onnx/model.onnx")
    assert [given.name for given in session.get_inputs()] == ["input_ids", "attention_mask"]
    assert [made.name for made in session.get_outputs()] == ["last_hidden_state", "sentence_embedding"]
    features = tiny_model.tokenizer(SENTENCES, padding=True, truncation=True, return_tensors="np")
    ids, mask = (features[name].astype(np.int64) for name in ("input_ids", "attention_mask"))
    tokens, embeddings = session.run(None, {"input_ids": ids, "attention_mask": mask})
    mean = (tokens * mask[..., None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(mean, embeddings, atol=1e-5)


def test_stock_sentence_transformers_opens_it_in_torch_with_the_weights(plain_mean):
    model = SentenceTransformer(str(plain_mean), device="cpu")
    assert model.max_seq_length == 64
    assert_alike(model.encode(SENTENCES), plain_mean, 0.99999)
    assert_alike(load_model(plain_mean, "cpu", runtime="torch").encode(SENTENCES), plain_mean, 0.99999)


def test_without_the_weights_there_is_nothing_for_torch(exported):
    assert not list(exported.glob("*.safetensors"))
    with pytest.raises(InputError, match="with its torch weights"):
        load_model(exported, runtime="torch")


def test_a_model_without_a_stock_twin_keeps_its_pooling(tiny_encoder, tmp_path):
    from distilface_st import build_model

    model = build_model(tiny_encoder, layers="first_last", layer_reduction="max", device="cpu")
    export_model(model, tmp_path / "export", torch_weights=True)
    expected = model.encode(SENTENCES)
    for runtime in ("torch", "onnxruntime"):
        found = load_model(tmp_path / "export", "cpu", runtime=runtime).encode(SENTENCES)
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_an_export_that_was_opened_and_saved_is_the_same_for_other_software(plain_mean, tmp_path):
    save_model(load_model(plain_mean, runtime="onnxruntime"), tmp_path / "copy")
    files = [{path.relative_to(f) for path in f.rglob("*") if path.is_file()} for f in (plain_mean, tmp_path / "copy")]
    assert files[0] == files[1]
    for name in files[0] - {Path("config_sentence_transformers.json")}:
        assert (plain_mean / name).read_bytes() == (tmp_path / "copy" / name).read_bytes(), name
    assert_alike(SentenceTransformer(str(tmp_path / "copy"), device="cpu").encode(SENTENCES), plain_mean)
    (tmp_path / "copy/notes.md").write_text("mine")
    with pytest.raises(InputError, match=r"notes\.md"):
        save_model(load_model(plain_mean, runtime="onnxruntime"), tmp_path / "copy")


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_plain_graphs_have_standard_operators_alone(plain_mean, exported_int8, tiny_model, tmp_path, precision):
    import onnx

    file = plain_mean / "onnx/model.onnx"
    if precision == "int8":
        export_model(tiny_model, tmp_path / "plain", precision="int8", plain=True)
        file = tmp_path / "plain/onnx/model_quantized.onnx"
        assert_alike(EdgeEncoder(tmp_path / "plain").encode(SENTENCES), exported_int8)
    model = onnx.load(str(file))
    assert {node.domain for node in model.graph.node} == {""}
    assert ("MatMulInteger" in {node.op_type for node in model.graph.node}) == (precision == "int8")


def test_fastembed_takes_a_folder_as_it_is(plain_mean):
    fastembed = pytest.importorskip("fastembed")
    from fastembed.common.model_description import ModelSource, PoolingType

    fastembed.TextEmbedding.add_custom_model(
        *("local/export", PoolingType.MEAN, True, ModelSource(hf="local/export"), 32),
        model_file="onnx/model.onnx",
    )
    model = fastembed.TextEmbedding("local/export", specific_model_path=str(plain_mean))
    assert_alike(list(model.embed(SENTENCES)), plain_mean, 0.99999)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """distilface-micro for JavaScript: as exported in int8, and in standard operators alone."""
    folder = tmp_path_factory.mktemp("javascript")
    for name, plain in (("fused", False), ("plain", True)):
        export_model("distilface-micro", folder / name, precision="int8", plain=plain)
    return folder


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """A folder with transformers.js, as the lock file beside this one names it."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("needs Node.js")
    folder = tmp_path_factory.mktemp("packages")
    for path in JAVASCRIPT.iterdir():
        shutil.copyfile(path, folder / path.name)
    # onnxruntime's script would fetch libraries for CUDA
    found = subprocess.run(["npm", "ci", "--ignore-scripts"], cwd=folder, capture_output=True, text=True, check=False)
    if found.returncode:
        pytest.skip(f"npm ci: {found.stderr[-300:]}")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fused", "plain"])
def test_transformers_js_in_node(models, packages, tmp_path, name):
    (tmp_path / "sentences.json").write_text(json.dumps(SENTENCES), encoding="utf-8")
    files = [str(tmp_path / file) for file in ("sentences.json", "out.json")]
    subprocess.run(["node", "embed.mjs", f"{models}/", name, "q8", *files], cwd=packages, check=True)
    assert_alike(read(tmp_path / "out.json"), models / name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fused", "plain"])
def test_transformers_js_in_a_browser(models, packages, name):
    sync_api = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("needs Chromium")
    if not (packages / name).exists():
        (packages / name).symlink_to(models / name)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(packages))
    handler.log_message = lambda *args: None  # type: ignore[attr-defined]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with sync_api.sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            page = browser.new_page()
            page.goto(f"http://127.0.0.1:{server.server_port}/page.html")
            page.wait_for_function("() => window.embed !== undefined")
            found = page.evaluate("given => window.embed(...given)", [name, "q8", SENTENCES])
            browser.close()
        server.shutdown()
    assert_alike(found, models / name)
