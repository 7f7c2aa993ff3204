"""Which files a plot can be drawn into."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import InputError
from .extras import require

if TYPE_CHECKING:
    from pathlib import Path


def check_plot_file(path: Path) -> None:
    """Refuse a plot that matplotlib cannot draw, for those who would rather know before they score."""
    canvas = require("matplotlib.backend_bases", "Plotting", "plots").FigureCanvasBase
    endings = sorted(canvas.get_supported_filetypes())
    if path.suffix.removeprefix(".").lower() not in endings:
        raise InputError(f"{path}: a plot's name must end in one of .{', .'.join(endings)}.")
