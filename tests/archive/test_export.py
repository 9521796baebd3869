from __future__ import annotations

import os
import zipfile
from typing import TYPE_CHECKING

import pytest

from hatch_mar.archive.compare import compare
from hatch_mar.archive.export import export_wheel
from hatch_mar.archive.manifest import MANIFEST_NAME, Manifest
from hatch_mar.archive.plan import Member, Plan
from hatch_mar.archive.read import open_archive
from hatch_mar.archive.seal import SEAL_NAME
from hatch_mar.archive.write import make_seal, write_archive
from hatch_mar.errors import ArchiveError, UnsafeArchiveError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    MakePlan = Callable[..., Plan]

ENTRY_POINTS = "[hatch_mar.models]\ntiny = tiny_mar\n"


def _wheel(plan: Plan, directory: Path, **changed: bytes) -> Path:
    """A wheel of the plan, as a front end that knows nothing of modes would write it."""
    path = directory / "tiny-1.0-py3-none-any.whl"
    members = [Member(SEAL_NAME, make_seal(plan).to_json()), *plan.sealed_members()]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for member in members:
            source = member.source
            data = source if isinstance(source, bytes) else source.read_bytes()
            wheel.writestr(f"tiny_mar/model/{member.name}", changed.get(member.name, data))
        wheel.writestr("tiny-1.0.dist-info/entry_points.txt", ENTRY_POINTS)
    return path


@pytest.mark.parametrize("form", ["stored", "deflated", "tgz"])
def test_the_archive_comes_back_byte_for_byte(
    make_plan: MakePlan, tmp_path: Path, form: str
) -> None:
    changes = {"format": "tgz"} if form == "tgz" else {"compression": form}
    manifest = Manifest(model_name="tiny", created_on="01/03/2024 04:05:06")
    plan = make_plan(**changes, manifest=manifest, filename="odd name.bin")
    write_archive(plan, tmp_path / "original")
    exported = export_wheel(_wheel(plan, tmp_path), tmp_path / "out")
    assert exported == tmp_path / "out" / "odd name.bin"
    assert exported.read_bytes() == (tmp_path / "original").read_bytes()


def test_an_installed_model_is_as_good_as_its_wheel(make_plan: MakePlan, tmp_path: Path) -> None:
    plan = make_plan()
    write_archive(plan, tmp_path / "original.mar")
    with zipfile.ZipFile(_wheel(plan, tmp_path)) as wheel:
        wheel.extractall(tmp_path / "site")
    model = tmp_path / "site" / "tiny_mar" / "model"
    (model / "__pycache__").mkdir()
    exported = export_wheel(model, tmp_path / "out")
    assert exported.read_bytes() == (tmp_path / "original.mar").read_bytes()


def test_a_wheel_that_was_altered_is_not_exported(make_plan: MakePlan, tmp_path: Path) -> None:
    plan = make_plan(filename="")
    code = b"def handle(data, context):\n    return EVIL\n"
    wheel = _wheel(plan, tmp_path, **{"handler.py": code})
    with pytest.raises(ArchiveError, match=r"\.whl: handler\.py: is not what the seal says"):
        export_wheel(wheel, tmp_path / "out")
    assert os.listdir(tmp_path / "out") == []  # noqa: PTH208
    assert export_wheel(_wheel(plan, tmp_path), tmp_path / "out").name == "tiny-1.0.mar"


def test_what_hatch_mar_did_not_build_is_not_exported(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "old.mar", "w") as archive:
        archive.writestr(MANIFEST_NAME, "{}")
    with pytest.raises(ArchiveError, match=r"old\.mar: has no MAR-INF/SEAL\.json: hatch-mar did"):
        export_wheel(tmp_path / "old.mar", tmp_path / "out")


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "a\nb"])
def test_a_seal_does_not_choose_the_directory(
    make_plan: MakePlan, tmp_path: Path, name: str
) -> None:
    write_archive(make_plan(name=name, filename=""), tmp_path / "m.mar")
    (tmp_path / "out").mkdir()
    with pytest.raises(UnsafeArchiveError, match="the archive's name"):
        export_wheel(tmp_path / "m.mar", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.rglob("*evil*")) == []


def test_archives_of_any_two_kinds_compare(make_plan: MakePlan, tmp_path: Path) -> None:
    paths = [tmp_path / "a.mar", tmp_path / "b.tar.gz", tmp_path / "c"]
    plan = make_plan()
    write_archive(plan, paths[0])
    for path in paths[1:]:
        write_archive(make_plan(format="dir" if path.suffix == "" else "tgz"), path)
    for path in paths[1:]:
        with open_archive(paths[0]) as left, open_archive(path) as right:
            found = compare(left, right)
        assert found.only_left == found.only_right == ()
        assert list(found.differing) == [SEAL_NAME], "which says how each was packed"


def test_every_difference_is_named(make_plan: MakePlan, tmp_path: Path) -> None:
    plan = make_plan()
    write_archive(plan, tmp_path / "left.mar")
    others = [member for member in plan.members if member.name not in {"empty.txt", "run.sh"}]
    others += [Member("new.txt", b""), Member("run.sh", b"#!/bin/sh\n")]
    write_archive(make_plan(members=tuple(others)), tmp_path / "right.mar")
    with (
        open_archive(tmp_path / "left.mar") as left,
        open_archive(tmp_path / "right.mar") as right,
    ):
        found = compare(left, right)
        assert compare(left, left).same
    assert not found.same
    assert (found.only_left, found.only_right) == (("empty.txt",), ("new.txt",))
    assert list(found.differing) == [SEAL_NAME, "run.sh"]
    mine, theirs = found.differing["run.sh"]
    assert (mine.sha256, mine.executable, theirs.executable) == (theirs.sha256, True, False)
