"""What is imported before the weights are loaded delays every first answer: this is the list."""

from __future__ import annotations

import subprocess
import sys

import pytest

LATE = {
    # By the door, until a worker is on its way: each of these would delay that.
    "hatch_mar.cli.runner": (
        "hatch_mar.api.doors",
        "uvicorn",
        "starlette",
        "importlib.metadata",
        "pynvml",
        "difflib",
        "configparser",
    ),
    # By a worker, whose model has no golden examples.
    "hatch_mar.serve.worker.main, hatch_mar.model.loading, hatch_mar.model.servable": (
        "asyncio",
        "hatch_mar.model.golden",
        "hatch_mar.archive.seal",
        "hatch_mar.weights",
        "hatch_mar.serve.service",
        "yaml",
        "torch",
    ),
}


@pytest.mark.parametrize("early", LATE)
def test_what_can_wait_is_imported_later(early: str) -> None:
    source = f"import {early}, sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", source], check=True, capture_output=True, text=True
    )
    assert sorted(set(LATE[early]) & set(done.stdout.split())) == []


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere NVML is looked for otherwise")
def test_without_a_driver_nobody_pays_for_asking_it() -> None:
    source = """if True:
        import ctypes, sys
        from hatch_mar.serve.devices.discovery import discover
        try:
            ctypes.CDLL("libnvidia-ml.so.1")
        except OSError:
            assert discover({}) == []
            assert "pynvml" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", source], check=True)
