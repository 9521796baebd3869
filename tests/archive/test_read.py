from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hatch_mar.archive.manifest import MANIFEST_NAME, Manifest
from hatch_mar.archive.plan import Member, Plan
from hatch_mar.archive.read import LARGEST_READ, open_archive
from hatch_mar.archive.seal import SEAL_NAME, Example
from hatch_mar.archive.write import make_seal, write_archive
from hatch_mar.errors import ArchiveError, UnsafeArchiveError
from hatch_mar.weights.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Callable

    MakePlan = Callable[..., Plan]

MANIFEST = json.dumps({"model": {"modelName": "old", "handler": "h.py"}})


def _zip(path: Path, members: dict[str, str], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return path


def _tgz(path: Path, members: dict[str, str]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, text in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return path


def test_every_format_reads_back(archive_file: Path, make_plan: MakePlan) -> None:
    plan = make_plan()
    with open_archive(archive_file) as archive:
        assert archive.manifest == plan.manifest
        assert archive.has_manifest
        assert archive.seal is not None
        assert archive.seal.members == make_seal(plan).members
        assert archive.config == {"minWorkers": 1, "maxWorkers": 2, "batchSize": 4}
        assert archive.warnings == []
        expected = {MANIFEST_NAME, SEAL_NAME, *(member.name for member in plan.members)}
        assert set(archive.names()) == expected
        for member in plan.members:
            data = Path(member.source).read_bytes() if isinstance(member.source, Path) else b""
            assert member.name in archive
            assert archive.size(member.name) == len(data)
            assert archive.read(member.name) == data
            assert archive.executable(member.name) == member.executable


def test_kinds_are_told_apart_by_content(archive_file: Path) -> None:
    kind = {"tgz": "tgz", "dir": "dir"}.get(archive_file.name.partition("-")[2], "mar")
    with open_archive(archive_file) as archive:
        assert archive.kind == kind
        assert (archive.file("handler.py") is None) == (kind != "dir")


def test_an_archive_of_torch_model_archiver(tmp_path: Path) -> None:
    path = _zip(tmp_path / "old.mar", {"h.py": "x", MANIFEST_NAME: MANIFEST})
    with open_archive(path) as archive:
        assert archive.manifest.model_name == "old"
        assert archive.seal is None
        assert archive.config is None
        assert archive.warnings == []


@pytest.mark.parametrize("name", ["some.mar", "some.model", "some"])
def test_without_a_manifest_the_file_names_the_model(tmp_path: Path, name: str) -> None:
    with open_archive(_zip(tmp_path / name, {"h.py": "x"})) as archive:
        assert not archive.has_manifest
        assert archive.manifest == Manifest(model_name="some")
        assert archive.warnings == ["MAR-INF/MANIFEST.json is missing"]


def test_of_two_manifests_the_last_counts(tmp_path: Path) -> None:
    path = tmp_path / "twice.mar"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(MANIFEST_NAME, json.dumps({"model": {"modelName": "first"}}))
        with pytest.warns(UserWarning, match="Duplicate"):
            file.writestr(MANIFEST_NAME, json.dumps({"model": {"modelName": "last"}}))
    with open_archive(path) as archive:
        assert archive.manifest.model_name == "last"
        assert archive.warnings == ["MAR-INF/MANIFEST.json is there twice; the last one counts"]


def test_a_directory_with_a_single_directory(tmp_path: Path) -> None:
    inner = tmp_path / "store" / "version"
    (inner / "MAR-INF").mkdir(parents=True)
    (inner / MANIFEST_NAME).write_text(MANIFEST)
    (inner / "h.py").write_text("x")
    (inner / "__pycache__").mkdir()
    (inner / "__pycache__" / "h.pyc").write_text("x")
    with open_archive(tmp_path / "store") as archive:
        assert archive.names() == [MANIFEST_NAME, "h.py"]


def test_a_directory_with_nothing_but_a_manifest_is_not_descended(tmp_path: Path) -> None:
    (tmp_path / "m" / "MAR-INF").mkdir(parents=True)
    (tmp_path / "m" / MANIFEST_NAME).write_text(MANIFEST)
    with open_archive(tmp_path / "m") as archive:
        assert archive.has_manifest


@pytest.mark.parametrize("top", ["old/", "any/", "./old/"])
def test_the_first_component_of_a_tgz_is_stripped(tmp_path: Path, top: str) -> None:
    path = _tgz(tmp_path / "old.tar.gz", {f"{top}h.py": "x", f"{top}{MANIFEST_NAME}": MANIFEST})
    with open_archive(path) as archive:
        assert archive.names() == ["h.py", MANIFEST_NAME]


@pytest.mark.parametrize("top", ["", "./"])
def test_a_tgz_without_a_top_directory(tmp_path: Path, top: str) -> None:
    path = _tgz(tmp_path / "old.tar.gz", {f"{top}h.py": "x", f"{top}{MANIFEST_NAME}": MANIFEST})
    with open_archive(path) as archive:
        assert archive.names() == ["h.py", MANIFEST_NAME]


def test_a_tgz_names_its_model(tmp_path: Path) -> None:
    with open_archive(_tgz(tmp_path / "net.tar.gz", {"net/h.py": "x"})) as archive:
        assert archive.manifest.model_name == "net"


def _manifest_with_config(**files: str) -> dict[str, str]:
    manifest = {"model": {"modelName": "m", "configFile": "c.yaml"}}
    return {MANIFEST_NAME: json.dumps(manifest), **files}


def test_an_empty_config_file(tmp_path: Path) -> None:
    path = _zip(tmp_path / "m.mar", _manifest_with_config(**{"c.yaml": "# nothing\n"}))
    with open_archive(path) as archive:
        assert archive.config == {}
        assert archive.warnings == ["c.yaml: is empty"]


def test_a_missing_config_file(tmp_path: Path) -> None:
    with open_archive(_zip(tmp_path / "m.mar", _manifest_with_config())) as archive:
        assert archive.config is None
        assert archive.warnings == ["c.yaml: named in the manifest, but not in the archive"]


@pytest.mark.parametrize(
    ("text", "message"),
    [("a: [1", "line 1"), ("- 1", "must be a mapping"), ("#" * (1 << 20) + "#", "too large")],
)
def test_a_broken_config_file(tmp_path: Path, text: str, message: str) -> None:
    path = _zip(tmp_path / "m.mar", _manifest_with_config(**{"c.yaml": text}))
    with (
        open_archive(path) as archive,
        pytest.raises(ArchiveError, match=rf"m\.mar: c\.yaml: .*{message}"),
    ):
        _ = archive.config


@pytest.fixture
def wheel(make_plan: MakePlan, tmp_path: Path) -> Path:
    plan = make_plan()
    path = tmp_path / "tiny-1.0-py3-none-any.whl"
    members = [*plan.sealed_members(), Member(SEAL_NAME, make_seal(plan).to_json())]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("tiny_mar/__init__.py", "")
        for member in members:
            data = member.source if isinstance(member.source, bytes) else member.source.read_bytes()
            file.writestr(f"tiny_mar/model/{member.name}", data)
        file.writestr(
            "tiny-1.0.dist-info/entry_points.txt", "[hatch_mar.models]\ntiny = tiny_mar\n"
        )
    return path


def test_a_wheel_is_an_archive(wheel: Path, make_plan: MakePlan) -> None:
    with open_archive(wheel) as archive:
        assert archive.kind == "wheel"
        assert archive.manifest == make_plan().manifest
        assert set(archive.names()) >= {"handler.py", "weights.pt", SEAL_NAME}
        assert archive.executable("run.sh"), "the seal remembers what the wheel forgot"


@pytest.mark.parametrize(
    "entry_points", ["", "[console_scripts]\nx = y:z\n", "[hatch_mar.models]\na = b\nc = d\n"]
)
def test_a_wheel_without_a_model(tmp_path: Path, entry_points: str) -> None:
    path = _zip(tmp_path / "x-1-py3-none-any.whl", {"x-1.dist-info/entry_points.txt": entry_points})
    with pytest.raises(ArchiveError, match=r"\.whl: a wheel without a model: no entry point"):
        open_archive(path)


def test_a_member_that_is_not_there(archive_file: Path) -> None:
    with open_archive(archive_file) as archive:
        for ask in (archive.read, archive.size, archive.open, archive.file):
            with pytest.raises(ArchiveError, match=r"no member 'nope'$"):
                ask("nope")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "neither a zip file, a gzipped tar nor a directory"),
        (b"hello", "neither a zip file"),
        (b"PK", "truncated, or no zip file"),
        (b"PK\x03\x04" + b"\0" * 100, "truncated, or no zip file"),
        (b"\x1f\x8b", "cannot be read: "),
        (b"\x1f\x8b\x08" + b"\0" * 100, "cannot be read: "),
    ],
)
def test_what_is_no_archive_says_so(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x.mar").write_bytes(content)
    with pytest.raises(ArchiveError) as caught:
        open_archive(tmp_path / "x.mar")
    assert str(caught.value).startswith(f"{tmp_path / 'x.mar'}: {message}")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match=r"nope\.mar: no such file or directory$"):
        open_archive(tmp_path / "nope.mar")


