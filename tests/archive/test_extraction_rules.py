"""Which files two readers could read in two ways, and are refused: a rule a test.

Offsets are those of PKWARE's APPNOTE 4.3 (zip) and of POSIX.1-2001 (pax). What a single name, a
size or a mode can do wrong is in `test_unpack.py`.
"""

from __future__ import annotations

import gzip
import io
import os
import stat
import struct
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hatch_mar.archive import tarred
from hatch_mar.archive import unpack as unpack_module
from hatch_mar.archive.names import find_flaw
from hatch_mar.archive.plan import Member, Plan
from hatch_mar.archive.read import open_archive
from hatch_mar.archive.tarball import make_tarball
from hatch_mar.archive.unpack import unpack, unpack_extra_files
from hatch_mar.archive.write import write_archive
from hatch_mar.errors import ArchiveError, UnsafeArchiveError

if TYPE_CHECKING:
    from collections.abc import Callable

    MakePlan = Callable[..., Plan]

LOCAL, CENTRAL, END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
ROOT = Path(unpack_module.__file__).parents[2]


def _zip(*members: tuple[str, bytes], deflated: bool = False) -> bytes:
    buffer = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if deflated else zipfile.ZIP_STORED
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return buffer.getvalue()


def _streamed(*members: tuple[str, bytes]) -> bytes:
    """A zip as it is written to a pipe: sizes follow the data."""

    class Pipe(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, data: object) -> int:
            written.extend(memoryview(data))  # type: ignore[arg-type]
            return len(memoryview(data))  # type: ignore[arg-type]

    written = bytearray()
    with zipfile.ZipFile(Pipe(), "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return bytes(written)


def _patched(data: bytes, signature: bytes, offset: int, value: bytes, *, nth: int = 1) -> bytes:
    at = -1
    for _ in range(nth):
        at = data.index(signature, at + 1)
    at += offset
    return data[:at] + value + data[at + len(value) :]


def _tar(*entries: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for entry, data in entries:
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def _entry(name: str, pax: dict[str, str] | None = None) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.pax_headers = pax or {}
    return entry


def _unpack(data: bytes, directory: Path) -> dict[str, bytes]:
    path = directory / "m.mar"
    path.write_bytes(data)
    with open_archive(path) as archive:
        unpack(archive, directory / "model")
    return {
        file.relative_to(directory / "model").as_posix(): file.read_bytes()
        for file in (directory / "model").rglob("*")
        if file.is_file()
    }


def _refuses(data: bytes, directory: Path, message: str) -> None:
    with pytest.raises(UnsafeArchiveError, match=message):
        _unpack(data, directory)
    assert [file.name for file in directory.iterdir()] == ["m.mar"]


AB = (("a.py", b"x = 1\n" * 9), ("b.py", b"y = 1\n" * 9))


# A zip is its members, its directory and its end, and nothing else.


def test_the_honest_zip_of_these_tests(tmp_path: Path) -> None:
    assert _unpack(_zip(*AB), tmp_path) == dict(AB)


def test_a_zip_that_was_written_to_a_pipe_is_honest(tmp_path: Path) -> None:
    assert _unpack(_streamed(*AB), tmp_path) == dict(AB)


def test_bytes_before_the_first_member(tmp_path: Path) -> None:
    """A stream reader sees the first zip, zipfile the second."""
    _refuses(_zip(("evil.py", b"1")) + _zip(*AB), tmp_path, "does not lie where the end record")


def test_bytes_before_the_first_member_that_offsets_know_of(tmp_path: Path) -> None:
    buffer = io.BytesIO(b"PK\x03\x04 is how this text starts")
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("a.py", "x")
    _refuses(buffer.getvalue(), tmp_path, "other bytes before the first member")


def test_bytes_after_the_end(tmp_path: Path) -> None:
    _refuses(_zip(*AB) + b"more", tmp_path, "other bytes after the end")


def test_a_second_zip_in_the_comment(tmp_path: Path) -> None:
    """Some readers look for the end record from the front, some from the back."""
    second = _zip(("evil.py", b"1"))
    data = _zip(*AB)
    data = data[:-2] + struct.pack("<H", len(second)) + second
    _refuses(data, tmp_path, "does not lie where the end record")


def test_an_honest_comment(tmp_path: Path) -> None:
    assert _unpack(_zip(*AB)[:-2] + struct.pack("<H", 2) + b"hi", tmp_path) == dict(AB)


def test_a_member_that_only_a_stream_reader_sees(tmp_path: Path) -> None:
    """Its local header lies between two members; the directory does not name it."""
    data = _zip(("a.py", b"x"), ("evil.py", b"1"), ("b.py", b"y"))
    first, second, third = (data.index(CENTRAL, at) for at in _positions(data, CENTRAL))
    data = data[:second] + data[third:]
    size = struct.pack("<L", data.index(END) - first)
    data = _patched(data, END, 8, struct.pack("<2H", 2, 2))
    _refuses(_patched(data, END, 12, size), tmp_path, "'a.py' is followed by bytes that belong")


def _positions(data: bytes, signature: bytes) -> list[int]:
    return [at for at in range(len(data)) if data.startswith(signature, at)]


def test_a_descriptor_that_says_something_else(tmp_path: Path) -> None:
    data = _patched(_streamed(*AB), b"PK\x07\x08", 8, struct.pack("<L", 7))
    _refuses(data, tmp_path, "'a.py' is followed by bytes that belong to no member")


def test_deflated_data_that_end_before_their_size(tmp_path: Path) -> None:
    """Behind the end of the stream there is room for a member that only a stream reader sees."""
    packed = _zip(("a.py", b"x" * 99), deflated=True)
    start, end = 30 + len("a.py"), packed.index(CENTRAL)
    data = packed[:end] + b"PK\x03\x04hidden" + packed[end:]
    size = struct.pack("<L", end - start + 10)
    data = _patched(_patched(data, LOCAL, 18, size), CENTRAL, 20, size)
    data = _patched(data, END, 16, struct.pack("<L", end + 10))
    with pytest.raises(ArchiveError, match=r"m\.mar: a\.py: cannot be read: there are other"):
        _unpack(data, tmp_path)


@pytest.mark.parametrize("count", [1, 3])
def test_a_count_that_is_a_lie(tmp_path: Path, count: int) -> None:
    data = _patched(_zip(*AB), END, 8, struct.pack("<2H", count, count))
    _refuses(data, tmp_path, f"2 members, but the end record says {count}")


def test_a_count_beyond_all_measure(tmp_path: Path) -> None:
    data = _patched(_zip(*AB), END, 8, struct.pack("<2H", 20_000, 20_000))
    _refuses(data, tmp_path, "more than 10000 members")


def test_a_directory_too_large_to_read(tmp_path: Path) -> None:
    padding = bytes(9 << 20)
    data = _zip(*AB)
    at = data.index(END)
    size = struct.pack("<L", at - data.index(CENTRAL) + len(padding))
    data = _patched(data[:at] + padding + data[at:], END, 12, size)
    _refuses(data, tmp_path, "a central directory of 94[0-9]{5} bytes")


def test_a_zip_in_several_files(tmp_path: Path) -> None:
    _refuses(_patched(_zip(*AB), END, 4, b"\1\0"), tmp_path, "a zip in several files")


# Zip64 says sizes a third time.


def _zip64_end(data: bytes, **changes: int) -> bytes:
    at = data.index(END)
    start = data.index(CENTRAL)
    fields = {"count": 2, "size": at - start, "start": start, "where": at, **changes}
    record = struct.pack(
        "<4sQ2H2L4Q",
        b"PK\x06\x06",
        44,
        45,
        45,
        0,
        0,
        *(fields["count"],) * 2,
        fields["size"],
        start,
    )
    return (
        data[:at] + record + struct.pack("<4sLQL", b"PK\x06\x07", 0, fields["where"], 1) + data[at:]
    )


def test_an_honest_zip64_end_record(tmp_path: Path) -> None:
    assert _unpack(_zip64_end(_zip(*AB)), tmp_path) == dict(AB)


def test_end_records_that_disagree(tmp_path: Path) -> None:
    _refuses(_zip64_end(_zip(*AB), count=1), tmp_path, "the two end records disagree")


def test_a_zip64_end_record_somewhere_else(tmp_path: Path) -> None:
    _refuses(_zip64_end(_zip(*AB), where=0), tmp_path, "zip64 end record is not where it should be")


def _with_zip64_sizes(path: Path) -> bytes:
    with zipfile.ZipFile(path, "w") as archive, archive.open("a.py", "w", force_zip64=True) as file:
        file.write(b"x = 1\n")
    return path.read_bytes()


def test_an_honest_zip64_member(tmp_path: Path) -> None:
    data = _with_zip64_sizes(tmp_path / "m.mar")
    assert _unpack(data, tmp_path) == {"a.py": b"x = 1\n"}


@pytest.mark.parametrize("offset", [4, 12])
def test_a_zip64_size_that_is_a_lie(tmp_path: Path, offset: int) -> None:
    data = _with_zip64_sizes(tmp_path / "m.mar")
    data = _patched(data, b"\1\0\x10\0", offset, struct.pack("<Q", 5))
    _refuses(data, tmp_path, "the two headers of member 'a.py' disagree")


# A member's two headers.


def test_headers_that_disagree_on_the_checksum(tmp_path: Path) -> None:
    data = _patched(_zip(*AB), LOCAL, 14, b"\0\0\0\0")
    _refuses(data, tmp_path, "the two headers of member 'a.py' disagree")


@pytest.mark.parametrize("flag", [0x1, 0x8, 0x800])
def test_headers_that_disagree_on_a_flag(tmp_path: Path, flag: int) -> None:
    data = _patched(_zip(*AB), LOCAL, 6, struct.pack("<H", flag))
    _refuses(data, tmp_path, "the two headers of member 'a.py' disagree")


def _with_unicode_path(path: Path, other: bytes) -> bytes:
    with zipfile.ZipFile(path, "w") as archive:
        info = zipfile.ZipInfo("a.py")
        info.extra = struct.pack("<2HBL", 0x7075, 5 + len(other), 1, 0) + other
        archive.writestr(info, "x")
    return path.read_bytes()


def test_a_second_name_in_an_extra_field(tmp_path: Path) -> None:
    data = _with_unicode_path(tmp_path / "m.mar", b"evil.py")
    with pytest.raises(UnsafeArchiveError, match=r"'a\.py' has a second name"):
        _unpack(data, tmp_path)


def test_the_same_name_in_an_extra_field_is_honest(tmp_path: Path) -> None:
    data = _with_unicode_path(tmp_path / "m.mar", b"a.py")
    assert _unpack(data, tmp_path) == {"a.py": b"x"}


@pytest.mark.parametrize("system", [0, 3, 19])
def test_a_link_whatever_the_system(tmp_path: Path, system: int) -> None:
    info = zipfile.ZipInfo("passwd")
    info.create_system = system
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "m.mar", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    _refuses((tmp_path / "m.mar").read_bytes(), tmp_path, "'passwd' is a link or a device")


# Directories are names too.


@pytest.mark.parametrize("name", ["../outside/", "/etc/", "a//", "a\\b/"])
def test_a_directory_that_is_no_name(tmp_path: Path, name: str) -> None:
    _refuses(_zip(*AB, (name, b"")), tmp_path, "member ")


def test_a_directory_where_a_file_is(tmp_path: Path) -> None:
    _refuses(_zip(*AB, ("A.py/", b"")), tmp_path, "'a.py' and 'A.py' collide")


def test_a_file_where_a_directory_is(tmp_path: Path) -> None:
    _refuses(_zip(("a/", b""), ("a", b"x")), tmp_path, "'a' and 'a' collide")


def test_a_directory_with_bytes(tmp_path: Path) -> None:
    _refuses(_zip(("a/", b"x")), tmp_path, "'a/' is a directory with bytes in it")


def test_directories_are_honest(tmp_path: Path) -> None:
    assert _unpack(_zip(("a/", b""), ("a/b/", b""), ("a/b/c", b"x")), tmp_path) == {"a/b/c": b"x"}


@pytest.mark.parametrize("name", ["aux.py", "a/NUL", "com1.tar.gz", "x/con/y", "lpt\u00b9"])
def test_names_of_devices(name: str) -> None:
    assert find_flaw(name) == "holds a name that Windows reserves for a device"


@pytest.mark.parametrize("name", ["auxiliary.py", "console", "a.con", "com.py", "nul1"])
def test_names_that_only_look_like_devices(name: str) -> None:
    assert find_flaw(name) is None


@pytest.mark.parametrize("name", ["a\x85b", "a\u202eyp.exe", "a\u2028b"])
def test_names_that_do_not_look_like_what_they_are(name: str) -> None:
    assert find_flaw(name) == "holds a control character"


# Tar: names and sizes that headers override.


def test_a_pax_path_counts(tmp_path: Path) -> None:
    data = _tar((_entry("m/harmless", {"path": "m/../../evil"}), b"x"))
    _refuses(gzip.compress(data), tmp_path, r"'\.\./\.\./evil' holds an empty, '\.' or '\.\.'")


def test_a_long_name_of_gnu_tar_counts(tmp_path: Path) -> None:
    name = "m/" + "d/" * 60 + "../" * 70 + "evil"
    data = _tar((_entry(name), b"x"), form=tarfile.GNU_FORMAT)
    _refuses(gzip.compress(data), tmp_path, "holds an empty, '.' or '..' component")


def test_a_pax_size_counts(tmp_path: Path) -> None:
    """Readers that go by the header's own size take the member's data for more headers."""
    inner = _tar((_entry("m/evil"), b"1"))
    data = bytearray(_tar((_entry("m/a", {"size": str(len(inner))}), inner)))
    at = data.index(b"m/a\0")
    data[at + 124 : at + 136] = b"%011o\0" % 0
    data[at + 148 : at + 156] = b" " * 8
    data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])
    assert _unpack(gzip.compress(bytes(data)), tmp_path) == {"a": inner}


