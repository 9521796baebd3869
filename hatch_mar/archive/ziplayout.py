"""Where the parts of a zip lie: one after the other, from its first byte to its last.

A zip says everything twice: before each member, where TorchServe reads it as it goes along, and in
the central directory, where Python does. Files in which the two disagree, in which members share
bytes, or that hold bytes which belong to nothing, are how one reader is shown one archive and the
next another. Section numbers are those of PKWARE's APPNOTE.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from hatch_mar.archive.members import MAX_MEMBERS
from hatch_mar.errors import ArchiveError, UnsafeArchiveError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from zipfile import ZipInfo

LARGEST_DIRECTORY = 8 << 20
"""Bytes of a central directory. zipfile reads it whole, and makes ten times as much of it."""
ENCRYPTED = 0x1 | 0x40 | 0x2000
"""Flag bits: encrypted, strongly encrypted, masked headers."""
DESCRIPTOR = 0x8
"""Flag bit: sizes and checksum follow the data."""
_UTF8 = 0x800
_SATURATED = 0xFFFFFFFF
_ZIP64_FIELD, _PATH_FIELD = 0x1, 0x7075
_LOCAL = struct.Struct("<4s5H3L2H")
_END = struct.Struct("<4s4H2LH")
_ZIP64_END = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")


@dataclass(frozen=True, slots=True, kw_only=True)
class Directory:
    """Where the central directory is, and how many members it has."""

    start: int
    size: int
    count: int


def find_directory(file: BinaryIO, path: Path) -> Directory:
    """Read the end record (4.3.16) of the zip `file`, with which it has to end.

    Raises:
        ArchiveError: there is none: truncated, or no zip.
        UnsafeArchiveError: it leaves room for a second reading, or speaks of too many members.
    """
    size = file.seek(0, 2)
    start = max(0, size - _END.size - 0xFFFF)
    file.seek(start)
    tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < _END.size:
        raise ArchiveError(f"{path}: truncated, or no zip file: it does not end as zip files do")
    _, disk, first_disk, here, count, length, offset, comment = _END.unpack_from(tail, at)
    if len(tail) - at != _END.size + comment:
        raise UnsafeArchiveError(f"{path}: there are other bytes after the end of the zip")
    said = (disk, first_disk, here, count, length, offset)
    end = start + at
    directory, end = _extended(file, end, said, path)
    if directory.start + directory.size != end:
        raise UnsafeArchiveError(
            f"{path}: the central directory does not lie where the end record says"
        )
    if directory.count > MAX_MEMBERS:
        raise UnsafeArchiveError(f"{path}: more than {MAX_MEMBERS} members")
    if directory.size > LARGEST_DIRECTORY:
        raise UnsafeArchiveError(f"{path}: a central directory of {directory.size} bytes")
    return directory


def _extended(file: BinaryIO, end: int, said: tuple[int, ...], path: Path) -> tuple[Directory, int]:
    """Return the directory and its end: as the zip64 record (4.3.14) says, if there is one."""
    extended = said
    if end >= _LOCATOR.size + _ZIP64_END.size:
        file.seek(end - _LOCATOR.size - _ZIP64_END.size)
        record = _ZIP64_END.unpack(file.read(_ZIP64_END.size))
        signature, _, where, disks = _LOCATOR.unpack(file.read(_LOCATOR.size))
        if signature == b"PK\x06\x07":
            end -= _LOCATOR.size + _ZIP64_END.size
            extended = record[4:]
            if (where, disks, record[:2]) != (end, 1, (b"PK\x06\x06", _ZIP64_END.size - 12)):
                raise UnsafeArchiveError(f"{path}: the zip64 end record is not where it should be")
    limits = (0xFFFF,) * 4 + (_SATURATED,) * 2
    for short, long, limit in zip(said, extended, limits, strict=True):
        if short not in {long, limit}:
            raise UnsafeArchiveError(f"{path}: the two end records disagree")
    disk, first_disk, here, count, size, start = extended
    if disk or first_disk or here != count:
        raise UnsafeArchiveError(f"{path}: a zip in several files")
    return Directory(start=start, size=size, count=count), end


def check_layout(
    file: BinaryIO, infos: Sequence[ZipInfo], directory: Directory, path: Path
) -> None:
    """Make sure that the members of the zip `file` fill it, and say the same in both places.

    Raises:
        UnsafeArchiveError: something else is in it, or something is there twice.
    """
    if len(infos) != directory.count:
        raise UnsafeArchiveError(
            f"{path}: {len(infos)} members, but the end record says {directory.count}"
        )
    infos = sorted(infos, key=lambda info: info.header_offset)
    ends = [*(info.header_offset for info in infos[1:]), directory.start]
    if (infos[0].header_offset if infos else directory.start) != 0:
        raise UnsafeArchiveError(f"{path}: there are other bytes before the first member")
    for info, end in zip(infos, ends, strict=bool(infos)):
        where = f"{path}: member {info.orig_filename!r}"
        _check_unicode_path(info, where)
        data_end = _check_local(file, info, path)
        if data_end > end:
            other = "the central directory" if info is infos[-1] else "another"
            raise UnsafeArchiveError(f"{where} overlaps {other}")
        file.seek(data_end)
        # The longest descriptor has 24 bytes; one more shows that it is something else.
        if file.read(min(end - data_end, 25)) not in _descriptors(info):
            raise UnsafeArchiveError(f"{where} is followed by bytes that belong to no member")


def data_start(file: BinaryIO, info: ZipInfo) -> int:
    """Return where a member's data start: behind its own header, which has passed the check."""
    file.seek(info.header_offset)
    *_, name_length, extra_length = _LOCAL.unpack(file.read(_LOCAL.size))
    return int(info.header_offset + _LOCAL.size + name_length + extra_length)


