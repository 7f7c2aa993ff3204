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


@pytest.mark.parametrize(
    "arguments",
    [
        ["export", "nowhere/model", "--output"],
        ["train", "nowhere.txt", "--output"],
        ["distill", "nowhere/model", "nowhere.txt", "--output"],
        ["sweep", "nowhere.txt", "--base", "nowhere/model", "--preset", "paper", "--output"],
        ["quickstart", "--output"],
    ],
)
def test_a_folder_that_we_did_not_write_is_refused_before_any_work(invoke, tmp_path, monkeypatch, arguments):
    thesis = tmp_path / "thesis"
    (thesis / "model").mkdir(parents=True)
    (thesis / "thesis.tex").write_text("years of work", encoding="utf-8")
    monkeypatch.chdir(thesis)
    for output in (thesis, "."):
        result = invoke(*arguments, output)
        assert result.exit_code == 1
        assert result.stderr.startswith(f"error: {output} is not empty and not ")
        assert len(result.stderr.splitlines()) == 1
    assert sorted(path.name for path in thesis.iterdir()) == ["model", "thesis.tex"]
    assert [path.name for path in tmp_path.iterdir()] == ["thesis"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["benchmark", "nowhere/model", "--json"],
        ["benchmark", "nowhere/model", "--csv"],
        ["evaluate", "nowhere/model", "--csv"],
        ["benchmark", "nowhere/model", "--plot"],
        ["encode", "nowhere.txt"],
    ],
)
def test_a_folder_where_a_file_is_to_be_written_is_refused_before_any_work(invoke, tmp_path, arguments):
    result = invoke(*arguments, tmp_path)
    assert result.exit_code == 1
    assert result.stderr == f"error: {tmp_path} is a folder: name a file.\n"


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["similarity", "a", "b"]])
def test_a_pipe_that_is_closed_ends_a_command_quietly(arguments):
    command = [sys.executable, "-m", "distilface_st.recipes.app", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode != 0
