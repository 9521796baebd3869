"""Members of a zip file: a `.mar` or a wheel.

A zip says everything twice: before each member, where TorchServe reads it, and in the central
directory, where Python does. Files in which the two disagree, or in which members share bytes, are
how one reader is shown one archive and the next another; they are refused.
"""

from __future__ import annotations

import stat
import struct
import zipfile
from typing import TYPE_CHECKING, BinaryIO, cast

from hatch_mar.archive.manifest import MANIFEST_NAME
from hatch_mar.archive.members import MAX_MEMBERS, guarded, reading
from hatch_mar.archive.names import NameLedger
from hatch_mar.errors import UnsafeArchiveError

if TYPE_CHECKING:
    from pathlib import Path

_LOCAL = struct.Struct("<4s5H3L2H")
_SIGNATURE = b"PK\x03\x04"
_ENCRYPTED = 0x1 | 0x40 | 0x2000
"""Flag bits: encrypted, strongly encrypted, masked headers."""
_DESCRIPTOR = 0x8
"""Flag bit: sizes and checksum follow the data."""
_ZIP64 = 0xFFFFFFFF
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
"""What TorchServe's reader knows."""


class ZipMembers:
    """The members of a zip below `prefix`, which their names do not have."""

    def __init__(self, path: Path, prefix: str = "") -> None:
        """Open `path` and check all that can be checked without reading the members.

        Raises:
            ArchiveError: it is no zip, or broken.
            UnsafeArchiveError: it holds what no archive should.
        """
        self.warnings: list[str] = []
        self._path = path
        with reading(path):
            # TorchServe reads names as UTF-8 whatever the flag says.
            self._zip = zipfile.ZipFile(path, metadata_encoding="utf-8")
        try:
            with reading(path):
                self._check_layout()
                self._infos = self._index(prefix)
        except BaseException:
            self._zip.close()
            raise

    def names(self) -> list[str]:
        """Return the names in the order of the data."""
        return sorted(self._infos, key=lambda name: self._infos[name].header_offset)

    def size(self, name: str) -> int:
        """Return the size in bytes."""
        return self._infos[name].file_size

    def executable(self, name: str) -> bool:
        """Say whether the file's owner may execute it."""
        return bool((self._infos[name].external_attr >> 16) & 0o100)

    def open(self, name: str) -> BinaryIO:
        """Open a member for reading."""
        info = self._infos[name]
        where = f"{self._path}: {name}"
        with reading(where):
            return guarded(cast("BinaryIO", self._zip.open(info)), where, info.file_size)

    def file(self, name: str) -> Path | None:
        """Return None: the members are packed."""
        del name
        return None

    def close(self) -> None:
        """Close the file."""
        self._zip.close()

    def _index(self, prefix: str) -> dict[str, zipfile.ZipInfo]:
        found: dict[str, zipfile.ZipInfo] = {}
        ledger = NameLedger(str(self._path))
        for info in self._zip.infolist():
            self._check_kind(info)
            name = info.orig_filename
            if name.endswith("/") or not name.startswith(prefix):
                continue
            name = name.removeprefix(prefix)
            if name == MANIFEST_NAME and name in found:
                # torch-model-archiver does this to files that hold a MAR-INF of their own.
                self.warnings.append(f"{MANIFEST_NAME} is there twice; the last one counts")
            else:
                ledger.add(name)
            found[name] = info
        return found

    def _check_kind(self, info: zipfile.ZipInfo) -> None:
        where = f"{self._path}: member {info.orig_filename!r}"
        kind = stat.S_IFMT(info.external_attr >> 16)
        if info.create_system == 3 and kind not in {0, stat.S_IFREG, stat.S_IFDIR}:  # noqa: PLR2004
            raise UnsafeArchiveError(f"{where} is a link or a device")
        if info.flag_bits & _ENCRYPTED:
            raise UnsafeArchiveError(f"{where} is encrypted")
        if info.compress_type not in _METHODS:
            raise UnsafeArchiveError(f"{where} has compression method {info.compress_type}")

    def _check_layout(self) -> None:
        infos = sorted(self._zip.infolist(), key=lambda info: info.header_offset)
        if len(infos) > MAX_MEMBERS:
            raise UnsafeArchiveError(f"{self._path}: more than {MAX_MEMBERS} members")
        end = 0
        for info in infos:
            if info.header_offset < end:
                raise UnsafeArchiveError(
                    f"{self._path}: member {info.orig_filename!r} overlaps another"
                )
            end = self._check_local(info)
        if end > self._zip.start_dir:
            raise UnsafeArchiveError(f"{self._path}: a member overlaps the central directory")

    def _check_local(self, info: zipfile.ZipInfo) -> int:
        """Compare a member's two headers; return where its data end."""
        file = cast("BinaryIO", self._zip.fp)
        file.seek(info.header_offset)
        header = _LOCAL.unpack(file.read(_LOCAL.size))
        signature, _, flags, method, _, _, _, packed, size, name_length, extra_length = header
        name = file.read(name_length)
        sizes_agree = (
            flags & _DESCRIPTOR
            or _ZIP64 in {packed, size}
            or (packed, size) == (info.compress_size, info.file_size)
        )
        if not (
            signature == _SIGNATURE
            and name == info.orig_filename.encode()
            and method == info.compress_type
            and flags & _ENCRYPTED == info.flag_bits & _ENCRYPTED
            and sizes_agree
        ):
            raise UnsafeArchiveError(
                f"{self._path}: the two headers of member {info.orig_filename!r} disagree"
            )
        return file.tell() + int(extra_length) + info.compress_size
