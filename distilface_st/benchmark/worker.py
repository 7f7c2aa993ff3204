"""One arm of a benchmark, in a process of its own: opens a model, then does what it is told, a JSON line at a time.

``python -m distilface_st.benchmark.worker SPEC`` is started by :mod:`distilface_st.benchmark.process`. What SPEC
says: ``kind`` (``torch``, ``torch-bf16``, ``st``, ``edge``; ``peak`` measures the machine and ends), ``folder``,
``runtime``, ``threads`` and ``started`` (``time.time()`` before the process was). Nothing is imported that the arm's
user would not import: an ``edge`` arm knows no torch.
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

_PROBE = "The first sentence after opening."
_WARM_UP = 10
"""Before each timing, every tenth sentence is encoded: caches are warm, and engines have met most lengths."""


class _Opened(NamedTuple):
    """A model that is ready: ``one(sentence)``, ``many(sentences, batch)``, and the precision it multiplies in."""

    one: Callable[[str], np.ndarray]
    many: Callable[[list[str], int], np.ndarray]
    computes_in: str


def main() -> None:
    """Open what ``sys.argv[1]`` says and answer requests until stdin ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever libraries print goes to stderr

    def answer(content: dict[str, Any]) -> None:
        answers.write(json.dumps(content) + "\n")
        answers.flush()

    spec = json.loads(sys.argv[1])
    if spec["kind"] == "peak":
        from .machine import matmul_peaks

        answer(matmul_peaks(spec["threads"]))
        return
    _import(spec)
    start = time.perf_counter()
    opened = _OPENERS[spec["kind"]](spec)
    opened.one(_PROBE)
    load = time.perf_counter() - start
    answer({"load": load, "cold_start": time.time() - spec["started"], "computes_in": opened.computes_in})
    texts: dict[str, list[str]] = {}
    for line in sys.stdin:
        answer(_REQUESTS[(request := json.loads(line))["do"]](opened, texts, request))


def _import(spec: dict[str, Any]) -> None:
    """Import what opening would import, so that the load time holds none of it."""
    if spec["kind"] == "edge":
        import_module("distilface_st.inference.edge_encoder")
    else:
        import_module("distilface_st.models.load")
        import torch

        if spec["threads"]:
            torch.set_num_threads(spec["threads"])
    if spec["runtime"]:
        with suppress(ImportError):  # opening says which extra is missing
            import_module(spec["runtime"])
    else:
        for home in ("", "encoder"):  # a packed model's settings have a folder of their own
            _import_encoder(Path(spec["folder"], home, "config.json"))


def _import_encoder(config: Path) -> None:
    """Import the encoder's code, which transformers otherwise imports as it opens a model."""
    with suppress(ImportError, OSError, KeyError, ValueError):
        kind = json.loads(config.read_text(encoding="utf-8"))["model_type"]
        import_module(f"transformers.models.{kind.replace('-', '_')}.modeling_{kind.replace('-', '_')}")


def _open_torch(spec: dict[str, Any]) -> _Opened:
    from ..models.load import load_model

    return _sentence_transformer(load_model(spec["folder"], device="cpu"), "fp32")


def _open_bf16(spec: dict[str, Any]) -> _Opened:
    import torch

    from ..models.load import load_model

    return _sentence_transformer(load_model(spec["folder"], device="cpu").to(torch.bfloat16), "bf16")


def _open_export(spec: dict[str, Any]) -> _Opened:
    from ..models.load import load_model

    model = load_model(spec["folder"], runtime=spec["runtime"], threads=spec["threads"])
    return _sentence_transformer(model, _computes_in(spec))


def _open_edge(spec: dict[str, Any]) -> _Opened:
    from ..inference.edge_encoder import EdgeEncoder

    encoder = EdgeEncoder(spec["folder"], runtime=spec["runtime"], threads=spec["threads"])
    return _Opened(encoder.encode, lambda texts, batch: encoder.encode(texts, batch_tokens=batch), _computes_in(spec))


_OPENERS = {"torch": _open_torch, "torch-bf16": _open_bf16, "st": _open_export, "edge": _open_edge}


def _sentence_transformer(model: Any, computes_in: str) -> _Opened:
    return _Opened(
        lambda text: model.encode(text, show_progress_bar=False),
        lambda texts, batch: model.encode(texts, batch_size=batch, show_progress_bar=False),
        computes_in,
    )


def _computes_in(spec: dict[str, Any]) -> str:
    """What most products of an exported graph are computed in: OpenVINO prefers bf16 where the processor has it."""
    from ..inference.manifest import read_manifest

    manifest = read_manifest(spec["folder"])
    if manifest.precision == "int8":
        return "int8"
    if spec["runtime"] != "openvino" or manifest.graphs["openvino"].options.get("INFERENCE_PRECISION_HINT") == "f32":
        return "fp32"
    import openvino

    return "bf16" if "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "fp32"


def _texts(opened: _Opened, texts: dict[str, list[str]], request: dict[str, Any]) -> dict[str, Any]:
    """Keep the texts, so that no timing includes their transfer."""
    texts.update(request["texts"])
    return {}


def _time(opened: _Opened, texts: dict[str, list[str]], request: dict[str, Any]) -> dict[str, Any]:
    """Seconds to encode every ``step``-th sentence of a text; without a batch, one call a sentence."""
    sentences = texts[request["text"]][:: request["step"]]
    _encode(opened, sentences[::_WARM_UP], request["batch"])
    start = time.perf_counter()
    _encode(opened, sentences, request["batch"])
    return {"seconds": time.perf_counter() - start, "sentences": len(sentences)}


def _encode(opened: _Opened, sentences: list[str], batch: int | None) -> None:
    if batch is not None:
        opened.many(sentences, batch)
        return
    for sentence in sentences:
        opened.one(sentence)


def _embed(opened: _Opened, texts: dict[str, list[str]], request: dict[str, Any]) -> dict[str, Any]:
    """Write the embeddings of the request's sentences, or of one of the texts, to a ``.npy`` file."""
    import numpy as np

    sentences = request["sentences"] if "sentences" in request else texts[request["text"]]
    np.save(request["file"], np.asarray(opened.many(sentences, request["batch"]), dtype=np.float32))
    return {}


def _memory(opened: _Opened, texts: dict[str, list[str]], request: dict[str, Any]) -> dict[str, Any]:
    """Peak resident memory of this process in bytes; ``None`` where the system does not tell.

    Linux keeps ``ru_maxrss`` across ``exec``, so that it may be the parent's peak: the kernel's own mark is read there.
    """
    with suppress(OSError):
        marks = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
        return {"bytes": int(marks[0].split()[1]) * 1024}
    with suppress(ImportError):
        import resource

        return {"bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)}
    return {"bytes": None}


_REQUESTS = {"texts": _texts, "time": _time, "embed": _embed, "memory": _memory}


if __name__ == "__main__":
    main()
