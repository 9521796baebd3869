"""What `init` and `adopt` write as pyproject.toml."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hatch_mar.project.draft import Draft, Line, draft_name, draft_version, to_toml

text = st.text(st.characters(exclude_categories=["Cs"]))
values = st.recursive(
    text
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=8,
)


@given(values)
def test_every_value_is_read_back(value: object) -> None:
    assert tomllib.loads(f"value = {to_toml(value)}") == {"value": value}  # type: ignore[arg-type]


@given(st.lists(st.tuples(text, text), max_size=3), text)
def test_no_comment_breaks_the_file(lines: list[tuple[str, str]], note: str) -> None:
    draft = Draft(
        project="x",
        version="1",
        served="x",
        lines=tuple(Line(f"key{n}", value, why) for n, (value, why) in enumerate(lines)),
        notes=(note,),
    )
    mar = tomllib.loads(draft.to_toml())["tool"]["mar"]
    assert list(mar.values()) == [value for value, _ in lines]


@pytest.mark.parametrize(
    ("wanted", "project", "served"),
    [
        ("digits", "digits", "digits"),
        ("My_Model-1.0", "My_Model-1.0", "My_Model-1.0"),
        ("resnet-", "resnet", "resnet-"),
        ("18x", "model-18x", "model-18x"),
        ("_x", "model-x", "model-x"),
        ("größe", "gr-e", "gr-e"),
        ("---", "model", "model"),
        ("", "model", "model"),
    ],
)
def test_a_name_bends_as_little_as_it_can(wanted: str, project: str, served: str) -> None:
    assert draft_name(wanted)[:2] == (project, served)


@pytest.mark.parametrize(
    ("wanted", "project", "served"),
    [
        ("1.0", "1.0", None),
        ("v1.0", "1.0", "v1.0"),
        ("1.0-final", "1.0", "1.0-final"),
        ("best", "1.0", "best"),
    ],
)
def test_a_version_that_packages_cannot_have_is_served(
    wanted: str, project: str, served: str | None
) -> None:
    assert draft_version(wanted) == (project, served)
