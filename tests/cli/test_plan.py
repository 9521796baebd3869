"""`hatch-mar plan`."""

from __future__ import annotations

import json
import shutil
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from hatch_mar.cli import main
from hatch_mar.cli.plan import command
from tests.support.builds import PROJECTS, SAMPLE_PROJECT, run, wheel_entry_points

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.builds import ProjectMaker

HOOK = "[tool.hatch.build.hooks.mar]\n"


def plan(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    """Run `hatch-mar plan` in this process; return its exit code, output and errors."""
    with pytest.raises(SystemExit) as exit_:
        main(["plan", *map(str, arguments)])
    captured = capsys.readouterr()
    code = exit_.value.code
    assert isinstance(code, int)
    return code, captured.out, captured.err


def test_the_sample_project(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = plan(capsys, SAMPLE_PROJECT)
    assert (code, err) == (0, "")
    assert out.startswith("digits 1.0.0: A small convolutional classifier")
    for part in (
        "runtime     eager  (handler_factory loads the weights",
        "archive  digits-1.0.0.mar  (mar, stored)",
        "serve-digits = digits_mar.__main__:main",
        "py3-none-any",
        "seven.png    -> seven.json",
        "batchSize        16",
    ):
        assert part in out


def test_members_are_a_tree_in_which_the_tarball_has_its_files(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = plan(capsys, SAMPLE_PROJECT)[1].splitlines()
    tarball = next(number for number, line in enumerate(lines) if "system.extraFiles" in line)
    assert lines[tarball].startswith("    └── sources.tar")
    assert lines[tarball + 1 : tarball + 3] == [
        "        └── digits_net",
        "            ├── __init__.py",
    ]


def test_the_archive_that_is_built_is_the_one_that_was_planned(
    capsys: pytest.CaptureFixture[str], sample_mar: Path
) -> None:
    found = json.loads(plan(capsys, SAMPLE_PROJECT, "--json")[1])
    with zipfile.ZipFile(sample_mar) as archive:
        sizes = {each.filename: each.file_size for each in archive.infolist()}
    del sizes["MAR-INF/SEAL.json"]
    assert {each["name"]: each["size"] for each in found["members"]} == sizes
    assert found["archive"]["filename"] == sample_mar.name


def test_the_wheel_that_is_built_is_the_one_that_was_planned(
    capsys: pytest.CaptureFixture[str], sample_wheel: Path
) -> None:
    wheel = json.loads(plan(capsys, SAMPLE_PROJECT, "--json")[1])["wheel"]
    assert sample_wheel.stem.endswith(wheel["tag"])
    groups = wheel_entry_points(sample_wheel)
    for entry in wheel["entry_points"]:
        assert groups[entry["group"]][entry["name"]] == entry["target"]


def test_what_is_by_reference_is_listed_with_its_digest(
    capsys: pytest.CaptureFixture[str], make_project: ProjectMaker
) -> None:
    root = make_project(
        mar=f"""
        weights = {{ source = "https://b.example/w.pt", sha256 = "{"ab" * 32}", size = 12345 }}
        """
    )
    out = plan(capsys, root)[1]
    assert "w.pt  12.3 kB  sha256 abababababab  https://b.example/w.pt" in out
    assert "weights     w.pt, by reference" in out


def test_the_row_of_the_flowchart_is_told(
    capsys: pytest.CaptureFixture[str], make_project: ProjectMaker
) -> None:
    handler = "from ts.torch_handler.base_handler import BaseHandler\nclass H(BaseHandler): ...\n"
    root = make_project(
        mar='weights = "net.onnx"', files={"handler.py": handler, "net.onnx": b"onnx"}
    )
    out = plan(capsys, root)[1]
    assert "initialize  BaseHandler's" in out
    assert "runtime     onnx  (`initialize` is BaseHandler's; `.onnx`)" in out
    assert "loads ONNX but cannot run it" in out


def test_a_tag_of_the_authors_own(
    capsys: pytest.CaptureFixture[str], make_project: ProjectMaker
) -> None:
    root = make_project(mar='[tool.mar.wheel]\ntag = "py3-none-linux_x86_64"')
    out = plan(capsys, root)[1]
    assert "py3-none-linux_x86_64" in out
    assert "machine code" not in out


def test_problems_come_all_at_once(
    capsys: pytest.CaptureFixture[str], make_project: ProjectMaker
) -> None:
    root = make_project(mar='handlr = "x"\nweights = "no.pt"')
    code, out, err = plan(capsys, root)
    assert (code, out) == (2, "")
    assert err.splitlines()[0] == "hatch-mar: 2 problems"


def test_problems_as_json(capsys: pytest.CaptureFixture[str], make_project: ProjectMaker) -> None:
    root = make_project(mar='handlr = "x"')
    code, out, err = plan(capsys, root, "--json")
    assert (code, err) == (2, "")
    assert json.loads(out)["problems"][0]["key"] == "tool.mar.handlr"


@pytest.mark.parametrize("built", ["wheel", "mar", "directory", "nothing"])
def test_what_is_no_project_has_no_plan(
    capsys: pytest.CaptureFixture[str],
    sample_wheel: Path,
    sample_mar: Path,
    tmp_path: Path,
    built: str,
) -> None:
    targets = {
        "wheel": sample_wheel,
        "mar": sample_mar,
        "directory": tmp_path,
        "nothing": tmp_path / "x",
    }
    code, out, err = plan(capsys, targets[built])
    assert (code, out) == (6, "")
    assert len(err.splitlines()) == 1


def test_the_hook_table_is_read_and_missed(
    capsys: pytest.CaptureFixture[str], make_project: ProjectMaker
) -> None:
    pyproject = '[project]\nname = "demo"\nversion = "1.0"\ndependencies = ["hatch-mar[serve]"]\n'
    root = make_project(pyproject=pyproject)
    assert "there is no [tool.hatch.build.hooks.mar]" in plan(capsys, root)[1]
    root = make_project(pyproject=f"{pyproject}{HOOK}name = 'other'\n")
    out = plan(capsys, root)[1]
    assert out.startswith("other 1.0")
    assert "there is no" not in out


def test_a_dynamic_version_is_asked_of_hatchling(
    capsys: pytest.CaptureFixture[str], make_project: ProjectMaker
) -> None:
    root = make_project(
        pyproject=f"""
        [project]
        name = "demo"
        dynamic = ["version"]
        [tool.hatch.version]
        path = "version.py"
        {HOOK}""",
        files={"version.py": '__version__ = "3.1"\n'},
    )
    assert plan(capsys, root)[1].startswith("demo 3.1")


@pytest.mark.parametrize("name", ["with space", "zähler"])
def test_any_directory_will_do(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str
) -> None:
    target = tmp_path / name
    shutil.copytree(SAMPLE_PROJECT, target, ignore=shutil.ignore_patterns("dist", "__pycache__"))
    assert plan(capsys, target)[0] == 0


def test_every_project_of_ours_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    root = PROJECTS / "shout"
    code, out, _ = plan(capsys, root)
    assert code == 0
    assert "words" in out


def test_the_current_directory_is_the_target_unless_there_is_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(SAMPLE_PROJECT)
    result = CliRunner().invoke(command, [])
    assert result.output.startswith("digits 1.0.0")


def test_as_a_program() -> None:
    out = run(sys.executable, "-m", "hatch_mar", "plan", SAMPLE_PROJECT)
    assert "hatch_mar.models" in out
