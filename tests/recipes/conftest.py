from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner, Result

from distilface_st.recipes.app import app

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def invoke() -> Callable[..., Result]:
    """Run the command line in this process: ``invoke("similarity", "--model", path, "a", "b")``."""

    def run(*arguments: object) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return run
