"""Virtual environments from nothing but Python and its standard library.

The project's two front commands, `sample_project/demo.py` and `tests/run.py`, start here.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / ".work"
"""Everything that the two commands make, ignored by git: remove it to start afresh."""


def make_environment(directory: Path) -> Path:
    """Return the Python of the virtual environment at `directory`, made if it is not there."""
    python = directory / "bin" / "python"
    if not (directory / "ready").exists():
        _need_ensurepip()
        say(f"making {directory.relative_to(ROOT)}")
        venv.create(directory, clear=True, symlinks=True, with_pip=True)
        pip(python, "install", "--upgrade", "pip")
        (directory / "ready").touch()
    return python


def pip(python: Path, *arguments: str, wheelhouse: Path | None = None) -> None:
    """Run pip quietly in the environment of `python`; it finds `wheelhouse` beside its indexes."""
    run(str(python), "-m", "pip", "-qq", *arguments, environ=pip_environ(wheelhouse))


def pip_environ(wheelhouse: Path | None = None) -> dict[str, str]:
    """Return an environment in which pip, also an isolated build's, looks into `wheelhouse` too.

    It is appended to what `PIP_FIND_LINKS` says, and torch is held at the release the project is
    tested with: the newest one may be a download of gigabytes.
    """
    WORK.mkdir(exist_ok=True)
    constraint = WORK / "constraint.txt"
    constraint.write_text(torch_requirement() + "\n", encoding="utf-8")
    environ = dict(os.environ)
    environ["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
    environ["PIP_ROOT_USER_ACTION"] = "ignore"
    environ["PIP_CONSTRAINT"] = f"{environ.get('PIP_CONSTRAINT', '')} {constraint}".strip()
    if wheelhouse is not None:
        environ["PIP_FIND_LINKS"] = f"{environ.get('PIP_FIND_LINKS', '')} {wheelhouse}".strip()
    return environ


def torch_requirement() -> str:
    """Return the release of torch that the project is tested with, such as `torch==1.2.3`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    group: list[str] = project["dependency-groups"]["dev"]
    return next(line for line in group if line.startswith("torch=="))


def run(*command: str, environ: dict[str, str] | None = None, quiet: bool = False) -> None:
    """Run `command` to its end; `quiet` leaves only what it says on stderr.

    Raises:
        SystemExit: it failed; what it printed says why.
    """
    stdout = subprocess.DEVNULL if quiet else None
    status = subprocess.run(command, check=False, cwd=ROOT, env=environ, stdout=stdout).returncode
    if status:
        sys.exit(f"failed with status {status}: {' '.join(command)}")


def say(line: str) -> None:
    """Tell the person who waits what happens now."""
    print(f"== {line}", flush=True)


def apt_install(*packages: str) -> bool:
    """Install Debian packages; return False if this is no Debian or we may not."""
    if os.geteuid() != 0 or not Path("/usr/bin/apt-get").exists():
        return False
    say(f"apt-get install {' '.join(packages)}")
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ("install", "-qq", "-y", "--no-install-recommends", *packages)
    for arguments in (("update", "-qq"), install):
        run("apt-get", *arguments, environ=environ, quiet=True)
    return True


def _need_ensurepip() -> None:
    """Debian splits `ensurepip` off its Python, and without it no environment has a pip."""
    if importlib.util.find_spec("ensurepip") is None and not apt_install("python3-venv"):
        sys.exit("this Python cannot make virtual environments: apt-get install python3-venv")
    importlib.invalidate_caches()
