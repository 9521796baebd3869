"""The archive's requirements.txt."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from hatch_mar.archive.requirements import logical_lines
from hatch_mar.errors import Problem
from hatch_mar.project.document import PYPROJECT, render
from hatch_mar.project.secret import URL, conceal, find_secret
from hatch_mar.project.spec import Entry
from hatch_mar.project.suggestion import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hatch_mar.project.reading import Reading

FILE = "requirements.txt"
KEY = ("requirements",)
BROUGHT_BY_THE_SERVER = frozenset(
    {"hatch-mar", "torch", "torchvision", "torchaudio", "torchtext", "torchserve"}
)
"""What every server has, in the build that fits its GPU: a model must not replace it."""
HASH_OPTIONS = re.compile(r"\s--(?:hash|config-settings|global-option)\b")
"""Options that may follow a requirement on its line."""
HASH = re.compile(r"\s--hash\b|#sha\d+=")
UNHASHED = "has no `--hash`, though another line has one: pip then installs none of them"
OPTIONS = (
    "-i",
    "--index-url",
    "--extra-index-url",
    "--no-index",
    "-f",
    "--find-links",
    "--no-binary",
    "--only-binary",
    "--prefer-binary",
    "--require-hashes",
    "--pre",
    "--trusted-host",
    "--use-feature",
)
"""Options that pip takes from a requirements file, short of those that name another file."""
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
    if "requirements" in reading.broken and "requirements" not in reading.kept:
        return None
    if wanted == "project":
        return _of_project(reading, dependencies)
    if isinstance(wanted, str):
        return _of_file(reading, wanted)
    lines = list(wanted)
    for key, line in reading.entries("requirements", lines):
        flaw = _flaw(line)
        if flaw:
            reading.complain(key, f"'{conceal(line)}' {flaw}")
    unhashed = _find_unhashed(lines)
    if unhashed is not None:
        reading.complain(KEY, f"'{unhashed}' {UNHASHED}")
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
        flaw = _flaw_of_requirement(line)
        if flaw:
            key = render(("project", "dependencies", index))
            reading.problems.append(Problem(PYPROJECT, key, f"'{conceal(line)}' {flaw}"))
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
    lines = list(logical_lines(data))
    for number, line in lines:
        flaw = _flaw(line)
        if flaw:
            yield number, f"'{conceal(line)}' {flaw}"
    unhashed = _find_unhashed([line for _, line in lines])
    if unhashed is not None:
        number = next(number for number, line in lines if line == unhashed)
        yield number, f"'{unhashed}' {UNHASHED}"


def _flaw(line: str) -> str | None:
    """Return why an archive cannot carry `line`, or None if it can."""
    if line.startswith("-"):
        return _flaw_of_option(line) or _flaw_of_urls(line)
    return _flaw_of_requirement(HASH_OPTIONS.split(line, maxsplit=1)[0])


def _flaw_of_requirement(line: str) -> str | None:
    if "{root:" in line or "{home" in line:
        return "means something only on this machine; name a requirements file instead"
    try:
        requirement = Requirement(line)
    except InvalidRequirement as error:
        if URL.match(line):
            return "has no name; write 'name @ URL'"
        if line.startswith((".", "/", "~")) or line.endswith((".whl", ".tar.gz", ".zip")):
            return "is a path of this machine; publish it, or name a release"
        reason = str(error).splitlines()[0]
        return f"is no requirement that others could install: {reason[:1].lower()}{reason[1:]}"
    if requirement.url and requirement.url.startswith(("file:", "git+file:")):
        return "is a file of this machine; publish it, or name a release"
    return _flaw_of_urls(line)


def _flaw_of_option(line: str) -> str | None:
    option = re.split(r"[\s=]", line, maxsplit=1)[0]
    if not option.startswith("--"):
        option = option[:2]  # `-rbase.txt` is an option and its value too
    if option in LOCAL_OPTIONS:
        return "names another file, which does not travel; write its lines here"
    if option in ("-f", "--find-links") and "://" not in line:
        return "names a folder of this machine; give a URL"
    if option not in OPTIONS:
        hint = did_you_mean(option, OPTIONS)
        return f"is no option that pip takes from a requirements file{hint}"
    return None


def _flaw_of_urls(line: str) -> str | None:
    secret = next(filter(None, map(find_secret, URL.findall(line))), None)
    if secret is None:
        return None
    return (
        f"holds {secret}, which everybody who has the archive could read; write a variable such as "
        "${PASSWORD}, which pip fills in from the server's environment"
    )


def _find_unhashed(lines: Sequence[str]) -> str | None:
    """Return the first requirement without a hash, if another one has one."""
    requirements = [line for line in lines if not line.startswith("-")]
    bare = [line for line in requirements if not HASH.search(line)]
    return bare[0] if bare and len(bare) < len(requirements) else None


def _entry(lines: Sequence[str]) -> Entry | None:
    if not lines:
        return None
    return Entry(FILE, "".join(f"{line}\n" for line in lines).encode(), "requirements")
