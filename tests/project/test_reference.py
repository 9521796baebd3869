"""The reference page of `[tool.mar]`: its example is right, and its tables are the schema's."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from validate_pyproject.api import Validator
from validate_pyproject.plugins import list_from_entry_points

from hatch_mar.archive.configkeys import FRONTEND_KEYS
from hatch_mar.project.document import dig
from hatch_mar.project.table import MarTable
from hatch_mar.project.validation import TABLES, known_keys
from tests.project.scratch import PROJECT, Scratch

if TYPE_CHECKING:
    from types import ModuleType

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "reference" / "tool-mar.md").read_text(encoding="utf-8")
SHA = "0f6a1e0d6a5c1c3f4b1a1e8e0f6b5d0d7b0c5a9f3c2e1d4b6a7f8e9d0c1b2a39"


@pytest.fixture(scope="module")
def generated() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generated", DOCS / "generated.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def full_example() -> str:
    found = re.search(r"## A full example.*?```toml[^\n]*\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    return found[1]


def test_the_full_example_builds(scratch: Scratch) -> None:
    scratch.write(
        {
            "pyproject.toml": f"{PROJECT}\n{full_example()}",
            "digits/__init__.py": "",
            "digits/serving.py": (
                "from ts.torch_handler.base_handler import BaseHandler\n"
                "class DigitHandler(BaseHandler): ...\n"
            ),
            "network.py": "class Network: ...\nclass Other: ...\n",
            "assets/deep/labels.txt": "0",
            "conf/prod.json": "{}",
            "model-config.yaml": "minWorkers: 1\nmaxWorkers: 2\n",
            "weights/network.pt": b"1",
            "examples/seven.png": b"7",
            "examples/seven.json": "7",
        }
    )
    plan = scratch.plan()
    assert {"digits/serving.py", "extra_files.tar", "network.pt", "requirements.txt"} <= {
        member.name for member in plan.members
    }
    assert [reference.sha256 for reference in plan.references] == [SHA]
    assert scratch.spec().config["batchSize"] == 16


def test_the_full_example_is_right_to_validate_pyproject() -> None:
    Validator(plugins=list_from_entry_points())(tomllib.loads(f"{PROJECT}\n{full_example()}"))


def test_the_full_example_has_every_key() -> None:
    assert set(dig(tomllib.loads(full_example()), "tool", "mar")) == set(known_keys(MarTable))


def test_the_tables_have_every_key(generated: ModuleType) -> None:
    text = generated.tool_mar()
    for table in (MarTable, *TABLES.values()):
        assert all(f"| `{key}` |" in text for key in known_keys(table))  # type: ignore[arg-type]
    text = generated.model_config()
    assert all(f"| `{key.name}` |" in text for key in FRONTEND_KEYS)


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: page.stem)
def test_every_marker_is_filled_in(generated: ModuleType, page: Path) -> None:
    text = generated.on_page_markdown(page.read_text(encoding="utf-8"))
    assert "<!-- generated" not in text
