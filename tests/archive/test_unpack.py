"""Safe extraction, a line of the rules a test."""

from __future__ import annotations

import gzip
import io
import os
import resource
import shutil
import stat
import struct
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hatch_mar.archive import unpack as unpack_module
from hatch_mar.archive.members import MAX_MEMBERS
from hatch_mar.archive.plan import Member, Plan
from hatch_mar.archive.read import open_archive
from hatch_mar.archive.seal import SEAL_NAME, Packing
from hatch_mar.archive.unpack import unpack
from hatch_mar.archive.write import Recipe, _entries, pack, write_archive
from hatch_mar.errors import ArchiveError, UnsafeArchiveError

if TYPE_CHECKING:
    from collections.abc import Callable

    MakePlan = Callable[..., Plan]


def _unpack(path: Path, into: Path) -> None:
    with open_archive(path) as archive:
        unpack(archive, into)


def _refuses(path: Path, message: str) -> None:
    """The archive is refused with `message`, and leaves nothing."""
    into = path.parent / "into" / "model"
    with pytest.raises(ArchiveError, match=message):
        _unpack(path, into)
    assert not into.parent.exists() or not any(into.parent.iterdir())


def _refuses_as_unsafe(path: Path, message: str) -> None:
    with pytest.raises(UnsafeArchiveError, match=message):
        _unpack(path, path.parent / "model")
    _refuses(path, message)


def test_every_format_unpacks(archive_file: Path, make_plan: MakePlan, tmp_path: Path) -> None:
    into = tmp_path / "run" / "model"
    _unpack(archive_file, into)
    for member in make_plan().members:
        assert isinstance(member.source, Path)
        assert (into / member.name).read_bytes() == member.source.read_bytes()
    assert (into / SEAL_NAME).is_file()
    assert stat.S_IMODE(into.stat().st_mode) == 0o700
    linked = archive_file.is_dir()
    for path in into.rglob("*"):
        assert path.is_symlink() == (linked and not path.is_dir())
    if not linked:
        assert stat.S_IMODE((into / "handler.py").stat().st_mode) == 0o600
        assert stat.S_IMODE((into / "run.sh").stat().st_mode) == 0o700
    assert [path.name for path in into.parent.iterdir()] == ["model"]


