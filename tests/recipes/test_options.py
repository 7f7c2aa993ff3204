from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from distilface_st.distillation.config import DistillationConfig
from distilface_st.recipes._options import Shown, config_options, setting_docs
from distilface_st.training.config import TrainingConfig
from distilface_st.utils.deprecation import renamed
from distilface_st.utils.settings import setting


@renamed(steps="max_steps")
@dataclass
class Config:
    """Settings.

    Attributes:
        max_steps: How many
            steps.
        layers: Which layers.
        sizes: Sizes.
        quick: Whether to hurry.
    """

    max_steps: int = setting(7, minimum=1)
    layers: str = "last"
    sizes: tuple[int, ...] = ()
    quick: bool = False


@pytest.fixture
def run():
    """Runs a command with those options; what it was given is in the result's ``return_value``."""
    app = typer.Typer(context_settings={"max_content_width": 200})
    given: dict[str, Any] = {}

    @app.command()
    @config_options(Config, {"sizes": Shown(("--size",), hidden=("--width",))})
    def command(source: str, given: dict[str, Any], *, loud: bool = False) -> None:
        seen.update(given, source=source, loud=loud)

    seen = given

    def invoke(*arguments: str):
        given.clear()
        result = CliRunner().invoke(app, ["text", *arguments], env={"COLUMNS": "200", "NO_COLOR": "1"})
        return result, dict(given)

    return invoke


def test_a_command_gets_what_was_given_and_nothing_else(run):
    assert run()[1] == {"source": "text", "loud": False}
    arguments = ("--max-steps", "3", "--layers", "0,-1", "--size", "8", "--size", "4", "--no-quick", "--loud")
    expected = {"max_steps": 3, "layers": [0, -1], "sizes": (8, 4), "quick": False, "loud": True, "source": "text"}
    assert run(*arguments)[1] == expected


def test_old_options_work_and_are_not_listed(run):
    assert run("--steps", "3", "--width", "8")[1] == {"max_steps": 3, "sizes": (8,), "source": "text", "loud": False}
    assert run("--steps", "3", "--max-steps", "4")[1]["max_steps"] == 4
    text = run("--help")[0].stdout
    assert "--steps" not in text
    assert "--width" not in text


def test_help_and_limits_are_those_of_the_dataclass(run):
    assert "How many steps. Default: 7." in run("--help")[0].stdout
    result, _ = run("--max-steps", "0")
    assert result.exit_code == 2
    assert "--max-steps" in result.output


@pytest.mark.parametrize("config", [TrainingConfig, DistillationConfig])
def test_every_setting_of_a_run_is_documented(config):
    assert {field.name for field in fields(config)} <= setting_docs(config).keys()
