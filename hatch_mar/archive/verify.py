"""Whether an archive still is what was sealed: every member that is not, by name.

Serving stops at the first thing that is wrong. Here the question is what all is wrong, so members
are looked at without opening the archive they make up.
"""

from __future__ import annotations

import csv
import io
from base64 import urlsafe_b64decode
from binascii import Error as Base64Error
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hatch_mar.archive.measure import hash_stream
from hatch_mar.archive.read import Kind, find_model_prefix, open_members, read_member
from hatch_mar.archive.seal import SEAL_NAME, Digest, Seal
from hatch_mar.archive.zipped import ZipMembers
from hatch_mar.errors import ArchiveError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from hatch_mar.archive.measure import Advance
    from hatch_mar.archive.members import Members
    from hatch_mar.weights.reference import Reference

RECORD = ".dist-info/RECORD"
_UNRECORDED = (RECORD, ".dist-info/RECORD.jws", ".dist-info/RECORD.p7s")
"""Files of a wheel that its RECORD gives no digest for (binary distribution format)."""
NOT_SEALED = "is not what the seal says: damaged or altered"


@dataclass(frozen=True, slots=True)
class Flaw:
    """One file that is not what it should be."""

    name: str
    """Member name; in a wheel, outside of the model, the name in the wheel; empty: the whole."""
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of verifying one archive."""

    kind: Kind
    seal: Seal | None
    """None: it has none, and only what its format itself promises could be verified."""
    members: int
    size: int
    """Bytes of all members."""
    flaws: tuple[Flaw, ...]
    """Sorted by name; empty if all is well."""


class Inspection:
    """An archive whose files are about to be read, all of them."""

    def __init__(self, path: Path) -> None:
        """Open `path`, a file or a directory.

        Raises:
            ArchiveError: it is no archive, or so broken that its members cannot be told apart.
        """
        self._path = path
        self._kind, self._members = open_members(path)
        self._prefix = ""
        self._all: Members = self._members
        """The files of a whole wheel, else the members."""
        try:
            if self._kind == "wheel":
                self._all = ZipMembers(path)
                self._prefix = find_model_prefix(path, self._all)
        except BaseException:
            self.close()
            raise

    @property
    def size(self) -> int:
        """Bytes that `run` reads."""
        return sum(map(self._all.size, self._all.names()))

    def run(self, advance: Advance | None = None) -> Verdict:
        """Read everything, and compare it with the seal and, in a wheel, with its RECORD."""
        digests, unreadable = self._measure(advance)
        flaws = {Flaw(name, message) for name, message in unreadable.items()}
        seal: Seal | None = None
        if SEAL_NAME in self._members.names() and SEAL_NAME not in unreadable:
            try:
                seal = Seal.from_json(read_member(self._members, SEAL_NAME, str(self._path)))
            except ArchiveError as error:
                message = str(error).removeprefix(f"{self._path}: ")
                flaws.add(Flaw(SEAL_NAME, message.removeprefix(f"{SEAL_NAME}: ")))
        if seal is not None:
            flaws.update(_compare_with_seal(seal, digests, self._members, unreadable))
        if self._kind == "wheel":
            flaws.update(self._compare_with_record(digests, unreadable))
        names = self._members.names()
        return Verdict(
            kind=self._kind,
            seal=seal,
            members=len(names),
            size=sum(map(self._members.size, names)),
            flaws=tuple(sorted(flaws, key=lambda flaw: (flaw.name, flaw.message))),
        )

    def close(self) -> None:
        """Let go of the file."""
        self._members.close()
        self._all.close()

    def _shorten(self, name: str) -> str:
        """Return the member name of a file of a wheel, if it is one."""
        return name.removeprefix(self._prefix)

    def _measure(self, advance: Advance | None) -> tuple[dict[str, Digest], dict[str, str]]:
        """Return digests by name, and why other files cannot be read."""
        digests: dict[str, Digest] = {}
        unreadable: dict[str, str] = {}
        for name in self._all.names():
            short = self._shorten(name)
            try:
                with self._all.open(name) as file:
                    sha256, size = hash_stream(file, advance=advance)
            except ArchiveError as error:
                unreadable[short] = str(error).removeprefix(f"{self._path}: {name}: ")
            else:
                digests[short] = Digest(sha256, size, executable=self._all.executable(name))
        return digests, unreadable

    def _compare_with_record(
        self, digests: Mapping[str, Digest], unreadable: Mapping[str, str]
    ) -> Iterator[Flaw]:
        records = [name for name in self._all.names() if name.endswith(RECORD)]
        if len(records) != 1:
            yield Flaw("", f"has {len(records)} RECORD files instead of one")
            return
        if records[0] in unreadable:
            return
        try:
            recorded = _read_record(read_member(self._all, records[0], str(self._path)))
        except ArchiveError:
            recorded = None
        if recorded is None:
            yield Flaw(records[0], "is no list of files and digests")
            return
        for name in sorted(recorded.keys() - set(self._all.names())):
            yield Flaw(self._shorten(name), "is in the wheel's RECORD, but not in the wheel")
        for name in self._all.names():
            short = self._shorten(name)
            if name.endswith(_UNRECORDED) or short in unreadable:
                continue
            if name not in recorded:
                yield Flaw(short, "is in the wheel, but not in its RECORD")
            elif not recorded[name].fits(digests[short]):
                yield Flaw(short, "is not what the wheel's RECORD says")


@dataclass(frozen=True, slots=True)
class _Row:
    """What RECORD says of one file."""

    digest: str
    size: str

    def fits(self, found: Digest) -> bool:
        """Say whether it is the right digest; those that are not sha256 we cannot tell."""
        algorithm, _, encoded = self.digest.partition("=")
        if self.size and self.size != str(found.size):
            return False
        if algorithm != "sha256":
            return bool(algorithm)
        try:
            return urlsafe_b64decode(f"{encoded}==").hex() == found.sha256
        except (Base64Error, ValueError):
            return False


def _read_record(data: bytes) -> dict[str, _Row] | None:
    try:
        rows = csv.reader(io.StringIO(data.decode(), newline=""))
        return {name: _Row(digest, size) for name, digest, size in filter(None, rows)}
    except (ValueError, csv.Error):
        return None


def _compare_with_seal(
    seal: Seal, digests: Mapping[str, Digest], members: Members, unreadable: Mapping[str, str]
) -> Iterator[Flaw]:
    names = set(members.names())
    for name in sorted(seal.members.keys() - names):
        yield Flaw(name, "is in the seal, but not in the archive")
    for name in sorted(names - seal.members.keys() - {SEAL_NAME}):
        yield Flaw(name, "is in the archive, but not in the seal")
    for name in sorted(names & seal.members.keys() - unreadable.keys()):
        found, sealed = digests[name], seal.members[name]
        if found.size != sealed.size:
            yield Flaw(name, f"{found.size} bytes, but the seal says {sealed.size}")
        elif found.sha256 != sealed.sha256:
            yield Flaw(name, NOT_SEALED)


def verify_cached(reference: Reference, file: Path, advance: Advance | None = None) -> Flaw | None:
    """Compare the cached `file` with what `reference` locked.

    Raises:
        OSError: it cannot be read.
    """
    with file.open("rb") as source:
        sha256, size = hash_stream(source, advance=advance)
    if sha256 == reference.sha256 and reference.size in (None, size):
        return None
    return Flaw(reference.target, f"the cached file {file} is not what was locked; delete it")
