"""The engines that run a graph: onnxruntime and OpenVINO, behind one call."""

from __future__ import annotations

import platform
import threading
import time
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..errors import InputError, MissingExtraError
from .manifest import GRAPH_FILES, check_files, read_manifest

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from .manifest import Manifest

RUNTIMES = ("onnxruntime", "openvino")
"""The engines, by the name of the package that each is."""

EXTRAS = {"onnxruntime": "onnx", "openvino": "openvino"}
"""The extra of this package that brings each."""

_CALIBRATION_ROUNDS = 3


class Engine(Protocol):
    """A graph that is ready to run, from any thread."""

    runtime: str

    def run(self, feeds: dict[str, np.ndarray]) -> np.ndarray:
        """Embeddings of a batch, shape (rows, d), float32; valid until this thread's next call."""


class OnnxRuntimeEngine:
    """A graph in onnxruntime.

    Args:
        path: The ``.onnx`` file.
        threads: Processor threads; by default one for each physical core.
        providers: Execution providers, best first; by default the CPU's.
        options: Entries of onnxruntime's session configuration.
        device: OpenVINO's; providers say where onnxruntime runs.

    Raises:
        InputError: A graph that onnxruntime cannot open, or a provider that this build does not have.
    """

    runtime = "onnxruntime"

    def __init__(
        self,
        path: Path,
        threads: int | None = None,
        providers: Sequence[str] | None = None,
        options: Mapping[str, Any] | None = None,
        device: str | None = None,
    ) -> None:
        import onnxruntime

        if device is not None:
            raise InputError(f"device is {device!r}, which is OpenVINO's: onnxruntime takes providers.")
        wanted = list(providers or ["CPUExecutionProvider"])
        missing = [name for name in wanted if name not in onnxruntime.get_available_providers()]
        if missing:
            available = ", ".join(onnxruntime.get_available_providers())
            raise InputError(f"onnxruntime has no provider {', '.join(missing)} here; it has {available}.")
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = threads or 0
        for key, value in (options or {}).items():
            settings.add_session_config_entry(key, str(value))
        try:
            self._session = onnxruntime.InferenceSession(str(path), settings, providers=wanted)
        except Exception as error:
            raise InputError(f"onnxruntime cannot open {path}: {error}") from error

    def run(self, feeds: dict[str, np.ndarray]) -> np.ndarray:
        """Embeddings of a batch, shape (rows, d), float32."""
        embeddings: np.ndarray = self._session.run(None, feeds)[0]
        return embeddings


class OpenVINOEngine:
    """A graph in OpenVINO, compiled for low latency: on few cores that is the best throughput, too.

    Args:
        path: The ``.xml`` file, its weights beside it.
        threads: Processor threads; by default all.
        providers: onnxruntime's; the first is taken for the device, with a warning, as version 0.1 had it.
        options: OpenVINO's compilation properties, such as ``{"INFERENCE_PRECISION_HINT": "f32"}``.
        device: OpenVINO's device; by default ``CPU``.

    Raises:
        InputError: A graph that OpenVINO cannot compile, or a device or property that it does not have.
    """

    runtime = "openvino"

    def __init__(
        self,
        path: Path,
        threads: int | None = None,
        providers: Sequence[str] | None = None,
        options: Mapping[str, Any] | None = None,
        device: str | None = None,
    ) -> None:
        import openvino

        if providers:
            warnings.warn("Name OpenVINO's device by device, not by providers.", DeprecationWarning, stacklevel=2)
        settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", **(options or {})}
        if threads:
            settings["INFERENCE_NUM_THREADS"] = threads
        try:
            core = openvino.Core()
            self._graph = core.compile_model(core.read_model(str(path)), device or (providers or ["CPU"])[0], settings)
        except Exception as error:
            reason = str(error).strip().splitlines()[-1]
            raise InputError(f"OpenVINO cannot open {path}: {reason}") from error
        self._local = threading.local()

    def run(self, feeds: dict[str, np.ndarray]) -> np.ndarray:
        """Embeddings of a batch, shape (rows, d), float32; the next call of this thread overwrites them."""
        request = getattr(self._local, "request", None)
        if request is None:
            request = self._local.request = self._graph.create_infer_request()
        request.infer(feeds, share_inputs=True, share_outputs=True)
        embeddings: np.ndarray = request.get_output_tensor(0).data
        return embeddings