@pytest.mark.parametrize("form", ["mar", "tgz"])
def test_a_truncated_file_says_so(make_plan: MakePlan, tmp_path: Path, form: str) -> None:
    path = tmp_path / "cut"
    write_archive(make_plan(format=form), path)
    data = path.read_bytes()
    for length in (10, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(ArchiveError, match="cut: "):
            open_archive(path)


def test_a_tar_cut_between_members_is_noticed(make_plan: MakePlan, tmp_path: Path) -> None:
    path = tmp_path / "cut.tar.gz"
    write_archive(make_plan(format="tgz"), path)
    with tarfile.open(path) as archive:
        offset = archive.getmembers()[-1].offset
    whole = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(whole[:offset]))
    with pytest.raises(ArchiveError, match="the end-of-archive marker is missing"):
        open_archive(path)
    path.write_bytes(gzip.compress(whole[:offset] + b"rubbish " * 1000))
    with pytest.raises(ArchiveError, match="damaged after the last member"):
        open_archive(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, '{"model": 5}', r'{"a": "\ud800"}'])
def test_a_broken_manifest(tmp_path: Path, text: str) -> None:
    path = _zip(tmp_path / "m.mar", {MANIFEST_NAME: text})
    with pytest.raises(ArchiveError, match=r"m\.mar: MAR-INF/MANIFEST\.json: "):
        open_archive(path)


