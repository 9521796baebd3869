"""What can be proved of an archive without running it: what is wrong, and who could serve it.

A project is checked before it becomes an archive, and more strictly. This is for archives that
exist, whoever made them: what TorchServe shrugs at is a note here.
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hatch_mar.archive.manifest import MANIFEST_NAME
from hatch_mar.archive.modelconfig import ModelConfig, check_model_config, read_model_config
from hatch_mar.archive.modelpath import find_target
from hatch_mar.errors import ArchiveError, Problem
from hatch_mar.project.archived import (
    ArchivedHandler,
    HandlerNotFoundError,
    find_handler,
    has_factory,
    read_member,
)
from hatch_mar.project.baggage import PACKAGE_FILE
from hatch_mar.project.requirements import find_flaws
from hatch_mar.project.runtime import ROWS, STATE_DICTS
from hatch_mar.project.source import Module, SourceError
from hatch_mar.project.stock import (
    BASE_HANDLER,
    ENVELOPE,
    NO_PATH,
    ONLY_HERE_UNPACKED,
    why_not_loaded,
)
from hatch_mar.project.travel import FACTORY_MODULE, PACKAGE_MODULE

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from hatch_mar.archive.read import Archive

STOCK_PACKAGE = "ts"
"""TorchServe's own package, whose modules a handler imports."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OurServer:
    """What the proof has to know of hatch-mar's own server, which this room may not ask."""

    default_handlers: Collection[str]
    """Names that a manifest may use without bringing a module."""
    has_module: Callable[[str], bool]
    """Whether a handler can import a module `ts.x`."""


@dataclass(slots=True, kw_only=True)
class Proof:
    """What is known of an archive by looking at it."""

    problems: list[Problem] = field(default_factory=list)
    """Why nobody could serve it."""
    notes: list[str] = field(default_factory=list)
    not_here: list[str] = field(default_factory=list)
    """Why hatch-mar cannot serve it."""
    not_stock: list[str] = field(default_factory=list)
    """Why stock TorchServe 0.12 cannot serve it as it is."""
    handler: ArchivedHandler | None = None
    runtime: str | None = None
    """How the model is loaded; None if nobody can tell."""

    def complain(self, file: str, key: str, message: str) -> None:
        """Add a problem."""
        self.problems.append(Problem(file, key, message))


def prove(archive: Archive, server: OurServer) -> Proof:
    """Look at everything in `archive` that can be judged by reading; its code is not run."""
    proof = Proof()
    config = _read_config(archive, proof)
    _find_handler(archive, proof, server)
    if proof.handler is not None:
        _judge_loading(archive, proof, proof.handler, config)
        _judge_unpacking(archive, proof, proof.handler, config)
    _judge_requirements(archive, proof)
    _read_sources(archive, proof)
    if archive.seal is None:
        proof.notes.append("no seal: nobody can tell whether it is what its author built")
    else:
        proof.notes += [
            f"{name}: its author lets `torch.load` unpickle it without restriction"
            for name in archive.seal.trusted_pickle
        ]
    proof.notes = list(dict.fromkeys([*archive.warnings, *proof.notes]))
    return proof


def _read_config(archive: Archive, proof: Proof) -> ModelConfig:
    name = archive.manifest.config_file or ""
    try:
        raw = archive.config
    except ArchiveError as error:
        proof.complain(name, "", str(error).removeprefix(f"{archive.path}: {name}: "))
        return read_model_config(None)
    config = read_model_config(raw)
    taken = {warning.partition(":")[0] for warning in config.warnings}
    proof.notes += [f"{name}: {warning}" for warning in config.warnings]
    proof.notes += [
        str(problem)
        for problem in check_model_config(raw, name)
        if problem.key not in taken  # what became of it has been said
    ]
    for extra in config.system_extra_files:
        if extra not in archive:
            proof.not_here.append(f"{name}: system.extraFiles: there is no member '{extra}'")
    return config


def _find_handler(archive: Archive, proof: Proof, server: OurServer) -> None:
    text = archive.manifest.handler
    if not text:
        if archive.has_manifest:
            message = "is missing: is it the archive of a model?"
            proof.complain(MANIFEST_NAME, "model.handler", message)
        else:
            message = "is missing, so nothing names a handler: is it the archive of a model?"
            proof.complain(MANIFEST_NAME, "", message)
        return
    try:
        proof.handler = handler = find_handler(archive, text)
    except HandlerNotFoundError as error:
        proof.complain(MANIFEST_NAME, "model.handler", str(error))
        return
    except SourceError as error:
        file, _, message = str(error).partition(": ")
        proof.complain(file, "", message)
        return
    if handler.default is not None and handler.default not in server.default_handlers:
        proof.not_here.append(f"handler: hatch-mar has no default handler '{handler.default}' yet")
    if handler.default == BASE_HANDLER:
        proof.not_stock.append(f"handler: {ENVELOPE}")
    if handler.only_here:
        proof.not_stock.append(handler.only_here)
    if handler.module is not None:
        _judge_imports(archive, proof, handler.module, server)


