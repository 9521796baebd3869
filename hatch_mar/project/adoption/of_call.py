"""From a call of torch-model-archiver, or of a `build.sh`, to the project that builds the same.

Nothing is imported and nothing written. What lies where the call says is looked at, as far as it
decides something: classes of the model file, lines of requirements.txt, the size of the weights.
"""

from __future__ import annotations

import glob
import os.path
import posixpath
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from hatch_mar.archive.modelconfig import parse_yaml
from hatch_mar.errors import ArchiveError
from hatch_mar.project.draft import (
    Draft,
    Line,
    base_dependencies,
    draft_name,
    draft_version,
    merge_dependencies,
    weights_line,
)
from hatch_mar.project.founding.networks import class_names, read_networks
from hatch_mar.project.handler import DEFAULT_HANDLERS
from hatch_mar.project.requirements import BROUGHT_BY_THE_SERVER
from hatch_mar.project.source import SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hatch_mar.project.adoption.calls import ArchiverCall

OTHER_DEFAULTS = ("dali_image_classifier", "trt_llm_handler", "vllm_handler")
"""Handlers that torch-model-archiver knows by name, and this project does not have."""
FORMATS: dict[str, tuple[Line, ...]] = {
    "tgz": (Line("archive.format", "tgz"),),
    "no-archive": (Line("archive.format", "dir"),),
}
"""What `--archive-format` comes to. Both kinds of `.mar` are ours: stored, which is as fast as the
disk; `archive.compression` deflates."""


def draft_of_call(call: ArchiverCall, root: Path) -> Draft:
    """Return the project for `call`, which was made in the directory `root`, where it will be."""
    return _CallReader(call, root).draft()


@dataclass(slots=True)
class _CallReader:
    call: ArchiverCall
    root: Path
    notes: list[str] = field(default_factory=list)

    def draft(self) -> Draft:
        call = self.call
        project, served, notes = draft_name(call.name)
        self.notes += notes
        version, served_version = draft_version(call.version)
        lines = [
            *served_lines(project, served, served_version),
            *self._files(),
            *self._archive(),
        ]
        return Draft(
            project=project,
            version=version,
            served=served,
            dependencies=merge_dependencies(
                requirement_lines(self._read(call.requirements_file) or b""),
                base_dependencies(call.serialized_file),
            ),
            lines=tuple(lines),
            notes=tuple(self.notes),
        )

    def _files(self) -> Iterator[Line]:
        call = self.call
        yield self._handler()
        if call.model_file:
            yield self._line("model-file", call.model_file)
            yield from class_lines(self._read(call.model_file) or b"")
        if call.serialized_file:
            yield self._weights(call.serialized_file)
        yield from self._extras()
        if call.requirements_file:
            yield self._line("requirements", call.requirements_file)
        if call.config_file:
            yield self._line("config", call.config_file)

    def _handler(self) -> Line:
        text = self.call.handler
        if text in DEFAULT_HANDLERS:
            return Line("handler", text)
        if text in OTHER_DEFAULTS:
            why = f"torch-model-archiver's own '{text}' is not here: write a handler.py and name it"
            return Line("handler", text, why)
        target, colon, function = text.partition(":")
        target = target if target.endswith(".py") else f"{target}.py"
        line = self._line("handler", target)
        return Line("handler", f"{line.value}{colon}{function}", line.why)

    def _weights(self, text: str) -> Line:
        line = self._line("weights", text)
        path = self.root / self._at(text)
        size = path.stat().st_size if path.is_file() else 0
        return weights_line(str(line.value), size, line.why)

    def _extras(self) -> Iterator[Line]:
        call = self.call
        if not call.extra_files:
            return
        lines = [self._line("extra-files", text) for text in call.extra_files]
        whys = [line.why for line in lines if line.why]
        values = [str(line.value) for line in lines]
        yield Line("extra-files", values, "; ".join(whys))
        if any("/" in value or (self.root / value).is_dir() for value in values):
            yield Line(
                "extra-layout",
                "flat",
                "as torch-model-archiver did it: side by side, a folder's contents without the "
                "folder",
            )
        if call.from_script:
            yield from self._unpacked(values)

    def _unpacked(self, values: list[str]) -> Iterator[Line]:
        """Yield what tells a server to unpack the script's extra files, if the config does not."""
        names = [posixpath.basename(value) for value in values]
        named = named_extra_files(self._read(self.call.config_file))
        if named is None or set(names) <= set(named):
            return
        all_names = [*named, *(name for name in names if name not in named)]
        if named:
            self.notes.append(
                f"the config's `system.extraFiles` names {', '.join(named)}; it has to name "
                f"{', '.join(all_names)} for them to be unpacked"
            )
            return
        yield Line(
            "system.extra-files",
            all_names[0] if len(all_names) == 1 else all_names,
            "unpacked beside the handler when the model is loaded",
        )

    def _archive(self) -> Iterator[Line]:
        call = self.call
        if call.runtime == "LSP":
            self.notes.append("--runtime LSP is TorchServe's C++ backend, which nothing here runs")
        elif call.runtime == "python3":
            self.notes.append("--runtime python3: the manifest will say `python`")
        if not call.from_script:
            yield from FORMATS.get(call.archive_format or "default", ())
            suffix = {"tgz": ".tar.gz", "no-archive": ""}.get(call.archive_format or "", ".mar")
            why = "the file name that torch-model-archiver gives, without the version"
            yield Line("archive.filename", f"{{name}}{suffix}", why)
        if call.export_path:
            yield from self._directory(call.export_path)

    def _directory(self, export_path: str) -> Iterator[Line]:
        inside = self._inside(export_path)
        if inside is None:
            self.notes.append(
                f"--export-path {export_path} is a place on this machine: set the variable "
                "HATCH_MAR_DIR to it where you build"
            )
        else:
            value = posixpath.relpath(inside, "dist")
            yield Line("archive.directory", value, "from dist/, where builds leave what they make")

    def _line(self, key: str, text: str) -> Line:
        """Return the line for a file of the call; what is outside of the project has to come in."""
        text = self._at(text)
        inside = self._inside(text)
        if inside is not None:
            return Line(key, inside)
        name = posixpath.basename(text.rstrip("/"))
        return Line(key, name, f"copy {text} here: an archive is made of the project's own files")

    def _at(self, text: str) -> str:
        """Return where `text` is: in `--model-path` first, as `hatch-mar archive` looks for it."""
        if not self.call.model_path:
            return text
        inner = posixpath.join(self.call.model_path, text)
        found = [each for each in (inner, text) if glob.glob(each, root_dir=self.root)]  # noqa: PTH207 - a file or a pattern
        return found[0] if found else inner

    def _inside(self, text: str) -> str | None:
        """Return the path `text` from the root, or None if it leads out of it."""
        path = os.path.relpath(self.root / text, self.root)
        return None if PurePosixPath(path).parts[:1] == ("..",) else path

    def _read(self, text: str | None) -> bytes | None:
        path = self.root / self._at(text) if text else None
        try:
            return path.read_bytes() if path and path.is_file() else None
        except OSError:
            return None


