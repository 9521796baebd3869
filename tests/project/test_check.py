"""`hatch-mar check`."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.project.scratch import Scratch

SAMPLE = Path(__file__).parents[2] / "sample_project"
HOOK = "[tool.hatch.build.hooks.mar]\n"


def check(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hatch_mar", "check", *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def test_the_sample_project_is_right() -> None:
    result = check(SAMPLE)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("digits 1.0.0: ")
    for line in ("handler:handler", "digits.pt", "digits_net/model.py", "serve-digits"):
        assert line in result.stdout


def test_json_says_the_same() -> None:
    found = json.loads(check(SAMPLE, "--json").stdout)
    assert found["handler"]["manifest"] == "handler:handler"
    assert found["manifest"]["model"]["modelName"] == "digits"
    assert "base_handler.py" in [member["name"] for member in found["members"]]
    assert found["problems"] == []


def test_explain_says_where_each_value_came_from() -> None:
    lines = check(SAMPLE, "--explain").stdout.splitlines()
    assert "batch-size" in "".join(lines)
    assert all(line.endswith(")") for line in lines)


def test_problems_are_one_clean_message_and_exit_code_2(scratch: Scratch) -> None:
    scratch.configure('handlr = "x"\nweights = "no.pt"')
    result = check(scratch.root)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.splitlines()[0] == "hatch-mar: 2 problems"
    assert "Traceback" not in result.stderr


def test_problems_as_json(scratch: Scratch) -> None:
    scratch.configure('handlr = "x"')
    result = check(scratch.root, "--json")
    assert result.returncode == 2
    assert json.loads(result.stdout) == {
        "problems": [
            {
                "file": "pyproject.toml",
                "key": "tool.mar.handlr",
                "message": "unknown key; did you mean 'handler'?",
            }
        ]
    }


def test_the_hook_table_is_read_and_missed(scratch: Scratch) -> None:
    result = check(scratch.root)
    assert "there is no [tool.hatch.build.hooks.mar]" in result.stdout
    scratch.configure(HOOK.replace("]", "]\nname = 'other'"))
    result = check(scratch.root)
    assert result.stdout.startswith("other 1.0")
    assert "there is no" not in result.stdout


def test_a_dynamic_version_is_asked_of_hatchling(scratch: Scratch) -> None:
    scratch.write({"digits.py": '__version__ = "3.1"\n'})
    scratch.configure(
        '[tool.hatch.version]\npath = "digits.py"\n' + HOOK,
        project='[project]\nname = "digits"\ndynamic = ["version"]\n',
    )
    assert check(scratch.root).stdout.startswith("digits 3.1")


def test_nothing_is_imported_and_nothing_is_written(scratch: Scratch) -> None:
    scratch.write({"handler.py": "raise SystemExit('imported')\n\n\ndef handle(d, c): ...\n"})
    before = sorted(scratch.root.rglob("*"))
    assert check(scratch.root).returncode == 0
    assert sorted(scratch.root.rglob("*")) == before


@pytest.mark.parametrize("name", ["with space", "zähler"])
def test_any_directory_will_do(tmp_path: Path, name: str) -> None:
    target = tmp_path / name
    shutil.copytree(SAMPLE, target, ignore=shutil.ignore_patterns("dist", "__pycache__"))
    assert check(target).returncode == 0
