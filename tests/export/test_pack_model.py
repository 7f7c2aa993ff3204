from __future__ import annotations

import copy
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import load_file

from distilface_st import EdgeEncoder, InputError, build_model, export_model, load_model, pack_model
from distilface_st.export.onnx_precision import quantize_blocks, quantize_rows
from distilface_st.export.pack_model import quantize_exactly
from distilface_st.inference.manifest import WEIGHTS, read_manifest
from distilface_st.models.packed import SCALE, widen

onnx = pytest.importorskip("onnx")
for _package in ("onnxruntime", "onnxscript"):
    pytest.importorskip(_package)

SENTENCES = ["a small cat", "", "The government of the state was at war, and people walked.", "red", "🙂 \0 漢字"]


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def references(folder: Path) -> dict[str, tuple[list[int], int, int, int]]:
    """Shape, type, offset and length of every constant that the graph reads from the weights' file."""
    model = onnx.load(str(folder / "model.onnx"), load_external_data=False)
    found = {}
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            entry = {item.key: item.value for item in tensor.external_data}
            assert entry["location"] == WEIGHTS
            found[tensor.name] = (list(tensor.dims), tensor.data_type, int(entry["offset"]), int(entry["length"]))
    return found


@given(hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2), elements=st.floats(-1e6, 1e6, width=32)))
def test_integers_and_scales_survive_being_quantized_again(table):
    table[np.abs(table) < 1e-30] = 0
    rows, scales = quantize_exactly(table)
    assert (np.abs(rows * scales - table) <= scales * 0.51).all()
    again, same = quantize_rows(rows * scales)
    np.testing.assert_array_equal(again, rows)
    np.testing.assert_array_equal(same, scales)


def test_weights_are_within_half_a_scale_and_the_rest_is_exact(tiny_student, packed):
    stored = load_file(packed / WEIGHTS)
    opened = load_model(packed, device="cpu").state_dict()
    expected = tiny_student.state_dict()
    assert opened.keys() == expected.keys()
    for key, weight in expected.items():
        scale = stored.get(key + SCALE)
        assert (scale is not None) == (weight.ndim == 2 and weight.numel() >= 1024)
        if scale is None:
            assert torch.equal(opened[key], weight)
        else:
            assert stored[key].dtype == np.int8
            assert stored[key].shape == tuple(weight.T.shape if scale.ndim == 1 else weight.shape)
            half = torch.from_numpy(scale).reshape(-1, 1) * 0.501
            assert ((opened[key] - weight).abs() <= half).all()
    assert stored["0.model.embeddings_project.weight"].shape == (32, 48)
    assert stored["2.linear.weight"].shape == (48, 40)


def test_the_graph_reads_every_large_matrix_from_the_weights_of_torch(packed):
    content = (packed / WEIGHTS).read_bytes()
    stored = load_file(packed / WEIGHTS)
    in_torch = {(values.shape, values.tobytes()) for values in stored.values()}
    numbers = {onnx.TensorProto.INT8: np.int8, onnx.TensorProto.FLOAT: np.float32}
    found = references(packed)
    matrices = 0
    for shape, kind, offset, length in found.values():
        assert length == np.prod(shape) * np.dtype(numbers[kind]).itemsize
        assert (tuple(shape), content[offset : offset + length]) in in_torch
        matrices += kind == onnx.TensorProto.INT8
    assert matrices == sum(values.dtype == np.int8 for values in stored.values())
    assert (packed / "model.onnx").stat().st_size < 40_000


def test_the_folder_holds_no_weights_twice_and_no_float_ones(tiny_student, packed):
    assert {str(path.relative_to(packed)) for path in packed.rglob("*") if path.is_file()} == {
        "1_Pooling/config.json",
        "2_Dense/config.json",
        "3_Normalize/config.json",
        "README.md",
        "config_sentence_transformers.json",
        "encoder/config.json",
        "encoder/sentence_bert_config.json",
        "encoder/tokenizer_config.json",
        "export.json",
        "model.onnx",
        "model.safetensors",
        "modules.json",
        "tokenizer.json",
    }
    parameters = sum(parameter.numel() for parameter in tiny_student.parameters())
    assert (packed / WEIGHTS).stat().st_size < 1.5 * parameters + 10_000
    assert "\n" not in (packed / "tokenizer.json").read_text(encoding="utf-8")
    assert "int8, dynamic activations" in (packed / "README.md").read_text(encoding="utf-8")


