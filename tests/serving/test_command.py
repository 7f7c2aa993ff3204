from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

import pytest
import typer
from typer.testing import CliRunner, Result

import distilface_st.serving
from distilface_st import InputError, MissingExtraError
from distilface_st.recipes.serve import serve

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def invoke(monkeypatch) -> Callable[..., tuple[Result, list[dict[str, Any]]]]:
    """Run the command with a server that only notes what it is told."""

    def run(*arguments: str, **environment: str) -> tuple[Result, list[dict[str, Any]]]:
        told: list[dict[str, Any]] = []
        monkeypatch.setattr(
            distilface_st.serving, "serve", lambda model, index, **rest: told.append({"model": model, **rest})
        )
        app = typer.Typer()
        app.command()(serve)
        return CliRunner().invoke(app, arguments, env=environment), told

    return run


def test_it_serves_on_this_machine_only_without_a_key_unless_told(invoke) -> None:
    result, told = invoke()
    assert result.exit_code == 0, result.output
    assert (told[0]["model"], told[0]["host"], told[0]["port"]) == (None, "127.0.0.1", 8000)
    assert told[0]["settings"] == distilface_st.serving.ServerSettings()


def test_options_reach_the_server(invoke) -> None:
    _, told = invoke(
        "micro",
        "--port",
        "0",
        "--api-key",
        "a",
        "--api-key",
        "b",
        "--no-batching",
        "--timeout",
        "2",
        "--keep-alive",
        "65",
    )
    settings = told[0]["settings"]
    assert told[0]["model"] == "micro"
    assert (settings.api_keys, settings.batching, settings.request_timeout) == (("a", "b"), False, 2.0)
    assert settings.keep_alive == 65


def test_keys_may_be_in_the_environment(invoke) -> None:
    assert invoke(DISTILFACE_API_KEY="a b")[1][0]["settings"].api_keys == ("a", "b")


def test_an_empty_key_does_not_leave_the_server_open(invoke) -> None:
    for arguments, environment in ((("--api-key", ""), {}), ((), {"DISTILFACE_API_KEY": ""})):
        result, told = invoke(*arguments, **environment)
        assert isinstance(result.exception, InputError)
        assert not told


def test_a_missing_extra_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(MissingExtraError, match=r"distilface-st\[serve\]"):
        importlib.reload(distilface_st.serving)
