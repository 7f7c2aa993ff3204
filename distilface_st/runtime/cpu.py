"""What this processor can do that decides how a graph is quantized."""

from __future__ import annotations

import platform
from pathlib import Path


def saturates_int8() -> bool:
    """Whether 8-bit products of this processor may overflow 16 bits: x86 without VNNI.

    Where the flags cannot be read (not Linux), x86 is taken to have no VNNI, which is safe.
    """
    if platform.machine().lower() not in ("x86_64", "amd64", "i386", "i686"):
        return False
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return True
    return "avx512_vnni" not in flags and "avx_vnni" not in flags
