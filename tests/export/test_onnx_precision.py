from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from distilface_st import InputError
from distilface_st.export.onnx_precision import (
    fits_in_blocks,
    quantize_blocks,
    quantize_dynamic,
    quantize_rows,
    quantize_tables,
    store_as_half,
)
from distilface_st.models.packed import widen

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

TABLE = np.random.default_rng(0).normal(size=(50, 32)).astype(np.float32) * np.logspace(-3, 2, 50)[:, None]
IDS = np.array([[0, 3, 49], [7, 7, 0]])


def lookup_and_product(table: np.ndarray) -> onnx.ModelProto:
    """Rows of a table, times a large matrix."""
    from onnx import TensorProto, helper, numpy_helper

    nodes = [helper.make_node("Gather", ["table", "ids"], ["rows"], name="lookup")]
    nodes.append(helper.make_node("MatMul", ["rows", "weight"], ["out"], name="0.linear"))
    weight = np.random.default_rng(1).normal(size=(32, 64)).astype(np.float32)
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["b", "t"])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["b", "t", 64])],
        [
            numpy_helper.from_array(table.astype(np.float32), "table"),
            numpy_helper.from_array(weight, "weight"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def run(model: onnx.ModelProto) -> np.ndarray:
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"ids": IDS})[0]


@given(hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2), elements=st.floats(-1e6, 1e6, width=32)))
def test_quantized_rows_are_within_half_a_step(table):
    rows, scales = quantize_rows(table)
    assert rows.dtype == np.int8
    assert scales.shape == (len(table), 1)
    assert (np.abs(rows * scales - table) <= scales * 0.51 + 1e-30).all()


def test_tables_are_looked_up_in_int8_with_a_scale_a_row():
    model = quantize_tables(lookup_and_product(TABLE))
    stored = {i.name: i.data_type for i in model.graph.initializer}
    assert stored == {
        "table_int8": onnx.TensorProto.INT8,
        "table_scale": onnx.TensorProto.FLOAT,
        "weight": onnx.TensorProto.FLOAT,
    }
    expected = run(lookup_and_product(TABLE))
    scale = np.abs(expected).max(axis=-1, keepdims=True)
    assert (np.abs(run(model) - expected) < 0.02 * scale).all()  # also in rows 100,000 times smaller than others


@given(st.data())
def test_four_bits_are_within_half_a_step_and_survive_being_quantized_again(data):
    shape = st.tuples(st.integers(1, 4), st.sampled_from((16, 32, 48, 64)))
    table = data.draw(hnp.arrays(np.float32, shape, elements=st.floats(-1e5, 1e5, width=32)))
    stored, scales = quantize_blocks(table)
    assert (stored.dtype, scales.dtype) == (np.uint8, np.float16)
    assert stored.shape == (len(table), table.shape[1] // 2)
    wide = widen(torch.from_numpy(stored), torch.from_numpy(scales)).numpy()
    steps = np.repeat(scales.astype(np.float32), table.shape[1] // scales.shape[1], axis=1)
    assert (np.abs(wide - table) <= 0.51 * steps).all()
    again, same = quantize_blocks(wide)
    np.testing.assert_array_equal(again, stored)
    np.testing.assert_array_equal(same, scales)


def test_tables_of_four_bits_are_looked_up_exactly_and_only_vocabularies_have_them(monkeypatch):
    assert fits_in_blocks((4096, 80))
    assert not fits_in_blocks((4096, 72))
    assert not fits_in_blocks((512, 64))
    monkeypatch.setattr("distilface_st.export.onnx_precision.VOCABULARY", 50)
    wide = widen(*map(torch.from_numpy, quantize_blocks(TABLE.astype(np.float32)))).numpy()
    model = quantize_tables(lookup_and_product(TABLE), bits=4)
    assert {node.domain for node in model.graph.node} == {""}
    np.testing.assert_array_equal(run(model), run(lookup_and_product(wide)))


def test_numbers_too_large_for_four_bits_are_refused():
    with pytest.raises(InputError, match="too large for 4 bits"):
        quantize_blocks(np.full((1, 16), 1e6, np.float32))


def test_dynamic_quantization_keeps_named_layers_in_float_and_can_leave_a_bit_out():
    def weight(keep_in_float: list[str], reduce_range: bool) -> np.ndarray:
        model = quantize_dynamic(lookup_and_product(TABLE), keep_in_float, reduce_range)
        found = [i for i in model.graph.initializer if i.name.startswith("weight") and list(i.dims) == [32, 64]]
        return onnx.numpy_helper.to_array(found[0])

    assert np.abs(weight([], False).astype(int)).max() == 127
    assert np.abs(weight([], True).astype(int)).max() <= 64
    assert weight(["0.linear"], False).dtype == np.float32


@pytest.mark.parametrize("transposed", [False, True])
def test_dynamic_quantization_has_a_scale_a_token(transposed):
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    weight, bias = rng.normal(size=(32, 64)).astype(np.float32), rng.normal(size=64).astype(np.float32)
    stored = np.ascontiguousarray(weight.T) if transposed else weight
    node = helper.make_node("Gemm", ["x", "weight", "bias"], ["y"], name="0.linear", transB=int(transposed))
    inputs, outputs = (
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["b", d])] for name, d in (("x", 32), ("y", 64))
    )
    constants = [numpy_helper.from_array(stored, "weight"), numpy_helper.from_array(bias, "bias")]
    graph = helper.make_graph([node], "g", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    # With 7 bits, whose products no processor saturates.
    session = onnxruntime.InferenceSession(quantize_dynamic(model, [], True).SerializeToString())
    # Tokens of very different size, and one of zeros: each is as exact as if it were alone.
    tokens = rng.normal(size=(6, 32)).astype(np.float32) * np.float32([[1e-3], [1], [1e3], [0], [1e-6], [30]])
    (found,) = session.run(None, {"x": tokens})
    expected = tokens @ weight
    assert (np.abs(found - bias - expected) <= 0.02 * np.abs(expected).max(axis=1, keepdims=True) + 1e-6).all()
    for row in range(len(tokens)):
        np.testing.assert_array_equal(session.run(None, {"x": tokens[row : row + 1]})[0][0], found[row])


def test_what_comes_after_the_encoder_stays_in_float_as_a_gemm_too():
    from onnx import TensorProto, helper, numpy_helper

    weight = np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32)
    node = helper.make_node("Gemm", ["x", "weight", "bias"], ["y"], name="2.linear", transB=1)
    inputs, outputs = (
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["b", d])] for name, d in (("x", 32), ("y", 64))
    )
    constants = [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(weight[:, 0].copy(), "bias")]
    graph = helper.make_graph([node], "g", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    assert {i.data_type for i in quantize_dynamic(model, [], False).graph.initializer} == {TensorProto.FLOAT}


def test_half_precision_halves_large_constants_and_keeps_the_result():
    model = store_as_half(lookup_and_product(TABLE))
    assert {i.data_type for i in model.graph.initializer} == {onnx.TensorProto.FLOAT16}
    expected = run(lookup_and_product(TABLE))
    assert (np.abs(run(model) - expected) < 1e-3 * np.abs(expected).max(axis=-1, keepdims=True)).all()


def test_weights_beyond_half_precision_are_refused():
    with pytest.raises(InputError, match="fp16 cannot hold the weights of table"):
        store_as_half(lookup_and_product(TABLE * 1e5))
