"""`hatch-mar verify`."""

from __future__ import annotations

import shutil
import zipfile
from typing import TYPE_CHECKING

import pytest

from hatch_mar.archive.read import LARGEST_READ
from hatch_mar.errors import ArchiveError, TargetError
from tests.support.archives import write_mar
from tests.support.builds import SAMPLE_PROJECT
from tests.support.commands import WEIGHTS, write_referring

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.commands import Program

HANDLER = "def handle(data, context):\n    return data\n"
BROKEN = ArchiveError.exit_code


def rewrite(source: Path, target: Path, **changed: bytes | None) -> Path:
    """Copy a zip with other contents for some names, or without them; new names are added."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for info in old.infolist():
            data = changed.pop(info.filename, old.read(info))
            if data is not None:
                new.writestr(info.filename, data)
        for name, data in changed.items():
            new.writestr(name, data or b"")
    return target


@pytest.mark.parametrize("form", ["mar", "tgz", "dir"])
def test_what_is_as_it_was_sealed(hatch_mar: Program, tmp_path: Path, form: str) -> None:
    path = write_mar(tmp_path, "echo", HANDLER)
    exported = hatch_mar("export", path, "-d", tmp_path / "out", "--format", form)
    said = hatch_mar("verify", exported.out.strip(), "--require-seal")
    assert (said.code, said.err) == (0, "")
    assert "as sealed" in said.out


def test_every_wrong_member_is_named(hatch_mar: Program, tmp_path: Path) -> None:
    files = {"a.txt": b"aaa", "b.txt": b"bbb", "c.txt": b"ccc"}
    good = write_mar(tmp_path, "echo", HANDLER, files=files)
    changes = {"a.txt": b"aab", "b.txt": b"b", "c.txt": None, "new.txt": b""}
    bad = rewrite(good, tmp_path / "bad.mar", **changes)
    said = hatch_mar("verify", bad, "--json")
    assert said.code == BROKEN
    assert said.document["ok"] is False
    assert {each["key"]: each["message"] for each in said.document["problems"]} == {
        "a.txt": "is not what the seal says: damaged or altered",
        "b.txt": "1 bytes, but the seal says 3",
        "c.txt": "is in the seal, but not in the archive",
        "new.txt": "is in the archive, but not in the seal",
    }
    plain = hatch_mar("verify", bad)
    assert plain.code == BROKEN
    assert "4 wrong" in plain.out


def test_a_missing_file_of_a_directory(hatch_mar: Program, tmp_path: Path) -> None:
    path = write_referring(tmp_path, form="dir")
    (path / "handler.py").unlink()
    said = hatch_mar("verify", path)
    assert said.code == BROKEN
    assert "handler.py  is in the seal, but not in the archive" in said.out


def test_a_broken_seal(hatch_mar: Program, tmp_path: Path) -> None:
    good = write_mar(tmp_path, "echo", HANDLER)
    bad = rewrite(good, tmp_path / "bad.mar", **{"MAR-INF/SEAL.json": b"{}"})
    said = hatch_mar("verify", bad)
    assert said.code == BROKEN
    assert "MAR-INF/SEAL.json  not a seal" in said.out


def test_a_flipped_bit_in_what_has_no_seal(hatch_mar: Program, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "old.mar", "w") as archive:
        archive.writestr("h.py", HANDLER)
    whole = hatch_mar("verify", tmp_path / "old.mar")
    assert whole.code == 0
    assert "note: it has no seal" in whole.out
    assert hatch_mar("verify", tmp_path / "old.mar", "--require-seal").code == BROKEN
    data = (tmp_path / "old.mar").read_bytes()
    (tmp_path / "old.mar").write_bytes(data.replace(b"return", b"retorn"))
    said = hatch_mar("verify", tmp_path / "old.mar")
    assert said.code == BROKEN
    assert "h.py  cannot be read: its checksum" in said.out


def test_a_truncated_tarball(hatch_mar: Program, tmp_path: Path) -> None:
    path = write_referring(tmp_path, form="tgz")
    path.write_bytes(path.read_bytes()[:-40])
    said = hatch_mar("verify", path, "--json")
    assert said.code == BROKEN
    assert said.document["problems"][0]["file"] == str(path)


def test_a_wheel_and_its_record(hatch_mar: Program, sample_wheel: Path, tmp_path: Path) -> None:
    assert hatch_mar("verify", sample_wheel).code == 0
    name = "digits-1.0.0.dist-info/METADATA"
    changes = {name: b"Name: evil\n", "digits_mar/model/handler.py": b"evil()\n", "x.pth": b""}
    bad = rewrite(sample_wheel, tmp_path / sample_wheel.name, **changes)
    said = hatch_mar("verify", bad, "--json")
    assert said.code == BROKEN
    found = [(each["key"], each["message"]) for each in said.document["problems"]]
    assert (name, "is not what the wheel's RECORD says") in found
    assert ("x.pth", "is in the wheel, but not in its RECORD") in found
    assert [key for key, _ in found].count("handler.py") == 2, "by the seal and by RECORD"


def test_weights_in_the_cache(hatch_mar: Program, weights_cache: Path, tmp_path: Path) -> None:
    path = write_referring(tmp_path)
    assert "not in the cache: not verified" in hatch_mar("verify", path).out
    hatch_mar("export", path, "--embed", "-d", tmp_path / "out")
    assert "in the cache, as locked" in hatch_mar("verify", path).out
    (cached,) = (file for file in (weights_cache / "sha256").rglob("*") if file.is_file())
    cached.chmod(0o644)
    cached.write_bytes(WEIGHTS[::-1])
    said = hatch_mar("verify", path, "--json")
    assert said.code == BROKEN
    (problem,) = said.document["problems"]
    assert problem["key"] == "weights/big.bin"
    assert str(cached) in problem["message"]


def test_a_project_has_nothing_to_verify(hatch_mar: Program) -> None:
    said = hatch_mar("verify", SAMPLE_PROJECT)
    assert said.code == TargetError.exit_code
    assert "has no seal yet" in said.err


def test_files_that_may_not_be_read(hatch_mar: Program, tmp_path: Path) -> None:
    path = write_referring(tmp_path, form="dir")
    shutil.move(path / "handler.py", tmp_path / "aside.py")
    (path / "handler.py").symlink_to(path / "handler.py")
    assert hatch_mar("verify", path).code == BROKEN


def test_a_seal_too_big_for_memory(hatch_mar: Program, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.mar", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("MAR-INF/SEAL.json", bytes(LARGEST_READ + 1))
    said = hatch_mar("verify", tmp_path / "bomb.mar")
    assert said.code == BROKEN
    assert "67108865 bytes are too many to be looked at" in said.out


def test_a_link_that_leads_nowhere(hatch_mar: Program, tmp_path: Path) -> None:
    (tmp_path / "digits").symlink_to("nowhere")
    said = hatch_mar("verify", tmp_path / "digits")
    assert said.code == TargetError.exit_code
    assert "digits: is a link to 'nowhere', which does not exist" in said.err
