"""From an archive back to a project: the files of the one, and the table that packs them again."""

from __future__ import annotations

import glob
from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from hatch_mar.archive.compare import compare
from hatch_mar.archive.seal import EXAMPLES_DIRECTORY
from hatch_mar.project.adoption.of_call import (
    class_lines,
    requirement_lines,
    served_lines,
)
from hatch_mar.project.baggage import FACTORY_FILE, PACKAGE_FILE, PACKAGE_SHIM
from hatch_mar.project.config import CONVENTIONAL as CONVENTIONAL_CONFIG
from hatch_mar.project.document import PYPROJECT
from hatch_mar.project.draft import (
    Draft,
    Line,
    Value,
    base_dependencies,
    draft_name,
    draft_version,
    merge_dependencies,
    weights_line,
)
from hatch_mar.project.founding.newfiles import new_files
from hatch_mar.project.handler import DEFAULT_HANDLERS
from hatch_mar.project.packages import LEFT_OUT
from hatch_mar.project.table import ExampleTable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from hatch_mar.archive.read import Archive
    from hatch_mar.archive.seal import Example
    from hatch_mar.project.founding.newfiles import Source
    from hatch_mar.weights.reference import Reference

FACTORY_MARK = b"HATCH_MAR_BASE_HANDLER = 1"
MOVED = "members"
"""Folder of the project for members whose own place would mean something to a build."""
MEANINGFUL = ("pyproject.toml", "hatch.toml", "setup.py", "setup.cfg")
UNVERSIONED = "1.0"
"""What TorchServe calls an archive that does not say its version."""
FOLDERS_OF_BUILDS = ("dist",)
EXAMPLE_DEFAULTS = {
    key: ExampleTable.model_fields[key].default for key in ("rtol", "atol", "policy")
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopted:
    """An archive, as a project."""

    draft: Draft
    files: dict[str, str]
    """The project's files: path in the project to name of the member."""


def draft_of_archive(archive: Archive) -> Adopted:
    """Return the project that builds an archive with the members of `archive`.

    Raises:
        ArchiveError: a member that decides something cannot be read.
    """
    return _ArchiveReader(archive).adopt()


class _ArchiveReader:
    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self.manifest = archive.manifest
        self.names = [
            name
            for name in archive.names()
            if not name.startswith("MAR-INF/") and self._is_own(name)
        ]
        self.notes = [*archive.warnings]

    def adopt(self) -> Adopted:
        manifest = self.manifest
        project, served, notes = draft_name(manifest.model_name)
        self.notes += notes
        version, served_version = draft_version(manifest.model_version or UNVERSIONED)
        if manifest.runtime != "python":
            self.notes.append(f"runtime '{manifest.runtime}': the new manifest will say 'python'")
        files = {self._place(name): name for name in self.names}
        files |= {path: name for name, path in self._examples().items()}
        lines = [
            *served_lines(project, served, served_version),
            self._handler(),
            *self._model_file(),
            *self._weights(),
            *self._extras(),
            *self._settings(),
        ]
        weights = manifest.serialized_file or next((each.target for each in self._references()), "")
        draft = Draft(
            project=project,
            version=version,
            served=served,
            dependencies=merge_dependencies(
                requirement_lines(self._read(manifest.requirements_file)),
                base_dependencies(weights),
            ),
            lines=tuple(lines),
            notes=tuple(dict.fromkeys(self.notes)),
        )
        return Adopted(draft=draft, files=files)

    def _is_own(self, name: str) -> bool:
        """Say whether a member is the author's: what a build adds by itself is not."""
        if name == FACTORY_FILE:
            return FACTORY_MARK not in self.archive.read(name)
        return name != PACKAGE_FILE or self.archive.read(name) != PACKAGE_SHIM.encode()

    def _place(self, name: str) -> str:
        """Return where a member lies in the project: at its name, unless that means something."""
        stray_config = name == CONVENTIONAL_CONFIG and name != self.manifest.config_file
        first = name.partition("/")[0]
        if name in MEANINGFUL or stray_config or first in (*FOLDERS_OF_BUILDS, MOVED):
            return f"{MOVED}/{name}"
        return name

    def _read(self, name: str | None) -> bytes:
        return self.archive.read(name) if name and name in self.archive else b""

    def _handler(self) -> Line:
        text = self.manifest.handler or ""
        target, colon, function = PurePosixPath(text).name.partition(":")
        file = target if target.endswith(".py") else f"{target}.py"
        if file in self.names:
            return Line("handler", f"{file}{colon}{function}")
        if text in DEFAULT_HANDLERS:
            return Line("handler", text)
        if not text:
            return Line("handler", "handler.py", "the archive names none: write it, and name it")
        return Line("handler", text, "it is not in the archive: write a handler.py and name it")

    def _model_file(self) -> Iterator[Line]:
        name = self.manifest.model_file
        if name in self.names:
            yield Line("model-file", self._place(name))
            yield from class_lines(self.archive.read(name))
        elif name:
            self.notes.append(f"the manifest names the model file '{name}', which is not there")

    def _references(self) -> tuple[Reference, ...]:
        return self.archive.seal.references if self.archive.seal else ()

    def _weights(self) -> Iterator[Line]:
        name = self.manifest.serialized_file
        tables = [_reference_table(reference) for reference in self._references()]
        trusted = self.archive.seal.trusted_pickle if self.archive.seal else ()
        if name in self.names and not tables and not trusted:
            yield weights_line(self._place(name), self.archive.size(name))
            return
        if name in self.names:
            tables.insert(0, {"source": self._place(name), "place": "embed"})
        elif name and name not in {table["target"] for table in tables}:
            self.notes.append(f"the manifest names the weights '{name}', which are not there")
        for table in tables:
            if table.get("target", table["source"]) in trusted:
                table["trusted-pickle"] = True
        if tables:
            yield Line("weights", tables)

    def _extras(self) -> Iterator[Line]:
        manifest = self.manifest
        named = {manifest.serialized_file, manifest.model_file, manifest.requirements_file}
        named |= {manifest.config_file, str(self._handler().value).partition(":")[0]}
        rest = [name for name in self.names if name not in named]
        values: list[Value] = list(_fold(name for name in rest if self._place(name) == name))
        values += [
            {"from": glob.escape(self._place(name)), "to": name}
            for name in rest
            if self._place(name) != name
        ]
        if values:
            yield Line("extra-files", values)

    def _settings(self) -> Iterator[Line]:
        for key, name in (
            ("requirements", self.manifest.requirements_file),
            ("config", self.manifest.config_file),
        ):
            if name in self.names:
                yield Line(key, self._place(name))
            elif name:
                self.notes.append(f"the manifest names '{name}', which is not in the archive")
        if not self.manifest.requirements_file:
            why = "the archive has no requirements file, so the new one gets none either"
            yield Line("requirements", [], why)
        places = self._examples()
        examples = self.archive.seal.examples if self.archive.seal else ()
        if examples:
            yield Line("examples", [_example_table(each, places) for each in examples])

    def _examples(self) -> dict[str, str]:
        """Return where in the project each file of a golden example goes."""
        examples = self.archive.seal.examples if self.archive.seal else ()
        names = [name for each in examples for name in (each.input, each.output)]
        folder = "examples"
        while any(name.partition("/")[0] == folder for name in self.names):
            folder = f"golden-{folder}"
        return {name: f"{folder}{name.removeprefix(EXAMPLES_DIRECTORY)}" for name in names}


def _reference_table(reference: Reference) -> dict[str, Value]:
    table: dict[str, Value] = {"source": reference.source, "target": reference.target}
    table["sha256"] = reference.sha256
    if reference.size is not None:
        table["size"] = reference.size
    if reference.mirrors:
        table["mirrors"] = list(reference.mirrors)
    return table


def _example_table(example: Example, places: Mapping[str, str]) -> dict[str, Value]:
    table: dict[str, Value] = {
        "input": places[example.input],
        "output": places[example.output],
        "content-type": example.content_type,
    }
    for key, default in EXAMPLE_DEFAULTS.items():
        value = getattr(example, key)
        if value != default:
            table[key] = value
    return table


def _fold(names: Iterable[str]) -> Iterator[str]:
    """Yield patterns for exactly `names`: a folder for all that a build takes of it."""
    folders: dict[str, list[str]] = defaultdict(list)
    for name in sorted(names):
        folder, slash, _ = name.partition("/")
        if slash and not folder.startswith(".") and folder not in LEFT_OUT:
            folders[folder].append(name)
        else:
            yield glob.escape(name)
    for folder, inside in folders.items():
        passed_over = [name for name in inside if _is_passed_over(name)]
        if len(passed_over) < len(inside):
            yield glob.escape(folder)
        yield from map(glob.escape, passed_over)


def _is_passed_over(name: str) -> bool:
    """Say whether a build that is given a folder leaves this file of it alone."""
    parts = PurePosixPath(name).parts
    return name.endswith(".pyc") or any(part.startswith(".") or part in LEFT_OUT for part in parts)


def unpack_into(root: Path, archive: Archive, adopted: Adopted) -> None:
    """Write the project `adopted` into `root`, with the files of `archive`.

    Raises:
        ProblemsError: files are there already; all are named.
        ArchiveError: a member cannot be read. Nothing is left then.
    """
    files: dict[str, Source] = {
        path: partial(archive.open, name) for path, name in adopted.files.items()
    }
    with new_files(root, {PYPROJECT: adopted.draft.to_toml(), **files}):
        for path, name in adopted.files.items():
            if archive.executable(name):
                (root / path).chmod((root / path).stat().st_mode | 0o111)


def find_differences(before: Archive, after: Archive) -> Iterator[str]:
    """Yield what the author would find changed if `after` took the place of `before`.

    Raises:
        ArchiveError: a member cannot be read.
    """
    found = compare(before, after)
    for name in filter(_matters, found.only_left):
        yield f"{name}: left out"
    for name in filter(_matters, found.only_right):
        yield f"{name}: new"
    for name in filter(_matters, found.differing):
        yield f"{name}: another content"


def _matters(name: str) -> bool:
    """Say whether a member is for the author to care about, and not for the builder."""
    return not name.startswith("MAR-INF/") and name not in (FACTORY_FILE, PACKAGE_FILE)
