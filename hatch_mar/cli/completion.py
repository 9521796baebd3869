"""`hatch-mar completion`: the script that makes a shell complete our command lines."""

from __future__ import annotations

from typing import ClassVar

import click
from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

from hatch_mar.cli.output import say

_BASH = """\
%(complete_func)s() {
    local line type value
    COMPREPLY=()
    while IFS= read -r line; do
        type=${line%%%%,*} value=${line#*,}
        case $type in
            file) compopt -o filenames; while IFS= read -r value; do COMPREPLY+=("$value"); done \\
                < <(compgen -f -- "$2") ;;
            dir) compopt -o filenames; while IFS= read -r value; do COMPREPLY+=("$value"); done \\
                < <(compgen -d -- "$2") ;;
            plain) COMPREPLY+=("$value") ;;
        esac
    done < <(COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD=$COMP_CWORD \\
        %(complete_var)s=bash_complete "$1" 2>/dev/null)
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""


class _Bash(BashComplete):
    """click's bash, but for arguments that are a path or a name: its own script offers only one."""

    source_template: ClassVar[str] = _BASH

    @staticmethod
    def _check_version() -> None:
        """Whoever asks may be another shell, writing the file for a bash elsewhere."""


_SHELLS: dict[str, type[ShellComplete]] = {
    "bash": _Bash,
    "zsh": ZshComplete,
    "fish": FishComplete,
}


@click.command()
@click.argument("shell", type=click.Choice(list(_SHELLS)))
def command(shell: str) -> None:
    """Print the script that lets SHELL complete subcommands, options, paths and model names.

    In bash: eval "$(hatch-mar completion bash)". In zsh: the same with zsh. In fish: hatch-mar
    completion fish | source.
    """
    from hatch_mar.cli import program  # noqa: PLC0415 - it imports this module

    say(_SHELLS[shell](program, {}, "hatch-mar", "_HATCH_MAR_COMPLETE").source().rstrip("\n"))
