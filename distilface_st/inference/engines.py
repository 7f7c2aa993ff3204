"""The engines that run a graph: onnxruntime and OpenVINO, behind one call."""

from __future__ import annotations

import platform
import threading
import time
import warnings
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from ..errors import InputError, MissingExtraError
from . import compiled
from .manifest import check_files, read_manifest

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from .manifest import Manifest

RUNTIMES = ("onnxruntime", "openvino")
"""The engines, by the name of the package that each is."""

EXTRAS = {"onnxruntime": "onnx", "openvino": "openvino"}
"""The extra of this package that brings each."""


EMBEDDING = "sentence_embedding"
"""The output that a graph is run for. Exports also have ``last_hidden_state``, for software that pools by itself."""


class Engine(Protocol):
    """A graph that is ready to run, from any thread."""

    runtime: str

    def run(self, feeds: dict[str, np.ndarray]) -> np.ndarray:
        """Embeddings of a batch, shape (rows, d), float32; valid until this thread's next call."""


class OnnxRuntimeEngine:
    """A graph in onnxruntime: an ``.onnx`` file first among its files. Other arguments are :func:`open_engine`'s."""

    runtime = "onnxruntime"

    def __init__(
        self,
        files: Sequence[Path],
        threads: int | None = None,
        providers: Sequence[str] | None = None,
        options: Mapping[str, Any] | None = None,
        device: str | None = None,
    ) -> None:
        import onnxruntime

        if device is not None:
            raise InputError(f"device is {device!r}, which is OpenVINO's: onnxruntime takes providers.")
        wanted, available = list(providers or ["CPUExecutionProvider"]), onnxruntime.get_available_providers()
        if missing := [name for name in wanted if name not in available]:
            has = ", ".join(available)
            raise InputError(f"onnxruntime has no provider {', '.join(missing)} here; it has {has}.")
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = threads or 0
        for key, value in (options or {}).items():
            settings.add_session_config_entry(key, str(value))
        try:
            self._session = onnxruntime.InferenceSession(str(files[0]), settings, providers=wanted)
        except Exception as error:
            raise InputError(f"onnxruntime cannot open {files[0]}: {error}") from error

    def run(self, feeds: dict[str, np.ndarray]) -> np.ndarray:
        """Embeddings of a batch, shape (rows, d), float32."""
        return cast("np.ndarray", self._session.run([EMBEDDING], feeds)[0])


class OpenVINOEngine:
    """A graph in OpenVINO, compiled for low latency: on few cores that is the best throughput, too.

    Its files are an ``.xml`` and the weights: of a packed model, the file that it shares with torch and then its own.
    Other arguments are :func:`open_engine`'s; the first of ``providers`` is taken for the device, with a warning, as
    version 0.1 had it. With a ``digest`` of the files, what was compiled is kept for the next process.
    """

    runtime = "openvino"

    def __init__(
        self,
        files: Sequence[Path],
        threads: int | None = None,
        providers: Sequence[str] | None = None,
        options: Mapping[str, Any] | None = None,
        device: str | None = None,
        digest: str | None = None,
    ) -> None:
        if providers:
            warnings.warn("Name OpenVINO's device by device, not by providers.", DeprecationWarning, stacklevel=2)
        settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", **(options or {})}
        if threads:
            settings["INFERENCE_NUM_THREADS"] = threads
        try:
            place = device or (providers or ["CPU"])[0]
            self._graph = compiled.open_graph(openvino_core(), files, place, settings, digest)
        except Exception as error:
            reason = str(error).strip().splitlines()[-1]
            raise InputError(f"OpenVINO cannot open {files[0]}: {reason}") from error
        outputs = [output.get_names() for output in self._graph.outputs]
        self._output = next((place for place, names in enumerate(outputs) if EMBEDDING in names), 0)
        self._local = threading.local()

    def run(self, feeds: dict[str, np.ndarray]) -> np.ndarray:
        """Embeddings of a batch, shape (rows, d), float32; the next call of this thread overwrites them."""
        request = getattr(self._local, "request", None)
        if request is None:
            request = self._local.request = self._graph.create_infer_request()
        request.infer(feeds, share_inputs=True, share_outputs=True)
        return cast("np.ndarray", request.get_output_tensor(self._output).data)


@cache
def openvino_core() -> Any:
    """OpenVINO's core, one for the life of the process.

    Its CPU plugin gives the thread that loads it a stack for signal handlers. A plugin that goes can leave the stack of
    one that went before in its place, and the next signal then ends the process (seen with OpenVINO 2026.4).
    """
    import openvino

    return openvino.Core()


