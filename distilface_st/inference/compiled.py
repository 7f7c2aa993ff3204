"""Graphs that OpenVINO compiled, kept for the next process: compiling takes most of the time to a first embedding."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..utils.files import atomic_file

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CACHE_VARIABLE = "DISTILFACE_CACHE"
"""Environment variable that names the folder of compiled graphs; where it is empty, none are kept."""

_ENDING = ".compiled"
_MOST = 8
_LARGEST = 100_000_000  # bytes
_CHECKSUM = 32  # bytes before a graph's own


def open_graph(
    core: Any, files: Sequence[Path], device: str, settings: Mapping[str, Any], digest: str | None = None
) -> Any:
    """A graph compiled by OpenVINO's ``core``, or taken from the cache folder where this very one was compiled before.

    An entry is one graph's, of one OpenVINO, for one processor with one set of settings. Whatever is wrong with it or
    its folder, the graph is compiled.

    Args:
        core: OpenVINO's core.
        files: The graph's ``.xml`` and, where they do not lie beside it under its name, files that follow each other
            as its weights.
        device: The device; graphs are kept for ``CPU`` alone.
        settings: Compilation properties.
        digest: What tells the files from others; without it nothing is kept.
    """
    folder = cache_folder()
    if digest is None or folder is None or device != "CPU" or "CACHE_DIR" in settings or not _is_own(folder):
        return core.compile_model(_read(core, files), device, settings)
    import openvino

    known = [digest, openvino.get_version(), core.get_property(device, "FULL_DEVICE_NAME"), platform.machine()]
    known += [core.get_property(device, "OPTIMIZATION_CAPABILITIES"), os.cpu_count(), dict(settings)]
    key = hashlib.sha256(json.dumps(known, sort_keys=True, default=str).encode()).hexdigest()
    entry = folder / f"{key[:32]}{_ENDING}"
    with suppress(Exception):  # none there, one cut short, one that this OpenVINO does not take after all
        content = entry.read_bytes()
        if hashlib.sha256(content[_CHECKSUM:]).digest() == content[:_CHECKSUM]:
            graph = core.import_model(content[_CHECKSUM:], device, settings)
            with suppress(OSError):  # a folder that may be read alone
                os.utime(entry)
            return graph
    graph = core.compile_model(_read(core, files), device, settings)
    if sum(file.stat().st_size for file in files) > _LARGEST:
        return graph
    with suppress(Exception):  # no room, no right to write: it is compiled again next time
        _keep(entry, graph.export_model().getvalue())
    return graph


def _is_own(folder: Path) -> bool:
    """Whether nobody but the user (or root) can put anything into a folder; one that is not there yet will be so."""
    try:
        found = folder.stat()
    except OSError:
        return True
    return os.name != "posix" or (found.st_uid in (os.getuid(), 0) and not found.st_mode & 0o022)


def _read(core: Any, files: Sequence[Path]) -> Any:
    if len(files) == 1 or files[1:] == [files[0].with_suffix(".bin")]:
        return core.read_model(str(files[0]))
    return core.read_model(files[0].read_bytes(), b"".join(file.read_bytes() for file in files[1:]))


def _keep(entry: Path, compiled: bytes) -> None:
    """Write an entry, whole or not at all, and remove those that were not used for longest."""
    entry.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with atomic_file(entry) as temporary:
        temporary.write_bytes(hashlib.sha256(compiled).digest() + compiled)
    entries = sorted(entry.parent.glob(f"*{_ENDING}"), key=lambda path: path.stat().st_mtime)
    for old in entries[:-_MOST]:
        old.unlink(missing_ok=True)


def cache_folder() -> Path | None:
    """The folder of compiled graphs: what ``DISTILFACE_CACHE`` names, else in the user's cache; ``None`` for none."""
    named = os.environ.get(CACHE_VARIABLE)
    if named is not None:
        return Path(named) if named else None
    try:
        home = Path.home()
    except RuntimeError:
        return None
    default = {"Windows": home / "AppData" / "Local", "Darwin": home / "Library" / "Caches"}
    own = os.environ.get("LOCALAPPDATA" if platform.system() == "Windows" else "XDG_CACHE_HOME")
    return Path(own or default.get(platform.system(), home / ".cache")) / "distilface"
