"""What `pip install -e .` gets: a map of the source tree."""

from __future__ import annotations

import io
import tarfile
import zipfile
from typing import TYPE_CHECKING

from hatch_mar.archive.editable import open_editable
from tests.support.builds import only, wheel_names

if TYPE_CHECKING:
    from pathlib import Path

    from tests.plugin.conftest import Build
    from tests.support.builds import ProjectMaker


def install(project: Path) -> Path:
    """Unpack the package of the project's editable wheel, and return its directory."""
    site = project.parent / "site-packages"
    with zipfile.ZipFile(only(project / "dist", "*.whl")) as wheel:
        wheel.extractall(site)
    return only(site, "*_mar")


def test_the_wheel_holds_a_map_instead_of_the_model(build: Build, shout: Path) -> None:
    build(shout, "wheel:editable")
    names = wheel_names(only(shout / "dist", "*.whl"))
    assert {name for name in names if ".dist-info/" not in name and ".pth" not in name} == {
        "shout_mar/__init__.py",
        "shout_mar/__main__.py",
        "shout_mar/model.json",
    }
    assert any(name.endswith("entry_points.txt") for name in names)


def test_nothing_is_packed(build: Build, shout: Path) -> None:
    build(shout, "wheel:editable", HATCH_MAR_DIR=str(shout / "out"))
    assert [path.suffix for path in (shout / "dist").iterdir()] == [".whl"]
    assert not (shout / "out").exists()


def test_the_members_are_the_source_files(build: Build, colours: Path) -> None:
    build(colours, "wheel:editable")
    with open_editable(install(colours)) as archive:
        assert archive.kind == "editable"
        assert archive.file("colours/naming.py") == colours / "src" / "colours" / "naming.py"
        assert archive.file("palette.json") == colours / "weights" / "palette.json"
        assert archive.file("MAR-INF/MANIFEST.json") is None
        assert archive.manifest.model_name == "colours"


def test_they_are_the_members_of_the_archive(build: Build, colours: Path) -> None:
    build(colours, "wheel:editable")
    with open_editable(install(colours)) as archive:
        editable = {name: archive.read(name) for name in archive.names()}
    build(colours, "mar")
    with zipfile.ZipFile(only(colours / "dist", "*.mar")) as mar:
        packed = {name: mar.read(name) for name in mar.namelist()}
    del packed["MAR-INF/SEAL.json"]
    assert editable == packed


def test_an_edit_is_seen_in_a_tarball_too(build: Build, make_project: ProjectMaker) -> None:
    project = make_project(
        mar="""
        handler = "handler.py:handle"
        extra-files = ["words/*.txt"]
        extra-layout = "tarball"
        system.extra-files = "words.tar"
        """,
        files={"words/a.txt": "before"},
    )
    build(project, "wheel:editable")
    package = install(project)
    (project / "words" / "a.txt").write_text("after")
    with open_editable(package) as archive:
        packed = io.BytesIO(archive.read("words.tar"))
    with tarfile.open(fileobj=packed) as tarball:
        member = tarball.extractfile("words/a.txt")
        assert member is not None
        assert member.read() == b"after"


def test_a_projects_own_force_include_still_works(build: Build, make_project: ProjectMaker) -> None:
    project = make_project(files={"data.txt": ""})
    with (project / "pyproject.toml").open("a") as file:
        file.write('\n[tool.hatch.build.targets.wheel.force-include]\n"data.txt" = "data.txt"\n')
    build(project, "wheel:editable")
    assert "data.txt" in wheel_names(only(project / "dist", "*.whl"))
