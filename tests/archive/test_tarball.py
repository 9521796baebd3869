from __future__ import annotations

import io
import os
import tarfile
from typing import TYPE_CHECKING

import pytest

from hatch_mar.archive.tarball import make_tarball
from hatch_mar.errors import UnsafeArchiveError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path | bytes]:
    script = tmp_path / "build.sh"
    script.write_bytes(b"#!/bin/sh\n")
    script.chmod(0o700)
    module = tmp_path / "module.py"
    module.write_bytes(b"x = 1\n")
    return {"src/module.py": module, "build.sh": script, "note-ü.txt": b"generated"}


@pytest.mark.parametrize("gzip", [False, True])
def test_it_holds_the_files_sorted(files: dict[str, Path | bytes], gzip: bool) -> None:
    data = make_tarball(files, gzip=gzip)
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz" if gzip else "r:") as tar:
        assert tar.getnames() == ["build.sh", "note-ü.txt", "src/module.py"]
        assert tar.getmember("build.sh").mode == 0o755
        assert tar.getmember("src/module.py").mode == 0o644
        content = tar.extractfile("note-ü.txt")
        assert content is not None
        assert content.read() == b"generated"


@pytest.mark.parametrize("gzip", [False, True])
def test_nothing_of_the_machine_is_in_the_bytes(
    files: dict[str, Path | bytes], tmp_path: Path, gzip: bool
) -> None:
    first = make_tarball(files, gzip=gzip)
    for path in tmp_path.iterdir():
        os.utime(path, (5, 5))
    assert make_tarball(dict(reversed(files.items())), gzip=gzip) == first


def test_long_names_survive() -> None:
    name = "/".join(["d" * 200] * 3) + "/" + "f" * 250
    with tarfile.open(fileobj=io.BytesIO(make_tarball({name: b"x"}, gzip=False))) as tar:
        assert tar.getnames() == [name]


def test_an_unsafe_name_is_refused() -> None:
    with pytest.raises(UnsafeArchiveError, match=r"^extra files: member '\.\./x' holds"):
        make_tarball({"../x": b""}, gzip=False)