def test_damaged_data_are_noticed_when_read(make_plan: MakePlan, tmp_path: Path) -> None:
    path = tmp_path / "m.mar"
    write_archive(make_plan(), path)
    data = bytearray(path.read_bytes())
    data[data.index(bytes(range(256))) + 1000] ^= 1
    path.write_bytes(data)
    with (
        open_archive(path) as archive,
        pytest.raises(ArchiveError, match=r"m\.mar: weights\.pt: cannot be read: its checksum"),
    ):
        archive.read("weights.pt")


def _reseal(path: Path, *, drop: str | None = None, add: dict[str, bytes] | None = None) -> None:
    """Write the zip again, with members dropped and added behind the seal's back."""
    with zipfile.ZipFile(path) as old:
        members = {name: old.read(name) for name in old.namelist() if name != drop}
    with zipfile.ZipFile(path, "w") as new:
        for name, data in {**members, **(add or {})}.items():
            new.writestr(name, data)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"drop": "handler.py"}, "handler.py: is in the seal, but not in the archive"),
        ({"add": {"torch.py": b"evil"}}, "torch.py: is in the archive, but not in the seal"),
        ({"add": {"handler.py": b"longer" * 99}}, "handler.py: 594 bytes, but the seal says"),
    ],
)
def test_members_must_be_the_sealed_ones(
    make_plan: MakePlan, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = tmp_path / "m.mar"
    write_archive(make_plan(), path)
    _reseal(path, **changes)
    with pytest.raises(ArchiveError, match=message):
        open_archive(path)


def test_a_sealed_directory_is_its_sealed_members(make_plan: MakePlan, tmp_path: Path) -> None:
    path = tmp_path / "m"
    write_archive(make_plan(format="dir"), path)
    (path / "nested" / "__pycache__").mkdir()
    (path / "torch.py").write_text("evil")
    with open_archive(path) as archive:
        assert "torch.py" not in archive
    (path / "handler.py").unlink()
    with pytest.raises(ArchiveError, match=r"m: handler\.py: is in the seal, but not in the arch"):
        open_archive(path)


def test_an_example_must_be_in_the_archive(make_plan: MakePlan, tmp_path: Path) -> None:
    path = tmp_path / "m.mar"
    example = Example(input="handler.py", output="gone.json", content_type="text/plain")
    write_archive(make_plan(examples=(example,)), path)
    with pytest.raises(
        ArchiveError, match=r"m\.mar: 'gone\.json': an example, but not in the arch"
    ):
        open_archive(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": "../w.pt"}, r"member '\.\./w\.pt' holds"),
        ({"target": "handler.py/w.pt"}, "members 'handler.py' and 'handler.py/w.pt' collide"),
        ({"target": "handler.py"}, "members 'handler.py' and 'handler.py' collide"),
        ({"sha256": "0" * 63 + "/"}, r"not a seal: ValueError\(\"'0+/' is not a sha256"),
    ],
)
def test_references_are_not_trusted(
    make_plan: MakePlan, tmp_path: Path, change: dict[str, str], message: str
) -> None:
    path = tmp_path / "m.mar"
    good = Reference(target="big.pt", source="file:///w", sha256="0" * 64)
    write_archive(make_plan(references=(good,)), path)
    with open_archive(path) as archive:
        seal = archive.seal
    assert seal is not None
    bad = replace(seal, references=(replace(good, **change),))  # type: ignore[arg-type]
    _reseal(path, add={SEAL_NAME: bad.to_json()})
    with pytest.raises(ArchiveError, match=message):
        open_archive(path)


