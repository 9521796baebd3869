"""What an environment is made of, for `hatch-mar doctor`: Python, programs, packages, settings.

Nothing heavy is imported to find out: versions come from the metadata of what is installed.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from packaging.requirements import Requirement

State = Literal["ok", "note", "problem"]
OUR_VARIABLES = (
    "HATCH_MAR_CACHE_DIR",
    "HATCH_MAR_DEBUG",
    "HATCH_MAR_DIR",
    "HATCH_MAR_INSTALL_HOOKS",
    "HATCH_MAR_MANAGEMENT_TOKEN",
    "HATCH_MAR_OFFLINE",
)
"""Variables that are no keys of `[tool.mar]`."""
SECRET = re.compile(r"TOKEN|SECRET|PASSWORD", re.IGNORECASE)
FRONT_ENDS = ("hatch", "build", "pip", "uv", "twine")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the doctor's report."""

    topic: str
    state: State
    message: str
    remedy: str = ""
    """What to do about it; empty where nothing has to be done."""


def ok(topic: str, message: str) -> Finding:
    """Return a finding that needs no attention."""
    return Finding(topic=topic, state="ok", message=message)


def note(topic: str, message: str, remedy: str = "") -> Finding:
    """Return a finding that matters to some."""
    return Finding(topic=topic, state="note", message=message, remedy=remedy)


def problem(topic: str, message: str, remedy: str) -> Finding:
    """Return a finding that will bite."""
    return Finding(topic=topic, state="problem", message=message, remedy=remedy)


def look_at_python(environ: Mapping[str, str], directory: Path) -> Iterator[Finding]:
    """Yield which Python runs us, and whether a shell would find another one."""
    from hatch_mar import __version__  # noqa: PLC0415 - see hatch_mar.cli

    version = ".".join(map(str, sys.version_info[:3]))
    yield ok("python", f"{version}, {sys.executable}")
    yield ok("hatch-mar", __version__)
    active = environ.get("VIRTUAL_ENV")
    if active and not _same(Path(active), Path(sys.prefix)):
        yield note(
            "python",
            f"the active environment is {active}, but this is {sys.prefix}",
            f"run {active}/bin/hatch-mar, or install hatch-mar there",
        )
    local = directory / ".venv"
    if local.is_dir() and not _same(local, Path(sys.prefix)):
        yield note(
            "python",
            f"this project has an environment of its own, {local}, which this is not",
            f"run {local}/bin/hatch-mar",
        )
    found = shutil.which("hatch-mar", path=environ.get("PATH", ""))
    if found and not _same(Path(found).parent, Path(sys.executable).parent):
        yield note("python", f"a shell finds another hatch-mar first: {found}", "look at PATH")


def look_at_build_tools() -> Iterator[Finding]:
    """Yield hatchling, what runs it, and what an editable installation needs."""
    installed = _version("hatchling")
    wanted = next((each for each in _our_requirements("") if each.name == "hatchling"), None)
    if installed is None:
        yield problem("hatchling", "is not installed", "pip install hatchling")
    elif wanted is not None and not wanted.specifier.contains(installed, prereleases=True):
        yield problem("hatchling", f"{installed} is not {wanted}", f"pip install '{wanted}'")
    else:
        yield ok("hatchling", f"{installed}, of {wanted.specifier if wanted else 'any'}")
    versions = {name: _version(name) for name in FRONT_ENDS}
    there = [f"{name} {version}" for name, version in versions.items() if version]
    there += [
        f"{name} ({path})"
        for name in FRONT_ENDS
        if not versions[name] and (path := shutil.which(name))
    ]
    if there:
        yield ok("front ends", ", ".join(there))
    else:
        yield note("front ends", "none", "pip install hatch, or build, to build a wheel")
    if _version("editables") is None:
        yield note(
            "editables",
            "is not installed: `pip install -e --no-build-isolation` needs it",
            "pip install editables",
        )
    else:
        yield ok("editables", str(_version("editables")))


def look_at_extras() -> Iterator[Finding]:
    """Yield, for each extra of ours, what it brings, and what of that is missing or too old."""
    metadata = importlib.metadata.metadata("hatch-mar")
    for extra in metadata.get_all("Provides-Extra") or ():
        wanted = list(_our_requirements(extra))
        lacking = missing_of(extra)
        have = ", ".join(
            f"{each.name} {version}" for each in wanted if (version := _version(each.name))
        )
        topic = f"extra {extra}"
        if not lacking:
            yield ok(topic, have)
        elif len(lacking) == len(wanted):
            yield note(topic, "not installed", f"pip install 'hatch-mar[{extra}]' if you need it")
        else:
            missing = ", ".join(line.partition(";")[0].strip() for line in lacking)
            yield note(topic, f"incomplete: lacks {missing}", f"pip install 'hatch-mar[{extra}]'")


