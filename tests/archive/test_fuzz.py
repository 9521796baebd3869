"""Whatever the bytes, a reader of archives answers or raises `ArchiveError`: nothing else."""

from __future__ import annotations

import gzip
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hatch_mar.archive.manifest import Manifest
from hatch_mar.archive.plan import Member, Plan
from hatch_mar.archive.read import open_archive
from hatch_mar.archive.tarball import make_tarball
from hatch_mar.archive.unpack import unpack, unpack_extra_files
from hatch_mar.archive.write import write_archive
from hatch_mar.errors import ArchiveError

if TYPE_CHECKING:
    from collections.abc import Callable

MEMBERS = (
    Member("handler.py", b"x = 1\n" * 20),
    Member("model-config.yaml", b"batchSize: 4\n"),
    Member("deep/" + "n" * 120 + "/file.txt", b"hello"),
)


@cache
def _archive(form: str) -> bytes:
    manifest = Manifest(model_name="m", handler="handler.py", config_file="model-config.yaml")
    plan = Plan(
        name="m",
        version="1",
        manifest=manifest,
        members=MEMBERS,
        runtime="custom",
        format="tgz" if form == "tar" else "mar",
        compression="deflated" if form == "deflated" else "stored",
    )
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "m")
        write_archive(plan, path)
        data = path.read_bytes()
    return gzip.decompress(data) if form == "tar" else data


changes = st.lists(
    st.tuples(st.integers(0, 1 << 20), st.binary(min_size=1, max_size=4)), min_size=1, max_size=4
)
cuts = st.none() | st.integers(0, 1 << 20)


def _damage(data: bytes, changed: list[tuple[int, bytes]], cut: int | None) -> bytes:
    damaged = bytearray(data)
    for where, what in changed:
        start = where % len(damaged)
        damaged[start : start + len(what)] = what
    return bytes(damaged if cut is None else damaged[: cut % len(damaged)])


def _read_everything(path: Path) -> None:
    with open_archive(path) as archive:
        _ = archive.config
        for name in archive.names():
            assert len(archive.read(name)) == archive.size(name)
        unpack(archive, path.parent / "model")
    for file in (path.parent / "model").rglob("*"):
        assert file.resolve().is_relative_to(path.parent.resolve())


def _try(data: bytes, use: Callable[[Path], None]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "m.mar")
        path.write_bytes(data)
        message = ""
        try:
            use(path)
        except ArchiveError as error:
            message = str(error)
        if message:
            assert message.startswith(directory), "a message starts with the path"
            assert [file.name for file in Path(directory).iterdir()] == ["m.mar"]


@pytest.mark.parametrize("form", ["stored", "deflated", "tar"])
@settings(max_examples=150, deadline=None)
@given(changed=changes, cut=cuts)
def test_a_damaged_archive(form: str, changed: list[tuple[int, bytes]], cut: int | None) -> None:
    data = _damage(_archive(form), changed, cut)
    _try(gzip.compress(data, 1) if form == "tar" else data, _read_everything)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from([b"", b"PK\x03\x04", b"PK\x05\x06", b"\x1f\x8b\x08\0"]), st.binary(max_size=300)
)
def test_no_archive_at_all(start: bytes, rest: bytes) -> None:
    _try(start + rest, _read_everything)


@pytest.mark.parametrize("form", ["stored", "tar"])
@settings(max_examples=100, deadline=None)
@given(changed=changes, cut=cuts)
def test_damaged_extra_files(form: str, changed: list[tuple[int, bytes]], cut: int | None) -> None:
    files: dict[str, Path | bytes] = {"a.py": b"x = 1", "src/" + "n" * 150: b"y"}
    data = _archive("stored") if form == "stored" else make_tarball(files, gzip=False)
    _try(_damage(data, changed, cut), lambda path: unpack_extra_files(path, path.parent))
