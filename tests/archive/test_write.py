from __future__ import annotations

import gzip
import hashlib
import io
import os
import resource
import stat
import tarfile
import tracemalloc
import zipfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import pytest

from hatch_mar.archive.manifest import MANIFEST_NAME, Manifest
from hatch_mar.archive.plan import Member, Plan
from hatch_mar.archive.seal import SEAL_NAME, Digest, Packing, Seal
from hatch_mar.archive.write import Entry, Recipe, make_seal, pack, write_archive
from hatch_mar.errors import ArchiveError
from hatch_mar.weights.reference import Reference
from tests.support.disk import zeros_take_no_room

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    MakePlan = Callable[..., Plan]

MIB = 1 << 20


def _tree(directory: Path) -> dict[str, tuple[bytes, int]]:
    return {
        path.relative_to(directory).as_posix(): (path.read_bytes(), path.stat().st_mode & 0o777)
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def _names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def _bytes(path: Path) -> object:
    return _tree(path) if path.is_dir() else path.read_bytes()


def test_a_mar_is_stored_sorted_and_sealed_last(make_plan: MakePlan, tmp_path: Path) -> None:
    plan = make_plan()
    path = tmp_path / "out.mar"
    seal = write_archive(plan, path)
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        assert names == [*sorted(names[:-1]), SEAL_NAME]
        assert archive.read(SEAL_NAME) == seal.to_json()
        assert archive.read(MANIFEST_NAME) == plan.manifest.to_json()
        for info in archive.infolist():
            assert info.compress_type == zipfile.ZIP_STORED
            assert info.date_time == (2020, 2, 2, 0, 0, 0)
            assert info.create_system == 3
            mode = 0o755 if info.filename == "run.sh" else 0o644
            assert info.external_attr >> 16 == stat.S_IFREG | mode
            assert not info.flag_bits & 0x8, "TorchServe refuses data descriptors"
            assert not info.extra


def test_a_mar_can_be_deflated(make_plan: MakePlan, tmp_path: Path) -> None:
    write_archive(make_plan(compression="deflated"), tmp_path / "out.mar")
    with zipfile.ZipFile(tmp_path / "out.mar") as archive:
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_DEFLATED}
        assert not any(info.flag_bits & 0x8 for info in archive.infolist())
        assert archive.testzip() is None


def test_a_tgz_has_everything_below_the_name(make_plan: MakePlan, tmp_path: Path) -> None:
    path = tmp_path / "out.tar.gz"
    write_archive(make_plan(format="tgz"), path)
    assert path.read_bytes()[3:8] == b"\0" * 5, "no flags, so no file name, and no time"
    with tarfile.open(path) as archive:
        for member in archive:
            assert member.name.startswith("tiny/")
            assert member.mode == (0o755 if member.name == "tiny/run.sh" else 0o644)
            assert (member.uid, member.gid, member.uname, member.gname) == (0, 0, "", "")
            assert member.mtime == 1580601600


def test_a_directory_has_copies(make_plan: MakePlan, tmp_path: Path) -> None:
    plan = make_plan(format="dir")
    write_archive(plan, tmp_path / "out")
    tree = _tree(tmp_path / "out")
    assert tree["handler.py"] == (Path(cast("Path", plan.members[0].source)).read_bytes(), 0o644)
    assert tree["run.sh"][1] == 0o755
    assert not any(path.is_symlink() for path in (tmp_path / "out").rglob("*"))


def test_the_seal_says_what_every_member_is(make_plan: MakePlan, tmp_path: Path) -> None:
    plan = make_plan()
    seal = write_archive(plan, tmp_path / "out.mar")
    assert set(seal.members) == {MANIFEST_NAME, *(member.name for member in plan.members)}
    data = cast("Path", plan.members[0].source).read_bytes()
    assert seal.members["handler.py"] == Digest(hashlib.sha256(data).hexdigest(), len(data))
    assert seal.members["run.sh"].executable
    assert Seal.from_json(seal.to_json()) == seal


@pytest.mark.parametrize("form", ["mar", "tgz", "dir"])
def test_the_seal_is_the_same_without_an_archive(
    make_plan: MakePlan, tmp_path: Path, form: str
) -> None:
    plan = make_plan(format=form)
    assert make_seal(plan) == write_archive(plan, tmp_path / "out")


