"""The near side of a benchmark's workers: start one, ask it, end it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")


class Worker:
    """A process that runs :mod:`distilface_st.benchmark.worker`. As a context it ends the process.

    Args:
        name: What errors call it.
        spec: See there; ``started`` is added here.
        scratch: A folder for its log and for embeddings on their way.
        batch: Sentences, or for an ``edge`` arm tokens, in a batch of :meth:`embed` and :meth:`encode`.

    Attributes:
        opened: What it said when it was ready: ``load`` and ``cold_start`` in seconds, ``computes_in``; of a ``peak``,
            its result.

    Raises:
        InputError: The process ended before it was ready.
    """

    def __init__(self, name: str, spec: dict[str, Any], scratch: Path, batch: int = 32) -> None:
        self.name, self.batch = name, batch
        self._scratch = scratch
        self._log = scratch / f"{time.monotonic_ns()}.log"
        environment = dict(os.environ)
        if spec["threads"]:
            environment |= dict.fromkeys(_THREAD_VARIABLES, str(spec["threads"]))
        with self._log.open("w", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "distilface_st.benchmark.worker"),
                    json.dumps({**spec, "started": time.time()}),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                encoding="utf-8",
                env=environment,
            )
        try:
            self.opened = self._answer()
        except BaseException:
            self.close()
            raise

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """Have something done.

        Raises:
            InputError: The process has ended.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **request}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._death() from None
        return self._answer()

    def embed(self, **what: Any) -> np.ndarray:
        """Embeddings of ``text=NAME`` or of ``sentences=[...]``, shape (sentences, d), float32."""
        file = self._scratch / "embeddings.npy"
        self.ask("embed", file=str(file), batch=self.batch, **what)
        return np.asarray(np.load(file))

    def encode(self, inputs: Sequence[str], **_: Any) -> np.ndarray:
        """Embeddings, as an evaluator asks for them; the batch is the worker's own."""
        return self.embed(sentences=list(inputs))

    def close(self) -> None:
        """End the process."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None and not pipe.closed:
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue
        self._process.terminate()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._death()
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _death(self) -> InputError:
        status = self._process.wait()
        lines = [line.strip() for line in self._log.read_text(encoding="utf-8", errors="replace").splitlines()]
        last = next((line for line in reversed(lines) if line), "it left no message")
        how = f"status {status}" if status >= 0 else f"signal {_signal_name(-status)}"
        hint = "; is there enough memory for all arms at once?" if how == "signal SIGKILL" else ""
        return InputError(f"{self.name} ended early ({how}): {last.removeprefix('distilface_st.errors.')}{hint}")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)
