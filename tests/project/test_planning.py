"""The plan: every member, whatever order the author named things in."""

from __future__ import annotations

import pytest

from hatch_mar.archive.manifest import CREATED_ON
from hatch_mar.errors import ProblemsError
from hatch_mar.project.planning import make_plan
from tests.project.scratch import FACTORY_HANDLER, Scratch


@pytest.fixture
def full(scratch: Scratch) -> Scratch:
    scratch.write(
        {
            "handler.py": FACTORY_HANDLER,
            "net/model.py": "class Net: ...\n",
            "w.pt": b"weights",
            "tools/run.sh": "#!/bin/sh\n",
        }
    )
    (scratch.root / "tools/run.sh").chmod(0o755)
    scratch.configure(
        """\
        weights = "w.pt"
        extra-files = ["tools", "net/*.py"]
        serve.batch-size = 4
        """
    )
    return scratch


def test_the_manifest(full: Scratch) -> None:
    assert full.plan().manifest.as_dict() == {
        "createdOn": CREATED_ON,
        "runtime": "python",
        "model": {
            "modelName": "digits",
            "serializedFile": "w.pt",
            "handler": "handler:handler",
            "modelVersion": "1.0",
            "requirementsFile": "requirements.txt",
            "configFile": "model-config.yaml",
        },
        "archiverVersion": "0.12.0",
    }


def test_members_are_sorted_and_know_what_is_executable(full: Scratch) -> None:
    members = full.plan().members
    assert [member.name for member in members] == [
        "base_handler.py",
        "handler.py",
        "model-config.yaml",
        "net/model.py",
        "requirements.txt",
        "tools/run.sh",
        "w.pt",
    ]
    assert [member.name for member in members if member.executable] == ["tools/run.sh"]


def test_the_same_project_is_the_same_plan(full: Scratch) -> None:
    assert full.plan() == full.plan()


def test_every_file_that_travels_is_one_of_the_sdist(full: Scratch) -> None:
    names = {path.relative_to(full.root).as_posix() for path in full.spec().files}
    assert names == {"handler.py", "net/model.py", "tools/run.sh", "w.pt"}


def test_the_build_date_is_the_authors_to_say(full: Scratch) -> None:
    full.environ = {"SOURCE_DATE_EPOCH": "0"}
    assert full.plan().manifest.created_on == "01/01/1970 00:00:00"
    full.environ = {"SOURCE_DATE_EPOCH": "soon"}
    assert full.problem().startswith("environment: SOURCE_DATE_EPOCH: 'soon' is not")


def test_a_file_that_has_gone_since_is_a_problem(full: Scratch) -> None:
    spec = full.spec()
    (full.root / "w.pt").unlink()
    with pytest.raises(ProblemsError, match="is gone; build again"):
        make_plan(spec)


def test_where_each_value_came_from(full: Scratch) -> None:
    full.write({"model-config.yaml": "jobQueueSize: 3\n"})
    full.environ = {"HATCH_MAR_SYSTEM_DECODE_IMAGES": "never"}
    full.hook = {"archive": {"format": "tgz"}}
    origins = {setting.key: setting.origin for setting in full.spec().settings}
    assert origins["name"] == "pyproject.toml: project.name"
    assert origins["handler"] == "handler.py exists"
    assert origins["weights"] == "pyproject.toml: tool.mar.weights"
    assert origins["archive.format"] == "pyproject.toml: tool.hatch.build.hooks.mar.archive.format"
    assert origins["archive.compression"] == "default"
    assert origins["config"] == "model-config.yaml exists"
    assert origins["serve.batch-size"] == "pyproject.toml: tool.mar.serve.batch-size"
    assert origins["serve.job-queue-size"] == "model-config.yaml: jobQueueSize"
    assert origins["system.decode-images"] == "environment: HATCH_MAR_SYSTEM_DECODE_IMAGES"


def test_what_hatch_mar_adds_says_so(full: Scratch) -> None:
    full.configure('extra-layout = "tarball"\nextra-files = ["net"]')
    settings = {setting.key: setting for setting in full.spec().settings}
    assert settings["system.extra-files"].value == "extra_files.tar"
    assert settings["system.extra-files"].origin == "hatch-mar, for this archive"
