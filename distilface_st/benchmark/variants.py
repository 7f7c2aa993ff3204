"""What a benchmark compares: every model in every way of running it that was asked for."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from ..errors import InputError
from ..inference.manifest import WEIGHTS, is_export, read_manifest
from ..models.fingerprint import model_fingerprint
from ..models.packed import is_packed
from ..pretrained import resolve_name

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from sentence_transformers import SentenceTransformer

    from ..inference.manifest import Manifest

KINDS = ("torch", "torch-bf16", "st", "edge")
"""Ways to run a model: in torch, in fp32 or bf16; exported, as a SentenceTransformer or without torch."""

EXPORTS = (
    *("onnx-fp32", "onnx-fp16", "onnx-int8", "onnx-int8-static"),
    *("openvino-fp32", "openvino-fp16", "openvino-int8", "openvino-int8-static"),
)
"""Exports that can be made for a benchmark: format, precision and, for int8, static activations."""

TORCH_KINDS = ("torch", "torch-bf16")
RANDOM_WEIGHTS = "random weights: cost only"

_RUNTIMES = {"onnx": "onnxruntime", "openvino": "openvino"}
_FORMATS = {runtime: name for name, runtime in _RUNTIMES.items()}


@dataclass(frozen=True)
class Arm:
    """One model, run one way.

    Args:
        model: What the model is called.
        name: ``torch``, ``torch-bf16``, or an export with its front: ``onnx-int8/st``, ``onnx-int8/edge``; of a packed
            model, ``packed/st`` and ``packed/edge``.
        kind: One of ``KINDS``.
        folder: Where it lies.
        runtime: ``onnxruntime`` or ``openvino``; ``None`` for torch.
        precision: ``fp32``, ``bf16``, ``fp16`` or ``int8``.
        parameters: Of the torch model.
        bytes_on_disk: The files it needs: the model's folder, without the graph of another runtime.
        fingerprint: Of the torch model's weights.
        random_weights: Whether the weights are random, so that only costs mean anything.
        flops: Floating-point operations to encode the text ``sentences``, ``None`` where the encoder is not known.
    """

    model: str
    name: str
    kind: str
    folder: Path
    runtime: str | None
    precision: str
    parameters: int
    bytes_on_disk: int
    fingerprint: str
    random_weights: bool = False
    flops: float | None = None

    @property
    def id(self) -> str:
        """Model and name: ``bundled torch``."""
        return f"{self.model} {self.name}"


def check_choice(what: str, names: Iterable[str], known: Sequence[str]) -> None:
    """Refuse names that are not known.

    Raises:
        InputError: Some are not.
    """
    if unknown := [name for name in names if name not in known]:
        raise InputError(f"There is no {what} {', '.join(map(repr, unknown))}: choose from {', '.join(known)}.")


def labels(models: Sequence[str]) -> list[str]:
    """What to call each model: the last part of its path, or the whole where two have the same last part.

    Raises:
        InputError: The same model twice, or none.
    """
    if not models or len(set(models)) < len(models):
        raise InputError(f"Models must be one or more, each once; these are {', '.join(models) or 'none'}.")
    last = [Path(name).name if Path(name).is_dir() else name for name in models]
    return [name if last.count(name) == 1 else models[index] for index, name in enumerate(last)]


def prepare_arms(
    models: Sequence[str],
    exports: Sequence[str],
    kinds: Sequence[str],
    sentences: Sequence[str],
    scratch: Path,
    progress: Callable[[str], Any],
) -> list[Arm]:
    """Open every model once, make the exports, and list the arms.

    Args:
        models: Folders of models, plain, exported or packed; shipped ones by name; ``bundled``; Hub names.
        exports: What to make of each plain model, from ``EXPORTS``.
        kinds: Which arms to list, from ``KINDS``.
        sentences: The text whose floating-point operations are counted.
        scratch: An empty folder for models without one and for exports.
        progress: Called with what is being done.

    Returns:
        The arms, model by model; first of each, where asked for, ``torch``.

    Raises:
        InputError: A model that cannot be opened or exported, or no arm at all.
        MissingExtraError: An export needs packages that are not installed.
    """
    arms: list[Arm] = []
    for index, (name, label) in enumerate(zip(models, labels(models), strict=True)):
        progress(f"preparing {label}")
        folder = Path(resolve_name(name))
        if not is_export(folder) or is_packed(folder):
            arms += _model_arms(name, label, exports, kinds, sentences, scratch / str(index), progress)
        if is_export(folder):
            arms += _export_arms(label, folder, kinds)
    if not arms:
        raise InputError(f"Nothing to run: the models have no arm of the kind {', '.join(kinds) or 'none'}.")
    flops = {arm.fingerprint: arm.flops for arm in arms if arm.flops is not None}
    return [replace(arm, flops=flops.get(arm.fingerprint)) for arm in arms]


def forward_flops(linear_parameters: int, layers: int, width: int, lengths: Iterable[int]) -> float:
    """Floating-point operations of a transformer encoder's matrix products, padding not counted.

    Each token meets each weight of the linear layers once, a multiplication and an addition: 2 x parameters. In every
    layer each token's query meets all keys, and its attention all values: 2 x 2 x tokens x width.

    Args:
        linear_parameters: Weights of the linear layers that every token goes through, biases not counted.
        layers: Transformer layers.
        width: Width of queries and values, all heads together.
        lengths: Tokens of each sentence, special ones included.

    Returns:
        The sum over all sentences.

    Example:
        >>> forward_flops(1000, layers=2, width=8, lengths=[10, 20])
        92000.0
    """
    return float(sum(2 * linear_parameters * tokens + 4 * layers * width * tokens**2 for tokens in lengths))


def _model_arms(
    name: str,
    label: str,
    exports: Sequence[str],
    kinds: Sequence[str],
    sentences: Sequence[str],
    scratch: Path,
    progress: Callable[[str], Any],
) -> Iterator[Arm]:
    from .models import open_model

    model, folder, is_random = open_model(name, scratch / "model")
    known: dict[str, Any] = {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "fingerprint": model_fingerprint(model),
        "random_weights": is_random,
        "flops": count_flops(model, sentences),
    }
    for kind in TORCH_KINDS:
        if kind in kinds:
            precision = "fp32" if kind == "torch" else "bf16"
            yield Arm(label, kind, kind, folder, None, precision, bytes_on_disk=bytes_needed(folder), **known)
    for export in exports if set(kinds) - set(TORCH_KINDS) else ():
        progress(f"exporting {label} as {export}")
        for arm in _export_arms(label, _export(model, label, export, scratch / export), kinds):
            yield replace(arm, **known)


def _export(model: SentenceTransformer, label: str, export: str, folder: Path) -> Path:
    from ..export.export_model import export_model

    kind, precision, *static = export.split("-")
    activations = "static" if static else "dynamic"
    export_model(model, folder, formats=(kind,), precision=precision, activations=activations, name=label)
    return folder


def _export_arms(label: str, folder: Path, kinds: Sequence[str]) -> Iterator[Arm]:
    manifest = read_manifest(folder)
    for runtime in manifest.graphs:
        others = {file for name, graph in manifest.graphs.items() if name != runtime for file in graph.files}
        for kind in (kind for kind in KINDS if kind in kinds and kind not in TORCH_KINDS):
            yield Arm(
                model=label,
                name=f"{_export_name(manifest, runtime)}/{kind}",
                kind=kind,
                folder=folder,
                runtime=runtime,
                precision=manifest.precision,
                parameters=manifest.model["parameters"],
                bytes_on_disk=bytes_needed(folder, others),
                fingerprint=manifest.model["fingerprint"],
            )


def _export_name(manifest: Manifest, runtime: str) -> str:
    if WEIGHTS in manifest.graphs[runtime].files:
        return "packed"
    return f"{_FORMATS[runtime]}-{manifest.precision}{'-static' if manifest.activations == 'static' else ''}"


def bytes_needed(folder: Path, unused: Collection[str] = ()) -> int:
    """Bytes of all files in a folder but those at its top whose names are ``unused``."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return sum(path.stat().st_size for path in files if str(path.relative_to(folder)) not in unused)


def count_flops(model: SentenceTransformer, sentences: Sequence[str]) -> float | None:
    """Of ``sentences`` in the encoder; its pooler, which sees one token, and what comes after it are not counted."""
    with suppress(AttributeError):
        config: Any = model[0].config
        weights = sum(
            module.weight.numel()
            for name, module in model[0].named_modules()
            if isinstance(module, nn.Linear) and "pooler" not in name
        )
        prompt = model.prompts.get(model.default_prompt_name or "") or ""
        ids = model.tokenizer(
            [prompt + text for text in sentences],
            truncation=model.max_seq_length is not None,
            max_length=model.max_seq_length,
        )["input_ids"]
        return forward_flops(weights, config.num_hidden_layers, config.hidden_size, map(len, ids))
    return None
