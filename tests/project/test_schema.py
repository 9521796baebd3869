"""The JSON schema: what validate-pyproject and editors say agrees with what a build says."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from validate_pyproject.api import Validator
from validate_pyproject.error_reporting import ValidationError
from validate_pyproject.plugins import list_from_entry_points

from hatch_mar.archive.configkeys import FRONTEND_KEYS
from hatch_mar.cli.schema import command
from hatch_mar.project.document import Document
from hatch_mar.project.schema import pyproject_schema, tool_schema
from hatch_mar.project.serve_keys import kebab
from hatch_mar.project.table import MarTable
from hatch_mar.project.validation import TABLES, known_keys, validate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pydantic import BaseModel

    from hatch_mar.errors import Problem

GOOD = (
    "",
    'name = "digits"\nversion = "1.0+cu128"\nhandler = "h.py:run"\npackages = ["net"]',
    'weights = "w.pt"',
    'weights = { source = "w.pt", trusted-pickle = true }',
    f'weights = ["a.pt", {{ source = "https://example.org/b.pt", sha256 = "{"A" * 64}" }}]',
    'extra-files = ["a/*", { from = "b", to = "c/" }]\nextra-layout = "tarball"',
    'requirements = ["scipy"]',
    'requirements = "requirements.txt"',
    'serve = { batch-size = 8, device-type = "GPU", parallel-type = "", handler = { x = 1 } }',
    'serve = { anything = "goes", device-ids = [0, 1], pt2 = "inductor" }',
    'system = { extra-files = "x.tar", max-gpu-memory = 500, decode-images = "never" }',
    'system.extra-files = ["x.tar", "y.zip"]',
    'examples = [{ input = "i", output = "o", rtol = 1, content-type = "a/b; c=d" }]',
    'archive = { format = "tgz", compression = "deflated", directory = "..", enabled = false }',
    'wheel = { embed-limit = "1.5 GiB", script = false, tag = "py3-none-any" }',
    "wheel = { embed-limit = 7, script = true }",
    "model-args = { width = 3, deep = { er = [1] } }",
)
BAD = (
    'handlr = "x"',
    "name = 3",
    'name = "3d"',
    'version = "1 0"',
    'handler = ""',
    'handler = " "',
    'packages = "net"',
    "weights = 3",
    "weights = {}",
    'weights = { sorce = "x", source = "w" }',
    'weights = { source = "w", place = "here" }',
    'weights = { source = "w", sha256 = "12" }',
    'weights = { source = "w", size = -1 }',
    'runtime = "onxx"',
    'extra-files = "a/*"',
    "extra-files = [3]",
    'extra-files = [{ from = "x" }]',
    "requirements = 4",
    "serve = 3",
    'system.max-gpu-memory = "5"',
    "system.max-gpu-memory = 0",
    "system.mine = 0",
    'examples = [{ input = "i" }]',
    'examples = [{ input = "i", output = "o", rtol = -1 }]',
    'examples = [{ input = "i", output = "o", content-type = "png" }]',
    "archive.enabled = 1",
    'archive.format = "zip"',
    'wheel.embed-limit = "5 X"',
    "wheel.embed-limit = -1",
    'wheel.tag = "any"',
)
BAD_SERVE = ('batch-size = "8"', "max-batch-delay = 0", 'device-type = "neuron"', "device-ids = []")


def said_by_a_build(values: dict[str, Any]) -> list[Problem]:
    document = Document()
    document.add(values, file="pyproject.toml", prefix="tool.mar")
    problems: list[Problem] = []
    validate(document, problems)
    return problems


@pytest.fixture(scope="module")
def validator() -> Validator:
    return Validator(plugins=list_from_entry_points())


def test_validate_pyproject_finds_the_plugin() -> None:
    plugins = {plugin.tool: plugin for plugin in list_from_entry_points()}
    assert plugins["mar"].schema == tool_schema("mar")


@pytest.mark.parametrize(("mar", "said"), [("", "Valid"), ("runtime = 3", "`tool.mar.runtime`")])
def test_its_own_program_says_so(tmp_path: Path, mar: str, said: str) -> None:
    file = tmp_path / "pyproject.toml"
    file.write_text(f'[project]\nname = "digits"\nversion = "1"\n[tool.mar]\n{mar}\n')
    argv = [sys.executable, "-m", "validate_pyproject", str(file)]
    result = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert said in result.stdout + result.stderr
    assert (result.returncode == 0) == (said == "Valid")


@pytest.mark.parametrize("mar", GOOD)
def test_what_is_right_is_right_to_both(validator: Validator, mar: str) -> None:
    values = tomllib.loads(mar)
    validator({"tool": {"mar": values}})
    assert said_by_a_build(values) == []


@pytest.mark.parametrize("mar", BAD)
def test_what_is_wrong_is_wrong_to_both(validator: Validator, mar: str) -> None:
    values = tomllib.loads(mar)
    with pytest.raises(ValidationError, match=r"tool\.mar"):
        validator({"tool": {"mar": values}})
    assert said_by_a_build(values)


@pytest.mark.parametrize("serve", BAD_SERVE)
def test_the_schema_knows_the_keys_of_the_config(validator: Validator, serve: str) -> None:
    with pytest.raises(ValidationError, match=r"tool\.mar\.serve"):
        validator({"tool": {"mar": {"serve": tomllib.loads(serve)}}})


def walk(schema: object, place: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(schema, dict):
        yield place, schema
        for key, inner in schema.items():
            yield from walk(inner, f"{place}/{key}")
    elif isinstance(schema, list):
        for index, inner in enumerate(schema):
            yield from walk(inner, f"{place}/{index}")


def test_the_schema_stands_alone_and_explains_every_key() -> None:
    for place, schema in walk(tool_schema()):
        assert "$ref" not in schema, place
        assert schema.get("type") != "null", place
        if place.endswith("/properties") and "/serve/" not in place:
            assert all(each.get("description") for each in schema.values()), place
            assert not any("_" in key for key in schema), place


def test_it_lets_nothing_unknown_pass_where_a_build_does_not() -> None:
    closed = [
        set(schema["properties"])
        for _, schema in walk(tool_schema())
        if schema.get("additionalProperties") is False
    ]
    tables: list[type[BaseModel]] = [MarTable, *TABLES.values()]
    for table in tables:
        assert set(known_keys(table)) in closed


def test_every_key_of_the_frontend_is_in_it() -> None:
    serve = tool_schema()["properties"]["serve"]["properties"]
    assert {kebab(key.name) for key in FRONTEND_KEYS} <= set(serve)


def test_the_command_prints_it() -> None:
    printed = CliRunner().invoke(command).output
    assert json.loads(printed) == tool_schema()


def test_the_command_prints_one_for_editors_with_the_hooks_table() -> None:
    printed = json.loads(CliRunner().invoke(command, ["--pyproject"]).output)
    assert printed == pyproject_schema()
    tool = printed["properties"]["tool"]["properties"]
    hook = tool["hatch"]["properties"]["build"]["properties"]["hooks"]["properties"]["mar"]
    assert set(hook["properties"]) > set(tool["mar"]["properties"])
    assert "dependencies" in hook["properties"]
