"""Packing: a model in int8 whose one set of weights torch, onnxruntime and OpenVINO read.

The weights lie in a safetensors file; the int8 graphs beside it hold none of their own and refer to that file.
"""

from __future__ import annotations

import copy
import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.numpy import save
from torch import nn
from typing_extensions import override

from ..datasets.python_docs import python_sentences
from ..errors import InputError
from ..inference.manifest import PACKED_FILES, WEIGHTS, Graph, describe_files
from ..inference.tokenization import TOKENIZER
from ..models.build import compose
from ..models.fingerprint import model_fingerprint
from ..models.load import load_model
from ..models.packed import ENCODER, SCALE, widen
from ..models.save import EXPORT_FOLDER, portable_model
from ..utils.files import atomic_folder, check_output
from .folder import (
    CALIBRATION_SENTENCES,
    export_card,
    new_manifest,
    save_tokenizer,
    save_truncate_dim,
    text_batches,
)
from .graph_format import TABLE_BITS, GraphSpec
from .onnx_format import OnnxFormat
from .onnx_precision import (
    LARGE,
    fits_in_blocks,
    float_matrices,
    quantize_blocks,
    quantize_dynamic,
    quantize_rows,
    round_to_int8,
)
from .packed_openvino import PackedOpenVINOFormat
from .sentence_graph import SentenceGraph

if TYPE_CHECKING:
    import os
    from collections.abc import Collection, Container, Sequence

    import onnx
    from sentence_transformers import SentenceTransformer

    from ..inference.manifest import Manifest
    from .graph_format import GraphFormat

    Content = tuple[str, tuple[int, ...], bytes]
    """A tensor by what it holds: its type, its shape and its bytes."""

_SHARED = (np.uint8, np.int8, np.float16, np.float32)
"""Types of large matrices, none of which a packed graph holds itself."""

_AT_THE_TOP = (TOKENIZER, "modules.json", "config_sentence_transformers.json")
_METADATA = {
    "distilface-packed": "value = int8 * scale; where the scale is a vector, the matrix is stored as (in, out)"
}
_METADATA_OF_BLOCKS = {
    "distilface-packed": f"{_METADATA['distilface-packed']}; a byte of a uint8 matrix (rows, d/2) holds two integers, "
    "plus 8 each, column j in the lower half of byte j and column j + d/2 in its upper half, with a scale a block"
}
"""One entry: more would come in an order that changes from run to run."""


