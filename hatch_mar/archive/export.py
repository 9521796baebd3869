"""The archive again, from what was made of it: a wheel, or the directory that pip made of that.

The seal knows how its archive was packed, and the manifest when, so the bytes are the same. Asked
for another format, or for the files that the archive only names, it is a new archive with a new
seal.
"""

from __future__ import annotations

import io
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, BinaryIO

from hatch_mar.archive.manifest import MANIFEST_NAME
from hatch_mar.archive.modelpath import carry_inside
from hatch_mar.archive.names import find_flaw
from hatch_mar.archive.plan import Member
from hatch_mar.archive.read import Archive, open_archive
from hatch_mar.archive.seal import SEAL_NAME, Digest, Packing, Seal
from hatch_mar.archive.write import Entry, Recipe, pack
from hatch_mar.errors import ArchiveError, UnsafeArchiveError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from hatch_mar.archive.measure import Advance
    from hatch_mar.archive.plan import Format, Plan
    from hatch_mar.weights.reference import Reference

SUFFIXES: Mapping[Format, str] = {"mar": ".mar", "tgz": ".tar.gz", "dir": ""}
"""How the names of archives end."""
_ENDINGS = (".mar", ".tar.gz", ".tgz")


def export_wheel(wheel: Path, directory: Path) -> Path:
    """Write the archive that `wheel` was built with into `directory`, and return its path.

    `wheel` may be any sealed archive, an installed model's directory among them.

    Raises:
        ArchiveError: it holds no sealed archive, its members are not what the seal says, or the
            archive cannot be written. Nothing is left then.
    """
    with open_archive(wheel) as archive:
        return export_archive(archive, directory)


def export_archive(
    archive: Archive,
    directory: Path,
    *,
    form: Format | None = None,
    embedded: Mapping[Reference, Path] | None = None,
    advance: Advance | None = None,
) -> Path:
    """Write `archive` into `directory`, and return the path of what was written.

    `form` is the new format, by default the one it was built in. The files that `embedded` gives
    for references become members at their targets, hashed once more on the way, and the references
    go. `advance` is told how many bytes of the members have been read since it was last told.

    Raises:
        ArchiveError: it is not sealed, its members are not what the seal says, it would replace
            itself, or the archive cannot be written. Nothing is left then.
        UnsafeArchiveError: what its seal calls it is the name of no file in `directory`.
    """
    seal = archive.seal
    if seal is None:
        raise ArchiveError(f"{archive.path}: has no {SEAL_NAME}: hatch-mar did not build it")
    filename = seal.packing.filename or f"{seal.name}-{seal.version}.mar"
    packing = seal.packing
    if form is not None and form != packing.format:
        filename = rename(filename, form)
        packing = replace(packing, format=form, filename=filename)
    flaw = "is in another directory" if "/" in filename else find_flaw(filename)
    if flaw is not None:
        raise UnsafeArchiveError(
            f"{archive.path}: {SEAL_NAME}: the archive's name {filename!r} {flaw}"
        )
    path = directory / filename
    if path.exists() and path.samefile(archive.path):
        raise ArchiveError(f"{path}: is what is to be exported; name another directory with -d")
    work = _Export(archive, seal, packing, embedded or {})
    recipe = Recipe(manifest=work.manifest, packing=packing)
    pack(work.entries(), work.seal, path, recipe, advance=advance)
    return path


def embed(plan: Plan, files: Mapping[Reference, Path]) -> Plan:
    """Return `plan` with the files that it refers to as members."""
    members = {member.name: member for member in plan.members}
    members |= {each.target: Member(each.target, path) for each, path in files.items()}
    manifest, name = plan.manifest, plan.manifest.config_file
    if name is not None and name in members:
        source = members[name].source
        config = source if isinstance(source, bytes) else source.read_bytes()
        manifest, written = carry_inside(manifest, config, files)
        if written != config:
            members[name] = Member(name, written)
    left = tuple(each for each in plan.references if each not in files)
    return replace(plan, manifest=manifest, members=tuple(members.values()), references=left)


def rename(filename: str, form: Format) -> str:
    """Return the archive's `filename` with the ending of the format `form`."""
    stem = next((filename.removesuffix(end) for end in _ENDINGS if filename.endswith(end)), None)
    return f"{stem or filename}{SUFFIXES[form]}"


class _Export:
    """What is read of an archive, and the seal that this leads to."""

    def __init__(
        self, archive: Archive, seal: Seal, packing: Packing, embedded: Mapping[Reference, Path]
    ) -> None:
        self._archive = archive
        self._seal = seal
        self._packing = packing
        self._embedded = embedded
        self.manifest = archive.manifest
        self._rewritten: dict[str, bytes] = {}
        """Members that say something else once the files are inside."""
        name = archive.manifest.config_file
        if embedded and name is not None and name in seal.members:
            config = archive.read(name)
            self.manifest, written = carry_inside(archive.manifest, config, embedded)
            if written != config:
                self._rewritten = {name: written, MANIFEST_NAME: self.manifest.to_json()}

    def entries(self) -> Iterator[Entry]:
        """Yield all members, sorted by name."""
        entries = [*self._members(), *self._files()]
        yield from sorted(entries, key=lambda entry: entry.name)

    def seal(self, digests: Mapping[str, Digest]) -> bytes:
        """Verify what was copied; return the seal's own bytes unless something is new."""
        for name in sorted(self._seal.members):
            if name not in self._rewritten and digests[name] != self._seal.members[name]:
                raise ArchiveError(f"{self._archive.path}: {name}: is not what the seal says")
        for reference, path in self._embedded.items():
            if digests[reference.target].sha256 != reference.sha256:
                raise ArchiveError(
                    f"{reference.target}: the cached file {path} is not what was locked; delete it"
                )
        if not self._embedded and self._packing == self._seal.packing:
            return self._archive.read(SEAL_NAME)
        left = tuple(each for each in self._seal.references if each not in self._embedded)
        new = replace(self._seal, members=digests, references=left, packing=self._packing)
        return new.to_json()

    def _members(self) -> Iterator[Entry]:
        for name, data in self._rewritten.items():
            yield Entry(
                name=name,
                size=len(data),
                executable=False,
                origin=name,
                open=partial(io.BytesIO, data),
            )
        for name, digest in self._seal.members.items():
            if name in self._rewritten:
                continue
            yield Entry(
                name=name,
                size=digest.size,
                executable=digest.executable,
                origin=f"{self._archive.path}: {name}",
                open=partial(self._archive.open, name),
            )

    def _files(self) -> Iterator[Entry]:
        for reference, path in self._embedded.items():
            try:
                size = path.stat().st_size
            except OSError as error:
                raise ArchiveError(f"{path}: cannot be read: {error.strerror}") from error
            yield Entry(
                name=reference.target,
                size=size,
                executable=False,
                origin=str(path),
                open=partial(_open, path),
            )


def _open(path: Path) -> BinaryIO:
    return path.open("rb")
