"""The factory as `base_handler.py` in an archive, in a server that is not ours.

The server is played by the dozen lines of TorchServe's loader that matter; the real one serves the
sample project's archive in `tests/contract`.
"""

from __future__ import annotations

import ast
import json
import shutil
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hatch_mar.model import factory

if TYPE_CHECKING:
    from tests.support.models import RunPython

SERVER = """
import importlib, json, os, sys

class Context:
    manifest = {"model": {"serializedFile": "state.pt"}}
    model_yaml_config = {"system": {"extraFiles": "code.tar.gz"}}
    system_properties = {"model_dir": os.getcwd(), "gpu_id": None, "limit_max_image_pixels": True}

    def get_request_header(self, idx, key):
        return {"content-type": "application/json"}

sys.path.insert(0, os.getcwd())
handler = importlib.import_module("handler").handler
context = Context()
handler(None, context)
answers = handler([{"body": [1.0, 2.0]}, {"body": [2.0, 1.0]}], context)
print(json.dumps([answers, "hatch_mar" in sys.modules]))
"""
HANDLER = """
from base_handler import handler_factory
from network.net import Net

handler = handler_factory(init_function=Net, postprocess_function=lambda output: output)
"""


@pytest.fixture
def archive(model_dir: Path, saved: Path) -> Path:
    """An unpacked archive whose model's source is in a tarball."""
    shutil.copy(factory.__file__, model_dir / "base_handler.py")
    shutil.copy(saved / "state.pt", model_dir)
    (model_dir / "handler.py").write_text(HANDLER)
    with tarfile.open(model_dir / "code.tar.gz", "w:gz") as box:
        box.add(saved / "net.py", "network/net.py")
    (model_dir / "MAR-INF").mkdir()
    manifest = {"model": {"modelName": "m", "configFile": "model-config.yaml"}}
    (model_dir / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(manifest))
    (model_dir / "model-config.yaml").write_text("system:\n  extraFiles: code.tar.gz\n")
    return model_dir


def test_it_serves_without_hatch_mar(archive: Path, run_python: RunPython) -> None:
    answers, ours = run_python(SERVER, cwd=archive, own_path=False)
    assert answers == [[3.0, -1.0, 0.5], [3.0, 1.0, 0.5]]
    assert not ours


def test_it_imports_the_standard_library_only() -> None:
    tree = ast.parse(Path(factory.__file__).read_text(encoding="utf-8"))
    top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {
        (node.module or "" if isinstance(node, ast.ImportFrom) else node.names[0].name)
        for node in top
    }
    assert {name.partition(".")[0] for name in names} <= sys.stdlib_module_names


def test_it_can_be_read_by_an_older_python() -> None:
    ast.parse(Path(factory.__file__).read_text(encoding="utf-8"), feature_version=(3, 8))


def test_it_bears_its_mark() -> None:
    assert factory.HATCH_MAR_BASE_HANDLER == 1
