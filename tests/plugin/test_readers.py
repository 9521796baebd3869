"""Wheels with stored members, before those who read wheels for a living."""

from __future__ import annotations

import csv
import io
import shutil
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest

from hatch_mar.archive.plan import Member
from hatch_mar.archive.write import write_archive
from hatch_mar.plugin.stored import add_stored
from hatch_mar.project.planning import make_plan
from hatch_mar.project.read import read_spec
from tests.support.builds import make_environment, only, run
from tests.support.disk import zeros_take_no_room

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.plugin.conftest import Build
    from tests.support.builds import ProjectMaker

BIG = bytes(range(256)) * (40 * 1024)
MAR = 'handler = "handler.py:handle"\nweights = "big.bin"'


@pytest.fixture
def wheel(build: Build, make_project: ProjectMaker) -> Path:
    """A wheel that a big member was added to."""
    project = make_project(mar=MAR, files={"big.bin": BIG})
    build(project)
    return only(project / "dist", "*.whl")


def test_those_who_check_wheels_have_nothing_to_say(wheel: Path) -> None:
    tool = (sys.executable, "-m")
    assert "PASSED" in run(*tool, "twine", "check", wheel)
    assert "OK" in run(*tool, "check_wheel_contents", wheel)


def test_wheel_unpacks_and_packs_it(wheel: Path, tmp_path: Path) -> None:
    tool = (sys.executable, "-m", "wheel")
    run(*tool, "unpack", wheel, "--dest", tmp_path / "unpacked")
    unpacked = only(tmp_path / "unpacked", "*")
    assert (unpacked / "demo_mar" / "model" / "big.bin").read_bytes() == BIG
    (tmp_path / "packed").mkdir()
    run(*tool, "pack", unpacked, "--dest-dir", tmp_path / "packed")
    with zipfile.ZipFile(wheel) as mine, zipfile.ZipFile(only(tmp_path / "packed", "*")) as theirs:
        (record,) = (name for name in mine.namelist() if name.endswith("/RECORD"))
        assert sorted(mine.read(record).splitlines()) == sorted(theirs.read(record).splitlines())


@pytest.mark.parametrize("installer", ["pip", "uv"])
def test_installers_take_it_and_take_it_away(
    wheel: Path, tmp_path: Path, build_environ: dict[str, str], installer: str
) -> None:
    environment = make_environment(tmp_path / "environment")
    install: tuple[str | Path, ...]
    uninstall: tuple[str | Path, ...]
    if installer == "pip":
        pip = (sys.executable, "-m", "pip", "--python", environment.python)
        install = (*pip, "install", "--no-deps", "--no-index")
        uninstall = (*pip, "uninstall", "--yes")
    else:
        python = ("--python", environment.python)
        install = ("uv", "pip", "install", *python, "--offline", "--no-deps", "--no-index")
        uninstall = ("uv", "pip", "uninstall", *python)
    run(*install, wheel, env=build_environ)
    (installed,) = environment.path.glob("lib/*/site-packages/demo_mar/model/big.bin")
    assert installed.read_bytes() == BIG
    run(*uninstall, "demo", env=build_environ)
    assert not installed.parent.parent.exists()


HUGE = 4_400_000_000
"""Bytes: more than 32 bits can count."""
READ_WITH_JAVA = """
import java.io.*;
import java.util.zip.*;

public class Sizes {
    public static void main(String[] arguments) throws IOException {
        byte[] chunk = new byte[1 << 20];
        try (ZipInputStream zip = new ZipInputStream(new FileInputStream(arguments[0]))) {
            for (ZipEntry entry = zip.getNextEntry(); entry != null; entry = zip.getNextEntry()) {
                long size = 0;
                int count;
                while ((count = zip.read(chunk)) >= 0) size += count;
                System.out.println(entry.getName() + " " + size);
            }
        }
    }
}
"""


@pytest.fixture
def huge(tmp_path: Path) -> Iterator[Path]:
    """A directory with `huge.bin`, whose bytes are zeros and take no room; emptied after."""
    directory = tmp_path / "huge"
    directory.mkdir()
    with (directory / "huge.bin").open("wb") as file:
        file.truncate(HUGE)
        file.seek(HUGE - 4)
        file.write(b"last")
    with zeros_take_no_room(tmp_path):
        yield directory
    shutil.rmtree(directory)


def check_huge(path: Path, name: str) -> None:
    """Check that `name` and what stands behind it are read to their ends."""
    with zipfile.ZipFile(path) as archive:
        assert archive.getinfo(name).file_size == HUGE
        assert archive.getinfo(name).compress_type == zipfile.ZIP_STORED
        with archive.open(name) as file:
            file.seek(HUGE - 4)
            assert file.read() == b"last"
        assert archive.read(archive.infolist()[-1])


def read_with_java(path: Path) -> dict[str, int]:
    """Return the sizes of the members of `path`, as TorchServe's reader finds them."""
    (path.parent / "Sizes.java").write_text(READ_WITH_JAVA)
    lines = run("java", path.parent / "Sizes.java", path).splitlines()
    return {name: int(size) for name, _, size in (line.rpartition(" ") for line in lines)}


@pytest.mark.slow  # writes 4 GiB, and reads them more than once
@pytest.mark.timeout(600)
def test_a_wheel_may_be_larger_than_4_gib(
    huge: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_stored(wheel, [Member("demo_mar/model/huge.bin", huge / "huge.bin")])
    wheel = wheel.rename(huge / wheel.name)
    check_huge(wheel, "demo_mar/model/huge.bin")
    assert read_with_java(wheel)["demo_mar/model/huge.bin"] == HUGE
    with zipfile.ZipFile(wheel) as archive:
        (record,) = (name for name in archive.namelist() if name.endswith("/RECORD"))
        rows = list(csv.reader(io.StringIO(archive.read(record).decode())))
    assert [row[2] for row in rows if row[0].endswith("huge.bin")] == [str(HUGE)]
    environment = make_environment(huge / "environment")
    monkeypatch.setenv("TMPDIR", str(huge))  # where uv unpacks it
    environment.install(wheel)
    (installed,) = environment.path.glob("lib/*/site-packages/demo_mar/model/huge.bin")
    assert installed.stat().st_size == HUGE


@pytest.mark.slow  # writes 4 GiB, and reads them twice
@pytest.mark.timeout(600)
def test_an_archive_may_be_larger_than_4_gib(huge: Path, make_project: ProjectMaker) -> None:
    project = make_project(
        mar='handler = "handler.py:handle"\nweights.source = "huge.bin"\nweights.place = "embed"'
    )
    (huge / "huge.bin").rename(project / "huge.bin")
    path = huge / "demo.mar"
    write_archive(make_plan(read_spec(project)), path)
    (project / "huge.bin").unlink()
    check_huge(path, "huge.bin")
    assert read_with_java(path)["huge.bin"] == HUGE
