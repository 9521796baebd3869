"""The handler of an archive, found by reading: as a server would find it, without running it."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hatch_mar.project.baggage import FACTORY_FILE
from hatch_mar.project.handler import DEFAULT_HANDLERS, ENTRY_POINT, whose_initialize
from hatch_mar.project.source import Module, SourceError, parse_module

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hatch_mar.archive.read import Archive
    from hatch_mar.project.spec import Initialize

LARGEST_SOURCE = 4 << 20
"""Bytes of a Python file that are worth parsing."""
FACTORY_MARKER = b"HATCH_MAR_BASE_HANDLER = 1"
"""The line that marks our own `base_handler.py` in an archive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchivedHandler:
    """What the manifest's `handler` comes to."""

    found: str
    """How it was found, for a person."""
    initialize: Initialize
    own_inference: bool = False
    default: str | None = None
    """The default handler that it is, if it is one."""
    module: Module | None = None
    """Its source, if the archive has it."""
    only_here: str | None = None
    """Why stock TorchServe would not find it, though hatch-mar does."""


class HandlerNotFoundError(Exception):
    """A handler that no server could find, with the reason."""


def read_member(archive: Archive, name: str) -> Module:
    """Read a Python file of `archive`.

    Raises:
        SourceError: it is not Python, or far too large for it.
        ArchiveError: it cannot be read.
    """
    if archive.size(name) > LARGEST_SOURCE:
        raise SourceError("is too large to be somebody's source")
    return parse_module(archive.read(name), name)


def has_factory(archive: Archive) -> bool:
    """Say whether the archive carries our `base_handler.py`."""
    return (
        FACTORY_FILE in archive
        and archive.size(FACTORY_FILE) <= LARGEST_SOURCE
        and FACTORY_MARKER in archive.read(FACTORY_FILE)
    )


def find_handler(archive: Archive, text: str) -> ArchivedHandler:
    """Find the handler that `text`, as the manifest has it, names.

    Raises:
        HandlerNotFoundError: no server could find one.
        SourceError: its file is not Python; the message starts with the file.
        ArchiveError: its file cannot be read.
    """
    name, _, attribute = text.partition(":")
    bare = name.removesuffix(".py")
    last = bare.rpartition("/")[2]
    file = next((each for each in _candidates(bare, last) if each in archive), None)
    ours = file == FACTORY_FILE and has_factory(archive)
    if last in DEFAULT_HANDLERS and (file is None or ours):
        return ArchivedHandler(
            found=f"default handler {last}", initialize="inherited", default=last
        )
    if file is None:
        return _outside(archive, text, last)
    try:
        module = read_member(archive, file)
    except SourceError as error:
        raise SourceError(f"{file}: {error}") from error
    return _choose(module, file, attribute)


def _candidates(bare: str, last: str) -> Iterator[str]:
    """Yield the files in which a server would find the module."""
    for stem in dict.fromkeys((last, bare.strip("/"), bare.strip("/").replace(".", "/"))):
        if stem:
            yield f"{stem}.py"
            yield f"{stem}/__init__.py"


def _outside(archive: Archive, text: str, last: str) -> ArchivedHandler:
    """Accept a handler of an installed package; nothing of it is imported to find that out."""
    top = last.partition(".")[0]
    if top.isidentifier() and _is_installed(top):
        return ArchivedHandler(found=f"`{text}`, of an installed package", initialize="unknown")
    files = ", ".join(each for each in archive.names() if "/" not in each and each.endswith(".py"))
    raise HandlerNotFoundError(
        f"'{text}' is neither a module of the archive nor a default handler; "
        f"Python files at its root: {files or 'none'}"
    )


def _is_installed(top: str) -> bool:
    try:
        return importlib.util.find_spec(top) is not None
    except ValueError:  # `__main__`, which is ourselves
        return False


def _choose(module: Module, file: str, attribute: str) -> ArchivedHandler:
    """Decide as a server does: the function that was named, else `handle`, else the only class."""
    wanted = attribute or ENTRY_POINT
    if wanted in module.classes:
        reason = f"handler: `{wanted}` is a class, and TorchServe would call it as a function"
        return _class(module, file, wanted, only_here=reason)
    if wanted in module.names:
        made = " = handler_factory(...)" if wanted in module.factories else ""
        return ArchivedHandler(found=f"{file}: `{wanted}{made}`", initialize="own", module=module)
    if len(module.classes) == 1:
        return _class(module, file, next(iter(module.classes)))
    if module.has_star_import:
        return ArchivedHandler(
            found=f"{file}: whatever its star import brings", initialize="unknown", module=module
        )
    if not module.classes and len(module.factories) == 1:
        return ArchivedHandler(
            found=f"{file}: `{module.factories[0]} = handler_factory(...)`",
            initialize="own",
            module=module,
            only_here=f"handler: TorchServe has to be told its name, "
            f"'{file.removesuffix('.py')}:{module.factories[0]}'",
        )
    names = ", ".join(f"'{name}'" for name in module.classes) or "none"
    raise HandlerNotFoundError(
        f"{file} has neither a function '{wanted}' nor exactly one class; its classes: {names}"
    )


def _class(
    module: Module, file: str, name: str, *, only_here: str | None = None
) -> ArchivedHandler:
    chosen = module.classes[name]
    if not chosen.bases and "handle" not in chosen.methods:
        raise HandlerNotFoundError(f"{file}: class '{name}' has no method 'handle'")
    return ArchivedHandler(
        found=f"{file}: class `{name}`",
        initialize=whose_initialize(module, chosen),
        own_inference=not chosen.methods.isdisjoint({"inference", "handle"}),
        module=module,
        only_here=only_here,
    )
