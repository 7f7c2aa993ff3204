"""``report.html`` and its figures: what a sweep found, in one page that needs no other file."""

from __future__ import annotations

import base64
from functools import partial
from html import escape
from statistics import mean
from string import Template
from typing import TYPE_CHECKING

from ..errors import MissingExtraError
from ..utils.files import atomic_file
from .figures import draw_cost, draw_curves, draw_importances, draw_parallel, draw_values, titled
from .records import best_trial
from .results import read_results

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from .figures import Drawing
    from .results import SweepResults

REPORT = "report.html"
_MOST_POINTS = 100
_LEAST_FOR_IMPORTANCE = 4


def write_report(folder: Path) -> Path:
    """Draw the figures of a sweep, as far as it has got, and put them into one page.

    Args:
        folder: The sweep's folder. ``report.html`` and the PNG files are written into it.

    Returns:
        The page.

    Raises:
        InputError: The folder holds no sweep.
        MissingExtraError: Optuna or matplotlib is not installed.
    """
    results = read_results(folder)
    figures = [
        (title, caption, _write_figure(folder / f"{name}.png", drawing))
        for name, title, caption, drawing in _figures(results)
    ]
    page = _PAGE.substitute(
        title=escape(f"Sweep of {_encoder(results)}"),
        summary=_summary(results),
        best=_best(results),
        figures="\n".join(_figure(*figure) for figure in figures),
        points=_points_table(results),
        failures=_failures(results),
        made=_made(results),
    )
    path = folder / REPORT
    with atomic_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def importances(results: SweepResults) -> dict[str, float]:
    """How much of the deciding score's variance each field explains, most first; empty where that cannot be told.

    Functional ANOVA (Hutter, Hoos, Leyton-Brown, 2014) over complete trials, as Optuna computes it.
    """
    complete = [trial for trial in results.trials if trial.score is not None]
    if len(complete) < _LEAST_FOR_IMPORTANCE or len({trial.score for trial in complete}) < 2:
        return {}
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    evaluator = FanovaImportanceEvaluator(n_trees=16, seed=0)
    return dict(get_param_importances(results.study, evaluator=evaluator, params=list(results.space.names)))


def _figures(results: SweepResults) -> Iterable[tuple[str, str, str, Drawing]]:
    if not results.points:
        return
    seeds = len(results.plan["seeds"])
    error = " Error bars: standard deviation over seeds." if seeds > 1 else ""
    for name in results.space.names:
        how = "Everything else as in the base." if results.base_point else "Of each value the best point that has it."
        bars = " Bars do not start at 0; the best of each panel is orange." if name in results.listed else ""
        yield f"by_{name}", f"By {titled(name)}", how + bars + error, partial(draw_values, results=results, name=name)
    if any(results.curve(trial) for trial in results.trials):
        caption = f"{titled(results.score_name)} at each evaluation, a line a trial."
        yield "curves", "Curves", caption, partial(draw_curves, results=results)
        caption = "The best score so far (orange) against what was spent; a dot is a complete trial."
        yield "cost", "Score by cost", caption, partial(draw_cost, results=results)
    if found := importances(results):
        caption = "What the settings explain of the differences between complete trials. A rough guide from few trials."
        yield "importances", "Importances", caption, partial(draw_importances, importances=found)
    caption = "A line a point, coloured by its mean score; the best is orange."
    yield "parallel", "All points", caption, partial(draw_parallel, results=results)


def _write_figure(path: Path, drawing: Drawing) -> bytes:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("A sweep's report", "sweep") from error
    figure = Figure(layout="constrained")
    drawing(figure)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=150)
    return path.read_bytes()


def _figure(title: str, caption: str, image: bytes) -> str:
    data = base64.b64encode(image).decode()
    return (
        f'<section><h2>{escape(title)}</h2><figure><img alt="{escape(title)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{escape(caption)}</figcaption></figure></section>"
    )


def _encoder(results: SweepResults) -> str:
    return str(results.plan["base"]["encoder"]).rstrip("/").rsplit("/", 1)[-1]


