"""`hatch-mar archive`, and the same as the program torch-model-archiver and as a Python module."""

from __future__ import annotations

import json
import logging
import zipfile
from argparse import Namespace
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from hatch_mar.archive.read import open_archive
from hatch_mar.archiver import (
    ModelArchiver,
    ModelArchiverConfig,
    ModelArchiverError,
    ModelExportUtils,
    generate_model_archive,
    package_model,
)
from hatch_mar.cli import program
from hatch_mar.cli.torch_model_archiver import main
from hatch_mar.errors import ProblemsError
from hatch_mar.project.adoption.calls import ARCHIVER
from hatch_mar.project.archiver.commandline import FLAGS

NEEDED = ("--model-name", "m", "--version", "1.0", "--handler", "handler.py")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("handler.py").write_text("def handle(data, context): ...\n")


def archive(*arguments: str) -> Result:
    return CliRunner().invoke(program, ["archive", *NEEDED, *arguments], standalone_mode=False)


def archiver(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_it_says_where_the_archive_is(tmp_path: Path) -> None:
    assert archive().stdout == f"{tmp_path / 'm.mar'}\n"


def test_json() -> None:
    told = json.loads(archive("--json", "--archive-format", "tgz").stdout)
    assert told["path"].endswith("m.tar.gz")
    assert told["members"] == [{"name": "handler.py", "size": 31}]
    assert told["handler"] == {"manifest": "handler.py", "found": "handler.py: `handle`"}
    assert told["problems"] == []


def test_problems_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    result = archive("--json", "-c", "gone.yaml")
    assert result.exit_code == 2
    assert json.loads(result.stdout) == {
        "problems": [{"file": "", "key": "--config-file", "message": "'gone.yaml' does not exist"}]
    }


def test_success_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    assert archiver(*NEEDED) == 0
    assert capfd.readouterr() == ("", "")


def test_a_warning_goes_to_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    assert archiver(*NEEDED, "--extra-files", "*.md") == 0
    assert capfd.readouterr() == ("", "WARNING - --extra-files: '*.md' matches no file\n")


def test_an_error_is_1_and_no_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    assert archiver(*NEEDED, "--model-file", "gone.py") == 1
    out, error = capfd.readouterr()
    assert out == ""
    assert error == "ERROR - 1 problem\n  --model-file: 'gone.py' does not exist\n"


def test_what_cannot_be_written_is_1(capfd: pytest.CaptureFixture[str]) -> None:
    Path("m.mar").mkdir()
    assert archiver(*NEEDED, "--force") == 1
    assert "m.mar: cannot be written: Is a directory" in capfd.readouterr().err


def test_usage_is_2(capfd: pytest.CaptureFixture[str]) -> None:
    assert archiver("--model", "m") == 2
    assert "--model may be --model-file, --model-name, --model-path" in capfd.readouterr().err


def test_options_may_be_cut_short() -> None:
    assert archiver("--model-n=m", "--vers", "1", "--hand", "handler", "--fo") == 0
    assert Path("m.mar").is_file()


def test_values_are_not_options() -> None:
    assert archiver("--model-name", "m", "-v1.0", "--handler", "handler.py", "--", "-x") == 2


def test_the_archive_is_sealed() -> None:
    assert archiver(*NEEDED) == 0
    with open_archive(Path("m.mar")) as opened:
        assert opened.seal is not None
        assert opened.seal.runtime == "custom"
        assert opened.manifest.model_version == "1.0"


def test_from_python() -> None:
    config = ModelArchiverConfig("m", "handler.py", "1.0", None, None, None, "python3")
    ModelArchiver.generate_model_archive(config)
    with open_archive(Path("m.mar")) as opened:
        assert opened.manifest.runtime == "python3"


def test_the_current_directory_is_the_one_of_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The original takes the one in which it was imported."""
    (tmp_path / "later").mkdir()
    monkeypatch.chdir(tmp_path / "later")
    assert ModelArchiverConfig("m", "h", "1").export_path == str(tmp_path / "later")


def test_paths_may_be_paths(tmp_path: Path) -> None:
    config = ModelArchiverConfig("m", "handler.py", "1.0")
    config.export_path = tmp_path  # type: ignore[assignment]
    generate_model_archive(config)
    assert (tmp_path / "m.mar").is_file()


def test_every_problem_in_one_exception() -> None:
    config = ModelArchiverConfig("m m", "gone.py", "1.0")
    with pytest.raises(ModelArchiverError, match="2 problems"):
        generate_model_archive(config)


def test_from_arguments() -> None:
    given = Namespace(model_name="m", handler="handler.py", version="1.0", force=True, other=1)
    assert ModelArchiverConfig.from_args(given).force


def test_a_manifest_of_ones_own() -> None:
    config = ModelArchiverConfig("m", "handler.py", "1.0")
    manifest = json.loads(ModelExportUtils.generate_manifest_json(config))
    manifest["model"]["extensions"] = {"team": "vision"}
    package_model(config, json.dumps(manifest))
    with zipfile.ZipFile("m.mar") as made:
        assert json.loads(made.read("MAR-INF/MANIFEST.json")) == manifest


@pytest.mark.parametrize("text", ["", "[]", '{"model": 1}'])
def test_a_manifest_that_is_none(text: str) -> None:
    with pytest.raises(ModelArchiverError, match="the manifest"):
        package_model(ModelArchiverConfig("m", "handler.py", "1.0"), text)
    assert not Path("m.mar").exists()


def test_warnings_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "hatch_mar.archiver"):
        generate_model_archive(ModelArchiverConfig("m", "handler", "1", extra_files="*.md"))
    assert caplog.messages == ["--extra-files: '*.md' matches no file"]


def test_all_readers_of_the_options_know_the_same() -> None:
    """The program, what a problem calls an option, and what `adopt` takes from a command line."""
    command = program.get_command(click.Context(program), "archive")
    assert command is not None
    given = {name for each in command.params for name in each.opts} - {"--json"}
    flags = {"-f", "--force"}
    assert given == {name for names in ARCHIVER.values() for name in names} | flags
    assert {name for name in given - flags if name.startswith("--")} == set(FLAGS.values())


def test_a_name_that_windows_could_not_unpack() -> None:
    Path("handler.py").rename("aux.py")
    found = archive("--handler", "aux.py").exception
    assert isinstance(found, ProblemsError)
    assert found.problems[0].message.endswith("reserves for a device; rename it")