def test_an_empty_directory_may_be_there_already(archive_file: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    _unpack(archive_file, tmp_path / "model")
    assert (tmp_path / "model" / "handler.py").is_file()


def test_a_directory_with_something_in_it_is_left_alone(archive_file: Path, tmp_path: Path) -> None:
    into = tmp_path / "model"
    into.mkdir()
    (into / "mine.txt").write_text("mine")
    with pytest.raises(ArchiveError, match=r"model: cannot be written: Directory not empty"):
        _unpack(archive_file, into)
    assert [path.name for path in into.iterdir()] == ["mine.txt"]


def test_a_directory_that_may_not_be_written_is_linked(make_plan: MakePlan, tmp_path: Path) -> None:
    """As when the model is installed by root and served by another."""
    source = tmp_path / "installed"
    write_archive(make_plan(format="dir"), source)
    for path in (*source.rglob("*"), source):
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        _unpack(source, tmp_path / "model")
        (tmp_path / "model" / "new.txt").write_text("the run directory is ours")
        assert (tmp_path / "model" / "handler.py").resolve() == (source / "handler.py").resolve()
    finally:
        for path in (source, *source.rglob("*")):
            path.chmod(0o755)


def test_a_linked_model_does_not_write_through(make_plan: MakePlan, tmp_path: Path) -> None:
    write_archive(make_plan(format="dir"), tmp_path / "installed")
    _unpack(tmp_path / "installed", tmp_path / "model")
    shutil.rmtree(tmp_path / "model")
    assert (tmp_path / "installed" / "handler.py").is_file()


# What the seal says.


@pytest.mark.parametrize("form", ["mar", "tgz", "dir"])
def test_an_altered_member_is_refused(make_plan: MakePlan, tmp_path: Path, form: str) -> None:
    path = tmp_path / "m"
    plan = make_plan(format=form)
    write_archive(plan, path)
    with open_archive(path) as archive:
        seal = archive.read(SEAL_NAME)
    altered = tuple(
        Member(member.name, b"def handle(data, context):\n    return EVIL\n")
        if member.name == "handler.py"
        else member
        for member in plan.members
    )
    (shutil.rmtree if form == "dir" else os.unlink)(path)
    _write_with_seal(make_plan(format=form, members=altered), path, seal)
    _refuses(path, r"m: handler\.py: is not what the seal says: damaged or altered")


def _write_with_seal(plan: Plan, path: Path, seal: bytes) -> None:
    recipe = Recipe(manifest=plan.manifest, packing=Packing(format=plan.format))
    pack(_entries(plan), lambda _: seal, path, recipe)


# What no archive may hold.


def _zip_of(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            info = zipfile.ZipInfo("placeholder")
            info.filename = name
            archive.writestr(info, b"x")
    return path


@pytest.mark.parametrize(
    ("name", "flaw"),
    [
        ("../escape.py", "'..' component"),
        ("a/../../escape.py", "'..' component"),
        ("/etc/cron.d/escape", "absolute path"),
        ("C:/escape.py", "absolute path"),
        ("..\\escape.py", "backslash"),
        ("a//b", "empty, '.'"),
        ("./a", "'.' or"),
        ("a\x1b[31m", "control character"),
        ("x" * 300, "too long"),
        ("y/" * 2100 + "x", "too long"),
    ],
)
def test_names_that_are_no_names(tmp_path: Path, name: str, flaw: str) -> None:
    _refuses_as_unsafe(_zip_of(tmp_path / "m.mar", "h.py", name), flaw)


def test_a_nul_in_a_name(tmp_path: Path) -> None:
    """Python's zipfile would cut the name there."""
    path = _zip_of(tmp_path / "m.mar", "h.pyX.txt")
    path.write_bytes(path.read_bytes().replace(b"h.pyX.txt", b"h.py\0.txt"))
    _refuses_as_unsafe(path, "control character")


def test_a_name_that_is_no_utf8(tmp_path: Path) -> None:
    path = _zip_of(tmp_path / "m.mar", "hXX.py")
    path.write_bytes(path.read_bytes().replace(b"hXX.py", b"h\xff\xfe.py"))
    _refuses(path, r"m\.mar: cannot be read: 'utf-8' codec can't decode")


@pytest.mark.parametrize(
    ("first", "second"), [("A.py", "a.py"), ("caf\u00e9", "cafe\u0301"), ("a", "a/b")]
)
def test_members_that_collide(tmp_path: Path, first: str, second: str) -> None:
    _refuses_as_unsafe(_zip_of(tmp_path / "m.mar", first, second), "collide")


def test_a_member_that_is_there_twice(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = _zip_of(tmp_path / "m.mar", "a.py", "a.py")
    _refuses_as_unsafe(path, "'a.py' and 'a.py' collide")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO, stat.S_IFSOCK])
def test_a_zip_with_links_or_devices(tmp_path: Path, kind: int) -> None:
    with zipfile.ZipFile(tmp_path / "m.mar", "w") as archive:
        info = zipfile.ZipInfo("passwd")
        info.create_system = 3
        info.external_attr = (kind | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    _refuses_as_unsafe(tmp_path / "m.mar", "'passwd' is a link or a device")


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE],
)
def test_a_tar_with_links_or_devices(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "m.tar.gz", "w:gz") as archive:
        info = tarfile.TarInfo("m/passwd")
        info.type = kind
        info.linkname = "/etc/passwd"
        archive.addfile(info)
    _refuses_as_unsafe(tmp_path / "m.tar.gz", "'m/passwd' is a link, a device or a sparse")


def test_a_sparse_tar(tmp_path: Path) -> None:
    with (tmp_path / "hole").open("wb") as file:
        file.truncate(1 << 20)
    command = ["tar", "-czSf", "m.tar.gz", "--transform=s,^,m/,", "hole"]
    subprocess.run(command, cwd=tmp_path, check=True)
    _refuses_as_unsafe(tmp_path / "m.tar.gz", "a sparse file")