def _judge_imports(archive: Archive, proof: Proof, module: Module, server: OurServer) -> None:
    """Say which server lacks what the handler cannot do without."""
    for each in module.imports:
        if each.fallback or each.level:
            continue
        where = f"handler: line {each.line}"
        if each.top == STOCK_PACKAGE and not server.has_module(each.module):
            proof.not_here.append(f"{where}: hatch-mar has no module '{each.module}'")
        if each.top == PACKAGE_MODULE and PACKAGE_FILE not in archive:
            proof.not_stock.append(
                f"{where}: hatch_mar has to be installed beside TorchServe; "
                f"import {FACTORY_MODULE} instead"
            )


def _judge_loading(
    archive: Archive, proof: Proof, handler: ArchivedHandler, config: ModelConfig
) -> None:
    """Follow the flowchart: whose `initialize` loads what, and is it there?"""
    manifest = archive.manifest
    references = archive.seal.references if archive.seal else ()
    at_path = find_target(config.raw, references)
    referenced = {each.target: True for each in references if each.target != at_path}
    section = config.raw.get("handler")
    path = section.get("model_path") if isinstance(section, dict) else None
    path = path if isinstance(path, str) and path not in referenced else None
    weights = manifest.serialized_file or next(iter(referenced), path)
    inherited = handler.initialize == "inherited"
    file = manifest.serialized_file
    if file and file not in archive and file not in referenced:
        _miss(proof, "serializedFile", file, fatal=inherited)
    if manifest.model_file and manifest.model_file not in archive:
        _miss(proof, "modelFile", manifest.model_file, fatal=inherited)
    proof.runtime = "custom" if handler.initialize == "own" else _runtime(archive, weights)
    if archive.seal is not None:
        proof.runtime = archive.seal.runtime
    if inherited:
        _judge_inherited(archive, proof, weights)
        if path is not None and not file and not referenced:
            proof.not_stock.append(f"handler.model_path: {NO_PATH}")
    held = {file: False} if file and file not in referenced else {}
    proof.not_stock += why_not_loaded(
        {**held, **referenced},
        runtime=proof.runtime or "custom",
        initialize=handler.initialize,
        own_inference=handler.own_inference,
    )


def _miss(proof: Proof, key: str, name: str, *, fatal: bool) -> None:
    """Say that a file which the manifest names is not there: fatal to what needs it."""
    if fatal:
        proof.complain(MANIFEST_NAME, f"model.{key}", f"'{name}' is not in the archive")
    else:
        proof.notes.append(f"{MANIFEST_NAME}: model.{key}: '{name}' is not in the archive")


def _runtime(archive: Archive, weights: str | None) -> str | None:
    suffix = posixpath.splitext(weights or "")[1].lower()
    has_model = archive.manifest.model_file is not None
    rows = (row for row in ROWS if row.model_file == has_model and suffix in row.suffixes)
    return next((row.runtime for row in rows), None)


def _judge_inherited(archive: Archive, proof: Proof, weights: str | None) -> None:
    """Hold what BaseHandler needs against what there is."""
    model_file = archive.manifest.model_file
    if model_file is not None:
        _judge_model_file(archive, proof, model_file)
    elif weights is None:
        proof.complain(
            MANIFEST_NAME,
            "model.serializedFile",
            "is missing: the handler leaves loading to BaseHandler, and there is nothing to load",
        )
    elif proof.runtime is None and weights.lower().endswith(STATE_DICTS):
        proof.complain(
            MANIFEST_NAME,
            "model.modelFile",
            f"is missing: '{weights}' holds weights alone, and the handler leaves loading to "
            "BaseHandler",
        )


def _judge_model_file(archive: Archive, proof: Proof, name: str) -> None:
    if name not in archive:
        return
    try:
        module = read_member(archive, name)
    except SourceError as error:
        proof.complain(name, "", str(error))
        return
    count = len(module.classes)
    if count == 0 and not module.has_star_import:
        proof.complain(name, "", "defines no class: BaseHandler looks for the model's")
    elif count > 1:
        names = ", ".join(module.classes)
        proof.not_stock.append(f"{name}: has {count} classes ({names}); TorchServe takes one alone")


def _judge_unpacking(
    archive: Archive, proof: Proof, handler: ArchivedHandler, config: ModelConfig
) -> None:
    """Say where stock TorchServe would not find what is in the tarball."""
    imports = handler.module.imports if handler.module else ()
    unpacked = has_factory(archive) and any(each.module == FACTORY_MODULE for each in imports)
    if config.system_extra_files and not unpacked:
        proof.not_stock.append(ONLY_HERE_UNPACKED)


def _judge_requirements(archive: Archive, proof: Proof) -> None:
    name = archive.manifest.requirements_file
    if name is None:
        return
    if name not in archive:
        proof.notes.append(f"{name}: named in the manifest, but not in the archive")
        return
    try:
        flaws = list(find_flaws(archive.read(name)))
    except UnicodeDecodeError as error:
        proof.notes.append(f"{name}: is not UTF-8: {error}")
    else:
        proof.notes += [f"{name}: line {line}: {why}" for line, why in flaws]


def _read_sources(archive: Archive, proof: Proof) -> None:
    """Note what else is not Python, though its name says so: nobody may ever import it."""
    said = {problem.file for problem in proof.problems}
    for name in archive.names():
        if name.endswith(".py") and name not in said:
            try:
                read_member(archive, name)
            except SourceError as error:
                proof.notes.append(f"{name}: {error}")
