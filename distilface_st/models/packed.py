"""Packed models: one set of int8 weights that torch opens for training and an ONNX graph runs as it lies.

What :func:`distilface_st.pack_model` writes. In ``model.safetensors`` every large matrix is int8 with, under its name
and ``.scale``, a float32 scale a row; everything else is float32. A matrix whose scale is a vector, of shape (out,), is
a linear layer's and stored transposed, (in, out), as ONNX multiplies; one whose scale is of shape (rows, 1) is a table.
A vocabulary may be of 4-bit integers, two in each byte of a uint8 matrix, with scales (rows, blocks) in float16, see
:func:`distilface_st.export.onnx_precision.quantize_blocks`.
"""

from __future__ import annotations

import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ..errors import InputError
from ..inference.manifest import MANIFEST, WEIGHTS, check_files, is_export, read_manifest
from ..inference.tokenization import TOKENIZER
from .module_list import read_module_list

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from torch import Tensor

ENCODER = "encoder"
"""Folder of the encoder's settings. At the top, other packages would take the int8 weights for the encoder's own."""

SCALE = ".scale"


def is_packed(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder holds a packed model: its manifest names the weights, and its modules begin with an encoder."""
    if not is_export(folder) or not read_manifest(folder).is_packed:
        return False
    return any(entry["path"] == ENCODER for entry in read_module_list(str(folder)))


@contextmanager
def unpacked(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary folder with the same model in float32, as sentence-transformers saves one."""
    modules = {entry["name"]: entry["path"] for entry in read_module_list(str(folder))}
    state = read_weights(folder)
    with tempfile.TemporaryDirectory(prefix="distilface-", ignore_cleanup_errors=True) as scratch:
        copy = Path(scratch, Path(folder).name)
        for file in Path(folder).rglob("*.json"):
            if file.name != MANIFEST:
                _copy(file, copy / file.relative_to(folder))
        _copy(Path(folder, TOKENIZER), copy / ENCODER / TOKENIZER)
        if not (copy / ENCODER / "config.json").is_file():
            raise InputError(f"{folder} is not whole: {ENCODER}/config.json is missing.")
        for name, path in modules.items():
            prefix = "0.model." if name == "0" else f"{name}."  # of an encoder, transformers' own names
            own = {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}
            if own:
                (copy / path).mkdir(parents=True, exist_ok=True)
                save_file(own, copy / path / WEIGHTS, {"format": "pt"})
        yield copy


def read_weights(folder: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The state of a packed model's ``SentenceTransformer``, in float32, its checksum compared with the manifest's."""
    path = Path(folder, WEIGHTS)
    graphs = [graph for graph in read_manifest(folder).graphs.values() if WEIGHTS in graph.files]
    for graph in {graph.files[WEIGHTS]["sha256"]: graph for graph in graphs}.values():  # the same of all, if sound
        check_files(folder, graph, [WEIGHTS])
    try:
        stored = load_file(path)
        state = {key: widen(stored[key], stored.get(key + SCALE)) for key in stored if not key.endswith(SCALE)}
    except (OSError, SafetensorError, RuntimeError) as error:
        raise InputError(f"{path} is damaged: {error}") from error
    if not any(key.startswith("0.model.") for key in state):
        raise InputError(f"{path} does not hold the weights of a packed model.")
    return state


def widen(stored: Tensor, scale: Tensor | None) -> Tensor:
    """A parameter in float32, in the shape that torch knows it by, of a quantized matrix and its scale (or of neither).

    Example:
        >>> import torch
        >>> widen(torch.tensor([[127, -1, 2]], dtype=torch.int8), torch.tensor([0.5, 1.0, 2.0])).tolist()
        [[63.5], [-1.0], [4.0]]
    """
    if scale is None:
        return stored
    if stored.dtype == torch.uint8:
        integers = torch.cat([stored & 15, stored >> 4], dim=1).float() - 8
        return (integers.view(*scale.shape, -1) * scale.float()[:, :, None]).view(integers.shape)
    values = stored.float() * scale
    return values.t().contiguous() if scale.ndim == 1 else values


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copyfile(source, target)
    except FileNotFoundError as error:
        raise InputError(f"{source} is missing: this model is not whole.") from error
