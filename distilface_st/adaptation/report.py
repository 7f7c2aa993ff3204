"""``report.html``: what a run has brought, in one page that needs no other file."""

from __future__ import annotations

import base64
from html import escape
from importlib import resources
from string import Template
from typing import TYPE_CHECKING, Any

from ..utils.files import atomic_file

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

NAMES = {"bm25": "BM25 (words alone)", "teacher": "the teacher", "before": "before", "after": "after"}
"""The rows of the table of scores, in their order."""

_SHOWN_CHARACTERS = 300


def write_report(folder: Path, run: dict[str, Any]) -> Path:
    """Write ``report.html`` into a run's folder, from what ``run.json`` says; ``history.png`` is put into the page."""
    found = run["adaptation"]
    picture = folder / "history.png"
    curve = ""
    if picture.is_file():
        image = base64.b64encode(picture.read_bytes()).decode()
        curve = (
            "<section><h2>The run</h2><figure>"
            f'<img alt="The scores of the test and the training loss by step" src="data:image/png;base64,{image}">'
            "</figure></section>"
        )
    labelled = ("your labelled data",) if "labelled" in found["mixtures"][0] else ()
    encoder = str(run["config"]["encoder"]).rstrip("/").rsplit("/", 1)[-1]
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    template = resources.files(__package__).joinpath("report.html").read_text(encoding="utf-8")
    page = Template(template).substitute(
        title=escape(f"{encoder} on {run['data']['source']}"),
        found=escape(found["found"]),
        plan=escape(f"{found['plan']} {found['linear_map']}"),
        best=_best(found),
        scores=_table(("", "MRR@10", "recall@1", "recall@10"), _score_rows(found["scores"])),
        chosen=escape(choice(found)),
        mixtures=_table(
            ("share of the trained weights", "MRR@10", escape(found["guard"]["name"]), *labelled),
            [("", _mixture(row)) for row in found["mixtures"]],
        ),
        curve=curve,
        better=_examples(found["better"]),
        worse=_examples(found["worse"]),
        made=f"<code>{escape(run['command'])}</code><br>{escape(versions)}",
    )
    path = folder / "report.html"
    with atomic_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def choice(found: dict[str, Any]) -> str:
    """One sentence on which weights were kept, and why."""
    guard = found["guard"]
    if not found["kept_share"]:
        return (
            "The encoder is kept as it came: no mixture of its weights with the trained ones was better in "
            f"{found['chosen_by']} and kept {guard['name']} at {guard['least']:.1f} or above."
        )
    return (
        f"Kept: {found['kept_share']:.0%} of the trained weights and {1 - found['kept_share']:.0%} of those before, "
        f"the best in {found['chosen_by']} of the mixtures with {guard['name']} at {guard['least']:.1f} or above."
    )


def _best(found: dict[str, Any]) -> str:
    change, (low, high) = found["change"]["mrr@10"], found["change"]["mrr@10_interval"]
    kind = "best" if found["kept_share"] else "best none"
    what = f"MRR@10 over {found['queries']} queries ({low:+.3f} to {high:+.3f})"
    return f'<p class="{kind}"><span>{change:+.3f}</span>{what}</p>'


def _mixture(row: dict[str, float]) -> tuple[str, ...]:
    cells = (f"{row['share']:.0%}", f"{row['mrr@10']:.3f}", f"{row['guard']:.1f}")
    return (*cells, f"{row['labelled']:.4g}") if "labelled" in row else cells


def _score_rows(scores: dict[str, Any]) -> Iterable[tuple[str, tuple[str, ...]]]:
    for name, shown in NAMES.items():
        if (row := scores.get(name)) is None:
            continue
        cells = [escape(shown)]
        for metric in ("mrr@10", "recall@1", "recall@10"):
            low, high = row.get(f"{metric}_interval", (None, None))
            interval = "" if low is None else f" <small>({low:.3f} to {high:.3f})</small>"
            cells.append(f"{row[metric]:.3f}{interval}")
        yield name, tuple(cells)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, tuple[str, ...]]]) -> str:
    """A table from rows of HTML, each with its class."""
    lines = ["<tr>" + "".join(f"<th>{name}</th>" for name in head) + "</tr>"]
    lines += [f'<tr class="{kind}">' + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>" for kind, cells in rows]
    return "<table>" + "\n".join(lines) + "</table>"


def _examples(examples: list[dict[str, Any]]) -> str:
    if not examples:
        return "<p>None.</p>"
    return "\n".join(
        f'<article><span class="rank">rank {example["rank_before"]} &rarr; {example["rank_after"]}</span>'
        f"<h3>{_shown(example['query'])}</h3><p><b>The document:</b> {_shown(example['document'])}</p>"
        f"<p><b>First before:</b> {_shown(example['first_before'])}</p>"
        f"<p><b>First now:</b> {_shown(example['first_after'])}</p></article>"
        for example in examples
    )


def _shown(text: str) -> str:
    return escape(text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]} ...")
