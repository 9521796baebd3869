"""pip and uv, as installers into an environment that sees another one's packages.

pip takes what it can import for installed, wherever it is. uv looks at the environment alone: it is
told to leave out whatever the runner has, and what it made is looked through afterwards for what
does not fit the runner's packages.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from hatch_mar.errors import RequirementsError
from hatch_mar.serve.environments.requirements import (
    Missing,
    concerns_us,
    find_distribution,
    find_unmet,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

PROTECTED = ("hatch-mar", "torch", "torchvision", "torchaudio")
"""What a model may not bring a version of its own of, where the runner has one: torch would be
there twice, some gigabytes each, and in a build that may not fit the GPU."""
_ROUNDS = 4
_POLL_SECONDS = 0.05
_SHOWN_LINES = 20
_USER = re.compile(r"(?<=://)[^/@\s]+@")
_QUERY = re.compile(r"(://[^\s?#]+)\?[^\s#]+")
_WRONG = re.compile(r"(?:ERROR|error|cause):|.* depends on |The user requested |\u2570")
"""How lines begin in which pip or uv say what is wrong."""
_PREFIX = re.compile(r"^(?:ERROR|error|cause): ")
_EMPTY_WORDS = re.compile(
    r"ERROR: (?:ResolutionImpossible|Cannot install -r|No matching distribution)|error: No solution"
)
"""And how those of them that say no more than their neighbours."""
_MISDIRECTING = ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_PYTHON", "PYTHONHOME", "VIRTUAL_ENV")
"""Variables that would have the installer write somewhere else."""
_PIPS_OWN = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX")
_UVS_OWN = ("UV_INDEX", "UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS")
_PIPS_FILES = ("/etc/pip.conf", "~/.config/pip/pip.conf", "~/.pip/pip.conf")


class InstallationError(Exception):
    """An installer that has failed; says in which way, without secrets."""

    def __init__(self, output: str) -> None:
        """Keep the last of its `output`, and make a line of what matters in it."""
        lines = [line.strip() for line in conceal(output).splitlines() if line.strip()]
        self.output = "\n".join(lines[-_SHOWN_LINES:])
        wrong = [line for line in lines if _WRONG.match(line)]
        wrong = [line for line in wrong if not _EMPTY_WORDS.match(line)]
        said = [_PREFIX.sub("", line) for line in wrong[-2:] or lines[-1:]]
        super().__init__("; ".join(said) or "the installer says nothing")


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be installed, and where."""

    python: Path
    """Interpreter of the environment."""
    site: Path
    """Its `site-packages`."""
    directory: Path
    """The model's: what the requirements name relatively is in there."""
    lines: Sequence[str]
    missing: Sequence[Missing]
    """Those of `lines` that the runner's environment does not meet."""


