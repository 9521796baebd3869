"""From a project's directory to a `MarSpec`, with everything that is wrong said at once."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from hatch_mar.archive.stamp import read_stamp
from hatch_mar.errors import Problem, ProblemsError
from hatch_mar.project.architecture import Architecture, resolve_architecture
from hatch_mar.project.baggage import factory_entries
from hatch_mar.project.clashes import complain_of_clashes
from hatch_mar.project.computing import check_computing
from hatch_mar.project.config import Config, read_config
from hatch_mar.project.document import parse, read_document, read_pyproject
from hatch_mar.project.examples import resolve_examples
from hatch_mar.project.explain import explain
from hatch_mar.project.extras import resolve_extras
from hatch_mar.project.handler import resolve_handler
from hatch_mar.project.identity import resolve_archive, resolve_identity, resolve_wheel
from hatch_mar.project.layout import distinct, find_collisions
from hatch_mar.project.packages import package_entries, resolve_packages
from hatch_mar.project.reading import Reading
from hatch_mar.project.requirements import resolve_requirements
from hatch_mar.project.runtime import Choice, choose_runtime
from hatch_mar.project.spec import Entry, Handler, MarSpec, WeightsFile
from hatch_mar.project.stock import note_loading, note_unpacking
from hatch_mar.project.tarball import KEY as TARBALL_KEY
from hatch_mar.project.tarball import resolve_tarballs
from hatch_mar.project.travel import follow_imports
from hatch_mar.project.validation import validate
from hatch_mar.project.weights import resolve_weights

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from hatch_mar.project.pinning import Wanted

NOTHING: Mapping[str, Any] = MappingProxyType({})

Place = tuple[str, Path | bytes | None]
"""A name in the model directory, and the file that is to be there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Build:
    """What a build knows better than the files."""

    environ: Mapping[str, str]
    name: str | None
    version: str | None
    dependencies: Sequence[str] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Contents:
    """What the model directory holds, apart from its configuration."""

    handler: Handler | None
    architecture: Architecture | None
    weights: tuple[WeightsFile, ...]
    plain: tuple[Entry, ...]
    tarball: str | None
    packed: tuple[Entry, ...]
    ready_made: tuple[Path, ...]
    """The author's own tarballs."""


def read_spec(
    root: Path,
    *,
    hook: Mapping[str, Any] = NOTHING,
    environ: Mapping[str, str] = os.environ,
    name: str | None = None,
    version: str | None = None,
    dependencies: Sequence[str] | None = None,
    unanswered: bool = False,
) -> MarSpec:
    """Read the project in `root`. Imports none of its code, and writes nothing.

    Args:
        root: The project's directory.
        hook: The build hook's own table; hatchling's keys in it are passed over.
        environ: Where `HATCH_MAR_*` and `SOURCE_DATE_EPOCH` are looked up.
        name: The project's name, where a build knows it better than pyproject.toml.
        version: The project's version, likewise: a dynamic one is known to a build only.
        dependencies: The project's dependencies, likewise.
        unanswered: Whether outputs of examples may be missing or wrong: somebody will write them.

    Raises:
        ProblemsError: everything that is wrong with what the author wrote.
    """
    reading = _read_table(root, hook, environ)
    reading.unanswered = unanswered
    build = _Build(environ=environ, name=name, version=version, dependencies=dependencies)
    spec = _resolve(reading, build)
    if reading.problems or spec is None:
        raise ProblemsError(list(dict.fromkeys(reading.problems)))
    return spec


def read_wanted(
    root: Path, *, hook: Mapping[str, Any] = NOTHING, environ: Mapping[str, str] = os.environ
) -> tuple[Wanted, ...]:
    """Return the weights that the project in `root` refers to, locked or not.

    What else is wrong with the project is of no interest here.

    Raises:
        ProblemsError: everything that is wrong with its settings, its weights or mar.lock.
    """
    reading = _read_table(root, hook, environ)
    reading.locking = True
    resolve_weights(reading, read_config(reading))
    if reading.problems:
        raise ProblemsError(list(dict.fromkeys(reading.problems)))
    return tuple(reading.wanted)


def _read_table(root: Path, hook: Mapping[str, Any], environ: Mapping[str, str]) -> Reading:
    root = root.resolve()
    problems: list[Problem] = []
    pyproject = read_pyproject(root, problems)
    if problems:
        raise ProblemsError(problems)  # there is nothing to go by
    document = read_document(root, pyproject, hook, environ, problems)
    valid = validate(document, problems)
    return Reading(
        root=root,
        pyproject=pyproject,
        document=document,
        table=valid.table,
        broken=valid.broken,
        kept=valid.kept,
        problems=problems,
    )


