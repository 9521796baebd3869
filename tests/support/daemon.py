"""The program `torchserve` of ours in a directory of its own, started in the background."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from pathlib import Path

HANDLER = """
    import os

    def handle(data, context):
        return [{"secret": os.environ.get("MY_SECRET"), "batch": context.system_properties[
            "batch_size"]}] * len(data or [])
"""


@dataclass(slots=True, kw_only=True)
class Home:
    """A directory to start in, with a store and a temporary directory of its own."""

    path: Path
    ports: tuple[int, int, int]
    log: Path
    """What the last server prints."""
    runs: int = 0

    def configure(self, text: str = "") -> None:
        names = ("inference", "management", "metrics")
        lines = [
            f"{name}_address=http://127.0.0.1:{port}"
            for name, port in zip(names, self.ports, strict=True)
        ]
        lines += ["grpc_inference_port=0", "grpc_management_port=0", text]
        (self.path / "config.properties").write_text("\n".join(lines))

    def run(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run `torchserve ARGUMENTS`; its output goes to a file, which a server keeps open."""
        self.runs += 1
        with (self.path / f"out-{self.runs}.txt").open("w+") as out:
            done = subprocess.run(
                [sys.executable, "-m", "hatch_mar.cli.torchserve.program", *arguments],
                cwd=self.path,
                env={**os.environ, "TMPDIR": str(self.path / "tmp"), **env},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                timeout=60,
                check=False,
            )
            out.seek(0)
            return subprocess.CompletedProcess(done.args, done.returncode, out.read())

    def start(self, *arguments: str, **env: str) -> None:
        flags = ("--model-store", "store", "--ts-config", "config.properties", "--ncs")
        self.start_with(*flags, *arguments, **env)

    def start_with(self, *arguments: str, **env: str) -> None:
        done = self.run("--start", *arguments, **env)
        assert done.returncode == 0, done.stdout
        self.log = self.path / f"out-{self.runs}.txt"
        self.wait_for("Model server started.")

    def wait_for(self, text: str) -> None:
        """Return when the last server has printed `text`."""
        deadline = time.monotonic() + 30
        while text not in self.log.read_text():
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports[0]}"

    @property
    def management_url(self) -> str:
        return f"http://127.0.0.1:{self.ports[1]}"

    def keys(self) -> dict[str, dict[str, str]]:
        found = json.loads((self.path / "key_file.json").read_text())
        return {name: {"Authorization": f"Bearer {key['key']}"} for name, key in found.items()}

    def described(self, model: str) -> dict[str, Any]:
        with httpx.Client(transport=httpx.HTTPTransport(retries=3)) as client:
            (found,) = client.get(f"{self.management_url}/models/{model}").json()
        assert isinstance(found, dict)
        return found