def _summary(results: SweepResults) -> str:
    counts = dict.fromkeys(("complete", "pruned", "failed", "open"), 0)
    for trial in results.trials:
        counts[trial.status] += 1
    told = ", ".join(f"{count} {status}" for status, count in counts.items() if count) or "none yet"
    plan, base = results.plan, results.plan["base"]
    training = f"{base['max_steps']:,} steps" if plan["trained"] else "no training"
    facts = {
        "Text": f"{results.record['source']}, {results.record['rows']:,} rows",
        "Trials": told,
        "Search": f"{plan['sampler']}, pruner {plan['pruner']}, seeds {', '.join(map(str, plan['seeds']))}",
        "Training": training,
        "Decided by": titled(results.score_name),
    }
    return "".join(f"<dt>{name}</dt><dd>{escape(text)}</dd>" for name, text in facts.items())


def _best(results: SweepResults) -> str:
    if results.best is None:
        return "<p>No trial has a score yet.</p>"
    best = results.best
    spread = f" ± {best.spread:.2f}, {len(best.values)} seeds" if len(best.values) > 1 else ""
    values = ", ".join(f"{titled(name)} <b>{escape(str(label))}</b>" for name, label in best.point.items())
    trial = best_trial(best, results.greater_is_better)
    found = f'<p class="best"><span>{best.mean:.2f}</span>{titled(results.score_name)}{spread}</p><p>{values}</p>'
    if command := results.best_command():
        score = f"{trial.score:.2f}" if trial.score is not None else ""
        found += f"<p>Its best seed, {trial.seed} ({score}), again:</p><pre>{escape(command)}</pre>"
    return found


def _points_table(results: SweepResults) -> str:
    names, scores = list(results.space.names), results.score_names
    several = len(results.plan["seeds"]) > 1
    head = [*map(titled, names), *(["seeds"] if several else []), *map(titled, scores)]
    rows = []
    for point in results.points[:_MOST_POINTS]:
        found = point.scores()
        cells = [str(point.point[name]) for name in names] + ([str(len(point.values))] if several else [])
        for score in scores:
            values = found.get(score, [])
            middle = f"{mean(values):.2f}" if values else ""
            cells.append(middle + (f" ± {point.spread:.2f}" if score == results.score_name and len(values) > 1 else ""))
        rows.append("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>")
    more = len(results.points) - _MOST_POINTS
    rest = f"<p>{more} more are in trials.csv.</p>" if more > 0 else ""
    header = "".join(f"<th>{escape(name)}</th>" for name in head)
    return f'<div class="wide"><table><tr>{header}</tr>{"".join(rows)}</table></div>{rest}'


def _failures(results: SweepResults) -> str:
    failed = [trial for trial in results.trials if trial.outcome and trial.outcome.status == "failed"]
    if not failed:
        return ""
    items = "".join(
        f"<li>trial {trial.number} ({escape(', '.join(f'{titled(k)} {v}' for k, v in trial.point.items()))}, "
        f"seed {trial.seed}): {escape(trial.outcome.reason if trial.outcome else '')}</li>"
        for trial in failed
    )
    return f"<section><h2>Failed</h2><ul>{items}</ul></section>"


def _made(results: SweepResults) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in results.record["versions"].items())
    return f"<code>{escape(results.record['command'])}</code><br>{escape(versions)}"


_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { color-scheme: light dark; --ground: #fff; --text: #1f2328; --soft: #59636e; --line: #d1d9e0; --box: #f6f8fa; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #14181d; --text: #e6e9ed; --soft: #9aa4af; --line: #343b43; --box: #1d2229; }
}
body { margin: 0 auto; max-width: 62rem; padding: 2rem 1.25rem 4rem; background: var(--ground); color: var(--text);
  font: 16px/1.55 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 1rem; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.2rem; margin: 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
.best { margin: 1.6rem 0 .2rem; color: var(--soft); }
.best span { font-size: 2.4rem; font-weight: 650; color: #e8710a; margin-right: .6rem; }
pre { background: var(--box); border: 1px solid var(--line); border-radius: 6px; padding: .8rem 1rem;
  white-space: pre-wrap; overflow-wrap: anywhere; font-size: .85rem; }
figure { margin: 0; }
figure img { max-width: 100%; height: auto; background: #fff; border: 1px solid var(--line); border-radius: 6px; }
figcaption { color: var(--soft); font-size: .9rem; margin-top: .3rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem .7rem .3rem 0; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--soft); font-weight: 500; }
tr:nth-child(2) td { font-weight: 650; }
footer { margin-top: 3rem; color: var(--soft); font-size: .8rem; overflow-wrap: anywhere; }
</style>
</head>
<body>
<h1>$title</h1>
<dl>$summary</dl>
$best
$figures
<section><h2>Points, best first</h2>$points</section>
$failures
<footer>$made</footer>
</body>
</html>
""")
