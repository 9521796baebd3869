"""Whatever stands under whatever key: the answer is a plan or problems, each with its key path."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hatch_mar.errors import ProblemsError
from hatch_mar.project.document import ENVIRONMENT, HOOK_PREFIX, PYPROJECT
from hatch_mar.project.planning import make_plan
from hatch_mar.project.read import read_spec
from hatch_mar.project.serve_keys import SERVE_KEYS
from hatch_mar.project.table import MarTable
from hatch_mar.project.validation import TABLES, known_keys
from tests.project.scratch import FUNCTION_HANDLER, Scratch

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

ODD = (
    *(
        "",
        " ",
        "\0",
        ".",
        "..",
        "/",
        "//",
        "~",
        "../x",
        "/etc/hostname",
        "a\nb",
        "x" * 300,
        "é\u0301",
    ),
    *("[", "[]", "[a-", "*", "**", "**/*", "a**/b", "?", "{", "{name}", "{0}", "{name.__class__}"),
    *("file://", "http://[", "http://x:99999/a", "https://h/a?token=b", "https://h/%00", "s3://"),
    *("handler.py", "handler.py:", "handler.py:handle", "net.a:A", "net..a:A", "json:dumps", ":A"),
    *("w.pt", "w.pt/x", "net", "loop", "loop/x", "dangling", "in.json", "requirements.txt", "a\\b"),
    *("-r x", "-e .", "./x", "a @ file:///x", "--hash=x", "#", "1e999", "9" * 5000, "1.5 MB"),
    "a/" * 3000 + "b",
)
texts = st.sampled_from(ODD) | st.text(max_size=8)
scalars = (
    texts
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from((0, 1, -1, 2**31, 2**63))
    | st.dates()
    | st.times()
    | st.datetimes(timezones=st.none() | st.just(dt.UTC))
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)


def tables(key: str) -> st.SearchStrategy[dict[str, Any]]:
    """Return tables of the right keys, with anything in them."""
    table = TABLES[key]
    needed = [str(each.alias) for each in table.model_fields.values() if each.is_required()]
    rest = [each for each in known_keys(table) if each not in needed]
    return st.fixed_dictionaries(dict.fromkeys(needed, texts), optional=dict.fromkeys(rest, values))


def any_value(key: str) -> st.SearchStrategy[Any]:
    if key == "serve":
        known = st.sampled_from([*SERVE_KEYS, "handler", "pt2", "torchrun", "micro_batching"])
        return values | st.dictionaries(known | texts, values, max_size=3)
    if key not in TABLES:
        return values
    return values | tables(key) | st.lists(tables(key) | values, max_size=3)


tool_mar = st.fixed_dictionaries({}, optional={key: any_value(key) for key in known_keys(MarTable)})
variables = st.dictionaries(
    st.sampled_from(
        [
            f"HATCH_MAR_{'_'.join(path).upper().replace('-', '_')}"
            for key in known_keys(MarTable)
            for inner in ([] if key not in TABLES else known_keys(TABLES[key]))
            for path in ((key,), (key, inner), (key, "0", inner), (key, "1", inner))
        ]
    ),
    texts.filter(lambda text: "\0" not in text) | st.just("\udcff"),
    max_size=3,
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a project with a file of every kind, and links that lead nowhere."""
    root = tmp_path_factory.mktemp("any").resolve()
    scratch = Scratch(root)
    scratch.write(
        {
            "handler.py": FUNCTION_HANDLER,
            "net/a.py": "class A: ...\n",
            "w.pt": b"1",
            "in.json": b"{}",
            "requirements.txt": "scipy\n",
        }
    )
    (root / "loop").symlink_to("loop")
    (root / "dangling").symlink_to("nowhere")
    scratch.configure("")
    return root


def read(root: Path, hook: Mapping[str, Any], environ: Mapping[str, str]) -> None:
    try:
        make_plan(read_spec(root, hook=hook, environ=environ))
    except ProblemsError as error:
        for problem in error.problems:
            assert problem.file, problem
            assert problem.key or problem.file != PYPROJECT, problem
            assert problem.message, problem
            if problem.file == PYPROJECT:
                assert problem.key.startswith((f"{HOOK_PREFIX}.", "tool.mar.", "project.")), problem
            if problem.file == ENVIRONMENT:
                assert problem.key.split(".")[0] in environ, problem


quick = settings(
    max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@quick
@given(mar=tool_mar)
def test_any_value_under_any_key(root: Path, mar: dict[str, Any]) -> None:
    read(root, mar, {})


@quick
@given(key=st.sampled_from(known_keys(MarTable)), data=st.data())
def test_any_value_under_one_key(root: Path, key: str, data: st.DataObject) -> None:
    read(root, {key: data.draw(any_value(key))}, {})


@quick
@given(environ=variables)
def test_any_text_in_any_variable(root: Path, environ: dict[str, str]) -> None:
    read(root, {}, environ)
