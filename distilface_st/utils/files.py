"""Reading files, and writing them so that a crash loses nothing: to a temporary name first, renamed when whole."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator


_TEMPORARY = re.compile(r"\..+\.(tmp|old)(\.\w+)?")
"""Names that atomic files and folders have until they are whole; a killed process leaves one behind."""


_ATTEMPTS = 100
"""At putting a folder in its place, while other processes do the same."""


@dataclass(frozen=True)
class FolderKind:
    """What a folder that we write looks like: no other is ever replaced.

    Attributes:
        name: What to call it, such as ``a model``.
        mark: The file that tells it from any other folder.
        members: Regular expression of the names of what lies in it; anything else is somebody's own.
        early: Names that may be there before the mark is, those of locks say.
    """

    name: str
    mark: str
    members: str = ".*"
    early: frozenset[str] = frozenset()


def check_output(path: str | os.PathLike[str], kind: FolderKind) -> None:
    """Refuse a path where a folder of a kind cannot be written, or not without the loss of something else.

    Raises:
        InputError: There is a file, a folder that is neither empty nor of this kind, or one with something else in it.
        PermissionError: The folder cannot be written to.
    """
    target = Path(os.path.realpath(path))
    # Either will do: a folder is renamed, or where its parent forbids that, what it holds is exchanged.
    if not (target.is_dir() and os.access(target.parent, os.W_OK)):
        _check_nearest_folder(target)
    _check_content(Path(path), kind)


def _check_content(path: Path, kind: FolderKind) -> None:
    try:
        there = {entry.name for entry in path.iterdir()}
    except FileNotFoundError:
        return
    names = {name for name in there - kind.early if not _TEMPORARY.fullmatch(name)}
    if names and kind.mark not in names:
        raise InputError(f"{path} is not empty and not {kind.name} (it has no {kind.mark}): choose another folder.")
    if foreign := sorted(name for name in names if not re.fullmatch(kind.members, name)):
        raise InputError(f"{path} would be replaced, and {foreign[0]} in it be lost: choose another folder.")


def check_output_file(path: str | os.PathLike[str]) -> None:
    """Refuse a path where no file can be written: an :class:`InputError`."""
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder: name a file.")
    if not _is_device(path):
        _check_nearest_folder(Path(os.path.realpath(path)).parent)


def _check_nearest_folder(path: Path) -> None:
    """Refuse an absolute path of which the first part that exists, from the end, is no folder to write to."""
    there = next(folder for folder in (path, *path.parents) if os.path.lexists(folder))
    if there.is_file():
        raise InputError(f"{there} is a file and no folder: choose another name.")
    if there.exists() and not os.access(there, os.W_OK):
        raise PermissionError(f"{there} cannot be written to: choose another folder.")


def _is_device(path: Path) -> bool:
    """Whether it is there and neither a file nor a folder: a pipe, a terminal, ``/dev/null``."""
    return path.exists() and not path.is_file() and not path.is_dir()


@contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a free path of the same suffix beside ``path``; on success it replaces ``path``, else it is removed.

    Where ``path`` is a link, it stays one. A device or a pipe cannot be replaced: that is yielded itself.
    """
    check_output_file(path)
    if _is_device(Path(path)):
        yield Path(path)
        return
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    # A process number alone may be that of another container on a shared disk, or of another thread.
    number = f"{os.getpid()}{secrets.randbelow(10**9):09}"
    temporary = path.with_name(f".{path.stem}.{number}.tmp{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | os.PathLike[str], kind: FolderKind) -> Iterator[Path]:
    """Yield a temporary folder; on success it takes the place of ``path``, else it is removed.

    An existing folder is set aside before the rename and deleted only after it, so a whole folder lies at one of two
    names at any moment; of processes that write the same folder at once, the last one's stays. A folder that cannot be
    renamed (the current one, a volume, one whose parent cannot be written to) has its content exchanged instead.
    Where ``path`` is a link, it stays one.

    Raises:
        InputError: As :func:`check_output`, before anything is written and again before anything is replaced.
    """
    check_output(path, kind)
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    is_fixed = path.is_dir() and (
        path == Path(os.path.realpath(".")) or os.path.ismount(path) or not os.access(path.parent, os.W_OK)
    )
    temporary = _new_folder(path, path if is_fixed else path.parent, ".tmp")
    try:
        yield temporary
        _check_content(path, kind)
        if is_fixed:
            _exchange_content(temporary, path)
        else:
            _swap(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _new_folder(path: Path, where: Path, ending: str) -> Path:
    folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=ending, dir=where))
    os.umask(mask := os.umask(0))
    folder.chmod(0o777 & ~mask)
    return folder


def _swap(new: Path, path: Path) -> None:
    """Rename ``new`` to ``path``, and delete what was there."""
    with suppress(OSError):
        new.rename(path)  # also over an empty folder, but on Windows
        return
    aside = _new_folder(path, path.parent, ".old")
    old = None
    try:
        for attempt in range(_ATTEMPTS):
            with suppress(FileNotFoundError):  # another process has just set it aside
                path.rename(aside / str(attempt))
                old = aside / str(attempt)
            try:
                new.rename(path)
                return
            except OSError as error:  # another process has just put its own there
                problem = error
        if old is not None and not path.exists():
            old.rename(path)
        raise problem
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _exchange_content(new: Path, path: Path) -> None:
    """Move all that is in ``new`` into ``path``, and delete what was there; after an error all is as before."""
    aside = _new_folder(path, path, ".old")
    moves = [(entry, aside / entry.name) for entry in path.iterdir() if not _TEMPORARY.fullmatch(entry.name)]
    moves += [(entry, path / entry.name) for entry in new.iterdir()]
    done = []
    try:
        for source, target in moves:
            source.rename(target)
            done.append((source, target))
    except OSError:
        for source, target in reversed(done):
            target.rename(source)
        aside.rmdir()
        raise
    shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def only_one(path: str | os.PathLike[str]) -> Iterator[None]:
    """Let one process or thread at a time work on ``path``: whoever comes second finds what the first has made."""
    from filelock import FileLock

    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        yield


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it; what is not there is gone already."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a JSON object; a damaged file is an :class:`InputError`, a missing one a ``FileNotFoundError``."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is damaged: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} is damaged: not an object.")
    return content


def write_json(path: str | os.PathLike[str], data: Any) -> None:
    """Write ``data`` as indented UTF-8 JSON, atomically; NaN and infinity, which JSON cannot say, are a ValueError.

    A file's name that is not UTF-8 holds half characters in Python; JSON's escapes keep them as they are.
    """
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)
    with atomic_file(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")