@pytest.mark.parametrize("form", ["mar", "tgz", "dir"])
def test_nothing_of_the_machine_is_in_the_bytes(
    make_plan: MakePlan, model_files: dict[str, Path], tmp_path: Path, form: str
) -> None:
    plan = make_plan(format=form)
    write_archive(plan, tmp_path / "first")
    for path in model_files.values():
        os.utime(path, (1, 1))
        path.chmod(0o600)
    mask = os.umask(0o077)
    try:
        reordered = make_plan(format=form, members=plan.members[::-1])
        write_archive(reordered, tmp_path / "elsewhere" / "second")
    finally:
        os.umask(mask)
    assert _bytes(tmp_path / "first") == _bytes(tmp_path / "elsewhere" / "second")


def test_the_bytes_of_a_mar_are_these(tmp_path: Path) -> None:
    """Whatever Python writes it; a change here breaks everybody's pinned digests."""
    manifest = Manifest(model_name="a", model_version="1", handler="h.py")
    plan = Plan(
        name="a",
        version="1",
        manifest=manifest,
        members=(Member("h.py", b"x = 1\n"), Member("s/run", b"#!\n", executable=True)),
        runtime="custom",
        filename="a.mar",
    )
    write_archive(plan, tmp_path / "a.mar")
    digest = hashlib.sha256((tmp_path / "a.mar").read_bytes()).hexdigest()
    assert digest == "8932d7e063a77d25f8e35a7c020d4bffadbe7eaed78ab35fa595134539990f10"


def test_the_time_is_the_manifests(make_plan: MakePlan, tmp_path: Path) -> None:
    manifest = Manifest(model_name="tiny", created_on="01/03/2024 04:05:06")
    write_archive(make_plan(manifest=manifest), tmp_path / "out.mar")
    with zipfile.ZipFile(tmp_path / "out.mar") as archive:
        assert {info.date_time for info in archive.infolist()} == {(2024, 3, 1, 4, 5, 6)}


@pytest.mark.parametrize("form", ["mar", "tgz", "dir"])
def test_big_files_are_streamed(make_plan: MakePlan, tmp_path: Path, form: str) -> None:
    big = tmp_path / "big.pt"
    with big.open("wb") as file:
        file.truncate(64 * MIB)
    plan = make_plan(format=form, members=(Member("big.pt", big),))
    tracemalloc.start()
    try:
        write_archive(plan, tmp_path / "out")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * MIB


@pytest.mark.slow
def test_members_beyond_4_gib(make_plan: MakePlan, tmp_path: Path) -> None:
    big = tmp_path / "big.pt"
    with big.open("wb") as file:
        file.truncate((4 << 30) + 5)
    plan = make_plan(members=(Member("big.pt", big), Member("z.txt", b"after")))
    with zeros_take_no_room(tmp_path):
        write_archive(plan, tmp_path / "out.mar")
    with zipfile.ZipFile(tmp_path / "out.mar") as archive:
        assert archive.getinfo("big.pt").file_size == (4 << 30) + 5
        assert archive.read("z.txt") == b"after"
        assert not any(info.flag_bits & 0x8 for info in archive.infolist())


@pytest.mark.parametrize("form", ["mar", "tgz", "dir"])
def test_an_archive_is_replaced(make_plan: MakePlan, tmp_path: Path, form: str) -> None:
    path = tmp_path / "out" / "tiny"
    write_archive(make_plan(format=form, members=(Member("old.txt", b"old"),)), path)
    write_archive(make_plan(format=form), path)
    write_archive(make_plan(format=form), tmp_path / "fresh")
    assert _bytes(path) == _bytes(tmp_path / "fresh")
    assert _names(path.parent) == ["tiny"]


