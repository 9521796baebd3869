"""Tar archives that are the same bytes whoever makes them, when and where."""

from __future__ import annotations

import gzip as gzip_module
import io
import tarfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

from hatch_mar.archive.manifest import CREATED_ON
from hatch_mar.archive.names import NameLedger
from hatch_mar.archive.stamp import parse_stamp

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

CHUNK = 1 << 20
"""How much of a file is in memory at once."""


def tar_entry(name: str, size: int, *, executable: bool, mtime: int) -> tarfile.TarInfo:
    """Return a header with nothing of the machine in it: user and group 0, mode 0644 or 0755."""
    entry = tarfile.TarInfo(name)
    entry.size = size
    entry.mode = 0o755 if executable else 0o644
    entry.mtime = mtime
    return entry


@contextmanager
def tar_writer(file: BinaryIO, *, gzip: bool) -> Iterator[tarfile.TarFile]:
    """Yield a tar open for writing into `file`; with `gzip`, compressed without name or time."""
    if not gzip:
        with tarfile.TarFile(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
            tar.copybufsize = CHUNK  # type: ignore[attr-defined]
            yield tar
        return
    with gzip_module.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0) as packed:
        packed_file: BinaryIO = packed  # type: ignore[assignment]
        with tar_writer(packed_file, gzip=False) as tar:
            yield tar


def make_tarball(files: Mapping[str, Path | bytes], *, gzip: bool) -> bytes:
    """Pack `files`, by name in the tarball, sorted by name.

    Raises:
        UnsafeArchiveError: a name that is no safe member name, or two that collide.
        OSError: a file cannot be read.
    """
    ledger = NameLedger("extra files")
    mtime = int(parse_stamp(CREATED_ON).timestamp())
    buffer = io.BytesIO()
    with tar_writer(buffer, gzip=gzip) as tar:
        for name, source in sorted(files.items()):
            ledger.add(name)
            if isinstance(source, bytes):
                entry = tar_entry(name, len(source), executable=False, mtime=mtime)
                tar.addfile(entry, io.BytesIO(source))
                continue
            status = source.stat()
            executable = bool(status.st_mode & 0o100)
            with source.open("rb") as file:
                tar.addfile(
                    tar_entry(name, status.st_size, executable=executable, mtime=mtime), file
                )
    return buffer.getvalue()
