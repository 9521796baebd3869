"""Whatever the bytes, a reader of archives answers or raises `ArchiveError`: nothing else.

Everyday runs try some hundred files; the `slow` tests try as many as `HATCH_MAR_FUZZ` says, the
same kinds of damage, for whoever has an hour.
"""

from __future__ import annotations

import gzip
import io
import os
import struct
import tarfile
import tempfile
import zipfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
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


INFO_ZIP = bytes.fromhex(
    "504b0304140008000800b378755d0000000000000000f401000001001c0061555409000341b3016b"
    "41b3016b75780b00010400000000040000000063601805230d0000504b07087ab9830208000000f4"
    "010000504b0304140008000800b378755d00000000000000000300000001001c0062555409000341"
    "b3016b41b3016b75780b000104000000000400000000cbc8e40200504b07087a7a6fed0500000003"
    "000000504b01021e03140008000800b378755d7ab9830208000000f4010000010018000000000000"
    "000000a4810000000061555405000341b3016b75780b000104000000000400000000504b01021e03"
    "140008000800b378755d7a7a6fed0500000003000000010018000000000001000000a48153000000"
    "62555405000341b3016b75780b000104000000000400000000504b050600000000020002008e0000"
    "00a30000000000"
)
"""What Info-ZIP 3.0 writes to a pipe: what it does not know yet follows each member's data."""

EVERYDAY = settings(max_examples=150, deadline=None)
LONG = settings(
    max_examples=int(os.environ.get("HATCH_MAR_FUZZ", "2000")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
FORMS = ["stored", "deflated", "tar", "wheel", "streamed", "zip64", "gnu", "pax"]


@cache
def _archive(form: str) -> bytes:
    """Return an honest archive; tars are not compressed yet, so that damage reaches them."""
    match form:
        case "wheel":
            return _wheel()
        case "streamed":
            return INFO_ZIP
        case "zip64":
            return _zip64()
        case "gnu" | "pax":
            return _tar(tarfile.GNU_FORMAT if form == "gnu" else tarfile.PAX_FORMAT)
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


def _wheel() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr("m_mar/__init__.py", "")
        for member in MEMBERS:
            assert isinstance(member.source, bytes)
            wheel.writestr(f"m_mar/model/{member.name}", member.source)
        wheel.writestr("m-1.dist-info/entry_points.txt", "[hatch_mar.models]\nm = m_mar\n")
    return buffer.getvalue()


def _zip64() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("a", "b/c"):
            with archive.open(name, "w", force_zip64=True) as file:
                file.write(b"x" * 300)
    data = buffer.getvalue()
    end, start = data.index(b"PK\x05\x06"), data.index(b"PK\x01\x02")
    fields = (b"PK\x06\x06", 44, 45, 45, 0, 0, 2, 2, end - start, start)
    record = struct.pack("<4sQ2H2L4Q", *fields)
    return data[:end] + record + struct.pack("<4sLQL", b"PK\x06\x07", 0, end, 1) + data[end:]


def _tar(form: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for name in ("m", "m/" + "d/" * 70 + "caf\u00e9", "m/b"):
            entry = tarfile.TarInfo(name)
            entry.type = tarfile.DIRTYPE if name == "m" else tarfile.REGTYPE
            entry.size = 0 if name == "m" else 700
            entry.mtime = 1.5
            archive.addfile(entry, io.BytesIO(b"x" * entry.size))
    return buffer.getvalue()


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


SIGNATURES = (b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07", b"ustar")
NUMBERS = [0, 1, 2, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF, 1 << 63]


@cache
def _headers(form: str) -> list[int]:
    """Return where headers start; those of a tar are its blocks."""
    data = _archive(form)
    if not data.startswith(b"PK"):
        return list(range(0, len(data), tarfile.BLOCKSIZE))
    starts = range(len(data))
    return [at for at in starts if any(data.startswith(each, at) for each in SIGNATURES)]


def _with_checksums(data: bytearray) -> bytes:
    """Make every changed block of a tar a header that tarfile believes."""
    for at in range(0, len(data) - tarfile.BLOCKSIZE + 1, tarfile.BLOCKSIZE):
        if data[at + 257 : at + 262] == b"ustar":
            data[at + 148 : at + 156] = b" " * 8
            data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + tarfile.BLOCKSIZE])
    return bytes(data)


@st.composite
def forged(draw: st.DrawFn, form: str) -> bytes:
    """Change fields of headers to the numbers that hurt, and move whole pieces about."""
    data = bytearray(_archive(form))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.sampled_from(_headers(form))) + draw(st.integers(0, 60))
        width = draw(st.sampled_from([1, 2, 4, 8]))
        if not form.startswith(("tar", "gnu", "pax")):
            number = draw(st.sampled_from(NUMBERS) | st.integers(0, len(data) + 9))
            value = (number & ((1 << 8 * width) - 1)).to_bytes(width, "little")
        else:
            at += draw(st.sampled_from([0, 64, 100]))
            value = draw(
                st.sampled_from(
                    [
                        b"0",
                        b"7" * 8,
                        b"\xff" * 8,
                        b"\x80",
                        b"\0",
                        b"9",
                        b"-1",
                        b"L",
                        b"x",
                        b"g",
                        b"S",
                        b"1",
                        b"2",
                        b"../",
                        b"/",
                    ]
                )
            )
        data[at : at + len(value)] = value
    if draw(st.integers(0, 3)) == 0:
        cuts = sorted(draw(st.lists(st.integers(0, len(data)), min_size=2, max_size=2)))
        piece = data[cuts[0] : cuts[1]]
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, len(piece)))] = piece
    return _with_checksums(data) if b"ustar" in data else bytes(data)


