"""The options of torch-model-archiver 0.12 become a `Plan`.

Every option means what it means there. Where the old program loses something or builds what no
server can load, this is a problem, and all problems are reported together; where it merely lets
something pass, a warning.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hatch_mar.archive.manifest import Manifest
from hatch_mar.archive.modelconfig import check_model_config, parse_model_config, parse_yaml
from hatch_mar.archive.plan import Format, Plan
from hatch_mar.archive.stamp import read_stamp
from hatch_mar.errors import ArchiveError, Problem, ProblemsError
from hatch_mar.project.archiver.commandline import FLAGS, CommandLine
from hatch_mar.project.archiver.flattening import is_below, resolve_extra_files, without_copies
from hatch_mar.project.archiver.named_handler import (
    resolve_compiled_handler,
    resolve_python_handler,
)
from hatch_mar.project.baggage import factory_entries
from hatch_mar.project.document import Document, KeyPath
from hatch_mar.project.layout import find_collisions
from hatch_mar.project.planning import to_member
from hatch_mar.project.reading import is_lfs_pointer
from hatch_mar.project.requirements import find_flaws
from hatch_mar.project.runtime import choose_runtime
from hatch_mar.project.spec import Entry
from hatch_mar.project.table import MarTable
from hatch_mar.project.travel import follow_imports

if TYPE_CHECKING:
    from hatch_mar.project.spec import Handler

COMPILED = "LSP"
"""TorchServe's C++ backend."""
RUNTIMES = ("python", "python3", COMPILED)
DEFAULT_VERSION = "1.0"
"""What servers call a model whose manifest has no version."""
NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9_\-.]*"


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """One of the formats of `--archive-format`."""

    format: Format
    compression: Literal["stored", "deflated"]
    suffix: str


