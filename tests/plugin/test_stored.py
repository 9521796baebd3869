"""A wheel that big files are added to is still a wheel."""

from __future__ import annotations

import csv
import hashlib
import io
import signal
import stat
import struct
import subprocess
import sys
import zipfile
from base64 import urlsafe_b64encode
from pathlib import Path

import pytest

from hatch_mar.archive.plan import Member
from hatch_mar.archive.staging import PREFIX
from hatch_mar.plugin.stored import add_stored

WHEN = (2020, 2, 2, 0, 0, 0)
LOCAL_HEADER = struct.Struct("<4s5H3L2H")
ROOT = Path(__file__).parents[2]


def row(name: str, data: bytes) -> list[str]:
    digest = urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return [name, f"sha256={digest}", str(len(data))]


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """A wheel as hatchling writes one."""
    path = tmp_path / "demo-1.0-py3-none-any.whl"
    files = {"demo/__init__.py": b"x = 1\n", "demo-1.0.dist-info/METADATA": b"Name: demo\n"}
    text = io.StringIO()
    record = "demo-1.0.dist-info/RECORD"
    rows = [*(row(name, data) for name, data in files.items()), [record, "", ""]]
    csv.writer(text, lineterminator="\n").writerows(rows)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in {**files, record: text.getvalue().encode()}.items():
            info = zipfile.ZipInfo(name, WHEN)
            info.external_attr = 0o100644 << 16
            archive.writestr(info, data, zipfile.ZIP_DEFLATED)
    path.chmod(0o644)
    return path


def test_the_record_names_every_file_with_its_digest(wheel: Path, tmp_path: Path) -> None:
    (tmp_path / "big.bin").write_bytes(b"\0\1" * 1000)
    add_stored(wheel, [Member("demo/a,b.bin", tmp_path / "big.bin"), Member("demo/c", b"c")])
    with zipfile.ZipFile(wheel) as archive:
        rows = list(csv.reader(io.StringIO(archive.read("demo-1.0.dist-info/RECORD").decode())))
        wanted = [row(name, archive.read(name)) for name in archive.namelist()[:-1]]
        assert rows == [*wanted, ["demo-1.0.dist-info/RECORD", "", ""]]
        assert archive.testzip() is None


def test_metadata_come_last(wheel: Path) -> None:
    add_stored(wheel, [Member("demo/z", b"z"), Member("demo/a", b"a")])
    with zipfile.ZipFile(wheel) as archive:
        assert archive.namelist() == [
            "demo/__init__.py",
            "demo/a",
            "demo/z",
            "demo-1.0.dist-info/METADATA",
            "demo-1.0.dist-info/RECORD",
        ]


def test_a_wheel_that_another_hook_put_a_file_into_is_still_right(wheel: Path) -> None:
    record = "demo-1.0.dist-info/RECORD"
    with zipfile.ZipFile(wheel) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    files[record] = files[record].replace(b"demo-1.0", b"demo/late,,\ndemo-1.0", 1)
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, data in {**files, "demo/late": b""}.items():
            archive.writestr(name, data)
    add_stored(wheel, [Member("demo/big", b"big")])
    with zipfile.ZipFile(wheel) as archive:
        rows = [line[0] for line in csv.reader(io.StringIO(archive.read(record).decode()))]
        assert rows == archive.namelist()
        assert rows[1:3] == ["demo/late", "demo/big"]
        assert rows[-1] == record


def test_what_is_added_is_stored_with_its_size_in_front_of_it(wheel: Path) -> None:
    add_stored(wheel, [Member("demo/weights", b"w" * 70_000)])
    with zipfile.ZipFile(wheel) as archive:
        info = archive.getinfo("demo/weights")
        assert (info.compress_type, info.date_time) == (zipfile.ZIP_STORED, WHEN)
    header = wheel.read_bytes()[info.header_offset :][: LOCAL_HEADER.size]
    _, _, flags, _, _, _, _, packed, size, _, extra = LOCAL_HEADER.unpack(header)
    assert (flags, packed, size, extra) == (0, 70_000, 70_000, 0)


def test_a_program_stays_one(wheel: Path) -> None:
    add_stored(wheel, [Member("demo/tool", b"#!", executable=True), Member("demo/data", b"")])
    with zipfile.ZipFile(wheel) as archive:
        modes = [archive.getinfo(f"demo/{name}").external_attr >> 16 for name in ("tool", "data")]
    assert modes == [stat.S_IFREG | 0o755, stat.S_IFREG | 0o644]


def test_the_same_additions_are_the_same_bytes(wheel: Path, tmp_path: Path) -> None:
    before = wheel.read_bytes()
    members = [Member("demo/b", b"b"), Member("demo/a", b"a")]
    add_stored(wheel, members)
    once = wheel.read_bytes()
    wheel.write_bytes(before)
    add_stored(wheel, members[::-1])
    assert wheel.read_bytes() == once
    assert stat.S_IMODE(wheel.stat().st_mode) == 0o644


def test_a_file_that_cannot_be_read_leaves_the_wheel_as_it_was(wheel: Path) -> None:
    before = wheel.read_bytes()
    with pytest.raises(OSError, match="gone"):
        add_stored(wheel, [Member("demo/gone", wheel.with_name("gone"))])
    assert wheel.read_bytes() == before
    assert list(wheel.parent.iterdir()) == [wheel]


KILLED = """
import os, signal, sys
from pathlib import Path
from hatch_mar.archive.plan import Member
from hatch_mar.plugin.stored import add_stored

wheel, big = map(Path, sys.argv[1:])

def kill(event, arguments):
    if event == "open" and arguments[0] == str(big):
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(kill)
add_stored(wheel, [Member("demo/big.bin", big)])
"""


def test_a_build_that_is_killed_leaves_no_half_wheel(wheel: Path, tmp_path: Path) -> None:
    """Without its weights it would install, and fail when it is served."""
    (tmp_path / "big.bin").write_bytes(b"big")
    command = [sys.executable, "-c", KILLED, str(wheel), str(tmp_path / "big.bin")]
    assert subprocess.run(command, check=False, cwd=ROOT).returncode == -signal.SIGKILL
    assert not wheel.exists()
    assert all(path.name.startswith(PREFIX) for path in tmp_path.iterdir() if path.suffix != ".bin")


def test_what_fails_leaves_the_wheel_as_it_was(wheel: Path, tmp_path: Path) -> None:
    before = wheel.read_bytes()
    with pytest.raises(FileNotFoundError):
        add_stored(wheel, [Member("demo/big.bin", tmp_path / "gone.bin")])
    assert wheel.read_bytes() == before
    assert list(tmp_path.iterdir()) == [wheel]