def _check_local(file: BinaryIO, info: ZipInfo, path: Path) -> int:
    """Compare a member's two headers; return where its data end."""
    name = info.orig_filename
    file.seek(info.header_offset)
    header = _LOCAL.unpack(file.read(_LOCAL.size))
    signature, _, flags, method, _, _, crc, packed, size, name_length, extra_length = header
    found = file.read(name_length)
    extra = file.read(extra_length)
    values = (crc, *_long_sizes(extra, packed, size))
    expected = (info.CRC, info.compress_size, info.file_size)
    # What only the descriptor tells is zero here.
    unknown = {0} if flags & DESCRIPTOR else set()
    meant = ENCRYPTED | DESCRIPTOR | _UTF8
    if not (
        signature == b"PK\x03\x04"
        and found == name.encode()
        and method == info.compress_type
        and flags & meant == info.flag_bits & meant
        and all(said in {real, *unknown} for said, real in zip(values, expected, strict=True))
    ):
        raise UnsafeArchiveError(f"{path}: the two headers of member {name!r} disagree")
    return info.header_offset + _LOCAL.size + int(name_length + extra_length) + info.compress_size


def _long_sizes(extra: bytes, packed: int, size: int) -> tuple[int, int]:
    """Return the compressed and the real size, from the zip64 field (4.5.3) where it has them."""
    field = next((data for kind, data in _fields(extra) if kind == _ZIP64_FIELD), b"")
    longs = (value for (value,) in struct.iter_unpack("<Q", field[: len(field) // 8 * 8]))
    size = next(longs, size) if size == _SATURATED else size
    packed = next(longs, packed) if packed == _SATURATED else packed
    return packed, size


def _descriptors(info: ZipInfo) -> set[bytes]:
    """Return what may follow a member's data (4.3.9): with a signature or not, zip64 or not."""
    if not info.flag_bits & DESCRIPTOR:
        return {b""}
    values = (info.CRC, info.compress_size, info.file_size)
    forms = ["<LQQ"] if max(values) > _SATURATED else ["<LLL", "<LQQ"]
    plain = {struct.pack(form, *values) for form in forms}
    return plain | {b"PK\x07\x08" + data for data in plain}


def _check_unicode_path(info: ZipInfo, where: str) -> None:
    """Refuse a field (4.6.9) that gives the member another name: some readers go by it."""
    for kind, data in _fields(info.extra):
        if kind == _PATH_FIELD and data[5:] != info.orig_filename.encode():
            raise UnsafeArchiveError(f"{where} has a second name")


def _fields(extra: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the fields of an extra field (4.5.1); what is no field at its end is padding."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        yield kind, extra[at + 4 : at + 4 + length]
        at += 4 + length
