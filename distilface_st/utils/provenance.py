"""What made a result: package versions, the command, the seed, and fingerprints of the model and the data."""

from __future__ import annotations

import hashlib
import platform
import sys
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

_PACKAGES: tuple[str, ...] = ("distilface-st", "sentence-transformers", "transformers", "torch", "numpy", "scipy")
_PACKAGES += ("datasets", "onnx", "onnxruntime", "openvino", "nncf")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a number; packages that are not installed are left out."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def command() -> str:
    """The command line as typed, the program's folder left out."""
    return shown(" ".join([Path(sys.argv[0]).name, *sys.argv[1:]]))


def shown(name: str) -> str:
    r"""A name as any file can hold it: bytes of a file's name that are not UTF-8 as escapes.

    Example:
        >>> shown("caf\udce9.txt")
        'caf\\udce9.txt'
    """
    return name.encode("utf-8", "backslashreplace").decode()


def text_fingerprint(texts: Iterable[str]) -> str:
    """64-bit BLAKE2b over texts, in the given order, each ended by a NUL."""
    digest = hashlib.blake2b(digest_size=8)
    for text in texts:
        digest.update(text.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()


def provenance(**known: Any) -> dict[str, Any]:
    """Versions and command, with whatever else is known (``seed``, ``model``, ``data``, ...) added."""
    return {"versions": versions(), "command": command(), **known}
