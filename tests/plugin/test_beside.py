"""The archive beside the wheel."""

from __future__ import annotations

import os
import shutil
import zipfile
from typing import TYPE_CHECKING

import pytest

from hatch_mar.archive.manifest import MANIFEST_NAME, Manifest
from hatch_mar.archive.read import open_archive
from hatch_mar.archive.staging import PREFIX as STAGED
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
    shutil.copy(shout / "dist" / MAR, shout / "dist" / "shout-0.2.mar")
    build(shout, arguments=("--clean-only",))
    assert list((shout / "dist").iterdir()) == []


def test_cleaning_removes_what_killed_builds_left(build: Build, shout: Path) -> None:
    (shout / "dist" / f"{STAGED}0" / "deep").mkdir(parents=True)
    (shout / "dist" / f"{STAGED}1").touch()
    build(shout, arguments=("--clean-only",))
    assert list((shout / "dist").iterdir()) == []


@pytest.mark.parametrize("name", ["notes.txt", "theirs.mar", "empty.mar", "folder.mar/file"])
def test_cleaning_spares_what_is_not_ours(build: Build, shout: Path, name: str) -> None:
    theirs = shout / "dist" / name
    theirs.parent.mkdir(parents=True)
    if name == "theirs.mar":
        with zipfile.ZipFile(theirs, "w") as archive:
            archive.writestr(MANIFEST_NAME, Manifest(model_name="shout").to_json())
    else:
        theirs.touch()
    build(shout, arguments=("--clean-only",))
    assert [path for path in (shout / "dist").rglob("*") if path.is_file()] == [theirs]


def test_cleaning_spares_a_file_that_a_link_leads_to(build: Build, shout: Path) -> None:
    build(shout)
    kept = (shout / "dist" / MAR).rename(shout / "kept.mar")
    (shout / "dist" / MAR).symlink_to(kept)
    build(shout, arguments=("--clean-only",))
    assert kept.is_file()


@pytest.mark.parametrize("form", ["mar", "tgz", "dir"])
def test_cleaning_follows_the_archive_out_of_dist(
    build: Build, make_project: ProjectMaker, form: str
) -> None:
    archive = f'archive = {{ directory = "../archives", format = "{form}" }}'
    mine = make_project("mine", mar=f'handler = "handler.py:handle"\n{archive}')
    other = make_project("other", mar=f'handler = "handler.py:handle"\n{archive}')
    build(mine)
    build(other)
    spared = [
        copy_any(path, mine / "archives" / path.name) for path in (other / "archives").iterdir()
    ]
    assert len(list((mine / "archives").iterdir())) == 2
    build(mine, arguments=("--clean-only",))
    assert list((mine / "archives").iterdir()) == spared


def copy_any(source: Path, target: Path) -> Path:
    """Copy a file or a directory, and return `target`."""
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copy(source, target)
    return target


def test_cleaning_after_the_build_spares_its_result(build: Build, shout: Path) -> None:
    build(shout, arguments=("--clean-hooks-after",))
    assert {path.suffix for path in (shout / "dist").iterdir()} == {".whl", ".mar"}


def test_hooks_alone_write_it(build: Build, shout: Path) -> None:
    build(shout, arguments=("--hooks-only",))
    assert [path.name for path in (shout / "dist").iterdir()] == [MAR]


def test_hooks_alone_write_it_if_a_variable_says_so(build: Build, shout: Path) -> None:
    build(shout, HATCH_BUILD_HOOKS_ONLY="1")
    assert [path.name for path in (shout / "dist").iterdir()] == [MAR]


BROKEN_HOOK = """
from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Hook(BuildHookInterface):
    def {method}(self, *arguments):
        raise SystemExit("broken")
"""


@pytest.mark.parametrize("method", ["initialize", "finalize"])
def test_it_does_not_appear_if_the_wheel_does_not(
    build: Build, make_project: ProjectMaker, method: str
) -> None:
    project = make_project(files={"hatch_build.py": BROKEN_HOOK.format(method=method)})
    pyproject = project / "pyproject.toml"
    hook = "[tool.hatch.build.hooks.custom]\n"  # runs after ours if it stands behind it
    text = pyproject.read_text()
    before = "[tool.hatch.build.hooks.mar]\n"
    order = hook + before if method == "finalize" else before + hook
    pyproject.write_text(text.replace(before, order))
    assert "broken" in build(project, expect=1)
    assert {path.suffix for path in (project / "dist").iterdir()} <= {".whl"}


def test_one_that_is_there_is_replaced(build: Build, make_project: ProjectMaker) -> None:
    project = make_project(
        mar='handler = "handler.py:handle"\narchive = { format = "dir", directory = "x" }'
    )
    build(project)
    (project / "handler.py").write_text("def handle(data, context):\n    return None\n")
    build(project)
    (archive,) = (project / "dist" / "x").iterdir()
    assert (archive / "handler.py").read_bytes() == (project / "handler.py").read_bytes()


def test_a_directory_that_is_no_archive_is_in_the_way(
    refused: Build, make_project: ProjectMaker
) -> None:
    project = make_project(files={"dist/demo-1.0.mar/notes.txt": "mine"})
    said = refused(project)
    assert "demo-1.0.mar: a directory that is no model archive; remove it or rename it" in said


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