ENGINES: dict[str, type[OnnxRuntimeEngine | OpenVINOEngine]] = {
    "onnxruntime": OnnxRuntimeEngine,
    "openvino": OpenVINOEngine,
}


def open_engine(
    folder: str | os.PathLike[str],
    runtime: str | None = None,
    threads: int | None = None,
    providers: Sequence[str] | None = None,
    options: Mapping[str, Any] | None = None,
    manifest: Manifest | None = None,
    device: str | None = None,
) -> Engine:
    """Open the graph of an exported folder, its files checked against the manifest.

    Args:
        folder: An exported folder.
        runtime: ``onnxruntime`` or ``openvino``; ``auto`` times those that can run here and takes the faster one. By
            default the folder's only graph, or of two the one that :func:`default_runtime` names.
        threads: Processor threads; by default all cores.
        providers: onnxruntime's execution providers, best first.
        options: Settings of the engine; not with ``auto``.
        manifest: The folder's manifest, where it has been read.
        device: OpenVINO's device.

    Returns:
        The engine, ready to run.

    Raises:
        InputError: A runtime that does not exist or that the folder has no graph for; damaged files.
        MissingExtraError: The runtime is not installed.
    """
    manifest = manifest or read_manifest(folder)
    settings: dict[str, Any] = {"threads": threads, "providers": providers, "options": options, "device": device}
    if runtime == "auto":
        candidates = [name for name in manifest.graphs if find_spec(name) is not None]
        if len(candidates) > 1:
            return _fastest([_open(folder, manifest, name, **settings) for name in candidates], manifest)
        runtime = candidates[0] if candidates else None
    return _open(folder, manifest, runtime or default_runtime(manifest), **settings)


def default_runtime(manifest: Manifest) -> str:
    """The runtime for a folder on this machine, without timing.

    Of two graphs it is OpenVINO's on x86, where it was faster in batches in every precision measured, and onnxruntime's
    elsewhere; of these, one that is installed. For single sentences in dynamic int8, onnxruntime was faster
    (results/efficiency): ``runtime="auto"`` weighs both.
    """
    installed = [name for name in manifest.graphs if find_spec(name) is not None]
    on_x86 = platform.machine().lower() in ("x86_64", "amd64")
    preferred = ("openvino", "onnxruntime") if on_x86 else RUNTIMES
    return next(name for name in preferred if name in (installed or manifest.graphs))


def _open(
    folder: str | os.PathLike[str],
    manifest: Manifest,
    runtime: str,
    *,
    threads: int | None,
    options: Mapping[str, Any] | None,
    **where: Any,
) -> Engine:
    if runtime not in RUNTIMES:
        raise InputError(f"There is no runtime {runtime!r}: choose from {', '.join(RUNTIMES)} or auto.")
    if runtime not in manifest.graphs:
        raise InputError(f"{folder} has no graph for {runtime}, only for {', '.join(manifest.graphs)}: export one.")
    if threads is not None and threads < 1:
        raise InputError(f"threads is {threads}: it must be at least 1.")
    if find_spec(runtime) is None:
        raise MissingExtraError(f"Running {folder}", EXTRAS[runtime])
    graph = manifest.graphs[runtime]
    check_files(folder, graph)
    path = Path(folder, GRAPH_FILES[runtime][0])
    return ENGINES[runtime](path, threads, options={**graph.options, **(options or {})}, **where)


def _fastest(engines: list[Engine], manifest: Manifest) -> Engine:
    """The engine that is fastest at a batch of 16 x 32 tokens and at a single row, both of the same weight."""
    rng = np.random.default_rng(0)
    batches = [batch_feeds(rng.integers(0, 100, (rows, 32)), None, manifest, 0) for rows in (16, 1)]
    best = np.full((len(engines), len(batches)), np.inf)
    for _ in range(_CALIBRATION_ROUNDS + 1):
        for row, engine in zip(best, engines, strict=True):
            for index, feeds in enumerate(batches):
                start = time.perf_counter()
                engine.run(feeds)
                row[index] = min(row[index], time.perf_counter() - start)
    return engines[int(best.prod(axis=1).argmin())]


def batch_feeds(
    ids: np.ndarray, mask: np.ndarray | None, manifest: Manifest, prompt_length: int
) -> dict[str, np.ndarray]:
    """What a graph takes: ids and mask, both (rows, tokens), and the prompt's length where it asks for it."""
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids) if mask is None else mask}
    if not manifest.include_prompt:
        feeds["prompt_length"] = np.array(prompt_length, dtype=np.int64)
    return feeds
