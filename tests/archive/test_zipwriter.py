from __future__ import annotations

import io
import os
import random
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hatch_mar.archive import deflate
from hatch_mar.archive import zipwriter as zipwriter_module
from hatch_mar.archive.deflate import FAST_FROM
from hatch_mar.archive.zipwriter import ZipWriter
from hatch_mar.errors import ArchiveError

ROOT = Path(zipwriter_module.__file__).parents[2]

names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)
members = st.lists(
    st.tuples(names, st.binary(max_size=3000), st.sampled_from([0o644, 0o755]), st.booleans()),
    unique_by=lambda member: member[0],
    max_size=5,
)


def _info(name: str, size: int, *, deflated: bool = False, mode: int = 0o644) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, (2024, 2, 29, 13, 14, 16))
    info.create_system = 3
    info.external_attr = (0o100000 | mode) << 16
    info.compress_type = zipfile.ZIP_DEFLATED if deflated else zipfile.ZIP_STORED
    info.file_size = size
    return info


def _write(file: io.BytesIO, *written: tuple[zipfile.ZipInfo, bytes]) -> bytes:
    with ZipWriter(file) as writer:
        for info, data in written:
            writer.add(info, io.BytesIO(data))
    return file.getvalue()


@settings(max_examples=60)
@given(members)
def test_the_bytes_are_those_of_zipfile(drawn: list[tuple[str, bytes, int, bool]]) -> None:
    def infos() -> list[tuple[zipfile.ZipInfo, bytes]]:
        return [
            (_info(name, len(data), deflated=deflated, mode=mode), data)
            for name, data, mode, deflated in drawn
        ]

    expected = io.BytesIO()
    with zipfile.ZipFile(expected, "w") as archive:
        for info, data in infos():
            with archive.open(info, "w") as member:
                member.write(data)
    assert _write(io.BytesIO(), *infos()) == expected.getvalue()


def test_more_members_than_16_bits_count() -> None:
    count = (1 << 16) + 1
    infos = [(_info(f"{number}", 0), b"") for number in range(count)]
    with zipfile.ZipFile(io.BytesIO(_write(io.BytesIO(), *infos))) as archive:
        assert len(archive.namelist()) == count


class _Far(io.BytesIO):
    """A file whose first bytes are three gigabytes further on than they are."""

    def tell(self) -> int:
        return super().tell() + (3 << 30)

    def seek(self, offset: int, whence: int = 0) -> int:
        return super().seek(offset - (3 << 30), whence)


def test_offsets_beyond_31_bits() -> None:
    data = _write(_Far(), (_info("a", 1), b"x"))
    end = data.index(b"PK\x05\x06")
    assert data[end - 20 : end - 16] == b"PK\x06\x07"
    central = data.index(b"PK\x01\x02")
    assert data[central + 42 : central + 46] == b"\xff" * 4
    assert struct.pack("<2HQ", 1, 8, 3 << 30) in data[central:]


@pytest.mark.parametrize("size", [0, 5])
def test_a_source_of_another_size(size: int) -> None:
    with pytest.raises(ArchiveError, match=f"a: 3 bytes instead of {size}; try again"):
        _write(io.BytesIO(), (_info("a", size), b"abc"))


def _noise(size: int) -> bytes:
    """Bytes that deflate to three quarters, as bf16 weights do."""
    return bytes(random.Random(0).choices(range(64), k=size))


def test_big_members_are_deflated_by_isal() -> None:
    """What comes out is for any reader: the local header has sizes, and no descriptor follows."""
    pytest.importorskip("isal")
    assert deflate.FAST
    data = _noise(FAST_FROM)
    written = _write(io.BytesIO(), (_info("w", len(data), deflated=True), data))
    assert written == _write(io.BytesIO(), (_info("w", len(data), deflated=True), data))
    with zipfile.ZipFile(io.BytesIO(written)) as archive:
        (info,) = archive.infolist()
        assert archive.read(info) == data
        assert info.compress_size < 0.8 * len(data)
        assert not info.flag_bits & 0x8
        assert struct.unpack_from("<3L", written, 14) == (info.CRC, info.compress_size, len(data))


WITHOUT = """
import sys
sys.modules["isal"] = None
import io, zipfile, zlib
from hatch_mar.archive import deflate
from hatch_mar.archive.zipwriter import ZipWriter
assert not deflate.FAST
data = sys.stdin.buffer.read()
info = zipfile.ZipInfo("w")
info.compress_type, info.file_size = zipfile.ZIP_DEFLATED, len(data)
with ZipWriter(file := io.BytesIO()) as writer:
    writer.add(info, io.BytesIO(data))
sys.stdout.buffer.write(file.getvalue())
"""


@pytest.mark.parametrize(("size", "same"), [(FAST_FROM - 1, True), (FAST_FROM, False)])
def test_without_isal_zlib_does_it(size: int, same: bool) -> None:
    """Small members are the same bytes either way."""
    pytest.importorskip("isal")
    data = _noise(size)
    command = [sys.executable, "-c", WITHOUT]
    written = subprocess.run(command, input=data, capture_output=True, check=True, cwd=ROOT).stdout
    with zipfile.ZipFile(io.BytesIO(written)) as archive:
        assert archive.read("w") == data
        info = archive.getinfo("w")
    packed = zlib.compressobj(wbits=-15)
    assert info.compress_size == len(packed.compress(data) + packed.flush())
    ours = zipfile.ZipInfo("w")
    ours.compress_type, ours.file_size = zipfile.ZIP_DEFLATED, size
    assert (_write(io.BytesIO(), (ours, data)) == written) is same


def test_what_deflate_makes_longer() -> None:
    data = os.urandom(FAST_FROM + 1)
    written = _write(io.BytesIO(), (_info("w", len(data), deflated=True), data))
    with zipfile.ZipFile(io.BytesIO(written)) as archive:
        assert archive.read("w") == data
