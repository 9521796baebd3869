"""The archive's requirements.txt."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from hatch_mar.errors import Problem
from hatch_mar.project.document import PYPROJECT, render
from hatch_mar.project.spec import Entry

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hatch_mar.project.reading import Reading

FILE = "requirements.txt"
KEY = ("requirements",)
BROUGHT_BY_THE_SERVER = frozenset(
    {"hatch-mar", "torch", "torchvision", "torchaudio", "torchtext", "torchserve"}
)
"""What every server has, in the build that fits its GPU: a model must not replace it."""
LOCAL_OPTIONS = ("-r", "--requirement", "-c", "--constraint", "-e", "--editable")
"""Options of a requirements file that name another file."""


def resolve_requirements(
    reading: Reading, dependencies: Sequence[str] | None = None
) -> Entry | None:
    """Return the archive's requirements file; None if nothing is required, or after complaining.

    Args:
        reading: The project.
        dependencies: `[project]` dependencies where a build knows them better than pyproject.toml.
    """
    wanted = reading.table.requirements
    if "requirements" in reading.broken:
        return None
    if wanted == "project":
        return _of_project(reading, dependencies)
    if isinstance(wanted, str):
        return _of_file(reading, wanted)
    lines = list(wanted)
    for index, line in enumerate(lines):
        flaw = _flaw(line)
        if flaw:
            reading.complain((*KEY, index), f"'{line}' {flaw}")
    return _entry(lines)


def _of_project(reading: Reading, dependencies: Sequence[str] | None) -> Entry | None:
    if dependencies is None:
        if reading.is_dynamic("dependencies"):
            reading.complain(
                KEY, "the project's dependencies are dynamic; name a file or a list instead"
            )
            return None
        dependencies = reading.project.get("dependencies", [])
    if not isinstance(dependencies, list | tuple) or not all(
        isinstance(line, str) for line in dependencies
    ):
        problem = Problem(PYPROJECT, "project.dependencies", "must be an array of strings")
        reading.problems.append(problem)
        return None
    kept = []
    for index, line in enumerate(dependencies):
        flaw = _flaw(line)
        if flaw:
            key = render(("project", "dependencies", index))
            reading.problems.append(Problem(PYPROJECT, key, f"'{line}' {flaw}"))
        elif canonicalize_name(Requirement(line).name) not in BROUGHT_BY_THE_SERVER:
            kept.append(line)
    return _entry(kept)


def _of_file(reading: Reading, text: str) -> Entry | None:
    path = reading.find_file(KEY, text)
    if path is None:
        return None
    try:
        flaws = list(find_flaws(path.read_bytes()))
    except UnicodeDecodeError as error:
        reading.complain_of_file(path, "", f"is not UTF-8: {error}")
        return None
    for number, flaw in flaws:
        reading.complain_of_file(path, f"line {number}", flaw)
    return Entry(path.name, path, "requirements")


def find_flaws(data: bytes) -> Iterator[tuple[int, str]]:
    """Yield the number of each line of a requirements file that others could not use, and why.

    Raises:
        UnicodeDecodeError: it is not UTF-8.
    """
    for number, line in logical_lines(data):
        flaw = _flaw(line)
        if flaw:
            yield number, f"'{line}' {flaw}"


def logical_lines(data: bytes) -> Iterator[tuple[int, str]]:
    """Yield the lines that mean something, joined where a backslash says so, with their numbers.

    Raises:
        UnicodeDecodeError: it is not UTF-8.
    """
    pending, start = "", 0
    text = data.decode("utf-8-sig")  # pip too passes over a byte order mark
    for number, line in enumerate(text.splitlines(), start=1):
        start = start if pending else number
        if line.rstrip().endswith("\\"):
            pending += line.rstrip()[:-1]
            continue
        logical = re.sub(r"(^|\s)#.*$", "", pending + line).strip()
        pending = ""
        if logical:
            yield start, logical


def _flaw(line: str) -> str | None:
    """Return why an archive cannot carry `line`, or None if it can."""
    if "{root:" in line or "{home" in line:
        return "means something only on this machine; name a requirements file instead"
    if line.startswith("-"):
        return _flaw_of_option(line)
    bare = re.split(r"\s--(?:hash|config-settings|global-option)\b", line, maxsplit=1)[0]
    try:
        requirement = Requirement(bare)
    except InvalidRequirement as error:
        reason = str(error).splitlines()[0]
        return f"is no requirement that others could install: {reason[:1].lower()}{reason[1:]}"
    if requirement.url and requirement.url.startswith("file:"):
        return "is a file of this machine; publish it, or name a release"
    return None


def _flaw_of_option(line: str) -> str | None:
    option = re.split(r"[\s=]", line, maxsplit=1)[0]
    if not option.startswith("--"):
        option = option[:2]  # `-rbase.txt` is an option and its value too
    if option in LOCAL_OPTIONS:
        return "names another file, which does not travel; write its lines here"
    if option in ("-f", "--find-links") and "://" not in line:
        return "names a folder of this machine; give a URL"
    return None


def _entry(lines: Sequence[str]) -> Entry | None:
    if not lines:
        return None
    return Entry(FILE, "".join(f"{line}\n" for line in lines).encode(), "requirements")
