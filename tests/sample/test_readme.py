"""What the README shows is true."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from hatch_mar.cli import SUBCOMMANDS
from tests.support.builds import only, run, wheel_names

if TYPE_CHECKING:
    from tests.support.builds import Environment

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md"), ROOT / "sample_project/README.md"])


class Brightness(torch.nn.Module):
    """The smallest thing that classifies images."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        mean = images.mean(dim=(1, 2, 3)).unsqueeze(1)
        return torch.cat([mean, -mean], dim=1)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_the_smallest_project_builds_as_it_stands(
    tmp_path: Path, serving_env: Environment, build_environ: dict[str, str]
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (block,) = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    (project / "pyproject.toml").write_text(block)
    torch.jit.script(Brightness()).save(str(project / "resnet18.pt"))  # type: ignore[no-untyped-call]
    dist = tmp_path / "dist"
    build = (serving_env.python, "-m", "hatchling", "build", "-t", "wheel", "-d", dist)
    run(*build, cwd=project, env=build_environ)
    assert sorted(path.name for path in dist.iterdir()) == [
        "resnet18-1.0-py3-none-any.whl",
        "resnet18-1.0.mar",
    ]
    assert "resnet18_mar/model/resnet18.pt" in wheel_names(only(dist, "*.whl"))
    with zipfile.ZipFile(only(dist, "*.whl")) as wheel:
        entry_points = wheel.read("resnet18-1.0.dist-info/entry_points.txt").decode()
    assert "serve-resnet18 = resnet18_mar.__main__:main" in entry_points


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_command_that_is_shown_exists(page: Path) -> None:
    shown = re.findall(r"^\$ .*?\bhatch-mar ([a-z]+)", page.read_text("utf-8"), re.MULTILINE)
    assert set(shown) <= set(SUBCOMMANDS)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_file_that_is_linked_exists(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", page.read_text("utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []
