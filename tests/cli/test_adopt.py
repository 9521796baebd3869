"""`hatch-mar adopt`: a command line or an archive becomes a project."""

from __future__ import annotations

import json
import tomllib
import zipfile
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from hatch_mar.archive.read import open_archive
from hatch_mar.archive.write import write_archive
from hatch_mar.cli.adopt import command
from hatch_mar.cli.authored import read_project
from hatch_mar.project.planning import make_plan
from tests.support.builds import Environment, run

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

CALL = "torch-model-archiver --model-name x --version 1.0 --handler h.py -r r.txt"
HANDLER = b"def handle(data, context):\n    return data\n"


def adopt(*arguments: str | Path) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def make_mar(path: Path, files: Mapping[str, bytes], **model: str) -> Path:
    manifest = {"model": {"modelName": "m", "handler": "h.py", "modelVersion": "1.0", **model}}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {"h.py": HANDLER, **files}.items():
            archive.writestr(name, content)
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
    return path


def contents(path: Path) -> dict[str, bytes]:
    with open_archive(path) as archive:
        names = [name for name in archive.names() if not name.startswith("MAR-INF/")]
        return {name: archive.read(name) for name in names}


def test_a_command_after_two_dashes_without_them_or_as_one_word() -> None:
    said = {
        adopt("--", *CALL.split()).output,
        adopt(*CALL.split()).output,
        adopt(CALL).output,
    }
    assert len(said) == 1
    assert tomllib.loads(said.pop())["tool"]["mar"]["handler"] == "h.py"


def test_the_installed_program(serving_env: Environment, tmp_path: Path) -> None:
    said = run(serving_env.program("hatch-mar"), "adopt", "--", *CALL.split(), cwd=tmp_path)
    assert tomllib.loads(said)["project"]["name"] == "x"


def test_what_is_wrong_with_a_command() -> None:
    result = adopt("--json", "--", "torch-model-archiver", "--model-name", "x")
    assert result.exit_code == 2
    keys = [problem["key"] for problem in json.loads(result.output)["problems"]]
    assert keys == ["--version", "--handler"]


def test_an_archive_of_ours_comes_back_whole(sample_mar: Path, tmp_path: Path) -> None:
    result = adopt(sample_mar, "--into", tmp_path / "project")
    assert result.exit_code == 0, result.exception
    assert "byte for byte" in result.output
    again = tmp_path / "again.mar"
    write_archive(make_plan(read_project(tmp_path / "project")), again)
    assert again.read_bytes() == sample_mar.read_bytes()


TRAPS: dict[str, dict[str, bytes]] = {
    "a pyproject.toml": {"pyproject.toml": b"[project]\nname = 'other'\n"},
    "a config that is none": {"model-config.yaml": b"minWorkers: oops\n"},
    "a folder of builds": {"dist/data.json": b"{}"},
    "hidden files": {".env": b"A=1", "lib/.hidden": b"", "lib/a.txt": b"", ".git/x": b""},
    "names that are globs": {"a[1].txt": b"", "b*/c?.txt": b""},
    "packages": {"pkg/__init__.py": b"", "pkg/inner/deep.py": b"x = 1\n"},
    "another base_handler": {"base_handler.py": b"def handler_factory(): pass\n"},
    "spaces and letters": {"größe und mehr/ä b.txt": b"x"},
}


@pytest.mark.parametrize("trap", TRAPS)
def test_members_that_mean_something_to_a_build_come_back(tmp_path: Path, trap: str) -> None:
    mar = make_mar(tmp_path / "m.mar", TRAPS[trap])
    result = adopt(mar, "--into", tmp_path / "project")
    assert result.exit_code == 0, result.exception
    assert "byte for byte" in result.output, result.output
    again = tmp_path / "again.mar"
    write_archive(make_plan(read_project(tmp_path / "project")), again)
    assert contents(again) == contents(mar)


def test_what_a_build_will_not_take_is_said(tmp_path: Path) -> None:
    files = {"c.yaml": b"minWorkers: many\n"}
    mar = make_mar(tmp_path / "m.mar", files, configFile="c.yaml", serializedFile="gone.pt")
    result = adopt(mar, "--into", tmp_path / "project")
    assert result.exit_code == 0
    assert "the manifest names the weights 'gone.pt', which are not there" in result.output
    assert "to put right before a build: c.yaml: minWorkers" in result.output


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    mar = make_mar(tmp_path / "m.mar", {})
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "h.py").write_text("mine")
    result = adopt(mar, "--into", tmp_path / "project")
    assert result.exit_code != 0
    assert [path.name for path in (tmp_path / "project").iterdir()] == ["h.py"]
    assert (tmp_path / "project" / "h.py").read_text() == "mine"


def test_json_says_which_file_goes_where(tmp_path: Path) -> None:
    mar = make_mar(tmp_path / "m.mar", {"pyproject.toml": b""})
    document: dict[str, Any] = json.loads(adopt(mar, "--json").output)
    assert document["files"] == {"h.py": "h.py", "members/pyproject.toml": "pyproject.toml"}
    assert tomllib.loads(document["pyproject"])["tool"]["mar"]["handler"] == "h.py"
    assert not (tmp_path / "project").exists()


def test_a_project_is_one_already(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").touch()
    assert "it is a project already" in adopt(tmp_path).output


def test_a_command_line_has_nothing_to_unpack(tmp_path: Path) -> None:
    assert (
        "--into unpacks an archive" in adopt("--into", tmp_path / "x", "--", *CALL.split()).output
    )
