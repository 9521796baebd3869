"""`hatch-mar shims`: old names in an environment, and nothing that is not ours touched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from hatch_mar.cli import program
from hatch_mar.cli.old_names import MARK

if TYPE_CHECKING:
    from pathlib import Path

NAME = "torch-model-archiver"


@dataclass(frozen=True, slots=True)
class Place:
    """An environment's two directories."""

    scripts: Path
    packages: Path

    @property
    def program(self) -> Path:
        return self.scripts / NAME

    def files(self) -> list[str]:
        return sorted(str(path) for top in (self.scripts, self.packages) for path in top.rglob("*"))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """An empty environment, which this process takes for its own."""
    found = Place(tmp_path / "bin", tmp_path / "site packages")
    paths = {"scripts": str(found.scripts), "purelib": str(found.packages)}
    for path in (found.scripts, found.packages):
        path.mkdir()
    monkeypatch.setattr(sysconfig, "get_path", paths.__getitem__)
    monkeypatch.setenv("PATH", f"{found.scripts}{os.pathsep}{os.environ['PATH']}")
    return found


def shims(*arguments: str) -> Result:
    return CliRunner().invoke(program, ["shims", *arguments], standalone_mode=False)


def test_install_and_run(place: Place, tmp_path: Path) -> None:
    installed = shims("install")
    assert installed.stdout == f"{place.program}\n{place.scripts / 'torchserve'}\n"
    assert installed.stderr == ""
    (tmp_path / "handler.py").write_text("def handle(data, context): ...\n")
    script = tmp_path / "script.py"
    script.write_text(
        "from model_archiver import ModelArchiver, ModelArchiverConfig, __version__\n"
        "from model_archiver.model_archiver_config import ModelArchiverConfig as Same\n"
        "from model_archiver.model_archiver_error import ModelArchiverError\n"
        "from model_archiver.model_packaging import generate_model_archive, package_model\n"
        "from model_archiver.model_packaging_utils import ModelExportUtils\n"
        "from model_archiver.manifest_components.manifest import RuntimeType\n"
        "config = ModelArchiverConfig(model_name='py', handler='handler.py', version='1')\n"
        "ModelArchiver.generate_model_archive(config)\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join((str(place.packages), *sys.path))}
    options = ["--model-name", "m", "-v", "1", "--handler", "handler.py"]
    for command in ([str(place.program), *options], [sys.executable, str(script)]):
        done = subprocess.run(
            command, cwd=tmp_path, env=env, check=False, capture_output=True, text=True
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "m.mar").is_file()
    assert (tmp_path / "py.mar").is_file()


def test_uninstall_leaves_nothing(place: Place) -> None:
    before = place.files()
    shims("install", NAME)
    (place.packages / "model_archiver" / "__pycache__").mkdir()
    result = shims("uninstall", NAME)
    assert f"removed {place.program}" in result.stdout
    assert place.files() == before


def test_again_is_no_mistake(place: Place) -> None:
    shims("install")
    before = place.files()
    assert shims("install").exit_code == 0
    assert place.files() == before


def test_an_original_stays(place: Place) -> None:
    place.program.write_text("#!/usr/bin/env python\nimport model_archiver\n")
    before = place.program.read_text()
    result = shims("install", "--json")
    assert result.exit_code == 2
    (problem,) = json.loads(result.stdout)["problems"]
    assert problem["file"] == str(place.program)
    assert "pip uninstall torch-model-archiver" in problem["message"]
    assert shims("uninstall").stdout == ""
    assert place.program.read_text() == before
    assert place.files() == [str(place.program)]


def test_somebodys_package_stays(place: Place) -> None:
    mine = place.packages / "model_archiver" / "mine.py"
    mine.parent.mkdir()
    mine.write_text("")
    assert shims("install", "--json").exit_code == 2
    assert place.files() == [str(mine.parent), str(mine)]


def test_a_link_that_leads_nowhere_is_somebodys(place: Place) -> None:
    place.program.symlink_to("nowhere")
    assert shims("install", "--json").exit_code == 2


def test_half_an_installation_is_none(place: Place) -> None:
    (place.packages / "model_archiver").symlink_to("nowhere")
    result = shims("install", "--json")
    assert "cannot be written" in json.loads(result.stdout)["problems"][0]["message"]
    assert not place.program.exists()


def test_list(place: Place) -> None:
    states = []
    for prepare in (lambda: None, lambda: shims("install"), place.program.unlink):
        prepare()
        states.append(json.loads(shims("list", "--json").stdout)[0]["state"])
    place.program.write_text("somebody's")
    assert [*states, shims("list").stdout] == [
        *("absent", "installed", "incomplete"),
        (
            f"  {NAME}  foreign    {place.program}\n"
            f"  torchserve            installed  {place.scripts / 'torchserve'}\n"
        ),
    ]


def test_a_shell_that_does_not_find_it(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert "its directory is not on PATH" in shims("install").stderr


def test_a_path_with_spaces(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "a place" / "python"
    python.parent.mkdir()
    python.symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(python))
    shims("install")
    text = place.program.read_text()
    assert text.startswith("#!/bin/sh\n")
    assert MARK in text
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert (
        subprocess.run(
            [place.program, "-h"], check=False, env=env, stdout=subprocess.DEVNULL
        ).returncode
        == 0
    )