def test_the_manifest_names_both_files_and_the_fingerprint_of_what_opens(packed):
    from distilface_st.models.fingerprint import model_fingerprint

    manifest = read_manifest(packed)
    graph = manifest.graphs["onnxruntime"]
    assert (manifest.precision, manifest.activations, manifest.model["name"]) == ("int8", "dynamic", "tiny")
    assert tuple(graph.files) == ("model.onnx", WEIGHTS)
    assert graph.check["min_cosine_on_text"] > 0.98
    assert model_fingerprint(load_model(packed, device="cpu")) == manifest.model["fingerprint"]


def test_the_graph_is_close_to_the_model_that_opens_in_torch_and_to_the_student(tiny_student, packed):
    opened = load_model(packed, device="cpu").encode(SENTENCES)
    assert cosines(EdgeEncoder(packed).encode(SENTENCES), opened).min() > 0.98
    assert cosines(tiny_student.encode(SENTENCES), opened).min() > 0.98


def test_what_comes_after_pooling_is_multiplied_in_float(packed):
    graph = onnx.load(str(packed / "model.onnx"), load_external_data=False).graph
    after = [node.name for node in graph.node if node.op_type == "MatMulInteger" and not node.name.startswith("0.")]
    assert after == []


@pytest.fixture(scope="module")
def packed_small(tiny_student, tmp_path_factory):
    """``tiny_student`` with 4 bits for its vocabulary and a graph for each runtime."""
    pytest.importorskip("nncf")
    folder = tmp_path_factory.mktemp("packed") / "small"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("distilface_st.export.onnx_precision.VOCABULARY", 64)
        pack_model(tiny_student, folder, runtimes=("onnxruntime", "openvino"))
        pack_model(load_model(folder, device="cpu"), folder.parent / "again", runtimes=("openvino", "onnxruntime"))
    return folder


@pytest.mark.slow
def test_four_bits_are_read_alike_by_torch_onnxruntime_and_openvino(tiny_student, packed_small):
    stored = load_file(packed_small / WEIGHTS)
    kinds = {key: values.dtype for key, values in stored.items() if "word_embeddings" in key}
    assert set(kinds.values()) == {np.dtype(np.uint8), np.dtype(np.float16)}
    opened = load_model(packed_small, device="cpu")
    expected = opened.encode(SENTENCES)
    assert cosines(expected, tiny_student.encode(SENTENCES)).min() > 0.95
    assert cosines(EdgeEncoder(packed_small, "onnxruntime").encode(SENTENCES), expected).min() > 0.98
    assert cosines(EdgeEncoder(packed_small, "openvino").encode(SENTENCES), expected).min() > 0.98


@pytest.mark.slow
def test_graphs_of_both_runtimes_share_the_weights(packed_small):
    manifest, content = read_manifest(packed_small), (packed_small / WEIGHTS).read_bytes()
    assert {name: tuple(graph.files) for name, graph in manifest.graphs.items()} == {
        "onnxruntime": ("model.onnx", WEIGHTS),
        "openvino": ("openvino.xml", WEIGHTS, "openvino.bin"),
    }
    stored = {values.tobytes() for values in load_file(packed_small / WEIGHTS).values()}
    shared = set()
    for data in ElementTree.parse(packed_small / "openvino.xml").iterfind("layers/layer[@type='Const']/data"):
        start = int(data.attrib["offset"])
        shared.add(content[start : start + int(data.attrib["size"])])
    own = (packed_small / "openvino.bin").read_bytes()
    for values in (values for values in stored if len(values) >= 1024):
        assert values in shared
        assert values not in own


@pytest.mark.slow
def test_a_layer_of_zeros_stays_one_in_openvino(tiny_student, tmp_path):
    pytest.importorskip("nncf")
    model = copy.deepcopy(tiny_student)
    with torch.no_grad():
        model[0].model.encoder.layer[0].intermediate.dense.weight[:40] = 0
    pack_model(model, tmp_path / "packed", runtimes="openvino")
    found, expected = EdgeEncoder(tmp_path / "packed").encode(SENTENCES), model.encode(SENTENCES)
    assert cosines(found, expected).min() > 0.97


