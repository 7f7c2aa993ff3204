"""The machine of a benchmark: what it is, and the most it computes a second."""

from __future__ import annotations

import os
import platform
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_SIZES = (1024, 2048)
_SECONDS = 0.5


def machine() -> dict[str, Any]:
    """``processor``, ``cores`` (that this process may use), ``memory_bytes`` (``None`` where unknown), ``system``."""
    usable = getattr(os, "sched_getaffinity", None)
    memory = None
    with suppress(AttributeError, ValueError, OSError):
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": _processor(),
        "cores": len(usable(0)) if usable else os.cpu_count(),
        "memory_bytes": memory,
        "system": f"{platform.system()} {platform.machine()}",
    }


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def matmul_peaks(threads: int | None) -> dict[str, Any]:
    """The most GFLOP/s (for int8: 10^9 operations a second) that square matrix products in torch reach.

    Args:
        threads: Processor threads; torch's choice by default.

    Returns:
        By precision (``fp32``, ``bf16``, ``int8``): ``gflops``, ``None`` where torch cannot, and ``how``.
    """
    import torch

    if threads:
        torch.set_num_threads(threads)

    def operands(size: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        draw = [torch.randint(-9, 9, (size, size)).to(dtype) for _ in range(2)]
        return draw[0], draw[1]

    ways: dict[str, tuple[Callable[..., Any], torch.dtype, str]] = {
        "fp32": (torch.mm, torch.float32, "torch.mm, float32"),
        "bf16": (torch.mm, torch.bfloat16, "torch.mm, bfloat16"),
        "int8": (torch._int_mm, torch.int8, "torch._int_mm, int8 to int32"),
    }
    found = {}
    for precision, (multiply, dtype, how) in ways.items():
        gflops = None
        with suppress(RuntimeError):
            gflops = max(_most(multiply, *operands(size, dtype)) for size in _SIZES)
        found[precision] = {"gflops": gflops, "how": f"{how}, squares of {' and '.join(map(str, _SIZES))}"}
    return found


def _most(multiply: Callable[..., Any], left: Any, right: Any) -> float:
    operations = 2 * left.shape[0] ** 3
    multiply(left, right)
    fastest, end = float("inf"), time.perf_counter() + _SECONDS
    while (start := time.perf_counter()) < end:
        multiply(left, right)
        fastest = min(fastest, time.perf_counter() - start)
    return float(round(operations / fastest / 1e9, 1))
