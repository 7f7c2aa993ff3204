"""The OpenVINO graph of a packed model: static int8 whose weights are those of ``model.safetensors``.

nncf finds the scales of activations on text, and how much of an activation's range its weights had better take over
(SmoothQuant). Those int8 weights are read as they lie, and quantized anew with it while OpenVINO compiles the graph.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np
from typing_extensions import override

from ..errors import InputError
from ..inference.manifest import PACKED_FILES, WEIGHTS
from ..models.packed import SCALE
from .graph_format import quantize_static
from .openvino_format import OpenVINOFormat, in_float, look_up, replace_node

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from .graph_format import GraphSpec

_CONSTANT = "self.parts."
"""Before the name of a parameter, in that of the constant which OpenVINO makes of it."""

_LEAST = np.float32(1e-20)
"""A range of zero, of weights that are all zero, gives anything."""

_ALIGNED = 64  # bytes
_WORTH_SHARING = 512  # bytes


class PackedOpenVINOFormat(OpenVINOFormat):
    """OpenVINO in static int8; its large weights are those in the file ``model.safetensors`` of the same folder."""

    def __init__(self, spec: GraphSpec, stored: Mapping[str, np.ndarray]) -> None:
        super().__init__(spec)
        self.stored = stored

    @property
    @override
    def files(self) -> tuple[str, ...]:
        return PACKED_FILES[self.runtime]

    @property
    @override
    def options(self) -> dict[str, Any]:
        return {"DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}  # what comes after pooling computes in float

    @override
    def _save(self, path: Path, keep_in_float: Collection[str]) -> None:
        import openvino

        weights = self._weights()
        model = quantize_static(self.base.clone(), self.spec, in_float(self.base, keep_in_float))
        for node in model.get_ordered_ops():
            if name := weights.pop(node.get_friendly_name(), None):
                change = look_up if node.get_type_name() == "Gather" else _multiply
                replace_node(node, change(node, self.stored[name], self.stored[name + SCALE]))
        if weights:
            raise InputError(f"The graph cannot share the weights of {min(weights.values())}: nncf has changed it.")
        model.validate_nodes_and_infer_types()
        with tempfile.TemporaryDirectory() as scratch:
            whole = Path(scratch, "model.xml")
            openvino.save_model(model, str(whole), compress_to_fp16=False)
            inputs = (name for given in model.inputs for name in given.names)
            _share_weights(whole, path, path.with_name(WEIGHTS), {*inputs, *self.spec.graph.outputs})

    def _weights(self) -> dict[str, str]:
        """For each matrix product and lookup of the graph that has weights of the file, by name: theirs."""
        found = {}
        for node in self.base.get_ops():
            name = node.get_friendly_name().removeprefix(_CONSTANT)
            if node.get_type_name() != "Constant" or name + SCALE not in self.stored:
                continue
            for use in node.output(0).get_target_inputs():
                user = use.get_node()
                if (user.get_type_name(), use.get_index()) not in (("MatMul", 1), ("Gather", 0)):
                    raise InputError(f"The graph cannot share the weights of {name}: {user.get_type_name()} has them.")
                found[user.get_friendly_name()] = name
        return found


def _multiply(node: Any, integers: np.ndarray, scales: np.ndarray) -> Any:
    """A matrix product with int8 weights (in, out), quantized where its activations are, and smoothed as these are."""
    from openvino import opset13 as operators

    given = node.input_value(0).get_node()
    is_quantized = given.get_type_name() == "FakeQuantize"
    smoothed = given.input_value(0).get_node() if is_quantized else given
    values, scale = integers.astype(np.float32) * scales, operators.constant(scales[None])
    weights = operators.multiply(operators.convert(operators.constant(integers), "f32"), scale)
    if "smooth_quant" in smoothed.get_friendly_name():
        taken_over = 1 / smoothed.input_value(1).get_node().data.reshape(-1, 1)
        values = values * taken_over
        weights = operators.multiply(weights, operators.constant(taken_over))
    if is_quantized:
        largest = np.maximum(np.abs(values).max(axis=0, keepdims=True), _LEAST)
        least, most = operators.constant(-largest), operators.constant(largest)
        weights = operators.fake_quantize(weights, least, most, least, most, levels=255)
    return operators.matmul(node.input_value(0), weights, False, False)


def _share_weights(whole: Path, path: Path, weights: Path, names: Collection[str]) -> None:
    """Write a graph of OpenVINO anew at ``path``, its constants read from ``weights`` where they lie there.

    The others go to a file of the graph's own, and places count from the beginning of ``weights`` through both. Of all
    names in the graph, ``names`` are kept.
    """
    shared, constants = weights.read_bytes(), whole.with_suffix(".bin").read_bytes()
    tree = ElementTree.parse(whole)
    own, places = bytearray(), dict[bytes, int]()
    _shorten(tree, names)
    for data in tree.iterfind("layers/layer[@type='Const']/data"):
        start, size = int(data.attrib["offset"]), int(data.attrib["size"])
        content = constants[start : start + size]
        place = shared.find(content) if size >= _WORTH_SHARING else -1
        if place < 0:
            if content not in places:
                own += bytes(-(len(shared) + len(own)) % _ALIGNED)
                places[content] = len(shared) + len(own)
                own += content
            place = places[content]
        data.set("offset", str(place))
    path.with_suffix(".bin").write_bytes(own)
    tree.write(path, encoding="utf-8")


def _shorten(tree: ElementTree.ElementTree[ElementTree.Element], names: Collection[str]) -> None:
    """Leave out what does not compute: where layers came from, what they and their outputs are called, indentation."""
    for element in list(tree.iter()):
        element.text, element.tail = (element.text or "").strip(), None
        for noted in element.findall("rt_info"):
            element.remove(noted)
    for layer in tree.iterfind("layers/layer"):
        if layer.get("name") not in names:
            layer.set("name", layer.attrib["id"])
        for port in layer.iterfind("output/port"):
            if kept := [name for name in port.attrib.pop("names", "").split(",") if name in names]:
                port.set("names", ",".join(kept))
