"""The real TorchServe and torch-model-archiver, in an environment of their own.

They are installed once per checkout under `.work/`. torch and numpy are this interpreter's own,
seen through a `.pth` file; hatch-mar is hidden: what an archive needs of it, it must bring along.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.exchange import Call, exchange
from tests.support.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

REQUIREMENTS = (
    "torchserve==0.12.0",
    "torch-model-archiver==0.12.0",
    "pyyaml",  # TorchServe imports it and does not declare it
    "pillow",
)
VISION = ("captum==0.9.0", "torchvision==0.29.2")
"""What TorchServe's handlers of images and text import on top; they do not declare it either.

torchvision's compiled part belongs to the CUDA build of torch that it names; its transforms are
Python, and run on any torch once the one module is out of the way that describes the former.
"""
WORK = Path(__file__).parents[2] / ".work"
"""What is made once per checkout and kept; git ignores it."""
_READY_WITHIN = 90.0
_STOPPED_WITHIN = 20.0
_STARTS = 3
"""A port found free may be taken before the server binds it, and a worker of theirs may hang."""


class _PortTakenError(Exception):
    """Somebody bound one of the chosen ports first."""


class _HungWorkerError(RuntimeError):
    """A worker of the real TorchServe never became ready: seen once, in some hundred starts."""


@dataclass(frozen=True, slots=True)
class TorchServeHome:
    """An environment with both tools."""

    python: Path

    def make_archive(
        self,
        name: str,
        into: Path,
        *,
        handler: str,
        form: str = "default",
        version: str = "1.0",
        model_file: Path | None = None,
        weights: Path | None = None,
        config: Path | None = None,
        requirements: Path | None = None,
        extra_files: Sequence[Path] = (),
    ) -> Path:
        """Run torch-model-archiver, and return the archive (a directory for `no-archive`)."""
        command = ["--model-name", name, "--version", version, "--handler", handler]
        command += ["--export-path", str(into), "--archive-format", form]
        for flag, path in (
            ("--model-file", model_file),
            ("--serialized-file", weights),
            ("--config-file", config),
            ("--requirements-file", requirements),
        ):
            command += [flag, str(path)] if path else []
        if extra_files:
            command += ["--extra-files", ",".join(map(str, extra_files))]
        # It stages in $TMPDIR/<model name> and deletes what it finds there: one directory per run.
        with tempfile.TemporaryDirectory() as staging:
            subprocess.run(
                [str(self.python.with_name("torch-model-archiver")), *command],
                check=True,
                env={**os.environ, "TMPDIR": staging},
            )
        return into / (name + {"tgz": ".tar.gz", "no-archive": ""}.get(form, ".mar"))

    def make_archives(self, commands: Sequence[Sequence[str]], cwd: Path) -> None:
        """Run torch-model-archiver in `cwd`, once for each of `commands`, in one interpreter."""
        with tempfile.TemporaryDirectory() as staging:
            subprocess.run(
                [str(self.python), "-W", "ignore:Duplicate name", "-c", _MANY_ARCHIVES],
                check=True,
                cwd=cwd,
                env={**os.environ, "TMPDIR": staging},
                input=json.dumps(commands),
                text=True,
            )


_MANY_ARCHIVES = """\
import json, sys
from model_archiver.model_packaging import generate_model_archive
for arguments in json.load(sys.stdin):
    sys.argv[1:] = arguments
    generate_model_archive()
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchServe:
    """A running TorchServe."""

    url: str
    management_url: str
    metrics_url: str
    home: Path
    """Its working directory, with `logs/` and its output in `output.txt`."""
    rpc_ports: tuple[int, int] = (0, 0)
    """Of gRPC: inference, management."""

    def door(self, purpose: str) -> str:
        """Return the URL of the port for `purpose`: inference, management or metrics."""
        urls = {"inference": self.url, "management": self.management_url}
        return urls.get(purpose, self.metrics_url)

    def rpc_place(self, package: str) -> str:
        """Return where gRPC's services of `package` are, as host:port."""
        return f"127.0.0.1:{self.rpc_ports[package == 'management']}"

    def keys(self) -> dict[str, str]:
        """Return the keys of `key_file.json`: `inference`, `management` and `API`."""
        found = json.loads((self.home / "key_file.json").read_text())
        return {name: value["key"] for name, value in found.items()}

    def output(self) -> str:
        return (self.home / "output.txt").read_text(errors="replace")


