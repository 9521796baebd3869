"""`hatch-mar doctor`."""

from __future__ import annotations

import json
import socket
import sys
from typing import TYPE_CHECKING, Any

import pytest

from hatch_mar.cli import main
from hatch_mar.cli.doctor import WIDTH
from hatch_mar.cli.environment import (
    look_at_build_tools,
    look_at_extras,
    look_at_old_programs,
    look_at_python,
    look_at_variables,
)
from hatch_mar.cli.old_names import MARK
from hatch_mar.serve.devices.discovery import read_driver
from tests.support.archives import write_mar
from tests.support.builds import SAMPLE_PROJECT, Environment, copy_project, run

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.builds import Celsius, ProjectMaker

ECHO = "def handle(data, context):\n    return data\n"


def doctor(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, Any]:
    """Run `hatch-mar doctor --json` in this process; return its exit code and document."""
    with pytest.raises(SystemExit) as exit_:
        main(["doctor", *map(str, arguments), "--json"])
    code = exit_.value.code
    assert isinstance(code, int)
    return code, json.loads(capsys.readouterr().out)


def told(document: Any, topic: str) -> list[tuple[str, str]]:
    """Return the state and the message of each finding of `topic`."""
    return [
        (each["state"], each["message"]) for each in document["findings"] if each["topic"] == topic
    ]


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Keep the cache of whoever runs the tests out of them."""
    directory = tmp_path / "cache"
    monkeypatch.setenv("HATCH_MAR_CACHE_DIR", str(directory))
    return directory


def test_this_environment_is_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    code, document = doctor(capsys)
    assert (code, document["problems"]) == (0, [])
    topics = {each["topic"] for each in document["findings"]}
    assert {"python", "hatchling", "front ends", "extra serve", "ports", "cache"} <= topics
    assert told(document, "hatchling")[0][0] == "ok"
    assert "torch" in told(document, "extra torch")[0][1]


def test_a_person_gets_columns_and_a_last_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    monkeypatch.setattr("hatch_mar.cli.doctor.LITTLE_ROOM", sys.maxsize)
    with pytest.raises(SystemExit):
        main(["doctor"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("no problems, ")
    (cached,) = (line for line in lines if line.startswith("note  cache"))
    texts = [line[cached.index(str(cache)) :] for line in lines]  # fails where a path is broken
    assert next(text for text in texts if text.startswith("-> make room")).endswith("another")
    assert [text for text in texts if " " in text and len(text) > WIDTH] == []


def test_torch_is_not_imported_to_be_found() -> None:
    code = (
        "import sys\nfrom hatch_mar.cli import main\n"
        "try:\n    main(['doctor'])\nexcept SystemExit:\n    pass\n"
        "print('torch' in sys.modules, 'numpy' in sys.modules, 'onnxruntime' in sys.modules)"
    )
    assert run(sys.executable, "-c", code).splitlines()[-1] == "False False False"


def test_a_port_that_is_taken(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        port = sock.getsockname()[1]
        monkeypatch.setattr("hatch_mar.cli.doctor.PORTS", {port: "inference"})
        document = doctor(capsys)[1]
    assert told(document, "ports") == [("note", f"{port} (inference) is taken by another program")]


def test_a_cache_that_is_in_use(capsys: pytest.CaptureFixture[str], cache: Path) -> None:
    (cache / "sha256" / "ab").mkdir(parents=True)
    (cache / "sha256" / "ab" / ("ab" * 32)).write_bytes(b"x" * 1500)
    (message,) = (message for _, message in told(doctor(capsys)[1], "cache"))
    assert message.startswith(f"{cache}: 1.5 kB in 1 file, ")


def test_whether_it_is_offline(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert told(doctor(capsys)[1], "offline") == []
    monkeypatch.setenv("HATCH_MAR_OFFLINE", "1")
    ((state, message),) = told(doctor(capsys)[1], "offline")
    assert state == "note"
    assert message.startswith("HATCH_MAR_OFFLINE is set")


def test_a_cache_that_is_no_directory(capsys: pytest.CaptureFixture[str], cache: Path) -> None:
    cache.write_text("not a directory")
    code, document = doctor(capsys)
    assert code == 1
    assert told(document, "cache") == [("problem", f"{cache} cannot be written")]
    assert document["problems"][0]["key"] == "cache"


def test_variables_are_listed_and_secrets_are_not() -> None:
    found = {
        each.message
        for each in look_at_variables(
            {
                "HATCH_MAR_MANAGEMENT_TOKEN": "s3cret",
                "HATCH_MAR_ARCHIVE_FORMAT": "tgz",
                "HATCH_MAR_OFLINE": "1",
                "HOME": "/",
            }
        )
    }
    assert found == {
        "HATCH_MAR_MANAGEMENT_TOKEN=(set)",
        "HATCH_MAR_ARCHIVE_FORMAT=tgz, overrules [tool.mar] in every build",
        "HATCH_MAR_OFLINE: nothing reads it; did you mean 'HATCH_MAR_OFFLINE'?",
    }


def test_no_variable_is_set() -> None:
    assert [each.state for each in look_at_variables({})] == ["ok"]


def test_another_environment_is_active(tmp_path: Path) -> None:
    notes = list(look_at_python({"VIRTUAL_ENV": str(tmp_path)}, tmp_path))
    assert any(f"the active environment is {tmp_path}" in each.message for each in notes)


def test_the_project_has_an_environment_of_its_own(tmp_path: Path) -> None:
    (tmp_path / ".venv").mkdir()
    notes = [each for each in look_at_python({}, tmp_path) if each.state == "note"]
    assert [each.remedy for each in notes] == [f"run {tmp_path}/.venv/bin/hatch-mar"]


def test_a_shell_finds_another_hatch_mar(tmp_path: Path) -> None:
    program = tmp_path / "hatch-mar"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    notes = [each for each in look_at_python({"PATH": str(tmp_path)}, tmp_path) if each.remedy]
    assert [each.remedy for each in notes] == ["look at PATH"]


def test_old_programs_are_told_apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, text in (("torchserve", "#!/bin/sh\n"), ("torch-model-archiver", f"#!x\n{MARK}\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = {each.topic: each.message for each in look_at_old_programs()}
    assert found["torch-model-archiver"].startswith("hatch-mar, under that name")
    assert found.get("torchserve", "the original").startswith("the original")


def test_what_an_environment_lacks(serving_env: Environment) -> None:
    """An environment that is not this one: hatch-mar comes from its wheel there."""
    out = run(serving_env.python, "-m", "hatch_mar", "doctor", cwd=serving_env.path, expect=None)
    assert "extra serve" in out
    assert "Traceback" not in out


def test_our_own_metadata_says_what_is_needed() -> None:
    assert {each.topic for each in look_at_extras()} >= {"extra serve", "extra torch", "extra onnx"}
    assert next(look_at_build_tools()).message.endswith(">=1.26.3")


# Of one model.


def test_the_sample_project_finds_what_it_needs(capsys: pytest.CaptureFixture[str]) -> None:
    code, document = doctor(capsys, SAMPLE_PROJECT)
    assert code == 0
    assert told(document, "digits") == [("ok", "finds here what it needs")]


def test_a_requirement_that_is_missing(
    capsys: pytest.CaptureFixture[str], make_project: ProjectMaker
) -> None:
    root = make_project(mar='requirements = ["no-such-package-of-anybody>=2"]')
    code, document = doctor(capsys, root)
    assert code == 1
    assert told(document, "demo")[0][0] == "problem"
    assert "no-such-package-of-anybody>=2" in document["problems"][0]["message"]


def test_weights_that_are_not_here_yet(
    capsys: pytest.CaptureFixture[str], celsius: Celsius, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, document = doctor(capsys, celsius.project)
    assert code == 0
    message = "celsius.pt will be fetched when the model is served"
    assert told(document, "celsius") == [("note", message)]
    monkeypatch.setenv("HATCH_MAR_OFFLINE", "1")
    code, document = doctor(capsys, celsius.project)
    assert code == 1
    assert "HATCH_MAR_OFFLINE is set" in told(document, "celsius")[0][1]
    assert celsius.requests == []


@pytest.mark.gpu
@pytest.mark.skipif(read_driver() is None, reason="there is no GPU")
def test_gpus_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    document = doctor(capsys)[1]
    assert "CUDA" in told(document, "driver")[0][1]
    assert told(document, "gpu:0")


def test_a_model_that_asks_for_a_gpu(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    path = write_mar(tmp_path, "echo", ECHO, config="deviceType: gpu\n")
    code, document = doctor(capsys, path)
    assert code == 0
    assert "asks for a GPU" in told(document, "echo")[0][1]


def test_a_target_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    code, document = doctor(capsys, "no-such.mar")
    assert code == 6
    assert len(document["problems"]) == 1


def test_a_project_that_is_wrong(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    root = copy_project(SAMPLE_PROJECT, tmp_path / "broken")
    (root / "handler.py").unlink()
    assert doctor(capsys, root)[0] == 2
