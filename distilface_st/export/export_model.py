"""Export: one graph from token ids to sentence embedding, in a folder that runs with or without torch."""

from __future__ import annotations

import platform
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn

from ..datasets.python_docs import python_sentences
from ..errors import InputError
from ..evaluation.sts import sts_suite
from ..inference.engines import has_vnni
from ..inference.manifest import Graph, describe_files
from ..models.build import compose
from ..models.load import load_model
from ..models.save import EXPORT_FOLDER, portable_model
from ..modules import OnnxEncoder
from ..utils.files import atomic_folder, check_output
from .folder import (
    CALIBRATION_SENTENCES,
    export_card,
    new_manifest,
    save_for_hosts,
    save_tokenizer,
    text_batches,
)
from .graph_format import MIN_COSINE, TABLE_BITS, GraphSpec
from .onnx_format import OnnxFormat
from .openvino_format import OpenVINOFormat
from .sentence_graph import SentenceGraph

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Collection, Sequence

    from ..datasets.sts import STSTask
    from ..inference.manifest import Manifest
    from .graph_format import GraphFormat

FORMATS: dict[str, type[GraphFormat]] = {"onnx": OnnxFormat, "openvino": OpenVINOFormat}


def export_model(
    model: SentenceTransformer | str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    formats: str | Sequence[str] = "onnx",
    precision: str = "fp32",
    activations: str = "dynamic",
    calibration: Sequence[str] | None = None,
    reduce_range: bool | None = None,
    scored_pairs: STSTask | None = None,
    max_loss: float | None = None,
    torch_weights: bool = False,
    plain: bool = False,
    table_bits: int = 8,
    name: str | None = None,
    progress: Callable[[str], Any] = lambda step: None,
) -> Manifest:
    """Export a model as one graph, pooling and later modules included, with tokenizer, settings and a card.

    Every graph is compared with the torch model on random batches before it is kept, in float32 first and then in the
    precision asked for. The folder opens with :func:`distilface_st.load_model`, as a SentenceTransformer, and with
    :class:`distilface_st.EdgeEncoder`, without torch. It has the files and names that models on the Hub have, so that
    other software opens it as it is, see docs/export.md: sentence-transformers itself, fastembed, transformers.js, ...
    Its graphs have two outputs, ``last_hidden_state`` and ``sentence_embedding``.

    Args:
        model: A model of a transformer encoder, or its folder or name as :func:`distilface_st.load_model` takes it.
        output: The folder. An export in it is replaced as a whole, when all is done; a folder with anything else in it
            is refused.
        formats: ``onnx``, ``openvino`` or both; with both, ``runtime="auto"`` picks the faster one where it runs.
        precision: ``fp32``; ``fp16``, which halves the file and computes in float32 (or in what the engine prefers);
            or ``int8``: weights, activations and embedding tables.
        activations: For int8. ``dynamic``: with scales found while the graph runs. ``static``: with scales found on
            ``calibration`` by nncf; the faster one in OpenVINO and the more exact one in onnxruntime.
        calibration: For int8, sentences like those to come; by default what Python's own docstrings say.
        reduce_range: For int8, 7 bits of the weights, for x86 without VNNI, whose 8-bit products overflow; OpenVINO's
            dynamic int8 needs no such care. By default as the processor at hand needs it.
        scored_pairs: Sentence pairs to score before and after on, such as STS-B dev.
        max_loss: The most that Spearman x 100 on ``scored_pairs`` may fall; layers that int8 hurts most stay in float
            until it falls no more than that.
        torch_weights: Also write the model's own weights, with which stock ``SentenceTransformer`` opens it in torch.
        plain: Write ONNX graphs in standard operators alone, for runtimes without onnxruntime's own.
        table_bits: For int8, bits of tables of 4,096 rows or more, a vocabulary's that is: 8, or 4 for a smaller file.
        name: What to call the model; by default its path or class.
        progress: Called with what is being done.

    Returns:
        The manifest, as it lies in the folder.

    Raises:
        InputError: A model that cannot be exported, a graph that is not the model, an option that does not exist, or
            a loss that cannot be met; a folder with something else than an export in it.
        MissingExtraError: The format's packages are not installed.

    Example:
        ::

            export_model("run/model", "my-export", precision="int8")
            EdgeEncoder("my-export").encode(["It is sunny."])
    """
    formats = [formats] if isinstance(formats, str) else list(formats)
    choices: list[tuple[Any, tuple[Any, ...]]] = [(kind, tuple(FORMATS)) for kind in formats]
    choices += [(precision, tuple(MIN_COSINE)), (activations, ("dynamic", "static")), (table_bits, TABLE_BITS)]
    for value, allowed in choices:
        if value not in allowed:
            raise InputError(f"{value!r} is not one of {', '.join(map(str, allowed))}.")
    is_int8 = precision == "int8"
    if not formats:
        raise InputError(f"Name a format: {', '.join(FORMATS)}.")
    if plain and "onnx" not in formats:
        raise InputError("Plain graphs are ONNX: name that format.")
    if calibration is not None and not is_int8:
        raise InputError("Calibration sentences are for int8.")
    if table_bits != 8 and not is_int8:
        raise InputError("A table of 4 bits is for int8.")
    if max_loss is not None and (not is_int8 or scored_pairs is None):
        raise InputError("A maximal loss is for int8, and needs scored pairs to measure it on.")
    check_output(output, EXPORT_FOLDER)
    if not isinstance(model, SentenceTransformer):
        if Path(model).exists() and Path(output).exists() and Path(model).samefile(output):
            raise InputError(f"{output} is the model itself: choose another folder for its export.")
        name = name or str(model)
        model = load_model(model, device="cpu")
    progress("reading the model")
    portable = portable_model(model)  # what other software can read, where it is a mean over layers
    graph = SentenceGraph(portable, tokens=True)
    manifest = new_manifest(model, graph, precision, activations if is_int8 else None, name)
    with atomic_folder(output, EXPORT_FOLDER) as folder:
        save_for_hosts(portable, folder, manifest, torch_weights)
        save_tokenizer(model, folder, manifest)
        spec = GraphSpec(
            graph,
            precision,
            manifest.max_seq_length,
            text_batches(folder, manifest, calibration or python_sentences(CALIBRATION_SENTENCES)) if is_int8 else [],
            static=is_int8 and activations == "static",
            reduce_range=saturates_int8() if reduce_range is None else reduce_range,
            plain=plain,
            table_bits=table_bits,
        )
        before = sts_suite(model, tasks=[scored_pairs])["scores"][scored_pairs.label] if scored_pairs else None
        for kind in formats:
            progress(f"{kind}: converting")
            built = FORMATS[kind](spec)
            manifest = _write_within(max_loss, built, model, folder, manifest, scored_pairs, before, progress)
        manifest.write(folder)
        (folder / "README.md").write_text(export_card(folder, manifest), encoding="utf-8")
    return manifest


