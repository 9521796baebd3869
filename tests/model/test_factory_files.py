"""What the factory does to a model directory: extra files unpacked, hooks run once."""

from __future__ import annotations

import io
import json
import shutil
import stat
import subprocess
import sys
import tarfile
import zipfile
from typing import TYPE_CHECKING, Any

import pytest

from hatch_mar.model import factory
from hatch_mar.model.factory import once, run_install_hook, unpack, unpack_extra_files

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FILES = {"pkg/__init__.py": b"", "pkg/deep/data.txt": b"hello"}


def tar(path: Path, files: dict[str, bytes], how: Any = "w", **more: Any) -> Path:
    with tarfile.open(path, how) as box:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in more.items():
                setattr(info, key, value)
            box.addfile(info, io.BytesIO(content))
    return path


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as box:
        for name, content in files.items():
            box.writestr(name, content)
    return path


MAKERS: dict[str, Callable[[Path, dict[str, bytes]], Path]] = {
    "tar": tar,
    "tar.gz": lambda path, files: tar(path, files, "w:gz"),
    "zip": zipped,
}


def tree(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and path.name != "box"
    }


@pytest.fixture
def into(tmp_path: Path) -> Path:
    directory = tmp_path / "into"
    directory.mkdir()
    return directory


@pytest.mark.parametrize("kind", MAKERS)
def test_an_archive_is_told_by_its_content(tmp_path: Path, into: Path, kind: str) -> None:
    unpack(MAKERS[kind](tmp_path / "box.bin", FILES), into)
    assert tree(into) == FILES


def test_a_leading_dot_is_no_directory(tmp_path: Path, into: Path) -> None:
    unpack(tar(tmp_path / "box", {"./a.py": b"1"}), into)
    assert tree(into) == {"a.py": b"1"}


def test_scripts_stay_executable(tmp_path: Path, into: Path) -> None:
    unpack(tar(tmp_path / "box", {"run.sh": b""}, mode=0o755), into)
    assert (into / "run.sh").stat().st_mode & stat.S_IXUSR


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("../evil.py", "leaves the model's directory"),
        ("/evil.py", "leaves the model's directory"),
        ("a/../../evil.py", "leaves the model's directory"),
        ("a\\evil.py", "leaves the model's directory"),
        ("MAR-INF/MANIFEST.json", "is in a reserved directory"),
        (".hatch-mar/x.done", "is in a reserved directory"),
    ],
)
def test_a_member_stays_inside(tmp_path: Path, into: Path, kind: str, name: str, said: str) -> None:
    box = MAKERS[kind](tmp_path / "box", {"good.py": b"1", name: b"2"})
    with pytest.raises(ValueError, match=said):
        unpack(box, into)
    assert tree(into) == {}
    assert not (tmp_path / "evil.py").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_a_tar_with_a_link_or_a_device_is_refused(tmp_path: Path, into: Path, kind: bytes) -> None:
    box = tar(tmp_path / "box", {"link": b""}, type=kind, linkname="/etc/passwd")
    with pytest.raises(ValueError, match="'link' is a link or a device"):
        unpack(box, into)


