"""The list of a saved model's modules, read with every class and path checked: no code from its folder is run."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, cast

from sentence_transformers.util import load_file_path

from ..errors import InputError

STOCK_MODULES = "sentence_transformers."
OUR_MODULES = "distilface_st.modules."
"""What the classes of a model's modules may begin with."""


def downloaded(name: str) -> str:
    """The folder of a model: the name itself, or where the Hub's client keeps what it has downloaded."""
    if os.path.isdir(name):
        return name
    from huggingface_hub import snapshot_download

    return str(snapshot_download(name))


def read_module_list(name: str) -> list[dict[str, Any]]:
    """The entries of a model's ``modules.json``, each checked: its class, its path and its kind of weights."""
    try:
        file = load_file_path(name, "modules.json")
    except Exception as error:
        raise InputError(f"Cannot read {name}: no such folder, and the Hub says: {error}") from error
    if file is None:
        if not os.path.isdir(name):
            raise InputError(f"{name}: no such folder, and no sentence-transformers model of that name could be had.")
        raise InputError(
            f"{name} is not a sentence-transformers model (it has no modules.json); "
            "build_model composes one from a plain encoder."
        )
    try:
        entries = json.loads(Path(file).read_text(encoding="utf-8"))
        for entry in entries:
            _check_module(name, entry["type"], entry["path"])
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise InputError(f"{name}: modules.json is damaged: {error!r}") from error
    return cast("list[dict[str, Any]]", entries)


def _check_module(name: str, type_name: str, subfolder: str) -> None:
    if not type_name.startswith((STOCK_MODULES, OUR_MODULES)):
        raise InputError(
            f"{name} names the module {type_name}, which is neither sentence-transformers' nor this package's; "
            "code from model folders is never run."
        )
    if os.path.isabs(subfolder) or ".." in Path(subfolder).parts:
        raise InputError(f"{name}: the module path {subfolder!r} leads out of the model's folder.")
    folder = Path(name, subfolder)
    if folder.is_dir() and any(folder.glob("pytorch_model*.bin")) and not any(folder.glob("*.safetensors")):
        raise InputError(f"{folder} holds pickled weights only (pytorch_model.bin); convert them to safetensors first.")
