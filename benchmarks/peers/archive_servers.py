"""The two servers of model archives: TorchServe and ours, given the same archive."""

from __future__ import annotations

import socket
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

from benchmarks.peers.python_servers import APPS, installed_versions
from benchmarks.processes import free_port
from sample_project import demo
from tests.support.environment import WORK
from tests.support.torchserve import TorchServeHome, install_torchserve

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

METRICS_PORT = "metrics-port"
"""File in the directory of a hatch-mar that says where its metrics are."""
ARCHIVE = WORK / "benchmarks" / "store" / "echo.mar"


@cache
def serve_digits() -> Path:
    """Build this checkout and the sample, install both; return the program `serve-digits`.

    Its environment is where a user's would be: hatch-mar from a wheel, torch from an index.
    """
    return demo.install(demo.build())


@cache
def torchserve_home() -> TorchServeHome:
    """TorchServe, seeing the same torch as ours; makes the archive of the echo handler too."""
    python = serve_digits().with_name("python")
    (host,) = (python.parents[1] / "lib").glob("python3*/site-packages")
    home = install_torchserve(WORK, str(host))
    ARCHIVE.parent.mkdir(parents=True, exist_ok=True)
    ARCHIVE.unlink(missing_ok=True)
    home.make_archive("echo", ARCHIVE.parent, handler=str(APPS / "echo_handler.py"))
    return home


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchServePeer:
    """TorchServe as pip installs it, with one worker for each archive."""

    name: str = "torchserve"
    quiet: bool = False
    """Whether its logs are off: it writes several lines for every request."""
    archives: Mapping[str, Path] = field(default_factory=lambda: {"echo": ARCHIVE})
    """Of each task; all in one directory."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """More of config.properties."""
    warm_up: float = 10.0
    """Its JIT compiler needs that long."""

    @property
    def paths(self) -> Mapping[str, str]:
        return _paths(self.archives)

    def prepare(self) -> Mapping[str, str]:
        return installed_versions(torchserve_home().python, ("torchserve", "torch"))

    def command(self, port: int, scratch: Path) -> list[str]:
        with ExitStack() as held:
            sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in "1234"]
            others = [listener.getsockname()[1] for listener in sockets]
        temporary = tempfile.mkdtemp(prefix="ts-", dir=scratch)
        settings = {
            "inference_address": f"http://127.0.0.1:{port}",
            "management_address": f"http://127.0.0.1:{others[0]}",
            "metrics_address": f"http://127.0.0.1:{others[1]}",
            "grpc_inference_port": others[2],
            "grpc_management_port": others[3],
            "default_workers_per_model": 1,
            **self.settings,
        }
        lines = [f"{key}={value}" for key, value in settings.items()]
        (scratch / "config.properties").write_text("\n".join(lines))
        environment = [f"TMPDIR={temporary}", f"TEMP={temporary}"]
        program = str(torchserve_home().python.with_name("torchserve"))
        command = ["env", *environment, program, "--foreground", "--ncs", "--disable-token-auth"]
        (store,) = {archive.parent for archive in self.archives.values()}
        command += ["--ts-config", "config.properties", "--model-store", str(store)]
        command += ["--models", *(archive.name for archive in self.archives.values())]
        command += ["--log-config", str(APPS / "quiet-log4j2.xml")] if self.quiet else []
        return command


@dataclass(frozen=True, slots=True, kw_only=True)
class HatchMarPeer:
    """Ours, from a wheel of this checkout, with its defaults."""

    name: str = "hatch-mar"
    archives: Mapping[str, Path] = field(default_factory=lambda: {"echo": ARCHIVE})
    """Of each task."""
    options: Sequence[str] = ()
    """More of `hatch-mar serve`."""
    warm_up: float = 2.0

    @property
    def paths(self) -> Mapping[str, str]:
        return _paths(self.archives)

    def prepare(self) -> Mapping[str, str]:
        torchserve_home()  # makes the archive
        python = serve_digits().with_name("python")
        return installed_versions(python, ("hatch-mar", "torch"))

    def command(self, port: int, scratch: Path) -> list[str]:
        python = serve_digits().with_name("python")
        archives = [str(archive) for archive in self.archives.values()]
        metrics = free_port()
        (scratch / METRICS_PORT).write_text(str(metrics))
        others = [f"--management-port={free_port()}", f"--metrics-port={metrics}"]
        serve = [str(python), "-m", "hatch_mar", "serve", *archives, "--port", str(port)]
        return [*serve, *others, *self.options]


def _paths(archives: Mapping[str, Path]) -> dict[str, str]:
    return {task: f"/predictions/{archive.stem}" for task, archive in archives.items()}