def _resolve(reading: Reading, build: _Build) -> MarSpec | None:
    """Resolve every key; None if the handler or the runtime cannot be told."""
    identity = resolve_identity(reading, project_name=build.name, project_version=build.version)
    config = read_config(reading)
    contents = _read_contents(reading, config)
    runtime = _choose_runtime(reading, contents, config)
    if contents.handler and runtime:
        note_loading(
            reading,
            contents.handler,
            runtime.runtime,
            contents.weights,
            model_path=config.model_path,
        )
        check_computing(reading, config, runtime.runtime)
    _name_references(config, contents.weights)
    requirements = resolve_requirements(reading, build.dependencies)
    examples, answers, example_entries = resolve_examples(reading)
    config_entry = config.entry()
    rest = [entry for entry in (requirements, config_entry) if entry is not None]
    entries = distinct([*contents.plain, *rest, *example_entries])
    _check_layout(reading, entries, contents)
    archive = resolve_archive(reading, identity)
    wheel = resolve_wheel(reading, identity)
    created_on = _created_on(reading, build.environ)
    if contents.handler is None or runtime is None:
        return None
    return MarSpec(
        root=reading.root,
        name=identity.name,
        version=identity.version,
        description=identity.description,
        package=identity.package,
        handler=contents.handler,
        runtime=runtime.runtime,
        runtime_reason=runtime.reason,
        model_file=contents.architecture.manifest if contents.architecture else None,
        weights=contents.weights,
        entries=entries,
        tarball=contents.tarball,
        tarball_entries=contents.packed,
        requirements_file=requirements.name if requirements else None,
        config_file=config_entry.name if config_entry else None,
        config=config.values,
        examples=examples,
        answers=answers,
        archive=archive,
        wheel=wheel,
        created_on=created_on,
        files=tuple(reading.files),
        notes=tuple(dict.fromkeys(reading.notes)),
        stock=tuple(dict.fromkeys(reading.stock)),
        settings=explain(reading, identity, config),
    )


def _read_contents(reading: Reading, config: Config) -> _Contents:
    """Find every file that the handler needs, and say in `config` how they are packed."""
    packages = resolve_packages(reading)
    handler = resolve_handler(reading, packages)
    architecture = resolve_architecture(reading)
    extras = resolve_extras(reading, handler.path if handler else None)
    tarballs = resolve_tarballs(reading, config, extras)
    carried = {each.name for each in (*extras.plain, *extras.packed, *tarballs.ready_made)}
    weights = resolve_weights(reading, config, carried)
    placed = {*config.places(), *((file.target, file.path) for file in weights)}
    plain = _without(
        placed,
        distinct(
            [
                *(handler.entries if handler else ()),
                *(architecture.entries if architecture else ()),
                *package_entries(reading, packages),
                *extras.plain,
                *tarballs.ready_made,
            ]
        ),
    )
    packed = _without({*placed, *((each.name, each.source) for each in plain)}, extras.packed)
    start = [handler.path] if handler and handler.path else []
    if architecture:
        start += [each.source for each in architecture.entries if isinstance(each.source, Path)]
    unpacked = (*packed, *tarballs.contents)
    travel = follow_imports(reading, start, plain, unpacked)
    note_unpacking(reading, travel, plain, unpacked)
    ours = factory_entries(reading, travel, handler, (*plain, *packed))
    return _Contents(
        handler=handler,
        architecture=architecture,
        weights=weights,
        plain=(*plain, *ours),
        tarball=tarballs.built,
        packed=packed,
        ready_made=tuple(
            each.source for each in tarballs.ready_made if isinstance(each.source, Path)
        ),
    )


def _without(placed: Collection[Place], entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """Drop the entries that put a file where it is already: a glob or a package may hold it too."""
    return tuple(entry for entry in entries if (entry.name, entry.source) not in placed)


def _choose_runtime(reading: Reading, contents: _Contents, config: Config) -> Choice | None:
    table = reading.table
    if table.model_args and table.model_file is None:
        reading.complain(
            ("model-args",),
            "needs `model-file`; a handler_factory is given them itself: "
            "handler_factory(..., name=value)",
        )
    incomplete = reading.broken & {"weights", "model-file", "runtime"}
    lost = len({file.key for file in contents.weights}) < len(table.weights)
    unread = table.model_file is not None and contents.architecture is None
    if contents.handler is None or incomplete or lost or unread:
        return None  # what is missing has been complained of
    primary = next((file.target for file in contents.weights if file.primary), None)
    if primary is None and config.model_path:
        primary = config.model_path
        if Path(primary).is_absolute():
            reading.notes.append(
                f"handler.model_path: nobody checks '{primary}'; it has to be on the server already"
            )
    return choose_runtime(
        reading, contents.handler, model_file=contents.architecture is not None, weights=primary
    )


def _name_references(config: Config, weights: tuple[WeightsFile, ...]) -> None:
    """Say where referenced weights are, in the key that TorchServe's documents give for it."""
    primary = next((file for file in weights if file.primary and file.reference), None)
    if primary is not None and config.model_path is None and not primary.at_path:
        config.set("handler", "model_path", primary.target)


def _check_layout(reading: Reading, entries: tuple[Entry, ...], contents: _Contents) -> None:
    """Complain of everything that would meet in the model directory."""
    held = [Entry(file.target, file.path or b"", file.key) for file in contents.weights]
    if contents.tarball:
        held.append(Entry(contents.tarball, b"", TARBALL_KEY))
    for key, message in find_collisions((*entries, *held, *contents.packed), reading.relative):
        reading.complain(parse(key), message)
    placed = [(each.name, each.source) for each in (*entries, *contents.packed)]
    weights = [(file.target, file.path) for file in contents.weights]
    complain_of_clashes(reading, contents.ready_made, [*placed, *weights])
    embedded = {file.path for file in contents.weights if file.path}
    for entry in (*entries, *contents.packed):
        if entry.source in embedded:
            reading.notes.append(f"{entry.name}: weights that `{entry.key}` carries a second time")


def _created_on(reading: Reading, environ: Mapping[str, str]) -> str:
    try:
        return read_stamp(environ)
    except ProblemsError as error:
        reading.problems.extend(error.problems)
        return ""