@pytest.mark.parametrize("size", ["-512", "99999999999999999999", "many"])
def test_a_pax_size_that_is_none(tmp_path: Path, size: str) -> None:
    data = _tar((_entry("m/a", {"size": size}), b"x" * 600))
    with pytest.raises(ArchiveError, match=r"m\.mar: "):
        _unpack(gzip.compress(data), tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["m.mar"]


@pytest.mark.parametrize("key", ["GNU.sparse.name", "GNU.sparse.size", "GNU.sparse.realsize"])
def test_a_sparse_header_without_holes(tmp_path: Path, key: str) -> None:
    data = _tar((_entry("m/a", {key: "1"}), b"x"))
    _refuses(gzip.compress(data), tmp_path, "a sparse file")


def test_one_name_for_all_members(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(
        fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"path": "m/x"}
    ) as archive:
        archive.addfile(_entry("m/a"))
        archive.addfile(_entry("m/b"))
    _refuses(gzip.compress(buffer.getvalue()), tmp_path, "'x' and 'x' collide")


def test_the_top_directory_of_a_tar_is_no_member(tmp_path: Path) -> None:
    top = _entry("m")
    top.type = tarfile.DIRTYPE
    data = _tar((top, b""), (_entry("m/m"), b"x"))
    assert _unpack(gzip.compress(data), tmp_path) == {"m": b"x"}


def test_a_tar_directory_where_a_file_is(tmp_path: Path) -> None:
    directory = _entry("m/A")
    directory.type = tarfile.DIRTYPE
    data = _tar((_entry("m/a"), b"x"), (directory, b""))
    _refuses(gzip.compress(data), tmp_path, "'a' and 'A' collide")


def test_two_tars_in_a_row(tmp_path: Path) -> None:
    """Readers that stop at the first end of a gzip stream, or of a tar, see only the first."""
    both = gzip.compress(_tar((_entry("m/a"), b"x"))) + gzip.compress(_tar((_entry("m/b"), b"y")))
    with pytest.raises(ArchiveError, match="damaged after the last member that can be read"):
        _unpack(both, tmp_path)


def test_one_tar_in_two_gzip_streams_is_honest(tmp_path: Path) -> None:
    """As bgzip and pigz write it; RFC 1952 says that it is one file."""
    data = _tar((_entry("m/a"), b"x" * 2000))
    both = gzip.compress(data[:700]) + gzip.compress(data[700:])
    assert _unpack(both, tmp_path) == {"a": b"x" * 2000}


def test_bytes_after_a_gzip_stream(tmp_path: Path) -> None:
    data = gzip.compress(_tar((_entry("m/a"), b"x"))) + b"more"
    with pytest.raises(ArchiveError, match=r"m\.mar: cannot be read: Not a gzipped file"):
        _unpack(data, tmp_path)


# Archives in archives.


def test_a_tarball_whose_last_member_is_a_zip_is_a_tarball(tmp_path: Path) -> None:
    inner = _zip(*AB)
    (tmp_path / "extra").write_bytes(make_tarball({"lib.whl": inner}, gzip=False))
    unpack_extra_files(tmp_path / "extra", tmp_path)
    assert (tmp_path / "lib.whl").read_bytes() == inner


def test_a_tarball_whose_first_member_starts_like_a_zip(tmp_path: Path) -> None:
    (tmp_path / "extra").write_bytes(make_tarball({"PKG-INFO": b"x"}, gzip=False))
    unpack_extra_files(tmp_path / "extra", tmp_path)
    assert (tmp_path / "PKG-INFO").read_bytes() == b"x"


def test_a_tarball_in_a_tarball_stays_packed(tmp_path: Path) -> None:
    inner = _tar((_entry("../evil"), b"x"))
    (tmp_path / "model").mkdir()
    extra = tmp_path / "model" / "extra.tar"
    extra.write_bytes(make_tarball({"inner.tar": inner}, gzip=False))
    unpack_extra_files(extra, tmp_path / "model")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["extra.tar", "inner.tar", "model"]


def test_a_tar_with_a_zip_behind_it(tmp_path: Path) -> None:
    """Python's zipfile would open it as the zip."""
    data = make_tarball({"a.py": b"x"}, gzip=False) + _zip(("evil.py", b"1"))
    (tmp_path / "extra").write_bytes(data)
    with pytest.raises(ArchiveError, match="damaged after the last member that can be read"):
        unpack_extra_files(tmp_path / "extra", tmp_path)


def test_extra_files_do_not_follow_a_linked_directory(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "lib").symlink_to(tmp_path / "elsewhere")
    extra = tmp_path / "extra"
    extra.write_bytes(make_tarball({"lib/a.py": b"x"}, gzip=False))
    with pytest.raises(ArchiveError, match=r"extra: lib/a\.py: 'lib' is a link"):
        unpack_extra_files(extra, tmp_path / "model")
    assert not any((tmp_path / "elsewhere").iterdir())
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["lib"]


# A full disk and a killed process, for real.

CHILD = """
import os, sys
from pathlib import Path
from hatch_mar.archive.read import open_archive
from hatch_mar.archive.unpack import unpack, unpack_extra_files

def stop(event, arguments):
    if event == sys.argv[4] and sys.argv[5] in str(arguments) and "hatch-mar-" in str(arguments):
        os.write(1, b".")
        os.read(0, 1)

sys.addaudithook(stop)
if sys.argv[1] == "unpack":
    with open_archive(Path(sys.argv[2])) as archive:
        unpack(archive, Path(sys.argv[3]))
else:
    unpack_extra_files(Path(sys.argv[2]), Path(sys.argv[3]))
"""


def _kill_at(what: str, path: Path, into: Path, event: str, name: str) -> None:
    """Kill the child at the moment in which it is about to do `event` with a file `name`."""
    command = [sys.executable, "-c", CHILD, what, str(path), str(into), event, name]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    ) as child:
        assert child.stdout is not None
        assert child.stdout.read(1) == b".", "it came to the place"
        child.kill()
    assert child.returncode == -9


