"""What this processor can do that decides how a graph is quantized."""

from __future__ import annotations

import platform
from pathlib import Path


def saturates_int8(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether 8-bit products of this processor may overflow 16 bits: x86 without VNNI.

    Args:
        cpuinfo: Where Linux lists the processor's flags. Where it is missing, x86 is taken to have no VNNI, which costs
            a bit of precision and is always right.
    """
    if platform.machine().lower() not in ("x86_64", "amd64", "i386", "i686"):
        return False
    try:
        flags = cpuinfo.read_text(encoding="utf-8")
    except OSError:
        return True
    return "avx512_vnni" not in flags and "avx_vnni" not in flags