FORMS: Mapping[str, Form] = {
    "default": Form(format="mar", compression="deflated", suffix=".mar"),
    "zip-store": Form(format="mar", compression="stored", suffix=".mar"),
    "tgz": Form(format="tgz", compression="stored", suffix=".tar.gz"),
    "no-archive": Form(format="dir", compression="stored", suffix=""),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiverOptions:
    """What was asked for; an option with an empty value counts as not given."""

    model_name: str
    version: str
    handler: str
    serialized_file: str | None = None
    model_file: str | None = None
    extra_files: str | None = None
    runtime: str = "python"
    export_path: str = ""
    """An existing directory; the current one unless given."""
    archive_format: str = "default"
    force: bool = False
    requirements_file: str | None = None
    config_file: str | None = None
    model_path: str | None = None
    """Where relative files are looked for first; what is not there, in the current directory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What to write, and where."""

    plan: Plan
    path: Path
    handler: str
    """How the handler was found, for a person."""
    warnings: tuple[str, ...]


def read_order(options: ArchiverOptions, environ: Mapping[str, str] = os.environ) -> Order:
    """Decide what `options` ask for, without writing anything.

    Raises:
        ProblemsError: everything that is wrong with them.
    """
    reading = _reading(options)
    form = FORMS.get(options.archive_format)
    if form is None:
        _complain_of_choice(reading, "archive-format", options.archive_format, FORMS)
        form = FORMS["default"]
    if options.runtime not in RUNTIMES:
        _complain_of_choice(reading, "runtime", options.runtime, RUNTIMES)
    _check_name(reading, options.model_name)
    path = _check_output(reading, options, form)
    compiled = options.runtime == COMPILED
    resolve_handler = resolve_compiled_handler if compiled else resolve_python_handler
    handler = resolve_handler(reading, options.handler)
    files = {
        "model-file": _file(reading, "model-file", options.model_file),
        "weights": _file(reading, "weights", options.serialized_file),
        "requirements": _file(reading, "requirements", options.requirements_file),
        "config": _file(reading, "config", options.config_file),
    }
    extras = resolve_extra_files(reading, options.extra_files or "", path)
    entries = _lay_out(reading, handler, [each for each in files.values() if each], extras)
    _check_replaced(reading, entries, path)
    _check_weights(reading, files["weights"])
    _check_requirements(reading, files["requirements"])
    _check_config(reading, files["config"], {each.name for each in entries})
    created_on = _stamp(reading, environ)
    if handler is None or reading.problems:
        raise ProblemsError(reading.problems)
    names = {key: entry.name if entry else None for key, entry in files.items()}
    plan = Plan(
        name=options.model_name,
        version=options.version or DEFAULT_VERSION,
        manifest=Manifest(
            model_name=options.model_name,
            model_version=options.version or None,
            handler=handler.manifest,
            serialized_file=names["weights"],
            model_file=names["model-file"],
            requirements_file=names["requirements"],
            config_file=names["config"],
            runtime=options.runtime,
            created_on=created_on,
        ),
        members=tuple(to_member(each.name, each.source) for each in entries),
        runtime=_choose_runtime(reading, handler, names),
        format=form.format,
        compression=form.compression,
        filename=path.name,
    )
    return Order(plan=plan, path=path, handler=handler.found, warnings=tuple(reading.notes))


def _reading(options: ArchiverOptions) -> CommandLine:
    try:
        here = Path.cwd()
    except FileNotFoundError as error:
        message = "the current directory has been removed; change to another one"
        raise ProblemsError([Problem("", "", message)]) from error
    reading = CommandLine(
        root=here,
        pyproject={},
        document=Document(),
        table=MarTable(),
        broken=frozenset(),
        places=(here,),
    )
    if options.model_path:
        folder = here / options.model_path
        if folder.is_dir():
            reading.places = (folder, here)
        else:
            reading.complain(("model-path",), f"'{options.model_path}' is not a directory")
    return reading


def _complain_of_choice(reading: CommandLine, key: str, value: str, choices: Iterable[str]) -> None:
    reading.complain((key,), f"{value!r} is not one of {', '.join(choices)}")


def _check_name(reading: CommandLine, name: str) -> None:
    if not re.fullmatch(NAME_PATTERN, name):
        reading.complain(
            ("name",),
            f"{name!r} cannot be a model's name; it must begin with a letter or digit and hold "
            "only letters, digits, '_', '.' and '-'",
        )


def _check_output(reading: CommandLine, options: ArchiverOptions, form: Form) -> Path:
    folder = reading.root / options.export_path
    path = folder / f"{options.model_name}{form.suffix}"
    if not folder.is_dir():
        reading.complain(("export-path",), f"'{options.export_path}' is not a directory; make it")
    elif not re.fullmatch(NAME_PATTERN, options.model_name):
        return path  # which has been complained of
    elif os.path.lexists(path):
        shown = reading.relative(path)
        if options.force:
            reading.warn(f"Overwriting {shown} ...")
        else:
            reading.complain(("export-path",), f"'{shown}' already exists; --force overwrites it")
    return path


def _file(reading: CommandLine, key: str, text: str | None) -> Entry | None:
    """Return the one file that an option names, if it was given and is there."""
    path = reading.find_file((key,), text) if text else None
    return None if path is None else Entry(path.name, path, FLAGS[key])


def _lay_out(
    reading: CommandLine, handler: Handler | None, files: list[Entry], extras: tuple[Entry, ...]
) -> tuple[Entry, ...]:
    """Return all members, sorted, with what the handler's imports need of ours.

    Complains of those that meet at one place.
    """
    own = handler.entries if handler else ()
    entries = tuple(without_copies((*own, *files, *extras)))
    start = [handler.path] if handler and handler.path else []
    start += [
        each.source
        for each in files
        if isinstance(each.source, Path) and each.key == FLAGS["model-file"]
    ]
    travel = follow_imports(reading, start, entries, ())
    entries = (*entries, *factory_entries(reading, travel, handler, entries))
    for flag, message in find_collisions(entries, reading.relative, lambda _: "rename one"):
        reading.complain(_key_of(flag), message)
    return tuple(sorted(entries, key=lambda entry: entry.name))


def _check_replaced(reading: CommandLine, entries: tuple[Entry, ...], path: Path) -> None:
    """Complain of files in the directory that the archive will take the place of."""
    if not path.is_dir():
        return
    for each in entries:
        if isinstance(each.source, Path) and is_below(each.source, path):
            message = f"is in '{reading.relative(path)}', which will be replaced; move it"
            reading.complain(_key_of(each.key), f"'{reading.relative(each.source)}' {message}")


def _key_of(flag: str) -> KeyPath:
    return (next((key for key, each in FLAGS.items() if each == flag), "handler"),)


def _check_weights(reading: CommandLine, weights: Entry | None) -> None:
    if weights and isinstance(weights.source, Path) and is_lfs_pointer(weights.source):
        message = f"'{weights.name}' is what Git LFS left for it; run `git lfs pull`"
        reading.complain(("weights",), message)


def _check_requirements(reading: CommandLine, requirements: Entry | None) -> None:
    """Warn of lines that mean nothing on another machine."""
    if requirements is None or isinstance(requirements.source, bytes):
        return
    path = requirements.source
    try:
        for line, flaw in find_flaws(path.read_bytes()):
            reading.complain_of_file(path, f"line {line}", flaw)
    except UnicodeDecodeError as error:
        reading.complain_of_file(path, "", f"is not UTF-8: {error}")


def _check_config(reading: CommandLine, config: Entry | None, names: set[str]) -> None:
    """Complain of what is no mapping in YAML, and warn of what would not do what it says."""
    if config is None or isinstance(config.source, bytes):
        return
    data, file = config.source.read_bytes(), reading.relative(config.source)
    try:
        value = parse_yaml(data, file)
    except ArchiveError as error:
        reading.complain(("config",), str(error))
        return
    if value is not None and not isinstance(value, dict):
        reading.complain(("config",), f"{file}: must be a mapping")
        return
    values, problems = parse_model_config(data, file)
    for problem in (*problems, *check_model_config(values, file)):
        reading.warn(str(problem))
    for each in _tarballs(values):
        if each not in names:
            message = f"system.extraFiles: '{each}' is not in the archive; add it to --extra-files"
            reading.warn(f"{file}: {message}")


def _tarballs(config: Mapping[str, object]) -> list[str]:
    """Return the names of what a server is to unpack beside the handler."""
    system = config.get("system")
    named = system.get("extraFiles") if isinstance(system, Mapping) else None
    names = named if isinstance(named, list) else [named]
    return [name for name in names if isinstance(name, str)]


def _stamp(reading: CommandLine, environ: Mapping[str, str]) -> str:
    try:
        return read_stamp(environ)
    except ProblemsError as error:
        reading.problems.extend(error.problems)
        return ""


def _choose_runtime(reading: CommandLine, handler: Handler, names: Mapping[str, str | None]) -> str:
    """Take the row of the flowchart that fits; where none does, the handler has to know better."""
    choice = choose_runtime(
        reading, handler, model_file=names["model-file"] is not None, weights=names["weights"]
    )
    if choice is not None:
        return choice.runtime
    reading.problems.clear()  # of a build's; there were none of ours
    what = f"'{names['weights']}'" if names["weights"] else "a model of no file"
    beside = "" if names["model-file"] or not names["weights"] else " without --model-file"
    message = "the handler leaves loading to TorchServe's BaseHandler, which cannot load"
    reading.warn(f"--serialized-file: {message} {what}{beside}")
    return "custom"
