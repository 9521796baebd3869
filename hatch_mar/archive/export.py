"""The archive again, from what was made of it: a wheel, or the directory that pip made of that.

The seal knows how its archive was packed, and the manifest when, so the bytes are the same.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from hatch_mar.archive.read import Archive, open_archive
from hatch_mar.archive.seal import SEAL_NAME, Digest, Seal
from hatch_mar.archive.write import Entry, Recipe, pack
from hatch_mar.errors import ArchiveError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


def export_wheel(wheel: Path, directory: Path) -> Path:
    """Write the archive that `wheel` was built with into `directory`, and return its path.

    `wheel` may be any sealed archive, an installed model's directory among them.

    Raises:
        ArchiveError: it holds no sealed archive, its members are not what the seal says, or the
            archive cannot be written. Nothing is left then.
    """
    with open_archive(wheel) as archive:
        seal = archive.seal
        if seal is None:
            raise ArchiveError(f"{wheel}: has no {SEAL_NAME}: hatch-mar did not build it")
        path = directory / (seal.packing.filename or f"{seal.name}-{seal.version}.mar")
        sealed = archive.read(SEAL_NAME)

        def verify(digests: Mapping[str, Digest]) -> bytes:
            for name in sorted(digests):
                if digests[name] != seal.members[name]:
                    raise ArchiveError(f"{wheel}: {name}: is not what the seal says")
            return sealed

        recipe = Recipe(manifest=archive.manifest, packing=seal.packing)
        pack(_entries(archive, seal), verify, path, recipe)
    return path


def _entries(archive: Archive, seal: Seal) -> Iterator[Entry]:
    for name, digest in sorted(seal.members.items()):
        yield Entry(
            name=name,
            size=digest.size,
            executable=digest.executable,
            origin=f"{archive.path}: {name}",
            open=partial(archive.open, name),
        )
