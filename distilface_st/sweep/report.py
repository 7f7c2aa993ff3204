"""``report.html`` and its figures: what a sweep found, in one page that needs no other file."""

from __future__ import annotations

import base64
from collections import Counter
from functools import partial
from html import escape
from importlib import resources
from io import BytesIO
from statistics import mean
from string import Template
from typing import TYPE_CHECKING

from ..utils.extras import require
from ..utils.files import atomic_file
from . import figures
from .figures import titled
from .store import read_results

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from matplotlib.figure import Figure

    from .records import SweepResults

_MOST_ROWS = 100


def write_report(folder: Path) -> Path:
    """Draw the figures of a sweep, as far as it has got, and put them into one page.

    Args:
        folder: The sweep's folder, into which ``report.html`` and the PNG files are written.

    Returns:
        The page's path.

    Raises:
        InputError: The folder holds no sweep.
        MissingExtraError: Optuna or matplotlib is not installed.
    """
    results = read_results(folder)
    require("matplotlib", "A sweep's report", "sweep")
    encoder = str(results.plan["base"]["encoder"]).rstrip("/").rsplit("/", 1)[-1]
    versions = ", ".join(f"{name} {version}" for name, version in results.record["versions"].items())
    template = resources.files(__package__).joinpath("report.html").read_text(encoding="utf-8")
    page = Template(template).substitute(
        title=escape(f"Sweep of {encoder}"),
        summary=_summary(results),
        best=_best(results),
        figures="\n".join(_sections(results)),
        configurations=_table(results),
        failures=_failures(results),
        made=f"<code>{escape(results.record['command'])}</code><br>{escape(versions)}",
    )
    path = folder / "report.html"
    with atomic_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def _sections(results: SweepResults) -> Iterator[str]:
    """A section of the page for each figure, which is also written as a PNG file."""
    for name, title, caption, draw in _figures(results):
        image = BytesIO()
        figure = draw()
        # Optuna's figures have no layout, and their colour bars allow none.
        figure.savefig(image, dpi=150, bbox_inches=None if figure.get_layout_engine() else "tight")
        with atomic_file(results.folder / f"{name}.png") as temporary:
            temporary.write_bytes(image.getvalue())
        data = base64.b64encode(image.getvalue()).decode()
        yield (
            f'<section><h2>{escape(title)}</h2><figure><img alt="{escape(title)}" src="data:image/png;base64,{data}">'
            f"<figcaption>{escape(caption)}</figcaption></figure></section>"
        )


def _figures(results: SweepResults) -> Iterator[tuple[str, str, str, Callable[[], Figure]]]:
    """Name, title and caption of each figure, and what draws it."""
    if not results.configurations:
        return
    bars = (
        "Everything else is as in the base." if results.base_configuration else "Each value in its best configuration."
    )
    bars += " Bars do not start at 0; the best of each panel is orange."
    bars += " Error bars: standard deviation over seeds." if len(results.plan["seeds"]) > 1 else ""
    for name in results.space.names:
        caption = bars if name in results.listed else "A dot for each complete trial, the later the darker."
        yield f"by_{name}", f"By {titled(name)}", caption, partial(figures.values_figure, results, name)
    if any(results.curve(trial) for trial in results.trials):
        caption = f"{titled(results.score_name)} at each evaluation, a line for each trial."
        yield "curves", "Curves", caption, partial(figures.curves_figure, results)
        caption = "The best score so far (orange) against what was spent; a dot is a complete trial."
        yield "cost", "Score by cost", caption, partial(figures.cost_figure, results)
    if len(scores := [trial.score for trial in results.trials if trial.score is not None]) > 3 and len({*scores}) > 1:
        caption = (
            "The share of the deciding score's variance over complete trials that each setting explains (fANOVA). "
            "A rough guide from few trials."
        )
        yield "importances", "Importances", caption, partial(figures.importances_figure, results)
    caption = "A line for each configuration, coloured by its mean score; the best one is thick."
    yield "parallel", "All configurations", caption, partial(figures.parallel_figure, results)


def _summary(results: SweepResults) -> str:
    counts = Counter(trial.status for trial in results.trials)
    statuses = [status for status in ("complete", "pruned", "failed", "open") if counts[status]]
    told = ", ".join(f"{counts[status]} {status}" for status in statuses) or "none yet"
    plan = results.plan
    facts = {
        "Text": f"{results.record['source']}, {results.record['rows']:,} rows",
        "Trials": told,
        "Search": f"{plan['sampler']}, pruner {plan['pruner']}, seeds {', '.join(map(str, plan['seeds']))}",
        "Training": f"{plan['base']['max_steps']:,} steps",
        "Decided by": titled(results.score_name),
    }
    return "".join(f"<dt>{name}</dt><dd>{escape(text)}</dd>" for name, text in facts.items())


def _best(results: SweepResults) -> str:
    best, trial = results.best, results.best_trial
    if best is None or trial is None:
        return "<p>No trial has a score yet.</p>"
    std = f" ± {best.std:.2f}, {len(best.values)} seeds" if len(best.values) > 1 else ""
    values = ", ".join(f"{titled(name)} <b>{escape(str(label))}</b>" for name, label in best.configuration.items())
    return (
        f'<p class="best"><span>{best.mean:.2f}</span>{titled(results.score_name)}{std}</p><p>{values}</p>'
        f"<p>Its best seed, {trial.seed} ({trial.score:.2f}), again:</p>"
        f"<pre>{escape(results.best_command() or '')}</pre>"
    )


def _table(results: SweepResults) -> str:
    several = len(results.plan["seeds"]) > 1
    head = [*results.space.names, *(["seeds"] if several else []), *results.score_names]
    rows = [[titled(name) for name in head]]
    for one in results.configurations[:_MOST_ROWS]:
        cells = [str(one.configuration[name]) for name in results.space.names]
        cells += [str(len(one.values))] if several else []
        for name in results.score_names:
            values = one.scores().get(name, [])
            std = f" ± {one.std:.2f}" if name == results.score_name and len(values) > 1 else ""
            cells.append(f"{mean(values):.2f}{std}" if values else "")
        rows.append(cells)
    kinds = ["th"] + ["td"] * (len(rows) - 1)
    lines = (
        "<tr>" + "".join(f"<{kind}>{escape(cell)}</{kind}>" for cell in cells) + "</tr>"
        for kind, cells in zip(kinds, rows, strict=True)
    )
    more = len(results.configurations) - _MOST_ROWS
    rest = f"<p>{more} more are in trials.csv.</p>" if more > 0 else ""
    return f'<div class="wide"><table>{"".join(lines)}</table></div>{rest}'


def _failures(results: SweepResults) -> str:
    failed = [trial for trial in results.trials if trial.outcome and trial.outcome.status == "failed"]
    if not failed:
        return ""
    items = "".join(
        f"<li>trial {trial.number} ({escape(', '.join(f'{titled(k)} {v}' for k, v in trial.configuration.items()))}, "
        f"seed {trial.seed}): {escape(trial.outcome.reason if trial.outcome else '')}</li>"
        for trial in failed
    )
    return f"<section><h2>Failed</h2><ul>{items}</ul></section>"
