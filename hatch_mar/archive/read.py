"""Archives, opened: a `.mar`, a `.tar.gz`, a directory, a wheel.

Strict with what hatch-mar sealed, as tolerant as TorchServe with everything else.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, Self

from hatch_mar.archive.manifest import MANIFEST_NAME, Manifest, parse_json
from hatch_mar.archive.members import FileMembers, Members, list_directory, reading
from hatch_mar.archive.modelconfig import parse_yaml
from hatch_mar.archive.names import NameLedger, find_flaw
from hatch_mar.archive.packaged import ENTRY_POINT_GROUP, MODEL_DIRECTORY
from hatch_mar.archive.seal import SEAL_NAME, Seal
from hatch_mar.archive.tarred import TarMembers, is_gzip
from hatch_mar.archive.zipped import ZipMembers
from hatch_mar.errors import ArchiveError, UnsafeArchiveError

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

Kind = Literal["mar", "tgz", "dir", "wheel", "editable", "project"]

LARGEST_READ = 64 << 20
"""Bytes of a member that are worth having in memory: of a manifest, a seal, somebody's source."""
LARGEST_CONFIG = 1 << 20
"""Bytes of a model-config.yaml, or of a wheel's entry points, that are worth parsing."""


class Archive:
    """An archive, open for reading. Opening checks names and sizes; `unpack` checks digests."""

    def __init__(self, path: Path, kind: Kind, members: Members, *, name: str = "model") -> None:
        """Read what `members` say about themselves; `name` is for archives without a manifest.

        The archive owns `members` from now on: they are closed with it, or when this fails.

        Raises:
            ArchiveError: the manifest or the seal is broken, or the members are not the sealed
                ones.
        """
        self.path = path
        self.kind = kind
        self._members = members
        self._names = frozenset(members.names())
        self.warnings: list[str] = list(members.warnings)
        try:
            self.has_manifest = MANIFEST_NAME in self._names
            self.manifest = self._read_manifest(name)
            self.seal = self._read_seal()
        except BaseException:
            members.close()
            raise

    def __enter__(self) -> Self:
        """Return the archive."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._members.close()

    def names(self) -> list[str]:
        """Return the names of all members, in the order in which they are best read."""
        return self._members.names()

    def __contains__(self, name: object) -> bool:
        """Say whether there is a member `name`."""
        return name in self._names

    def size(self, name: str) -> int:
        """Return a member's size in bytes.

        Raises:
            ArchiveError: there is no such member.
        """
        return self._members.size(self._known(name))

    def executable(self, name: str) -> bool:
        """Say whether a member is a program: as the seal has it, else as the archive does."""
        if self.seal is not None and name in self.seal.members:
            return self.seal.members[name].executable
        return self._members.executable(self._known(name))

    def open(self, name: str) -> BinaryIO:
        """Open a member; reading it raises nothing but `ArchiveError`.

        Raises:
            ArchiveError: there is no such member, or it cannot be read.
        """
        return self._members.open(self._known(name))

    def read(self, name: str) -> bytes:
        """Return a member's bytes.

        Raises:
            ArchiveError: there is no such member, or it cannot be read.
            UnsafeArchiveError: they are more than `LARGEST_READ`.
        """
        return read_member(self._members, self._known(name), str(self.path))

    def file(self, name: str) -> Path | None:
        """Return the file that is the member; None if it is packed in another."""
        return self._members.file(self._known(name))

    @cached_property
    def config(self) -> dict[str, Any] | None:
        """The raw model-config.yaml; None if the manifest names none, `{}` if it is empty.

        Raises:
            ArchiveError: it is no YAML, or no mapping.
        """
        name = self.manifest.config_file
        if name is None:
            return None
        if name not in self._names:
            self.warnings.append(f"{name}: named in the manifest, but not in the archive")
            return None
        if self._members.size(name) > LARGEST_CONFIG:
            raise UnsafeArchiveError(f"{self.path}: {name}: too large for a config file")
        value = parse_yaml(self.read(name), f"{self.path}: {name}")
        if value is None:
            self.warnings.append(f"{name}: is empty")
            return {}
        if not isinstance(value, dict):
            raise ArchiveError(f"{self.path}: {name}: must be a mapping")
        return value

    def _known(self, name: str) -> str:
        if name not in self._names:
            raise ArchiveError(f"{self.path}: no member {name!r}")
        return name

    def _read_manifest(self, name: str) -> Manifest:
        if not self.has_manifest:
            self.warnings.append(f"{MANIFEST_NAME} is missing")
            return Manifest(model_name=name)
        with reading(f"{self.path}: {MANIFEST_NAME}"):
            raw = parse_json(self.read(MANIFEST_NAME))
        if not isinstance(raw, dict):
            raise ArchiveError(f"{self.path}: {MANIFEST_NAME}: must be an object")
        try:
            return Manifest.from_dict(raw, fallback_name=name)
        except ArchiveError as error:
            raise ArchiveError(f"{self.path}: {error}") from error

    def _read_seal(self) -> Seal | None:
        if SEAL_NAME not in self._names:
            return None
        try:
            seal = Seal.from_json(self.read(SEAL_NAME))
        except ArchiveError as error:
            raise ArchiveError(f"{self.path}: {error}") from error
        self._check_members(seal)
        self._check_references(seal)
        return seal

    def _check_members(self, seal: Seal) -> None:
        sealed = set(seal.members) | {SEAL_NAME}
        for name in sorted(sealed - self._names):
            raise ArchiveError(f"{self.path}: {name}: is in the seal, but not in the archive")
        for name in sorted(self._names - sealed):
            raise ArchiveError(f"{self.path}: {name}: is in the archive, but not in the seal")
        for name, digest in seal.members.items():
            if (size := self._members.size(name)) != digest.size:
                raise ArchiveError(
                    f"{self.path}: {name}: {size} bytes, but the seal says {digest.size}"
                )
        for name in (name for each in seal.examples for name in (each.input, each.output)):
            if name not in self._names:
                raise ArchiveError(f"{self.path}: {name!r}: an example, but not in the archive")

    def _check_references(self, seal: Seal) -> None:
        ledger = NameLedger(str(self.path))
        for name in seal.members if seal.references else ():
            ledger.add(name)
        for reference in seal.references:
            ledger.add(reference.target)  # it becomes a file beside the members


def read_member(members: Members, name: str, where: str) -> bytes:
    """Return the bytes of the member `name`; messages start with `where`.

    Raises:
        ArchiveError: it cannot be read.
        UnsafeArchiveError: they are more than `LARGEST_READ`.
    """
    size = members.size(name)
    if size > LARGEST_READ:
        raise UnsafeArchiveError(f"{where}: {name}: {size} bytes are too many to be looked at")
    with members.open(name) as file:
        return file.read()


def open_archive(path: Path) -> Archive:
    """Open whatever is at `path`, told apart by content: a `.mar` may be called anything.

    Raises:
        ArchiveError: there is nothing, or nothing that can be read; it is no archive, or broken.
    """
    kind, members = open_members(path)
    return Archive(path, kind, members, name=path.resolve().name if kind == "dir" else _stem(path))


def open_members(path: Path) -> tuple[Kind, Members]:
    """Open what is at `path` without asking what its members say: not even whether they fit.

    A sealed directory has those of the sealed members that are there, and nothing beside them.

    Raises:
        ArchiveError: as `open_archive`; not for a broken manifest or seal in a file.
    """
    with reading(path):
        if not path.exists():
            raise ArchiveError(f"{path}: no such file or directory")
        if path.is_dir():
            return "dir", _directory_members(path)
        if not path.is_file():  # reading a pipe would wait for whoever writes to it
            raise ArchiveError(f"{path}: is not a file but a device or a pipe")
        with path.open("rb") as file:
            magic = file.read(4)
        if magic[:2] == b"PK":
            return _zip_members(path)
        if is_gzip(path):
            return "tgz", TarMembers(path, strip=True)
    raise ArchiveError(f"{path}: neither a zip file, a gzipped tar nor a directory")


def open_directory(path: Path) -> Archive:
    """Open an unpacked archive. A sealed one has the sealed members, whatever lies beside them.

    Raises:
        ArchiveError: as `open_archive`.
    """
    return Archive(path, "dir", _directory_members(path), name=path.resolve().name)


def _directory_members(path: Path) -> FileMembers:
    root = _descend(path)
    seal_file = root / SEAL_NAME
    if not seal_file.is_file():
        return FileMembers(path, dict(list_directory(root)))
    with reading(seal_file):
        data = seal_file.read_bytes()
    try:
        names = [*Seal.from_json(data).members, SEAL_NAME]
    except ArchiveError as error:
        raise ArchiveError(f"{path}: {error}") from error
    # What is missing, `Archive` finds; a name that is no name, `FileMembers`.
    there = [name for name in names if find_flaw(name) is not None or (root / name).is_file()]
    return FileMembers(path, {name: root / name for name in there})


def _descend(path: Path) -> Path:
    """Go down into the only entry of a directory, if it is one, as TorchServe does."""
    with reading(path):
        entries = list(path.iterdir())
    return entries[0] if len(entries) == 1 and _is_only_wrapper(entries[0]) else path


def _is_only_wrapper(entry: Path) -> bool:
    return entry.is_dir() and not entry.is_symlink() and entry.name != "MAR-INF"


def _zip_members(path: Path) -> tuple[Kind, Members]:
    members = ZipMembers(path)
    if path.suffix != ".whl":
        return "mar", members
    try:
        return "wheel", members.below(find_model_prefix(path, members))
    except BaseException:
        members.close()
        raise


def find_model_prefix(path: Path, members: Members) -> str:
    """Return the directory of the model in the wheel `path`, as its own entry point names it.

    It ends in a slash.

    Raises:
        ArchiveError: the wheel has no model, or more than one.
    """
    import configparser  # noqa: PLC0415 - for wheels alone

    files = [name for name in members.names() if name.endswith(".dist-info/entry_points.txt")]
    if len(files) == 1 and members.size(files[0]) <= LARGEST_CONFIG:
        entry_points = configparser.ConfigParser(delimiters=("=",), interpolation=None)
        with reading(f"{path}: {files[0]}"), members.open(files[0]) as file:
            entry_points.read_string(file.read().decode())
        if entry_points.has_section(ENTRY_POINT_GROUP):
            packages = [package for _, package in entry_points.items(ENTRY_POINT_GROUP)]
            if len(packages) == 1:
                return f"{packages[0].replace('.', '/')}/{MODEL_DIRECTORY}/"
    raise ArchiveError(f"{path}: a wheel without a model: no entry point in {ENTRY_POINT_GROUP!r}")


def _stem(path: Path) -> str:
    return re.sub(r"(\.tar\.gz|\.tgz|\.[^.]*)$", "", path.name) or "model"