@pytest.mark.slow
@pytest.mark.parametrize(
    ("formats", "activations", "plain"),
    [
        ("onnx", "dynamic", False),
        ("onnx", "dynamic", True),
        ("openvino", "dynamic", False),
        ("openvino", "static", False),
    ],
)
def test_exports_take_a_vocabulary_in_four_bits(tiny_student, tmp_path, monkeypatch, formats, activations, plain):
    pytest.importorskip("nncf")
    monkeypatch.setattr("distilface_st.export.onnx_precision.VOCABULARY", 64)
    options = {"precision": "int8", "activations": activations, "plain": plain, "table_bits": 4}
    manifest = export_model(tiny_student, tmp_path / "out", formats=formats, **options)
    rounded = copy.deepcopy(tiny_student)
    table = rounded[0].model.embeddings.word_embeddings.weight
    integers, scales = quantize_blocks(table.detach().numpy())
    (graph,) = manifest.graphs.values()
    content = b"".join((tmp_path / "out" / name).read_bytes() for name in graph.files)
    assert integers.tobytes() in content
    assert scales.tobytes() in content
    with torch.no_grad():
        table.copy_(widen(torch.from_numpy(integers), torch.from_numpy(scales)))
    expected = rounded.encode(SENTENCES)
    assert cosines(EdgeEncoder(tmp_path / "out").encode(SENTENCES), expected).min() > 0.97


def test_a_table_of_four_bits_is_for_int8(tiny_student, tmp_path):
    with pytest.raises(InputError, match="4 bits is for int8"):
        export_model(tiny_student, tmp_path / "out", table_bits=4)


@pytest.mark.slow
def test_four_bits_packed_again_are_the_same_bytes(packed_small):
    assert (packed_small / WEIGHTS).read_bytes() == (packed_small.parent / "again" / WEIGHTS).read_bytes()


@pytest.mark.parametrize("options", [{"runtimes": ["tvm"]}, {"runtimes": []}, {"table_bits": 2}])
def test_what_there_is_not_is_refused_before_anything_is_written(tiny_student, tmp_path, options):
    with pytest.raises(InputError, match=r"cannot run a packed model|table_bits is 2"):
        pack_model(tiny_student, tmp_path / "out", **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_packing_what_was_packed_gives_the_same_bytes(packed, tmp_path):
    pack_model(load_model(packed, device="cpu"), tmp_path / "again")
    assert (tmp_path / "again" / WEIGHTS).read_bytes() == (packed / WEIGHTS).read_bytes()


@pytest.mark.slow
def test_a_mean_over_layers_is_packed_in_stock_modules_and_a_concat_in_ours(tiny_encoder, tmp_path):
    for reduction, modules in (
        ("mean", ["Transformer", "WeightedLayerPooling", "Pooling"]),
        ("concat", ["Transformer", "MultiLayerPooling"]),
    ):
        model = build_model(tiny_encoder, layers="last_two", layer_reduction=reduction, device="cpu")
        pack_model(model, tmp_path / reduction)
        opened = load_model(tmp_path / reduction, device="cpu")
        assert [type(module).__name__ for module in opened] == modules
        assert cosines(opened.encode(SENTENCES), model.encode(SENTENCES)).min() > 0.98
        assert cosines(EdgeEncoder(tmp_path / reduction).encode(SENTENCES), opened.encode(SENTENCES)).min() > 0.9


@pytest.mark.slow
def test_a_failed_packing_leaves_nothing_and_the_model_as_it_was(tiny_student, tmp_path, monkeypatch):
    before = {key: value.clone() for key, value in tiny_student.state_dict().items()}
    monkeypatch.setattr("distilface_st.export.pack_model.tensors_of", lambda weights: {})
    with pytest.raises(InputError, match=r"cannot share the weights of model\.safetensors"):
        pack_model(tiny_student, tmp_path / "failed")
    assert list(tmp_path.iterdir()) == []
    assert all(torch.equal(value, before[key]) for key, value in tiny_student.state_dict().items())


@pytest.mark.slow
def test_the_card_is_the_one_that_is_given(tiny_student, tmp_path):
    pack_model(tiny_student, tmp_path / "carded", card="# Mine\n")
    assert (tmp_path / "carded" / "README.md").read_text() == "# Mine\n"
