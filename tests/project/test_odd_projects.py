"""What nobody would write on purpose: one line for each mistake, and never a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from hatch_mar.cli.check import command
from hatch_mar.errors import Problem
from tests.project.scratch import PROJECT
from tests.support.powerless import WITHOUT_PRIVILEGES

if TYPE_CHECKING:
    from tests.project.scratch import Scratch


@pytest.mark.parametrize(
    ("mar", "problem"),
    [
        (
            'weights = "a\\u0000b"',
            "tool.mar.weights: 'a\\x00b' cannot be looked for: embedded null byte",
        ),
        ('weights = "a\\nb"', "tool.mar.weights: 'a\\nb' does not exist"),
        (
            f'weights = "{"a" * 300}"',
            f"tool.mar.weights: '{'a' * 300}' cannot be looked for: File name too long",
        ),
        (
            f'wheel.embed-limit = "{"9" * 400} GB"',
            (
                f"tool.mar.wheel.embed-limit: '{'9' * 400} GB' is not a size; "
                "write it like '100 MB' or '2 GiB'"
            ),
        ),
        (
            'archive.filename = "{name:>99999999999}.mar"',
            (
                "tool.mar.archive.filename: '{name:>99999999999}.mar' is not a template of "
                "{name} and {version}"
            ),
        ),
        (
            'archive.filename = "{name.__class__}.mar"',
            (
                "tool.mar.archive.filename: '{name.__class__}.mar' is not a template of "
                "{name} and {version}"
            ),
        ),
        (
            'version = "1/0"',
            (
                "tool.mar.version: '1/0' cannot be part of a URL; it must begin with a letter or "
                "digit and hold only letters, digits, '_', '.', '!', '+' and '-'"
            ),
        ),
        (
            'wheel.tag = "nonsense"',
            "tool.mar.wheel.tag: 'nonsense' is not a wheel's tag; write it like 'py3-none-any'",
        ),
        ('requirements = ""', "tool.mar.requirements: must not be empty"),
        (
            'examples = [{ input = "a", output = "b", content-type = "png" }]',
            (
                "tool.mar.examples[0].content-type: 'png' is not a content type; "
                "write it like 'image/png'"
            ),
        ),
        (
            'examples = [{ input = "a", output = "b", rtol = inf }]',
            "tool.mar.examples[0].rtol: inf: input should be a finite number",
        ),
        (
            "serve.at = 10:00:00",
            "tool.mar.serve.at: datetime.time(10, 0) is nothing that YAML can say; write a string",
        ),
    ],
)
def test_odd_values(scratch: Scratch, mar: str, problem: str) -> None:
    scratch.configure(mar)
    assert scratch.problem() == f"pyproject.toml: {problem}"


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("class.py", "cannot be imported; rename it"),
        ("json.py", "has the name of a module of Python's own, which would be imported instead"),
    ],
)
@pytest.mark.parametrize("key", ["handler", "model-file"])
def test_names_that_no_server_could_import(
    scratch: Scratch, key: str, name: str, problem: str
) -> None:
    scratch.write({name: "class H:\n    pass\n"})
    scratch.configure(f'{key} = "{name}"')
    assert scratch.problem().startswith(f"pyproject.toml: tool.mar.{key}: '{name}' {problem}")


@pytest.mark.parametrize(("written", "version"), [("01.0-Alpha1", "1.0a1"), ("1.0+L", "1.0+l")])
def test_a_projects_version_is_as_the_build_backend_writes_it(
    scratch: Scratch, written: str, version: str
) -> None:
    scratch.configure("", project=PROJECT.replace('"1.0"', f'"{written}"'))
    assert scratch.spec().version == version


def test_a_version_that_is_none(scratch: Scratch) -> None:
    scratch.configure("", project=PROJECT.replace('"1.0"', '"x y"'))
    assert scratch.problem() == (
        "pyproject.toml: project.version: 'x y' is no version such as '1.0.0'"
    )


def test_a_package_in_src_that_stays_behind_is_noted(scratch: Scratch) -> None:
    scratch.write({"src/net/__init__.py": "", "handler.py": "import net\n\n\nclass H:\n    pass\n"})
    assert "handler.py: line 1: 'net' is not in the archive" in scratch.spec().notes[0]


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        (b"x = " + b"-" * 100_000 + b"1\n", "is too deeply nested to be read"),
        (b"x = " + b"1+" * 50_000 + b"1\n", "is too deeply nested to be read"),
        (b"x = 1\0\n", "source code string cannot contain null bytes"),
        (b"# coding: nonsense\n", "unknown encoding: nonsense"),
    ],
)
def test_odd_sources(scratch: Scratch, source: bytes, problem: str) -> None:
    scratch.write({"handler.py": source})
    assert scratch.problem() == f"handler.py: {problem}"


def test_labels_without_an_end(scratch: Scratch) -> None:
    scratch.write({"index_to_name.json": "[" * 100_000})
    assert scratch.problem() == "index_to_name.json: is nested too deeply to be read"


def test_keys_that_are_no_strings(scratch: Scratch) -> None:
    scratch.write({"model-config.yaml": "null: 1\n2020-01-01: 2\n"})
    assert scratch.problems() == [
        "model-config.yaml: None: is no string; quote it",
        "model-config.yaml: 2020-01-01: is no string; quote it",
    ]


def test_a_link_to_nothing(scratch: Scratch) -> None:
    (scratch.root / "w.bin").symlink_to("elsewhere.bin")
    scratch.configure('weights = "w.bin"')
    message = "'w.bin' is a link to 'elsewhere.bin', which does not exist"
    assert scratch.problem() == f"pyproject.toml: tool.mar.weights: {message}"


def test_a_pipe(scratch: Scratch) -> None:
    os.mkfifo(scratch.root / "w.bin")
    scratch.configure('weights = "w.bin"')
    message = "'w.bin' is not a file but a device or a pipe"
    assert scratch.problem() == f"pyproject.toml: tool.mar.weights: {message}"


@pytest.mark.parametrize(
    ("mar", "key"),
    [
        ('weights = "w.bin"', "weights"),
        ('extra-files = ["w.b*"]', "extra-files[0]"),
        ('examples = [{ input = "w.bin", output = "handler.py" }]', "examples[0].input"),
    ],
)
def test_files_that_may_not_be_read(scratch: Scratch, mar: str, key: str) -> None:
    scratch.write({"w.bin": "x"})
    (scratch.root / "w.bin").chmod(0)
    scratch.configure(mar)
    check = [sys.executable, "-m", "hatch_mar", "check", str(scratch.root)]
    command = [*WITHOUT_PRIVILEGES, *check]
    said = subprocess.run(command, check=False, capture_output=True, text=True)
    assert said.returncode == 2
    message = "'w.bin' cannot be read: Permission denied"
    assert f"  pyproject.toml: tool.mar.{key}: {message}\n" in said.stderr


def test_a_folder_of_nothing(scratch: Scratch) -> None:
    (scratch.root / "words").mkdir()
    scratch.configure('extra-files = ["words"]')
    assert scratch.problem() == "pyproject.toml: tool.mar.extra-files[0]: 'words' holds no file"


def test_the_wheels_packages_are_hatchlings_to_complain_of(scratch: Scratch) -> None:
    scratch.write({"net/__init__.py": "", "net/h.py": "class H:\n    pass\n"})
    wheel = "[tool.hatch.build.targets.wheel]\npackages = 3\n"
    scratch.configure('handler = "net.h:H"', project=f"{PROJECT}\n{wheel}")
    assert scratch.spec().handler.kind == "class"


def test_dynamic_is_hatchlings_to_complain_of(scratch: Scratch) -> None:
    scratch.configure("", project=f"{PROJECT}dynamic = 3\n")
    assert command.main([str(scratch.root)], standalone_mode=False) is None


def test_a_problem_is_one_line() -> None:
    odd = "a\nb\t\x1b[31m\udcff\u3000é"
    assert str(Problem("f", "k", odd)) == r"f: k: a\nb\t\x1b[31m\udcff\u3000é"