def _write_within(
    max_loss: float | None,
    built: GraphFormat,
    model: SentenceTransformer,
    folder: Path,
    manifest: Manifest,
    scored_pairs: STSTask | None,
    before: float | None,
    progress: Callable[[str], Any],
) -> Manifest:
    """The manifest with the graph that has the fewest layers in float and loses no more than ``max_loss``."""
    runtime = built.runtime

    def write(keep_in_float: Collection[str]) -> Manifest:
        progress(f"{runtime}: writing" + (f", {len(keep_in_float)} layers in float" if keep_in_float else ""))
        check = built.write(folder, keep_in_float)
        graph = Graph(describe_files(folder, built.files), built.options, tuple(keep_in_float), check)
        written = replace(manifest, graphs={**manifest.graphs, runtime: graph})
        if scored_pairs is None or before is None:
            return written
        progress(f"{runtime}: scoring")
        written.write(folder)
        label, reopened = scored_pairs.label, compose(model, [OnnxEncoder(folder, runtime)], "cpu")
        after = sts_suite(reopened, tasks=[scored_pairs])["scores"][label]
        scores = {"data": label, "before": before, "after": after, "loss": before - after}
        return replace(written, graphs={**written.graphs, runtime: replace(graph, scores=scores)})

    def loss(written: Manifest) -> float:
        return float(written.graphs[runtime].scores["loss"])

    written = write(())
    if max_loss is None or loss(written) <= max_loss:
        return written
    progress(f"{runtime}: finding the layers that int8 hurts")
    tensors = [{key: torch.from_numpy(value) for key, value in batch.items()} for batch in built.spec.batches]
    order = most_sensitive_first(built.spec.graph, tensors)
    found = write(order)
    if loss(found) > max_loss:
        raise InputError(
            f"int8 loses {loss(written):.2f} points, and still {loss(found):.2f} with every linear layer in float: "
            f"a loss of at most {max_loss} cannot be met. Nothing was written."
        )
    # More layers in float all but always lose less, so halving finds how many it takes.
    low, high = 0, len(order)
    while high - low > 1:
        middle = (low + high) // 2
        written = write(order[:middle])
        if loss(written) <= max_loss:
            high, found = middle, written
        else:
            low = middle
    return found if written is found else write(order[:high])


@torch.no_grad()
def most_sensitive_first(graph: SentenceGraph, batches: Sequence[dict[str, Tensor]]) -> list[str]:
    """Names of all linear layers, by how much embeddings change when that layer alone computes in int8 (in torch)."""
    reference = torch.cat([graph.embed(**batch) for batch in batches])
    distance = {}
    for name, layer in linear_layers(graph).items():
        weight = layer.weight.data
        layer.weight.data = _rounded(weight, signed=True)
        hook = layer.register_forward_pre_hook(lambda _, inputs: (_rounded(inputs[0], signed=False),))
        found = torch.cat([graph.embed(**batch) for batch in batches])
        hook.remove()
        layer.weight.data = weight
        distance[name] = 1 - float(torch.cosine_similarity(found, reference).mean())
    return sorted(distance, key=distance.__getitem__, reverse=True)


def linear_layers(graph: SentenceGraph) -> dict[str, nn.Linear]:
    """The encoder's linear layers by name, such as ``0.model.encoder.layer.3.output.dense``."""
    return {f"0.{name}": layer for name, layer in graph.parts[0].named_modules() if isinstance(layer, nn.Linear)}


def _rounded(values: Tensor, signed: bool) -> Tensor:
    """Values after a round trip through 8 bits: symmetric a row, or with a zero point over all of them."""
    if signed:
        scale = values.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / 127
        return (values / scale).round() * scale
    low, high = values.min().clamp(max=0), values.max().clamp(min=0)
    scale = ((high - low) / 255).clamp(min=1e-12)
    return ((values - low) / scale).round() * scale + low


def saturates_int8(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether 8-bit products of this processor may overflow 16 bits: x86 without VNNI.

    Where Linux's list of flags is missing, x86 is taken to have none: it costs precision and is always right.
    """
    return platform.machine().lower() in ("x86_64", "amd64", "i386", "i686") and not has_vnni(cpuinfo)
