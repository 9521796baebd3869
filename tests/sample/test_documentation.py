"""The pages that are written by hand leave nothing out, and mkdocs finds nothing wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from hatch_mar.archive.configkeys import FRONTEND_KEYS, SYSTEM_KEYS
from hatch_mar.archive.cudakeys import CUDA_KEYS
from hatch_mar.errors import RequestError

ROOT = Path(__file__).parents[2]


def read_page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def test_the_page_on_http_names_every_type_of_error() -> None:
    page = read_page("reference/http.md")
    kinds = {kind.type for kind in RequestError.__subclasses__()}
    assert [kind for kind in kinds if kind not in page] == []


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, check=False, cwd=ROOT, capture_output=True, text=True, env=environ
    )
    assert done.returncode == 0, done.stderr
    reference = "".join(
        (tmp_path / "reference" / page / "index.html").read_text(encoding="utf-8")
        for page in ("tool-mar", "model-config")
    )
    assert "generated:" not in reference
    keys = ["trusted-pickle", *(key.name for key in (*FRONTEND_KEYS, *SYSTEM_KEYS, *CUDA_KEYS))]
    assert [key for key in keys if f"<code>{key}</code>" not in reference] == []
