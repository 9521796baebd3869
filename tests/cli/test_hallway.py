"""The program `hatch-mar` before any room is entered."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from hatch_mar import __version__
from hatch_mar.cli import SUBCOMMANDS, orderly_exit, program
from hatch_mar.errors import ArchiveError, HandlerError, Problem, ProblemsError


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hatch_mar", *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def test_help_names_every_subcommand_and_says_what_it_does() -> None:
    result = run("--help")
    assert result.returncode == 0
    listed = result.stdout.partition("Commands:")[2].split("\n")
    described = {line.split()[0] for line in listed if len(line.split()) > 1}
    assert described == set(SUBCOMMANDS)


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_every_subcommand_has_help(name: str) -> None:
    command = program.get_command(click.Context(program), name)
    assert command is not None
    assert command.help


def test_an_unknown_subcommand_is_a_usage_error() -> None:
    result = run("sevre")
    assert result.returncode == 2
    assert "No such command 'sevre'" in result.stderr


def test_the_version_is_the_packages_own() -> None:
    assert run("--version").stdout.strip() == f"hatch-mar, version {__version__}"


def test_an_expected_error_is_a_message_and_an_exit_code(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as exit_, orderly_exit():
        raise ArchiveError("x.mar: not a zip file")
    assert exit_.value.code == ArchiveError.exit_code
    assert capsys.readouterr() == ("", "hatch-mar: x.mar: not a zip file\n")


def test_several_problems_are_one_message(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit), orderly_exit():
        raise ProblemsError([Problem("pyproject.toml", "tool.mar.name", "must not be empty")])
    assert capsys.readouterr().err.splitlines() == [
        "hatch-mar: 1 problem",
        "  pyproject.toml: tool.mar.name: must not be empty",
    ]


def test_the_handlers_own_traceback_comes_first(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit), orderly_exit():
        raise HandlerError("digits: initialize raised", traceback="Traceback: ...\nKeyError: 1\n")
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["Traceback: ...", "KeyError: 1", "hatch-mar: digits: initialize raised"]


def test_a_file_that_may_not_be_written_is_no_traceback(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit) as exit_, orderly_exit():
        (tmp_path / "no" / "such").write_text("")
    assert exit_.value.code == 1
    assert "No such file or directory" in capsys.readouterr().err


def test_debugging_lets_the_error_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HATCH_MAR_DEBUG", "1")
    with pytest.raises(ArchiveError), orderly_exit():
        raise ArchiveError("x.mar: not a zip file")


SHELL = """
import os, subprocess, sys
os.close(int(sys.argv[1]))
os.execv(sys.executable, [sys.executable, "-m", "hatch_mar", *sys.argv[2:]])
"""


@pytest.mark.parametrize("stream", ["0", "1", "2"])
def test_a_stream_that_is_closed_is_nobodys_error(stream: str, tmp_path: Path) -> None:
    """`>&-`: Python then has no stdout at all, and its number is the next file's."""
    command = [sys.executable, "-c", SHELL, stream, "schema"]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    assert (result.stdout == "") is (stream == "1")


def test_output_that_cannot_be_kept_is_an_error() -> None:
    """`hatch-mar adopt x.mar > pyproject.toml`, and the disk is full."""
    command = [sys.executable, "-m", "hatch_mar", "schema"]
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(command, check=False, stdout=full, stderr=subprocess.PIPE)
    assert result.returncode == 1
    message = b"hatch-mar: standard output: cannot be written: No space left on device\n"
    assert result.stderr == message


@pytest.mark.parametrize(
    "command",
    [
        ["doctor"],
        ["adopt", "torch-model-archiver", "--model-name=m", "--version=1", "--handler=h.py"],
    ],
)
def test_a_directory_that_is_gone(command: list[str], tmp_path: Path) -> None:
    code = (
        "import os, sys; os.rmdir(os.getcwd()); from hatch_mar.cli import main; main(sys.argv[1:])"
    )
    root = Path(__file__).parents[2]
    (tmp_path / "gone").mkdir()
    result = subprocess.run(
        [sys.executable, "-c", code, *command],
        cwd=tmp_path / "gone",
        env={**os.environ, "PYTHONPATH": str(root)},
        check=False,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    message = "hatch-mar: the current directory has been removed; change to another one\n"
    assert result.stderr == message