@pytest.mark.parametrize("name", ["m/../../x", "/x", "m/a\\b", "m/\udcff"])
def test_a_tar_with_names_that_are_no_names(tmp_path: Path, name: str) -> None:
    with tarfile.open(tmp_path / "m.tar.gz", "w:gz", errors="surrogateescape") as archive:
        archive.addfile(tarfile.TarInfo(name))
        archive.addfile(tarfile.TarInfo("MAR-INF/MANIFEST.json"))
    _refuses(tmp_path / "m.tar.gz", r"m\.tar\.gz: member ")


def test_a_tar_with_a_negative_size(tmp_path: Path) -> None:
    info = tarfile.TarInfo("m/a")
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\xff" * 10 + b"\xfe\x00"  # -512 in base 256
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "m.tar.gz").write_bytes(gzip.compress(bytes(header) + b"\0" * 10240))
    # Before Python 3.11.4, tarfile itself stumbles over it.
    _refuses(tmp_path / "m.tar.gz", "has a negative size|cannot be read: invalid offset")


def test_a_tar_with_an_endless_header(tmp_path: Path) -> None:
    """Of a gigabyte, gzip leaves next to nothing; tarfile would read it as one header."""
    info = tarfile.TarInfo("././@PaxHeader")
    info.type = tarfile.XHDTYPE
    info.size = 1 << 30
    with gzip.open(tmp_path / "m.tar.gz", "wb", compresslevel=1) as file:
        file.write(info.tobuf(tarfile.USTAR_FORMAT))
        for _ in range(8):
            file.write(bytes(1 << 20))
    _refuses(tmp_path / "m.tar.gz", "a header of 1073741824 bytes")


def test_too_many_members(tmp_path: Path) -> None:
    names = [f"{number}" for number in range(MAX_MEMBERS + 1)]
    _refuses_as_unsafe(_zip_of(tmp_path / "m.mar", *names), "more than 10000 members")
    with tarfile.open(tmp_path / "m.tar.gz", "w:gz", compresslevel=1) as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(f"m/{name}"))
    _refuses_as_unsafe(tmp_path / "m.tar.gz", "more than 10000 members")


# What a zip may lie about. Offsets are those of the formats: APPNOTE 4.3.7 and 4.3.12.


def _patch(path: Path, signature: bytes, offset: int, data: bytes, *, count: int = 1) -> None:
    content = bytearray(path.read_bytes())
    start = -1
    for _ in range(count):
        start = content.index(signature, start + 1)
    content[start + offset : start + offset + len(data)] = data
    path.write_bytes(content)


LOCAL, CENTRAL = b"PK\x03\x04", b"PK\x01\x02"


@pytest.fixture
def honest(tmp_path: Path) -> Path:
    path = tmp_path / "m.mar"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.py", "x = 1\n" * 100)
        archive.writestr("b.py", "y = 1\n" * 100)
    return path


def test_headers_that_disagree_on_the_name(honest: Path) -> None:
    _patch(honest, LOCAL, 30, b"c.py")
    _refuses_as_unsafe(honest, "the two headers of member 'a.py' disagree")


def test_headers_that_disagree_on_the_method(honest: Path) -> None:
    _patch(honest, LOCAL, 8, b"\0\0")
    _refuses_as_unsafe(honest, "the two headers of member 'a.py' disagree")


@pytest.mark.parametrize("offset", [18, 22])
def test_headers_that_disagree_on_a_size(honest: Path, offset: int) -> None:
    _patch(honest, LOCAL, offset, struct.pack("<L", 5))
    _refuses_as_unsafe(honest, "the two headers of member 'a.py' disagree")


def test_a_header_that_is_not_there(honest: Path) -> None:
    _patch(honest, LOCAL, 0, b"XX", count=2)
    _refuses_as_unsafe(honest, "the two headers of member 'b.py' disagree")


def test_an_encrypted_member(honest: Path) -> None:
    _patch(honest, LOCAL, 6, b"\1\0")
    _patch(honest, CENTRAL, 8, b"\1\0")
    _refuses_as_unsafe(honest, "'a.py' is encrypted")