def missing_of(extra: str) -> list[str]:
    """Return what one of our extras would bring and is missing or too old, as requirements."""
    return [str(each) for each in _our_requirements(extra) if not _is_met(each)]


def look_at_variables(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Yield every variable of ours that is in force, and those that are of no use."""
    from hatch_mar.project.document import VARIABLE_PREFIX, names_key  # noqa: PLC0415 - see cli
    from hatch_mar.project.suggestion import did_you_mean  # noqa: PLC0415

    found = sorted(name for name in environ if name.startswith(VARIABLE_PREFIX))
    for name in found:
        value = "(set)" if SECRET.search(name) else environ[name]
        if name in OUR_VARIABLES or names_key(name):
            effect = "" if name in OUR_VARIABLES else ", overrules [tool.mar] in every build"
            yield note("variable", f"{name}={value}{effect}")
        else:
            hint = did_you_mean(name, OUR_VARIABLES)
            yield note("variable", f"{name}: nothing reads it{hint}")
    if not found:
        yield ok("variables", "no HATCH_MAR_* is set")


def look_at_old_programs() -> Iterator[Finding]:
    """Yield whose `torchserve` and `torch-model-archiver` a shell finds."""
    from hatch_mar.cli.old_names import MARK, OLD_NAMES  # noqa: PLC0415 - see hatch_mar.cli

    for name in OLD_NAMES:
        path = shutil.which(name)
        if path is None:
            continue
        ours = MARK.encode() in _head(Path(path))
        yield ok(name, f"{'hatch-mar, under that name' if ours else 'the original'}: {path}")


def look_at_models() -> Iterator[Finding]:
    """Yield the models that are installed here, and whether their files are there."""
    from hatch_mar.archive.installed import installed_models, open_installed  # noqa: PLC0415
    from hatch_mar.errors import HatchMarError  # noqa: PLC0415 - see hatch_mar.cli

    models = installed_models()
    for name, package in models:
        try:
            with open_installed(package) as archive:
                version = archive.manifest.model_version or "1.0"
                how = ", editable" if archive.kind == "editable" else ""
                yield ok("model", f"{name} {version}{how}")
        except (HatchMarError, OSError) as error:
            yield problem("model", f"{name}: {error}", f"pip install --force-reinstall {name}")
    if not models:
        yield ok("models", "none is installed here")


def _our_requirements(extra: str) -> Iterator[Requirement]:
    """Yield what hatch-mar itself needs: always, or for one of its extras alone."""
    from packaging.requirements import Requirement  # noqa: PLC0415 - a dependency of hatchling

    for line in importlib.metadata.requires("hatch-mar") or ():
        wanted = Requirement(line)
        without = wanted.marker is None or wanted.marker.evaluate({"extra": ""})
        if without if not extra else not without and _applies(wanted, extra):
            yield wanted


def _applies(wanted: Requirement, extra: str) -> bool:
    return wanted.marker is not None and wanted.marker.evaluate({"extra": extra})


def _is_met(wanted: Requirement) -> bool:
    if (
        wanted.marker is not None
        and "extra" not in str(wanted.marker)
        and not wanted.marker.evaluate()
    ):
        return True  # it does not concern this machine
    version = _version(wanted.name)
    return version is not None and wanted.specifier.contains(version, prereleases=True)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _same(one: Path, other: Path) -> bool:
    try:
        return one.resolve() == other.resolve()
    except OSError:
        return False


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(4096)
    except OSError:
        return b""


def torch_cuda() -> str | None:
    """Return the CUDA release that the installed torch was built for; None without one."""
    try:
        distribution = importlib.metadata.distribution("torch")
        text = Path(str(distribution.locate_file("torch/version.py"))).read_text(encoding="utf-8")
    except (importlib.metadata.PackageNotFoundError, OSError, UnicodeDecodeError):
        return None
    found = re.search(r"^cuda\b[^=]*=\s*'([\d.]+)'", text, re.MULTILINE)
    return found[1] if found else None


def find_compiler(environ: Mapping[str, str]) -> str | None:
    """Return the C++ compiler that `torch.compile` would take on a processor."""
    wanted = [environ["CXX"]] if environ.get("CXX") else ["g++", "c++", "clang++"]
    return next((path for name in wanted if (path := shutil.which(name))), None)


def cpu_count() -> int:
    """Return how many processors we may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