ENGINES: dict[str, type[OnnxRuntimeEngine | OpenVINOEngine]]
ENGINES = {engine.runtime: engine for engine in (OnnxRuntimeEngine, OpenVINOEngine)}


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
            default the folder's only graph, or of two the one that providers or a device are meant for, else that which
            :func:`default_runtime` names.
        threads: Processor threads; by default all cores.
        providers: onnxruntime's execution providers, best first; by default the CPU's.
        options: Settings of the engine, which is to be named then: onnxruntime's session configuration, or OpenVINO's
            compilation properties such as ``{"INFERENCE_PRECISION_HINT": "f32"}``.
        manifest: The folder's manifest, where it has been read.
        device: OpenVINO's device; by default ``CPU``.

    Raises:
        InputError: A runtime that does not exist or that the folder has no graph for; damaged files.
        MissingExtraError: The runtime is not installed.
    """
    known = manifest or read_manifest(folder)
    if runtime is None:
        runtime = _meant_by(providers, device, known)

    def open_one(runtime: str) -> Engine:
        if runtime not in RUNTIMES:
            raise InputError(f"There is no runtime {runtime!r}: choose from {', '.join(RUNTIMES)} or auto.")
        if runtime not in known.graphs:
            raise InputError(f"{folder} has no graph for {runtime}, only for {', '.join(known.graphs)}: export one.")
        if threads is not None and threads < 1:
            raise InputError(f"threads is {threads}: it must be at least 1.")
        if find_spec(runtime) is None:
            raise MissingExtraError(f"Running {folder}", EXTRAS[runtime])
        graph = known.graphs[runtime]
        check_files(folder, graph)
        files = [Path(folder, name) for name in graph.files]
        settings: dict[str, Any] = {**graph.options, **(options or {})}
        if runtime == "openvino":
            return OpenVINOEngine(files, threads, providers, settings, device, graph.digest)
        return OnnxRuntimeEngine(files, threads, providers, settings, device)

    if runtime == "auto":
        candidates = [name for name in known.graphs if find_spec(name) is not None]
        if len(candidates) > 1:
            return _fastest([open_one(name) for name in candidates], known)
        runtime = candidates[0] if candidates else None
    return open_one(runtime or default_runtime(known))


def _meant_by(providers: Sequence[str] | None, device: str | None, manifest: Manifest) -> str | None:
    """The runtime that these settings are for, of a folder that has a graph for it."""
    meant = "onnxruntime" if any(name.endswith("ExecutionProvider") for name in providers or ()) else None
    meant = "openvino" if device is not None else meant
    return meant if meant in manifest.graphs else None


def default_runtime(manifest: Manifest) -> str:
    """The runtime for a folder on this machine, without timing.

    Of two graphs it is OpenVINO's on x86, where it was faster in batches in every precision measured, and onnxruntime's
    elsewhere, and for int8 on processors without VNNI; of these, one that is installed. For single sentences in dynamic
    int8, onnxruntime was faster (results/efficiency): ``runtime="auto"`` weighs both.
    """
    installed = [name for name in manifest.graphs if find_spec(name) is not None]
    on_x86 = platform.machine().lower() in ("x86_64", "amd64")
    prefers_openvino = on_x86 and (manifest.precision != "int8" or has_vnni())
    preferred = ("openvino", "onnxruntime") if prefers_openvino else RUNTIMES
    return next(name for name in preferred if name in (installed or manifest.graphs))


def has_vnni(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether an x86 processor multiplies int8 in one instruction, by Linux's list of flags; without that list, no."""
    try:
        flags = cpuinfo.read_text(encoding="utf-8")
    except OSError:
        return False
    return "avx512_vnni" in flags or "avx_vnni" in flags


def _fastest(engines: list[Engine], manifest: Manifest) -> Engine:
    """The engine that is fastest at a batch of 16 x 32 tokens and at a single row, both of the same weight."""
    rng = np.random.default_rng(0)
    batches = [batch_feeds(rng.integers(0, 100, (rows, 32)), None, manifest, 0) for rows in (16, 1)]
    best = np.full((len(engines), len(batches)), np.inf)
    for _ in range(4):  # the first round warms up
        for row, engine in zip(best, engines, strict=True):
            for index, feeds in enumerate(batches):
                start = time.perf_counter()
                engine.run(feeds)
                row[index] = min(row[index], time.perf_counter() - start)
    return engines[int(best.prod(axis=1).argmin())]


def embed_batch(
    engine: Engine, ids: np.ndarray, mask: np.ndarray | None, manifest: Manifest, prompt_length: int
) -> np.ndarray:
    """Embeddings of a batch, shape (rows, d), float32, to be copied; those of texts without any token are zeros.

    Engines would divide by the number of tokens, or could not take a batch that has none.
    """
    empty: np.ndarray = np.full(len(ids), not ids.shape[1]) if mask is None else np.logical_not(mask.any(axis=1))
    if not empty.any():
        return engine.run(batch_feeds(ids, mask, manifest, prompt_length))
    if not ids.shape[1]:
        return np.zeros((len(ids), manifest.dimension), np.float32)
    assert mask is not None
    mask = np.where(empty[:, None], 1, mask)
    embeddings: np.ndarray = engine.run(batch_feeds(ids, mask, manifest, prompt_length)).copy()
    embeddings[empty] = 0
    return embeddings


def batch_feeds(
    ids: np.ndarray, mask: np.ndarray | None, manifest: Manifest, prompt_length: int
) -> dict[str, np.ndarray]:
    """What a graph takes: ids and mask, both (rows, tokens), and the prompt's length where it asks for it."""
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids) if mask is None else mask}
    if not manifest.include_prompt:
        feeds["prompt_length"] = np.array(prompt_length, dtype=np.int64)
    return feeds
