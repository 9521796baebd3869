"""Members of a zip file: a `.mar`, a wheel, or extra files; `archive.ziplayout` says which zips."""

from __future__ import annotations

import stat
import zipfile
from typing import TYPE_CHECKING, BinaryIO, Self, cast

from hatch_mar.archive.manifest import MANIFEST_NAME
from hatch_mar.archive.members import guarded, reading
from hatch_mar.archive.names import NameLedger
from hatch_mar.archive.ziplayout import ENCRYPTED, check_layout, find_directory
from hatch_mar.archive.zipreader import MemberReader
from hatch_mar.errors import UnsafeArchiveError

if TYPE_CHECKING:
    from pathlib import Path

_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
"""What TorchServe's reader knows."""


class ZipMembers:
    """The members of a zip."""

    def __init__(self, path: Path) -> None:
        """Open `path` and check all that can be checked without reading the members.

        Raises:
            ArchiveError: it is no zip, or broken.
            UnsafeArchiveError: it holds what no archive should.
        """
        self.warnings: list[str] = []
        self._path = path
        with reading(path):
            self._file = path.open("rb")
        try:
            with reading(path):
                directory = find_directory(self._file, path)
                # TorchServe reads names as UTF-8 whatever the flag says.
                with zipfile.ZipFile(self._file, metadata_encoding="utf-8") as zipped:
                    infos = zipped.infolist()
                check_layout(self._file, infos, directory, path)
                self._infos = self._index(infos)
        except BaseException:
            self._file.close()
            raise

    def below(self, prefix: str) -> Self:
        """Keep the members whose names start with `prefix`, which they lose; return itself."""
        self._infos = {
            name.removeprefix(prefix): info
            for name, info in self._infos.items()
            if name.startswith(prefix)
        }
        return self

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
            return guarded(cast("BinaryIO", MemberReader(self._file, info)), where, info.file_size)

    def file(self, name: str) -> Path | None:
        """Return None: the members are packed."""
        del name
        return None

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _index(self, infos: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
        found: dict[str, zipfile.ZipInfo] = {}
        ledger = NameLedger(str(self._path))
        for info in infos:
            self._check_kind(info)
            # Not `filename`: zipfile cuts that at a NUL.
            name = info.orig_filename
            if name.endswith("/"):
                ledger.add_directory(name.removesuffix("/"))
                continue
            if name == MANIFEST_NAME and name in found:
                # torch-model-archiver does this to files that hold a MAR-INF of their own.
                self.warnings.append(f"{MANIFEST_NAME} is there twice; the last one counts")
            else:
                ledger.add(name)
            found[name] = info
        return found

    def _check_kind(self, info: zipfile.ZipInfo) -> None:
        where = f"{self._path}: member {info.orig_filename!r}"
        directory = info.orig_filename.endswith("/")
        # Whatever system it claims to come from: readers differ in whom they believe.
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in {0, stat.S_IFDIR if directory else stat.S_IFREG}:
            raise UnsafeArchiveError(f"{where} is a link or a device")
        if directory and info.file_size:
            raise UnsafeArchiveError(f"{where} is a directory with bytes in it")
        if info.flag_bits & ENCRYPTED:
            raise UnsafeArchiveError(f"{where} is encrypted")
        if info.compress_type not in _METHODS:
            raise UnsafeArchiveError(f"{where} has compression method {info.compress_type}")
