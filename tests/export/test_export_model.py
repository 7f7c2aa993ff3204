from __future__ import annotations

import json
import platform
import shutil
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, StaticEmbedding

from distilface_st import EdgeEncoder, InputError, STSTask, build_model, export_model, load_model
from distilface_st.datasets.sts import STSSubset
from distilface_st.export.export_model import saturates_int8
from distilface_st.inference.manifest import read_manifest
from distilface_st.modules.multi_layer_pooling import LAYER_SELECTIONS

for _package in ("onnx", "onnxruntime", "onnxscript", "openvino", "nncf"):
    pytest.importorskip(_package)

SENTENCES = ["a small cat", "", "The government of the state was at war, and people walked.", "red", "🙂 \0 漢字"]
RUNTIMES = ["onnxruntime", "openvino"]
FULL = {"onnxruntime": {}, "openvino": {"INFERENCE_PRECISION_HINT": "f32"}}


def embeddings(folder: Path, runtime: str, **kwargs) -> np.ndarray:
    return EdgeEncoder(folder, runtime, options=FULL[runtime]).encode(SENTENCES, **kwargs)


def assert_same(model: SentenceTransformer, folder: Path) -> None:
    for runtime in read_manifest(folder).graphs:
        np.testing.assert_allclose(embeddings(folder, runtime), model.encode(SENTENCES), atol=1e-4, rtol=1e-4)


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def scored_pairs() -> STSTask:
    words = ["cat", "dog", "river", "king", "war", "music", "red house", "a big team", "the small book", "law"]
    pairs = list(product(words, words[:5]))
    scores = np.array([float(len(a) % 3 + len(b) % 2) for a, b in pairs])
    subset = STSSubset("toy", [a for a, _ in pairs], [b for _, b in pairs], scores)
    return STSTask("toy", (subset,), "dev")


def test_graphs_of_both_formats_give_the_models_embeddings(tiny_model, exported):
    assert_same(tiny_model, exported)


def test_the_folder_holds_graphs_tokenizer_settings_and_card(exported):
    names = {path.relative_to(exported).as_posix() for path in exported.rglob("*") if path.is_file()}
    assert names == {
        *("export.json", "onnx/model.onnx", "openvino/openvino_model.xml", "openvino/openvino_model.bin"),
        *("1_WeightedLayerPooling/config.json", "1_WeightedLayerPooling/model.safetensors", "2_Pooling/config.json"),
        *("config.json", "modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"),
        *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "README.md"),
    }
    card = (exported / "README.md").read_text()
    assert "EdgeEncoder" in card
    assert "32 dimensions" in card
    assert "not measured" in card


def test_the_manifest_says_what_was_exported_and_how_far_it_is_from_the_model(tiny_model, exported):
    manifest = read_manifest(exported)
    assert manifest.model["parameters"] == sum(p.numel() for p in tiny_model.parameters())
    assert (manifest.dimension, manifest.max_seq_length, manifest.precision) == (32, 64, "fp32")
    for graph in manifest.graphs.values():
        assert 0 <= graph.check["max_abs_difference"] < 1e-4
        assert graph.check["min_cosine"] > 0.99999
    assert "onnxruntime" in manifest.made_with["versions"]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_int8_embeddings_are_near_and_the_files_smaller(tiny_model, exported, exported_int8, runtime):
    assert cosines(embeddings(exported_int8, runtime), tiny_model.encode(SENTENCES)).min() > 0.97
    assert read_manifest(exported_int8).graphs[runtime].size < 0.8 * read_manifest(exported).graphs[runtime].size


@pytest.mark.parametrize("kind", ["bert", pytest.param("distilbert", marks=pytest.mark.slow)])
def test_int8_in_onnx_holds_no_float_table_or_weight(exported_int8, tiny_distilbert, tmp_path, kind):
    import onnx

    folder = exported_int8
    if kind == "distilbert":
        folder = tmp_path / "export"
        export_model(build_model(tiny_distilbert, layers="last", device="cpu"), folder, precision="int8")
    model = onnx.load(str(folder / "onnx/model_quantized.onnx"))
    large = [i for i in model.graph.initializer if np.prod(i.dims) >= 1024]
    assert large
    assert {i.data_type for i in large} == {onnx.TensorProto.INT8}


def test_attention_is_a_single_operator(exported):
    import onnx

    kinds = [node.op_type for node in onnx.load(str(exported / "onnx/model.onnx")).graph.node]
    assert kinds.count("MultiHeadAttention") == 4
    assert "Softmax" not in kinds


