"""The report of a sweep, made of outcomes that are known."""

from __future__ import annotations

import re
import shlex
import shutil
from dataclasses import replace

import pytest

from distilface_st.errors import InputError
from distilface_st.sweep import Choice, Range, Space, read_results, run_sweep, write_report
from distilface_st.sweep.figures import importances_figure
from distilface_st.sweep.records import Outcome
from distilface_st.sweep.run import tidy
from distilface_st.sweep.store import SweepStore
from distilface_st.training.history import History, read_history
from distilface_st.utils.files import read_json, write_json

SPACE = Space(
    (
        Choice("temperature", (0.01, 0.1, 1.0)),
        Choice("pooling", ({"layers": "last", "pooling_mode": "mean"}, {"layers": (0, -1), "pooling_mode": "cls"})),
    )
)


def outcome(claim):
    """A score that falls with the temperature, a little with the seed, and not with the pooling."""
    score = 70 - 10 * claim.config.temperature - 0.1 * claim.config.seed
    return Outcome("complete", score, {"mine": score, "STS12": score - 9, "average": score - 5}, 2, 2, 1.0)


def told(plan, outcomes=outcome):
    """A sweep whose trials came out as told."""
    store = SweepStore(plan)
    while claim := store.next():
        found = outcomes(claim)
        history = History(claim.folder / "history.csv")
        for step in (0, 2):
            history.add(step, {"mine": (found.score or 50) - 2 + step})
        history.write()
        store.tell(claim, found)
    tidy(store)
    return read_results(plan.output)


@pytest.fixture
def design(plan):
    return replace(plan, space=SPACE, sampler="one-at-a-time", seeds=(1, 2), base=replace(plan.base, temperature=0.1))


def test_a_value_is_spoken_for_by_the_base_with_that_value(design):
    results = told(design)
    assert results.base_configuration == {"temperature": 0.1, "pooling": "first_last mean"}
    by_value = results.by_value("temperature")
    assert list(by_value) == [0.01, 0.1, 1.0]
    assert all(point.configuration["pooling"] == "first_last mean" for point in by_value.values())
    assert by_value[1.0].mean == pytest.approx(70 - 10 - 0.15)
    assert by_value[1.0].std == pytest.approx(0.1 / 2**0.5)


def test_in_a_grid_a_value_is_spoken_for_by_its_best_point(plan):
    results = told(replace(plan, space=SPACE))
    assert {label: point.mean for label, point in results.by_value("pooling").items()} == {
        "last mean": pytest.approx(70 - 0.1 - 4.2),
        "0,-1 cls": pytest.approx(70 - 0.1 - 4.2),
    }
    assert results.score_names == ["mine", "STS12", "average"]


def test_the_page_holds_everything_and_needs_no_other_file(design, tmp_path):
    told(
        design, lambda claim: Outcome("failed", reason="Out <of> memory.") if claim.config.seed == 2 else outcome(claim)
    )
    page = write_report(design.output).read_text()
    figures = {"by_temperature", "by_pooling", "curves", "cost", "importances", "parallel"}
    assert {path.stem for path in design.output.glob("*.png")} == figures
    assert page.count("data:image/png;base64,") == len(figures)
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)
    assert "Out &lt;of&gt; memory." in page
    assert "5 complete, 5 failed" in page
    assert "69.80" in page  # 70 - 10 * 0.01 - 0.1 * 1


def test_the_command_line_trains_the_best_trial_again(plan, tmp_path, invoke):
    values = {"temperature": 0.05, "layers": (-1, 0), "normalize": True, "pooling_mode": ("mean", "max")}
    plan = replace(plan, space=Space(tuple(Choice(name, (value,)) for name, value in values.items())))
    (point,) = run_sweep(plan)
    (path,) = plan.output.glob("trials/*/history.csv")
    assert "mine" in read_history(path)[0]
    command = shlex.split(read_results(plan.output).best_command())
    assert command[:2] == ["distilface", "train"]
    again = invoke(*command[1:-1], tmp_path / "again", "--device", "cpu")
    assert again.exit_code == 0, again.output
    assert f"{point.mean:.2f}" in again.stderr
    kept = [folder / "model.safetensors" for folder in (plan.output / "best", tmp_path / "again" / "model")]
    assert kept[0].read_bytes() == kept[1].read_bytes()


def test_what_explains_the_scores_is_the_most_important(plan):
    space = Space((Range("temperature", 0.01, 1.0), Range("learning_rate", 1e-5, 1e-3, log=True)))
    results = told(replace(plan, space=space, sampler="random", trials=20))
    axes = importances_figure(results).axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    shares = dict(zip(names, [bar.get_width() for bar in axes.patches], strict=True))
    assert sorted(shares, key=shares.get, reverse=True) == ["temperature", "learning_rate"]
    assert shares["temperature"] > 0.9
    write_report(plan.output)


def test_a_sweep_that_has_just_begun_can_be_reported(plan):
    SweepStore(plan)
    assert "No trial has a score yet." in write_report(plan.output).read_text()


def test_a_comparison_without_training_of_an_older_version_is_named(plan):
    SweepStore(plan)
    record = read_json(plan.output / "sweep.json")
    record["plan"]["trained"] = False
    write_json(plan.output / "sweep.json", record)
    with pytest.raises(InputError, match="`distilface poolings` does that now"):
        write_report(plan.output)


@pytest.mark.slow
def test_every_figure_shows_in_a_browser(design):
    sync_api = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("needs Chromium")
    told(design)
    page_file = write_report(design.output)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 400, "height": 800})
        requests = []
        page.on("request", lambda request: requests.append(request.url))
        page.goto(page_file.as_uri())
        widths = page.eval_on_selector_all("img", "images => images.map(image => image.naturalWidth)")
        overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        browser.close()
    assert len(widths) == 6
    assert min(widths) > 500
    assert overflow == 0
    assert [url for url in requests if url.startswith("http")] == []
