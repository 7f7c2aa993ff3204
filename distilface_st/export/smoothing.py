"""Making activations easier to quantize: scales move from outlying channels into the weights, changing no result."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from .onnx_graph import LINEAR

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import onnx

_BATCHES = 24
_STRENGTHS = (0.2, 0.4, 0.5, 0.6, 0.7, 0.8)


def smooth(model: onnx.ModelProto, batches: Sequence[dict[str, np.ndarray]]) -> onnx.ModelProto:
    """Divide the input of each linear layer by a scale a channel and multiply its weights by the same.

    Which scales: for each input the candidates of SmoothQuant (Xiao et al., 2023, equation 4) and of AWQ (Lin et al.,
    2024, equation 5) at several strengths, and none; the one with which 8-bit products are nearest to the float ones
    on given text.

    Args:
        model: A float32 graph, left as it is.
        batches: What the graph takes.

    Returns:
        The same function, with a multiplication before linear layers.
    """
    import onnx
    from onnx import helper, numpy_helper

    smoothed = onnx.ModelProto()
    smoothed.CopyFrom(model)
    constants = {initializer.name: initializer for initializer in smoothed.graph.initializer}
    uses = Counter(name for node in smoothed.graph.node for name in node.input)
    groups: dict[str, list[onnx.NodeProto]] = {}
    for node in smoothed.graph.node:
        is_linear = node.op_type == LINEAR[0] and node.input[1] in constants and node.name.startswith("0.")
        if is_linear and uses[node.input[1]] == 1:  # layers that share their weights have inputs of their own
            groups.setdefault(node.input[0], []).append(node)
    if not groups:
        return smoothed
    step = max(1, len(batches) // _BATCHES)
    for name, activations in _activations(model, list(groups), batches[::step][:_BATCHES]):
        weights = [numpy_helper.to_array(constants[node.input[1]]) for node in groups[name]]
        scales = best_scales(activations, np.concatenate(weights, axis=1))
        if scales is None:
            continue
        smoothed.graph.initializer.append(numpy_helper.from_array(1 / scales, f"{name}_smoothing"))
        first = min(list(smoothed.graph.node).index(node) for node in groups[name])
        multiply = helper.make_node("Mul", [name, f"{name}_smoothing"], [f"{name}_smooth"], name=f"{name}_smooth")
        smoothed.graph.node.insert(first, multiply)
        for node, weight in zip(groups[name], weights, strict=True):
            constants[node.input[1]].CopyFrom(numpy_helper.from_array(weight * scales[:, None], node.input[1]))
            node.input[0] = f"{name}_smooth"
    return smoothed


def best_scales(activations: Sequence[np.ndarray], weight: np.ndarray) -> np.ndarray | None:
    """Scales of the input's channels with which quantized products are nearest to the float ones.

    Args:
        activations: The layer's input for each batch, each of shape (tokens, d), float32.
        weight: Shape (d, outputs), float32.

    Returns:
        Shape (d,), float32, with a geometric mean of 1; ``None`` where no scales are best.
    """
    largest = np.maximum(np.max([np.abs(rows).max(axis=0) for rows in activations], axis=0), 1e-4)
    weights = np.maximum(np.abs(weight).max(axis=1), 1e-4)
    expected = [rows @ weight for rows in activations]
    least, best = _error(activations, weight, expected, None), None
    for strength in _STRENGTHS:
        for candidate in (largest**strength, largest**strength / weights ** (1 - strength)):
            scales = (candidate / np.exp(np.log(candidate).mean())).astype(np.float32)
            error = _error(activations, weight, expected, scales)
            if error < least:
                least, best = error, scales
    return best


def _error(
    activations: Sequence[np.ndarray], weight: np.ndarray, expected: Sequence[np.ndarray], scales: np.ndarray | None
) -> float:
    """Sum of squared differences of products quantized with a scale a tensor of inputs and one a column of weights."""
    scaled = weight if scales is None else weight * scales[:, None]
    steps = np.maximum(np.abs(scaled).max(axis=0), 1e-12) / 127
    rounded = np.rint(scaled / steps) * steps
    error = 0.0
    for rows, right in zip(activations, expected, strict=True):
        inputs = rows if scales is None else rows / scales
        low, high = min(float(inputs.min()), 0.0), max(float(inputs.max()), 0.0)
        step = max((high - low) / 255, 1e-12)
        found = (np.rint((inputs - low) / step) * step + low) @ rounded
        error += float(np.square(found - right).sum())
    return error


def _activations(
    model: onnx.ModelProto, names: list[str], batches: Sequence[dict[str, np.ndarray]]
) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Each named tensor of the graph with its values for each batch, padding left out."""
    import onnx
    import onnxruntime
    from onnx import helper

    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    watched.graph.output.extend(helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in names)
    session = onnxruntime.InferenceSession(watched.SerializeToString(), providers=["CPUExecutionProvider"])
    found: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for batch in batches:
        real = batch["attention_mask"].reshape(-1) > 0
        for name, values in zip(names, session.run(names, batch), strict=True):
            found[name].append(values.reshape(-1, values.shape[-1])[real])
    for name in names:
        yield name, found.pop(name)