class Runs:
    """Runs installers, each for a while; can be told to stop."""

    def __init__(self, environ: Mapping[str, str], *, patience: float) -> None:
        """Run them in `environ`, for `patience` seconds each."""
        kept = {name: text for name, text in environ.items() if name not in _MISDIRECTING}
        self.environ = {**kept, "PIP_USER": "0", "PYTHONNOUSERSITE": "1"}
        self._patience = patience
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        """Not yet reaped: their numbers are nobody else's."""

    def close(self) -> None:
        """End what runs, now, and let nothing run any more."""
        with self._lock:
            self._closed.set()
            for process in self._running:
                _kill(process)

    def run(self, command: Sequence[str | Path], directory: Path) -> None:
        """Run `command` in `directory`.

        Raises:
            InstallationError: it fails, takes too long, or nobody waits for it any more.
        """
        with tempfile.TemporaryFile("w+", errors="replace") as output:
            process = subprocess.Popen(  # noqa: S603 - an installer that the operator has asked for
                [str(part) for part in command],
                cwd=directory,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            with self._lock:
                self._running.add(process)
            try:
                reason = self._await(process)
            finally:
                with self._lock:
                    self._running.discard(process)
                _kill(process)
                process.wait()
            output.seek(0)
            text = output.read()
        if reason or process.returncode:
            raise InstallationError(f"{text}\n{reason}" if reason else text)

    def _await(self, process: subprocess.Popen[bytes]) -> str:
        """Return once the process has ended, or why it may not go on; it is not reaped yet."""
        deadline = time.monotonic() + self._patience
        while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            if self._closed.is_set():
                break
            if time.monotonic() > deadline:
                return f"ERROR: it took more than {self._patience:g} seconds"
            time.sleep(_POLL_SECONDS)
        return "ERROR: the runner stops" if self._closed.is_set() else ""


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill an installer that is not reaped yet, with all that it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def install(order: Order, runs: Runs) -> None:
    """Install what `order` says, with uv where there is one, else with pip.

    uv does not know pip's settings: where only pip has been told of an index, pip is used, and so
    it is where what uv has chosen does not fit the runner's packages.

    Raises:
        InstallationError: it cannot be installed.
        RequirementsError: there is neither of the two.
    """
    uv = find_uv(runs.environ)
    if uv is not None and not any("--hash" in line for line in order.lines):
        unfit = _install_with_uv(uv, order, runs)
        if not unfit:
            return
        if find_distribution("pip") is None:
            raise InstallationError(f"ERROR: what there is does not fit: {', '.join(unfit)}")
    _install_with_pip(order, runs)


def find_uv(environ: Mapping[str, str]) -> str | None:
    """Return uv's program, beside our interpreter or on the PATH, unless pip alone is set up."""
    if not any(environ.get(name) for name in _UVS_OWN):
        files = (*_PIPS_FILES, environ.get("PIP_CONFIG_FILE") or os.devnull)
        known = any(Path(file).expanduser().is_file() for file in files)
        if known or any(environ.get(name) for name in _PIPS_OWN):
            return None
    beside = Path(sys.executable).with_name("uv")
    return str(beside) if beside.is_file() else shutil.which("uv", path=environ.get("PATH"))


def _install_with_pip(order: Order, runs: Runs) -> None:
    pip: list[str | Path] = [order.python, "-m", "pip"]
    if find_distribution("pip") is None:
        if find_spec("ensurepip") is None:
            raise RequirementsError("there is neither pip nor uv here; pip install uv")
        runs.run([order.python, "-m", "ensurepip", "--default-pip"], order.directory)
    pip += ["--disable-pip-version-check", "--no-input", "install", "--no-warn-script-location"]
    held = [f"{found.metadata['Name']}=={found.version}" for found in _protected()]
    with _written(order.lines, order.directory) as wanted, _written(held) as constraint:
        runs.run([*pip, "--progress-bar=off", "-r", wanted, "-c", constraint], order.directory)


def _install_with_uv(uv: str, order: Order, runs: Runs) -> list[str]:
    """Return what is wrong with what uv has installed."""
    ours = {canonicalize_name(one.metadata["Name"]) for one in importlib.metadata.distributions()}
    held = {canonicalize_name(found.metadata["Name"]) for found in _protected()}
    wanted = {canonicalize_name(Requirement(one.wanted).name) for one in order.missing} - held
    problems: list[str] = []
    for _ in range(_ROUNDS):
        never = [f"{name} ; python_version < '0'" for name in sorted(ours - wanted)]
        command: list[str | Path] = [
            uv,
            "pip",
            "install",
            "--no-progress",
            "--python",
            order.python,
        ]
        with _written(order.lines, order.directory) as file, _written(never) as overrides:
            runs.run([*command, "-r", file, "--overrides", overrides], order.directory)
        unfit = list(find_unfit(order.site))
        problems = [f"{needs} needs {missing}" for needs, missing in unfit]
        blamed = {canonicalize_name(Requirement(missing.wanted).name) for _, missing in unfit}
        if not blamed or blamed & held or blamed <= wanted:
            return problems
        wanted |= blamed
    return problems


def find_unfit(site: Path) -> Iterator[tuple[str, Missing]]:
    """Yield the packages in `site` whose requirements neither it nor this environment meets."""
    path = [str(site), *sys.path]
    for found in importlib.metadata.distributions(path=[str(site)]):
        for line in found.requires or ():
            needed = Requirement(line)
            if concerns_us(needed):
                for missing in find_unmet(needed, path):
                    yield found.metadata["Name"], missing


def drop_protected(lines: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return `lines` without those that name what the runner has to have, and their names."""
    held = {canonicalize_name(found.metadata["Name"]) for found in _protected()}
    kept: list[str] = []
    dropped: list[str] = []
    for line in lines:
        name = canonicalize_name(re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0])
        (dropped if name in held else kept).append(line)
    return kept, dropped


def conceal(text: str) -> str:
    """Return `text` without what may be secret in its URLs: users, passwords, queries."""
    return _QUERY.sub(r"\1?***", _USER.sub("***@", text))


def _protected() -> list[importlib.metadata.Distribution]:
    return [found for name in PROTECTED if (found := find_distribution(name)) is not None]


class _written:  # noqa: N801 - a context manager
    """A file of lines, in `directory` if there is one, for as long as the block lasts."""

    def __init__(self, lines: Collection[str], directory: Path | None = None) -> None:
        handle, name = tempfile.mkstemp(prefix=".requirements-", suffix=".txt", dir=directory)
        self._path = Path(name)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)

    def __enter__(self) -> Path:
        return self._path

    def __exit__(self, *_: object) -> None:
        self._path.unlink(missing_ok=True)
