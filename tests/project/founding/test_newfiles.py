"""Files of a new project: all or none."""

from __future__ import annotations

from pathlib import Path

import pytest

from hatch_mar.errors import HatchMarError, ProblemsError
from hatch_mar.project.founding.newfiles import new_files


def test_every_kind_of_source_is_written(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"file")
    root = tmp_path / "a" / "b"
    opened = {"open": lambda: source.open("rb")}
    with new_files(root, {"text": "é", "bytes": b"\0", "in/file": source, **opened}):
        pass
    written = {path.name: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    assert written == {"text": "é".encode(), "bytes": b"\0", "file": b"file", "open": b"file"}


def test_all_conflicts_are_named_and_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("mine")
    (tmp_path / "b").symlink_to("nowhere")
    (tmp_path / "folder").write_text("no folder")
    with (
        pytest.raises(ProblemsError) as caught,
        new_files(tmp_path, {"new": "", "a": "", "b": "", "folder/x": "", "folder/y": ""}),
    ):
        pass
    assert [Path(problem.file).name for problem in caught.value.problems] == ["a", "b", "folder"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "folder"]


def test_a_failure_undoes_what_was_done(tmp_path: Path) -> None:
    with (
        pytest.raises(HatchMarError, match="missing: cannot be written: No such file"),
        new_files(tmp_path / "p", {"a/b/c": "", "d": tmp_path / "missing"}),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_so_does_a_failure_of_the_block(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    with pytest.raises(ZeroDivisionError), new_files(tmp_path / "p", {"a/b": ""}):
        1 / 0  # noqa: B018
    assert list((tmp_path / "p").iterdir()) == []
