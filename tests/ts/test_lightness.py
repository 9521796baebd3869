"""What importing the `ts` names costs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import hatch_mar

PACKAGE = Path(hatch_mar.__file__).parent
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE / "ts").with_suffix("").parts).removesuffix(".__init__")
    for path in (PACKAGE / "ts").rglob("*.py")
    if path.parent != PACKAGE / "ts" or path.stem != "__init__"
)
HEAVY = ["torch", "numpy", "onnxruntime", "PIL", "yaml", "captum", "torchvision"]


@pytest.mark.parametrize("module", [f"ts.{name}" for name in MODULES])
def test_no_name_loads_a_model_library(module: str) -> None:
    code = (
        "import sys, hatch_mar.ts; hatch_mar.ts.install()\n"
        f"import {module}\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    environ = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
