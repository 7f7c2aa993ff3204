from __future__ import annotations

import numpy as np
import pytest

from distilface_st.export.smoothing import _error, best_scales, smooth

RNG = np.random.default_rng(0)
WEIGHT = RNG.normal(size=(16, 8)).astype(np.float32)


def activations(outlier: float) -> list[np.ndarray]:
    spread = np.ones(16, dtype=np.float32)
    spread[3] = outlier
    return [RNG.normal(size=(40, 16)).astype(np.float32) * spread for _ in range(3)]


def test_scales_take_an_outlying_channel_down_and_the_error_with_it():
    rows = activations(outlier=100)
    scales = best_scales(rows, WEIGHT)
    assert scales is not None
    assert scales.argmax() == 3
    np.testing.assert_allclose(np.exp(np.log(scales).mean()), 1, rtol=1e-4)
    expected = [part @ WEIGHT for part in rows]
    assert _error(rows, WEIGHT, expected, scales) < 0.5 * _error(rows, WEIGHT, expected, None)


def two_layers(shared: bool):
    """Two linear layers with inputs of their own, one of which has an outlying channel."""
    from onnx import TensorProto, helper, numpy_helper

    second = "weight" if shared else "other"
    nodes = [
        helper.make_node("Identity", ["x"], ["a"]),
        helper.make_node("Neg", ["x"], ["b"]),
        helper.make_node("MatMul", ["a", "weight"], ["c"], name="0.first"),
        helper.make_node("MatMul", ["b", second], ["d"], name="0.second"),
        helper.make_node("Mul", ["c", "d"], ["out"]),
    ]
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", "tokens", 16]),
        helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["rows", "tokens"]),
    ]
    weights = [numpy_helper.from_array(WEIGHT, name) for name in {"weight", second}]
    output = helper.make_tensor_value_info("out", TensorProto.FLOAT, ["rows", "tokens", 8])
    graph = helper.make_graph(nodes, "g", inputs, [output], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


@pytest.mark.parametrize("shared", [True, False])
def test_smoothing_changes_no_result(shared):
    onnxruntime = pytest.importorskip("onnxruntime")
    (rows,) = activations(outlier=100)[:1]
    batch = {"x": rows[None], "attention_mask": np.ones((1, len(rows)), dtype=np.int64)}
    model = two_layers(shared)
    smoothed = smooth(model, [batch])
    before, after = (
        onnxruntime.InferenceSession(m.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, batch)[0]
        for m in (model, smoothed)
    )
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-2)
    multiplications = [node.op_type for node in smoothed.graph.node].count("Mul")
    assert multiplications == (1 if shared else 3)  # one is the graph's own


def test_scales_never_make_it_worse():
    rows = activations(outlier=1)
    scales = best_scales(rows, WEIGHT)
    expected = [part @ WEIGHT for part in rows]
    assert scales is None or _error(rows, WEIGHT, expected, scales) < _error(rows, WEIGHT, expected, None)
