from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hatch_mar.archive.names import NameLedger, find_flaw
from hatch_mar.errors import UnsafeArchiveError


@pytest.mark.parametrize(
    "name",
    ["handler.py", "a/b/c.txt", "größe.json", "..hidden", "a b", "MAR-INF/MANIFEST.json", "日/語"],
)
def test_good_names(name: str) -> None:
    assert find_flaw(name) is None


@pytest.mark.parametrize(
    ("name", "flaw"),
    [
        ("", "is empty"),
        ("/etc/passwd", "absolute"),
        ("C:/x", "absolute"),
        ("c:x", "absolute"),
        ("../x", "'..'"),
        ("a/../../x", "'..'"),
        ("a//b", "empty"),
        ("a/", "empty"),
        ("./a", "'.'"),
        ("a\\b", "backslash"),
        ("a\0b", "control"),
        ("a\nb", "control"),
        ("x\udcff", "UTF-8"),
        ("x" * 256, "too long"),
        ("ä" * 128, "too long"),
        ("abc/" * 1100 + "x", "too long"),
    ],
)
def test_each_flaw_is_named(name: str, flaw: str) -> None:
    found = find_flaw(name)
    assert found is not None
    assert flaw in found


@given(st.text(max_size=40))
def test_a_name_without_flaw_stays_below_its_directory(name: str) -> None:
    if find_flaw(name) is None:
        assert not name.startswith("/")
        assert ".." not in name.split("/")
        assert name.encode().decode() == name


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("a.txt", "a.txt"),
        ("Model.py", "model.py"),
        ("stra\u00dfe", "STRASSE"),
        ("caf\u00e9", "cafe\u0301"),
        ("a", "a/b"),
        ("a/b", "a"),
        ("A/b", "a"),
    ],
)
def test_names_that_cannot_live_side_by_side(first: str, second: str) -> None:
    ledger = NameLedger("x.mar")
    ledger.add(first)
    with pytest.raises(UnsafeArchiveError, match=r"^x\.mar: members .* collide$"):
        ledger.add(second)


def test_files_of_one_directory_do_not_collide() -> None:
    ledger = NameLedger("x.mar")
    for name in ("a/b", "a/c", "a/d/e", "ab"):
        ledger.add(name)
