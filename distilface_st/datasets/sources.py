"""Where text comes from: a file, a folder of files, or a dataset on the Hub, each resolved to local files."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ..errors import InputError
from ..utils.provenance import shown

_PLAIN_OR_GZIPPED = (".txt", ".jsonl", ".csv", ".tsv")
_PLAIN_ONLY = (".parquet", ".arrow")
KNOWN = ".txt, .jsonl, .csv, .tsv (each also with .gz), .parquet and .arrow"

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


class _HubFile(NamedTuple):
    name: str
    revision: str


# Datasets on the Hub of which one file is meant, pinned. The first is Wiki1M, the SimCSE authors' own upload.
_HUB_FILES = {
    "princeton-nlp/datasets-for-simcse": _HubFile("wiki1m_for_simcse.txt", "e145e8bb659b2aa2669f32ef79cb4cdef6c58fef"),
}


@dataclass(frozen=True)
class Source:
    """Local files that hold text, in the order they are read; ``name`` is a file name, folder name or Hub id."""

    name: str
    files: tuple[Path, ...]

    def identity(self) -> list[tuple[str, int, int]]:
        """Absolute path, size in bytes and time of change in nanoseconds of each file; other text, other identity."""
        status = [(file, file.stat()) for file in self.files]
        return [(str(file.absolute()), found.st_size, found.st_mtime_ns) for file, found in status]


def file_kind(path: Path) -> str | None:
    """The suffix that says how a file is read, lower-case and without ``.gz``; None where it is not a known one.

    Example:
        >>> file_kind(Path("news.TXT.gz")), file_kind(Path("news.parquet")), file_kind(Path("news.pdf"))
        ('.txt', '.parquet', None)
    """
    name = path.name.lower()
    kind = Path(name.removesuffix(".gz")).suffix
    return kind if kind in _PLAIN_OR_GZIPPED or (kind in _PLAIN_ONLY and not name.endswith(".gz")) else None


def find_source(source: str | os.PathLike[str]) -> Source:
    """Resolve what a user gave to local files, downloading a Hub dataset where that is what it names.

    A local path comes first. What is no path, bears no file suffix and has the form ``name`` or ``owner/name`` is taken
    for a Hub dataset, whose ``train`` split is read (of ``princeton-nlp/datasets-for-simcse`` the file with Wiki1M). No
    code from the Hub is run. Of a folder the known files are read, in the order of their names, and no sub-folders.

    Raises:
        InputError: If nothing is there, the kind of file is not known, or the Hub cannot give the dataset.
    """
    path = Path(source)
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.is_file() and file.name[0] != "." and file_kind(file))
        if not files:
            raise InputError(f"{path}: no file in this folder can be read; known are {KNOWN}")
        return Source(shown(path.resolve().name), tuple(files))
    if path.exists():
        if file_kind(path) is None:
            raise InputError(f"{path}: not a kind of file that can be read; known are {KNOWN}")
        return Source(shown(path.name), (path,))
    if file_kind(path) is not None or not _HUB_ID.fullmatch(os.fspath(source)):
        raise InputError(f"{path}: no such file or folder")
    hub_id = os.fspath(source)
    try:
        on_hub = download(hub_id)
    except (OSError, ValueError, RuntimeError) as error:
        message = f"{hub_id}: no such file or folder, and not to be had as a dataset from the Hub"
        raise InputError(f"{message} ({type(error).__name__}: {error})") from error
    if not on_hub:
        raise InputError(f"{hub_id}: the train split of this dataset is empty")
    return Source(hub_id, on_hub)


def download(hub_id: str) -> tuple[Path, ...]:
    """A dataset's files in the Hub's local cache, fetched if need be: the only place that reaches for the Hub for text.

    They are Arrow files, unless the dataset is one of which a single file is meant.
    """
    if hub_id in _HUB_FILES:
        from huggingface_hub import hf_hub_download

        name, revision = _HUB_FILES[hub_id]
        return (Path(hf_hub_download(hub_id, name, repo_type="dataset", revision=revision)),)
    from datasets import load_dataset

    train = load_dataset(hub_id, split="train", keep_in_memory=False)
    return tuple(Path(cached["filename"]) for cached in train.cache_files)