def test_a_link_out_of_an_unsealed_directory(tmp_path: Path) -> None:
    root = tmp_path / "m"
    root.mkdir()
    (root / "h.py").write_text("x")
    (root / "inside").symlink_to("h.py")
    with open_archive(root) as archive:
        assert archive.read("inside") == b"x"
    (root / "outside").symlink_to("/etc/hostname")
    with pytest.raises(UnsafeArchiveError, match=r"outside: a link that leaves the directory"):
        open_archive(root)


@pytest.mark.parametrize("target", ["nowhere", "sub"])
def test_links_that_are_no_files(tmp_path: Path, target: str) -> None:
    root = tmp_path / "m"
    (root / "sub").mkdir(parents=True)
    (root / "link").symlink_to(target)
    (root / "h.py").write_text("x")
    with pytest.raises(UnsafeArchiveError, match=r"link: not a file"):
        open_archive(root)


def test_an_open_archive_survives_its_file(archive_file: Path) -> None:
    with open_archive(archive_file) as archive:
        if archive.kind == "dir":
            shutil.rmtree(archive_file)
            with pytest.raises(ArchiveError, match=r"handler\.py: cannot be read: No such file"):
                archive.read("handler.py")
        else:
            archive_file.unlink()
            assert archive.read("handler.py").startswith(b"def handle")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.mar")
    with pytest.raises(ArchiveError, match="is not a file but a device or a pipe"):
        open_archive(tmp_path / "m.mar")


def test_what_is_too_big_for_memory_is_not_read(tmp_path: Path) -> None:
    """A few kilobytes of zip can stand for gigabytes of requirements.txt."""
    with zipfile.ZipFile(tmp_path / "m.mar", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("requirements.txt", bytes(LARGEST_READ + 1))
    with (
        open_archive(tmp_path / "m.mar") as archive,
        pytest.raises(UnsafeArchiveError, match=r"requirements\.txt: 67108865 bytes are too many"),
    ):
        archive.read("requirements.txt")
