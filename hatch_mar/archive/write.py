"""A plan becomes an archive: the same bytes whatever the clock, the umask, the locale, the machine.

Files are hashed while they are copied, a chunk at a time, so the seal, which holds the digests of
all other members, is the last member. Everything else is sorted by name.
"""

from __future__ import annotations

import io
import shutil
import stat
import zipfile
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Protocol

from hatch_mar.archive.measure import MeasuredReader, Sha256
from hatch_mar.archive.names import NameLedger
from hatch_mar.archive.seal import SEAL_NAME, Digest, Packing, Seal
from hatch_mar.archive.staging import replacing, staged_directory, staged_file
from hatch_mar.archive.stamp import parse_stamp, zip_date
from hatch_mar.archive.tarball import CHUNK, tar_entry, tar_writer
from hatch_mar.archive.zipwriter import ZipWriter
from hatch_mar.errors import ArchiveError

if TYPE_CHECKING:
    import tarfile
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from hatch_mar.archive.manifest import Manifest
    from hatch_mar.archive.measure import Advance
    from hatch_mar.archive.plan import Member, Plan

UNIX = 3
"""`create_system` of a zip entry whose upper attribute bits are a Unix mode."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One member on its way into an archive."""

    name: str
    size: int
    executable: bool
    origin: str
    """The source, as messages name it."""
    open: Callable[[], BinaryIO]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What determines the bytes around the members."""

    manifest: Manifest
    packing: Packing


def write_archive(plan: Plan, path: Path, *, advance: Advance | None = None) -> Seal:
    """Write `plan` to `path`, in the plan's format, and return its seal.

    A directory archive that is there already is replaced; any other directory is not. `advance` is
    told how many bytes of the members have been read since it was last told.

    Raises:
        ArchiveError: a source cannot be read or changes meanwhile, two members collide, or `path`
            cannot be written. Nothing is left then.
    """
    seals: list[Seal] = []

    def seal(digests: Mapping[str, Digest]) -> bytes:
        seals.append(_seal(plan, digests))
        return seals[0].to_json()

    recipe = Recipe(manifest=plan.manifest, packing=_packing(plan))
    pack(_entries(plan), seal, path, recipe, advance=advance)
    return seals[0]


def make_seal(plan: Plan) -> Seal:
    """Return the seal that `write_archive` would write, without writing anything.

    Raises:
        ArchiveError: as `write_archive`.
    """
    return _seal(plan, _copy_all(_entries(plan), _Sink()))


def undigested_seal(plan: Plan) -> Seal:
    """Return the seal as far as it is known without reading a member: it has no digests."""
    return _seal(plan, {})


def pack(
    entries: Iterable[Entry],
    seal: Callable[[Mapping[str, Digest]], bytes],
    path: Path,
    recipe: Recipe,
    *,
    advance: Advance | None = None,
) -> None:
    """Write `entries`, in their order, and then what `seal` makes of their digests.

    `advance` is told of the bytes as `write_archive` says.

    Raises:
        ArchiveError: as `write_archive`; `seal` may raise its own.
    """
    try:
        with _box(path, recipe) as box:
            sealed = seal(_copy_all(entries, box, advance))
            _copy(_generated(SEAL_NAME, sealed), box)
    except OSError as error:
        raise ArchiveError(f"{path}: cannot be written: {error.strerror or error}") from error


def _seal(plan: Plan, digests: Mapping[str, Digest]) -> Seal:
    return Seal(
        name=plan.name,
        version=plan.version,
        runtime=plan.runtime,
        members=digests,
        references=plan.references,
        examples=plan.examples,
        trusted_pickle=plan.trusted_pickle,
        platform=plan.platform,
        packing=_packing(plan),
    )


def _packing(plan: Plan) -> Packing:
    return Packing(format=plan.format, compression=plan.compression, filename=plan.filename)


def _entries(plan: Plan) -> Iterator[Entry]:
    ledger = NameLedger(plan.filename or plan.name)
    for name in (SEAL_NAME, *(reference.target for reference in plan.references)):
        ledger.add(name)
    for member in plan.sealed_members():
        ledger.add(member.name)
        yield _entry(member)


def _entry(member: Member) -> Entry:
    source = member.source
    if isinstance(source, bytes):
        return _generated(member.name, source, executable=member.executable)
    try:
        size = member.size()
    except OSError as error:
        raise ArchiveError(f"{source}: cannot be read: {error.strerror}") from error
    return Entry(
        name=member.name,
        size=size,
        executable=member.executable,
        origin=str(source),
        open=lambda: source.open("rb"),
    )


def _generated(name: str, data: bytes, *, executable: bool = False) -> Entry:
    return Entry(
        name=name,
        size=len(data),
        executable=executable,
        origin=name,
        open=lambda: io.BytesIO(data),
    )


def _copy_all(
    entries: Iterable[Entry], box: _Box, advance: Advance | None = None
) -> dict[str, Digest]:
    return {entry.name: _copy(entry, box, advance) for entry in entries}


def _copy(entry: Entry, box: _Box, advance: Advance | None = None) -> Digest:
    try:
        file = entry.open()
    except OSError as error:
        raise ArchiveError(f"{entry.origin}: cannot be read: {error.strerror}") from error
    with file, Sha256() as sha256:
        reader = MeasuredReader(file, sha256, size=entry.size, origin=entry.origin, advance=advance)
        box.add(entry, reader)
        reader.expect_end()
        return Digest(sha256.hexdigest(), sha256.size, executable=entry.executable)


class _Box(Protocol):
    """An archive being written."""

    def add(self, entry: Entry, source: MeasuredReader) -> None:
        """Copy `source` to the end of the archive."""
        ...


class _Sink:
    """A box that keeps nothing."""

    def add(self, entry: Entry, source: MeasuredReader) -> None:
        del entry
        while source.read(CHUNK):
            pass


class _ZipBox:
    def __init__(self, file: ZipWriter, recipe: Recipe) -> None:
        self._zip = file
        self._date = zip_date(parse_stamp(recipe.manifest.created_on))
        deflated = recipe.packing.compression == "deflated"
        self._compression = zipfile.ZIP_DEFLATED if deflated else zipfile.ZIP_STORED

    def add(self, entry: Entry, source: MeasuredReader) -> None:
        info = zipfile.ZipInfo(entry.name, self._date)
        info.compress_type = self._compression
        info.create_system = UNIX
        info.external_attr = (stat.S_IFREG | (0o755 if entry.executable else 0o644)) << 16
        info.file_size = entry.size
        self._zip.add(info, source)


class _TarBox:
    def __init__(self, file: tarfile.TarFile, recipe: Recipe) -> None:
        self._tar = file
        self._mtime = int(parse_stamp(recipe.manifest.created_on).timestamp())
        self._top = recipe.manifest.model_name

    def add(self, entry: Entry, source: MeasuredReader) -> None:
        name = f"{self._top}/{entry.name}"  # TorchServe strips the first component
        header = tar_entry(name, entry.size, executable=entry.executable, mtime=self._mtime)
        self._tar.addfile(header, source)


class _DirectoryBox:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.chmod(0o755)

    def add(self, entry: Entry, source: MeasuredReader) -> None:
        target = self._directory / entry.name
        self._make(target.parent)
        with target.open("xb") as file:
            shutil.copyfileobj(source, file, CHUNK)
        target.chmod(0o755 if entry.executable else 0o644)

    def _make(self, directory: Path) -> None:
        if not directory.is_dir():
            self._make(directory.parent)
            directory.mkdir()
            directory.chmod(0o755)  # mkdir's own mode is the umask's business


@contextmanager
def _box(path: Path, recipe: Recipe) -> Iterator[_Box]:
    match recipe.packing.format:
        case "mar":
            with staged_file(path) as file, ZipWriter(file) as zipped:
                yield _ZipBox(zipped, recipe)
        case "tgz":
            with staged_file(path) as file, tar_writer(file, gzip=True) as tar:
                yield _TarBox(tar, recipe)
        case "dir":
            with replacing(path), staged_directory(path) as directory:
                yield _DirectoryBox(directory)