def _read_everything(path: Path) -> None:
    with open_archive(path) as archive:
        _ = archive.config
        for name in archive.names():
            assert len(archive.read(name)) == archive.size(name)
        unpack(archive, path.parent / "model")
    for file in (path.parent / "model").rglob("*"):
        assert file.resolve().is_relative_to(path.parent.resolve())


def _try(data: bytes, use: Callable[[Path], None], name: str = "m.mar") -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, name)
        path.write_bytes(data)
        message = ""
        try:
            use(path)
        except ArchiveError as error:
            message = str(error)
        if message:
            assert message.startswith(directory), "a message starts with the path"
            assert [file.name for file in Path(directory).iterdir()] == [name]


def _packed(form: str, data: bytes) -> bytes:
    return gzip.compress(data, 1) if form in {"tar", "gnu", "pax"} else data


def _name(form: str) -> str:
    return "m.whl" if form == "wheel" else "m.mar"


@pytest.mark.parametrize("form", FORMS)
def test_the_archives_of_these_tests_are_honest(form: str, tmp_path: Path) -> None:
    path = tmp_path / _name(form)
    path.write_bytes(_packed(form, _archive(form)))
    _read_everything(path)
    assert any((tmp_path / "model").iterdir())


@pytest.mark.parametrize("form", FORMS)
@settings(EVERYDAY, max_examples=60)
@given(changed=changes, cut=cuts)
def test_a_damaged_archive(form: str, changed: list[tuple[int, bytes]], cut: int | None) -> None:
    data = _damage(_archive(form), changed, cut)
    _try(_packed(form, data), _read_everything, _name(form))


@pytest.mark.parametrize("form", FORMS)
@settings(EVERYDAY, max_examples=60)
@given(data=st.data())
def test_a_forged_archive(form: str, data: st.DataObject) -> None:
    _try(_packed(form, data.draw(forged(form))), _read_everything, _name(form))


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("form", FORMS)
@LONG
@given(data=st.data(), changed=changes, cut=cuts)
def test_many_broken_archives(
    form: str, data: st.DataObject, changed: list[tuple[int, bytes]], cut: int | None
) -> None:
    for broken in (data.draw(forged(form)), _damage(_archive(form), changed, cut)):
        _try(_packed(form, broken), _read_everything, _name(form))
        _try(broken, lambda path: unpack_extra_files(path, path.parent))


@EVERYDAY
@given(
    st.sampled_from([b"", b"PK\x03\x04", b"PK\x05\x06", b"\x1f\x8b\x08\0"]), st.binary(max_size=300)
)
def test_no_archive_at_all(start: bytes, rest: bytes) -> None:
    _try(start + rest, _read_everything)


@pytest.mark.parametrize("form", ["stored", "tar"])
@settings(EVERYDAY, max_examples=100)
@given(changed=changes, cut=cuts)
def test_damaged_extra_files(form: str, changed: list[tuple[int, bytes]], cut: int | None) -> None:
    files: dict[str, Path | bytes] = {"a.py": b"x = 1", "src/" + "n" * 150: b"y"}
    data = _archive("stored") if form == "stored" else make_tarball(files, gzip=False)
    _try(_damage(data, changed, cut), lambda path: unpack_extra_files(path, path.parent))
