"""Adding big files to a finished wheel, stored.

The rules are those of the wheel specification (RECORD names every file, `.dist-info` comes last)
and of strict readers: no `ZipInfo` of the old file is used again, no data descriptors are written.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import shutil
from typing import IO, TYPE_CHECKING
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

from hatch_mar.archive.staging import set_aside, staged_file

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from hatch_mar.archive.plan import Member

CHUNK = 1024 * 1024


def add_stored(wheel: Path, members: Iterable[Member], metadata: Iterable[Member] = ()) -> None:
    """Rewrite `wheel` in place with `members` added, and a RECORD that names them.

    Until that is done no file has its name: half a wheel could be installed.

    Args:
        wheel: A finished wheel.
        members: Files, named by their places in the wheel.
        metadata: Small files for its `.dist-info`, named by their places there.

    Raises:
        OSError: a member cannot be read or the disk is full; `wheel` is then as it was.
    """
    mode = wheel.stat().st_mode & 0o777
    with (
        set_aside(wheel) as incomplete,
        staged_file(wheel) as file,
        ZipFile(incomplete) as old,
        ZipFile(file, "w") as new,
    ):
        _write(old, new, _sorted(members), _sorted(metadata))
    wheel.chmod(mode)


def _sorted(members: Iterable[Member]) -> list[Member]:
    return sorted(members, key=lambda member: member.name)


def _write(old: ZipFile, new: ZipFile, members: list[Member], metadata: list[Member]) -> None:
    (record,) = (info for info in old.infolist() if info.filename.endswith(".dist-info/RECORD"))
    dist_info = record.filename.removesuffix("RECORD")
    rows = {row[0]: row for row in csv.reader(io.StringIO(old.read(record).decode()))}
    others = [info for info in old.infolist() if info.filename != record.filename]
    for info in others:
        if not info.filename.startswith(dist_info):
            _copy(old, new, info)
    for member in members:
        rows[member.name] = _add(new, member, member.name, record.date_time)
    for info in others:
        if info.filename.startswith(dist_info):
            _copy(old, new, info)
    for member in metadata:
        name = dist_info + member.name
        rows[name] = _add(new, member, name, record.date_time, ZIP_DEFLATED)
    text = io.StringIO()
    names = [*new.namelist(), record.filename]
    csv.writer(text, lineterminator="\n").writerows(rows[name] for name in names)
    new.writestr(_fresh(record), text.getvalue().encode(), ZIP_DEFLATED)


def _copy(old: ZipFile, new: ZipFile, info: ZipInfo) -> None:
    with old.open(info) as source, new.open(_fresh(info), "w") as target:
        shutil.copyfileobj(source, target, CHUNK)


def _add(
    new: ZipFile,
    member: Member,
    name: str,
    date_time: tuple[int, int, int, int, int, int],
    method: int = ZIP_STORED,
) -> list[str]:
    """Write one member as `name`, and return its row of RECORD."""
    info = ZipInfo(name, date_time)
    info.compress_type = method
    info.external_attr = (0o100755 if member.executable else 0o100644) << 16
    info.file_size = member.size()
    digest = hashlib.sha256()
    with _open(member) as source, new.open(info, "w") as target:
        while chunk := source.read(CHUNK):
            digest.update(chunk)
            target.write(chunk)
    encoded = base64.urlsafe_b64encode(digest.digest()).rstrip(b"=").decode()
    return [name, f"sha256={encoded}", str(info.file_size)]


def _open(member: Member) -> IO[bytes]:
    return (
        io.BytesIO(member.source) if isinstance(member.source, bytes) else member.source.open("rb")
    )


def _fresh(info: ZipInfo) -> ZipInfo:
    copy = ZipInfo(info.filename, info.date_time)
    copy.compress_type = info.compress_type
    copy.external_attr = info.external_attr
    copy.file_size = info.file_size
    return copy
