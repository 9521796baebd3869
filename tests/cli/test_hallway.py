"""The program `hatch-mar` before any room is entered."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import click
import pytest

from hatch_mar import __version__
from hatch_mar.cli import SUBCOMMANDS, orderly_exit, program
from hatch_mar.errors import ArchiveError, HandlerError, Problem, ProblemsError

if TYPE_CHECKING:
    from pathlib import Path


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