def pack_model(
    model: SentenceTransformer,
    output: str | os.PathLike[str],
    *,
    runtimes: str | Sequence[str] = "onnxruntime",
    table_bits: int = 4,
    name: str | None = None,
    card: str | None = None,
) -> Manifest:
    """Write a model in int8, once, for training in torch and for running in onnxruntime or OpenVINO.

    Every large matrix (linear layers of the encoder and after it, embedding tables) becomes int8 with a scale a row,
    the vocabulary 4-bit integers in blocks; graphs hold no weights and read these. So the folder is a quarter of the
    model's size or less, opens with :func:`distilface_st.load_model` as an ordinary SentenceTransformer that can be
    trained, and with :class:`distilface_st.EdgeEncoder` without torch. What was packed, opened and packed again with
    the same bits has the same integers.

    onnxruntime finds the scales of activations while its graph runs; OpenVINO's graph has scales that were found on
    text, which is faster where a processor multiplies int8 in one instruction (VNNI) and less exact.

    Args:
        model: A model of a transformer encoder. It stays as it is.
        output: The folder. An export in it is replaced as a whole, when all is done; a folder with anything else in it
            is refused.
        runtimes: For which to write a graph: ``onnxruntime``, ``openvino`` or both.
        table_bits: Bits of tables of 4,096 rows or more, a vocabulary's that is: 4, or 8 as for other tables.
        name: What to call the model; by default its class.
        card: Text of ``README.md``; by default that of an export.

    Returns:
        The manifest, as it lies in the folder.

    Raises:
        InputError: A model that cannot be written as a graph, or whose graph cannot share its weights; a runtime or a
            number of bits that there is not; a folder with something else than an export in it.
        MissingExtraError: The extra ``onnx`` or, for OpenVINO, ``openvino`` is not installed.

    Example:
        ::

            pack_model(load_model("run/model"), "packed", name="my-model")
            EdgeEncoder("packed").encode(["It is sunny."])
            load_model("packed")  # to train it further
    """
    check_output(output, EXPORT_FOLDER)
    runtimes = [runtimes] if isinstance(runtimes, str) else list(dict.fromkeys(runtimes))
    if not runtimes or not set(runtimes) <= PACKED_FILES.keys():
        named = ", ".join(map(repr, runtimes)) or "Nothing"
        raise InputError(f"{named} cannot run a packed model: choose from {', '.join(PACKED_FILES)}.")
    if table_bits not in TABLE_BITS:
        raise InputError(f"table_bits is {table_bits!r}: it must be 4 or 8.")
    source = portable_model(model)
    rounded = compose(source, copy.deepcopy(list(source)), "cpu").float().eval()
    stored = packed_weights(rounded, table_bits)
    tensors = {key: torch.from_numpy(values) for key, values in stored.items()}
    # The graph is compared with what opens in torch, which has the rounded weights.
    rounded.load_state_dict(
        {key: widen(tensors[key], tensors.get(key + SCALE)) for key in tensors if not key.endswith(SCALE)}
    )
    graph = SentenceGraph(rounded)
    manifest = new_manifest(rounded, graph, "int8", _activations(runtimes), name)
    with atomic_folder(output, EXPORT_FOLDER) as folder:
        _save_settings(rounded, folder)
        save_tokenizer(rounded, folder, manifest)
        has_blocks = any(values.dtype == np.uint8 for values in stored.values())
        (folder / WEIGHTS).write_bytes(save(stored, _METADATA_OF_BLOCKS if has_blocks else _METADATA))
        batches = text_batches(folder, manifest, python_sentences(CALIBRATION_SENTENCES))
        for runtime in runtimes:
            packed: GraphFormat
            if runtime == "openvino":
                spec = GraphSpec(graph, "int8", manifest.max_seq_length, batches, static=True)
                packed = PackedOpenVINOFormat(spec, stored)
            else:
                spec = GraphSpec(graph, "int8", manifest.max_seq_length, batches, table_bits=table_bits)
                packed = PackedFormat(spec)
            check = packed.write(folder)
            files = describe_files(folder, packed.files)
            manifest.graphs[runtime] = Graph(files, packed.options, check=check)
        manifest.write(folder)
        (folder / "README.md").write_text(card or export_card(folder, manifest), encoding="utf-8")
        if model_fingerprint(load_model(folder, device="cpu")) != manifest.model["fingerprint"]:
            raise InputError("This model cannot be packed: opened again, its weights are others.")
    return manifest


def _activations(runtimes: Sequence[str]) -> str:
    """How graphs quantize activations: onnxruntime's while it runs, OpenVINO's by scales found on text."""
    if "openvino" not in runtimes:
        return "dynamic"
    return "static" if len(runtimes) == 1 else "dynamic (in OpenVINO static)"


def packed_weights(model: SentenceTransformer, table_bits: int = 4) -> dict[str, np.ndarray]:
    """The state of a float32 model with its large matrices quantized, as :mod:`distilface_st.models.packed` has it."""
    linear = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    stored: dict[str, np.ndarray] = {}
    for key, tensor in model.state_dict().items():
        values = tensor.detach().contiguous().numpy()
        if values.ndim != 2 or values.size < LARGE or values.dtype != np.float32:
            stored[key] = values
            continue
        is_linear = key in linear
        if table_bits == 4 and not is_linear and fits_in_blocks(values.shape):
            stored[key], stored[key + SCALE] = quantize_blocks(values)
            continue
        rows, scales = quantize_exactly(values)
        stored[key] = np.ascontiguousarray(rows.T) if is_linear else rows
        stored[key + SCALE] = scales[:, 0].copy() if is_linear else scales
    return stored


