"""One variant of a benchmark in a process of its own: the parent's side of it, and what runs in there.

Requests and answers are pickles over the process's stdin and stdout. multiprocessing's spawn would import the caller's
main script in the process, and with it perhaps torch, which would count in the memory and the start of a variant whose
user needs none. For the same reason this module imports little: an ``edge`` variant's process knows no torch.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from .report import Variant


class VariantError(InputError):
    """A variant's process ended before it had answered."""


class Opened(NamedTuple):
    """What a process says when its model has embedded a first sentence."""

    load: float  # seconds to open the model and embed the sentence, imports not counted
    cold_start: float  # seconds since the process was started
    computes_in: str  # what most products are computed in: fp32, bf16 or int8


class Worker:
    """The process of one variant, with its model opened; where it ends early, its methods raise a VariantError."""

    def __init__(self, variant: Variant, threads: int | None) -> None:
        self.name = variant.id
        self.default_batch = 1024 if variant.kind == "edge" else 32  # tokens or sentences, as encoders take by default
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the process)
        variables = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS") if threads else ()
        started = time.time()
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"from {__name__} import serve; serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=os.environ | dict.fromkeys(variables, str(threads)),
        )
        model = {"kind": variant.kind, "folder": str(variant.folder), "runtime": variant.runtime}
        try:
            self.opened: Opened = self.ask("open", **model, threads=threads, started=started)
        except BaseException:
            self.close()
            raise

    def ask(self, request: str, **arguments: Any) -> Any:
        """Call a method of the process's :class:`VariantProcess`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            pickle.dump((request, arguments), self._process.stdin)
            self._process.stdin.flush()
            return pickle.load(self._process.stdout)
        except (EOFError, OSError, pickle.UnpicklingError):
            status = self._process.wait()
        self._log.seek(0)
        lines = [line.strip() for line in self._log.read().decode(errors="replace").splitlines()]
        last = next((line for line in reversed(lines) if line), "it left no message")
        names = {number.value: number.name for number in signal.Signals}
        how = f"status {status}" if status >= 0 else f"signal {names.get(-status, -status)}"
        hint = "; is there enough memory for all variants at once?" if how == "signal SIGKILL" else ""
        raise VariantError(f"{self.name} ended early ({how}): {last.removeprefix('distilface_st.errors.')}{hint}")

    def encode(self, inputs: Sequence[str], **_: Any) -> np.ndarray:
        """Embeddings, as an evaluator asks for them; the batch is the runtime's default."""
        embeddings: np.ndarray = self.ask("embed", sentences=list(inputs), batch=self.default_batch)
        return embeddings

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        with suppress(BrokenPipeError), self._process, self._log:
            """Leaving closes the pipes and waits for the process."""


def serve() -> None:
    """Answer the parent's requests until it closes stdin: what the process of a variant runs."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever libraries print goes to stderr
    process = VariantProcess()
    while True:
        try:
            request, arguments = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        pickle.dump(getattr(process, request)(**arguments), answers)
        answers.flush()


class VariantProcess:
    """What the process of a variant does when asked; each public method is a request."""

    def open(self, kind: str, folder: str, runtime: str, threads: int | None, started: float) -> Opened:
        """Open the model and embed a first sentence; ``started`` is ``time.time()`` before the process was."""
        self.texts: dict[str, list[str]] = {}
        self.batch_option = "batch_tokens" if kind == "edge" else "batch_size"
        _import_what_opening_imports(kind, folder, runtime)
        if kind != "edge" and threads:
            import torch

            torch.set_num_threads(threads)
        start = time.perf_counter()
        self.encoder = _open_encoder(kind, folder, runtime, threads)
        self._encode(["The first sentence after opening."], None)
        load = time.perf_counter() - start
        return Opened(load, time.time() - started, _computes_in(kind, folder, runtime))

    def keep(self, texts: dict[str, list[str]]) -> None:
        """Keep texts by name, so that no timing includes their transfer."""
        self.texts |= texts

    def time(self, text: str, batch: int | None, step: int = 1) -> float:
        """Seconds to encode every ``step``-th sentence of a text; without a batch, one call a sentence."""
        sentences = self.texts[text][::step]
        self._encode(sentences[::10], batch)  # caches are warm then, and engines have met most lengths
        start = time.perf_counter()
        self._encode(sentences, batch)
        return time.perf_counter() - start

    def embed(self, sentences: list[str] | str, batch: int) -> np.ndarray:
        """Embeddings of sentences, or of the text of that name; shape (sentences, d), float32."""
        import numpy as np

        texts = self.texts[sentences] if isinstance(sentences, str) else sentences
        return np.asarray(self._encode(texts, batch), dtype=np.float32)

    def peak_memory(self) -> int | None:
        """Peak resident memory of this process in bytes; ``None`` where the system does not tell.

        Linux keeps ``ru_maxrss`` across ``exec``, so that it may be the parent's peak: the kernel's own mark is read.
        """
        with suppress(OSError):
            marks = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
            return int(marks[0].split()[1]) * 1024
        with suppress(ImportError):
            import resource

            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return None

    def _encode(self, sentences: list[str], batch: int | None) -> Any:
        if batch is not None:
            return self.encoder.encode(sentences, show_progress_bar=False, **{self.batch_option: batch})
        for sentence in sentences:
            self.encoder.encode(sentence, show_progress_bar=False)
        return None


def _import_what_opening_imports(kind: str, folder: str, runtime: str) -> None:
    """So that the load time holds no import; packages that are missing are left for opening to name."""
    import_module("distilface_st.inference.edge_encoder" if kind == "edge" else "distilface_st.models.load")
    if runtime != "torch":
        with suppress(ImportError):
            import_module(runtime)
        return
    for home in ("", "encoder"):  # a packed model's settings have a folder of their own
        with suppress(ImportError, OSError, KeyError, ValueError):
            settings = json.loads(Path(folder, home, "config.json").read_text(encoding="utf-8"))
            model_type = settings["model_type"].replace("-", "_")
            import_module(f"transformers.models.{model_type}.modeling_{model_type}")


def _open_encoder(kind: str, folder: str, runtime: str, threads: int | None) -> Any:
    if kind == "edge":
        from ..inference.edge_encoder import EdgeEncoder

        return EdgeEncoder(folder, runtime, threads)
    from ..models.load import load_model

    if kind == "st":
        return load_model(folder, runtime=runtime, threads=threads)
    model = load_model(folder, device="cpu")
    return model.bfloat16() if kind == "torch-bf16" else model


def _computes_in(kind: str, folder: str, runtime: str) -> str:
    """What most products are computed in: OpenVINO prefers bf16 for floats where the processor has it."""
    if runtime == "torch":
        return "bf16" if kind == "torch-bf16" else "fp32"
    from ..inference.manifest import read_manifest

    manifest = read_manifest(folder)
    if manifest.precision == "int8":
        return "int8"
    if runtime != "openvino" or manifest.graphs["openvino"].options.get("INFERENCE_PRECISION_HINT") == "f32":
        return "fp32"
    from ..inference.engines import openvino_core

    return "bf16" if "BF16" in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "fp32"
