"""Packing: a model in int8 whose one set of weights both torch and onnxruntime read."""

from __future__ import annotations

import copy
import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors.numpy import save
from torch import nn

from ..datasets.python_docs import python_sentences
from ..errors import InputError
from ..inference.manifest import WEIGHTS, Graph, describe_files
from ..inference.tokenization import TOKENIZER
from ..models.build import compose
from ..models.fingerprint import model_fingerprint
from ..models.load import load_model
from ..models.packed import ENCODER, SCALE, widen
from ..models.save import portable_model
from ..utils.files import atomic_folder
from .card import export_card
from .folder import CALIBRATION_SENTENCES, new_manifest, save_tokenizer, save_truncate_dim, text_batches
from .onnx_precision import LARGE, quantize_rows
from .packed_graph import PackedFormat
from .sentence_graph import SentenceGraph

if TYPE_CHECKING:
    import os

    from sentence_transformers import SentenceTransformer

    from ..inference.manifest import Manifest

_RUNTIME = "onnxruntime"
_AT_THE_TOP = (TOKENIZER, "modules.json", "config_sentence_transformers.json")
_METADATA = {
    "distilface-packed": "value = int8 * scale; where the scale is a vector, the matrix is stored as (in, out)"
}
"""One entry: more would come in an order that changes from run to run."""


def pack_model(
    model: SentenceTransformer,
    output: str | os.PathLike[str],
    *,
    name: str | None = None,
    card: str | None = None,
) -> Manifest:
    """Write a model in int8, once, for training in torch and for running in onnxruntime.

    Every large matrix (embedding tables, linear layers of the encoder and after it) becomes int8 with a scale a row;
    ``model.onnx`` holds no weights and reads these. So the folder is a quarter of the model's size, opens with
    :func:`distilface_st.load_model` as an ordinary SentenceTransformer that can be trained, and with
    :class:`distilface_st.EdgeEncoder` without torch. What was packed, opened and packed again has the same integers.

    Args:
        model: A model of a transformer encoder. It stays as it is.
        output: The folder; an existing one is replaced as a whole, when all is done.
        name: What to call the model; by default its class.
        card: Text of ``README.md``; by default that of an export.

    Returns:
        The manifest, as it lies in the folder.

    Raises:
        InputError: A model that cannot be written as a graph, or whose graph cannot share its weights.
        MissingExtraError: The extra ``onnx`` is not installed.

    Example:
        ::

            pack_model(load_model("run/model"), "packed", name="my-model")
            EdgeEncoder("packed").encode(["It is sunny."])
            load_model("packed")  # to train it further
    """
    source = portable_model(model)
    rounded = compose(source, copy.deepcopy(list(source)), "cpu").float().eval()
    stored = int8_weights(rounded)
    _set_weights(rounded, stored)
    graph = SentenceGraph(rounded)
    manifest = new_manifest(rounded, graph, "int8", "dynamic", name)
    with atomic_folder(output) as folder:
        _save_settings(rounded, folder)
        save_tokenizer(rounded, folder, manifest)
        (folder / WEIGHTS).write_bytes(save(stored, _METADATA))
        batches = text_batches(folder, manifest, python_sentences(CALIBRATION_SENTENCES))
        packed = PackedFormat(graph, "int8", False, batches, False, manifest.max_seq_length)
        check = packed.write(folder)
        files = describe_files(folder, _RUNTIME, (WEIGHTS,))
        manifest = replace(manifest, graphs={_RUNTIME: Graph(files, packed.options, check=check)})
        manifest.write(folder)
        (folder / "README.md").write_text(card or export_card(folder, manifest), encoding="utf-8")
        if model_fingerprint(load_model(folder, device="cpu")) != manifest.model["fingerprint"]:
            raise InputError("This model cannot be packed: opened again, its weights are others.")
    return manifest


def int8_weights(model: SentenceTransformer) -> dict[str, np.ndarray]:
    """A model's state with its large matrices in int8, as :mod:`distilface_st.models.packed` describes it.

    Args:
        model: A float32 model on the CPU.
    """
    linear = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    stored: dict[str, np.ndarray] = {}
    for key, tensor in model.state_dict().items():
        values = tensor.detach().contiguous().numpy()
        if values.ndim != 2 or values.size < LARGE or values.dtype != np.float32:
            stored[key] = values
            continue
        rows, scales = quantize_exactly(values)
        is_linear = key in linear
        stored[key] = np.ascontiguousarray(rows.T) if is_linear else rows
        stored[key + SCALE] = scales[:, 0].copy() if is_linear else scales
    return stored


def quantize_exactly(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Symmetric int8 with a scale a row, such that quantizing the product again gives the same integers and scales.

    Args:
        table: Shape (rows, d), float32.

    Returns:
        The rows, int8, and their scales, shape (rows, 1), float32 of 16 significant bits, so that no product with an
        integer up to 127 is rounded.

    Example:
        >>> rows, scales = quantize_exactly(np.array([[0.1, -0.3], [0.0, 0.0]], dtype=np.float32))
        >>> rows.tolist(), all(np.array_equal(a, b) for a, b in zip(quantize_rows(rows * scales), (rows, scales)))
        ([[42, -127], [0, 0]], True)
    """
    _, scales = quantize_rows(table)
    scales = ((scales.view(np.uint32) + 0x80) & 0xFFFFFF00).view(np.float32)
    rows = np.rint(np.divide(table, scales, out=np.zeros_like(table), where=scales > 0))
    return rows.astype(np.int8), scales


def _set_weights(model: SentenceTransformer, stored: dict[str, np.ndarray]) -> None:
    tensors = {key: torch.from_numpy(values) for key, values in stored.items()}
    state = {key: widen(tensors[key], tensors.get(key + SCALE)) for key in tensors if not key.endswith(SCALE)}
    model.load_state_dict(state)


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
