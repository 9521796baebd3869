"""Virtual environments of single models, on top of the runner's own.

    <cache>/environments/<digest>            a link to the next one, made when all is in it
    <cache>/environments/<digest>-<random>/  the environment; without a link it is nobody's
    <cache>/environments/<digest>.lock       held by the one process that makes it

The digest is of what decides what is in it: the requirements, the interpreter, the kind of machine,
and what the runner's environment has. Whoever comes second finds it made. It sees the runner's
packages behind its own: only what is missing is installed, and torch never is.

Where the installer looks for packages is its own matter: its environment variables (`PIP_*`,
`UV_*`) and files say.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import shutil
import site
import sys
import sysconfig
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hatch_mar.errors import RequirementsError
from hatch_mar.serve.environments.requirements import find_missing, read_requirements
from hatch_mar.weights.cache import CACHE_VARIABLE, default_directory
from hatch_mar.weights.fetch import OFFLINE_VARIABLE, is_offline

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from hatch_mar.serve.deployment import Deployment
    from hatch_mar.serve.environments.installers import Runs
    from hatch_mar.serve.environments.requirements import Missing, RequirementsFile

logger = logging.getLogger("hatch_mar.serve")

INSTALL_SECONDS = 1800.0
"""How long an installer may take, and how long another process is waited for that runs one."""
_LAYOUT = "1"
"""Changes when environments that were made before have to be made again."""


class Environments:
    """Gives each model the packages that its requirements.txt asks for, or says what is missing."""

    def __init__(
        self,
        *,
        install: bool,
        directory: Path | None = None,
        environ: Mapping[str, str] = os.environ,
        remedy: str = "start with --install-requirements",
    ) -> None:
        """Make environments if `install`, in `directory`: by default in the user's cache.

        `remedy` is what an operator can do to have packages installed.
        """
        self._install = install
        self._directory = directory
        self._environ = environ
        self._remedy = remedy
        self._runs: Runs | None = None
        self._closed = False

    def equip(self, deployment: Deployment) -> Deployment:
        """Return `deployment` with an interpreter of its own, or with a warning, if it needs one.

        Raises:
            RequirementsError: its requirements cannot be installed.
        """
        name = None if deployment.manifest is None else deployment.manifest.requirements_file
        file = None if name is None else read_requirements(deployment.directory, name)
        if file is None:
            return deployment
        missing = file.find_missing()
        if not self._install:
            if not missing:
                return deployment
            return replace(
                deployment, warnings=(*deployment.warnings, self._describe(file, missing))
            )
        from hatch_mar.serve.environments.installers import drop_protected  # noqa: PLC0415 - few runners install

        lines, dropped = drop_protected(file.lines)
        warnings = tuple(
            f"{file.name}: {one} is passed over: what the runner has is used"
            for one in find_missing(dropped)
        )
        if warnings:
            deployment = replace(deployment, warnings=(*deployment.warnings, *warnings))
        missing = list(find_missing(lines))
        if not missing and not file.is_opaque:
            return deployment
        python = self._provide(deployment, file, lines, missing)
        return replace(deployment, python=str(python))

    def close(self) -> None:
        """End an installation that is under way; there will be no other."""
        self._closed = True
        if self._runs is not None:
            self._runs.close()

    def _describe(self, file: RequirementsFile, missing: Sequence[Missing]) -> str:
        found = ", ".join(map(str, missing))
        command = " ".join(f"'{one.wanted}'" for one in missing)
        return f"{file.name}: not here: {found}; pip install {command}, or {self._remedy}"

    def _provide(
        self,
        deployment: Deployment,
        file: RequirementsFile,
        lines: Sequence[str],
        missing: Sequence[Missing],
    ) -> Path:
        """Return the interpreter of an environment that has `lines`, and make it if need be."""
        from filelock import FileLock, Timeout  # noqa: PLC0415 - an extra

        root = (self._directory or default_directory(self._environ)) / "environments"
        link = root / _digest(file, lines)
        try:
            root.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{link}.lock", timeout=INSTALL_SECONDS):
                if not link.exists():
                    self._make(link, deployment, file, lines, missing)
                return link.resolve() / "bin" / "python"
        except Timeout:
            raise RequirementsError(
                f"{deployment.name}: {file.name}: another process has been installing it for "
                f"{INSTALL_SECONDS:g} seconds"
            ) from None
        except OSError as error:
            raise RequirementsError(
                f"{root}: cannot be written: {error.strerror or error}; set {CACHE_VARIABLE} to a "
                "directory with room"
            ) from error

    def _make(
        self,
        link: Path,
        deployment: Deployment,
        file: RequirementsFile,
        lines: Sequence[str],
        missing: Sequence[Missing],
    ) -> None:
        from hatch_mar.serve.environments.installers import InstallationError, Order, install  # noqa: PLC0415

        if is_offline(self._environ):
            wanted = ", ".join(map(str, missing)) or "what it asks for"
            raise RequirementsError(
                f"{deployment.name}: {file.name}: {wanted}: nothing is installed while "
                f"{OFFLINE_VARIABLE} is set; start once where there is a network, or unset it"
            )
        for abandoned in link.parent.glob(f"{link.name}-*"):
            shutil.rmtree(abandoned, ignore_errors=True)
        home = link.with_name(f"{link.name}-{secrets.token_hex(4)}")
        logger.info("%s: %s: installing into %s", deployment.name, file.name, home)
        try:
            order = Order(
                python=home / "bin" / "python",
                site=make_venv(home),
                directory=deployment.directory,
                lines=lines,
                missing=missing,
            )
            install(order, self._start_runs())
            _publish(home, link)
        except InstallationError as error:
            shutil.rmtree(home, ignore_errors=True)
            logger.error(  # noqa: TRY400 - the installer's own words, not where we were
                "%s: %s: the installation failed:\n%s", deployment.name, file.name, error.output
            )
            raise RequirementsError(
                f"{deployment.name}: {file.name}: cannot be installed: {error}"
            ) from None
        except BaseException:
            shutil.rmtree(home, ignore_errors=True)
            raise

    def _start_runs(self) -> Runs:
        from hatch_mar.serve.environments.installers import Runs  # noqa: PLC0415 - see above

        if self._runs is None:
            self._runs = Runs(self._environ, patience=INSTALL_SECONDS)
        if self._closed:
            self._runs.close()
        return self._runs


def make_venv(home: Path) -> Path:
    """Make an environment that sees this one's packages behind its own; return its site-packages.

    The runner may be in a virtual environment itself, whose packages `--system-site-packages` would
    not show.
    """
    import venv  # noqa: PLC0415 - few runners install

    venv.EnvBuilder(symlinks=True).create(home)
    own = Path(sysconfig.get_path("purelib", "venv", {"base": str(home), "platbase": str(home)}))
    seen = [path for path in dict.fromkeys(_site_directories()) if Path(path).is_dir()]
    # Not the bare paths: there are files like this one in there too, which count.
    lines = [f"import site; site.addsitedir({path!r})\n" for path in seen]
    (own / "hatch-mar-runner.pth").write_text("".join(lines), encoding="utf-8")
    return own


def _site_directories() -> Iterator[str]:
    yield sysconfig.get_path("purelib")
    yield sysconfig.get_path("platlib")
    yield from site.getsitepackages()
    if site.ENABLE_USER_SITE:
        yield site.getusersitepackages()


def _digest(file: RequirementsFile, lines: Sequence[str]) -> str:
    """Digest what decides what the environment has."""
    digest = hashlib.sha256()
    for text in (_LAYOUT, sys.version, sys.executable, sysconfig.get_platform(), *lines):
        digest.update(f"{text}\0".encode())
    for path in file.files[1:]:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    for directory in dict.fromkeys(_site_directories()):
        digest.update(f"{directory}\0".encode())
        with suppress(OSError):
            for path in sorted(Path(directory).iterdir()):
                if path.suffix in (".dist-info", ".egg-info"):
                    digest.update(f"{path.name}\0".encode())
    return digest.hexdigest()[:32]


def _publish(home: Path, link: Path) -> None:
    """Give what is whole its name, at once or not at all."""
    fresh = home.with_name(f"{home.name}.link")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(home.name)
    fresh.replace(link)
