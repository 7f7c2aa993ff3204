"""Results as CSV."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any

from ..utils.files import atomic_file

if TYPE_CHECKING:
    from pathlib import Path


def write_csv(rows: list[dict[str, Any]], csv_file: Path | None) -> None:
    """Write ``rows``, all of the same keys, where ``--csv`` says: nowhere or, atomically, to a file."""
    if csv_file is None:
        return
    with atomic_file(csv_file) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