def test_a_zip_with_a_link_is_refused(tmp_path: Path, into: Path) -> None:
    info = zipfile.ZipInfo("link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "box", "w") as box:
        box.writestr(info, "/etc/passwd")
    with pytest.raises(ValueError, match="'link' is a link"):
        unpack(tmp_path / "box", into)


def test_a_name_that_comes_twice_is_refused(tmp_path: Path, into: Path) -> None:
    with tarfile.open(tmp_path / "box", "w") as box:
        for _ in range(2):
            box.addfile(tarfile.TarInfo("a.py"))
    with pytest.raises(ValueError, match=r"'a\.py' comes twice"):
        unpack(tmp_path / "box", into)


def test_a_bomb_is_refused(tmp_path: Path, into: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(factory, "MAX_BYTES", 9_999_999)
    box = zipped(tmp_path / "box", {"zeros": bytes(10_000_000)})
    with pytest.raises(ValueError, match="more bytes than there is room for"):
        unpack(box, into)
    assert tree(into) == {}


def test_zeros_are_honest(tmp_path: Path, into: Path) -> None:
    unpack(zipped(tmp_path / "box", {"zeros.bin": bytes(80_000_000)}), into)
    assert (into / "zeros.bin").stat().st_size == 80_000_000


def test_another_file_in_the_way_is_left_alone(tmp_path: Path, into: Path) -> None:
    (into / "handler.py").write_text("mine")
    with pytest.raises(ValueError, match=r"box: there is another 'handler\.py'"):
        unpack(tar(tmp_path / "box", {"a.py": b"1", "handler.py": b"theirs"}), into)
    assert tree(into) == {"handler.py": b"mine"}


def test_the_same_file_may_come_again(tmp_path: Path, into: Path) -> None:
    (into / "a.py").write_text("1")
    unpack(tar(tmp_path / "box", {"a.py": b"1", "b.py": b"2"}), into)
    assert tree(into) == {"a.py": b"1", "b.py": b"2"}


def test_too_many_members_are_refused(
    tmp_path: Path, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(factory, "MAX_MEMBERS", 2)
    with pytest.raises(ValueError, match="more than 2 members"):
        unpack(tar(tmp_path / "box", dict.fromkeys("abc", b"")), into)


@pytest.mark.parametrize(
    "content", [b"", b"text", b"PK\x03\x04broken", b"\x1f\x8bbroken"], ids=repr
)
def test_what_is_no_archive_is_named(tmp_path: Path, into: Path, content: bytes) -> None:
    (tmp_path / "box").write_bytes(content)
    with pytest.raises(ValueError, match="box: not a whole tar"):
        unpack(tmp_path / "box", into)


def test_a_truncated_archive_leaves_nothing(tmp_path: Path, into: Path) -> None:
    whole = tar(tmp_path / "whole", {"a.py": b"x" * 5000, "b.py": b"y" * 5000}).read_bytes()
    (tmp_path / "box").write_bytes(whole[:7000])
    with pytest.raises(ValueError, match="box: not a whole tar"):
        unpack(tmp_path / "box", into)
    assert tree(into) == {}


def write_model(directory: Path, extra_files: Any, config: str = "model-config.yaml") -> None:
    (directory / "MAR-INF").mkdir()
    manifest = {"model": {"modelName": "m", "configFile": config}}
    (directory / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(manifest))
    (directory / config).write_text(json.dumps({"system": {"extraFiles": extra_files}}))


@pytest.mark.parametrize("extra_files", ["code.tar", ["code.tar"]])
def test_extra_files_are_unpacked_beside_the_model(into: Path, extra_files: Any) -> None:
    write_model(into, extra_files)
    tar(into / "code.tar", FILES)
    unpack_extra_files(into)
    assert (into / "pkg" / "deep" / "data.txt").read_text() == "hello"


def test_tarballs_of_one_name_are_two(into: Path) -> None:
    write_model(into, ["one/code.tar", "two/code.tar"])
    for folder in ("one", "two"):
        (into / folder).mkdir()
        tar(into / folder / "code.tar", {f"{folder}.py": b""})
    unpack_extra_files(into)
    assert (into / "one.py").exists()
    assert (into / "two.py").exists()


def test_a_tarball_that_is_not_there_is_named(into: Path) -> None:
    write_model(into, "code.tar")
    with pytest.raises(ValueError, match=r"system\.extraFiles: there is no 'code\.tar'"):
        unpack_extra_files(into)


@pytest.mark.parametrize("extra_files", ["", [""], 5], ids=repr)
def test_a_name_that_is_none_is_passed_over(
    into: Path, extra_files: Any, caplog: pytest.LogCaptureFixture
) -> None:
    write_model(into, extra_files)
    unpack_extra_files(into)
    assert "is no file name; ignored" in caplog.text


def test_extra_files_are_unpacked_once(into: Path) -> None:
    write_model(into, "code.tar")
    tar(into / "code.tar", FILES)
    unpack_extra_files(into)
    (into / "pkg" / "deep" / "data.txt").write_text("changed since")
    unpack_extra_files(into)
    assert (into / "pkg" / "deep" / "data.txt").read_text() == "changed since"


@pytest.mark.parametrize("raw", ["{}", "[]", '{"system": null}'], ids=repr)
def test_a_model_without_extra_files_is_left_alone(into: Path, raw: str) -> None:
    write_model(into, None)
    (into / "model-config.yaml").write_text(raw)
    unpack_extra_files(into)
    assert sorted(path.name for path in into.iterdir()) == ["MAR-INF", "model-config.yaml"]


def test_a_directory_that_is_no_model_is_left_alone(into: Path) -> None:
    unpack_extra_files(into)
    assert list(into.iterdir()) == []


def test_a_hook_runs_once(into: Path) -> None:
    runs: list[int] = []
    for _ in range(3):
        run_install_hook(into, "install_packages", lambda: runs.append(1))
    assert runs == [1]


def test_a_hook_that_fails_runs_again(into: Path) -> None:
    def fail() -> None:
        raise OSError("no network")

    runs: list[int] = []
    with pytest.raises(OSError, match="no network"):
        run_install_hook(into, "install_packages", fail)
    run_install_hook(into, "install_packages", lambda: runs.append(1))
    assert runs == [1]


def test_a_forbidden_hook_does_not_run(into: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HATCH_MAR_INSTALL_HOOKS", "0")
    run_install_hook(into, "install_packages", lambda: pytest.fail("forbidden"))
    assert list(into.iterdir()) == []


def test_each_key_is_done_for_itself(into: Path) -> None:
    for key in ("a", "b"):
        with once(into, key) as first:
            assert first


RACE = """
import sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])
from base_handler import run_install_hook

def hook():
    with open("log", "a") as log:
        log.write("begin ")
        log.flush()
        for _ in range(100_000):
            pass
        log.write("end ")

run_install_hook(Path("."), "install_packages", hook)
assert Path("log").read_text() == "begin end ", "went on before it was done"
"""


def test_many_workers_run_a_hook_once_and_all_wait_for_it(tmp_path: Path, into: Path) -> None:
    shutil.copy(factory.__file__, tmp_path / "base_handler.py")
    command = [sys.executable, "-c", RACE, str(tmp_path)]
    workers = [
        subprocess.Popen(command, cwd=into, stderr=subprocess.PIPE, text=True) for _ in range(4)
    ]
    errors = [worker.communicate()[1] for worker in workers]
    assert errors == [""] * 4
    assert (into / "log").read_text() == "begin end "