def install_torchserve(work: Path, host: str = "", *, vision: bool = False) -> TorchServeHome:
    """Return the environment under `work`, building it if it is not there yet.

    `host` is the `site-packages` that it sees torch in: by default this interpreter's. With
    `vision` it can run the handlers of images and text, too.

    Test processes that come at the same time wait for the first one.

    Raises:
        RuntimeError: There is no Java on this machine.
    """
    if shutil.which("java") is None:
        raise RuntimeError(
            "no java on PATH: TorchServe needs Java 17 (openjdk-17-jre-headless on Debian)"
        )
    host = host or sysconfig.get_path("purelib")
    extra = VISION if vision else ()
    key = "\n".join((*REQUIREMENTS, *extra, host, sys.version))
    directory = work / f"torchserve-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    work.mkdir(exist_ok=True)
    with Path(f"{directory}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (directory / "complete").exists():
            _install(directory, host, extra)
    return TorchServeHome(directory / "bin" / "python")


def _install(directory: Path, host: str, extra: Sequence[str]) -> None:
    venv.create(directory, clear=True, with_pip=True, symlinks=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    # First the path, so that pip sees what is there and fetches only what is missing.
    (directory / "lib" / version / "site-packages" / "host.pth").write_text(
        f"{host}\nimport sys; sys.modules['hatch_mar'] = None\n" + (_NO_COMPILED_PART * bool(extra))
    )
    pip = [str(directory / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install"]
    subprocess.run([*pip, "--quiet", *REQUIREMENTS], check=True)
    compiled = [one for one in extra if one.startswith("torchvision")]
    if extra:  # torchvision without the CUDA build of torch, some gigabytes, that it asks for
        subprocess.run([*pip, "--quiet", "--no-deps", *compiled], check=True)
        subprocess.run([*pip, "--quiet", *set(extra) - set(compiled)], check=True)
    (directory / "complete").touch()


_NO_COMPILED_PART = (
    "import sys, types; sys.modules.setdefault('torchvision._meta_registrations', "
    "types.ModuleType('torchvision._meta_registrations'))\n"
)


@contextlib.contextmanager
def start_torchserve(
    installed: TorchServeHome | None,
    store: Path,
    *,
    models: Sequence[str] = ("all",),
    settings: Mapping[str, str] | None = None,
    log_config: Path | None = None,
    tokens: bool = False,
    one_address: bool = False,
    workers: bool = True,
    on_start: Callable[[], object] = lambda: None,
) -> Iterator[TorchServe]:
    """Serve `models` of the model store until the block ends; every worker is ready when it starts.

    With `tokens`, requests need keys; with `one_address`, management is where inference is; without
    `workers`, the models start with none. Without one that is `installed` it is our own program of
    that name. `on_start` is called before it is started, and before it is started again.

    Raises:
        RuntimeError: The server or a worker did not start; the message ends with its output.
    """
    command: list[str | Path] = [sys.executable, "-m", "hatch_mar.cli.torchserve.program"]
    if installed is not None:
        command = [installed.python.with_name("torchserve")]
    command += ["--foreground", "--ncs"]
    command += ["--ts-config", "config.properties", *(["--disable-token-auth"] * (not tokens))]
    command += ["--model-store", store.absolute(), "--models", *models]
    command += ["--log-config", log_config] if log_config else []
    for attempt in range(1, _STARTS + 1):
        on_start()
        # The path of a worker's socket lies in here, and may have 107 bytes: hence not in tmp_path.
        with tempfile.TemporaryDirectory(prefix="ts-") as home:
            try:
                server, addresses = _choose_addresses(Path(home), one_address=one_address)
                properties = {**addresses, "default_workers_per_model": "1", **(settings or {})}
                with _running([*map(str, command)], server, properties):
                    if not one_address:  # there, TorchServe does not describe its models
                        _await_first_workers(server, some=workers, theirs=installed is not None)
                    yield server
            except (_PortTakenError, _HungWorkerError):
                if attempt == _STARTS:
                    raise
            else:
                return


@contextlib.contextmanager
def _running(
    command: Sequence[str], server: TorchServe, properties: Mapping[str, str]
) -> Iterator[None]:
    """Run `command` until the block ends; it answers when the block begins."""
    home = server.home
    lines = [f"{key}={value}" for key, value in properties.items()]
    (home / "config.properties").write_text("\n".join(lines))
    ours = ("PYTHONPATH", "TS_CONFIG_FILE", "VIRTUAL_ENV")
    environ = {name: value for name, value in os.environ.items() if name not in ours}
    environ |= {"TMPDIR": str(home), "TEMP": str(home)}
    environ |= {"LOG_LOCATION": str(home / "logs"), "METRICS_LOCATION": str(home / "logs")}
    with (home / "output.txt").open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=home,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _await_start(server, process)
        yield
    finally:
        _stop_session(process)


def _choose_addresses(home: Path, *, one_address: bool) -> tuple[TorchServe, dict[str, str]]:
    ports = free_ports(5)
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    if one_address:
        urls[1] = urls[0]
    server = TorchServe(
        url=urls[0],
        management_url=urls[1],
        metrics_url=urls[2],
        home=home,
        rpc_ports=(ports[3], ports[4]),
    )
    return server, {
        "inference_address": urls[0],
        "management_address": urls[1],
        "metrics_address": urls[2],
        "grpc_inference_port": str(ports[3]),
        "grpc_management_port": str(ports[4]),
    }


def _await_start(server: TorchServe, process: subprocess.Popen[bytes]) -> None:
    """Wait until the server says that its ports are open."""
    deadline = time.monotonic() + _READY_WITHIN
    while "Model server started." not in (output := server.output()):
        ended = process.poll() is not None
        output = server.output()  # again: what it said last may be why it ended
        if "Address already in use" in output or "port is taken" in output:
            raise _PortTakenError
        if ended:
            raise RuntimeError(f"torchserve exited with {process.returncode}:\n{output[-4000:]}")
        if time.monotonic() > deadline:
            raise RuntimeError(f"torchserve does not start:\n{output[-8000:]}")
        time.sleep(0.05)


def _await_first_workers(server: TorchServe, *, some: bool, theirs: bool) -> None:
    try:
        await_workers(server, some=some)
    except RuntimeError as error:
        if theirs:  # that a worker of theirs hangs is theirs to mend; of ours, it is a red test
            raise _HungWorkerError(str(error)) from error
        raise


def await_workers(server: TorchServe, *, some: bool = True) -> None:
    """Wait until every worker of every model says READY: `/ping` is healthy long before.

    There must be `some` workers, or else some models.
    """
    deadline = time.monotonic() + _READY_WITHIN
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if _workers_are_ready(server, some=some):
                return
        time.sleep(0.1)
    # Our own asking for minutes would be all that there is to read.
    lines = [line for line in server.output().splitlines() if " 200 " not in line]
    lines = [line for line in lines if "Requests2XX" not in line]
    raise RuntimeError("torchserve is not ready:\n" + "\n".join(lines)[-8000:])


def _workers_are_ready(server: TorchServe, *, some: bool) -> bool:
    described = [
        version
        for name in {model["modelName"] for model in _ask(server, "/models")["models"]}
        for version in _ask(server, f"/models/{name}/all")
    ]
    workers = [worker["status"] for version in described for worker in version["workers"]]
    return set(workers) == {"READY"} if some else bool(described) and set(workers) <= {"READY"}


def _ask(server: TorchServe, path: str) -> Any:
    """Return what management says at `path`."""
    keys = server.home / "key_file.json"
    headers = []
    if keys.exists():
        headers = [("Authorization", f"Bearer {server.keys()['management']}")]
    return exchange(server.management_url, Call(method="GET", path=path, headers=headers)).json()


def _stop_session(process: subprocess.Popen[bytes]) -> None:
    """Stop the launcher, the JVM and the Python workers: they are one process group."""
    for stop in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, stop)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOPPED_WITHIN)
