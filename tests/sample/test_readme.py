"""What the README shows is true."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from hatch_mar.cli import SUBCOMMANDS
from tests.support.builds import only, run
from tests.support.exchange import Call, exchange
from tests.support.runner import start_runner

if TYPE_CHECKING:
    from tests.support.builds import Environment

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md"), ROOT / "sample_project/README.md"])


def test_the_smallest_project_is_built_and_served_as_it_stands(
    tmp_path: Path, serving_env: Environment, build_environ: dict[str, str]
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    for name, text in re.findall(r"```\w+\n# (\S+\.\w+)\n(.*?)```", README, re.DOTALL):
        (project / name).write_text(text)
    state = {"weight": torch.tensor([[1.0, 10.0]]), "bias": torch.tensor([100.0])}
    torch.save(state, project / "line.pt")
    dist = tmp_path / "dist"
    build = (serving_env.python, "-m", "hatchling", "build", "-t", "wheel", "-d", dist)
    run(*build, cwd=project, env=build_environ)
    with zipfile.ZipFile(only(dist, "*.whl")) as wheel:
        entry_points = wheel.read("line-1.0.dist-info/entry_points.txt").decode()
    assert "serve-line = line_mar.__main__:main" in entry_points
    question = Call(
        path="/predictions/line", headers=[("Content-Type", "application/json")], body=b"[1.0, 2.0]"
    )
    for artifact in (only(dist, "*.mar"), only(dist, "*.whl")):
        with start_runner(str(artifact), python=str(serving_env.python)) as runner:
            assert exchange(runner.url, question).json() == [121.0]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_command_that_is_shown_exists(page: Path) -> None:
    shown = re.findall(r"^\$ .*?\bhatch-mar ([a-z][a-z-]*)", page.read_text("utf-8"), re.MULTILINE)
    assert set(shown) <= set(SUBCOMMANDS)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_file_that_is_linked_exists(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", page.read_text("utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []
