"""An int8 ONNX graph that holds no weights of its own: it reads them out of the safetensors file beside it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from ..inference.manifest import WEIGHTS
from .formats import OnnxFormat
from .onnx_precision import LARGE, quantize_dynamic, quantize_rows

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    import onnx

_SMALL = 512
"""Bytes; constants of fewer stay in the graph, where shape inference may need them."""

_DTYPES = {"F32": "float32", "I8": "int8"}

Shared = dict[tuple[str, tuple[int, ...], bytes], tuple[int, int]]
"""Where tensors lie in a file, offset and length in bytes, by dtype, shape and content."""


class PackedFormat(OnnxFormat):
    """ONNX in dynamic int8 with all 8 bits, the weights being those of ``model.safetensors`` in the same folder.

    Nothing is smoothed: that would change the weights.
    """

    @property
    def options(self) -> dict[str, Any]:
        """Where 8-bit products of a processor saturate (x86 without VNNI), onnxruntime makes weights unsigned."""
        return {"session.x64quantprecision": "1"}

    def _convert(self) -> Any:
        from .onnx_graph import require_onnx

        require_onnx()
        return self._in_float32()

    def _save(self, path: Path, keep_in_float: Collection[str]) -> None:
        model = quantize_dynamic(self.base, keep_in_float, reduce_range=False)
        path.write_bytes(share_weights(model, path.with_name(WEIGHTS)).SerializeToString())


def share_weights(model: onnx.ModelProto, weights: Path) -> onnx.ModelProto:
    """Replace each constant that lies in a safetensors file, byte for byte, by a reference to it.

    Matrices that are still in float (a ``Dense`` after pooling) are replaced by their int8 twins of the file, widened
    in the graph.

    Args:
        model: A quantized graph, changed in place; it loses all that does not compute.
        weights: The file, which is to lie beside the graph.

    Raises:
        InputError: A large matrix of the graph does not lie in the file.
    """
    shared = tensors_of(weights)
    _widen_in_the_graph(model, shared)
    inline = []
    for tensor in model.graph.initializer:
        values = _values(tensor)
        place = shared.get(_key(values))
        if place is not None and values.nbytes >= _SMALL:
            _refer(tensor, weights.name, *place)
        elif values.ndim == 2 and values.size >= LARGE and values.dtype in (np.int8, np.float32):
            inline.append(tensor.name)
    if inline:
        raise InputError(f"The graph cannot share the weights of {weights.name}: {', '.join(inline)} is not in it.")
    _strip(model)
    return model


def tensors_of(weights: Path) -> Shared:
    """Where the float32 and int8 tensors of a safetensors file lie."""
    content = weights.read_bytes()
    begin = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:begin])
    found: Shared = {}
    for name, entry in header.items():
        if name == "__metadata__" or entry["dtype"] not in _DTYPES:
            continue
        start, end = (begin + offset for offset in entry["data_offsets"])
        found[_DTYPES[entry["dtype"]], tuple(entry["shape"]), content[start:end]] = (start, end - start)
    return found


def _widen_in_the_graph(model: onnx.ModelProto, shared: Shared) -> None:
    """Replace float matrices by their int8 twins in the file, where it has them, and a multiplication."""
    from onnx import TensorProto, helper, numpy_helper

    for tensor in list(model.graph.initializer):
        if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) != 2 or np.prod(tensor.dims) < LARGE:
            continue
        name = tensor.name
        for stored, scale in _int8_twins(_values(tensor)):
            if _key(stored) not in shared:
                continue
            tensor.CopyFrom(numpy_helper.from_array(stored, f"{name}_int8"))
            model.graph.initializer.append(numpy_helper.from_array(scale, f"{name}_scale"))
            cast = helper.make_node("Cast", [f"{name}_int8"], [f"{name}_cast"], f"{name}_cast", to=TensorProto.FLOAT)
            scaled = helper.make_node("Mul", [f"{name}_cast", f"{name}_scale"], [name], f"{name}_wide")
            model.graph.node.insert(0, scaled)
            model.graph.node.insert(0, cast)
            break


def _int8_twins(matrix: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """A matrix in int8 with its scales: a scale a column, as of a linear layer, and a scale a row, as of a table."""
    columns, scales = quantize_rows(np.ascontiguousarray(matrix.T))
    yield np.ascontiguousarray(columns.T), scales[:, 0]
    yield quantize_rows(matrix)


def _values(tensor: onnx.TensorProto) -> np.ndarray:
    from onnx import numpy_helper

    values: np.ndarray = numpy_helper.to_array(tensor)
    return values


def _key(values: np.ndarray) -> tuple[str, tuple[int, ...], bytes]:
    return str(values.dtype), values.shape, values.tobytes()


def _refer(tensor: onnx.TensorProto, file: str, offset: int, length: int) -> None:
    from onnx import TensorProto

    for field in ("raw_data", "float_data", "int32_data"):
        tensor.ClearField(field)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", file), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))


def _strip(model: onnx.ModelProto) -> None:
    """Remove what does not compute: notes, and shapes that the engine infers anyway."""
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    del model.graph.value_info[:]
    for thing in (*model.graph.node, *model.graph.initializer, *model.graph.input, *model.graph.output):
        thing.ClearField("doc_string")
        del thing.metadata_props[:]
    model.ClearField("doc_string")
    model.graph.ClearField("doc_string")
