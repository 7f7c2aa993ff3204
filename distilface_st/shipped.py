"""The small models that this package brings along, packed (see :func:`distilface_st.pack_model`)."""

from __future__ import annotations

from pathlib import Path

from .errors import InputError

SHIPPED = ("mini", "micro")
DEFAULT_MODEL = "mini"
BUNDLED = "bundled"
"""The name of the encoder that the extra ``offline`` brings."""

_PREFIX = "distilface-"
_ASSETS = Path(__file__).parent / "assets"


def shipped_model(name: str = DEFAULT_MODEL) -> Path:
    """Folder of a model that this package brings along.

    Args:
        name: ``mini`` or ``micro``, or the same with ``distilface-`` before it.

    Returns:
        A packed folder, for :func:`distilface_st.load_model` and :class:`distilface_st.EdgeEncoder`.

    Raises:
        InputError: No model of that name, or this installation came without it.

    Example:
        ::

            EdgeEncoder(shipped_model("micro")).encode("It is sunny.")
    """
    short = name.removeprefix(_PREFIX)
    if short not in SHIPPED:
        raise InputError(f"There is no shipped model {name!r}: choose from {', '.join(SHIPPED)}.")
    folder = _ASSETS / short
    if not (folder / "modules.json").is_file():
        raise InputError(f"This installation has no {_PREFIX}{short} ({folder} is missing): install the package again.")
    return folder


def is_shipped(name: str) -> bool:
    """Whether a name as typed is a shipped model's: ``distilface-mini``, or ``mini`` where no such folder exists."""
    if name.startswith(_PREFIX):
        return name.removeprefix(_PREFIX) in SHIPPED
    return name in SHIPPED and not Path(name).exists()


def named_folder(name: str) -> str:
    """The folder that a name stands for: a shipped model's, or the bundled encoder's; any other name as it is.

    Raises:
        InputError: This installation came without the model.
        MissingExtraError: ``bundled``, and the extra ``offline`` is not installed.
    """
    if is_shipped(name):
        return str(shipped_model(name))
    if name != BUNDLED:
        return name
    from .offline import bundled_encoder

    return str(bundled_encoder())
