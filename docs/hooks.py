"""Lets the site show files from outside ``docs``: the reports of ``results/`` with their figures, and the changelog."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

ROOT = Path(__file__).parents[1]


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the files under the paths that they have in the repository."""
    reports = [*ROOT.glob("results/*/README.md"), *ROOT.glob("results/**/*.png"), ROOT / "CHANGELOG.md"]
    for path in sorted(reports):
        files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Follow links out of ``docs``: there, they are right for whoever reads the page in the repository."""
    return markdown.replace("](../results/", "](results/").replace("](../CHANGELOG.md", "](CHANGELOG.md")
