"""Export: one graph from token ids to sentence embedding, in a folder that runs with or without torch."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from sentence_transformers import SentenceTransformer

from ..datasets.python_docs import python_sentences
from ..errors import InputError
from ..inference.manifest import Graph, describe_files
from ..models.build import compose
from ..models.load import load_model
from ..modules import OnnxEncoder
from ..utils.files import atomic_folder
from .card import write_export_card
from .cpu import saturates_int8
from .folder import CALIBRATION_SENTENCES, new_manifest, save_tokenizer, save_truncate_dim, text_batches
from .formats import FORMATS
from .sensitivity import most_sensitive_first
from .sentence_graph import SentenceGraph

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Collection, Sequence
    from pathlib import Path

    import numpy as np

    from ..datasets.sts import STSTask
    from ..inference.manifest import Manifest
    from .formats import GraphFormat

PRECISIONS = ("fp32", "fp16", "int8")
ACTIVATIONS = ("dynamic", "static")


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
    name: str | None = None,
    progress: Callable[[str], Any] = lambda step: None,
) -> Manifest:
    """Export a model as one graph, pooling and later modules included, with tokenizer, settings and a card.

    Every graph is compared with the torch model on random batches before it is kept, in float32 first and then in the
    precision asked for. The folder opens with :func:`distilface_st.load_model`, as a SentenceTransformer, and with
    :class:`distilface_st.EdgeEncoder`, without torch.

    Args:
        model: A model of a transformer encoder, or its folder or Hub name.
        output: The folder; an existing one is replaced as a whole, when all is done.
        formats: ``onnx``, ``openvino`` or both; with both, ``runtime="auto"`` picks the faster one where it runs.
        precision: ``fp32``; ``fp16``, which halves the file and computes in float32 (or in what the engine prefers);
            or ``int8``: weights, activations and embedding tables.
        activations: For int8. ``dynamic``: with scales found while the graph runs. ``static``: with scales found on
            ``calibration`` by nncf; the faster one in OpenVINO and the more exact one in onnxruntime.
        calibration: For int8, sentences like those to come; by default what Python's own docstrings say.
        reduce_range: For dynamic int8 in onnxruntime: 7 bits of the weights, for x86 without VNNI. By default as the
            processor at hand needs it.
        scored_pairs: Sentence pairs to score before and after on, such as STS-B dev.
        max_loss: The most that Spearman x 100 on ``scored_pairs`` may fall; layers that int8 hurts most stay in float
            until it falls no more than that.
        name: What to call the model; by default its path or class.
        progress: Called with what is being done.

    Returns:
        The manifest, as it lies in the folder.

    Raises:
        InputError: A model that cannot be exported, a graph that is not the model, an option that does not exist, or
            a loss that cannot be met.
        MissingExtraError: The format's packages are not installed.

    Example:
        ::

            export_model("run/model", "my-export", precision="int8")
            EdgeEncoder("my-export").encode(["It is sunny."])
    """
    formats = [formats] if isinstance(formats, str) else list(formats)
    _check_options(formats, precision, activations, calibration, scored_pairs, max_loss)
    if not isinstance(model, SentenceTransformer):
        name = name or str(model)
        model = load_model(model, device="cpu")
    progress("reading the model")
    graph = SentenceGraph(model)
    manifest = new_manifest(model, graph, precision, activations if precision == "int8" else None, name)
    with atomic_folder(output) as folder:
        save_tokenizer(model, folder, manifest)
        batches = (
            text_batches(folder, manifest, calibration or python_sentences(CALIBRATION_SENTENCES))
            if precision == "int8"
            else []
        )
        before = _score(model, scored_pairs) if scored_pairs else None
        for kind in formats:
            progress(f"{kind}: converting")
            built = FORMATS[kind](
                graph,
                precision,
                precision == "int8" and activations == "static",
                batches,
                saturates_int8() if reduce_range is None else reduce_range,
                manifest.max_seq_length,
            )
            manifest = _Attempt(model, folder, manifest, built, scored_pairs, before, progress).within(
                max_loss, batches
            )
        _save_settings(model, folder, manifest)
        write_export_card(folder, manifest)
    return manifest


class _Attempt:
    """Writing one graph again and again, with more layers in float, until it scores well enough."""

    def __init__(
        self,
        model: SentenceTransformer,
        folder: Path,
        manifest: Manifest,
        built: GraphFormat,
        scored_pairs: STSTask | None,
        before: float | None,
        progress: Callable[[str], Any],
    ) -> None:
        self.model, self.folder, self.manifest, self.built = model, folder, manifest, built
        self.scored_pairs, self.before, self.progress = scored_pairs, before, progress

    def within(self, max_loss: float | None, batches: Sequence[dict[str, np.ndarray]]) -> Manifest:
        """The manifest of the graph with the fewest layers in float that loses no more than ``max_loss``."""
        manifest = self._write(())
        if max_loss is None or self._loss(manifest) <= max_loss:
            return manifest
        tensors = [{key: torch.from_numpy(value) for key, value in batch.items()} for batch in batches]
        self.progress(f"{self.built.runtime}: finding the layers that int8 hurts")
        order = most_sensitive_first(self.built.graph, tensors)
        low, high = 0, len(order)
        found = self._write(order)
        if self._loss(found) > max_loss:
            raise InputError(
                f"int8 loses {self._loss(manifest):.2f} points, and still {self._loss(found):.2f} with every linear "
                f"layer in float: a loss of at most {max_loss} cannot be met. Nothing was written."
            )
        while high - low > 1:
            middle = (low + high) // 2
            manifest = self._write(order[:middle])
            if self._loss(manifest) <= max_loss:
                high, found = middle, manifest
            else:
                low = middle
        return found if manifest is found else self._write(order[:high])

    def _write(self, keep_in_float: Collection[str]) -> Manifest:
        runtime = self.built.runtime
        self.progress(f"{runtime}: writing" + (f", {len(keep_in_float)} layers in float" if keep_in_float else ""))
        check = self.built.write(self.folder, keep_in_float)
        graph = Graph(describe_files(self.folder, runtime), self.built.options, tuple(keep_in_float), check)
        manifest = replace(self.manifest, graphs={**self.manifest.graphs, runtime: graph})
        if self.scored_pairs is None or self.before is None:
            return manifest
        self.progress(f"{runtime}: scoring")
        manifest.write(self.folder)
        after = _score(_reopened(self.model, self.folder, runtime), self.scored_pairs)
        scores = {"data": self.scored_pairs.label, "before": self.before, "after": after, "loss": self.before - after}
        return replace(manifest, graphs={**manifest.graphs, runtime: replace(graph, scores=scores)})

    def _loss(self, manifest: Manifest) -> float:
        return float(manifest.graphs[self.built.runtime].scores["loss"])


def _check_options(
    formats: Sequence[str],
    precision: str,
    activations: str,
    calibration: Sequence[str] | None,
    scored_pairs: STSTask | None,
    max_loss: float | None,
) -> None:
    for value, allowed in (
        *((kind, tuple(FORMATS)) for kind in formats),
        (precision, PRECISIONS),
        (activations, ACTIVATIONS),
    ):
        if value not in allowed:
            raise InputError(f"{value!r} is not one of {', '.join(allowed)}.")
    if not formats:
        raise InputError(f"Name a format: {', '.join(FORMATS)}.")
    if calibration is not None and precision != "int8":
        raise InputError("Calibration sentences are for int8.")
    if max_loss is not None and (precision != "int8" or scored_pairs is None):
        raise InputError("A maximal loss is for int8, and needs scored pairs to measure it on.")


def _save_settings(model: SentenceTransformer, folder: Path, manifest: Manifest) -> None:
    """Write the manifest and what sentence-transformers keeps beside its modules."""
    manifest.write(folder)
    _reopened(model, folder).save(str(folder), create_model_card=False)
    save_truncate_dim(model, folder)


def _reopened(model: SentenceTransformer, folder: Path, runtime: str | None = None) -> SentenceTransformer:
    return compose(model, [OnnxEncoder(folder, runtime)], "cpu")


def _score(model: SentenceTransformer, task: STSTask) -> float:
    from ..evaluation.sts import sts_suite

    return sts_suite(model, tasks=[task])["scores"][task.label]
