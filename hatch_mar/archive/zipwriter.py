"""Writing zips, the bytes that Python's zipfile writes, at the speed of the disk.

One pass over each member, a megabyte at a time: checksum, compression (`archive.deflate`) and
writing. The file must be seekable: when a member is written, its header gets its sizes and its
checksum (PKWARE's APPNOTE 4.3.7), and no data descriptor follows it. TorchServe's reader refuses a
stored member that has one.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, BinaryIO, Protocol, Self
from zipfile import ZIP_STORED, ZipInfo

from hatch_mar.archive.deflate import Storer, crc32, new_deflater
from hatch_mar.archive.tarball import CHUNK
from hatch_mar.errors import ArchiveError

if TYPE_CHECKING:
    from types import TracebackType

LONGEST = (1 << 31) - 1
"""The biggest size or offset in 32 bits: those that readers take for signed numbers go no further.
Above it zip64 begins (APPNOTE 4.5.3)."""
MOST = (1 << 16) - 1
"""The biggest number of members without zip64."""
_SATURATED = 0xFFFFFFFF
_VERSION, _ZIP64_VERSION = 20, 45
_UTF8 = 0x800
_CENTRAL = struct.Struct("<4s4B4HL2L5H2L")
_END = struct.Struct("<4s4H2LH")
_ZIP64_END = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")


class Source(Protocol):
    """What a member is read from."""

    def read(self, count: int, /) -> bytes:
        """Return up to `count` bytes; none at the end."""
        ...


class ZipWriter:
    """A zip being written; leaving its context writes the central directory."""

    def __init__(self, file: BinaryIO) -> None:
        """Write to `file`, which is seekable, empty, and remains open."""
        self._file = file
        self._infos: list[ZipInfo] = []

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Write the central directory, unless something went wrong."""
        if error is None:
            self._finish()

    def add(self, info: ZipInfo, source: Source) -> None:
        """Write the member `info`: `file_size` bytes of `source`, with `compress_type`.

        Raises:
            ArchiveError: `source` has another size.
            OSError: the file cannot be written.
        """
        announced = info.file_size
        # What deflate cannot compress grows a little; zipfile allows for as much.
        zip64 = announced * 1.05 > LONGEST
        info.flag_bits = 0
        info.header_offset = self._file.tell()
        info.CRC = info.compress_size = info.file_size = 0
        self._file.write(info.FileHeader(zip64))
        self._copy(info, source, announced)
        end = self._file.tell()
        self._file.seek(info.header_offset)
        self._file.write(info.FileHeader(zip64))
        self._file.seek(end)
        self._infos.append(info)

    def _copy(self, info: ZipInfo, source: Source, announced: int) -> None:
        stored = info.compress_type == ZIP_STORED
        stream = Storer() if stored else new_deflater(announced)
        while data := source.read(CHUNK):
            info.CRC = crc32(data, info.CRC)
            info.file_size += len(data)
            info.compress_size += self._file.write(stream.compress(data))
        info.compress_size += self._file.write(stream.flush())
        if info.file_size != announced:
            raise ArchiveError(
                f"{info.filename}: {info.file_size} bytes instead of {announced}; try again"
            )

    def _finish(self) -> None:
        start = self._file.tell()
        for info in self._infos:
            self._file.write(_central(info))
        end = self._file.tell()
        count, size = len(self._infos), end - start
        if count > MOST or max(start, size) > LONGEST:
            fields = (44, _ZIP64_VERSION, _ZIP64_VERSION, 0, 0, count, count, size, start)
            self._file.write(_ZIP64_END.pack(b"PK\x06\x06", *fields))
            self._file.write(_LOCATOR.pack(b"PK\x06\x07", 0, end, 1))
        counts = (min(count, MOST),) * 2
        offsets = (min(size, _SATURATED), min(start, _SATURATED))
        self._file.write(_END.pack(b"PK\x05\x06", 0, 0, *counts, *offsets, 0))


def _central(info: ZipInfo) -> bytes:
    """Return the entry of the central directory (APPNOTE 4.3.12)."""
    name = info.filename.encode()
    sizes, offset = (info.compress_size, info.file_size), info.header_offset
    long: list[int] = []
    if max(sizes) > LONGEST:
        long += sizes[::-1]
        sizes = (_SATURATED, _SATURATED)
    if offset > LONGEST:
        long.append(offset)
        offset = _SATURATED
    extra = struct.pack(f"<2H{len(long)}Q", 1, 8 * len(long), *long) if long else b""
    version = _ZIP64_VERSION if long else info.extract_version
    created = max(version, info.create_version)
    year, month, day, hour, minute, second = info.date_time
    fixed = _CENTRAL.pack(
        b"PK\x01\x02",
        *(created, info.create_system, version, 0),
        0 if info.filename.isascii() else _UTF8,
        info.compress_type,
        hour << 11 | minute << 5 | second // 2,
        (year - 1980) << 9 | month << 5 | day,
        info.CRC,
        *sizes,
        *(len(name), len(extra), 0, 0, 0),
        info.external_attr,
        offset,
    )
    return fixed + name + extra
