"""What `[tool.mar]` may say, and how each mistake is put."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hatch_mar.project.table import parse_size
from hatch_mar.weights.size import render_size

if TYPE_CHECKING:
    from tests.project.scratch import Scratch


def test_an_empty_table_is_enough_beside_a_handler(scratch: Scratch) -> None:
    spec = scratch.spec()
    assert (spec.name, spec.version, spec.package) == ("digits", "1.0", "digits_mar")
    assert (spec.script, spec.description) == ("serve-digits", "what it does")


@pytest.mark.parametrize(
    ("mar", "problem"),
    [
        ('handlr = "x"', "handlr: unknown key; did you mean 'handler'?"),
        ('qqq = "x"', "qqq: unknown key"),
        (
            'weights = { sorce = "x", source = "handler.py" }',
            "weights.sorce: unknown key; did you mean 'source'?",
        ),
        ("weights = {}", "weights.source: is required"),
        ("weights = 3", "weights: must be an array, not 3"),
        ("name = 3", "name: must be a string, not 3"),
        ('handler = ""', "handler: must not be empty"),
        (
            'runtime = "onxx"',
            (
                "runtime: 'onxx' is not one of auto, eager, torchscript, onnx, "
                "tensorrt, exported, aoti, custom; did you mean 'onnx'?"
            ),
        ),
        ("extra-files = [3]", "extra-files[0]: must be a string or a table, not 3"),
        ('extra-files = [{ from = "x" }]', "extra-files[0].to: is required"),
        ("requirements = 4", "requirements: must be a string or an array, not 4"),
        ("serve = 3", "serve: must be a table, not 3"),
        ('system.max-gpu-memory = "5"', "system.max-gpu-memory: must be a whole number, not '5'"),
        ("system.max-gpu-memory = 0", "system.max-gpu-memory: 0: input should be greater than 0"),
        ("archive.enabled = 1", "archive.enabled: must be true or false, not 1"),
        (
            'wheel.embed-limit = "5 X"',
            "wheel.embed-limit: '5 X' is not a size; write it like '100 MB' or '2 GiB'",
        ),
        ('wheel.script = "serve {nme}"', "wheel.script: 'serve {nme}' is not a template of {name}"),
        ('wheel.script = "a/b"', "wheel.script: 'a/b' is not a name for a program"),
        (
            'archive.filename = "{name}/x.mar"',
            (
                "archive.filename: 'digits/x.mar' is not a file "
                "name; `archive.directory` moves the file"
            ),
        ),
        (
            'archive.filename = "x.zip"',
            (
                "archive.filename: 'x.zip' must end in .mar: servers go by "
                'that to read `format = "mar"`'
            ),
        ),
    ],
)
def test_one_mistake_one_problem(scratch: Scratch, mar: str, problem: str) -> None:
    scratch.configure(mar)
    assert scratch.problem() == f"pyproject.toml: tool.mar.{problem}"


def test_an_absolute_archive_directory_is_refused_with_the_way_out(scratch: Scratch) -> None:
    scratch.configure('archive.directory = "/archives"')
    assert "set the variable HATCH_MAR_DIR" in scratch.problem()


def test_all_mistakes_come_at_once(scratch: Scratch) -> None:
    scratch.write({"model-config.yaml": "batchSize: eight\n"})
    scratch.configure(
        """\
        handlr = "x"
        handler = "hanlder.py"
        weights = ["missing.pt", { source = "https://example.org/w.pt" }]
        examples = [{ input = "in.png", output = "out.json" }]
        archive.format = "zip"
        extra-files = ["nothing/*.txt"]
        requirements = ["not a requirement"]
        serve.batch-sise = 4
        """
    )
    keys = [problem.split(": ")[1] for problem in scratch.problems()]
    assert sorted(keys) == sorted(
        [
            "tool.mar.handlr",
            "tool.mar.handler",
            "tool.mar.weights[0]",
            "tool.mar.weights[1].source",
            "tool.mar.examples[0].input",
            "tool.mar.examples[0].output",
            "tool.mar.archive.format",
            "tool.mar.extra-files[0]",
            "tool.mar.requirements[0]",
            "tool.mar.serve.batch-sise",
            "batchSize",
        ]
    )


@pytest.mark.parametrize(
    ("mar", "package", "script"),
    [
        ("", "digits_mar", "serve-digits"),
        ('name = "other"', "digits_mar", "serve-other"),
        ("wheel.script = false", "digits_mar", None),
        ('wheel.script = "run-{name}"', "digits_mar", "run-digits"),
    ],
)
def test_names_that_follow(scratch: Scratch, mar: str, package: str, script: str | None) -> None:
    scratch.configure(mar)
    spec = scratch.spec()
    assert (spec.package, spec.script) == (package, script)


def test_a_project_name_is_normalised_for_the_package_only(scratch: Scratch) -> None:
    scratch.configure("", project='[project]\nname = "My.Digit--Net"\nversion = "1"\n')
    spec = scratch.spec()
    assert (spec.name, spec.package) == ("My.Digit--Net", "my_digit_net_mar")


def test_a_project_name_that_cannot_be_served(scratch: Scratch) -> None:
    project = '[project]\nname = "3d"\nversion = "1"\n'
    scratch.configure("", project=project)
    assert "set another one as `tool.mar.name`" in scratch.problem()
    scratch.configure('name = "net-3d"', project=project)
    assert scratch.spec().package == "_3d_mar"


def test_a_dynamic_version_is_for_the_build_to_tell(scratch: Scratch) -> None:
    scratch.configure("", project='[project]\nname = "digits"\ndynamic = ["version"]\n')
    assert scratch.problem().startswith("pyproject.toml: project.version: is dynamic")
    assert scratch.spec(version="2.0.dev1").version == "2.0.dev1"


@pytest.mark.parametrize(
    ("mar", "filename"),
    [
        ("", "digits-1.0.mar"),
        ('archive.format = "tgz"', "digits-1.0.tar.gz"),
        ('archive.format = "dir"', "digits-1.0"),
        ('archive.filename = "{name}.mar"', "digits.mar"),
    ],
)
def test_the_archive_has_the_suffix_of_its_format(
    scratch: Scratch, mar: str, filename: str
) -> None:
    scratch.configure(mar)
    assert scratch.plan().filename == filename


@pytest.mark.parametrize(
    ("text", "size"),
    [("100 MB", 100_000_000), ("1.5GiB", 1_610_612_736), ("7", 7), (7, 7), ("2 kB", 2000)],
)
def test_sizes(text: str | int, size: int) -> None:
    assert parse_size(text) == size


@given(st.integers(min_value=0, max_value=10**15))
def test_a_size_renders_to_what_parses_to_about_the_same(size: int) -> None:
    assert abs(parse_size(render_size(size)) - size) <= size / 20


def test_a_wrong_entry_hides_no_other(scratch: Scratch) -> None:
    scratch.configure(
        """
        extra-files = [3, "nope", { from = "x" }, "gone/*"]
        weights = [{}, "nope.pt"]
        examples = [{ input = "c" }, { input = "a", output = "handler.py" }]
        packages = [1, "absent"]
        requirements = [1, "-e ."]
        """
    )
    assert sorted(problem.split(": ")[1] for problem in scratch.problems()) == [
        "tool.mar.examples[0].output",
        "tool.mar.examples[1].input",
        "tool.mar.extra-files[0]",
        "tool.mar.extra-files[1]",
        "tool.mar.extra-files[2].to",
        "tool.mar.extra-files[3]",
        "tool.mar.packages[0]",
        "tool.mar.packages[1]",
        "tool.mar.requirements[0]",
        "tool.mar.requirements[1]",
        "tool.mar.weights[0].source",
        "tool.mar.weights[1]",
    ]
