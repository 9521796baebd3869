"""Programs and packages of other projects that hatch-mar stands in for, where somebody asks for it.

A shim is a handful of files in an environment, each with a line that says whose it is. What does
not have that line is not ours: it is never overwritten, and never removed.
"""

from __future__ import annotations

import shutil
import sys
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from hatch_mar.errors import HatchMarError, Problem, ProblemsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

MARK = "# Written by `hatch-mar shims install`; `hatch-mar shims uninstall` removes it."
LONGEST_SHEBANG = 127
"""Bytes of a first line that every kernel still reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OldName:
    """One program of old, and the package that came with it."""

    module: str
    """Whose `main()` is the program."""
    original: str
    """The distribution that has the real one."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """The package's modules by their path in `site-packages`."""


def _exports(names: str) -> str:
    return f"from hatch_mar.archiver import {names}\n"


OLD_NAMES: Mapping[str, OldName] = {
    "torch-model-archiver": OldName(
        module="hatch_mar.cli.torch_model_archiver",
        original="torch-model-archiver",
        sources={
            "model_archiver/__init__.py": (
                "from model_archiver import model_packaging, version\n"
                "from model_archiver.model_archiver import ModelArchiver\n"
                "from model_archiver.model_archiver_config import ModelArchiverConfig\n"
                "\n"
                "__version__ = version.__version__\n"
            ),
            "model_archiver/model_archiver.py": _exports("ModelArchiver, ModelArchiverConfig"),
            "model_archiver/model_archiver_config.py": _exports("ModelArchiverConfig"),
            "model_archiver/model_archiver_error.py": _exports("ModelArchiverError"),
            "model_archiver/model_packaging.py": _exports("generate_model_archive, package_model")
            + '\nif __name__ == "__main__":\n    generate_model_archive()\n',
            "model_archiver/model_packaging_utils.py": _exports("ModelExportUtils"),
            "model_archiver/manifest_components/__init__.py": "",
            "model_archiver/manifest_components/manifest.py": _exports("RuntimeType"),
            "model_archiver/version.py": _exports("__version__"),
        },
    ),
    "torchserve": OldName(
        module="hatch_mar.cli.torchserve.program",
        original="torchserve",
        sources={
            "ts/__init__.py": (
                "import sys\n"
                "\n"
                "import hatch_mar.ts\n"
                "\n"
                "hatch_mar.ts.install()  # `ts` and all below it are hatch_mar.ts from here on\n"
                "sys.modules[__name__] = hatch_mar.ts\n"
            ),
        },
    ),
}
"""Every name that we can stand in for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """Where an environment keeps its programs and packages."""

    python: Path
    scripts: Path
    packages: Path

    @classmethod
    def of_this_process(cls) -> Home:
        """Return the environment that runs this process."""
        return cls(
            python=Path(sys.executable),
            scripts=Path(sysconfig.get_path("scripts")),
            packages=Path(sysconfig.get_path("purelib")),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Shim:
    """One old name in one environment."""

    name: str
    old: OldName
    home: Home

    @property
    def program(self) -> Path:
        """The file that a shell finds."""
        return self.home.scripts / self.name

    def files(self) -> dict[Path, str]:
        """Return every file with its text."""
        modules = {
            self.home.packages / path: f"{MARK}\n{text}" for path, text in self.old.sources.items()
        }
        return {self.program: _script(self.home.python, self.old.module), **modules}

    def state(self) -> str:
        """Return `installed`, `incomplete`, `foreign` (there is one that is not ours) or `absent`.

        Raises:
            HatchMarError: nobody can tell.
        """
        owned = [_is_ours(path) for path in self.files()]
        if False in owned:
            return "foreign"
        if True not in owned:
            return "absent"
        return "incomplete" if None in owned else "installed"

    def strangers(self) -> Iterator[Problem]:
        """Yield what is in the way, or lives in the package already, and is somebody else's."""
        for path in dict.fromkeys((*self.files(), *self._modules_there())):
            if _is_ours(path) is False:
                message = (
                    "is not hatch-mar's, so it stays; if you want it replaced, remove it first "
                    f"(`pip uninstall {self.old.original}`, if that is what it belongs to)"
                )
                yield Problem(str(path), "", message)

    def _modules_there(self) -> Iterator[Path]:
        for name in sorted({path.partition("/")[0] for path in self.old.sources}):
            yield from sorted((self.home.packages / name).rglob("*.py"))


def find_shims(names: Iterable[str], home: Home) -> list[Shim]:
    """Return the shims of `names`, of all old names if there are none."""
    return [
        Shim(name=name, old=OLD_NAMES[name], home=home)
        for name in OLD_NAMES
        if name in (tuple(names) or OLD_NAMES)
    ]


def install(shims: Iterable[Shim]) -> list[Path]:
    """Write the files of `shims` and return them; those of ours that are there are renewed.

    Raises:
        ProblemsError: there are files in the way that are not ours; nothing has been written then.
        HatchMarError: one cannot be written; those that were new are gone again.
    """
    shims = list(shims)
    strangers = [problem for shim in shims for problem in shim.strangers()]
    if strangers:
        raise ProblemsError(strangers)
    fresh: list[Path] = []
    written: list[Path] = []
    try:
        for shim in shims:
            for path, text in shim.files().items():
                if _is_ours(path) is None:
                    fresh.append(path)
                _write(path, text, executable=path == shim.program)
                written.append(path)
    except OSError as error:
        remove(fresh)
        raise HatchMarError(f"{error.filename}: cannot be written: {error.strerror}") from error
    return written


def uninstall(shims: Iterable[Shim]) -> list[Path]:
    """Remove the files of `shims` that are ours, and return them.

    Raises:
        HatchMarError: one cannot be removed.
    """
    ours = [path for shim in shims for path in shim.files() if _is_ours(path)]
    try:
        remove(ours)
    except OSError as error:
        raise HatchMarError(f"{error.filename}: cannot be removed: {error.strerror}") from error
    return ours


def remove(paths: Iterable[Path]) -> None:
    """Remove files of ours, and the folders that nothing is left in but what Python cached."""
    paths = list(paths)
    for path in paths:
        path.unlink(missing_ok=True)
    for folder in sorted({path.parent for path in paths}, key=lambda path: -len(path.parts)):
        if (folder / "__pycache__").is_dir() and not any(folder.glob("*.py")):
            shutil.rmtree(folder / "__pycache__", ignore_errors=True)
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _is_ours(path: Path) -> bool | None:
    """Say whether we wrote `path`; None if there is nothing."""
    try:
        if path.is_symlink() or path.exists():
            return path.is_file() and MARK.encode() in path.read_bytes()
    except OSError as error:
        raise HatchMarError(f"{path}: cannot be read: {error.strerror}") from error
    return None


def _write(path: Path, text: str, *, executable: bool) -> None:
    from hatch_mar.archive.staging import staged_file  # noqa: PLC0415 - see hatch_mar.cli

    with staged_file(path) as file:
        file.write(text.encode())
    path.chmod(0o755 if executable else 0o644)


def _script(python: Path, module: str) -> str:
    """Return a program that runs `main()` of `module`, as pip writes them for any path."""
    shebang = f"#!{python}"
    if " " in shebang or len(shebang.encode()) > LONGEST_SHEBANG:
        shebang = f"#!/bin/sh\n'''exec' \"{python}\" \"$0\" \"$@\"\n' '''"
    return f"{shebang}\n{MARK}\nimport sys\n\nfrom {module} import main\n\nsys.exit(main())\n"
