"""What requirements files ask for, and what of it is not here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hatch_mar.serve.environments.requirements import Missing, find_missing, read_requirements
from tests.support.packages import make_package

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("line", "missing"),
    [
        ("click", []),
        ("click>=8 --hash=sha256:00", []),
        ("CLICK >= 8", []),
        ("click<1", ["click<1 ("]),
        ("no-such-package-of-anybody>=2,<3", ["no-such-package-of-anybody<3,>=2 (not installed)"]),
        ("nothing; python_version < '3'", []),
        ("nothing; python_version >= '3'", ["nothing (not installed)"]),
        ("nothing @ https://user:secret@host/nothing.whl?token=x", ["nothing (not installed)"]),
        ("--index-url https://host/simple", []),
        ("-r other.txt", []),
        ("https://host/nothing.whl", []),
        ("./nothing.whl", []),
    ],
)
def test_one_line(line: str, missing: list[str]) -> None:
    found = [str(one) for one in find_missing([line])]
    assert len(found) == len(missing)
    assert all(one.startswith(start) for one, start in zip(found, missing, strict=True))


def test_what_extras_need_is_needed_too(tmp_path: Path) -> None:
    make_package(
        tmp_path,
        "outer",
        requires=["base-thing", "inner[more]>=2; extra == 'fast'", "other; extra == 'slow'"],
    )
    make_package(tmp_path, "inner", "2.1", requires=["innermost; extra == 'more'"])
    path = [str(tmp_path)]
    assert list(find_missing(["outer"], path)) == []
    assert list(find_missing(["outer[fast]"], path)) == [Missing("innermost")]
    assert list(find_missing(["outer[slow,fast]"], path)) == [
        Missing("innermost"),
        Missing("other"),
    ]


def test_a_prerelease_that_is_installed_counts(tmp_path: Path) -> None:
    make_package(tmp_path, "early", "2.0rc1")
    assert list(find_missing(["early>=1"], [str(tmp_path)])) == []


def test_files_that_are_included(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "requirements.txt").write_text(
        "one  # a comment\n-r more/base.txt\n--constraint held.txt\nthree \\\n  >= 3\n"
    )
    (tmp_path / "more" / "base.txt").write_text("two\n-r ../requirements.txt\n")
    (tmp_path / "held.txt").write_text("one==1\n")
    found = read_requirements(tmp_path, "requirements.txt")
    assert found is not None
    assert found.lines == ("one", "two", "--constraint held.txt", "three   >= 3")
    assert {path.name for path in found.files} == {"requirements.txt", "base.txt", "held.txt"}
    assert [one.wanted for one in found.find_missing()] == ["one", "two", "three>=3"]
    assert not found.is_opaque


@pytest.mark.parametrize("line", ["./thing-1.0-py3-none-any.whl", "git+https://host/x", "a b c"])
def test_what_only_an_installer_understands(line: str, tmp_path: Path) -> None:
    (tmp_path / "r.txt").write_text(line)
    found = read_requirements(tmp_path, "r.txt")
    assert found is not None
    assert found.is_opaque
    assert found.find_missing() == []


def test_a_file_that_cannot_be_read_asks_for_nothing(tmp_path: Path) -> None:
    (tmp_path / "r.txt").write_bytes(b"\xff\xfe\xff")
    assert read_requirements(tmp_path, "r.txt") is None
    assert read_requirements(tmp_path, "none.txt") is None
