"""Which files a plot can be drawn into."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from .extras import require
from .files import check_output_file

if TYPE_CHECKING:
    import os


def check_plot_file(path: str | os.PathLike[str]) -> None:
    """Refuse a plot that cannot be drawn, for those who would rather know before they score.

    Raises:
        InputError: matplotlib does not draw files with this ending; there is a folder of that name.
        MissingExtraError: matplotlib is not installed.
    """
    check_output_file(path)
    canvas = require("matplotlib.backend_bases", "Plotting", "plots").FigureCanvasBase
    endings = sorted(canvas.get_supported_filetypes())
    if Path(path).suffix.removeprefix(".").lower() not in endings:
        raise InputError(f"{path}: a plot's name must end in one of .{', .'.join(endings)}.")