def test_a_failed_export_leaves_the_old_folder_alone(tiny_model, tmp_path):
    output = tmp_path / "export"
    output.mkdir()
    (output / "export.json").write_text("old")
    static = SentenceTransformer(modules=[StaticEmbedding(tiny_model.tokenizer.backend_tokenizer, embedding_dim=8)])
    with pytest.raises(InputError, match="StaticEmbedding"):
        export_model(static, output)
    assert [path.name for path in tmp_path.iterdir()] == ["export"]
    assert (output / "export.json").read_text() == "old"


@pytest.mark.parametrize("name", ["model.safetensors", "notes.txt", ".git"])
def test_a_folder_that_is_no_export_or_holds_something_else_is_refused(tiny_model, tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(InputError, match="is not empty and not an exported model"):
        export_model(tiny_model, tmp_path)
    (tmp_path / "export.json").touch()
    if name != "model.safetensors":  # that of a packed model
        with pytest.raises(InputError, match=f"{name} in it be lost"):
            export_model(tiny_model, tmp_path)
    assert (tmp_path / name).exists()


def test_a_model_is_not_replaced_by_its_own_export(packed, tmp_path):
    model = shutil.copytree(packed, tmp_path / "model")
    before = sorted(model.rglob("*"))
    (tmp_path / "link").symlink_to(model)
    with pytest.raises(InputError, match="is the model itself"):
        export_model(model, tmp_path / "link")
    assert sorted(model.rglob("*")) == before


@pytest.mark.slow
def test_a_folder_is_replaced_whole(tiny_model, tmp_path):
    output = tmp_path / "export"
    output.mkdir()
    for name in ("export.json", "openvino.xml"):  # as version 0.1 wrote it
        (output / name).write_text("old")
    export_model(tiny_model, output)
    assert not (output / "openvino.xml").exists()
    assert (output / "onnx/model.onnx").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


def test_an_output_folder_that_cannot_be_written_is_an_error(tiny_model):
    with pytest.raises(OSError, match="/proc"):
        export_model(tiny_model, "/proc/export")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"formats": "tflite"}, "'tflite' is not one of onnx, openvino"),
        ({"formats": []}, "Name a format"),
        ({"precision": "int4"}, "'int4' is not one of fp32, fp16, int8"),
        ({"precision": "int8", "activations": "none"}, "'none' is not one of dynamic, static"),
        ({"calibration": ["a"]}, "are for int8"),
        ({"precision": "int8", "max_loss": 1.0}, "needs scored pairs"),
        ({"max_loss": 1.0, "precision": "fp32"}, "for int8"),
    ],
)
def test_options_that_do_not_fit_are_refused(tiny_model, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        export_model(tiny_model, tmp_path / "export", **options)
    assert not list(tmp_path.iterdir())


def test_a_missing_extra_is_named(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(ImportError, match=r'pip install "distilface-st\[onnx\]"'):
        export_model(tiny_model, tmp_path / "export")
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    with pytest.raises(ImportError, match=r'pip install "distilface-st\[openvino\]"'):
        export_model(tiny_model, tmp_path / "export", formats="openvino")


def test_the_model_itself_stays_as_it_was(tiny_model, exported):
    encoder = tiny_model[0].model
    assert encoder.config._attn_implementation == "sdpa"
    assert next(encoder.parameters()).requires_grad


@pytest.mark.parametrize(
    ("machine", "flags", "saturates"),
    [
        ("x86_64", "flags: avx2 avx512_vnni", False),
        ("AMD64", "flags: avx2 avx_vnni", False),
        ("x86_64", "flags: avx2 avx512f", True),
        ("x86_64", None, True),
        ("aarch64", None, False),
        ("arm64", "flags: none", False),
    ],
)
def test_x86_without_vnni_saturates(tmp_path, monkeypatch, machine, flags, saturates):
    monkeypatch.setattr(platform, "machine", lambda: machine)
    path = Path(tmp_path, "cpuinfo")
    if flags is not None:
        path.write_text(flags)
    assert saturates_int8(path) is saturates


def test_a_graph_tells_nothing_of_the_machine_it_was_made_on(exported):
    content = (exported / "onnx/model.onnx").read_bytes()
    for path in (sys.prefix, str(Path(__file__).parents[2])):
        assert path.encode() not in content


@pytest.mark.slow
def test_static_int8_and_fp16_are_near(tiny_model, tmp_path):
    expected = tiny_model.encode(SENTENCES)
    export_model(tiny_model, tmp_path / "fp16", formats=["onnx", "openvino"], precision="fp16")
    words = [f"the {a} of a {b}" for a, b in product(["cat", "war", "film", "river"], ["house", "king", "day"])]
    export_model(
        tiny_model,
        tmp_path / "static",
        formats=["onnx", "openvino"],
        precision="int8",
        activations="static",
        calibration=words,
    )
    for runtime in RUNTIMES:
        assert cosines(embeddings(tmp_path / "fp16", runtime), expected).min() > 0.9999
        assert cosines(embeddings(tmp_path / "static", runtime), expected).min() > 0.95


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layers", "reduction"), [*((name, "mean") for name in LAYER_SELECTIONS), ("first_last", "max"), ("all", "concat")]
)
def test_every_layer_selection_and_reduction_is_exported(tiny_encoder, tmp_path, layers, reduction):
    model = build_model(tiny_encoder, layers=layers, layer_reduction=reduction, device="cpu")
    export_model(model, tmp_path / "export", formats=["onnx", "openvino"])
    assert_same(model, tmp_path / "export")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "include_prompt"),
    [
        *((mode, False) for mode in ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")),
        (("cls", "mean"), True),
    ],
)
def test_every_token_pooling_is_exported_with_and_without_the_prompts_tokens(
    tiny_distilbert, tmp_path, mode, include_prompt
):
    model = build_model(tiny_distilbert, layers="first_last", pooling_mode=mode, device="cpu")
    model[1].include_prompt = include_prompt
    model.prompts = {"query": "the query of "}
    export_model(model, tmp_path / "export", formats=["onnx", "openvino"])
    assert_same(model, tmp_path / "export")
    expected = model.encode(SENTENCES, prompt_name="query")
    for runtime in RUNTIMES:
        found = embeddings(tmp_path / "export", runtime, prompt_name="query")
        np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-4)
    reopened = load_model(tmp_path / "export", runtime="onnxruntime")
    np.testing.assert_allclose(reopened.encode(SENTENCES, prompt_name="query"), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_portable_models_dense_layers_and_normalization_are_exported(tiny_model, tmp_path):
    from distilface_st.models.save import portable_model

    model = portable_model(tiny_model)
    assert type(model[1]).__name__ == "WeightedLayerPooling"
    longer = SentenceTransformer(modules=[*model, Dense(32, 16), Normalize()], device="cpu")
    export_model(longer, tmp_path / "export", formats=["onnx", "openvino"])
    assert_same(longer, tmp_path / "export")


@pytest.mark.slow
def test_layers_stay_in_float_until_the_loss_is_within_its_bound(tiny_model, tmp_path):
    task = scored_pairs()
    loose = export_model(tiny_model, tmp_path / "loose", precision="int8", scored_pairs=task, max_loss=100)
    lost = loose.graphs["onnxruntime"].scores
    assert lost["loss"] == pytest.approx(lost["before"] - lost["after"])
    assert not loose.graphs["onnxruntime"].kept_in_float
    bound = lost["loss"] - 1e-3
    try:
        tight = export_model(tiny_model, tmp_path / "tight", precision="int8", scored_pairs=task, max_loss=bound)
    except InputError as error:
        assert "cannot be met" in str(error)  # noqa: PT017
        assert not (tmp_path / "tight").exists()
        return
    graph = tight.graphs["onnxruntime"]
    assert graph.kept_in_float
    assert graph.scores["loss"] <= bound
    assert json.loads((tmp_path / "tight" / "export.json").read_text())["graphs"]["onnxruntime"]["kept_in_float"]
    assert graph.kept_in_float[0] in (tmp_path / "tight" / "README.md").read_text()


@pytest.mark.slow
def test_a_loss_that_cannot_be_met_is_refused_and_nothing_written(tiny_model, tmp_path):
    with pytest.raises(InputError, match="cannot be met"):
        export_model(tiny_model, tmp_path / "export", precision="int8", scored_pairs=scored_pairs(), max_loss=-100)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_int8_minilm_loses_a_tenth_of_a_point_at_most_on_sts_b(minilm, data_dir, tmp_path, runtime):
    from distilface_st import load_sts

    dev = load_sts("STS-B", data_dir / "sts", split="dev")
    kind = {"onnxruntime": "onnx", "openvino": "openvino"}[runtime]
    graph = export_model(minilm, tmp_path / "export", formats=kind, precision="int8", scored_pairs=dev).graphs[runtime]
    assert graph.scores["loss"] < 0.2
    size = sum(path.stat().st_size for path in (tmp_path / "export").iterdir())
    assert size < 0.27 * (minilm / "model.safetensors").stat().st_size
