"""`hatch-mar diff`."""

from __future__ import annotations

import shutil
import zipfile
from typing import TYPE_CHECKING

import pytest

from hatch_mar.errors import ArchiveError, TargetError
from tests.support.archives import write_mar
from tests.support.builds import SAMPLE_PROJECT, copy_project
from tests.support.commands import write_referring

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.commands import Program

HANDLER = "def handle(data, context):\n    return data\n"
URL = "https://me:secret@weights.example/{}.bin?token=secret"


@pytest.fixture
def exported(hatch_mar: Program, tmp_path: Path) -> Path:
    """The sample project's archive."""
    return tmp_path / hatch_mar("export", SAMPLE_PROJECT, "-d", tmp_path).out.strip()


@pytest.mark.parametrize("form", ["tgz", "dir"])
def test_two_formats_of_the_same_files_are_the_same(
    hatch_mar: Program, exported: Path, tmp_path: Path, form: str
) -> None:
    other = hatch_mar("export", exported, "-d", tmp_path, "--format", form).out.strip()
    said = hatch_mar("diff", exported, other)
    assert (said.code, said.out, said.err) == (0, "", "")
    said = hatch_mar("diff", exported, other, "--all", "--json")
    assert said.code == 1
    keys = [each["key"] for each in said.document["seal"]]
    assert keys == ["archive.filename", "archive.format"]


def test_a_project_and_what_was_built_of_it(
    hatch_mar: Program, exported: Path, sample_wheel: Path, tmp_path: Path
) -> None:
    assert hatch_mar("diff", SAMPLE_PROJECT, exported).code == 0
    assert hatch_mar("diff", sample_wheel, SAMPLE_PROJECT).code == 0
    project = copy_project(SAMPLE_PROJECT, tmp_path / "project")
    with (project / "handler.py").open("a") as file:
        file.write("# a remark\n")
    said = hatch_mar("diff", exported, project, "--text")
    assert said.code == 1
    assert "--- left/handler.py" in said.out
    assert "+# a remark" in said.out.splitlines()


def test_a_stamp_is_no_difference(
    hatch_mar: Program, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    hatch_mar("export", SAMPLE_PROJECT, "-d", tmp_path / "later")
    later = tmp_path / "later" / exported.name
    assert hatch_mar("diff", exported, later).code == 0
    said = hatch_mar("diff", exported, later, "--all", "--json")
    assert [each["key"] for each in said.document["manifest"]] == ["createdOn"]


def test_everything_that_differs(hatch_mar: Program, tmp_path: Path) -> None:
    one = {"only.txt": b"1", "same.txt": b"", "both.bin": b"\0a"}
    two = {"new.txt": b"22", "same.txt": b"", "both.bin": b"\0b"}
    left = write_mar(tmp_path, "echo", HANDLER, config="batchSize: 1\nnew: yes\n", files=one)
    right = write_mar(tmp_path, "echo", HANDLER, version="2", config="batchSize: 2\n", files=two)
    said = hatch_mar("diff", left, right, "--json", "--text")
    assert said.code == 1
    found = said.document
    assert found["same"] is False
    assert [each["name"] for each in found["members"]["onlyLeft"]] == ["only.txt"]
    assert [each["size"] for each in found["members"]["onlyRight"]] == [2]
    changed = {each["name"]: each for each in found["members"]["changed"]}
    assert set(changed) == {"both.bin", "model-config.yaml"}
    assert "diff" not in changed["both.bin"], "which is no text"
    assert "-batchSize: 1" in changed["model-config.yaml"]["diff"]
    assert found["config"] == [
        {"key": "batchSize", "left": 1, "right": 2},
        {"key": "new", "left": True},
    ]
    assert found["manifest"] == [{"key": "model.modelVersion", "left": "1.0", "right": "2"}]
    plain = hatch_mar("diff", left, right).out.splitlines()
    assert "- batchSize: 1" in plain
    assert "+ model.modelVersion: '2'" in plain


def test_a_program_that_became_a_text(hatch_mar: Program, tmp_path: Path) -> None:
    for side, mode in (("left", 0o755), ("right", 0o644)):
        (tmp_path / side).mkdir()
        (tmp_path / side / "handler.py").write_text(HANDLER)
        (tmp_path / side / "run.sh").write_text("#!/bin/sh\n")
        (tmp_path / side / "run.sh").chmod(mode)
    said = hatch_mar("diff", tmp_path / "left", tmp_path / "right")
    assert said.code == 1
    assert [line[0] for line in said.out.splitlines() if line.endswith("run.sh (program)")] == ["-"]


def test_a_file_without_its_last_newline(hatch_mar: Program, tmp_path: Path) -> None:
    for side, text in (("left", "a"), ("right", "a\n")):
        (tmp_path / side).mkdir()
        (tmp_path / side / "x.txt").write_text(text)
        (tmp_path / side / "y.txt").write_text("")
    said = hatch_mar("diff", tmp_path / "left", tmp_path / "right", "--text")
    assert said.out.splitlines()[-4:] == ["@@ -1 +1 @@", "-a", r"\ No newline at end of file", "+a"]


def test_references_without_their_secrets(hatch_mar: Program, tmp_path: Path) -> None:
    paths = [write_referring(tmp_path / name, source=URL.format(name)) for name in ("a", "b")]
    for option in ("--json", "--text"):
        said = hatch_mar("diff", *paths, option)
        assert said.code == 1
        assert "secret" not in said.out
        assert "https://weights.example/b.bin" in said.out


def test_an_archive_of_torch_model_archiver(hatch_mar: Program, tmp_path: Path) -> None:
    ours = write_mar(tmp_path, "echo", HANDLER)
    with zipfile.ZipFile(ours) as new, zipfile.ZipFile(tmp_path / "old.mar", "w") as old:
        for name in ("handler.py", "MAR-INF/MANIFEST.json"):
            old.writestr(name, new.read(name))
    assert hatch_mar("diff", ours, tmp_path / "old.mar").code == 0


def test_trouble_is_more_than_a_difference(hatch_mar: Program, tmp_path: Path) -> None:
    good = write_mar(tmp_path, "echo", HANDLER)
    (tmp_path / "bad.mar").write_bytes(good.read_bytes()[:-30])
    assert hatch_mar("diff", good, tmp_path / "bad.mar").code == ArchiveError.exit_code
    assert hatch_mar("diff", good, tmp_path / "gone.mar").code == TargetError.exit_code
    assert hatch_mar("diff", good).code == 2
    shutil.copytree(SAMPLE_PROJECT, tmp_path / "broken")
    (tmp_path / "broken" / "handler.py").unlink()
    said = hatch_mar("diff", good, tmp_path / "broken", "--json")
    assert said.code == 2
    assert said.document["problems"][0]["file"] == "pyproject.toml"
