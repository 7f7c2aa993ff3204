from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import distilface_st

COMMANDS = ["train", "evaluate", "poolings", "export", "benchmark", "encode", "similarity", "quickstart"]
ON_THE_CPU = ["export", "benchmark"]


def test_the_console_command_is_installed():
    command = Path(sys.executable).parent / "distilface"
    result = subprocess.run([str(command), "--version"], capture_output=True, text=True, check=True)
    assert result.stdout == f"distilface {distilface_st.__version__}\n"


def test_help_lists_every_command(invoke):
    result = invoke("--help")
    assert result.exit_code == 0
    for command in COMMANDS:
        assert command in result.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_and_takes_json(invoke, command):
    result = invoke(command, "--help")
    assert result.exit_code == 0
    assert "--json" in result.stdout
    assert ("--device" in result.stdout) == (command not in ON_THE_CPU)


def test_a_users_mistake_is_one_line_on_stderr_and_status_1(tmp_path):
    command = [
        sys.executable,
        "-m",
        "distilface_st.recipes.app",
        "similarity",
        "--model",
        str(tmp_path / "no" / "model" / "x"),
    ]
    result = subprocess.run([*command, "a", "b"], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.strip().splitlines() == [f"error: {tmp_path / 'no' / 'model' / 'x'}: no such folder."]


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["similarity", "a", "b"]])
def test_a_pipe_that_is_closed_ends_a_command_quietly(arguments):
    command = [sys.executable, "-m", "distilface_st.recipes.app", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode != 0
