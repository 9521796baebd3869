from __future__ import annotations

import io
import stat
import subprocess
import tarfile
import zipfile
from typing import TYPE_CHECKING

import pytest

from hatch_mar.archive.tarball import make_tarball
from hatch_mar.archive.unpack import unpack_extra_files
from hatch_mar.errors import ArchiveError, UnsafeArchiveError

if TYPE_CHECKING:
    from pathlib import Path

FILES: dict[str, Path | bytes] = {"helpers.py": b"x = 1", "pkg/mod.py": b"y = 2", "pkg/a/b": b""}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A run directory: the tarball beside a handler that is a link to a read-only file."""
    directory = tmp_path / "model"
    directory.mkdir()
    (tmp_path / "installed.py").write_text("the handler")
    (directory / "handler.py").symlink_to(tmp_path / "installed.py")
    return directory


def _pack(model: Path, form: str) -> Path:
    path = model / "extra.tar.gz"
    if form == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in FILES.items():
                assert isinstance(data, bytes)
                archive.writestr(name, data)
    else:
        path.write_bytes(make_tarball(FILES, gzip=form == "gzip"))
    return path


def _listing(directory: Path) -> set[str]:
    return {
        path.relative_to(directory).as_posix() for path in directory.rglob("*") if not path.is_dir()
    }


@pytest.mark.parametrize("form", ["tar", "gzip", "zip"])
def test_formats_are_told_apart_by_content(model: Path, form: str) -> None:
    unpack_extra_files(_pack(model, form), model)
    assert _listing(model) == {"handler.py", "extra.tar.gz", *FILES}
    assert (model / "pkg" / "mod.py").read_bytes() == b"y = 2"
    assert stat.S_IMODE((model / "helpers.py").stat().st_mode) == 0o600


def test_what_tar_itself_packs(model: Path, tmp_path: Path) -> None:
    """Directories are entries of their own, and names start with a dot."""
    source = tmp_path / "source"
    (source / "pkg").mkdir(parents=True)
    (source / "pkg" / "mod.py").write_text("y = 2")
    (source / "run").write_text("#!/bin/sh")
    (source / "run").chmod(0o755)
    subprocess.run(["tar", "-cvf", "extra.tar.gz", "-C", source, "."], cwd=model, check=True)
    unpack_extra_files(model / "extra.tar.gz", model)
    assert _listing(model) == {"handler.py", "extra.tar.gz", "pkg/mod.py", "run"}
    assert stat.S_IMODE((model / "run").stat().st_mode) == 0o700


def test_twice_is_once(model: Path) -> None:
    path = _pack(model, "tar")
    unpack_extra_files(path, model)
    unpack_extra_files(path, model)
    assert _listing(model) == {"handler.py", "extra.tar.gz", *FILES}


@pytest.mark.parametrize("name", ["handler.py", "pkg/late.py"])
def test_another_file_of_that_name_stays(model: Path, tmp_path: Path, name: str) -> None:
    (model / "pkg").mkdir()
    (model / "pkg" / "late.py").write_text("the handler")
    path = model / "extra.tar"
    path.write_bytes(make_tarball({"a/b/new.py": b"1", name: b"another"}, gzip=False))
    before = _listing(model)
    with pytest.raises(ArchiveError, match=rf"extra\.tar: {name}: there is another file"):
        unpack_extra_files(path, model)
    assert _listing(model) == before
    assert not (model / "a").exists()
    assert (tmp_path / "installed.py").read_text() == "the handler"


def test_a_file_where_a_directory_should_be(model: Path) -> None:
    path = model / "extra.tar"
    path.write_bytes(make_tarball({"a.py": b"1", "handler.py/x": b"2"}, gzip=False))
    with pytest.raises(ArchiveError, match=r"model: cannot be written: "):
        unpack_extra_files(path, model)
    assert _listing(model) == {"handler.py", "extra.tar"}


def test_a_damaged_tarball_leaves_nothing(model: Path) -> None:
    path = _pack(model, "gzip")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ArchiveError, match=r"extra\.tar\.gz: cannot be read: "):
        unpack_extra_files(path, model)
    assert _listing(model) == {"handler.py", "extra.tar.gz"}


@pytest.mark.parametrize("content", [b"", b"hello", b"\x1f\x8bhello", b"PK\x03\x04"])
def test_what_is_no_tarball_says_so(model: Path, content: bytes) -> None:
    (model / "extra.tar").write_bytes(content)
    with pytest.raises(ArchiveError, match=r"extra\.tar: "):
        unpack_extra_files(model / "extra.tar", model)


@pytest.mark.parametrize("name", ["../escape.py", "/escape.py"])
def test_an_escape_is_refused(model: Path, name: str) -> None:
    with tarfile.open(model / "extra.tar", "w") as tar:
        entry = tarfile.TarInfo(name)
        entry.size = 1
        tar.addfile(entry, io.BytesIO(b"x"))
    with pytest.raises(UnsafeArchiveError, match=r"extra\.tar: member '.*escape\.py'"):
        unpack_extra_files(model / "extra.tar", model)


def test_a_bound_on_the_bytes(model: Path) -> None:
    with pytest.raises(UnsafeArchiveError, match="10 bytes unpacked, 9 are allowed"):
        unpack_extra_files(_pack(model, "tar"), model, max_bytes=9)
