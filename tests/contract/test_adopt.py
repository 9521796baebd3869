"""Archives that the real torch-model-archiver made, adopted and built again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from click.testing import CliRunner

from hatch_mar.archive.read import open_archive
from hatch_mar.archive.write import write_archive
from hatch_mar.cli.adopt import command
from hatch_mar.cli.authored import read_project
from hatch_mar.project.planning import make_plan

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.torchserve import TorchServeHome

HANDLER = """\
from ts.torch_handler.base_handler import BaseHandler
import labels

class Handler(BaseHandler):
    pass
"""
MODEL = """\
import torch

class Line(torch.nn.Linear):
    def __init__(self):
        super().__init__(2, 1)
"""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """The files of a model, laid out as people do."""
    root = tmp_path / "files"
    (root / "lib" / "deep").mkdir(parents=True)
    (root / "h.py").write_text(HANDLER)
    (root / "model.py").write_text(MODEL)
    (root / "lib" / "labels.py").write_text("NAMES = []\n")
    (root / "lib" / "deep" / "data.txt").write_text("x")
    (root / "index_to_name.json").write_text("{}")
    (root / "c.yaml").write_text("minWorkers: 1\nmaxWorkers: 1\n")
    (root / "r.txt").write_text("numpy>=1.26\n")
    torch.save({"weight": torch.ones(1, 2), "bias": torch.ones(1)}, root / "w.pt")
    return root


def contents(path: Path) -> dict[str, bytes]:
    with open_archive(path) as archive:
        names = [name for name in archive.names() if not name.startswith("MAR-INF/")]
        return {name: archive.read(name) for name in names}


@pytest.mark.parametrize("form", ["default", "zip-store", "tgz", "no-archive"])
def test_what_it_made_is_built_again(
    torchserve_home: TorchServeHome, files: Path, tmp_path: Path, form: str
) -> None:
    theirs = torchserve_home.make_archive(
        "line",
        tmp_path,
        handler=str(files / "h.py"),
        form=form,
        version="v2",
        model_file=files / "model.py",
        weights=files / "w.pt",
        config=files / "c.yaml",
        requirements=files / "r.txt",
        extra_files=[files / "lib", files / "index_to_name.json"],
    )
    result = CliRunner().invoke(command, [str(theirs), "--into", str(tmp_path / "project")])
    assert result.exit_code == 0, result.exception
    ours = tmp_path / "ours.mar"
    write_archive(make_plan(read_project(tmp_path / "project")), ours)
    assert contents(ours) == contents(theirs)
    with open_archive(theirs) as one, open_archive(ours) as other:
        assert other.manifest.as_dict()["model"] == one.manifest.as_dict()["model"]


def test_what_it_was_told_gives_what_it_made(
    torchserve_home: TorchServeHome,
    files: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    theirs = torchserve_home.make_archive(
        "line",
        tmp_path,
        handler=str(files / "h.py"),
        model_file=files / "model.py",
        weights=files / "w.pt",
        extra_files=[files / "lib", files / "index_to_name.json"],
    )
    monkeypatch.chdir(files)
    line = (
        "torch-model-archiver --model-name line --version 1.0 --handler h --model-file model.py "
        "--serialized-file w.pt --extra-files lib,index_to_name.json"
    )
    (files / "pyproject.toml").write_text(CliRunner().invoke(command, ["--", *line.split()]).output)
    plan = make_plan(read_project(files))
    assert plan.filename == theirs.name
    write_archive(plan, tmp_path / "ours.mar")
    assert contents(tmp_path / "ours.mar") == contents(theirs)
