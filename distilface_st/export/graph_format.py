"""What the formats share: convert once, write with any layers kept in float, compare with the torch model."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..errors import InputError, MissingExtraError
from ..inference.engines import ENGINES
from ..inference.manifest import graph_files
from ..utils.extras import require

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path
    from typing import ClassVar

    from ..inference.engines import Engine
    from .sentence_graph import SentenceGraph

MIN_COSINE = {"fp32": 0.99999, "fp16": 0.999, "int8": 0.5}
"""A graph with a lower cosine on any row of a random batch is refused. Random tokens are far from text."""

MIN_COSINE_ON_TEXT = 0.9
"""The same for int8 on real text."""

TABLE_BITS = (4, 8)
"""Of a vocabulary's table in int8."""


@dataclass(frozen=True)
class GraphSpec:
    """A model and how its graph is to be written."""

    graph: SentenceGraph
    precision: str
    max_tokens: int
    batches: Sequence[dict[str, np.ndarray]] = ()
    """For int8, what the graph takes, from text like that to come."""
    static: bool = False
    """For int8, whether the scales of activations are found on ``batches``, not while the graph runs."""
    reduce_range: bool = False
    """For int8, use 7 bits of the weights, where 8-bit products would overflow."""
    plain: bool = False
    """For ONNX, use standard operators alone."""
    table_bits: int = 8
    """For int8, bits of the vocabulary's table: 8 or 4."""


class GraphFormat(ABC):
    """A model converted to a format, in float32, and compared with the torch model."""

    runtime: ClassVar[str]

    def __init__(self, spec: GraphSpec) -> None:
        self.spec = spec
        self.base = self._convert()

    @property
    def options(self) -> dict[str, Any]:
        """Settings of the engine that the graph is meant to run with."""
        return {}

    @property
    def files(self) -> tuple[str, ...]:
        """The files that it writes, the first the one that is opened."""
        return graph_files(self.runtime, self.spec.precision)

    def write(self, folder: Path, keep_in_float: Collection[str] = ()) -> dict[str, float]:
        """Write the graph's files, with the named linear layers in float, and compare it as :func:`verify` does."""
        spec = self.spec
        path = folder / self.files[0]
        path.parent.mkdir(exist_ok=True)
        try:
            self._save(path, keep_in_float)
        except (InputError, MissingExtraError, OSError):
            raise
        except Exception as error:
            raise conversion_error(spec.graph, f"written in {spec.precision} for {self.runtime}", error) from error
        engine = self._open([folder / name for name in self.files])
        return verify(spec.graph, engine, spec.precision, spec.max_tokens, spec.batches)

    @abstractmethod
    def _convert(self) -> Any:
        """The float32 graph, checked."""

    @abstractmethod
    def _save(self, path: Path, keep_in_float: Collection[str]) -> None:
        """Write the graph in the precision asked for."""

    def _open(self, files: Sequence[Path], **options: str) -> Engine:
        return ENGINES[self.runtime](files, options={**options, **self.options})

    def _check(self, files: Sequence[Path]) -> None:
        verify(self.spec.graph, self._open(files), "fp32", self.spec.max_tokens)


def verify(
    graph: SentenceGraph,
    engine: Engine,
    precision: str,
    max_tokens: int,
    text: Sequence[dict[str, np.ndarray]] = (),
) -> dict[str, float]:
    """Compare a model's embeddings in torch and in an engine: of random batches and, for int8, of some of ``text``.

    How alike they must be, lest the graph is refused, depends on the precision. The result goes into the manifest.
    """
    difference, cosines = _compare(graph, engine, random_batches(graph, max_tokens))
    _refuse_below(MIN_COSINE[precision], cosines, f"The {precision} graph is not the model: on random batches")
    found = {"max_abs_difference": difference, "min_cosine": float(cosines.min()), "mean_cosine": float(cosines.mean())}
    if text and precision == "int8":
        _, cosines = _compare(graph, engine, text[:: max(1, len(text) // 8)])
        _refuse_below(MIN_COSINE_ON_TEXT, cosines, "Int8 changes this model too much: on text")
        found |= {"min_cosine_on_text": float(cosines.min()), "mean_cosine_on_text": float(cosines.mean())}
    return found


def random_batches(graph: SentenceGraph, max_tokens: int) -> list[dict[str, np.ndarray]]:
    """Random tokens in batches of many shapes, padded ones, a single row and the longest input included."""
    generator = torch.Generator().manual_seed(1)
    shapes = [(1, min(3, max_tokens), 0), (2, max_tokens, max_tokens // 2)]
    while len(shapes) < 6:
        rows, tokens = (int(torch.randint(low, high, (), generator=generator)) for low, high in ((1, 9), (3, 49)))
        tokens = min(tokens, max_tokens)
        shapes.append((rows, tokens, int(torch.randint(0, tokens - 1, (), generator=generator))))
    examples = (graph.example(rows, tokens, generator, padding) for rows, tokens, padding in shapes)
    return [{name: tensor.numpy() for name, tensor in example.items()} for example in examples]


@torch.no_grad()
def _compare(
    graph: SentenceGraph, engine: Engine, batches: Sequence[dict[str, np.ndarray]]
) -> tuple[float, np.ndarray]:
    """The largest difference, and the cosine of every row."""
    difference, cosines = 0.0, []
    for batch in batches:
        expected = graph.embed(**{name: torch.from_numpy(values) for name, values in batch.items()}).numpy()
        found = engine.run(batch)
        if found.shape != expected.shape:
            raise InputError(f"The graph gives embeddings of shape {found.shape} instead of {expected.shape}: refused.")
        difference = max(difference, float(np.abs(found - expected).max()))
        lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
        cosines.append((found * expected).sum(axis=1) / np.maximum(lengths, 1e-12))
    return difference, np.concatenate(cosines)


def _refuse_below(least: float, cosines: np.ndarray, what: str) -> None:
    if not cosines.min() >= least:  # written so that NaN is refused as well
        raise InputError(f"{what} the lowest cosine is {cosines.min():.5f}, and {least} is asked for: refused.")


def require_nncf() -> Any:
    """The module nncf, its log silenced."""
    with quiet():
        nncf = require("nncf", "Calibrated (static) quantization", "openvino")
    nncf.set_log_level(logging.ERROR)
    return nncf


def quantize_static(model: Any, spec: GraphSpec, excluded: list[str]) -> Any:
    """Int8 weights and activations with scales that were found on given text, by nncf (SmoothQuant, bias correction).

    ``model`` is a float32 graph, of ONNX or OpenVINO; ``excluded`` names the matrix products that stay in float.
    """
    nncf = require_nncf()
    batches = spec.batches
    # Without VNNI a sum of two 8-bit products overflows 16 bits, so that weights may have 7 bits only.
    overflow = nncf.OverflowFix.ENABLE if spec.reduce_range else None
    with quiet():
        return nncf.quantize(
            model,
            nncf.Dataset(batches),
            subset_size=len(batches),
            model_type=nncf.ModelType.TRANSFORMER,
            ignored_scope=nncf.IgnoredScope(names=excluded),
            advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=overflow),
        )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence: converters print their steps, and warn of what does not concern the user."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def conversion_error(graph: SentenceGraph, problem: str, error: Exception) -> InputError:
    """What to raise where a converter fails, of whose message the first line is kept."""
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return InputError(f"{type(graph.encoder).__name__} cannot be {problem}: {reason}")
