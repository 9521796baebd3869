"""`hatch-mar check`."""

from __future__ import annotations

import json
import sys
import zipfile
from typing import TYPE_CHECKING, Any

import pytest

from hatch_mar.cli import main
from tests.support.archives import write_mar
from tests.support.builds import PROJECTS, SAMPLE_PROJECT, copy_project, run

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.support.builds import ProjectMaker

ECHO = "def handle(data, context):\n    return [row['body'] for row in data or []]\n"
BASE = (
    "from ts.torch_handler.base_handler import BaseHandler\n\n\nclass H(BaseHandler):\n    pass\n"
)


class Checker:
    """Runs `hatch-mar check` in this process."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self._capfd = capfd

    def __call__(self, *arguments: str | Path) -> tuple[int, str, str]:
        """Return its exit code, its output and its errors."""
        self._capfd.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main(["check", *map(str, arguments)])
        captured = self._capfd.readouterr()
        assert isinstance(exit_.value.code, int)
        return exit_.value.code, captured.out, captured.err

    def json(self, *arguments: str | Path) -> tuple[int, Any]:
        """Return its exit code and its document."""
        code, out, _ = self(*arguments, "--json")
        return code, json.loads(out)


@pytest.fixture
def check(capfd: pytest.CaptureFixture[str]) -> Checker:
    return Checker(capfd)


def foreign_mar(
    tmp_path: Path, model: Mapping[str, str], files: Mapping[str, str | bytes] | None = None
) -> Path:
    """Write an archive as torch-model-archiver does: without a seal."""
    path = tmp_path / "foreign.mar"
    manifest = {"runtime": "python", "model": {"modelName": "foreign", **model}}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (files or {}).items():
            archive.writestr(name, content)
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
    return path


# A project.


def test_the_sample_project_is_right(check: Checker) -> None:
    code, out, err = check(SAMPLE_PROJECT)
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == "digits 1.0.0: nothing is wrong"
    assert "hatch-mar        serves it" in out
    assert "TorchServe 0.12  serves it" in out


def test_json_says_the_same(check: Checker) -> None:
    code, found = check.json(SAMPLE_PROJECT)
    assert code == 0
    assert found["handler"] == "handler:handler"
    assert found["servers"]["torchserve"] == {"serves": True, "obstacles": []}
    assert found["problems"] == []


def test_explain_says_where_each_value_came_from(check: Checker) -> None:
    lines = check(SAMPLE_PROJECT, "--explain")[1].splitlines()
    assert "batch-size" in "".join(lines)
    assert all(line.endswith(")") for line in lines)


def test_explain_as_json(check: Checker) -> None:
    _, found = check.json(SAMPLE_PROJECT, "--explain")
    settings = {each["key"]: each for each in found["settings"]}
    assert settings["serve.batch-size"]["value"] == 16
    assert settings["serve.batch-size"]["origin"] == "model-config.yaml: batchSize"


def test_problems_are_one_clean_message_and_exit_code_2(
    check: Checker, make_project: ProjectMaker
) -> None:
    code, out, err = check(make_project(mar='handlr = "x"\nweights = "no.pt"'))
    assert (code, out) == (2, "")
    assert err.splitlines()[0] == "hatch-mar: 2 problems"
    assert "Traceback" not in err


def test_problems_as_json(check: Checker, make_project: ProjectMaker) -> None:
    code, found = check.json(make_project(mar='handlr = "x"'))
    assert code == 2
    assert found == {
        "problems": [
            {
                "file": "pyproject.toml",
                "key": "tool.mar.handlr",
                "message": "unknown key; did you mean 'handler'?",
            }
        ]
    }


def test_nothing_is_imported_and_nothing_is_written(
    check: Checker, make_project: ProjectMaker
) -> None:
    handler = "raise SystemExit('imported')\n\n\ndef handle(d, c): ...\n"
    root = make_project(files={"handler.py": handler})
    before = sorted(root.rglob("*"))
    assert check(root)[0] == 0
    assert sorted(root.rglob("*")) == before


def test_what_only_we_can_serve_is_said_and_is_no_fault(
    check: Checker, make_project: ProjectMaker
) -> None:
    root = make_project(mar='weights = "n.onnx"', files={"handler.py": BASE, "n.onnx": b"1"})
    code, out, _ = check(root)
    assert code == 0
    assert "TorchServe 0.12  does not serve it as it is:" in out
    assert "loads ONNX but cannot run it" in out
    assert "notes" not in out, "nothing is said twice"


def test_a_server_that_has_to_serve_it(check: Checker, make_project: ProjectMaker) -> None:
    root = make_project(mar='weights = "n.onnx"', files={"handler.py": BASE, "n.onnx": b"1"})
    assert check(root, "--for", "hatch-mar")[0] == 0
    code, out, err = check(root, "--for", "torchserve")
    assert (code, out) == (2, "")
    assert "TorchServe 0.12: runtime:" in err


def test_a_project_in_a_directory_of_any_name(check: Checker, tmp_path: Path) -> None:
    assert check(copy_project(SAMPLE_PROJECT, tmp_path / "zähler mit leerzeichen"))[0] == 0


# An archive.


def test_an_archive_a_wheel_and_a_directory(
    check: Checker, sample_mar: Path, sample_wheel: Path, tmp_path: Path
) -> None:
    with zipfile.ZipFile(sample_mar) as archive:
        archive.extractall(tmp_path / "unpacked")
    for target in (sample_mar, sample_wheel, tmp_path / "unpacked"):
        code, found = check.json(target)
        assert code == 0
        assert found["sealed"]
        assert found["examples"] == 3
        assert all(server["serves"] for server in found["servers"].values())


def test_a_foreign_archive_has_no_seal(check: Checker, tmp_path: Path) -> None:
    path = foreign_mar(tmp_path, {"handler": "handler.py"}, {"handler.py": ECHO})
    code, out, err = check(path)
    assert (code, err) == (0, "")
    assert "not sealed" in out
    assert "handler.py: `handle`" in out


def test_the_line_of_a_syntax_error(check: Checker, tmp_path: Path) -> None:
    path = foreign_mar(tmp_path, {"handler": "handler"}, {"handler.py": "import os\ndef f(:\n"})
    code, out, err = check(path)
    assert (code, out) == (3, "")
    assert "handler.py: line 2: " in err


@pytest.mark.parametrize(
    ("model", "files", "problem"),
    [
        ({}, {}, "model.handler: is missing"),
        ({"handler": "gone.py"}, {"other.py": ""}, "'gone.py' is neither a module"),
        ({"handler": "h.py"}, {"h.py": "x = 1\n"}, "neither a function 'handle' nor"),
        ({"handler": "h:f"}, {"h.py": "class A: ...\nclass B: ...\n"}, "nor exactly one class"),
        ({"handler": "h"}, {"h.py": "class A: ...\n"}, "has no method 'handle'"),
        ({"handler": "h"}, {"h.py": BASE}, "there is nothing to load"),
        ({"handler": "h", "serializedFile": "w.pt"}, {"h.py": BASE}, "'w.pt' is not in"),
        ({"handler": "h", "modelFile": "m.py"}, {"h.py": BASE}, "'m.py' is not in"),
        ({"handler": "h", "modelFile": "m.py"}, {"h.py": BASE, "m.py": "x"}, "defines no class"),
        ({"handler": "h", "modelFile": "m.py"}, {"h.py": BASE, "m.py": "("}, "m.py: line 1"),
        (
            {"handler": "h", "serializedFile": "w.pth"},
            {"h.py": BASE, "w.pth": b"1"},
            "holds weights alone",
        ),
        (
            {"handler": "h", "configFile": "c.yaml"},
            {"h.py": ECHO, "c.yaml": "a: [1"},
            "c.yaml: line 1",
        ),
    ],
)
def test_what_nobody_could_serve(
    check: Checker, tmp_path: Path, model: dict[str, str], files: dict[str, str], problem: str
) -> None:
    code, out, err = check(foreign_mar(tmp_path, model, files))
    assert (code, out) == (3, "")
    assert problem in err


@pytest.mark.parametrize(
    ("model", "files", "obstacle"),
    [
        ({"handler": "h", "serializedFile": "n.onnx"}, {"h.py": BASE, "n.onnx": b"1"}, "ONNX"),
        ({"handler": "h", "serializedFile": "n.pt2"}, {"h.py": BASE, "n.pt2": b"1"}, "exported"),
        (
            {"handler": "h", "modelFile": "m.py", "serializedFile": "w.safetensors"},
            {"h.py": BASE, "m.py": "class N: ...\n", "w.safetensors": b"1"},
            "safetensors",
        ),
        (
            {"handler": "h", "modelFile": "m.py"},
            {"h.py": BASE, "m.py": "class A: ...\nclass B: ...\n"},
            "takes one alone",
        ),
        (
            {"handler": "h:H", "serializedFile": "w.pt"},
            {"h.py": BASE, "w.pt": b"1"},
            "call it as a",
        ),
        ({"handler": "h"}, {"h.py": "from hatch_mar import x\n" + ECHO}, "installed beside"),
        (
            {"handler": "h", "configFile": "c.yaml"},
            {"h.py": ECHO, "c.yaml": "system: {extraFiles: [a.tar]}", "a.tar": b""},
            "unpacks the tarball",
        ),
    ],
)
def test_what_only_we_can_serve(
    check: Checker,
    tmp_path: Path,
    model: dict[str, str],
    files: dict[str, str | bytes],
    obstacle: str,
) -> None:
    code, found = check.json(foreign_mar(tmp_path, model, files))
    assert code == 0
    assert found["servers"]["hatch-mar"]["serves"]
    assert obstacle in " ".join(found["servers"]["torchserve"]["obstacles"])


@pytest.mark.parametrize(
    ("model", "files", "obstacle"),
    [
        ({"handler": "h"}, {"h.py": "import ts.no_such\n" + ECHO}, "no module 'ts.no_such'"),
        (
            {"handler": "h", "configFile": "c.yaml"},
            {
                "h.py": "from base_handler import handler_factory\n" + ECHO,
                "base_handler.py": "HATCH_MAR_BASE_HANDLER = 1\n",
                "c.yaml": "system: {extraFiles: a.tar}",
            },
            "there is no member 'a.tar'",
        ),
    ],
)
def test_what_only_torchserve_can_serve(
    check: Checker, tmp_path: Path, model: dict[str, str], files: dict[str, str], obstacle: str
) -> None:
    path = foreign_mar(tmp_path, model, files)
    code, found = check.json(path)
    assert code == 0
    assert obstacle in " ".join(found["servers"]["hatch-mar"]["obstacles"])
    assert check(path, "--for", "hatch-mar")[0] == 3


def test_a_handler_that_is_this_very_program(check: Checker, tmp_path: Path) -> None:
    code, _, err = check(foreign_mar(tmp_path, {"handler": "__main__"}, {"h.py": ECHO}))
    assert code == 3
    assert "'__main__' is neither a module of the archive nor a default handler" in err


def test_what_neither_can_serve_is_a_fault(check: Checker, tmp_path: Path) -> None:
    handler = "import ts.no_such\nfrom hatch_mar import x\n" + ECHO
    path = foreign_mar(tmp_path, {"handler": "h"}, {"h.py": handler})
    code, out, err = check(path)
    assert (code, out) == (3, "")
    assert err.splitlines()[0].endswith("foreign.mar: 2 problems")


@pytest.mark.parametrize(
    ("model", "files", "note"),
    [
        ({"configFile": "c.yaml"}, {"c.yaml": "batchsize: 8"}, "did you mean 'batchSize'"),
        ({"configFile": "c.yaml"}, {"c.yaml": "minWorkers: 1"}, "maxWorkers is not set"),
        ({"configFile": "c.yaml"}, {}, "not in the archive"),
        ({"requirementsFile": "r.txt"}, {"r.txt": "numpy\n-e .\n"}, "r.txt: line 2: '-e .' names"),
        ({"requirementsFile": "r.txt"}, {"r.txt": b"\xff\xfe"}, "r.txt: is not UTF-8"),
        ({"requirementsFile": "r.txt"}, {}, "r.txt: named in the manifest"),
        ({}, {"lib/broken.py": "def ("}, "lib/broken.py: line 1"),
        ({"serializedFile": "w.pt"}, {}, "'w.pt' is not in the archive"),
    ],
)
def test_what_torchserve_shrugs_at_is_a_note(
    check: Checker, tmp_path: Path, model: dict[str, str], files: dict[str, str], note: str
) -> None:
    path = foreign_mar(tmp_path, {"handler": "h", **model}, {"h.py": ECHO, **files})
    code, found = check.json(path)
    assert code == 0
    assert note in "\n".join(found["notes"])


def test_a_broken_file_is_a_problem_in_either_form(check: Checker, tmp_path: Path) -> None:
    path = tmp_path / "broken.mar"
    path.write_bytes(b"PK\x03\x04 and nothing else")
    code, out, err = check(path)
    assert (code, out) == (3, "")
    assert len(err.splitlines()) == 1
    code, found = check.json(path)
    assert (code, len(found["problems"])) == (3, 1)


def test_what_is_not_there(check: Checker, tmp_path: Path) -> None:
    assert check(tmp_path / "no.mar")[0] == 6
    assert check("no-such-model")[0] == 6


@pytest.mark.parametrize("flag", ["--explain", "--bless"])
def test_what_only_a_project_has(check: Checker, sample_mar: Path, flag: str) -> None:
    code, out, err = check(sample_mar, flag)
    assert (code, out) == (6, "")
    assert "name a project's directory" in err


# Loaded.


def test_a_model_is_loaded(check: Checker, tmp_path: Path) -> None:
    code, out, err = check(write_mar(tmp_path, "echo", ECHO), "--load")
    assert (code, err) == (0, "")
    assert "loaded on cpu in" in out


def test_what_a_handler_prints_stays_out_of_the_document(check: Checker, tmp_path: Path) -> None:
    path = write_mar(tmp_path, "echo", "print('hello from afar')\n" + ECHO)
    code, out, err = check(path, "--load", "--json")
    assert code == 0
    assert json.loads(out)["trial"]["device"] == "cpu"
    assert "hello from afar" in err


def test_a_model_that_does_not_load_shows_its_own_traceback(check: Checker, tmp_path: Path) -> None:
    path = write_mar(tmp_path, "sick", "def handle(data, context):\n    return {}['weights']\n")
    code, out, err = check(path, "--load")
    assert code == 5
    assert "KeyError: 'weights'" in err
    assert "handler.py" in err
    assert "hatch_mar/model" not in err
    assert out == ""


def test_golden_examples_have_a_table(check: Checker, tmp_path: Path) -> None:
    path = write_mar(tmp_path, "echo", ECHO, examples={b"[1.0]": b"[1.0]", b"[2.0]": b"[2.5]"})
    code, out, err = check(path, "--golden")
    assert code == 5
    assert out.splitlines()[0] == "echo 1.0: answers otherwise than recorded"
    lines = [line.split() for line in out.splitlines()[-2:]]
    assert [line[:3] for line in lines] == [["0.in", "passed", "0"], ["1.in", "differs", "0.5"]]
    assert "1.in: golden example: at $[0]: expected 2.5, got 2.0" in err
    code, found = check.json(path, "--golden")
    assert code == 5
    assert [each["passed"] for each in found["trial"]["examples"]] == [True, False]
    assert found["problems"][0]["file"] == "1.in"


def test_an_example_that_fails_is_told_with_its_traceback(check: Checker, tmp_path: Path) -> None:
    handler = "def handle(data, context):\n    return [1 / 0] if data else None\n"
    path = write_mar(tmp_path, "sick", handler, examples={b"1": b"1"})
    code, out, err = check(path, "--golden")
    assert code == 5
    assert "ZeroDivisionError" in err
    assert "0.in     failed" in out


def test_a_worker_that_dies_of_an_example(check: Checker, tmp_path: Path) -> None:
    handler = "import os\n\n\ndef handle(data, context):\n    return os._exit(9) if data else 0\n"
    path = write_mar(tmp_path, "mortal", handler, examples={b"1": b"1", b"2": b"2"})
    code, out, _ = check(path, "--golden")
    assert code == 5
    assert "Worker died." in out


def test_the_sample_projects_examples_pass(check: Checker) -> None:
    code, out, _ = check(SAMPLE_PROJECT, "--golden")
    assert code == 0
    assert out.count("passed") == 3


# Blessed.


@pytest.fixture
def counter(make_project: ProjectMaker) -> Path:
    """A project that answers with the length of what it is sent, and knows two examples."""
    handler = "def handle(data, context):\n    return [len(row['body']) for row in data or []]\n"
    examples = ", ".join(
        f'{{ input = "e/{name}.txt", output = "e/out/{name}.json", content-type = "x/y" }}'
        for name in ("one", "two")
    )
    return make_project(
        mar=f"examples = [{examples}]",
        files={"handler.py": handler, "e/one.txt": "1", "e/two.txt": "22"},
    )


def test_answers_that_are_missing_are_written(check: Checker, counter: Path) -> None:
    assert check(counter)[0] == 2, "a build needs the answers"
    code, out, err = check(counter, "--bless")
    assert (code, err) == (0, "")
    assert out.splitlines() == ["e/out/one.json  written  new", "e/out/two.json  written  new"]
    assert (counter / "e/out/two.json").read_bytes() == b"2\n"
    assert check(counter, "--golden")[0] == 0


def test_only_what_differs_is_written_again(check: Checker, counter: Path) -> None:
    check(counter, "--bless")
    (counter / "e/out/one.json").write_text("1.0000000001")
    (counter / "e/out/two.json").write_text("3")
    code, found = check.json(counter, "--bless")
    assert code == 0
    assert [each["written"] for each in found["answers"]] == [False, True]
    assert found["answers"][1]["change"] == "at $: expected 3, got 2"
    assert (counter / "e/out/one.json").read_text() == "1.0000000001"


def test_an_answer_that_is_no_json_is_replaced(check: Checker, counter: Path) -> None:
    check(counter, "--bless")
    (counter / "e/out/one.json").write_text("")
    assert check(counter, "--bless")[0] == 0
    assert (counter / "e/out/one.json").read_text() == "1\n"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "import random\n    return [random.random() for _ in data or []]",
            "differently each time",
        ),
        ("return [1 // (2 - len(row['body'])) for row in data or []]", "answered 5"),
    ],
)
def test_nothing_is_written_of_a_model_that_is_not_well(
    check: Checker, counter: Path, body: str, message: str
) -> None:
    (counter / "handler.py").write_text(f"def handle(data, context):\n    {body}\n")
    code, out, err = check(counter, "--bless")
    assert (code, out) == (5, "")
    assert message in err
    assert not (counter / "e/out").exists()


def test_there_has_to_be_something_to_bless(check: Checker, make_project: ProjectMaker) -> None:
    code, _, err = check(make_project(), "--bless")
    assert code == 2
    assert "tool.mar.examples: there are none to bless" in err


def test_as_a_program() -> None:
    out = run(sys.executable, "-m", "hatch_mar", "check", PROJECTS / "shout")
    assert out.startswith("shout 0.3: nothing is wrong")


def test_what_a_build_of_the_wheel_would_refuse(check: Checker, make_project: ProjectMaker) -> None:
    """Nobody has to build to hear that the package would have no runner, and no `serve-...`."""
    pyproject = """
        [build-system]
        requires = ["hatchling", "hatch-mar"]
        build-backend = "hatchling.build"
        [project]
        name = "demo"
        version = "1.0"
        dependencies = ["hatch-mar"]
        [project.scripts]
        serve-demo = "elsewhere:main"
        [tool.hatch.build.hooks.mar]
    """
    code, out, err = check(make_project(pyproject=pyproject))
    assert (code, out) == (2, "")
    keys = [line.split(": ")[1] for line in err.splitlines()[1:]]
    assert keys == [
        "project.dependencies",
        "project.scripts.serve-demo",
        "project.entry-points",
    ]
    assert 'write serve-demo = "demo_mar.__main__:main"' in err
