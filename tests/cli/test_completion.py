"""Shell completion: what a shell is told, and the scripts that ask."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from click.shell_completion import ShellComplete

from hatch_mar.cli import SUBCOMMANDS, program

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.commands import Program


def complete(*words: str) -> list[tuple[str, str]]:
    """Return the type and value of what completes the last of `words`."""
    shell = ShellComplete(program, {}, "hatch-mar", "_HATCH_MAR_COMPLETE")
    found = shell.get_completions(list(words[:-1]), words[-1])
    return [(item.type, item.value) for item in found]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model `digits`, as far as its metadata go."""
    metadata = tmp_path / "digits-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: digits\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[hatch_mar.models]\ndigits = digits_mar\n")
    monkeypatch.syspath_prepend(str(tmp_path))


def test_subcommands() -> None:
    assert {value for _, value in complete("")} == set(SUBCOMMANDS)
    assert complete("ver") == [("plain", "verify")]


def test_options_and_their_values() -> None:
    assert complete("export", "--em") == [("plain", "--embed")]
    assert {value for _, value in complete("export", "--format", "")} == {"mar", "tgz", "dir"}
    assert complete("export", "-d", "x") == [("dir", "x")]


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("command", ["inspect", "verify", "diff", "export"])
def test_targets_are_paths_and_installed_models(command: str) -> None:
    assert complete(command, "dig") == [("file", "dig"), ("plain", "digits")]
    assert complete(command, "./dig") == [("file", "./dig")]


@pytest.mark.usefixtures("installed")
def test_models_to_serve() -> None:
    assert complete("serve", "./first.mar", "dig") == [("file", "dig"), ("plain", "digits")]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_has_a_script(hatch_mar: Program, shell: str) -> None:
    said = hatch_mar("completion", shell)
    assert (said.code, said.err) == (0, "")
    assert "_HATCH_MAR_COMPLETE" in said.out
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=said.out, text=True, check=True)


def test_an_unknown_shell(hatch_mar: Program) -> None:
    said = hatch_mar("completion", "tcsh")
    assert said.code == 2
    assert "'tcsh' is not one of 'bash', 'zsh', 'fish'" in said.err


def test_bash_offers_files_beside_what_we_know(hatch_mar: Program, tmp_path: Path) -> None:
    """The script runs in a real bash; readline's own part is left out."""
    (tmp_path / "digits 1.mar").touch()
    script = f"""
    compopt() {{ :; }}
    hatch-mar() {{ {sys.executable} -m hatch_mar "$@"; }}
    {hatch_mar("completion", "bash").out}
    COMP_WORDS=(hatch-mar verify dig) COMP_CWORD=2
    export COMP_CWORD
    _hatch_mar_completion hatch-mar dig verify
    printf '<%s>' "${{COMPREPLY[@]}}"
    COMP_WORDS=(hatch-mar verify --req) COMP_CWORD=2
    _hatch_mar_completion hatch-mar --req verify
    printf '<%s>' "${{COMPREPLY[@]}}"
    """
    out = subprocess.check_output(["bash", "-c", script], text=True, cwd=tmp_path)
    assert out == "<digits 1.mar><--require-seal>"
