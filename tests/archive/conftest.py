"""A small model, and archives of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from hatch_mar.archive.manifest import Manifest
from hatch_mar.archive.plan import Member, Plan
from hatch_mar.archive.write import write_archive

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FILES = {
    "handler.py": b"def handle(data, context):\n    return data\n",
    "nested/deep/table.json": b'{"a": 1}',
    "weights.pt": bytes(range(256)) * 5000,
    "empty.txt": b"",
}
CONFIG = b"minWorkers: 1\nmaxWorkers: 2\nbatchSize: 4\n"


@pytest.fixture
def model_files(tmp_path: Path) -> dict[str, Path]:
    """Files of a model by member name; `run.sh` is a program."""
    root = tmp_path / "project"
    files = {}
    for name, data in {**FILES, "model-config.yaml": CONFIG, "run.sh": b"#!/bin/sh\n"}.items():
        files[name] = root / name
        files[name].parent.mkdir(parents=True, exist_ok=True)
        files[name].write_bytes(data)
    return files


@pytest.fixture
def make_plan(model_files: dict[str, Path]) -> Callable[..., Plan]:
    """Return a function that makes the plan of the small model, with fields replaced."""

    def make(**changes: Any) -> Plan:
        members = tuple(
            Member(name, path, executable=name == "run.sh") for name, path in model_files.items()
        )
        manifest = Manifest(
            model_name="tiny",
            model_version="1.0",
            handler="handler.py",
            serialized_file="weights.pt",
            config_file="model-config.yaml",
        )
        fields: dict[str, Any] = {
            "name": "tiny",
            "version": "1.0",
            "manifest": manifest,
            "members": members,
            "runtime": "custom",
            "filename": "tiny-1.0.mar",
        }
        return Plan(**{**fields, **changes})

    return make


@pytest.fixture(params=["mar", "deflated", "tgz", "dir"])
def archive_file(
    request: pytest.FixtureRequest, make_plan: Callable[..., Plan], tmp_path: Path
) -> Path:
    """An archive of the small model, in each format."""
    path = tmp_path / f"tiny-{request.param}"
    if request.param == "deflated":
        write_archive(make_plan(compression="deflated"), path)
    else:
        write_archive(make_plan(format=request.param), path)
    return path
