"""The archive beside the wheel."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from hatch_mar.archive.read import open_archive
from tests.support.builds import copy_project, only

if TYPE_CHECKING:
    from pathlib import Path

    from tests.plugin.conftest import Build
    from tests.support.builds import ProjectMaker

MAR = "shout-0.3.mar"


def test_one_line_says_what_was_written_and_how_to_upload(build: Build, shout: Path) -> None:
    said = build(shout)
    (line,) = [line for line in said.splitlines() if MAR in line]
    size = (shout / "dist" / MAR).stat().st_size
    assert line == (
        f"hatch-mar: wrote dist/{MAR} ({size:,} bytes); "
        "twine refuses foreign files: twine upload dist/*.whl dist/*.tar.gz"
    )


def test_the_same_inputs_are_the_same_bytes(build: Build, shout: Path, tmp_path: Path) -> None:
    build(shout)
    other = tmp_path / "a longer path" / "with spaces"
    copy_project(shout, other)
    files = sorted((path for path in other.rglob("*") if path.is_file()), reverse=True)
    for place, path in enumerate(files):  # other times, modes and order in the directory
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)
        path.chmod(0o600)
        os.utime(path, (place, 1_000_000 + place))
    before = os.umask(0o077)
    try:
        build(other, LC_ALL="C", TZ="Asia/Kathmandu", PYTHONHASHSEED="7")
    finally:
        os.umask(before)
    assert (other / "dist" / MAR).read_bytes() == (shout / "dist" / MAR).read_bytes()


def test_source_date_epoch_is_its_date(build: Build, shout: Path) -> None:
    build(shout, SOURCE_DATE_EPOCH="1700000000")
    with open_archive(shout / "dist" / MAR) as archive:
        assert archive.manifest.created_on == "14/11/2023 22:13:20"


def test_pip_would_throw_it_away(build: Build, shout: Path) -> None:
    build(shout, PIP_BUILD_TRACKER="x")
    assert [path.suffix for path in (shout / "dist").iterdir()] == [".whl"]


def test_a_directory_of_the_environment_keeps_it_under_pip(
    build: Build, shout: Path, tmp_path: Path
) -> None:
    said = build(shout, PIP_BUILD_TRACKER="x", HATCH_MAR_DIR=str(tmp_path / "archives"))
    assert [path.name for path in (tmp_path / "archives").iterdir()] == [MAR]
    assert "twine" not in said


def test_a_relative_directory_of_the_environment_is_below_the_project(
    build: Build, shout: Path
) -> None:
    build(shout, arguments=("-d", "wheels"), HATCH_MAR_DIR="out")
    assert [path.name for path in (shout / "out").iterdir()] == [MAR]
    assert [path.suffix for path in (shout / "wheels").iterdir()] == [".whl"]


def test_the_author_may_move_it_out_of_dist(build: Build, make_project: ProjectMaker) -> None:
    project = make_project(
        mar='handler = "handler.py:handle"\narchive = { directory = "../archives" }'
    )
    build(project)
    assert [path.name for path in (project / "archives").iterdir()] == ["demo-1.0.mar"]
    assert [path.suffix for path in (project / "dist").iterdir()] == [".whl"]


def test_the_author_may_do_without_it(build: Build, make_project: ProjectMaker) -> None:
    project = make_project(mar='handler = "handler.py:handle"\narchive.enabled = false')
    build(project)
    assert [path.suffix for path in (project / "dist").iterdir()] == [".whl"]


@pytest.mark.parametrize(
    ("form", "name"), [("tgz", "demo-1.0.tar.gz"), ("dir", "demo-1.0"), ("mar", "demo-1.0.mar")]
)
def test_it_has_the_format_that_was_asked_for(
    build: Build, make_project: ProjectMaker, form: str, name: str
) -> None:
    project = make_project(
        mar=f'handler = "handler.py:handle"\narchive.format = "{form}"\narchive.directory = "x"'
    )
    build(project)
    with open_archive(project / "dist" / "x" / name) as archive:
        assert (archive.kind, archive.manifest.model_name) == (form, "demo")


def test_cleaning_removes_the_archives_of_all_versions(build: Build, shout: Path) -> None:
    build(shout)
    (shout / "dist" / "shout-0.2.mar").touch()
    (shout / "dist" / "notes.txt").touch()
    build(shout, arguments=("--clean-only",))
    assert [path.name for path in (shout / "dist").iterdir()] == ["notes.txt"]


def test_cleaning_before_an_sdist_spares_the_wheels_archive(build: Build, shout: Path) -> None:
    build(shout, "wheel", "sdist", arguments=("--clean",))
    assert {path.suffix for path in (shout / "dist").iterdir()} == {".whl", ".mar", ".gz"}


def test_cleaning_needs_no_valid_project(build: Build, shout: Path) -> None:
    build(shout)
    (shout / "handler.py").unlink()
    build(shout, arguments=("--clean-only",))
    assert list((shout / "dist").iterdir()) == []


def test_the_target_makes_nothing_else(build: Build, shout: Path) -> None:
    said = build(shout, "mar")
    assert said.split() == [f"dist/{MAR}"]
    assert [path.name for path in (shout / "dist").iterdir()] == [MAR]


def test_the_target_makes_what_a_wheel_build_makes(build: Build, shout: Path) -> None:
    build(shout, "mar")
    alone = (shout / "dist" / MAR).read_bytes()
    shutil.rmtree(shout / "dist")
    build(shout)
    assert (shout / "dist" / MAR).read_bytes() == alone


def test_the_target_makes_it_even_if_wheels_come_without(
    build: Build, make_project: ProjectMaker
) -> None:
    project = make_project(mar='handler = "handler.py:handle"\narchive.enabled = false')
    build(project, "mar")
    assert only(project / "dist", "*").name == "demo-1.0.mar"


def test_the_target_needs_no_runner(build: Build, make_project: ProjectMaker) -> None:
    project = make_project()
    pyproject = project / "pyproject.toml"
    pyproject.write_text(pyproject.read_text().replace('"hatch-mar[serve]"', ""))
    build(project, "mar")
    assert only(project / "dist", "*").name == "demo-1.0.mar"


def test_cleaning_the_target_removes_its_archives(build: Build, shout: Path) -> None:
    build(shout, "mar")
    build(shout, "mar", arguments=("--clean-only",))
    assert list((shout / "dist").iterdir()) == []