def quantize_exactly(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As :func:`quantize_rows`, such that quantizing the product again gives the same integers and scales.

    Scales are of 16 significant bits, so that no product with an integer up to 127 is rounded.

    Example:
        >>> rows, scales = quantize_exactly(np.array([[0.1, -0.3], [0.0, 0.0]], dtype=np.float32))
        >>> rows.tolist(), all(np.array_equal(a, b) for a, b in zip(quantize_rows(rows * scales), (rows, scales)))
        ([[42, -127], [0, 0]], True)
    """
    _, scales = quantize_rows(table)
    scales = ((scales.view(np.uint32) + 0x80) & 0xFFFFFF00).view(np.float32)
    return round_to_int8(table, scales), scales


def _save_settings(model: SentenceTransformer, folder: Path) -> None:
    """Write what sentence-transformers writes but for weights, the encoder's part in a folder of its own."""
    with tempfile.TemporaryDirectory() as scratch:
        model.save(scratch, create_model_card=False)
        for file in Path(scratch).rglob("*.json"):
            relative = file.relative_to(scratch)
            at_home = len(relative.parts) > 1 or file.name in _AT_THE_TOP
            target = folder / relative if at_home else folder / ENCODER / relative
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(file, target)
    path = folder / "modules.json"
    modules = json.loads(path.read_text(encoding="utf-8"))
    modules[0]["path"] = ENCODER
    path.write_text(json.dumps(modules, indent=2) + "\n", encoding="utf-8")
    save_truncate_dim(model, folder)


class PackedFormat(OnnxFormat):
    """ONNX in dynamic int8 with all 8 bits, the weights being those of ``model.safetensors`` in the same folder."""

    @property
    @override
    def files(self) -> tuple[str, ...]:
        return PACKED_FILES[self.runtime]

    @property
    @override
    def options(self) -> dict[str, Any]:
        # Where 8-bit products of a processor saturate (x86 without VNNI), onnxruntime makes weights unsigned.
        return {"session.x64quantprecision": "1"}

    @override
    def _save(self, path: Path, keep_in_float: Collection[str]) -> None:
        model = quantize_dynamic(self.base, keep_in_float, reduce_range=False, table_bits=self.spec.table_bits)
        path.write_bytes(share_weights(model, path.with_name(WEIGHTS)).SerializeToString())


def _content(values: np.ndarray) -> Content:
    return str(values.dtype), values.shape, values.tobytes()


def share_weights(model: onnx.ModelProto, weights: Path) -> onnx.ModelProto:
    """Replace each constant that lies in a safetensors file, byte for byte, by a reference to it, in place.

    Matrices that are still in float (a ``Dense`` after pooling) are replaced by their int8 twins of the file, widened
    in the graph. All that does not compute is removed.
    """
    from onnx import TensorProto, numpy_helper

    shared = tensors_of(weights)
    _widen_in_the_graph(model, shared)
    inline = []
    for tensor in model.graph.initializer:
        values: np.ndarray = numpy_helper.to_array(tensor)
        place = shared.get(_content(values))
        if place is not None and values.nbytes >= 512:  # shape inference may need smaller ones in the graph
            for field in ("raw_data", "float_data", "int32_data"):
                tensor.ClearField(field)
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in zip(("location", "offset", "length"), (weights.name, *place), strict=True):
                tensor.external_data.add(key=key, value=str(value))
        elif values.ndim == 2 and values.size >= LARGE and values.dtype in _SHARED:
            inline.append(tensor.name)
    if inline:
        raise InputError(f"The graph cannot share the weights of {weights.name}: {', '.join(inline)} is not in it.")
    graph = model.graph
    del graph.value_info[:]  # shapes, which the engine infers anyway
    for thing in (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        thing.ClearField("doc_string")
        del thing.metadata_props[:]
    return model


def tensors_of(weights: Path) -> dict[Content, tuple[int, int]]:
    """Where the tensors of a safetensors file lie: the offset and the length of each, in bytes."""
    content = weights.read_bytes()
    begin = 8 + int.from_bytes(content[:8], "little")
    dtypes = {"F32": "float32", "F16": "float16", "I8": "int8", "U8": "uint8"}
    found = {}
    for name, entry in json.loads(content[8:begin]).items():
        if name != "__metadata__" and entry["dtype"] in dtypes:
            start, end = (begin + offset for offset in entry["data_offsets"])
            found[dtypes[entry["dtype"]], tuple(entry["shape"]), content[start:end]] = start, end - start
    return found


def _widen_in_the_graph(model: onnx.ModelProto, shared: Container[Content]) -> None:
    """Replace float matrices by their int8 twins in the file, where it has them, and a multiplication."""
    from onnx import TensorProto, helper, numpy_helper

    for tensor in float_matrices(model):
        matrix = numpy_helper.to_array(tensor)
        columns, scales = quantize_rows(np.ascontiguousarray(matrix.T))
        # A linear layer's has a scale a column, a table's a scale a row.
        twins = [(np.ascontiguousarray(columns.T), scales[:, 0]), quantize_rows(matrix)]
        twin = next(((stored, scale) for stored, scale in twins if _content(stored) in shared), None)
        if twin is None:
            continue
        name, (stored, scale) = tensor.name, twin
        tensor.CopyFrom(numpy_helper.from_array(stored, f"{name}_int8"))
        model.graph.initializer.append(numpy_helper.from_array(scale, f"{name}_scale"))
        cast = helper.make_node("Cast", [f"{name}_int8"], [f"{name}_cast"], f"{name}_cast", to=TensorProto.FLOAT)
        scaled = helper.make_node("Mul", [f"{name}_cast", f"{name}_scale"], [name], f"{name}_wide")
        model.graph.node.insert(0, scaled)
        model.graph.node.insert(0, cast)
