"""What a ready-made tarball holds may not replace what the archive holds: a server would refuse."""

from __future__ import annotations

import hashlib
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hatch_mar.archive.measure import hash_stream
from hatch_mar.archive.names import fold
from hatch_mar.archive.unpack import open_extra_files
from hatch_mar.errors import ArchiveError
from hatch_mar.weights.digest import hash_once

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hatch_mar.project.reading import Reading


@dataclass(frozen=True, slots=True)
class _Packed:
    """A file in a tarball."""

    tarball: Path
    name: str


def complain_of_clashes(
    reading: Reading,
    tarballs: Iterable[Path],
    placed: Iterable[tuple[str, Path | bytes | None]],
) -> None:
    """Complain where unpacking one of `tarballs` would meet another file of the same name.

    The same bytes may be there twice.

    Args:
        reading: The project.
        tarballs: Ready-made ones, in the order in which a server unpacks them.
        placed: Every other file of the model directory: its name, and where its bytes are now.
    """
    there: dict[str, Path | bytes | _Packed | None] = {fold(name): where for name, where in placed}
    for tarball in tarballs:
        for name in _names(tarball):
            packed = _Packed(tarball, name)
            other = there.setdefault(fold(name), packed)
            if other is packed or _digest(other) == _digest(packed):
                continue
            reading.complain_of_file(
                tarball,
                "",
                f"holds '{name}', which {_describe(reading, other)} has put into the model "
                "directory with other content; take one of them out",
            )


def _names(tarball: Path) -> list[str]:
    try:
        with closing(open_extra_files(tarball)) as members:
            return members.names()
    except ArchiveError:
        return []  # it has been complained of


def _digest(where: Path | bytes | _Packed | None) -> str | None:
    if isinstance(where, bytes):
        return hashlib.sha256(where).hexdigest()
    if isinstance(where, Path):
        return hash_once(where)
    if where is None:
        return None
    with closing(open_extra_files(where.tarball)) as members, members.open(where.name) as file:
        return hash_stream(file)[0]


def _describe(reading: Reading, where: Path | bytes | _Packed | None) -> str:
    if isinstance(where, _Packed):
        return f"'{reading.relative(where.tarball)}'"
    return f"'{reading.relative(where)}'" if isinstance(where, Path) else "something else"