def test_a_compression_that_torchserve_does_not_know(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.mar", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("a.py", "x")
    _refuses_as_unsafe(tmp_path / "m.mar", "'a.py' has compression method 12")


def test_members_that_share_their_data(honest: Path) -> None:
    """As in the bombs that make petabytes of a few kilobytes."""
    _patch(honest, CENTRAL, 42, struct.pack("<L", 0), count=2)
    _refuses_as_unsafe(honest, "overlaps another")


def test_data_that_reach_into_the_directory(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.mar", "w") as archive:
        archive.writestr("a.py", "x" * 10)
    for signature, offset in ((LOCAL, 18), (CENTRAL, 20)):
        _patch(tmp_path / "m.mar", signature, offset, struct.pack("<LL", 60, 60))
    _refuses_as_unsafe(tmp_path / "m.mar", "overlaps the central directory")


@pytest.mark.parametrize("size", [5, 60_000])
def test_a_size_that_is_a_lie(honest: Path, size: int) -> None:
    for signature, offset in ((LOCAL, 22), (CENTRAL, 24)):
        _patch(honest, signature, offset, struct.pack("<L", size))
    _refuses(honest, r"m\.mar: a\.py: ")


# What an archive may cost.


def test_more_bytes_than_allowed(honest: Path, tmp_path: Path) -> None:
    with (
        open_archive(honest) as archive,
        pytest.raises(UnsafeArchiveError, match=r"m\.mar: 1200 bytes unpacked, 1199 are allowed"),
    ):
        unpack(archive, tmp_path / "model", max_bytes=1199)
    assert [path.name for path in tmp_path.iterdir()] == ["m.mar"]


def test_zeros_are_honest(tmp_path: Path) -> None:
    """A tensor of zeros deflates a thousand times; that alone is no bomb."""
    with zipfile.ZipFile(tmp_path / "m.mar", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w.pt", bytes(8 << 20))
    _unpack(tmp_path / "m.mar", tmp_path / "model")
    assert (tmp_path / "model" / "w.pt").stat().st_size == 8 << 20


def test_more_bytes_than_the_disk_has(honest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lie = struct.pack("<L", 0xFFFFFFF0)
    for number in (1, 2):
        for signature, offset in ((LOCAL, 22), (CENTRAL, 24)):
            _patch(honest, signature, offset, lie, count=number)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 8, 1))
    _refuses(honest, "needs 8589934560 bytes, but .* has only 1 left")


def test_a_full_disk_leaves_nothing(make_plan: MakePlan, tmp_path: Path) -> None:
    noise = tmp_path / "noise"
    noise.write_bytes(os.urandom(2 << 20))
    write_archive(make_plan(members=(Member("w.pt", noise),)), tmp_path / "m.mar")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        _refuses(tmp_path / "m.mar", r"model: cannot be written: File too large")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_kill_leaves_nothing_that_anybody_would_use(make_plan: MakePlan, tmp_path: Path) -> None:
    write_archive(make_plan(format="dir", members=(Member("a.py", b"x"),)), tmp_path / "m")
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from hatch_mar.archive.read import open_archive\n"
        "from hatch_mar.archive.unpack import unpack\n"
        "def kill(event, arguments):\n"
        "    if event == 'os.symlink':\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "sys.addaudithook(kill)\n"
        "unpack(open_archive(Path(sys.argv[1])), Path(sys.argv[2]))\n"
    )
    into = tmp_path / "run" / "model"
    command = [sys.executable, "-c", code, str(tmp_path / "m"), str(into)]
    root = Path(unpack_module.__file__).parents[2]
    assert subprocess.run(command, check=False, cwd=root).returncode == -9
    assert not into.exists()
    _unpack(tmp_path / "m", into)
    assert (into / "a.py").is_file()


def test_data_after_an_honest_tar_member_order(tmp_path: Path) -> None:
    """Members are read in the order of the file, whatever their names."""
    with tarfile.open(tmp_path / "m.tar.gz", "w:gz") as archive:
        for name in ("m/z", "m/a", "m/k"):
            info = tarfile.TarInfo(name)
            info.size = 1
            archive.addfile(info, io.BytesIO(name[-1].encode()))
    _unpack(tmp_path / "m.tar.gz", tmp_path / "model")
    assert {path.name: path.read_text() for path in (tmp_path / "model").iterdir()} == {
        "a": "a",
        "k": "k",
        "z": "z",
    }