def test_a_directory_that_is_no_archive_is_left_alone(make_plan: MakePlan, tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.mkdir()
    (path / "thesis.tex").write_text("years of work")
    with pytest.raises(ArchiveError, match=r"out: a directory that is no model archive; remove"):
        write_archive(make_plan(format="dir"), path)
    assert (path / "thesis.tex").read_text() == "years of work"


class _Broken(io.RawIOBase):
    """A source that fails after its first bytes."""

    def __init__(self, error: BaseException) -> None:
        self._error = error
        self._reads = 0

    def read(self, size: int = -1, /) -> bytes:
        self._reads += 1
        if self._reads == 1:
            return b"x" * size
        raise self._error


@pytest.mark.parametrize("form", ["mar", "tgz", "dir"])
@pytest.mark.parametrize(
    ("error", "raised"),
    [(KeyboardInterrupt(), KeyboardInterrupt), (OSError(5, "bad disk"), ArchiveError)],
)
def test_nothing_is_left_of_a_failure(
    tmp_path: Path, form: str, error: BaseException, raised: type[BaseException]
) -> None:
    entry = Entry(
        name="a.pt",
        size=4 * MIB,
        executable=False,
        origin="a.pt",
        open=lambda: cast("BinaryIO", _Broken(error)),
    )
    recipe = Recipe(manifest=Manifest(model_name="m"), packing=Packing(format=form))  # type: ignore[arg-type]
    with pytest.raises(raised):
        pack([entry], lambda _: b"", tmp_path / "out", recipe)
    assert _names(tmp_path) == []


@contextmanager
def _file_size_limit(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("form", ["mar", "tgz", "dir"])
def test_nothing_is_left_when_writing_fails(make_plan: MakePlan, tmp_path: Path, form: str) -> None:
    noise = tmp_path / "noise"
    noise.write_bytes(os.urandom(2 * MIB))
    out = tmp_path / "out" / "tiny"
    plan = make_plan(format=form, members=(Member("noise", noise),))
    with (
        _file_size_limit(MIB),
        pytest.raises(ArchiveError, match=r"tiny: cannot be written: File too large"),
    ):
        write_archive(plan, out)
    assert _names(out.parent) == []


def test_a_failure_keeps_the_old_archive(make_plan: MakePlan, tmp_path: Path) -> None:
    for form in ("mar", "dir"):
        path = tmp_path / form
        write_archive(make_plan(format=form), path)
        before = _bytes(path)
        broken = make_plan(format=form, members=(Member("gone", tmp_path / "gone"),))
        with pytest.raises(ArchiveError, match=r"gone: cannot be read: No such file"):
            write_archive(broken, path)
        assert _bytes(path) == before


@pytest.mark.parametrize("form", ["mar", "tgz", "dir"])
def test_a_source_that_changes_is_noticed(make_plan: MakePlan, tmp_path: Path, form: str) -> None:
    # The kernel says that this file is empty, and then it is not.
    plan = make_plan(format=form, members=(Member("a", Path("/proc/self/status")),))
    with pytest.raises(ArchiveError, match=r"^/proc/self/status: changed while it was being read"):
        write_archive(plan, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_source_that_shrinks_is_noticed(tmp_path: Path) -> None:
    entry = Entry(
        name="a", size=5, executable=False, origin="a.txt", open=lambda: io.BytesIO(b"four")
    )
    for form in ("mar", "tgz", "dir"):
        recipe = Recipe(manifest=Manifest(model_name="m"), packing=Packing(format=form))
        with pytest.raises(ArchiveError, match=r"^a\.txt: changed while it was being read"):
            pack([entry], lambda _: b"", tmp_path / "out", recipe)
    assert _names(tmp_path) == []


@pytest.mark.parametrize("name", [MANIFEST_NAME, SEAL_NAME, "HANDLER.PY", "../x", "handler.py/x"])
def test_members_that_cannot_be_are_refused(make_plan: MakePlan, tmp_path: Path, name: str) -> None:
    plan = make_plan()
    with pytest.raises(ArchiveError, match=r"^tiny-1\.0\.mar: members? "):
        write_archive(make_plan(members=(*plan.members, Member(name, b""))), tmp_path / "out.mar")
    assert not (tmp_path / "out.mar").exists()


def test_a_member_that_is_also_a_reference(make_plan: MakePlan, tmp_path: Path) -> None:
    reference = Reference(target="weights.pt", source="file:///w.pt", sha256="0" * 64)
    with pytest.raises(ArchiveError, match=r"members 'weights\.pt' and 'weights\.pt' collide"):
        write_archive(make_plan(references=(reference,)), tmp_path / "out.mar")


def test_a_directory_in_the_way_of_a_file(make_plan: MakePlan, tmp_path: Path) -> None:
    (tmp_path / "out.mar").mkdir()
    with pytest.raises(ArchiveError, match=r"out\.mar: cannot be written: Is a directory"):
        write_archive(make_plan(), tmp_path / "out.mar")
    assert _names(tmp_path) == ["out.mar", "project"]


def test_gzip_reads_back(make_plan: MakePlan, tmp_path: Path) -> None:
    write_archive(make_plan(format="tgz"), tmp_path / "out.tar.gz")
    assert len(gzip.decompress((tmp_path / "out.tar.gz").read_bytes())) % 10240 == 0