@pytest.mark.parametrize("form", ["mar", "tgz"])
@pytest.mark.parametrize(
    ("event", "name"), [("open", "handler.py"), ("open", "weights.pt"), ("os.rename", "model")]
)
def test_killed_while_unpacking(
    make_plan: MakePlan, tmp_path: Path, form: str, event: str, name: str
) -> None:
    write_archive(make_plan(format=form), tmp_path / "m")
    run = tmp_path / "run"
    _kill_at("unpack", tmp_path / "m", run / "model", event, name)
    (left,) = run.iterdir()
    assert left.name.startswith(".hatch-mar-"), "nothing has a name that anybody looks for"
    with open_archive(tmp_path / "m") as archive:
        unpack(archive, run / "model")
    assert (run / "model" / "weights.pt").stat().st_size == 256 * 5000


@pytest.mark.parametrize(("event", "name"), [("open", "/b"), ("os.link", "/b")])
def test_killed_among_extra_files(tmp_path: Path, event: str, name: str) -> None:
    """Files that have their names already are whole; the next start adds the others."""
    model = tmp_path / "model"
    model.mkdir()
    files: dict[str, Path | bytes] = {"a": b"first", "b": b"second", "c": b"third"}
    (tmp_path / "extra").write_bytes(make_tarball(files, gzip=True))
    _kill_at("extra", tmp_path / "extra", model, event, name)
    named = {path.name: path.read_bytes() for path in model.iterdir() if path.is_file()}
    assert named.items() <= files.items()
    unpack_extra_files(tmp_path / "extra", model)
    assert {name: (model / name).read_bytes() for name in files} == files


