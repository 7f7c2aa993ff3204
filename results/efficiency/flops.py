"""How near a benchmark's encoders come to the most that the machine computes.

    python results/efficiency/flops.py BENCHMARK.json TEXT MODEL...

TEXT and the MODELs are those that BENCHMARK.json was made with. Adds to it ``peaks`` (the GFLOP/s of the machine's
best matrix products, measured now) and to each variant ``gflops`` (on the sentences at batch 32, padding not counted as
work) and ``share_of_peak``.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from distilface_st import load_model
from distilface_st.benchmark.texts import benchmark_texts
from distilface_st.models.fingerprint import model_fingerprint
from distilface_st.utils.files import write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sentence_transformers import SentenceTransformer

SIZES = (1024, 2048)
SECONDS = 0.5


def main() -> None:
    path, text, *models = sys.argv[1:]
    report = json.loads(Path(path).read_text(encoding="utf-8"))
    known = report["texts"]["sentences"]
    sentences = benchmark_texts([], text, known["sentences"], 1, None)["sentences"]
    if sentences.describe()["fingerprint"] != known["fingerprint"]:
        raise SystemExit(f"{text} is not the text of {path}")
    flops = {}
    for name in models:
        model = load_model(name, device="cpu")
        flops[model_fingerprint(model)] = count_flops(model, sentences.sentences)
    report["peaks"] = matmul_peaks(report["threads"])
    for variant in report["variants"]:
        figure, work = variant["figures"]["sentences_batch32"], flops.get(variant["fingerprint"])
        variant["gflops"] = work and work * figure["median"] / figure["sentences"] / 1e9
        peak = report["peaks"][variant["computes_in"]]["gflops"]
        variant["share_of_peak"] = work and peak and variant["gflops"] / peak
    write_json(path, report)


def count_flops(model: SentenceTransformer, sentences: Sequence[str]) -> float:
    """Of ``sentences`` in the encoder; its pooler, which sees one token, and what comes after it are not counted."""
    config: Any = model[0].config
    weights = sum(
        module.weight.numel()
        for name, module in model[0].named_modules()
        if isinstance(module, nn.Linear) and "pooler" not in name
    )
    prompt = model.prompts.get(model.default_prompt_name or "") or ""
    ids = model.tokenizer(
        [prompt + text for text in sentences],
        truncation=model.max_seq_length is not None,
        max_length=model.max_seq_length,
    )["input_ids"]
    return forward_flops(weights, config.num_hidden_layers, config.hidden_size, map(len, ids))


def forward_flops(linear_parameters: int, layers: int, width: int, lengths: Iterable[int]) -> float:
    """Floating-point operations of a transformer encoder's matrix products.

    Each token meets each weight of the linear layers once, a multiplication and an addition: 2 x parameters. In every
    layer each token's query meets all keys, and its attention all values: 2 x 2 x tokens x width.

    >>> forward_flops(1000, layers=2, width=8, lengths=[10, 20])
    92000.0
    """
    return float(sum(2 * linear_parameters * tokens + 4 * layers * width * tokens**2 for tokens in lengths))


def matmul_peaks(threads: int | None) -> dict[str, Any]:
    """By precision, the most GFLOP/s (for int8: 10^9 operations a second) of square matrix products in torch."""
    if threads:
        torch.set_num_threads(threads)
    ways: dict[str, tuple[Callable[..., Any], torch.dtype, str]] = {
        "fp32": (torch.mm, torch.float32, "torch.mm, float32"),
        "bf16": (torch.mm, torch.bfloat16, "torch.mm, bfloat16"),
        "int8": (torch._int_mm, torch.int8, "torch._int_mm, int8 to int32"),
    }
    found = {}
    for precision, (multiply, dtype, how) in ways.items():
        gflops = None
        with suppress(RuntimeError):  # what this machine's torch cannot multiply has no peak
            gflops = max(most_gflops(multiply, dtype, size) for size in SIZES)
        found[precision] = {"gflops": gflops, "how": f"{how}, squares of {' and '.join(map(str, SIZES))}"}
    return found


def most_gflops(multiply: Callable[..., Any], dtype: torch.dtype, size: int) -> float:
    left, right = (torch.randint(-9, 9, (size, size)).to(dtype) for _ in range(2))
    multiply(left, right)
    fastest, end = float("inf"), time.perf_counter() + SECONDS
    while (start := time.perf_counter()) < end:
        multiply(left, right)
        fastest = min(fastest, time.perf_counter() - start)
    return float(round(2 * size**3 / fastest / 1e9, 1))


if __name__ == "__main__":
    main()
