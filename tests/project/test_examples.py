"""Golden examples on their way into the seal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hatch_mar.archive.seal import Example
from hatch_mar.project.examples import guess_content_type

if TYPE_CHECKING:
    from tests.project.scratch import Scratch


def test_examples_travel_with_what_they_must_give(scratch: Scratch) -> None:
    scratch.write({"ex/a.png": b"png", "ex/b.json": "[1]", "ex/out/ok.json": "1"})
    scratch.configure(
        """\
        examples = [
          { input = "ex/a.png", output = "ex/out/ok.json", rtol = 1, policy = "warn" },
          { input = "ex/b.json", output = "ex/out/ok.json", content-type = "text/x" },
        ]
        """
    )
    plan = scratch.plan()
    answer = "MAR-INF/examples/out/ok.json"
    assert plan.examples == (
        Example(
            input="MAR-INF/examples/a.png",
            output=answer,
            content_type="image/png",
            rtol=1,
            policy="warn",
        ),
        Example(input="MAR-INF/examples/b.json", output=answer, content_type="text/x"),
    )
    assert scratch.content(answer) == b"1"
    assert scratch.root / "ex/out/ok.json" in scratch.spec().files


def test_files_of_one_name_in_two_folders_stay_two(scratch: Scratch) -> None:
    scratch.write({"a/in.txt": "1", "b/in.txt": "2", "a/out.txt": "3", "b/out.txt": "4"})
    pairs = ", ".join(f'{{ input = "{x}/in.txt", output = "{x}/out.txt" }}' for x in "ab")
    scratch.configure(f"examples = [{pairs}]")
    assert scratch.content("MAR-INF/examples/b/in.txt") == b"2"


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("x.PNG", "image/png"),
        ("x.jpg", "image/jpeg"),
        ("x.json", "application/json"),
        ("x.txt", "text/plain"),
        ("x.npy", "application/octet-stream"),
        ("x", "application/octet-stream"),
    ],
)
def test_content_types(name: str, content_type: str) -> None:
    assert guess_content_type(name) == content_type


def test_json_that_is_none_is_found_before_anything_runs(scratch: Scratch) -> None:
    scratch.write({"in.json": "{", "out.txt": "x"})
    scratch.configure('examples = [{ input = "in.json", output = "out.txt" }]')
    assert scratch.problem().startswith("in.json: is not JSON")


@pytest.mark.parametrize(
    ("example", "problem"),
    [
        ('{ input = "in.txt" }', ".output: is required"),
        (
            '{ input = "int.txt", output = "in.txt" }',
            ".input: 'int.txt' does not exist; did you mean 'in.txt'?",
        ),
        (
            '{ input = "in.txt", output = "in.txt", rtol = -1 }',
            ".rtol: -1: input should be greater than or equal to 0",
        ),
        (
            '{ input = "in.txt", output = "in.txt", policy = "wran" }',
            ".policy: 'wran' is not one of fail, warn; did you mean 'warn'?",
        ),
    ],
)
def test_one_mistake_one_problem(scratch: Scratch, example: str, problem: str) -> None:
    scratch.write({"in.txt": "1"})
    scratch.configure(f"examples = [{example}]")
    assert scratch.problem() == f"pyproject.toml: tool.mar.examples[0]{problem}"
