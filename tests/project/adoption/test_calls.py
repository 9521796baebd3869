"""Command lines of torch-model-archiver and of the build script, read."""

from __future__ import annotations

import pytest

from hatch_mar.errors import ProblemsError
from hatch_mar.project.adoption.calls import ArchiverCall, parse_call, split_command

FLAGS = {
    "--model-name digits": ("name", "digits"),
    "-v 2.0": ("version", "2.0"),
    "-v2.0": ("version", "2.0"),
    "--version=2.0": ("version", "2.0"),
    "--handler h:f": ("handler", "h:f"),
    "--serialized-file w.pt": ("serialized_file", "w.pt"),
    "--model-file m.py": ("model_file", "m.py"),
    "--extra-files a,b": ("extra_files", ("a", "b")),
    "--extra-files 'a, b,'": ("extra_files", ("a", "b")),
    "--requirements-file r.txt": ("requirements_file", "r.txt"),
    "-r r.txt": ("requirements_file", "r.txt"),
    "--config-file c.yaml": ("config_file", "c.yaml"),
    "-c c.yaml": ("config_file", "c.yaml"),
    "--runtime LSP": ("runtime", "LSP"),
    "--export-path store": ("export_path", "store"),
    "--model-path model": ("model_path", "model"),
    "--archive-format tgz": ("archive_format", "tgz"),
    "--serial w.pt": ("serialized_file", "w.pt"),
    "--force": ("name", "x"),
}


def parse(text: str) -> ArchiverCall:
    return parse_call(split_command(text))


def problems(text: str) -> list[str]:
    with pytest.raises(ProblemsError) as caught:
        parse(text)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize("flag", FLAGS)
def test_every_option_is_understood(flag: str) -> None:
    field, value = FLAGS[flag]
    command = f"torch-model-archiver --model-name x --version 1 --handler h.py {flag}"
    assert getattr(parse(command), field) == value


def test_a_command_may_go_over_several_lines() -> None:
    call = parse("torch-model-archiver \\\n  --model-name x \\\r\n --version 1.0 \\\n --handler h")
    assert (call.name, call.version, call.handler) == ("x", "1.0", "h")


def test_the_build_script_calls_the_handler_its_model_file() -> None:
    call = parse(
        "./build.sh --model_name x --model_file m.py --config_file c --requirements_file r "
        "--checkpoint_file w.pt --version 1.0 --extra_files e.tar.gz"
    )
    assert call == ArchiverCall(
        name="x",
        version="1.0",
        handler="m.py",
        serialized_file="w.pt",
        extra_files=("e.tar.gz",),
        requirements_file="r",
        config_file="c",
        from_script=True,
    )


def test_all_that_is_missing_is_said_at_once() -> None:
    assert problems("torch-model-archiver --extra-files a") == [
        "--model-name: is required",
        "--version: is required",
        "--handler: is required",
    ]


def test_an_unknown_option_is_guessed_at() -> None:
    command = "torch-model-archiver --model-name x --version 1 --handler h --serialised-file w"
    assert problems(command)[0] == (
        "--serialised-file: is no option of it; did you mean '--serialized-file'?"
    )


@pytest.mark.parametrize("word", ["$VERSION", "${VERSION}", "$(git describe)", "`date`"])
def test_what_a_shell_would_fill_in_is_asked_for(word: str) -> None:
    words = ["torch-model-archiver", "--model-name", "x", "--version", word, "--handler", "h"]
    with pytest.raises(ProblemsError, match="is for a shell to fill in"):
        parse_call(words)


def test_one_command_at_a_time() -> None:
    command = "torch-model-archiver --model-name x --version 1 --handler h && mv x.mar store"
    assert "'&&' ends the command" in problems(command)[0]


def test_an_option_without_its_value() -> None:
    assert problems("torch-model-archiver --model-name") == [
        "command line: argument --model-name: expected one argument"
    ]


def test_an_open_quote() -> None:
    assert "cannot be split" in problems("torch-model-archiver --model-name 'x")[0]