def served_lines(project: str, served: str, version: str | None) -> Iterator[Line]:
    """Yield the served name and version where they are not the project's own."""
    if served != project:
        yield Line("name", served, "served under this name, which no distribution can have")
    if version:
        why = "served as this version, which the project's own can not be"
        yield Line("version", version, why)


def class_lines(source: bytes) -> Iterator[Line]:
    """Yield which class of a model file is the model, where that is a question."""
    names = class_names(source)
    if len(names) < 2:  # noqa: PLR2004 - nothing to choose between
        return
    try:
        found = [network.name for network in read_networks(source)] or list(names)
    except SourceError:
        return
    why = f"one of {', '.join(names)}: the one that the others are parts of"
    if len(found) > 1:
        why = f"{', '.join(found)} all look like the model; choose"
    yield Line("model-class", found[-1], why)


def requirement_lines(text: bytes) -> list[str]:
    """Return the requirements in a requirements file that can be dependencies of a wheel."""
    found = []
    for line in text.decode(errors="replace").lstrip("\ufeff").splitlines():
        bare = line.partition(" #")[0].partition(" --")[0].strip().removesuffix("\\").strip()
        try:
            name = canonicalize_name(Requirement(bare).name)
        except InvalidRequirement:
            continue
        if name not in BROUGHT_BY_THE_SERVER or name in ("torchvision", "torchaudio", "torchtext"):
            found.append(bare)
    return found


def named_extra_files(config: bytes | None) -> list[str] | None:
    """Return the names in `system.extraFiles` of a model-config.yaml; None if it cannot be read."""
    if config is None:
        return None
    try:
        values: object = parse_yaml(config, "")
    except ArchiveError:
        return None
    section = values.get("system") if isinstance(values, dict) else None
    named = section.get("extraFiles") if isinstance(section, dict) else None
    names = named if isinstance(named, list) else [named]
    return [name for name in names if isinstance(name, str)]
