"""The bytes of one member of a zip, all of them and no others.

Python's zipfile stops when it has the announced size, whatever is left of the compressed data. A
reader that goes through the file as it comes, as TorchServe's does, would go on right there.
"""

from __future__ import annotations

import os
import zlib
from typing import TYPE_CHECKING, BinaryIO
from zipfile import ZIP_STORED, BadZipFile

from hatch_mar.archive.deflate import crc32
from hatch_mar.archive.tarball import CHUNK
from hatch_mar.archive.ziplayout import data_start

if TYPE_CHECKING:
    from zipfile import ZipInfo

_RAW = -15
"""`wbits` of a stream without header and trailer."""


class MemberReader:
    """A member, open for reading; it has the file for itself, also when the zip is closed."""

    def __init__(self, file: BinaryIO, info: ZipInfo) -> None:
        """Read the member `info` of the zip `file`, which is a file of the operating system."""
        self._at = data_start(file, info)
        self._packed_left = info.compress_size
        self._left = info.file_size
        self._stored = info.compress_type == ZIP_STORED
        # Inflating a stranger's bytes is zlib's: it has seen more of them than any faster library.
        self._inflater = zlib.decompressobj(_RAW)
        self._crc, self._expected_crc = 0, info.CRC
        self._descriptor = os.dup(file.fileno())

    def read(self, count: int) -> bytes:
        """Return up to `count` bytes; none at the end.

        Raises:
            BadZipFile: they are too many or too few, or have another checksum.
            zlib.error: they are no deflated data.
            OSError: the file cannot be read.
        """
        data = self._next(min(count, self._left)) if self._left else b""
        self._left -= len(data)
        self._crc = crc32(data, self._crc)
        if not self._left:
            self._finish()
        return data

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _next(self, count: int) -> bytes:
        return self._take(count) if self._stored else self._inflate(count)

    def _take(self, count: int) -> bytes:
        data = os.pread(self._descriptor, min(count, self._packed_left), self._at)
        self._at += len(data)
        self._packed_left -= len(data)
        return data

    def _inflate(self, count: int) -> bytes:
        while not self._inflater.eof:
            packed = self._inflater.unconsumed_tail or self._take(CHUNK)
            data = self._inflater.decompress(packed, count)
            if data or not packed:
                return data
        return b""

    def _finish(self) -> None:
        unread = self._next(1) or self._inflater.unused_data
        if unread or self._packed_left:
            raise BadZipFile("there are other bytes after its data")
        if not (self._stored or self._inflater.eof):
            raise BadZipFile("its data have no end")
        if self._crc != self._expected_crc:
            raise BadZipFile("its checksum is not that of its data")
