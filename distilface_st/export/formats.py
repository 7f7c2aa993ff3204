"""The two formats of a graph behind one face: convert once, then write with any layers kept in float."""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..inference.engines import ENGINES
from ..inference.manifest import GRAPH_FILES
from . import onnx_graph, onnx_precision, openvino_graph
from .smoothing import smooth
from .verification import verify

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from typing import ClassVar

    import numpy as np

    from ..inference.engines import Engine
    from .sentence_graph import SentenceGraph


class GraphFormat(ABC):
    """A model converted to a format, in float32, and compared with the torch model.

    Args:
        graph: The model.
        precision: ``fp32``, ``fp16`` or ``int8``.
        static: For int8, whether the scales of activations are found on ``batches``, not while the graph runs.
        batches: For int8, what the graph takes, from text like that to come.
        reduce_range: Use 7 bits of the weights; onnxruntime's dynamic int8 only.
        max_tokens: The model's longest input.

    Raises:
        InputError: The model cannot be converted, or the graph is not the model.
        MissingExtraError: The format's packages are not installed.
    """

    runtime: ClassVar[str]

    def __init__(
        self,
        graph: SentenceGraph,
        precision: str,
        static: bool,
        batches: Sequence[dict[str, np.ndarray]],
        reduce_range: bool,
        max_tokens: int,
    ) -> None:
        self.graph, self.precision, self.static, self.batches = graph, precision, static, batches
        self.reduce_range, self.max_tokens = reduce_range, max_tokens
        self.base = self._convert()

    @property
    def options(self) -> dict[str, Any]:
        """Settings of the engine that the graph is meant to run with."""
        return {}

    def write(self, folder: Path, keep_in_float: Collection[str] = ()) -> dict[str, float]:
        """Write the graph's files and compare it with the torch model.

        Args:
            folder: Where to write.
            keep_in_float: Names of linear layers that int8 leaves alone.

        Returns:
            How far it is from the model, see :func:`distilface_st.export.verification.verify`.

        Raises:
            InputError: The graph is not the model.
        """
        path = folder / GRAPH_FILES[self.runtime][0]
        self._save(path, keep_in_float)
        return verify(self.graph, self._open(path), self.precision, self.max_tokens, self.batches)

    @abstractmethod
    def _convert(self) -> Any:
        """The float32 graph, checked."""

    @abstractmethod
    def _save(self, path: Path, keep_in_float: Collection[str]) -> None:
        """Write the graph in the precision asked for."""

    def _open(self, path: Path) -> Engine:
        return ENGINES[self.runtime](path, options=self.options)

    def _check(self, path: Path) -> None:
        verify(self.graph, self._open(path), "fp32", self.max_tokens)


class OnnxFormat(GraphFormat):
    """ONNX, for onnxruntime."""

    runtime = "onnxruntime"

    def _convert(self) -> Any:
        onnx_graph.require_onnx()
        if self.static:
            onnx_precision.require_nncf()
        model = self._in_float32()
        return smooth(model, self.batches) if self.precision == "int8" and not self.static else model

    def _in_float32(self) -> Any:
        """The graph, checked, its attention one operator where it can be."""
        try:
            return self._checked(fused_attention=True)
        except InputError:
            return self._checked(fused_attention=False)

    def _checked(self, fused_attention: bool) -> Any:
        import onnx

        model = onnx_graph.to_onnx(self.graph, fused_attention)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "model.onnx")
            onnx.save(model, str(path))
            self._check(path)
        return model

    def _save(self, path: Path, keep_in_float: Collection[str]) -> None:
        import onnx

        model = onnx.ModelProto()
        model.CopyFrom(self.base)
        if self.precision == "fp16":
            model = onnx_precision.store_as_half(model)
        elif self.static:
            model = onnx_precision.quantize_static(model, self.batches, keep_in_float)
        elif self.precision == "int8":
            model = onnx_precision.quantize_dynamic(model, keep_in_float, self.reduce_range)
        onnx.save(model, str(path))


class OpenVINOFormat(GraphFormat):
    """OpenVINO's own format."""

    runtime = "openvino"

    @property
    def options(self) -> dict[str, Any]:
        """Group-wise quantization of activations where they are dynamic."""
        return dict(openvino_graph.DYNAMIC_OPTIONS) if self.precision == "int8" and not self.static else {}

    def _convert(self) -> Any:
        if self.precision == "int8":
            onnx_precision.require_nncf()
        model = openvino_graph.to_openvino(self.graph)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "model.xml")
            openvino_graph.save(model, path)
            self._check(path)
        return model

    def _save(self, path: Path, keep_in_float: Collection[str]) -> None:
        model = self.base.clone()
        if self.static:
            model = openvino_graph.quantize_static(model, self.batches, keep_in_float)
        elif self.precision == "int8":
            model = openvino_graph.compress_weights(model, keep_in_float)
        openvino_graph.save(model, path, half=self.precision == "fp16")

    def _open(self, path: Path) -> Engine:
        # Left alone, OpenVINO computes in bfloat16 where the processor can.
        return ENGINES[self.runtime](path, options={"INFERENCE_PRECISION_HINT": "f32", **self.options})


FORMATS: dict[str, type[GraphFormat]] = {"onnx": OnnxFormat, "openvino": OpenVINOFormat}
