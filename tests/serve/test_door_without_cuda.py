"""The door takes no device memory: it loads neither PyTorch nor CUDA, whatever its workers do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hatch_mar.serve import Deployment
from hatch_mar.serve.devices.discovery import discover

Maker = Callable[..., Deployment]

DOOR = """
import asyncio, json, sys
from pathlib import Path

from hatch_mar.archive.modelconfig import read_model_config
from hatch_mar.serve import Deployment, Part, Request, Service, ServiceSettings


async def main():
    service = Service(settings=ServiceSettings())
    directory = Path(sys.argv[1])
    await service.register(Deployment(
        name="m", version="1.0", directory=directory, handler="handler.py",
        config=read_model_config({"minWorkers": 1, "maxWorkers": 1}), url="m.mar",
    ))
    request = Request("id", (), [Part("body", "", b"")])
    reply = await service.predict("m", None, request)
    service.describe("m"), service.metrics.expose(), service.health()
    libraries = {
        Path(line.split(maxsplit=5)[5].strip()).name
        for line in Path("/proc/self/maps").read_text().splitlines() if line.count("/")
    }
    print(json.dumps({
        "answer": bytes(reply.body).decode(),
        "modules": sorted({"torch", "onnxruntime", "numpy"} & set(sys.modules)),
        "libraries": sorted(
            one for one in libraries if one.startswith(("libcuda", "libcudart", "libtorch"))
        ),
    }))
    await service.close(timeout=10)


asyncio.run(main())
"""
HANDLER = """
def handle(data, context):
    import torch
    device = f"cuda:{context.system_properties['gpu_id']}" if torch.cuda.is_available() else "cpu"
    return data and [torch.ones(1, device=device).device.type] * len(data)
"""


def look_at_door(directory: Path) -> dict[str, object]:
    (directory / "handler.py").write_text(HANDLER)
    root = Path(__file__).parents[2]
    output = subprocess.check_output(
        [sys.executable, "-c", DOOR, str(directory)],
        env={**os.environ, "PYTHONPATH": str(root)},
        text=True,
    )
    seen: dict[str, object] = json.loads(output.splitlines()[-1])
    return seen


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_door_loads_no_framework(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    seen = look_at_door(tmp_path)
    assert (seen["modules"], seen["libraries"]) == ([], [])


@pytest.mark.gpu
def test_the_door_has_no_context_while_its_worker_has_one(tmp_path: Path) -> None:
    if not discover({}):
        pytest.skip("no GPU")
    assert look_at_door(tmp_path) == {"answer": "cuda", "modules": [], "libraries": []}
