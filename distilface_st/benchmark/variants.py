"""What a benchmark compares: every model in every way of running it that was asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..inference.manifest import WEIGHTS, is_export, read_manifest
from ..models.fingerprint import model_fingerprint
from ..models.load import load_model
from ..models.packed import is_packed
from ..pretrained import resolve_name
from .report import Variant

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

TORCH_KINDS = {"torch": "fp32", "torch-bf16": "bf16"}
"""Ways to run a model in torch, and their precision."""

KINDS = (*TORCH_KINDS, "st", "edge")
"""Ways to run a model: in torch, in fp32 or bf16; exported, as a SentenceTransformer or without torch."""

EXPORTS = tuple(f"{kind}-{how}" for kind in ("onnx", "openvino") for how in ("fp32", "fp16", "int8", "int8-static"))
"""Exports that can be made for a benchmark: format, precision and, for int8, static activations."""


def labels(models: Sequence[str]) -> list[str]:
    """What to call each model: the last part of its path, or the whole where two have the same last part."""
    if not models or len(set(models)) < len(models):
        raise InputError(f"Models must be one or more, each once; these are {', '.join(models) or 'none'}.")
    last = [Path(name).name if Path(name).is_dir() else name for name in models]
    return [name if last.count(name) == 1 else models[index] for index, name in enumerate(last)]


def prepare_variants(
    models: Sequence[str],
    exports: Sequence[str],
    kinds: Sequence[str],
    scratch: Path,
    progress: Callable[[str], Any],
) -> list[Variant]:
    """Open every model, make the exports in ``scratch``, and list the variants: model by model, ``torch`` first."""
    variants: list[Variant] = []
    for index, (name, label) in enumerate(zip(models, labels(models), strict=True)):
        progress(f"preparing {label}")
        folder = Path(resolve_name(name))
        if not folder.is_dir():
            load_model(name, device="cpu").save(str(folder := scratch / f"{index}-model"), create_model_card=False)
        exported: list[Path] = []
        if not is_export(folder) or is_packed(folder):
            model = load_model(folder, device="cpu")
            variants += [
                Variant(
                    model=label,
                    variant=kind,
                    kind=kind,
                    folder=folder,
                    runtime="torch",
                    precision=precision,
                    fingerprint=model_fingerprint(model),
                    parameters=sum(parameter.numel() for parameter in model.parameters()),
                    bytes_on_disk=bytes_needed(folder),
                )
                for kind, precision in TORCH_KINDS.items()
                if kind in kinds
            ]
            for export in () if set(kinds) <= set(TORCH_KINDS) else exports:
                from ..export.export_model import export_model

                progress(f"exporting {label} as {export}")
                kind, precision, *static = export.split("-")
                activations = "static" if static else "dynamic"
                home = scratch / str(index) / export
                export_model(model, home, formats=kind, precision=precision, activations=activations, name=label)
                exported.append(home)
        if is_export(folder):
            exported.append(folder)
        variants += [variant for home in exported for variant in _export_variants(label, home, kinds)]
    if not variants:
        raise InputError(f"Nothing to run: the models have no variant of the kind {', '.join(kinds) or 'none'}.")
    return variants


def _export_variants(label: str, folder: Path, kinds: Sequence[str]) -> Iterator[Variant]:
    """An exported folder: each of its graphs as a SentenceTransformer and as an EdgeEncoder."""
    manifest = read_manifest(folder)
    static = "-static" if manifest.activations == "static" else ""
    for runtime, graph in manifest.graphs.items():
        made = f"{runtime.removesuffix('runtime')}-{manifest.precision}{static}"  # onnxruntime runs onnx
        packed = "packed" if runtime == "onnxruntime" else "packed-openvino"
        export = packed if WEIGHTS in graph.files else made
        others = {file for other in manifest.graphs.values() for file in other.files} - set(graph.files)
        others |= {"vocab.txt", WEIGHTS} - set(graph.files)  # which other software reads
        for kind in (kind for kind in ("st", "edge") if kind in kinds):
            yield Variant(
                model=label,
                variant=f"{export}/{kind}",
                kind=kind,
                folder=folder,
                runtime=runtime,
                precision=manifest.precision,
                fingerprint=manifest.model["fingerprint"],
                parameters=manifest.model["parameters"],
                bytes_on_disk=bytes_needed(folder, others),
            )


def bytes_needed(folder: Path, unused: Collection[str] = ()) -> int:
    """Bytes of all files in a folder but the ``unused``, named by their paths in it."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return sum(path.stat().st_size for path in files if path.relative_to(folder).as_posix() not in unused)