def _tgz(path: Path, size: int, announced: int) -> Path:
    """A gzipped tar of one member of zeros, in which it says that it has `announced` bytes."""
    entry = tarfile.TarInfo("m/w.pt")
    entry.size = announced
    data = entry.tobuf() + bytes(size + -size % 512 + 1024)
    path.write_bytes(gzip.compress(data))
    return path


def test_a_gzip_of_little_but_zeros_is_not_unpacked_to_be_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = _tgz(tmp_path / "m.tar.gz", 40 << 20, 40 << 20)
    with open_archive(bomb) as archive:
        assert archive.size("w.pt") == 40 << 20
    monkeypatch.setattr(tarred, "MODERATE", 1 << 20)
    with pytest.raises(UnsafeArchiveError, match=r"unpacks to more than .* pack it as a zip"):
        open_archive(bomb)


def test_a_member_that_says_more_than_any_gzip_may_hold(tmp_path: Path) -> None:
    lie = _tgz(tmp_path / "m.tar.gz", 10, 1 << 38)
    with pytest.raises(UnsafeArchiveError, match="unpacks to more than 17,179,869,184 bytes"):
        open_archive(lie)


FULL_DISK = """
import resource, subprocess, sys
from pathlib import Path
from hatch_mar.archive import unpack as module
from hatch_mar.archive.read import open_archive
from hatch_mar.errors import ArchiveError

how, archive, disk = sys.argv[1], *map(Path, sys.argv[2:])
if how == "mount":
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", disk], check=True)
else:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
# Another process takes the room after we looked.
module._check_room = lambda *_: None
with open_archive(archive) as archive:
    try:
        module.unpack(archive, disk / "run" / "model")
    except ArchiveError as error:
        print(error)
print([path.name for path in (disk / "run").iterdir()])
"""


@pytest.mark.parametrize("how", [pytest.param("mount", marks=pytest.mark.namespaces), "limit"])
def test_a_disk_that_runs_full(make_plan: MakePlan, tmp_path: Path, how: str) -> None:
    """A real file system of one megabyte, and a kernel that lets no file have more."""
    noise = tmp_path / "noise"
    noise.write_bytes(os.urandom(2 << 20))
    members = (Member("a.py", b"x"), Member("w.pt", noise))
    write_archive(make_plan(members=members), tmp_path / "m.mar")
    (tmp_path / "disk").mkdir()
    command = [
        sys.executable,
        "-c",
        FULL_DISK,
        how,
        str(tmp_path / "m.mar"),
        str(tmp_path / "disk"),
    ]
    reason = "File too large"
    if how == "mount":
        command, reason = ["unshare", "-Urm", *command], "No space left on device"
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.stdout.splitlines() == [
        f"{tmp_path}/disk/run/model: cannot be written: {reason}",
        "[]",
    ]
